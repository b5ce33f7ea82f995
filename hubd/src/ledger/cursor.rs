//! Walking through a segment file entry by entry.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use hub_protocol::{Digest, EntrySeal};

use super::contents::Contents;
use super::error::{Fault, Head, LedgerError};
use super::reader::StoredEntry;
use super::scan::{follow, signed_entry};
use super::segment::{HEAD_LEN, MARK_LEN, Record, SIGNED_ENTRIES, Word, peek, record};
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
        let (segment, file) = shared.open(sequence)?;
        let (at, found, end) = segment.nearest(&file, sequence)?;
        let mut cursor = Self {
            window: Window::new(file),
            segment,
            at,
            end,
            sequence: found,
        };
        while cursor.sequence < sequence {
            cursor.next_payload()?;
        }
        Ok(cursor)
    }

    /// Whether no entry is left in this segment.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, LedgerError> {
        self.skip_commits()?;
        Ok(self.at >= self.end)
    }

    /// Goes to the next entry, over what ends a group.
    fn skip_commits(&mut self) -> Result<(), LedgerError> {
        while self.at < self.end {
            let len = match self.word()? {
                Word::Entry(_) => return Ok(()),
                Word::Statement(len) => HEAD_LEN + len,
                Word::Mark => MARK_LEN,
                // The end of a closed segment.
                Word::Footer(_) => {
                    self.end = self.at;
                    return Ok(());
                }
                _ => return Err(self.broken(Fault::Record)),
            };
            self.at += len as u64;
        }
        Ok(())
    }

    fn word(&mut self) -> Result<Word, LedgerError> {
        let failed = LedgerError::io("read", self.segment.path());
        let left = self.left().min(HEAD_LEN);
        let head = self.window.get(self.at, left).map_err(failed)?;
        Ok(Word::at(head, 0))
    }

    fn left(&self) -> usize {
        usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX)
    }

    fn broken(&self, fault: Fault) -> LedgerError {
        self.segment.broken(self.at, self.sequence, fault)
    }

    /// The next entry's payload and where its record stands.
    pub(crate) fn next_payload(&mut self) -> Result<(Vec<u8>, u64), LedgerError> {
        self.skip_commits()?;
        let len = match self.word()? {
            Word::Entry(len) if HEAD_LEN + len <= self.left() => HEAD_LEN + len,
            _ => return Err(self.broken(Fault::Record)),
        };
        let at = self.at;
        let failed = LedgerError::io("read", self.segment.path());
        let bytes = self.window.get(at, len).map_err(failed)?;
        let payload = match record(bytes, 0) {
            Some((Record::Entry(signed), _)) if self.segment.format() == SIGNED_ENTRIES => {
                signed_entry(signed, None).map(<[u8]>::to_vec)
            }
            Some((Record::Entry(payload), _)) => Ok(payload.to_vec()),
            _ => Err(Fault::Checksum),
        };
        let payload = payload.map_err(|fault| self.broken(fault))?;
        self.at += len as u64;
        self.sequence += 1;
        Ok((payload, at))
    }

    pub(crate) fn next_entry(
        &mut self,
        previous: Option<Digest>,
        seal: Option<&EntrySeal>,
    ) -> Result<StoredEntry, LedgerError> {
        let sequence = self.sequence;
        let (payload, at) = self.next_payload()?;
        decode(payload, sequence, previous, seal).map_err(|fault| self.segment.broken(at, sequence, fault))
    }
}

/// Decodes an entry and holds it to its place.
fn decode(
    payload: Vec<u8>,
    sequence: u64,
    previous: Option<Digest>,
    seal: Option<&EntrySeal>,
) -> Result<StoredEntry, Fault> {
    let (_, chained) = peek(&payload).ok_or_else(|| Fault::Entry("no sequence".into()))?;
    let before = Head {
        sequence: sequence.saturating_sub(1),
        digest: previous.unwrap_or(chained),
    };
    let head = follow(before, &payload)?;
    let contents = seal.map_or(Contents::Unread, Contents::Sealed);
    Ok(StoredEntry {
        entry: contents.read(&payload)?.ok_or(Fault::Sealed)?,
        digest: head.digest,
        payload,
    })
}

/// A piece of a file in memory, read ahead.
#[derive(Debug)]
pub(crate) struct Window {
    file: File,
    bytes: Vec<u8>,
    start: u64,
}

impl Window {
    const AHEAD: usize = 64 * 1024;

    pub(crate) fn new(file: File) -> Self {
        Self {
            file,
            bytes: Vec::new(),
            start: 0,
        }
    }

    pub(crate) fn get(&mut self, at: u64, len: usize) -> std::io::Result<&[u8]> {
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
