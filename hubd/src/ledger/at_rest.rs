//! What lies beside the journal is encrypted with: index, tables of archives,
//! vault.
//!
//! XChaCha20-Poly1305 under a key for each purpose, derived from the store's
//! data key. The nonce is made from what is encrypted and from its place,
//! under another key: a table that is built anew under the same number meets
//! the same nonce only with the same content.

use std::fmt;

use chacha20::{R20, hchacha};
use hub_protocol::DataKey;
use ring::aead::{self, Aad, LessSafeKey, UnboundKey};
use ring::hmac;
use zeroize::Zeroize;

const NONCE: usize = 24;
/// As much of the nonce as a message's own key comes from.
const KEY_PART: usize = 16;

/// How many bytes longer something is when it is encrypted: nonce and tag.
pub(crate) const SEAL_BYTES: usize = NONCE + 16;

/// Encrypts and decrypts what one kind of file holds.
#[derive(Clone)]
pub struct RestSeal {
    key: [u8; 32],
    nonces: hmac::Key,
    names: hmac::Key,
}

/// ring wipes nothing: the keys of nonces and names stay until the memory is
/// used again.
impl Drop for RestSeal {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl RestSeal {
    /// For index and tables.
    pub fn index(key: &DataKey) -> Self {
        Self::of(key, "index")
    }

    fn of(key: &DataKey, purpose: &str) -> Self {
        let derived = |what: &str| key.derive(&format!("hub-store/1 {purpose}{what}"));
        let mac = |what: &str| hmac::Key::new(hmac::HMAC_SHA256, &derived(what));
        Self {
            key: derived(""),
            nonces: mac(" nonces"),
            names: mac(" names"),
        }
    }

    /// XChaCha20-Poly1305 is ChaCha20-Poly1305 under a key and a nonce that
    /// come from the long nonce: ring, whose code is fast, has no other.
    fn cipher(&self, nonce: &[u8; NONCE]) -> Option<(LessSafeKey, aead::Nonce)> {
        let (first, rest) = nonce.split_first_chunk::<KEY_PART>()?;
        let key: [u8; 32] = hchacha::<R20>(&self.key.into(), &(*first).into()).into();
        let mut short = [0; aead::NONCE_LEN];
        short.get_mut(4..)?.copy_from_slice(rest);
        let key = UnboundKey::new(&aead::CHACHA20_POLY1305, &key).ok()?;
        Some((LessSafeKey::new(key), aead::Nonce::assume_unique_for_key(short)))
    }

    /// Nonce, what is encrypted, tag. It opens at the same place only.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut made = hmac::Context::with_key(&self.nonces);
        made.update(&(place.len() as u64).to_le_bytes());
        made.update(place);
        made.update(plain);
        let mut nonce = [0; NONCE];
        for (to, from) in nonce.iter_mut().zip(made.sign().as_ref()) {
            *to = *from;
        }
        // One piece of memory: what is encrypted may be some megabytes.
        let mut sealed = Vec::with_capacity(plain.len() + SEAL_BYTES);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(plain);
        let tag = self.cipher(&nonce).and_then(|(key, short)| {
            let message = sealed.get_mut(NONCE..)?;
            key.seal_in_place_separate_tag(short, Aad::from(place), message)
                .ok()
        });
        match tag {
            Some(tag) => sealed.extend_from_slice(tag.as_ref()),
            // Only a message of more than 256 GiB does not encrypt; nothing of
            // it may lie about in clear.
            None => sealed.truncate(NONCE),
        }
        sealed
    }

    /// What [`seal`](Self::seal) was given; `None` if it was not this, or not
    /// here.
    pub(crate) fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, message) = sealed.split_first_chunk::<NONCE>()?;
        let (key, short) = self.cipher(nonce)?;
        let mut message = message.to_vec();
        let opened = key
            .open_in_place(short, Aad::from(place), &mut message)
            .ok()?
            .len();
        message.truncate(opened);
        Some(message)
    }

    /// A name in the place of a key that is not to be read. Its first byte is
    /// not 0.
    pub(crate) fn name(&self, key: &[u8]) -> Vec<u8> {
        let mac = hmac::sign(&self.names, key);
        std::iter::once(1)
            .chain(mac.as_ref().iter().take(16).copied())
            .collect()
    }
}

impl fmt::Debug for RestSeal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestSeal(secret hidden)")
    }
}

#[cfg(test)]
mod tests {
    use chacha20poly1305::aead::{Aead, Payload};
    use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};

    use super::*;

    #[test]
    fn what_is_at_rest_is_xchacha20_poly1305_and_opens_at_its_own_place_only() {
        let seal = RestSeal::index(&DataKey::new([3; 32]));
        let sealed = seal.seal(b"here", b"tok_9f86");
        assert_eq!(seal.open(b"here", &sealed).as_deref(), Some(&b"tok_9f86"[..]));
        assert_eq!(seal.open(b"there", &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(seal.open(b"here", &changed), None, "byte {at}");
        }
        // Another implementation.
        let (nonce, msg) = sealed.split_first_chunk::<NONCE>().unwrap();
        let payload = Payload { msg, aad: b"here" };
        let plain = XChaCha20Poly1305::new(&seal.key.into()).decrypt(&XNonce::from(*nonce), payload);
        assert_eq!(plain.unwrap(), b"tok_9f86");
        assert_ne!(seal.seal(b"there", b"tok_9f86")[..NONCE], sealed[..NONCE]);
    }
}
