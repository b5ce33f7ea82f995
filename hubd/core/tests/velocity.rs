//! What limits remember over many payments: taps without the PIN, how often in
//! a while, declines at replay, and the share that holds. Each through a
//! restart too: nothing of it may be forgotten.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::state::{CardKey, State};
use hub_core::{GatewayAnswer, Input, Operation, Probe};
use hub_protocol::entry::Event;
use hub_protocol::{
    CardFacts, CardScheme, Decision, DeviceId, Entry, EntryMode, PaymentRequest, Reason, Receipt,
    Verification, cbor,
};
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, declined, payment_id, request};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

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
        assert_eq!(
            (receipt.decision, receipt.reason),
            (Decision::Declined, Reason::ClassNotAllowed),
            "100,01 in all, and no PIN on that glass, as receipts say it"
        );
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

/// As the ledger has it, not as receipts say it.
fn reason(shop: &Shop, number: u64) -> Reason {
    let payment = shop.core.state().payment(&payment_id(number)).unwrap();
    payment.decided.as_ref().unwrap().record.reason
}

fn live(shop: &mut Shop, device: DeviceId, request: &PaymentRequest) -> Receipt {
    let ticket = shop.send(device, request);
    let mut forwards = shop.forwards.iter();
    let at = forwards.position(|forward| forward.payment_id == request.payment_id);
    let forward = shop.forwards.remove(at.unwrap());
    shop.answer(forward.attempt, approved());
    shop.receipt(ticket)
}

fn gateway_says(shop: &mut Shop, gateway_ms: u64) {
    shop.input(Input::Probe(Probe {
        ok: true,
        latency_ms: 20,
        gateway_time_ms: Some(gateway_ms),
    }));
}

fn version(text: &str, number: u32) -> String {
    text.replace("version = 1 ", &format!("version = {number} "))
}

#[test]
fn rule_4_a_share_that_held_for_hours_comes_back_from_the_last_decision_on() {
    let text = moving(
        "loosen_percent = 10\nloosen_minutes = 15\n[[moving.outage]]\nfrom_minutes = 30\npercent = 20",
    );
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        shop.pass(30 * MINUTE);
        for number in 1..=4 {
            let card = format!("card {number}");
            assert!(shop.pay(MPOS, &request(number, 2_000, &card)).decision.approved());
            shop.pass(40 * MINUTE);
            between(&mut shop);
        }
        assert!(!shop.pay(MPOS, &request(9, 2_001, "z")).decision.approved());
        replay(&mut shop, approved);
        between(&mut shop);
        shop.go_offline();
        let soon = shop.pay(MPOS, &request(10, 3_001, "y"));
        assert_eq!(soon.reason, Reason::TransactionCeiling);
    });
}

#[test]
fn rule_5_a_clock_that_the_gateway_sets_back_makes_nothing_that_waits_young() {
    let text = policy(&[("[offline]", "oldest_unsent_minutes = 60")]);
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        assert!(shop.pay(MPOS, &request(1, 100, "a")).decision.approved());
        shop.pass(59 * MINUTE);
        let right_ms = shop.now.wall_ms - 2 * HOUR;
        gateway_says(&mut shop, right_ms);
        shop.go_offline();
        between(&mut shop);
        shop.pass(2 * MINUTE);
        assert!(!shop.pay(MPOS, &request(2, 100, "b")).decision.approved());
        assert_eq!(reason(&shop, 2), Reason::UnsentTooLong);
    });
}

#[test]
fn a_payment_that_is_due_again_waits_since_then_and_does_not_stop_the_shop() {
    let text = policy(&[("[offline]", "oldest_unsent_minutes = 60")]);
    let mut shop = Shop::offline_under(&text);
    let visa = PaymentRequest {
        card: CardFacts {
            scheme: CardScheme::Visa,
            ..request(1, 100, "a").card
        },
        ..request(1, 100, "a")
    };
    assert!(shop.pay(MPOS, &visa).decision.approved());
    replay(&mut shop, declined);
    assert!(live(&mut shop, MPOS, &request(2, 100, "b")).decision.approved());
    shop.pass(11 * HOUR);
    shop.forwards.clear();
    shop.go_offline();
    shop.pass(59 * MINUTE);
    shop.pay(MPOS, &request(3, 100, "c"));
    // Due since a minute.
    shop.pass(MINUTE + 30_000);
    let receipt = shop.pay(MPOS, &request(4, 100, "d"));
    assert!(receipt.decision.approved(), "{}", reason(&shop, 4));
}

/// Started again from the index: the queue is loaded a moment later.
#[test]
fn rule_5_before_the_queue_is_in_memory_nobody_can_tell_how_old_it_is() {
    let text = policy(&[("[offline]", "oldest_unsent_minutes = 60")]);
    let mut shop = Shop::offline_under(&text);
    assert!(shop.pay(MPOS, &request(1, 100, "a")).decision.approved());
    let policy = shop
        .disk
        .iter()
        .find_map(|payload| match cbor::decode::<Entry>(payload).unwrap().event {
            Event::PolicyActivated { policy, .. } => Some(policy),
            _ => None,
        });
    let mut state = State::default();
    let head = shop.core.state().head();
    for (key, value) in shop.core.state_mut().take_dirty() {
        let restored = State::RESTORED.iter().any(|prefix| key.starts_with(prefix));
        if let Some(value) = value.filter(|_| restored) {
            state.restore(&key, &value).unwrap();
        }
    }
    state.restored(head, policy.as_deref());
    shop.restart(state);
    shop.input(Input::Recalled {
        payments: Vec::new(),
        cards: vec![(CardKey::of_token("d"), Default::default())],
    });
    assert!(!shop.pay(SOFTPOS, &request(4, 100, "d")).decision.approved());
    assert_eq!(reason(&shop, 4), Reason::UnsentTooLong);
}

#[test]
fn a_clock_that_was_ahead_does_not_close_a_device_until_it_has_caught_up() {
    let text = policy(&[(
        "[class.mpos]                        # phone with a certified reader",
        "device_window_count = 1\ndevice_window_minutes = 10",
    )]);
    both(|between| {
        let mut shop = Shop::online();
        shop.install(&version(&text, 2)).unwrap();
        // Not even in doubt.
        shop.now.wall_ms += 20 * HOUR;
        shop.go_offline();
        assert!(shop.pay(MPOS, &request(1, 100, "a")).decision.approved());
        let right_ms = shop.now.wall_ms - 20 * HOUR;
        gateway_says(&mut shop, right_ms);
        replay(&mut shop, approved);
        between(&mut shop);
        shop.go_offline();
        shop.pass(60 * MINUTE);
        let receipt = shop.pay(MPOS, &request(2, 100, "b"));
        assert!(receipt.decision.approved(), "{}", reason(&shop, 2));
    });
}

#[test]
fn declines_are_outlived_by_a_week_or_by_a_new_policy() {
    let text = moving("declined_least = 3\n[[moving.declined]]\nfrom_percent = 20\npercent = 1");
    for by_policy in [false, true] {
        let mut shop = Shop::offline_under(&text);
        for number in 1..=4 {
            let card = format!("card {number}");
            assert!(shop.pay(MPOS, &request(number, 100, &card)).decision.approved());
        }
        replay(&mut shop, declined);
        shop.go_offline();
        assert!(!shop.pay(MPOS, &request(5, 101, "x")).decision.approved());
        if by_policy {
            shop.come_back();
            shop.install(&version(&text, 2)).unwrap();
        } else {
            shop.come_back();
            shop.pass(7 * 24 * HOUR);
            gateway_says(&mut shop, 0);
            let now_ms = shop.now.wall_ms;
            gateway_says(&mut shop, now_ms);
        }
        shop.crash();
        shop.go_offline();
        let receipt = shop.pay(MPOS, &request(6, 10_000, "y"));
        assert!(receipt.decision.approved(), "{}", reason(&shop, 6));
    }
}

#[test]
fn rule_4_a_wider_window_counts_what_a_narrower_one_had_forgotten() {
    let with = |count, minutes| {
        policy(&[(
            "[card]",
            &format!("window_count = {count}\nwindow_minutes = {minutes}"),
        )])
        .replace("consecutive_limit = 5\n", "consecutive_limit = 50\n")
    };
    both(|between| {
        let mut shop = Shop::offline_under(&with(1, 1));
        for number in 1..=5 {
            assert!(shop.pay(MPOS, &request(number, 100, "a")).decision.approved());
            shop.pass(2 * MINUTE);
        }
        replay(&mut shop, approved);
        between(&mut shop);
        shop.install(&version(&with(5, 60), 2)).unwrap();
        shop.go_offline();
        assert!(!shop.pay(MPOS, &request(6, 100, "a")).decision.approved());
        assert_eq!(reason(&shop, 6), Reason::CardWindow, "the 6th in an hour");
    });
}

/// One device's payments bounce: the others keep their ceilings.
#[test]
fn a_devices_own_declines_make_its_own_ceilings_smaller() {
    let text = moving("declined_least = 3\n[[moving.declined]]\nfrom_percent = 60\npercent = 10");
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        for number in 1..=3 {
            let card = format!("card {number}");
            let scheme = CardScheme::Visa;
            let visa = PaymentRequest {
                card: CardFacts {
                    scheme,
                    ..request(number, 100, &card).card
                },
                ..request(number, 100, &card)
            };
            assert!(shop.pay(SOFTPOS, &visa).decision.approved());
        }
        replay(&mut shop, approved);
        shop.go_offline();
        for number in 11..=13 {
            let card = format!("card {number}");
            assert!(shop.pay(MPOS, &request(number, 100, &card)).decision.approved());
        }
        replay(&mut shop, declined);
        between(&mut shop);
        shop.go_offline();
        let mastercard = |number, amount| {
            let card = format!("card {number}");
            PaymentRequest {
                card: CardFacts {
                    scheme: CardScheme::Mastercard,
                    ..request(number, amount, &card).card
                },
                ..request(number, amount, &card)
            }
        };
        assert!(
            !shop.pay(MPOS, &mastercard(20, 1_001)).decision.approved(),
            "that device"
        );
        assert!(
            shop.pay(SOFTPOS, &mastercard(21, 1_001)).decision.approved(),
            "another"
        );
        let same_scheme = request(22, 1_001, "z");
        assert!(
            !shop.pay(SOFTPOS, &same_scheme).decision.approved(),
            "that scheme"
        );
    });
}

#[test]
fn rule_4_a_share_comes_back_a_whole_step_after_the_last_decision_it_was_caused_for() {
    let text = moving(
        "loosen_percent = 10\nloosen_minutes = 15\n[[moving.outage]]\nfrom_minutes = 60\npercent = 20",
    );
    both(|between| {
        let mut shop = Shop::offline_under(&text);
        shop.pass(HOUR);
        assert!(shop.pay(MPOS, &request(1, 2_000, "a")).decision.approved());
        // The cause is still there, a moment before the first step would end.
        shop.pass(15 * MINUTE - 1);
        assert!(shop.pay(MPOS, &request(2, 2_000, "b")).decision.approved());
        replay(&mut shop, approved);
        shop.go_offline();
        between(&mut shop);
        let at = |shop: &mut Shop, number, amount| {
            shop.pay(MPOS, &request(number, amount, &format!("card {number}")))
                .reason
        };
        assert_eq!(at(&mut shop, 3, 2_001), Reason::TransactionCeiling, "20 percent");
        // What only the rest of it refuses puts nothing off.
        shop.pass(15 * MINUTE);
        between(&mut shop);
        assert_eq!(at(&mut shop, 4, 3_001), Reason::TransactionCeiling, "30 percent");
        assert_eq!(at(&mut shop, 5, 3_000), Reason::None);
        shop.pass(14 * MINUTE);
        between(&mut shop);
        assert_eq!(at(&mut shop, 6, 3_001), Reason::TransactionCeiling, "30 percent");
        shop.pass(MINUTE);
        assert_eq!(at(&mut shop, 7, 4_000), Reason::None, "40 percent");
    });
}
