//! A device's keys that give way to others, while it stays the same device.

use ed25519_dalek::{SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::cose::{self, CoseError, ObjectType, Unverified};
use crate::id::{DeviceId, Digest, HubId};
use crate::refusal::{Refusal, RefusalCode};

/// A device connects and signs with other keys from now on
/// ([`ObjectType::DeviceKeyChange`]).
///
/// Signed twice: by the new Ed25519 key, which shows that the device has it,
/// and over that by the old one. That it has the new TLS key shows when it
/// connects with it; until then the old one lets it in to ask once more.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceKeyChange {
    /// The hub that it is for.
    #[n(1)]
    pub hub: HubId,
    /// The device, by its name: its first TLS key.
    #[n(2)]
    pub device: DeviceId,
    /// Counts a device's changes from 1 without gaps.
    #[n(3)]
    pub number: u32,
    /// The Ed25519 public key until now.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub old_key: [u8; 32],
    /// The Ed25519 public key from now on.
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub new_key: [u8; 32],
    /// SHA-256 over the new TLS key's SubjectPublicKeyInfo.
    #[n(6)]
    pub new_tls: Digest,
    /// The highest number of a request that the old key has signed. One with
    /// a higher number is refused.
    #[n(7)]
    pub last_sequence: u64,
}

impl DeviceKeyChange {
    /// Signs it with both keys.
    pub fn sign(&self, old: &SigningKey, new: &SigningKey) -> Vec<u8> {
        let by_new = cose::sign(new, ObjectType::DeviceKeyChange, &cbor::encode(self));
        cose::sign(old, ObjectType::DeviceKeyChange, &by_new)
    }

    /// Checks both signatures, each by the key that the statement names for
    /// it. Whether the old one is the device's is the caller's to see.
    ///
    /// # Errors
    /// The first fault: form, content, a weak key, a signature.
    pub fn open(signed: &[u8]) -> Result<Self, Refusal> {
        let outer = Unverified::parse(signed)?;
        let claimed: Self = cbor::decode(Unverified::payload_of(outer.payload_unverified())?)?;
        let old = cose::verifying_key(&claimed.old_key).ok_or(CoseError::UnknownKey)?;
        let new: VerifyingKey = cose::verifying_key(&claimed.new_key).ok_or_else(|| {
            Refusal::new(
                RefusalCode::EnrolmentKey,
                "new_key: a strong Ed25519 key expected",
            )
        })?;
        let by_new = outer.verify(ObjectType::DeviceKeyChange, &old)?;
        cose::verify(&by_new, ObjectType::DeviceKeyChange, &new)?;
        Ok(claimed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_change_of_a_devices_keys_must_be_signed_by_the_old_key_and_by_the_new_one() {
        let good = DeviceKeyChange {
            hub: HubId([1; 32]),
            device: DeviceId([2; 32]),
            number: 1,
            old_key: key(1).verifying_key().to_bytes(),
            new_key: key(2).verifying_key().to_bytes(),
            new_tls: Digest([3; 32]),
            last_sequence: 9,
        };
        let signed = good.sign(&key(1), &key(2));
        assert_eq!(DeviceKeyChange::open(&signed), Ok(good.clone()));
        let code = |signed: &[u8]| DeviceKeyChange::open(signed).unwrap_err().code;
        for (old, new) in [(9, 2), (1, 9), (2, 1)] {
            let by_others = good.sign(&key(old), &key(new));
            assert_eq!(code(&by_others), RefusalCode::SignatureUnknownKey, "{old} {new}");
        }
        let mut cut = signed.clone();
        cut.pop();
        assert_eq!(code(&cut), RefusalCode::SignatureMalformed);
        let mut bad = signed;
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(code(&bad), RefusalCode::SignatureBad);
        let weak = DeviceKeyChange {
            new_key: [0; 32],
            ..good
        };
        assert_eq!(code(&weak.sign(&key(1), &key(2))), RefusalCode::EnrolmentKey);
    }
}
