//! The offline decision: a pure function of the policy, the request and what
//! is already at risk. Rules are tried in the order of their reason numbers;
//! the first that stands against the payment gives the answer.

use hub_protocol::entry::DecisionRecord;
use hub_protocol::{
    Cryptogram, Currency, Decision, DeviceClass, EntryMode, FallbackAction, PaymentRequest, Reason,
    Submission, Verification,
};

use crate::policy::ceilings::{Fits, most_specific};
use crate::policy::{Policy, SubjectLimits};
use crate::state::Subject;

/// What is known when a payment is decided offline.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The policy, if there is one.
    pub policy: Option<&'a Policy>,
    /// The currency that the hub is configured for.
    pub currency: Currency,
    /// The class of the asking device.
    pub class: DeviceClass,
    /// What the card has at risk.
    pub card: Subject,
    /// What the device has at risk.
    pub device: Subject,
    /// What the store has at risk.
    pub store: Subject,
    /// Effective time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// How long the hub has been offline, in milliseconds.
    pub offline_ms: u64,
    /// Whether the clock is in doubt; then every amount and count is halved.
    pub clock_suspect: bool,
    /// Whether the queue can take another payment.
    pub queue_has_room: bool,
    /// Whether the disk is so full that what room is left is for what was
    /// accepted before.
    pub storage_full: bool,
}

/// A decision, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The decision.
    pub record: DecisionRecord,
    /// The highest amount that one payment of this kind may have now, minor
    /// units; `None` if there is no policy for it.
    pub effective_ceiling_minor: Option<u64>,
    /// Which of the policy's ceilings for kinds of payments that is, from 1 in
    /// the order of the file; `None` for the class's.
    pub ceiling: Option<usize>,
    /// The share of the signed ceilings that holds now, 0 to 100.
    pub percent: u64,
}

/// Decides a payment without the gateway.
#[must_use]
pub fn decide_offline(request: &PaymentRequest, situation: &Situation<'_>) -> DecisionRecord {
    assess_offline(request, situation).record
}

/// [`decide_offline`], and says what led to it.
#[must_use]
pub fn assess_offline(request: &PaymentRequest, situation: &Situation<'_>) -> Assessment {
    let limits = situation
        .policy
        .and_then(|policy| Limits::now(request, policy, situation));
    let record = match objection(request, situation, limits.as_ref()) {
        None => DecisionRecord {
            decision: Decision::ApprovedOffline,
            reason: Reason::None,
            fallback: None,
            submission: Some(submission(request.cryptogram)),
            gateway: None,
            reversal_queued: false,
        },
        Some(reason) => refuse(reason),
    };
    Assessment {
        record,
        effective_ceiling_minor: limits.map(|limits| limits.transaction),
        ceiling: limits.and_then(|limits| limits.ceiling),
        percent: limits.map_or(100, |limits| limits.percent),
    }
}

/// The record of a refusal: fallback where another way of paying by the same
/// card can help, declined otherwise.
#[must_use]
pub fn refuse(reason: Reason) -> DecisionRecord {
    let fallback = match reason {
        Reason::EntryModeNotAllowed => Some(FallbackAction::InsertCard),
        Reason::OnlinePinNotPossible
        | Reason::VerificationRequired
        | Reason::CardConsecutiveLowerLimit
        | Reason::DeviceConsecutiveLowerLimit
        | Reason::StoreConsecutiveLowerLimit => Some(FallbackAction::InsertCardEnterPin),
        _ => None,
    };
    let decision = if fallback.is_some() {
        Decision::Fallback
    } else {
        Decision::Declined
    };
    DecisionRecord {
        decision,
        reason,
        fallback,
        submission: None,
        gateway: None,
        reversal_queued: false,
    }
}

/// As what an offline approval goes to the gateway.
fn submission(cryptogram: Cryptogram) -> Submission {
    match cryptogram {
        Cryptogram::CardApproved => Submission::Advice,
        // A refused card never gets here; deferred is the kind that promises
        // least.
        Cryptogram::AsksOnline | Cryptogram::Refused => Submission::Deferred,
    }
}

/// The objections that hold whether or not the gateway answers.
pub fn objection_always(request: &PaymentRequest, currency: Currency) -> Option<Reason> {
    if request.cryptogram == Cryptogram::Refused {
        return Some(Reason::CardRefused);
    }
    (request.currency != currency).then_some(Reason::CurrencyNotAccepted)
}

/// The first rule, in order of precedence, that stands against the payment.
fn objection(request: &PaymentRequest, s: &Situation<'_>, limits: Option<&Limits>) -> Option<Reason> {
    if let Some(reason) = objection_always(request, s.currency) {
        return Some(reason);
    }
    if s.policy.is_some_and(|policy| policy.currency != request.currency) {
        return Some(Reason::CurrencyNotAccepted);
    }
    if !s.queue_has_room {
        return Some(Reason::QueueFull);
    }
    if s.storage_full {
        return Some(Reason::StorageFull);
    }
    let Some(policy) = s.policy else {
        return Some(Reason::NoPolicy);
    };
    // Without limits the class is not allowed, which is said first.
    objection_to_offline(policy, s)
        .or_else(|| objection_to_card(request, policy, s.now_ms))
        .or_else(|| objection_to_reading(request, policy, s, limits?))
        .or_else(|| objection_to_amount(request, s, limits?))
}

/// May this device approve anything offline now?
fn objection_to_offline(policy: &Policy, s: &Situation<'_>) -> Option<Reason> {
    if s.now_ms < policy.not_before_ms {
        Some(Reason::PolicyNotYetValid)
    } else if s.now_ms >= policy.expires_ms {
        Some(Reason::PolicyExpired)
    } else if !policy.offline.enabled {
        Some(Reason::OfflineDisabled)
    } else if !policy.classes.contains_key(&s.class) {
        Some(Reason::ClassNotAllowed)
    } else if s.offline_ms > policy.offline.longest_ms {
        Some(Reason::OfflineTooLong)
    } else {
        None
    }
}

/// May this card be approved offline?
fn objection_to_card(request: &PaymentRequest, policy: &Policy, now_ms: u64) -> Option<Reason> {
    let (card, rules) = (&request.card, &policy.offline);
    if policy.cards.is_excepted(&card.token, now_ms) {
        Some(Reason::CardOnExceptionList)
    } else if !rules.schemes.contains(&card.scheme) {
        Some(Reason::SchemeNotAllowed)
    } else if !rules.funding.contains(&card.funding) {
        Some(Reason::FundingNotAllowed)
    } else if !policy.cards.country_passes(card) {
        Some(Reason::CountryNotAllowed)
    } else if !policy.cards.bin_passes(card) {
        Some(Reason::BinNotAllowed)
    } else {
        None
    }
}

/// May a card read and verified this way be approved offline?
fn objection_to_reading(
    request: &PaymentRequest,
    policy: &Policy,
    s: &Situation<'_>,
    limits: &Limits,
) -> Option<Reason> {
    let rules = &policy.offline;
    // Or the cashier would ask for a PIN that does not help.
    let limits = limits.by_clock(s);
    let amount = request.amount_minor();
    let unverified_tap =
        request.entry_mode == EntryMode::Contactless && request.verification == Verification::None;
    let tap_ceiling = limits.unverified_tap.filter(|_| unverified_tap);
    let pin_would_help = amount > limits.transaction && amount <= limits.transaction_by_pin;
    if !rules.entry_modes.contains(&request.entry_mode) {
        Some(Reason::EntryModeNotAllowed)
    } else if request.verification == Verification::OnlinePin {
        Some(Reason::OnlinePinNotPossible)
    } else if tap_ceiling.is_some_and(|ceiling| amount > ceiling) || pin_would_help {
        Some(Reason::VerificationRequired)
    } else {
        None
    }
}

/// Is there room under the ceilings and counts?
fn objection_to_amount(request: &PaymentRequest, s: &Situation<'_>, limits: &Limits) -> Option<Reason> {
    let amount = request.amount_minor();
    let full = limits.first_passed(amount, s);
    if full.is_some() {
        return full;
    }
    let limits = limits.by_clock(s);
    if limits.first_passed(amount, s).is_some() {
        return Some(Reason::ClockInDoubt);
    }
    let verified = matches!(
        request.verification,
        Verification::OfflinePin | Verification::Cdcvm
    );
    if verified {
        None
    } else {
        limits.first_lower_reached(s)
    }
}

/// The ceilings and counts for one payment, now.
#[derive(Clone, Copy, Debug)]
struct Limits {
    transaction: u64,
    /// The same if the card were inserted and the PIN entered.
    transaction_by_pin: u64,
    /// The highest amount for a tap without verification.
    unverified_tap: Option<u64>,
    ceiling: Option<usize>,
    percent: u64,
    card: SubjectLimits,
    device: SubjectLimits,
    store: SubjectLimits,
}

impl Limits {
    /// `None` for a class that the policy does not name.
    fn now(request: &PaymentRequest, policy: &Policy, s: &Situation<'_>) -> Option<Self> {
        let class = policy.classes.get(&s.class)?;
        let percent = policy.moving.percent(
            s.offline_ms,
            s.store.exposure_minor,
            policy.store.exposure_ceiling,
        );
        let moved = |amount: u64| share(amount, percent);
        let moved_subject = |limits: SubjectLimits| SubjectLimits {
            exposure_ceiling: moved(limits.exposure_ceiling),
            ..limits
        };
        let as_read = Fits::of(request, s.class, &policy.cards);
        let by_pin = Fits {
            entry_mode: Some(EntryMode::Chip),
            verification: Some(Verification::OfflinePin),
            ..as_read
        };
        let most = |kind: &Fits| {
            let found = most_specific(&policy.ceilings, kind);
            let amount = found.map_or(class.transaction_ceiling, |(_, ceiling)| ceiling.amount_minor);
            (found.map(|(number, _)| number), moved(amount))
        };
        let (ceiling, transaction) = most(&as_read);
        let chip = policy.offline.entry_modes.contains(&EntryMode::Chip);
        Some(Self {
            transaction,
            transaction_by_pin: if chip { most(&by_pin).1 } else { 0 },
            unverified_tap: policy.offline.contactless_unverified_ceiling,
            ceiling,
            percent,
            card: moved_subject(policy.card),
            device: moved_subject(class.device),
            store: policy.store,
        })
    }

    /// As they are while the clock is trusted, and half of all while it is in
    /// doubt.
    fn by_clock(&self, s: &Situation<'_>) -> Self {
        if s.clock_suspect { self.halved() } else { *self }
    }

    fn halved(&self) -> Self {
        let half = |limits: SubjectLimits| SubjectLimits {
            exposure_ceiling: limits.exposure_ceiling / 2,
            consecutive_limit: limits.consecutive_limit / 2,
            consecutive_lower_limit: limits.consecutive_lower_limit.map(|limit| limit / 2),
        };
        Self {
            transaction: self.transaction / 2,
            transaction_by_pin: self.transaction_by_pin / 2,
            unverified_tap: self.unverified_tap.map(|ceiling| ceiling / 2),
            card: half(self.card),
            device: half(self.device),
            store: half(self.store),
            ..*self
        }
    }

    fn first_passed(&self, amount: u64, s: &Situation<'_>) -> Option<Reason> {
        let over = |subject: &Subject, limits: &SubjectLimits| {
            subject
                .exposure_minor
                .checked_add(amount)
                .is_none_or(|sum| sum > limits.exposure_ceiling)
        };
        let too_many =
            |subject: &Subject, limits: &SubjectLimits| subject.consecutive >= limits.consecutive_limit;
        first(&[
            (amount > self.transaction, Reason::TransactionCeiling),
            (over(&s.card, &self.card), Reason::CardCeiling),
            (over(&s.device, &self.device), Reason::DeviceCeiling),
            (over(&s.store, &self.store), Reason::StoreCeiling),
            (too_many(&s.card, &self.card), Reason::CardConsecutiveLimit),
            (too_many(&s.device, &self.device), Reason::DeviceConsecutiveLimit),
            (too_many(&s.store, &self.store), Reason::StoreConsecutiveLimit),
        ])
    }

    /// The first lower limit that a payment without verification has reached.
    fn first_lower_reached(&self, s: &Situation<'_>) -> Option<Reason> {
        let reached = |subject: &Subject, limits: &SubjectLimits| {
            limits
                .consecutive_lower_limit
                .is_some_and(|limit| subject.consecutive >= limit)
        };
        first(&[
            (reached(&s.card, &self.card), Reason::CardConsecutiveLowerLimit),
            (
                reached(&s.device, &self.device),
                Reason::DeviceConsecutiveLowerLimit,
            ),
            (reached(&s.store, &self.store), Reason::StoreConsecutiveLowerLimit),
        ])
    }
}

fn first(rules: &[(bool, Reason)]) -> Option<Reason> {
    let against = rules.iter().find(|(stands_against, _)| *stands_against);
    against.map(|(_, reason)| *reason)
}

/// So many percent of an amount, rounded down.
fn share(amount: u64, percent: u64) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(percent.min(100)) / 100).unwrap_or(amount)
}
