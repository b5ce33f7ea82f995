//! The key that the hub signs with, shared by all who sign: it can give way
//! to another while they work.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use ed25519_dalek::SigningKey;
use hub_protocol::{HubId, KeyChain};

/// The hub's signing key and the chain of those before it. Clones share them.
#[derive(Clone)]
pub struct KeyRing(Arc<RwLock<Held>>);

struct Held {
    signing: SigningKey,
    chain: KeyChain,
}

impl KeyRing {
    /// A key, the last of a chain.
    pub fn new(signing: SigningKey, chain: KeyChain) -> Self {
        Self(Arc::new(RwLock::new(Held { signing, chain })))
    }

    /// The only key that a hub has had.
    pub fn first(hub: HubId, signing: SigningKey) -> Self {
        let chain = KeyChain::new(Some(hub), signing.verifying_key());
        Self::new(signing, chain)
    }

    /// Signs something with the present key. What is signed about the
    /// ledger's end must have been read before this is called: the key of
    /// then or a later one signs it, never an earlier one.
    pub fn with<T>(&self, sign: impl FnOnce(&SigningKey) -> T) -> T {
        sign(&self.read().signing)
    }

    /// The present key.
    pub fn signing(&self) -> SigningKey {
        self.read().signing.clone()
    }

    /// The keys until now.
    pub fn chain(&self) -> KeyChain {
        self.read().chain.clone()
    }

    /// From now on this key, the last of that chain. Called by the ledger's
    /// writer, when the entry that says so is on disk and before there is
    /// another.
    pub(crate) fn change(&self, signing: SigningKey, chain: KeyChain) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Held { signing, chain };
    }

    fn read(&self) -> RwLockReadGuard<'_, Held> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KeyRing({} changes, secret hidden)",
            self.read().chain.changes()
        )
    }
}
