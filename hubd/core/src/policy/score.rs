//! How risky a payment may look before a PIN is asked for, or it is declined.

use super::anomaly::{MAX_POINTS, MINUTES, PERCENTILE, PROFILE, needs, optional_table, points};
use super::velocity::{MAX_IN_WINDOW, Window};
use crate::toml_reader::{At, Section, boolean, integer};

/// `[score]`: what counts how much, and from how many points on what happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScoreRules {
    /// From so many points on the holder must be verified; `None`: never.
    pub verify_from: Option<u64>,
    /// From so many points on the payment is declined; `None`: never.
    pub decline_from: Option<u64>,
    /// Whether a supervisor's override lets a payment pass from there on too.
    pub override_lifts_decline: bool,
    /// The amount is above what is usual in the shop.
    pub amount_above_usual: Option<AboveUsual>,
    /// The hub knows no approved payment of the card.
    pub new_card: Option<u16>,
    /// The card is not domestic.
    pub foreign_card: Option<u16>,
    /// Typed in, or by the magnetic stripe.
    pub no_chip: Option<u16>,
    /// Several offline payments with the card lately.
    pub card_lately: Option<CardLately>,
    /// While the shop is closed, or usually sells nothing.
    pub unusual_hour: Option<u16>,
    /// Something was odd at the device lately.
    pub device_odd: Option<DeviceOdd>,
}

/// The amount is above what is usual in the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AboveUsual {
    /// Above so many percent of the shop's payments.
    pub percentile: u64,
    /// What it counts.
    pub points: u16,
}

/// Several offline payments with a card lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardLately {
    /// From how many on, this one included, within which time.
    pub window: Window,
    /// What it counts.
    pub points: u16,
}

/// Something was odd at the device lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceOdd {
    /// From so many of the points that anomalies have come to there.
    pub from_points: u64,
    /// What it counts.
    pub points: u16,
}

/// What the rest of the policy has, as far as the score asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Has {
    pub(super) domestic: bool,
    pub(super) hours: bool,
    pub(super) profile: bool,
    pub(super) anomaly: bool,
}

impl ScoreRules {
    /// All factors together.
    fn most(&self) -> u64 {
        let counted = [
            self.amount_above_usual.map(|rule| rule.points),
            self.new_card,
            self.foreign_card,
            self.no_chip,
            self.card_lately.map(|rule| rule.points),
            self.unusual_hour,
            self.device_odd.map(|rule| rule.points),
        ];
        counted.into_iter().flatten().map(u64::from).sum()
    }
}

/// Reads `[score]`. All of it may be missing: then nothing is weighed.
pub(super) fn read(section: Section<'_, '_>, has: Has) -> Option<ScoreRules> {
    const EXPECTED: &str = "points from 1 to 7000";
    if !section.present() {
        section.finish();
        return None;
    }
    let verify = section.optional("verify_from", EXPECTED, integer(1..=7 * MAX_POINTS));
    let decline = section.optional("decline_from", EXPECTED, integer(1..=7 * MAX_POINTS));
    let lifts = section.optional("override_lifts_decline", "true or false", boolean);
    if let Some(at) = lifts.filter(|_| !section.holds("decline_from")) {
        section.fault(
            at.line,
            "score.override_lifts_decline: only beside score.decline_from",
        );
    }
    let above = section.section("amount_above_usual");
    needs(&above, has.profile, PROFILE);
    let above = optional_table(above, |table| {
        let percentile = table.required("percentile", PERCENTILE, integer(50..=99));
        let points = points(table);
        Some(AboveUsual {
            percentile: percentile?.value,
            points: points?,
        })
    });
    let new_card = optional_table(section.section("new_card"), points);
    let foreign = section.section("foreign_card");
    needs(&foreign, has.domestic, "card.domestic");
    let foreign_card = optional_table(foreign, points);
    let no_chip = optional_table(section.section("no_chip"), points);
    let card_lately = read_lately(section.section("card_lately"));
    let hour = section.section("unusual_hour");
    needs(&hour, has.hours || has.profile, "[hours] or [profile]");
    let unusual_hour = optional_table(hour, points);
    let odd = section.section("device_odd");
    needs(&odd, has.anomaly, "[anomaly], which looks for oddities");
    let device_odd = optional_table(odd, |table| {
        let from = table.required("from_points", "points from 1 to 100000", integer(1..=100_000));
        let points = points(table);
        Some(DeviceOdd {
            from_points: from?.value,
            points: points?,
        })
    });
    let rules = ScoreRules {
        verify_from: verify.map(|at| at.value),
        decline_from: decline.map(|at| at.value),
        override_lifts_decline: lifts.is_some_and(|at| at.value),
        amount_above_usual: above,
        new_card,
        foreign_card,
        no_chip,
        card_lately,
        unusual_hour,
        device_odd,
    };
    // What a factor with a wrong value would count nobody knows.
    let factors = [
        ("amount_above_usual", above.is_some()),
        ("new_card", new_card.is_some()),
        ("foreign_card", foreign_card.is_some()),
        ("no_chip", no_chip.is_some()),
        ("card_lately", card_lately.is_some()),
        ("unusual_hour", unusual_hour.is_some()),
        ("device_odd", device_odd.is_some()),
    ];
    let all_read = factors.iter().all(|(key, read)| section.holds(key) == *read);
    let most = if all_read { rules.most() } else { u64::MAX };
    hold_thresholds(&section, verify, decline, most);
    section.finish();
    Some(rules)
}

fn read_lately(section: Section<'_, '_>) -> Option<CardLately> {
    optional_table(section, |table| {
        let count = table.required(
            "count",
            "a whole number from 2 to 64",
            integer(2..=MAX_IN_WINDOW as u64),
        );
        let minutes = table.required("within_minutes", MINUTES, integer(1..=1_440));
        let points = points(table);
        Some(CardLately {
            window: Window {
                most: u32::try_from(count?.value).ok()?,
                within_ms: minutes?.value.saturating_mul(60_000),
            },
            points: points?,
        })
    })
}

/// A score that leads to nothing, or a threshold that is never reached, is a
/// fault.
fn hold_thresholds(section: &Section<'_, '_>, verify: Option<At<u64>>, decline: Option<At<u64>>, most: u64) {
    match (verify, decline) {
        (None, None) if !section.holds("verify_from") && !section.holds("decline_from") => section.fault(
            section.line(),
            "score leads to nothing: verify_from or decline_from expected",
        ),
        (Some(verify), Some(decline)) if verify.value >= decline.value => {
            section.fault(verify.line, "score: verify_from below decline_from expected");
        }
        _ => {}
    }
    for at in [verify, decline].into_iter().flatten() {
        if at.value > most {
            section.fault(
                at.line,
                format!("score: all factors together count {most}, so that this is never reached"),
            );
        }
    }
}
