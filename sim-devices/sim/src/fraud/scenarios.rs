//! What an attacker is to the play: one attempt after the other, each drawn
//! after the answer to the one before. Attackers know what customers can know:
//! that above 50 a tap asks for a PIN, what the shop's terms say of the most
//! that a device takes, and what they are told. They know of no detector.

use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Decision, DeviceClass, EntryMode, Funding, Reason, Terms, Verification,
};

use super::cards::{CardTesting, Splitting, StolenCard};
use super::day::{Device, Shop, below};
use super::refunds::RefundAbuse;
use super::tampered::{Cloned, Compromised};
use crate::rng::Rng;
use crate::sale::{self, Gesture};

/// A kind of fraud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// One card, bought with at several devices until it is refused.
    StolenCard,
    /// Many cards tried out, then bought with.
    CardTesting,
    /// Amounts just below the most that a device takes, or below the PIN.
    Splitting,
    /// A device that makes up payments, each larger than the one before.
    CompromisedDevice,
    /// A copy of a device, with its keys and its counter, beside it.
    ClonedDevice,
    /// An employee who refunds to cards of his own.
    RefundAbuse,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::StolenCard,
        Self::CardTesting,
        Self::Splitting,
        Self::CompromisedDevice,
        Self::ClonedDevice,
        Self::RefundAbuse,
    ];

    /// As reports call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::StolenCard => "stolen card",
            Self::CardTesting => "card testing",
            Self::Splitting => "splitting",
            Self::CompromisedDevice => "compromised device",
            Self::ClonedDevice => "cloned device",
            Self::RefundAbuse => "refund abuse",
        }
    }
}

impl Scenario {
    /// Whether the device itself is the attacker's.
    pub const fn tampers(self) -> bool {
        matches!(self, Self::CompromisedDevice | Self::ClonedDevice)
    }
}

/// One payment that an attacker tries.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// After so long.
    pub(super) after_ms: u64,
    pub(super) device: usize,
    pub(super) amount: u64,
    pub(super) card: CardFacts,
    pub(super) gesture: Gesture,
    pub(super) counter: Counter,
    /// What the device's clock is set to be ahead by, from now on.
    pub(super) clock_ms: Option<i64>,
    /// For a refund: what the till says of it.
    pub(super) refund: Option<Box<Terms>>,
}

/// Which number the request gets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counter {
    /// The device's next.
    Next,
    /// The device's next after leaving out so many.
    After(u64),
    /// That of a copy which was made so many payments before the attack
    /// began, and has made so many itself. The device does not know.
    Copied { since: u64, made: u64 },
}

/// What an attacker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Approved,
    /// Insert the card, enter the PIN; here, or at another device.
    EnterPin,
    /// The card itself refuses.
    CardRefused,
    No,
}

impl Told {
    pub(super) fn of(decision: Decision, reason: Reason) -> Self {
        match decision {
            _ if decision.approved() => Self::Approved,
            Decision::Fallback => Self::EnterPin,
            _ if reason == Reason::PinOnGlassNotAllowed => Self::EnterPin,
            _ if reason == Reason::CardRefused => Self::CardRefused,
            _ => Self::No,
        }
    }
}

/// One who commits fraud.
pub(super) trait Attacker {
    /// The next attempt, after the answer to the one before; `None` once it no
    /// longer pays.
    fn next(&mut self, told: Option<Told>) -> Option<Attempt>;
}

/// The attacker of this seed, and when the attack begins.
pub(super) fn attacker(seed: u64, scenario: Scenario, shop: &Shop) -> (u64, Box<dyn Attacker>) {
    let mut rng = Rng::of(seed, scenario.name());
    // Not before the shop has been offline for a little, and with time left.
    let room_ms = (shop.outage_to_ms - shop.outage_from_ms).saturating_sub(80 * 60_000);
    let at_ms = shop.outage_from_ms + 20 * 60_000 + rng.below(room_ms.max(1));
    let attacker: Box<dyn Attacker> = match scenario {
        Scenario::StolenCard => Box::new(StolenCard::new(rng, shop)),
        Scenario::CardTesting => Box::new(CardTesting::new(rng, shop)),
        Scenario::Splitting => Box::new(Splitting::new(rng, shop)),
        Scenario::CompromisedDevice => Box::new(Compromised::new(rng, shop)),
        Scenario::ClonedDevice => Box::new(Cloned::new(rng, shop)),
        Scenario::RefundAbuse => Box::new(RefundAbuse::new(rng, shop)),
    };
    (at_ms, attacker)
}

/// A tap without anything else.
pub(super) const TAP: Gesture = Gesture {
    entry_mode: EntryMode::Contactless,
    verification: Verification::None,
    cryptogram: Cryptogram::AsksOnline,
};

/// A tap with a phone whose holder is verified.
pub(super) const PHONE: Gesture = Gesture {
    verification: Verification::Cdcvm,
    ..TAP
};

/// The most that a device takes, as shops and vendors publish it.
pub(super) const fn published(class: DeviceClass) -> u64 {
    match class {
        DeviceClass::Mpos => 10_000,
        DeviceClass::Softpos => 5_000,
        DeviceClass::Terminal => 15_000,
    }
}

/// A card that shops take. With another there is nothing to be had.
pub(super) fn card(rng: &mut Rng) -> CardFacts {
    loop {
        let number = rng.below(1_000_000);
        let card = sale::card(rng.next_u64(), format!("bad{number:06}x"));
        let taken = matches!(
            card.scheme,
            CardScheme::Cb | CardScheme::Visa | CardScheme::Mastercard
        );
        if taken && card.funding != Funding::Prepaid {
            return card;
        }
    }
}

pub(super) fn any_device(rng: &mut Rng, devices: &[Device]) -> usize {
    below(rng, devices.len())
}

/// From one to the other, both included.
pub(super) fn between(rng: &mut Rng, least: u64, most: u64) -> u64 {
    least + rng.below(most.saturating_sub(least) + 1)
}

pub(super) fn seconds(rng: &mut Rng, least: u64, most: u64) -> u64 {
    between(rng, least * 1000, most * 1000)
}
