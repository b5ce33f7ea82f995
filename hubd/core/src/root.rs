//! The root in force: whose policies count. Silence means no: a key that the
//! root does not delegate, an end that has passed, a root that cannot be read,
//! and nothing is approved offline.

use hub_protocol::entry::Event;
use hub_protocol::root::{Delegated, NotAuthorised, Root, SignedRoot, Term};
use hub_protocol::{DeviceList, Digest, KeyId};

use crate::core::Core;
use crate::effect::{OperatorReply, Reply, RootStanding};
use crate::input::Ticket;
use crate::policy::Policy;
use crate::state::State;

/// Why a policy may not come into force by the root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotByRoot {
    #[error("the root in force cannot be read: bring back the archive that holds it and start hubd again")]
    Unreadable,
    #[error("the policy is of tenant {found}, the root in force of {expected}")]
    Tenant { expected: String, found: String },
    #[error("{0}")]
    Key(#[from] NotAuthorised),
    #[error(
        "policy version {found} is older than version {least}, the oldest of this key that the root in force lets pass"
    )]
    TooOld { found: u64, least: u32 },
}

impl State {
    /// Whether a root decides whose policies count. Once there is one, there
    /// always is.
    pub fn has_root(&self) -> bool {
        self.store().root_sequence.is_some()
    }

    /// For how long a policy signed by this key counts in this store.
    fn term_of(&self, policy: &Policy, key: KeyId, store_id: &str) -> Result<Term, NotByRoot> {
        if !self.has_root() {
            return Ok(Term::ALWAYS);
        }
        let root = self.root().ok_or(NotByRoot::Unreadable)?;
        if policy.tenant != root.tenant {
            return Err(NotByRoot::Tenant {
                expected: root.tenant.clone(),
                found: policy.tenant.clone(),
            });
        }
        let term = root.term(key, Delegated::Policies, store_id)?;
        if policy.version < u64::from(term.least_version) {
            return Err(NotByRoot::TooOld {
                found: policy.version,
                least: term.least_version,
            });
        }
        Ok(term)
    }

    /// For how long the policy in force counts, beside what it says itself.
    pub(crate) fn policy_term(&self, store_id: &str) -> Term {
        match (self.policy(), self.policy_key()) {
            (Some(policy), Some(key)) => self.term_of(policy, key, store_id).unwrap_or(Term::NEVER),
            _ if self.has_root() => Term::NEVER,
            _ => Term::ALWAYS,
        }
    }
}

impl Core {
    /// For how long the policy in force counts, beside what it says itself.
    pub(crate) fn policy_term(&self) -> Term {
        self.state.policy_term(&self.settings.store_id)
    }

    /// Whether the policy in force counts now, as far as the root goes.
    pub(crate) fn policy_counts_by_root(&self) -> bool {
        let (term, now_ms) = (self.policy_term(), self.clock.effective_ms());
        (term.from_ms..term.until_ms).contains(&now_ms)
    }

    /// What the root says against a policy signed by this key, now.
    pub(crate) fn objection_of_root(&self, policy: &Policy, key: KeyId) -> Option<String> {
        let store = &self.settings.store_id;
        if let Err(error) = self.state.term_of(policy, key, store) {
            return Some(error.to_string());
        }
        let at_ms = self.clock.effective_ms();
        let judged = self
            .state
            .root()?
            .may_sign(key, Delegated::Policies, store, at_ms);
        judged.err().map(|error| error.to_string())
    }

    /// What the root says against a list of devices signed by this key, now.
    pub(crate) fn objection_of_root_to_list(&self, list: &DeviceList, key: KeyId) -> Option<String> {
        if !self.state.has_root() {
            return None;
        }
        let Some(root) = self.state.root() else {
            return Some(NotByRoot::Unreadable.to_string());
        };
        if root.tenant != list.tenant {
            return Some("the list is of another tenant than the root in force".to_owned());
        }
        let (store, at_ms) = (&self.settings.store_id, self.clock.effective_ms());
        let judged = root.may_sign(key, Delegated::DeviceLists, store, at_ms);
        judged.err().map(|error| error.to_string())
    }

    /// The version of the list that was taken last, which others have to
    /// follow; 0 once its key may sign none for this store any more, as for
    /// policies ([`version_to_follow`](Self::version_to_follow)).
    pub(crate) fn list_version_to_follow(&self) -> u64 {
        let Some(mark) = self.state.fleet().list else {
            return 0;
        };
        let store = &self.settings.store_id;
        let counts = self
            .state
            .root()
            .is_none_or(|root| root.term(mark.key, Delegated::DeviceLists, store).is_ok());
        if counts { mark.version } else { 0 }
    }

    /// The version in force, which others have to follow, whoever signs them,
    /// while its key is delegated for this store. Once it is not, versions
    /// begin anew with the next key's own ratchet, or a thief of the key who
    /// signed the highest version of all would keep everybody else out (the
    /// fast-forward attack, TUF 5.3.11).
    pub(crate) fn version_to_follow(&self) -> Option<u64> {
        let (policy, key) = (self.state.policy()?, self.state.policy_key()?);
        let root = self.state.root().filter(|root| root.tenant == policy.tenant)?;
        root.term(key, Delegated::Policies, &self.settings.store_id)
            .ok()?;
        Some(policy.version)
    }

    /// The first root, if the hub was installed with one and the ledger has
    /// none yet. Later the ledger alone says which is in force.
    pub(crate) fn pin_root(&mut self) {
        let Some(signed) = self.settings.pinned_root.take() else {
            return;
        };
        if self.state.has_root() {
            return;
        }
        if let Ok(root) = SignedRoot::parse(&signed)
            && root.verify_first().is_ok()
        {
            self.put_in_force(&root, signed, None);
        }
    }

    pub(crate) fn apply_root(&mut self, ticket: Ticket, operator: String, signed: Vec<u8>) {
        match self.next_root(&signed) {
            Ok(None) => self.root_reply(ticket, self.state.head().sequence),
            Ok(Some(root)) => {
                let sequence = self.put_in_force(&root, signed, Some(operator));
                self.root_reply(ticket, sequence);
            }
            Err(text) => self.operator_reply(ticket, OperatorReply::Refused(text)),
        }
    }

    /// The root in these bytes if it follows the one in force; nothing if it
    /// is the one in force.
    fn next_root(&self, signed: &[u8]) -> Result<Option<SignedRoot>, String> {
        let next = SignedRoot::parse(signed).map_err(|error| error.to_string())?;
        if !self.state.has_root() {
            return Err(
                "this hub obeys [policy] trusted_keys and has no root; name the first one as [policy] root_file \
                 in hubd.toml instead of them, and start hubd again"
                    .to_owned(),
            );
        }
        let before = self
            .state
            .root()
            .ok_or_else(|| NotByRoot::Unreadable.to_string())?;
        if self.state.root_digest() == Some(next.digest()) {
            return Ok(None);
        }
        next.verify_next(before).map_err(|error| error.to_string())?;
        Ok(Some(next))
    }

    fn put_in_force(&mut self, root: &SignedRoot, signed: Vec<u8>, operator: Option<String>) -> u64 {
        let event = Event::RootApplied {
            version: root.root().version,
            digest: root.digest(),
            root: signed,
            operator,
        };
        self.append(event, None, None)
    }

    fn root_reply(&mut self, ticket: Ticket, sequence: u64) {
        let reply = match self.root_standing() {
            Some(standing) => OperatorReply::RootInForce(standing),
            None => OperatorReply::Refused(NotByRoot::Unreadable.to_string()),
        };
        self.reply_after(sequence, ticket, Reply::Operator(reply));
    }

    /// The root in force, and how the policy in force stands to it.
    pub(crate) fn root_standing(&self) -> Option<RootStanding> {
        let root: &Root = self.state.root()?;
        let objection = match (self.state.policy(), self.state.policy_key()) {
            (Some(policy), Some(key)) => self.objection_of_root(policy, key),
            _ => None,
        };
        Some(RootStanding {
            version: root.version,
            digest: self.state.root_digest().unwrap_or(Digest::ZERO),
            expires_ms: root.expires_ms,
            policy_objection: objection,
        })
    }
}
