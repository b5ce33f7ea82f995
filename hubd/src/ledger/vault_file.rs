//! The bytes of a vault file. All integers little-endian.
//!
//! ```text
//! header   magic "HUBVALT1", format u16, 0 u16, key check 8, CRC-32C u32
//! record   length of the body u16, 1 u16, CRC-32C of those, file number and
//!          offset u32; body: payment id 16, nonce 24, ciphertext
//! ```
//!
//! A body of zeros is an erased card. A record's header names its own place,
//! so that the next record is found again behind damage.

use std::ops::Range;

use hub_protocol::PaymentId;
use sha2::{Digest as _, Sha256};

use super::error::Fault;
use super::segment::array;

pub(crate) const FORMAT: u16 = 1;
pub(crate) const MAGIC: &[u8; 8] = b"HUBVALT1";
pub(crate) const HEADER_LEN: usize = 24;
pub(crate) const HEAD_LEN: usize = 8;
pub(crate) const ID_LEN: usize = 16;
pub(crate) const NONCE_LEN: usize = 24;
pub(crate) const CIPHER_AT: usize = ID_LEN + NONCE_LEN;
const KIND: u16 = 1;

pub(crate) fn header(key_check: [u8; 8]) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..8].copy_from_slice(MAGIC);
    out[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    out[12..20].copy_from_slice(&key_check);
    let crc = crc32c::crc32c(&out[..20]);
    out[20..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// Tells one vault key from another without saying anything of either.
pub(crate) fn key_check(key: &[u8; 32]) -> [u8; 8] {
    let digest = Sha256::new_with_prefix(b"hubd vault key check")
        .chain_update(key)
        .finalize();
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out
}

/// `Ok(false)` for a file under another key.
pub(crate) fn check_header(bytes: &[u8], key_check: [u8; 8]) -> Result<bool, Fault> {
    if bytes.get(..8) != Some(MAGIC) {
        return Err(Fault::NotALedgerFile);
    }
    let found = u16::from_le_bytes(array(bytes, 8).ok_or(Fault::Header)?);
    if found > FORMAT {
        return Err(Fault::NewerFormat { found, known: FORMAT });
    }
    let found: [u8; HEADER_LEN] = array(bytes, 0).ok_or(Fault::Header)?;
    let theirs = array(&found, 12).ok_or(Fault::Header)?;
    if found != header(theirs) {
        return Err(Fault::Header);
    }
    Ok(theirs == key_check)
}

/// The header of a record with a body of `len` bytes at this place.
pub(crate) fn record_head(number: u32, offset: u32, len: u16) -> [u8; HEAD_LEN] {
    let mut named = [0; 12];
    named[..2].copy_from_slice(&len.to_le_bytes());
    named[2..4].copy_from_slice(&KIND.to_le_bytes());
    named[4..8].copy_from_slice(&number.to_le_bytes());
    named[8..].copy_from_slice(&offset.to_le_bytes());
    let mut out = [0; HEAD_LEN];
    out[..4].copy_from_slice(&named[..4]);
    out[4..].copy_from_slice(&crc32c::crc32c(&named).to_le_bytes());
    out
}

fn body_at(bytes: &[u8], number: u32, at: usize) -> Option<Range<usize>> {
    let found: [u8; HEAD_LEN] = array(bytes, at)?;
    let len = u16::from_le_bytes(array(&found, 0)?);
    let body = at + HEAD_LEN..at + HEAD_LEN + usize::from(len);
    let right = record_head(number, u32::try_from(at).ok()?, len);
    (found == right && body.end <= bytes.len()).then_some(body)
}

/// A body that is not erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: PaymentId,
    pub(crate) body: Range<usize>,
    /// Its header was not whole: what is left of a torn write, or damage.
    pub(crate) damaged: bool,
}

/// All bodies in a file that are not erased, and where the next record goes.
///
/// Nothing is judged here. What a torn write left stands under whatever id it
/// carries, as an intact card under a damaged header does: the one is erased
/// because no payment needs it, the other is still read.
pub(crate) fn walk(bytes: &[u8], number: u32) -> (Vec<Found>, usize) {
    let written = super::scan::written_len(bytes).max(HEADER_LEN);
    let mut found = Vec::new();
    let mut push = |body: Range<usize>, damaged: bool| {
        if bytes[body.clone()].iter().any(|b| *b != 0) {
            // Of one that is too short for an id, nothing is: what stands behind
            // it may be erased before it.
            let id = PaymentId(array(&bytes[body.clone()], 0).unwrap_or_default());
            found.push(Found { id, body, damaged });
        }
    };
    let mut at = HEADER_LEN;
    while at < written {
        if let Some(body) = body_at(bytes, number, at) {
            at = body.end;
            push(body, false);
            continue;
        }
        let next = (at + 1..written).find(|next| body_at(bytes, number, *next).is_some());
        let claimed = array(bytes, at).map_or(0, |len| usize::from(u16::from_le_bytes(len)));
        // A tag may end in zeros: then the damaged header's length is a help.
        let end = next.unwrap_or_else(|| {
            let claimed = at + HEAD_LEN + claimed;
            if (written..written + 16).contains(&claimed) {
                claimed
            } else {
                written
            }
        });
        let end = end.min(bytes.len());
        if at + HEAD_LEN < end {
            push(at + HEAD_LEN..end, true);
        }
        at = end;
    }
    (found, at)
}
