//! Replay, step by step: the queue, its order, its retries, what it parks.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, MOST_FAILURES_ALONE, Operation, OperatorCommand, OperatorReply};
use hub_protocol::entry::WanState;
use hub_protocol::{Decision, DeviceClass, PaymentState, Reason};
use support::{MPOS, POLICY, SOFTPOS, STRANGER, Shop, approved, declined, no_answer, payment_id, request};

#[test]
fn a_resumed_payment_that_ends_in_no_is_reversed_whatever_the_second_attempt_says() {
    let mut shop = Shop::online();
    shop.send(MPOS, &request(1, 10_001, "card"));
    shop.crash();
    let ticket = shop.send(MPOS, &request(1, 10_001, "card"));
    shop.gateway(GatewayAnswer::Throttled { retry_after_ms: None });
    assert_eq!(shop.receipt(ticket).reason, Reason::TransactionCeiling);
    assert_eq!(
        shop.core.state().payment(&payment_id(1)).unwrap().state,
        PaymentState::ReversalQueued
    );
}

#[test]
fn consecutive_counts_reset_when_the_subjects_payments_are_settled_online() {
    let mut shop = Shop::offline();
    for number in 1..=5 {
        assert!(shop.pay(MPOS, &request(number, 100, "card")).decision.approved());
    }
    assert_eq!(
        shop.pay(MPOS, &request(6, 100, "card")).reason,
        Reason::CardConsecutiveLimit
    );
    shop.go_online();
    for settled in 1..=5 {
        let forward = shop.gateway(approved());
        assert_eq!(forward.payment_id, payment_id(settled), "in order");
    }
    assert_eq!(
        shop.core.state().store().subject,
        hub_core::state::Subject::default()
    );
    shop.go_offline();
    assert!(shop.pay(MPOS, &request(7, 100, "card")).decision.approved());
}

#[test]
fn a_decline_at_replay_frees_the_exposure_and_leaves_the_count() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(declined());
    let subject = shop.core.state().store().subject;
    assert_eq!((subject.exposure_minor, subject.consecutive), (0, 1));
    let status = shop.pushed.last().unwrap();
    assert_eq!(status.state, PaymentState::SettledDeclined);
}

#[test]
fn a_parked_payment_counts_as_exposure_and_does_not_hold_the_consecutive_count() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 3_000, "other"));
    shop.go_online();
    shop.gateway(GatewayAnswer::CardMissing);
    shop.gateway(approved());
    let store = shop.core.state().store().subject;
    assert_eq!((store.exposure_minor, store.consecutive), (2_000, 0));
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(ticket).state, PaymentState::ReversalQueued);
    shop.gateway(approved());
    assert_eq!(
        shop.core.state().store().subject,
        hub_core::state::Subject::default()
    );
}

#[test]
fn order_is_kept_per_card_and_per_device_and_one_stuck_card_holds_up_nobody_else() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 100, "stuck"));
    shop.pay(SOFTPOS, &request(2, 100, "stuck"));
    shop.pay(SOFTPOS, &request(3, 100, "free"));
    shop.enrol(STRANGER, DeviceClass::Terminal);
    shop.pay(STRANGER, &request(4, 100, "else"));
    shop.go_online();
    let sent: Vec<_> = shop.forwards.iter().map(|forward| forward.payment_id).collect();
    assert_eq!(
        sent,
        [payment_id(1), payment_id(4)],
        "2 waits for its card, 3 for its device"
    );
    shop.gateway(no_answer());
    shop.gateway(approved());
    shop.pass(60_000);
    assert_eq!(
        shop.forwards.iter().map(|f| f.payment_id).collect::<Vec<_>>(),
        [payment_id(1)]
    );
    shop.gateway(approved());
    shop.gateway(approved());
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(3));
}

#[test]
fn what_cannot_be_sent_is_parked_and_can_be_put_back() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 2_000, "card"));
    shop.go_online();
    shop.gateway(GatewayAnswer::Conflict {
        detail: "other content".to_owned(),
    });
    assert_eq!(
        shop.gateway(approved()).payment_id,
        payment_id(2),
        "a parked one blocks nobody"
    );
    assert_eq!(
        shop.core.state().store().subject.exposure_minor,
        2_000,
        "and still counts"
    );
    shop.crash();
    let OperatorReply::Queue {
        items,
        total,
        parked: 1,
    } = shop.operate(OperatorCommand::Queue {
        limit: 10,
        parked_only: false,
    })
    else {
        unreachable!("a queue was asked for")
    };
    assert_eq!((items.len(), total), (1, 1));
    assert!(items[0].parked.is_some());
    assert_eq!(
        shop.operate(OperatorCommand::Release {
            payment_id: payment_id(1),
            not_there: false
        }),
        OperatorReply::Done
    );
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
    assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
}

/// One attempt at the oldest item of the queue, however long it backs off.
#[test]
fn rule_10_after_its_look_up_a_payment_waits_for_one_that_was_released_before_it() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 2_000, "card"));
    shop.go_online();
    let refused = GatewayAnswer::RefusesMessage {
        detail: "no".to_owned(),
    };
    assert_eq!(shop.gateway(refused).payment_id, payment_id(1));
    assert_eq!(shop.state_of(1), PaymentState::Parked);
    assert_eq!(shop.gateway(no_answer()).payment_id, payment_id(2));
    // Longer than the gateway remembers.
    shop.go_offline();
    shop.pass(24 * 60 * 60 * 1000);
    shop.come_back();
    let look_up = shop.forwards.remove(0);
    assert_eq!(
        (look_up.operation, look_up.payment_id),
        (Operation::LookUp, payment_id(2))
    );
    shop.operate(OperatorCommand::Release {
        payment_id: payment_id(1),
        not_there: false,
    });
    shop.answer(look_up.attempt, GatewayAnswer::NotFound);
    let under_way: Vec<_> = shop.forwards.iter().map(|forward| forward.payment_id).collect();
    assert_eq!(under_way, [payment_id(1)]);
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(2));
}

fn attempt(shop: &mut Shop, answer: GatewayAnswer) {
    shop.pass(60_000);
    shop.gateway(answer);
}

fn broken() -> GatewayAnswer {
    GatewayAnswer::Broken {
        retry_after_ms: None,
        detail: "500".to_owned(),
    }
}

#[test]
fn a_payment_that_fails_every_time_while_others_are_answered_is_parked_in_the_end() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for other in 0..u64::from(MOST_FAILURES_ALONE) {
        attempt(&mut shop, broken());
        let ticket = shop.send(SOFTPOS, &request(100 + other, 100, "other"));
        let live = shop.forwards.pop().unwrap();
        shop.answer(live.attempt, approved());
        assert!(shop.receipt(ticket).decision.approved());
    }
    attempt(&mut shop, broken());
    assert_eq!(
        shop.core.state().payment(&payment_id(1)).unwrap().state,
        PaymentState::Parked
    );
}

#[test]
fn a_gateway_that_is_out_of_order_for_all_parks_nobody() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for _ in 0..3 * MOST_FAILURES_ALONE {
        attempt(&mut shop, broken());
        attempt(&mut shop, no_answer());
    }
    assert_eq!(
        shop.core.state().payment(&payment_id(1)).unwrap().state,
        PaymentState::Queued
    );
}

#[test]
fn retry_after_is_obeyed() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(SOFTPOS, &request(2, 2_000, "other"));
    shop.go_online();
    shop.gateway(GatewayAnswer::Throttled {
        retry_after_ms: Some(30_000),
    });
    shop.gateway(GatewayAnswer::Throttled {
        retry_after_ms: Some(30_000),
    });
    shop.pass(29_999);
    assert!(shop.forwards.is_empty());
    shop.pass(2_000);
    assert_eq!(shop.forwards.len(), 2);
}

#[test]
fn retry_after_is_obeyed_too_when_a_sale_at_the_counter_gets_it() {
    let answers = [
        GatewayAnswer::Throttled {
            retry_after_ms: Some(30_000),
        },
        GatewayAnswer::Broken {
            retry_after_ms: Some(30_000),
            detail: String::new(),
        },
        GatewayAnswer::Pending {
            retry_after_ms: Some(30_000),
        },
    ];
    for answer in answers {
        let mut shop = Shop::online();
        let ticket = shop.send(MPOS, &request(1, 1_000, "card"));
        shop.gateway(answer.clone());
        assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOffline);
        shop.come_back();
        shop.pass(29_000);
        assert!(shop.forwards.is_empty(), "{answer:?}: {:?}", shop.forwards);
        // The pause, and a backoff behind it.
        shop.pass(31_000);
        assert_eq!(shop.forwards.len(), 1, "{answer:?}");
    }
}

#[test]
fn retry_after_is_obeyed_too_when_it_comes_for_a_payment_outside_of_the_window() {
    let mut shop = Shop::offline_with(POLICY, |settings| settings.queue_window = 1);
    for number in 1..=3 {
        shop.pay(MPOS, &request(number, 1_000, &format!("card {number}")));
    }
    shop.go_online();
    shop.gateway(no_answer());
    let ticket = shop.send(MPOS, &request(4, 1_000, "card 4"));
    let asked = shop.forwards.pop().unwrap();
    assert_eq!(asked.operation, Operation::AuthoriseOnline);
    shop.pass(3_000);
    assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOffline);
    shop.forwards.clear();
    shop.answer(
        asked.attempt,
        GatewayAnswer::Throttled {
            retry_after_ms: Some(60_000),
        },
    );
    shop.pass(59_000);
    assert!(shop.forwards.is_empty(), "{:?}", shop.forwards);
}

#[test]
fn retry_after_of_a_broken_gateway_outlives_good_probes() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(GatewayAnswer::Broken {
        retry_after_ms: Some(30_000),
        detail: "503".to_owned(),
    });
    for _ in 0..29 {
        shop.pass(1_000);
        shop.probe(true);
    }
    assert_eq!(shop.core.state().store().wan, WanState::Online);
    assert!(shop.forwards.is_empty(), "the gateway said when");
    shop.pass(2_000);
    assert_eq!(shop.forwards.len(), 1);
}

#[test]
fn failures_of_the_backlog_do_not_send_live_sales_offline() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    for _ in 0..10 {
        attempt(&mut shop, no_answer());
    }
    assert_eq!(
        shop.core.state().store().wan,
        WanState::Degraded,
        "it is still asked"
    );
}

#[test]
fn rule_8_replay_leaves_room_while_a_customer_waits() {
    let mut shop = Shop::offline();
    for number in 0..20 {
        let device = hub_protocol::DeviceId([100 + u8::try_from(number).unwrap(); 32]);
        shop.enrol(device, DeviceClass::Mpos);
        shop.pay(device, &request(number, 100, &format!("card {number}")));
    }
    shop.probe(true);
    shop.probe(true);
    assert_eq!(shop.forwards.len(), 8, "the whole room while nobody waits");
    shop.send(MPOS, &request(50, 100, "live"));
    let live = shop.forwards.pop().unwrap();
    assert_eq!(live.operation, Operation::AuthoriseOnline);
    for _ in 0..4 {
        shop.gateway(approved());
    }
    assert_eq!(shop.forwards.len(), 4, "no more are sent while somebody waits");
    shop.answer(live.attempt, approved());
    assert_eq!(shop.forwards.len(), 8);
}

#[test]
fn drain_tries_now_even_while_the_gateway_is_thought_to_be_gone() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 100, "card"));
    assert!(shop.forwards.is_empty());
    assert_eq!(shop.operate(OperatorCommand::Drain), OperatorReply::Done);
    assert_eq!(shop.forwards.len(), 1);
    shop.gateway(no_answer());
    shop.pass(60_000);
    assert!(shop.forwards.is_empty(), "once");
}
