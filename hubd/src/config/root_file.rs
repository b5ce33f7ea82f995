//! The root that a hub is installed with.

use std::path::{Path, PathBuf};

use ed25519_dalek::VerifyingKey;
use hub_protocol::root::{Authority, Delegated, MAX_SIGNED_ROOT, Root, RootError, SignedRoot};

use super::fault::Faults;
use super::{Layout, files};

/// The root that a hub is installed with: trusted because whoever installed it
/// put it there. It counts until the ledger holds one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedRoot {
    /// Where it lies; absolute.
    pub file: PathBuf,
    /// As it lies there.
    pub signed: Vec<u8>,
    /// What it says; enough of its own keys have signed it.
    pub root: Root,
}

/// How long before its end people are warned of a root, in milliseconds: 30
/// days. Two or three holders of keys have to meet for the next one.
pub const NEAR_END_OF_ROOT_MS: u64 = 30 * 24 * 60 * 60 * 1000;

/// Why a file is no root that a hub could begin with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootFileError {
    /// It cannot be read.
    #[error("{0}")]
    File(String),
    /// It is no root, or too few have signed it.
    #[error("is no root to begin with: {0}; `hubctl root verify` tells more")]
    Root(#[from] RootError),
}

/// Reads a root and checks that enough of its own keys have signed it.
///
/// # Errors
/// The file cannot be read, or holds no such root.
pub fn read_root(file: &Path) -> Result<PinnedRoot, RootFileError> {
    let signed = files::read(file, MAX_SIGNED_ROOT as u64).map_err(RootFileError::File)?;
    let root = SignedRoot::parse(&signed)?.verify_first()?.clone();
    Ok(PinnedRoot {
        file: file.to_owned(),
        signed,
        root,
    })
}

pub(super) fn load(file: &Path, faults: &Faults) -> Option<PinnedRoot> {
    match read_root(file) {
        Ok(pinned) => Some(pinned),
        Err(error) => {
            faults.whole(
                file,
                format!("{error}; headquarters gives the root, and [policy] root_file names it"),
            );
            None
        }
    }
}

/// The keys whose signatures under this are worth a look: those that the pinned root
/// delegates, and those of the root in force, of which the hub keeps a copy.
/// Whether one counts is for the core to say, by the root in the ledger.
pub(super) fn delegated_keys(pinned: &PinnedRoot, layout: &Layout, what: Delegated) -> Vec<VerifyingKey> {
    let mut keys = Authority::Root(Box::new(pinned.root.clone())).keys(what);
    if let Ok(in_force) = read_root(&layout.root_in_force) {
        keys.extend(Authority::Root(Box::new(in_force.root)).keys(what));
    }
    keys
}
