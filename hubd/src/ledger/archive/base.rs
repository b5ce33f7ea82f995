//! The base: what the index held as of an entry, for a hub whose index is
//! lost and whose archives are elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use hub_protocol::cose::ObjectType;
use hub_protocol::{Digest, HubId, KeyChain, LedgerBase, ProofError};

use super::{broken, files};
use crate::ledger::at_rest::RestSeal;
use crate::ledger::disk::{self, Numbered};
use crate::ledger::error::{Fault, LedgerError};
use crate::ledger::index::{Batch, Index};
use crate::ledger::index_stamp::{Damage, INDEX_FORMAT, SAME_RECORDS_SINCE, Stamp};
use crate::ledger::table::Table;

/// Of the files with the records.
pub(super) const EXTENSION: &str = "base";
const STATEMENT: &str = "base";

/// Records written to the index at once.
const BATCH: usize = 4096;

/// A base whose signature is good.
#[derive(Clone, Debug)]
pub struct Base {
    /// What the hub signed.
    pub statement: LedgerBase,
    records: PathBuf,
    seal: Option<RestSeal>,
}

pub(super) fn statement_path(dir: &Path) -> PathBuf {
    dir.join(STATEMENT)
}

impl Base {
    pub(super) fn read(
        dir: &Path,
        hub: HubId,
        keys: &KeyChain,
        seal: Option<&RestSeal>,
    ) -> Result<Option<Self>, LedgerError> {
        let path = statement_path(dir);
        let signed = match files::read_signed(&path) {
            Ok(signed) => signed,
            Err(LedgerError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let opened = keys
            .open(&signed, ObjectType::LedgerBase, |base: &LedgerBase| base.sequence)
            .map_err(|error| match error {
                ProofError::Commit(error) => Fault::Signature(error),
                _ => Fault::Base,
            });
        let statement = match opened {
            Ok(statement) if statement.hub == hub => statement,
            Ok(statement) => {
                let found = statement.hub;
                return Err(LedgerError::OtherHub { path, found });
            }
            Err(fault) => return Err(broken(&path, 0, fault).into()),
        };
        Ok(Some(Self {
            records: disk::numbered(dir, statement.file, EXTENSION),
            statement,
            seal: seal.cloned(),
        }))
    }

    /// The entry as of which it holds.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            sequence: self.statement.sequence,
            digest: self.statement.digest,
            format: INDEX_FORMAT,
        }
    }

    /// Whether its records are as this program makes them. Those of an earlier
    /// version lack what has come into records since.
    pub fn is_current(&self) -> bool {
        let format = self.statement.records_format;
        format.is_some_and(|format| (SAME_RECORDS_SINCE..=INDEX_FORMAT).contains(&format))
    }

    /// Whether its records are encrypted, as this program makes them.
    pub(super) fn is_encrypted(&self) -> bool {
        self.statement.records_format == Some(INDEX_FORMAT)
    }

    /// Whether every byte of its records is as the hub signed it. Reads them
    /// through.
    pub fn is_whole(&self) -> bool {
        self.table().is_ok()
    }

    pub(super) fn records(&self) -> &Path {
        &self.records
    }

    /// The records, if every byte of their file is as the hub signed it.
    pub(super) fn table(&self) -> Result<Table, LedgerError> {
        let fail = || LedgerError::Damaged(broken(&self.records, self.statement.sequence, Fault::Base));
        if files::digest_of_file(&self.records)? != self.statement.file_digest {
            return Err(fail());
        }
        Table::open_at(self.records.clone(), self.statement.file, self.seal.as_ref()).map_err(|_| fail())
    }
}

/// Fills a new index from the base.
///
/// # Errors
/// The base is damaged; or the index cannot be written. The index is worth
/// nothing then, and the next opening sees that.
pub fn restore_base(base: &Base, index: &mut Index) -> Result<(), RestoreError> {
    // Until all is there, the stamp is one that no journal agrees with.
    let partly = Stamp {
        digest: Digest([0xff; 32]),
        ..base.stamp()
    };
    let table = base.table()?;
    let mut cursor = table.from(&[])?;
    let mut batch: Batch = Vec::with_capacity(BATCH);
    while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
        batch.push((key, cursor.held().map(<[u8]>::to_vec)));
        if batch.len() == BATCH {
            index.write(std::mem::take(&mut batch), partly)?;
        }
        cursor.advance()?;
    }
    index.write(batch, base.stamp())?;
    index.checkpoint()?;
    Ok(())
}

/// Why the index could not be filled from the base.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The base.
    #[error(transparent)]
    Base(#[from] LedgerError),
    /// The index.
    #[error(transparent)]
    Index(#[from] Damage),
}

/// Removes the records of other bases.
pub(super) fn remove_others(dir: &Path, number: u32) -> Result<(), LedgerError> {
    for (other, path) in Numbered::list(dir, EXTENSION)?.files {
        if other != number {
            fs::remove_file(&path).map_err(LedgerError::io("remove", &path))?;
        }
    }
    disk::sync_dir(dir)
}
