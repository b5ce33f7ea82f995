//! What targets share that build files around foreign bytes: checksums,
//! signatures and encryption are made anew here, so that what a fuzzer changes
//! is met by the decoder behind them and not by the first check.
//!
//! Written from the formats' documents and not from the programs' own writers,
//! which accept less.

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use ed25519_dalek::SigningKey;
use hub_protocol::DataKey;
use hub_protocol::entry::{ClockQuality, EntryTime};

pub mod segment;
pub mod table;

/// The hub's signing key everywhere here, as in the protocol's vectors.
pub fn hub_key() -> SigningKey {
    key(2)
}

/// The signing key of one seed byte.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// The store's data key, as in the protocol's vectors.
pub fn data_key() -> DataKey {
    DataKey::new([0x42; 32])
}

/// When everything here happens.
pub const TIME: EntryTime = EntryTime {
    wall_ms: 1_795_000_000_000,
    monotonic_ms: 60_000,
    boot: [3; 16],
    quality: ClockQuality::Synchronised,
};

/// An input taken apart: each part is a byte that says what it is, its length
/// (u16, little-endian) and as many bytes, or those that are left.
pub struct Parts<'a>(pub &'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([kind, low, high], rest) = self.0.split_first_chunk::<3>()?;
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (part, rest) = rest.split_at(length);
        self.0 = rest;
        Some((*kind, part))
    }
}

/// Nonce, XChaCha20-Poly1305 of `plain`, tag.
pub fn sealed(key: &[u8; 32], place: &[u8], plain: &[u8]) -> Vec<u8> {
    // One key, many messages, one nonce: nothing here is secret.
    let nonce = [9; 24];
    let payload = Payload { msg: plain, aad: place };
    let made = XChaCha20Poly1305::new(&(*key).into()).encrypt(&XNonce::from(nonce), payload).unwrap();
    [&nonce[..], &made].concat()
}

/// A folder in memory.
pub fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap()
}
