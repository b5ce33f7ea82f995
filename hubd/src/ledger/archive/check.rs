//! Verifying archives with nothing but the hub's public key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use hub_protocol::{ArchiveManifest, Digest, HubId, KeyChain, StoredPayload};

use super::totals::{Totals, Way};
use super::{FOLDER, IDS, MANIFEST, PACKED, broken, checked_manifest, files, head_of, opened_manifest};
use crate::ledger::contents::{Contents, VerifiedEntry};
use crate::ledger::disk::{self, Numbered};
use crate::ledger::error::{Broken, Fault, Head, LedgerError};
use crate::ledger::journal::file_name;
use crate::ledger::scan::{Expect, Seen, Signatures, scan};
use crate::ledger::signing_keys;

/// An archive that verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveFound {
    /// What the hub signed about it.
    pub manifest: ArchiveManifest,
    /// SHA-256 of the signed manifest, which the next one names.
    pub digest: Digest,
    /// How many entries of each kind, by the event's name;
    /// [`UNREAD`](crate::ledger::UNREAD) for those that were not read.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The table of payments beside it.
    pub ids: IdsFound,
}

/// Whether the table of payments is beside an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdsFound {
    /// It is, and is the one that the manifest names.
    Good,
    /// It is not there. Nothing in the archive depends on it.
    Elsewhere,
}

/// Verifies an archive alone, by the manifest beside it: every checksum,
/// signature and link from its first entry to its last, and that manifest,
/// archive and segment say the same.
///
/// What it cannot show is that it is the archive that belongs after another;
/// for that, `before` is what is known of the one before.
///
/// # Errors
/// [`LedgerError::Damaged`] names the file and the fault; or the system's
/// refusal to read.
pub fn check_archive(
    path: &Path,
    key: &VerifyingKey,
    contents: Contents<'_>,
    before: Option<(&ArchiveManifest, Digest)>,
) -> Result<ArchiveFound, LedgerError> {
    let stem = file_name(path);
    let stem = stem.strip_suffix(PACKED).and_then(|stem| stem.strip_suffix('.'));
    let Some(number) = stem.and_then(|stem| stem.parse().ok()) else {
        return Err(LedgerError::NotAnArchive { path: path.into() });
    };
    let dir = path.parent().unwrap_or(Path::new("."));
    let manifest_path = disk::numbered(dir, number, MANIFEST);
    let keys = &signing_keys::chain_beside(dir, key)?;
    let signed = files::read_signed(&manifest_path)?;
    let next = before.map_or(1, |(manifest, _)| manifest.last + 1);
    let fail = |fault| LedgerError::Damaged(broken(&manifest_path, next, fault));
    let manifest = match before {
        Some((earlier, _)) if earlier.number + 1 == number => {
            checked_manifest(&signed, number, Some(earlier.hub), before, keys).map_err(fail)?
        }
        _ => opened_manifest(&signed, keys).map_err(fail)?,
    };
    if manifest.number != number {
        let found = manifest.number;
        return Err(fail(Fault::WrongSegment { found }));
    }
    let mut kinds = BTreeMap::new();
    check_bytes(path, &manifest, keys, contents, &mut |verified| {
        *kinds.entry(verified.kind()).or_default() += 1;
    })?;
    let ids = disk::numbered(dir, number, IDS);
    let ids = match files::digest_of_file(&ids) {
        Ok(digest) if digest == manifest.ids_digest => IdsFound::Good,
        Ok(_) => return Err(broken(&ids, manifest.first, Fault::Payments).into()),
        Err(LedgerError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            IdsFound::Elsewhere
        }
        Err(error) => return Err(error),
    };
    Ok(ArchiveFound {
        digest: Digest::of(&signed),
        manifest,
        kinds,
        ids,
    })
}

/// Verifies the compressed file against its manifest, whose signature is
/// good. `visit` hears of every entry. Amounts are held against the manifest
/// if `contents` opens every entry.
pub(crate) fn check_bytes(
    path: &Path,
    manifest: &ArchiveManifest,
    keys: &KeyChain,
    contents: Contents<'_>,
    visit: &mut dyn FnMut(VerifiedEntry<'_>),
) -> Result<(), LedgerError> {
    let (bytes, segment, archive) = files::unpacked_bytes(path, manifest.first)?;
    if (segment, archive) != (manifest.segment_digest, manifest.archive_digest) {
        return Err(broken(path, manifest.first, Fault::Archive).into());
    }
    let name = file_name(path);
    let expect = Expect {
        file: &name,
        number: manifest.number,
        hub: Some(manifest.hub),
        before: Head {
            sequence: manifest.first.saturating_sub(1),
            digest: manifest.before,
        },
        keys,
    };
    let mut times = None;
    let mut totals = Totals::new(Way::of(&manifest.totals));
    let mut unread = false;
    let scanned = scan(&bytes, expect, Signatures::All, &mut |seen: Seen<'_>| {
        let entry = contents.read(seen.payload)?;
        let time = match &entry {
            Some(entry) => {
                signing_keys::check(entry, keys)?;
                totals.add(entry, &mut |_| None)?;
                entry.time
            }
            None => {
                unread = true;
                let stored = StoredPayload::decode(seen.payload);
                stored.map_err(|error| Fault::Entry(error.to_string()))?.time()
            }
        };
        let wall_ms = time.wall_ms;
        times = Some((times.map_or(wall_ms, |(from, _)| from), wall_ms));
        visit(VerifiedEntry {
            entry: entry.as_ref(),
            payload: seen.payload,
            head: seen.head,
        });
        Ok(())
    })?;
    let known_in_full = totals.from_before == 0 && !unread;
    let totals = totals.finish();
    // Amounts of payments that were asked for in an earlier archive are the
    // hub's word alone.
    let right = scanned.closed
        && scanned.header.format == manifest.format
        && scanned.head == head_of(manifest)
        && times == Some((manifest.from_ms, manifest.to_ms))
        && (!known_in_full || totals == manifest.totals);
    if right {
        Ok(())
    } else {
        Err(broken(path, manifest.first, Fault::Manifest).into())
    }
}

/// An archive whose manifest verified. Its compressed file may be elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedArchive {
    /// What the hub signed about it.
    pub manifest: ArchiveManifest,
    /// SHA-256 of the signed manifest.
    pub digest: Digest,
    /// The signed manifest.
    pub path: PathBuf,
    /// The compressed file.
    pub packed: PathBuf,
    /// The table of its payments.
    pub ids: PathBuf,
}

impl ListedArchive {
    /// How many bytes the compressed file takes; `None` if it is elsewhere.
    pub fn bytes(&self) -> Option<u64> {
        std::fs::metadata(&self.packed).ok().map(|found| found.len())
    }
}

/// The archives of the ledger in `ledger`, by their manifests, oldest first.
///
/// # Errors
/// A manifest that does not verify, or does not follow the one before it; or
/// the system's refusal to read.
pub fn list_archives(ledger: &Path, key: &VerifyingKey) -> Result<Vec<ListedArchive>, LedgerError> {
    let keys = signing_keys::signing_keys(ledger, key)?;
    match manifests(&ledger.join(FOLDER), &keys, None)? {
        (listed, None) => Ok(listed),
        (_, Some(broken)) => Err(broken.into()),
    }
}

/// All manifests of a ledger in a folder, as far as they verify and follow
/// one another, and the first that does not.
pub(crate) fn manifests(
    dir: &Path,
    keys: &KeyChain,
    mut hub: Option<HubId>,
) -> Result<(Vec<ListedArchive>, Option<Broken>), LedgerError> {
    let mut all: Vec<ListedArchive> = Vec::new();
    if !dir.is_dir() {
        return Ok((all, None));
    }
    let mut digest = Digest::ZERO;
    for (number, path) in Numbered::list(dir, MANIFEST)?.files {
        let before = all.last().map(|listed| (&listed.manifest, digest));
        let next = before.map_or((1, 1), |(manifest, _)| (manifest.number + 1, manifest.last + 1));
        if number != next.0 {
            let missing = disk::numbered(dir, next.0, MANIFEST);
            return Ok((all, Some(broken(&missing, next.1, Fault::MissingManifest))));
        }
        let signed = files::read_signed(&path)?;
        match checked_manifest(&signed, number, hub, before, keys) {
            Ok(manifest) => {
                hub = Some(manifest.hub);
                digest = Digest::of(&signed);
                all.push(ListedArchive {
                    digest,
                    manifest,
                    packed: disk::numbered(dir, number, PACKED),
                    ids: disk::numbered(dir, number, IDS),
                    path,
                });
            }
            Err(fault) => return Ok((all, Some(broken(&path, next.1, fault)))),
        }
    }
    Ok((all, None))
}
