//! Which devices may connect, and the keys that they sign with.
//!
//! A copy of what the core says, for the handshakes: the truth is the ledger.
//! A device is its name; by which TLS key it comes is looked up here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use ed25519_dalek::VerifyingKey;
use hub_core::admission::Access;
use hub_core::device_keys::DeviceKeys;
use hub_protocol::cose::Unverified;
use hub_protocol::{DeviceClass, DeviceId, Digest, KeyId, Registration, cose};

/// An enrolled device.
#[derive(Clone, Debug)]
pub struct RegisteredDevice {
    /// Its identity.
    pub device: DeviceId,
    /// What it signs payments with.
    pub verifying_key: VerifyingKey,
    /// What kind of device it is.
    pub class: DeviceClass,
    /// What people call it.
    pub name: String,
    /// Vendor and model.
    pub model: String,
    /// When it was enrolled, milliseconds since 1970 UTC.
    pub enrolled_ms: u64,
    /// Whether it is shut out.
    pub blocked: bool,
    /// Whether it waits to be approved.
    pub pending: bool,
    /// How often its keys have changed.
    pub key_changes: u32,
}

/// What a TLS key is to the device that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its own. Whether the hub has still to hear that it has been used.
    Own { first_time: bool },
    /// The one before, and the new one has not been used yet: its answer may
    /// have been lost.
    GivingWay,
    /// One that it had.
    Before,
}

/// What a device's requests are checked with.
#[derive(Clone, Debug)]
pub(super) struct RequestKeys {
    /// Its key.
    pub(super) own: VerifyingKey,
    /// Those before, if it had others.
    before: Option<Arc<DeviceKeys>>,
}

impl RequestKeys {
    /// The key from before that this is signed with, by what it says, and the
    /// highest number of a request that it has signed.
    pub(super) fn before(&self, signed: &[u8]) -> Option<(VerifyingKey, u64)> {
        let before = &self.before.as_ref()?.before;
        let kid = Unverified::parse(signed).ok()?.kid();
        let found = before
            .iter()
            .find(|keys| KeyId::of_key(&keys.signing_key) == kid)?;
        Some((cose::verifying_key(&found.signing_key)?, found.last_sequence))
    }
}

/// The enrolled devices. Clones share one list. The core bounds how many are
/// enrolled.
#[derive(Clone, Default)]
pub struct Registry {
    devices: Arc<RwLock<HashMap<DeviceId, RegisteredDevice>>>,
    /// Of those whose keys have changed.
    keys: Arc<RwLock<ChangedKeys>>,
}

#[derive(Default)]
struct ChangedKeys {
    of: HashMap<DeviceId, Arc<DeviceKeys>>,
    by_tls: HashMap<Digest, (DeviceId, Standing)>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} devices)", self.read().len())
    }
}

impl Registry {
    /// Takes over what the core says of a device. A registration with a weak
    /// key, which no enrolment lets through, shuts the device out.
    ///
    /// Connections that the device has open are not touched here: call
    /// [`Devices::apply`](super::Devices::apply) once the hub is running.
    pub fn apply(&self, registration: &Registration, access: Access) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        match registered(registration, access) {
            Some(device) => devices.insert(registration.device, device),
            None => devices.remove(&registration.device),
        };
    }

    /// Takes over a device's keys, once they have changed.
    pub fn apply_keys(&self, device: DeviceId, keys: DeviceKeys) {
        let mut changed = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        changed.by_tls.retain(|_, (owner, _)| *owner != device);
        changed
            .by_tls
            .insert(Digest(device.0), (device, Standing::Before));
        for before in &keys.before {
            changed.by_tls.insert(before.tls, (device, Standing::Before));
        }
        if let Some(last) = keys.before.last().filter(|_| !keys.settled) {
            changed.by_tls.insert(last.tls, (device, Standing::GivingWay));
        }
        let first_time = !keys.settled;
        changed
            .by_tls
            .insert(keys.tls, (device, Standing::Own { first_time }));
        changed.of.insert(device, Arc::new(keys));
    }

    /// Whose TLS key this is, of those that are enrolled and not blocked, and
    /// what it is to that device.
    pub(super) fn owner(&self, tls: &Digest) -> Option<(DeviceId, Standing)> {
        let changed = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let own = (DeviceId(tls.0), Standing::Own { first_time: false });
        let (device, standing) = changed.by_tls.get(tls).copied().unwrap_or(own);
        self.is_admitted(&device).then_some((device, standing))
    }

    fn is_admitted(&self, device: &DeviceId) -> bool {
        self.read().get(device).is_some_and(|d| !d.blocked)
    }

    fn keys_of(&self, device: &DeviceId) -> Option<Arc<DeviceKeys>> {
        let changed = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        changed.of.get(device).cloned()
    }

    /// Whether the device waits to be approved.
    pub(super) fn is_pending(&self, device: &DeviceId) -> bool {
        self.read().get(device).is_some_and(|d| d.pending)
    }

    /// Adds a device that has just been enrolled, unless it is known: only
    /// the core unblocks and approves.
    pub(super) fn apply_if_new(&self, registration: &Registration, access: Access) {
        if let Some(device) = registered(registration, access) {
            self.devices
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(registration.device)
                .or_insert(device);
        }
    }

    /// The device, if it is enrolled and not blocked.
    pub fn admitted(&self, device: &DeviceId) -> Option<RegisteredDevice> {
        self.read().get(device).filter(|d| !d.blocked).cloned()
    }

    /// The keys of a device that is enrolled and not blocked.
    pub(super) fn request_keys(&self, device: &DeviceId) -> Option<RequestKeys> {
        let own = self
            .read()
            .get(device)
            .filter(|d| !d.blocked)
            .map(|d| d.verifying_key)?;
        let before = self.keys_of(device);
        Some(RequestKeys { own, before })
    }

    /// All devices, blocked or not, by identity.
    pub fn list(&self) -> Vec<RegisteredDevice> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
        for device in &mut all {
            device.key_changes = self.keys_of(&device.device).map_or(0, |keys| keys.number);
        }
        all.sort_by_key(|d| d.device);
        all
    }

    /// The enrolled device whose identity begins as mDNS says, if there is
    /// exactly one.
    pub(super) fn by_short_id(&self, short: &str) -> Option<DeviceId> {
        let devices = self.read();
        let mut found = devices.keys().filter(|id| id.short() == short);
        match (found.next(), found.next()) {
            (Some(id), None) => Some(*id),
            _ => None,
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<DeviceId, RegisteredDevice>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn registered(registration: &Registration, access: Access) -> Option<RegisteredDevice> {
    Some(RegisteredDevice {
        device: registration.device,
        verifying_key: cose::verifying_key(&registration.signing_key)?,
        class: registration.class,
        name: registration.name.clone(),
        model: registration.model.clone(),
        enrolled_ms: registration.enrolled_ms,
        blocked: access == Access::Barred,
        pending: access == Access::Pending,
        key_changes: 0,
    })
}
