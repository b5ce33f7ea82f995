//! Removing compressed files that were copied away: the entry that tells of it
//! comes first.
//!
//! So that the power may fail in between, an empty file `NNNNNNNN.removing` is
//! there from before the entry until after the removal. Only what has one is
//! removed at the next start: an archive that a person has brought back to
//! look into it stays.

use std::fs;
use std::sync::Arc;

use hub_core::ArchiveChange;
use hub_core::state::ArchiveMarks;

use super::round::{ArchiveHub, Round};
use super::writer::{ArchiveError, Archiver, AtStep, Step};
use super::{Archive, PACKED, files};
use crate::ledger::disk::{self, Numbered};
use crate::ledger::error::LedgerError;

const REMOVING: &str = "removing";

impl Archiver {
    /// Removes the next archive, which was copied away, for a person or by
    /// itself.
    ///
    /// # Errors
    /// The hub would not open without it, or says that it is not its turn.
    pub fn remove(
        &mut self,
        hub: &mut dyn ArchiveHub,
        number: u32,
        operator: Option<&str>,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        let archive = self.removable(number)?;
        files::write_signed(&disk::numbered(self.archives().dir(), number, REMOVING), &[])?;
        // Whether an entry was made after all, the next round sees.
        hub.record(ArchiveChange::Removed {
            number,
            digest: archive.manifest.archive_digest,
            operator: operator.map(str::to_owned),
        })?;
        at(Step::RemovalRecorded)?;
        self.remove_file(number, at)
    }

    /// An archive that the hub opens without.
    fn removable(&mut self, number: u32) -> Result<Arc<Archive>, ArchiveError> {
        let based = self.whole_base().map_or(0, |base| base.statement.archive);
        let list = self.archives().list();
        let found = list.into_iter().find(|archive| archive.manifest.number == number);
        Ok(found
            .filter(|_| number <= based)
            .ok_or(LedgerError::NoBase { number })?)
    }

    /// Removals that were begun are finished if the ledger tells of them, and
    /// forgotten if it does not.
    pub(super) fn finish_removals(&self, marks: ArchiveMarks, at: AtStep<'_>) -> Result<(), ArchiveError> {
        let dir = self.archives().dir();
        if !dir.is_dir() {
            return Ok(());
        }
        for (number, mark) in Numbered::list(dir, REMOVING)?.files {
            if number <= marks.removed {
                self.remove_file(number, at)?;
            } else {
                fs::remove_file(&mark).map_err(LedgerError::io("remove", &mark))?;
            }
        }
        Ok(())
    }

    fn remove_file(&self, number: u32, at: AtStep<'_>) -> Result<(), ArchiveError> {
        let dir = self.archives().dir();
        for extension in [PACKED, REMOVING] {
            let path = disk::numbered(dir, number, extension);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LedgerError::io("remove", &path)(error).into());
                }
                _ => disk::sync_dir(dir)?,
            }
        }
        at(Step::ArchiveRemoved)
    }

    /// Removes what was copied away, oldest first, until the others take no
    /// more than `most_bytes`. What was removed before and is there again is
    /// not counted: a person sees to that.
    pub(super) fn make_room(
        &mut self,
        hub: &mut dyn ArchiveHub,
        marks: ArchiveMarks,
        most_bytes: u64,
        round: &mut Round,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        let mut removed = marks.removed;
        loop {
            let bytes = self.bytes_after(removed);
            if bytes <= most_bytes {
                return Ok(());
            }
            if removed >= marks.exported {
                round.trouble = Some(format!(
                    "archives take {} MiB, more than [ledger] archive_mib: copy them away with `hubctl ledger archive export`",
                    bytes >> 20
                ));
                return Ok(());
            }
            self.remove(hub, removed + 1, None, at)?;
            removed += 1;
            round.removed += 1;
        }
    }

    fn bytes_after(&self, number: u32) -> u64 {
        let archives = self.archives().list();
        let after = archives.iter().filter(|archive| archive.manifest.number > number);
        after.filter_map(|archive| archive.bytes()).sum()
    }
}
