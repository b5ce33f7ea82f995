//! Closed segments that were put away: compressed, signed for, and readable
//! by anybody with gunzip and the hub's public key.
//!
//! In `archive/` beside the segments, for each archive:
//!
//! ```text
//! NNNNNNNN.seg.gz     the segment, byte for byte, in gzip (RFC 1952). It may
//!                     be elsewhere
//! NNNNNNNN.manifest   COSE_Sign1 by the hub over ArchiveManifest. Kept
//! NNNNNNNN.ids        a table (`table.rs`) of the payments that ended in the
//!                     segment, as the index held them. Kept
//! NNNNNNNN.ids.copy   the same, until the archive was copied away
//! base                COSE_Sign1 by the hub over LedgerBase
//! NNNNNNNN.base       a table of everything the index held as of the base
//! NNNNNNNN.removing   a mark: the archive is going to be removed
//! ```
//!
//! What always holds:
//!
//! 1. **Both or either, never neither.** The archive, read back from the disk,
//!    and its table are durable before the manifest, the manifest before the
//!    entry that tells of it, the entry before the segment is removed. An
//!    archive counts from its manifest on; what a crash left before that is
//!    written again.
//! 2. **Archived is final.** Only segments all of whose payments are final are
//!    archived, and the core changes none of them from before they are looked
//!    at: no void comes in between, not even over a power cut.
//! 3. **An id is known for life.** The index may forget a payment only when
//!    its record is in an archive's table. These are truth, like the journal:
//!    without one, or with one that the manifest does not name by SHA-256, the
//!    hub does not open.
//! 4. **In order.** Archives, exports and removals go oldest first, so that
//!    three numbers say how it stands.

mod base;
mod check;
mod files;
mod ids;
mod rebase;
mod removal;
mod round;
mod totals;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use hub_protocol::cose::ObjectType;
use hub_protocol::{ArchiveManifest, Digest, HubId, KeyChain, LedgerTotals};

use super::at_rest::RestSeal;
use super::disk::{self, Numbered};
use super::error::{Broken, Fault, Head, LedgerError};
use super::index_stamp::Damage;
use super::journal::file_name;
use super::table::Table;
use crate::key_ring::KeyRing;

pub use base::{Base, RestoreError, restore_base};
pub use check::{ArchiveFound, IdsFound, ListedArchive, check_archive, list_archives};
pub(crate) use check::{check_bytes, manifests};
pub(crate) use files::{Packed, unpacked_as_far_as_it_goes};
pub use files::{copy_archive, digest_of_file, folder_for_copies};
pub use round::{ArchiveHub, ArchiveSettings, Round, Standing};
pub use writer::{ArchiveError, Archiver, AtStep, Due, Next, Step, Written, is_still_wanted};

/// The folder in the ledger's.
pub(crate) const FOLDER: &str = "archive";
pub(crate) const PACKED: &str = "seg.gz";
pub(crate) const MANIFEST: &str = "manifest";
pub(crate) const IDS: &str = "ids";

/// One archive.
#[derive(Debug)]
pub struct Archive {
    /// What the hub signed about it.
    pub manifest: ArchiveManifest,
    /// SHA-256 of the signed manifest.
    pub digest: Digest,
    /// The compressed file, which may be elsewhere.
    pub path: PathBuf,
    ids: Table,
}

impl Archive {
    /// The last entry in it.
    pub fn head(&self) -> Head {
        head_of(&self.manifest)
    }

    /// How many bytes the compressed file takes; `None` if it is elsewhere.
    pub fn bytes(&self) -> Option<u64> {
        std::fs::metadata(&self.path).ok().map(|found| found.len())
    }

    pub(crate) fn packed(&self) -> Packed {
        Packed {
            path: self.path.clone(),
            number: self.manifest.number,
            first: self.manifest.first,
            last: self.head(),
            digest: self.manifest.segment_digest,
        }
    }
}

pub(crate) fn head_of(manifest: &ArchiveManifest) -> Head {
    Head {
        sequence: manifest.last,
        digest: manifest.last_digest,
    }
}

/// All archives of a ledger, those included that are elsewhere. Clones share
/// them.
#[derive(Clone, Debug)]
pub struct Archives(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    hub: HubId,
    keys: KeyRing,
    list: RwLock<Vec<Arc<Archive>>>,
    /// Opens and makes encrypted tables, once it is known.
    seal: OnceLock<RestSeal>,
}

impl Archives {
    /// Reads and checks every manifest, and every table against its manifest.
    pub(crate) fn open(
        dir: &Path,
        hub: HubId,
        keys: KeyRing,
        seal: Option<RestSeal>,
    ) -> Result<Self, LedgerError> {
        let archives = Self(Arc::new(Inner {
            dir: dir.into(),
            hub,
            keys,
            list: RwLock::default(),
            seal: seal.map_or_else(OnceLock::new, OnceLock::from),
        }));
        if !dir.is_dir() {
            return Ok(archives);
        }
        for extension in [PACKED, MANIFEST, IDS, ids::COPY, base::EXTENSION, "seg"] {
            Numbered::list(dir, extension)?.remove_unfinished()?;
        }
        for (number, path) in Numbered::list(dir, MANIFEST)?.files {
            archives.take(number, &path)?;
        }
        Ok(archives)
    }

    fn take(&self, number: u32, path: &Path) -> Result<(), LedgerError> {
        let last = self.last();
        let next = last.as_ref().map_or(1, |archive| archive.manifest.number + 1);
        if number != next {
            let missing = disk::numbered(&self.0.dir, next, MANIFEST);
            let before = last.as_ref().map_or(Head::EMPTY, |archive| archive.head());
            return Err(broken(&missing, before.sequence + 1, Fault::MissingManifest).into());
        }
        let before = last.as_ref().map(|archive| (&archive.manifest, archive.digest));
        let signed = files::read_signed(path)?;
        let manifest = checked_manifest(&signed, number, Some(self.0.hub), before, &self.0.keys.chain())
            .map_err(|fault| LedgerError::of_broken(path, broken(path, next_of(before), fault)))?;
        self.add(manifest, &signed)
    }

    /// Takes an archive in whose files are durable.
    pub(crate) fn add(&self, manifest: ArchiveManifest, signed: &[u8]) -> Result<(), LedgerError> {
        let table = ids::open(&self.0.dir, &manifest, self.0.seal.get())?;
        let archive = Archive {
            digest: Digest::of(signed),
            path: disk::numbered(&self.0.dir, manifest.number, PACKED),
            ids: table,
            manifest,
        };
        let mut list = self.0.list.write().unwrap_or_else(PoisonError::into_inner);
        list.push(Arc::new(archive));
        Ok(())
    }

    pub(crate) fn unseal(&self, seal: RestSeal) {
        let _ = self.0.seal.set(seal);
    }

    /// With what tables are encrypted.
    ///
    /// # Errors
    /// Nobody has said yet.
    pub(crate) fn seal(&self) -> Result<&RestSeal, Damage> {
        self.0.seal.get().ok_or(Damage::Encrypted)
    }

    /// The folder. There is none before the first archive.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// All of them, oldest first.
    pub fn list(&self) -> Vec<Arc<Archive>> {
        self.0.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The newest.
    pub fn last(&self) -> Option<Arc<Archive>> {
        let list = self.0.list.read().unwrap_or_else(PoisonError::into_inner);
        list.last().cloned()
    }

    /// The last entry in an archive.
    pub fn head(&self) -> Head {
        self.last().map_or(Head::EMPTY, |archive| archive.head())
    }

    /// What the index held under a key when its payment was archived, the
    /// newest if it was more than once.
    ///
    /// # Errors
    /// A table is damaged where the key would stand: nobody can tell then.
    pub(crate) fn record(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Damage> {
        let list = self.0.list.read().unwrap_or_else(PoisonError::into_inner);
        for archive in list.iter().rev() {
            let found = archive.ids.get(key).map_err(|_| Damage::Archived {
                file: file_name(archive.ids.path()),
            })?;
            if let Some(held) = found {
                return Ok(held);
            }
        }
        Ok(None)
    }

    /// The base, if there is one.
    ///
    /// # Errors
    /// It is damaged, or not by this hub.
    pub fn base(&self) -> Result<Option<Base>, LedgerError> {
        Base::read(&self.0.dir, self.0.hub, &self.0.keys.chain(), self.0.seal.get())
    }

    /// The keys that the hub signs with.
    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }
}

fn next_of(before: Option<(&ArchiveManifest, Digest)>) -> u64 {
    before.map_or(1, |(manifest, _)| manifest.last + 1)
}

pub(crate) fn broken(path: &Path, sequence: u64, fault: Fault) -> Broken {
    Broken {
        file: file_name(path),
        offset: 0,
        sequence,
        fault,
    }
}

/// A manifest whose signature is good and which follows the one before it.
pub(crate) fn checked_manifest(
    signed: &[u8],
    number: u32,
    hub: Option<HubId>,
    before: Option<(&ArchiveManifest, Digest)>,
    keys: &KeyChain,
) -> Result<ArchiveManifest, Fault> {
    let manifest = opened_manifest(signed, keys)?;
    if manifest.number != number {
        let found = manifest.number;
        return Err(Fault::WrongSegment { found });
    }
    if hub.is_some_and(|hub| hub != manifest.hub) {
        let found = manifest.hub;
        return Err(Fault::OtherHub { found });
    }
    let head = before.map_or(Head::EMPTY, |(before, _)| head_of(before));
    let running = before.map_or(&[][..], |(before, _)| &before.running);
    let follows = manifest.first == head.sequence + 1
        && manifest.before == head.digest
        && manifest.last >= manifest.first
        && manifest.previous == before.map_or(Digest::ZERO, |(_, digest)| digest)
        && manifest.running == LedgerTotals::sum(running, &manifest.totals);
    follows.then_some(manifest).ok_or(Fault::Manifest)
}

pub(crate) fn opened_manifest(signed: &[u8], keys: &KeyChain) -> Result<ArchiveManifest, Fault> {
    // A segment is archived some time after its last entry.
    let opened = keys.open(
        signed,
        ObjectType::ArchiveManifest,
        |manifest: &ArchiveManifest| manifest.last,
    );
    opened.map_err(|error| match error {
        hub_protocol::ProofError::Commit(error) => Fault::Signature(error),
        _ => Fault::Manifest,
    })
}
