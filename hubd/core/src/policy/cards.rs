//! Which cards: issuer countries, ranges of BINs, the exception list.
//!
//! What a reader does not tell cannot speak for the card: where a rule asks
//! for the country or the BIN, a card without one does not pass.

use core::fmt;
use core::str::FromStr;
use std::collections::BTreeMap;

use hub_protocol::CardFacts;
use hub_protocol::payment::MAX_TEXT;

use super::instant;
use crate::toml_reader::{Section, boolean, list, text};

/// The most entries of the exception list in a policy. Its file is bounded to
/// [`MAX_POLICY`](super::MAX_POLICY) bytes besides.
pub const MAX_EXCEPTIONS: usize = 1_000;

/// A country, ISO 3166-1 alpha-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Country([u8; 2]);

impl FromStr for Country {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(|_| Malformed)?;
        match letters.iter().all(u8::is_ascii_uppercase) {
            true => Ok(Self(letters)),
            false => Err(Malformed),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([first, second]) = self;
        write!(f, "{}{}", char::from(*first), char::from(*second))
    }
}

/// A range of BINs (issuer identification numbers, ISO/IEC 7812-1) of 6 or 8
/// digits, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinRange {
    digits: usize,
    from: u32,
    to: u32,
}

impl FromStr for BinRange {
    type Err = Malformed;

    /// `497010`, `49701000` or `497010-497019`.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let digits = from.len();
        let number = |end: &str| {
            let digits_only = end.bytes().all(|byte| byte.is_ascii_digit());
            (end.len() == digits && digits_only).then(|| end.parse::<u32>().ok())
        };
        match (number(from).flatten(), number(to).flatten()) {
            (Some(from), Some(to)) if matches!(digits, 6 | 8) && from <= to => Ok(Self { digits, from, to }),
            _ => Err(Malformed),
        }
    }
}

impl fmt::Display for BinRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digits, from, to } = *self;
        write!(f, "{from:0digits$}")?;
        match from == to {
            true => Ok(()),
            false => write!(f, "-{to:0digits$}"),
        }
    }
}

impl BinRange {
    /// Whether a BIN of 6 to 8 digits lies in the range.
    fn holds(&self, bin: &str) -> bool {
        let number = bin.get(..self.digits).and_then(|digits| digits.parse().ok());
        number.is_some_and(|number: u32| (self.from..=self.to).contains(&number))
    }

    /// Whether a BIN may lie in the range, as far as its digits tell.
    fn may_hold(&self, bin: &str) -> bool {
        let known = bin.len().min(self.digits);
        let missing = u32::try_from(self.digits - known).unwrap_or(0);
        let unit = 10_u32.pow(missing);
        let number = bin.get(..known).and_then(|digits| digits.parse().ok());
        number.is_some_and(|number: u32| (self.from / unit..=self.to / unit).contains(&number))
    }
}

/// A text of another form than expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Which cards may be approved offline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CardRules {
    /// Accepted issuer countries; empty: all, known or not.
    pub countries: Vec<Country>,
    /// Whether a card whose country is not known passes all the same.
    pub unknown_country: bool,
    /// The countries that count as domestic for ceilings.
    pub domestic: Vec<Country>,
    /// Accepted BINs; empty: all that are not denied.
    pub bins_allowed: Vec<BinRange>,
    /// BINs that are not accepted.
    pub bins_denied: Vec<BinRange>,
    /// Tokens of cards that are not accepted, until this time (exclusive,
    /// milliseconds since 1970 UTC) or for good.
    pub exceptions: BTreeMap<String, Option<u64>>,
}

impl CardRules {
    pub(crate) fn is_excepted(&self, token: &str, now_ms: u64) -> bool {
        let until = self.exceptions.get(token);
        until.is_some_and(|until| until.is_none_or(|until| now_ms < until))
    }

    pub(crate) fn country_passes(&self, card: &CardFacts) -> bool {
        match country(card) {
            _ if self.countries.is_empty() => true,
            Some(country) => self.countries.contains(&country),
            None => self.unknown_country,
        }
    }

    /// Of two ranges that hold the BIN, the one of 8 digits counts; of two of
    /// the same length, the one that denies.
    pub(crate) fn bin_passes(&self, card: &CardFacts) -> bool {
        if self.bins_allowed.is_empty() && self.bins_denied.is_empty() {
            return true;
        }
        let Some(bin) = card.bin.as_deref() else {
            return false;
        };
        for digits in [8, 6] {
            let of_length = |range: &&BinRange| range.digits == digits;
            let denied = self.bins_denied.iter().filter(of_length);
            if denied.into_iter().any(|range| range.may_hold(bin)) {
                return false;
            }
            if self
                .bins_allowed
                .iter()
                .filter(of_length)
                .any(|range| range.holds(bin))
            {
                return true;
            }
        }
        self.bins_allowed.is_empty()
    }

    /// Whether a card that does not pass by its BIN is refused by a range that
    /// denies, rather than for want of one that allows.
    pub fn bin_is_denied(&self, card: &CardFacts) -> bool {
        match card.bin.as_deref() {
            Some(bin) => self.bins_denied.iter().any(|range| range.may_hold(bin)),
            None => self.bins_allowed.is_empty(),
        }
    }

    /// Whether the issuer is domestic. One that is not known is foreign.
    pub(crate) fn is_domestic(&self, card: &CardFacts) -> bool {
        country(card).is_some_and(|country| self.domestic.contains(&country))
    }
}

fn country(card: &CardFacts) -> Option<Country> {
    card.issuer_country.as_deref()?.parse().ok()
}

/// Reads what `[card]` says of cards beside its limits.
pub(super) fn read(section: &Section<'_, '_>) -> CardRules {
    const COUNTRIES: &str = "a list of countries by two capital letters (ISO 3166-1)";
    const BINS: &str = "a list of BINs of 6 or 8 digits or ranges of them, such as \"497010-497019\",";
    let countries = section.optional("countries", COUNTRIES, some);
    let unknown = section.optional("unknown_country", "true or false", boolean);
    let domestic = section.optional("domestic", COUNTRIES, some);
    let allowed = section.optional("bins_allowed", BINS, some);
    let denied = section.optional("bins_denied", BINS, some);
    if let Some(unknown) = unknown.filter(|_| !section.holds("countries")) {
        section.fault(
            unknown.line,
            "card.unknown_country says something only beside card.countries",
        );
    }
    CardRules {
        countries: countries.map(|at| at.value).unwrap_or_default(),
        unknown_country: unknown.is_some_and(|at| at.value),
        domestic: domestic.map(|at| at.value).unwrap_or_default(),
        bins_allowed: allowed.map(|at| at.value).unwrap_or_default(),
        bins_denied: denied.map(|at| at.value).unwrap_or_default(),
        exceptions: read_exceptions(section),
    }
}

/// A list that says something: an empty one could be read as all or as none.
fn some<T: FromStr>(value: &toml::de::DeValue<'_>) -> Option<Vec<T>> {
    list(value).filter(|items| !items.is_empty())
}

fn read_exceptions(section: &Section<'_, '_>) -> BTreeMap<String, Option<u64>> {
    let mut exceptions = BTreeMap::new();
    let listed = section.sections("exception");
    if listed.len() > MAX_EXCEPTIONS {
        section.fault(
            section.line(),
            format!("card.exception: at most {MAX_EXCEPTIONS} cards expected"),
        );
    }
    for entry in listed {
        let token = entry.required("token", "a card token of 1 to 64 printable characters", |value| {
            text::<String>(value).filter(|token| {
                (1..=MAX_TEXT).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic())
            })
        });
        let until = entry.optional("until", super::INSTANT, instant);
        if let Some(token) = token
            && exceptions.insert(token.value, until.map(|at| at.value)).is_some()
        {
            entry.fault(token.line, "card.exception.token: this card is listed twice");
        }
        entry.finish();
    }
    exceptions
}
