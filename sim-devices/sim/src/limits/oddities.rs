//! What is odd, and what it leads to: as drawn, and what it means, by
//! `docs/policy.md`.

use std::fmt::Write as _;

use hub_protocol::Restriction;

use crate::profile::{Profile, pick};
use crate::rng::Rng;

/// From so many points on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Steps {
    warn: Option<u64>,
    tighten: Option<u64>,
    stop: Option<u64>,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Oddities {
    pub(crate) tighten_percent: u64,
    pub(crate) fade_per_hour: u64,
    pub(crate) recover_minutes: Option<u64>,
    pub(crate) device: Steps,
    pub(crate) store: Steps,
    /// In a row, from which amount on, points.
    pub(crate) equal: Option<(u32, u64, u16)>,
    /// How many, and points.
    pub(crate) bad_signatures: Option<(u32, u16)>,
}

impl Steps {
    fn draw(own: &mut Rng, scale: u64) -> Self {
        let tighten = scale * (2 + own.below(3));
        let mut some = |points: u64| own.chance(750).then_some(points);
        Self {
            warn: some(scale),
            tighten: some(tighten),
            stop: some(tighten + scale),
        }
    }

    pub(crate) fn reached(&self, points: u64) -> Restriction {
        [
            (self.stop, Restriction::Stopped),
            (self.tighten, Restriction::Tightened),
            (self.warn, Restriction::Warned),
        ]
        .into_iter()
        .find(|(from, _)| from.is_some_and(|from| points >= from))
        .map_or(Restriction::None, |(_, step)| step)
    }

    fn text(&self, name: &str) -> String {
        let steps = [
            ("warn", self.warn),
            ("tighten", self.tighten),
            ("stop", self.stop),
        ];
        let lines = steps
            .iter()
            .filter_map(|(key, points)| points.map(|points| format!("{key} = {points}\n")));
        format!("[anomaly.{name}]\n{}", lines.collect::<String>())
    }
}

impl Oddities {
    /// From a sequence of the policy's own.
    pub(super) fn draw(own: &mut Rng, profile: &Profile) -> Option<Self> {
        if !own.chance(profile.oddities) {
            return None;
        }
        let points = |own: &mut Rng| u16::try_from(pick(own, &[10, 20, 35])).unwrap_or(1);
        let small = |number: u64| u32::try_from(number).unwrap_or(2);
        Some(Self {
            tighten_percent: pick(own, &[0, 33, 50, 75]),
            fade_per_hour: pick(own, &[1, 60, 3_000]),
            recover_minutes: own.chance(600).then(|| pick(own, &[1, 1, 5, 60])),
            device: Steps::draw(own, 10),
            store: Steps::draw(own, pick(&mut own.clone(), &[10, 20, 40])),
            equal: own.chance(800).then(|| {
                (
                    small(pick(own, &[2, 2, 3])),
                    pick(own, &[0, 100, 1_000]),
                    points(own),
                )
            }),
            bad_signatures: own.chance(700).then(|| (small(pick(own, &[2, 3])), points(own))),
        })
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "[anomaly]\ntighten_percent = {}\nfade_points_per_hour = {}\n",
            self.tighten_percent, self.fade_per_hour
        );
        // Writing to a String cannot fail.
        if let Some(minutes) = self.recover_minutes {
            let _ = writeln!(text, "recover_online_minutes = {minutes}");
        }
        text += &self.device.text("device");
        text += &self.store.text("store");
        if let Some((in_a_row, from, points)) = self.equal {
            let _ = write!(
                text,
                "[anomaly.equal_amounts]\nin_a_row = {in_a_row}\nfrom_amount = {from}\npoints = {points}\n"
            );
        }
        if let Some((count, points)) = self.bad_signatures {
            let _ = write!(
                text,
                "[anomaly.bad_signatures]\ncount = {count}\nwithin_minutes = 1440\npoints = {points}\n"
            );
        }
        text
    }
}
