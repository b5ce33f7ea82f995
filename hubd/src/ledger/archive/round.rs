//! One round of looking after the archives: what was begun is finished, what
//! is old enough is archived, the index forgets it, and what was copied away
//! makes room.

use std::path::PathBuf;

use hub_core::ArchiveChange;
use hub_core::state::ArchiveMarks;

use super::writer::{ArchiveError, Archiver, AtStep, Next, Step, is_still_wanted};
use crate::ledger::index_stamp::Stamp;
use crate::ledger::index_writer::Keep;

/// The hub and its index, as a round needs them. Calls may take long.
pub trait ArchiveHub {
    /// How far the ledger says that it is archived.
    ///
    /// # Errors
    /// The hub does not answer.
    fn marks(&mut self) -> Result<ArchiveMarks, ArchiveError>;

    /// Writes an entry; on return it is durable.
    ///
    /// # Errors
    /// The hub refuses, or is stopping.
    fn record(&mut self, change: ArchiveChange) -> Result<(), ArchiveError>;

    /// Has the index forget the records that `keep` does not want, and write
    /// what is left to `path` too.
    ///
    /// # Errors
    /// The index cannot be written.
    fn forget(&mut self, keep: Keep, path: PathBuf, number: u32) -> Result<Stamp, ArchiveError>;

    /// How many bytes may be used now, and whether the index may be written.
    fn room(&self) -> (u64, bool);
}

/// What a round goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveSettings {
    /// How old the last entry of a segment is before it is archived, in
    /// milliseconds.
    pub retention_ms: u64,
    /// Above so many bytes of compressed files, those that were copied away are
    /// removed, oldest first.
    pub most_bytes: u64,
}

/// What came of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Archives written.
    pub written: u32,
    /// Archives removed.
    pub removed: u32,
    /// What a person should know: why something that is due was not done.
    pub trouble: Option<String>,
}

impl Archiver {
    /// One round. `now_ms` is the time, milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// What was begun is finished in the next round.
    pub fn round(
        &mut self,
        hub: &mut dyn ArchiveHub,
        settings: ArchiveSettings,
        now_ms: u64,
        at: AtStep<'_>,
    ) -> Result<Round, ArchiveError> {
        let mut round = Round::default();
        let mut marks = hub.marks()?;
        // The power may have failed between an entry and what it tells of.
        self.record_and_remove(hub, &mut marks, at)?;
        if !self.begun && marks.removed > 0 {
            self.remove_archive(marks.removed, at)?;
        }
        self.begun = true;
        let before_ms = now_ms.saturating_sub(settings.retention_ms);
        while let Some(bytes) = self.due(before_ms)? {
            if hub.room().0 <= bytes {
                round.trouble = Some("there is no room on the disk to archive in".to_owned());
                break;
            }
            match self.next(before_ms, at)? {
                Next::Nothing => break,
                Next::Waits { number, payment } => {
                    round.trouble = Some(format!(
                        "segment {number} waits for payment {payment}, which is not final"
                    ));
                    break;
                }
                Next::Written(_) => {
                    self.record_and_remove(hub, &mut marks, at)?;
                    round.written += 1;
                }
            }
        }
        self.rebase(hub, marks, at)?;
        self.make_room(hub, marks, settings.most_bytes, &mut round, at)?;
        Ok(round)
    }

    fn record_and_remove(
        &self,
        hub: &mut dyn ArchiveHub,
        marks: &mut ArchiveMarks,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        for written in self.unrecorded(marks.written) {
            hub.record(ArchiveChange::Written {
                number: written.number,
                last: written.last,
                digest: written.digest,
            })?;
            (marks.written, marks.through) = (written.number, written.last);
            at(Step::Recorded)?;
        }
        self.remove_segments(marks.written, at)
    }

    /// The index forgets what is archived, and a new base is made.
    fn rebase(
        &self,
        hub: &mut dyn ArchiveHub,
        marks: ArchiveMarks,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        // A base that cannot be read is made anew.
        let based = match self.archives().base() {
            Ok(Some(base)) => base.statement.archive,
            Ok(None) | Err(_) => 0,
        };
        let (free_bytes, index_writes) = hub.room();
        if based >= marks.written || !index_writes || free_bytes <= self.base_bytes() {
            return Ok(());
        }
        let (path, number) = self.new_base()?;
        let through = marks.through;
        let keep: Keep = Box::new(move |key, value| is_still_wanted(through, key, value));
        let stamp = hub.forget(keep, path, number)?;
        self.finish_base(marks.written, stamp, at)
    }

    fn make_room(
        &self,
        hub: &mut dyn ArchiveHub,
        marks: ArchiveMarks,
        most_bytes: u64,
        round: &mut Round,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        let mut bytes = self.bytes();
        let mut next = marks.removed + 1;
        while bytes > most_bytes {
            if next > marks.exported {
                round.trouble = Some(format!(
                    "archives take {} MiB, more than [ledger] archive_mib: copy them away with `hubctl ledger archive export`",
                    bytes >> 20
                ));
                break;
            }
            self.remove(hub, next, None, at)?;
            round.removed += 1;
            next += 1;
            bytes = self.bytes();
        }
        Ok(())
    }

    /// What the compressed files take, in bytes.
    pub fn bytes(&self) -> u64 {
        self.archives()
            .list()
            .iter()
            .filter_map(|archive| archive.bytes())
            .sum()
    }

    /// Removes the next archive, which was copied away, for a person or by
    /// itself: the entry first, then the compressed file.
    ///
    /// # Errors
    /// The hub would not open without it, or says that it is not its turn.
    pub fn remove(
        &self,
        hub: &mut dyn ArchiveHub,
        number: u32,
        operator: Option<&str>,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        let archive = self.removable(number)?;
        hub.record(ArchiveChange::Removed {
            number,
            digest: archive.manifest.archive_digest,
            operator: operator.map(str::to_owned),
        })?;
        at(Step::RemovalRecorded)?;
        self.remove_archive(number, at)
    }
}
