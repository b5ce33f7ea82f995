//! Limits that move: the longer the outage, and the more of the store's
//! ceiling is used, the smaller the other ceilings. Never above what is
//! signed.

use crate::toml_reader::{Section, integer};

/// The most steps of one kind.
pub const MAX_STEPS: usize = 16;

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
    /// By the share of the store's exposure ceiling that is used, percent.
    pub store_used: Vec<Step>,
}

impl MovingLimits {
    /// The share of the signed ceilings that holds now, 0 to 100.
    pub fn percent(&self, offline_ms: u64, store_exposure_minor: u64, store_ceiling_minor: u64) -> u64 {
        let used = |step: &&Step| {
            u128::from(store_exposure_minor) * 100 >= u128::from(store_ceiling_minor) * u128::from(step.from)
        };
        let by_outage = self.outage.iter().filter(|step| offline_ms >= step.from);
        let by_use = self.store_used.iter().filter(used);
        by_outage
            .chain(by_use)
            .map(|step| step.percent)
            .min()
            .unwrap_or(100)
    }
}

/// Reads `[moving]`. All of it may be missing.
pub(super) fn read(section: Section<'_, '_>) -> MovingLimits {
    const MINUTES: &str = "minutes from 0 to 43200 (30 days)";
    const SHARE: &str = "percent of the store's ceiling from 1 to 100";
    let outage = steps(
        section.sections("outage"),
        "from_minutes",
        MINUTES,
        0..=43_200,
        60_000,
    );
    let store_used = steps(section.sections("store_used"), "from_percent", SHARE, 1..=100, 1);
    section.finish();
    MovingLimits { outage, store_used }
}

fn steps(
    listed: Vec<Section<'_, '_>>,
    key: &'static str,
    expected: &str,
    range: core::ops::RangeInclusive<u64>,
    unit: u64,
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
        let percent = section.required("percent", "percent from 0 to 100", integer(0..=100));
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
