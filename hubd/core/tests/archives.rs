//! What the ledger tells of its archives, and what no longer happens to
//! payments in them.
#![allow(missing_docs, clippy::panic)]

use hub_core::{ArchiveChange, Input, OperatorReply, Reply};
use hub_protocol::{Digest, Entry, Event, PaymentState, RefusalCode, cbor};

mod support;

use support::*;

fn tell(shop: &mut Shop, change: ArchiveChange) -> Result<(), String> {
    let ticket = shop.ticket();
    shop.input(Input::Archive { ticket, change });
    match shop.replies.remove(&ticket) {
        Some(Reply::Operator(OperatorReply::Done)) => Ok(()),
        Some(Reply::Operator(OperatorReply::Refused(text))) => Err(text),
        other => panic!("an answer expected, not {other:?}"),
    }
}

fn begun(last: u64) -> ArchiveChange {
    ArchiveChange::Begun { last }
}

fn written(number: u32, last: u64) -> ArchiveChange {
    let digest = Digest::of(&[number as u8]);
    ArchiveChange::Written { number, last, digest }
}

fn exported(number: u32) -> ArchiveChange {
    ArchiveChange::Exported {
        number,
        digest: Digest::of(&[number as u8]),
        operator: "anna".to_owned(),
    }
}

fn removed(number: u32, operator: Option<&str>) -> ArchiveChange {
    ArchiveChange::Removed {
        number,
        digest: Digest::of(&[number as u8]),
        operator: operator.map(str::to_owned),
    }
}

#[test]
fn archives_are_written_exported_and_removed_in_their_order_or_not_at_all() {
    let mut shop = Shop::online();
    let head = shop.core.state().head().sequence;
    // What is done, and whether it is its turn.
    let steps = [
        (exported(1), false),
        (removed(1, None), false),
        (written(2, head), false),
        (written(1, head + 1_000), false),
        (written(1, head - 1), false),
        (begun(head + 1_000), false),
        (begun(head - 1), true),
        (written(1, head), false),
        (written(1, head - 1), true),
        (begun(head - 1), false),
        (written(1, head), false),
        (written(2, head - 1), false),
        (begun(head), true),
        (ArchiveChange::GivenUp, true),
        (written(2, head), false),
        (begun(head), true),
        (written(2, head), true),
        (removed(1, None), false),
        (exported(3), false),
        // Out of order: it counts once those before it were copied too.
        (exported(2), true),
        (removed(1, None), false),
        (exported(1), true),
        (removed(2, None), false),
        (removed(1, Some("anna")), true),
        (removed(1, None), false),
        (removed(2, None), false),
        (exported(2), true),
        (removed(2, None), true),
        (begun(head + 1), true),
        (written(3, head + 1), true),
    ];
    for (at, (change, right)) in steps.into_iter().enumerate() {
        let before = shop.core.state().head();
        let told = tell(&mut shop, change.clone());
        assert_eq!(told.is_ok(), right, "step {at}: {change:?}: {told:?}");
        assert_eq!(
            shop.core.state().head() != before,
            right && !matches!(change, ArchiveChange::Begun { .. } | ArchiveChange::GivenUp),
            "step {at}: an entry or none"
        );
    }
    let marks = shop.core.state().archives();
    assert_eq!((marks.written, marks.exported, marks.removed), (3, 2, 2));
    assert_eq!(marks.through, head + 1);
    shop.crash();
    assert_eq!(shop.core.state().archives(), marks, "folded again");
}

#[test]
fn rule_7_who_removed_an_archive_by_hand_stands_in_the_ledger() {
    let mut shop = Shop::online();
    let head = shop.core.state().head().sequence;
    for change in [
        begun(head),
        written(1, head),
        exported(1),
        removed(1, Some("anna")),
    ] {
        tell(&mut shop, change).unwrap();
    }
    let last: Vec<Event> = shop
        .disk
        .iter()
        .rev()
        .take(2)
        .map(|payload| cbor::decode::<Entry>(payload).unwrap().event)
        .collect();
    let action = "remove archive 1".to_owned();
    let operator = "anna".to_owned();
    assert!(matches!(last[0], Event::ArchiveRemoved { number: 1, .. }));
    assert_eq!(last[1], Event::OperatorActed { operator, action });
}

#[test]
fn an_archived_payment_is_answered_and_not_voided() {
    let mut shop = Shop::online();
    let old = request(1, 1_000, "tok-1");
    let ticket = shop.send(MPOS, &old);
    shop.gateway(approved());
    let first = shop.receipt(ticket);
    let head = shop.core.state().head().sequence;
    let new = request(2, 1_000, "tok-1");
    let ticket = shop.send(MPOS, &new);
    shop.gateway(approved());
    shop.receipt(ticket);
    tell(&mut shop, begun(head)).unwrap();
    // Not yet, and not for good: it may be given up.
    let before = shop.core.state().head();
    let ticket = shop.void(MPOS, old.payment_id);
    let refusal = shop.refusal(ticket);
    assert_eq!(refusal.code, RefusalCode::Busy);
    assert!(refusal.code.transient());
    assert_eq!(shop.core.state().head(), before);
    tell(&mut shop, written(1, head)).unwrap();

    assert_eq!(shop.pay(MPOS, &old), first);
    let ticket = shop.status(MPOS, old.payment_id);
    assert_eq!(shop.status_of(ticket).state, PaymentState::Settled);
    let before = shop.core.state().head();
    let ticket = shop.void(MPOS, old.payment_id);
    let refusal = shop.refusal(ticket);
    assert_eq!(refusal.code, RefusalCode::PaymentArchived);
    assert!(!refusal.code.transient() && refusal.text.contains("refund"));
    assert_eq!(shop.core.state().head(), before);
    // One that is not archived still is.
    let ticket = shop.void(MPOS, new.payment_id);
    assert_eq!(shop.status_of(ticket).state, PaymentState::ReversalQueued);
}

#[test]
fn what_was_archived_when_the_hub_stopped_is_final_before_the_ledger_tells_of_it() {
    let mut shop = Shop::online();
    let old = request(1, 1_000, "tok-1");
    let ticket = shop.send(MPOS, &old);
    shop.gateway(approved());
    shop.receipt(ticket);
    let head = shop.core.state().head().sequence;
    shop.settings.archives_through = head;
    shop.crash();
    let ticket = shop.void(MPOS, old.payment_id);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::Busy);
    tell(&mut shop, written(1, head)).unwrap();
    let ticket = shop.void(MPOS, old.payment_id);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::PaymentArchived);
}

#[test]
fn what_is_not_archived_after_all_may_be_voided_again() {
    let mut shop = Shop::online();
    let old = request(1, 1_000, "tok-1");
    let ticket = shop.send(MPOS, &old);
    shop.gateway(approved());
    shop.receipt(ticket);
    let head = shop.core.state().head().sequence;
    tell(&mut shop, begun(head)).unwrap();
    tell(&mut shop, ArchiveChange::GivenUp).unwrap();
    let ticket = shop.void(MPOS, old.payment_id);
    assert_eq!(shop.status_of(ticket).state, PaymentState::ReversalQueued);
}
