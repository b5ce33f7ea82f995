//! What the hub remembers of each payment, device, card and of the store:
//! folds over ledger entries, and the values of the index.

use core::num::NonZeroU32;

use hub_protocol::entry::{
    ClockQuality, DecisionRecord, EntryTime, ParkReason, TraceRule, WanReason, WanState,
};
use hub_protocol::{
    CardScheme, Currency, DeviceId, Digest, GatewayResult, HubId, HubTlsKeys, KeyId, PaymentId,
    PaymentRequest, PaymentState, PaymentStatus, Receipt, Registration, TransactionType,
};
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::admission::Admission;
use crate::described::Described;
use crate::device_keys::DeviceKeys;
use crate::effect::Forward;
use crate::few::Few;
use crate::input::AttemptId;
use crate::queue::operation;
use crate::reserve::{AllowanceRecord, Reserved};
use crate::risk::{Held, Holder, Outcomes, Recent, Taps};
use crate::watch::{Alert, Seen, Watch};

/// Stands for a card in limits: the first 16 bytes of SHA-256 of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct CardKey(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl CardKey {
    /// The key of a token.
    pub fn of_token(token: &str) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&Digest::of(token.as_bytes()).0[..16]);
        Self(key)
    }
}

/// What a card, a device or the store has at risk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subject {
    /// Approved offline and not yet settled, in minor units.
    #[n(1)]
    pub exposure_minor: u64,
    /// How many payments that is.
    #[n(2)]
    pub unsettled: u32,
    /// Offline approvals since the gateway last approved a payment of this
    /// subject with nothing left unsettled but what is parked.
    #[n(3)]
    pub consecutive: u32,
    /// How many of the unsettled ones are parked, or wait to be presented to
    /// the issuer again.
    #[n(4)]
    pub parked: u32,
}

impl Subject {
    /// An offline approval counts from the decision on.
    pub(crate) fn approved_offline(&mut self, amount: u64) {
        self.exposure_minor = self.exposure_minor.saturating_add(amount);
        self.unsettled = self.unsettled.saturating_add(1);
        self.consecutive = self.consecutive.saturating_add(1);
    }

    /// A payment waits for a person, or for a retry: for days, maybe.
    pub(crate) fn set_aside(&mut self) {
        self.parked = self.parked.saturating_add(1);
    }

    /// A payment is no longer at risk.
    pub(crate) fn released(&mut self, amount: u64) {
        self.exposure_minor = self.exposure_minor.saturating_sub(amount);
        self.unsettled = self.unsettled.saturating_sub(1);
    }

    /// The gateway approved a payment of this subject. Only that, with
    /// nothing left unsettled but what is parked, ends a run of consecutive
    /// approvals. A parked payment may wait for a person for days; its
    /// exposure counts all the while.
    pub(crate) fn approved_by_gateway(&mut self) {
        if self.unsettled <= self.parked {
            self.consecutive = 0;
        }
    }
}

/// What the hub remembers of a card: what it has at risk, and which of its
/// payments are to be sent before which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CardRecord {
    /// What it has at risk.
    #[n(1)]
    pub subject: Subject,
    /// The places in the queue of what waits to be sent, ascending: the
    /// lowest of them, at most [`MOST_PLACES`].
    #[n(2)]
    pub waiting: Few<u64>,
    /// How many more wait, all of them behind those.
    #[n(3)]
    pub beyond: u32,
    /// What limits remember of it.
    #[n(4)]
    #[cbor(skip_if = "Velocity::is_blank")]
    pub velocity: Velocity,
    /// The day of its first approved payment under a policy that asks whether
    /// a card is new.
    #[n(5)]
    pub known_since_day: Option<Day>,
}

/// A day, as the number of days since 1970 UTC. `None` beside it takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(NonZeroU32);

impl Day {
    /// The day of this number; the last that can be told of those beyond.
    pub fn of(number: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.get() - 1
    }
}

impl<C> Encode<C> for Day {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        self.number().encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Day {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        u32::decode(d, ctx).map(Self::of)
    }
}

/// What limits remember of a card beside what it has at risk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Velocity {
    /// Its taps without verification.
    #[n(1)]
    pub taps: Taps,
    /// Its payments lately.
    #[n(2)]
    pub recent: Recent,
    /// The same as detectors see it, if the policy looks at cards.
    #[n(3)]
    pub seen: Few<Seen>,
}

impl Velocity {
    /// Whether there is nothing to remember.
    pub(crate) fn is_blank(&self) -> bool {
        *self == Self::default()
    }
}

/// How many places a card's record names. A policy allows a card a handful of
/// payments offline; a record must stay small in any case.
pub const MOST_PLACES: usize = 32;

impl CardRecord {
    /// A payment of this card waits to be sent.
    pub(crate) fn joins(&mut self, sequence: u64) {
        let at = self.waiting.partition_point(|place| *place < sequence);
        if at == self.waiting.len() && (self.beyond > 0 || at == MOST_PLACES) {
            self.beyond = self.beyond.saturating_add(1);
            return;
        }
        self.waiting.insert(at, sequence);
        if self.waiting.len() > MOST_PLACES {
            self.waiting.pop();
            self.beyond = self.beyond.saturating_add(1);
        }
    }

    /// A payment of this card waits no more.
    pub(crate) fn leaves(&mut self, sequence: u64) {
        match self.waiting.binary_search(&sequence) {
            Ok(at) => _ = self.waiting.remove(at),
            Err(_) => self.beyond = self.beyond.saturating_sub(1),
        }
    }

    /// Whether an approved payment of it is known.
    pub(crate) fn is_known(&self) -> bool {
        self.known_since_day.is_some()
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_blank(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a payment stands that is not final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// In the lane of its device, at this place.
    Waiting(DeviceId, u64),
    /// Parked; it was put into the queue at this place.
    Parked(u64),
    /// In no lane: being asked online, or kept for later. Few at any time.
    Held(PaymentId),
}

/// The decision and the entry that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Decided {
    /// The entry's sequence.
    #[n(1)]
    pub sequence: u64,
    /// The entry's digest.
    #[n(2)]
    pub digest: Digest,
    /// The entry's time.
    #[n(3)]
    pub time: EntryTime,
    /// The policy of the decision.
    #[n(4)]
    pub policy_version: u64,
    /// The decision.
    #[n(5)]
    pub record: DecisionRecord,
}

/// What the hub remembers of a payment.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct PaymentRecord {
    /// Which device asked.
    #[n(1)]
    pub device: DeviceId,
    /// SHA-256 over the signed request as received.
    #[n(2)]
    pub request_digest: Digest,
    /// The entry that holds the signed request.
    #[n(3)]
    pub request_sequence: u64,
    /// In minor units.
    #[n(4)]
    pub amount_minor: u64,
    /// ISO 4217.
    #[n(5)]
    pub currency: Currency,
    /// Which card.
    #[n(6)]
    pub card: CardKey,
    /// The card's scheme.
    #[n(7)]
    pub scheme: CardScheme,
    /// Where the payment stands.
    #[n(8)]
    pub state: PaymentState,
    /// The decision, once there is one.
    #[n(9)]
    pub decided: Option<Decided>,
    /// The gateway's final word, once there is one.
    #[n(10)]
    pub gateway: Option<GatewayResult>,
    /// The newest entry about this payment.
    #[n(11)]
    pub latest: u64,
    /// Its place in the queue: the entry that put it there.
    #[n(12)]
    pub queue_sequence: Option<u64>,
    /// Whether it counts as exposure.
    #[n(13)]
    pub exposed: bool,
    /// Whether the gateway was asked online before the decision, and so may
    /// have taken it.
    #[n(14)]
    pub asked_online: bool,
    /// Why it is parked, if it is.
    #[n(15)]
    pub parked: Option<ParkReason>,
    /// When its signed request was written down, milliseconds since 1970 UTC.
    /// Nothing was sent before.
    #[n(16)]
    pub received_ms: u64,
    /// Its declines, if it was presented again after one or is going to be.
    #[n(17)]
    pub retry: Option<Box<RetryRecord>>,
    /// The newest entry that parked it, released since or not: it has been
    /// sent, or may have been. Once a reversal waits: that parked the reversal.
    #[n(18)]
    pub parked_at: Option<u64>,
    /// How the holder stood to it.
    #[n(19)]
    pub holder: Option<Holder>,
    /// What its request stated beside it, if it did.
    #[n(20)]
    pub terms: Option<StatedTerms>,
    /// That the gateway did not have it, by the word of a person who released
    /// it.
    #[n(21)]
    pub not_there: Option<Box<NotThere>>,
}

/// A person's word that the gateway did not have a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NotThere {
    /// The entry that says so.
    #[n(1)]
    pub sequence: u64,
    /// When, milliseconds since 1970 UTC.
    #[n(2)]
    pub at_ms: u64,
}

/// What limits and receipts need of a request's
/// [`Terms`](hub_protocol::Terms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StatedTerms {
    /// What it was.
    #[n(1)]
    pub transaction_type: TransactionType,
    /// Who stood at the device.
    #[n(2)]
    pub staff: Option<StaffKey>,
}

/// Stands for a member of staff in limits: the first 16 bytes of SHA-256 of the
/// till's name for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct StaffKey(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl StaffKey {
    /// Of payments that name nobody: they count together, as one person's.
    pub const NOBODY: Self = Self([0; 16]);

    /// The key of a name.
    pub fn of(staff: Option<&str>) -> Self {
        staff.map_or(Self::NOBODY, |staff| {
            let mut key = [0; 16];
            key.copy_from_slice(&Digest::of(staff.as_bytes()).0[..16]);
            Self(key)
        })
    }
}

/// A payment that the issuer declined and that is presented again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RetryRecord {
    /// When it was declined, each time, oldest first, milliseconds since 1970
    /// UTC.
    #[n(1)]
    pub declined_ms: Vec<u64>,
    /// The response code of the last decline.
    #[n(2)]
    pub response_code: String,
    /// When it may be presented again, while it waits for that.
    #[n(3)]
    pub due_ms: Option<u64>,
    /// When it was put back into the queue last.
    #[n(4)]
    pub queued_ms: u64,
}

impl PaymentRecord {
    /// A payment that has just been received.
    pub(crate) fn received(device: DeviceId, request: &PaymentRequest, signed: &[u8], sequence: u64) -> Self {
        Self {
            device,
            request_digest: Digest::of(signed),
            request_sequence: sequence,
            amount_minor: request.amount_minor(),
            currency: request.currency,
            card: CardKey::of_token(&request.card.token),
            scheme: request.card.scheme,
            state: PaymentState::Open,
            decided: None,
            gateway: None,
            latest: sequence,
            queue_sequence: None,
            exposed: false,
            asked_online: false,
            parked: None,
            received_ms: 0,
            retry: None,
            parked_at: None,
            not_there: None,
            terms: request.terms.as_ref().map(|terms| StatedTerms {
                transaction_type: terms.transaction_type,
                staff: terms.staff.as_deref().map(|staff| StaffKey::of(Some(staff))),
            }),
            holder: Some(Holder::of(request)).filter(|holder| *holder != Holder::Other),
        }
    }

    /// Whose limits it counts for.
    pub fn staff(&self) -> StaffKey {
        self.terms
            .and_then(|terms| terms.staff)
            .unwrap_or(StaffKey::NOBODY)
    }

    /// When it was declined, each time.
    pub(crate) fn declined_ms(&self) -> &[u64] {
        self.retry.as_ref().map_or(&[], |retry| &retry.declined_ms)
    }

    /// Counts its presentations to the issuer, from 1.
    pub(crate) fn presentation(&self) -> u32 {
        u32::try_from(self.declined_ms().len()).map_or(u32::MAX, |declines| declines.saturating_add(1))
    }

    /// When it may be presented again, if it waits for that.
    pub(crate) fn retry_due_ms(&self) -> Option<u64> {
        self.retry.as_ref()?.due_ms
    }

    /// Since when the gateway may have this presentation of it: the entry from
    /// which on, and milliseconds since 1970 UTC.
    pub(crate) fn maybe_sent_since(&self) -> (u64, u64) {
        if let Some(word) = &self.not_there {
            return (word.sequence, word.at_ms);
        }
        let since_ms = self
            .retry
            .as_ref()
            .map_or(self.received_ms, |retry| retry.queued_ms);
        (self.request_sequence, since_ms)
    }

    /// The receipt: always the same for the same decision.
    pub fn receipt(&self, hub: HubId, payment_id: PaymentId) -> Option<Receipt> {
        let decided = self.decided.as_ref()?;
        Some(Receipt {
            hub,
            device: self.device,
            payment_id,
            request_digest: self.request_digest,
            amount_minor: self.amount_minor,
            currency: self.currency,
            decision: decided.record.decision,
            reason: match self.terms {
                Some(_) => decided.record.reason,
                None => decided.record.reason.in_receipts(),
            },
            fallback: decided.record.fallback,
            submission: decided.record.submission,
            gateway: decided.record.gateway.clone(),
            sequence: decided.sequence,
            entry_digest: decided.digest,
            time: decided.time,
            policy_version: decided.policy_version,
            transaction_type: self.terms.map(|terms| terms.transaction_type),
            score: decided.record.score.clone().filter(|_| self.terms.is_some()),
        })
    }

    /// Where the payment stands.
    pub fn status(&self, hub: HubId, payment_id: PaymentId) -> PaymentStatus {
        PaymentStatus {
            hub,
            payment_id,
            state: self.state,
            gateway: self.gateway.clone(),
            sequence: self.latest,
        }
    }

    /// Where it stands, if it is not final.
    pub(crate) fn place(&self, id: PaymentId) -> Option<Place> {
        if self.is_final() {
            return None;
        }
        Some(match (self.queue_sequence, self.parked) {
            (Some(sequence), None) => Place::Waiting(self.device, sequence),
            (Some(sequence), Some(_)) => Place::Parked(sequence),
            (None, _) => Place::Held(id),
        })
    }

    /// What is to be asked of the gateway next, for the first time: of one that
    /// is not final, by whoever sends it.
    pub fn forward(&self, payment_id: PaymentId) -> Forward {
        Forward {
            attempt: AttemptId(0),
            payment_id,
            operation: operation(self),
            request_sequence: self.request_sequence,
            device: self.device,
            decided_ms: self.decided.as_ref().map_or(0, |decided| decided.time.wall_ms),
            number: 1,
            presentation: self.presentation(),
            maybe_sent: true,
            traces: TraceRule::Entry,
            deadline_ms: 0,
        }
    }

    /// Whether nothing more will happen to it by itself.
    pub fn is_final(&self) -> bool {
        self.state.is_final()
    }

    /// Whether the sealed card may still be needed. After a decline it is
    /// not: authorisation has ended, and a further presentation goes without.
    pub fn needs_card(&self) -> bool {
        self.retry.is_none()
            && matches!(
                self.state,
                PaymentState::Open | PaymentState::Queued | PaymentState::Parked
            )
    }
}

/// What the hub remembers of a device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceRecord {
    /// As enrolled.
    #[n(1)]
    pub registration: Registration,
    /// Whether it is blocked.
    #[n(2)]
    pub blocked: bool,
    /// What it has at risk.
    #[n(3)]
    pub subject: Subject,
    /// How many of its payments wait to be sent and are not parked.
    #[n(4)]
    pub waiting: u32,
    /// Its payments lately, if its policy counts them.
    #[n(5)]
    pub recent: Option<Recent>,
    /// How its offline approvals ended.
    #[n(6)]
    pub outcomes: Option<Outcomes>,
    /// What detectors remember of it, if the policy looks for something. In a
    /// box: it is large.
    #[n(7)]
    pub watch: Option<Box<Watch>>,
    /// What it has said of itself, and a verifier of it.
    #[n(8)]
    pub described: Option<Box<Described>>,
    /// Its newest allowance, if it ever had one.
    #[n(9)]
    pub allowance: Option<Box<AllowanceRecord>>,
    /// The entry of the last misuse of an allowance, if nobody has lifted what
    /// that leads to.
    #[n(10)]
    pub misused_at: Option<u64>,
    /// How it was admitted, if not by a code of its own alone. In a box: few
    /// have it.
    #[n(30)]
    pub admission: Option<Box<Admission>>,
    /// The entry that says it sent card numbers in clear again and again, if
    /// nobody has lifted what that leads to. Apart from a misuse, which it must
    /// not hide.
    #[n(31)]
    pub card_numbers_at: Option<u64>,
    /// Its keys, if they have changed. In a box: few have it.
    #[n(32)]
    pub keys: Option<Box<DeviceKeys>>,
}

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
