//! Allowances that cannot come to their end in one way: payments that are
//! refused for good, and chains with two ends, as a copy of the device or an
//! old backup of it brings about. Nothing is stuck, nothing is lost, and what
//! may still be out is at risk until a person has looked.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use hub_core::{OperatorCommand, OperatorReply, Reply};
use hub_protocol::entry::Event;
use hub_protocol::{AllowanceMisuse, Decision, RefusalCode, Restriction};
use proptest::prelude::*;
use support::wallet::{Approved, Wallet, at, at_risk, events, given, kinds};
use support::{MPOS, Shop, payment_id, request};

fn lift(shop: &mut Shop) {
    let lifted = shop.operate(OperatorCommand::Lift(Some(MPOS)));
    assert_eq!(lifted, OperatorReply::Done);
}

fn refused_payments(shop: &Shop) -> usize {
    let refused = |event: &Event| matches!(event, Event::AllowancePaymentRefused { .. });
    events(shop).iter().filter(|event| refused(event)).count()
}

fn forks(shop: &Shop) -> usize {
    let forked = |event: &Event| matches!(event, Event::AllowanceForked { .. });
    events(shop).iter().filter(|event| forked(event)).count()
}

#[test]
fn a_payment_that_is_refused_for_good_does_not_hold_up_its_chain() {
    use RefusalCode as Code;
    for code in [
        Code::SealedCardSize,
        Code::SealedCardDigest,
        Code::FieldMalformed,
        Code::ClearCardNumber,
        Code::AmountZero,
        Code::SignatureBad,
        Code::Malformed,
        Code::DeviceReceiptMismatch,
    ] {
        let (mut shop, mut wallet) = given();
        for number in 1..=3 {
            let payment = request(number, 1_000 * number, &format!("card {number}"));
            wallet.approve(&payment, at(&shop)).unwrap();
        }
        let [one, two, three] = &core::mem::take(&mut wallet.unsynced)[..] else {
            panic!()
        };
        shop.synced(MPOS, one);
        for _ in 0..2 {
            let ticket = shop.send_refused(MPOS, &two.receipt, code);
            assert_eq!(shop.refusal(ticket).code, code, "told each time");
            assert_eq!(kinds(&shop), [AllowanceMisuse::PaymentUnusable], "found once");
            assert_eq!(refused_payments(&shop), 1, "{code}: written down once");
        }
        // 1 000 real; 2 000 that no payment will ever stand for; 17 000 kept back.
        assert_eq!(at_risk(&shop), [(1_000, 1, 19_000, 3); 2], "{code}");
        shop.crash();
        assert_eq!(
            at_risk(&shop),
            [(1_000, 1, 19_000, 3); 2],
            "a restart frees nothing"
        );
        assert_eq!(shop.synced(MPOS, three).decision, Decision::ApprovedOffline);
        assert_eq!(at_risk(&shop), [(4_000, 2, 16_000, 2); 2], "{code}");
        wallet.give_back(&mut shop);
        assert_eq!(at_risk(&shop), [(4_000, 2, 2_000, 1); 2], "the rest is free");
        let device = shop.core.state().device(&MPOS).unwrap();
        assert_eq!(device.restriction(), Restriction::Stopped);
        assert_eq!(device.withheld().minor, 2_000);
        lift(&mut shop);
        assert_eq!(at_risk(&shop), [(4_000, 2, 0, 0); 2], "a person has looked");
        shop.crash();
        assert_eq!(at_risk(&shop), [(4_000, 2, 0, 0); 2]);
        assert_eq!(wallet.ask(&mut shop).unwrap().number, 2);
    }
}

#[test]
fn an_id_that_was_used_before_is_refused_and_does_not_hold_up_the_chain() {
    let (mut shop, mut wallet) = given();
    shop.pay(MPOS, &request(1, 500, "before"));
    wallet.approve(&request(1, 1_000, "a"), at(&shop)).unwrap();
    wallet.approve(&request(2, 2_000, "b"), at(&shop)).unwrap();
    let [one, two] = &core::mem::take(&mut wallet.unsynced)[..] else {
        panic!()
    };
    let ticket = shop.send_sync(MPOS, one);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::PaymentIdConflict);
    assert_eq!(shop.synced(MPOS, two).decision, Decision::ApprovedOffline);
    assert_eq!(kinds(&shop), [AllowanceMisuse::PaymentUnusable]);
    // 500 and 2 000 real; 1 000 withheld and 17 000 kept back.
    assert_eq!(at_risk(&shop)[0], (2_500, 2, 18_000, 3));
    wallet.give_back(&mut shop);
}

#[test]
fn a_payment_that_comes_right_after_it_was_refused_is_kept() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 1_000, "a"), at(&shop)).unwrap();
    let one = wallet.unsynced.remove(0);
    shop.send_refused(MPOS, &one.receipt, RefusalCode::SealedCardDigest);
    assert_eq!(shop.synced(MPOS, &one).decision, Decision::ApprovedOffline);
    // At risk twice until somebody looks, and never not at all.
    assert_eq!(at_risk(&shop)[0], (1_000, 1, 20_000, 4));
    assert_eq!(kinds(&shop), [AllowanceMisuse::PaymentUnusable]);
    wallet.give_back(&mut shop);
    lift(&mut shop);
    assert_eq!(at_risk(&shop)[0], (1_000, 1, 0, 0));
}

#[test]
fn a_refused_payment_out_of_its_place_takes_none() {
    type Case<'a> = (&'a str, fn(&mut Shop, &mut Wallet), &'a [AllowanceMisuse]);
    let cases: [Case<'_>; 3] = [
        ("before those before it", |_, _| {}, &[]),
        (
            "under what another end has returned",
            |shop, wallet| {
                let mut other = Wallet::new(MPOS);
                other.ask(shop).unwrap();
                assert_eq!(other.allowance(), wallet.allowance());
                other.give_back(shop);
            },
            &[AllowanceMisuse::Reused],
        ),
        (
            "under one that was never given",
            |_, wallet| wallet.unsynced[1].receipt.number = 7,
            &[],
        ),
    ];
    for (name, change, found) in cases {
        let (mut shop, mut wallet) = given();
        wallet.approve(&request(1, 1_000, "a"), at(&shop)).unwrap();
        wallet.approve(&request(2, 1_000, "b"), at(&shop)).unwrap();
        change(&mut shop, &mut wallet);
        let second = wallet.unsynced[1].receipt.clone();
        for _ in 0..2 {
            let ticket = shop.send_refused(MPOS, &second, RefusalCode::SealedCardSize);
            assert_eq!(shop.refusal(ticket).code, RefusalCode::SealedCardSize, "{name}");
            assert_eq!(kinds(&shop), found, "{name}");
        }
        assert_eq!(refused_payments(&shop), 0, "{name}");
        assert_eq!(forks(&shop), found.len(), "{name}");
        let [device, _] = at_risk(&shop);
        assert_eq!((device.2, device.3), (20_000, 4), "{name}: all of it, once");
    }
}

#[test]
fn a_chain_with_two_ends_is_closed_and_both_may_be_out() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 3_000, "common"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    let mut backup = wallet.clone();
    wallet.approve(&request(2, 5_000, "a"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    assert_eq!(at_risk(&shop)[0], (8_000, 2, 12_000, 2));
    backup.approve(&request(3, 1_000, "b"), at(&shop)).unwrap();
    backup.approve(&request(4, 1_000, "c"), at(&shop)).unwrap();
    for receipt in backup.sync_all(&mut shop) {
        assert_eq!(receipt.decision, Decision::ApprovedOffline, "rule 2");
    }
    // 12 000 and 2 more from the one, 17 000 and 3 from where the other begins.
    assert_eq!(at_risk(&shop), [(10_000, 4, 29_000, 5); 2]);
    assert_eq!((kinds(&shop), forks(&shop)), (vec![AllowanceMisuse::Forked], 1));
    shop.crash();
    assert_eq!(at_risk(&shop), [(10_000, 4, 29_000, 5); 2]);
    // Both are told that it is closed, and nothing comes back by that.
    wallet.give_back(&mut shop);
    backup.give_back(&mut shop);
    assert_eq!(at_risk(&shop), [(10_000, 4, 29_000, 5); 2]);
    lift(&mut shop);
    assert_eq!(at_risk(&shop), [(10_000, 4, 0, 0); 2]);
    assert_eq!(wallet.ask(&mut shop).unwrap().number, 2);
}

#[test]
fn a_return_that_says_less_than_is_known_is_a_fork() {
    let (mut shop, mut wallet) = given();
    let mut old = wallet.clone();
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    for _ in 0..2 {
        old.clone().give_back(&mut shop);
        assert_eq!((kinds(&shop), forks(&shop)), (vec![AllowanceMisuse::Forked], 1));
        assert_eq!(at_risk(&shop)[0].2, 15_000, "nothing comes back");
    }
    old.give_back(&mut shop);
    wallet.give_back(&mut shop);
    assert_eq!(at_risk(&shop)[0].2, 15_000);
}

#[test]
fn a_return_before_all_is_synced_is_still_no_fork() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    let ticket = shop.send_return(MPOS, &wallet.statement());
    assert_eq!(shop.refusal(ticket).code, RefusalCode::AllowanceNotSynced);
    assert_eq!((kinds(&shop), forks(&shop)), (vec![], 0));
    wallet.sync_all(&mut shop);
    wallet.give_back(&mut shop);
}

#[test]
fn who_declares_a_device_lost_answers_for_what_is_withheld_too() {
    let (mut shop, mut wallet) = given();
    let mut copy = wallet.clone();
    wallet.approve(&request(1, 1_000, "a"), at(&shop)).unwrap();
    copy.approve(&request(2, 2_000, "b"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    copy.sync_all(&mut shop);
    assert_eq!(at_risk(&shop)[0].2, 39_000);
    let lost = OperatorCommand::ForfeitAllowance(MPOS);
    assert_eq!(shop.operate(lost.clone()), OperatorReply::Done);
    assert_eq!(at_risk(&shop), [(3_000, 2, 0, 0); 2]);
    assert!(shop.core.state().device(&MPOS).unwrap().quarantined());
    assert!(matches!(shop.operate(lost), OperatorReply::Refused(_)));
}

#[derive(Clone, Debug)]
enum Step {
    Spend { copy: bool, amount: u64, wrong: bool },
    Sync { copy: bool, lost: bool },
    Return { copy: bool },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let copy = any::<bool>;
    prop_oneof![
        4 => (copy(), 1..6_000_u64, prop::bool::weighted(0.2))
            .prop_map(|(copy, amount, wrong)| Step::Spend { copy, amount, wrong }),
        4 => (copy(), any::<bool>()).prop_map(|(copy, lost)| Step::Sync { copy, lost }),
        1 => copy().prop_map(|copy| Step::Return { copy }),
        1 => Just(Step::Crash),
    ]
}

/// One end of a chain: a device, or its copy, that keeps to the allowance.
struct End {
    wallet: Wallet,
    /// Payments that the hub will never take.
    wrong: Vec<u64>,
    returned: bool,
}

impl End {
    fn is_wrong(&self, one: &Approved) -> bool {
        self.wrong
            .iter()
            .any(|number| payment_id(*number) == one.request.payment_id)
    }

    /// What it has approved and the hub does not know, and what it may yet.
    fn out(&self) -> (u64, u64) {
        let unsynced = &self.wallet.unsynced;
        let sum: u64 = unsynced.iter().map(|one| one.receipt.amount_minor).sum();
        let (allowance, chain) = (self.wallet.allowance(), self.wallet.chain());
        let left = if self.returned {
            (0, 0)
        } else {
            (
                allowance.amount_minor - chain.total_minor,
                u64::from(allowance.count - chain.index),
            )
        };
        (sum + left.0, unsynced.len() as u64 + left.1)
    }
}

struct Run {
    shop: Shop,
    ends: [End; 2],
    next: u64,
    /// What was refused, and no payment stands for.
    gone: (u64, u64),
}

impl Run {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Spend { copy, amount, wrong } => {
                let number = self.next;
                self.next += 1;
                let payment = request(number, *amount, &format!("card {number}"));
                let end = &mut self.ends[usize::from(*copy)];
                if !end.returned && end.wallet.approve(&payment, at(&self.shop)).is_ok() && *wrong {
                    end.wrong.push(number);
                }
            }
            Step::Sync { copy, lost } => self.sync(usize::from(*copy), *lost),
            Step::Return { copy } => self.give_back(usize::from(*copy)),
            Step::Crash => self.shop.crash(),
        }
        self.check();
    }

    fn sync(&mut self, end: usize, lost: bool) {
        let Some(first) = self.ends[end].wallet.unsynced.first().cloned() else {
            return;
        };
        let wrong = self.ends[end].is_wrong(&first);
        if wrong {
            let ticket = self
                .shop
                .send_refused(MPOS, &first.receipt, RefusalCode::SealedCardSize);
            assert_eq!(self.shop.refusal(ticket).code, RefusalCode::SealedCardSize);
        } else {
            let receipt = self.shop.synced(MPOS, &first);
            assert_eq!(receipt.decision, Decision::ApprovedOffline, "rule 2: it is kept");
        }
        // Whose answer got lost asks again.
        if !lost {
            self.ends[end].wallet.unsynced.remove(0);
            if wrong {
                self.gone = (self.gone.0 + first.receipt.amount_minor, self.gone.1 + 1);
            }
        }
    }

    fn give_back(&mut self, end: usize) {
        let ticket = self.shop.send_return(MPOS, &self.ends[end].wallet.statement());
        self.ends[end].returned = true;
        match self.shop.replies.remove(&ticket) {
            Some(Reply::Returned { .. }) => {}
            Some(Reply::Refused(refusal)) => {
                assert_eq!(refusal.code, RefusalCode::AllowanceNotSynced);
                let synced = self.ends[end].wallet.unsynced.is_empty();
                assert!(!synced, "who has synced everything is never stuck");
            }
            other => panic!("{other:?}"),
        }
    }

    fn check(&self) {
        let state = self.shop.core.state();
        let record = state.device(&MPOS).unwrap();
        let real: Vec<u64> = state
            .payments()
            .filter(|(_, it)| it.exposed)
            .map(|(_, it)| it.amount_minor)
            .collect();
        let at_risk = record.at_risk();
        assert_eq!(record.subject.exposure_minor, real.iter().sum::<u64>());
        assert_eq!(at_risk, state.store().at_risk(), "there is no other device");
        let known = forks(&self.shop) > 0;
        assert_eq!(
            forks(&self.shop),
            kinds(&self.shop)
                .iter()
                .filter(|kind| matches!(kind, AllowanceMisuse::Forked | AllowanceMisuse::Reused))
                .count()
        );
        if !known {
            return;
        }
        assert!(record.quarantined() && record.open_allowance().is_none());
        let [a, b] = [self.ends[0].out(), self.ends[1].out()];
        // What came and is real is out no more; what was told twice is real once.
        let twice = self.ends.iter().flat_map(|end| &end.wallet.unsynced);
        let twice: Vec<u64> = twice
            .filter(|one| state.payment(&one.request.payment_id).is_some())
            .map(|one| one.receipt.amount_minor)
            .collect();
        let truth = (
            real.iter().sum::<u64>() + a.0 + b.0 + self.gone.0 - twice.iter().sum::<u64>(),
            real.len() as u64 + a.1 + b.1 + self.gone.1 - twice.len() as u64,
        );
        assert!(
            truth.0 <= at_risk.exposure_minor,
            "rule 4: {truth:?} of {at_risk:?}"
        );
        assert!(
            truth.1 <= u64::from(at_risk.consecutive),
            "rule 4: {truth:?} of {at_risk:?}"
        );
    }

    fn finish(mut self) {
        for end in [0, 1] {
            while !self.ends[end].wallet.unsynced.is_empty() {
                self.sync(end, false);
                self.check();
            }
            self.give_back(end);
            self.check();
        }
        let closed = self.shop.core.state().device(&MPOS).unwrap();
        assert!(closed.open_allowance().is_none(), "nothing is stuck");
        if closed.quarantined() {
            lift(&mut self.shop);
        }
        assert_eq!(at_risk(&self.shop)[0].2, 0, "a person has looked");
        let mut wallet = Wallet::new(MPOS);
        wallet.closed = Some(1);
        assert_eq!(wallet.ask(&mut self.shop).unwrap().number, 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn rule_4_what_two_ends_of_a_chain_may_bring_is_at_risk_and_nothing_is_stuck(
        common in 0..3_u64,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let (mut shop, mut wallet) = given();
        for number in 1..=common {
            wallet.approve(&request(number, 1_000, "common"), at(&shop)).unwrap();
        }
        wallet.sync_all(&mut shop);
        let end = || End { wallet: wallet.clone(), wrong: Vec::new(), returned: false };
        let mut run = Run { ends: [end(), end()], shop, next: 10, gone: (0, 0) };
        for step in &steps {
            run.step(step);
        }
        run.finish();
    }
}
