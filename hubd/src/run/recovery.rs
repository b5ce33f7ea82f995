//! A store whose vault key is lost is opened by headquarters' recovery key,
//! and gets a new vault key.
//!
//! The hub does not run meanwhile. In order, each durable before the next:
//!
//! 1. a vault key that lies there and opens nothing is moved aside: it may be
//!    another store's;
//! 2. the new key, in `keys/hub-vault.next.key`, as in a [change](super::vault_key);
//! 3. a note for the ledger, in `keys/hub-vault.recovered`;
//! 4. the data key wrapped under the new key, in both copies of `data-key`;
//! 5. the wraps of other vault keys are taken away;
//! 6. the new key takes its place.
//!
//! Until step 4 nothing of the store has changed, and from then on the new key
//! opens it: whoever is cut off anywhere gives the command again. The ledger's
//! entry is written by the hub, which alone can sign it, at its next start: the
//! note says what it has to say, and goes when the ledger has it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use hub_core::Recovered;
use hub_protocol::HubId;

use super::key_files::{forget, fresh_seed, remove_overwritten, sync_folder, write_secret};
use super::vault_key::{self, NotChanged, VaultKeyStep};
use crate::config::{self, Layout};
use crate::data_key::{DataKeyError, StoreKey, VaultKey, WrapId, vault_key_id};
use crate::ledger::{DataLock, LedgerError};
use crate::recovery_key::RecoverySecret;

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecoveryStep {
    /// Step 1.
    OtherAside,
    /// Step 2.
    Made,
    /// Step 3.
    Noted,
    /// Step 4.
    Wrapped,
    /// Step 5.
    OldWrapGone,
    /// Step 6.
    InPlace,
}

/// Hears of every step; an error ends the recovery there.
pub(crate) type AtStep<'a> = &'a mut dyn FnMut(RecoveryStep) -> io::Result<()>;

/// Why a store was not recovered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRecovered {
    /// A hub runs on it, or the folder is not there.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The data key's file.
    #[error(transparent)]
    DataKey(#[from] DataKeyError),
    /// The files of the vault key.
    #[error(transparent)]
    VaultKey(#[from] NotChanged),
    /// Nothing is lost.
    #[error(
        "the vault key in {} opens this store: there is nothing to recover, and nothing was changed. Start hubd",
        keys.display()
    )]
    NotNeeded {
        /// The folder of the keys.
        keys: PathBuf,
    },
    /// A key was moved aside before.
    #[error(
        "{} opens nothing and would be moved to {}, where another one lies: move that one away and keep it. Nothing \
         was changed",
        from.display(), to.display()
    )]
    InTheWay {
        /// The key that opens nothing.
        from: PathBuf,
        /// Where it would go.
        to: PathBuf,
    },
    /// A file cannot be written.
    #[error(
        "{} cannot be put in order: {source}; check the disk and the folder's owner, and give the command again",
        path.display()
    )]
    Files {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Gives the store in a hub's folder a new vault key, by the private half of
/// the recovery key. `operator` is who does it. Gives the new key's id.
///
/// # Errors
/// [`NotRecovered`]. What is durable by then stays, and the command can be
/// given again.
pub(crate) fn recover(
    layout: &Layout,
    hub: HubId,
    secret: &RecoverySecret,
    operator: &str,
    at: AtStep<'_>,
) -> Result<WrapId, NotRecovered> {
    let _lock = DataLock::acquire(&layout.dir)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| NotRecovered::Files { path, source }
    };
    if let Some((mut store, key)) = opens(layout)? {
        // A recovery that was cut off, or has ended.
        return match noted(layout) {
            Some(recovered) if recovered.vault_key == vault_key_id(&key) => {
                settle(layout, &mut store, &key, at)?;
                Ok(recovered.vault_key)
            }
            _ => Err(NotRecovered::NotNeeded {
                keys: layout.keys.clone(),
            }),
        };
    }
    // Before anything is written: is it the right key?
    let mut store = StoreKey::recover(layout, hub, secret)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&layout.keys)
        .and_then(|()| like_its_folder(layout))
        .map_err(failed(&layout.keys))?;
    set_aside(layout)?;
    let mut done = |step| at(step).map_err(failed(&layout.keys));
    done(RecoveryStep::OtherAside)?;
    let key = vault_key::next_to_recover(layout, &fresh_seed().map_err(failed(&layout.keys))?)?;
    done(RecoveryStep::Made)?;
    let recovered = Recovered {
        vault_key: vault_key_id(&key),
        recovery_key: secret.public().id(),
        operator: operator.to_owned(),
    };
    note(layout, &recovered).map_err(failed(&note_file(layout)))?;
    done(RecoveryStep::Noted)?;
    store.add(&key)?;
    done(RecoveryStep::Wrapped)?;
    settle(layout, &mut store, &key, at)?;
    Ok(recovered.vault_key)
}

fn settle(layout: &Layout, store: &mut StoreKey, key: &VaultKey, at: AtStep<'_>) -> Result<(), NotRecovered> {
    Ok(vault_key::settle(layout, store, key, &mut |step| match step {
        VaultKeyStep::OldWrapGone => at(RecoveryStep::OldWrapGone),
        VaultKeyStep::OldDestroyed => Ok(()),
        VaultKeyStep::NewInPlace => at(RecoveryStep::InPlace),
    })?)
}

/// The store, if one of the vault keys that lie there opens it, and which.
fn opens(layout: &Layout) -> Result<Option<(StoreKey, VaultKey)>, DataKeyError> {
    let keys = config::vault_keys(layout);
    match StoreKey::open(layout, &keys.iter().collect::<Vec<_>>()) {
        Ok(store) => {
            let key = keys.into_iter().find(|key| store.opens_with(key));
            Ok(key.map(|key| (store, key)))
        }
        Err(DataKeyError::OtherVaultKey { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Root may make what the hub's own user has to read.
fn like_its_folder(layout: &Layout) -> io::Result<()> {
    let owner = layout.dir.metadata()?;
    let present = layout.keys.metadata()?;
    match (present.uid(), present.gid()) == (owner.uid(), owner.gid()) {
        true => Ok(()),
        false => chown(&layout.keys, Some(owner.uid()), Some(owner.gid())),
    }
}

/// A vault key that opens nothing here keeps another name.
fn set_aside(layout: &Layout) -> Result<(), NotRecovered> {
    let from = &layout.vault_key;
    let failed = |source| NotRecovered::Files {
        path: from.clone(),
        source,
    };
    remove_overwritten(from).map_err(failed)?;
    if !from.exists() {
        return Ok(());
    }
    let to = from.with_extension("other.key");
    if to.exists() {
        return Err(NotRecovered::InTheWay {
            from: from.clone(),
            to,
        });
    }
    fs::rename(from, &to)
        .and_then(|()| sync_folder(&to))
        .map_err(failed)
}

fn note_file(layout: &Layout) -> PathBuf {
    layout.vault_key.with_extension("recovered")
}

fn note(layout: &Layout, recovered: &Recovered) -> io::Result<()> {
    let text = format!(
        "{} {} {}\n",
        HEXLOWER.encode(&recovered.vault_key),
        HEXLOWER.encode(&recovered.recovery_key),
        recovered.operator
    );
    write_secret(&note_file(layout), &text, &layout.keys)
}

fn noted(layout: &Layout) -> Option<Recovered> {
    let text = fs::read_to_string(note_file(layout)).ok()?;
    let mut words = text.trim().splitn(3, ' ');
    let mut id = || -> Option<WrapId> { HEXLOWER.decode(words.next()?.as_bytes()).ok()?.try_into().ok() };
    Some(Recovered {
        vault_key: id()?,
        recovery_key: id()?,
        operator: words.next()?.to_owned(),
    })
}

/// What the ledger is to be told at this start: `named` is the vault key that
/// it names last. A note that it has, or that is about a key which opens
/// nothing, is removed.
pub(super) fn to_tell(layout: &Layout, store: &StoreKey, named: Option<WrapId>) -> Option<Recovered> {
    let told = noted(layout).filter(|recovered| {
        let keys = config::vault_keys(layout);
        let opens = |key: &VaultKey| vault_key_id(key) == recovered.vault_key && store.opens_with(key);
        named != Some(recovered.vault_key) && keys.iter().any(opens)
    });
    if told.is_none()
        && let Err(error) = forget(&note_file(layout))
    {
        tracing::warn!(%error, "the note of a recovery stays, which the ledger has; the next start tries again");
    }
    told
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
