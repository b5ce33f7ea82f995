//! What the vault's writer and its readers share.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};
use hub_protocol::{PaymentId, SealedCard, cbor};
use zeroize::Zeroizing;

use super::disk::{self, Numbered};
use super::error::LedgerError;
use super::vault_file::{self, CIPHER_AT, ID_LEN, NONCE_LEN};
use super::vault_places::{Cards, Prints, Span, id_at};

/// The most that one record's body may have.
pub(crate) const MAX_BODY: usize = u16::MAX as usize;

/// A file and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) number: u32,
    pub(crate) span: Span,
}

#[derive(Debug)]
pub(crate) struct VaultFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Bodies that are not erased.
    pub(crate) live: usize,
    /// How long those are together.
    pub(crate) live_bytes: u64,
    /// Which those are.
    pub(crate) cards: Cards,
    /// Under a key of earlier versions.
    pub(crate) older: bool,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) prints: Prints,
    pub(crate) files: BTreeMap<u32, VaultFile>,
}

impl State {
    /// Where a payment's card lies, in the files before the one numbered
    /// `before`, the newest first.
    pub(crate) fn find_before(&self, before: u32, id: PaymentId) -> Result<Option<Place>, LedgerError> {
        for (number, file) in self.files.range(..before).rev() {
            let found = file.cards.find(&self.prints, &file.file, id);
            if let Some(span) = found.map_err(LedgerError::io("read", &file.path))? {
                let number = *number;
                return Ok(Some(Place { number, span }));
            }
        }
        Ok(None)
    }

    pub(crate) fn find(&self, id: PaymentId) -> Result<Option<Place>, LedgerError> {
        self.find_before(u32::MAX, id)
    }

    /// The card at this place is no longer there.
    pub(crate) fn remove(&mut self, id: PaymentId, place: Place) {
        if let Some(file) = self.files.get_mut(&place.number) {
            file.cards.remove(&self.prints, id, place.span);
        }
    }

    /// A card was written there. Gives where the payment had one before.
    pub(crate) fn insert(&mut self, id: PaymentId, place: Place) -> Result<Option<Place>, LedgerError> {
        let before = self.find(id)?;
        if let Some(before) = before {
            self.remove(id, before);
        }
        if let Some(file) = self.files.get_mut(&place.number) {
            file.cards.insert(&self.prints, id, place.span);
        }
        Ok(before)
    }

    /// A card stands there. Gives where its file had one of the same payment
    /// before.
    pub(crate) fn insert_here(&mut self, id: PaymentId, place: Place) -> Option<Place> {
        let number = place.number;
        let file = self.files.get_mut(&number)?;
        let before = file.cards.insert(&self.prints, id, place.span);
        before.map(|span| Place { number, span })
    }

    /// The cards of a full file, each of another payment.
    pub(crate) fn list(&mut self, number: u32, cards: impl Iterator<Item = (PaymentId, Span)>) {
        if let Some(file) = self.files.get_mut(&number) {
            file.cards = Cards::full(&self.prints, cards);
        }
    }

    /// Nothing more is written to this file.
    pub(crate) fn fill(&mut self, number: u32) {
        if let Some(file) = self.files.get_mut(&number) {
            file.cards.fill(&self.prints);
        }
    }

    /// The newest cards of a file, as far back as `bytes` of them, the newest
    /// first.
    pub(crate) fn newest_of(
        &self,
        number: u32,
        mut bytes: usize,
    ) -> Result<Vec<(PaymentId, Span)>, LedgerError> {
        let Some(file) = self.files.get(&number) else {
            return Ok(Vec::new());
        };
        let mut spans = file.cards.spans();
        spans.sort_unstable_by_key(|span| std::cmp::Reverse(span.offset));
        let wanted = spans.into_iter().take_while(|span| {
            let wanted = bytes > 0;
            bytes = bytes.saturating_sub(span.len as usize);
            wanted
        });
        wanted
            .map(|span| Ok((id_at(&file.file, span)?, span)))
            .collect::<std::io::Result<_>>()
            .map_err(LedgerError::io("read", &file.path))
    }

    /// The cards of a file, with their payments, the newest first.
    pub(crate) fn cards_of(&self, number: u32) -> Result<Vec<(PaymentId, Span)>, LedgerError> {
        self.newest_of(number, usize::MAX)
    }
}

pub(crate) struct Shared {
    pub(crate) cipher: XChaCha20Poly1305,
    /// For files of earlier versions.
    pub(crate) older: Vec<XChaCha20Poly1305>,
    pub(crate) state: RwLock<State>,
}

/// The sealed cards of these payments in the vault files of a folder, for
/// whoever carries them elsewhere: nothing is written, and no hub may run
/// there. `keys` are the one that [`Vault`](super::Vault) is opened with, and
/// those of earlier versions. What does not decrypt is left out.
///
/// # Errors
/// The system's refusal to read.
pub fn sealed_cards(
    dir: &Path,
    keys: &[[u8; 32]],
    wanted: &BTreeSet<PaymentId>,
) -> Result<BTreeMap<PaymentId, SealedCard>, LedgerError> {
    let mut cards = BTreeMap::new();
    let mut ciphers = keys.iter().map(|key| XChaCha20Poly1305::new(&Key::from(*key)));
    let Some(cipher) = ciphers.next().filter(|_| dir.is_dir()) else {
        return Ok(cards);
    };
    let shared = Shared {
        cipher,
        older: ciphers.collect(),
        state: RwLock::default(),
    };
    // The newest last.
    for (number, path) in Numbered::list(dir, super::vault::EXTENSION)?.files {
        let file = File::open(&path).map_err(LedgerError::io("open", &path))?;
        let bytes = disk::read_whole(&file, &path)?;
        for found in vault_file::walk(&bytes, number).0 {
            let body = bytes.get(found.body).filter(|_| wanted.contains(&found.id));
            if let Some(card) = body.and_then(|body| shared.decrypt(found.id, body)) {
                cards.insert(found.id, card);
            }
        }
    }
    Ok(cards)
}

/// Reads cards from any thread. Clones are cheap.
#[derive(Clone)]
pub struct VaultReader(pub(crate) Arc<Shared>);

impl std::fmt::Debug for VaultReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VaultReader")
    }
}

impl VaultReader {
    /// The sealed card of a payment; `None` if there is none (any more).
    ///
    /// # Errors
    /// [`LedgerError::CardUnreadable`] for a damaged record, or the system's
    /// refusal.
    pub fn get(&self, id: PaymentId) -> Result<Option<SealedCard>, LedgerError> {
        // Held while reading, so that no card is read while it is erased.
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(place) = state.find(id)? else {
            return Ok(None);
        };
        self.0.read(&state, id, place).map(Some)
    }

    /// Whether a file of an earlier version is left.
    pub fn holds_older(&self) -> bool {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.files.values().any(|file| file.older)
    }

    /// Whether there is a card of this payment.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn holds(&self, id: PaymentId) -> Result<bool, LedgerError> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.find(id).map(|place| place.is_some())
    }

    /// The payments of the newest cards that are not erased, at most `most`.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn newest(&self, most: usize) -> Result<Vec<PaymentId>, LedgerError> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut newest = Vec::new();
        for number in state.files.keys().rev() {
            let cards = state.cards_of(*number)?;
            newest.extend(cards.into_iter().map(|(id, _)| id));
            if newest.len() >= most {
                newest.truncate(most);
                break;
            }
        }
        Ok(newest)
    }

    /// The payments whose cards are not erased, in no order.
    #[cfg(test)]
    pub(crate) fn ids(&self) -> Vec<PaymentId> {
        self.newest(usize::MAX).unwrap()
    }
}

impl Shared {
    pub(crate) fn read(&self, state: &State, id: PaymentId, place: Place) -> Result<SealedCard, LedgerError> {
        let unreadable = |path: &Path| LedgerError::CardUnreadable {
            path: path.to_path_buf(),
            offset: u64::from(place.span.offset),
        };
        let Some(file) = state.files.get(&place.number) else {
            return Err(unreadable(Path::new("")));
        };
        let mut body = vec![0; place.span.len as usize];
        file.file
            .read_exact_at(&mut body, u64::from(place.span.offset))
            .map_err(LedgerError::io("read", &file.path))?;
        self.decrypt(id, &body).ok_or_else(|| unreadable(&file.path))
    }

    pub(crate) fn decrypt(&self, id: PaymentId, body: &[u8]) -> Option<SealedCard> {
        let nonce: [u8; NONCE_LEN] = super::segment::array(body, ID_LEN)?;
        let (msg, aad) = (body.get(CIPHER_AT..)?, &id.0);
        let open =
            |cipher: &XChaCha20Poly1305| cipher.decrypt(&XNonce::from(nonce), Payload { msg, aad }).ok();
        let plain = open(&self.cipher).or_else(|| self.older.iter().find_map(open));
        cbor::decode(&Zeroizing::new(plain?)).ok()
    }

    pub(crate) fn encrypt(
        &self,
        id: PaymentId,
        card: &SealedCard,
        nonce: [u8; NONCE_LEN],
    ) -> Option<Vec<u8>> {
        let plain = Zeroizing::new(cbor::encode(card));
        let payload = Payload {
            msg: plain.as_slice(),
            aad: &id.0,
        };
        let cipher = self.cipher.encrypt(&XNonce::from(nonce), payload).ok()?;
        let mut body = Vec::with_capacity(CIPHER_AT + cipher.len());
        body.extend_from_slice(&id.0);
        body.extend_from_slice(&nonce);
        body.extend_from_slice(&cipher);
        (body.len() <= MAX_BODY).then_some(body)
    }
}
