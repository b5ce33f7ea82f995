//! Policies: numbers drawn from the seed, and their text, which the core
//! reads. The checkers use the numbers, never the core's reading of the text.

use std::fmt::Write as _;

use hub_protocol::{CardScheme, DeviceClass, EntryMode, Funding, KeyId};
use jiff::Timestamp;

use crate::profile::{Profile, pick};
use crate::rng::Rng;
use crate::wire;

mod allowance;
mod cards;
mod devices;
mod hours;
mod kinds;
mod oddities;
mod often;
mod people;
mod score;

pub(crate) use allowance::Allowances;
pub(crate) use cards::CardRules;
pub(crate) use devices::Devices;
pub(crate) use hours::Hours;
pub(crate) use kinds::{Kind, Payment, Step};
pub(crate) use oddities::Oddities;
pub(crate) use often::{TapLimits, Window, Windows, is_tap, is_verified, tap, verified_how};
pub(crate) use people::People;
pub(crate) use score::{Facts, Score, draw_some as draw_score};

/// The key that headquarters signs policies with.
pub(crate) const POLICY_KEY: KeyId = KeyId([50; 16]);

/// A highest sum and a highest number, and from how many in a row on the PIN
/// is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) exposure: u64,
    pub(crate) consecutive: u32,
    pub(crate) lower: Option<u32>,
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
    pub(crate) taps: TapLimits,
    pub(crate) windows: Windows,
    pub(crate) hours: Option<Hours>,
    pub(crate) score: Option<Score>,
    pub(crate) store: Pair,
    pub(crate) card: Pair,
    pub(crate) cards: CardRules,
    pub(crate) kinds: Vec<Kind>,
    /// By minutes without the gateway.
    pub(crate) outage: Vec<Step>,
    /// By percent of the store's ceiling in use.
    pub(crate) store_used: Vec<Step>,
    pub(crate) classes: Vec<(DeviceClass, u64, Pair)>,
    pub(crate) people: People,
    pub(crate) allowance: Option<Allowances>,
    pub(crate) oddities: Option<Oddities>,
    pub(crate) devices: Option<Devices>,
}

impl Pair {
    fn text(&self, prefix: &str) -> String {
        let Self {
            exposure,
            consecutive,
            lower,
        } = self;
        let mut text =
            format!("{prefix}exposure_ceiling = {exposure}\n{prefix}consecutive_limit = {consecutive}");
        // Writing to a String cannot fail.
        if let Some(lower) = lower {
            let _ = write!(text, "\n{prefix}consecutive_lower_limit = {lower}");
        }
        text
    }
}

fn instant(ms: u64) -> String {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms)
        .unwrap_or(Timestamp::MAX)
        .to_string()
}

impl Limits {
    /// Small enough that limits bite all the time.
    /// `own` is a sequence of the policy's own, for what is newer than seeds.
    pub(crate) fn draw(rng: &mut Rng, own: &mut Rng, version: u64, wall_ms: u64, profile: &Profile) -> Self {
        let pace_ms = profile.pace_ms;
        let step = 500;
        let lower = if rng.chance(400) { 500 } else { 0 };
        let pair = |rng: &mut Rng, least: u64, exposure: u64, count: u64| {
            let exposure = step * (least + rng.below(exposure));
            let consecutive = 1 + rng.below(count);
            let lower = rng.chance(lower).then(|| rng.below(consecutive + 1));
            Pair {
                exposure,
                consecutive: u32::try_from(consecutive).unwrap_or(1),
                lower: lower.and_then(|lower| u32::try_from(lower).ok()),
            }
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
            .filter(|_| !rng.chance(40))
            .copied()
            .collect::<Vec<_>>();
        let classes = if classes.is_empty() {
            vec![DeviceClass::Mpos]
        } else {
            classes
        };
        let cards = CardRules::draw(rng, wall_ms, pace_ms);
        let kinds = if rng.chance(350) {
            Kind::draw_some(rng, cards.knows_domestic(), step)
        } else {
            Vec::new()
        };
        let mut moves = |least: u64, most: u64| {
            if rng.chance(250) {
                Step::draw_some(rng, least, most)
            } else {
                Vec::new()
            }
        };
        let outage = moves(0, 2 + pace_ms * 60 / minute);
        let store_used = moves(1, 50);
        let entry_modes = match rng.below(12) {
            0 => vec![EntryMode::Contactless],
            1..=4 if profile.score.is_some() => EntryMode::ALL.to_vec(),
            _ => vec![EntryMode::Chip, EntryMode::Contactless],
        };
        let taps_unverified = rng
            .chance(500)
            .then(|| pick(rng, &[step / 2 + 1, step * 2, step * 2, step * 4]));
        let taps = TapLimits::draw(rng, step);
        let hours = rng.chance(200).then(|| Hours::draw(rng, wall_ms, pace_ms));
        let knows = (cards.knows_domestic(), hours.is_some());
        let people = People::draw(own, profile);
        let mut limits = Self {
            version,
            not_before_ms: wall_ms - 24 * 60 * minute,
            expires_ms,
            enabled: !rng.chance(25),
            longest_ms,
            schemes: vec![CardScheme::Cb, CardScheme::Visa],
            funding: vec![Funding::Credit, Funding::Debit],
            entry_modes,
            unverified: taps_unverified,
            taps,
            windows: profile.windows,
            hours,
            score: profile.score.and_then(|score| score.within(knows.0, knows.1)),
            store: pair(rng, 6, 40, 14),
            card: pair(rng, 3, 10, 5),
            cards,
            kinds,
            outage,
            store_used,
            classes: classes
                .into_iter()
                .map(|class| (class, step * (1 + rng.below(8)), pair(rng, 4, 20, 9)))
                .collect(),
            people,
            allowance: None,
            oddities: None,
            devices: None,
        };
        limits.people.lower_too(own, &mut limits.card);
        if profile.tapping > 0 && own.chance(900) {
            limits.bind_taps(own, step);
        }
        // What is newest is drawn last, so that the rest stays what it was.
        limits.allowance = Allowances::draw(own, profile);
        if limits.allowance.is_some() && own.chance(600) {
            limits.make_room();
        }
        limits.oddities = Oddities::draw(own, profile);
        limits.devices = Devices::draw(own, profile);
        if own.chance(profile.early) {
            limits.not_before_ms = match own.below(3) {
                0 => wall_ms,
                1 => wall_ms.saturating_sub(own.below(minute)),
                _ => wall_ms + own.below(1 + pace_ms * 20),
            }
            .min(limits.expires_ms - 1);
        }
        let ceiling = limits.card.exposure;
        if let Some(rules) = &mut limits.allowance {
            rules.split(own, ceiling);
        }
        limits
    }

    /// The highest sum of one card that the hub itself approves.
    pub(crate) fn hub_part(&self) -> u64 {
        let ceiling = self.card.exposure;
        let aside = self.allowance.as_ref().map(|rules| rules.set_aside(ceiling));
        ceiling - aside.unwrap_or_default()
    }

    /// Or allowances would seldom be more than one small payment.
    fn make_room(&mut self) {
        let of_classes = self.classes.iter_mut().map(|(_, _, pair)| pair);
        for pair in of_classes.chain([&mut self.store]) {
            pair.exposure += 3_000;
            pair.consecutive += 5;
            pair.lower = None;
        }
    }

    /// For a shop with a long queue: next to nothing stands in its way.
    pub(crate) fn widen(&mut self) {
        (self.enabled, self.longest_ms) = (true, 43_200 * 60_000);
        self.expires_ms = self.not_before_ms + 400 * 24 * 3_600_000;
        self.cards = CardRules::default();
        self.kinds.clear();
        self.outage.clear();
        self.store_used.clear();
        self.unverified = None;
        self.taps = TapLimits::default();
        self.windows = Windows::default();
        self.hours = None;
        self.score = None;
        self.people = People::widest();
        self.schemes = CardScheme::ALL.to_vec();
        self.funding = Funding::ALL.to_vec();
        self.entry_modes = EntryMode::ALL.to_vec();
        for (_, transaction, _) in &mut self.classes {
            *transaction = 5_000;
        }
        let of_classes = self.classes.iter_mut().map(|(_, _, pair)| pair);
        for pair in of_classes.chain([&mut self.store, &mut self.card]) {
            *pair = Pair {
                exposure: 1_000_000_000,
                consecutive: 1_000_000,
                lower: None,
            };
        }
    }

    /// For a shop where customers tap: nothing else stands in their way.
    fn bind_taps(&mut self, rng: &mut Rng, step: u64) {
        self.widen();
        let of_classes = self.classes.iter_mut().map(|(_, _, pair)| pair);
        for pair in of_classes.chain([&mut self.store, &mut self.card]) {
            // Allowances may add to it.
            pair.consecutive = 100_000;
        }
        self.unverified = Some(4 * step);
        self.taps = TapLimits {
            sum: Some(step * (2 + rng.below(6)) + pick(rng, &[0, 1, 50])),
            count: rng
                .chance(300)
                .then(|| u32::try_from(2 + rng.below(4)).unwrap_or(2)),
        };
    }

    /// As headquarters writes it.
    pub(crate) fn text(&self) -> String {
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
        text += &self.people.text_of_offline();
        for (name, pair) in [("store", self.store), ("card", self.card)] {
            let _ = writeln!(text, "[{name}]\n{}", pair.text(""));
        }
        text += &self.taps.text();
        text += &self.windows.text_of_card();
        text += &self.cards.text();
        for (class, transaction, pair) in &self.classes {
            let pair = pair.text("device_");
            let _ = writeln!(
                text,
                "[class.{class}]\ntransaction_ceiling = {transaction}\n{pair}"
            );
            text += &self.windows.text_of_device();
        }
        text += &self.people.text();
        text.extend(self.allowance.as_ref().map(Allowances::text));
        text.extend(self.oddities.as_ref().map(Oddities::text));
        text.extend(self.devices.as_ref().map(Devices::text));
        if let Some(hours) = &self.hours {
            text += &hours.text();
        }
        if let Some(score) = &self.score {
            text += &score.text();
        }
        let kinds = self.kinds.iter().map(Kind::text);
        let outage = self.outage.iter().map(|step| step.text("outage", "from_minutes"));
        let used = self
            .store_used
            .iter()
            .map(|step| step.text("store_used", "from_percent"));
        text.extend(kinds.chain(outage).chain(used));
        text
    }

    /// As it arrives at the hub.
    pub(crate) fn signed(&self) -> Vec<u8> {
        wire::unsigned(0, self.text().as_bytes())
    }
}
