//! The offline decision: a pure function of the policy, the request and what
//! is already at risk. Rules are tried in the order of their reason numbers;
//! the first that stands against the payment gives the answer.

use hub_protocol::entry::DecisionRecord;
use hub_protocol::{
    Cryptogram, Currency, Decision, DeviceClass, EntryMode, FallbackAction, PaymentRequest, Reason,
    Submission, Verification,
};

use crate::policy::{ClassLimits, Policy, SubjectLimits};
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

/// Decides a payment without the gateway.
#[must_use]
pub fn decide_offline(request: &PaymentRequest, situation: &Situation<'_>) -> DecisionRecord {
    match objection(request, situation) {
        None => DecisionRecord {
            decision: Decision::ApprovedOffline,
            reason: Reason::None,
            fallback: None,
            submission: Some(submission(request.cryptogram)),
            gateway: None,
            reversal_queued: false,
        },
        Some(reason) => refuse(reason),
    }
}

/// The record of a refusal: fallback where another way of paying by the same
/// card can help, declined otherwise.
#[must_use]
pub fn refuse(reason: Reason) -> DecisionRecord {
    let fallback = match reason {
        Reason::EntryModeNotAllowed => Some(FallbackAction::InsertCard),
        Reason::OnlinePinNotPossible | Reason::VerificationRequired => {
            Some(FallbackAction::InsertCardEnterPin)
        }
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
fn objection(request: &PaymentRequest, s: &Situation<'_>) -> Option<Reason> {
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
    objection_to_offline(policy, s)
        .or_else(|| objection_to_card(request, policy))
        .or_else(|| objection_to_amount(request, policy, s))
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

/// May this card, read and verified this way, be approved offline?
fn objection_to_card(request: &PaymentRequest, policy: &Policy) -> Option<Reason> {
    let rules = &policy.offline;
    let unverified_tap =
        request.entry_mode == EntryMode::Contactless && request.verification == Verification::None;
    if !rules.schemes.contains(&request.card.scheme) {
        Some(Reason::SchemeNotAllowed)
    } else if !rules.funding.contains(&request.card.funding) {
        Some(Reason::FundingNotAllowed)
    } else if !rules.entry_modes.contains(&request.entry_mode) {
        Some(Reason::EntryModeNotAllowed)
    } else if request.verification == Verification::OnlinePin {
        Some(Reason::OnlinePinNotPossible)
    } else if unverified_tap
        && rules
            .contactless_unverified_ceiling
            .is_some_and(|ceiling| request.amount_minor() > ceiling)
    {
        Some(Reason::VerificationRequired)
    } else {
        None
    }
}

/// Is there room under the ceilings and counts?
fn objection_to_amount(request: &PaymentRequest, policy: &Policy, s: &Situation<'_>) -> Option<Reason> {
    let class = policy.classes.get(&s.class)?;
    let full = first_limit_passed(request.amount_minor(), policy, class, s, 1);
    if full.is_some() || !s.clock_suspect {
        return full;
    }
    first_limit_passed(request.amount_minor(), policy, class, s, 2).map(|_| Reason::ClockInDoubt)
}

fn first_limit_passed(
    amount: u64,
    policy: &Policy,
    class: &ClassLimits,
    s: &Situation<'_>,
    divisor: u32,
) -> Option<Reason> {
    let ceiling = |limits: &SubjectLimits| limits.exposure_ceiling / u64::from(divisor);
    let count = |limits: &SubjectLimits| limits.consecutive_limit / divisor;
    let over = |subject: &Subject, limits: &SubjectLimits| {
        subject
            .exposure_minor
            .checked_add(amount)
            .is_none_or(|sum| sum > ceiling(limits))
    };
    let too_many = |subject: &Subject, limits: &SubjectLimits| subject.consecutive >= count(limits);
    let rules = [
        (
            amount > class.transaction_ceiling / u64::from(divisor),
            Reason::TransactionCeiling,
        ),
        (over(&s.card, &policy.card), Reason::CardCeiling),
        (over(&s.device, &class.device), Reason::DeviceCeiling),
        (over(&s.store, &policy.store), Reason::StoreCeiling),
        (too_many(&s.card, &policy.card), Reason::CardConsecutiveLimit),
        (too_many(&s.device, &class.device), Reason::DeviceConsecutiveLimit),
        (too_many(&s.store, &policy.store), Reason::StoreConsecutiveLimit),
    ];
    rules
        .iter()
        .find(|(stands_against, _)| *stands_against)
        .map(|(_, reason)| *reason)
}
