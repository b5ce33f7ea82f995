//! The enrolment endpoint: a second QUIC endpoint, bound only while a code or
//! a fleet's token is outstanding, that lets any P-256 key in and answers nothing but enrolment.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub_core::Joining;
use hub_core::admission::FleetToken;
use hub_protocol::cose::{self, ObjectType, Unverified};
use hub_protocol::{
    ALPN_ENROL, Answer, DeviceId, EnrolmentRequest, Refusal, RefusalCode, Registration, Request, cbor,
};
use quinn::{Connection, Endpoint, VarInt};
use tokio::runtime::Handle;

use super::bounds::Bound;
use super::codes::{CodeError, Codes, Grant, Replacement, random_token};
use super::door::{Door, Ticket};
use super::fleet::Fleet;
use super::gate::Bounds;
use super::listener;
use super::packets;
use super::quic_frames;
use super::request;
use super::session;
use super::sessions::close_code;
use super::shared::{Shared, WireVersion};
use super::tls::{self, Admit, TlsError};
use super::tries::Tries;
use crate::clock;
use crate::port::Ask;

/// The most connections to the enrolment endpoint at once.
const MAX_CONNECTIONS: usize = 64;

/// The most of them from one address: enough for a technician with several
/// devices behind one router, and not all of them.
const MAX_CONNECTIONS_OF_ADDRESS: usize = 8;

/// The most streams of a connection: its requests are heard one by one.
pub(super) const MAX_STREAMS: u32 = 2;

/// How long a connection may have nothing to ask: whoever only holds places
/// keeps others out.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// How often the endpoint looks whether a code is still outstanding.
const LOOK: Duration = Duration::from_secs(1);

/// How long one connection may last.
pub(super) const CONNECTION_TIMEOUT: Duration = Duration::from_secs(20);

/// The bounds of the endpoint.
pub(super) const fn bounds() -> Bounds {
    Bounds {
        connections_of_address: MAX_CONNECTIONS_OF_ADDRESS,
        ..listener::bounds(MAX_CONNECTIONS)
    }
}

/// Why no enrolment code was issued.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// No code could be made.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The endpoint could not be opened.
    #[error("cannot listen for enrolments on {address}; is another program using the port?")]
    Bind {
        /// `devices.enrol_listen`.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The endpoint's TLS configuration was refused.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The hub is stopping.
    #[error("the hub is stopping; try again once it runs")]
    Stopping,
}

/// Codes and the endpoint that waits for them.
pub(super) struct Enrolment {
    shared: Arc<Shared>,
    listen: SocketAddr,
    monotonic_ms: fn() -> u64,
    codes: Mutex<Codes>,
    fleet: Mutex<Fleet>,
    tries: Mutex<Tries>,
    /// The endpoint is opened for a fleet's token from the hub's own thread.
    runtime: Handle,
    endpoint: Mutex<Option<Endpoint>>,
    connections: AtomicUsize,
}

impl Enrolment {
    pub(super) fn new(shared: Arc<Shared>, listen: SocketAddr, monotonic_ms: fn() -> u64) -> Self {
        Self {
            shared,
            listen,
            monotonic_ms,
            codes: Mutex::default(),
            fleet: Mutex::default(),
            tries: Mutex::default(),
            runtime: Handle::current(),
            endpoint: Mutex::default(),
            connections: AtomicUsize::new(0),
        }
    }

    /// Makes a code's token and sees to it that the endpoint listens. Gives
    /// the token and the endpoint's address.
    pub(super) fn issue(self: &Arc<Self>, grant: Grant) -> Result<([u8; 16], SocketAddr), EnrolmentError> {
        // Held to the end, so that the endpoint does not close in between.
        let mut endpoint = self.endpoint();
        let address = self.listening(&mut endpoint)?;
        let token = self.codes().issue(grant, (self.monotonic_ms)())?;
        Ok((token, address))
    }

    /// Makes a token that several devices may present once the hub has written
    /// it down ([`set_fleet`](Self::set_fleet)). Gives the endpoint's address
    /// too, which listens for a second at least.
    pub(super) fn fleet_token(self: &Arc<Self>) -> Result<([u8; 16], SocketAddr), EnrolmentError> {
        let address = self.listening(&mut self.endpoint())?;
        Ok((random_token()?, address))
    }

    /// The fleets' tokens are these from now on. From any thread.
    pub(super) fn set_fleet(self: &Arc<Self>, tokens: Vec<FleetToken>) {
        let mut endpoint = self.endpoint();
        let wanted = {
            let mut fleet = self.fleet();
            fleet.set(tokens);
            fleet.any_open(clock::wall_ms())
        };
        if wanted && let Err(error) = self.listening(&mut endpoint) {
            tracing::error!(%error, "the devices of a fleet cannot enrol");
        }
    }

    /// Where the endpoint listens; it is opened if it does not.
    fn listening(self: &Arc<Self>, endpoint: &mut Option<Endpoint>) -> Result<SocketAddr, EnrolmentError> {
        if self.shared.is_stopping() {
            return Err(EnrolmentError::Stopping);
        }
        if let Some(address) = endpoint.as_ref().and_then(|e| e.local_addr().ok()) {
            return Ok(address);
        }
        let _inside = self.runtime.enter();
        let opened = self.open()?;
        let address = opened.local_addr().map_err(|source| self.bind_error(source))?;
        *endpoint = Some(opened);
        Ok(address)
    }

    /// Where the endpoint listens, while it does.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.endpoint().as_ref().and_then(|e| e.local_addr().ok())
    }

    /// Closes the endpoint and voids all codes.
    pub(super) fn stop(&self) {
        *self.codes() = Codes::default();
        self.fleet().set(Vec::new());
        if let Some(endpoint) = self.endpoint().take() {
            endpoint.close(close_code(RefusalCode::Stopping), b"stopping");
        }
    }

    fn bind_error(&self, source: io::Error) -> EnrolmentError {
        EnrolmentError::Bind {
            address: self.listen,
            source,
        }
    }

    fn open(self: &Arc<Self>) -> Result<Endpoint, EnrolmentError> {
        let config =
            listener::server_config(self.shared.tls.crypto(Admit::AnyKey, &[ALPN_ENROL])?, MAX_STREAMS);
        let counts = Arc::clone(&self.shared.counts);
        let door = Arc::new(Door::new(bounds(), self.monotonic_ms, counts));
        let endpoint = listener::bind(&self.shared.tls, config, self.listen, &door)
            .map_err(|source| self.bind_error(source))?;
        let this = Arc::clone(self);
        tokio::spawn(listener::accept(
            endpoint.clone(),
            door,
            move |connection, ticket| Arc::clone(&this).serve(connection, ticket),
        ));
        tokio::spawn(Arc::clone(self).close_when_done());
        Ok(endpoint)
    }

    async fn close_when_done(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let mut endpoint = self.endpoint();
            let waits = self.codes().any_outstanding((self.monotonic_ms)())
                || self.fleet().any_open(clock::wall_ms())
                || self.connections.load(Ordering::SeqCst) > 0;
            if !waits || self.shared.is_stopping() {
                if let Some(endpoint) = endpoint.take() {
                    endpoint.close(VarInt::from_u32(0), b"no code is outstanding");
                }
                return;
            }
        }
    }

    /// The ticket is held for as long as the connection lasts.
    async fn serve(self: Arc<Self>, connection: Connection, _ticket: Ticket) {
        let Some((device, packets)) = packets::peer(&connection).and_then(|peer| {
            let key = tls::key_of(&peer.chain)?;
            Some((DeviceId(key.0), peer.packets))
        }) else {
            return;
        };
        self.connections.fetch_add(1, Ordering::SeqCst);
        let conversation = tokio::time::timeout(CONNECTION_TIMEOUT, self.converse(device, &connection));
        let why: &[u8] = tokio::select! {
            ended = conversation => match ended {
                Ok(()) => b"nothing is asked",
                Err(_) => b"too long",
            },
            () = quic_frames::too_many_to_enrol(&connection, &packets) => {
                self.shared.counts.count(Bound::QuicFrames);
                quic_frames::turn_away(&connection);
                b""
            }
        };
        // Nothing, if it is closed already.
        connection.close(VarInt::from_u32(0), why);
        packets.unwatched();
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    /// One request after the other: an enrolment is one, and five tries are
    /// the most that mean anything.
    async fn converse(&self, device: DeviceId, connection: &Connection) {
        let from = connection.remote_address().ip();
        while let Ok(Ok((mut send, mut recv))) = tokio::time::timeout(SILENCE, connection.accept_bi()).await {
            let _busy = self.shared.enter();
            let Some(read) = request::read_frame(&self.shared.counts, &mut recv, WireVersion::Four).await
            else {
                continue;
            };
            let tries = matches!(read, Ok(Request::Enrol { .. }));
            let answer = match read {
                Ok(Request::Enrol { request }) => self.enrol(device, from, &request).await,
                Ok(_) => Err(Refusal::new(
                    RefusalCode::UnknownFrame,
                    "only an enrolment may be sent here",
                )),
                Err(refusal) => Err(refusal),
            };
            session::reply(&self.shared, connection, &mut send, answer, &device).await;
            if tries && self.tries().is_shut_out(from, (self.monotonic_ms)()) {
                // It has its answer, and another would be the same.
                let _ = tokio::time::timeout(session::CLOSE_TIMEOUT, connection.closed()).await;
                return connection.close(
                    close_code(RefusalCode::Busy),
                    b"too many unknown codes from this address",
                );
            }
        }
    }

    async fn enrol(&self, device: DeviceId, from: IpAddr, signed: &[u8]) -> Result<Answer, Refusal> {
        if self.tries().is_shut_out(from, (self.monotonic_ms)()) {
            self.shared.counts.count(Bound::EnrolmentTries);
            return Err(Refusal::new(
                RefusalCode::Busy,
                "too many unknown codes came from this network address; try again in ten minutes",
            ));
        }
        let request = self.check(device, signed)?;
        let mut registration = Registration {
            device,
            signing_key: request.signing_key,
            class: request.class,
            name: request.name,
            model: request.model,
            hub: self.shared.hub,
            hub_signing_key: self.shared.keys.chain().current().to_bytes(),
            enrolled_ms: clock::wall_ms(),
        };
        let now = (self.monotonic_ms)();
        let in_fleet = self.fleet().presented(&request.token);
        if let Some(token) = in_fleet {
            let joining = Joining::Fleet(token);
            let registration = Box::new(registration);
            return self
                .ask(Ask::Join {
                    registration,
                    joining,
                })
                .await;
        }
        let presented = self
            .codes()
            .present(&request.token, device, registration.key_id(), now);
        let grant = presented.map_err(|wrong| {
            if wrong.is_guess {
                self.tries().wrong(from, now);
            }
            wrong.refusal
        })?;
        registration.class = grant.class;
        let registration = Box::new(registration);
        let answer = self
            .ask(match grant.replaces {
                None => Ask::Enrol { registration },
                Some(Replacement {
                    device,
                    lost,
                    operator,
                }) => Ask::Join {
                    registration,
                    joining: Joining::Replacing {
                        device,
                        lost,
                        operator,
                    },
                },
            })
            .await;
        match &answer {
            Ok(_) => self.codes().used(&request.token, (self.monotonic_ms)()),
            // What became of it is not known: the code stays this device's.
            Err(refusal) if matches!(refusal.code, RefusalCode::TimedOut | RefusalCode::Stopping) => {}
            Err(_) => self.codes().give_back(&request.token),
        }
        answer
    }

    async fn ask(&self, ask: Ask) -> Result<Answer, Refusal> {
        self.shared.ask(ask, WireVersion::Two).await
    }

    /// Everything but the token: a faulty request costs no try.
    fn check(&self, device: DeviceId, signed: &[u8]) -> Result<EnrolmentRequest, Refusal> {
        let unverified = Unverified::parse(signed)?;
        let claimed: EnrolmentRequest = cbor::decode(unverified.payload_unverified())?;
        let key = cose::verifying_key(&claimed.signing_key)
            .ok_or_else(|| Refusal::new(RefusalCode::EnrolmentKey, "the signing key is weak or is no key"))?;
        // Nothing of what was claimed is used but the key that now proves it.
        let request: EnrolmentRequest = cbor::decode(&unverified.verify(ObjectType::Enrolment, &key)?)?;
        request.check()?;
        if request.hub != self.shared.hub {
            return Err(Refusal::new(
                RefusalCode::EnrolmentUnknown,
                "the enrolment code is for another hub",
            ));
        }
        if request.device != device {
            return Err(Refusal::new(
                RefusalCode::EnrolmentKey,
                "the device id is not that of this connection's key",
            ));
        }
        Ok(request)
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fleet(&self) -> MutexGuard<'_, Fleet> {
        self.fleet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn codes(&self) -> MutexGuard<'_, Codes> {
        self.codes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn endpoint(&self) -> MutexGuard<'_, Option<Endpoint>> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
