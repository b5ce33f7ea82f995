//! Sealed cards, kept apart from the journal so that they can be destroyed.
//!
//! A card lies encrypted (XChaCha20-Poly1305 under a key derived from the
//! store's data key; in files of earlier versions under the vault key itself; the
//! payment id as additional data) in a file of fixed size, and is overwritten
//! with zeros and flushed when the gateway has given its final answer. On
//! flash and on file systems that copy on write, overwritten blocks may
//! survive underneath where only the device's maker reaches them; what
//! survives there is the ciphertext of a blob that the hub cannot open either.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305};
use hub_protocol::{PaymentId, SealedCard};

use super::disk::{self, DataLock, Disk, DiskCounter, DiskCounts, Numbered};
use super::error::{Broken, Fault, LedgerError};
use super::journal::file_name;
use super::space::Space;
use super::vault_file::{self, CIPHER_AT, HEAD_LEN, HEADER_LEN, NONCE_LEN};
use super::vault_places::{Cards, Span};
use super::vault_reader::{MAX_BODY, Place, Shared, State, VaultFile, VaultReader};

pub(crate) const EXTENSION: &str = "vlt";

/// A full file is emptied when less than this part of it is alive: what the
/// vault takes on disk stays within so many times its cards, and two files.
const SPARSE: usize = 8;

/// More bytes than the cards of one group of payments have: 512 of 1.1 KiB.
const LAST_WRITE: usize = 1 << 20;

/// So many cards of an earlier version are moved with one flush.
const MOVED_AT_ONCE: usize = 512;

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
    /// Cards of an earlier version that do not decrypt: each is damage to its
    /// own payment, and was moved as it is.
    pub unreadable: usize,
}

/// The vault's writer.
pub struct Vault {
    dir: PathBuf,
    key_check: [u8; 8],
    /// Of the keys that files of earlier versions are under.
    older_checks: Vec<[u8; 8]>,
    file_bytes: usize,
    shared: Arc<Shared>,
    /// Where the next record goes: file number and offset.
    next: Option<(u32, usize)>,
    last_number: u32,
    disk: Disk,
    space: Option<Space>,
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
        Self::open_older(dir, key, &[], file_bytes)
    }

    /// [`open`](Self::open), with the keys that files of earlier versions may
    /// be under. Cards in those are read, and moved into new files at once, as
    /// far as there is room.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_older(
        dir: &Path,
        key: &[u8; 32],
        older: &[&[u8; 32]],
        file_bytes: usize,
    ) -> Result<(Self, VaultReport), LedgerError> {
        disk::make_dir(dir)?;
        let lock = DataLock::acquire(dir)?;
        let found = Numbered::list(dir, EXTENSION)?;
        let mut vault = Self {
            dir: dir.into(),
            key_check: vault_file::key_check(key),
            older_checks: older.iter().map(|key| vault_file::key_check(key)).collect(),
            file_bytes: file_bytes.clamp(4096, 1 << 30),
            shared: Arc::new(Shared {
                cipher: XChaCha20Poly1305::new(&Key::from(*key)),
                older: older
                    .iter()
                    .map(|key| XChaCha20Poly1305::new(&Key::from(**key)))
                    .collect(),
                state: RwLock::default(),
            }),
            next: None,
            last_number: 0,
            disk: Disk::default(),
            space: None,
            poisoned: false,
            _lock: lock,
        };
        let mut state = State::default();
        let mut outdated = Vec::new();
        let mut damaged = 0;
        let last = found.files.last().map(|(number, _)| *number);
        for (number, path) in &found.files {
            let file = disk::open_rw(path)?;
            let bytes = disk::read_durable(&file, path)?;
            let older = vault.check_header(path, &bytes)?;
            let (bodies, end) = vault_file::walk(&bytes, *number);
            damaged += bodies.iter().filter(|body| body.damaged).count();
            let here = VaultFile {
                path: path.clone(),
                file,
                live: bodies.len(),
                live_bytes: bodies.iter().map(|body| body.body.len() as u64).sum(),
                cards: Cards::default(),
                older,
            };
            state.files.insert(*number, here);
            if is_settled(&found.files, *number, vault.last_write()) {
                let cards = bodies.into_iter().map(|body| (body.id, span(&body)));
                state.list(*number, cards);
            } else {
                vault.take_cards(&mut state, *number, &bytes, bodies, &mut outdated);
            }
            if Some(*number) != last || older {
                state.fill(*number);
            }
            vault.next = (!older).then_some((*number, end));
            vault.last_number = *number;
        }
        vault.find_older(&mut state, &mut outdated)?;
        let report = VaultReport {
            files: state.files.len(),
            cards: state.files.values().map(|file| file.cards.len()).sum(),
            damaged,
            unreadable: 0,
        };
        *vault.state() = state;
        found.remove_unfinished()?;
        disk::sync_dir(dir)?;
        vault.overwrite(&outdated)?;
        vault.remove_spent_files()?;
        let unreadable = match vault.move_older() {
            Err(error) if error.is_no_room() => {
                tracing::warn!(%error, "cards of an earlier version stay where they are until there is room");
                0
            }
            moved => moved?,
        };
        if unreadable > 0 {
            tracing::error!(
                cards = unreadable,
                "damaged cards of an earlier version were found; all others are moved, and the vault key can be changed"
            );
        }
        Ok((vault, VaultReport { unreadable, ..report }))
    }

    /// Notes the cards of a file that may hold two of the same payment.
    fn take_cards(
        &self,
        state: &mut State,
        number: u32,
        bytes: &[u8],
        bodies: Vec<vault_file::Found>,
        outdated: &mut Vec<Place>,
    ) {
        for body in bodies {
            let place = Place {
                number,
                span: span(&body),
            };
            let Some(before) = state.insert_here(body.id, place) else {
                continue;
            };
            if self.shared.decrypt(body.id, &bytes[body.body]).is_some() {
                outdated.push(before);
            } else {
                state.insert_here(body.id, before);
                outdated.push(place);
            }
        }
    }

    /// Finds the cards of the last write that stand in an earlier file too.
    fn find_older(&self, state: &mut State, outdated: &mut Vec<Place>) -> Result<(), LedgerError> {
        let mut bytes = 0;
        let numbers: Vec<u32> = state.files.keys().rev().copied().collect();
        for number in numbers {
            for (id, span) in state.newest_of(number, self.last_write().saturating_sub(bytes))? {
                bytes += span.len as usize;
                let place = Place { number, span };
                let Some(before) = state.find_before(number, id)? else {
                    continue;
                };
                let unneeded = match self.shared.read(state, id, place) {
                    Ok(_) => before,
                    Err(LedgerError::CardUnreadable { .. }) => place,
                    Err(error) => return Err(error),
                };
                state.remove(id, unneeded);
                outdated.push(unneeded);
            }
        }
        Ok(())
    }

    /// More bytes than are written at a time: the cards of a group of
    /// payments, or those of a sparse file.
    fn last_write(&self) -> usize {
        LAST_WRITE.max(self.file_bytes / SPARSE)
    }

    /// Moves cards that are under an older key. Their copies are durable
    /// before they are erased. A damaged one is moved as it is: it stays
    /// unreadable, and its payment alone suffers, when the card is asked for.
    /// Gives how many those are.
    fn move_older(&mut self) -> Result<usize, LedgerError> {
        let older: Vec<u32> = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            let files = state.files.iter().filter(|(_, file)| file.older);
            files.map(|(number, _)| *number).collect()
        };
        let mut unreadable = 0;
        for number in older {
            let (mut cards, mut damaged) = (Vec::new(), Vec::new());
            {
                let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
                for (id, span) in state.cards_of(number)? {
                    let place = Place { number, span };
                    match self.shared.read(&state, id, place) {
                        Ok(card) => cards.push((id, card)),
                        Err(error @ LedgerError::CardUnreadable { .. }) => {
                            tracing::error!(
                                payment = %id, %error,
                                "a sealed card that an earlier version encrypted is damaged: if its payment still has to be sent, it will be parked"
                            );
                            damaged.push((id, place));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
            unreadable += damaged.len();
            // First: a whole card of the same payment replaces a damaged one,
            // and never the other way.
            self.move_damaged(&damaged)?;
            for some in cards.chunks(MOVED_AT_ONCE) {
                self.put(some)?;
            }
        }
        Ok(unreadable)
    }

    /// Moves records that do not decrypt into the present file. One whose
    /// payment has a card elsewhere is erased.
    fn move_damaged(&mut self, damaged: &[(PaymentId, Place)]) -> Result<(), LedgerError> {
        if damaged.is_empty() {
            return Ok(());
        }
        self.guarded(|vault| {
            let (mut bodies, mut outdated) = (Vec::new(), Vec::new());
            {
                let mut state = vault.state();
                for (id, place) in damaged {
                    if state.find(*id)?.is_some_and(|found| found != *place) {
                        state.remove(*id, *place);
                        outdated.push(*place);
                    } else if let Some(file) = state.files.get(&place.number) {
                        bodies.push((*id, Some(body_to_move(file, place.span)?)));
                    }
                }
            }
            vault.put_bodies(&bodies, outdated, Before::Perhaps)
        })
    }

    /// Writes bodies as they are, durably, and then erases what they replace,
    /// and `outdated`.
    fn put_bodies(
        &mut self,
        bodies: &[(PaymentId, Option<Vec<u8>>)],
        mut outdated: Vec<Place>,
        before: Before,
    ) -> Result<(), LedgerError> {
        let mut rest = bodies;
        let mut moved = Ok(());
        while !rest.is_empty() && moved.is_ok() {
            moved = self
                .put_into_one_file(rest, &mut outdated, before)
                .map(|written| rest = &rest[written..]);
        }
        if moved.is_ok() || moved.as_ref().is_err_and(LedgerError::is_no_room) {
            self.overwrite(&outdated)?;
            self.remove_spent_files()?;
        }
        moved
    }

    /// Whether the file is one under an older key.
    fn check_header(&self, path: &Path, bytes: &[u8]) -> Result<bool, LedgerError> {
        let fail = |fault| Broken {
            file: file_name(path),
            offset: 0,
            sequence: 0,
            fault,
        };
        let mut known = self.older_checks.iter();
        match vault_file::check_header(bytes, self.key_check) {
            Ok(true) => Ok(false),
            Ok(false) if known.any(|check| matches!(vault_file::check_header(bytes, *check), Ok(true))) => {
                Ok(true)
            }
            Ok(false) => Err(LedgerError::OtherVaultKey { path: path.into() }),
            Err(fault @ Fault::NewerFormat { .. }) => Err(LedgerError::of_broken(path, fail(fault))),
            Err(fault) => Err(LedgerError::Damaged(fail(fault))),
        }
    }

    fn state(&self) -> std::sync::RwLockWriteGuard<'_, State> {
        self.shared.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, files for which the disk has no room are made out of the
    /// reserve.
    pub fn keep_room(&mut self, space: &Space) {
        self.space = Some(space.clone());
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
    /// [`LedgerError::TooLarge`] writes nothing. After
    /// [`LedgerError::NoRoom`] the same cards can be put again. After any
    /// other error the vault takes nothing more.
    pub fn put(&mut self, cards: &[(PaymentId, SealedCard)]) -> Result<(), LedgerError> {
        self.put_cards(cards, Before::Perhaps)
    }

    /// [`put`](Self::put) of payments that have no card yet: nobody looks for
    /// one in all the files, of which a long queue has many.
    ///
    /// # Errors
    /// As [`put`](Self::put), which is to be used for the same cards then.
    pub fn put_first(&mut self, cards: &[(PaymentId, SealedCard)]) -> Result<(), LedgerError> {
        self.put_cards(cards, Before::None)
    }

    fn put_cards(&mut self, cards: &[(PaymentId, SealedCard)], before: Before) -> Result<(), LedgerError> {
        self.guarded(|vault| {
            let mut bodies = Vec::with_capacity(cards.len());
            let nonces =
                fresh_nonces(cards.len()).map_err(LedgerError::io("take random bytes for", &vault.dir))?;
            for ((id, card), nonce) in cards.iter().zip(nonces) {
                let body = vault.shared.encrypt(*id, card, nonce);
                bodies.push((
                    *id,
                    body.filter(|body| body.len() + HEAD_LEN + HEADER_LEN <= vault.file_bytes),
                ));
            }
            vault.put_bodies(&bodies, Vec::new(), before)
        })
    }

    /// Writes as many of the bodies as the present file takes, at least one.
    fn put_into_one_file(
        &mut self,
        bodies: &[(PaymentId, Option<Vec<u8>>)],
        outdated: &mut Vec<Place>,
        before: Before,
    ) -> Result<usize, LedgerError> {
        let first = bodies
            .first()
            .and_then(|(_, body)| body.as_ref())
            .map_or(0, Vec::len);
        let (number, start) = match self.next {
            Some((number, at)) if at + HEAD_LEN + first <= self.len_of(number)? => (number, at),
            _ => (self.new_file(HEADER_LEN + HEAD_LEN + first)?, HEADER_LEN),
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
            let span = Span {
                offset: (at + HEAD_LEN) as u32,
                len: body.len() as u32,
            };
            places.push((*id, Place { number, span }));
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
            file.live_bytes += places
                .iter()
                .map(|(_, place)| u64::from(place.span.len))
                .sum::<u64>();
        }
        for (id, place) in places {
            outdated.extend(match before {
                Before::Perhaps => state.insert(id, place)?,
                Before::None => state.insert_here(id, place),
            });
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

    fn new_file(&mut self, least: usize) -> Result<u32, LedgerError> {
        let number = self.last_number + 1;
        let path = disk::numbered(&self.dir, number, EXTENSION);
        let head = vault_file::header(self.key_check);
        let len = self.file_bytes as u64;
        let (file, _) = self
            .disk
            .create_with(self.space.as_ref(), &path, &head, len, least as u64)?;
        let made = VaultFile {
            path,
            file,
            live: 0,
            live_bytes: 0,
            cards: Cards::default(),
            older: false,
        };
        let mut state = self.state();
        state.files.insert(number, made);
        // The others are written to no more.
        state.fill(self.last_number);
        drop(state);
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
                let mut places = Vec::with_capacity(ids.len());
                for id in ids {
                    if let Some(place) = state.find(*id)? {
                        state.remove(*id, place);
                        places.push(place);
                    }
                }
                places
            };
            vault.overwrite(&places)?;
            vault.remove_spent_files()?;
            match vault.empty_a_sparse_file() {
                // It waits until there is room.
                Err(error) if !error.is_no_room() => Err(error),
                _ => Ok(places.len()),
            }
        })
    }

    /// Moves the last cards of a full file that is mostly erased into the
    /// present one, so that a card that waits for weeks does not keep a whole
    /// file on disk. The copy is durable before the old place is overwritten.
    fn empty_a_sparse_file(&mut self) -> Result<(), LedgerError> {
        let present = self.next.map(|(number, _)| number);
        let sparse = (self.file_bytes / SPARSE) as u64;
        let bodies = {
            let state = self.shared.state.read().unwrap_or_else(PoisonError::into_inner);
            let found = state
                .files
                .iter()
                .find(|(number, file)| file.live_bytes < sparse && Some(**number) != present && !file.older);
            let Some((number, file)) = found else {
                return Ok(());
            };
            let mut bodies = Vec::with_capacity(file.live);
            for (id, span) in state.cards_of(*number)? {
                bodies.push((id, Some(body_to_move(file, span)?)));
            }
            bodies
        };
        self.put_bodies(&bodies, Vec::new(), Before::Perhaps)
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
                let from = u64::from(place.span.offset);
                let to = from + u64::from(place.span.len);
                self.disk.zero(&file.file, &file.path, from, to)?;
                file.live = file.live.saturating_sub(1);
                file.live_bytes = file.live_bytes.saturating_sub(u64::from(place.span.len));
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
        self.poisoned = matches!(&result, Err(error) if !matches!(error, LedgerError::TooLarge { .. } | LedgerError::NoRoom { .. }));
        result
    }
}

fn span(found: &vault_file::Found) -> Span {
    Span {
        offset: found.body.start as u32,
        len: found.body.len() as u32,
    }
}

/// A body as it stands in its file. What is longer than a record can be is
/// damage that no key opens: its payment's id and the nonce are kept of it.
/// Whether payments may have cards before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    None,
    Perhaps,
}

fn body_to_move(file: &VaultFile, span: Span) -> Result<Vec<u8>, LedgerError> {
    let len = span.len as usize;
    let mut body = vec![0; if len > MAX_BODY { CIPHER_AT } else { len }];
    file.file
        .read_exact_at(&mut body, u64::from(span.offset))
        .map_err(LedgerError::io("read", &file.path))?;
    Ok(body)
}

/// Whether no card of this file can stand in two places. What is written
/// together is flushed before anything older is erased, and opening erases the
/// older before anything new is written: only the last write can have left a
/// card in two places.
fn is_settled(files: &[(u32, PathBuf)], number: u32, last_write: usize) -> bool {
    let later = files.iter().rev().take_while(|(later, _)| *later > number);
    let bytes = later.map(|(_, path)| path.metadata().map_or(0, |file| file.len()));
    // The newest may have nothing in it yet.
    bytes.skip(1).sum::<u64>() >= last_write as u64
}

#[allow(clippy::disallowed_methods)] // a nonce must never repeat under one key, also across restarts
fn fresh_nonces(count: usize) -> std::io::Result<Vec<[u8; NONCE_LEN]>> {
    let mut nonces = vec![[0; NONCE_LEN]; count];
    getrandom::fill(nonces.as_flattened_mut()).map_err(std::io::Error::other)?;
    Ok(nonces)
}
