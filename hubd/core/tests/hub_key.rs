//! The hub's signing key changes at the entry that says so, and at no other.
#![allow(missing_docs, clippy::panic)]

use ed25519_dalek::SigningKey;
use hub_core::{Input, OperatorReply, Reply};
use hub_protocol::{Entry, Event, HubId, HubKeyChange, SignedKeyChange, cbor};

mod support;

use support::*;

fn statement(hub: HubId, sequence: u64) -> SignedKeyChange {
    let (old, new) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let change = HubKeyChange {
        hub,
        number: 1,
        old_key: old.verifying_key().to_bytes(),
        new_key: new.verifying_key().to_bytes(),
        sequence,
        changed_ms: 1,
    };
    SignedKeyChange(change.sign(&old, &new))
}

fn change(shop: &mut Shop, statement: SignedKeyChange) -> Option<bool> {
    let ticket = shop.ticket();
    let operator = "uid 0".to_owned();
    shop.input(Input::ChangeHubKey {
        ticket,
        statement,
        operator,
    });
    match shop.replies.remove(&ticket) {
        Some(Reply::Operator(OperatorReply::Done)) => Some(true),
        Some(Reply::Operator(OperatorReply::Refused(_))) => Some(false),
        None => None,
        other => panic!("an answer expected, not {other:?}"),
    }
}

#[test]
fn a_change_is_written_at_the_entry_that_it_names_and_nowhere_else() {
    let mut shop = Shop::online();
    let (hub, next) = (shop.settings.hub, shop.core.state().head().sequence + 1);
    let mut bad = statement(hub, next);
    bad.0[100] ^= 1;
    for refused in [
        statement(hub, next - 1),
        statement(hub, next + 1),
        statement(HubId([9; 32]), next),
        bad,
    ] {
        assert_eq!(change(&mut shop, refused), Some(false));
        assert_eq!(shop.core.state().head().sequence, next - 1, "nothing is written");
    }
    let good = statement(hub, next);
    assert_eq!(change(&mut shop, good.clone()), Some(true));
    let entry: Entry = cbor::decode(shop.disk.last().unwrap()).unwrap();
    assert_eq!(entry.sequence, next);
    assert!(matches!(entry.event, Event::HubKeyChanged { statement, .. } if statement == good));
}

#[test]
fn rule_1_a_change_is_answered_from_the_disk_and_another_waits_for_that() {
    let mut shop = Shop::online();
    shop.flush_at_once = false;
    let (hub, next) = (shop.settings.hub, shop.core.state().head().sequence + 1);
    assert_eq!(change(&mut shop, statement(hub, next)), None);
    assert_eq!(change(&mut shop, statement(hub, next + 1)), Some(false));
    shop.flush();
    assert_eq!(shop.replies.len(), 1, "the first is answered now");
    let next = shop.core.state().head().sequence + 1;
    assert_eq!(change(&mut shop, statement(hub, next)), None);
}
