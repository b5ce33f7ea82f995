//! Which cards a drawn policy takes, and what its words mean, by
//! `docs/policy.md`.

use std::fmt::Write as _;

use hub_protocol::CardFacts;

use super::instant;
use crate::profile::pick;
use crate::rng::Rng;
use crate::wire::{COUNTRIES, FIRST_BIN};

/// A range of BINs of 6 or 8 digits, both ends included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bins {
    digits: usize,
    from: u32,
    to: u32,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct CardRules {
    countries: Vec<&'static str>,
    unknown_country: bool,
    /// Known to every policy that has ceilings for domestic or foreign cards.
    domestic: Vec<&'static str>,
    allowed: Vec<Bins>,
    denied: Vec<Bins>,
    exceptions: Vec<(String, Option<u64>)>,
}

impl Bins {
    /// Beside the BINs that cards have here: most of them, some, or none.
    fn draw(rng: &mut Rng) -> Self {
        let small = |number: u64| u32::try_from(number).unwrap_or_default();
        let (digits, from, most) = if rng.chance(500) {
            (6, FIRST_BIN / 100 + small(rng.below(3)), 2)
        } else {
            let at = 100 * rng.below(3) + rng.below(9);
            (8, FIRST_BIN + small(at), pick(rng, &[1, 5, 150]))
        };
        Self {
            digits,
            from,
            to: from + small(rng.below(most)),
        }
    }

    fn text(&self) -> String {
        if self.from == self.to {
            format!("\"{}\"", self.from)
        } else {
            format!("\"{}-{}\"", self.from, self.to)
        }
    }

    /// Every BIN of the range's length that begins with these digits.
    fn could_be(&self, bin: &str) -> core::ops::RangeInclusive<u32> {
        let told = bin.get(..self.digits).unwrap_or(bin);
        let with = |digit: &str| {
            let rest = digit.repeat(self.digits - told.len());
            format!("{told}{rest}").parse().unwrap_or_default()
        };
        with("0")..=with("9")
    }

    /// The card is certainly in it.
    fn holds(&self, bin: &str) -> bool {
        bin.len() >= self.digits && self.may_hold(bin)
    }

    /// As far as the reader tells, it may be.
    fn may_hold(&self, bin: &str) -> bool {
        let all = self.could_be(bin);
        *all.start() <= self.to && *all.end() >= self.from
    }
}

impl CardRules {
    pub(super) fn draw(rng: &mut Rng, wall_ms: u64, pace_ms: u64) -> Self {
        fn bins(rng: &mut Rng) -> Vec<Bins> {
            if rng.chance(880) {
                return Vec::new();
            }
            (0..=rng.below(3)).map(|_| Bins::draw(rng)).collect()
        }
        let mut rules = Self {
            allowed: bins(rng),
            denied: bins(rng),
            ..Self::default()
        };
        if rng.chance(80) {
            rules.countries = countries(rng);
            rules.unknown_country = rng.chance(500);
        }
        if rng.chance(400) {
            rules.domestic = countries(rng);
        }
        if rng.chance(200) {
            for card in 1..7 {
                if rng.chance(300) {
                    let until = match rng.below(4) {
                        0 => None,
                        1 => Some(wall_ms.saturating_sub(60_000)),
                        _ => Some(wall_ms + pace_ms * rng.below(150)),
                    };
                    rules.exceptions.push((format!("card-{card}"), until));
                }
            }
        }
        rules
    }

    /// Whether any card is judged by what only the hub knows.
    pub(crate) fn judges_cards(&self) -> bool {
        let lists = [&self.allowed, &self.denied];
        !self.countries.is_empty() || !self.exceptions.is_empty() || lists.iter().any(|bins| !bins.is_empty())
    }

    pub(super) fn knows_domestic(&self) -> bool {
        !self.domestic.is_empty()
    }

    /// What `[card]` says beside its limits, and what follows it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let mut list = |key: &str, items: Vec<String>| {
            if !items.is_empty() {
                let _ = writeln!(text, "{key} = [{}]", items.join(", "));
            }
        };
        let quoted = |all: &[&str]| all.iter().map(|one| format!("\"{one}\"")).collect();
        list("countries", quoted(&self.countries));
        list("domestic", quoted(&self.domestic));
        list("bins_allowed", self.allowed.iter().map(Bins::text).collect());
        list("bins_denied", self.denied.iter().map(Bins::text).collect());
        if !self.countries.is_empty() {
            let _ = writeln!(text, "unknown_country = {}", self.unknown_country);
        }
        for (token, until) in &self.exceptions {
            let _ = writeln!(text, "[[card.exception]]\ntoken = \"{token}\"");
            if let Some(until) = until {
                let _ = writeln!(text, "until = {}", instant(*until));
            }
        }
        text
    }

    pub(crate) fn is_excepted(&self, card: &CardFacts, now_ms: u64) -> bool {
        let listed = self.exceptions.iter().find(|(token, _)| *token == card.token);
        match listed {
            None => false,
            Some((_, None)) => true,
            Some((_, Some(until))) => now_ms < *until,
        }
    }

    pub(crate) fn country_passes(&self, card: &CardFacts) -> bool {
        self.countries.is_empty()
            || match card.issuer_country.as_deref() {
                Some(country) => self.countries.contains(&country),
                None => self.unknown_country,
            }
    }

    /// A country that is not known is foreign.
    pub(crate) fn is_domestic(&self, card: &CardFacts) -> bool {
        let country = card.issuer_country.as_deref();
        country.is_some_and(|country| self.domestic.contains(&country))
    }

    pub(crate) fn bin_passes(&self, card: &CardFacts) -> bool {
        if self.allowed.is_empty() && self.denied.is_empty() {
            return true;
        }
        let Some(bin) = card.bin.as_deref() else {
            return false;
        };
        // (digits, whether it allows) of all that hold the card: the longest
        // counts, and of these the one that denies.
        let denied = self.denied.iter().filter(|range| range.may_hold(bin));
        let allowed = self.allowed.iter().filter(|range| range.holds(bin));
        denied
            .map(|range| (range.digits, false))
            .chain(allowed.map(|range| (range.digits, true)))
            .max_by_key(|(digits, allows)| (*digits, !allows))
            .map_or(self.allowed.is_empty(), |(_, allows)| allows)
    }
}

/// One or more of those that cards here come from.
fn countries(rng: &mut Rng) -> Vec<&'static str> {
    let first = usize::try_from(rng.below(3)).unwrap_or_default();
    let more = usize::try_from(1 + rng.below(2)).unwrap_or(1);
    COUNTRIES.iter().cycle().skip(first).take(more).copied().collect()
}
