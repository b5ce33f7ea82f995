//! The connections that are open, by device.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hub_protocol::{DeviceId, Digest, PaymentStatus, Refusal, RefusalCode, SignedKeyChange};
use quinn::{Connection, VarInt};
use tokio::sync::mpsc;

use super::bounds::Bound;

/// The most connections of one device. A device that moves between networks
/// leaves connections behind until they time out; one more closes the oldest.
pub(super) const MAX_PER_DEVICE: usize = 4;

/// The most connections of a device that waits to be approved, and of all that
/// do. A fleet's code may be in a stranger's hands, and until somebody has
/// looked, whoever came by it takes no place from the shop's devices.
pub(super) const MAX_PER_PENDING: usize = 1;
pub(super) const MAX_PENDING: usize = 32;

/// The most pushes that wait for one connection. A push beyond is dropped:
/// the device learns the same by asking for the payment's status.
const MAX_PUSHES: usize = 64;

/// What waits to be pushed; signed on its way out, not on the hub's thread.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    Status(Box<PaymentStatus>),
    Policy(u64),
    KeyChanged(SignedKeyChange),
    /// Those of the moment when it goes out.
    TlsKeys,
}

/// What is known of a device that has connected since the hub started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The newest wire version that it has spoken.
    pub wire: u16,
    /// The number of the newest statement of the hub's TLS keys that it has
    /// got by a push; 0 for none.
    pub tls_keys: u32,
}

struct Live {
    id: usize,
    /// The TLS key that it was made with.
    key: Digest,
    connection: Connection,
    pushes: mpsc::Sender<Outgoing>,
}

/// Live connections. Newest last.
#[derive(Default)]
pub(super) struct Sessions {
    live: Mutex<HashMap<DeviceId, VecDeque<Live>>>,
    /// Connections under keys from before that are about to be told so. They
    /// take no place of the device's and nothing is pushed to them. The door
    /// bounds how many there are.
    turned_away: Mutex<HashMap<DeviceId, Vec<(Digest, Connection)>>>,
    /// As many as there are enrolled devices, which the core bounds.
    heard: Mutex<BTreeMap<DeviceId, Heard>>,
}

impl Sessions {
    /// Adds a connection and gives the end from which its pushes come, and the
    /// bound that the device's oldest had to make room for.
    ///
    /// # Errors
    /// [`Bound::PendingConnections`]: as many devices that wait to be approved
    /// are connected as may be.
    pub(super) fn open(
        &self,
        (device, key): (DeviceId, Digest),
        connection: &Connection,
        is_pending: impl Fn(&DeviceId) -> bool,
    ) -> Result<(mpsc::Receiver<Outgoing>, Option<Bound>), Bound> {
        let (pushes, receiver) = mpsc::channel(MAX_PUSHES);
        let mut live = self.lock();
        let (most, bound) = match is_pending(&device) {
            true => (MAX_PER_PENDING, Bound::PendingConnections),
            false => (MAX_PER_DEVICE, Bound::DeviceConnections),
        };
        if bound == Bound::PendingConnections
            && !live.contains_key(&device)
            && live.keys().filter(|device| is_pending(device)).count() >= MAX_PENDING
        {
            return Err(bound);
        }
        let of_device = live.entry(device).or_default();
        let full = of_device.len() >= most;
        if full && let Some(oldest) = of_device.pop_front() {
            oldest.connection.close(VarInt::from_u32(0), b"replaced");
        }
        of_device.push_back(Live {
            id: connection.stable_id(),
            key,
            connection: connection.clone(),
            pushes,
        });
        Ok((receiver, full.then_some(bound)))
    }

    /// A device speaks this wire version, and has got this statement of the
    /// hub's TLS keys.
    pub(super) fn hears(&self, device: DeviceId, wire: u16, tls_keys: u32) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.entry(device).or_default();
        known.wire = known.wire.max(wire);
        known.tls_keys = known.tls_keys.max(tls_keys);
    }

    pub(super) fn heard(&self) -> BTreeMap<DeviceId, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets a connection that is gone. Whether the device has no other.
    pub(super) fn ended(&self, device: &DeviceId, id: usize) -> bool {
        let mut live = self.lock();
        if let Some(of_device) = live.get_mut(device) {
            of_device.retain(|l| l.id != id);
            if of_device.is_empty() {
                live.remove(device);
            }
        }
        !live.contains_key(device)
    }

    /// Queues a push on the device's newest connection. False if it has none
    /// or too many pushes wait.
    pub(super) fn push(&self, device: &DeviceId, what: Outgoing) -> bool {
        self.lock()
            .get(device)
            .and_then(VecDeque::back)
            .is_some_and(|newest| newest.pushes.try_send(what).is_ok())
    }

    /// Queues a push on the newest connection of every device.
    pub(super) fn push_all(&self, what: &Outgoing) {
        for newest in self.lock().values().filter_map(VecDeque::back) {
            let _ = newest.pushes.try_send(what.clone());
        }
    }

    /// Closes the connections of a device, those too that are being turned
    /// away.
    pub(super) fn close(&self, device: &DeviceId, code: VarInt, reason: &str) {
        for live in self.lock().remove(device).unwrap_or_default() {
            live.connection.close(code, reason.as_bytes());
        }
        for (_, connection) in self.turned().get(device).into_iter().flatten() {
            connection.close(code, reason.as_bytes());
        }
    }

    /// A connection under a key that the device had before, for as long as it
    /// takes to tell it so: if the device is barred meanwhile it is closed.
    pub(super) fn turned_away(
        &self,
        (device, key): (DeviceId, Digest),
        connection: &Connection,
    ) -> TurnedAway<'_> {
        let listed = (key, connection.clone());
        self.turned().entry(device).or_default().push(listed);
        let id = connection.stable_id();
        TurnedAway {
            sessions: self,
            device,
            id,
        }
    }

    /// Closes the connections of a device that were made with another TLS key
    /// than this one.
    pub(super) fn close_others(&self, device: &DeviceId, key: Digest) {
        let mut live = self.lock();
        for other in live
            .get_mut(device)
            .into_iter()
            .flatten()
            .filter(|l| l.key != key)
        {
            let code = RefusalCode::KeysReplaced;
            other.connection.close(close_code(code), code.name().as_bytes());
        }
    }

    /// The devices that are connected.
    pub(super) fn devices(&self) -> Vec<DeviceId> {
        let mut all: Vec<_> = self.lock().keys().copied().collect();
        all.sort();
        all
    }

    /// All connections and the TLS keys that they were made with, those too
    /// that are being turned away.
    pub(super) fn all(&self) -> Vec<(Digest, Connection)> {
        let mut all: Vec<_> = {
            let live = self.lock();
            let each = live.values().flatten();
            each.map(|live| (live.key, live.connection.clone())).collect()
        };
        all.extend(self.turned().values().flatten().cloned());
        all
    }

    /// The connections of a device, oldest first.
    #[cfg(test)]
    pub(super) fn connections(&self, device: &DeviceId) -> Vec<usize> {
        let live = self.lock();
        live.get(device).into_iter().flatten().map(|l| l.id).collect()
    }

    fn turned(&self) -> MutexGuard<'_, HashMap<DeviceId, Vec<(Digest, Connection)>>> {
        self.turned_away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, VecDeque<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a connection that is turned away on its list.
pub(super) struct TurnedAway<'a> {
    sessions: &'a Sessions,
    device: DeviceId,
    id: usize,
}

impl Drop for TurnedAway<'_> {
    fn drop(&mut self) {
        let mut turned = self.sessions.turned();
        if let Some(of_device) = turned.get_mut(&self.device) {
            of_device.retain(|(_, connection)| connection.stable_id() != self.id);
            if of_device.is_empty() {
                turned.remove(&self.device);
            }
        }
    }
}

/// The QUIC application error code of a close: the refusal's number.
pub(super) fn close_code(code: RefusalCode) -> VarInt {
    VarInt::from_u32(u32::from(code.number()))
}

/// Closes a connection for the reason that a refusal gives.
pub(super) fn close_for(connection: &Connection, refusal: &Refusal) {
    connection.close(close_code(refusal.code), refusal.code.name().as_bytes());
}
