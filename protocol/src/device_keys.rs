//! A device's keys that give way to others, while it stays the same device.

use ed25519_dalek::{SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::cose::{
    self, CheckP256, CoseError, ObjectType, P256_SPKI_LEN, Unverified, UnverifiedP256, p256_point,
};
use crate::id::{DeviceId, Digest, HubId};
use crate::refusal::{Refusal, RefusalCode};

/// A device connects and signs with other keys from now on.
///
/// Signed three times: by the new TLS key
/// ([`ObjectType::DeviceTlsKey`]), over that by the new Ed25519 key, which
/// shows that the device has both, and over that by the old Ed25519 key
/// ([`ObjectType::DeviceKeyChange2`]). That the device connects with the new
/// TLS key is seen later; until then the old one lets it in to ask once more.
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
    /// The highest number of a request that the old key has signed. One with
    /// a higher number is refused.
    // 6 was the hash of the TLS key, in wire version 5.
    #[n(7)]
    pub last_sequence: u64,
    /// The TLS key from now on: its SubjectPublicKeyInfo in DER, P-256,
    /// uncompressed.
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub new_tls_key: [u8; P256_SPKI_LEN],
}

impl DeviceKeyChange {
    /// By what the new TLS key is known: SHA-256 over its
    /// SubjectPublicKeyInfo.
    pub fn new_tls(&self) -> Digest {
        Digest::of(&self.new_tls_key)
    }

    /// Signs it with all three keys. `tls` signs with the new TLS key: it is
    /// given what is to be signed and gives r and s of ECDSA over SHA-256, 32
    /// bytes each, big-endian (RFC 9053 §2.1).
    ///
    /// # Errors
    /// What `tls` says.
    pub fn sign<E>(
        &self,
        old: &SigningKey,
        new: &SigningKey,
        tls: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
    ) -> Result<Vec<u8>, E> {
        let object = ObjectType::DeviceTlsKey;
        let by_tls = cose::sign_p256(&self.new_tls_key, object, &cbor::encode(self), tls)?;
        let by_new = cose::sign(new, ObjectType::DeviceKeyChange2, &by_tls);
        Ok(cose::sign(old, ObjectType::DeviceKeyChange2, &by_new))
    }

    /// Checks all three signatures, each by the key that the statement names
    /// for it. Whether the old one is the device's is the caller's to see.
    ///
    /// # Errors
    /// The first fault: form, content, a key that is weak or none, a
    /// signature: of the old key, of the new one, of the new TLS key.
    pub fn open(signed: &[u8], check: CheckP256) -> Result<Self, Refusal> {
        let outer = Unverified::parse(signed)?;
        let by_tls = Unverified::payload_of(outer.payload_unverified())?;
        let by_tls = UnverifiedP256::parse(by_tls)?;
        let claimed: Self = cbor::decode(by_tls.payload_unverified())?;
        let old = cose::verifying_key(&claimed.old_key).ok_or(CoseError::UnknownKey)?;
        let refused = |text| Refusal::new(RefusalCode::EnrolmentKey, text);
        let new: VerifyingKey = cose::verifying_key(&claimed.new_key)
            .ok_or_else(|| refused("new_key: a strong Ed25519 key expected"))?;
        if p256_point(&claimed.new_tls_key).is_none() {
            return Err(refused("new_tls_key: an uncompressed P-256 key expected"));
        }
        let by_new = outer.verify(ObjectType::DeviceKeyChange2, &old)?;
        cose::verify(&by_new, ObjectType::DeviceKeyChange2, &new)?;
        by_tls.verify(ObjectType::DeviceTlsKey, &claimed.new_tls_key, check)?;
        Ok(claimed)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    };

    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// A TLS key.
    struct Tls(EcdsaKeyPair);

    impl Tls {
        fn new() -> Self {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random);
            Self(pair.unwrap())
        }

        fn spki(&self) -> [u8; P256_SPKI_LEN] {
            let prefix = data_encoding::HEXLOWER
                .decode(b"3059301306072a8648ce3d020106082a8648ce3d030107034200")
                .unwrap();
            [&prefix[..], self.0.public_key().as_ref()]
                .concat()
                .try_into()
                .unwrap()
        }

        fn sign(&self, message: &[u8]) -> Result<[u8; 64], core::convert::Infallible> {
            let signature = self.0.sign(&SystemRandom::new(), message).unwrap();
            Ok(signature.as_ref().try_into().unwrap())
        }
    }

    fn check(point: &[u8; 65], message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(message, signature)
            .is_ok()
    }

    fn change(tls: &Tls) -> DeviceKeyChange {
        DeviceKeyChange {
            hub: HubId([1; 32]),
            device: DeviceId([2; 32]),
            number: 1,
            old_key: key(1).verifying_key().to_bytes(),
            new_key: key(2).verifying_key().to_bytes(),
            new_tls_key: tls.spki(),
            last_sequence: 9,
        }
    }

    fn signed(change: &DeviceKeyChange, old: u8, new: u8, tls: &Tls) -> Vec<u8> {
        let signed = change.sign(&key(old), &key(new), |message| tls.sign(message));
        signed.unwrap_or_else(|never| match never {})
    }

    fn code(signed: &[u8]) -> RefusalCode {
        DeviceKeyChange::open(signed, check).unwrap_err().code
    }

    #[test]
    fn a_change_of_a_devices_keys_must_be_signed_by_the_old_key_and_by_the_new_one() {
        let tls = Tls::new();
        let good = change(&tls);
        let whole = signed(&good, 1, 2, &tls);
        assert_eq!(DeviceKeyChange::open(&whole, check), Ok(good.clone()));
        for (old, new) in [(9, 2), (1, 9), (2, 1)] {
            let by_others = signed(&good, old, new, &tls);
            assert_eq!(code(&by_others), RefusalCode::SignatureUnknownKey, "{old} {new}");
        }
        let mut cut = whole.clone();
        cut.pop();
        assert_eq!(code(&cut), RefusalCode::SignatureMalformed);
        let mut bad = whole;
        *bad.last_mut().unwrap() ^= 1;
        assert_eq!(code(&bad), RefusalCode::SignatureBad);
        let weak = DeviceKeyChange {
            new_key: [0; 32],
            ..good
        };
        assert_eq!(code(&signed(&weak, 1, 2, &tls)), RefusalCode::EnrolmentKey);
    }

    #[test]
    fn rule_5_a_device_names_no_tls_key_that_it_does_not_have() {
        let (tls, own) = (Tls::new(), Tls::new());
        let good = change(&tls);
        let outside = |by_tls: &[u8]| {
            let by_new = cose::sign(&key(2), ObjectType::DeviceKeyChange2, by_tls);
            cose::sign(&key(1), ObjectType::DeviceKeyChange2, &by_new)
        };
        let by = |spki: &[u8], tls: &Tls, object: ObjectType, payload: &[u8]| {
            let object = cose::sign_p256(spki, object, payload, |message| tls.sign(message));
            outside(&object.unwrap_or_else(|never| match never {}))
        };
        let payload = cbor::encode(&good);
        let object = ObjectType::DeviceTlsKey;
        assert_eq!(
            DeviceKeyChange::open(&by(&tls.spki(), &tls, object, &payload), check),
            Ok(good.clone())
        );
        // Without a signature by it, as in wire version 5; and by an Ed25519 key.
        assert_eq!(code(&outside(&payload)), RefusalCode::SignatureMalformed);
        let ed25519 = cose::sign(&key(2), object, &payload);
        assert_eq!(code(&outside(&ed25519)), RefusalCode::SignatureAlgorithm);
        // By another key, which says so, and which says that it is this.
        let says_so = by(&own.spki(), &own, object, &payload);
        assert_eq!(code(&says_so), RefusalCode::SignatureUnknownKey);
        assert_eq!(
            code(&by(&tls.spki(), &own, object, &payload)),
            RefusalCode::SignatureBad
        );
        // Over another statement, and as another object.
        let for_other = DeviceKeyChange {
            device: DeviceId([3; 32]),
            ..good.clone()
        };
        let mut moved = by(&tls.spki(), &tls, object, &cbor::encode(&for_other));
        let place = moved.windows(32).position(|bytes| bytes == [3; 32]).unwrap();
        moved[place..place + 32].fill(2);
        let by_tls = Unverified::payload_of(Unverified::payload_of(&moved).unwrap()).unwrap();
        assert_eq!(code(&outside(by_tls)), RefusalCode::SignatureBad);
        let as_change = by(&tls.spki(), &tls, ObjectType::DeviceKeyChange2, &payload);
        assert_eq!(code(&as_change), RefusalCode::SignatureBad);
        // A key that is none.
        let mut none = good;
        none.new_tls_key[26] = 2;
        assert_eq!(code(&signed(&none, 1, 2, &tls)), RefusalCode::EnrolmentKey);
    }
}
