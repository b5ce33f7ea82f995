//! One connection of one device.
//!
//! Each client-opened bidirectional stream carries one request and its
//! answer. What the hub has to say unasked goes out on unidirectional streams
//! that the hub opens, one frame each, then FIN.
//!
//! A bad request gets its numbered refusal and the session goes on, except
//! after the refusals that close it
//! ([`RefusalCode::closes_connection`](hub_protocol::RefusalCode::closes_connection)):
//! the device closes once it has read one, and the hub a second later at the
//! latest, with the refusal's number as QUIC application error code.

use std::sync::Arc;
use std::time::Duration;

use hub_protocol::{Answer, DeviceId, Digest, Refusal, RefusalCode, frame};
use quinn::{Connection, RecvStream, SendStream};
use tokio::sync::mpsc;

use super::registry::Standing;
use super::request;
use super::sessions::{Outgoing, close_for};
use super::shared::{Shared, WireVersion};
use super::signatures::Conduct;
use crate::port::Tell;

/// How long a device may take to read its last answer and close.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long whoever is turned away may take to ask for something.
const TURN_AWAY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a push may take before it is given up.
const PUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a device may take to make room for an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whom a connection belongs to.
pub(super) struct Peer {
    pub(super) device: DeviceId,
    /// The TLS key that it was made with.
    pub(super) key: Digest,
    pub(super) wire: WireVersion,
    pub(super) conduct: Conduct,
    connection: Connection,
}

/// Serves a connection until it ends.
pub(super) async fn run(shared: Arc<Shared>, (device, key): (DeviceId, Digest), connection: Connection) {
    let is_pending = |device: &DeviceId| shared.registry.is_pending(device);
    let (pushes, made_room) = match shared.sessions.open((device, key), &connection, is_pending) {
        Ok(opened) => opened,
        Err(bound) => {
            shared.counts.count(bound);
            return close_for(&connection, &too_many_wait());
        }
    };
    if let Some(bound) = made_room {
        shared.counts.count(bound);
    }
    // Looked up once more, after `open`: whoever blocks the device or ends its
    // key from now on finds this connection and closes it, and what was done
    // since the handshake shows here.
    let standing = shared.registry.owner(&key).map(|(_, standing)| standing);
    if let Some(Standing::Own { .. } | Standing::GivingWay) = standing {
        tracing::debug!(device = %device.short(), from = %connection.remote_address(), "device connected");
        let wire = WireVersion::of(&connection);
        shared.sessions.hears(device, wire.number(), 0);
        if let Some(Standing::Own { first_time: true }) = standing {
            shared.port.hint(Tell::KeysUsed { device, old: false });
        }
        if shared.tls.stated().is_some() {
            // The certificate says it too, if not one from before the change.
            shared.sessions.push(&device, Outgoing::TlsKeys);
        }
        let pusher = tokio::spawn(push(Arc::clone(&shared), device, connection.clone(), pushes));
        let peer = Arc::new(Peer {
            device,
            key,
            wire,
            conduct: Conduct::default(),
            connection: connection.clone(),
        });
        while let Ok((send, recv)) = connection.accept_bi().await {
            // Above its rate the device waits here, with all its streams.
            tokio::select! {
                () = shared.pace.turn(&device) => {}
                _ = connection.closed() => break,
            }
            notice_place(&shared, &peer);
            // As many at once as the transport's limit on streams lets through.
            tokio::spawn(serve(Arc::clone(&shared), Arc::clone(&peer), send, recv));
        }
        pusher.abort();
        tracing::debug!(device = %device.short(), "device disconnected");
    }
    let is_last = shared.sessions.ended(&device, connection.stable_id());
    shared.places().ended(&device, connection.stable_id(), is_last);
    match standing {
        Some(Standing::Own { .. } | Standing::GivingWay) => {}
        Some(Standing::Before) => turn_away(&shared, (device, key), &connection).await,
        None => close_for(&connection, &not_allowed()),
    }
}

/// Tells the hub if the device's keys seem to be in two places.
fn notice_place(shared: &Shared, peer: &Peer) {
    let (id, from) = (peer.connection.stable_id(), peer.connection.remote_address().ip());
    let returns = shared.places().asked(peer.device, id, from, shared.pace.now_ms());
    if let Some(returns) = returns {
        let device = peer.device;
        shared.port.hint(Tell::TwoPlaces { device, returns });
    }
}

async fn serve(shared: Arc<Shared>, peer: Arc<Peer>, mut send: SendStream, mut recv: RecvStream) {
    let busy = shared.enter();
    let answer = async {
        match request::read_frame(&shared.counts, &mut recv, peer.wire).await? {
            Ok(request) => Some(request::answer(&shared, &peer, request).await),
            Err(refusal) => Some(Err(refusal)),
        }
    };
    let answer = tokio::select! {
        answer = answer => answer,
        // The device gave up or is gone.
        _ = send.stopped() => None,
    };
    if let Some(answer) = answer {
        reply(&shared, &peer.connection, &mut send, answer, &peer.device).await;
    }
    drop(busy);
}

/// Writes an answer, and closes the connection where the protocol says so.
pub(super) async fn reply(
    shared: &Shared,
    connection: &Connection,
    send: &mut SendStream,
    answer: Result<Answer, Refusal>,
    device: &DeviceId,
) {
    let (answer, closing) = match answer {
        Ok(answer) => (answer, None),
        Err(refusal) => {
            if let Some(left_out) = shared.next_refusal() {
                tracing::info!(device = %device.short(), code = refusal.code.number(), reason = %refusal.code, left_out, "request refused");
            }
            let closing = refusal.code.closes_connection().then(|| refusal.clone());
            (Answer::Refused { refusal }, closing)
        }
    };
    let bytes = frame::to_wire(&answer);
    // A peer that opens no window for the answer does not keep the task.
    let written = tokio::time::timeout(WRITE_TIMEOUT, send.write_all(&bytes)).await;
    let written = matches!(written, Ok(Ok(()))) && send.finish().is_ok();
    if let Some(refusal) = closing {
        if written {
            // A close discards what has been received but not read.
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.closed()).await;
        }
        close_for(connection, &refusal);
    }
}

async fn push(
    shared: Arc<Shared>,
    device: DeviceId,
    connection: Connection,
    mut pushes: mpsc::Receiver<Outgoing>,
) {
    let wire = WireVersion::of(&connection);
    while let Some(what) = pushes.recv().await {
        let since = match what {
            Outgoing::KeyChanged(_) => 4,
            Outgoing::TlsKeys => 5,
            _ => 1,
        };
        if wire.number() < since {
            continue;
        }
        let stated = shared.tls.stated().map_or(0, |stated| stated.number);
        let told = match what {
            Outgoing::TlsKeys => Some(stated),
            _ => None,
        };
        let Some(push) = shared.push(what) else { continue };
        let bytes = frame::to_wire(&push);
        let sent = tokio::time::timeout(PUSH_TIMEOUT, async {
            let mut send = connection.open_uni().await.ok()?;
            send.write_all(&bytes).await.ok()?;
            send.finish().ok()?;
            // Acknowledged to its end.
            if let Some(number) = told
                && matches!(send.stopped().await, Ok(None))
            {
                shared.sessions.hears(device, wire.number(), number);
            }
            Some(())
        });
        if !matches!(sent.await, Ok(Some(()))) {
            // The device asks for the status when it is back.
            tracing::debug!("a push was not taken");
        }
    }
}

/// Somebody came with a TLS key that the device had before: it is told so, in
/// the answer to its first request, and so is the hub. If the device is barred
/// meanwhile, it is cut off and not told.
pub(super) async fn turn_away(shared: &Shared, (device, key): (DeviceId, Digest), connection: &Connection) {
    shared.port.hint(Tell::KeysUsed { device, old: true });
    let wire = WireVersion::of(connection);
    let refusal = request::for_wire(request::replaced(), wire);
    let listed = shared.sessions.turned_away((device, key), connection);
    let told = async {
        let (mut send, mut recv) = connection.accept_bi().await.ok()?;
        request::read_frame(&shared.counts, &mut recv, wire).await?.ok()?;
        let refusal = refusal.clone();
        let bytes = frame::to_wire(&Answer::Refused { refusal });
        send.write_all(&bytes).await.ok()?;
        send.finish().ok()?;
        // A close discards what has been received but not read.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.closed()).await;
        Some(())
    };
    // Behind `turned_away`, as in `run`.
    if shared.registry.owner(&key).is_none() {
        close_for(connection, &not_allowed());
    }
    let _ = tokio::time::timeout(TURN_AWAY_TIMEOUT, told).await;
    close_for(connection, &refusal);
    drop(listed);
}

fn too_many_wait() -> Refusal {
    Refusal::new(
        RefusalCode::Busy,
        "as many devices that wait to be approved are connected as may be; ask the manager to approve this one, or \
         try again later",
    )
}

pub(super) fn not_allowed() -> Refusal {
    Refusal::new(
        RefusalCode::DeviceNotAllowed,
        "this device is blocked or not enrolled; ask the manager",
    )
}
