//! What the journal's writer and its readers share: which segments there are,
//! where entries stand in them, and up to where all is durable.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::error::{Broken, Fault, Head, LedgerError};
use super::journal::file_name;
use super::scan::STRIDE;
use super::segment::{HEAD_LEN, HEADER_LEN, MARK_LEN, Word};

/// What writer and readers share: never more than what is durable.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    segments: Vec<Arc<Segment>>,
    head: Head,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: RwLock::new(State {
                segments: Vec::new(),
                head: Head::EMPTY,
            }),
        }
    }
}

impl Shared {
    pub(crate) fn head(&self) -> Head {
        self.state.read().unwrap_or_else(PoisonError::into_inner).head
    }

    pub(crate) fn set_head(&self, head: Head) {
        self.state.write().unwrap_or_else(PoisonError::into_inner).head = head;
    }

    pub(crate) fn add_segment(&self, segment: Arc<Segment>, head: Head) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.segments.push(segment);
        state.head = head;
    }

    /// Takes off the last segment, which holds nothing.
    pub(crate) fn remove_empty_segment(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.segments.pop();
    }

    /// The segment that holds `sequence`.
    pub(crate) fn find(&self, sequence: u64) -> Result<Arc<Segment>, LedgerError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let last = state.head.sequence;
        let index = state.segments.partition_point(|s| s.first <= sequence);
        match index.checked_sub(1).and_then(|i| state.segments.get(i)) {
            Some(segment) if sequence <= last => Ok(Arc::clone(segment)),
            _ => Err(LedgerError::NoSuchEntry { sequence, last }),
        }
    }
}

/// One segment file. Offsets of closed segments are found when they are first
/// asked for.
#[derive(Debug)]
pub(crate) struct Segment {
    path: PathBuf,
    /// The format of the file.
    format: u16,
    first: u64,
    offsets: Mutex<Option<Offsets>>,
}

#[derive(Clone, Debug)]
struct Offsets {
    sparse: Vec<u32>,
    count: u64,
    end: u64,
}

impl Offsets {
    /// Notes the entries of bytes that stand at `at` and end a commit.
    fn add(&mut self, at: u64, bytes: &[u8]) {
        let mut here = 0;
        while let Some((found, next)) = self.step(bytes, here) {
            if found {
                if self.count.is_multiple_of(STRIDE) {
                    self.sparse.push((at + here as u64) as u32);
                }
                self.count += 1;
            }
            here = next;
        }
        self.end = at + here as u64;
    }

    /// Whether the record at `here` is an entry, and where the next begins.
    fn step(&self, bytes: &[u8], here: usize) -> Option<(bool, usize)> {
        let (entry, next) = match Word::at(bytes, here) {
            Word::Entry(len) => (true, here + HEAD_LEN + len),
            Word::Statement(len) => (false, here + HEAD_LEN + len),
            Word::Mark => (false, here + MARK_LEN),
            _ => return None,
        };
        (next <= bytes.len()).then_some((entry, next))
    }
}

impl Segment {
    pub(crate) fn new(path: PathBuf, format: u16, first: u64) -> Self {
        Self {
            path,
            format,
            first,
            offsets: Mutex::new(None),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn format(&self) -> u16 {
        self.format
    }

    fn lock(&self) -> MutexGuard<'_, Option<Offsets>> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_offsets(&self, sparse: Vec<u32>, count: u64, end: u64) {
        *self.lock() = Some(Offsets { sparse, count, end });
    }

    pub(crate) fn add_group(&self, at: u64, group: &[u8]) {
        if let Some(offsets) = self.lock().as_mut() {
            offsets.add(at, group);
        }
    }

    /// The offset of the nearest noted entry at or before `sequence`, its
    /// sequence, and the end of what is durable.
    pub(crate) fn nearest(&self, file: &File, sequence: u64) -> Result<(u64, u64, u64), LedgerError> {
        let mut offsets = self.lock();
        let offsets = match offsets.as_mut() {
            Some(offsets) => offsets,
            None => {
                let bytes = super::disk::read_whole(file, &self.path)?;
                let mut found = Offsets {
                    sparse: Vec::new(),
                    count: 0,
                    end: HEADER_LEN as u64,
                };
                found.add(HEADER_LEN as u64, bytes.get(HEADER_LEN..).unwrap_or_default());
                offsets.insert(found)
            }
        };
        let slot = (sequence - self.first) / STRIDE;
        let offset = usize::try_from(slot).ok().and_then(|s| offsets.sparse.get(s));
        match offset {
            Some(offset) => Ok((u64::from(*offset), self.first + slot * STRIDE, offsets.end)),
            // Fewer entries than the footer says.
            None => Err(self.broken(offsets.end, sequence, Fault::Record)),
        }
    }

    pub(crate) fn broken(&self, offset: u64, sequence: u64, fault: Fault) -> LedgerError {
        LedgerError::Damaged(Broken {
            file: file_name(&self.path),
            offset,
            sequence,
            fault,
        })
    }
}
