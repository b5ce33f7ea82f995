//! A disk that fills up: what was accepted goes on, nothing new is risked.
#![allow(missing_docs, clippy::unwrap_used)] // a test may panic

mod support;

use hub_core::Input;
use hub_protocol::entry::{Entry, Event, StorageLevel};
use hub_protocol::{Decision, PaymentState, Reason, cbor};
use support::*;

fn storage(shop: &mut Shop, level: StorageLevel) {
    let free_bytes = 1 << 20;
    shop.input(Input::Storage { level, free_bytes });
    shop.flush();
}

fn levels(shop: &Shop) -> Vec<StorageLevel> {
    let events = shop
        .disk
        .iter()
        .map(|payload| cbor::decode::<Entry>(payload).unwrap().event);
    events
        .filter_map(|event| match event {
            Event::StorageChanged { level, .. } => Some(level),
            _ => None,
        })
        .collect()
}

#[test]
fn a_full_disk_ends_offline_approvals_and_room_brings_them_back() {
    let mut shop = Shop::offline();
    storage(&mut shop, StorageLevel::Low);
    assert!(shop.pay(MPOS, &request(1, 100, "card")).decision.approved());
    storage(&mut shop, StorageLevel::Full);
    let receipt = shop.pay(MPOS, &request(2, 100, "card"));
    assert_eq!(
        (receipt.decision, receipt.reason),
        (Decision::Declined, Reason::StorageFull)
    );
    storage(&mut shop, StorageLevel::Enough);
    assert!(shop.pay(MPOS, &request(3, 100, "card")).decision.approved());
}

#[test]
fn with_a_full_disk_what_was_accepted_is_sent_settled_and_voided() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 100, "card"));
    shop.pay(MPOS, &request(2, 100, "other"));
    storage(&mut shop, StorageLevel::Full);
    let ticket = shop.void(MPOS, payment_id(2));
    assert_eq!(shop.status_of(ticket).state, PaymentState::Voided);
    shop.go_online();
    shop.gateway(approved());
    assert_eq!(shop.pushed.last().unwrap().state, PaymentState::Settled);
    let ticket = shop.send(MPOS, &request(3, 100, "card"));
    shop.gateway(approved());
    assert_eq!(shop.receipt(ticket).decision, Decision::ApprovedOnline);
}

#[test]
fn rule_7_every_change_of_the_room_on_disk_is_one_entry() {
    let mut shop = Shop::offline();
    for level in [
        StorageLevel::Enough,
        StorageLevel::Low,
        StorageLevel::Low,
        StorageLevel::Full,
        StorageLevel::Enough,
    ] {
        storage(&mut shop, level);
    }
    assert_eq!(
        levels(&shop),
        [StorageLevel::Low, StorageLevel::Full, StorageLevel::Enough]
    );
}
