//! Rule 4 with allowances: whatever devices approve out of the hub's reach,
//! nothing passes a ceiling, in any interleaving of giving, spending, cut
//! networks, lost answers, syncs, returns and crashes. And what cheats bring is
//! kept, found, and accounted exactly.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use hub_core::state::State;
use hub_core::{Reply, Ticket};
use hub_protocol::entry::Event;
use hub_protocol::{AllowanceReturn, CardScheme, Decision, DeviceId, Entry, PaymentId, cbor};
use proptest::prelude::*;
use support::wallet::{Approved, Wallet};
use support::{MPOS, SOFTPOS, Shop, approved, declined, no_answer, request};

const STORE: u64 = 20_000;
const DEVICE: u64 = 15_000;
const IN_A_ROW: u64 = 9;

#[derive(Clone, Debug)]
enum Step {
    Ask {
        mpos: bool,
    },
    Spend {
        mpos: bool,
        card: u8,
        amount: u64,
    },
    Cheat {
        mpos: bool,
        how: u8,
    },
    Sync {
        mpos: bool,
    },
    SyncAgain {
        mpos: bool,
        which: usize,
    },
    Return {
        mpos: bool,
    },
    Pay {
        mpos: bool,
        card: u8,
        amount: u64,
    },
    PayWhatWasApproved {
        mpos: bool,
    },
    Cut {
        mpos: bool,
        cut: bool,
    },
    /// What is on its way to the devices is lost.
    LoseAnswers,
    Gateway {
        which: usize,
        answer: u8,
    },
    Wan {
        up: bool,
    },
    Flush,
    Crash,
    Pass {
        minutes: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let mpos = any::<bool>;
    prop_oneof![
        4 => mpos().prop_map(|mpos| Step::Ask { mpos }),
        8 => (mpos(), 0..6_u8, 1..3_500_u64).prop_map(|(mpos, card, amount)| Step::Spend { mpos, card, amount }),
        6 => mpos().prop_map(|mpos| Step::Sync { mpos }),
        1 => (mpos(), any::<usize>()).prop_map(|(mpos, which)| Step::SyncAgain { mpos, which }),
        3 => mpos().prop_map(|mpos| Step::Return { mpos }),
        4 => (mpos(), 0..6_u8, 1..6_000_u64).prop_map(|(mpos, card, amount)| Step::Pay { mpos, card, amount }),
        1 => mpos().prop_map(|mpos| Step::PayWhatWasApproved { mpos }),
        2 => (mpos(), any::<bool>()).prop_map(|(mpos, cut)| Step::Cut { mpos, cut }),
        1 => Just(Step::LoseAnswers),
        5 => (any::<usize>(), 0..4_u8).prop_map(|(which, answer)| Step::Gateway { which, answer }),
        1 => any::<bool>().prop_map(|up| Step::Wan { up }),
        6 => Just(Step::Flush),
        2 => Just(Step::Crash),
        1 => (0..40_u64).prop_map(|minutes| Step::Pass { minutes }),
    ]
}

fn dishonest_step() -> impl Strategy<Value = Step> {
    let cheat = (any::<bool>(), 0..7_u8).prop_map(|(mpos, how)| Step::Cheat { mpos, how });
    prop_oneof![12 => step(), 1 => cheat]
}

fn policy() -> String {
    support::wallet::policy()
        .replace(
            "exposure_ceiling = 300000",
            &format!("exposure_ceiling = {STORE}"),
        )
        .replace(
            "device_exposure_ceiling = 100000",
            &format!("device_exposure_ceiling = {DEVICE}"),
        )
        .replace(
            "device_exposure_ceiling = 50000",
            &format!("device_exposure_ceiling = {DEVICE}"),
        )
        .replace(
            "consecutive_limit = 300",
            &format!("consecutive_limit = {IN_A_ROW}"),
        )
        .replace("amount = 20000\ncount = 4", "amount = 9000\ncount = 5")
        .replace("longest_minutes = 240", "longest_minutes = 43200")
}

struct Device {
    wallet: Wallet,
    /// Has said that it approves nothing more, and waits for the answer.
    returning: Option<AllowanceReturn>,
    cut: bool,
    honest: bool,
    /// Payments that only a cheat approves, and are found by themselves.
    wrong: BTreeSet<PaymentId>,
    synced: Vec<Approved>,
    highest_ms: u64,
}

#[derive(Clone)]
enum Waits {
    Allowance,
    Sync(Box<Approved>),
    Return(u64),
}

struct Run {
    shop: Shop,
    devices: BTreeMap<DeviceId, Device>,
    tickets: BTreeMap<Ticket, (DeviceId, Waits)>,
    next: u64,
}

fn id(mpos: bool) -> DeviceId {
    if mpos { MPOS } else { SOFTPOS }
}

impl Run {
    fn new() -> Self {
        let mut shop = Shop::offline_under(&policy());
        shop.flush_at_once = false;
        let device = |id| Device {
            wallet: Wallet::new(id),
            returning: None,
            cut: false,
            honest: true,
            wrong: BTreeSet::new(),
            synced: Vec::new(),
            highest_ms: 0,
        };
        Self {
            shop,
            devices: [MPOS, SOFTPOS].map(|id| (id, device(id))).into(),
            tickets: BTreeMap::new(),
            next: 1,
        }
    }

    fn device(&mut self, mpos: bool) -> &mut Device {
        self.devices.get_mut(&id(mpos)).unwrap()
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn step(&mut self, step: &Step) {
        let now_ms = self.shop.now.wall_ms;
        match step {
            Step::Ask { mpos } if !self.device(*mpos).cut => {
                let closed = self.device(*mpos).wallet.closed;
                let ticket = self.shop.ask_allowance(id(*mpos), closed);
                self.tickets.insert(ticket, (id(*mpos), Waits::Allowance));
            }
            Step::Spend { mpos, card, amount } => {
                let payment = request(self.number(), *amount, &format!("card {card}"));
                let device = self.device(*mpos);
                device.highest_ms = device.highest_ms.max(now_ms);
                if device.returning.is_none() && device.wallet.held.is_some() {
                    let _ = device.wallet.approve(&payment, device.highest_ms);
                }
            }
            Step::Cheat { mpos, how } => self.cheat(*mpos, *how),
            Step::Sync { mpos } if !self.device(*mpos).cut => {
                if let Some(first) = self.device(*mpos).wallet.unsynced.first().cloned() {
                    let ticket = self.shop.send_sync(id(*mpos), &first);
                    self.tickets
                        .insert(ticket, (id(*mpos), Waits::Sync(Box::new(first))));
                }
            }
            Step::SyncAgain { mpos, which } if !self.device(*mpos).cut => {
                let synced = &self.device(*mpos).synced;
                if let Some(old) = synced.get(which % synced.len().max(1)).cloned() {
                    let ticket = self.shop.send_sync(id(*mpos), &old);
                    self.tickets
                        .insert(ticket, (id(*mpos), Waits::Sync(Box::new(old))));
                }
            }
            Step::Return { mpos } if !self.device(*mpos).cut => {
                let device = self.device(*mpos);
                if device.returning.is_none()
                    && device.wallet.held.is_some()
                    && device.wallet.unsynced.is_empty()
                {
                    device.returning = Some(device.wallet.statement());
                }
                if let Some(statement) = device.returning {
                    let ticket = self.shop.send_return(id(*mpos), &statement);
                    self.tickets
                        .insert(ticket, (id(*mpos), Waits::Return(statement.number)));
                }
            }
            Step::Pay { mpos, card, amount } if !self.device(*mpos).cut => {
                let payment = request(self.number(), *amount, &format!("card {card}"));
                self.shop.send(id(*mpos), &payment);
            }
            Step::PayWhatWasApproved { mpos } if !self.device(*mpos).cut => {
                if let Some(first) = self.device(*mpos).wallet.unsynced.last().cloned() {
                    self.shop.send(id(*mpos), &first.request);
                }
            }
            Step::Cut { mpos, cut } => self.device(*mpos).cut = *cut,
            Step::LoseAnswers => self.tickets.clear(),
            Step::Gateway { which, answer } if !self.shop.forwards.is_empty() => {
                let forward = self.shop.forwards.remove(which % self.shop.forwards.len());
                let answer = match answer {
                    0 => no_answer(),
                    1 => declined(),
                    _ => approved(),
                };
                self.shop.answer(forward.attempt, answer);
            }
            Step::Wan { up: true } => self.shop.go_online(),
            Step::Wan { up: false } => self.shop.go_offline(),
            Step::Flush => self.shop.flush(),
            Step::Crash => {
                self.same_after_a_refold();
                self.tickets.clear();
                self.shop.crash();
            }
            Step::Pass { minutes } => self.shop.pass(minutes * 60_000),
            _ => {}
        }
        self.listen();
        self.check();
    }

    fn cheat(&mut self, mpos: bool, how: u8) {
        let number = self.number();
        let payment = request(number, 1_000, &format!("card {number}"));
        let now_ms = self.shop.now.wall_ms;
        let device = self.device(mpos);
        device.highest_ms = device.highest_ms.max(now_ms);
        let at_ms = device.highest_ms;
        let wallet = &mut device.wallet;
        if wallet.held.is_none() {
            return;
        }
        device.honest = false;
        match how {
            0 => {
                let large = request(number, 9_500, "a large one");
                wallet.cheat(&large, at_ms);
                device.wrong.insert(large.payment_id);
            }
            1 => {
                let forked = wallet.clone().cheat(&payment, at_ms);
                wallet.unsynced.push(forked);
            }
            2 => {
                // More than there is, bit by bit.
                wallet.cheat(&payment, at_ms);
            }
            3 => {
                let late_ms = wallet.allowance().expires_ms;
                wallet.cheat(&payment, late_ms);
                device.wrong.insert(payment.payment_id);
            }
            4 => {
                let mut foreign = payment;
                foreign.card.scheme = CardScheme::Amex;
                wallet.cheat(&foreign, at_ms);
                device.wrong.insert(foreign.payment_id);
            }
            5 => {
                wallet.cheat(&payment, at_ms);
                wallet.unsynced.last_mut().unwrap().receipt.number += 100;
                device.wrong.insert(payment.payment_id);
            }
            _ => {
                // Goes on with an allowance that it says it returns.
                device.returning = Some(wallet.statement());
                wallet.cheat(&payment, at_ms);
            }
        }
    }

    fn listen(&mut self) {
        let replies: Vec<_> = self.shop.replies.drain().collect();
        for (ticket, reply) in replies {
            let Some((id, waits)) = self.tickets.remove(&ticket) else {
                continue;
            };
            let device = self.devices.get_mut(&id).unwrap();
            match (waits, reply) {
                (Waits::Allowance, Reply::Allowance { allowance, chain }) if device.returning.is_none() => {
                    device.wallet.take(&allowance, chain);
                }
                (Waits::Sync(told), Reply::Synced(receipt)) => {
                    assert_eq!(receipt.payment_id, told.request.payment_id);
                    if receipt.decision == Decision::ApprovedOffline {
                        let known = self.shop.core.state().payment(&receipt.payment_id).unwrap();
                        assert!(known.decided.is_some(), "rule 2: kept");
                    }
                    let stands = self.shop.core.state().payment(&receipt.payment_id).unwrap();
                    // One that the hub itself has decided is no harm.
                    let by_device = stands.decided.as_ref().unwrap().record.allowance.is_some();
                    if by_device && device.wrong.contains(&receipt.payment_id) {
                        let found = self.shop.core.state().device(&id).unwrap();
                        assert!(found.quarantined(), "a cheat is found when it is synced");
                    }
                    device.wallet.unsynced.retain(|one| one.receipt != told.receipt);
                    device.synced.push(*told);
                }
                (Waits::Return(number), Reply::Returned { .. })
                    if device.returning.is_some_and(|said| said.number == number) =>
                {
                    device.returning = None;
                    device.wallet.held = None;
                    device.wallet.closed = Some(number);
                }
                (Waits::Return(_), Reply::Refused(_)) => assert!(!device.honest, "an honest return is taken"),
                _ => {}
            }
        }
    }

    /// What is written, on disk or not, folds to what the core has.
    fn same_after_a_refold(&self) {
        let mut state = State::default();
        let written = self.shop.written.iter().map(|(_, payload)| payload);
        for payload in self.shop.disk.iter().chain(written) {
            let entry: Entry = cbor::decode(payload).unwrap();
            state.apply(&entry, Entry::digest(payload)).unwrap();
        }
        let live = self.shop.core.state();
        assert_eq!(state.store(), live.store());
        for device in live.devices() {
            assert_eq!(state.device(&device.registration.device), Some(device));
        }
    }

    fn check(&self) {
        let state = self.shop.core.state();
        let mut truth = (0, 0);
        let mut kept_back = (0, 0);
        for (id, device) in &self.devices {
            let record = state.device(id).unwrap();
            let exposed: Vec<u64> = state
                .payments()
                .filter(|(_, payment)| payment.device == *id && payment.exposed)
                .map(|(_, payment)| payment.amount_minor)
                .collect();
            let real = (exposed.iter().sum::<u64>(), exposed.len() as u64);
            assert_eq!(record.subject.exposure_minor, real.0, "spent, exactly");
            // Kept back, exactly: what no receipt of the chain has used.
            let reserved = record.reserved();
            if let Some(held) = record.open_allowance() {
                let used: u64 = held.spent.iter().map(|spent| spent.amount_minor).sum();
                assert_eq!(used, held.chain.total_minor);
                assert_eq!(reserved.minor, held.allowance.amount_minor.saturating_sub(used));
                assert_eq!(
                    reserved.count,
                    held.allowance.count.saturating_sub(held.chain.index)
                );
            } else {
                assert_eq!(reserved, record.withheld());
                assert!(!device.honest || reserved.minor == 0);
            }
            kept_back.0 += reserved.minor;
            kept_back.1 += reserved.count;
            // What the hub does not know: approved there, and what may be.
            let unknown: Vec<u64> = device
                .wallet
                .unsynced
                .iter()
                .filter(|one| state.payment(&one.request.payment_id).is_none())
                .map(|one| one.request.amount_minor())
                .collect();
            let left = device.wallet.held.as_ref().filter(|_| device.returning.is_none());
            let left = left.map_or((0, 0), |(allowance, chain)| {
                (
                    allowance.amount_minor - chain.total_minor.min(allowance.amount_minor),
                    u64::from(allowance.count) - u64::from(chain.index.min(allowance.count)),
                )
            });
            let mine = (
                real.0 + unknown.iter().sum::<u64>() + left.0,
                real.1 + unknown.len() as u64 + left.1,
            );
            let at_risk = record.at_risk();
            if device.honest {
                assert!(mine.0 <= at_risk.exposure_minor, "never less than real");
                assert!(mine.0 <= DEVICE, "the device's ceiling: {mine:?}");
                assert!(!record.quarantined(), "an honest device is never suspected");
            }
            truth.0 += mine.0;
            truth.1 += mine.1;
        }
        assert_eq!(
            (state.store().reserved().minor, state.store().reserved().count),
            kept_back
        );
        if self.devices.values().all(|device| device.honest) {
            assert!(truth.0 <= STORE, "rule 4: the store's ceiling: {truth:?}");
            assert!(truth.1 <= IN_A_ROW, "rule 4: the store's count: {truth:?}");
            assert!(truth.0 <= state.store().at_risk().exposure_minor);
        }
    }

    /// The networks are back: everything is synced and returned.
    fn finish(mut self) {
        self.shop.flush_at_once = true;
        self.shop.flush();
        self.listen();
        for mpos in [true, false] {
            self.device(mpos).cut = false;
            while !self.device(mpos).wallet.unsynced.is_empty() {
                self.step(&Step::Sync { mpos });
            }
            self.step(&Step::Return { mpos });
            let device = self.device(mpos);
            if device.honest {
                assert!(device.wallet.held.is_none(), "returned");
            }
            // One whose answer got lost is still open at the hub.
            if device.honest {
                self.step(&Step::Ask { mpos });
                self.step(&Step::Return { mpos });
                let record = self.shop.core.state().device(&id(mpos)).unwrap();
                assert_eq!(record.reserved().minor, 0);
            }
        }
        let misused = self.shop.disk.iter().any(|payload| {
            let entry: Entry = cbor::decode(payload).unwrap();
            matches!(entry.event, Event::AllowanceMisused { .. })
        });
        for device in self.devices.values() {
            let record = self.shop.core.state().device(&device.wallet.device).unwrap();
            assert!(!record.quarantined() || !device.honest);
            assert!(misused || !record.quarantined());
            for one in &device.synced {
                let kept = self.shop.core.state().payment(&one.request.payment_id);
                assert!(
                    kept.is_some_and(|kept| kept.decided.is_some()),
                    "rule 2: nothing lost"
                );
            }
        }
        self.same_after_a_refold();
    }
}

fn run(steps: &[Step]) {
    let mut run = Run::new();
    for step in steps {
        run.step(step);
    }
    run.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn rule_4_no_ceiling_is_passed_out_of_the_hubs_reach(steps in prop::collection::vec(step(), 1..150)) {
        run(&steps);
    }

    #[test]
    fn what_cheats_bring_is_kept_found_and_accounted(steps in prop::collection::vec(dishonest_step(), 1..150)) {
        run(&steps);
    }
}
