//! How much one payment may be: a ceiling for each class, and others for
//! combinations of class, way of reading, verification, funding, issuer and
//! cryptogram. The most specific one that fits counts.

use core::fmt;
use core::str::FromStr;

use hub_protocol::{
    Cryptogram, DeviceClass, EntryMode, Funding, MAX_AMOUNT_MINOR, PaymentRequest, Verification,
};

use super::cards::{CardRules, Malformed};
use super::{AMOUNT, names};
use crate::toml_reader::{Section, integer, text};

/// The most combinations in a policy.
pub const MAX_CEILINGS: usize = 256;

/// Where the card was issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuer {
    /// In one of the policy's domestic countries.
    Domestic,
    /// Elsewhere, or not known.
    Foreign,
}

impl FromStr for Issuer {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match text {
            "domestic" => Ok(Self::Domestic),
            "foreign" => Ok(Self::Foreign),
            _ => Err(Malformed),
        }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Domestic => "domestic",
            Self::Foreign => "foreign",
        })
    }
}

/// Which payments a ceiling is for. What is `None` is for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fits {
    /// The device's class.
    pub class: Option<DeviceClass>,
    /// How the card was read.
    pub entry_mode: Option<EntryMode>,
    /// How the holder was verified.
    pub verification: Option<Verification>,
    /// How the card is funded.
    pub funding: Option<Funding>,
    /// Where the card was issued.
    pub issuer: Option<Issuer>,
    /// Whether the chip approved or asks to go online.
    pub cryptogram: Option<Cryptogram>,
}

/// A ceiling for one payment of some kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// Which payments it is for.
    pub fits: Fits,
    /// The highest amount, minor units.
    pub amount_minor: u64,
}

impl Fits {
    /// What a payment is; nothing is left open.
    pub(crate) fn of(request: &PaymentRequest, class: DeviceClass, cards: &CardRules) -> Self {
        let issuer = match cards.is_domestic(&request.card) {
            true => Issuer::Domestic,
            false => Issuer::Foreign,
        };
        Self {
            class: Some(class),
            entry_mode: Some(request.entry_mode),
            verification: Some(request.counted_verification()),
            funding: Some(request.card.funding),
            issuer: Some(issuer),
            cryptogram: Some(request.cryptogram),
        }
    }

    /// Whether some payment can be of both kinds.
    fn meets(&self, other: &Self) -> bool {
        fn open<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
            a.is_none() || b.is_none() || a == b
        }
        open(&self.class, &other.class)
            && open(&self.entry_mode, &other.entry_mode)
            && open(&self.verification, &other.verification)
            && open(&self.funding, &other.funding)
            && open(&self.issuer, &other.issuer)
            && open(&self.cryptogram, &other.cryptogram)
    }

    /// How much it says of a payment, 0 to 6.
    fn specificity(&self) -> usize {
        let said = [
            self.class.is_some(),
            self.entry_mode.is_some(),
            self.verification.is_some(),
            self.funding.is_some(),
            self.issuer.is_some(),
            self.cryptogram.is_some(),
        ];
        said.iter().filter(|said| **said).count()
    }
}

/// The most specific ceiling for a payment of this kind, and its number from
/// 1 in the order of the file.
pub(crate) fn most_specific<'p>(ceilings: &'p [Ceiling], payment: &Fits) -> Option<(usize, &'p Ceiling)> {
    let fitting = ceilings.iter().enumerate();
    fitting
        .filter(|(_, ceiling)| ceiling.fits.meets(payment))
        .max_by_key(|(_, ceiling)| ceiling.fits.specificity())
        .map(|(at, ceiling)| (at + 1, ceiling))
}

/// Reads `[[ceiling]]`. Two that say equally much and can both fit a payment
/// are a fault: nobody could tell which counts.
pub(super) fn read(listed: Vec<Section<'_, '_>>, domestic_known: bool) -> Vec<Ceiling> {
    let mut found: Vec<(Ceiling, usize)> = Vec::with_capacity(listed.len());
    for (at, section) in listed.into_iter().enumerate() {
        let line = section.line();
        if at == MAX_CEILINGS {
            section.fault(line, format!("ceiling: at most {MAX_CEILINGS} expected"));
        }
        let Some(ceiling) = read_one(section, domestic_known, &found) else {
            continue;
        };
        found.push((ceiling, line));
    }
    found.into_iter().map(|(ceiling, _)| ceiling).collect()
}

fn read_one(section: Section<'_, '_>, domestic_known: bool, before: &[(Ceiling, usize)]) -> Option<Ceiling> {
    const CRYPTOGRAMS: [Cryptogram; 2] = [Cryptogram::CardApproved, Cryptogram::AsksOnline];
    let one_of = |names: String| names.replace("a list of ", "one of ");
    let class = section.optional(
        "class",
        &one_of(names(DeviceClass::ALL.iter().map(|c| c.name()))),
        text,
    );
    let entry = section.optional(
        "entry_mode",
        &one_of(names(EntryMode::ALL.iter().map(|m| m.name()))),
        text,
    );
    let verification = section.optional(
        "verification",
        &one_of(names(Verification::ALL.iter().map(|v| v.name()))),
        text,
    );
    let funding = section.optional(
        "funding",
        &one_of(names(Funding::ALL.iter().map(|f| f.name()))),
        text,
    );
    let issuer = section.optional("issuer", "one of domestic, foreign", text);
    let cryptogram = section.optional(
        "cryptogram",
        &one_of(names(CRYPTOGRAMS.iter().map(|c| c.name()))),
        |v| text(v).filter(|found| CRYPTOGRAMS.contains(found)),
    );
    let amount = section.required("amount", AMOUNT, integer(0..=MAX_AMOUNT_MINOR));
    let line = section.line();
    if let Some(issuer) = &issuer
        && !domestic_known
    {
        section.fault(
            issuer.line,
            "ceiling.issuer needs card.domestic, the countries that are domestic",
        );
    }
    let fits = Fits {
        class: class.map(|at| at.value),
        entry_mode: entry.map(|at| at.value),
        verification: verification.map(|at| at.value),
        funding: funding.map(|at| at.value),
        issuer: issuer.map(|at| at.value),
        cryptogram: cryptogram.map(|at| at.value),
    };
    // Of one with a wrong value nobody knows what it says.
    let whole = section.holds("class") == fits.class.is_some()
        && section.holds("entry_mode") == fits.entry_mode.is_some()
        && section.holds("verification") == fits.verification.is_some()
        && section.holds("funding") == fits.funding.is_some()
        && section.holds("issuer") == fits.issuer.is_some()
        && section.holds("cryptogram") == fits.cryptogram.is_some();
    if !whole {
        section.finish();
        return None;
    }
    let tie = before
        .iter()
        .find(|(other, _)| other.fits.specificity() == fits.specificity() && other.fits.meets(&fits));
    if let Some((_, other)) = tie {
        section.fault(
            line,
            format!(
                "ceiling: a payment can fit this one and the one at line {other}, and both say equally much; \
                 say more in one of them"
            ),
        );
    }
    section.finish();
    Some(Ceiling {
        fits,
        amount_minor: amount?.value,
    })
}
