//! What the vault's writer and its readers share.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use hub_protocol::{PaymentId, SealedCard, cbor};
use zeroize::Zeroizing;

use super::error::LedgerError;
use super::vault_file::{CIPHER_AT, ID_LEN, NONCE_LEN};

/// The most that one record's body may have.
pub(crate) const MAX_BODY: usize = u16::MAX as usize;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) number: u32,
    pub(crate) offset: u32,
    pub(crate) len: u32,
}

#[derive(Debug)]
pub(crate) struct VaultFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    /// Bodies that are not erased.
    pub(crate) live: usize,
    /// How long those are together.
    pub(crate) live_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) places: HashMap<PaymentId, Place>,
    pub(crate) files: BTreeMap<u32, VaultFile>,
}

pub(crate) struct Shared {
    pub(crate) cipher: XChaCha20Poly1305,
    pub(crate) state: RwLock<State>,
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
        let Some(place) = state.places.get(&id) else {
            return Ok(None);
        };
        self.0.read(&state, id, *place).map(Some)
    }

    /// Whether there is a card of this payment.
    pub fn holds(&self, id: &PaymentId) -> bool {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.places.contains_key(id)
    }

    /// The payments of the newest cards that are not erased, at most `most`.
    pub fn newest(&self, most: usize) -> Vec<PaymentId> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = state
            .places
            .iter()
            .map(|(id, place)| ((place.number, place.offset), *id))
            .collect();
        let older = all.len().saturating_sub(most);
        if older > 0 {
            all.select_nth_unstable(older);
        }
        all.split_off(older).into_iter().map(|(_, id)| id).collect()
    }

    /// The payments whose cards are not erased, in no order. After a start,
    /// whatever no unsettled payment needs is to be erased.
    pub fn ids(&self) -> Vec<PaymentId> {
        let state = self.0.state.read().unwrap_or_else(PoisonError::into_inner);
        state.places.keys().copied().collect()
    }
}

impl Shared {
    fn read(&self, state: &State, id: PaymentId, place: Place) -> Result<SealedCard, LedgerError> {
        let unreadable = |path: &Path| LedgerError::CardUnreadable {
            path: path.to_path_buf(),
            offset: u64::from(place.offset),
        };
        let Some(file) = state.files.get(&place.number) else {
            return Err(unreadable(Path::new("")));
        };
        let mut body = vec![0; place.len as usize];
        file.file
            .read_exact_at(&mut body, u64::from(place.offset))
            .map_err(LedgerError::io("read", &file.path))?;
        self.decrypt(id, &body).ok_or_else(|| unreadable(&file.path))
    }

    pub(crate) fn decrypt(&self, id: PaymentId, body: &[u8]) -> Option<SealedCard> {
        let nonce: [u8; NONCE_LEN] = super::segment::array(body, ID_LEN)?;
        let payload = Payload {
            msg: body.get(CIPHER_AT..)?,
            aad: &id.0,
        };
        let plain = Zeroizing::new(self.cipher.decrypt(&XNonce::from(nonce), payload).ok()?);
        cbor::decode(&plain).ok()
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
