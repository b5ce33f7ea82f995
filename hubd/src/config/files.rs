//! What lies where, and who may read it.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::fault::Faults;
use super::owner;

/// Where a hub's files lie. All paths are below one folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The folder itself.
    pub dir: PathBuf,
    /// `hubd.toml`
    pub config: PathBuf,
    /// `keys/`, 0700.
    pub keys: PathBuf,
    /// `keys/hub-signing.key`: Ed25519 seed, 64 hex digits, 0600.
    pub signing_key: PathBuf,
    /// `keys/hub-signing.next.key`: the key that is to follow it, while it is
    /// being changed. As that one, 0600.
    pub next_signing_key: PathBuf,
    /// `keys/hub-tls.key`: P-256, PKCS#8 in PEM, 0600.
    pub tls_key: PathBuf,
    /// `keys/hub-tls.next.key`: the key that is to follow it, while it is being
    /// changed. As that one, 0600.
    pub next_tls_key: PathBuf,
    /// `hub-id`: the hub's name, 64 hex digits, once its TLS key is not the one
    /// that it is named after.
    pub hub_id: PathBuf,
    /// `keys/hub-vault.key`, under which the store's data key is wrapped: 32 bytes, 64 hex digits, 0600.
    pub vault_key: PathBuf,
    /// `keys/hub-vault.next.key`: the key that is to follow it, while it is
    /// being changed. As that one, 0600.
    pub next_vault_key: PathBuf,
    /// `keys/policy-local.key`: Ed25519 seed, 64 hex digits, 0600. Only for a
    /// first try; a shop's policies are signed at headquarters.
    pub policy_key: PathBuf,
    /// `hub-signing.pub`: Ed25519 public key, 64 hex digits.
    pub signing_public: PathBuf,
    /// `ledger/`: the journal.
    pub ledger: PathBuf,
    /// `index/`: derived from the journal.
    pub index: PathBuf,
    /// `vault/`: sealed cards.
    pub vault: PathBuf,
    /// `reserve/`: room kept aside.
    pub reserve: PathBuf,
    /// `format`: the store's format.
    pub format: PathBuf,
    /// `root-in-force.cose`: a copy of the root in the ledger, for `hubctl` and
    /// for people.
    pub root_in_force: PathBuf,
    /// `policy.toml`: the sample policy as written.
    pub policy_text: PathBuf,
}

impl Layout {
    /// The layout below `dir`.
    pub fn new(dir: &Path) -> Self {
        let keys = dir.join("keys");
        Self {
            dir: dir.to_owned(),
            config: dir.join("hubd.toml"),
            signing_key: keys.join("hub-signing.key"),
            next_signing_key: keys.join("hub-signing.next.key"),
            tls_key: keys.join("hub-tls.key"),
            next_tls_key: keys.join("hub-tls.next.key"),
            hub_id: dir.join("hub-id"),
            vault_key: keys.join("hub-vault.key"),
            next_vault_key: keys.join("hub-vault.next.key"),
            policy_key: keys.join("policy-local.key"),
            keys,
            signing_public: dir.join("hub-signing.pub"),
            ledger: dir.join("ledger"),
            index: dir.join("index"),
            vault: dir.join("vault"),
            reserve: dir.join("reserve"),
            format: dir.join("format"),
            root_in_force: dir.join("root-in-force.cose"),
            policy_text: dir.join("policy.toml"),
        }
    }

    /// Where the keys lie that are to follow the hub's own.
    pub fn next_keys(&self) -> [&Path; 3] {
        [&self.next_signing_key, &self.next_tls_key, &self.next_vault_key].map(PathBuf::as_path)
    }
}

/// Reads a file of at most `limit` bytes. The text of the error names what
/// is wrong with the file, not the file.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    read_open(&open(path)?, limit)
}

pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, String> {
    String::from_utf8(read(path, limit)?).map_err(|_| "is not UTF-8 text".to_owned())
}

/// Reads a secret: a file that group and others can neither read nor write, and
/// that is [nobody else's](owner::check).
pub(super) fn read_secret(path: &Path, limit: u64) -> Result<Zeroizing<String>, String> {
    read_secret_for(None, path, limit)
}

/// The same of a secret that the hub in the folder `hub` has, wherever it lies.
pub(super) fn read_secret_for(
    hub: Option<&Path>,
    path: &Path,
    limit: u64,
) -> Result<Zeroizing<String>, String> {
    let file = open(path)?;
    let metadata = file
        .metadata()
        .map_err(|error| format!("cannot be read: {error}"))?;
    check_secret(path, &metadata)?;
    owner::check(path, &metadata, hub)?;
    let bytes = Zeroizing::new(read_open(&file, limit)?);
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("is not UTF-8 text".to_owned()),
    }
}

fn check_secret(path: &Path, metadata: &Metadata) -> Result<(), String> {
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "is open to others (mode {mode:04o}); a secret must be 0600: chmod 600 {}",
            path.display()
        ));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, String> {
    let file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "does not exist".to_owned(),
        _ => format!("cannot be opened: {error}"),
    })?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err("is not a plain file".to_owned()),
        Err(error) => Err(format!("cannot be read: {error}")),
    }
}

fn read_open(file: &File, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("is longer than {limit} bytes"));
    }
    Ok(bytes)
}

/// Whoever can write to a folder can replace what is in it, whatever the
/// modes of the files say.
pub(super) fn check_folders(layout: &Layout, faults: &Faults) {
    for folder in [&layout.dir, &layout.keys] {
        match folder.metadata() {
            Ok(metadata) if !metadata.is_dir() => faults.whole(folder, "is not a folder"),
            Ok(metadata) if metadata.mode() & 0o022 != 0 => faults.whole(
                folder,
                format!(
                    "can be written to by others (mode {:04o}); make it 0700: chmod 700 {}",
                    metadata.mode() & 0o7777,
                    folder.display()
                ),
            ),
            // A missing folder shows in each file that should be in it.
            Ok(_) | Err(_) => {}
        }
    }
}
