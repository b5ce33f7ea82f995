//! COSE_Sign1 by a P-256 key: what a device's TLS key signs beside handshakes.
//! The form is that of every other object, but for the algorithm, ESP256 (-9,
//! RFC 9864), and the key id, which is of the SubjectPublicKeyInfo.
//!
//! The curve's arithmetic is the caller's: its libraries draw in randomness,
//! and phones sign with a key that their secure hardware keeps.

use super::{CoseError, ObjectType, fault_of, kid_of, parts, sig_structure, tagged};
use crate::id::{Digest, KeyId};

/// Length of the SubjectPublicKeyInfo of an uncompressed P-256 key in DER (RFC
/// 5480), in bytes.
pub const P256_SPKI_LEN: usize = 91;

/// How it begins. One key has one such encoding, and so one identity.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// How such a protected header begins: a map of two, `1: -9, 4:` and 16 bytes.
const PROTECTED: [u8; 5] = [0xa2, 0x01, 0x28, 0x04, 0x50];

/// The point of a P-256 key by its SubjectPublicKeyInfo in DER: a byte 4, then
/// both coordinates (SEC 1, uncompressed). `None` if it is anything else;
/// whether the point is on the curve is seen when a signature is checked.
pub fn p256_point(spki: &[u8]) -> Option<&[u8; 65]> {
    let point: &[u8; 65] = spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    (point[0] == 4).then_some(point)
}

/// Checks ECDSA over SHA-256 on P-256 (FIPS 186-5): of the point, the message
/// and the signature, which is r and s of 32 bytes each, big-endian.
pub type CheckP256 = fn(&[u8; 65], &[u8], &[u8; 64]) -> bool;

/// Signs `payload` as an object of type `object` with the key of this
/// SubjectPublicKeyInfo. `signer` is given what is to be signed and gives r
/// and s, 32 bytes each, big-endian (RFC 9053 §2.1).
///
/// # Errors
/// What the signer says.
pub fn sign_p256<E>(
    spki: &[u8],
    object: ObjectType,
    payload: &[u8],
    signer: impl FnOnce(&[u8]) -> Result<[u8; 64], E>,
) -> Result<Vec<u8>, E> {
    let protected = [&PROTECTED[..], &kid(spki).0].concat();
    let signature = signer(&sig_structure(&protected, object, payload))?;
    Ok(tagged(&protected, payload, &signature))
}

/// A parsed object by a P-256 key whose signature has not been checked yet.
#[derive(Clone, Debug)]
pub struct UnverifiedP256<'a> {
    kid: KeyId,
    protected: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8; 64],
}

impl<'a> UnverifiedP256<'a> {
    /// Parses a tagged COSE_Sign1 and holds it to the protocol's form.
    ///
    /// # Errors
    /// [`CoseError::Malformed`], [`CoseError::Algorithm`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, CoseError> {
        let (protected, payload, signature) = parts(bytes).ok_or(CoseError::Malformed)?;
        let kid = kid_of(protected, PROTECTED);
        let kid = kid.ok_or_else(|| fault_of(protected, coset::iana::Algorithm::ESP256))?;
        Ok(Self {
            kid,
            protected,
            payload,
            signature: signature.try_into().map_err(|_| CoseError::Malformed)?,
        })
    }

    /// The payload before its signature is checked: to find the key in it.
    pub fn payload_unverified(&self) -> &'a [u8] {
        self.payload
    }

    /// Checks the signature by the key of this SubjectPublicKeyInfo and gives
    /// the payload.
    ///
    /// # Errors
    /// [`CoseError::UnknownKey`], [`CoseError::BadSignature`].
    pub fn verify(self, object: ObjectType, spki: &[u8], check: CheckP256) -> Result<&'a [u8], CoseError> {
        let point = p256_point(spki).filter(|_| self.kid == kid(spki));
        let point = point.ok_or(CoseError::UnknownKey)?;
        let signed = sig_structure(self.protected, object, self.payload);
        match check(point, &signed, self.signature) {
            true => Ok(self.payload),
            false => Err(CoseError::BadSignature),
        }
    }
}

/// The first 16 bytes of SHA-256 over the SubjectPublicKeyInfo.
fn kid(spki: &[u8]) -> KeyId {
    let mut kid = KeyId([0; 16]);
    kid.0.copy_from_slice(&Digest::of(spki).0[..16]);
    kid
}
