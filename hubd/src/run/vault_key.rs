//! The vault key gives way to another, while the hub runs.
//!
//! What is changed is one wrap of the store's data key: nothing that the data
//! key encrypts is written anew. In order, each durable before the next:
//!
//! 1. the new key, in `keys/hub-vault.next.key`, and before it its id, in
//!    `keys/hub-vault.next.made`, which tells it from one that the operator
//!    has supplied;
//! 2. the data key wrapped under the new key, beside the old wrap, in both
//!    copies of `data-key`: either opens the store;
//! 3. the ledger's entry;
//! 4. the old wrap is taken away;
//! 5. zeros over the old key;
//! 6. the new key takes the old one's place.
//!
//! Which key is the present one, the ledger says: a crash before step 3 is
//! followed by the old key, one after it by the new, and the next start puts
//! wraps and files in order. Keys that the service manager supplies are its
//! own to keep: steps 1, 5 and 6 are the operator's then, and a key in a file
//! follows none of them.

use std::fs;
use std::io;
use std::path::PathBuf;

use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::credential;
use super::key_files::{
    NextKey, destroy, discard_unneeded, forget, fresh_seed, made_beside, remove_overwritten, sync_folder,
    write_secret,
};
use crate::config::{self, KeyError, Layout};
use crate::data_key::{DataKeyError, StoreKey, VaultKey, WrapId, vault_key_id};

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VaultKeyStep {
    /// Step 4.
    OldWrapGone,
    /// Step 5.
    OldDestroyed,
    /// Step 6.
    NewInPlace,
}

/// Why the vault key cannot be changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotChanged {
    /// A next key is there and is none.
    #[error(transparent)]
    Unusable(#[from] KeyError),
    /// The data key's file.
    #[error(transparent)]
    DataKey(#[from] DataKeyError),
    /// The present key comes from the service manager, and no next one does.
    #[error(
        "nothing was changed: the vault key is a credential, which hubd cannot replace, and with the next one in a \
         file the hub would not start again. Give the next one as a credential too: {0}"
    )]
    Credential(String),
    /// The next key is the present one.
    #[error(
        "hub-vault.next.key is the present vault key, and nothing opens the store without it: keep it, and put it in \
         the place of hub-vault.key (docs/keys.md) before you supply another one"
    )]
    Same,
    /// The present key is in no file.
    #[error("the present vault key cannot be read: restart hubd")]
    Unreadable,
    /// The file of the next key holds one that may be needed.
    #[error(
        "hub-vault.next.key holds a key that the store is wrapped under: keep the file, restart hubd, which puts it \
         in order, and give this command again"
    )]
    InUse,
    /// A file cannot be written.
    #[error("the files of the vault key cannot be put in order: {0}; check the disk and the owner of keys/")]
    Files(#[from] io::Error),
}

fn made_file(layout: &Layout) -> PathBuf {
    made_beside(&layout.next_vault_key)
}

fn made_here(layout: &Layout, key: &VaultKey) -> bool {
    let made = fs::read_to_string(made_file(layout)).ok();
    made.is_some_and(|id| id.trim() == HEXLOWER.encode(&vault_key_id(key)))
}

/// The present vault key in the files: of the two that there may be, the one
/// that the ledger names.
pub(super) fn current(layout: &Layout, named: Option<WrapId>) -> Option<VaultKey> {
    let keys = config::vault_keys(layout);
    match named {
        Some(id) => keys.into_iter().find(|key| vault_key_id(key) == id),
        None => keys.into_iter().next(),
    }
}

/// The present vault key while the hub runs: the one that the ledger names,
/// or, where that is lost or none is named, the one that was wrapped under
/// first.
fn present(layout: &Layout, store: &StoreKey) -> Option<VaultKey> {
    let named = store.named().and_then(|id| current(layout, Some(id)));
    named.filter(|key| store.opens_with(key)).or_else(|| {
        let mut keys = config::vault_keys(layout).into_iter();
        keys.find(|key| store.is_last_wrapped_under(key))
    })
}

/// The present key and the one to change to. What an earlier change has left,
/// in the ledger or beside it, comes first.
pub(super) fn begin(layout: &Layout, store: &mut StoreKey) -> Result<(VaultKey, VaultKey), NotChanged> {
    let current = present(layout, store).ok_or(NotChanged::Unreadable)?;
    settle(layout, store, &current, &mut |_| Ok(()))?;
    take_back(layout, store, &current)?;
    let next = prepare(layout, store, &current)?;
    Ok((current, next))
}

/// The key to change to, wrapped beside the present one: the one that the
/// operator has supplied, or a fresh one.
fn prepare(layout: &Layout, store: &mut StoreKey, current: &VaultKey) -> Result<VaultKey, NotChanged> {
    let supplied = config::next_vault_key(layout)?.filter(|key| !made_here(layout, key));
    let next = match supplied {
        Some(key) if vault_key_id(&key) == vault_key_id(current) => return Err(NotChanged::Same),
        _ if credential::is_alone(&layout.vault_key, &layout.next_vault_key) => {
            let advice = credential::advice(&layout.next_vault_key, "hubctl keygen");
            return Err(NotChanged::Credential(advice));
        }
        Some(key) => key,
        None => {
            discard_made(layout, store, current)?;
            // What is renamed over another file ends that.
            if config::next_vault_key(layout)?.is_some() {
                return Err(NotChanged::InUse);
            }
            let key = fresh_seed()?;
            write_next(layout, &key)?;
            key
        }
    };
    store.add(&next)?;
    Ok(next)
}

/// Takes back what [`prepare`] did, if the ledger does not tell of it.
pub(super) fn take_back(layout: &Layout, store: &mut StoreKey, current: &VaultKey) -> Result<(), NotChanged> {
    store.keep_only(current)?;
    Ok(discard_made(layout, store, current)?)
}

/// Puts wraps and files in order behind a change that is in the ledger:
/// `current` is the key that it names. Does nothing if they are.
pub(super) fn settle(
    layout: &Layout,
    store: &mut StoreKey,
    current: &VaultKey,
    at: &mut dyn FnMut(VaultKeyStep) -> io::Result<()>,
) -> Result<(), NotChanged> {
    store.keep_only(current)?;
    at(VaultKeyStep::OldWrapGone)?;
    let id = vault_key_id(current);
    let is_next = config::next_vault_key(layout)?.is_some_and(|next| vault_key_id(&next) == id);
    if !is_next || credential::keeps_files(&layout.vault_key, &layout.next_vault_key) {
        return Ok(());
    }
    if layout.vault_key.exists() {
        destroy(&layout.vault_key)?;
    }
    at(VaultKeyStep::OldDestroyed)?;
    fs::rename(&layout.next_vault_key, &layout.vault_key)?;
    sync_folder(&layout.vault_key)?;
    at(VaultKeyStep::NewInPlace)?;
    Ok(forget(&made_file(layout))?)
}

/// At a start: wraps and files as the ledger has it. `named` is the key that
/// it names last.
pub(super) fn put_in_order(
    layout: &Layout,
    store: &mut StoreKey,
    named: Option<WrapId>,
) -> Result<(), NotChanged> {
    remove_overwritten(&layout.next_vault_key)?;
    let Some(key) = current(layout, named).filter(|key| store.opens_with(key)) else {
        return Ok(());
    };
    settle(layout, store, &key, &mut |_| Ok(()))?;
    Ok(discard_made(layout, store, &key)?)
}

/// Destroys a next key that hubd has made, that is not the present one, and
/// that opens nothing.
fn discard_made(layout: &Layout, store: &StoreKey, current: &VaultKey) -> io::Result<()> {
    discard_unneeded(&layout.next_vault_key, || match config::next_vault_key(layout) {
        Ok(Some(key)) if vault_key_id(&key) == vault_key_id(current) || store.names(&key) => NextKey::Needed,
        Ok(Some(key)) if made_here(layout, &key) => NextKey::Made,
        Ok(Some(_)) => NextKey::Supplied,
        Ok(None) | Err(_) => NextKey::None,
    })
}

/// The key that a store gets whose own is lost: one that the operator has
/// supplied, or this one, written as the next. What an earlier try has made is
/// destroyed: it opens nothing.
pub(super) fn next_to_recover(layout: &Layout, fresh: &VaultKey) -> Result<VaultKey, NotChanged> {
    if let Some(supplied) = config::next_vault_key(layout)?.filter(|key| !made_here(layout, key)) {
        return Ok(supplied);
    }
    discard_unneeded(&layout.next_vault_key, || match config::next_vault_key(layout) {
        Ok(Some(_)) => NextKey::Made,
        Ok(None) | Err(_) => NextKey::None,
    })?;
    write_next(layout, fresh)?;
    Ok(fresh.clone())
}

/// The id first: a key without it would be taken for an operator's.
fn write_next(layout: &Layout, key: &VaultKey) -> io::Result<()> {
    // Whoever may read the present one, or else what lies beside it.
    let like = match layout.vault_key.exists() {
        true => &layout.vault_key,
        false => &layout.keys,
    };
    let id = HEXLOWER.encode(&vault_key_id(key)) + "\n";
    write_secret(&made_file(layout), &id, like)?;
    let line = Zeroizing::new(HEXLOWER.encode(key.as_slice()) + "\n");
    write_secret(&layout.next_vault_key, &line, like)
}

#[cfg(test)]
#[path = "vault_key_tests.rs"]
mod tests;
