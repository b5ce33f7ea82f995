//! The store's data key: 32 random bytes, from which all keys come that the
//! files at rest are encrypted under, in a small file, wrapped.
//!
//! The file stands twice: in the hub's folder and in `ledger/`, so that a copy
//! of the ledger has it too. One lost or damaged copy is mended from the
//! other. It opens nothing without the vault key.
//!
//! Bytes: `HUBDKEY1`, CRC-32C (RFC 3720) of the rest, little-endian, and the
//! deterministic CBOR of
//!
//! ```text
//! { 1: how often it was written, 2: id of the data key (8 bytes), 3: [+ wrap] }
//! wrap = { 1: 1 (a vault key) or 2 (a recovery key), 2: id of that key (8 bytes),
//!          3: the wrapped key }
//! ```
//!
//! Under a vault key: nonce (24) and XChaCha20-Poly1305 of the data key, with
//! its id as additional data, under HMAC-SHA-256 of `hub-data-key-wrap/1`. Under
//! a recovery key: as [`recovery_key`](crate::recovery_key) says.

use std::io;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hub_protocol::{DataKey, EntrySeal};
use zeroize::Zeroizing;

use crate::config::Layout;

mod file;
mod recovery;

use file::{MOST_BYTES, Stored, Wrap, bytes_of, read, write_file};
pub use recovery::recovery_key_of;

/// The file's name, in both places.
pub const DATA_KEY: &str = "data-key";

const NONCE: usize = 24;

/// The id of a key: the first bytes of a MAC under it, which says nothing of
/// it.
pub type WrapId = [u8; 8];

/// Why the store's key is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum DataKeyError {
    /// Neither copy is there.
    #[error(
        "the store's data key is lost: neither {} nor {} can be read ({detail}). Without it the ledger verifies and says nothing. \
         Put either back from a copy of this folder, of its ledger, or of exported archives; every copy holds the same key. Nothing was changed",
        first.display(), second.display()
    )]
    Lost {
        /// One place.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What was found there.
        detail: String,
    },
    /// The key that it is wrapped under is another one.
    #[error(
        "{} is wrapped under another vault key than keys/hub-vault.key: put keys/ and data-key back from the same \
         backup, the newest (hub-vault.next.key too if the key was being changed). Nothing was changed",
        path.display()
    )]
    OtherVaultKey {
        /// The file.
        path: PathBuf,
    },
    /// No copy is wrapped for the recovery key that was given.
    #[error(
        "{} is {}: that is not recovery key {}. Bring the private file of the key that [ledger] recovery_key of \
         hubd.toml named last, or a copy of data-key from before the key was changed. Nothing was changed",
        path.display(),
        found.map_or_else(|| "wrapped for no recovery key".to_owned(), |found| format!("wrapped for recovery key {}", hex(&found))),
        hex(given)
    )]
    OtherRecoveryKey {
        /// The file.
        path: PathBuf,
        /// The id of the key that was given.
        given: WrapId,
        /// The id of the one that it is for.
        found: Option<WrapId>,
    },
    /// The copies are of two stores.
    #[error(
        "{} and {} hold different data keys, so that one is another store's: move that one away, keep it, and start \
         again. Nothing was changed",
        first.display(), second.display()
    )]
    Differ {
        /// One place.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// It counts as high, or holds as much, as can be read at all.
    #[error(
        "{} cannot be written anew: it holds more than any hub writes. Put data-key and ledger/data-key back from a \
         backup, with keys/. Nothing was changed",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot write {}: {source}; check the disk and the folder's owner", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

const BY_VAULT_KEY: u8 = 1;

/// A vault key: what data keys are wrapped under.
pub type VaultKey = Zeroizing<[u8; 32]>;

/// The id of a vault key, as ledger and key file name it.
pub fn vault_key_id(key: &VaultKey) -> WrapId {
    first_8(DataKey::new(**key).derive("hub-vault-key/1"))
}

fn first_8(bytes: [u8; 32]) -> [u8; 8] {
    let mut id = [0; 8];
    for (to, from) in id.iter_mut().zip(bytes) {
        *to = from;
    }
    id
}

fn id_of(key: &DataKey) -> [u8; 8] {
    first_8(key.derive("hub-data-key/1"))
}

/// The store's data key and the file that keeps it.
#[derive(Clone)]
pub struct StoreKey {
    key: DataKey,
    stored: Stored,
    places: [PathBuf; 2],
    /// The last writing failed: the copies may be another thing than `stored`.
    unsure: bool,
    named: Option<WrapId>,
}

impl std::fmt::Debug for StoreKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreKey(secret hidden)")
    }
}

impl StoreKey {
    /// The key of the store in a hub's folder, by any of these vault keys. A
    /// copy that is lost, damaged or behind is mended.
    ///
    /// The copy that was written last comes first. If these keys do not open
    /// it, they may open the other: whoever has lost the vault key puts `keys/`
    /// and `data-key` of one backup back, and `ledger/data-key` is a later one.
    ///
    /// # Errors
    /// [`DataKeyError`].
    pub fn open(layout: &Layout, vault_keys: &[&VaultKey]) -> Result<Self, DataKeyError> {
        let places = places(layout);
        let copies = copies(&places)?;
        let opened = copies
            .iter()
            .find_map(|(path, copy)| Some((path, copy, unwrap(copy, vault_keys)?)));
        let (path, copy, key) = opened.ok_or_else(|| DataKeyError::OtherVaultKey {
            path: places[0].clone(),
        })?;
        let whole = copies.len() == places.len() && copies.iter().all(|(_, other)| other == copy);
        let older = copies.first().is_some_and(|(newest, _)| newest != path);
        let (path, stored) = (path.clone(), merged(copy, &copies));
        let store_key = Self {
            key,
            stored,
            places,
            unsure: false,
            named: None,
        };
        if !whole {
            write_all(&store_key.places, &store_key.stored)?;
            let path = path.display();
            match older {
                true => tracing::warn!(
                    opened = %path,
                    "the copy of the store's data key that was written last does not open under this vault key and \
                     the other does; both were made again from that"
                ),
                false => tracing::warn!(
                    from = %path,
                    "a copy of the store's data key was lost, damaged or behind; it was made again from the other"
                ),
            }
        }
        Ok(store_key)
    }

    /// A new store's key, wrapped under its vault key, durably in both places.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn create(layout: &Layout, fresh: &[u8; 32], vault_key: &VaultKey) -> Result<Self, DataKeyError> {
        let key = DataKey::new(*fresh);
        let stored = Stored {
            written: 0,
            id: id_of(&key),
            wraps: vec![wrap(&key, vault_key)],
        };
        let wraps = stored.wraps.clone();
        let mut store_key = Self {
            key,
            stored,
            places: places(layout),
            unsure: false,
            named: None,
        };
        store_key.rewrite(wraps)?;
        Ok(store_key)
    }

    /// Whether a hub's folder has either copy.
    pub fn is_there(layout: &Layout) -> bool {
        places(layout).iter().any(|path| path.exists())
    }

    /// The key that sealed cards are encrypted under in the vault.
    pub fn vault_cards(&self) -> [u8; 32] {
        vault_cards(&self.key)
    }

    /// The key itself.
    pub fn key(&self) -> &DataKey {
        &self.key
    }

    /// Whether this vault key is the one that was wrapped under last, with
    /// nothing under way, or the only one.
    pub fn is_last_wrapped_under(&self, key: &VaultKey) -> bool {
        let id = vault_key_id(key);
        let mut wraps = self.stored.wraps.iter().filter(|wrap| wrap.kind == BY_VAULT_KEY);
        wraps.next().is_some_and(|wrap| wrap.key == id)
    }

    /// Whether a wrap names this vault key, or the ledger does: the file that
    /// it lies in is not to be replaced then.
    pub fn names(&self, key: &VaultKey) -> bool {
        let id = vault_key_id(key);
        self.named == Some(id) || self.stored.wraps.iter().any(|wrap| wrap.key == id)
    }

    /// The present vault key by the ledger's word, if it names one.
    pub fn named(&self) -> Option<WrapId> {
        self.named
    }

    /// Takes note of the vault key that the ledger names. In memory: the
    /// ledger keeps it.
    pub fn set_named(&mut self, id: Option<WrapId>) {
        self.named = id;
    }

    /// Whether this vault key opens the file.
    pub fn opens_with(&self, key: &VaultKey) -> bool {
        unwrap(&self.stored, &[key]).is_some()
    }

    /// Wraps the key under another vault key too, durably.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn add(&mut self, vault_key: &VaultKey) -> Result<(), DataKeyError> {
        if self.opens_with(vault_key) && !self.unsure {
            return Ok(());
        }
        let mut wraps = self.stored.wraps.clone();
        if !self.opens_with(vault_key) {
            // Taking the old one away is another writing.
            if self.stored.written >= u64::MAX - 1 {
                return Err(self.full());
            }
            wraps.push(wrap(&self.key, vault_key));
        }
        self.rewrite(wraps)
    }

    /// Takes away every wrap under a vault key but this one's, durably.
    ///
    /// # Errors
    /// The system's refusal, or no wrap is this key's: nothing is taken away
    /// then.
    pub fn keep_only(&mut self, vault_key: &VaultKey) -> Result<(), DataKeyError> {
        if !self.opens_with(vault_key) {
            return Err(DataKeyError::OtherVaultKey {
                path: self.places[0].clone(),
            });
        }
        let id = vault_key_id(vault_key);
        let mut wraps = self.stored.wraps.clone();
        wraps.retain(|wrap| wrap.kind != BY_VAULT_KEY || wrap.key == id);
        match wraps == self.stored.wraps && !self.unsure {
            true => Ok(()),
            false => self.rewrite(wraps),
        }
    }

    fn full(&self) -> DataKeyError {
        DataKeyError::Full {
            path: self.places[0].clone(),
        }
    }

    /// Other wraps, in both places: in memory only when they are durable. The
    /// count goes up in any case, lest two states have the same.
    fn rewrite(&mut self, wraps: Vec<Wrap>) -> Result<(), DataKeyError> {
        let stored = Stored {
            written: self.stored.written.checked_add(1).ok_or_else(|| self.full())?,
            wraps,
            ..self.stored.clone()
        };
        if !can_be_read(&stored) {
            return Err(self.full());
        }
        self.stored.written = stored.written;
        self.unsure = true;
        write_all(&self.places, &stored)?;
        self.stored = stored;
        self.unsure = false;
        Ok(())
    }
}

/// The key that sealed cards are encrypted under in the vault of the store
/// that has this data key.
pub fn vault_cards(key: &DataKey) -> [u8; 32] {
    key.derive("hub-store/1 vault")
}

fn hex(id: &WrapId) -> String {
    data_encoding::HEXLOWER.encode(id)
}

fn write_all(places: &[PathBuf; 2], stored: &Stored) -> Result<(), DataKeyError> {
    let bytes = bytes_of(stored);
    for path in places {
        write_file(path, &bytes).map_err(|source| DataKeyError::Write {
            path: path.clone(),
            source,
        })?;
    }
    Ok(())
}

/// What opens the entries of the ledger in a folder, a hub's own or a copy's,
/// for whoever has the vault key; `None` if no key file is there.
///
/// # Errors
/// The file is damaged, or wrapped under another vault key.
pub fn seal_of_copy(ledger: &Path, vault_keys: &[VaultKey]) -> Result<Option<EntrySeal>, DataKeyError> {
    Ok(key_of_copy(ledger, vault_keys)?.map(|key| EntrySeal::new(&key)))
}

/// The data key of the ledger in a folder, as [`seal_of_copy`].
///
/// # Errors
/// As there.
pub fn key_of_copy(ledger: &Path, vault_keys: &[VaultKey]) -> Result<Option<DataKey>, DataKeyError> {
    let above = ledger.parent().unwrap_or(ledger);
    let places = [ledger.join(DATA_KEY), above.join(DATA_KEY)];
    if places.iter().all(|path| !path.exists()) {
        return Ok(None);
    }
    // The one beside the ledger goes with it; what lies above a copy may be
    // another store's.
    let beside = read(&places[0]);
    let above = read(&places[1]);
    let same = matches!((&beside, &above), (Ok(one), Ok(other)) if one.id == other.id);
    let copies = match beside {
        Ok(stored) if same => std::iter::once(stored).chain(above).collect(),
        Ok(stored) => vec![stored],
        Err(_) => copies(&places)?.into_iter().map(|(_, stored)| stored).collect(),
    };
    let vault_keys: Vec<&VaultKey> = vault_keys.iter().collect();
    match copies.iter().find_map(|stored| unwrap(stored, &vault_keys)) {
        Some(key) => Ok(Some(key)),
        None => Err(DataKeyError::OtherVaultKey {
            path: places[0].clone(),
        }),
    }
}

/// Copies the key file beside archives that are copied away: it is wrapped,
/// and without it they verify and say nothing.
///
/// # Errors
/// The system's refusal to write.
pub fn copy_beside(ledger: &Path, to: &Path) -> Result<(), DataKeyError> {
    let (from, path) = (ledger.join(DATA_KEY), to.join(DATA_KEY));
    let Ok(stored) = read(&from) else {
        return Ok(());
    };
    // What was copied later stays.
    if read(&path).is_ok_and(|there| there.id == stored.id && there.written >= stored.written) {
        return Ok(());
    }
    write_file(&path, &bytes_of(&stored)).map_err(|source| DataKeyError::Write { path, source })
}

fn places(layout: &Layout) -> [PathBuf; 2] {
    [layout.dir.join(DATA_KEY), layout.ledger.join(DATA_KEY)]
}

/// The copies that can be read, of one data key, the one that was written last
/// first.
fn copies(places: &[PathBuf; 2]) -> Result<Vec<(PathBuf, Stored)>, DataKeyError> {
    let [first, second] = places.clone();
    match [read(&first), read(&second)] {
        [Ok(one), Ok(other)] if one.id != other.id => Err(DataKeyError::Differ { first, second }),
        [Ok(one), Ok(other)] if other.written > one.written => Ok(vec![(second, other), (first, one)]),
        [Ok(one), Ok(other)] => Ok(vec![(first, one), (second, other)]),
        [Ok(one), Err(_)] => Ok(vec![(first, one)]),
        [Err(_), Ok(other)] => Ok(vec![(second, other)]),
        [Err(one), Err(other)] => Err(DataKeyError::Lost {
            first,
            second,
            detail: if one == other {
                one
            } else {
                format!("{one}; {other}")
            },
        }),
    }
}

/// What both places get when this copy has opened: itself, if it is the newest.
/// If an older one has, it counts from now on, and keeps the newest one's wraps
/// behind its own: the key that they are for may be found again.
fn merged(opened: &Stored, copies: &[(PathBuf, Stored)]) -> Stored {
    let mut merged = opened.clone();
    match copies.first() {
        Some((_, newest)) if newest != opened => {
            merged.written = newest.written.saturating_add(1);
            for wrap in &newest.wraps {
                if merged.wraps.iter().all(|own| own.key != wrap.key) {
                    merged.wraps.push(wrap.clone());
                    if !can_be_read(&merged) {
                        merged.wraps.pop();
                    }
                }
            }
        }
        _ => {}
    }
    merged
}

/// Whether [`read`] takes it all in.
fn can_be_read(stored: &Stored) -> bool {
    bytes_of(stored).len() as u64 <= MOST_BYTES
}

fn cipher(vault_key: &VaultKey) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(&DataKey::new(**vault_key).derive("hub-data-key-wrap/1").into())
}

fn wrap(key: &DataKey, vault_key: &VaultKey) -> Wrap {
    // What is wrapped is random itself, so a nonce made from it and the
    // wrapping key never meets another message.
    let made = DataKey::new(**vault_key).derive(&format!(
        "hub-data-key-nonce/1 {}",
        data_encoding::HEXLOWER.encode(&key.derive("hub-data-key-nonce/1"))
    ));
    let mut nonce = [0; NONCE];
    for (to, from) in nonce.iter_mut().zip(made) {
        *to = from;
    }
    let payload = Payload {
        msg: key.as_bytes(),
        aad: &id_of(key),
    };
    // 32 bytes always encrypt.
    let sealed = cipher(vault_key).encrypt(&XNonce::from(nonce), payload);
    Wrap {
        kind: BY_VAULT_KEY,
        key: vault_key_id(vault_key),
        wrapped: [&nonce[..], &sealed.unwrap_or_default()].concat(),
    }
}

fn unwrap(stored: &Stored, vault_keys: &[&VaultKey]) -> Option<DataKey> {
    let ours = |wrap: &&Wrap| wrap.kind == BY_VAULT_KEY;
    stored.wraps.iter().filter(ours).find_map(|wrap| {
        let vault_key = vault_keys.iter().find(|key| vault_key_id(key) == wrap.key)?;
        let (nonce, sealed) = wrap.wrapped.split_first_chunk::<NONCE>()?;
        let payload = Payload {
            msg: sealed,
            aad: &stored.id,
        };
        let plain = cipher(vault_key).decrypt(&XNonce::from(*nonce), payload).ok()?;
        let key = DataKey::new(Zeroizing::new(plain).as_slice().try_into().ok()?);
        (id_of(&key) == stored.id).then_some(key)
    })
}

#[cfg(test)]
#[path = "data_key_tests.rs"]
mod tests;
