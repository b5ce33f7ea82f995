//! Limits that move: the longer the outage and what waits, the older the
//! policy, the more of the store's ceiling is used and the more is declined at
//! replay, the smaller the other ceilings. Never above what is signed.

use crate::risk::{Declined, Held};
use crate::toml_reader::{Section, integer};

/// The most steps of one kind.
pub const MAX_STEPS: usize = 16;

/// The outcomes that must be known before declines count, unless the policy
/// says otherwise.
pub const DECLINES_LEAST: u32 = 10;

/// From a value on, ceilings are this share of the signed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// From here on, inclusive.
    pub from: u64,
    /// The share, 0 to 100.
    pub percent: u64,
}

/// What makes the ceilings for payments, cards and devices smaller. Of several
/// steps that hold, the smallest share counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MovingLimits {
    /// By the time offline, milliseconds.
    pub outage: Vec<Step>,
    /// By the age of the oldest payment that waits to be sent, milliseconds.
    pub oldest_unsent: Vec<Step>,
    /// By the age of the policy since `not_before`, milliseconds.
    pub policy_age: Vec<Step>,
    /// By the share of the store's exposure ceiling that is used, percent.
    pub store_used: Vec<Step>,
    /// By the share of declines at replay, percent.
    pub declined: Vec<Step>,
    /// Outcomes that must be known before declines count; `None`:
    /// [`DECLINES_LEAST`].
    pub declined_least: Option<u32>,
    /// How a share that was reduced grows again; `None`: at once.
    pub loosening: Option<Loosening>,
}

/// How a share that was reduced grows again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loosening {
    /// By so many points, 1 to 100,
    pub percent: u64,
    /// each time that this many milliseconds have passed.
    pub every_ms: u64,
}

/// What moving limits go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The time, milliseconds since 1970 UTC.
    pub now_ms: u64,
    /// How long the shop has been offline, milliseconds.
    pub offline_ms: u64,
    /// How long the oldest payment has waited to be sent, milliseconds.
    pub oldest_unsent_ms: u64,
    /// How long the policy has been valid, milliseconds.
    pub policy_age_ms: u64,
    /// The store's exposure, minor units.
    pub store_exposure_minor: u64,
    /// Its ceiling, minor units.
    pub store_ceiling_minor: u64,
    /// The shares of declines at replay.
    pub declined: Declined,
    /// The share that held in the store at the last decision.
    pub held: Option<Held>,
}

/// Shares of the signed ceilings, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// In the whole store.
    pub store: u64,
    /// The same if no smaller share had held before.
    pub moved: u64,
    /// For this payment: never above it.
    pub own: u64,
}

impl MovingLimits {
    /// Outcomes that must be known before declines count.
    pub fn declined_least(&self) -> u32 {
        self.declined_least.unwrap_or(DECLINES_LEAST)
    }

    /// The shares of the signed ceilings that hold now.
    pub fn shares(&self, now: &Moment) -> Shares {
        let moved = self.moved(now);
        let store = match (self.loosening, now.held) {
            (Some(loosening), Some(held)) => {
                let steps = now.now_ms.saturating_sub(held.since_ms) / loosening.every_ms.max(1);
                let grown = u64::from(held.percent).saturating_add(steps.saturating_mul(loosening.percent));
                moved.min(grown)
            }
            _ => moved,
        };
        Shares {
            store,
            moved,
            own: store.min(at(&self.declined, now.declined.own_percent)),
        }
    }

    /// The store's share if nothing had been reduced before.
    fn moved(&self, now: &Moment) -> u64 {
        let used = |step: &&Step| {
            u128::from(now.store_exposure_minor) * 100
                >= u128::from(now.store_ceiling_minor) * u128::from(step.from)
        };
        let by_use = self.store_used.iter().filter(used).map(|step| step.percent).min();
        let all = [
            at(&self.outage, now.offline_ms),
            at(&self.oldest_unsent, now.oldest_unsent_ms),
            at(&self.policy_age, now.policy_age_ms),
            at(&self.declined, now.declined.store_percent),
            by_use.unwrap_or(100),
        ];
        all.into_iter().min().unwrap_or(100)
    }
}

/// The share that holds at this value.
fn at(steps: &[Step], value: u64) -> u64 {
    let holding = steps.iter().filter(|step| value >= step.from);
    holding.map(|step| step.percent).min().unwrap_or(100)
}

/// From which value above this one on the share is smaller than so many percent.
pub(crate) fn next_below(steps: &[Step], value: u64, percent: u64) -> Option<u64> {
    let ahead = steps.iter().filter(|step| step.from > value);
    ahead
        .filter(|step| step.percent < percent)
        .map(|step| step.from)
        .min()
}

/// Reads `[moving]`. All of it may be missing.
pub(super) fn read(section: Section<'_, '_>) -> MovingLimits {
    const MINUTES: &str = "minutes from 0 to 43200 (30 days)";
    const MINUTE: u64 = 60_000;
    let of = |name, key, expected, range, unit| steps(section.sections(name), key, expected, range, unit, 0);
    let outage = of("outage", "from_minutes", MINUTES, 0..=43_200, MINUTE);
    let oldest_unsent = of("oldest_unsent", "from_minutes", MINUTES, 1..=43_200, MINUTE);
    let policy_age = of(
        "policy_age",
        "from_days",
        "days from 1 to 3650",
        1..=3_650,
        24 * 60 * MINUTE,
    );
    let store_used = of(
        "store_used",
        "from_percent",
        "percent of the store's ceiling from 1 to 100",
        1..=100,
        1,
    );
    // Not nothing at all: then there would be no outcomes that could mend it.
    let declined = steps(
        section.sections("declined"),
        "from_percent",
        "percent of the outcomes at replay from 1 to 100",
        1..=100,
        1,
        1,
    );
    let least = section.optional(
        "declined_least",
        "a whole number from 1 to 1000",
        integer(1..=1_000),
    );
    let loosening = read_loosening(&section);
    section.finish();
    MovingLimits {
        outage,
        oldest_unsent,
        policy_age,
        store_used,
        declined,
        declined_least: least.and_then(|at| u32::try_from(at.value).ok()),
        loosening,
    }
}

/// Both of its keys or none.
fn read_loosening(section: &Section<'_, '_>) -> Option<Loosening> {
    let percent = section.optional("loosen_percent", "percent from 1 to 100", integer(1..=100));
    let minutes = section.optional(
        "loosen_minutes",
        "minutes from 1 to 43200 (30 days)",
        integer(1..=43_200),
    );
    match (percent, minutes) {
        (Some(percent), Some(minutes)) => Some(Loosening {
            percent: percent.value,
            every_ms: minutes.value.saturating_mul(60_000),
        }),
        (None, None) => None,
        // A value that is wrong is there, and has its own fault.
        (Some(_), None) if section.holds("loosen_minutes") => None,
        (None, Some(_)) if section.holds("loosen_percent") => None,
        (Some(one), None) => {
            section.fault(
                one.line,
                "moving.loosen_percent says something only beside moving.loosen_minutes",
            );
            None
        }
        (None, Some(one)) => {
            section.fault(
                one.line,
                "moving.loosen_minutes says something only beside moving.loosen_percent",
            );
            None
        }
    }
}

fn steps(
    listed: Vec<Section<'_, '_>>,
    key: &'static str,
    expected: &str,
    range: core::ops::RangeInclusive<u64>,
    unit: u64,
    least_percent: u64,
) -> Vec<Step> {
    let mut found: Vec<Step> = Vec::with_capacity(listed.len());
    for (at, section) in listed.into_iter().enumerate() {
        let line = section.line();
        if at == MAX_STEPS {
            section.fault(
                line,
                format!("moving: at most {MAX_STEPS} steps of a kind expected"),
            );
        }
        let from = section.required(key, expected, integer(range.clone()));
        let percent = section.required(
            "percent",
            &format!("percent from {least_percent} to 100"),
            integer(least_percent..=100),
        );
        if let (Some(from), Some(percent)) = (from, percent) {
            let step = Step {
                from: from.value.saturating_mul(unit),
                percent: percent.value,
            };
            let follows = |last: &Step| last.from < step.from && step.percent <= last.percent;
            if !found.last().is_none_or(follows) {
                section.fault(
                    line,
                    format!("moving: {key} larger than in the step before and percent not larger expected"),
                );
            }
            found.push(step);
        }
        section.finish();
    }
    found
}
