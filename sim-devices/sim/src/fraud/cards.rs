//! Fraud with cards, at honest devices.

use hub_protocol::{CardFacts, Cryptogram, DeviceClass};

use super::day::{Device, Shop, below, some_of, takes};
use super::scenarios::{
    Attacker, Attempt, Counter, PHONE, TAP, Told, any_device, between, card, published, seconds,
};
use crate::rng::Rng;
use crate::sale::Gesture;

/// One stolen card. Three thieves in ten know the PIN.
pub(super) struct StolenCard {
    rng: Rng,
    devices: Vec<Device>,
    card: CardFacts,
    knows_pin: bool,
    tries_left: u64,
    refused: u32,
}

impl StolenCard {
    pub(super) fn new(mut rng: Rng, shop: &Shop) -> Self {
        Self {
            devices: shop.devices.clone(),
            card: card(&mut rng),
            knows_pin: rng.chance(300),
            tries_left: between(&mut rng, 6, 14),
            refused: 0,
            rng,
        }
    }
}

impl Attacker for StolenCard {
    fn next(&mut self, told: Option<Told>) -> Option<Attempt> {
        if told.is_some_and(|told| told != Told::Approved) {
            self.refused += 1;
        }
        if self.refused >= 3 || self.tries_left == 0 {
            return None;
        }
        self.tries_left -= 1;
        let rng = &mut self.rng;
        let (gesture, least, most) = if self.knows_pin {
            (Gesture::inserted(Cryptogram::AsksOnline), 4_000, 15_000)
        } else {
            (TAP, 1_500, 5_000)
        };
        // Who was refused asks for less.
        let most = most >> self.refused;
        let fit: Vec<usize> = (0..self.devices.len())
            .filter(|place| takes(&self.devices, *place, gesture))
            .collect();
        Some(Attempt {
            after_ms: seconds(rng, 120, 600),
            device: some_of(rng, &fit)?,
            amount: between(rng, least.min(most), most),
            card: self.card.clone(),
            gesture,
            counter: Counter::Next,
            clock_ms: None,
            refund: None,
        })
    }
}

/// Stolen cards, six in ten of which refuse, tried out one after the other at
/// one device with small amounts, and bought with where they work.
pub(super) struct CardTesting {
    rng: Rng,
    devices: Vec<Device>,
    device: usize,
    untried: Vec<CardFacts>,
    trying: Option<CardFacts>,
    good: Vec<CardFacts>,
    purchases_left: u64,
    refused_in_a_row: u32,
}

impl CardTesting {
    pub(super) fn new(mut rng: Rng, shop: &Shop) -> Self {
        let count = between(&mut rng, 4, 10);
        Self {
            devices: shop.devices.clone(),
            device: any_device(&mut rng, &shop.devices),
            untried: (0..count).map(|_| card(&mut rng)).collect(),
            trying: None,
            good: Vec::new(),
            purchases_left: between(&mut rng, 3, 8),
            refused_in_a_row: 0,
            rng,
        }
    }

    fn attempt(&mut self, wait: (u64, u64), device: usize, amount: u64, card: CardFacts) -> Attempt {
        Attempt {
            after_ms: seconds(&mut self.rng, wait.0, wait.1),
            device,
            amount,
            card,
            gesture: TAP,
            counter: Counter::Next,
            clock_ms: None,
            refund: None,
        }
    }
}

impl Attacker for CardTesting {
    fn next(&mut self, told: Option<Told>) -> Option<Attempt> {
        match told {
            Some(Told::Approved) => {
                self.refused_in_a_row = 0;
                self.good.extend(self.trying.take());
            }
            Some(Told::No | Told::EnterPin) => self.refused_in_a_row += 1,
            Some(Told::CardRefused) | None => {}
        }
        if self.refused_in_a_row >= 4 {
            return None;
        }
        if let Some(card) = self.untried.pop() {
            let amount = between(&mut self.rng, 100, 2_000);
            let mut attempt = self.attempt((25, 120), self.device, amount, card.clone());
            if self.rng.chance(600) {
                attempt.gesture.cryptogram = Cryptogram::Refused;
            }
            self.trying = Some(card);
            return Some(attempt);
        }
        if self.purchases_left == 0 || self.good.is_empty() {
            return None;
        }
        self.purchases_left -= 1;
        let place = below(&mut self.rng, self.good.len());
        let card = self.good.get(place)?.clone();
        let device = if self.rng.chance(700) {
            self.device
        } else {
            any_device(&mut self.rng, &self.devices)
        };
        let amount = between(&mut self.rng, 3_000, 5_000);
        Some(self.attempt((60, 300), device, amount, card))
    }
}

/// One to three cards, and a sum to be had in parts that pass: just below the
/// PIN, or, with a phone, just below what a device takes.
pub(super) struct Splitting {
    rng: Rng,
    places: Vec<usize>,
    classes: Vec<DeviceClass>,
    cards: Vec<CardFacts>,
    by_phone: bool,
    wanted: u64,
    asked: u64,
    refused: u32,
}

impl Splitting {
    pub(super) fn new(mut rng: Rng, shop: &Shop) -> Self {
        let places: Vec<usize> = (0..between(&mut rng, 1, 2))
            .map(|_| any_device(&mut rng, &shop.devices))
            .collect();
        let cards = between(&mut rng, 1, 3);
        Self {
            places,
            classes: shop.devices.iter().map(|device| device.class).collect(),
            cards: (0..cards).map(|_| card(&mut rng)).collect(),
            by_phone: rng.chance(500),
            wanted: between(&mut rng, 40_000, 100_000),
            asked: 0,
            refused: 0,
            rng,
        }
    }
}

impl Attacker for Splitting {
    fn next(&mut self, told: Option<Told>) -> Option<Attempt> {
        match told {
            Some(Told::Approved) => self.wanted = self.wanted.saturating_sub(self.asked),
            Some(_) => {
                self.refused += 1;
                // Another card, if there is one.
                self.cards.rotate_left(1);
            }
            None => {}
        }
        if self.refused >= 3 || self.wanted == 0 {
            return None;
        }
        let device = some_of(&mut self.rng, &self.places)?;
        let most = if self.by_phone {
            published(*self.classes.get(device)?)
        } else {
            5_000
        };
        let share = between(&mut self.rng, 88, 100);
        // Who was refused asks for less.
        self.asked = (most * share / 100) >> self.refused;
        Some(Attempt {
            after_ms: seconds(&mut self.rng, 60, 300),
            device,
            amount: self.asked,
            card: self.cards.first()?.clone(),
            gesture: if self.by_phone { PHONE } else { TAP },
            counter: Counter::Next,
            clock_ms: None,
            refund: None,
        })
    }
}
