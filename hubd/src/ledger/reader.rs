//! Reading the journal while it is written.

use std::sync::Arc;

use hub_protocol::{Digest, Entry};

use super::archive::Packed;
use super::cursor::Cursor;
use super::error::{Head, LedgerError};
use super::segments::{ClosedSegment, Shared};

/// Reads entries from any thread. Clones are cheap. Sees exactly what is
/// durable.
#[derive(Clone, Debug)]
pub struct JournalReader {
    shared: Arc<Shared>,
}

/// An entry as it stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// The decoded entry.
    pub entry: Entry,
    /// Its digest, to which the next one chains.
    pub digest: Digest,
    /// The encoded entry, over which the digest is.
    pub payload: Vec<u8>,
}

impl JournalReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// The last durable entry.
    pub fn head(&self) -> Head {
        self.shared.head()
    }

    /// One entry, encoded; its checksum is checked, the signature of its group
    /// is not: that is [`verify`](super::verify())'s.
    ///
    /// # Errors
    /// [`LedgerError::NoSuchEntry`], or damage, or the system's refusal.
    pub fn read(&self, sequence: u64) -> Result<Vec<u8>, LedgerError> {
        let mut cursor = self.cursor(sequence)?;
        cursor.next_payload().map(|(payload, _)| payload)
    }

    /// One entry, decoded.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn entry(&self, sequence: u64) -> Result<StoredEntry, LedgerError> {
        let mut cursor = self.cursor(sequence)?;
        cursor.next_entry(None, self.shared.seal())
    }

    /// The digest of one entry: where an index that holds up to `sequence`
    /// must agree. [`Digest::ZERO`] for sequence 0.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn digest_at(&self, sequence: u64) -> Result<Digest, LedgerError> {
        let head = self.head();
        match sequence {
            0 => Ok(Digest::ZERO),
            _ if sequence == head.sequence => Ok(head.digest),
            _ => match self.shared.archived_digest(sequence) {
                Some(digest) => Ok(digest),
                None => Ok(Entry::digest(&self.read(sequence)?)),
            },
        }
    }

    /// All entries from `sequence` to the present head, in order. Checksums
    /// and chain are checked as it goes. Ends after the first error.
    ///
    /// # Errors
    /// As [`read`](Self::read), for the entry before the first one. Asking
    /// from one past the head on is no error but yields nothing.
    pub fn entries_from(&self, sequence: u64) -> Result<Entries, LedgerError> {
        let sequence = sequence.max(1);
        let last = self.head().sequence;
        let (cursor, previous) = if sequence > last {
            if sequence > last + 1 {
                return Err(LedgerError::NoSuchEntry { sequence, last });
            }
            (None, Digest::ZERO)
        } else {
            (Some(self.cursor(sequence)?), self.digest_at(sequence - 1)?)
        };
        Ok(Entries {
            reader: self.clone(),
            cursor,
            previous,
            last,
        })
    }

    /// The entries after one that the caller knows, up to `last`, which must
    /// be durable.
    pub(crate) fn entries_after(&self, before: Head, last: u64) -> Result<Entries, LedgerError> {
        Ok(Entries {
            reader: self.clone(),
            cursor: Some(self.cursor(before.sequence + 1)?),
            previous: before.digest,
            last,
        })
    }

    /// The first entry that does not have to be read from an archive.
    pub fn first_plain(&self) -> u64 {
        self.shared.first_plain()
    }

    pub(crate) fn closed(&self) -> Vec<ClosedSegment> {
        self.shared.closed()
    }

    pub(crate) fn put_away(&self, number: u32, packed: Packed) {
        self.shared.put_away(number, packed);
    }

    fn cursor(&self, sequence: u64) -> Result<Cursor, LedgerError> {
        Cursor::open(&self.shared, sequence)
    }
}

/// Entries in order; see [`JournalReader::entries_from`].
#[derive(Debug)]
pub struct Entries {
    reader: JournalReader,
    cursor: Option<Cursor>,
    previous: Digest,
    last: u64,
}

impl Iterator for Entries {
    type Item = Result<StoredEntry, LedgerError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut cursor = self.cursor.take()?;
        let item = cursor.next_entry(Some(self.previous), self.reader.shared.seal());
        if let Ok(stored) = &item {
            self.previous = stored.digest;
            if cursor.sequence <= self.last {
                let next = match cursor.is_at_end() {
                    Ok(false) => Ok(cursor),
                    Ok(true) => self.reader.cursor(cursor.sequence),
                    Err(error) => Err(error),
                };
                match next {
                    Ok(next) => self.cursor = Some(next),
                    Err(error) => return Some(Err(error)),
                }
            }
        }
        Some(item)
    }
}
