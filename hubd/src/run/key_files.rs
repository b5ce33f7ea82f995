//! The files of the hub's signing key while it gives way to another.
//!
//! Which key is the present one, the ledger says, and nothing else: so a crash
//! between any two steps leaves a hub that opens with exactly that one. In
//! order, each durable before the next:
//!
//! 1. the new key, in `keys/hub-signing.next.key`, and before it its public
//!    key, in `keys/hub-signing.next.made`, which tells it from one that the
//!    operator has supplied;
//! 2. the ledger's entry, signed by both keys;
//! 3. the new public key, in `hub-signing.pub`;
//! 4. zeros over the old key;
//! 5. the new key takes the old one's place.
//!
//! A key that hubd has made is good for one try: if nothing came of it, it is
//! destroyed, at once or when the hub starts, lest a later change take a key
//! that has lain there, and been copied, for who knows how long.
//!
//! Keys that the service manager supplies are its own to keep: steps 1, 4 and
//! 5 are the operator's then, and a key in a file follows none of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::{SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use super::credential;
use crate::config::{self, KeyError, Layout};

/// What has just been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyStep {
    /// Step 3.
    PublicWritten,
    /// Step 4.
    OldDestroyed,
    /// Step 5.
    NewInPlace,
}

/// Why there is no new key to change to.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoNextKey {
    /// One is there and is none.
    #[error(transparent)]
    Unusable(#[from] KeyError),
    /// The present key comes from the service manager, and no next one does.
    #[error(
        "nothing was changed: the present key is a credential, which hubd cannot replace, and with the next one in a \
         file the hub would not start again. Give the next one as a credential too: {0}"
    )]
    Credential(String),
    /// The next key is the present one already.
    #[error(
        "nothing was changed: {0}.next.key is the key in use. Encrypt it under the name {0}.key in place of the old \
         one (docs/keys.md), and restart hubd, before you supply another one"
    )]
    InUse(&'static str),
    /// No key could be made.
    #[error("a TLS key could not be made: {0}")]
    Tls(#[from] rcgen::Error),
    /// The file cannot be written.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The key to change to from `current`: the one that the operator has
/// supplied, or a fresh one.
pub(super) fn next_key(layout: &Layout, current: &VerifyingKey) -> Result<SigningKey, NoNextKey> {
    let path = &layout.next_signing_key;
    let supplied = config::next_signing_key(layout)?;
    if supplied
        .as_ref()
        .is_some_and(|key| key.verifying_key() == *current)
    {
        return Err(NoNextKey::InUse("hub-signing"));
    }
    if credential::is_alone(&layout.signing_key, path) {
        return Err(NoNextKey::Credential(credential::advice(path, "hubctl keygen")));
    }
    if let Some(key) = supplied.filter(|key| !made_here(layout, key)) {
        return Ok(key);
    }
    discard_made(layout, current)
        .and_then(|()| fresh_key())
        .and_then(|key| {
            write_public(&made_file(layout), &key.verifying_key())?;
            write_key(path, &key, &layout.signing_key)?;
            Ok(key)
        })
        .map_err(|source| NoNextKey::Write {
            path: path.display().to_string(),
            source,
        })
}

/// Whose a next key is, by its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextKey {
    /// There is none that can be read.
    None,
    /// The ledger names it, or it opens something: nothing is touched.
    Needed,
    /// An operator's, who keeps it.
    Supplied,
    /// One that hubd has made, and that nothing needs.
    Made,
}

/// Destroys a next key that hubd has made and that nothing needs, and what an
/// unfinished writing of one has left. `look` says which it is, and is called
/// when a file of zeros has gone. Not to be called while a change to it may be
/// under way.
pub(super) fn discard_unneeded(path: &Path, look: impl FnOnce() -> NextKey) -> io::Result<()> {
    remove_overwritten(path)?;
    match look() {
        NextKey::Needed => return Ok(()),
        NextKey::Made => {
            destroy(path)?;
            fs::remove_file(path)?;
            sync_folder(path)?;
        }
        NextKey::None | NextKey::Supplied => {}
    }
    let unfinished = path.with_extension("new");
    if unfinished.exists() {
        destroy(&unfinished)?;
        fs::remove_file(&unfinished)?;
    }
    forget(&made_beside(path))
}

/// Where the public name of a next key is noted that hubd has made.
pub(super) fn made_beside(path: &Path) -> PathBuf {
    path.with_extension("made")
}

/// Destroys a next key that hubd has made and that the ledger does not go on
/// with. Not to be called while a change to it may be under way.
pub(super) fn discard_made(layout: &Layout, current: &VerifyingKey) -> io::Result<()> {
    discard_unneeded(&layout.next_signing_key, || {
        match config::next_signing_key(layout) {
            Ok(Some(key)) if key.verifying_key() == *current => NextKey::Needed,
            Ok(Some(key)) if made_here(layout, &key) => NextKey::Made,
            Ok(Some(_)) => NextKey::Supplied,
            Ok(None) | Err(_) => NextKey::None,
        }
    })
}

fn made_file(layout: &Layout) -> PathBuf {
    made_beside(&layout.next_signing_key)
}

/// Whether hubd has made this next key itself.
fn made_here(layout: &Layout, key: &SigningKey) -> bool {
    let made = fs::read_to_string(made_file(layout)).ok();
    made.and_then(|text| config::parse_public_key(&text)) == Some(key.verifying_key())
}

/// Removes a file, if it is there.
pub(super) fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes a next key that is overwritten already: the power failed, or the
/// disk refused, between [`destroy`] and the removal.
pub(super) fn remove_overwritten(path: &Path) -> io::Result<()> {
    match config::is_overwritten(path) {
        true => fs::remove_file(path).and_then(|()| sync_folder(path)),
        false => Ok(()),
    }
}

/// Zeros over a key, where it lies.
pub(super) fn destroy(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    (&file).write_all(&vec![0; len])?;
    file.sync_all()
}

#[allow(clippy::disallowed_methods)] // a new key is made of nothing else
pub(super) fn fresh_seed() -> io::Result<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut()).map_err(io::Error::other)?;
    Ok(seed)
}

fn fresh_key() -> io::Result<SigningKey> {
    Ok(SigningKey::from_bytes(&*fresh_seed()?))
}

fn write_key(path: &Path, key: &SigningKey, like: &Path) -> io::Result<()> {
    let line = Zeroizing::new(HEXLOWER.encode(key.as_bytes()) + "\n");
    write_secret(path, &line, like)
}

/// Writes a secret as a whole, for whoever may read the file `like`.
pub(super) fn write_secret(path: &Path, text: &str, like: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    // Whoever may read the old one may read the new one.
    if let Ok(owner) = fs::metadata(like) {
        let _ = chown(&new, Some(owner.uid()), Some(owner.gid()));
    }
    fs::rename(&new, path)?;
    sync_folder(path)
}

/// Puts the files in order behind a change that is in the ledger: `current`
/// is the key that it goes on with. Does nothing if they are.
pub(super) fn settle(
    layout: &Layout,
    current: &VerifyingKey,
    at: &mut dyn FnMut(KeyStep) -> io::Result<()>,
) -> io::Result<()> {
    let is_current = |key: &SigningKey| key.verifying_key() == *current;
    if !matches!(config::next_signing_key(layout), Ok(Some(next)) if is_current(&next)) {
        return Ok(());
    }
    write_public(&layout.signing_public, current)?;
    at(KeyStep::PublicWritten)?;
    if credential::keeps_files(&layout.signing_key, &layout.next_signing_key) {
        // Where the old one lies, the operator knows.
        return Ok(());
    }
    if layout.signing_key.exists() {
        destroy(&layout.signing_key)?;
    }
    at(KeyStep::OldDestroyed)?;
    fs::rename(&layout.next_signing_key, &layout.signing_key)?;
    sync_folder(&layout.signing_key)?;
    at(KeyStep::NewInPlace)?;
    forget(&made_file(layout))
}

fn write_public(path: &Path, key: &VerifyingKey) -> io::Result<()> {
    write_plain(path, &(HEXLOWER.encode(key.as_bytes()) + "\n"))
}

/// Writes what everybody may read, as a whole.
pub(super) fn write_plain(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("pub.new");
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
