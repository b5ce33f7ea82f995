//! Making archives, one at a time, each step durable before the next.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use hub_core::state::{PaymentRecord, State};
use hub_core::totals::Told;
use hub_protocol::{ArchiveManifest, Digest, HubId, LedgerBase, LedgerTotals, PaymentId, cbor};

use super::totals::Totals;
use super::{Archives, IDS, MANIFEST, PACKED, broken, files, ids};
use crate::key_ring::KeyRing;
use crate::ledger::closed::read_closed;
use crate::ledger::disk;
use crate::ledger::error::{Fault, LedgerError};
use crate::ledger::index::IndexReader;
use crate::ledger::index_stamp::Damage;
use crate::ledger::journal::file_name;
use crate::ledger::reader::JournalReader;
use crate::ledger::scan::Expect;
use crate::ledger::segments::ClosedSegment;
use crate::ledger::table::TableWriter;

/// What has been done, in order; where tests cut the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The segment was read through: it is good, and its payments are final.
    Surveyed,
    /// The table of its payments is durable, twice.
    Ids,
    /// The compressed copy is durable and was read back.
    Compressed,
    /// The manifest is durable: from here on the archive counts.
    Manifest,
    /// The entry that tells of it is durable.
    Recorded,
    /// The segment is removed.
    Removed,
    /// The index has forgotten the payments that are in the archive's table,
    /// and what is left of it stands in a new base.
    Based,
    /// The entry that tells of a removal is durable.
    RemovalRecorded,
    /// A compressed file is removed.
    ArchiveRemoved,
}

/// Hears of every step; an error ends the work there.
pub type AtStep<'a> = &'a mut dyn FnMut(Step) -> Result<(), ArchiveError>;

/// Why nothing was archived. The segment stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The files.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The index.
    #[error("what the index holds of the payments cannot be read: {0}")]
    Index(#[from] Damage),
    /// A payment that the index should know.
    #[error(
        "the index does not know payment {payment} of segment {number}: stop the hub and remove its folder index/, which is then built again"
    )]
    Unknown {
        /// The segment.
        number: u32,
        /// The payment.
        payment: PaymentId,
    },
    /// The hub did not write the entry that tells of it.
    #[error("the hub did not record it: {0}")]
    NotRecorded(String),
}

/// An archive that is to be told of in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its number.
    pub number: u32,
    /// The last entry in it.
    pub last: u64,
    /// SHA-256 of the compressed file.
    pub digest: Digest,
}

/// The segment to be archived next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its number.
    pub number: u32,
    /// The last entry in it.
    pub last: u64,
    /// Its length. Its archive and the table of its payments take no more.
    pub bytes: u64,
}

/// What came of looking for something to archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// No closed segment is old enough.
    Nothing,
    /// The oldest one holds a payment that is not final.
    Waits {
        /// The segment.
        number: u32,
        /// The payment.
        payment: PaymentId,
    },
    /// The index does not hold yet what the ledger holds.
    Behind,
    /// One was archived. The segment is still there.
    Written(Written),
}

/// Makes archives. The index is asked, not written.
#[derive(Debug)]
pub struct Archiver {
    pub(super) journal: JournalReader,
    archives: Archives,
    pub(super) index: IndexReader,
    pub(super) hub: HubId,
    pub(super) keys: KeyRing,
    /// What the oldest segment waits for: looked at first, so that it is not
    /// read through again in vain.
    waits: Option<(u32, PaymentId)>,
    /// The base that was read whole, and the length of its records.
    pub(super) whole: Option<(LedgerBase, u64)>,
}

impl Archiver {
    /// Over a ledger that is open. The `index` must look into `archives` too.
    pub fn new(journal: JournalReader, archives: Archives, index: IndexReader, hub: HubId) -> Self {
        Self {
            keys: archives.keys().clone(),
            journal,
            archives,
            index,
            hub,
            waits: None,
            whole: None,
        }
    }

    /// The archives.
    pub fn archives(&self) -> &Archives {
        &self.archives
    }

    /// The segment that would be archived next, if what came after it was made
    /// before `before_ms`.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn due(&self, before_ms: u64) -> Result<Option<Due>, LedgerError> {
        let Some(segment) = self.candidate(before_ms)? else {
            return Ok(None);
        };
        let file = fs::metadata(&segment.path).map_err(LedgerError::io("examine", &segment.path))?;
        Ok(Some(Due {
            number: segment.number,
            last: segment.last,
            bytes: file.len(),
        }))
    }

    /// The oldest segment, if what came after it was made later than it is
    /// now: by a clock that was ahead for a while.
    pub(super) fn ahead_of(&self, now_ms: u64) -> Result<Option<u32>, LedgerError> {
        let oldest = self.oldest()?.filter(|(_, after_ms)| *after_ms > now_ms);
        Ok(oldest.map(|(segment, _)| segment.number))
    }

    /// The payment that the segment waits for, if it was found before and is
    /// still not final.
    pub(super) fn still_waits(&self, number: u32) -> Result<Option<PaymentId>, ArchiveError> {
        let Some((_, payment)) = self.waits.filter(|(waiting, _)| *waiting == number) else {
            return Ok(None);
        };
        Ok((!self.record(number, payment)?.is_final()).then_some(payment))
    }

    /// Whether an archive counts, on the disk.
    pub(super) fn has_manifest(&self, number: u32) -> bool {
        disk::numbered(self.archives.dir(), number, MANIFEST).exists()
    }

    fn candidate(&self, before_ms: u64) -> Result<Option<ClosedSegment>, LedgerError> {
        let oldest = self.oldest()?;
        let old = oldest
            .filter(|(segment, after_ms)| *after_ms < before_ms && self.index.written() >= segment.last);
        Ok(old.map(|(segment, _)| segment))
    }

    /// The segment after the last archive, if it is closed, and the time of
    /// the first entry after it: nothing in it is later.
    fn oldest(&self) -> Result<Option<(ClosedSegment, u64)>, LedgerError> {
        let next = self
            .archives
            .last()
            .map_or(1, |archive| archive.manifest.number + 1);
        let closed = self.journal.closed();
        let Some(segment) = closed.into_iter().find(|segment| segment.number == next) else {
            return Ok(None);
        };
        match self.journal.entry(segment.last + 1) {
            Ok(after) => Ok(Some((segment, after.entry.time.wall_ms))),
            Err(LedgerError::NoSuchEntry { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Archives the oldest segment, if all its entries were made before
    /// `before_ms` and all its payments are final. The hub must see to it that
    /// they stay so, and the index hold everything that was written before.
    ///
    /// # Errors
    /// Nothing counts as archived then, unless the error is that of `at` after
    /// [`Step::Manifest`].
    pub fn next(&mut self, before_ms: u64, at: AtStep<'_>) -> Result<Next, ArchiveError> {
        let Some(segment) = self.candidate(before_ms)? else {
            return Ok(Next::Nothing);
        };
        let number = segment.number;
        if let Some(payment) = self.still_waits(number)? {
            return Ok(Next::Waits { number, payment });
        }
        let survey = self.survey(&segment)?;
        at(Step::Surveyed)?;
        let dir = self.archives.dir().to_path_buf();
        disk::make_dir(&dir)?;
        let ids = match self
            .write_ids(&segment, &survey, &dir)
            .inspect_err(|_| files::discard(&dir, segment.number))?
        {
            Ok(digest) => digest,
            Err(payment) => {
                self.waits = Some((number, payment));
                return Ok(Next::Waits { number, payment });
            }
        };
        at(Step::Ids)?;
        let packed = self
            .compress(&segment, &dir)
            .inspect_err(|_| files::discard(&dir, segment.number))?;
        at(Step::Compressed)?;
        let manifest = self.manifest(&segment, survey, &packed, ids);
        let signed = self.keys.with(|key| manifest.sign(key));
        let written = Written {
            number: manifest.number,
            last: manifest.last,
            digest: manifest.archive_digest,
        };
        files::write_signed(&disk::numbered(&dir, manifest.number, MANIFEST), &signed)?;
        self.archives.add(manifest, &signed)?;
        at(Step::Manifest)?;
        Ok(Next::Written(written))
    }

    /// Reads a segment through: checksums, chain, and what happened in it.
    fn survey(&self, segment: &ClosedSegment) -> Result<Survey, ArchiveError> {
        let mut survey = Survey::default();
        let mut totals = Totals::default();
        let mut unreadable = None;
        for stored in self.journal.entries_after(self.archives.head(), segment.last)? {
            let stored = stored?;
            let entry = &stored.entry;
            let mut earlier = |payment| match self.record(segment.number, payment) {
                Ok(record) => Some(Told::of_record(&record)),
                Err(error) => {
                    unreadable = Some(error);
                    None
                }
            };
            totals
                .add(entry, &mut earlier)
                .map_err(|fault| LedgerError::from(broken(&segment.path, entry.sequence, fault)))?;
            survey.payments.extend(entry.event.payment_id());
            survey.from_ms = survey.from_ms.or(Some(entry.time.wall_ms));
            survey.to_ms = entry.time.wall_ms;
            survey.last_digest = stored.digest;
        }
        survey.totals = totals.finish();
        unreadable.map_or(Ok(survey), Err)
    }

    fn record(&self, number: u32, payment: PaymentId) -> Result<PaymentRecord, ArchiveError> {
        self.held(number, payment).map(|(_, record)| record)
    }

    fn held(&self, number: u32, payment: PaymentId) -> Result<(Vec<u8>, PaymentRecord), ArchiveError> {
        let value = self.index.get(&State::payment_key(&payment))?;
        let value = value.ok_or(ArchiveError::Unknown { number, payment })?;
        let record = cbor::decode(&value).map_err(|_| Damage::Contents)?;
        Ok((value, record))
    }

    /// The table of the payments that end in the segment; or the first
    /// payment that has not ended.
    fn write_ids(
        &self,
        segment: &ClosedSegment,
        survey: &Survey,
        dir: &Path,
    ) -> Result<Result<Digest, PaymentId>, ArchiveError> {
        let path = disk::numbered(dir, segment.number, IDS);
        let new = files::unfinished(&path);
        let mut table = TableWriter::create_at(
            new.clone(),
            segment.number,
            survey.payments.len() as u64,
            self.archives.seal()?,
        )?;
        for payment in &survey.payments {
            let (value, record) = self.held(segment.number, *payment)?;
            if !record.is_final() {
                drop(table);
                fs::remove_file(&new).map_err(LedgerError::io("remove", &new))?;
                return Ok(Err(*payment));
            }
            // One that goes on in a later segment goes with that one.
            if record.latest <= segment.last {
                table.add(&State::payment_key(payment), Some(&value))?;
            }
        }
        table.finish()?;
        files::rename(&new, &path)?;
        let digest = files::digest_of_file(&path)?;
        ids::write_copy(dir, segment.number, digest)?;
        Ok(Ok(digest))
    }

    /// The compressed copy, read back from the disk before it is believed.
    fn compress(&self, segment: &ClosedSegment, dir: &Path) -> Result<files::Compressed, LedgerError> {
        let name = file_name(&segment.path);
        let file = File::open(&segment.path).map_err(LedgerError::io("open", &segment.path))?;
        let keys = self.keys.chain();
        let expect = Expect {
            file: &name,
            number: segment.number,
            hub: Some(self.hub),
            before: self.archives.head(),
            keys: &keys,
        };
        let closed = read_closed(&file, &segment.path, expect)?;
        let path = disk::numbered(dir, segment.number, PACKED);
        let new = files::unfinished(&path);
        let packed = files::compress(&file, &segment.path, closed.footer_at, &new)?;
        if packed.before_footer != closed.footer.file_digest {
            return Err(broken(&segment.path, segment.first, Fault::Footer).into());
        }
        let (back, archive) = files::unpack(files::fresh(&new)?, &new, segment.first, &mut std::io::sink())?;
        if (back, archive) != (packed.segment_digest, packed.archive_digest) {
            return Err(broken(&new, segment.first, Fault::Archive).into());
        }
        files::rename(&new, &path)?;
        Ok(packed)
    }

    fn manifest(
        &self,
        segment: &ClosedSegment,
        survey: Survey,
        packed: &files::Compressed,
        ids_digest: Digest,
    ) -> ArchiveManifest {
        let last = self.archives.last();
        let running = last.as_ref().map_or(&[][..], |archive| &archive.manifest.running);
        ArchiveManifest {
            hub: self.hub,
            number: segment.number,
            format: segment.format,
            first: segment.first,
            last: segment.last,
            before: self.archives.head().digest,
            last_digest: survey.last_digest,
            from_ms: survey.from_ms.unwrap_or(0),
            to_ms: survey.to_ms,
            segment_digest: packed.segment_digest,
            archive_digest: packed.archive_digest,
            ids_digest,
            running: LedgerTotals::sum(running, &survey.totals),
            totals: survey.totals,
            previous: last.as_ref().map_or(Digest::ZERO, |archive| archive.digest),
        }
    }

    /// Archives that the ledger does not tell of yet, because the power
    /// failed in between; `recorded` is the last one that it tells of.
    pub fn unrecorded(&self, recorded: u32) -> Vec<Written> {
        let list = self.archives.list();
        let new = list.iter().filter(|archive| archive.manifest.number > recorded);
        new.map(|archive| Written {
            number: archive.manifest.number,
            last: archive.manifest.last,
            digest: archive.manifest.archive_digest,
        })
        .collect()
    }

    /// Removes the segments whose archives the ledger tells of. Whoever reads
    /// in one goes on reading.
    ///
    /// # Errors
    /// An archive is not there: its segment stays. Or the system's refusal.
    pub fn remove_segments(&self, recorded: u32, at: AtStep<'_>) -> Result<(), ArchiveError> {
        let archives = self.archives.list();
        for segment in self.journal.closed() {
            let archive = archives
                .iter()
                .find(|archive| archive.manifest.number == segment.number);
            let Some(archive) = archive.filter(|_| segment.number <= recorded) else {
                continue;
            };
            if archive.bytes().is_none() {
                return Err(LedgerError::ArchiveAway {
                    path: archive.path.clone(),
                    first: segment.first,
                    last: segment.last,
                }
                .into());
            }
            self.journal.put_away(segment.number, archive.packed());
            fs::remove_file(&segment.path).map_err(LedgerError::io("remove", &segment.path))?;
            disk::sync_dir(segment.path.parent().unwrap_or(Path::new(".")))?;
            at(Step::Removed)?;
        }
        Ok(())
    }
}

/// What a segment holds.
#[derive(Debug)]
struct Survey {
    payments: BTreeSet<PaymentId>,
    totals: Vec<LedgerTotals>,
    from_ms: Option<u64>,
    to_ms: u64,
    last_digest: Digest,
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            payments: BTreeSet::new(),
            totals: Vec::new(),
            from_ms: None,
            to_ms: 0,
            last_digest: Digest::ZERO,
        }
    }
}

/// Whether the index is to keep a record although its payment may have been
/// archived up to the entry `through`: everything but final payments.
pub fn is_still_wanted(through: u64, key: &[u8], value: &[u8]) -> bool {
    let archived = key.starts_with(State::PAYMENTS)
        && cbor::decode::<PaymentRecord>(value)
            .is_ok_and(|record| record.is_final() && record.latest <= through);
    !archived
}
