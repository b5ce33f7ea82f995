//! The index forgets what is archived, and what is left of it becomes the new
//! base.

use std::fs;
use std::path::PathBuf;

use hub_core::state::{ArchiveMarks, State, StoreRecord};
use hub_protocol::{BasePolicy, BaseRoot, Event, LedgerBase, cbor};

use super::base::{self, Base};
use super::files;
use super::round::{ArchiveHub, Round};
use super::writer::{ArchiveError, Archiver, AtStep, Step, is_still_wanted};
use crate::ledger::disk::{self, Numbered};
use crate::ledger::error::LedgerError;
use crate::ledger::index_stamp::{Damage, INDEX_FORMAT, Stamp};
use crate::ledger::index_writer::Keep;
use crate::ledger::table::Table;

/// The records of a base that nothing signs for yet.
struct NewBase {
    path: PathBuf,
    number: u32,
}

impl Archiver {
    /// Has the index forget and makes a new base, if there are archives since
    /// the last one or that one does not read whole.
    pub(super) fn rebase(
        &mut self,
        hub: &mut dyn ArchiveHub,
        marks: ArchiveMarks,
        round: &mut Round,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        let based = self.whole_base().map_or(0, |base| base.statement.archive);
        let (free_bytes, index_writes) = hub.room();
        if based >= marks.written || !index_writes || free_bytes <= self.base_bytes() {
            return Ok(());
        }
        let new = self.new_base()?;
        let through = marks.through;
        let keep: Keep = Box::new(move |key, value| is_still_wanted(through, key, value));
        let stamp = hub.forget(keep, new.path.clone(), new.number)?;
        if stamp.sequence < through {
            // What is between the two would be in neither.
            fs::remove_file(&new.path).map_err(LedgerError::io("remove", &new.path))?;
            round.trouble = Some(format!(
                "the index holds up to entry {}, the archives up to {through}: a new base waits for the index",
                stamp.sequence
            ));
            return Ok(());
        }
        self.finish_base(new, marks.written, stamp, at)
    }

    /// The base, if its statement and every byte of its records are as the hub
    /// signed them. They are read through once; after that, as long as a
    /// records file of that length is there, they are believed.
    pub(super) fn whole_base(&mut self) -> Option<Base> {
        let base = self.archives().base().unwrap_or_else(|error| {
            tracing::warn!(%error, "the base is made anew");
            None
        })?;
        if !base.is_current() || !base.is_encrypted() {
            tracing::info!("the base is of an earlier version, and is made anew");
            return None;
        }
        let len = fs::metadata(base.records()).ok()?.len();
        let known = (base.statement.clone(), len);
        if self.whole.as_ref() != Some(&known) {
            if let Err(error) = base.table() {
                tracing::warn!(%error, "the base is made anew");
                return None;
            }
            self.whole = Some(known);
        }
        Some(base)
    }

    /// What a new base and the merge before it take at most, in bytes.
    fn base_bytes(&self) -> u64 {
        self.index.table_bytes().saturating_mul(2)
    }

    /// Where the index is to write the records: under a number that no records
    /// have, so that an older base stays whole until this one is.
    fn new_base(&self) -> Result<NewBase, LedgerError> {
        let dir = self.archives().dir();
        disk::make_dir(dir)?;
        let last = Numbered::list(dir, base::EXTENSION)?.files.pop();
        let number = last.map_or(0, |(number, _)| number) + 1;
        let path = disk::numbered(dir, number, base::EXTENSION);
        Ok(NewBase { path, number })
    }

    /// Signs for the records that the index has written, as of `stamp`. The
    /// older base is removed; it stays if anything fails.
    fn finish_base(
        &mut self,
        new: NewBase,
        archive: u32,
        stamp: Stamp,
        at: AtStep<'_>,
    ) -> Result<(), ArchiveError> {
        let NewBase { path, number } = new;
        let table = Table::open_at(path.clone(), number, Some(self.archives().seal()?))?;
        let statement = LedgerBase {
            hub: self.hub,
            archive,
            sequence: stamp.sequence,
            digest: stamp.digest,
            file: number,
            file_digest: files::digest_of_file(&path)?,
            records: table.records(),
            policy: self.policy(&table)?,
            records_format: Some(INDEX_FORMAT),
            root: self.root(&table)?,
        };
        let dir = self.archives().dir();
        files::write_signed(
            &base::statement_path(dir),
            &self.keys.with(|key| statement.sign(key)),
        )?;
        base::remove_others(dir, number)?;
        let len = fs::metadata(&path)
            .map_err(LedgerError::io("examine", &path))?
            .len();
        self.whole = Some((statement, len));
        at(Step::Based)?;
        Ok(())
    }

    /// The root that is in force as of the records.
    fn root(&self, records: &Table) -> Result<Option<BaseRoot>, ArchiveError> {
        let Some(Some(value)) = records.get(State::STORE)? else {
            return Ok(None);
        };
        let store: StoreRecord = cbor::decode(&value).map_err(|_| Damage::Contents)?;
        let Some(sequence) = store.root_sequence else {
            return Ok(None);
        };
        let known = self.archives().base().ok().flatten();
        let known = known.and_then(|base| base.statement.root);
        if let Some(known) = known.filter(|known| known.sequence == sequence) {
            return Ok(Some(known));
        }
        match self.journal.entry(sequence)?.entry.event {
            Event::RootApplied { root, .. } => Ok(Some(BaseRoot { sequence, root })),
            _ => Err(Damage::Contents.into()),
        }
    }

    /// The policy that is in force as of the records.
    fn policy(&self, records: &Table) -> Result<Option<BasePolicy>, ArchiveError> {
        let Some(Some(value)) = records.get(State::STORE)? else {
            return Ok(None);
        };
        let store: StoreRecord = cbor::decode(&value).map_err(|_| Damage::Contents)?;
        let Some(sequence) = store.policy_sequence else {
            return Ok(None);
        };
        // The policy is in the signed statement, whatever became of the records.
        let known = self.archives().base().ok().flatten();
        let known = known.and_then(|base| base.statement.policy);
        if let Some(known) = known.filter(|known| known.sequence == sequence) {
            return Ok(Some(known));
        }
        match self.journal.entry(sequence)?.entry.event {
            Event::PolicyActivated { policy, .. } => Ok(Some(BasePolicy { sequence, policy })),
            _ => Err(Damage::Contents.into()),
        }
    }
}
