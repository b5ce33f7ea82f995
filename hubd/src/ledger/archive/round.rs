//! One round of looking after the archives: what was begun is finished, what
//! is old enough is archived, the index forgets it, and what was copied away
//! makes room.

use std::path::PathBuf;
use std::time::Duration;

use hub_core::ArchiveChange;
use hub_core::state::ArchiveMarks;
use hub_protocol::PaymentId;

use super::ids;
use super::writer::{ArchiveError, Archiver, AtStep, Next, Step};
use crate::ledger::index_stamp::Stamp;
use crate::ledger::index_writer::Keep;

/// How long a round waits for the index to hold what the ledger holds.
const INDEX_TRIES: u32 = 1_000;
const INDEX_PAUSE: Duration = Duration::from_millis(5);

/// The hub and its index, as a round needs them. Calls may take long.
pub trait ArchiveHub {
    /// How it stands.
    ///
    /// # Errors
    /// The hub does not answer.
    fn standing(&mut self) -> Result<Standing, ArchiveError>;

    /// Tells the hub; on return what it wrote down is durable.
    ///
    /// # Errors
    /// The hub refuses, or is stopping.
    fn record(&mut self, change: ArchiveChange) -> Result<(), ArchiveError>;

    /// Has the index forget the records that `keep` does not want, and write
    /// what is left to `path` too.
    ///
    /// # Errors
    /// The index cannot be written, or `path` cannot.
    fn forget(&mut self, keep: Keep, path: PathBuf, number: u32) -> Result<Stamp, ArchiveError>;

    /// How many bytes may be used now without the disk being called full, and
    /// whether the index may be written.
    fn room(&self) -> (u64, bool);
}

/// How the hub stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How far the ledger says that it is archived.
    pub marks: ArchiveMarks,
    /// The time that the ledger goes by, milliseconds since 1970 UTC; `None`
    /// while it is in doubt.
    pub now_ms: Option<u64>,
    /// The newest entry.
    pub sequence: u64,
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
    /// One round.
    ///
    /// # Errors
    /// What was begun is finished in the next round.
    pub fn round(
        &mut self,
        hub: &mut dyn ArchiveHub,
        settings: ArchiveSettings,
        at: AtStep<'_>,
    ) -> Result<Round, ArchiveError> {
        let mut round = Round::default();
        let Standing {
            mut marks, now_ms, ..
        } = hub.standing()?;
        // The power may have failed between an entry and what it tells of.
        self.record_and_remove(hub, &mut marks, at)?;
        self.finish_removals(marks, at)?;
        let Some(now_ms) = now_ms else {
            round.trouble = Some(
                "the clock is in doubt, and with it how old anything is: archiving goes on when the gateway has told the time"
                    .to_owned(),
            );
            return Ok(round);
        };
        self.archive_due(hub, &mut marks, (now_ms, settings.retention_ms), &mut round, at)?;
        self.rebase(hub, marks, &mut round, at)?;
        self.keep_copies(hub, marks)?;
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

    /// Archives segments, oldest first, until one is too young or something is
    /// in the way.
    fn archive_due(
        &mut self,
        hub: &mut dyn ArchiveHub,
        marks: &mut ArchiveMarks,
        (now_ms, retention_ms): (u64, u64),
        round: &mut Round,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        let before_ms = now_ms.saturating_sub(retention_ms);
        round.trouble = loop {
            if let Some(number) = self.ahead_of(now_ms)? {
                break Some(format!(
                    "segment {number}, the oldest, ends later than the clock says that it is now: it and those after it wait for that time"
                ));
            }
            let Some(due) = self.due(before_ms)? else {
                break None;
            };
            if let Some(payment) = self.still_waits(due.number)? {
                break Some(waits(due.number, payment));
            }
            // For the archive and, twice, the table of its payments.
            if hub.room().0 <= due.bytes.saturating_mul(2) {
                break Some("there is no room on the disk to archive in".to_owned());
            }
            match self.while_nothing_is_voided(hub, due.number, due.last, before_ms, at)? {
                Next::Nothing => break None,
                Next::Behind => {
                    break Some("the index is behind the ledger: archiving waits for it".to_owned());
                }
                Next::Waits { number, payment } => break Some(waits(number, payment)),
                Next::Written(_) => {
                    self.record_and_remove(hub, marks, at)?;
                    round.written += 1;
                }
            }
        };
        Ok(())
    }

    /// Archives the next segment. No payment in it becomes other than it is
    /// from before the index is asked about it until the ledger tells of the
    /// archive.
    fn while_nothing_is_voided(
        &mut self,
        hub: &mut dyn ArchiveHub,
        number: u32,
        last: u64,
        before_ms: u64,
        at: AtStep<'_>,
    ) -> Result<Next, ArchiveError> {
        hub.record(ArchiveChange::Begun { last })?;
        let next = match hub.standing() {
            Ok(standing) if self.index_holds(standing.sequence) => self.next(before_ms, at),
            standing => standing.map(|_| Next::Behind),
        };
        // With a manifest, the archive counts: also after an error.
        let given_up = match self.has_manifest(number) {
            true => Ok(()),
            false => hub.record(ArchiveChange::GivenUp),
        };
        next.and_then(|next| given_up.map(|()| next))
    }

    /// Whether the index holds everything up to an entry; it is given a few
    /// seconds.
    fn index_holds(&self, sequence: u64) -> bool {
        (0..INDEX_TRIES).any(|tried| {
            if tried > 0 {
                std::thread::sleep(INDEX_PAUSE);
            }
            self.index.written() >= sequence
        })
    }

    /// Tables are there twice until they were copied away.
    fn keep_copies(&self, hub: &mut dyn ArchiveHub, marks: ArchiveMarks) -> Result<(), ArchiveError> {
        let dir = self.archives().dir();
        for archive in self.archives().list() {
            let number = archive.manifest.number;
            if number <= marks.exported {
                ids::remove_copy(dir, number)?;
            } else if ids::lacks_copy(dir, number).is_some_and(|bytes| hub.room().0 > bytes) {
                ids::write_copy(dir, number, archive.manifest.ids_digest)?;
            }
        }
        Ok(())
    }
}

fn waits(number: u32, payment: PaymentId) -> String {
    format!("segment {number} waits for payment {payment}, which is not final")
}
