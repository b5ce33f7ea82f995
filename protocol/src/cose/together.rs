//! Checking the signatures of several objects at once, which costs less than
//! half of checking them one by one.
//!
//! The equation is RFC 8032's (§5.1.7, with the cofactor), and beside it S
//! must be below the group order, R and key neither of small order nor in
//! another encoding than the one: algorithm 2 of Chalkias, Garillot and
//! Nikolaenko, "Taming the Many EdDSAs" (2020). So a signature is good or bad
//! by itself, whatever it is checked together with. [`cose::verify`] leaves
//! the cofactor out, as most libraries do; only who holds the key can make a
//! signature that the two take differently.
//!
//! [`cose::verify`]: super::verify

use curve25519_dalek::constants::ED25519_BASEPOINT_POINT;
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use curve25519_dalek::traits::{IsIdentity, VartimeMultiscalarMul};
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha512};

use super::{CoseError, ObjectType, Unverified};
use crate::KeyId;

/// More than so many at once are no cheaper each.
pub const MOST_TOGETHER: usize = 16;

/// An object, and what it must be to be good.
#[derive(Clone, Debug)]
pub struct Claim<'a> {
    /// The object.
    pub object: Unverified<'a>,
    /// Its type.
    pub object_type: ObjectType,
    /// Who must have signed it.
    pub key: VerifyingKey,
}

/// Checks the signatures of objects, and gives for each its payload or its
/// fault. One bad signature makes this as dear as checking each alone, and
/// the work in vain on top: callers keep those apart who send such.
///
/// # Errors
/// For each as [`Unverified::verify`].
pub fn verify_together(claims: &[Claim<'_>]) -> Vec<Result<Vec<u8>, CoseError>> {
    let terms: Vec<Result<Term, CoseError>> = claims.iter().map(Term::of).collect();
    let mut good = vec![false; claims.len()];
    for (terms, good) in terms.chunks(MOST_TOGETHER).zip(good.chunks_mut(MOST_TOGETHER)) {
        let whole: Vec<&Term> = terms.iter().flatten().collect();
        let all = holds(&whole);
        for (term, good) in terms.iter().zip(good) {
            *good = term.as_ref().is_ok_and(|term| all || holds(&[term]));
        }
    }
    let found = claims.iter().zip(terms).zip(good);
    found
        .map(|((claim, term), good)| {
            term?;
            good.then(|| claim.object.payload.to_vec())
                .ok_or(CoseError::BadSignature)
        })
        .collect()
}

/// What one signature brings to the equation.
struct Term {
    r: EdwardsPoint,
    s: Scalar,
    key: EdwardsPoint,
    /// SHA-512 over R, key and message: RFC 8032's k, before reduction.
    hash: [u8; 64],
}

impl Term {
    fn of(claim: &Claim<'_>) -> Result<Self, CoseError> {
        let object = &claim.object;
        if object.kid != KeyId::of_key(claim.key.as_bytes()) {
            return Err(CoseError::UnknownKey);
        }
        let r = object.signature.r_bytes();
        let hash = Sha512::new()
            .chain_update(r)
            .chain_update(claim.key.as_bytes())
            .chain_update(object.signed_bytes(claim.object_type));
        let s: Option<Scalar> = Scalar::from_canonical_bytes(*object.signature.s_bytes()).into();
        let term = Self {
            r: point(r).ok_or(CoseError::BadSignature)?,
            s: s.ok_or(CoseError::BadSignature)?,
            key: claim.key.to_edwards(),
            hash: hash.finalize().into(),
        };
        if term.r.is_small_order() || claim.key.is_weak() {
            return Err(CoseError::BadSignature);
        }
        Ok(term)
    }
}

/// A point in its one encoding.
fn point(bytes: &[u8; 32]) -> Option<EdwardsPoint> {
    is_reduced(bytes).then(|| CompressedEdwardsY(*bytes).decompress())?
}

/// Whether the coordinate y, all but the highest bit, is below 2^255 - 19.
fn is_reduced(bytes: &[u8; 32]) -> bool {
    let [lowest, between @ .., highest] = bytes;
    *lowest < 0xed || highest & 0x7f != 0x7f || between.iter().any(|byte| *byte != 0xff)
}

/// Whether 8 (Σ z s B - Σ z R - Σ z k A) is the neutral element, with factors
/// z that nobody can choose. For if one signature is bad and the sum is still
/// right, its z was the one of 2^128 that fits.
fn holds(terms: &[&Term]) -> bool {
    let factors = factors(terms);
    let base: Scalar = terms.iter().zip(&factors).map(|(term, z)| z * term.s).sum();
    let keys = terms.iter().zip(&factors).map(|(term, z)| {
        let k = Scalar::from_bytes_mod_order_wide(&term.hash);
        (z * k, term.key)
    });
    let rs = terms.iter().zip(&factors).map(|(term, z)| (*z, term.r));
    let (scalars, points): (Vec<Scalar>, Vec<EdwardsPoint>) =
        std::iter::once((-base, ED25519_BASEPOINT_POINT))
            .chain(rs)
            .chain(keys)
            .unzip();
    EdwardsPoint::vartime_multiscalar_mul(scalars, points)
        .mul_by_cofactor()
        .is_identity()
}

/// A factor of 128 bits for each, from a hash over all there is: whoever
/// changes a bit of any signature changes them all. The first may be one.
fn factors(terms: &[&Term]) -> Vec<Scalar> {
    let mut all = Sha512::new_with_prefix(b"hub signatures checked together");
    for term in terms {
        all.update(term.hash);
        all.update(term.s.as_bytes());
    }
    let seed = all.finalize();
    let factor = |place: usize| {
        let hash = Sha512::new()
            .chain_update(seed)
            .chain_update((place as u64).to_le_bytes())
            .finalize();
        let factor = hash.first_chunk().copied().unwrap_or_default();
        Scalar::from(u128::from_le_bytes(factor))
    };
    (0..terms.len())
        .map(|place| if place == 0 { Scalar::ONE } else { factor(place) })
        .collect()
}

#[cfg(test)]
mod tests {
    use curve25519_dalek::constants::EIGHT_TORSION;
    use ed25519_dalek::SigningKey;

    use super::super::{sign, verify};
    use super::*;

    const TYPE: ObjectType = ObjectType::PaymentRequest;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn signed(count: u8) -> Vec<Vec<u8>> {
        (0..count).map(|n| sign(&key(n), TYPE, &[n; 40])).collect()
    }

    fn check(signed: &[Vec<u8>]) -> Vec<Result<Vec<u8>, CoseError>> {
        let claims = signed.iter().enumerate().map(|(n, bytes)| Claim {
            object: Unverified::parse(bytes).unwrap(),
            object_type: TYPE,
            key: key(n as u8).verifying_key(),
        });
        verify_together(&claims.collect::<Vec<_>>())
    }

    #[test]
    fn good_signatures_give_their_payloads_in_any_number() {
        for count in [0, 1, 2, 15, 16, 17, 40] {
            let found = check(&signed(count));
            assert_eq!(found.len(), usize::from(count));
            for (n, payload) in found.into_iter().enumerate() {
                assert_eq!(payload, Ok(vec![n as u8; 40]));
            }
        }
    }

    #[test]
    fn a_flipped_bit_of_a_signature_is_refused_and_costs_its_neighbours_nothing() {
        let good = signed(5);
        let at = good[2].len() - 64;
        for bit in 0..64 * 8 {
            let mut some = good.clone();
            some[2][at + bit / 8] ^= 1 << (bit % 8);
            for (n, found) in check(&some).into_iter().enumerate() {
                assert_eq!(found.is_ok(), n != 2, "bit {bit}, signature {n}");
            }
        }
    }

    #[test]
    fn two_wrongs_that_cancel_out_are_both_refused() {
        let mut some = signed(4);
        let mut shift = |n: usize, by: Scalar| {
            let at = some[n].len() - 32;
            let s = Scalar::from_canonical_bytes(some[n][at..].try_into().unwrap()).unwrap() + by;
            some[n][at..].copy_from_slice(s.as_bytes());
        };
        shift(1, Scalar::from(7_u64));
        shift(2, -Scalar::from(7_u64));
        let good: Vec<bool> = check(&some).iter().map(Result::is_ok).collect();
        assert_eq!(good, [true, false, false, true]);
    }

    #[test]
    fn another_type_or_key_is_refused_as_it_is_alone() {
        let some = [
            sign(&key(0), TYPE, b"good"),
            sign(&key(1), ObjectType::VoidRequest, b"another type"),
            sign(&key(9), TYPE, b"another key"),
        ];
        let found = check(&some);
        assert_eq!(found[0], Ok(b"good".to_vec()));
        assert_eq!(found[1], Err(CoseError::BadSignature));
        assert_eq!(found[2], Err(CoseError::UnknownKey));
    }

    /// A signature by who holds the key, with a point of small order added
    /// to R.
    fn with_torsion(signing: &SigningKey, payload: &[u8], torsion: EdwardsPoint) -> Vec<u8> {
        let mut object = sign(signing, TYPE, payload);
        let message = Unverified::parse(&object).unwrap().signed_bytes(TYPE);
        let secret = Scalar::from(123_456_789_u64);
        let r = (ED25519_BASEPOINT_POINT * secret + torsion).compress();
        let hash = Sha512::new()
            .chain_update(r.as_bytes())
            .chain_update(signing.verifying_key().as_bytes())
            .chain_update(&message);
        let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
        let s = secret + k * signing.to_scalar();
        let at = object.len() - 64;
        object[at..at + 32].copy_from_slice(r.as_bytes());
        object[at + 32..].copy_from_slice(s.as_bytes());
        object
    }

    #[test]
    fn a_signature_is_good_or_bad_whatever_it_is_checked_together_with() {
        for torsion in EIGHT_TORSION {
            let odd = with_torsion(&key(0), b"odd", torsion);
            for company in 0..8 {
                let mut some = signed(company + 1);
                some[0] = odd.clone();
                assert!(check(&some).iter().all(Result::is_ok));
                // Two of them, whose torsion may cancel out.
                let mut two = signed(company + 2);
                two[0] = odd.clone();
                two[1] = with_torsion(&key(1), b"odd too", -torsion);
                assert!(check(&two).iter().all(Result::is_ok));
            }
            let strictly = verify(&odd, TYPE, &key(0).verifying_key());
            assert_eq!(strictly.is_ok(), torsion == EIGHT_TORSION[0]);
        }
    }

    #[test]
    fn a_point_in_a_second_encoding_is_refused() {
        let mut largest = [0xff; 32];
        largest[31] = 0x7f;
        largest[0] = 0xec;
        assert!(is_reduced(&largest));
        largest[0] = 0xed;
        assert!(!is_reduced(&largest));
        largest[31] = 0xff;
        assert!(!is_reduced(&largest));
        largest[15] = 0xfe;
        assert!(is_reduced(&largest));
        let seconds = (2..19).map(|y| {
            let mut second = [0xff; 32];
            (second[0], second[31]) = (0xed + y, 0x7f);
            second
        });
        let points = seconds.filter(|second| CompressedEdwardsY(*second).decompress().is_some());
        let refused = points.map(|second| assert_eq!(point(&second), None));
        assert!(refused.count() > 0);
    }
}
