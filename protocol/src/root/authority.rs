//! The one question: may this key sign this, for this store, now?

use ed25519_dalek::VerifyingKey;

use super::{Delegated, Root, verifying};
use crate::id::KeyId;

/// Whom a hub obeys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The keys in its configuration, for everything and without end.
    Keys(Vec<VerifyingKey>),
    /// A root that was verified.
    Root(Box<Root>),
}

/// For how long what a key has signed counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// From here, milliseconds since 1970 UTC.
    pub from_ms: u64,
    /// Before this.
    pub until_ms: u64,
    /// Lower versions do not.
    pub least_version: u32,
}

impl Term {
    /// Always.
    pub const ALWAYS: Self = Self {
        from_ms: 0,
        until_ms: u64::MAX,
        least_version: 0,
    };

    /// Never.
    pub const NEVER: Self = Self {
        from_ms: 0,
        until_ms: 0,
        least_version: 0,
    };
}

/// Why a key may not sign something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAuthorised {
    /// The configuration does not name it.
    #[error("key {0} is not among [policy] trusted_keys")]
    NotTrusted(KeyId),
    /// The root in force does not name it.
    #[error(
        "key {key} is not delegated by root {root}, the one in force; if a newer root does, `hubctl root apply` it first"
    )]
    NotDelegated {
        /// The key.
        key: KeyId,
        /// The root's version.
        root: u32,
    },
    /// It may sign other things.
    #[error("key {key} may not sign {what} by root {root}")]
    OtherThings {
        /// The key.
        key: KeyId,
        /// What it was to sign.
        what: Delegated,
        /// The root's version.
        root: u32,
    },
    /// It is for other stores.
    #[error("key {key} is not for this store ({store}) by root {root}")]
    OtherStore {
        /// The key.
        key: KeyId,
        /// This store's id.
        store: String,
        /// The root's version.
        root: u32,
    },
    /// Its time has not begun.
    #[error("key {key} does not count yet by root {root}; try again then")]
    NotYet {
        /// The key.
        key: KeyId,
        /// The root's version.
        root: u32,
    },
    /// Its time, or the root's, is over.
    #[error(
        "key {key} counts no more: it, or root {root} that delegates it, has expired; `hubctl root apply` the next root"
    )]
    Expired {
        /// The key.
        key: KeyId,
        /// The root's version.
        root: u32,
    },
}

impl Authority {
    /// The keys whose signatures under what they may sign are worth a look.
    /// Whether one counts is for [`may_sign`](Self::may_sign).
    pub fn keys(&self, what: Delegated) -> Vec<VerifyingKey> {
        match self {
            Self::Keys(keys) => keys.clone(),
            Self::Root(root) => {
                let may = root.delegations.iter().filter(|one| one.signs.contains(&what));
                verifying(may.map(|one| &one.key))
            }
        }
    }

    /// For how long what this key signs counts for this store.
    ///
    /// # Errors
    /// It never does.
    pub fn term(&self, key: KeyId, what: Delegated, store_id: &str) -> Result<Term, NotAuthorised> {
        let root = match self {
            Self::Keys(keys) if keys.iter().any(|known| KeyId::of_key(known.as_bytes()) == key) => {
                return Ok(Term::ALWAYS);
            }
            Self::Keys(_) => return Err(NotAuthorised::NotTrusted(key)),
            Self::Root(root) => root,
        };
        root.term(key, what, store_id)
    }

    /// Whether this key may sign this for this store at this time,
    /// milliseconds since 1970 UTC. Its signature is the caller's to check.
    ///
    /// # Errors
    /// Why not.
    pub fn may_sign(
        &self,
        key: KeyId,
        what: Delegated,
        store_id: &str,
        at_ms: u64,
    ) -> Result<Term, NotAuthorised> {
        match self {
            Self::Keys(_) => self.term(key, what, store_id),
            Self::Root(root) => root.may_sign(key, what, store_id, at_ms),
        }
    }
}

impl Root {
    /// [`Authority::term`] by this root.
    ///
    /// # Errors
    /// It never counts.
    pub fn term(&self, key: KeyId, what: Delegated, store_id: &str) -> Result<Term, NotAuthorised> {
        let root = self.version;
        let delegation = self
            .delegation(key)
            .ok_or(NotAuthorised::NotDelegated { key, root })?;
        if !delegation.signs.contains(&what) {
            return Err(NotAuthorised::OtherThings { key, what, root });
        }
        if !delegation.covers(store_id) {
            let store = store_id.to_owned();
            return Err(NotAuthorised::OtherStore { key, store, root });
        }
        Ok(Term {
            from_ms: delegation.not_before_ms,
            until_ms: delegation.expires_ms.min(self.expires_ms),
            least_version: delegation.least_version.unwrap_or(0),
        })
    }

    /// [`Authority::may_sign`] by this root.
    ///
    /// # Errors
    /// Why not.
    pub fn may_sign(
        &self,
        key: KeyId,
        what: Delegated,
        store_id: &str,
        at_ms: u64,
    ) -> Result<Term, NotAuthorised> {
        let (term, root) = (self.term(key, what, store_id)?, self.version);
        if at_ms >= term.until_ms {
            Err(NotAuthorised::Expired { key, root })
        } else if at_ms < term.from_ms {
            Err(NotAuthorised::NotYet { key, root })
        } else {
            Ok(term)
        }
    }
}
