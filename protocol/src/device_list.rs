//! Headquarters' list of the devices of its stores
//! ([`ObjectType::DeviceList`](crate::cose::ObjectType)), signed by a key that
//! the hub trusts for policies.
//!
//! A list is whole: a device that headquarters enrolled by an earlier list and
//! that this one leaves out may connect no more.

use minicbor::{Decode, Encode};

use crate::cose;
use crate::id::DeviceId;
use crate::payment::{DeviceClass, check_text};
use crate::refusal::Refusal;

/// The most devices on one list.
pub const MAX_LISTED: usize = 256;

/// The most devices that one list names as revoked. Only those that a hub
/// enrolled by itself need to be named: leaving out revokes the others.
pub const MAX_REVOKED: usize = 128;

/// The most stores that a list is for.
pub const MAX_STORES: usize = 256;

/// The longest list, signed, in bytes.
pub const MAX_DEVICE_LIST: usize = 90 * 1024;

/// A list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceList {
    /// Whose stores, as policies name the tenant, 1 to 64 bytes.
    #[n(1)]
    pub tenant: String,
    /// Store ids, as policies name them; `*` stands for all of the tenant's.
    #[n(2)]
    pub stores: Vec<String>,
    /// Only grows.
    #[n(3)]
    pub version: u64,
    /// Not taken before this, milliseconds since 1970 UTC.
    #[n(4)]
    pub not_before_ms: u64,
    /// Not taken from this on, milliseconds since 1970 UTC. One that was taken
    /// before goes on to hold.
    #[n(5)]
    pub expires_ms: u64,
    /// The devices.
    #[n(6)]
    pub devices: Vec<ListedDevice>,
    /// Devices that are shut out, however they were enrolled.
    #[n(7)]
    pub revoked: Vec<DeviceId>,
}

/// A device on a list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ListedDevice {
    /// Its identity.
    #[n(1)]
    pub device: DeviceId,
    /// The Ed25519 public key that it signs with.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub signing_key: [u8; 32],
    /// What kind of device it is.
    #[n(3)]
    pub class: DeviceClass,
    /// What people call it, 1 to 64 bytes.
    #[n(4)]
    pub name: String,
    /// Vendor and model, 1 to 64 bytes.
    #[n(5)]
    pub model: String,
}

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceListError {
    /// Tenant or stores are not what policies have there.
    #[error("tenant and stores: names of 1 to 64 bytes expected, and 1 to {MAX_STORES} stores")]
    Scope,
    /// There is no version 0.
    #[error("version: a whole number from 1 expected")]
    Version,
    /// It would never be in force.
    #[error("expires: a time after not_before expected")]
    Times,
    /// Too long.
    #[error("at most {MAX_LISTED} devices and {MAX_REVOKED} revoked ones expected; split it by store")]
    TooMany,
    /// A text of a device.
    #[error("device {}: {refusal}", device.short())]
    Text {
        /// Which device.
        device: DeviceId,
        /// What is wrong.
        refusal: Refusal,
    },
    /// The key is weak, or no key.
    #[error("device {}: signing key: a strong Ed25519 key expected", .0.short())]
    Key(DeviceId),
    /// A device, or a key, stands there twice.
    #[error("device {}: the device or its key is named twice, or is listed and revoked", .0.short())]
    Twice(DeviceId),
}

impl DeviceList {
    /// Holds the list to its ranges.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), DeviceListError> {
        let name = |name: &String| check_text("name", name).is_ok();
        let scoped = (1..=MAX_STORES).contains(&self.stores.len());
        if !scoped || !name(&self.tenant) || !self.stores.iter().all(name) {
            return Err(DeviceListError::Scope);
        }
        if self.version == 0 {
            return Err(DeviceListError::Version);
        }
        if self.expires_ms <= self.not_before_ms {
            return Err(DeviceListError::Times);
        }
        if self.devices.len() > MAX_LISTED || self.revoked.len() > MAX_REVOKED {
            return Err(DeviceListError::TooMany);
        }
        for (place, listed) in self.devices.iter().enumerate() {
            let device = listed.device;
            check_text("name", &listed.name)
                .and_then(|()| check_text("model", &listed.model))
                .map_err(|refusal| DeviceListError::Text { device, refusal })?;
            cose::verifying_key(&listed.signing_key).ok_or(DeviceListError::Key(device))?;
            let before = self.devices.iter().take(place);
            let twice = before
                .clone()
                .any(|other| other.device == device || other.signing_key == listed.signing_key);
            if twice || self.revoked.contains(&device) {
                return Err(DeviceListError::Twice(device));
            }
        }
        for (place, device) in self.revoked.iter().enumerate() {
            if self.revoked.iter().take(place).any(|other| other == device) {
                return Err(DeviceListError::Twice(*device));
            }
        }
        Ok(())
    }

    /// Whether the list is for this store.
    pub fn covers(&self, store_id: &str) -> bool {
        self.stores.iter().any(|store| store == "*" || store == store_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> [u8; 32] {
        ed25519_dalek::SigningKey::from_bytes(&[seed; 32])
            .verifying_key()
            .to_bytes()
    }

    fn listed(number: u8) -> ListedDevice {
        ListedDevice {
            device: DeviceId([number; 32]),
            signing_key: key(number),
            class: DeviceClass::Mpos,
            name: format!("Caisse {number}"),
            model: "Test 1".to_owned(),
        }
    }

    fn list() -> DeviceList {
        DeviceList {
            tenant: "acme".to_owned(),
            stores: vec!["s-1".to_owned()],
            version: 1,
            not_before_ms: 1,
            expires_ms: 2,
            devices: vec![listed(1), listed(2)],
            revoked: vec![DeviceId([3; 32])],
        }
    }

    #[test]
    fn every_fault_of_a_list_has_its_own_text() {
        assert_eq!(list().check(), Ok(()));
        assert!(list().covers("s-1") && !list().covers("s-2"));
        let first = DeviceId([1; 32]);
        let spoilt = |spoil: &dyn Fn(&mut DeviceList)| {
            let mut list = list();
            spoil(&mut list);
            list.check().unwrap_err()
        };
        for (spoil, expected) in [
            (
                &(|l: &mut DeviceList| l.stores.clear()) as &dyn Fn(&mut DeviceList),
                DeviceListError::Scope,
            ),
            (&|l| l.tenant.clear(), DeviceListError::Scope),
            (&|l| l.version = 0, DeviceListError::Version),
            (&|l| l.expires_ms = 1, DeviceListError::Times),
            (&|l| l.revoked = vec![first; 129], DeviceListError::TooMany),
            (
                &|l| l.devices[0].signing_key = [0; 32],
                DeviceListError::Key(first),
            ),
            (
                &|l| l.devices[0] = listed(2),
                DeviceListError::Twice(DeviceId([2; 32])),
            ),
            (
                &|l| l.devices[1].signing_key = key(1),
                DeviceListError::Twice(DeviceId([2; 32])),
            ),
            (&|l| l.revoked = vec![first], DeviceListError::Twice(first)),
            (
                &|l| l.revoked = vec![DeviceId([9; 32]); 2],
                DeviceListError::Twice(DeviceId([9; 32])),
            ),
        ] {
            assert_eq!(spoilt(spoil), expected);
        }
        assert!(matches!(
            spoilt(&|l| l.devices[0].name.clear()),
            DeviceListError::Text { .. }
        ));
    }
}
