//! Fraud with a device itself: what it signs is what the attacker wants.

use hub_protocol::{CardFacts, DeviceClass};

use super::day::{Shop, below};
use super::scenarios::{
    Attacker, Attempt, Counter, PHONE, Told, any_device, between, card, published, seconds,
};
use crate::rng::Rng;

/// A device under foreign control: payments that nobody makes, each larger
/// than the one before, with cards that are made up. Six in ten leave numbers
/// out of the counter, and six in ten have an odd clock.
pub(super) struct Compromised {
    rng: Rng,
    device: usize,
    class: DeviceClass,
    amount: u64,
    growth_percent: u64,
    /// Cards to choose from; empty for a new one each time.
    cards: Vec<CardFacts>,
    leaves_out: bool,
    clock_ms: Option<i64>,
    tries_left: u64,
    refused_in_a_row: u32,
}

impl Compromised {
    pub(super) fn new(mut rng: Rng, shop: &Shop) -> Self {
        let device = any_device(&mut rng, &shop.devices);
        let minutes = i64::try_from(between(&mut rng, 10, 180)).unwrap_or(0);
        let few = if rng.chance(300) { 4 } else { 0 };
        Self {
            device,
            class: shop
                .devices
                .get(device)
                .map_or(DeviceClass::Mpos, |device| device.class),
            amount: between(&mut rng, 1_000, 3_000),
            growth_percent: between(&mut rng, 5, 35),
            cards: (0..few).map(|_| card(&mut rng)).collect(),
            leaves_out: rng.chance(600),
            clock_ms: rng.chance(600).then_some(minutes * 60_000),
            tries_left: 60,
            refused_in_a_row: 0,
            rng,
        }
    }
}

impl Attacker for Compromised {
    fn next(&mut self, told: Option<Told>) -> Option<Attempt> {
        match told {
            Some(Told::Approved) => {
                self.refused_in_a_row = 0;
                let larger = self.amount + self.amount * self.growth_percent / 100;
                self.amount = larger.min(published(self.class));
            }
            Some(_) => {
                self.refused_in_a_row += 1;
                self.amount /= 2;
            }
            None => {}
        }
        if self.refused_in_a_row >= 5 || self.tries_left == 0 {
            return None;
        }
        self.tries_left -= 1;
        let rng = &mut self.rng;
        let place = below(rng, self.cards.len());
        let card = match self.cards.get(place) {
            Some(card) => card.clone(),
            None => card(rng),
        };
        let left_out = between(rng, 5, 400);
        let counter = match self.leaves_out && rng.chance(150) {
            true => Counter::After(left_out),
            false => Counter::Next,
        };
        Some(Attempt {
            after_ms: seconds(rng, 15, 120),
            device: self.device,
            amount: self.amount.max(100),
            card,
            gesture: PHONE,
            counter,
            clock_ms: self.clock_ms,
            refund: None,
        })
    }
}

/// A copy of a device, used at the same time. Half of the copies are fresh;
/// the others were made some or many payments ago.
pub(super) struct Cloned {
    rng: Rng,
    device: usize,
    class: DeviceClass,
    /// How many payments ago the copy was made.
    since: u64,
    made: u64,
    tries_left: u64,
    refused: u32,
}

impl Cloned {
    pub(super) fn new(mut rng: Rng, shop: &Shop) -> Self {
        let device = any_device(&mut rng, &shop.devices);
        let since = match rng.weighted(&[500, 300, 200]) {
            0 => between(&mut rng, 0, 5),
            1 => between(&mut rng, 6, 60),
            _ => between(&mut rng, 61, 400),
        };
        let class = shop
            .devices
            .get(device)
            .map_or(DeviceClass::Mpos, |device| device.class);
        Self {
            device,
            class,
            since,
            made: 0,
            tries_left: between(&mut rng, 6, 20),
            refused: 0,
            rng,
        }
    }
}

impl Attacker for Cloned {
    fn next(&mut self, told: Option<Told>) -> Option<Attempt> {
        if told.is_some_and(|told| told != Told::Approved) {
            self.refused += 1;
        }
        if self.refused >= 4 || self.tries_left == 0 {
            return None;
        }
        self.tries_left -= 1;
        let counter = Counter::Copied {
            since: self.since,
            made: self.made,
        };
        self.made += 1;
        let rng = &mut self.rng;
        Some(Attempt {
            after_ms: seconds(rng, 60, 300),
            device: self.device,
            amount: between(rng, 2_000, published(self.class)) >> self.refused,
            card: card(rng),
            gesture: PHONE,
            counter,
            clock_ms: None,
            refund: None,
        })
    }
}
