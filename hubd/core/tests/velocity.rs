//! What limits remember over many payments: taps without the PIN, how often in
//! a while, declines at replay, and the share that holds. Each through a
//! restart too: nothing of it may be forgotten.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, Operation};
use hub_protocol::{Decision, EntryMode, PaymentRequest, Reason, Verification};
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, declined, request};

const MINUTE: u64 = 60_000;

/// The sample policy with keys added to a table.
fn policy(changes: &[(&str, &str)]) -> String {
    let mut text = POLICY.to_owned();
    for (table, keys) in changes {
        assert!(text.contains(table), "{table}");
        text = text.replace(table, &format!("{table}\n{keys}\n"));
    }
    text
}

fn moving(keys: &str) -> String {
    format!("{POLICY}\n[moving]\n{keys}\n")
}

fn tap(number: u64, amount: u64, card: &str) -> PaymentRequest {
    PaymentRequest {
        verification: Verification::None,
        ..request(number, amount, card)
    }
}

/// Restarts, or not: a fold must give what deciding gave.
fn both(test: impl Fn(&mut dyn FnMut(&mut Shop))) {
    test(&mut |_| {});
    test(&mut Shop::crash);
}

/// Answers everything that is sent, until nothing is.
fn replay(shop: &mut Shop, answer: fn() -> GatewayAnswer) {
    shop.come_back();
    for _ in 0..100 {
        while !shop.forwards.is_empty() {
            shop.gateway(answer());
        }
        shop.pass(1_000);
    }
}

#[test]
fn rule_4_taps_without_a_pin_add_up_until_the_holder_is_verified() {
    let text = policy(&[
        ("[card]", "contactless_cumulative_ceiling = 10000"),
        ("consecutive_limit = 5", "contactless_consecutive_limit = 3"),
    ]);
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        for number in 1..=2 {
            let receipt = shop.pay(MPOS, &tap(number, 4_000, "a"));
            assert_eq!(receipt.decision, Decision::ApprovedOffline);
            between(&mut shop);
        }
        // At another device, the same card.
        let receipt = shop.pay(SOFTPOS, &tap(3, 2_001, "a"));
        assert_eq!(receipt.decision, Decision::Fallback, "100,01 in all");
        assert_eq!(receipt.reason, Reason::VerificationRequired, "as receipts say it");
        assert!(shop.pay(SOFTPOS, &tap(4, 2_000, "a")).decision.approved());
        between(&mut shop);
        let receipt = shop.pay(MPOS, &tap(5, 1, "a"));
        assert_eq!(receipt.decision, Decision::Fallback, "the 4th in a row");
        assert!(
            shop.pay(MPOS, &tap(6, 4_000, "b")).decision.approved(),
            "another card"
        );
        // Inserted, with the PIN: taps are counted anew.
        let with_pin = PaymentRequest {
            entry_mode: EntryMode::Chip,
            verification: Verification::OfflinePin,
            ..request(7, 100, "a")
        };
        assert!(shop.pay(MPOS, &with_pin).decision.approved());
        between(&mut shop);
        assert!(shop.pay(MPOS, &tap(8, 3_000, "a")).decision.approved());
    });
}

#[test]
fn taps_are_counted_anew_once_the_gateway_has_approved_what_waited() {
    let text = policy(&[("[card]", "contactless_consecutive_limit = 1")]);
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        assert!(shop.pay(MPOS, &tap(1, 100, "a")).decision.approved());
        assert_eq!(shop.pay(MPOS, &tap(2, 100, "a")).decision, Decision::Fallback);
        replay(&mut shop, approved);
        between(&mut shop);
        shop.go_offline();
        assert!(shop.pay(MPOS, &tap(3, 100, "a")).decision.approved());
    });
}

#[test]
fn rule_4_a_window_counts_offline_approvals_of_a_card_and_of_a_device() {
    let text = policy(&[
        ("[card]", "window_count = 2\nwindow_minutes = 60"),
        (
            "[class.mpos]                        # phone with a certified reader",
            "device_window_count = 3\ndevice_window_minutes = 30",
        ),
    ]);
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        let mut pay = |shop: &mut Shop, number, device, card: &str| {
            let receipt = shop.pay(device, &request(number, 100, card));
            between(shop);
            (receipt.decision.approved(), receipt.reason)
        };
        assert!(pay(&mut shop, 1, MPOS, "a").0);
        shop.pass(20 * MINUTE);
        assert!(pay(&mut shop, 2, SOFTPOS, "a").0);
        assert_eq!(
            pay(&mut shop, 3, SOFTPOS, "a"),
            (false, Reason::CardConsecutiveLimit),
            "the 3rd of the card in an hour, as receipts say it"
        );
        assert!(pay(&mut shop, 4, MPOS, "b").0);
        shop.pass(5 * MINUTE);
        assert!(pay(&mut shop, 5, MPOS, "c").0);
        assert_eq!(
            pay(&mut shop, 6, MPOS, "d"),
            (false, Reason::DeviceConsecutiveLimit),
            "the 4th of the device in half an hour, as receipts say it"
        );
        assert!(pay(&mut shop, 7, SOFTPOS, "d").0, "at another device");
        // The first of the device is half an hour old.
        shop.pass(5 * MINUTE);
        assert!(pay(&mut shop, 8, MPOS, "d").0);
        // The first of the card is an hour old.
        shop.pass(30 * MINUTE);
        assert!(pay(&mut shop, 9, SOFTPOS, "a").0);
        assert!(!pay(&mut shop, 10, SOFTPOS, "a").0);
    });
}

#[test]
fn declines_at_replay_make_ceilings_smaller_and_approvals_larger_again() {
    let text = moving("declined_least = 3\n[[moving.declined]]\nfrom_percent = 20\npercent = 10");
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        let outage = |shop: &mut Shop, first: u64, answer| {
            for number in first..first + 4 {
                let card = format!("card {number}");
                assert!(shop.pay(MPOS, &request(number, 100, &card)).decision.approved());
            }
            replay(shop, answer);
        };
        outage(&mut shop, 1, declined);
        between(&mut shop);
        shop.go_offline();
        let large = shop.pay(MPOS, &request(50, 1_001, "x"));
        assert_eq!(large.reason, Reason::TransactionCeiling, "a tenth of 100,00");
        assert!(shop.pay(MPOS, &request(51, 1_000, "x")).decision.approved());
        for round in 0..10 {
            outage(&mut shop, 100 + 10 * round, approved);
            between(&mut shop);
            shop.go_offline();
        }
        assert!(shop.pay(MPOS, &request(52, 1_001, "y")).decision.approved());
    });
}

#[test]
fn rule_4_a_reduced_share_comes_back_step_by_step_and_not_with_the_line() {
    let text = moving(
        "loosen_percent = 20\nloosen_minutes = 10\n[[moving.outage]]\nfrom_minutes = 60\npercent = 20",
    );
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        shop.pass(60 * MINUTE);
        let amount = |shop: &mut Shop, number, amount| {
            let card = format!("card {number}");
            shop.pay(MPOS, &request(number, amount, &card))
                .decision
                .approved()
        };
        assert!(amount(&mut shop, 1, 2_000));
        replay(&mut shop, approved);
        between(&mut shop);
        shop.go_offline();
        assert!(!amount(&mut shop, 2, 2_001), "a minute or two later: 20 % still");
        shop.pass(10 * MINUTE);
        between(&mut shop);
        assert!(amount(&mut shop, 3, 4_000), "40 %");
        assert!(!amount(&mut shop, 4, 4_001));
        shop.pass(10 * MINUTE - 1_000);
        assert!(!amount(&mut shop, 5, 4_001));
        shop.pass(1_000);
        assert!(amount(&mut shop, 6, 6_000), "60 %");
        shop.pass(40 * MINUTE - 1);
        assert!(!amount(&mut shop, 7, 10_001), "never above what is signed");
    });
}

#[test]
fn the_ledger_says_which_share_held() {
    let text = moving("[[moving.outage]]\nfrom_minutes = 60\npercent = 20");
    let mut shop = Shop::offline_under(&text);
    shop.pay(MPOS, &request(1, 100, "a"));
    shop.pass(60 * MINUTE);
    shop.pay(MPOS, &request(2, 100, "b"));
    let percent = |number| {
        let payment = shop.core.state().payment(&support::payment_id(number)).unwrap();
        payment.decided.as_ref().unwrap().record.percent
    };
    assert_eq!((percent(1), percent(2)), (None, Some(20)));
}

#[test]
fn rule_5_a_payment_that_waits_too_long_ends_offline_approvals() {
    let text = policy(&[("[offline]", "oldest_unsent_minutes = 60")]);
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        assert!(shop.pay(MPOS, &request(1, 100, "a")).decision.approved());
        // The line answers probes and one customer, and is gone again: the
        // outage is young, what waits is not.
        shop.pass(50 * MINUTE);
        shop.come_back();
        let ticket = shop.send(SOFTPOS, &request(2, 100, "b"));
        let live = shop
            .forwards
            .iter()
            .position(|forward| forward.operation == Operation::AuthoriseOnline)
            .unwrap();
        let live = shop.forwards.remove(live);
        shop.answer(live.attempt, approved());
        assert!(shop.receipt(ticket).decision.approved());
        shop.forwards.clear();
        shop.go_offline();
        between(&mut shop);
        assert!(shop.pay(MPOS, &request(3, 100, "c")).decision.approved());
        shop.pass(11 * MINUTE);
        let late = shop.pay(MPOS, &request(4, 100, "d"));
        assert_eq!(late.reason, Reason::OfflineTooLong, "as receipts say it");
    });
}
