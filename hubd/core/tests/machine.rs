//! The machine's behaviour, step by step, with a disk and a gateway played
//! by the test.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, Input, Operation, OperatorCommand, OperatorReply, Probe};
use hub_protocol::entry::WanState;
use hub_protocol::{Cryptogram, Decision, DeviceClass, PaymentState, Reason, RefusalCode, Submission};
use support::{MPOS, SOFTPOS, STRANGER, Shop, approved, declined, no_answer, payment_id, request};

#[test]
fn rule_1_no_reply_leaves_before_its_entry_is_flushed() {
    let mut shop = Shop::offline();
    shop.flush_at_once = false;
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    assert!(
        shop.replies.is_empty(),
        "nothing is answered on the strength of memory"
    );
    let again = shop.send(MPOS, &request(1, 2_000, "card"));
    assert!(shop.replies.is_empty(), "nor is a repetition");
    shop.flush();
    let receipt = shop.receipt(ticket);
    assert_eq!(receipt.decision, Decision::ApprovedOffline);
    assert_eq!(shop.receipt(again), receipt);
}

#[test]
fn rule_1_nothing_goes_to_the_gateway_before_its_entry_is_flushed() {
    let mut shop = Shop::online();
    shop.flush_at_once = false;
    shop.send(MPOS, &request(1, 2_000, "card"));
    let mut chip = request(2, 2_000, "other card");
    chip.cryptogram = Cryptogram::CardApproved;
    shop.send(SOFTPOS, &chip);
    assert!(shop.forwards.is_empty());
    shop.flush();
    let operations: Vec<_> = shop.forwards.iter().map(|forward| forward.operation).collect();
    assert_eq!(operations, [Operation::AuthoriseOnline, Operation::Advice]);
}

#[test]
fn rule_3_the_same_bytes_get_the_same_receipt_and_others_a_conflict() {
    let mut shop = Shop::offline();
    let first = shop.pay(MPOS, &request(1, 2_000, "card"));
    assert_eq!(shop.pay(MPOS, &request(1, 2_000, "card")), first);
    let other_amount = shop.send(MPOS, &request(1, 2_001, "card"));
    assert_eq!(shop.refusal(other_amount).code, RefusalCode::PaymentIdConflict);
    let other_device = shop.send(SOFTPOS, &request(1, 2_000, "card"));
    assert_eq!(shop.refusal(other_device).code, RefusalCode::PaymentIdConflict);
    assert_eq!(shop.core.state().store().subject.exposure_minor, 2_000);
    shop.crash();
    assert_eq!(
        shop.pay(MPOS, &request(1, 2_000, "card")),
        first,
        "a restart changes nothing"
    );
}

#[test]
fn online_payments_are_decided_by_the_gateway() {
    let mut shop = Shop::online();
    let yes = shop.send(MPOS, &request(1, 2_000, "card"));
    shop.gateway(approved());
    let receipt = shop.receipt(yes);
    assert_eq!(
        (receipt.decision, receipt.submission),
        (Decision::ApprovedOnline, Some(Submission::Online))
    );
    assert_eq!(
        receipt.gateway.unwrap().authorisation_code.as_deref(),
        Some("A12345")
    );
    let no = shop.send(MPOS, &request(2, 2_000, "card"));
    shop.gateway(declined());
    let receipt = shop.receipt(no);
    assert_eq!(
        (receipt.decision, receipt.reason),
        (Decision::Declined, Reason::GatewayDeclined)
    );
    assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
    assert!(
        shop.erased.contains(&payment_id(1)) && shop.erased.contains(&payment_id(2)),
        "rule 6"
    );
}

#[test]
fn no_answer_in_time_is_decided_offline_under_the_same_id() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    let online = shop.forwards.remove(0);
    shop.pass(2_999);
    assert!(shop.replies.is_empty());
    shop.pass(1);
    let receipt = shop.receipt(ticket);
    assert_eq!(receipt.decision, Decision::ApprovedOffline);
    assert!(shop.forwards.is_empty(), "the attempt under way is not doubled");
    shop.answer(online.attempt, no_answer());
    shop.pass(60_000);
    let replayed = shop.forwards.remove(0);
    assert_eq!(
        (replayed.payment_id, replayed.operation),
        (payment_id(1), Operation::AuthoriseDeferred)
    );
    shop.answer(replayed.attempt, approved());
    assert_eq!(
        shop.core.state().payment(&payment_id(1)).unwrap().state,
        PaymentState::Settled
    );
}

#[test]
fn a_late_yes_to_a_payment_decided_offline_settles_it_once() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    let online = shop.forwards.remove(0);
    shop.pass(3_000);
    assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOffline);
    shop.answer(online.attempt, approved());
    assert_eq!(
        shop.core.state().payment(&payment_id(1)).unwrap().state,
        PaymentState::Settled
    );
    shop.pass(120_000);
    assert!(shop.forwards.is_empty());
}

#[test]
fn rule_3_a_no_after_an_unanswered_question_is_reversed() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 10_001, "card"));
    let online = shop.forwards.remove(0);
    shop.pass(3_000);
    let receipt = shop.receipt(ticket);
    assert_eq!(
        (receipt.decision, receipt.reason),
        (Decision::Declined, Reason::TransactionCeiling)
    );
    // The gateway had taken it after all.
    shop.answer(online.attempt, approved());
    let reversal = shop.gateway(approved());
    assert_eq!(
        (reversal.payment_id, reversal.operation),
        (payment_id(1), Operation::Reverse)
    );
    assert_eq!(
        shop.core.state().payment(&payment_id(1)).unwrap().state,
        PaymentState::Reversed
    );
}

#[test]
fn a_gateway_that_refuses_the_message_online_is_no_and_not_an_offline_yes() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    shop.gateway(GatewayAnswer::RefusesMessage {
        detail: "bad".to_owned(),
    });
    assert_eq!(shop.receipt(ticket).reason, Reason::GatewayDeclined);
}

#[test]
fn a_throttled_payment_is_decided_offline_without_a_reversal() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 10_001, "card"));
    shop.gateway(GatewayAnswer::Throttled { retry_after_ms: None });
    assert_eq!(shop.receipt(ticket).reason, Reason::TransactionCeiling);
    assert_eq!(
        shop.core.state().payment(&payment_id(1)).unwrap().state,
        PaymentState::Refused
    );
}

#[test]
fn a_payment_interrupted_by_a_crash_is_resumed_when_its_device_asks_again() {
    let mut shop = Shop::online();
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    let ticket = shop.send(MPOS, &request(1, 2_000, "card"));
    let resumed = shop.gateway(approved());
    assert_eq!(
        (resumed.payment_id, resumed.operation),
        (payment_id(1), Operation::AuthoriseOnline)
    );
    assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOnline);
    shop.pass(120_000);
    assert!(shop.forwards.is_empty(), "what was resumed is not abandoned");
}

#[test]
fn a_payment_interrupted_by_a_crash_that_nobody_asks_for_is_reversed() {
    let mut shop = Shop::online();
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    shop.pass(60_000);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    let receipt = shop.pay(MPOS, &request(1, 2_000, "card"));
    assert_eq!(
        (receipt.decision, receipt.reason),
        (Decision::Declined, Reason::Abandoned)
    );
}

#[test]
fn rule_5_an_unknown_or_blocked_device_is_refused() {
    let mut shop = Shop::offline();
    let ticket = shop.send(STRANGER, &request(1, 2_000, "card"));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::DeviceNotAllowed);
    assert_eq!(shop.operate(OperatorCommand::Block(MPOS)), OperatorReply::Done);
    let ticket = shop.send(MPOS, &request(2, 2_000, "card"));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::DeviceNotAllowed);
    shop.crash();
    let ticket = shop.send(MPOS, &request(2, 2_000, "card"));
    assert_eq!(
        shop.refusal(ticket).code,
        RefusalCode::DeviceNotAllowed,
        "a restart does not unblock"
    );
    assert_eq!(shop.operate(OperatorCommand::Unblock(MPOS)), OperatorReply::Done);
    assert!(shop.pay(MPOS, &request(2, 2_000, "card")).decision.approved());
}

#[test]
fn rule_5_without_a_policy_nothing_is_approved_offline() {
    let mut shop = Shop::empty();
    shop.enrol(MPOS, DeviceClass::Mpos);
    shop.go_offline();
    assert_eq!(shop.pay(MPOS, &request(1, 1, "card")).reason, Reason::NoPolicy);
}

#[test]
fn policy_versions_only_grow_and_the_last_good_one_stays() {
    let mut shop = Shop::offline();
    let newer = support::POLICY.replace("version = 1 ", "version = 3 ");
    assert_eq!(shop.install(&newer), Some(3));
    assert_eq!(shop.install(&newer), Some(3), "the same again is no change");
    let older = support::POLICY.replace("version = 1 ", "version = 2 ");
    assert_eq!(shop.install(&older), None);
    let changed = newer.replace("exposure_ceiling = 300000", "exposure_ceiling = 900000");
    assert_eq!(
        shop.install(&changed),
        None,
        "nor other content under the same version"
    );
    shop.crash();
    assert_eq!(shop.install(&older), None, "nor after a restart");
    assert_eq!(shop.core.state().store().policy_version, 3);
    let elsewhere = support::POLICY
        .replace("version = 1 ", "version = 4 ")
        .replace("[\"*\"]", "[\"shop-002\"]");
    assert_eq!(shop.install(&elsewhere), None, "nor one for another store");
}

#[test]
fn a_receipt_says_what_devices_know_and_the_ledger_what_it_was() {
    let policy = support::POLICY
        .replace(
            "[class.mpos]",
            "[[card.exception]]\ntoken = \"stolen\"\n[class.mpos]",
        )
        .replace("[card]\n", "[card]\nconsecutive_lower_limit = 1\n");
    let mut shop = Shop::offline_under(&policy);
    let signed_for = |number| {
        let mut request = request(number, 100, "b");
        request.verification = hub_protocol::Verification::Signature;
        request
    };
    for (asked, told, written) in [
        (
            request(1, 100, "stolen"),
            Reason::FundingNotAllowed,
            Reason::CardOnExceptionList,
        ),
        (signed_for(2), Reason::None, Reason::None),
        (
            signed_for(3),
            Reason::VerificationRequired,
            Reason::CardConsecutiveLowerLimit,
        ),
    ] {
        assert_eq!(shop.pay(MPOS, &asked).reason, told);
        let payment = shop.core.state().payment(&asked.payment_id).unwrap();
        assert_eq!(payment.decided.as_ref().unwrap().record.reason, written);
    }
}

#[test]
fn longest_offline_time_runs_on_through_a_restart() {
    let mut shop = Shop::offline();
    shop.pass(239 * 60_000);
    assert!(shop.pay(MPOS, &request(1, 100, "a")).decision.approved());
    shop.crash();
    shop.pass(60_000);
    assert_eq!(
        shop.pay(MPOS, &request(2, 100, "b")).reason,
        Reason::OfflineTooLong
    );
    shop.go_online();
    shop.go_offline();
    assert_eq!(
        shop.pay(MPOS, &request(3, 100, "c")).reason,
        Reason::OfflineTooLong,
        "a probe settles nothing"
    );
    shop.go_online();
    shop.gateway(approved());
    shop.go_offline();
    assert!(shop.pay(MPOS, &request(4, 100, "d")).decision.approved());
}

#[test]
fn rule_4_longest_offline_time_runs_while_probes_answer_and_payments_do_not() {
    let mut shop = Shop::online();
    for (number, answer) in [
        no_answer(),
        GatewayAnswer::Throttled { retry_after_ms: None },
        GatewayAnswer::RefusesHub {
            detail: "401".to_owned(),
        },
        GatewayAnswer::Pending { retry_after_ms: None },
        no_answer(),
    ]
    .into_iter()
    .enumerate()
    {
        let ticket = shop.send(MPOS, &request(number as u64, 100, &format!("card {number}")));
        let live = shop
            .forwards
            .iter()
            .position(|f| f.operation == Operation::AuthoriseOnline)
            .unwrap();
        let live = shop.forwards.remove(live);
        shop.answer(live.attempt, answer);
        let receipt = shop.receipt(ticket);
        match number {
            0..4 => assert_eq!(receipt.decision, Decision::ApprovedOffline),
            _ => assert_eq!(receipt.reason, Reason::OfflineTooLong),
        }
        for _ in 0..10 {
            shop.probe(true);
        }
        shop.pass(61 * 60_000);
    }
}

/// A wall clock that ran ahead when the WAN went, and was put right by a
/// probe that answered while payments did not.
#[test]
fn rule_5_a_clock_that_was_set_back_gives_no_second_longest_offline_time() {
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
        shop.now.wall_ms += 10 * 3_600_000;
        shop.go_offline();
        assert!(shop.pay(MPOS, &request(1, 100, "a")).decision.approved());
        gateway_time(&mut shop, 10 * 3_600_000);
        shop.go_offline();
        if restart {
            shop.now.wall_ms -= 10 * 3_600_000;
            shop.crash();
        }
        shop.pass(239 * 60_000);
        let soon = shop.pay(MPOS, &request(2, 100, "b")).decision;
        assert!(soon.approved(), "restart {restart}");
        shop.pass(61_000);
        let late = shop.pay(MPOS, &request(3, 100, "c")).reason;
        assert_eq!(late, Reason::OfflineTooLong, "restart {restart}");
    }
}

/// With a gateway that tells no time nothing else would ever end the doubt.
#[test]
fn rule_5_a_clock_in_doubt_is_trusted_again_only_by_a_time_that_agrees() {
    let mut shop = Shop::online();
    // Closed from Saturday to Tuesday.
    shop.now.wall_ms += 60 * 3_600_000;
    shop.go_offline();
    let doubted = shop.pay(MPOS, &request(1, 6_000, "a"));
    assert_eq!(doubted.reason, Reason::ClockInDoubt);
    let confirm = |shop: &mut Shop, told_ms| shop.operate(OperatorCommand::ConfirmClock { told_ms });
    let now_ms = shop.now.wall_ms;
    for told_ms in [now_ms - 3_600_000, now_ms + 3_600_000] {
        let reply = confirm(&mut shop, told_ms);
        assert!(matches!(reply, OperatorReply::Refused(_)), "{reply:?}");
    }
    let doubted = shop.pay(MPOS, &request(2, 6_000, "b"));
    assert_eq!(doubted.reason, Reason::ClockInDoubt);
    assert_eq!(confirm(&mut shop, now_ms + 60_000), OperatorReply::Done);
    shop.crash();
    assert_ne!(
        shop.pay(MPOS, &request(3, 6_000, "c")).reason,
        Reason::ClockInDoubt
    );
}

#[test]
fn rule_5_a_device_blocked_while_its_customer_waits_approves_nothing_offline() {
    let mut shop = Shop::online();
    let ticket = shop.send(MPOS, &request(1, 100, "card"));
    shop.operate(OperatorCommand::Block(MPOS));
    shop.pass(3_000);
    let receipt = shop.receipt(ticket);
    assert_eq!(
        (receipt.decision, receipt.reason),
        (Decision::Declined, Reason::DeviceBlocked)
    );
    shop.gateway(approved());
    assert_eq!(shop.state_of(1), PaymentState::ReversalQueued);
}

#[test]
fn payments_that_are_not_answered_in_time_send_the_hub_offline() {
    let mut shop = Shop::online();
    for number in 1..=3 {
        let ticket = shop.send(MPOS, &request(number, 100, &format!("card {number}")));
        shop.pass(3_000);
        assert!(shop.receipt(ticket).decision.approved());
    }
    assert_eq!(shop.core.state().store().wan, WanState::Offline);
    let decided_at_once = shop.pay(MPOS, &request(4, 100, "card 4"));
    assert_eq!(decided_at_once.decision, Decision::ApprovedOffline);
}

#[test]
fn every_change_of_connectivity_is_a_ledger_entry() {
    let mut shop = Shop::online();
    let before = shop.disk.len();
    shop.probe(false);
    shop.probe(false);
    shop.probe(false);
    assert_eq!(shop.disk.len() - before, 2, "degraded, then offline");
    assert_eq!(shop.core.state().store().wan, WanState::Offline);
}

#[test]
fn a_queued_payment_voided_before_it_was_sent_is_never_sent() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(ticket).state, PaymentState::Voided);
    assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
    assert!(shop.erased.contains(&payment_id(1)));
    let again = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(again).state, PaymentState::Voided);
    shop.go_online();
    assert!(shop.forwards.is_empty());
}

#[test]
fn a_payment_voided_in_flight_or_after_a_restart_is_reversed() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    let authorise = shop.forwards.remove(0);
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(ticket).state, PaymentState::ReversalQueued);
    assert!(
        shop.forwards.is_empty(),
        "the reversal waits for the answer under way"
    );
    shop.answer(authorise.attempt, approved());
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    assert_eq!(shop.core.state().store().subject.exposure_minor, 0);

    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.go_offline();
    shop.crash();
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(
        shop.status_of(ticket).state,
        PaymentState::ReversalQueued,
        "who knows what was sent before"
    );
}

#[test]
fn rule_1_no_reversal_leaves_before_its_void_is_flushed() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    let authorise = shop.forwards.remove(0);
    shop.flush_at_once = false;
    shop.void(MPOS, payment_id(1));
    shop.answer(authorise.attempt, approved());
    assert!(shop.forwards.is_empty(), "the void is not on disk");
    shop.flush();
    assert_eq!(shop.forwards.remove(0).operation, Operation::Reverse);
}

#[test]
fn voids_of_something_unknown_or_unapproved_get_their_own_numbers() {
    let mut shop = Shop::offline();
    let ticket = shop.void(MPOS, payment_id(77));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::PaymentUnknown);
    shop.pay(MPOS, &request(1, 10_001, "card"));
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::NothingToVoid);
    shop.pay(MPOS, &request(2, 100, "card"));
    let ticket = shop.void(SOFTPOS, payment_id(2));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::PaymentOfOtherDevice);
    let ticket = shop.status(MPOS, payment_id(2));
    assert_eq!(
        shop.status_of(ticket).state,
        PaymentState::Queued,
        "nothing happened to it"
    );
}

#[test]
fn a_stopping_hub_answers_who_waits_and_takes_nothing_new() {
    let mut shop = Shop::online();
    let waits = shop.send(MPOS, &request(9, 100, "card"));
    shop.input(Input::Stop);
    assert!(!shop.core.has_stopped());
    shop.gateway(approved());
    assert!(shop.receipt(waits).decision.approved());
    assert!(shop.core.has_stopped());
    let ticket = shop.send(MPOS, &request(1, 100, "card"));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::Stopping);
}
