//! The recovery key: headquarters' own way to a store's data key, for the day
//! on which a machine is lost together with its vault key.
//!
//! It is an X25519 key pair that is made off every network. The hub knows the
//! public half and wraps the data key to it by HPKE (RFC 9180): base mode,
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, the suite of
//! sealed cards. `info` is `hub-recovery/1` and the hub's id, the additional
//! data are the data key's id: what was wrapped for one hub opens for no other.
//!
//! The ephemeral key comes from the data key, which is random and secret, and
//! not from the system: the same wrap is made each time, so that a hub sees at
//! every start that the one in its files is right.
//!
//! The public half is written as `hubrec1-`, 64 hex digits, `-` and the first 8
//! hex digits of the key's id. A key of another kind or with a typing error
//! would show only on the day of need.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256 as Suite;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{
    Deserializable, Kem, OpModeR, OpModeS, Serializable, single_shot_open, single_shot_seal_with_rng,
};
use hub_protocol::{DataKey, Digest, HubId};
use zeroize::Zeroizing;

/// How the public half begins.
const PREFIX: &str = "hubrec1-";

/// HPKE's encapsulated key, in bytes.
const ENCAPSULATED: usize = 32;

/// The public half of a recovery key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RecoveryKey([u8; 32]);

/// Why a text is no recovery key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the line that `hubctl keygen --recovery` printed is expected, as it stands: hubrec1-..., 81 characters"
)]
pub struct NotARecoveryKey;

impl RecoveryKey {
    /// A public key as RFC 7748 encodes it; `None` if nothing can be kept
    /// secret with it.
    pub fn new(public: [u8; 32]) -> Option<Self> {
        let key = Self(public);
        // A key of small order gives the same secret to everybody. That shows
        // with any ephemeral key.
        key.seal(&[], &[], &[], Ephemeral(Zeroizing::new([1; 32])))?;
        Some(key)
    }

    /// What ledger and key file name it by: the first 8 bytes of SHA-256 of
    /// `hub-recovery-key/1` and the key.
    pub fn id(&self) -> [u8; 8] {
        let digest = Digest::of(&[&b"hub-recovery-key/1"[..], &self.0].concat());
        let mut id = [0; 8];
        for (to, from) in id.iter_mut().zip(digest.0) {
            *to = from;
        }
        id
    }

    /// Wraps a hub's data key, whose id this is: the encapsulated key and the
    /// ciphertext behind it. `None` only for a key of small order.
    pub fn wrap(&self, hub: HubId, key: &DataKey, id: &[u8; 8]) -> Option<Vec<u8>> {
        let ephemeral = key.mac(&[b"hub-recovery-ephemeral/1", &hub.0, &self.0]);
        let ephemeral = Ephemeral(Zeroizing::new(ephemeral));
        self.seal(&info(hub), key.as_bytes(), id, ephemeral)
    }

    fn seal(&self, info: &[u8], clear: &[u8], aad: &[u8], mut ephemeral: Ephemeral) -> Option<Vec<u8>> {
        let recipient = <Suite as Kem>::PublicKey::from_bytes(&self.0).ok()?;
        let (encapsulated, ciphertext) = single_shot_seal_with_rng::<ChaCha20Poly1305, HkdfSha256, Suite>(
            &OpModeS::Base,
            &recipient,
            info,
            clear,
            aad,
            &mut ephemeral,
        )
        .ok()?;
        Some([&encapsulated.to_bytes()[..], &ciphertext].concat())
    }
}

impl fmt::Display for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = HEXLOWER.encode(&self.id());
        write!(
            f,
            "{PREFIX}{}-{}",
            HEXLOWER.encode(&self.0),
            id.get(..8).unwrap_or_default()
        )
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoveryKey({self})")
    }
}

impl FromStr for RecoveryKey {
    type Err = NotARecoveryKey;

    fn from_str(text: &str) -> Result<Self, NotARecoveryKey> {
        let text = text.trim();
        let key = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
        let key = key.and_then(|(key, _)| HEXLOWER_PERMISSIVE.decode(key.as_bytes()).ok());
        let key = key.and_then(|key| Self::new(key.try_into().ok()?));
        key.filter(|key| text.eq_ignore_ascii_case(&key.to_string()))
            .ok_or(NotARecoveryKey)
    }
}

/// The private half of a recovery key.
pub struct RecoverySecret {
    secret: <Suite as Kem>::PrivateKey,
    public: RecoveryKey,
}

impl fmt::Debug for RecoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecoverySecret({}, secret hidden)", self.public)
    }
}

impl RecoverySecret {
    /// The key pair that RFC 9180 derives (`DeriveKeyPair`) from 32 random
    /// bytes, which are what a private file holds.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let (secret, public) = Suite::derive_keypair(seed);
        let public = RecoveryKey(public.to_bytes().into());
        Self { secret, public }
    }

    /// The public half.
    pub fn public(&self) -> RecoveryKey {
        self.public
    }

    /// What was wrapped for this key, of that hub and under that id. `None` if
    /// it was wrapped for another key or another hub, or is damaged.
    pub fn unwrap(&self, hub: HubId, wrapped: &[u8], id: &[u8; 8]) -> Option<DataKey> {
        let (encapsulated, ciphertext) = wrapped.split_at_checked(ENCAPSULATED)?;
        let encapsulated = <Suite as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
        let clear = single_shot_open::<ChaCha20Poly1305, HkdfSha256, Suite>(
            &OpModeR::Base,
            &self.secret,
            &encapsulated,
            &info(hub),
            ciphertext,
            id,
        )
        .ok()
        .map(Zeroizing::new)?;
        Some(DataKey::new(clear.as_slice().try_into().ok()?))
    }
}

fn info(hub: HubId) -> Vec<u8> {
    [&b"hub-recovery/1"[..], &hub.0].concat()
}

/// The 32 bytes that HPKE derives its ephemeral key from.
struct Ephemeral(Zeroizing<[u8; 32]>);

impl TryRng for Ephemeral {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut next = [0; 4];
        self.try_fill_bytes(&mut next)?;
        Ok(u32::from_be_bytes(next))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut next = [0; 8];
        self.try_fill_bytes(&mut next)?;
        Ok(u64::from_be_bytes(next))
    }

    /// Should ever more than 32 bytes be asked for, the next are a hash of
    /// those before.
    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        for part in destination.chunks_mut(32) {
            for (to, from) in part.iter_mut().zip(self.0.iter()) {
                *to = *from;
            }
            *self.0 = Digest::of(self.0.as_slice()).0;
        }
        Ok(())
    }
}

impl TryCryptoRng for Ephemeral {}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: HubId = HubId([7; 32]);
    const ID: [u8; 8] = [9; 8];

    #[test]
    fn what_is_wrapped_opens_with_its_key_for_its_hub_and_under_its_id_alone() {
        let (secret, other) = (
            RecoverySecret::from_seed(&[1; 32]),
            RecoverySecret::from_seed(&[2; 32]),
        );
        let key = DataKey::new([5; 32]);
        let wrapped = secret.public().wrap(HUB, &key, &ID).unwrap();
        assert!(secret.unwrap(HUB, &wrapped, &ID) == Some(key.clone()));
        assert_eq!(wrapped.len(), 32 + 32 + 16);
        assert!(wrapped.windows(8).all(|part| part != [5; 8]));
        assert!(other.unwrap(HUB, &wrapped, &ID).is_none());
        assert!(secret.unwrap(HubId([8; 32]), &wrapped, &ID).is_none());
        assert!(secret.unwrap(HUB, &wrapped, &[8; 8]).is_none());
        for at in 0..wrapped.len() {
            let mut damaged = wrapped.clone();
            damaged[at] ^= 1;
            assert!(secret.unwrap(HUB, &damaged, &ID).is_none(), "{at}");
            assert!(secret.unwrap(HUB, &wrapped[..at], &ID).is_none(), "{at}");
        }
        // The same each time, and another for any other key, hub or reader.
        assert_eq!(secret.public().wrap(HUB, &key, &ID).unwrap(), wrapped);
        let begins = |wrapped: Option<Vec<u8>>| wrapped.unwrap()[..32].to_vec();
        let others = [
            secret.public().wrap(HUB, &DataKey::new([6; 32]), &ID),
            secret.public().wrap(HubId([8; 32]), &key, &ID),
            other.public().wrap(HUB, &key, &ID),
        ];
        for other in others {
            assert_ne!(begins(other), wrapped[..32]);
        }
    }

    #[test]
    fn a_public_half_is_read_as_it_was_printed_and_no_other_way() {
        let key = RecoverySecret::from_seed(&[1; 32]).public();
        let text = key.to_string();
        assert_eq!(text.len(), 81);
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(format!(" {text}\n").parse(), Ok(key));
        let bare = &text[8..72];
        let mut wrong = vec![
            String::new(),
            bare.to_owned(),
            text[..72].to_owned(),
            format!("{text}0"),
            format!("{PREFIX}{bare}-00000000"),
        ];
        for at in 0..text.len() {
            let mut typed = text.clone().into_bytes();
            typed[at] = if typed[at] == b'4' { b'5' } else { b'4' };
            wrong.push(String::from_utf8(typed).unwrap());
        }
        // Of small order.
        wrong.push(RecoveryKey([0; 32]).to_string());
        for text in wrong {
            assert_eq!(text.parse::<RecoveryKey>(), Err(NotARecoveryKey), "{text}");
        }
    }
}
