//! The one writer of the ledger: groups of entries, each group one write and
//! one flush.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use hub_protocol::{DataKey, Digest, EntrySeal, HubId, LedgerCommit, ReceiptsRoot, SignedKeyChange};
use sha2::{Digest as _, Sha256};

use super::archive::{self, Archives};
use super::at_rest::RestSeal;
use super::closed::read_closed;
use super::disk::{self, DataLock, Disk, DiskCounter, DiskCounts, Numbered};
use super::error::{Broken, Fault, Head, LedgerError};
use super::reader::JournalReader;
use super::scan::{self, Expect, Scan, Signatures};
use super::segment::{
    FOOTER_RESERVE, FORMAT, Footer, HEAD_LEN, HEADER_LEN, Header, MARK_LEN, MAX_ENTRY_BYTES, Mark, peek,
    push_entry, push_statement,
};
use super::segments::{Segment, Shared};
use super::signing_keys::{self, Candidates};
use super::space::Space;
use crate::key_ring::KeyRing;

mod archived;

pub(crate) const EXTENSION: &str = "seg";
/// Offsets are 32 bits wide; nothing needs segments that large.
pub(crate) const LARGEST_SEGMENT: u64 = 1 << 30;
const SMALLEST_SEGMENT: u64 = 4096;
/// More than a statement's record has.
const STATEMENT_ROOM: usize = 512;

/// How the journal is kept.
#[derive(Clone, Copy, Debug)]
pub struct JournalOptions {
    /// How long a segment file is made, in bytes: 4 KiB to 1 GiB. A single
    /// group that is larger gets a segment of its own size. Opening reads the
    /// last segment into memory once.
    pub segment_bytes: u64,
    /// Whether an empty folder becomes a new ledger. Only for a new hub: an
    /// emptied folder must not silently become a ledger without a past.
    pub create: bool,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 16 << 20,
            create: false,
        }
    }
}

/// What was found on opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReport {
    /// The last entry.
    pub head: Head,
    /// Segment files.
    pub segments: usize,
    /// Bytes of an incomplete last write that were cut off. They were never
    /// acknowledged, unless the disk lied about a flush.
    pub torn_bytes: u64,
}

/// The journal's writer. There is one in a process and, by the folder's lock,
/// one on the machine.
pub struct Journal {
    dir: PathBuf,
    hub: HubId,
    keys: KeyRing,
    segment_bytes: u64,
    shared: Arc<Shared>,
    archives: Archives,
    active: Option<Active>,
    next_number: u32,
    disk: Disk,
    space: Option<Space>,
    poisoned: bool,
    _lock: DataLock,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal({}, {:?})", self.dir.display(), self.head())
    }
}

/// The segment that is written to.
struct Active {
    file: File,
    segment: Arc<Segment>,
    first: u64,
    count: u64,
    end: u64,
    len: u64,
    /// Over all bytes up to `end`, for the footer.
    hash: Sha256,
}

impl Journal {
    /// Opens the ledger in `dir` and makes what it holds durable.
    ///
    /// Closed segments are checked by header, footer and footer's signature;
    /// the last segment is read whole (checksums and chain, not every
    /// signature: that is [`verify`](super::verify()). A torn tail of the
    /// last segment is overwritten with zeros and reported.
    ///
    /// # Errors
    /// Anything else that does not verify is an error, and nothing is changed.
    pub fn open(
        dir: &Path,
        hub: HubId,
        keys: impl Into<Candidates>,
        options: JournalOptions,
    ) -> Result<(Self, OpenReport), LedgerError> {
        if options.create {
            disk::make_dir(dir)?;
        } else if !dir.is_dir() {
            return Err(LedgerError::Missing { path: dir.into() });
        }
        let lock = DataLock::acquire(dir)?;
        let found = Numbered::list(dir, EXTENSION)?;
        let candidates = keys.into();
        let (chain, in_file) = signing_keys::chain_to_write(dir, hub, &candidates)?;
        let signing = candidates.current(&chain, dir)?;
        if !in_file && chain.changes() > 0 {
            // The power failed before it was written, or it was lost.
            signing_keys::keep(dir, &chain);
        }
        let keys = KeyRing::new(signing, chain);
        let seal = candidates.data_key().map(RestSeal::index);
        let archives = Archives::open(&dir.join(archive::FOLDER), hub, keys.clone(), seal)?;
        if found.files.is_empty() && !options.create {
            return Err(LedgerError::Missing { path: dir.into() });
        }
        let mut journal = Self {
            dir: dir.into(),
            hub,
            keys,
            segment_bytes: options.segment_bytes.clamp(SMALLEST_SEGMENT, LARGEST_SEGMENT),
            shared: Arc::default(),
            archives,
            active: None,
            next_number: 1,
            disk: Disk::default(),
            space: None,
            poisoned: false,
            _lock: lock,
        };
        if let Some(key) = candidates.data_key() {
            journal.unseal(key);
        }
        let mut torn_bytes = 0;
        let last = found.files.len();
        let archived = journal.take_archived(&found)?;
        for (n, (number, path)) in found.files.iter().enumerate().skip(archived) {
            if *number != journal.next_number {
                let missing = disk::numbered(dir, journal.next_number, EXTENSION);
                return Err(LedgerError::Damaged(Broken {
                    file: file_name(&missing),
                    offset: 0,
                    sequence: journal.head().sequence + 1,
                    fault: Fault::MissingSegment,
                }));
            }
            if n + 1 < last {
                journal.take_closed(*number, path)?;
            } else {
                torn_bytes = journal.take_last(*number, path)?;
            }
            journal.next_number += 1;
        }
        found.remove_unfinished()?;
        disk::sync_dir(dir)?;
        if last == 0 {
            journal.active = Some(journal.new_segment(0)?);
        }
        let report = OpenReport {
            head: journal.head(),
            segments: last,
            torn_bytes,
        };
        Ok((journal, report))
    }

    /// A segment that another one follows: its footer says what it holds.
    fn take_closed(&mut self, number: u32, path: &Path) -> Result<(), LedgerError> {
        let keys = self.keys.chain();
        let name = file_name(path);
        let expect = Expect {
            file: &name,
            number,
            hub: Some(self.hub),
            before: self.head(),
            keys: &keys,
        };
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        let closed = read_closed(&file, path, expect)?;
        let segment = Arc::new(Segment::new(
            number,
            path.into(),
            closed.header.format,
            closed.header.first,
        ));
        let head = Head {
            sequence: closed.footer.last,
            digest: closed.footer.last_digest,
        };
        self.shared.add_segment(segment, head);
        Ok(())
    }

    fn take_last(&mut self, number: u32, path: &Path) -> Result<u64, LedgerError> {
        let keys = self.keys.chain();
        let name = file_name(path);
        let expect = Expect {
            file: &name,
            number,
            hub: Some(self.hub),
            before: self.head(),
            keys: &keys,
        };
        let file = disk::open_rw(path)?;
        let bytes = disk::read_durable(&file, path)?;
        let scan = scan::scan(&bytes, expect, Signatures::Skip, &mut |_| Ok(()))
            .map_err(|b| LedgerError::of_broken(path, b))?;
        let mut torn_bytes = 0;
        if let Some(torn_to) = scan.torn_to {
            // Before anything is written after it: what is left of a torn
            // group must never be taken for part of a later one.
            self.disk.zero(&file, path, scan.end as u64, torn_to as u64)?;
            self.disk.flush(&file, path)?;
            torn_bytes = (torn_to - scan.end) as u64;
        }
        let Scan {
            header,
            offsets,
            count,
            ..
        } = scan;
        let segment = Arc::new(Segment::new(number, path.into(), header.format, header.first));
        segment.set_offsets(offsets, count, scan.end as u64);
        self.shared.add_segment(Arc::clone(&segment), scan.head);
        if scan.closed {
            if scan.end < bytes.len() {
                self.disk.truncate(&file, path, scan.end as u64)?;
            }
        } else {
            let hash = Sha256::new_with_prefix(&bytes[..scan.end]);
            self.active = Some(Active {
                file,
                segment,
                first: header.first,
                count,
                end: scan.end as u64,
                len: bytes.len() as u64,
                hash,
            });
        }
        Ok(torn_bytes)
    }

    /// From now on, segments for which the disk has no room are made out of
    /// the reserve.
    pub fn keep_room(&mut self, space: &Space) {
        self.space = Some(space.clone());
    }

    /// The last durable entry.
    pub fn head(&self) -> Head {
        self.shared.head()
    }

    /// Lets readers open what is encrypted, and archives be made. Writing,
    /// opening and the chain of signatures need no key.
    pub fn unseal(&self, key: &DataKey) {
        self.shared.unseal(EntrySeal::new(key));
        self.archives.unseal(RestSeal::index(key));
    }

    /// Reads what is durable, from any thread, while the journal is written.
    pub fn reader(&self) -> JournalReader {
        JournalReader::new(Arc::clone(&self.shared))
    }

    /// The keys that the ledger is signed with.
    pub fn keys(&self) -> KeyRing {
        self.keys.clone()
    }

    /// Everything from the next entry on is signed by another key: the last
    /// entry on disk says so. The old key signs nothing any more.
    ///
    /// # Errors
    /// The statement is not what the chain of keys goes on with. The journal then takes no more entries; the next
    /// opening finds the change in the last entry.
    pub fn change_key(
        &mut self,
        signing: SigningKey,
        statement: &SignedKeyChange,
    ) -> Result<(), LedgerError> {
        let mut chain = self.keys.chain();
        let (before, head) = (chain.changes(), self.head().sequence);
        let pushed = chain.push(statement);
        let right = chain.changes() == before + 1
            && chain.changed_at() == Some(head)
            && *chain.current() == signing.verifying_key();
        self.poisoned = true;
        match pushed {
            Ok(()) if right => {}
            _ => return Err(LedgerError::KeyChange { sequence: head }),
        }
        signing_keys::keep(&self.dir, &chain);
        self.keys.change(signing, chain);
        self.poisoned = false;
        Ok(())
    }

    /// The archived part of the ledger.
    pub fn archives(&self) -> Archives {
        self.archives.clone()
    }

    /// Writes and flushes since opening.
    pub fn counts(&self) -> DiskCounts {
        self.disk.counts()
    }

    /// The same, to be read while another thread writes.
    pub fn counter(&self) -> DiskCounter {
        DiskCounter::new(&self.disk)
    }

    #[cfg(test)]
    pub(crate) fn disk(&self) -> Disk {
        self.disk.clone()
    }

    /// Makes entries (encoded [`Entry`](hub_protocol::Entry)s) durable under
    /// one signature: one write and one flush for all of them. When it returns
    /// they are on disk, all or, with an error, none that may be acknowledged.
    ///
    /// # Errors
    /// [`LedgerError::DoesNotFollow`] and [`LedgerError::TooLarge`] write
    /// nothing, nor does [`LedgerError::NoRoom`], after which the same entries
    /// can be tried again. After any other error the journal takes no more entries: what
    /// is on disk is not known, and only a new start reads it again.
    pub fn append<P: AsRef<[u8]>>(&mut self, payloads: &[P]) -> Result<Head, LedgerError> {
        self.append_with_receipts(payloads, None).map(|(head, _)| head)
    }

    /// [`append`](Self::append), with the receipts that the signature is to
    /// stand for. Also gives the signed [`LedgerCommit`]: none without
    /// entries.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_with_receipts<P: AsRef<[u8]>>(
        &mut self,
        payloads: &[P],
        receipts: Option<ReceiptsRoot>,
    ) -> Result<(Head, Option<Vec<u8>>), LedgerError> {
        if self.poisoned {
            return Err(LedgerError::Poisoned);
        }
        let (mut group, head) = self.chain(payloads)?;
        if payloads.is_empty() {
            return Ok((head, None));
        }
        let commit = LedgerCommit {
            hub: self.hub,
            first: self.head().sequence + 1,
            last: head.sequence,
            last_digest: head.digest,
            receipts,
        };
        let signed = self.keys.with(|key| commit.sign(key));
        push_statement(&mut group, &signed);
        self.poisoned = true;
        let committed = self.commit(group, payloads.len(), head);
        // Without room for a next segment nothing of the group was written.
        self.poisoned = committed.as_ref().is_err_and(|error| !error.is_no_room());
        committed.map(|()| (head, Some(signed)))
    }

    /// The records of the group without statement and mark.
    fn chain<P: AsRef<[u8]>>(&self, payloads: &[P]) -> Result<(Vec<u8>, Head), LedgerError> {
        let mut head = self.head();
        let room = payloads
            .iter()
            .map(|p| p.as_ref().len() + HEAD_LEN)
            .sum::<usize>();
        let mut group = Vec::with_capacity(room + STATEMENT_ROOM + MARK_LEN);
        for payload in payloads {
            let payload = payload.as_ref();
            if payload.is_empty() || payload.len() > MAX_ENTRY_BYTES {
                return Err(LedgerError::TooLarge {
                    bytes: payload.len(),
                    most: MAX_ENTRY_BYTES,
                });
            }
            head = scan::follow(head, payload).map_err(|_| LedgerError::DoesNotFollow {
                last: head.sequence,
                found: peek(payload).map_or(0, |(sequence, _)| sequence),
            })?;
            push_entry(&mut group, payload);
        }
        let most = LARGEST_SEGMENT as usize - HEADER_LEN - STATEMENT_ROOM - MARK_LEN - FOOTER_RESERVE;
        if group.len() > most {
            return Err(LedgerError::TooLarge {
                bytes: group.len(),
                most,
            });
        }
        Ok((group, head))
    }

    fn commit(&mut self, mut group: Vec<u8>, count: usize, head: Head) -> Result<(), LedgerError> {
        let needed = (group.len() + MARK_LEN + FOOTER_RESERVE) as u64;
        self.leave_older_format()?;
        if let Some(active) = self.active.as_mut()
            && active.end + needed > active.len
        {
            if active.count == 0 {
                // A closed segment holds at least one entry: an empty one
                // that is too small for the group grows instead.
                let path = active.segment.path();
                self.disk.reserve(&active.file, path, active.end + needed)?;
                active.len = active.end + needed;
            } else {
                self.close_active()?;
            }
        }
        let mut active = match self.active.take() {
            Some(active) => active,
            None => self.new_segment(needed)?,
        };
        let mark = Mark {
            group_offset: active.end as u32,
            group_len: group.len() as u32,
            count: count as u32,
            group_crc: crc32c::crc32c(&group),
            last: head.sequence,
        };
        group.extend_from_slice(&mark.encode());
        let path = active.segment.path();
        self.disk.write(&active.file, path, &group, active.end)?;
        self.disk.flush(&active.file, path)?;
        active.hash.update(&group);
        active.segment.add_group(active.end, &group);
        active.end += group.len() as u64;
        active.count += count as u64;
        self.active = Some(active);
        self.shared.set_head(head);
        Ok(())
    }

    /// An older program wrote the last segment: it is closed as it is, and
    /// what follows goes into a new one of the present format.
    fn leave_older_format(&mut self) -> Result<(), LedgerError> {
        match self.active.take() {
            Some(active) if active.segment.format() == FORMAT => self.active = Some(active),
            Some(active) if active.count > 0 => {
                self.active = Some(active);
                self.close_active()?;
            }
            Some(_) => {
                // No segment is closed without entries: the next one takes
                // its number, and its file's place.
                self.shared.remove_empty_segment();
                self.next_number -= 1;
            }
            None => {}
        }
        Ok(())
    }

    /// Signs off the full segment. What was kept free for the next group is
    /// given back, so that a closed file ends with its seal.
    fn close_active(&mut self) -> Result<(), LedgerError> {
        let Some(active) = self.active.take() else {
            return Ok(());
        };
        let head = self.head();
        let footer = Footer {
            first: active.first,
            last: head.sequence,
            last_digest: head.digest,
            count: active.count,
            file_digest: Digest(active.hash.finalize().into()),
        };
        let bytes = self.keys.with(|key| footer.encode(key, active.end as u32));
        let path = active.segment.path();
        self.disk.write(&active.file, path, &bytes, active.end)?;
        self.disk.flush(&active.file, path)?;
        self.disk
            .truncate(&active.file, path, active.end + bytes.len() as u64)
    }

    fn new_segment(&mut self, needed: u64) -> Result<Active, LedgerError> {
        let before = self.head();
        let header = Header {
            format: FORMAT,
            number: self.next_number,
            hub: self.hub,
            first: before.sequence + 1,
            previous: before.digest,
        };
        let path = disk::numbered(&self.dir, header.number, EXTENSION);
        let least = HEADER_LEN as u64 + needed;
        let bytes = header.encode();
        let (file, len) = self.disk.create_with(
            self.space.as_ref(),
            &path,
            &bytes,
            self.segment_bytes.max(least),
            least,
        )?;
        let segment = Arc::new(Segment::new(header.number, path, header.format, header.first));
        segment.set_offsets(Vec::new(), 0, HEADER_LEN as u64);
        self.shared.add_segment(Arc::clone(&segment), before);
        self.next_number += 1;
        Ok(Active {
            file,
            segment,
            first: header.first,
            count: 0,
            end: HEADER_LEN as u64,
            len,
            hash: Sha256::new_with_prefix(bytes),
        })
    }
}

/// The last part of a path, for messages.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
