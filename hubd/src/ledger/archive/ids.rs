//! The tables of payments. Truth for life, so each is believed only if it is,
//! byte for byte, the one that its manifest names, and each is on the disk
//! twice until somebody has copied its archive away.

use std::fs;
use std::path::Path;

use hub_protocol::{ArchiveManifest, Digest};

use super::{IDS, files};
use crate::ledger::at_rest::RestSeal;
use crate::ledger::disk;
use crate::ledger::error::LedgerError;
use crate::ledger::index_stamp::Damage;
use crate::ledger::table::Table;

/// Of second copies.
pub(super) const COPY: &str = "ids.copy";

/// The table that the manifest names. If the first copy is lost or damaged,
/// the second takes its place: a renaming, for which there is always room.
pub(super) fn open(
    dir: &Path,
    manifest: &ArchiveManifest,
    seal: Option<&RestSeal>,
) -> Result<Table, LedgerError> {
    let path = disk::numbered(dir, manifest.number, IDS);
    let damage = match open_signed(&path, manifest, seal) {
        Ok(table) => return Ok(table),
        Err(damage) => damage,
    };
    let copy = disk::numbered(dir, manifest.number, COPY);
    if open_signed(&copy, manifest, seal).is_ok() {
        tracing::warn!(file = %path.display(), %damage, "its second copy takes its place");
        files::rename(&copy, &path)?;
        return open_signed(&path, manifest, seal)
            .map_err(|damage| LedgerError::PaymentsLost { path, damage });
    }
    Err(LedgerError::PaymentsLost { path, damage })
}

fn open_signed(path: &Path, manifest: &ArchiveManifest, seal: Option<&RestSeal>) -> Result<Table, Damage> {
    if files::digest_of_kept(path).map_err(unreadable)? != manifest.ids_digest {
        return Err(Damage::NotAsSigned);
    }
    Table::open_at(path.to_path_buf(), manifest.number, seal)
}

fn unreadable(error: LedgerError) -> Damage {
    Damage::Io {
        action: "read a table of",
        detail: error.to_string(),
    }
}

/// Makes the second copy, durable on return.
pub(super) fn write_copy(dir: &Path, number: u32, digest: Digest) -> Result<(), LedgerError> {
    let from = disk::numbered(dir, number, IDS);
    files::copy_signed_for(&from, &disk::numbered(dir, number, COPY), digest)
}

/// How many bytes the second copy of an archive's table is to have that is not
/// there; `None` if it is.
pub(super) fn lacks_copy(dir: &Path, number: u32) -> Option<u64> {
    let len = |extension| fs::metadata(disk::numbered(dir, number, extension)).map(|found| found.len());
    let whole = len(IDS).ok()?;
    (len(COPY).ok() != Some(whole)).then_some(whole)
}

/// Removes the second copy, if it is there.
pub(super) fn remove_copy(dir: &Path, number: u32) -> Result<(), LedgerError> {
    let path = disk::numbered(dir, number, COPY);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LedgerError::io("remove", &path)(error))
        }
        _ => Ok(()),
    }
}
