//! One day under one policy, payment by payment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use hub_core::policy::Policy;
use hub_protocol::{CardFacts, Currency, Decision, DeviceClass, PaymentRequest, Reason, Terms};

use super::day::{self, Device, Mishap, OPENING_MS, Visit, takes};
use super::hub::{Hub, Seen, device_id};
use super::scenarios::{Attacker, Attempt, Counter, Scenario, Told, attacker};
use crate::generate;
use crate::rng::Rng;
use crate::sale::{self, Gesture};
use crate::wire::{self, PayMessage};

/// Who made a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// An honest customer.
    Honest,
    /// An honest customer at a device that an attacker controls or has copied.
    Bystander,
    Attacker,
}

/// A payment, and what came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Played {
    pub(super) by: By,
    pub(super) at_ms: u64,
    pub(super) device: usize,
    pub(super) amount: u64,
    pub(super) offline: bool,
    pub(super) refund: bool,
    pub(super) seen: Seen,
}

/// What comes next.
enum Next {
    Visit(Box<Visit>),
    Mishap(usize, Mishap),
    Attack(Box<Attempt>),
}

struct Play {
    devices: Vec<Device>,
    /// Where each device's counter stood when the attack began.
    copied_from: Vec<u64>,
    attacked: Vec<bool>,
    /// Whether the attack is on a device and not with cards.
    tampers: bool,
    hub: Hub,
    offline_from_ms: u64,
    seed: u64,
    payments: u64,
    customers: Rng,
    other_cards: u64,
    waiting: BinaryHeap<Reverse<(u64, u64)>>,
    what: Vec<Option<Next>>,
    played: Vec<Played>,
}

/// Plays the day of this seed, with fraud or without.
pub(super) fn play(seed: u64, scenario: Option<Scenario>, policy: &Policy, text: &str) -> Vec<Played> {
    let shop = day::shop(seed);
    let attack = scenario.map(|scenario| attacker(seed, scenario, &shop));
    let classes: Vec<DeviceClass> = shop.devices.iter().map(|device| device.class).collect();
    let mut play = Play {
        copied_from: Vec::new(),
        tampers: scenario.is_some_and(Scenario::tampers),
        attacked: vec![false; shop.devices.len()],
        hub: Hub::open(seed, policy, text, &classes, OPENING_MS),
        offline_from_ms: shop.outage_from_ms,
        seed,
        payments: 0,
        customers: Rng::of(seed, "customers"),
        other_cards: 0,
        waiting: BinaryHeap::new(),
        what: Vec::new(),
        played: Vec::new(),
        devices: shop.devices,
    };
    for visit in shop.visits {
        play.later(visit.at_ms, Next::Visit(Box::new(visit)));
    }
    for (at_ms, device, mishap) in shop.mishaps {
        play.later(at_ms, Next::Mishap(device, mishap));
    }
    play.run(attack, shop.outage_to_ms);
    play.played
}

impl Play {
    fn later(&mut self, at_ms: u64, next: Next) {
        self.waiting.push(Reverse((at_ms, self.what.len() as u64)));
        self.what.push(Some(next));
    }

    fn run(&mut self, attack: Option<(u64, Box<dyn Attacker>)>, until_ms: u64) {
        let mut attacker = None;
        if let Some((from_ms, mut one)) = attack {
            self.attempt(from_ms, &mut *one, None);
            attacker = Some(one);
        }
        let mut offline = false;
        while let Some(Reverse((at_ms, number))) = self.waiting.pop() {
            if at_ms >= until_ms {
                return;
            }
            if !offline && at_ms >= self.offline_from_ms {
                self.hub.go_offline(self.offline_from_ms);
                offline = true;
            }
            let place = usize::try_from(number).unwrap_or(usize::MAX);
            match self.what.get_mut(place).and_then(Option::take) {
                Some(Next::Visit(visit)) => self.serve(at_ms, *visit),
                Some(Next::Mishap(device, mishap)) => self.befall(device, mishap),
                Some(Next::Attack(attempt)) => {
                    let told = self.attack(at_ms, *attempt);
                    if let (Some(told), Some(attacker)) = (told, attacker.as_mut()) {
                        self.attempt(at_ms, &mut **attacker, Some(told));
                    }
                }
                None => {}
            }
        }
    }

    fn attempt(&mut self, now_ms: u64, attacker: &mut dyn Attacker, told: Option<Told>) {
        if let Some(attempt) = attacker.next(told) {
            self.later(now_ms + attempt.after_ms, Next::Attack(Box::new(attempt)));
        }
    }

    fn befall(&mut self, place: usize, mishap: Mishap) {
        let Some(device) = self.devices.get_mut(place) else {
            return;
        };
        device.counter = match mishap {
            Mishap::Restored { back } => device.counter.saturating_sub(back),
            Mishap::LeftOut { numbers } => device.counter + numbers,
        };
    }

    fn attack(&mut self, at_ms: u64, attempt: Attempt) -> Option<Told> {
        if self.copied_from.is_empty() {
            self.copied_from = self.devices.iter().map(|device| device.counter).collect();
        }
        let place = attempt.device;
        let device = self.devices.get_mut(place)?;
        device.clock_ms = attempt.clock_ms.unwrap_or(device.clock_ms);
        let sequence = match attempt.counter {
            Counter::Next => take(&mut device.counter),
            Counter::After(left_out) => {
                device.counter += left_out;
                take(&mut device.counter)
            }
            Counter::Copied { since, made } => self.copied_from.get(place)?.saturating_sub(since) + made,
        };
        if let Some(attacked) = self.attacked.get_mut(place) {
            *attacked = self.tampers;
        }
        let seen = self.pay(
            at_ms,
            place,
            sequence,
            attempt.amount,
            attempt.card,
            attempt.gesture,
            attempt.refund,
            By::Attacker,
        )?;
        Some(Told::of(seen.decision, seen.reason))
    }

    /// A customer pays; who gets no approval may try another way.
    fn serve(&mut self, at_ms: u64, visit: Visit) {
        let place = visit.device;
        let Some(device) = self.devices.get_mut(place) else {
            return;
        };
        let sequence = take(&mut device.counter);
        let by = match self.attacked.get(place) {
            Some(true) => By::Bystander,
            _ => By::Honest,
        };
        let paid = self.pay(
            at_ms,
            place,
            sequence,
            visit.amount,
            visit.card.clone(),
            visit.gesture,
            visit.refund.clone(),
            by,
        );
        let Some(seen) = paid.filter(|seen| !seen.decision.approved() && visit.tries < 2) else {
            return;
        };
        // Money back can wait until the line is back.
        if visit.refund.is_some() {
            return;
        }
        let inserted = Gesture::inserted(visit.gesture.cryptogram);
        let again = match (seen.decision, seen.reason) {
            (Decision::Fallback, _) | (_, Reason::PinOnGlassNotAllowed) => Some((visit.card, inserted)),
            // The same card once more, or another one that works.
            (_, Reason::CardRefused) if self.customers.chance(500) => Some((visit.card, inserted)),
            (_, Reason::CardRefused | Reason::GatewayDeclined) if self.customers.chance(700) => {
                self.other_cards += 1;
                let token = generate::token(self.seed, 900_000 + self.other_cards);
                let gesture = Gesture::inserted(hub_protocol::Cryptogram::AsksOnline);
                Some((sale::card(self.seed, token), gesture))
            }
            // Cash.
            _ => None,
        };
        let Some((card, gesture)) = again else {
            return;
        };
        // A phone sends to a device with a slot.
        let places = core::iter::once(place).chain(0..self.devices.len());
        let Some(device) = places.into_iter().find(|to| takes(&self.devices, *to, gesture)) else {
            return;
        };
        let after_ms = 15_000 + self.customers.below(25_000);
        let visit = Visit {
            at_ms: at_ms + after_ms,
            device,
            card,
            gesture,
            tries: visit.tries + 1,
            ..visit
        };
        self.later(visit.at_ms, Next::Visit(Box::new(visit)));
    }

    #[allow(clippy::too_many_arguments)] // what a request is made of
    fn pay(
        &mut self,
        at_ms: u64,
        device: usize,
        sequence: u64,
        amount: u64,
        card: CardFacts,
        gesture: Gesture,
        terms: Option<Box<Terms>>,
        by: By,
    ) -> Option<Seen> {
        self.payments += 1;
        let id = wire::payment_id(self.seed, self.payments);
        let ahead_ms = self.devices.get(device).map_or(0, |device| device.clock_ms);
        let refund = terms.is_some();
        let request = PaymentRequest {
            payment_id: id,
            device_sequence: sequence,
            amount: amount.into(),
            currency: Currency::EUR,
            order_id: format!("T{:05}", self.payments),
            card,
            entry_mode: gesture.entry_mode,
            verification: gesture.verification,
            cryptogram: gesture.cryptogram,
            sealed_card_digest: wire::sealed_card(id).digest(),
            device_time_ms: at_ms.saturating_add_signed(ahead_ms),
            terms,
        };
        let seen = self.hub.pay(at_ms, PayMessage::new(device_id(device), request))?;
        self.played.push(Played {
            by,
            at_ms,
            device,
            amount,
            offline: at_ms >= self.offline_from_ms,
            refund,
            seen,
        });
        Some(seen)
    }
}

fn take(counter: &mut u64) -> u64 {
    let number = *counter;
    *counter += 1;
    number
}
