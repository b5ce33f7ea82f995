//! A sale to be paid by card, and the card that pays it.

use std::time::Duration;

use hub_protocol::{CardFacts, CardScheme, Cryptogram, EntryMode, Funding, Verification};
use jiff::civil::DateTime;

use crate::rng::Rng;

/// One sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    /// The order id: the ticket's number.
    pub order_id: String,
    /// Shop time.
    pub at: DateTime,
    /// In minor units.
    pub amount_minor: u64,
    /// How long the till is busy with it, in shop time.
    pub service: Duration,
    /// What the reader sees of the card.
    pub card: CardFacts,
    /// How the customer pays.
    pub gesture: Gesture,
}

/// What the customer does with the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gesture {
    /// How the card is read.
    pub entry_mode: EntryMode,
    /// How the holder is verified.
    pub verification: Verification,
    /// What the card answers.
    pub cryptogram: Cryptogram,
}

impl Gesture {
    /// Card inserted, PIN checked by the chip.
    pub const fn inserted(cryptogram: Cryptogram) -> Self {
        Self {
            entry_mode: EntryMode::Chip,
            verification: Verification::OfflinePin,
            cryptogram,
        }
    }
}

/// Above it the holder is verified, contactless or not, in minor units (the
/// EU's 50 for contactless).
pub const UNVERIFIED_UP_TO: u64 = 5000;

/// The card behind a token: the same at every use. Which brands and kinds
/// come how often is assumed (French habits), no data set says it.
pub fn card(seed: u64, token: String) -> CardFacts {
    const SCHEMES: [(CardScheme, u64, &str); 5] = [
        (CardScheme::Cb, 600, "497040"),
        (CardScheme::Visa, 190, "453201"),
        (CardScheme::Mastercard, 170, "513700"),
        (CardScheme::Amex, 30, "374200"),
        (CardScheme::Unionpay, 10, "624300"),
    ];
    const FUNDING: [(Funding, u64); 4] = [
        (Funding::Debit, 640),
        (Funding::DeferredDebit, 170),
        (Funding::Credit, 150),
        (Funding::Prepaid, 40),
    ];
    let mut rng = Rng::of(seed, &token);
    let (scheme, _, bin) = SCHEMES[rng.weighted(&SCHEMES.map(|(_, weight, _)| weight))];
    let (funding, _) = FUNDING[rng.weighted(&FUNDING.map(|(_, weight)| weight))];
    let country = if scheme == CardScheme::Cb || rng.chance(700) {
        "FR"
    } else {
        "DE"
    };
    CardFacts {
        token,
        scheme,
        funding,
        issuer_country: Some(country.to_owned()),
        bin: Some(bin.to_owned()),
        last4: Some(format!("{:04}", rng.below(10_000))),
    }
}

/// How a customer pays this amount; assumed, no data set says it: most tap,
/// a few tap above the limit and find out, few cards approve by themselves,
/// very few refuse.
pub fn gesture(rng: &mut Rng, amount_minor: u64) -> Gesture {
    let cryptogram = match rng.weighted(&[935, 60, 5]) {
        0 => Cryptogram::AsksOnline,
        1 => Cryptogram::CardApproved,
        _ => Cryptogram::Refused,
    };
    let taps = rng.chance(if amount_minor > UNVERIFIED_UP_TO { 350 } else { 850 });
    if !taps {
        return Gesture::inserted(cryptogram);
    }
    let verification = match amount_minor > UNVERIFIED_UP_TO {
        // A phone or watch verifies its holder; a card above the limit asks
        // for a PIN that only the bank can check.
        true if rng.chance(600) => Verification::Cdcvm,
        true => Verification::OnlinePin,
        false if rng.chance(250) => Verification::Cdcvm,
        false => Verification::None,
    };
    Gesture {
        entry_mode: EntryMode::Contactless,
        verification,
        cryptogram,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_token_is_the_same_card_at_every_use() {
        assert_eq!(card(1, "tok-9".to_owned()), card(1, "tok-9".to_owned()));
        assert_ne!(
            card(1, "tok-9".to_owned()).last4,
            card(2, "tok-9".to_owned()).last4
        );
    }

    #[test]
    fn nobody_taps_above_the_limit_without_being_verified() {
        let mut rng = Rng::new(3);
        for _ in 0..2000 {
            let high = gesture(&mut rng, UNVERIFIED_UP_TO + 1);
            assert_ne!(high.verification, Verification::None);
        }
    }
}
