//! The files of the hub's TLS key while it gives way to another.
//!
//! Which keys are in use the ledger says, and nothing else: one, or two while
//! they overlap. In order, each durable before the next:
//!
//! 1. the hub's name, in `hub-id`: it outlives the key that it was made from;
//! 2. the new key, in `keys/hub-tls.next.key`, and before it its digest, in
//!    `keys/hub-tls.next.made`, which tells it from one that the operator has
//!    supplied;
//! 3. the ledger's entry that adds it: both are in use from here on;
//! 4. the ledger's entry that drops the old one, or the new one;
//! 5. zeros over the dropped key, and then the new key takes the old one's
//!    place.
//!
//! Keys that the service manager supplies are its own to keep: steps 2 and 5
//! are the operator's then, and a key in a file follows none of them.

use std::fs;
use std::io;

use hub_protocol::{Digest, HubId};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use zeroize::Zeroizing;

use super::credential;
use super::key_files::{
    NextKey, NoNextKey, destroy, discard_unneeded, forget, made_beside, sync_folder, write_plain,
    write_secret,
};
use crate::config::{self, Layout, TlsKey};

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TlsStep {
    /// The first half of step 5.
    OldDestroyed,
    /// The second half.
    NewInPlace,
}

/// The key to be reached under beside the one in use: the one that the
/// operator has supplied, or a fresh one. `in_use` are those that the ledger
/// names; `hub` is the hub's name.
pub(super) fn next_key(layout: &Layout, hub: HubId, in_use: &[Digest]) -> Result<TlsKey, NoNextKey> {
    let failed = |source| NoNextKey::Write {
        path: layout.next_tls_key.display().to_string(),
        source,
    };
    let supplied = config::next_tls_key(layout)?;
    if supplied.as_ref().is_some_and(|key| in_use.contains(&key.digest)) {
        return Err(NoNextKey::InUse("hub-tls"));
    }
    if credential::is_alone(&layout.tls_key, &layout.next_tls_key) {
        let advice = credential::advice(&layout.next_tls_key, "hubctl keygen --tls");
        return Err(NoNextKey::Credential(advice));
    }
    write_plain(&layout.hub_id, &format!("{hub}\n")).map_err(failed)?;
    if let Some(key) = supplied.filter(|key| !made_here(layout, key)) {
        return Ok(key);
    }
    discard_made(layout, in_use).map_err(failed)?;
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let key = TlsKey {
        pkcs8: Zeroizing::new(pair.serialize_der()),
        digest: Digest::of(&pair.subject_public_key_info()),
    };
    let pem = Zeroizing::new(pair.serialize_pem());
    write_plain(&made_file(layout), &format!("{}\n", key.digest))
        .and_then(|()| write_secret(&layout.next_tls_key, &pem, &layout.tls_key))
        .map_err(failed)?;
    Ok(key)
}

/// Destroys a next key that hubd has made and that the ledger does not name.
/// Not to be called while a change to it may be under way.
pub(super) fn discard_made(layout: &Layout, in_use: &[Digest]) -> io::Result<()> {
    discard_unneeded(&layout.next_tls_key, || match config::next_tls_key(layout) {
        Ok(Some(key)) if in_use.contains(&key.digest) => NextKey::Needed,
        Ok(Some(key)) if made_here(layout, &key) => NextKey::Made,
        Ok(Some(_)) => NextKey::Supplied,
        Ok(None) | Err(_) => NextKey::None,
    })
}

/// Puts the files in order behind the ledger, which names the keys `in_use`.
/// Does nothing if they are, or if two keys overlap.
pub(super) fn settle(
    layout: &Layout,
    in_use: &[Digest],
    at: &mut dyn FnMut(TlsStep) -> io::Result<()>,
) -> io::Result<()> {
    let next = config::next_tls_key(layout).ok().flatten();
    if in_use.len() != 1 || next.is_none_or(|next| !in_use.contains(&next.digest)) {
        return Ok(());
    }
    if credential::keeps_files(&layout.tls_key, &layout.next_tls_key) {
        // Where the old one lies, the operator knows.
        return Ok(());
    }
    if layout.tls_key.exists() {
        destroy(&layout.tls_key)?;
    }
    at(TlsStep::OldDestroyed)?;
    fs::rename(&layout.next_tls_key, &layout.tls_key)?;
    sync_folder(&layout.tls_key)?;
    at(TlsStep::NewInPlace)?;
    forget(&made_file(layout))
}

fn made_file(layout: &Layout) -> std::path::PathBuf {
    made_beside(&layout.next_tls_key)
}

/// Whether hubd has made this next key itself.
fn made_here(layout: &Layout, key: &TlsKey) -> bool {
    let made = fs::read_to_string(made_file(layout)).ok();
    made.is_some_and(|text| text.trim() == key.digest.to_string())
}
