//! The root: who of headquarters may sign what for a tenant's stores.
//!
//! After The Update Framework (TUF, specification 1.0): a few root keys, held
//! offline by several people, delegate keys for daily use. A root counts once
//! a threshold of its keys has signed it; the next one, exactly one version
//! higher, must have the thresholds of both (TUF 5.3). Roots expire, so that
//! whoever withholds newer ones gains no time beyond that.

use minicbor::{Decode, Encode};

use ed25519_dalek::{SigningKey, VerifyingKey};

use crate::cbor::{self, CborError};
use crate::codes::codes;
use crate::cose::{self, CoseError, MAX_SIGNATURES, ObjectType, Several};
use crate::id::{Digest, KeyId};

mod authority;
#[cfg(test)]
mod tests;

pub use authority::{Authority, NotAuthorised, Term};

/// The longest root, without signatures, in bytes.
pub const MAX_ROOT: usize = 48 * 1024;

/// The longest signed root, in bytes.
pub const MAX_SIGNED_ROOT: usize = MAX_ROOT + 128 * MAX_SIGNATURES;

/// The most root keys.
pub const MAX_ROOT_KEYS: usize = 16;

/// The most delegated keys.
pub const MAX_DELEGATIONS: usize = 16;

/// The most stores of one delegation.
pub const MAX_STORES: usize = 256;

/// The longest tenant, name or store id, in bytes.
pub const MAX_ROOT_TEXT: usize = 64;

codes! {
    /// What a delegated key may sign.
    pub enum Delegated {
        /// Policies.
        Policies = 1, "policies";
        /// Lists of devices.
        DeviceLists = 2, "device-lists";
    }
}

/// Who may sign what for a tenant's stores.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Root {
    /// Whose stores: a policy must name the same.
    #[n(1)]
    pub tenant: String,
    /// 1, 2, 3 and so on, without gaps.
    #[n(2)]
    pub version: u32,
    /// From here on nothing that it delegates counts, milliseconds since 1970
    /// UTC.
    #[n(3)]
    pub expires_ms: u64,
    /// How many of its keys must have signed it, and the root after it.
    #[n(4)]
    pub threshold: u32,
    /// The root keys, each held by another person.
    #[n(5)]
    pub keys: Vec<RootKey>,
    /// The keys for daily use.
    #[n(6)]
    pub delegations: Vec<Delegation>,
}

/// A root key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RootKey {
    /// Who holds it, for people.
    #[n(1)]
    pub name: String,
    /// The Ed25519 public key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
}

/// A key for daily use, and what it may sign.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Delegation {
    /// Who or what holds it, for people.
    #[n(1)]
    pub name: String,
    /// The Ed25519 public key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// For which stores, by their ids; `*` stands for all of the tenant's.
    #[n(3)]
    pub stores: Vec<String>,
    /// What it may sign, in the order of the numbers, each once.
    #[n(4)]
    pub signs: Vec<Delegated>,
    /// What it signed counts from here, milliseconds since 1970 UTC.
    #[n(5)]
    pub not_before_ms: u64,
    /// And before this.
    #[n(6)]
    pub expires_ms: u64,
    /// Older versions of what it signed do not count. A hub that is installed
    /// anew remembers no version, and is told here.
    #[n(7)]
    pub least_version: Option<u32>,
}

/// Why a root is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Not a COSE_Sign in the form that the protocol has, or a signature under
    /// the id of a key that counts does not verify.
    #[error("{0}")]
    Cose(#[from] CoseError),
    /// Signed or not, not the encoding of a root.
    #[error("the content is no root: {0}")]
    Content(#[from] CborError),
    /// Longer than [`MAX_ROOT`] or, signed, [`MAX_SIGNED_ROOT`].
    #[error("longer than any root")]
    TooLong,
    /// A field is outside of what it may be.
    #[error("{0}")]
    Field(&'static str),
    /// A key stands in it twice.
    #[error("key {0} stands in it twice; one person, one key, and no root key is delegated")]
    KeyTwice(KeyId),
    /// A key is no point of the curve, or one of small order.
    #[error("the key of {0} is no Ed25519 public key that can be trusted; have it made by `hubctl keygen`")]
    WeakKey(String),
    /// Of another tenant than the root before it.
    #[error("this root is for tenant {found}, the one in force for {expected}")]
    Tenant {
        /// The tenant of the root in force.
        expected: String,
        /// This one's.
        found: String,
    },
    /// Not the next version.
    #[error("this is root {found}, and root {expected} comes next; roots are applied one after the other")]
    Version {
        /// The next one.
        expected: u64,
        /// This one.
        found: u32,
    },
    /// Too few of its own keys have signed it.
    #[error("{found} of the {needed} signatures that root {version} wants of its own keys")]
    OwnThreshold {
        /// This root's version.
        version: u32,
        /// How many have signed.
        found: usize,
        /// How many are needed.
        needed: u32,
    },
    /// Too few keys of the root before have signed it.
    #[error(
        "{found} of the {needed} signatures that are wanted of the keys of root {before}, the one before it"
    )]
    ThresholdBefore {
        /// The version of the root before.
        before: u32,
        /// How many have signed.
        found: usize,
        /// How many are needed.
        needed: u32,
    },
    /// There are as many signatures as there may be.
    #[error("it has {MAX_SIGNATURES} signatures, as many as there may be")]
    Full,
}

impl Root {
    /// Checks everything that the encoding does not.
    ///
    /// # Errors
    /// The first fault.
    pub fn check(&self) -> Result<(), RootError> {
        let field = |good: bool, fault: &'static str| {
            if good {
                Ok(())
            } else {
                Err(RootError::Field(fault))
            }
        };
        field(is_text(&self.tenant), "tenant: a name of 1 to 64 bytes expected")?;
        field(self.version > 0, "version: a whole number from 1 expected")?;
        field(
            (1..=MAX_ROOT_KEYS).contains(&self.keys.len()),
            "keys: 1 to 16 root keys expected",
        )?;
        field(
            (1..=self.keys.len()).contains(&(self.threshold as usize)),
            "threshold: a number from 1 to that of the root keys expected",
        )?;
        field(
            self.delegations.len() <= MAX_DELEGATIONS,
            "delegations: at most 16 keys expected",
        )?;
        for delegation in &self.delegations {
            delegation.check()?;
        }
        let mut seen: Vec<[u8; 32]> = Vec::new();
        for (name, key) in self.named_keys() {
            field(
                is_text(name),
                "name: 1 to 64 bytes without control characters expected",
            )?;
            if cose::verifying_key(key).is_none() {
                return Err(RootError::WeakKey(name.to_owned()));
            }
            if seen.contains(key) {
                return Err(RootError::KeyTwice(KeyId::of_key(key)));
            }
            seen.push(*key);
        }
        Ok(())
    }

    fn named_keys(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        let own = self.keys.iter().map(|key| (key.name.as_str(), &key.key));
        own.chain(self.delegations.iter().map(|key| (key.name.as_str(), &key.key)))
    }

    /// The delegation of a key, if there is one.
    pub fn delegation(&self, key: KeyId) -> Option<&Delegation> {
        self.delegations
            .iter()
            .find(|delegation| KeyId::of_key(&delegation.key) == key)
    }
}

impl Delegation {
    fn check(&self) -> Result<(), RootError> {
        let stores = (1..=MAX_STORES).contains(&self.stores.len())
            && self.stores.iter().all(|store| is_text(store))
            && in_order(&self.stores);
        let all = self.stores.iter().any(|store| store == "*");
        if !stores || (all && self.stores.len() > 1) {
            return Err(RootError::Field(
                "stores: 1 to 256 store ids in their order, each once, or \"*\" alone expected",
            ));
        }
        if self.signs.is_empty() || !in_order(&self.signs) {
            return Err(RootError::Field(
                "signs: at least one thing, in the order of the numbers, each once, expected",
            ));
        }
        if self.not_before_ms >= self.expires_ms {
            return Err(RootError::Field("expires: an instant after not_before expected"));
        }
        if self.least_version == Some(0) {
            return Err(RootError::Field(
                "least_version: a whole number from 1, or none, expected",
            ));
        }
        Ok(())
    }

    /// Whether it is for this store.
    pub fn covers(&self, store_id: &str) -> bool {
        self.stores.iter().any(|store| store == "*" || store == store_id)
    }
}

fn is_text(text: &str) -> bool {
    (1..=MAX_ROOT_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Ascending, each once.
fn in_order<T: PartialOrd>(items: &[T]) -> bool {
    items
        .iter()
        .zip(items.iter().skip(1))
        .all(|(one, next)| one < next)
}

/// A root and the signatures that have been collected for it
/// ([`ObjectType::Root`]). Its content is sound; whether enough have signed is
/// for [`verify_first`](Self::verify_first) and
/// [`verify_next`](Self::verify_next) to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRoot {
    root: Root,
    object: Several,
}

impl SignedRoot {
    /// A root that nobody has signed yet.
    ///
    /// # Errors
    /// As [`Root::check`], or it is too long.
    pub fn unsigned(root: Root) -> Result<Self, RootError> {
        root.check()?;
        let payload = cbor::encode(&root);
        if payload.len() > MAX_ROOT {
            return Err(RootError::TooLong);
        }
        Ok(Self {
            root,
            object: Several::unsigned(payload),
        })
    }

    /// Reads a root with its signatures, none of which is checked.
    ///
    /// # Errors
    /// The first fault: length, form, content.
    pub fn parse(bytes: &[u8]) -> Result<Self, RootError> {
        if bytes.len() > MAX_SIGNED_ROOT {
            return Err(RootError::TooLong);
        }
        let object = Several::parse(bytes)?;
        if object.payload().len() > MAX_ROOT {
            return Err(RootError::TooLong);
        }
        let root: Root = cbor::decode(object.payload())?;
        root.check()?;
        Ok(Self { root, object })
    }

    /// The file in which signatures are collected.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.object.to_bytes()
    }

    /// What it says. Of a root whose signatures were not checked: only for
    /// people to read.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// SHA-256 over the content, whoever has signed it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.object.payload())
    }

    /// The keys under whose ids there are signatures.
    pub fn kids(&self) -> impl Iterator<Item = KeyId> {
        self.object.kids()
    }

    /// Adds this key's signature, in place of one that it made before.
    ///
    /// # Errors
    /// There is no room for one more.
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), RootError> {
        match self.object.sign(key, ObjectType::Root) {
            true => Ok(()),
            false => Err(RootError::Full),
        }
    }

    /// Which of these keys have signed, in the order of `keys`. Signatures by
    /// others neither count nor harm: the root before, or the next, has them.
    ///
    /// # Errors
    /// One of the keys has a signature that does not verify: the file was
    /// damaged, or put together.
    pub fn signers<'k>(&self, keys: &'k [RootKey]) -> Result<Vec<&'k RootKey>, RootError> {
        let mut signers = Vec::new();
        for key in keys {
            let verifying =
                cose::verifying_key(&key.key).ok_or_else(|| RootError::WeakKey(key.name.clone()))?;
            if self.object.signed_by(&verifying, ObjectType::Root)? {
                signers.push(key);
            }
        }
        Ok(signers)
    }

    /// Checks a root that is trusted because it was installed: it has the
    /// threshold of its own keys.
    ///
    /// # Errors
    /// It has not.
    pub fn verify_first(&self) -> Result<&Root, RootError> {
        let found = self.signers(&self.root.keys)?.len();
        if found < self.root.threshold as usize {
            return Err(RootError::OwnThreshold {
                version: self.root.version,
                found,
                needed: self.root.threshold,
            });
        }
        Ok(&self.root)
    }

    /// Checks a root that follows another (TUF 5.3.4 and 5.3.5): of the same
    /// tenant, exactly one version higher, and with the thresholds of both.
    /// Whether it has expired is not asked: the next one may be at hand.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn verify_next(&self, before: &Root) -> Result<&Root, RootError> {
        if self.root.tenant != before.tenant {
            return Err(RootError::Tenant {
                expected: before.tenant.clone(),
                found: self.root.tenant.clone(),
            });
        }
        let expected = u64::from(before.version) + 1;
        if u64::from(self.root.version) != expected {
            return Err(RootError::Version {
                expected,
                found: self.root.version,
            });
        }
        let found = self.signers(&before.keys)?.len();
        if found < before.threshold as usize {
            return Err(RootError::ThresholdBefore {
                before: before.version,
                found,
                needed: before.threshold,
            });
        }
        self.verify_first()
    }
}

/// The verifying keys of some public keys; those that cannot be trusted are
/// left out.
fn verifying<'k>(keys: impl Iterator<Item = &'k [u8; 32]>) -> Vec<VerifyingKey> {
    keys.filter_map(cose::verifying_key).collect()
}
