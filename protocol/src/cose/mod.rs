//! COSE_Sign1 (RFC 9052) as hubd uses it: tagged (18), protected header
//! exactly `{1: -19 (Ed25519), 4: kid}`, unprotected header empty, payload
//! present, `external_aad` = the object's type string. One object is signed by
//! a P-256 key as well ([`UnverifiedP256`]).

mod p256;
mod several;
mod together;

use coset::iana::{self, EnumI64};
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, Header, HeaderBuilder, TaggedCborSerializable};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::cbor;
use crate::id::KeyId;
use crate::refusal::Refusal;

/// What a signed object is. Its string goes into the signature, so that an
/// object of one type can never be passed off as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectType {
    /// A device asks for a payment: in wire versions 1 and 2.
    PaymentRequest,
    /// A device asks for a payment and states its
    /// [`Terms`](crate::payment::Terms): from wire version 3 on.
    PaymentRequest2,
    /// A supervisor lets a payment pass a lower limit or a score.
    Override,
    /// A device asks to void a payment.
    VoidRequest,
    /// The hub's answer to a payment, signed alone: in wire version 1.
    Receipt,
    /// The hub's word on where a payment stands.
    Status,
    /// One entry of the hub's ledger, signed alone: in journal format 1.
    LedgerEntry,
    /// A stretch of the hub's ledger, and the receipts in it.
    LedgerCommit,
    /// The closing line of a journal segment.
    SegmentFooter,
    /// What an archived segment of the hub's ledger holds.
    ArchiveManifest,
    /// What the hub knew as of an entry of its ledger.
    LedgerBase,
    /// A policy, signed by HQ.
    Policy,
    /// The devices of HQ's stores, signed by HQ.
    DeviceList,
    /// Whose policies hubs obey, signed by several people of HQ: the only
    /// object that is a [`Several`].
    Root,
    /// What a device says of itself.
    DeviceDescription,
    /// What a verifier says of a device that has the keys that it was enrolled
    /// with.
    AttestationResult,
    /// What a verifier says of a device that signs with the key that is named:
    /// from wire version 6 on.
    AttestationResult2,
    /// A device's request to be enrolled.
    Enrolment,
    /// The hub's confirmation of an enrolment.
    Registration,
    /// What a device may approve while it cannot reach the hub.
    Allowance,
    /// A device's own receipt for what it approved under an allowance.
    DeviceReceipt,
    /// A device closes an allowance.
    AllowanceReturn,
    /// The hub's signing key gives way to another.
    HubKeyChange,
    /// The TLS keys by which the hub is reached.
    HubTlsKeys,
    /// A device's keys give way to others, in wire version 5: without a
    /// signature by the new TLS key. In ledgers only.
    DeviceKeyChange,
    /// A device's keys give way to others.
    DeviceKeyChange2,
    /// A device has the TLS key that it changes to: signed by that.
    DeviceTlsKey,
}

impl ObjectType {
    /// The string that is signed with the object.
    pub const fn aad(self) -> &'static str {
        match self {
            Self::PaymentRequest => "hub-payment-request/1",
            Self::PaymentRequest2 => "hub-payment-request/2",
            Self::Override => "hub-override/1",
            Self::VoidRequest => "hub-void-request/1",
            Self::Receipt => "hub-receipt/1",
            Self::Status => "hub-status/1",
            Self::LedgerEntry => "hub-ledger-entry/1",
            Self::LedgerCommit => "hub-ledger-commit/1",
            Self::SegmentFooter => "hub-segment-footer/1",
            Self::ArchiveManifest => "hub-archive-manifest/1",
            Self::LedgerBase => "hub-ledger-base/1",
            Self::Policy => "hub-policy/1",
            Self::DeviceList => "hub-device-list/1",
            Self::Root => "hub-root/1",
            Self::DeviceDescription => "hub-device-description/1",
            Self::AttestationResult => "hub-attestation-result/1",
            Self::AttestationResult2 => "hub-attestation-result/2",
            Self::Enrolment => "hub-enrolment/1",
            Self::Registration => "hub-registration/1",
            Self::Allowance => "hub-allowance/1",
            Self::DeviceReceipt => "hub-device-receipt/1",
            Self::AllowanceReturn => "hub-allowance-return/1",
            Self::HubKeyChange => "hub-key-change/1",
            Self::HubTlsKeys => "hub-tls-keys/1",
            Self::DeviceKeyChange => "hub-device-key-change/1",
            Self::DeviceKeyChange2 => "hub-device-key-change/2",
            Self::DeviceTlsKey => "hub-device-tls-key/1",
        }
    }
}

pub use p256::{CheckP256, P256_SPKI_LEN, UnverifiedP256, p256_point, sign_p256};
pub use several::{MAX_SIGNATURES, Several};
pub use together::{Claim, MOST_TOGETHER, verify_together};

/// Why a signed object was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    /// Not a tagged COSE_Sign1 in deterministic encoding with exactly the
    /// headers that the protocol allows.
    #[error("not a COSE_Sign1 object as the protocol has it")]
    Malformed,
    /// Another algorithm than Ed25519 (-19), or where a P-256 key signs, than
    /// ESP256 (-9).
    #[error("signed with another algorithm than the protocol has here")]
    Algorithm,
    /// The key id names another key than the one expected.
    #[error("signed by another key than expected")]
    UnknownKey,
    /// The signature does not verify for this type, payload and key.
    #[error("the signature does not verify")]
    BadSignature,
}

/// Signs `payload` as an object of type `object`.
pub fn sign(key: &SigningKey, object: ObjectType, payload: &[u8]) -> Vec<u8> {
    let kid = KeyId::of_key(key.verifying_key().as_bytes());
    let protected = HeaderBuilder::new()
        .algorithm(iana::Algorithm::Ed25519)
        .key_id(kid.0.to_vec())
        .build();
    CoseSign1Builder::new()
        .protected(protected)
        .payload(payload.to_vec())
        .create_signature(object.aad().as_bytes(), |tbs| key.sign(tbs).to_bytes().to_vec())
        .build()
        .to_tagged_vec()
        // Encoding to a Vec cannot fail; an empty object verifies nowhere.
        .unwrap_or_default()
}

/// A parsed object whose signature has not been checked yet.
#[derive(Clone, Debug)]
pub struct Unverified<'a> {
    kid: KeyId,
    protected: &'a [u8],
    payload: &'a [u8],
    signature: Signature,
}

impl<'a> Unverified<'a> {
    /// Parses a tagged COSE_Sign1 and holds it to the protocol's form.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CoseError> {
        let (protected, payload, signature) = parts(bytes).ok_or(CoseError::Malformed)?;
        let kid = kid_of(protected, PROTECTED);
        let kid = kid.ok_or_else(|| fault_of(protected, iana::Algorithm::Ed25519))?;
        let signature = Signature::from_slice(signature).map_err(|_| CoseError::Malformed)?;
        Ok(Self {
            kid,
            protected,
            payload,
            signature,
        })
    }

    /// The payload as it stands in `bytes`, before its signature is checked,
    /// of an object in the protocol's form.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn payload_of(bytes: &'a [u8]) -> Result<&'a [u8], CoseError> {
        Ok(Self::parse(bytes)?.payload)
    }

    /// The key that the object says it is signed by.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// The payload before its signature is checked: for tools that show what
    /// a file says, never for a decision.
    pub fn payload_unverified(&self) -> &'a [u8] {
        self.payload
    }

    /// Checks the signature (RFC 8032, strictly: no malleable or small-order
    /// forms) and gives the payload.
    pub fn verify(self, object: ObjectType, key: &VerifyingKey) -> Result<Vec<u8>, CoseError> {
        if self.kid != KeyId::of_key(key.as_bytes()) {
            return Err(CoseError::UnknownKey);
        }
        let signed = self.signed_bytes(object);
        key.verify_strict(&signed, &self.signature)
            .map_err(|_| CoseError::BadSignature)?;
        Ok(self.payload.to_vec())
    }

    fn signed_bytes(&self, object: ObjectType) -> Vec<u8> {
        sig_structure(self.protected, object, self.payload)
    }
}

/// The Sig_structure of RFC 9052 §4.4.
fn sig_structure(protected: &[u8], object: ObjectType, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 80);
    let mut encoder = minicbor::Encoder::new(&mut out);
    // Writing into a Vec cannot fail.
    let _ = encoder
        .array(4)
        .and_then(|e| e.str("Signature1"))
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.bytes(object.aad().as_bytes()))
        .and_then(|e| e.bytes(payload));
    out
}

/// 18([protected, {}, payload, signature]).
fn tagged(protected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 100);
    let mut encoder = minicbor::Encoder::new(&mut out);
    // Writing into a Vec cannot fail.
    let _ = encoder
        .tag(minicbor::data::Tag::new(CoseSign1::TAG))
        .and_then(|e| e.array(4))
        .and_then(|e| e.bytes(protected))
        .and_then(|e| e.map(0))
        .and_then(|e| e.bytes(payload))
        .and_then(|e| e.bytes(signature));
    out
}

/// The longest protected header that is looked at. The protocol's own has 21
/// bytes; what is longer can only be something else.
const MAX_PROTECTED: usize = 64;

/// How every protected header begins: a map of two, `1: -19, 4:` and 16 bytes.
const PROTECTED: [u8; 5] = [0xa2, 0x01, 0x32, 0x04, 0x50];

/// Protected header, payload and signature of 18([bytes, {}, bytes, bytes])
/// in deterministic encoding. A payment is parsed here, with nothing built
/// but these slices; a general decoder would build a tree of whatever the
/// unprotected header holds, with memory for lengths declared.
fn parts(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    cbor::scan(bytes).ok()?;
    let mut decoder = minicbor::Decoder::new(bytes);
    let tagged = decoder.tag().ok()?.as_u64() == CoseSign1::TAG && decoder.array().ok()? == Some(4);
    let protected = decoder.bytes().ok()?;
    let unprotected_empty = decoder.map().ok()? == Some(0);
    let payload = decoder.bytes().ok()?;
    let signature = decoder.bytes().ok()?;
    (tagged && unprotected_empty && protected.len() <= MAX_PROTECTED)
        .then_some((protected, payload, signature))
}

/// The key id in a protected header of the one form that there is.
fn kid_of(protected: &[u8], begins: [u8; 5]) -> Option<KeyId> {
    let kid = protected.strip_prefix(&begins)?;
    kid.try_into().ok().map(KeyId)
}

/// What is wrong with a protected header of another form.
fn fault_of(protected: &[u8], expected: iana::Algorithm) -> CoseError {
    use coset::RegisteredLabelWithPrivate::Assigned;
    match Header::from_slice(protected).map(|header| header.alg) {
        Ok(Some(Assigned(found))) if found == expected => CoseError::Malformed,
        Ok(None) | Err(_) => CoseError::Malformed,
        Ok(Some(_)) => CoseError::Algorithm,
    }
}

/// Parses `bytes`, checks type, key and signature, and gives the payload.
pub fn verify(bytes: &[u8], object: ObjectType, key: &VerifyingKey) -> Result<Vec<u8>, CoseError> {
    Unverified::parse(bytes)?.verify(object, key)
}

/// Verifies `bytes` and decodes the payload: how every signed object is
/// opened. The refusal of the first fault found, in this order: the object's
/// form, its algorithm, its key, its signature, then its content.
pub fn open<T>(bytes: &[u8], object: ObjectType, key: &VerifyingKey) -> Result<T, Refusal>
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    Ok(cbor::decode(&verify(bytes, object, key)?)?)
}

/// A verifying key from its 32 bytes; weak (small-order) keys are refused.
pub fn verifying_key(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

/// The number of the one algorithm in use, for documents and vectors.
pub fn algorithm_number() -> i64 {
    iana::Algorithm::Ed25519.to_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    #[test]
    fn a_signed_object_verifies_and_only_as_its_own_type() {
        let bytes = sign(&key(1), ObjectType::Receipt, b"payload");
        let public = key(1).verifying_key();
        assert_eq!(
            verify(&bytes, ObjectType::Receipt, &public).as_deref(),
            Ok(&b"payload"[..])
        );
        assert_eq!(
            verify(&bytes, ObjectType::Status, &public),
            Err(CoseError::BadSignature)
        );
        assert_eq!(
            verify(&bytes, ObjectType::Receipt, &key(2).verifying_key()),
            Err(CoseError::UnknownKey)
        );
    }

    #[test]
    fn every_flipped_bit_of_a_signed_object_is_refused() {
        let bytes = sign(&key(1), ObjectType::Receipt, b"payload");
        let public = key(1).verifying_key();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                verify(&damaged, ObjectType::Receipt, &public).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn truncated_and_trailing_bytes_are_refused() {
        let bytes = sign(&key(1), ObjectType::Receipt, b"payload");
        for len in 0..bytes.len() {
            assert!(Unverified::parse(&bytes[..len]).is_err());
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Unverified::parse(&longer).is_err());
    }
    /// 255 levels, each declared with 1,023 items, is 8 MB of room made by the
    /// general decoder before it finds that the items are missing.
    #[test]
    fn an_unprotected_header_is_refused_by_its_shape_before_it_is_decoded() {
        let good = sign(&key(1), ObjectType::Receipt, b"payload");
        assert!(parts(&good).is_some());
        let place = good.iter().position(|byte| *byte == 0xa0).unwrap();
        let with = |unprotected: &[u8]| [&good[..place], unprotected, &good[place + 1..]].concat();
        assert_eq!(parts(&with(&[0xa1, 0x05, 0x41, 0x00])), None);
        assert_eq!(parts(&with(&[0xa1, 0x05, 0x80])), None);
        assert_eq!(parts(&with(&[0x99, 0x03, 0xff].repeat(255))), None);
        assert_eq!(parts(&good[1..]), None);
    }
}
