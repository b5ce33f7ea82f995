//! Refunds: the honest ones of a day, and the employee who pays himself.
//! Both have draws of their own.

use hub_protocol::{CardFacts, Terms, TransactionType};

use super::day::{Device, Shop, Visit, below, takes};
use super::scenarios::{Attacker, Attempt, Counter, PHONE, Told, any_device, between, card, seconds};
use crate::generate;
use crate::rng::Rng;
use crate::sale;

/// One payment in so many is a refund, honestly. Assumed: no data set that we
/// know has refunds by card and time.
const ONE_IN: u64 = 80;

/// Of 1,000 refunds so many give back another ticket of the same customer,
/// minutes later.
const ANOTHER: u64 = 100;

const SECOND_MS: u64 = 1_000;

/// Who may refund, and where.
#[derive(Clone, Debug)]
pub(super) struct Refunds {
    /// Names that the tills tell; none in half of the shops.
    pub(super) staff: Vec<String>,
    /// The one till that refunds, in one shop in four.
    desk: Option<usize>,
}

/// What a till says of a refund.
pub(super) fn terms(staff: Option<&String>) -> Box<Terms> {
    Box::new(Terms {
        staff: staff.cloned(),
        ..Terms::of(TransactionType::Refund)
    })
}

impl Refunds {
    pub(super) fn draw(rng: &mut Rng, devices: &[Device]) -> Self {
        let named = if rng.chance(500) { between(rng, 2, 5) } else { 0 };
        let desk = any_device(rng, devices);
        Self {
            staff: (1..=named).map(|number| format!("staff{number}")).collect(),
            desk: rng.chance(250).then_some(desk),
        }
    }

    /// The day's honest refunds: three in ten put right the sale just made,
    /// the others are for goods bought on another day.
    pub(super) fn visits(&self, rng: &mut Rng, seed: u64, devices: &[Device], sales: &[Visit]) -> Vec<Visit> {
        let mut refunds = Vec::new();
        for sale in sales {
            if rng.below(ONE_IN * (1_000 + ANOTHER) / 1_000) != 0 {
                continue;
            }
            let other = sales.get(below(rng, sales.len())).unwrap_or(sale);
            let puts_right = rng.chance(300);
            let token = generate::token(seed, 800_000 + refunds.len() as u64);
            let mut refund = if puts_right {
                sale.clone()
            } else {
                Visit {
                    device: self.desk.unwrap_or(sale.device),
                    amount: other.amount,
                    card: sale::card(seed, token),
                    gesture: sale::gesture(rng, other.amount),
                    ..sale.clone()
                }
            };
            if !takes(devices, refund.device, refund.gesture) {
                refund.gesture = PHONE;
            }
            let by = below(rng, self.staff.len());
            refund.refund = Some(terms(self.staff.get(by)));
            refund.at_ms += seconds(rng, 30, 120);
            let another = rng.chance(ANOTHER).then(|| Visit {
                at_ms: refund.at_ms + seconds(rng, 60, 240),
                amount: sales
                    .get(below(rng, sales.len()))
                    .map_or(1_000, |sale| sale.amount),
                ..refund.clone()
            });
            refunds.push(refund);
            refunds.extend(another);
        }
        wait(refunds, sales)
    }
}

/// Each refund waits until the device has been free for a moment.
fn wait(refunds: Vec<Visit>, sales: &[Visit]) -> Vec<Visit> {
    let mut taken: Vec<(usize, u64)> = sales.iter().map(|sale| (sale.device, sale.at_ms)).collect();
    let mut all = Vec::new();
    for mut refund in refunds {
        let is_taken = |at_ms: u64| {
            taken
                .iter()
                .any(|(device, sale_ms)| *device == refund.device && sale_ms.abs_diff(at_ms) < 15 * SECOND_MS)
        };
        while is_taken(refund.at_ms) {
            refund.at_ms += 5 * SECOND_MS;
        }
        taken.push((refund.device, refund.at_ms));
        all.push(refund);
    }
    all
}

/// An employee who refunds to one or two cards of his own, at one or two
/// devices, under his name or, three times in ten, none.
pub(super) struct RefundAbuse {
    rng: Rng,
    places: Vec<usize>,
    cards: Vec<CardFacts>,
    staff: Option<String>,
    tries_left: u64,
    refused: u32,
}

impl RefundAbuse {
    pub(super) fn new(mut rng: Rng, shop: &Shop) -> Self {
        let places: Vec<usize> = (0..between(&mut rng, 1, 2))
            .map(|_| any_device(&mut rng, &shop.devices))
            .collect();
        let cards = between(&mut rng, 1, 2);
        let who = below(&mut rng, shop.refunds.staff.len());
        let says_so = rng.chance(700);
        Self {
            places,
            cards: (0..cards).map(|_| card(&mut rng)).collect(),
            staff: shop.refunds.staff.get(who).cloned().filter(|_| says_so),
            tries_left: between(&mut rng, 4, 10),
            refused: 0,
            rng,
        }
    }
}

impl Attacker for RefundAbuse {
    fn next(&mut self, told: Option<Told>) -> Option<Attempt> {
        if told.is_some_and(|told| told != Told::Approved) {
            self.refused += 1;
            self.cards.rotate_left(1);
        }
        if self.refused >= 3 || self.tries_left == 0 {
            return None;
        }
        self.tries_left -= 1;
        let rng = &mut self.rng;
        let device = self.places.get(below(rng, self.places.len())).copied()?;
        Some(Attempt {
            after_ms: seconds(rng, 120, 900),
            device,
            // Who was refused asks for less.
            amount: between(rng, 2_000, 8_000) >> self.refused,
            card: self.cards.get(below(rng, self.cards.len()))?.clone(),
            gesture: PHONE,
            counter: Counter::Next,
            clock_ms: None,
            refund: Some(terms(self.staff.as_ref())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::day;
    use super::*;

    #[test]
    fn one_honest_payment_in_eighty_is_a_refund_and_draws_nothing_of_the_sales() {
        let (mut sales, mut refunds) = (0, 0);
        for seed in 1..200 {
            let shop = day::shop(seed);
            refunds += shop.visits.iter().filter(|visit| visit.refund.is_some()).count();
            sales += shop.visits.iter().filter(|visit| visit.refund.is_none()).count();
            for visit in &shop.visits {
                let tapped_or_slot = takes(&shop.devices, visit.device, visit.gesture);
                assert!(tapped_or_slot);
            }
        }
        assert!((70..90).contains(&(sales / refunds)), "{sales} / {refunds}");
    }
}
