//! What the journal's writer and its readers share: which segments there are,
//! where entries stand in them, and up to where all is durable.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use hub_protocol::{Digest, EntrySeal};

use super::archive::Packed;
use super::cursor::Window;
use super::error::{Broken, Fault, Head, LedgerError};
use super::journal::file_name;
use super::scan::STRIDE;
use super::segment::{HEAD_LEN, HEADER_LEN, MARK_LEN, Word};

/// What writer and readers share: never more than what is durable.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    /// The archived segment that was read last, by its first entry: a file
    /// without a name, so that its room comes back whatever happens.
    unpacked: Mutex<Option<(u64, File)>>,
    /// Opens what is encrypted, once it is known.
    seal: OnceLock<EntrySeal>,
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
            unpacked: Mutex::default(),
            seal: OnceLock::new(),
        }
    }
}

/// A segment that is closed and stands as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosedSegment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) format: u16,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Shared {
    pub(crate) fn head(&self) -> Head {
        self.state.read().unwrap_or_else(PoisonError::into_inner).head
    }

    pub(crate) fn seal(&self) -> Option<&EntrySeal> {
        self.seal.get()
    }

    /// From now on encrypted entries are read.
    pub(crate) fn unseal(&self, seal: EntrySeal) {
        let _ = self.seal.set(seal);
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

    /// Closed segments that are not archived, oldest first.
    pub(crate) fn closed(&self) -> Vec<ClosedSegment> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = state.segments.iter().zip(state.segments.iter().skip(1));
        pairs
            .filter(|(segment, _)| segment.packed.is_none())
            .map(|(segment, next)| ClosedSegment {
                number: segment.number,
                path: segment.path.clone(),
                format: segment.format,
                first: segment.first,
                last: next.first.saturating_sub(1),
            })
            .collect()
    }

    /// The first entry that is not in an archive alone.
    pub(crate) fn first_plain(&self) -> u64 {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let plain = state.segments.iter().find(|segment| segment.packed.is_none());
        plain.map_or(1, |segment| segment.first)
    }

    /// The digest of an entry, if it is the last one of an archive: known
    /// without reading it.
    pub(crate) fn archived_digest(&self, sequence: u64) -> Option<Digest> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut packed = state
            .segments
            .iter()
            .filter_map(|segment| segment.packed.as_ref());
        let found = packed.find(|packed| packed.last.sequence == sequence)?;
        Some(found.last.digest)
    }

    /// From now on a segment is read from its archive.
    pub(crate) fn put_away(&self, number: u32, packed: Packed) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let found = state.segments.iter_mut().find(|segment| segment.number == number);
        if let Some(segment) = found {
            *segment = Arc::new(Segment::packed(number, segment.format, segment.first, packed));
        }
    }

    /// The segment that holds `sequence`, and its file.
    pub(crate) fn open(&self, sequence: u64) -> Result<(Arc<Segment>, File), LedgerError> {
        let segment = self.find(sequence)?;
        match self.open_file(&segment) {
            // It was archived between the two lines above.
            Err(LedgerError::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && segment.packed.is_none() =>
            {
                let segment = self.find(sequence)?;
                let file = self.open_file(&segment)?;
                Ok((segment, file))
            }
            file => Ok((segment, file?)),
        }
    }

    fn open_file(&self, segment: &Segment) -> Result<File, LedgerError> {
        let Some(packed) = &segment.packed else {
            return File::open(&segment.path).map_err(LedgerError::io("open", &segment.path));
        };
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        if unpacked.as_ref().is_none_or(|(first, _)| *first != segment.first) {
            // One at a time: its room is given back first.
            *unpacked = None;
            *unpacked = Some((segment.first, packed.unpack(&segment.path)?));
        }
        match unpacked.as_ref() {
            Some((_, file)) => file.try_clone().map_err(LedgerError::io("open", &segment.path)),
            None => Err(segment.broken(0, segment.first, Fault::Record)),
        }
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
    number: u32,
    /// Of the segment, or of its archive.
    path: PathBuf,
    packed: Option<Packed>,
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
    /// Notes the entries of a closed segment, read piece by piece.
    fn of_file(file: &File) -> std::io::Result<Self> {
        let len = file.metadata()?.len();
        let mut window = Window::new(file.try_clone()?);
        let mut found = Self {
            sparse: Vec::new(),
            count: 0,
            end: HEADER_LEN as u64,
        };
        while found.end < len {
            let left = usize::try_from(len - found.end).unwrap_or(usize::MAX);
            let head = window.get(found.end, left.min(HEAD_LEN))?;
            let (entry, next) = match Word::at(head, 0) {
                Word::Entry(body) => (true, HEAD_LEN + body),
                Word::Statement(body) => (false, HEAD_LEN + body),
                Word::Mark => (false, MARK_LEN),
                _ => break,
            };
            if next > left {
                break;
            }
            if entry {
                if found.count.is_multiple_of(STRIDE) {
                    found.sparse.push(found.end as u32);
                }
                found.count += 1;
            }
            found.end += next as u64;
        }
        Ok(found)
    }

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
    pub(crate) fn new(number: u32, path: PathBuf, format: u16, first: u64) -> Self {
        Self {
            number,
            path,
            packed: None,
            format,
            first,
            offsets: Mutex::new(None),
        }
    }

    /// One that is read from its archive.
    pub(crate) fn packed(number: u32, format: u16, first: u64, packed: Packed) -> Self {
        Self {
            packed: Some(packed.clone()),
            ..Self::new(number, packed.path, format, first)
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
            // The beginning is known without reading it through.
            None if sequence == self.first => {
                let len = file
                    .metadata()
                    .map_err(LedgerError::io("examine", &self.path))?
                    .len();
                return Ok((HEADER_LEN as u64, self.first, len));
            }
            None => {
                let found = Offsets::of_file(file).map_err(LedgerError::io("read", &self.path))?;
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
