//! What lies beside the journal is encrypted with: index, tables of archives,
//! vault.
//!
//! XChaCha20-Poly1305 under a key for each purpose, derived from the store's
//! data key. The nonce is made from what is encrypted and from its place,
//! under another key: a table that is built anew under the same number meets
//! the same nonce only with the same content.

use std::fmt;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hub_protocol::DataKey;

const NONCE: usize = 24;

/// How many bytes longer something is when it is encrypted: nonce and tag.
pub(crate) const SEAL_BYTES: usize = NONCE + 16;

/// Encrypts and decrypts what one kind of file holds.
#[derive(Clone)]
pub struct RestSeal {
    cipher: XChaCha20Poly1305,
    nonces: DataKey,
    names: DataKey,
}

impl RestSeal {
    /// For index and tables.
    pub fn index(key: &DataKey) -> Self {
        Self::of(key, "index")
    }

    fn of(key: &DataKey, purpose: &str) -> Self {
        let derived = |what: &str| key.derive(&format!("hub-store/1 {purpose}{what}"));
        Self {
            cipher: XChaCha20Poly1305::new(&derived("").into()),
            nonces: DataKey::new(derived(" nonces")),
            names: DataKey::new(derived(" names")),
        }
    }

    /// Nonce, what is encrypted, tag. It opens at the same place only.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let length = (place.len() as u64).to_le_bytes();
        let made = self.nonces.mac(&[&length, place, plain]);
        let mut nonce = [0; NONCE];
        for (to, from) in nonce.iter_mut().zip(made) {
            *to = from;
        }
        let payload = Payload {
            msg: plain,
            aad: place,
        };
        // Only a message of more than 256 GiB does not encrypt.
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        [&nonce[..], &sealed.unwrap_or_default()].concat()
    }

    /// What [`seal`](Self::seal) was given; `None` if it was not this, or not
    /// here.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, msg) = sealed.split_first_chunk::<NONCE>()?;
        self.cipher
            .decrypt(&XNonce::from(*nonce), Payload { msg, aad: place })
            .ok()
    }

    /// A name in the place of a key that is not to be read. Its first byte is
    /// not 0.
    pub(crate) fn name(&self, key: &[u8]) -> Vec<u8> {
        let mac = self.names.mac(&[key]);
        std::iter::once(1).chain(mac.into_iter().take(16)).collect()
    }
}

impl fmt::Debug for RestSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestSeal(secret hidden)")
    }
}
