//! Which devices may connect, and the keys that they sign with.
//!
//! A copy of what the core says, for the handshakes: the truth is the ledger.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use ed25519_dalek::VerifyingKey;
use hub_protocol::{DeviceClass, DeviceId, Registration, cose};

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
}

/// The enrolled devices. Clones share one list. The core bounds how many are
/// enrolled.
#[derive(Clone, Default)]
pub struct Registry {
    devices: Arc<RwLock<HashMap<DeviceId, RegisteredDevice>>>,
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
    pub fn apply(&self, registration: &Registration, blocked: bool) {
        let mut devices = self.devices.write().unwrap_or_else(PoisonError::into_inner);
        match registered(registration, blocked) {
            Some(device) => devices.insert(registration.device, device),
            None => devices.remove(&registration.device),
        };
    }

    /// Adds a device that has just been enrolled, unless it is known: only
    /// the core unblocks.
    pub(super) fn apply_if_new(&self, registration: &Registration) {
        if let Some(device) = registered(registration, false) {
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

    /// The key of a device that is enrolled and not blocked.
    pub(super) fn verifying_key(&self, device: &DeviceId) -> Option<VerifyingKey> {
        self.read()
            .get(device)
            .filter(|d| !d.blocked)
            .map(|d| d.verifying_key)
    }

    /// All devices, blocked or not, by identity.
    pub fn list(&self) -> Vec<RegisteredDevice> {
        let mut all: Vec<_> = self.read().values().cloned().collect();
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

fn registered(registration: &Registration, blocked: bool) -> Option<RegisteredDevice> {
    Some(RegisteredDevice {
        device: registration.device,
        verifying_key: cose::verifying_key(&registration.signing_key)?,
        class: registration.class,
        name: registration.name.clone(),
        model: registration.model.clone(),
        enrolled_ms: registration.enrolled_ms,
        blocked,
    })
}
