//! The bytes of a segment file. All integers little-endian.
//!
//! ```text
//! header   magic "HUBLEDG1", format u16, 0 u16, segment number u32, hub id 32,
//!          first sequence u64, previous digest 32, CRC-32C of all that u32
//! record   word u32, CRC-32C of word and bytes u32, bytes
//! ```
//!
//! The word's two high bits say what the record is, the rest is the length of
//! its bytes:
//!
//! - `00` an entry: an encoded `Entry`, 1 to [`MAX_ENTRY_BYTES`] bytes. A word
//!   of 0 ends the written part; zeros follow to the end of the file.
//! - `11` a statement: COSE_Sign1 by the hub over the `LedgerCommit` of the
//!   entries before it. One ends each group.
//! - `01` a commit mark: offset and length of the group before it, statement
//!   included, u32 u32, how many entries u32, CRC-32C of the group u32, last
//!   sequence u64, `CMIT`. A group without its mark was never acknowledged.
//! - `10` the footer: COSE_Sign1 by the hub over [`Footer`]. After it come the
//!   footer's offset u32, CRC-32C of that u32 and `SEAL`, so that an archive
//!   is read from its end; a closed file ends there.
//!
//! A mark names its own place, so bytes elsewhere that look like one are not
//! one; nothing a device sends puts 36 bytes of its choice into an entry.
//!
//! Format 1 has no statements: there each entry is a COSE_Sign1 by the hub.
//! It is read for ever and written no more.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{Digest, HubId, cbor};
use minicbor::{Decode, Encode};

use super::error::Fault;

/// The newest format this program reads and the one it writes.
pub const FORMAT: u16 = 2;

/// The format in which each entry carries a signature of its own.
pub(crate) const SIGNED_ENTRIES: u16 = 1;

/// The most bytes that one entry may have.
pub const MAX_ENTRY_BYTES: usize = 1 << 20;

pub(crate) const MAGIC: &[u8; 8] = b"HUBLEDG1";
pub(crate) const HEADER_LEN: usize = 92;
pub(crate) const HEAD_LEN: usize = 8;
pub(crate) const MARK_LEN: usize = HEAD_LEN + MARK_BODY;
pub(crate) const SEAL_LEN: usize = 12;
/// Kept free in every segment for footer and seal.
pub(crate) const FOOTER_RESERVE: usize = 512;

const MARK_BODY: usize = 28;
const KIND: u32 = 0xC000_0000;
const MARK: u32 = 0x4000_0000;
const FOOTER: u32 = 0x8000_0000;
const STATEMENT: u32 = 0xC000_0000;
pub(crate) const MARK_END: &[u8; 4] = b"CMIT";
pub(crate) const SEAL_END: &[u8; 4] = b"SEAL";

/// The beginning of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) format: u16,
    pub(crate) number: u32,
    pub(crate) hub: HubId,
    pub(crate) first: u64,
    pub(crate) previous: Digest,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&self.format.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..48].copy_from_slice(&self.hub.0);
        out[48..56].copy_from_slice(&self.first.to_le_bytes());
        out[56..88].copy_from_slice(&self.previous.0);
        let crc = crc32c::crc32c(&out[..88]);
        out[88..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The format is looked at before the checksum: a newer format may have
    /// another header, and its reader deserves the right message.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.get(..8) != Some(MAGIC) {
            return Err(Fault::NotALedgerFile);
        }
        let found = u16::from_le_bytes(array(bytes, 8).ok_or(Fault::Header)?);
        if found > FORMAT {
            return Err(Fault::NewerFormat { found, known: FORMAT });
        }
        let crc = array(bytes, 88).map(u32::from_le_bytes);
        if crc != bytes.get(..88).map(crc32c::crc32c) || found < SIGNED_ENTRIES {
            return Err(Fault::Header);
        }
        let header = || {
            Some(Self {
                format: found,
                number: u32::from_le_bytes(array(bytes, 12)?),
                hub: HubId(array(bytes, 16)?),
                first: u64::from_le_bytes(array(bytes, 48)?),
                previous: Digest(array(bytes, 56)?),
            })
        };
        header().ok_or(Fault::Header)
    }
}

/// `N` bytes at `at`, if they are there.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// What ends a group of entries that were committed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) group_offset: u32,
    pub(crate) group_len: u32,
    pub(crate) count: u32,
    pub(crate) group_crc: u32,
    pub(crate) last: u64,
}

impl Mark {
    pub(crate) fn encode(&self) -> [u8; MARK_LEN] {
        let mut body = [0; MARK_BODY];
        body[..4].copy_from_slice(&self.group_offset.to_le_bytes());
        body[4..8].copy_from_slice(&self.group_len.to_le_bytes());
        body[8..12].copy_from_slice(&self.count.to_le_bytes());
        body[12..16].copy_from_slice(&self.group_crc.to_le_bytes());
        body[16..24].copy_from_slice(&self.last.to_le_bytes());
        body[24..].copy_from_slice(MARK_END);
        let mut out = [0; MARK_LEN];
        out[..HEAD_LEN].copy_from_slice(&head(MARK, &body));
        out[HEAD_LEN..].copy_from_slice(&body);
        out
    }

    /// The mark that stands at `at`, if it is whole and speaks of this place.
    pub(crate) fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let found: [u8; MARK_LEN] = array(bytes, at)?;
        let mark = Self {
            group_offset: u32::from_le_bytes(array(&found, 8)?),
            group_len: u32::from_le_bytes(array(&found, 12)?),
            count: u32::from_le_bytes(array(&found, 16)?),
            group_crc: u32::from_le_bytes(array(&found, 20)?),
            last: u64::from_le_bytes(array(&found, 24)?),
        };
        let here = u64::from(mark.group_offset) + u64::from(mark.group_len) == at as u64;
        (here && mark.encode() == found).then_some(mark)
    }
}

/// What a closed segment holds, signed by the hub.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Footer {
    /// The first entry's sequence.
    #[n(1)]
    pub first: u64,
    /// The last entry's sequence.
    #[n(2)]
    pub last: u64,
    /// The last entry's digest.
    #[n(3)]
    pub last_digest: Digest,
    /// How many entries.
    #[n(4)]
    pub count: u64,
    /// SHA-256 of all the file's bytes before the footer.
    #[n(5)]
    pub file_digest: Digest,
}

impl Footer {
    /// Record and seal for a footer at `offset`.
    pub(crate) fn encode(&self, key: &ed25519_dalek::SigningKey, offset: u32) -> Vec<u8> {
        let signed = cose::sign(key, ObjectType::SegmentFooter, &cbor::encode(self));
        let mut out = Vec::with_capacity(FOOTER_RESERVE);
        out.extend_from_slice(&head(FOOTER, &signed));
        out.extend_from_slice(&signed);
        out.extend_from_slice(&seal(offset));
        out
    }

    pub(crate) fn verify(signed: &[u8], key: &ed25519_dalek::VerifyingKey) -> Result<Self, Fault> {
        let payload = cose::verify(signed, ObjectType::SegmentFooter, key).map_err(Fault::Signature)?;
        cbor::decode(&payload).map_err(|_| Fault::Footer)
    }
}

/// What stands before a footer's signed bytes.
pub(crate) fn footer_head(signed: &[u8]) -> [u8; HEAD_LEN] {
    head(FOOTER, signed)
}

fn seal(offset: u32) -> [u8; SEAL_LEN] {
    let mut out = [0; SEAL_LEN];
    out[..4].copy_from_slice(&offset.to_le_bytes());
    out[4..8].copy_from_slice(&crc32c::crc32c(&offset.to_le_bytes()).to_le_bytes());
    out[8..].copy_from_slice(SEAL_END);
    out
}

/// The footer's offset that the seal at `at` names, if it is a whole seal.
pub(crate) fn seal_at(bytes: &[u8], at: usize) -> Option<u32> {
    let found: [u8; SEAL_LEN] = array(bytes, at)?;
    let offset = u32::from_le_bytes(array(&found, 0)?);
    (seal(offset) == found).then_some(offset)
}

/// Appends an entry's record.
pub(crate) fn push_entry(out: &mut Vec<u8>, entry: &[u8]) {
    out.extend_from_slice(&head(0, entry));
    out.extend_from_slice(entry);
}

/// Appends the record of a signed commit.
pub(crate) fn push_statement(out: &mut Vec<u8>, signed: &[u8]) {
    out.extend_from_slice(&head(STATEMENT, signed));
    out.extend_from_slice(signed);
}

/// Word and checksum of a record. The word is part of what is checked: with
/// one flipped bit a commit mark would otherwise pass for an entry.
fn head(kind: u32, body: &[u8]) -> [u8; HEAD_LEN] {
    let word = (kind | body.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c_append(crc32c::crc32c(&word), body);
    let mut out = [0; HEAD_LEN];
    out[..4].copy_from_slice(&word);
    out[4..].copy_from_slice(&crc.to_le_bytes());
    out
}

/// What a record's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    End,
    Entry(usize),
    Statement(usize),
    Mark,
    Footer(usize),
    Unknown,
}

impl Word {
    pub(crate) fn of(word: u32) -> Self {
        let len = (word & !KIND) as usize;
        match word & KIND {
            0 if word == 0 => Self::End,
            0 if len <= MAX_ENTRY_BYTES => Self::Entry(len),
            MARK => Self::Mark,
            FOOTER => Self::Footer(len),
            STATEMENT => Self::Statement(len),
            _ => Self::Unknown,
        }
    }

    /// The word at `at`; what lies beyond the end of the file reads as zero.
    pub(crate) fn at(bytes: &[u8], at: usize) -> Self {
        let mut word = [0; 4];
        for (n, byte) in word.iter_mut().enumerate() {
            *byte = bytes.get(at + n).copied().unwrap_or(0);
        }
        Self::of(u32::from_le_bytes(word))
    }
}

/// A record that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    Entry(&'a [u8]),
    Statement(&'a [u8]),
    Mark(Mark),
    Footer(&'a [u8]),
}

/// The record at `at` and where the next one begins, if it is whole.
pub(crate) fn record(bytes: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let body = |kind: u32, len: usize| {
        let body = bytes.get(at + HEAD_LEN..at + HEAD_LEN + len)?;
        (array(bytes, at) == Some(head(kind, body))).then_some(body)
    };
    match Word::at(bytes, at) {
        Word::Entry(len) => Some((Record::Entry(body(0, len)?), at + HEAD_LEN + len)),
        Word::Statement(len) => Some((Record::Statement(body(STATEMENT, len)?), at + HEAD_LEN + len)),
        Word::Mark => Some((Record::Mark(Mark::at(bytes, at)?), at + MARK_LEN)),
        Word::Footer(len) => {
            let next = at + HEAD_LEN + len;
            let signed = body(FOOTER, len)?;
            (seal_at(bytes, next) == u32::try_from(at).ok())
                .then_some((Record::Footer(signed), next + SEAL_LEN))
        }
        Word::End | Word::Unknown => None,
    }
}

/// Sequence and previous digest of an entry's payload, without decoding the
/// rest: the first two keys of the map.
pub(crate) fn peek(payload: &[u8]) -> Option<(u64, Digest)> {
    let mut decoder = minicbor::Decoder::new(payload);
    decoder.map().ok()??;
    if decoder.u32().ok()? != 1 {
        return None;
    }
    let sequence = decoder.u64().ok()?;
    if decoder.u32().ok()? != 2 {
        return None;
    }
    let previous = decoder.bytes().ok()?.try_into().ok()?;
    Some((sequence, Digest(previous)))
}
