//! The TLS keys by which a hub is reached, once they are no longer the one
//! that it was named after.
//!
//! A hub's name, its [`HubId`], is the hash of its first TLS key and stays for
//! life. Which keys prove it from then on the hub states, signed with its
//! signing key, in the certificate that it presents: so a device that missed a
//! change, however many, can tell the hub from another within the handshake,
//! before it has sent anything.

use ed25519_dalek::VerifyingKey;
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::commit::ProofError;
use crate::cose::{self, ObjectType};
use crate::id::{Digest, HubId, KeyId};
use crate::key_change::SignedKeyChange;

/// The most TLS keys that a hub has at once: the one that goes and the one
/// that comes.
pub const MOST_TLS_KEYS: usize = 2;

/// The most changes of the signing key that go along in a certificate, the
/// newest of them. A device that missed more is enrolled anew.
pub const MOST_CHANGES_IN_CERTIFICATE: usize = 16;

/// The object identifier of the certificate's extension: below 2.25 (ITU-T
/// X.667), where nobody has to be asked.
pub const TLS_KEYS_OID: [u64; 3] = [2, 25, 1_918_994_997_670_159_211];

/// The same in DER, with tag and length.
const TLS_KEYS_OID_DER: [u8; 12] = [
    0x06, 0x0a, 0x69, 0x9a, 0xd0, 0xe8, 0xf9, 0x87, 0xcf, 0x86, 0xc6, 0x6b,
];

/// The hub is reached under these TLS keys and no other
/// ([`ObjectType::HubTlsKeys`]), signed by the key that it signs with now.
///
/// Believed of the present signing key alone; of two statements the one by the
/// later signing key holds, and of two by one key the one with the higher
/// number.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HubTlsKeys {
    /// Whose keys.
    #[n(1)]
    pub hub: HubId,
    /// Grows with every statement of other keys, from 1.
    #[n(2)]
    pub number: u32,
    /// SHA-256 over the SubjectPublicKeyInfo of each, the newest first; one
    /// or two.
    #[n(3)]
    pub keys: Vec<Digest>,
    /// The ledger entry that says so.
    #[n(4)]
    pub sequence: u64,
    /// Since when, milliseconds since 1970 UTC.
    #[n(5)]
    pub changed_ms: u64,
}

impl HubTlsKeys {
    /// Signs it.
    pub fn sign(&self, key: &ed25519_dalek::SigningKey) -> SignedTlsKeys {
        SignedTlsKeys(cose::sign(key, ObjectType::HubTlsKeys, &cbor::encode(self)))
    }
}

/// A [`HubTlsKeys`] as it is signed and sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SignedTlsKeys(#[cbor(with = "minicbor::bytes")] pub Vec<u8>);

/// Why a statement of a hub's TLS keys is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsKeysError {
    /// It is none, or not signed by the hub's present signing key.
    #[error("the statement of the hub's TLS keys does not hold: {0}")]
    Statement(#[from] ProofError),
    /// It is another hub's.
    #[error("the statement of TLS keys is another hub's")]
    OtherHub,
    /// It names no key, or too many, or one twice.
    #[error("the statement of the hub's TLS keys names no key, too many, or one twice")]
    Keys,
    /// A later one is known already, or another of the same number.
    #[error("the statement of the hub's TLS keys is older than the one that is known")]
    Older,
}

/// By which TLS keys a device knows its hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsPins {
    hub: HubId,
    /// The key that holds while nothing is stated.
    unstated: Digest,
    stated: Option<Stated>,
}

/// A statement, as it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stated {
    says: HubTlsKeys,
    signed: SignedTlsKeys,
    /// The signing key that signed it.
    by: KeyId,
}

impl TlsPins {
    /// By the key that the hub is named after, as far as is known.
    pub const fn new(hub: HubId) -> Self {
        Self::under(hub, Digest(hub.0))
    }

    /// By the key that the device was enrolled under and no other, until the
    /// hub's first statement is known: the one that the hub is named after may
    /// have been retired by then.
    pub const fn under(hub: HubId, key: Digest) -> Self {
        Self {
            hub,
            unstated: key,
            stated: None,
        }
    }

    /// Whose keys.
    pub const fn hub(&self) -> HubId {
        self.hub
    }

    /// The key that holds while nothing is stated.
    pub const fn unstated(&self) -> Digest {
        self.unstated
    }

    /// Whether the key with this SHA-256 over its SubjectPublicKeyInfo is the
    /// hub's.
    pub fn accepts(&self, key: &Digest) -> bool {
        match &self.stated {
            None => *key == self.unstated,
            Some(stated) => stated.says.keys.contains(key),
        }
    }

    /// Takes a statement, if it is signed by `present`, the hub's signing key,
    /// and none later by that key is known. What an earlier signing key stated
    /// counts for nothing beside it, whatever its number. Whether it said
    /// anything new.
    ///
    /// # Errors
    /// [`TlsKeysError`]; what is known is then as it was.
    pub fn take(&mut self, signed: &SignedTlsKeys, present: &VerifyingKey) -> Result<bool, TlsKeysError> {
        let payload = cose::verify(&signed.0, ObjectType::HubTlsKeys, present).map_err(ProofError::Commit)?;
        let says: HubTlsKeys = cbor::decode(&payload).map_err(ProofError::from)?;
        if says.hub != self.hub {
            return Err(TlsKeysError::OtherHub);
        }
        let mut keys = says.keys.clone();
        keys.sort();
        keys.dedup();
        if !(1..=MOST_TLS_KEYS).contains(&says.keys.len()) || keys.len() != says.keys.len() {
            return Err(TlsKeysError::Keys);
        }
        let by = KeyId::of_key(present.as_bytes());
        let known = self.stated.as_ref().filter(|known| known.by == by);
        match known.map_or(0, |known| known.says.number) {
            number if says.number < number || says.number == 0 => Err(TlsKeysError::Older),
            number if says.number == number => {
                let same = known.is_some_and(|known| known.says.keys == says.keys);
                same.then_some(false).ok_or(TlsKeysError::Older)
            }
            _ => {
                let signed = signed.clone();
                self.stated = Some(Stated { says, signed, by });
                Ok(true)
            }
        }
    }

    /// The hub signs with `present` now: drops a statement by a key that has
    /// given way, which whoever took that key may have made. Whether there was
    /// one.
    pub fn signed_by_now(&mut self, present: &VerifyingKey) -> bool {
        let by = KeyId::of_key(present.as_bytes());
        self.stated.take_if(|known| known.by != by).is_some()
    }

    /// The number of the statement that is known; 0 for none.
    pub fn number(&self) -> u32 {
        self.stated.as_ref().map_or(0, |stated| stated.says.number)
    }

    /// The statement that is known, to be kept. It names the key that signed
    /// it, and is [taken](Self::take) again as it was the first time.
    pub fn signed(&self) -> Option<&SignedTlsKeys> {
        self.stated.as_ref().map(|stated| &stated.signed)
    }
}

/// What a hub's certificate says of its keys: the content of the extension
/// [`TLS_KEYS_OID`], as CBOR within an octet string in DER.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CertificateKeys {
    /// The newest changes of the signing key, first to last, at most
    /// [`MOST_CHANGES_IN_CERTIFICATE`].
    #[n(1)]
    pub changes: Vec<SignedKeyChange>,
    /// The TLS keys, signed by the last of those.
    #[n(2)]
    pub keys: SignedTlsKeys,
}

impl CertificateKeys {
    /// The extension's content.
    pub fn to_der(&self) -> Vec<u8> {
        let body = cbor::encode(self);
        let mut der = vec![0x04];
        let length = body.len().to_be_bytes();
        match body.len() {
            0..=0x7f => der.extend(length.last()),
            _ => {
                let significant = length.iter().skip_while(|byte| **byte == 0);
                let significant: Vec<u8> = significant.copied().collect();
                der.push(0x80 | u8::try_from(significant.len()).unwrap_or(8));
                der.extend(significant);
            }
        }
        der.extend(body);
        der
    }

    /// What a certificate in DER says, if it says anything. Found by the
    /// identifier alone and proved by nothing: what counts are the signatures
    /// within.
    pub fn in_certificate(certificate: &[u8]) -> Option<Self> {
        let mut found = certificate.windows(TLS_KEYS_OID_DER.len());
        let at = found.position(|bytes| bytes == TLS_KEYS_OID_DER)?;
        let after = certificate.get(at + TLS_KEYS_OID_DER.len()..)?;
        // Critical or not.
        let after = after.strip_prefix(&[0x01, 0x01, 0xff]).unwrap_or(after);
        cbor::decode(octets(octets(after)?)?).ok()
    }
}

/// The content of the octet string that these bytes begin with.
fn octets(der: &[u8]) -> Option<&[u8]> {
    let (&first, rest) = der.strip_prefix(&[0x04])?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            (
                bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
                rest,
            )
        }
        _ => return None,
    };
    rest.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cose::CoseError;
    use ed25519_dalek::SigningKey;

    const HUB: HubId = HubId([7; 32]);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn stated(number: u32, keys: &[u8]) -> HubTlsKeys {
        HubTlsKeys {
            hub: HUB,
            number,
            keys: keys.iter().map(|byte| Digest([*byte; 32])).collect(),
            sequence: 9,
            changed_ms: 1,
        }
    }

    fn accepted(pins: &TlsPins) -> Vec<u8> {
        (0..=9)
            .filter(|byte| pins.accepts(&Digest([*byte; 32])))
            .collect()
    }

    #[test]
    fn a_hub_is_known_by_the_keys_that_the_newest_statement_names_and_by_no_other() {
        let mut pins = TlsPins::new(HUB);
        assert_eq!(accepted(&pins), [7], "the key it is named after");
        let present = key(1).verifying_key();
        let both = stated(1, &[8, 7]).sign(&key(1));
        assert_eq!(pins.take(&both, &present), Ok(true));
        assert_eq!(pins.take(&both, &present), Ok(false));
        assert_eq!(accepted(&pins), [7, 8], "while they overlap");
        let one = stated(2, &[8]).sign(&key(1));
        assert_eq!(pins.take(&one, &present), Ok(true));
        assert_eq!(accepted(&pins), [8], "the old one is no more");
        let mut kept = TlsPins::new(HUB);
        assert_eq!(kept.take(pins.signed().unwrap(), &present), Ok(true));
        assert_eq!(kept, pins);
    }

    #[test]
    fn an_older_statement_and_another_of_the_same_number_are_refused() {
        let mut pins = TlsPins::new(HUB);
        let present = key(1).verifying_key();
        pins.take(&stated(4, &[8]).sign(&key(1)), &present).unwrap();
        for (number, keys) in [(3, &[8, 7][..]), (1, &[8]), (4, &[7]), (4, &[8, 7]), (0, &[8])] {
            let refused = pins.take(&stated(number, keys).sign(&key(1)), &present);
            assert_eq!(refused, Err(TlsKeysError::Older), "{number} {keys:?}");
        }
        assert_eq!(accepted(&pins), [8]);
    }

    #[test]
    fn rule_2_a_statement_by_a_later_signing_key_wins_whatever_its_number() {
        let (old, new) = (key(1), key(2));
        for forged in [u32::MAX, 3] {
            let mut pins = TlsPins::new(HUB);
            let forged = stated(forged, &[9]).sign(&old);
            assert_eq!(pins.take(&forged, &old.verifying_key()), Ok(true));
            // The later key's word, with and without news of the change first.
            for told in [false, true] {
                let (mut pins, present) = (pins.clone(), new.verifying_key());
                if told {
                    assert!(pins.signed_by_now(&present));
                    assert!(!pins.signed_by_now(&present));
                    assert_eq!(accepted(&pins), [7], "as if it had never been said");
                }
                let again = pins.take(&forged, &present);
                assert!(again.is_err(), "its key has given way");
                assert_eq!(pins.take(&stated(3, &[8]).sign(&new), &present), Ok(true));
                assert_eq!((accepted(&pins), pins.number()), (vec![8], 3));
                assert!(!pins.signed_by_now(&present), "the present key's stays");
                let older = pins.take(&stated(2, &[7]).sign(&new), &present);
                assert_eq!(older, Err(TlsKeysError::Older));
            }
        }
    }

    #[test]
    fn a_device_that_was_enrolled_under_a_later_tls_key_knows_the_hub_by_that_alone() {
        let mut pins = TlsPins::under(HUB, Digest([8; 32]));
        assert_eq!(accepted(&pins), [8], "the first one may be retired");
        let present = key(1).verifying_key();
        pins.take(&stated(3, &[9, 8]).sign(&key(1)), &present).unwrap();
        assert_eq!(accepted(&pins), [8, 9]);
        pins.signed_by_now(&key(2).verifying_key());
        assert_eq!(accepted(&pins), [8]);
    }

    #[test]
    fn a_statement_is_believed_of_the_present_signing_key_and_of_this_hub_alone() {
        let mut pins = TlsPins::new(HUB);
        let present = key(2).verifying_key();
        let by_old = pins.take(&stated(1, &[8]).sign(&key(1)), &present);
        let unknown = TlsKeysError::Statement(ProofError::Commit(CoseError::UnknownKey));
        assert_eq!(by_old, Err(unknown));
        let other = HubTlsKeys {
            hub: HubId([9; 32]),
            ..stated(1, &[8])
        };
        let other = other.sign(&key(2));
        assert_eq!(pins.take(&other, &present), Err(TlsKeysError::OtherHub));
        for keys in [&[][..], &[8, 8], &[1, 2, 3]] {
            let refused = pins.take(&stated(1, keys).sign(&key(2)), &present);
            assert_eq!(refused, Err(TlsKeysError::Keys), "{keys:?}");
        }
        let mut bad = stated(1, &[8]).sign(&key(2));
        *bad.0.last_mut().unwrap() ^= 1;
        assert!(pins.take(&bad, &present).is_err());
        assert_eq!(accepted(&pins), [7], "nothing was learned");
    }

    #[test]
    fn what_a_certificate_says_is_found_in_it_and_damage_says_nothing() {
        for changes in [0, 1, 16] {
            let keys = CertificateKeys {
                changes: vec![SignedKeyChange(vec![5; 390]); changes],
                keys: stated(1, &[8, 7]).sign(&key(1)),
            };
            let content = keys.to_der();
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            for critical in [&[][..], &[0x01, 0x01, 0xff]] {
                let before = [&[0x30, 0x06][..], &TLS_KEYS_OID_DER, critical].concat();
                let der = [&before[..], &[0x04, 0x82], &length, &content, &[0x30, 0x00]].concat();
                assert_eq!(CertificateKeys::in_certificate(&der), Some(keys.clone()));
                for cut in 0..der.len() - 2 {
                    assert_eq!(CertificateKeys::in_certificate(&der[..cut]), None, "{cut}");
                }
            }
        }
        assert_eq!(CertificateKeys::in_certificate(&[0x30; 600]), None);
    }
}
