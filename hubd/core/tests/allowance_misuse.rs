//! What a device does with an allowance that it does not permit: the payments
//! are kept, it is written down, and the device approves nothing more offline.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use hub_core::{Input, Operation, OperatorCommand, OperatorReply};
use hub_protocol::{
    AllowanceMisuse, CardScheme, Cryptogram, Decision, PaymentState, Reason, RefusalCode, Restriction, Terms,
    TransactionType,
};
use support::wallet::{Wallet, at, at_risk, given, kinds, policy};
use support::{MPOS, SOFTPOS, Shop, approved, payment_id, request};

#[test]
fn every_misuse_is_kept_recorded_and_quarantines_the_device() {
    use AllowanceMisuse as Misuse;
    type Cheat = fn(&mut Shop, &mut Wallet);
    type Case<'a> = (&'a str, Cheat, &'a [Misuse], (u64, u32, u64, u32));
    let cases: [Case<'_>; 19] = [
        (
            "a payment above its ceiling",
            |shop, w| {
                w.cheat(&request(1, 8_001, "a"), at(shop));
            },
            &[Misuse::Overspent],
            (8_001, 1, 11_999, 3),
        ),
        (
            "more than the amount",
            |shop, w| {
                for number in 1..=3 {
                    w.cheat(&request(number, 7_000, &format!("card {number}")), at(shop));
                }
            },
            &[Misuse::Overspent],
            (21_000, 3, 0, 1),
        ),
        (
            "more payments than allowed",
            |shop, w| {
                for number in 1..=6 {
                    w.cheat(&request(number, 10, &format!("card {number}")), at(shop));
                }
            },
            &[Misuse::Overspent, Misuse::Overspent],
            (60, 6, 19_940, 0),
        ),
        (
            "one card for more than its ceiling",
            |shop, w| {
                w.cheat(&request(1, 8_000, "a"), at(shop));
                w.cheat(&request(2, 7_001, "a"), at(shop));
            },
            &[Misuse::Overspent],
            (15_001, 2, 4_999, 2),
        ),
        (
            "two payments in one place",
            |shop, w| {
                let mut copy = w.clone();
                w.cheat(&request(1, 1_000, "a"), at(shop));
                let forked = copy.cheat(&request(2, 2_000, "b"), at(shop));
                w.unsynced.push(forked);
            },
            &[Misuse::Forked],
            // 19 000 and 3 of the one end, all of it of the other.
            (3_000, 2, 39_000, 7),
        ),
        (
            "a total that does not add up",
            |shop, w| {
                w.cheat(&request(1, 1_000, "a"), at(shop));
                w.unsynced[0].receipt.total_minor = 1;
            },
            &[Misuse::Forked],
            (1_000, 1, 40_000, 8),
        ),
        (
            "a place before the first",
            |shop, w| {
                w.cheat(&request(1, 1_000, "a"), at(shop));
                w.unsynced[0].receipt.index = 0;
            },
            &[Misuse::Forked],
            (1_000, 1, 40_000, 8),
        ),
        (
            "a closed allowance",
            |shop, w| {
                let mut copy = w.clone();
                w.give_back(shop);
                let reused = copy.cheat(&request(1, 1_000, "a"), at(shop));
                w.unsynced.push(reused);
            },
            &[Misuse::Reused],
            // It was returned by one end, and is spent by another.
            (1_000, 1, 20_000, 4),
        ),
        (
            "a closed allowance, of a device in quarantine for card numbers",
            |shop, w| {
                let mut copy = w.clone();
                let device = copy.device;
                for _ in 0..3 {
                    shop.input(Input::CardNumber { device });
                }
                w.give_back(shop);
                let reused = copy.cheat(&request(1, 1_000, "a"), at(shop));
                w.unsynced.push(reused);
            },
            &[Misuse::Reused],
            (1_000, 1, 20_000, 4),
        ),
        (
            "an old allowance beside a new one",
            |shop, w| {
                let mut copy = w.clone();
                w.give_back(shop);
                w.ask(shop).unwrap();
                let reused = copy.cheat(&request(1, 1_000, "a"), at(shop));
                w.unsynced.push(reused);
            },
            &[Misuse::Reused],
            (1_000, 1, 20_000, 4),
        ),
        (
            "an old allowance, for a payment that the gateway is being asked about",
            |shop, w| {
                let mut copy = w.clone();
                w.give_back(shop);
                w.ask(shop).unwrap();
                shop.go_online();
                shop.send(w.device, &request(1, 1_000, "a"));
                shop.go_offline();
                let reused = copy.cheat(&request(1, 1_000, "a"), at(shop));
                w.unsynced.push(reused);
            },
            &[Misuse::Reused],
            (1_000, 1, 20_000, 4),
        ),
        (
            "after its expiry",
            |shop, w| {
                let late = w.allowance().expires_ms;
                w.cheat(&request(1, 1_000, "a"), late);
                let _ = shop;
            },
            &[Misuse::Expired],
            (1_000, 1, 19_000, 3),
        ),
        (
            "time that goes back",
            |shop, w| {
                w.cheat(&request(1, 1_000, "a"), at(shop) + 2);
                w.cheat(&request(2, 1_000, "b"), at(shop) + 1);
            },
            &[Misuse::Expired],
            (2_000, 2, 18_000, 2),
        ),
        (
            "a scheme it is not for",
            |shop, w| {
                let mut amex = request(1, 1_000, "a");
                amex.card.scheme = CardScheme::Amex;
                w.cheat(&amex, at(shop));
            },
            &[Misuse::ForeignCardRules],
            (1_000, 1, 19_000, 3),
        ),
        (
            "a scheme and an amount",
            |shop, w| {
                let mut amex = request(1, 9_000, "a");
                amex.card.scheme = CardScheme::Amex;
                w.cheat(&amex, at(shop));
            },
            &[Misuse::Overspent, Misuse::ForeignCardRules],
            (9_000, 1, 11_000, 3),
        ),
        (
            "a card that refused, which stays refused",
            |shop, w| {
                let mut refused = request(1, 1_000, "a");
                refused.cryptogram = Cryptogram::Refused;
                w.cheat(&refused, at(shop));
            },
            &[Misuse::ForeignCardRules],
            (0, 0, 19_000, 3),
        ),
        (
            "a refund, which is not made",
            |shop, w| {
                let mut refund = request(1, 1_000, "a");
                refund.terms = Some(Box::new(Terms::of(TransactionType::Refund)));
                w.cheat(&refund, at(shop));
            },
            &[Misuse::ForeignCardRules],
            (0, 0, 19_000, 3),
        ),
        (
            "receipts left out",
            |shop, w| {
                w.cheat(&request(1, 1_000, "a"), at(shop));
                w.cheat(&request(2, 1_000, "b"), at(shop));
                w.unsynced.remove(0);
            },
            &[Misuse::ReceiptGap],
            (1_000, 1, 20_000, 4),
        ),
        (
            "an allowance that was never given",
            |shop, w| {
                w.cheat(&request(1, 1_000, "a"), at(shop));
                w.unsynced[0].receipt.number = 9;
            },
            &[Misuse::NotGiven],
            (1_000, 1, 20_000, 4),
        ),
    ];
    for (name, cheat, expected, left) in cases {
        let (mut shop, mut wallet) = given();
        cheat(&mut shop, &mut wallet);
        let synced = wallet.unsynced.clone();
        let receipts = wallet.sync_all(&mut shop);
        for receipt in &receipts {
            let refused = name.contains(", which ");
            let kept = if refused {
                Decision::Declined
            } else {
                Decision::ApprovedOffline
            };
            assert_eq!(receipt.decision, kept, "{name}: what was approved is kept");
        }
        assert_eq!(kinds(&shop), expected, "{name}");
        assert_eq!(shop.misused.len(), expected.len(), "{name}: and told");
        assert_eq!(at_risk(&shop)[0], left, "{name}");
        // Told again, it is not found again.
        for one in &synced {
            shop.synced(MPOS, one);
        }
        assert_eq!(kinds(&shop).len(), expected.len(), "{name}: once");
        assert_eq!(at_risk(&shop)[0], left, "{name}");
        shop.crash();
        let quarantined = shop.core.state().device(&MPOS).unwrap();
        assert_eq!(
            quarantined.restriction(),
            Restriction::Stopped,
            "{name}: a restart forgets nothing"
        );
        let told = shop.pay(MPOS, &request(50, 100, "card 50"));
        assert_eq!(told.decision, Decision::Declined, "{name}: no approvals offline");
        let ticket = shop.ask_allowance(MPOS, wallet.closed);
        assert_eq!(
            shop.refusal(ticket).code,
            RefusalCode::AllowanceNotGiven,
            "{name}"
        );
        let told = shop.pay(SOFTPOS, &request(51, 100, "card 51"));
        assert_eq!(told.decision, Decision::ApprovedOffline, "{name}: others go on");
    }
}

#[test]
fn receipts_that_were_left_out_and_come_later_are_accounted_then() {
    let (mut shop, mut wallet) = given();
    for number in 1..=3 {
        wallet
            .approve(&request(number, 1_000, &format!("card {number}")), at(&shop))
            .unwrap();
    }
    let [one, two, three] = &wallet.unsynced[..] else {
        panic!()
    };
    for late in [three, one, two, three] {
        shop.synced(MPOS, late);
    }
    assert_eq!(kinds(&shop), [AllowanceMisuse::ReceiptGap]);
    assert_eq!(at_risk(&shop), [(3_000, 3, 17_000, 1); 2]);
}

#[test]
fn a_quarantined_device_syncs_voids_and_pays_online_until_a_person_lifts_it() {
    let (mut shop, mut wallet) = given();
    wallet.cheat(&request(1, 9_000, "a"), at(&shop));
    wallet.approve(&request(2, 1_000, "b"), at(&shop)).unwrap();
    assert_eq!(wallet.sync_all(&mut shop).len(), 2);
    let told = shop.pay(MPOS, &request(3, 100, "c"));
    assert_eq!(told.decision, Decision::Declined);
    let reason = &shop.core.state().payment(&payment_id(3)).unwrap().decided;
    assert_eq!(reason.as_ref().unwrap().record.reason, Reason::DeviceSuspended);
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(ticket).state, PaymentState::Voided);
    // Neither time online nor a new policy ends it.
    shop.install(&policy().replace("version = 1", "version = 2"));
    shop.go_online();
    shop.pass(3_600_000);
    assert_eq!(
        shop.core.state().device(&MPOS).unwrap().restriction(),
        Restriction::Stopped
    );
    shop.forwards.clear();
    let ticket = shop.send(MPOS, &request(4, 100, "d"));
    let forward = shop.forwards.pop().unwrap();
    shop.answer(forward.attempt, approved());
    assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOnline);
    assert_eq!(
        shop.operate(OperatorCommand::Lift(Some(MPOS))),
        OperatorReply::Done
    );
    wallet.give_back(&mut shop);
    assert_eq!(wallet.ask(&mut shop).unwrap().number, 2);
}

#[test]
fn rule_3_a_refund_that_was_asked_online_is_reversed_when_its_device_says_that_it_gave_it() {
    let text = policy().replace(
        "[offline]\n",
        "[offline]\ntransaction_types = [\"sale\", \"refund\"]\n",
    );
    for answered in [false, true] {
        let mut shop = Shop::offline_under(&text);
        let mut wallet = Wallet::new(MPOS);
        wallet.ask(&mut shop).unwrap();
        shop.go_online();
        let mut refund = request(1, 1_000, "a");
        refund.terms = Some(Box::new(Terms::of(TransactionType::Refund)));
        shop.send(MPOS, &refund);
        let sent = shop.forwards.pop().unwrap();
        assert_eq!(sent.payment_id, payment_id(1));
        wallet.cheat(&refund, at(&shop));
        let [receipt] = &wallet.sync_all(&mut shop)[..] else {
            panic!("one receipt expected");
        };
        assert_eq!(receipt.decision, Decision::Declined);
        assert_eq!(shop.state_of(1), PaymentState::ReversalQueued);
        // Whatever becomes of the attempt under way.
        let late = if answered {
            approved()
        } else {
            support::no_answer()
        };
        shop.answer(sent.attempt, late);
        shop.pass(60_000);
        let reversal = shop.forwards.pop().unwrap();
        assert_eq!(
            (reversal.payment_id, reversal.operation),
            (payment_id(1), Operation::Reverse)
        );
        shop.answer(reversal.attempt, approved());
        assert_eq!(shop.state_of(1), PaymentState::Reversed);
    }
}
