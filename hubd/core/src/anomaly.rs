//! The detectors: what is odd about a payment that a device asks for, by what
//! came before it. They look at every payment, on- or offline, and never
//! decide: what they find adds points, and points restrict.

use hub_protocol::{AnomalyKind, DeviceId, PaymentRequest, TransactionType};

use crate::clock::difference;
use crate::policy::anomaly::AnomalyRules;
use crate::policy::profile::ProfileRules;
use crate::profile::Profile;
use crate::record::{CardKey, Velocity};
use crate::watch::{Seen, Watch};

/// What detectors look at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) device: DeviceId,
    pub(crate) watch: &'a Watch,
    pub(crate) card: Option<&'a Velocity>,
    /// The highest amount of this payment now, if any is allowed.
    pub(crate) ceiling_minor: Option<u64>,
    /// Effective time, milliseconds since 1970 UTC.
    pub(crate) now_ms: u64,
    /// Whether the shop is open now.
    pub(crate) open: bool,
    /// Whether the hub's clock is in doubt.
    pub(crate) clock_suspect: bool,
    /// What is usual in the shop, and when enough of it is known.
    pub(crate) usual: Option<(&'a Profile, ProfileRules)>,
    /// The hour of the shop's week.
    pub(crate) hour_of_week: usize,
    /// So many payments at once have been counted a moment ago, at any device.
    pub(crate) rate_is_quiet: bool,
    /// For a refund: how many its member of staff has asked for within the
    /// rule's time, at all devices together.
    pub(crate) refunds_by_staff: usize,
    /// Whether it is so good that a device can be measured by it.
    pub(crate) knows_time: bool,
}

/// What is odd, and what it counts. The same anomaly at the same device counts
/// once in a while ([`QUIET_MS`](crate::watch::QUIET_MS)).
pub(crate) fn detect(
    request: &PaymentRequest,
    rules: &AnomalyRules,
    scene: &Scene<'_>,
) -> Vec<(AnomalyKind, u16)> {
    let found = [
        equal_amounts(request, rules, scene).map(|points| (AnomalyKind::EqualAmounts, points)),
        ceiling_split(request, rules, scene).map(|points| (AnomalyKind::CeilingSplit, points)),
        card_at_devices(rules, scene).map(|points| (AnomalyKind::CardAtDevices, points)),
        card_testing(request, rules, scene).map(|points| (AnomalyKind::CardTesting, points)),
        sequence_reused(request, rules, scene).map(|points| (AnomalyKind::SequenceReused, points)),
        sequence_gap(request, rules, scene).map(|points| (AnomalyKind::SequenceGap, points)),
        clock_skew(request, rules, scene).map(|points| (AnomalyKind::ClockSkew, points)),
        rules
            .outside_hours
            .filter(|_| !scene.open && !scene.clock_suspect)
            .map(|points| (AnomalyKind::OutsideHours, points)),
        arrival_rate(rules, scene).map(|points| (AnomalyKind::ArrivalRate, points)),
        unusual_amount(request, rules, scene).map(|points| (AnomalyKind::UnusualAmount, points)),
        refunds(request, rules, scene).map(|points| (AnomalyKind::Refunds, points)),
    ];
    found
        .into_iter()
        .flatten()
        .filter(|(kind, _)| !scene.watch.is_quiet(*kind, scene.now_ms))
        .collect()
}

fn equal_amounts(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.equal_amounts?;
    let run = scene.watch.run_with(request.amount_minor(), rule);
    (run >= rule.in_a_row).then_some(rule.points)
}

/// The card's payments lately were just below what this one may be, and so is
/// this one.
fn ceiling_split(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.ceiling_split?;
    let ceiling = scene.ceiling_minor?;
    let just_below = |amount: u64| {
        amount <= ceiling && u128::from(amount) * 100 >= u128::from(ceiling) * u128::from(rule.from_percent)
    };
    if !just_below(request.amount_minor()) {
        return None;
    }
    let before = lately(scene, rule.within_ms).filter(|seen| just_below(seen.amount_minor));
    reaches(before.count() + 1, rule.count).then_some(rule.points)
}

fn card_at_devices(rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.card_at_devices?;
    let mut devices: Vec<u32> = lately(scene, rule.within_ms).map(|seen| seen.device).collect();
    devices.push(Seen::short(&scene.device));
    devices.sort_unstable();
    devices.dedup();
    reaches(devices.len(), rule.count).then_some(rule.points)
}

/// Other cards were declined here, and now one more is tried.
fn card_testing(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.card_testing.as_ref()?;
    let card = CardKey::of_token(&request.card.token);
    let recent = scene.watch.declined.iter().filter(|declined| {
        declined.card != card && scene.now_ms.saturating_sub(declined.at_ms) < rule.within_ms
    });
    reaches(recent.count(), rule.declined_cards).then_some(rule.points)
}

/// Back to a number that the device has used before: it was copied, or an old
/// backup of it came back. Requests that overtake one another on their way, or
/// that found no hub for a while, have numbers of their own.
fn sequence_reused(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let points = rules.sequence_reused?;
    let again = scene.watch.counter.goes_back_to(request.device_sequence);
    again.then_some(points)
}

fn sequence_gap(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.sequence_gap?;
    let left_out = scene.watch.counter.left_out_before(request.device_sequence);
    (left_out >= rule.numbers).then_some(rule.points)
}

/// Ahead of the hub's clock, unless it was so before: a device that nobody has
/// set is one oddity, not one every ten minutes. Or behind the device's own of
/// before. A request that found no hub for a while is behind the hub's and no
/// anomaly.
fn clock_skew(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.clock_skew?;
    let (watch, time) = (scene.watch, request.device_time_ms);
    let ahead = difference(time, scene.now_ms);
    let too_far = |ahead: i64| ahead > 0 && ahead.unsigned_abs() > rule.more_than_ms;
    let as_before = watch
        .clock_ahead_ms
        .is_some_and(|before| too_far(before) && ahead.abs_diff(before) <= rule.more_than_ms);
    let newest = watch
        .counter
        .highest
        .is_some_and(|highest| request.device_sequence > highest);
    let behind = newest && watch.device_time_ms.saturating_sub(time) > rule.more_than_ms;
    (scene.knows_time && too_far(ahead) && !as_before || behind).then_some(rule.points)
}

/// Many more payments than this shop usually has at this hour of its week,
/// whichever device asks for the next one.
fn arrival_rate(rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.arrival_rate?;
    let (profile, known) = scene
        .usual
        .filter(|_| !scene.clock_suspect && !scene.rate_is_quiet)?;
    let rate = profile
        .arrivals
        .rate(scene.hour_of_week, scene.now_ms, known.least_weeks)?;
    let enough = rate.now.saturating_add(1) >= rule.least;
    (enough && rate.one_more_is_above(rule.times)).then_some(rule.points)
}

/// So large that a part of it would still be above what is usual.
fn unusual_amount(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.unusual_amount?;
    let (profile, known) = scene.usual?;
    let part = request.amount_minor().div_ceil(rule.times.max(1));
    let above = profile
        .amounts
        .is_above(part, rule.percentile, known.least_payments)?;
    above.then_some(rule.points)
}

/// Refunds here, by whomever, or anywhere by the member of staff who asks for
/// this one. Those that name nobody are no one person's: a shop may name
/// nobody at all.
fn refunds(request: &PaymentRequest, rules: &AnomalyRules, scene: &Scene<'_>) -> Option<u16> {
    let rule = rules.refunds?;
    if request.transaction_type() != TransactionType::Refund {
        return None;
    }
    let here = scene.watch.refunds_lately(scene.now_ms, rule.within_ms, |_| true);
    reaches(here.max(scene.refunds_by_staff) + 1, rule.count).then_some(rule.points)
}

/// The card's offline approvals within a time.
fn lately<'a>(scene: &Scene<'a>, within_ms: u64) -> impl Iterator<Item = &'a Seen> {
    let now_ms = scene.now_ms;
    let seen = scene.card.map_or(&[][..], |velocity| &velocity.seen[..]);
    seen.iter()
        .filter(move |seen| now_ms.saturating_sub(seen.at_ms) < within_ms)
}

fn reaches(found: usize, count: u32) -> bool {
    usize::try_from(count).is_ok_and(|count| found >= count)
}
