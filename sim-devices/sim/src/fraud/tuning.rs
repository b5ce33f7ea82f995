//! Better numbers for `[anomaly]`, one after the other, as long as any change
//! of one number makes the tuning seeds come out better.

use super::measure::{Contender, Measured, Seeds, measure};
use super::rules::{number, with_number};

/// What may be changed, and to what. Bounded by what a shop can be asked to
/// bear: a wrong clock alone restricts nothing, and what else befalls honest
/// devices and customers stops no device by happening once. Only a counter that
/// goes back may.
const NUMBERS: [(&str, &[i64]); 25] = [
    ("fade_points_per_hour", &[5, 10, 20, 40]),
    ("tighten_percent", &[20, 30, 40, 50]),
    ("device.tighten", &[25, 30, 40]),
    ("device.stop", &[60, 80, 100]),
    ("equal_amounts.in_a_row", &[4, 5, 6, 8, 10]),
    ("equal_amounts.from_amount", &[1_000, 2_000, 3_000, 5_000]),
    ("equal_amounts.points", &[10, 20, 40]),
    ("ceiling_split.count", &[2, 3, 4]),
    ("ceiling_split.within_minutes", &[30, 60, 120]),
    ("ceiling_split.from_percent", &[70, 75, 80, 85, 90]),
    ("ceiling_split.points", &[20, 40]),
    ("card_at_devices.devices", &[2, 3, 4]),
    ("card_at_devices.within_minutes", &[15, 30, 60, 120]),
    ("card_at_devices.points", &[20, 40]),
    ("card_testing.declined_cards", &[2, 3, 4]),
    ("card_testing.within_minutes", &[5, 10, 15, 30, 60]),
    ("card_testing.points", &[20, 40]),
    ("sequence_reused.points", &[40, 60, 80]),
    ("sequence_gap.numbers", &[10, 20, 50, 100, 200]),
    ("sequence_gap.points", &[10, 20, 40]),
    ("clock_skew.minutes", &[5, 10, 15, 30, 60]),
    ("clock_skew.points", &[5, 10, 20]),
    ("refunds.count", &[2, 3, 4, 5, 6]),
    ("refunds.within_minutes", &[15, 30, 60, 120, 240]),
    ("refunds.points", &[20, 40]),
];

/// Of honest payments so many per 100,000 may be flagged: less than the bound
/// of 500, since other seeds come out differently.
const FLAGGED_MOST: u64 = 420;

/// What tuning came to.
#[derive(Clone, Debug)]
pub(super) struct Tuned {
    pub(super) contender: Contender,
    /// Which number became which, in the order found.
    pub(super) changed: Vec<(&'static str, i64, i64)>,
}

/// Tunes the detectors of a policy.
///
/// # Errors
/// A number that is not in the policy.
pub(super) fn tune(
    contender: &Contender,
    seeds: Seeds,
    threads: usize,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<Tuned, String> {
    let mut best = contender.clone();
    let mut best_worth = worth(&measure(&best, seeds, threads, &|_| {}));
    let mut changed = Vec::new();
    loop {
        let before = changed.len();
        for (path, values) in NUMBERS {
            let now = number(&best.text, path).ok_or_else(|| format!("anomaly.{path} is missing"))?;
            let mut found = None;
            for value in values.iter().copied().filter(|value| *value != now) {
                // Thresholds that stand the wrong way round are no policy.
                let Ok(other) = with_number(&contender.name, &best.text, path, value) else {
                    continue;
                };
                let reached = worth(&measure(&other, seeds, threads, &|_| {}));
                if reached > best_worth {
                    best_worth = reached;
                    found = Some((other, value));
                }
            }
            if let Some((other, value)) = found {
                best = other;
                changed.push((path, now, value));
                progress(&format!("{path} {now} -> {value}: {best_worth:?}"));
            } else {
                progress(&format!("{path} stays {now}"));
            }
        }
        if changed.len() == before {
            return Ok(Tuned {
                contender: best,
                changed,
            });
        }
    }
}

/// What is better: first few honest payments flagged; then, what fraud gets
/// and what honest customers lose, in cents of fraud. An attack unseen counts
/// as 100,00 more, an honest payment refused as 10,00.
fn worth(measured: &Measured) -> (bool, i64) {
    let (all, fraud) = (measured.all(), measured.fraud());
    let few = all.honest_flagged * 100_000 <= FLAGGED_MOST * all.honest;
    let unseen = fraud.incidents - fraud.incidents_flagged_at_device;
    let refused = all.honest_offline - all.honest_approved;
    let lost = fraud.let_through + unseen * 10_000 + refused * 1_000;
    let flagged_too_often = if few { 0 } else { all.honest_flagged * 100_000 };
    (few, -i64::try_from(lost + flagged_too_often).unwrap_or(i64::MAX))
}
