//! Sealed cards, kept apart from the journal so that they can be destroyed.
//!
//! A card lies encrypted (XChaCha20-Poly1305 under the hub's vault key, the
//! payment id as additional data) in a file of fixed size, and is overwritten
//! with zeros and flushed when the gateway has given its final answer. On
//! flash and on file systems that copy on write, overwritten blocks may
//! survive underneath where only the device's maker reaches them; what
//! survives there is the ciphertext of a blob that the hub cannot open either.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305};
use hub_protocol::{PaymentId, SealedCard};

use super::disk::{self, DataLock, Disk, DiskCounter, DiskCounts, Numbered};
use super::error::{Broken, Fault, LedgerError};
use super::journal::file_name;
use super::vault_file::{self, HEAD_LEN, HEADER_LEN, NONCE_LEN};
use super::vault_reader::{MAX_BODY, Place, Shared, State, VaultFile, VaultReader};

const EXTENSION: &str = "vlt";
/// What was found on opening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultReport {
    /// Vault files.
    pub files: usize,
    /// Cards that are not erased.
    pub cards: usize,
    /// Those of them whose record is not whole: what a torn write left
    /// (nothing needs it) or damage.
    pub damaged: usize,
}

/// The vault's writer.
pub struct Vault {
    dir: PathBuf,
    key_check: [u8; 8],
    file_bytes: usize,
    shared: Arc<Shared>,
    /// Where the next record goes: file number and offset.
    next: Option<(u32, usize)>,
    last_number: u32,
    disk: Disk,
    poisoned: bool,
    _lock: DataLock,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Vault({})", self.dir.display())
    }
}

impl Vault {
    /// Opens the vault in `dir`, made if there is none. `file_bytes` is how
    /// long a file is made: 4 KiB to 1 GiB, 16 MiB is usual.
    ///
    /// # Errors
    /// A file that is not a vault file, of a newer format or under another
    /// key is refused, and nothing is changed. Damaged records are not an
    /// error here: only their own payment suffers, when it is read.
    pub fn open(dir: &Path, key: &[u8; 32], file_bytes: usize) -> Result<(Self, VaultReport), LedgerError> {
        disk::make_dir(dir)?;
        let lock = DataLock::acquire(dir)?;
        let found = Numbered::list(dir, EXTENSION)?;
        let mut vault = Self {
            dir: dir.into(),
            key_check: vault_file::key_check(key),
            file_bytes: file_bytes.clamp(4096, 1 << 30),
            shared: Arc::new(Shared {
                cipher: XChaCha20Poly1305::new(&Key::from(*key)),
                state: RwLock::default(),
            }),
            next: None,
            last_number: 0,
            disk: Disk::default(),
            poisoned: false,
            _lock: lock,
        };
        let mut state = State::default();
        let mut outdated = Vec::new();
        let mut damaged = 0;
        for (number, path) in &found.files {
            let file = disk::open_rw(path)?;
            let bytes = disk::read_durable(&file, path)?;
            vault.check_header(path, &bytes)?;
            let (bodies, end) = vault_file::walk(&bytes, *number);
            let live = bodies.len();
            let path = path.clone();
            state.files.insert(*number, VaultFile { path, file, live });
            for body in bodies {
                damaged += usize::from(body.damaged);
                let place = Place {
                    number: *number,
                    offset: body.body.start as u32,
                    len: body.body.len() as u32,
                };
                let Some(before) = state.places.insert(body.id, place) else {
                    continue;
                };
                // Twice the same id: a crash came between writing the newer
                // and erasing the older, or the newer is torn.
                if vault.shared.decrypt(body.id, &bytes[body.body]).is_some() {
                    outdated.push(before);
                } else {
                    state.places.insert(body.id, before);
                    outdated.push(place);
                }
            }
            vault.next = Some((*number, end));
            vault.last_number = *number;
        }
        let report = VaultReport {
            files: state.files.len(),
            cards: state.places.len(),
            damaged,
        };
        *vault.state() = state;
        found.remove_unfinished()?;
        disk::sync_dir(dir)?;
        vault.overwrite(&outdated)?;
        vault.remove_spent_files()?;
        Ok((vault, report))
    }

    fn check_header(&self, path: &Path, bytes: &[u8]) -> Result<(), LedgerError> {
        let fail = |fault| Broken {
            file: file_name(path),
            offset: 0,
            sequence: 0,
            fault,
        };
        match vault_file::check_header(bytes, self.key_check) {
            Ok(true) => Ok(()),
            Ok(false) => Err(LedgerError::OtherVaultKey { path: path.into() }),
            Err(fault @ Fault::NewerFormat { .. }) => Err(LedgerError::of_broken(path, fail(fault))),
            Err(fault) => Err(LedgerError::Damaged(fail(fault))),
        }
    }

    fn state(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from any thread.
    pub fn reader(&self) -> VaultReader {
        VaultReader(Arc::clone(&self.shared))
    }

    /// Writes and flushes since opening.
    pub fn counts(&self) -> DiskCounts {
        self.disk.counts()
    }

    /// The same, to be read while another thread writes.
    pub fn counter(&self) -> DiskCounter {
        DiskCounter::new(&self.disk)
    }

    #[cfg(test)]
    pub(crate) fn disk(&self) -> Disk {
        self.disk.clone()
    }

    /// Encrypts the cards and makes them durable: one write and one flush,
    /// unless a file becomes full between them. A payment that already has a
    /// card keeps the newest, and the older is erased.
    ///
    /// # Errors
    /// [`LedgerError::TooLarge`] writes nothing. After any other error the
    /// vault takes nothing more.
    pub fn put(&mut self, cards: &[(PaymentId, SealedCard)]) -> Result<(), LedgerError> {
        self.guarded(|vault| {
            let mut bodies = Vec::with_capacity(cards.len());
            for (id, card) in cards {
                let nonce = fresh_nonce().map_err(LedgerError::io("take random bytes for", &vault.dir))?;
                let body = vault.shared.encrypt(*id, card, nonce);
                bodies.push((
                    *id,
                    body.filter(|body| body.len() + HEAD_LEN + HEADER_LEN <= vault.file_bytes),
                ));
            }
            let mut outdated = Vec::new();
            let mut rest = bodies.as_slice();
            while !rest.is_empty() {
                let written = vault.put_into_one_file(rest, &mut outdated)?;
                rest = &rest[written..];
            }
            vault.overwrite(&outdated)?;
            vault.remove_spent_files()
        })
    }

    /// Writes as many of the bodies as the present file takes, at least one.
    fn put_into_one_file(
        &mut self,
        bodies: &[(PaymentId, Option<Vec<u8>>)],
        outdated: &mut Vec<Place>,
    ) -> Result<usize, LedgerError> {
        let first = bodies
            .first()
            .and_then(|(_, body)| body.as_ref())
            .map_or(0, Vec::len);
        let (number, start) = match self.next {
            Some((number, at)) if at + HEAD_LEN + first <= self.len_of(number)? => (number, at),
            _ => (self.new_file()?, HEADER_LEN),
        };
        let len = self.len_of(number)?;
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (id, body) in bodies {
            let Some(body) = body else {
                return Err(LedgerError::TooLarge {
                    bytes: MAX_BODY + 1,
                    most: MAX_BODY,
                });
            };
            let at = start + bytes.len();
            if at + HEAD_LEN + body.len() > len {
                break;
            }
            bytes.extend_from_slice(&vault_file::record_head(number, at as u32, body.len() as u16));
            bytes.extend_from_slice(body);
            let place = Place {
                number,
                offset: (at + HEAD_LEN) as u32,
                len: body.len() as u32,
            };
            places.push((*id, place));
        }
        {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(file) = state.files.get(&number) {
                self.disk.write(&file.file, &file.path, &bytes, start as u64)?;
                self.disk.flush(&file.file, &file.path)?;
            }
        }
        let written = places.len();
        let mut state = self.state();
        if let Some(file) = state.files.get_mut(&number) {
            file.live += written;
        }
        for (id, place) in places {
            outdated.extend(state.places.insert(id, place));
        }
        drop(state);
        self.next = Some((number, start + bytes.len()));
        Ok(written)
    }

    fn len_of(&self, number: u32) -> Result<usize, LedgerError> {
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = state.files.get(&number) else {
            return Ok(0);
        };
        let metadata = file
            .file
            .metadata()
            .map_err(LedgerError::io("examine", &file.path))?;
        Ok(usize::try_from(metadata.len()).unwrap_or(usize::MAX))
    }

    fn new_file(&mut self) -> Result<u32, LedgerError> {
        let number = self.last_number + 1;
        let path = disk::numbered(&self.dir, number, EXTENSION);
        let head = vault_file::header(self.key_check);
        let file = self.disk.create(&path, &head, self.file_bytes as u64)?;
        self.state()
            .files
            .insert(number, VaultFile { path, file, live: 0 });
        self.last_number = number;
        Ok(number)
    }

    /// Destroys the cards of these payments: when it returns, neither they
    /// nor their ciphertext are in the files. Ids without a card are passed
    /// over. Returns how many there were.
    ///
    /// # Errors
    /// The system's refusal; after it the vault takes nothing more.
    pub fn erase(&mut self, ids: &[PaymentId]) -> Result<usize, LedgerError> {
        self.guarded(|vault| {
            let places: Vec<Place> = {
                let mut state = vault.state();
                ids.iter().filter_map(|id| state.places.remove(id)).collect()
            };
            vault.overwrite(&places)?;
            vault.remove_spent_files()?;
            Ok(places.len())
        })
    }

    /// Overwrites bodies with zeros, with one flush for each file. Whoever
    /// reads one of them meanwhile has finished first.
    fn overwrite(&mut self, places: &[Place]) -> Result<(), LedgerError> {
        if places.is_empty() {
            return Ok(());
        }
        let mut state = self.state();
        let mut touched = Vec::new();
        for place in places {
            if let Some(file) = state.files.get_mut(&place.number) {
                let from = u64::from(place.offset);
                let to = from + u64::from(place.len);
                self.disk.zero(&file.file, &file.path, from, to)?;
                file.live = file.live.saturating_sub(1);
                touched.push(place.number);
            }
        }
        drop(state);
        touched.sort_unstable();
        touched.dedup();
        let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
        for file in touched.iter().filter_map(|number| state.files.get(number)) {
            self.disk.flush(&file.file, &file.path)?;
        }
        Ok(())
    }

    /// Deletes full files in which every card is erased.
    fn remove_spent_files(&mut self) -> Result<(), LedgerError> {
        let present = self.next.map(|(number, _)| number);
        let mut state = self.state();
        let spent: Vec<u32> = state
            .files
            .iter()
            .filter(|(number, file)| file.live == 0 && Some(**number) != present)
            .map(|(number, _)| *number)
            .collect();
        for number in &spent {
            if let Some(file) = state.files.remove(number) {
                std::fs::remove_file(&file.path).map_err(LedgerError::io("remove", &file.path))?;
            }
        }
        drop(state);
        if spent.is_empty() {
            Ok(())
        } else {
            disk::sync_dir(&self.dir)
        }
    }

    /// After a failure what is on disk is not known: nothing more is taken.
    fn guarded<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        if self.poisoned {
            return Err(LedgerError::Poisoned);
        }
        let result = act(self);
        self.poisoned = matches!(&result, Err(error) if !matches!(error, LedgerError::TooLarge { .. }));
        result
    }
}

#[allow(clippy::disallowed_methods)] // a nonce must never repeat under one key, also across restarts
fn fresh_nonce() -> std::io::Result<[u8; NONCE_LEN]> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(std::io::Error::other)?;
    Ok(nonce)
}
