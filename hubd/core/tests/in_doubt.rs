//! Payments in doubt: whatever was lost on the way, the customer is told one
//! thing, and the gateway is left with the same. `docs/in-doubt.md` draws
//! each case and names its test.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, Operation, OperatorCommand};
use hub_protocol::entry::WanState;
use hub_protocol::{Decision, PaymentState, Reason, RefusalCode};
use support::{MPOS, POLICY, Shop, approved, declined, no_answer, payment_id, request};

#[test]
fn no_answer_online_then_approved_offline_is_one_charge_whatever_the_gateway_had_done() {
    for gateway_says in [approved(), declined()] {
        let mut shop = Shop::online();
        let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
        let online = shop.forwards.remove(0);
        shop.pass(3_000);
        assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOffline);
        shop.answer(online.attempt, no_answer());
        shop.pass(60_000);
        let deferred = shop.gateway(gateway_says.clone());
        assert_eq!(deferred.operation, Operation::AuthoriseDeferred);
        assert_eq!(deferred.payment_id, online.payment_id, "one id, so one charge");
        let settled = match gateway_says {
            GatewayAnswer::Final(result) if result.approved => PaymentState::Settled,
            _ => PaymentState::SettledDeclined,
        };
        assert_eq!(shop.state_of(1), settled);
        assert_eq!(shop.pushed.last().unwrap().state, settled, "the device is told");
    }
}

#[test]
fn no_answer_online_then_declined_offline_is_reversed() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 10_001, "card"));
    let online = shop.forwards.remove(0);
    shop.pass(3_000);
    assert_eq!(shop.receipt(ticket).reason, Reason::TransactionCeiling);
    assert!(
        shop.forwards.is_empty(),
        "the reversal waits for the call under way"
    );
    shop.answer(online.attempt, approved());
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    assert_eq!(shop.state_of(1), PaymentState::Reversed);
}

#[test]
fn a_payment_cancelled_while_it_is_asked_online_is_declined_and_reversed() {
    for late in [approved(), declined(), no_answer()] {
        let mut shop = Shop::online();
        let pays = shop.send(MPOS, &request(1, 2_000, "card"));
        let online = shop.forwards.remove(0);
        let voids = shop.void(MPOS, payment_id(1));
        let receipt = shop.receipt(pays);
        assert_eq!(
            (receipt.decision, receipt.reason),
            (Decision::Declined, Reason::Cancelled)
        );
        assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
        assert!(
            shop.forwards.is_empty(),
            "not before the call under way has ended"
        );
        shop.answer(online.attempt, late);
        let reversal = shop.gateway(approved());
        assert_eq!(
            (reversal.operation, reversal.payment_id),
            (Operation::Reverse, payment_id(1))
        );
        assert_eq!(shop.state_of(1), PaymentState::Reversed);
        assert_eq!(
            shop.pay(MPOS, &request(1, 2_000, "card")),
            receipt,
            "the one answer, for life"
        );
        let again = shop.void(MPOS, payment_id(1));
        assert_eq!(shop.status_of(again).state, PaymentState::Reversed);
    }
}

#[test]
fn rule_1_a_cancelled_payment_is_answered_and_reversed_from_disk_only() {
    let mut shop = Shop::online();
    shop.flush_at_once = false;
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.void(MPOS, payment_id(1));
    assert!(shop.replies.is_empty() && shop.forwards.is_empty());
    shop.flush();
    assert_eq!(shop.replies.len(), 2);
    assert_eq!(
        shop.gateway(approved()).operation,
        Operation::Reverse,
        "nothing is authorised for a customer who has cancelled"
    );
    assert!(shop.forwards.is_empty());
    assert_eq!(shop.state_of(1), PaymentState::Reversed);
}

#[test]
fn a_payment_cancelled_after_the_hub_was_interrupted_is_reversed() {
    let mut shop = Shop::online();
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    let voids = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    shop.pass(120_000);
    assert!(shop.forwards.is_empty(), "and is not abandoned once more");
    assert_eq!(
        shop.pay(MPOS, &request(1, 2_000, "card")).reason,
        Reason::Cancelled
    );
}

#[test]
fn a_payment_voided_while_queued_is_never_sent() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    let voids = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(voids).state, PaymentState::Voided);
    shop.go_online();
    shop.pass(120_000);
    assert!(shop.forwards.is_empty());
}

#[test]
fn a_payment_voided_while_queued_after_a_restart_is_reversed_for_nobody_knows() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.go_offline();
    shop.crash();
    let voids = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
    shop.go_online();
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
}

#[test]
fn a_payment_voided_in_flight_is_reversed_after_the_answer() {
    for answer in [approved(), declined(), no_answer(), GatewayAnswer::NotFound] {
        let mut shop = Shop::offline();
        shop.pay(MPOS, &request(1, 2_000, "card"));
        shop.go_online();
        let authorise = shop.forwards.remove(0);
        let voids = shop.void(MPOS, payment_id(1));
        assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
        assert!(shop.forwards.is_empty());
        shop.answer(authorise.attempt, answer);
        assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
        assert_eq!(shop.state_of(1), PaymentState::Reversed);
        assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
    }
}

#[test]
fn a_payment_voided_after_it_was_settled_is_reversed() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(approved());
    let voids = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    assert_eq!(shop.pushed.last().unwrap().state, PaymentState::Reversed);
}

#[test]
fn a_reversal_goes_on_through_timeouts_restarts_and_days_until_it_is_confirmed() {
    let mut shop = Shop::online();
    shop.send(MPOS, &request(1, 10_001, "card"));
    shop.gateway(no_answer());
    for day in 0..40 {
        let asked = shop.gateway(no_answer());
        assert_eq!(
            (asked.operation, asked.payment_id),
            (Operation::Reverse, payment_id(1))
        );
        if day % 10 == 0 {
            shop.crash();
        } else {
            // A reversal is one by its merchant reference: no look-up, ever.
            shop.pass(24 * 60 * 60 * 1000);
        }
    }
    assert_eq!(shop.state_of(1), PaymentState::ReversalQueued);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    assert_eq!(shop.state_of(1), PaymentState::Reversed);
    shop.pass(120_000);
    assert!(shop.forwards.is_empty());
}

#[test]
fn a_device_that_never_heard_the_receipt_gets_it_after_a_restart_of_the_hub() {
    for answer in [approved(), declined(), no_answer()] {
        let mut shop = Shop::online();
        let unheard = shop.send(MPOS, &request(1, 2_000, "card"));
        shop.gateway(answer);
        let receipt = shop.receipt(unheard);
        shop.crash();
        assert_eq!(shop.pay(MPOS, &request(1, 2_000, "card")), receipt);
        assert_eq!(
            shop.state_of(1) == PaymentState::Queued,
            receipt.decision == Decision::ApprovedOffline
        );
    }
}

#[test]
fn a_device_that_never_heard_the_receipt_of_an_interrupted_payment_gets_one_answer() {
    let mut shop = Shop::online();
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    // The gateway had booked it: the same id gets the first answer again.
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
    let receipt = shop.receipt(ticket);
    assert_eq!(receipt.decision, Decision::ApprovedOnline);
    assert_eq!(shop.pay(MPOS, &request(1, 2_000, "card")), receipt);
}

/// To the hub a device on another network is the same device: it is known by
/// its key. With real networks:
/// `rule_3_a_device_that_changes_networks_in_a_payment_gets_the_one_answer`.
#[test]
fn a_device_that_asks_again_before_the_answer_waits_for_the_same_one() {
    let mut shop = Shop::online();
    let first = shop.send(MPOS, &request(1, 2_000, "card"));
    let from_elsewhere = shop.send(MPOS, &request(1, 2_000, "card"));
    assert_eq!(shop.forwards.len(), 1, "asked once");
    shop.gateway(approved());
    assert_eq!(shop.receipt(first), shop.receipt(from_elsewhere));
}

#[test]
fn a_device_restored_from_a_backup_gets_the_old_answer_or_a_conflict_and_no_second_charge() {
    let mut shop = Shop::offline();
    let receipt = shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(approved());
    // It remembers the payment as never answered, and asks again.
    assert_eq!(shop.pay(MPOS, &request(1, 2_000, "card")), receipt);
    // It makes the same id for another sale.
    let ticket = shop.send(MPOS, &request(1, 700, "another"));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::PaymentIdConflict);
    assert!(shop.forwards.is_empty());
}

#[test]
fn a_hub_restored_from_a_backup_asks_under_the_same_id_and_charges_once() {
    for online in [true, false] {
        let mut shop = Shop::online();
        let before = shop.disk.clone();
        let unheard = shop.send(MPOS, &request(1, 2_000, "card"));
        shop.gateway(approved());
        assert_eq!(shop.receipt(unheard).decision, Decision::ApprovedOnline);
        // The disk is replaced by an older copy that knows nothing of it.
        shop.disk = before;
        shop.crash();
        let ticket = if online {
            let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
            assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
            ticket
        } else {
            shop.go_offline();
            shop.send(MPOS, &request(1, 2_000, "card"))
        };
        assert!(
            shop.receipt(ticket).decision.approved(),
            "as the customer was told"
        );
        if !online {
            shop.come_back();
            let sent = shop.gateway(approved());
            assert_eq!(
                (sent.payment_id, sent.operation),
                (payment_id(1), Operation::AuthoriseDeferred)
            );
        }
        assert_eq!(shop.state_of(1), PaymentState::Settled);
        assert_eq!(shop.core.state().store().wan, WanState::Online);
    }
}

/// More are parked than the hub keeps in memory: what it knows of each is in
/// the ledger.
#[test]
fn rule_3_a_parked_payment_was_sent_however_many_are_parked() {
    const PARKED: u64 = 1_005;
    let policy = POLICY
        .replace("consecutive_limit = 300", "consecutive_limit = 10000")
        .replace("consecutive_limit = 60", "consecutive_limit = 10000");
    let refuses = || GatewayAnswer::RefusesMessage {
        detail: "400".to_owned(),
    };
    let mut shop = Shop::offline_under(&policy);
    for number in 1..=PARKED {
        let paid = shop.pay(MPOS, &request(number, 1, &format!("card {number}")));
        assert!(paid.decision.approved(), "{number}: {}", paid.reason);
    }
    shop.go_online();
    while !shop.forwards.is_empty() {
        shop.gateway(refuses());
    }
    assert_eq!(shop.core.state().store().queue.parked, PARKED);
    shop.go_offline();
    for number in [1, PARKED] {
        let id = payment_id(number);
        shop.operate(OperatorCommand::Release {
            payment_id: id,
            not_there: false,
        });
        shop.void(MPOS, id);
        assert_eq!(shop.state_of(number), PaymentState::ReversalQueued, "{number}");
    }
}

/// The hub itself cannot make a message of it: a person must look, and the
/// gateway has answered nothing.
#[test]
fn what_cannot_be_sent_is_parked_at_once_and_is_no_answer() {
    let mut shop = Shop::offline();
    for number in 1..=2 {
        shop.pay(MPOS, &request(number, 2_000, &format!("card {number}")));
    }
    shop.go_online();
    let detail = "no message for it".to_owned();
    shop.gateway(GatewayAnswer::Unsendable { detail });
    assert_eq!(shop.state_of(1), PaymentState::Parked);
    // The next is not held up, and is the first that the gateway answers.
    shop.gateway(approved());
    assert_eq!(shop.state_of(2), PaymentState::Settled);
    let mut shop = Shop::online();
    for number in 1..=3 {
        shop.send(MPOS, &request(number, 2_000, &format!("card {number}")));
        let detail = "no message for it".to_owned();
        shop.gateway(if number == 2 {
            GatewayAnswer::Unsendable { detail }
        } else {
            no_answer()
        });
    }
    shop.send(MPOS, &request(4, 2_000, "card 4"));
    shop.gateway(no_answer());
    assert_eq!(
        shop.core.state().store().wan,
        WanState::Offline,
        "three failures in a row, whatever was not asked between them"
    );
}
