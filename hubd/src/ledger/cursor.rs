//! Walking through a segment file entry by entry.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use hub_protocol::cose::{self, ObjectType, Unverified};
use hub_protocol::{Digest, Entry, cbor};

use super::error::{Fault, LedgerError};
use super::reader::StoredEntry;
use super::segment::{HEAD_LEN, MARK_LEN, Record, Word, peek, record};
use super::segments::{Segment, Shared};

/// A place in a segment, before the entry with this sequence.
#[derive(Debug)]
pub(crate) struct Cursor {
    window: Window,
    segment: Arc<Segment>,
    at: u64,
    end: u64,
    pub(crate) sequence: u64,
}

impl Cursor {
    /// Before the entry with this sequence, which must be durable.
    pub(crate) fn open(shared: &Shared, sequence: u64) -> Result<Self, LedgerError> {
        let segment = shared.find(sequence)?;
        let file = File::open(segment.path()).map_err(LedgerError::io("open", segment.path()))?;
        let (at, found, end) = segment.nearest(&file, sequence)?;
        let mut cursor = Self {
            window: Window {
                file,
                bytes: Vec::new(),
                start: 0,
            },
            segment,
            at,
            end,
            sequence: found,
        };
        while cursor.sequence < sequence {
            cursor.next_signed()?;
        }
        Ok(cursor)
    }

    /// Whether nothing but the last commit's mark is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at + MARK_LEN as u64 >= self.end
    }

    /// The next entry's signed bytes and where they stand.
    pub(crate) fn next_signed(&mut self) -> Result<(Vec<u8>, u64), LedgerError> {
        loop {
            let at = self.at;
            let failed = LedgerError::io("read", self.segment.path());
            let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
            let head = self.window.get(at, left.min(HEAD_LEN)).map_err(failed)?;
            let len = match Word::at(head, 0) {
                Word::Entry(len) => HEAD_LEN + len,
                Word::Mark => MARK_LEN,
                _ => return Err(self.segment.broken(at, self.sequence, Fault::Record)),
            };
            if len > left {
                return Err(self.segment.broken(at, self.sequence, Fault::Record));
            }
            self.at = at + len as u64;
            if len == MARK_LEN && matches!(Word::at(head, 0), Word::Mark) {
                continue;
            }
            let failed = LedgerError::io("read", self.segment.path());
            let bytes = self.window.get(at, len).map_err(failed)?;
            return match record(bytes, 0) {
                Some((Record::Entry(signed), _)) => {
                    let signed = signed.to_vec();
                    self.sequence += 1;
                    Ok((signed, at))
                }
                _ => Err(self.segment.broken(at, self.sequence, Fault::Checksum)),
            };
        }
    }

    pub(crate) fn next_entry(
        &mut self,
        previous: Option<Digest>,
        verify: Option<&VerifyingKey>,
    ) -> Result<StoredEntry, LedgerError> {
        let sequence = self.sequence;
        let (signed, at) = self.next_signed()?;
        decode(&signed, sequence, previous, verify)
            .map(|(entry, digest)| StoredEntry {
                entry,
                digest,
                signed,
            })
            .map_err(|fault| self.segment.broken(at, sequence, fault))
    }
}

/// Decodes an entry and holds it to its place.
pub(crate) fn decode(
    signed: &[u8],
    sequence: u64,
    previous: Option<Digest>,
    verify: Option<&VerifyingKey>,
) -> Result<(Entry, Digest), Fault> {
    let payload = match verify {
        Some(key) => cose::verify(signed, ObjectType::LedgerEntry, key).map_err(Fault::Signature)?,
        None => Unverified::parse(signed)
            .map_err(Fault::Signature)?
            .payload_unverified()
            .to_vec(),
    };
    let (found, chained) = peek(&payload).ok_or_else(|| Fault::Entry("no sequence".into()))?;
    if found != sequence {
        return Err(Fault::Sequence {
            expected: sequence,
            found,
        });
    }
    if previous.is_some_and(|previous| previous != chained) {
        return Err(Fault::Chain);
    }
    let entry = cbor::decode(&payload).map_err(|e| Fault::Entry(e.to_string()))?;
    Ok((entry, Entry::digest(&payload)))
}

/// A piece of a file in memory, read ahead.
#[derive(Debug)]
struct Window {
    file: File,
    bytes: Vec<u8>,
    start: u64,
}

impl Window {
    const AHEAD: usize = 64 * 1024;

    fn get(&mut self, at: u64, len: usize) -> std::io::Result<&[u8]> {
        let inside = |start: u64, have: usize| {
            let from = usize::try_from(at.checked_sub(start)?).ok()?;
            (from.checked_add(len)? <= have).then_some(from)
        };
        if inside(self.start, self.bytes.len()).is_none() {
            self.bytes.resize(len.max(Self::AHEAD), 0);
            let mut have = 0;
            while have < self.bytes.len() {
                match self.file.read_at(&mut self.bytes[have..], at + have as u64)? {
                    0 => break,
                    n => have += n,
                }
            }
            self.bytes.truncate(have);
            self.start = at;
        }
        match inside(self.start, self.bytes.len()) {
            Some(from) => Ok(&self.bytes[from..from + len]),
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}
