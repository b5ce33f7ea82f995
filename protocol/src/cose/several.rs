//! COSE_Sign (RFC 9052 §4.1) as hubd uses it, for what several people sign:
//! tagged (98), both headers of the body empty, payload present, and for each
//! signature a protected header exactly `{1: -19 (Ed25519), 4: kid}` and an
//! empty unprotected one. Signatures stand in the order of their key ids, one
//! a key, so that the same signatures give the same bytes.

use coset::iana::Algorithm;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use super::{CoseError, MAX_PROTECTED, ObjectType, PROTECTED, fault_of, kid_of};
use crate::cbor;
use crate::id::KeyId;

/// The tag of COSE_Sign.
const TAG: u64 = 98;

/// The most signatures of one object. A root of so many keys and the one
/// before it may each have all of theirs.
pub const MAX_SIGNATURES: usize = 32;

/// A payload and what was signed of it. Whose signatures count, and how many
/// are enough, is for the payload's rules to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Several {
    payload: Vec<u8>,
    signatures: Vec<(KeyId, Signature)>,
}

impl Several {
    /// A payload that nobody has signed yet.
    pub fn unsigned(payload: Vec<u8>) -> Self {
        Self {
            payload,
            signatures: Vec::new(),
        }
    }

    /// Parses a tagged COSE_Sign and holds it to the protocol's form.
    ///
    /// # Errors
    /// Another form, algorithm or order, a key twice, more than
    /// [`MAX_SIGNATURES`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CoseError> {
        cbor::scan(bytes).map_err(|_| CoseError::Malformed)?;
        let mut decoder = minicbor::Decoder::new(bytes);
        head(&mut decoder).ok_or(CoseError::Malformed)?;
        let payload = decoder.bytes().map_err(|_| CoseError::Malformed)?.to_vec();
        let count = match decoder.array() {
            Ok(Some(count)) if count <= MAX_SIGNATURES as u64 => count,
            _ => return Err(CoseError::Malformed),
        };
        let mut signatures: Vec<(KeyId, Signature)> = Vec::new();
        for _ in 0..count {
            let (protected, signature) = one(&mut decoder).ok_or(CoseError::Malformed)?;
            let kid = kid_of(protected, PROTECTED).ok_or_else(|| fault_of(protected, Algorithm::Ed25519))?;
            let signature = Signature::from_slice(signature).map_err(|_| CoseError::Malformed)?;
            if signatures.last().is_some_and(|(before, _)| *before >= kid) {
                return Err(CoseError::Malformed);
            }
            signatures.push((kid, signature));
        }
        Ok(Self { payload, signatures })
    }
}

impl Several {
    /// The object as it travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 32 + self.signatures.len() * 100);
        let mut encoder = minicbor::Encoder::new(&mut out);
        // Writing into a Vec cannot fail.
        let _ = encoder
            .tag(minicbor::data::Tag::new(TAG))
            .and_then(|e| e.array(4))
            .and_then(|e| e.bytes(&[]))
            .and_then(|e| e.map(0))
            .and_then(|e| e.bytes(&self.payload))
            .and_then(|e| e.array(self.signatures.len() as u64));
        for (kid, signature) in &self.signatures {
            let _ = encoder
                .array(3)
                .and_then(|e| e.bytes(&protected(*kid)))
                .and_then(|e| e.map(0))
                .and_then(|e| e.bytes(&signature.to_bytes()));
        }
        out
    }

    /// What was signed, whoever did.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The keys that the object says it is signed by, in their order.
    pub fn kids(&self) -> impl Iterator<Item = KeyId> {
        self.signatures.iter().map(|(kid, _)| *kid)
    }

    /// Adds this key's signature, in place of one that it made before.
    /// Returns false, and adds nothing, if there are [`MAX_SIGNATURES`].
    #[must_use]
    pub fn sign(&mut self, key: &SigningKey, object: ObjectType) -> bool {
        let kid = KeyId::of_key(key.verifying_key().as_bytes());
        let signature = key.sign(&self.signed_bytes(kid, object));
        match self.signatures.binary_search_by_key(&kid, |(kid, _)| *kid) {
            Ok(place) => {
                if let Some(found) = self.signatures.get_mut(place) {
                    found.1 = signature;
                }
            }
            Err(_) if self.signatures.len() >= MAX_SIGNATURES => return false,
            Err(place) => self.signatures.insert(place, (kid, signature)),
        }
        true
    }

    /// Whether this key has signed: strictly verified (RFC 8032).
    ///
    /// # Errors
    /// There is a signature under this key's id that does not verify.
    pub fn signed_by(&self, key: &VerifyingKey, object: ObjectType) -> Result<bool, CoseError> {
        let own = KeyId::of_key(key.as_bytes());
        let Some((kid, signature)) = self.signatures.iter().find(|(kid, _)| *kid == own) else {
            return Ok(false);
        };
        key.verify_strict(&self.signed_bytes(*kid, object), signature)
            .map_err(|_| CoseError::BadSignature)?;
        Ok(true)
    }

    /// The Sig_structure of RFC 9052 §4.4 for one of several signatures.
    fn signed_bytes(&self, kid: KeyId, object: ObjectType) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 96);
        let mut encoder = minicbor::Encoder::new(&mut out);
        // Writing into a Vec cannot fail.
        let _ = encoder
            .array(5)
            .and_then(|e| e.str("Signature"))
            .and_then(|e| e.bytes(&[]))
            .and_then(|e| e.bytes(&protected(kid)))
            .and_then(|e| e.bytes(object.aad().as_bytes()))
            .and_then(|e| e.bytes(&self.payload));
        out
    }
}

/// The protected header of a signature by this key.
fn protected(kid: KeyId) -> Vec<u8> {
    [&PROTECTED[..], &kid.0].concat()
}

/// What comes before the payload, and is always the same.
fn head(decoder: &mut minicbor::Decoder<'_>) -> Option<()> {
    let tagged = decoder.tag().ok()?.as_u64() == TAG && decoder.array().ok()? == Some(4);
    let bare = decoder.bytes().ok()?.is_empty() && decoder.map().ok()? == Some(0);
    (tagged && bare).then_some(())
}

/// Protected header and signature of one signature.
fn one<'a>(decoder: &mut minicbor::Decoder<'a>) -> Option<(&'a [u8], &'a [u8])> {
    if decoder.array().ok()? != Some(3) {
        return None;
    }
    let protected = decoder.bytes().ok()?;
    let unprotected_empty = decoder.map().ok()? == Some(0);
    let signature = decoder.bytes().ok()?;
    (unprotected_empty && protected.len() <= MAX_PROTECTED).then_some((protected, signature))
}
