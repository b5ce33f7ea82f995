//! Policies: numbers drawn from the seed, and their text, which the core
//! reads. The checkers use the numbers, never the core's reading of the text.

use std::fmt::Write as _;

use hub_protocol::{CardScheme, DeviceClass, EntryMode, Funding, KeyId};
use jiff::Timestamp;

use crate::rng::Rng;
use crate::wire;

/// The key that headquarters signs policies with.
pub(crate) const POLICY_KEY: KeyId = KeyId([50; 16]);

/// A highest sum and a highest number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) exposure: u64,
    pub(crate) consecutive: u32,
}

/// One policy.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) version: u64,
    pub(crate) not_before_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) enabled: bool,
    pub(crate) longest_ms: u64,
    pub(crate) schemes: Vec<CardScheme>,
    pub(crate) funding: Vec<Funding>,
    pub(crate) entry_modes: Vec<EntryMode>,
    pub(crate) unverified: Option<u64>,
    pub(crate) store: Pair,
    pub(crate) card: Pair,
    pub(crate) classes: Vec<(DeviceClass, u64, Pair)>,
}

impl Limits {
    /// Small enough that limits bite all the time.
    pub(crate) fn draw(rng: &mut Rng, version: u64, wall_ms: u64, pace_ms: u64) -> Self {
        let step = 500;
        let pair = |rng: &mut Rng, least: u64, exposure: u64, count: u64| Pair {
            exposure: step * (least + rng.below(exposure)),
            consecutive: u32::try_from(1 + rng.below(count)).unwrap_or(1),
        };
        let minute = 60_000;
        let expires_ms = match rng.below(5) {
            0 => wall_ms + minute + pace_ms * rng.below(200),
            _ => wall_ms + 400 * 24 * 60 * minute,
        };
        let longest_ms = match rng.below(4) {
            0 => minute * (1 + rng.below(10)),
            _ => minute * 43_200,
        };
        let classes = DeviceClass::ALL
            .iter()
            .filter(|_| !rng.chance(80))
            .copied()
            .collect::<Vec<_>>();
        let classes = if classes.is_empty() {
            vec![DeviceClass::Mpos]
        } else {
            classes
        };
        Self {
            version,
            not_before_ms: wall_ms - 24 * 60 * minute,
            expires_ms,
            enabled: !rng.chance(50),
            longest_ms,
            schemes: vec![CardScheme::Cb, CardScheme::Visa],
            funding: vec![Funding::Credit, Funding::Debit],
            entry_modes: vec![EntryMode::Chip, EntryMode::Contactless],
            unverified: rng.chance(500).then_some(step * 2),
            store: pair(rng, 6, 40, 14),
            card: pair(rng, 3, 10, 5),
            classes: classes
                .into_iter()
                .map(|class| (class, step * (1 + rng.below(8)), pair(rng, 4, 20, 9)))
                .collect(),
        }
    }

    /// As headquarters writes it.
    pub(crate) fn text(&self) -> String {
        let instant = |ms: u64| {
            let ms = i64::try_from(ms).unwrap_or(i64::MAX);
            Timestamp::from_millisecond(ms)
                .unwrap_or(Timestamp::MAX)
                .to_string()
        };
        let names = |all: Vec<&str>| format!("[\"{}\"]", all.join("\", \""));
        let mut text = format!(
            "format = 1\ntenant = \"sim\"\nstores = [\"{}\"]\nversion = {}\nnot_before = {}\nexpires = {}\n\
             currency = \"EUR\"\n[offline]\nenabled = {}\nlongest_minutes = {}\nschemes = {}\nfunding = {}\n\
             entry_modes = {}\n",
            wire::STORE,
            self.version,
            instant(self.not_before_ms),
            instant(self.expires_ms),
            self.enabled,
            self.longest_ms / 60_000,
            names(self.schemes.iter().map(|s| s.name()).collect()),
            names(self.funding.iter().map(|f| f.name()).collect()),
            names(self.entry_modes.iter().map(|m| m.name()).collect()),
        );
        // Writing to a String cannot fail.
        if let Some(ceiling) = self.unverified {
            let _ = writeln!(text, "contactless_unverified_ceiling = {ceiling}");
        }
        for (name, pair) in [("store", self.store), ("card", self.card)] {
            let _ = writeln!(
                text,
                "[{name}]\nexposure_ceiling = {}\nconsecutive_limit = {}",
                pair.exposure, pair.consecutive
            );
        }
        for (class, transaction, pair) in &self.classes {
            let _ = writeln!(
                text,
                "[class.{class}]\ntransaction_ceiling = {transaction}\ndevice_exposure_ceiling = {}\n\
                 device_consecutive_limit = {}",
                pair.exposure, pair.consecutive
            );
        }
        text
    }

    /// As it arrives at the hub.
    pub(crate) fn signed(&self) -> Vec<u8> {
        wire::unsigned(0, self.text().as_bytes())
    }
}
