//! What goes wrong in other offline payment systems, twelve ways, each as a
//! test that it does not go wrong here. Where only whole processes can show
//! it, a test of the machine stands here and names the other.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeSet;

use hub_core::state::{CardRecord, PaymentRecord, State};
use hub_core::{GatewayAnswer, Input, MOST_FAILURES_ALONE, Operation, OperatorCommand, OperatorReply, Probe};
use hub_protocol::{Decision, DeviceClass, DeviceId, Entry, PaymentState, Reason, Submission, cbor};
use support::{MPOS, POLICY, SOFTPOS, STRANGER, Shop, approved, no_answer, payment_id, request};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// Elsewhere, 8 orders became 19 charges. Also over HTTPS:
/// `rule_3_asked_online_then_deferred_is_one_charge_and_one_answer`.
#[test]
fn failure_1_a_fresh_idempotency_key_at_each_forward() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    let mut ids = vec![shop.gateway(no_answer()).payment_id];
    assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOffline);
    for _ in 0..3 {
        shop.pass(60_000);
        ids.push(shop.gateway(no_answer()).payment_id);
        shop.crash();
        ids.push(shop.gateway(no_answer()).payment_id);
    }
    assert_eq!(ids, vec![payment_id(1); 7]);
}

/// Also with a gateway that forgets and charges again what is sent blind:
/// `past_retention_a_payment_is_looked_up_and_charged_once`.
#[test]
fn failure_2_the_queue_outlives_the_idempotency_key() {
    // Sent, never answered, and then offline for longer than the gateway
    // remembers. With a restart in between as well, when nobody knows any
    // more whether it was sent.
    for restart in [false, true] {
        let mut shop = Shop::offline();
        shop.pay(MPOS, &request(1, 2_000, "card"));
        shop.go_online();
        shop.gateway(no_answer());
        shop.go_offline();
        if restart {
            shop.crash();
        }
        shop.pass(24 * HOUR_MS);
        shop.come_back();
        let looked = shop.gateway(no_answer());
        assert_eq!(looked.operation, Operation::LookUp, "never blind");
        shop.pass(60_000);
        let looked = shop.gateway(GatewayAnswer::RefusesMessage {
            detail: "no look-ups today".to_owned(),
        });
        assert_eq!(looked.operation, Operation::LookUp, "and no look-up, no sending");
        assert!(
            shop.queue()[0]
                .last_error
                .as_ref()
                .unwrap()
                .contains("no look-ups today")
        );
        shop.pass(60_000);
        assert_eq!(shop.gateway(GatewayAnswer::NotFound).operation, Operation::LookUp);
        let sent = shop.forwards.remove(0);
        assert_eq!(
            (sent.operation, sent.payment_id),
            (Operation::AuthoriseDeferred, payment_id(1)),
            "in the same turn"
        );
        // Just sent, so the gateway knows the key again.
        shop.answer(sent.attempt, no_answer());
        shop.pass(60_000);
        assert_eq!(shop.gateway(approved()).operation, Operation::AuthoriseDeferred);
        assert_eq!(shop.state_of(1), PaymentState::Settled);
    }
}

#[test]
fn failure_2_what_the_look_up_finds_settles_the_payment() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    // It may have left, and nobody knows.
    shop.go_online();
    shop.go_offline();
    shop.crash();
    shop.pass(24 * HOUR_MS);
    shop.go_online();
    assert_eq!(shop.gateway(approved()).operation, Operation::LookUp);
    assert_eq!(shop.state_of(1), PaymentState::Settled);
    assert!(shop.forwards.is_empty(), "nothing is sent");
}

#[test]
fn failure_2_what_was_certainly_never_sent_needs_no_look_up_however_old_it_is() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pass(40 * 24 * HOUR_MS);
    shop.go_online();
    assert_eq!(shop.gateway(approved()).operation, Operation::AuthoriseDeferred);
}

#[test]
fn failure_2_a_not_found_that_could_not_be_used_at_once_is_asked_again() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    // It may have left, and nobody knows.
    shop.go_online();
    shop.go_offline();
    shop.crash();
    shop.pass(24 * HOUR_MS);
    shop.go_online();
    shop.gateway(GatewayAnswer::NotFound);
    let sent = shop.forwards.remove(0);
    shop.answer(
        sent.attempt,
        GatewayAnswer::Throttled {
            retry_after_ms: Some(HOUR_MS),
        },
    );
    shop.pass(24 * HOUR_MS);
    assert_eq!(shop.forwards.remove(0).operation, Operation::LookUp);
}

#[test]
fn failure_2_a_clock_in_doubt_proves_no_age() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    shop.now.wall_ms -= 48 * HOUR_MS;
    shop.go_online();
    // The clock shows no more than seconds since the decision.
    shop.gateway(no_answer());
    shop.pass(60_000);
    assert_eq!(shop.gateway(approved()).operation, Operation::LookUp);
}

/// A wall clock that ran ahead, by less than makes it suspect, until the
/// gateway told the time: what was written meanwhile seems to be younger.
#[test]
fn failure_2_a_clock_that_was_set_back_makes_no_payment_younger() {
    for restart in [false, true] {
        let mut shop = Shop::online();
        let gateway_time = |shop: &mut Shop, ahead_ms: u64| {
            shop.input(Input::Probe(Probe {
                ok: true,
                latency_ms: 20,
                gateway_time_ms: Some(shop.now.wall_ms - ahead_ms),
            }));
        };
        gateway_time(&mut shop, 0);
        shop.now.wall_ms += 10 * HOUR_MS;
        shop.send(MPOS, &request(1, 2_000, "card"));
        shop.gateway(no_answer());
        gateway_time(&mut shop, 10 * HOUR_MS);
        shop.go_offline();
        while !shop.forwards.is_empty() {
            shop.gateway(no_answer());
        }
        if restart {
            // Somebody has set the wall clock meanwhile.
            shop.now.wall_ms -= 10 * HOUR_MS;
            shop.crash();
        }
        shop.pass(23 * HOUR_MS);
        shop.come_back();
        assert_eq!(
            shop.gateway(approved()).operation,
            Operation::LookUp,
            "restart {restart}"
        );
    }
}

/// The box was without power for days, and its clock with it.
#[test]
fn failure_2_a_clock_that_stood_still_proves_no_age() {
    for at_the_counter in [false, true] {
        let mut shop = Shop::empty_with(|settings| settings.gateway_tells_time = true);
        shop.enrol(MPOS, DeviceClass::Mpos);
        shop.install(support::POLICY).unwrap();
        shop.go_online();
        shop.send(MPOS, &request(1, 2_000, "card"));
        if !at_the_counter {
            shop.gateway(no_answer());
            shop.forwards.clear();
        }
        shop.crash();
        if at_the_counter {
            shop.go_online();
            shop.send(MPOS, &request(1, 2_000, "card"));
        } else {
            shop.come_back();
        }
        let asked = shop.forwards.remove(0);
        assert_eq!(asked.operation, Operation::LookUp, "counter {at_the_counter}");
    }
    // Once the gateway has told the time, the age is known.
    let mut shop = Shop::empty_with(|settings| settings.gateway_tells_time = true);
    shop.enrol(MPOS, DeviceClass::Mpos);
    shop.install(support::POLICY).unwrap();
    shop.go_online();
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.gateway(no_answer());
    shop.go_offline();
    shop.forwards.clear();
    shop.crash();
    shop.input(Input::Probe(Probe {
        ok: true,
        latency_ms: 20,
        gateway_time_ms: Some(shop.now.wall_ms),
    }));
    shop.come_back();
    assert_eq!(shop.forwards.remove(0).operation, Operation::AuthoriseDeferred);
}

#[test]
fn failure_2_a_payment_resumed_at_the_counter_after_a_long_stop_is_looked_up_first() {
    let mut shop = Shop::online();
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    shop.now.wall_ms += 23 * HOUR_MS;
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    assert_eq!(shop.gateway(GatewayAnswer::NotFound).operation, Operation::LookUp);
    let asked = shop.gateway(approved());
    assert_eq!(asked.operation, Operation::AuthoriseOnline);
    assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOnline);
}

/// Elsewhere, an upgrade's failed migration dropped every stored payment.
/// Whole, with a store that an earlier version wrote:
/// failure_3_a_migration_that_would_drop_a_payment_fails_and_leaves_the_store;
/// with eight kinds of damage to the index:
/// `rule_2_a_lost_or_damaged_index_costs_a_rebuild_and_no_payment`.
#[test]
fn failure_3_a_failed_migration_drops_what_was_stored() {
    let mut shop = Shop::offline();
    let asked: Vec<_> = (1..=3).map(|number| request(number, 500, "card")).collect();
    let receipts: Vec<_> = asked.iter().map(|asked| shop.pay(MPOS, asked)).collect();

    // What a program cannot read of the index it refuses, record by record,
    // instead of going on without it.
    let mut kinds = BTreeSet::new();
    for (key, value) in shop.core.state_mut().take_dirty() {
        let Some(value) = value else { continue };
        let read = |value: &[u8]| match key[0] {
            b'p' => cbor::decode::<PaymentRecord>(value).is_ok(),
            b'c' => cbor::decode::<CardRecord>(value).is_ok(),
            b'q' | b'x' => <[u8; 16]>::try_from(value).is_ok(),
            _ => State::default().restore(&key, value).is_ok(),
        };
        assert!(read(&value), "{key:x?}");
        assert!(!read(b"in another format"), "{key:x?}");
        assert!(!read(&value[..value.len() - 1]), "{key:x?}");
        kinds.insert(key[0]);
    }
    assert!(kinds.is_superset(&BTreeSet::from(*b"dps")), "{kinds:x?}");

    // What it cannot read of the journal, too: whichever entry is left out,
    // folding does not go on behind it.
    for left_out in 0..shop.disk.len() - 1 {
        let mut state = State::default();
        let mut entries = shop.disk.iter().enumerate().filter(|(at, _)| *at != left_out);
        let folded = entries.try_for_each(|(_, payload)| {
            let entry: Entry = cbor::decode(payload).unwrap();
            state.apply(&entry, Entry::digest(payload))
        });
        assert!(folded.is_err(), "without entry {}", left_out + 1);
        assert_eq!(state.head().sequence, left_out as u64);
    }

    // The journal alone brings everything back.
    shop.crash();
    assert_eq!(shop.queue().len(), 3);
    assert_eq!(shop.core.state().store().subject.exposure_minor, 1_500);
    for (asked, first) in asked.iter().zip(receipts) {
        assert_eq!(shop.pay(MPOS, asked), first);
    }
}

#[test]
fn failure_4_the_queue_dies_with_the_device() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 500, "card"));
    assert_eq!(shop.operate(OperatorCommand::Block(MPOS)), OperatorReply::Done);
    shop.crash();
    shop.go_online();
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
    assert_eq!(shop.state_of(1), PaymentState::Settled);
}

#[test]
fn failure_5_approved_on_the_screen_and_in_no_record() {
    let mut shop = Shop::offline();
    shop.flush_at_once = false;
    let ticket = shop.send(MPOS, &request(1, 500, "card"));
    assert!(shop.replies.is_empty(), "nothing is shown that is not on disk");
    shop.crash();
    assert!(shop.core.state().payment(&payment_id(1)).is_none());
    let again = shop.send(MPOS, &request(1, 500, "card"));
    shop.flush();
    assert!(!shop.replies.contains_key(&ticket));
    let receipt = shop.receipt(again);
    let entry: hub_protocol::Entry =
        hub_protocol::cbor::decode(&shop.disk[usize::try_from(receipt.sequence).unwrap() - 1]).unwrap();
    assert_eq!(
        entry.event.payment_id(),
        Some(payment_id(1)),
        "the receipt names its record"
    );
}

#[test]
fn failure_6_a_silent_switch_to_offline() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 500, "card"));
    shop.gateway(approved());
    let online = shop.receipt(ticket);
    assert_eq!(
        (online.decision, online.submission),
        (Decision::ApprovedOnline, Some(Submission::Online))
    );
    let ticket = shop.send(MPOS, &request(2, 500, "card"));
    shop.gateway(no_answer());
    let offline = shop.receipt(ticket);
    assert_eq!(
        (offline.decision, offline.submission),
        (Decision::ApprovedOffline, Some(Submission::Deferred))
    );
}

#[test]
fn failure_7_stuck_forwarding_without_age_error_or_a_way_to_push() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 500, "card"));
    shop.go_online();
    shop.gateway(no_answer());
    shop.go_offline();
    shop.pass(HOUR_MS);
    let item = shop.queue().remove(0);
    assert_eq!(item.last_error.as_deref(), Some("no answer: timed out"));
    assert_eq!((item.attempts, item.decided_ms), (1, support::NOON_MS));
    let OperatorReply::Overview(overview) = shop.operate(OperatorCommand::Overview) else {
        unreachable!("an overview was asked for")
    };
    assert_eq!(overview.oldest_unsent_seconds, Some(3_600));
    assert!(shop.forwards.is_empty());
    shop.operate(OperatorCommand::Drain);
    shop.gateway(GatewayAnswer::Conflict {
        detail: "other content".to_owned(),
    });
    let item = shop.queue().remove(0);
    assert!(item.parked.is_some());
    assert_eq!(item.last_error.as_deref(), Some("other content"));
    shop.operate(OperatorCommand::Release {
        payment_id: payment_id(1),
        not_there: false,
    });
    shop.operate(OperatorCommand::Drain);
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
}

#[test]
fn failure_8_a_cold_start_while_offline_needs_something_from_the_network() {
    let mut shop = Shop::offline();
    shop.crash();
    let receipt = shop.pay(MPOS, &request(1, 500, "card"));
    assert_eq!(receipt.decision, Decision::ApprovedOffline);
}

#[test]
fn failure_9_ten_devices_have_ten_times_the_ceiling() {
    let mut shop = Shop::offline();
    let mut taken = 0;
    for device in 0..10 {
        let device = DeviceId([100 + device; 32]);
        shop.enrol(device, DeviceClass::Terminal);
        for number in 0..60 {
            let number = u64::from(device.0[0]) * 100 + number;
            let receipt = shop.pay(device, &request(number, 10_000, &format!("card {number}")));
            taken += if receipt.decision.approved() { 10_000 } else { 0 };
        }
    }
    assert_eq!(taken, 300_000, "the store's ceiling, once");
    let receipt = shop.pay(MPOS, &request(1, 1, "one more"));
    assert_eq!(receipt.reason, Reason::StoreCeiling);
}

#[test]
fn failure_10_a_poisoned_head_blocks_all_and_the_old_are_dropped() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 500, "poisoned"));
    shop.pay(SOFTPOS, &request(2, 500, "good"));
    shop.go_online();
    let broken = |detail: &str| GatewayAnswer::Broken {
        retry_after_ms: None,
        detail: detail.to_owned(),
    };
    for forward in core::mem::take(&mut shop.forwards) {
        let good = forward.payment_id == payment_id(2);
        shop.answer(forward.attempt, if good { approved() } else { broken("500") });
    }
    assert_eq!(
        shop.state_of(2),
        PaymentState::Settled,
        "its neighbour is through"
    );
    for other in 0..u64::from(MOST_FAILURES_ALONE) {
        let ticket = shop.send(SOFTPOS, &request(100 + other, 100, "live"));
        let live = shop.forwards.pop().unwrap();
        shop.answer(live.attempt, approved());
        shop.receipt(ticket);
        shop.pass(60_000);
        shop.gateway(broken("500"));
    }
    assert_eq!(shop.state_of(1), PaymentState::Parked);
    shop.pass(365 * 24 * HOUR_MS);
    shop.crash();
    assert_eq!(shop.queue().len(), 1, "parked, never dropped, after a year");
    assert_eq!(shop.core.state().store().subject.exposure_minor, 500);
}

/// Poisoned in another way: it is neither taken nor refused. More of it in
/// `rule_2_what_the_gateway_never_decides_is_parked_and_holds_up_nobody_any_longer`.
#[test]
fn failure_10_a_head_that_is_never_decided_blocks_its_card_and_its_device() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 500, "card"));
    shop.pay(MPOS, &request(2, 500, "behind it at its device"));
    shop.pay(SOFTPOS, &request(3, 500, "card"));
    shop.go_online();
    for _ in 0..300 {
        assert_eq!(shop.forwards.len(), 1, "order is kept meanwhile");
        if shop.forwards[0].payment_id != payment_id(1) {
            break;
        }
        shop.gateway(GatewayAnswer::Pending { retry_after_ms: None });
        if shop.state_of(1) == PaymentState::Parked {
            break;
        }
        shop.pass(60_000);
    }
    assert_eq!(shop.state_of(1), PaymentState::Parked);
    shop.gateway(approved());
    shop.gateway(approved());
    assert_eq!(shop.state_of(2), PaymentState::Settled);
    assert_eq!(shop.state_of(3), PaymentState::Settled);
    assert_eq!(
        shop.core.state().store().subject.exposure_minor,
        500,
        "never dropped"
    );
    shop.operate(OperatorCommand::Release {
        payment_id: payment_id(1),
        not_there: false,
    });
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
    assert_eq!(
        shop.state_of(1),
        PaymentState::Settled,
        "charged once, under its id"
    );
}

/// With a thousand shops:
/// `a_thousand_shops_do_not_return_at_once_if_a_window_is_given`.
#[test]
fn failure_11_all_shops_return_at_the_same_moment() {
    let begins = |seed| {
        let mut shop = Shop::offline_with(POLICY, |settings| settings.seed = seed);
        shop.pay(MPOS, &request(1, 500, "card"));
        shop.input(Input::SpreadAsked { window_ms: 60_000 });
        shop.go_online();
        shop.core.next_wake_ms().unwrap() - shop.now.monotonic_ms
    };
    assert_ne!(begins(1), begins(2));
    assert_eq!(begins(1), begins(1), "a seed, so that a run can be repeated");
}

/// That order id and original time are sent:
/// `what_is_sent_says_which_order_it_is_and_when_it_was`.
#[test]
fn failure_12_a_fast_drain_looks_like_duplicates() {
    let policy = POLICY.replace("same_card_gap_s = 0", "same_card_gap_s = 300");
    let mut shop = Shop::offline_under(&policy);
    shop.enrol(STRANGER, DeviceClass::Terminal);
    for (number, device) in [(1, MPOS), (2, SOFTPOS), (3, STRANGER)] {
        shop.pay(device, &request(number, 500, "same card, same amount"));
    }
    shop.pass(HOUR_MS);
    shop.go_online();
    let mut sent_at = Vec::new();
    for _ in 0..3 {
        assert_eq!(shop.forwards.len(), 1);
        sent_at.push(shop.now.monotonic_ms);
        let forward = shop.gateway(approved());
        assert_eq!(forward.decided_ms, support::NOON_MS, "the original time");
        shop.pass(300_000);
    }
    let gaps: Vec<_> = sent_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [300_000, 300_000]);
}
