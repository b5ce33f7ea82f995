//! How risky a payment looks: a sum of what the policy counts for each thing
//! that stands against it. What nobody knows counts nothing, but for the time
//! while the clock is in doubt.

use hub_protocol::score::{Score, ScoreFactor};
use hub_protocol::{EntryMode, PaymentRequest, Reason, Restriction};

use crate::decide::Situation;
use crate::policy::Policy;
use crate::policy::score::{AboveUsual, CardLately, DeviceOdd, ScoreRules};

/// The score of a payment now; `None` if the policy weighs nothing.
pub(crate) fn of(request: &PaymentRequest, s: &Situation<'_>) -> Option<Score> {
    let policy = s.policy?;
    let rules = policy.score.as_ref()?;
    let no_chip = matches!(request.entry_mode, EntryMode::Keyed | EntryMode::MagneticStripe);
    let above = rules
        .amount_above_usual
        .filter(|rule| is_above_usual(request, policy, *rule, s));
    let lately = rules.card_lately.filter(|rule| was_used_lately(*rule, s));
    let odd = rules.device_odd.filter(|rule| is_odd(*rule, s));
    let factors = [
        (ScoreFactor::AmountAboveUsual, above.map(|rule| rule.points)),
        (ScoreFactor::NewCard, rules.new_card.filter(|_| !s.card_known)),
        (
            ScoreFactor::ForeignCard,
            rules
                .foreign_card
                .filter(|_| !policy.cards.is_domestic(&request.card)),
        ),
        (ScoreFactor::NoChip, rules.no_chip.filter(|_| no_chip)),
        (ScoreFactor::CardLately, lately.map(|rule| rule.points)),
        (
            ScoreFactor::UnusualHour,
            rules.unusual_hour.filter(|_| is_unusual_hour(policy, s)),
        ),
        (ScoreFactor::DeviceOdd, odd.map(|rule| rule.points)),
    ];
    let mut score = Score::default();
    for (factor, points) in factors {
        if let Some(points) = points {
            score.add(factor, points);
        }
    }
    Some(score)
}

/// Whether the payment looks too risky to be approved at all.
pub(crate) fn is_too_high(rules: &ScoreRules, score: &Score) -> Option<Reason> {
    let reached = rules
        .decline_from
        .is_some_and(|from| u64::from(score.points) >= from);
    reached.then_some(Reason::ScoreTooHigh)
}

/// Whether the holder should be verified, who has not been.
pub(crate) fn asks_for_pin(rules: &ScoreRules, score: &Score) -> Option<Reason> {
    let reached = rules
        .verify_from
        .is_some_and(|from| u64::from(score.points) >= from);
    reached.then_some(Reason::ScoreVerification)
}

fn is_above_usual(request: &PaymentRequest, policy: &Policy, rule: AboveUsual, s: &Situation<'_>) -> bool {
    let known = s.profile.zip(policy.profile);
    let above = known.and_then(|(profile, rules)| {
        profile
            .amounts
            .is_above(request.amount_minor(), rule.percentile, rules.least_payments)
    });
    above.unwrap_or(false)
}

/// While the clock is in doubt half as many payments before this one are
/// enough (rule 5).
fn was_used_lately(rule: CardLately, s: &Situation<'_>) -> bool {
    let before = u64::from(rule.window.most).saturating_sub(1);
    let enough = if s.clock_suspect { before / 2 } else { before };
    let lately = s
        .card_velocity
        .map_or(0, |velocity| velocity.recent.count(s.now_ms, rule.window));
    lately >= enough
}

/// While the clock is in doubt every hour is (rule 5).
fn is_unusual_hour(policy: &Policy, s: &Situation<'_>) -> bool {
    let closed = policy.hours.as_ref().is_some_and(|hours| !hours.open(s.now_ms));
    let rate = s.profile.zip(policy.profile).and_then(|(profile, rules)| {
        let hour = policy.hour_of_week(s.now_ms);
        profile.arrivals.rate(hour, s.now_ms, rules.least_weeks)
    });
    s.clock_suspect || closed || rate.is_some_and(|rate| rate.is_unusual())
}

fn is_odd(rule: DeviceOdd, s: &Situation<'_>) -> bool {
    s.device_points >= rule.from_points || s.device_restriction >= Restriction::Warned
}
