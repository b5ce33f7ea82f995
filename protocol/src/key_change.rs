//! A hub's signing key that gives way to another, and the chain of keys that
//! a ledger was signed with.

use ed25519_dalek::{SigningKey, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::commit::ProofError;
use crate::cose::{self, CoseError, ObjectType, Unverified};
use crate::id::{HubId, KeyId};

/// The most changes that are told in one frame.
pub const MOST_KEY_CHANGES: usize = 32;

/// The hub signs with another key from now on ([`ObjectType::HubKeyChange`]).
///
/// Signed twice: by the new key, which shows that the hub has it, and over
/// that by the old key, which hands over. It proves itself to whoever trusts
/// either of the two, whatever way it comes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HubKeyChange {
    /// Whose key.
    #[n(1)]
    pub hub: HubId,
    /// Counts a hub's changes from 1 without gaps.
    #[n(2)]
    pub number: u32,
    /// The Ed25519 public key until now.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub old_key: [u8; 32],
    /// The Ed25519 public key from now on.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub new_key: [u8; 32],
    /// The ledger entry that holds this statement: the last that the old key
    /// signs for.
    #[n(5)]
    pub sequence: u64,
    /// When, milliseconds since 1970 UTC.
    #[n(6)]
    pub changed_ms: u64,
}

impl HubKeyChange {
    /// Signs it with both keys.
    pub fn sign(&self, old: &SigningKey, new: &SigningKey) -> Vec<u8> {
        let by_new = cose::sign(new, ObjectType::HubKeyChange, &cbor::encode(self));
        cose::sign(old, ObjectType::HubKeyChange, &by_new)
    }

    /// Checks both signatures, each by the key that the statement names for
    /// it. Whether one of these keys is to be trusted is the caller's to see.
    ///
    /// # Errors
    /// The first fault: form, content, the old key's signature, the new one's.
    pub fn open(signed: &[u8]) -> Result<Self, ProofError> {
        let outer = Unverified::parse(signed)?;
        let claimed = Unverified::payload_of(outer.payload_unverified())?;
        let claimed: Self = cbor::decode(claimed)?;
        let key = |bytes: &[u8; 32]| cose::verifying_key(bytes).ok_or(CoseError::UnknownKey);
        let (old, new) = (key(&claimed.old_key)?, key(&claimed.new_key)?);
        let by_new = outer.verify(ObjectType::HubKeyChange, &old)?;
        cose::verify(&by_new, ObjectType::HubKeyChange, &new)?;
        Ok(claimed)
    }
}

/// A [`HubKeyChange`] as it is signed and sent.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct SignedKeyChange(#[cbor(with = "minicbor::bytes")] pub Vec<u8>);

/// The keys of one hub, one after the other, and the statements that link
/// them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyChain {
    /// `None` until something says.
    hub: Option<HubId>,
    /// How many changes there were before `first`, as far as is known.
    before: u32,
    first: VerifyingKey,
    links: Vec<Link>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    signed: SignedKeyChange,
    /// The last entry that the key before signs for.
    sequence: u64,
    changed_ms: u64,
    key: VerifyingKey,
}

/// Why a chain of keys does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyChainError {
    /// A statement that is none, or not signed by the keys it names.
    #[error("change {number} of the hub's signing key: {fault}")]
    Statement {
        /// Which, counted from 1.
        number: usize,
        /// What is wrong.
        fault: ProofError,
    },
    /// A statement that does not go on where the one before ended.
    #[error(
        "change {number} of the hub's signing key does not follow the one before it, or is another hub's"
    )]
    DoesNotFollow {
        /// Which, counted from 1.
        number: usize,
    },
    /// No key of the chain is the one that is trusted.
    #[error("the key that is trusted is none of those in the chain of this hub's signing keys")]
    Untrusted,
}

impl KeyChain {
    /// A hub whose key has not changed, as far as is known. Which hub that is
    /// may be left for the first statement to say.
    pub const fn new(hub: Option<HubId>, key: VerifyingKey) -> Self {
        Self {
            hub,
            before: 0,
            first: key,
            links: Vec::new(),
        }
    }

    /// The chain that statements link, first to last, if one of its keys is
    /// `trusted`. Without statements it is that key alone.
    ///
    /// From an early key, the later ones follow by the old keys' signatures;
    /// from a late key, the earlier ones by the new keys'.
    ///
    /// # Errors
    /// [`KeyChainError`], with the first statement that does not hold.
    pub fn linked(
        hub: Option<HubId>,
        trusted: &VerifyingKey,
        statements: &[SignedKeyChange],
    ) -> Result<Self, KeyChainError> {
        let Some(first) = statements.first() else {
            return Ok(Self::new(hub, *trusted));
        };
        let fault = |fault| KeyChainError::Statement { number: 1, fault };
        let first = HubKeyChange::open(&first.0).map_err(fault)?;
        let first = cose::verifying_key(&first.old_key).ok_or(fault(CoseError::UnknownKey.into()))?;
        let mut chain = Self::new(hub, first);
        for statement in statements {
            chain.push(statement)?;
        }
        let anchored = chain.keys().any(|key| key == trusted);
        anchored.then_some(chain).ok_or(KeyChainError::Untrusted)
    }

    /// Takes the next statement.
    ///
    /// # Errors
    /// [`KeyChainError`]; the chain is then as it was.
    pub fn push(&mut self, statement: &SignedKeyChange) -> Result<(), KeyChainError> {
        let number = self.next_number();
        let fault = |fault| KeyChainError::Statement { number, fault };
        let change = HubKeyChange::open(&statement.0).map_err(fault)?;
        let follows = self.hub.is_none_or(|hub| change.hub == hub)
            && usize::try_from(change.number) == Ok(number)
            && change.old_key == *self.current().as_bytes()
            && self.keys().all(|key| *key.as_bytes() != change.new_key)
            && change.sequence > self.links.last().map_or(0, |link| link.sequence);
        if !follows {
            return Err(KeyChainError::DoesNotFollow { number });
        }
        let key = cose::verifying_key(&change.new_key).ok_or(fault(CoseError::UnknownKey.into()))?;
        self.hub = Some(change.hub);
        self.links.push(Link {
            signed: statement.clone(),
            sequence: change.sequence,
            changed_ms: change.changed_ms,
            key,
        });
        Ok(())
    }

    /// Takes the next statement of a chain that may begin at any of a hub's
    /// keys, as a device's does that was enrolled under the key of the day.
    ///
    /// While there is no link, a statement that says how the first key came
    /// into use tells only how many there were before it, and one that names
    /// other keys is passed over: neither makes a key trusted. Once there is
    /// a link it is [`push`](Self::push), but for statements from before the
    /// first key, which are passed over still. `false` if nothing is known
    /// yet of how the statement and this chain hang together.
    ///
    /// # Errors
    /// [`KeyChainError`]; the chain is then as it was.
    pub fn follow(&mut self, statement: &SignedKeyChange) -> Result<bool, KeyChainError> {
        let number = self.next_number();
        let fault = |fault| KeyChainError::Statement { number, fault };
        let change = HubKeyChange::open(&statement.0).map_err(fault)?;
        let same_hub = self.hub.is_none_or(|hub| change.hub == hub);
        let before = change.number.checked_sub(1).filter(|_| same_hub);
        let before = before.ok_or(KeyChainError::DoesNotFollow { number })?;
        let first = self.first.as_bytes();
        if !self.links.is_empty() {
            if before < self.before {
                return Ok(true);
            }
        } else if change.new_key == *first {
            self.before = change.number;
            return Ok(true);
        } else if change.old_key != *first {
            return Ok(false);
        } else if self.before == 0 {
            let mut chain = self.clone();
            chain.before = before;
            chain.push(statement)?;
            *self = chain;
            return Ok(true);
        }
        self.push(statement).map(|()| true)
    }

    fn next_number(&self) -> usize {
        usize::try_from(self.before)
            .unwrap_or(usize::MAX)
            .saturating_add(self.links.len())
            .saturating_add(1)
    }

    /// Whose, if that is known.
    pub const fn hub(&self) -> Option<HubId> {
        self.hub
    }

    /// How many changes there have been, with those before the first key as
    /// far as they are known.
    pub fn changes(&self) -> u32 {
        let links = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        self.before.saturating_add(links)
    }

    /// The first key.
    pub const fn first(&self) -> &VerifyingKey {
        &self.first
    }

    /// The key that the hub signs with now.
    pub fn current(&self) -> &VerifyingKey {
        self.links.last().map_or(&self.first, |link| &link.key)
    }

    /// All keys, first to last.
    pub fn keys(&self) -> impl Iterator<Item = &VerifyingKey> {
        core::iter::once(&self.first).chain(self.links.iter().map(|link| &link.key))
    }

    /// Since when the present key has been in use, milliseconds since 1970
    /// UTC; `None` if it is the first.
    pub fn since_ms(&self) -> Option<u64> {
        self.links.last().map(|link| link.changed_ms)
    }

    /// The entry that ended the key before the present one.
    pub fn changed_at(&self) -> Option<u64> {
        self.links.last().map(|link| link.sequence)
    }

    /// The key that signs for a group of ledger entries that ends with this
    /// one.
    pub fn at(&self, sequence: u64) -> &VerifyingKey {
        let link = self.links.iter().rev().find(|link| link.sequence < sequence);
        link.map_or(&self.first, |link| &link.key)
    }

    /// The key of this id, if it was still in use when the ledger ended with
    /// the entry `sequence`. A key that has given way speaks for nothing that
    /// came later, whoever has it now; a later key speaks for all before.
    ///
    /// # Errors
    /// [`CoseError::UnknownKey`]: no key of the hub's, as far as is known, or
    /// one that had given way.
    pub fn holder(&self, kid: KeyId, sequence: u64) -> Result<&VerifyingKey, CoseError> {
        let ends = self.links.iter().map(|link| Some(link.sequence)).chain([None]);
        let (key, end) = self
            .keys()
            .zip(ends)
            .find(|(key, _)| KeyId::of_key(key.as_bytes()) == kid)
            .ok_or(CoseError::UnknownKey)?;
        match end {
            Some(end) if sequence > end => Err(CoseError::UnknownKey),
            _ => Ok(key),
        }
    }

    /// Checks an object that one of the keys signed, and that speaks of the
    /// ledger up to the entry that `sequence` finds in it.
    ///
    /// # Errors
    /// The first fault: form, key, signature, content, then a key that had
    /// given way by then.
    pub fn open<T>(
        &self,
        signed: &[u8],
        object: ObjectType,
        sequence: impl FnOnce(&T) -> u64,
    ) -> Result<T, ProofError>
    where
        T: Encode<()> + for<'b> Decode<'b, ()>,
    {
        let unverified = Unverified::parse(signed)?;
        let kid = unverified.kid();
        // Every key holds for entry 0.
        let payload = unverified.verify(object, self.holder(kid, 0)?)?;
        let content: T = cbor::decode(&payload)?;
        self.holder(kid, sequence(&content))?;
        Ok(content)
    }

    /// Whether a key of this id is in the chain.
    pub fn knows(&self, kid: KeyId) -> bool {
        self.keys().any(|key| KeyId::of_key(key.as_bytes()) == kid)
    }

    /// The statements of this chain after the hub's first `known`, first to
    /// last.
    pub fn statements(&self, known: u32) -> Vec<SignedKeyChange> {
        let known = usize::try_from(known.saturating_sub(self.before)).unwrap_or(usize::MAX);
        let after = self.links.iter().skip(known);
        after.map(|link| link.signed.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::commit::LedgerCommit;

    const HUB: HubId = HubId([7; 32]);

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn public(seed: u8) -> VerifyingKey {
        key(seed).verifying_key()
    }

    fn change(number: u32, old: u8, new: u8, sequence: u64) -> HubKeyChange {
        HubKeyChange {
            hub: HUB,
            number,
            old_key: public(old).to_bytes(),
            new_key: public(new).to_bytes(),
            sequence,
            changed_ms: 1,
        }
    }

    fn signed(number: u32, old: u8, new: u8, sequence: u64) -> SignedKeyChange {
        SignedKeyChange(change(number, old, new, sequence).sign(&key(old), &key(new)))
    }

    fn two() -> Vec<SignedKeyChange> {
        vec![signed(1, 1, 2, 10), signed(2, 2, 3, 20)]
    }

    #[test]
    fn a_chain_of_keys_holds_from_whichever_of_them_is_trusted() {
        for trusted in [1, 2, 3] {
            let chain = KeyChain::linked(Some(HUB), &public(trusted), &two()).unwrap();
            assert_eq!((chain.first(), chain.current()), (&public(1), &public(3)));
            for (sequence, seed) in [(1, 1), (10, 1), (11, 2), (20, 2), (21, 3)] {
                assert_eq!(chain.at(sequence), &public(seed), "{sequence}");
            }
        }
        let stranger = KeyChain::linked(Some(HUB), &public(4), &two());
        assert_eq!(stranger, Err(KeyChainError::Untrusted));
    }

    #[test]
    fn a_key_that_gave_way_speaks_for_nothing_later() {
        let chain = KeyChain::linked(Some(HUB), &public(1), &two()).unwrap();
        let of = |seed: u8| KeyId::of_key(public(seed).as_bytes());
        assert!(chain.holder(of(1), 10).is_ok() && chain.holder(of(2), 20).is_ok());
        assert!(
            chain.holder(of(3), 1).is_ok(),
            "a later key speaks for what came before"
        );
        for (seed, sequence) in [(1, 11), (2, 21), (4, 1)] {
            assert_eq!(chain.holder(of(seed), sequence), Err(CoseError::UnknownKey));
        }
    }

    #[test]
    fn a_change_must_be_signed_by_the_old_key_and_by_the_new_one() {
        let good = change(1, 1, 2, 10);
        for (old, new, fault) in [
            (9, 2, CoseError::UnknownKey),
            (1, 9, CoseError::UnknownKey),
            (2, 1, CoseError::UnknownKey),
        ] {
            let opened = HubKeyChange::open(&good.sign(&key(old), &key(new)));
            assert_eq!(opened, Err(ProofError::Commit(fault)), "{old} {new}");
        }
        let by_new_alone = cose::sign(&key(2), ObjectType::HubKeyChange, &cbor::encode(&good));
        assert!(HubKeyChange::open(&by_new_alone).is_err());
        let mut flipped = good.sign(&key(1), &key(2));
        let last = flipped.len() - 1;
        flipped[last] ^= 1;
        assert_eq!(
            HubKeyChange::open(&flipped),
            Err(ProofError::Commit(CoseError::BadSignature))
        );
        let commit = LedgerCommit {
            hub: HUB,
            first: 1,
            last: 1,
            last_digest: Digest::ZERO,
            receipts: None,
        };
        assert!(HubKeyChange::open(&commit.sign(&key(1))).is_err());
        assert_eq!(HubKeyChange::open(&good.sign(&key(1), &key(2))), Ok(good));
    }

    #[test]
    fn a_statement_that_does_not_go_on_where_the_last_ended_is_refused() {
        let start = KeyChain::linked(Some(HUB), &public(1), &two()).unwrap();
        let mut other_hub = change(3, 3, 4, 30);
        other_hub.hub = HubId([8; 32]);
        let other_hub = SignedKeyChange(other_hub.sign(&key(3), &key(4)));
        for (what, statement) in [
            ("a number left out", signed(4, 3, 4, 30)),
            ("a number again", signed(2, 3, 4, 30)),
            ("an older key", signed(3, 2, 4, 30)),
            ("an earlier entry", signed(3, 3, 4, 20)),
            ("back to a key that gave way", signed(3, 3, 1, 30)),
            ("another hub's", other_hub),
        ] {
            let mut chain = start.clone();
            let refused = chain.push(&statement);
            assert_eq!(refused, Err(KeyChainError::DoesNotFollow { number: 3 }), "{what}");
            assert_eq!(chain, start, "{what}");
        }
        let mut chain = start;
        chain.push(&signed(3, 3, 4, 30)).unwrap();
        assert_eq!((chain.changes(), chain.current()), (3, &public(4)));
    }

    #[test]
    fn a_chain_that_begins_at_a_later_key_follows_from_there_and_trusts_none_before() {
        let start = KeyChain::new(Some(HUB), public(2));
        let [came, gave_way] = [signed(1, 1, 2, 10), signed(2, 2, 3, 20)];
        // Told of all from the start, or of the later ones alone.
        for told in [vec![&came, &gave_way], vec![&gave_way]] {
            let mut chain = start.clone();
            assert!(told.iter().all(|statement| chain.follow(statement).unwrap()));
            assert_eq!((chain.changes(), chain.current()), (2, &public(3)));
            assert!(!chain.knows(KeyId::of_key(public(1).as_bytes())), "not trusted");
            assert_eq!(
                chain.statements(0),
                std::slice::from_ref(&gave_way),
                "its own alone"
            );
            assert!(chain.statements(2).is_empty());
            assert_eq!(chain.follow(&came), Ok(true), "told again, it changes nothing");
            assert_eq!((chain.changes(), chain.current()), (2, &public(3)));
            assert_eq!(chain.follow(&signed(3, 3, 4, 30)), Ok(true));
            let again = chain.follow(&signed(3, 3, 4, 30));
            assert_eq!(again, Err(KeyChainError::DoesNotFollow { number: 4 }));
        }
        // Keys that it does not know make nothing trusted, however they are linked.
        let mut chain = start.clone();
        assert_eq!(chain.follow(&signed(1, 8, 9, 10)), Ok(false));
        assert_eq!(chain, start);
        assert_eq!(chain.follow(&came), Ok(true));
        assert_eq!((chain.changes(), chain.current()), (1, &public(2)));
        let forged = change(2, 2, 9, 20).sign(&key(8), &key(9));
        assert!(
            chain.follow(&SignedKeyChange(forged)).is_err(),
            "signed by another"
        );
        let left_out = chain.follow(&signed(3, 2, 3, 30));
        assert_eq!(left_out, Err(KeyChainError::DoesNotFollow { number: 2 }));
        let mut other_hub = change(2, 2, 3, 20);
        other_hub.hub = HubId([8; 32]);
        let other_hub = SignedKeyChange(other_hub.sign(&key(2), &key(3)));
        for mut chain in [start, chain] {
            let before = chain.clone();
            assert!(chain.follow(&other_hub).is_err());
            assert_eq!(chain, before);
        }
    }
}
