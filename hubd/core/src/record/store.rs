//! What the hub remembers of the store.

use super::{Place, Subject};
use crate::reserve::Reserved;
use crate::risk::{Held, Outcomes, Recent};
use crate::watch::Alert;
use hub_protocol::entry::{ClockQuality, TraceRule, WanReason, WanState};
use hub_protocol::{CardScheme, Digest, HubId, HubTlsKeys, KeyId, PaymentState};
use minicbor::{Decode, Encode};

/// The newest policy version that a key has signed into force: the ratchet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyRatchet {
    /// The key.
    #[n(1)]
    pub key: KeyId,
    /// The highest version it has had in force.
    #[n(2)]
    pub version: u64,
}

/// What the hub remembers of the store as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoreRecord {
    /// What the store has at risk.
    #[n(1)]
    pub subject: Subject,
    /// How the hub stands to the gateway.
    #[n(2)]
    pub wan: WanState,
    /// Why.
    #[n(3)]
    pub wan_reason: WanReason,
    /// Since when the shop has done without the gateway: from the first
    /// offline approval, or from being found offline, until the gateway's
    /// next final answer. A probe alone proves nothing while payments wait.
    /// Milliseconds since 1970 UTC.
    #[n(4)]
    pub offline_since_ms: Option<u64>,
    /// The entry that holds the policy in force.
    #[n(5)]
    pub policy_sequence: Option<u64>,
    /// The policy in force; 0 for none.
    #[n(6)]
    pub policy_version: u64,
    /// The ratchet of each policy key.
    #[n(7)]
    pub ratchets: Vec<KeyRatchet>,
    /// The newest time in the ledger, milliseconds since 1970 UTC.
    #[n(8)]
    pub high_water_ms: u64,
    /// The trust in the clock written down last.
    #[n(9)]
    pub clock_quality: ClockQuality,
    /// What waits to be sent or for a person.
    #[n(10)]
    pub queue: QueueCounts,
    /// How far the ledger is archived; `None`: not at all.
    #[n(11)]
    pub archives: Option<ArchiveMarks>,
    /// The entry at which the effective time was set back last. Times in
    /// entries before it may lie in what is now the future.
    #[n(12)]
    pub set_back_at: Option<u64>,
    /// How offline approvals ended, of all and of each scheme.
    #[n(13)]
    pub outcomes: Option<StoreOutcomes>,
    /// The share of the signed ceilings that held last, if it was reduced.
    #[n(14)]
    pub held: Option<Held>,
    /// How things stand after anomalies.
    #[n(15)]
    pub alert: Option<Alert>,
    /// The supervisors' overrides that were used lately.
    #[n(16)]
    pub overrides: Option<Recent>,
    /// What is kept back for allowances, if anything.
    #[n(17)]
    pub reserved: Option<Reserved>,
    /// The highest sum that the hub itself may have let one card have at risk,
    /// since the store had nothing at risk; minor units. Nothing: not known.
    #[n(18)]
    pub hub_card_minor: Option<u64>,
    /// The entry that holds the root in force; `None`: there has never been
    /// one.
    #[n(19)]
    pub root_sequence: Option<u64>,
    /// The id of the vault key that the store's key was last wrapped under;
    /// `None`: of the first one.
    #[n(20)]
    #[cbor(with = "minicbor::bytes")]
    pub vault_key: Option<[u8; 8]>,
    /// The TLS keys under which the hub is reached; `None`: the one that it is
    /// named after.
    #[n(21)]
    pub tls_keys: Option<TlsKeysRecord>,
    /// The id of the recovery key that the store's key is wrapped under;
    /// `None`: of none.
    #[n(28)]
    #[cbor(with = "minicbor::bytes")]
    pub recovery_key: Option<[u8; 8]>,
    /// The entry since which the gateway has been gone without a break, and
    /// nothing was sent out of the queue: what was queued behind it has never
    /// left the hub. `None`: it is not gone, or the queue was sent all the
    /// same.
    #[n(29)]
    pub unsent_since: Option<u64>,
    /// Whether the ledger says that the gateway is back before anything is sent
    /// out of the queue. Older hubs did not wait for that.
    #[n(31)]
    #[cbor(skip_if = "not")]
    pub tells_before_sending: bool,
    /// How payments are named to an acquirer: by which rule those whose request
    /// stands behind which entry, ascending; at most [`MOST_TRACE_RULES`].
    #[n(30)]
    #[cbor(skip_if = "Vec::is_empty")]
    pub traces: Vec<TracesSince>,
}

fn not(yes: &bool) -> bool {
    !yes
}

/// The most changes of the trace rule in a ledger. Above them it changes no
/// more, whatever the dialect says: a payment that waits must keep its name.
pub const MOST_TRACE_RULES: usize = 256;

/// A rule by which payments are named to an acquirer, and from where on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TracesSince {
    /// The entry behind which it holds.
    #[n(1)]
    pub sequence: u64,
    /// The rule.
    #[n(2)]
    pub rule: TraceRule,
}

impl StoreRecord {
    /// The hub starts: from here on payments are named by this rule.
    pub(crate) fn traced_by(&mut self, rule: TraceRule, sequence: u64) {
        if self.traces_at(sequence) == rule || self.traces.len() >= MOST_TRACE_RULES {
            return;
        }
        self.traces.push(TracesSince { sequence, rule });
    }

    /// The rule for a payment whose request stands in this entry.
    pub fn traces_at(&self, request_sequence: u64) -> TraceRule {
        let since = self.traces.iter().rev();
        since
            .clone()
            .find(|since| since.sequence <= request_sequence)
            .map_or(TraceRule::Entry, |since| since.rule)
    }
}

/// The TLS keys under which a hub is reached.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TlsKeysRecord {
    /// Counts the statements of them.
    #[n(1)]
    pub number: u32,
    /// SHA-256 over the SubjectPublicKeyInfo of each, the newest first; one
    /// or two.
    #[n(2)]
    pub keys: Vec<Digest>,
    /// The entry that says so.
    #[n(3)]
    pub sequence: u64,
    /// Since when, milliseconds since 1970 UTC.
    #[n(4)]
    pub changed_ms: u64,
}

impl TlsKeysRecord {
    /// What devices are told of it.
    pub fn statement(&self, hub: HubId) -> HubTlsKeys {
        HubTlsKeys {
            hub,
            number: self.number,
            keys: self.keys.clone(),
            sequence: self.sequence,
            changed_ms: self.changed_ms,
        }
    }
}

/// How offline approvals ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StoreOutcomes {
    /// All of them.
    #[n(1)]
    pub all: Outcomes,
    /// By scheme; those without any are not there.
    #[n(2)]
    pub schemes: Vec<SchemeOutcomes>,
}

/// How offline approvals of a scheme ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SchemeOutcomes {
    /// The scheme.
    #[n(1)]
    pub scheme: CardScheme,
    /// How they ended.
    #[n(2)]
    pub outcomes: Outcomes,
}

impl StoreOutcomes {
    pub(crate) fn ended(&mut self, scheme: CardScheme, approved: bool, at_ms: u64) {
        self.all.ended(approved, at_ms);
        let found = self.schemes.iter_mut().find(|known| known.scheme == scheme);
        match found {
            Some(known) => known.outcomes.ended(approved, at_ms),
            None => {
                let mut outcomes = Outcomes::default();
                outcomes.ended(approved, at_ms);
                self.schemes.push(SchemeOutcomes { scheme, outcomes });
            }
        }
    }

    pub(crate) fn of(&self, scheme: CardScheme) -> Outcomes {
        let found = self.schemes.iter().find(|known| known.scheme == scheme);
        found.map_or_else(Outcomes::default, |known| known.outcomes)
    }
}

/// How far the ledger is archived. Everything goes oldest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ArchiveMarks {
    /// The last entry in an archive; 0 for none. Payments that ended up to
    /// there are changed no more.
    #[n(1)]
    pub through: u64,
    /// The last archive; 0 for none.
    #[n(2)]
    pub written: u32,
    /// The last archive that was copied away, with all before it.
    #[n(3)]
    pub exported: u32,
    /// The last archive that was removed from the disk, with all before it.
    #[n(4)]
    pub removed: u32,
}

/// How many payments wait, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct QueueCounts {
    /// Payments to be sent.
    #[n(1)]
    pub queued: u64,
    /// Reversals to be sent.
    #[n(2)]
    pub reversals_queued: u64,
    /// Payments and reversals that are parked.
    #[n(3)]
    pub parked: u64,
}

impl QueueCounts {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.queued
            .saturating_add(self.reversals_queued)
            .saturating_add(self.parked)
    }

    /// The count that a payment in this place and state belongs to.
    pub(crate) fn of(&mut self, place: Place, state: PaymentState) -> Option<&mut u64> {
        match (place, state) {
            (Place::Waiting(..), PaymentState::ReversalQueued) => Some(&mut self.reversals_queued),
            (Place::Waiting(..), _) => Some(&mut self.queued),
            (Place::Parked(_), _) => Some(&mut self.parked),
            (Place::Held(_), _) => None,
        }
    }
}

impl Default for StoreRecord {
    fn default() -> Self {
        Self {
            subject: Subject::default(),
            // A hub that has never asked the gateway asks it first.
            wan: WanState::Degraded,
            wan_reason: WanReason::Starting,
            offline_since_ms: None,
            policy_sequence: None,
            policy_version: 0,
            ratchets: Vec::new(),
            high_water_ms: 0,
            clock_quality: ClockQuality::Unsynchronised,
            queue: QueueCounts::default(),
            archives: None,
            set_back_at: None,
            outcomes: None,
            held: None,
            alert: None,
            overrides: None,
            reserved: None,
            hub_card_minor: None,
            root_sequence: None,
            vault_key: None,
            tls_keys: None,
            recovery_key: None,
            unsent_since: None,
            traces: Vec::new(),
            tells_before_sending: false,
        }
    }
}
