//! Entries of the ledger at rest: what happened is encrypted, where it stands
//! is not.
//!
//! A sealed entry has an entry's sequence, link, time and policy version in
//! clear, and its event under XChaCha20-Poly1305 (RFC 8439, with the nonce
//! extended as in draft-irtf-cfrg-xchacha-03). The chain and all signatures
//! run over the sealed form, so that whoever has the hub's public key
//! verifies a ledger without any secret.
//!
//! The nonce is made from the event and its place under a key of its own, as
//! in SIV modes (RFC 5297): no randomness, and a sequence that is used again,
//! after a torn write was cut off, never meets the same nonce with another
//! event.
//!
//! The key of one entry can be disclosed alone ([`EntryKey`]): XChaCha20 is
//! ChaCha20 under a key that HChaCha20 makes from the first 16 bytes of the
//! nonce, and that key says nothing of any other entry.

use chacha20::R20;
use chacha20::hchacha;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use minicbor::{Decode, Encode};
use sha2::Sha256;
use zeroize::Zeroize;

use crate::cbor::{self, CborError};
use crate::entry::{Entry, EntryTime, Event};
use crate::id::Digest;

/// The nonce in front of a sealed event, in bytes.
const NONCE: usize = 24;

/// As much of the nonce as the entry's own key comes from.
const KEY_PART: usize = 16;

/// The random key of a store, from which all keys come that its files are
/// encrypted under. 32 bytes, wiped from memory when they are dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey([u8; 32]);

impl DataKey {
    /// A key of these bytes, which must be random.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever wraps the key.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for one purpose: HMAC-SHA-256 of the purpose's name.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        self.mac(&[purpose.as_bytes()])
    }

    /// HMAC-SHA-256 of the parts, one after the other.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        hmac(&self.0, parts)
    }
}

impl Drop for DataKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl core::fmt::Debug for DataKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("DataKey(secret hidden)")
    }
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // A key shorter than a block is padded with zeros (RFC 2104).
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    // The name is in scope from the cipher's traits too.
    let mut mac = <Hmac<Sha256> as hmac::KeyInit>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Why an entry does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The bytes are no entry, or the opened ones no event.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// The event was not sealed under this key, or not at this place.
    #[error("what happened does not decrypt: it was encrypted under another key, or changed")]
    Key,
    /// An event that must be read without a key was encrypted.
    #[error("an event that must be in clear is encrypted")]
    Hidden,
}

/// An entry whose event is encrypted, as it stands in a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SealedEntry {
    /// As [`Entry::sequence`].
    #[n(1)]
    pub sequence: u64,
    /// As [`Entry::previous`]: [`Entry::digest`] over the sealed payload
    /// before.
    #[n(2)]
    pub previous: Digest,
    /// As [`Entry::time`].
    #[n(3)]
    pub time: EntryTime,
    /// As [`Entry::policy_version`].
    #[n(4)]
    pub policy_version: u64,
    /// Nonce (24 bytes), the encrypted event, tag (16 bytes).
    #[n(6)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

/// What is authenticated with the event: the entry without it.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Place {
    #[n(1)]
    sequence: u64,
    #[n(2)]
    previous: Digest,
    #[n(3)]
    time: EntryTime,
    #[n(4)]
    policy_version: u64,
}

impl SealedEntry {
    /// What is authenticated with the event: the entry without it, encoded.
    pub fn place(&self) -> Vec<u8> {
        cbor::encode(&Place {
            sequence: self.sequence,
            previous: self.previous,
            time: self.time,
            policy_version: self.policy_version,
        })
    }

    /// The entry, by the key that was disclosed for it alone.
    ///
    /// # Errors
    /// The key is another entry's, or what it opens is no event.
    pub fn open_by(&self, key: &EntryKey) -> Result<Entry, OpenError> {
        let nonce = self.sealed.first_chunk::<NONCE>().ok_or(OpenError::Key)?;
        let (_, rest) = nonce.split_at(KEY_PART);
        // As XChaCha20 goes on: four zeros and the nonce's last eight bytes.
        let mut short = [0; 12];
        for (to, from) in short.iter_mut().skip(4).zip(rest) {
            *to = *from;
        }
        let cipher = ChaCha20Poly1305::new(&key.0.into());
        let payload = Payload {
            msg: self.sealed.get(NONCE..).unwrap_or_default(),
            aad: &self.place(),
        };
        let plain = cipher.decrypt(&Nonce::from(short), payload);
        self.with_event(&plain.map_err(|_| OpenError::Key)?)
    }

    fn with_event(&self, event: &[u8]) -> Result<Entry, OpenError> {
        let event: Event = cbor::decode(event)?;
        if event.is_in_clear() {
            return Err(OpenError::Hidden);
        }
        Ok(Entry {
            sequence: self.sequence,
            previous: self.previous,
            time: self.time,
            policy_version: self.policy_version,
            event,
        })
    }
}

/// The key of one sealed entry, and of no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryKey(pub [u8; 32]);

/// Seals events and opens them. Its keys are wiped from memory when they are
/// dropped.
#[derive(Clone)]
pub struct EntrySeal {
    key: [u8; 32],
    cipher: XChaCha20Poly1305,
    nonces: [u8; 32],
}

impl Drop for EntrySeal {
    fn drop(&mut self) {
        self.key.zeroize();
        self.nonces.zeroize();
    }
}

impl EntrySeal {
    /// The seal of a store.
    pub fn new(data_key: &DataKey) -> Self {
        let key = data_key.derive("hub-store/1 entries");
        Self {
            cipher: XChaCha20Poly1305::new(&key.into()),
            key,
            nonces: data_key.derive("hub-store/1 entry nonces"),
        }
    }

    /// The payload of an entry as a ledger keeps it: sealed, unless its event
    /// is one that is read without a key.
    pub fn encode(&self, entry: &Entry) -> Vec<u8> {
        if entry.event.is_in_clear() {
            return entry.encode();
        }
        let mut sealed = SealedEntry {
            sequence: entry.sequence,
            previous: entry.previous,
            time: entry.time,
            policy_version: entry.policy_version,
            sealed: Vec::new(),
        };
        let place = sealed.place();
        let event = cbor::encode(&entry.event);
        // The place has one length for its own bytes, so nothing can stand
        // between it and the event.
        let made = hmac(&self.nonces, &[&place, &event]);
        let mut nonce = [0; NONCE];
        for (to, from) in nonce.iter_mut().zip(made) {
            *to = from;
        }
        let payload = Payload {
            msg: &event,
            aad: &place,
        };
        // Only a message of more than 256 GiB does not encrypt.
        let cipher = self.cipher.encrypt(&XNonce::from(nonce), payload);
        sealed.sealed.extend_from_slice(&nonce);
        sealed.sealed.extend_from_slice(&cipher.unwrap_or_default());
        cbor::encode(&sealed)
    }

    /// Opens a sealed entry.
    ///
    /// # Errors
    /// It was sealed under another key, or what it opens to is no event.
    pub fn open(&self, entry: &SealedEntry) -> Result<Entry, OpenError> {
        let nonce = entry.sealed.first_chunk::<NONCE>().ok_or(OpenError::Key)?;
        let payload = Payload {
            msg: entry.sealed.get(NONCE..).unwrap_or_default(),
            aad: &entry.place(),
        };
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), payload);
        entry.with_event(&plain.map_err(|_| OpenError::Key)?)
    }

    /// The key of this entry alone, for whoever is to read it and no other.
    pub fn disclose(&self, entry: &SealedEntry) -> Option<EntryKey> {
        let nonce = entry.sealed.first_chunk::<KEY_PART>()?;
        Some(EntryKey(
            hchacha::<R20>(&self.key.into(), &(*nonce).into()).into(),
        ))
    }
}

impl core::fmt::Debug for EntrySeal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("EntrySeal(secret hidden)")
    }
}

/// An entry as it stands in a ledger.
#[allow(clippy::large_enum_variant)] // one at a time, taken apart at once
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoredPayload {
    /// Its event is in clear.
    Clear(Entry),
    /// Its event is encrypted.
    Sealed(SealedEntry),
}

impl StoredPayload {
    /// Decodes either form.
    ///
    /// # Errors
    /// It is neither.
    pub fn decode(payload: &[u8]) -> Result<Self, CborError> {
        match cbor::decode(payload) {
            Ok(sealed) => Ok(Self::Sealed(sealed)),
            Err(_) => cbor::decode(payload).map(Self::Clear),
        }
    }

    /// The entry, if it can be read: with the seal, or because it is in
    /// clear. `None` for an entry that is sealed where there is no seal.
    ///
    /// # Errors
    /// The seal does not open it.
    pub fn open(self, seal: Option<&EntrySeal>) -> Result<Option<Entry>, OpenError> {
        match (self, seal) {
            (Self::Clear(entry), _) => Ok(Some(entry)),
            (Self::Sealed(sealed), Some(seal)) => seal.open(&sealed).map(Some),
            (Self::Sealed(_), None) => Ok(None),
        }
    }

    /// When it was made.
    pub const fn time(&self) -> EntryTime {
        match self {
            Self::Clear(entry) => entry.time,
            Self::Sealed(entry) => entry.time,
        }
    }
}

#[cfg(test)]
#[path = "seal_tests.rs"]
mod tests;
