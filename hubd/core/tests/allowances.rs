//! Allowances: what a device may approve while it cannot reach the hub. Given
//! out of the ceilings, spent into exposure, returned.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, OperatorCommand, OperatorReply, Reply};
use hub_protocol::entry::Event;
use hub_protocol::{
    CardScheme, Decision, DeviceReceipt, PaymentState, Reason, RefusalCode, Submission, cbor,
};
use support::wallet::{Wallet, at, at_risk, events, given, kinds, policy, shop};
use support::{MPOS, SOFTPOS, Shop, approved, payment_id, request};

#[test]
fn rule_4_all_of_an_allowance_is_at_risk_from_the_moment_it_is_given() {
    let (shop, wallet) = given();
    let allowance = wallet.allowance();
    assert_eq!(
        (allowance.number, allowance.amount_minor, allowance.count),
        (1, 20_000, 4)
    );
    assert_eq!(allowance.transaction_ceiling_minor, 8_000);
    assert_eq!(
        allowance.schemes,
        [CardScheme::Cb, CardScheme::Visa, CardScheme::Mastercard]
    );
    assert_eq!(allowance.expires_ms - allowance.issued_ms, 3_600_000);
    assert_eq!(at_risk(&shop), [(0, 0, 20_000, 4); 2]);
    assert_eq!(shop.core.state().store().at_risk().exposure_minor, 20_000);
}

#[test]
fn a_person_sees_what_is_kept_back_and_for_whom() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    let OperatorReply::Overview(overview) = shop.operate(OperatorCommand::Overview) else {
        panic!("an overview expected");
    };
    assert_eq!((overview.exposure_minor, overview.consecutive), (20_000, 4));
    let [open] = overview.allowances[..] else {
        panic!("one allowance expected: {overview:?}");
    };
    assert_eq!((open.device, open.number), (MPOS, 1));
    assert_eq!((open.reserved.minor, open.reserved.count), (15_000, 3));
    assert_eq!(open.expires_ms, wallet.allowance().expires_ms);
    wallet.give_back(&mut shop);
    let OperatorReply::Overview(overview) = shop.operate(OperatorCommand::Overview) else {
        panic!("an overview expected");
    };
    assert_eq!(overview.allowances, []);
}

#[test]
fn rule_1_no_allowance_leaves_before_its_entry_is_on_disk() {
    let (mut shop, wallet) = shop();
    shop.flush_at_once = false;
    let ticket = shop.ask_allowance(wallet.device, None);
    assert!(shop.replies.is_empty());
    assert_eq!(at_risk(&shop)[1].2, 20_000, "but it is at risk already");
    shop.flush();
    assert!(matches!(shop.replies[&ticket], Reply::Allowance { .. }));
}

#[test]
fn who_asks_again_gets_the_same_allowance_also_after_a_restart() {
    let (mut shop, mut wallet) = given();
    let first = wallet.allowance().clone();
    assert_eq!(wallet.ask(&mut shop).unwrap(), first);
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    shop.crash();
    let ticket = shop.ask_allowance(MPOS, None);
    let Some(Reply::Allowance { allowance, chain }) = shop.replies.remove(&ticket) else {
        panic!("an allowance expected");
    };
    assert_eq!(
        (*allowance, chain),
        (first, wallet.chain()),
        "with how far it has come"
    );
    assert_eq!(at_risk(&shop)[1], (5_000, 1, 15_000, 3));
}

#[test]
fn rule_4_spending_moves_what_is_kept_back_to_real_exposure_and_returning_frees_the_rest() {
    let (mut shop, mut wallet) = given();
    for (number, amount) in [(1, 5_000), (2, 8_000)] {
        wallet
            .approve(&request(number, amount, &format!("card {number}")), at(&shop))
            .unwrap();
    }
    assert_eq!(at_risk(&shop), [(0, 0, 20_000, 4); 2], "nobody knows yet");
    let receipts = wallet.sync_all(&mut shop);
    assert_eq!(at_risk(&shop), [(13_000, 2, 7_000, 2); 2]);
    for receipt in &receipts {
        assert_eq!(receipt.decision, Decision::ApprovedOffline);
        assert_eq!(receipt.submission, Some(Submission::Deferred));
    }
    wallet.give_back(&mut shop);
    assert_eq!(at_risk(&shop), [(13_000, 2, 0, 0); 2]);
    assert_eq!(kinds(&shop), []);
    shop.go_online();
    for _ in 0..2 {
        let forward = shop.forwards.pop().unwrap();
        shop.answer(forward.attempt, approved());
    }
    assert_eq!(at_risk(&shop), [(0, 0, 0, 0); 2], "and was collected");
    assert_eq!(shop.state_of(1), PaymentState::Settled);
}

/// One line a case: what is changed, and what is given of 200,00, 4 payments
/// of 80,00 for an hour.
#[test]
fn rule_3_a_synced_payment_gets_the_same_answer_however_it_is_asked_for_again() {
    let (mut shop, mut wallet) = given();
    let one = wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    let first = shop.synced(MPOS, &one);
    assert_eq!(shop.synced(MPOS, &one), first);
    assert_eq!(shop.pay(MPOS, &one.request), first);
    shop.crash();
    assert_eq!(shop.synced(MPOS, &one), first);
    assert_eq!(at_risk(&shop), [(5_000, 1, 15_000, 3); 2], "and counts once");
    assert_eq!(kinds(&shop), []);
}

#[test]
fn rule_3_a_payment_that_the_hub_had_decided_keeps_that_answer() {
    let (mut shop, mut wallet) = given();
    // Its answer got lost, and the device approved it.
    let told = shop.pay(MPOS, &request(1, 5_000, "card"));
    assert_eq!(
        at_risk(&shop)[0],
        (5_000, 1, 20_000, 4),
        "twice, until the device is back"
    );
    let one = wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    assert_eq!(shop.synced(MPOS, &one), told);
    assert_eq!(at_risk(&shop)[0], (5_000, 1, 15_000, 3));
    // The hub had said no: the shop's loss, as if the bank had said so later.
    let told = shop.pay(MPOS, &request(2, 12_000, "card 2"));
    assert_eq!(told.reason, Reason::TransactionCeiling);
    let two = wallet.cheat(&request(2, 12_000, "card 2"), at(&shop));
    assert_eq!(shop.synced(MPOS, &two), told);
    assert_eq!(at_risk(&shop)[0], (5_000, 1, 3_000, 2));
}

#[test]
fn rule_3_other_bytes_under_a_known_id_are_a_conflict() {
    let (mut shop, mut wallet) = given();
    shop.pay(MPOS, &request(1, 5_000, "card"));
    let other = wallet.approve(&request(1, 6_000, "card"), at(&shop)).unwrap();
    let ticket = shop.send_sync(MPOS, &other);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::PaymentIdConflict);
    let mut softpos = Wallet::new(SOFTPOS);
    softpos.ask(&mut shop).unwrap();
    let other = softpos.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    let ticket = shop.send_sync(SOFTPOS, &other);
    assert_eq!(
        shop.refusal(ticket).code,
        RefusalCode::PaymentIdConflict,
        "nor of another device"
    );
}

#[test]
fn a_receipt_for_another_payment_is_refused() {
    let (mut shop, mut wallet) = given();
    let mut one = wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    one.receipt.amount_minor = 1;
    let ticket = shop.send_sync(MPOS, &one);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::DeviceReceiptMismatch);
    assert!(shop.core.state().payment(&payment_id(1)).is_none());
}

#[test]
fn a_payment_that_was_being_asked_online_is_decided_by_the_device_and_charged_once() {
    let mut shop = Shop::offline_under(&policy());
    shop.go_online();
    let mut wallet = Wallet::new(MPOS);
    wallet.ask(&mut shop).unwrap();
    let waits = shop.send(MPOS, &request(1, 5_000, "card"));
    let forward = shop.forwards.pop().unwrap();
    let one = wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    let told = shop.synced(MPOS, &one);
    assert_eq!(told.decision, Decision::ApprovedOffline);
    assert_eq!(shop.receipt(waits), told, "whoever still waits is told the same");
    assert_eq!(at_risk(&shop)[0], (5_000, 1, 15_000, 3));
    assert!(shop.forwards.is_empty(), "the call under way is its first");
    shop.answer(forward.attempt, approved());
    assert_eq!(shop.state_of(1), PaymentState::Settled);
    assert_eq!(at_risk(&shop)[0], (0, 0, 15_000, 3));
}

#[test]
fn rule_2_a_crash_between_the_two_entries_of_a_sync_counts_too_much_and_then_right() {
    let (mut shop, mut wallet) = given();
    let one = wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    shop.flush_at_once = false;
    let ticket = shop.send_sync(MPOS, &one);
    assert!(!shop.replies.contains_key(&ticket));
    // Only the decision reached the disk.
    let (_, decided) = shop.written.remove(0);
    shop.disk.push(decided);
    shop.flush_at_once = true;
    shop.crash();
    assert_eq!(at_risk(&shop)[0], (5_000, 1, 20_000, 4));
    assert_eq!(shop.synced(MPOS, &one).decision, Decision::ApprovedOffline);
    assert_eq!(at_risk(&shop)[0], (5_000, 1, 15_000, 3));
    assert_eq!(kinds(&shop), []);
}

#[test]
fn a_payment_under_an_allowance_is_marked_and_its_receipt_kept() {
    let (mut shop, mut wallet) = given();
    let one = wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    shop.synced(MPOS, &one);
    let marked = events(&shop).into_iter().find_map(|event| match event {
        Event::PaymentDecided { record, .. } => record.allowance,
        _ => None,
    });
    assert_eq!(marked, Some(1));
    let kept = events(&shop).into_iter().find_map(|event| match event {
        Event::AllowanceSpent { receipt, .. } => Some(receipt),
        _ => None,
    });
    let kept = hub_protocol::cose::Unverified::payload_of(&kept.unwrap())
        .unwrap()
        .to_vec();
    assert_eq!(cbor::decode::<DeviceReceipt>(&kept), Ok(one.receipt));
}

#[test]
fn a_synced_payment_can_be_voided_before_it_is_sent() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(ticket).state, PaymentState::Voided);
    assert_eq!(at_risk(&shop)[0], (0, 1, 15_000, 3));
}

#[test]
fn a_full_disk_and_an_expired_policy_keep_no_payment_out_that_was_approved() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    shop.input(hub_core::Input::Storage {
        level: hub_protocol::entry::StorageLevel::Full,
        free_bytes: 0,
    });
    shop.pass(2 * 365 * 24 * 3_600_000);
    assert_eq!(wallet.sync_all(&mut shop)[0].decision, Decision::ApprovedOffline);
    assert_eq!(kinds(&shop), [], "the device's time counts, not the hub's");
    wallet.give_back(&mut shop);
    assert_eq!(wallet.ask(&mut shop), None);
}

#[test]
fn rule_4_an_allowance_does_not_come_back_by_its_expiry() {
    let (mut shop, mut wallet) = given();
    shop.pass(7 * 24 * 3_600_000);
    assert_eq!(at_risk(&shop), [(0, 0, 20_000, 4); 2]);
    assert_eq!(
        wallet.approve(&request(1, 1, "card"), at(&shop)).unwrap_err(),
        Reason::OfflineTooLong
    );
    wallet.give_back(&mut shop);
    assert_eq!(at_risk(&shop), [(0, 0, 0, 0); 2]);
}

#[test]
fn a_person_declares_a_device_lost_and_payments_that_come_all_the_same_are_kept() {
    let (mut shop, mut wallet) = given();
    let one = wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    let done = shop.operate(OperatorCommand::ForfeitAllowance(MPOS));
    assert_eq!(done, OperatorReply::Done);
    assert_eq!(at_risk(&shop), [(0, 0, 0, 0); 2]);
    let again = shop.operate(OperatorCommand::ForfeitAllowance(MPOS));
    assert!(matches!(again, OperatorReply::Refused(_)));
    let closed = events(&shop).into_iter().find_map(|event| match event {
        Event::AllowanceReturned {
            operator, statement, ..
        } => Some((operator.is_some(), statement)),
        _ => None,
    });
    assert_eq!(closed, Some((true, None)));
    assert_eq!(shop.synced(MPOS, &one).decision, Decision::ApprovedOffline);
    assert_eq!(at_risk(&shop), [(5_000, 1, 0, 0); 2]);
    assert_eq!(kinds(&shop), [], "it was declared lost, and did no wrong");
    assert_eq!(wallet.ask(&mut shop).unwrap().number, 2);
}

#[test]
fn a_return_is_answered_the_same_however_often_it_is_asked() {
    let (mut shop, mut wallet) = given();
    let statement = wallet.statement();
    wallet.give_back(&mut shop);
    shop.crash();
    let ticket = shop.send_return(MPOS, &statement);
    assert_eq!(shop.replies.remove(&ticket), Some(Reply::Returned { number: 1 }));
    wallet.ask(&mut shop).unwrap();
    let ticket = shop.send_return(MPOS, &statement);
    assert_eq!(shop.replies.remove(&ticket), Some(Reply::Returned { number: 1 }));
    assert_eq!(at_risk(&shop)[0].2, 20_000, "the second is as it was");
    let ticket = shop.send_return(SOFTPOS, &statement);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::AllowanceUnknown);
}

#[test]
fn rule_4_nothing_is_returned_before_all_is_synced() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    let ticket = shop.send_return(MPOS, &wallet.statement());
    assert_eq!(shop.refusal(ticket).code, RefusalCode::AllowanceNotSynced);
    assert_eq!((at_risk(&shop)[0].2, kinds(&shop)), (20_000, vec![]));
    wallet.sync_all(&mut shop);
    wallet.give_back(&mut shop);
}

/// One line a misuse: what the device does, what is found, and what is at
/// risk and kept back then.
#[test]
fn a_run_that_ends_leaves_what_is_kept_back() {
    let (mut shop, _) = given();
    shop.pay(SOFTPOS, &request(1, 1_000, "a"));
    shop.go_online();
    let forward = shop.forwards.pop().unwrap();
    shop.answer(forward.attempt, approved());
    assert_eq!(at_risk(&shop)[1], (0, 0, 20_000, 4));
}

#[test]
fn a_payment_of_an_allowance_that_the_issuer_declines_is_a_loss_like_any() {
    let (mut shop, mut wallet) = given();
    wallet.approve(&request(1, 5_000, "card"), at(&shop)).unwrap();
    wallet.sync_all(&mut shop);
    shop.go_online();
    let forward = shop.forwards.pop().unwrap();
    let no: GatewayAnswer = support::declined();
    shop.answer(forward.attempt, no);
    assert_eq!(shop.state_of(1), PaymentState::SettledDeclined);
    assert_eq!(at_risk(&shop)[0].0, 0);
}
