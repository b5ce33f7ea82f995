//! The keys that the hub signs with and is reached under, as far as this
//! device knows.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ed25519_dalek::VerifyingKey;
use hub_protocol::{
    CertificateKeys, Digest, HubId, KeyChain, KeyChainError, SignedKeyChange, SignedTlsKeys, TlsKeysError,
    TlsPins,
};

use crate::error::VerifyError;

/// What a device believes of its hub's keys. Clones share it: what the
/// client learns, the allowance knows too.
#[derive(Clone, Debug)]
pub struct HubKeys {
    /// Locked before `tls` where both are.
    chain: Arc<RwLock<KeyChain>>,
    tls: Arc<RwLock<TlsPins>>,
    /// Where the enrolment is kept, once it is.
    dir: Arc<Mutex<Option<PathBuf>>>,
}

impl PartialEq for HubKeys {
    fn eq(&self, other: &Self) -> bool {
        self.chain() == other.chain() && self.tls() == other.tls()
    }
}

impl Eq for HubKeys {}

impl HubKeys {
    pub(crate) fn new(hub: HubId, key: VerifyingKey) -> Self {
        Self {
            chain: Arc::new(RwLock::new(KeyChain::new(Some(hub), key))),
            tls: Arc::new(RwLock::new(TlsPins::new(hub))),
            dir: Arc::default(),
        }
    }

    /// The keys until now, the one in use last.
    pub fn chain(&self) -> KeyChain {
        self.chain.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the next changes, all or none. What is known already is passed
    /// over, and so is what was before the key that this device was enrolled
    /// under. Whether there was anything new.
    ///
    /// # Errors
    /// A statement that is not signed by the present key and the next one;
    /// [`KeyChainError::Untrusted`] if none has to do with a key that this
    /// device knows.
    pub(crate) fn learn(&self, changes: &[SignedKeyChange]) -> Result<bool, KeyChainError> {
        let mut present = self.chain.write().unwrap_or_else(PoisonError::into_inner);
        let chain = followed(&present, changes)?;
        let new = chain.current() != present.current();
        *present = chain;
        let mut pins = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        pins.signed_by_now(present.current());
        Ok(new)
    }

    /// Takes what a certificate says, all or nothing: whoever shows a change
    /// of the signing key without the next key's word on the TLS keys does not
    /// make the device forget the last one's. Whether there was anything new.
    ///
    /// # Errors
    /// As [`learn`](Self::learn) and [`learn_tls`](Self::learn_tls); what is
    /// known is then as it was.
    pub(crate) fn learn_both(&self, says: &CertificateKeys) -> Result<bool, VerifyError> {
        let mut present = self.chain.write().unwrap_or_else(PoisonError::into_inner);
        let chain = followed(&present, &says.changes)?;
        let mut pins = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        let new = pins.take(&says.keys, chain.current())? || chain.current() != present.current();
        *present = chain;
        Ok(new)
    }

    /// By which TLS keys the hub is known.
    pub fn tls(&self) -> TlsPins {
        self.tls.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a statement of the hub's TLS keys, signed by its present signing
    /// key. Whether it said anything new.
    ///
    /// # Errors
    /// [`TlsKeysError`]; what is known is then as it was.
    pub(crate) fn learn_tls(&self, keys: &SignedTlsKeys) -> Result<bool, TlsKeysError> {
        let present = self.chain.read().unwrap_or_else(PoisonError::into_inner);
        let mut pins = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        pins.take(keys, present.current())
    }

    /// The hub is known by this TLS key alone, until it states others.
    pub(crate) fn known_under(&self, key: Digest) {
        let mut pins = self.tls.write().unwrap_or_else(PoisonError::into_inner);
        *pins = TlsPins::under(pins.hub(), key);
    }

    pub(crate) fn keep_in(&self, dir: &Path) {
        *self.dir.lock().unwrap_or_else(PoisonError::into_inner) = Some(dir.to_owned());
    }

    pub(crate) fn dir(&self) -> Option<PathBuf> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The chain with these changes, but for what it knows already.
fn followed(present: &KeyChain, changes: &[SignedKeyChange]) -> Result<KeyChain, KeyChainError> {
    let mut chain = present.clone();
    let known = chain.statements(0);
    let mut reached = true;
    for change in changes.iter().filter(|change| !known.contains(change)) {
        reached = chain.follow(change)?;
    }
    reached.then_some(chain).ok_or(KeyChainError::Untrusted)
}
