//! The offline decision: a pure function of the policy, the request and what
//! is already at risk. Rules are tried in the order of their reason numbers;
//! the first that stands against the payment gives the answer.

use hub_protocol::entry::{DecisionRecord, Lifted};
use hub_protocol::root::Term;
use hub_protocol::score::Score;
use hub_protocol::{
    Cryptogram, Currency, Decision, DeviceClass, FallbackAction, KeyId, PaymentRequest, Reason, Restriction,
    Submission, Verification,
};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::instead::{refused, takes_pin};
use crate::limits::Limits;
use crate::policy::Policy;
use crate::policy::device::{Attestation, Standing};
use crate::policy::score::ScoreRules;
use crate::profile::Profile;
use crate::risk::{Declined, Held, Recent};
use crate::score;
use crate::state::{Subject, Velocity};

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
    /// What the member of staff at the device has at risk.
    pub staff: Subject,
    /// How the device stands to the rules for devices.
    pub standing: Standing,
    /// The supervisor who lets this payment pass a lower limit or a score, by
    /// an override that holds.
    pub supervisor: Option<KeyId>,
    /// The overrides that were used lately.
    pub overrides: Option<&'a Recent>,
    /// What else is remembered of the card.
    pub card_velocity: Option<&'a Velocity>,
    /// Whether the hub knows an approved payment of the card, as far as the
    /// policy asks.
    pub card_known: bool,
    /// The device's payments lately.
    pub device_recent: Option<&'a Recent>,
    /// How many payments are kept back for the device's allowance.
    pub device_reserved: u32,
    /// The most that one card can have at risk by allowances, minor units.
    pub allowed_card_minor: u64,
    /// The highest sum that the hub itself may have let one card have at risk,
    /// minor units.
    pub hub_card_minor: u64,
    /// The share of the ceilings that held last.
    pub held: Option<Held>,
    /// The shares of declines at replay.
    pub declined: Declined,
    /// What anomalies have led to in the store.
    pub store_restriction: Restriction,
    /// What they have led to at the device.
    pub device_restriction: Restriction,
    /// The points that anomalies have come to at the device.
    pub device_points: u64,
    /// What is usual in the shop, if the policy asks.
    pub profile: Option<&'a Profile>,
    /// How long the oldest payment has waited to be sent, milliseconds.
    pub oldest_unsent_ms: u64,
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
    /// For how long the policy counts, beside what it says itself: by the key
    /// that signed it.
    pub policy_term: Term,
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
    /// The limit for taps without verification that refused this payment, if
    /// one did.
    pub tap_limit: Option<TapLimit>,
}

/// What a policy limits of a card's taps without verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapLimit {
    /// What they add up to.
    Sum,
    /// How many in a row.
    Count,
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
    let score = score::of(request, situation);
    let approved = |lifted| DecisionRecord {
        decision: Decision::ApprovedOffline,
        submission: Some(submission(request.cryptogram)),
        lifted,
        ..refuse(Reason::None)
    };
    let limits_now = limits.as_ref();
    let scored = score
        .as_ref()
        .zip(situation.policy.and_then(|policy| policy.score.as_ref()));
    let by_upper = objection(request, situation, limits_now, score.as_ref());
    let by_lower = || limits_now.and_then(|limits| objection_by_lower(request, situation, limits, scored));
    let mut record = match by_upper.or_else(by_lower) {
        None => approved(None),
        Some(reason) => match supervisor(situation).filter(|_| may_be_lifted(reason, situation)) {
            Some(supervisor) => approved(Some(Lifted { reason, supervisor })),
            None => refused(reason, request, situation, limits_now),
        },
    };
    record.percent = limits
        .as_ref()
        .and_then(|limits| u8::try_from(limits.store_percent).ok())
        .filter(|percent| *percent < 100);
    record.moved_percent = limits
        .as_ref()
        .filter(|limits| limits.store_moved_percent > limits.store_percent)
        .and_then(|limits| u8::try_from(limits.store_moved_percent).ok());
    record.score = score.map(Box::new);
    let tapped = record.reason == Reason::CardContactlessLimit;
    Assessment {
        record,
        effective_ceiling_minor: limits.map(|limits| limits.transaction),
        ceiling: limits.and_then(|limits| limits.ceiling),
        percent: limits.map_or(100, |limits| limits.percent),
        tap_limit: situation
            .policy
            .filter(|_| tapped)
            .and_then(|policy| tap_limit_passed(request, policy, situation)),
    }
}

/// The record of a refusal: fallback where another way of paying by the same
/// card can help, declined otherwise. Whether it does help at that device is
/// looked at where a payment is assessed.
#[must_use]
pub fn refuse(reason: Reason) -> DecisionRecord {
    let fallback = match reason {
        Reason::EntryModeNotAllowed => Some(FallbackAction::InsertCard),
        Reason::OnlinePinNotPossible
        | Reason::VerificationRequired
        | Reason::CardContactlessLimit
        | Reason::CardConsecutiveLowerLimit
        | Reason::DeviceConsecutiveLowerLimit
        | Reason::StoreConsecutiveLowerLimit
        | Reason::StaffConsecutiveLowerLimit
        | Reason::ScoreVerification => Some(FallbackAction::InsertCardEnterPin),
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
        percent: None,
        score: None,
        lifted: None,
        allowance: None,
        moved_percent: None,
    }
}

/// As what an offline approval goes to the gateway.
pub(crate) fn submission(cryptogram: Cryptogram) -> Submission {
    match cryptogram {
        Cryptogram::CardApproved => Submission::Advice,
        // A refused card never gets here; deferred is the kind that promises
        // least.
        Cryptogram::AsksOnline | Cryptogram::Refused => Submission::Deferred,
    }
}

/// The objections that hold whether or not the gateway answers.
pub fn objection_always(request: &PaymentRequest, currency: Currency) -> Option<Reason> {
    if request.terms.as_ref().is_some_and(|terms| terms.training) {
        return Some(Reason::TrainingMode);
    }
    if request.cryptogram == Cryptogram::Refused {
        return Some(Reason::CardRefused);
    }
    (request.currency != currency).then_some(Reason::CurrencyNotAccepted)
}

/// The first rule, in order of precedence, that stands against the payment.
fn objection(
    request: &PaymentRequest,
    s: &Situation<'_>,
    limits: Option<&Limits>,
    score: Option<&Score>,
) -> Option<Reason> {
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
        .or_else(|| objection_to_transaction(request, policy))
        .or_else(|| objection_to_card(request, policy, s.now_ms))
        .or_else(|| objection_to_reading(request, policy, s, limits?))
        .or_else(|| objection_to_tap(request, policy, s))
        .or_else(|| objection_to_amount(request, s, limits?, score.zip(policy.score.as_ref())))
}

/// May this device approve anything offline now?
pub(crate) fn objection_to_offline(policy: &Policy, s: &Situation<'_>) -> Option<Reason> {
    if s.now_ms < policy.not_before_ms.max(s.policy_term.from_ms) {
        Some(Reason::PolicyNotYetValid)
    } else if s.now_ms >= policy.expires_ms.min(s.policy_term.until_ms) {
        Some(Reason::PolicyExpired)
    } else if !policy.offline.enabled {
        Some(Reason::OfflineDisabled)
    } else if !policy.classes.contains_key(&s.class) {
        Some(Reason::ClassNotAllowed)
    } else if s.offline_ms > policy.offline.longest_ms {
        Some(Reason::OfflineTooLong)
    } else if policy
        .offline
        .oldest_unsent_ms
        .is_some_and(|most| s.oldest_unsent_ms > most)
    {
        Some(Reason::UnsentTooLong)
    } else if s.store_restriction == Restriction::Stopped {
        Some(Reason::StoreSuspended)
    } else if s.device_restriction == Restriction::Stopped {
        Some(Reason::DeviceSuspended)
    } else if policy
        .hours
        .as_ref()
        .is_some_and(|hours| !hours.approve_outside && !hours.open(s.now_ms))
    {
        Some(Reason::OutsideHours)
    } else if !s.standing.certified {
        Some(Reason::ModelNotCertified)
    } else if s.standing.attestation == Attestation::Missing {
        Some(Reason::AttestationMissing)
    } else {
        None
    }
}

/// May this be asked for?
fn objection_to_transaction(request: &PaymentRequest, policy: &Policy) -> Option<Reason> {
    let allowed = policy
        .offline
        .transaction_types
        .contains(&request.transaction_type());
    (!allowed).then_some(Reason::TransactionTypeNotAllowed)
}

/// May this card be approved offline?
fn objection_to_card(request: &PaymentRequest, policy: &Policy, now_ms: u64) -> Option<Reason> {
    let (card, rules) = (&request.card, &policy.offline);
    if policy.cards.is_excepted(&card.token, now_ms) {
        Some(Reason::CardOnExceptionList)
    } else if !rules.expired_cards && has_expired(request, now_ms) {
        Some(Reason::CardExpired)
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

/// Whether the card says that its last month is over, by UTC.
fn has_expired(request: &PaymentRequest, now_ms: u64) -> bool {
    let expiry = request.terms.as_ref().and_then(|terms| terms.card_expiry);
    let now = i64::try_from(now_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let (Some(expiry), Some(now)) = (expiry, now) else {
        return false;
    };
    let today = now.to_zoned(TimeZone::UTC).date();
    let months = |year: i32, month: i32| year * 12 + month;
    months(today.year().into(), today.month().into()) > months(expiry.year().into(), expiry.month().into())
}

/// May a card read and verified this way be approved offline?
fn objection_to_reading(
    request: &PaymentRequest,
    policy: &Policy,
    s: &Situation<'_>,
    limits: &Limits,
) -> Option<Reason> {
    let rules = &policy.offline;
    // Or the cashier would ask for what does not help.
    let limits = limits.by_clock(s);
    let amount = request.amount_minor();
    let tap_ceiling = limits.unverified_tap.filter(|_| request.is_unverified_tap());
    let too_high = amount > limits.transaction;
    let pin_helps = limits.passes_by_pin(amount);
    // Who has been verified is not sent to be verified otherwise.
    let own_device_helps = !request.strongly_verified() && limits.passes_by_own_device(amount);
    let helps = pin_helps || own_device_helps;
    let too_high_for_a_tap = tap_ceiling.is_some_and(|ceiling| amount > ceiling);
    if !rules.entry_modes.contains(&request.entry_mode) {
        Some(Reason::EntryModeNotAllowed)
    } else if request.verification == Verification::OnlinePin {
        Some(Reason::OnlinePinNotPossible)
    } else if request.verification == Verification::OfflinePin && !takes_pin(s) {
        Some(Reason::PinOnGlassNotAllowed)
    } else if (too_high || too_high_for_a_tap) && helps {
        Some(Reason::VerificationRequired)
    } else {
        // Too high whoever is verified: the ceiling says so.
        None
    }
}

/// May this card be tapped once more without the holder being verified?
fn objection_to_tap(request: &PaymentRequest, policy: &Policy, s: &Situation<'_>) -> Option<Reason> {
    tap_limit_passed(request, policy, s).map(|_| Reason::CardContactlessLimit)
}

/// The limit for taps without verification that this one would pass: of both,
/// the sum's.
fn tap_limit_passed(request: &PaymentRequest, policy: &Policy, s: &Situation<'_>) -> Option<TapLimit> {
    if !request.is_unverified_tap() {
        return None;
    }
    let taps = s.card_velocity.map(|velocity| velocity.taps).unwrap_or_default();
    let sum = taps.sum_minor.saturating_add(request.amount_minor());
    let half = |limit: u64| if s.clock_suspect { limit / 2 } else { limit };
    let too_much = policy
        .taps
        .cumulative_ceiling
        .is_some_and(|most| sum > half(most));
    let too_often = policy
        .taps
        .consecutive_limit
        .is_some_and(|most| u64::from(taps.count) >= half(u64::from(most)));
    if too_much {
        Some(TapLimit::Sum)
    } else {
        too_often.then_some(TapLimit::Count)
    }
}

/// Is there room under the ceilings and counts, and the payment no risk?
fn objection_to_amount(
    request: &PaymentRequest,
    s: &Situation<'_>,
    limits: &Limits,
    scored: Option<(&Score, &ScoreRules)>,
) -> Option<Reason> {
    let amount = request.amount_minor();
    let full = limits.first_passed(amount, s);
    if full.is_some() {
        return full;
    }
    let limits = limits.by_clock(s);
    if limits.first_passed(amount, s).is_some() {
        return Some(Reason::ClockInDoubt);
    }
    scored.and_then(|(score, rules)| score::is_too_high(rules, score))
}

/// Is the holder to be verified, or a supervisor asked?
fn objection_by_lower(
    request: &PaymentRequest,
    s: &Situation<'_>,
    limits: &Limits,
    scored: Option<(&Score, &ScoreRules)>,
) -> Option<Reason> {
    if request.strongly_verified() {
        return None;
    }
    let by_score = || scored.and_then(|(score, rules)| score::asks_for_pin(rules, score));
    limits.by_clock(s).first_lower_reached(s).or_else(by_score)
}

/// Whether a supervisor may let a payment pass that this stands against.
fn may_be_lifted(reason: Reason, s: &Situation<'_>) -> bool {
    match reason {
        Reason::CardConsecutiveLowerLimit
        | Reason::DeviceConsecutiveLowerLimit
        | Reason::StoreConsecutiveLowerLimit
        | Reason::StaffConsecutiveLowerLimit
        | Reason::ScoreVerification => true,
        // It is looked at last, so that no ceiling stands behind it.
        Reason::ScoreTooHigh => s
            .policy
            .and_then(|policy| policy.score.as_ref())
            .is_some_and(|rules| rules.override_lifts_decline),
        _ => false,
    }
}

/// The supervisor whose override counts, as long as there are not too many.
fn supervisor(s: &Situation<'_>) -> Option<KeyId> {
    let window = s.policy?.overrides.as_ref()?.window;
    let used = s.overrides.map_or(0, |recent| recent.count(s.now_ms, window));
    let most = u64::from(window.most);
    let most = if s.clock_suspect { most / 2 } else { most };
    s.supervisor.filter(|_| used < most)
}
