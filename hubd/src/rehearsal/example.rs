//! A card of each kind that a policy can tell apart.

use hub_core::decide::assess_offline;
use hub_core::policy::Policy;
use hub_core::policy::ceilings::Issuer;
use hub_protocol::{CardFacts, CardScheme, Cryptogram, Funding, Reason};

use super::highest::{INSERTED_WITH_PIN, Stage, request};

/// How many cards are tried until one is accepted.
const MOST_CARDS_TRIED: usize = 20_000;

/// What a ceiling can tell apart, beside class and way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) funding: Funding,
    pub(super) issuer: Issuer,
    pub(super) cryptogram: Cryptogram,
}

/// A card of this kind that no rule for cards stands against, if there is one.
pub(super) fn card(policy: &Policy, kind: Kind, stage: Stage) -> Option<CardFacts> {
    let rules = &policy.cards;
    let mut countries: Vec<Option<String>> = match kind.issuer {
        Issuer::Domestic => rules
            .domestic
            .iter()
            .map(|country| Some(country.to_string()))
            .collect(),
        Issuer::Foreign => {
            let some_country = rules.countries.iter().map(ToString::to_string);
            let any_country = ["FR", "BE", "US"].map(str::to_owned);
            let foreign = |country: &String| !rules.domestic.iter().any(|home| home.to_string() == *country);
            some_country
                .chain(any_country)
                .filter(foreign)
                .map(Some)
                .collect()
        }
    };
    if kind.issuer == Issuer::Foreign {
        countries.push(None);
    }
    let bins = bins(policy);
    let class = policy.classes.keys().next()?;
    let passes = |card: &CardFacts| {
        let request = request(policy, INSERTED_WITH_PIN, card, kind.cryptogram, 1);
        let reason = assess_offline(&request, &stage.situation(policy, *class))
            .record
            .reason;
        !matches!(
            reason,
            Reason::CardOnExceptionList
                | Reason::SchemeNotAllowed
                | Reason::FundingNotAllowed
                | Reason::CountryNotAllowed
                | Reason::BinNotAllowed
        )
    };
    let cards = policy.offline.schemes.iter().flat_map(|scheme| {
        let (bins, countries) = (&bins, &countries);
        countries.iter().flat_map(move |country| {
            bins.iter().map(move |bin| CardFacts {
                token: "some-card".to_owned(),
                scheme: *scheme,
                funding: kind.funding,
                issuer_country: country.clone(),
                bin: bin.clone(),
                last4: None,
            })
        })
    });
    cards.take(MOST_CARDS_TRIED).find(passes)
}

/// BINs of which one passes if any does: none, and those at the edges of the
/// ranges.
fn bins(policy: &Policy) -> Vec<Option<String>> {
    let ranges = policy.cards.bins_allowed.iter().chain(&policy.cards.bins_denied);
    let mut found = vec![None];
    for range in ranges {
        let text = range.to_string();
        for end in text.split('-') {
            let Ok(number) = end.parse::<u32>() else {
                continue;
            };
            for near in [Some(number), number.checked_sub(1), number.checked_add(1)]
                .into_iter()
                .flatten()
            {
                let bin = format!("{near:0width$}", width = end.len());
                // A reader that gives 8 digits can prove what one with 6 cannot.
                let longer = format!("{bin:0<8}");
                found.extend([Some(longer), Some(bin)]);
            }
        }
    }
    found
}

/// A card, whether it is accepted or not.
pub(super) fn any_card() -> CardFacts {
    CardFacts {
        token: "some-card".to_owned(),
        scheme: CardScheme::Other,
        funding: Funding::Unknown,
        issuer_country: None,
        bin: None,
        last4: None,
    }
}
