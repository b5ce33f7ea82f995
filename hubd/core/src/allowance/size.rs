//! How large an allowance is.

use hub_protocol::{Allowance, DeviceId, HubId, Reason, TransactionType};

use crate::decide::{Situation, objection_to_offline};
use crate::limits::Limits;
use crate::policy::Policy;
use crate::policy::allowance::AllowanceRules;
use crate::policy::moving;

/// How often it is looked whether a shop is still open.
const MINUTE_MS: u64 = 60_000;

/// As large an allowance as there is room for, or what stands against any. Whose
/// it is, is for the caller to fill in.
pub(super) fn size<'a>(
    s: &Situation<'a>,
    offline_since_ms: Option<u64>,
) -> Result<(&'a Policy, Allowance), Reason> {
    if !s.queue_has_room {
        return Err(Reason::QueueFull);
    }
    if s.storage_full {
        return Err(Reason::StorageFull);
    }
    let policy = s.policy.ok_or(Reason::NoPolicy)?;
    if policy.currency != s.currency {
        return Err(Reason::CurrencyNotAccepted);
    }
    if let Some(reason) = objection_to_offline(policy, s) {
        return Err(reason);
    }
    let rules = policy.allowance.as_ref().ok_or(Reason::OfflineDisabled)?;
    if !rules.classes.contains(&s.class) {
        return Err(Reason::ClassNotAllowed);
    }
    // A device sells by it, and does nothing else.
    if !policy.offline.transaction_types.contains(&TransactionType::Sale) {
        return Err(Reason::TransactionTypeNotAllowed);
    }
    if !rules.cards_pass(&policy.cards) {
        return Err(Reason::CardOnExceptionList);
    }
    let limits = Limits::of_any(policy, s)
        .ok_or(Reason::ClassNotAllowed)?
        .by_clock(s);
    let room = limits.room(s);
    let amount_minor = rules.amount_minor.min(room.amount_minor);
    let count = rules.count.min(room.count);
    let allowance = Allowance {
        hub: HubId([0; 32]),
        device: DeviceId([0; 32]),
        number: 0,
        amount_minor,
        count,
        transaction_ceiling_minor: rules
            .transaction_ceiling_minor
            .min(room.transaction)
            .min(amount_minor),
        card_ceiling_minor: room.card.min(amount_minor),
        currency: policy.currency,
        schemes: policy.offline.schemes.clone(),
        funding: policy.offline.funding.clone(),
        entry_modes: policy.offline.entry_modes.clone(),
        unverified_tap_ceiling_minor: limits.unverified_tap,
        issued_ms: s.now_ms,
        expires_ms: expiry(policy, rules, s, offline_since_ms, limits.percent),
        policy_version: policy.version,
    };
    if count == 0 {
        Err(Reason::DeviceConsecutiveLimit)
    } else if allowance.transaction_ceiling_minor == 0 || allowance.card_ceiling_minor == 0 {
        Err(Reason::DeviceCeiling)
    } else if allowance.expires_ms <= s.now_ms {
        Err(Reason::OfflineTooLong)
    } else {
        Ok((policy, allowance))
    }
}

/// Never beyond the policy, the longest time offline, closing time, or the
/// moment at which the hub itself would approve less for the time that has
/// passed: `percent` is the share of the ceilings that it is given under.
fn expiry(
    policy: &Policy,
    rules: &AllowanceRules,
    s: &Situation<'_>,
    offline_since_ms: Option<u64>,
    percent: u64,
) -> u64 {
    let offline_since_ms = offline_since_ms.unwrap_or(s.now_ms).min(s.now_ms);
    let latest = s
        .now_ms
        .saturating_add(rules.valid_ms)
        .min(policy.expires_ms)
        .min(s.policy_term.until_ms)
        .min(offline_since_ms.saturating_add(policy.offline.longest_ms))
        .min(s.standing.attested_until_ms)
        .min(next_step(policy, s, offline_since_ms, percent));
    let Some(hours) = policy.hours.as_ref().filter(|hours| !hours.approve_outside) else {
        return latest;
    };
    // Shops open and close at whole minutes.
    let mut until = (s.now_ms / MINUTE_MS).saturating_add(1).saturating_mul(MINUTE_MS);
    while until < latest && hours.open(until) {
        until = until.saturating_add(MINUTE_MS);
    }
    until.min(latest)
}

/// When time alone makes the ceilings smaller than this share, or ends offline
/// approvals for what waits to be sent. A device out of reach does not learn
/// that an outage is over, or that what waited was sent (rule 5).
fn next_step(policy: &Policy, s: &Situation<'_>, offline_since_ms: u64, percent: u64) -> u64 {
    let moving = &policy.moving;
    let waits_since_ms = s.now_ms.saturating_sub(s.oldest_unsent_ms);
    let waited_ms = [
        policy.offline.oldest_unsent_ms,
        moving::next_below(&moving.oldest_unsent, s.oldest_unsent_ms, percent),
    ];
    let aged_ms = s.now_ms.saturating_sub(policy.not_before_ms);
    let at = |since_ms: u64, after: Option<u64>| after.map(|after_ms| since_ms.saturating_add(after_ms));
    let all = [
        at(
            offline_since_ms,
            moving::next_below(&moving.outage, s.offline_ms, percent),
        ),
        at(waits_since_ms, waited_ms.into_iter().flatten().min()),
        at(
            policy.not_before_ms,
            moving::next_below(&moving.policy_age, aged_ms, percent),
        ),
    ];
    all.into_iter().flatten().min().unwrap_or(u64::MAX)
}
