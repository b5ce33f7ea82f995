//! COSE_Sign1 (RFC 9052) as hubd uses it: tagged (18), protected header
//! exactly `{1: -19 (Ed25519), 4: kid}`, unprotected header empty, payload
//! present, `external_aad` = the object's type string.

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
    /// A device asks for a payment.
    PaymentRequest,
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
    /// A policy, signed by HQ.
    Policy,
    /// A device's request to be enrolled.
    Enrolment,
    /// The hub's confirmation of an enrolment.
    Registration,
}

impl ObjectType {
    /// The string that is signed with the object.
    pub const fn aad(self) -> &'static str {
        match self {
            Self::PaymentRequest => "hub-payment-request/1",
            Self::VoidRequest => "hub-void-request/1",
            Self::Receipt => "hub-receipt/1",
            Self::Status => "hub-status/1",
            Self::LedgerEntry => "hub-ledger-entry/1",
            Self::LedgerCommit => "hub-ledger-commit/1",
            Self::SegmentFooter => "hub-segment-footer/1",
            Self::Policy => "hub-policy/1",
            Self::Enrolment => "hub-enrolment/1",
            Self::Registration => "hub-registration/1",
        }
    }
}

/// Why a signed object was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoseError {
    /// Not a tagged COSE_Sign1 in deterministic encoding with exactly the
    /// headers that the protocol allows.
    #[error("not a COSE_Sign1 object as the protocol has it")]
    Malformed,
    /// Another algorithm than Ed25519 (-19).
    #[error("signed with another algorithm than Ed25519 (-19)")]
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
pub struct Unverified {
    kid: KeyId,
    sign1: CoseSign1,
}

impl Unverified {
    /// Parses a tagged COSE_Sign1 and holds it to the protocol's form.
    pub fn parse(bytes: &[u8]) -> Result<Self, CoseError> {
        shape(bytes).ok_or(CoseError::Malformed)?;
        let sign1 = CoseSign1::from_tagged_slice(bytes).map_err(|_| CoseError::Malformed)?;
        let header = &sign1.protected.header;
        match &header.alg {
            Some(coset::RegisteredLabelWithPrivate::Assigned(iana::Algorithm::Ed25519)) => {}
            Some(_) => return Err(CoseError::Algorithm),
            None => return Err(CoseError::Malformed),
        }
        let kid = KeyId(
            header
                .key_id
                .as_slice()
                .try_into()
                .map_err(|_| CoseError::Malformed)?,
        );
        let expected = HeaderBuilder::new()
            .algorithm(iana::Algorithm::Ed25519)
            .key_id(kid.0.to_vec())
            .build();
        let expected_bytes = expected.to_vec().map_err(|_| CoseError::Malformed)?;
        let as_received = sign1.protected.original_data.as_deref();
        if as_received != Some(expected_bytes.as_slice())
            || sign1.unprotected != Header::default()
            || sign1.payload.is_none()
            || sign1.signature.len() != 64
        {
            return Err(CoseError::Malformed);
        }
        if sign1.clone().to_tagged_vec().map_err(|_| CoseError::Malformed)? != bytes {
            return Err(CoseError::Malformed);
        }
        Ok(Self { kid, sign1 })
    }

    /// The payload as it stands in `bytes`, before its signature is checked,
    /// of an object in the protocol's form.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn payload_of(bytes: &[u8]) -> Result<&[u8], CoseError> {
        Self::parse(bytes)?;
        let payload = || {
            let mut decoder = minicbor::Decoder::new(bytes);
            decoder.tag().ok()?;
            decoder.array().ok()?;
            decoder.bytes().ok()?;
            decoder.map().ok()?;
            decoder.bytes().ok()
        };
        payload().ok_or(CoseError::Malformed)
    }

    /// The key that the object says it is signed by.
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    /// The payload before its signature is checked: for tools that show what
    /// a file says, never for a decision.
    pub fn payload_unverified(&self) -> &[u8] {
        self.sign1.payload.as_deref().unwrap_or_default()
    }

    /// Checks the signature (RFC 8032, strictly: no malleable or small-order
    /// forms) and gives the payload.
    pub fn verify(self, object: ObjectType, key: &VerifyingKey) -> Result<Vec<u8>, CoseError> {
        if self.kid != KeyId::of_key(key.as_bytes()) {
            return Err(CoseError::UnknownKey);
        }
        self.sign1
            .verify_signature(object.aad().as_bytes(), |signature, tbs| {
                let signature = Signature::from_slice(signature).map_err(|_| CoseError::BadSignature)?;
                key.verify_strict(tbs, &signature)
                    .map_err(|_| CoseError::BadSignature)
            })?;
        self.sign1.payload.ok_or(CoseError::Malformed)
    }
}

/// The longest protected header that is looked at. The protocol's own has 21
/// bytes; what is longer can only be something else.
const MAX_PROTECTED: usize = 64;

/// Whether `bytes` is 18([bytes, {}, bytes, bytes]) in deterministic encoding.
/// Looked at first because the general decoder behind coset builds a tree of
/// whatever the unprotected header holds, with memory for lengths declared.
fn shape(bytes: &[u8]) -> Option<()> {
    cbor::scan(bytes).ok()?;
    let mut decoder = minicbor::Decoder::new(bytes);
    let tagged = decoder.tag().ok()?.as_u64() == CoseSign1::TAG && decoder.array().ok()? == Some(4);
    let protected = decoder.bytes().ok()?.len() <= MAX_PROTECTED;
    let unprotected_empty = decoder.map().ok()? == Some(0);
    decoder.bytes().ok()?;
    decoder.bytes().ok()?;
    (tagged && protected && unprotected_empty).then_some(())
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
        assert_eq!(shape(&good), Some(()));
        let place = good.iter().position(|byte| *byte == 0xa0).unwrap();
        let with = |unprotected: &[u8]| [&good[..place], unprotected, &good[place + 1..]].concat();
        assert_eq!(shape(&with(&[0xa1, 0x05, 0x41, 0x00])), None);
        assert_eq!(shape(&with(&[0xa1, 0x05, 0x80])), None);
        assert_eq!(shape(&with(&[0x99, 0x03, 0xff].repeat(255))), None);
        assert_eq!(shape(&good[1..]), None);
    }
}
