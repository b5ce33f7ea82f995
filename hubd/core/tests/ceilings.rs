//! Rule 4: no ceiling is passed, in any interleaving of payments, answers,
//! outages, voids and crashes. The model here is written apart from the core:
//! it knows only the policy's numbers and what customers were told. Its
//! gateway forgets idempotency keys and charges again what is sent blind.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use hub_core::{GatewayAnswer, OperatorCommand, Reply};
use hub_protocol::{Cryptogram, Decision, DeviceId, PaymentId, PaymentState, Terms, TransactionType};
use proptest::prelude::*;
use support::{MPOS, SOFTPOS, Shop, approved, declined, no_answer, payment_id, request};

#[derive(Clone, Debug)]
enum Step {
    Pay {
        device: bool,
        card: u8,
        amount: u64,
        chip: bool,
    },
    PayAgain {
        which: usize,
    },
    Gateway {
        which: usize,
        answer: u8,
    },
    Void {
        which: usize,
    },
    Flush,
    Crash,
    Wan {
        up: bool,
    },
    Pass {
        ms: u64,
    },
    Drain,
    ClockJump {
        hours: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (any::<bool>(), 0..4_u8, 1..6_000_u64, any::<bool>())
            .prop_map(|(device, card, amount, chip)| Step::Pay { device, card, amount, chip }),
        1 => any::<usize>().prop_map(|which| Step::PayAgain { which }),
        5 => (any::<usize>(), 0..6_u8).prop_map(|(which, answer)| Step::Gateway { which, answer }),
        1 => any::<usize>().prop_map(|which| Step::Void { which }),
        4 => Just(Step::Flush),
        1 => Just(Step::Crash),
        1 => any::<bool>().prop_map(|up| Step::Wan { up }),
        2 => (0..10_000_u64).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Drain),
        1 => (-72..72_i64).prop_map(|hours| Step::ClockJump { hours }),
    ]
}

/// Small enough that limits bite all the time.
fn policy() -> String {
    support::POLICY
        .replace("exposure_ceiling = 300000", "exposure_ceiling = 20000")
        .replace("exposure_ceiling = 15000\n", "exposure_ceiling = 9000\n")
        .replace(
            "device_exposure_ceiling = 100000",
            "device_exposure_ceiling = 15000",
        )
        .replace("consecutive_limit = 300", "consecutive_limit = 7")
        + "\n[staff]\nexposure_ceiling = 11000\nconsecutive_limit = 4\n"
}

/// Who stands at the device: nobody who says so, at every third payment.
const fn staff_of(number: u64) -> u64 {
    number % 3
}

#[derive(Clone, Debug)]
struct Told {
    device: DeviceId,
    card: u8,
    staff: u64,
    amount: u64,
    decision: Decision,
}

/// How long the gateway knows an idempotency key, in milliseconds: short, so
/// that it matters all the time.
const RETENTION_MS: u64 = 100_000;

#[derive(Default)]
struct Model {
    /// The time that no clock of the hub can change, in milliseconds.
    real_ms: u64,
    /// When the attempts under way were sent.
    sent_ms: BTreeMap<hub_core::AttemptId, u64>,
    /// When the gateway saw each idempotency key first.
    keys: BTreeMap<PaymentId, u64>,
    asked: BTreeMap<u64, (DeviceId, u8, u64, bool)>,
    told: BTreeMap<PaymentId, Told>,
    settled: BTreeSet<PaymentId>,
    /// What the gateway has charged, and how often each was reversed.
    charged: BTreeSet<PaymentId>,
    /// What it has declined of its own accord.
    declined: BTreeSet<PaymentId>,
    reversed: BTreeSet<PaymentId>,
}

impl Model {
    fn exposure(&self, of: impl Fn(&Told) -> bool) -> u64 {
        self.told
            .iter()
            .filter(|(id, told)| {
                told.decision == Decision::ApprovedOffline && !self.settled.contains(id) && of(told)
            })
            .map(|(_, told)| told.amount)
            .sum()
    }

    /// At least so many consecutive approvals there have been.
    fn unsettled(&self, of: impl Fn(&Told) -> bool) -> usize {
        self.told
            .iter()
            .filter(|(id, told)| {
                told.decision == Decision::ApprovedOffline && !self.settled.contains(id) && of(told)
            })
            .count()
    }

    fn check(&self) {
        assert!(self.exposure(|_| true) <= 20_000, "store's ceiling");
        for card in 0..4 {
            assert!(self.exposure(|told| told.card == card) <= 9_000, "card's ceiling");
            assert!(
                self.unsettled(|told| told.card == card) <= 5,
                "card's consecutive limit"
            );
        }
        for staff in 0..3 {
            let theirs = |told: &Told| told.staff == staff;
            assert!(self.exposure(theirs) <= 11_000, "staff's ceiling");
            assert!(self.unsettled(theirs) <= 4, "staff's consecutive limit");
        }
        assert!(self.unsettled(|_| true) <= 7, "store's consecutive limit");
        assert!(
            self.exposure(|told| told.device == MPOS) <= 15_000,
            "device's ceiling"
        );
        for told in self
            .told
            .values()
            .filter(|told| told.decision == Decision::ApprovedOffline)
        {
            let ceiling = if told.device == SOFTPOS { 5_000 } else { 10_000 };
            assert!(told.amount <= ceiling, "ceiling of one payment");
        }
    }
}

struct Run {
    shop: Shop,
    model: Model,
    tickets: BTreeMap<hub_core::Ticket, u64>,
    next: u64,
}

impl Run {
    fn new() -> Self {
        let mut shop = Shop::offline_with(&policy(), |settings| {
            settings.idempotency_retention_ms = RETENTION_MS;
        });
        shop.flush_at_once = false;
        Self {
            shop,
            model: Model::default(),
            tickets: BTreeMap::new(),
            next: 1,
        }
    }

    fn send(&mut self, number: u64) {
        let (device, card, amount, chip) = self.model.asked[&number];
        let mut payment = request(number, amount, &format!("card {card}"));
        if chip {
            payment.cryptogram = Cryptogram::CardApproved;
        }
        if staff_of(number) > 0 {
            let staff = Some(format!("staff {}", staff_of(number)));
            payment.terms = Some(Box::new(Terms {
                staff,
                ..Terms::of(TransactionType::Sale)
            }));
        }
        let ticket = self.shop.send(device, &payment);
        self.tickets.insert(ticket, number);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Pay {
                device,
                card,
                amount,
                chip,
            } => {
                let device = if *device { MPOS } else { SOFTPOS };
                self.model
                    .asked
                    .insert(self.next, (device, *card, *amount, *chip));
                self.send(self.next);
                self.next += 1;
            }
            Step::PayAgain { which } if self.next > 1 => {
                self.send(1 + u64::try_from(*which).unwrap() % (self.next - 1));
            }
            Step::Gateway { which, answer } if !self.shop.forwards.is_empty() => {
                let index = which % self.shop.forwards.len();
                let forward = self.shop.forwards.remove(index);
                self.gateway(&forward, *answer);
            }
            Step::Void { which } if self.next > 1 => {
                let number = 1 + u64::try_from(*which).unwrap() % (self.next - 1);
                let device = self.model.asked[&number].0;
                self.shop.void(device, payment_id(number));
            }
            Step::Flush => self.shop.flush(),
            Step::Crash => {
                self.tickets.clear();
                self.shop.crash();
                self.model.real_ms += 5_000;
                self.model.sent_ms.clear();
            }
            Step::Wan { up: true } => self.shop.go_online(),
            Step::Wan { up: false } => self.shop.go_offline(),
            Step::Pass { ms } => {
                self.model.real_ms += ms;
                self.shop.pass(*ms);
            }
            Step::ClockJump { hours } => {
                self.shop.now.wall_ms = self.shop.now.wall_ms.saturating_add_signed(hours * 3_600_000);
            }
            Step::Drain => {
                let ticket = self.shop.ticket();
                self.shop.input(hub_core::Input::Operator {
                    ticket,
                    operator: "anna".to_owned(),
                    command: OperatorCommand::Drain,
                });
            }
            _ => {}
        }
        self.note_sendings();
        self.listen();
        self.model.check();
    }

    fn note_sendings(&mut self) {
        for forward in &self.shop.forwards {
            let now = self.model.real_ms;
            self.model.sent_ms.entry(forward.attempt).or_insert(now);
        }
    }

    /// A gateway that is honest about ids: the first outcome is the outcome,
    /// and what was reversed is never charged.
    fn gateway(&mut self, forward: &hub_core::Forward, answer: u8) {
        let id = forward.payment_id;
        if forward.operation == hub_core::Operation::LookUp {
            let found = match answer {
                0 => no_answer(),
                _ if self.model.charged.contains(&id) => approved(),
                _ if self.model.reversed.contains(&id) || self.model.declined.contains(&id) => declined(),
                _ => GatewayAnswer::NotFound,
            };
            self.shop.answer(forward.attempt, found);
            self.note_sendings();
            return;
        }
        let sent_ms = self.model.sent_ms.get(&forward.attempt).copied();
        let sent_ms = sent_ms.unwrap_or(self.model.real_ms);
        let reversal = forward.operation == hub_core::Operation::Reverse;
        // The first outcome is the outcome.
        let will_take =
            (answer != 5 || self.model.charged.contains(&id)) && !self.model.declined.contains(&id);
        if reversal {
            self.model.reversed.insert(id);
            self.model.charged.remove(&id);
        } else if will_take && !self.model.reversed.contains(&id) {
            let known_ms = *self.model.keys.entry(id).or_insert(sent_ms);
            if sent_ms.saturating_sub(known_ms) >= RETENTION_MS {
                assert!(
                    !self.model.charged.contains(&id),
                    "rule 3: sent blind, and charged twice"
                );
                self.model.keys.insert(id, sent_ms);
            }
            self.model.charged.insert(id);
        } else if !self.model.reversed.contains(&id) {
            self.model.declined.insert(id);
        }
        let yes = reversal || self.model.charged.contains(&id);
        // 0: the answer is lost on the way back.
        let answer = match (answer, yes) {
            (0, _) => no_answer(),
            (_, true) => approved(),
            (_, false) => declined(),
        };
        self.shop.answer(forward.attempt, answer);
        self.note_sendings();
    }

    fn listen(&mut self) {
        let replies: Vec<_> = self.shop.replies.drain().collect();
        for (ticket, reply) in replies {
            let (Some(number), Reply::Receipt(receipt)) = (self.tickets.remove(&ticket), reply) else {
                continue;
            };
            let (device, card, amount, _) = self.model.asked[&number];
            let told = Told {
                device,
                card,
                staff: staff_of(number),
                amount,
                decision: receipt.decision,
            };
            let before = self.model.told.insert(payment_id(number), told);
            if let Some(before) = before {
                assert_eq!(before.decision, receipt.decision, "rule 3: one answer for one id");
            }
        }
        let state = self.shop.core.state();
        for id in self.model.told.keys() {
            assert!(
                state.payment(id).is_some(),
                "rule 2: what was answered is remembered"
            );
        }
        // A payment may be settled, and then voided, before its customer is
        // told of the approval.
        for id in self.model.asked.keys().map(|number| payment_id(*number)) {
            let stands = state.payment(&id).map(|payment| payment.state);
            let out = matches!(
                stands,
                Some(
                    PaymentState::Settled
                        | PaymentState::SettledDeclined
                        | PaymentState::Voided
                        | PaymentState::Reversed
                )
            );
            if out {
                self.model.settled.insert(id);
            }
        }
    }

    /// The outage is over and everything is answered: what customers were
    /// told and what the gateway charged must agree.
    fn finish(mut self) {
        self.shop.flush_at_once = true;
        self.shop.flush();
        self.shop.go_online();
        for _ in 0..400 {
            while let Some(forward) = self.shop.forwards.pop() {
                self.gateway(&forward, 1);
            }
            self.shop.probe(true);
            self.note_sendings();
            self.model.real_ms += 61_000;
            self.shop.pass(61_000);
            self.note_sendings();
        }
        self.listen();
        let state = self.shop.core.state();
        for (id, told) in &self.model.told {
            let stands = state.payment(id).unwrap().state;
            let charged = self.model.charged.contains(id);
            match stands {
                PaymentState::Settled => assert!(charged, "rule 2: an approved payment is charged"),
                _ => assert!(!charged, "rule 3: {told:?} stands at {stands} and is charged"),
            }
            if stands == PaymentState::SettledDeclined {
                assert!(
                    self.model.declined.contains(id),
                    "no loss that the gateway did not cause"
                );
            }
            if told.decision.approved() {
                assert_ne!(stands, PaymentState::Refused);
            }
        }
        assert_eq!(state.store().subject.exposure_minor, 0, "nothing is left at risk");
        assert_eq!(state.store().subject.unsettled, 0);
        for id in &self.model.charged {
            assert_eq!(
                state.payment(id).map(|p| p.state),
                Some(PaymentState::Settled),
                "no charge without a yes"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn rules_2_3_and_4_hold_in_any_interleaving(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        for step in &steps {
            run.step(step);
        }
        run.finish();
    }
}
