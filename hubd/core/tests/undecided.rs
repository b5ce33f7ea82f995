//! What the gateway has and does not decide: it is asked again for a bounded
//! time, and then waits for a person instead of holding its lanes.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, LEAST_UNDECIDED_ANSWERS, Operation, OperatorCommand, OperatorReply};
use hub_protocol::PaymentState;
use hub_protocol::entry::ParkReason;
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, declined, no_answer, payment_id, request};

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;

fn pending() -> GatewayAnswer {
    GatewayAnswer::Pending { retry_after_ms: None }
}

fn in_an_hour() -> GatewayAnswer {
    GatewayAnswer::Pending {
        retry_after_ms: Some(HOUR_MS),
    }
}

/// Answers what is asked about the first payment, once a minute at the most,
/// until it is parked. How long that took, and how often it was asked.
fn leave_undecided(shop: &mut Shop) -> (u64, u32) {
    let (began_ms, mut asked) = (shop.now.monotonic_ms, 0);
    while !matches!(
        shop.state_of(1),
        PaymentState::Parked | PaymentState::ReversalParked
    ) {
        assert!(asked < 10_000, "never parked");
        let forward = shop.gateway(pending());
        assert_eq!(forward.payment_id, payment_id(1));
        asked += 1;
        if shop.forwards.is_empty() {
            shop.pass(MINUTE_MS);
        }
    }
    (shop.now.monotonic_ms - began_ms, asked)
}

fn release(shop: &mut Shop) {
    let reply = shop.operate(OperatorCommand::Release {
        payment_id: payment_id(1),
        not_there: false,
    });
    assert_eq!(reply, OperatorReply::Done);
}

fn exposure(shop: &Shop) -> u64 {
    shop.core.state().store().subject.exposure_minor
}

#[test]
fn rule_2_what_the_gateway_never_decides_is_parked_and_holds_up_nobody_any_longer() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 100, "of its device"));
    shop.pay(SOFTPOS, &request(3, 300, "card"));
    shop.go_online();
    let (took_ms, _) = leave_undecided(&mut shop);
    assert!(
        (4 * HOUR_MS..4 * HOUR_MS + 2 * MINUTE_MS).contains(&took_ms),
        "{took_ms}"
    );
    for _ in 0..2 {
        let next = shop.gateway(approved()).payment_id;
        assert_ne!(next, payment_id(1), "its lanes go on");
    }
    assert_eq!(shop.state_of(2), PaymentState::Settled);
    assert_eq!(shop.state_of(3), PaymentState::Settled);
    assert_eq!(exposure(&shop), 2_000, "it still counts");
    assert!(!shop.erased.contains(&payment_id(1)), "and has its card");
    shop.pass(30 * 24 * HOUR_MS);
    assert!(shop.forwards.is_empty(), "nobody asks by himself");
    shop.crash();
    let item = shop.queue().remove(0);
    assert_eq!(item.parked, Some(ParkReason::GatewayUndecided), "parked for good");
}

#[test]
fn whoever_looks_at_an_undecided_payment_is_told_what_to_do() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    leave_undecided(&mut shop);
    let error = shop.queue().remove(0).last_error.unwrap();
    assert!(
        error.contains("for 4 h") && error.contains("ask the gateway"),
        "{error}"
    );
    assert!(error.contains("released"), "{error}");
    assert_eq!(shop.pushed.last().unwrap().state, PaymentState::Parked);
}

#[test]
fn rule_3_a_released_one_is_asked_for_under_its_id_and_then_final() {
    for answer in [approved(), declined()] {
        let mut shop = Shop::offline();
        shop.pay(MPOS, &request(1, 2_000, "card"));
        shop.go_online();
        leave_undecided(&mut shop);
        release(&mut shop);
        let (took_ms, _) = leave_undecided(&mut shop);
        assert!(took_ms >= 4 * HOUR_MS, "a new bound: {took_ms}");
        release(&mut shop);
        let last = shop.gateway(answer);
        assert_eq!(
            (last.payment_id, last.operation),
            (payment_id(1), Operation::AuthoriseDeferred)
        );
        assert!(shop.core.state().payment(&payment_id(1)).unwrap().is_final());
        assert_eq!(exposure(&shop), 0);
        assert!(shop.erased.contains(&payment_id(1)));
    }
}

#[test]
fn an_undecided_reversal_is_parked_and_can_be_asked_for_again() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 100, "card"));
    shop.go_online();
    shop.gateway(no_answer());
    shop.void(MPOS, payment_id(1));
    shop.pass(MINUTE_MS);
    let (took_ms, _) = leave_undecided(&mut shop);
    assert!(took_ms >= 4 * HOUR_MS, "{took_ms}");
    assert_eq!(shop.state_of(1), PaymentState::ReversalParked);
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(2));
    assert_eq!(exposure(&shop), 2_000);
    release(&mut shop);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    assert_eq!(shop.state_of(1), PaymentState::Reversed);
    assert_eq!(exposure(&shop), 0);
}

#[test]
fn the_reversal_of_an_undecided_payment_has_a_bound_of_its_own() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for _ in 0..200 {
        shop.gateway(pending());
        shop.pass(MINUTE_MS);
    }
    shop.void(MPOS, payment_id(1));
    if shop.forwards[0].operation != Operation::Reverse {
        // The authorisation that was under way.
        shop.gateway(pending());
    }
    let (took_ms, _) = leave_undecided(&mut shop);
    assert!(took_ms >= 4 * HOUR_MS, "{took_ms}");
    assert_eq!(shop.state_of(1), PaymentState::ReversalParked);
}

#[test]
fn a_parked_undecided_payment_that_is_voided_is_reversed() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    leave_undecided(&mut shop);
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(ticket).state, PaymentState::ReversalQueued);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    assert_eq!(exposure(&shop), 0);
}

#[test]
fn neither_an_outage_nor_one_late_answer_is_the_gateways_indecision() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for _ in 0..10 {
        shop.gateway(pending());
        shop.pass(MINUTE_MS);
    }
    shop.gateway(no_answer());
    shop.go_offline();
    shop.pass(48 * HOUR_MS);
    shop.come_back();
    // Past nine tenths of the retention it is looked up; that decides no more.
    assert_eq!(shop.gateway(pending()).operation, Operation::LookUp);
    assert_eq!(shop.state_of(1), PaymentState::Queued);
    shop.pass(MINUTE_MS);
    let (took_ms, _) = leave_undecided(&mut shop);
    assert!(took_ms > 2 * HOUR_MS, "the outage counts little: {took_ms}");
}

#[test]
fn it_takes_some_answers_however_short_the_time() {
    let mut shop = Shop::offline_with(POLICY, |settings| settings.undecided_after_ms = 10 * MINUTE_MS);
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for told in 1..=LEAST_UNDECIDED_ANSWERS {
        assert_eq!(
            shop.state_of(1),
            PaymentState::Queued,
            "after {} answers",
            told - 1
        );
        shop.gateway(in_an_hour());
        shop.pass(2 * HOUR_MS);
    }
    assert_eq!(shop.state_of(1), PaymentState::Parked);
}

#[test]
fn failures_in_between_do_not_begin_the_time_anew() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    let began_ms = shop.now.monotonic_ms;
    for round in 0.. {
        assert!(round < 1_000, "holds its lane for ever");
        if shop.state_of(1) == PaymentState::Parked {
            break;
        }
        let throttled = GatewayAnswer::Throttled { retry_after_ms: None };
        shop.gateway(if round % 2 == 0 { pending() } else { throttled });
        shop.pass(2 * MINUTE_MS);
    }
    assert!(shop.now.monotonic_ms - began_ms < 5 * HOUR_MS);
}

#[test]
fn whoever_has_asked_the_gateway_and_releases_need_not_wait() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for _ in 1..LEAST_UNDECIDED_ANSWERS {
        shop.gateway(in_an_hour());
        shop.pass(61 * MINUTE_MS);
    }
    shop.gateway(in_an_hour());
    assert_eq!(shop.state_of(1), PaymentState::Parked);
    release(&mut shop);
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
}

#[test]
fn a_restart_begins_the_time_anew() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for _ in 0..200 {
        shop.gateway(pending());
        shop.pass(MINUTE_MS);
    }
    shop.crash();
    shop.pass(0);
    let (took_ms, _) = leave_undecided(&mut shop);
    assert!(took_ms >= 4 * HOUR_MS, "{took_ms}");
}
