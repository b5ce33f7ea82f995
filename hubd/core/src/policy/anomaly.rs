//! Which oddities count how much, and what they lead to.

use hub_protocol::{MAX_AMOUNT_MINOR, Restriction};

use super::{AMOUNT, CODES, response_codes};
use crate::toml_reader::{Section, integer};

/// The most points that an anomaly can count.
pub const MAX_POINTS: u64 = 1_000;

/// The most payments of a device or card that detectors look back on.
pub const LOOKS_BACK: usize = 16;

const POINTS: &str = "points from 1 to 1000";
pub(super) const MINUTES: &str = "minutes from 1 to 1440 (a day)";
const A_FEW: &str = "a whole number from 2 to 16";
pub(super) const PERCENTILE: &str = "percent from 50 to 99";
pub(super) const PROFILE: &str = "[profile], which learns what is usual";

/// `[anomaly]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnomalyRules {
    /// What the points of a device lead to.
    pub device: Thresholds,
    /// What those of all devices together lead to.
    pub store: Thresholds,
    /// The share of the signed ceilings while tightened, 0 to 99.
    pub tighten_percent: u64,
    /// Points go down by so many in an hour.
    pub fade_per_hour: u64,
    /// Restrictions end once the gateway has answered for so long, in
    /// milliseconds; `None`: not by themselves.
    pub recover_online_ms: Option<u64>,
    /// The same amount many times in a row at one device.
    pub equal_amounts: Option<EqualAmounts>,
    /// One card again and again just below its ceiling.
    pub ceiling_split: Option<CeilingSplit>,
    /// One card at many devices.
    pub card_at_devices: Option<Within>,
    /// A payment after several cards were declined at the device.
    pub card_testing: Option<CardTesting>,
    /// A counter that was used before.
    pub sequence_reused: Option<u16>,
    /// Numbers left out.
    pub sequence_gap: Option<SequenceGap>,
    /// A device's clock that differs.
    pub clock_skew: Option<ClockSkew>,
    /// While the shop is closed.
    pub outside_hours: Option<u16>,
    /// Many more payments than usual at this hour of the week.
    pub arrival_rate: Option<ArrivalRate>,
    /// An amount far above what is usual.
    pub unusual_amount: Option<UnusualAmount>,
    /// Requests over the device's connection that it has not signed.
    pub bad_signatures: Option<Within>,
    /// Refunds at one device, or by one member of staff at several.
    pub refunds: Option<Within>,
}

/// Many more payments than usual at this hour of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrivalRate {
    /// More than so many times what is usual,
    pub times: u64,
    /// and at least so many in the hour.
    pub least: u32,
    /// What it counts.
    pub points: u16,
}

/// An amount far above what is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusualAmount {
    /// Above so many percent of the shop's payments,
    pub percentile: u64,
    /// so many times over.
    pub times: u64,
    /// What it counts.
    pub points: u16,
}

/// From how many points on what happens; `None`: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// Somebody should look.
    pub warn: Option<u64>,
    /// Ceilings are smaller.
    pub tighten: Option<u64>,
    /// Nothing is approved offline.
    pub stop: Option<u64>,
}

impl Thresholds {
    /// What so many points lead to.
    pub(crate) fn reached(&self, points: u64) -> Restriction {
        let reached = |threshold: Option<u64>| threshold.is_some_and(|least| points >= least);
        if reached(self.stop) {
            Restriction::Stopped
        } else if reached(self.tighten) {
            Restriction::Tightened
        } else if reached(self.warn) {
            Restriction::Warned
        } else {
            Restriction::None
        }
    }
}

/// The same amount many times in a row at one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EqualAmounts {
    /// How many.
    pub in_a_row: u32,
    /// Smaller amounts do not count, minor units: a baker's bread has one
    /// price.
    pub from_amount: u64,
    /// What it counts.
    pub points: u16,
}

/// One card again and again just below its ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CeilingSplit {
    /// How many, this one included.
    pub count: u32,
    /// Within this time, milliseconds.
    pub within_ms: u64,
    /// What "just below" is: from this share of the payment's ceiling on,
    /// percent.
    pub from_percent: u64,
    /// What it counts.
    pub points: u16,
}

/// So many within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Within {
    /// How many.
    pub count: u32,
    /// Within this time, milliseconds.
    pub within_ms: u64,
    /// What it counts.
    pub points: u16,
}

/// A payment after several cards were declined at the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardTesting {
    /// How many other cards.
    pub declined_cards: u32,
    /// Within this time, milliseconds.
    pub within_ms: u64,
    /// The issuer's response codes that count, beside refusals by the card
    /// itself and by the exception list.
    pub response_codes: Vec<String>,
    /// What it counts.
    pub points: u16,
}

/// Numbers left out of a device's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceGap {
    /// So many or more.
    pub numbers: u64,
    /// What it counts.
    pub points: u16,
}

/// A device's clock that differs from the hub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSkew {
    /// By more than this, milliseconds.
    pub more_than_ms: u64,
    /// What it counts.
    pub points: u16,
}

/// Reads `[anomaly]`. All of it may be missing: then nothing is looked for.
pub(super) fn read(section: Section<'_, '_>, hours_known: bool, profile_kept: bool) -> Option<AnomalyRules> {
    if !section.present() {
        section.finish();
        return None;
    }
    let tighten = section.required("tighten_percent", "percent from 0 to 99", integer(0..=99));
    let fade = section.required(
        "fade_points_per_hour",
        "points from 1 to 100000",
        integer(1..=100_000),
    );
    let recover = section.optional("recover_online_minutes", MINUTES, integer(1..=1_440));
    let device = read_thresholds(section.section("device"));
    let store = read_thresholds(section.section("store"));
    let equal = read_equal(section.section("equal_amounts"));
    let split = read_split(section.section("ceiling_split"));
    let at_devices = read_within(section.section("card_at_devices"), "devices");
    let testing = read_testing(section.section("card_testing"));
    let reused = optional_table(section.section("sequence_reused"), points);
    let gap = optional_table(section.section("sequence_gap"), |table| {
        let numbers = table.required(
            "numbers",
            "a whole number from 2 to 1000000",
            integer(2..=1_000_000),
        );
        let points = points(table);
        Some(SequenceGap {
            numbers: numbers?.value,
            points: points?,
        })
    });
    let skew = optional_table(section.section("clock_skew"), |table| {
        let minutes = table.required("minutes", MINUTES, integer(1..=1_440));
        let points = points(table);
        Some(ClockSkew {
            more_than_ms: minutes?.value.saturating_mul(60_000),
            points: points?,
        })
    });
    let outside = read_outside(section.section("outside_hours"), hours_known);
    let rate = section.section("arrival_rate");
    needs(&rate, profile_kept, PROFILE);
    let rate = optional_table(rate, read_rate);
    let amount = section.section("unusual_amount");
    needs(&amount, profile_kept, PROFILE);
    let amount = optional_table(amount, read_amount);
    let signatures = read_within(section.section("bad_signatures"), "count");
    let refunds = read_within(section.section("refunds"), "count");
    section.finish();
    Some(AnomalyRules {
        outside_hours: outside,
        arrival_rate: rate,
        unusual_amount: amount,
        bad_signatures: signatures,
        refunds,
        device,
        store,
        tighten_percent: tighten?.value,
        fade_per_hour: fade?.value,
        recover_online_ms: recover.map(|at| at.value.saturating_mul(60_000)),
        equal_amounts: equal,
        ceiling_split: split,
        card_at_devices: at_devices,
        card_testing: testing,
        sequence_reused: reused,
        sequence_gap: gap,
        clock_skew: skew,
    })
}

pub(super) fn optional_table<T>(
    section: Section<'_, '_>,
    read: impl FnOnce(&Section<'_, '_>) -> Option<T>,
) -> Option<T> {
    let found = if section.present() { read(&section) } else { None };
    section.finish();
    found
}

/// What would never be found, or never count, is a fault.
pub(super) fn needs(section: &Section<'_, '_>, there: bool, what: &str) {
    if section.present() && !there {
        section.fault(section.line(), format!("{} needs {what}", section.path()));
    }
}

fn read_rate(table: &Section<'_, '_>) -> Option<ArrivalRate> {
    let times = table.required("times", "a whole number from 2 to 100", integer(2..=100));
    let least = table.required("least", "payments from 2 to 100000", integer(2..=100_000));
    let points = points(table);
    Some(ArrivalRate {
        times: times?.value,
        least: u32::try_from(least?.value).ok()?,
        points: points?,
    })
}

fn read_amount(table: &Section<'_, '_>) -> Option<UnusualAmount> {
    let percentile = table.required("percentile", PERCENTILE, integer(50..=99));
    let times = table.required("times", "a whole number from 1 to 100", integer(1..=100));
    let points = points(table);
    Some(UnusualAmount {
        percentile: percentile?.value,
        times: times?.value,
        points: points?,
    })
}

fn read_outside(section: Section<'_, '_>, hours_known: bool) -> Option<u16> {
    if section.present() && !hours_known {
        section.fault(
            section.line(),
            "anomaly.outside_hours needs [hours], the hours that the shop is open",
        );
    }
    optional_table(section, points)
}

/// What something counts.
pub(super) fn points(section: &Section<'_, '_>) -> Option<u16> {
    let points = section.required("points", POINTS, integer(1..=MAX_POINTS))?;
    u16::try_from(points.value).ok()
}

/// A softer step that begins after a harder one would never be reached.
fn read_thresholds(section: Section<'_, '_>) -> Thresholds {
    const EXPECTED: &str = "points from 1 to 100000";
    let warn = section.optional("warn", EXPECTED, integer(1..=100_000));
    let tighten = section.optional("tighten", EXPECTED, integer(1..=100_000));
    let stop = section.optional("stop", EXPECTED, integer(1..=100_000));
    let mut harder: Option<u64> = None;
    for step in [&stop, &tighten, &warn].into_iter().flatten() {
        if harder.is_some_and(|harder| step.value >= harder) {
            section.fault(
                step.line,
                "anomaly: warn below tighten and tighten below stop expected",
            );
        }
        harder = Some(step.value);
    }
    section.finish();
    Thresholds {
        warn: warn.map(|at| at.value),
        tighten: tighten.map(|at| at.value),
        stop: stop.map(|at| at.value),
    }
}

fn read_equal(section: Section<'_, '_>) -> Option<EqualAmounts> {
    optional_table(section, |table| {
        let in_a_row = table.required("in_a_row", "a whole number from 2 to 1000", integer(2..=1_000));
        let from = table.optional("from_amount", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
        let points = points(table);
        Some(EqualAmounts {
            in_a_row: u32::try_from(in_a_row?.value).ok()?,
            from_amount: from.map_or(0, |at| at.value),
            points: points?,
        })
    })
}

fn read_split(section: Section<'_, '_>) -> Option<CeilingSplit> {
    optional_table(section, |table| {
        let count = table.required("count", A_FEW, integer(2..=16));
        let minutes = table.required("within_minutes", MINUTES, integer(1..=1_440));
        let from = table.required("from_percent", "percent from 1 to 100", integer(1..=100));
        let points = points(table);
        Some(CeilingSplit {
            count: u32::try_from(count?.value).ok()?,
            within_ms: minutes?.value.saturating_mul(60_000),
            from_percent: from?.value,
            points: points?,
        })
    })
}

fn read_testing(section: Section<'_, '_>) -> Option<CardTesting> {
    optional_table(section, |table| {
        let count = table.required("declined_cards", A_FEW, integer(2..=16));
        let minutes = table.required("within_minutes", MINUTES, integer(1..=1_440));
        let codes = table.optional("response_codes", CODES, response_codes);
        let points = points(table);
        Some(CardTesting {
            declined_cards: u32::try_from(count?.value).ok()?,
            within_ms: minutes?.value.saturating_mul(60_000),
            response_codes: codes.map(|at| at.value).unwrap_or_default(),
            points: points?,
        })
    })
}

fn read_within(section: Section<'_, '_>, count_key: &'static str) -> Option<Within> {
    optional_table(section, |table| {
        let count = table.required(count_key, A_FEW, integer(2..=16));
        let minutes = table.required("within_minutes", MINUTES, integer(1..=1_440));
        let points = points(table);
        Some(Within {
            count: u32::try_from(count?.value).ok()?,
            within_ms: minutes?.value.saturating_mul(60_000),
            points: points?,
        })
    })
}
