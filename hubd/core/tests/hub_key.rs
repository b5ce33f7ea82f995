//! The hub's signing key changes at the entry that says so, and at no other.
#![allow(missing_docs, clippy::panic)]

use ed25519_dalek::SigningKey;
use hub_core::{Effect, Input, OperatorCommand, OperatorReply, Reply, TlsKeyChange};
use hub_protocol::{Digest, Entry, Event, HubId, HubKeyChange, SignedKeyChange, cbor};

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

fn change_tls(shop: &mut Shop, change: TlsKeyChange) -> Result<(), String> {
    let ticket = shop.ticket();
    shop.input(Input::Operator {
        ticket,
        operator: "uid 0".to_owned(),
        command: OperatorCommand::ChangeTlsKey(change),
    });
    match shop.replies.remove(&ticket) {
        Some(Reply::Operator(OperatorReply::Done)) => Ok(()),
        Some(Reply::Operator(OperatorReply::Refused(text))) => Err(text),
        other => panic!("an answer expected, not {other:?}"),
    }
}

#[test]
fn the_hub_is_reached_under_one_tls_key_or_two_as_the_ledger_says() {
    use TlsKeyChange::{Abandon, Add, Finish};
    let mut shop = Shop::online();
    let first = Digest(shop.settings.hub.0);
    let key = |byte: u8| Digest([byte; 32]);
    // What is ordered, whether it is done, and the keys then.
    let steps: [(TlsKeyChange, bool, &[Digest]); 9] = [
        (Finish, false, &[]),
        (Abandon, false, &[]),
        (Add(first), false, &[]),
        (Add(key(1)), true, &[key(1), first]),
        (Add(key(2)), false, &[key(1), first]),
        (Abandon, true, &[first]),
        (Add(key(3)), true, &[key(3), first]),
        (Finish, true, &[key(3)]),
        (Add(key(3)), false, &[key(3)]),
    ];
    let mut number = 0;
    for (order, done, keys) in steps {
        let before = shop.core.state().head().sequence;
        assert_eq!(change_tls(&mut shop, order).is_ok(), done, "{order:?}");
        number += u32::from(done);
        let state = shop.core.state();
        assert_eq!(state.head().sequence, before + u64::from(done), "{order:?}");
        let record = state.tls_keys();
        assert_eq!(record.map_or(0, |record| record.number), number, "{order:?}");
        assert_eq!(record.map_or(&[][..], |record| &record.keys), keys, "{order:?}");
    }
    // The same after a restart.
    let known = shop.core.state().tls_keys().cloned();
    shop.crash();
    assert_eq!(shop.core.state().tls_keys().cloned(), known);
}

#[test]
fn rule_1_another_tls_key_is_used_and_told_of_once_it_is_on_disk() {
    let mut shop = Shop::online();
    let ticket = shop.ticket();
    let ordered = Input::Operator {
        ticket,
        operator: "uid 0".to_owned(),
        command: OperatorCommand::ChangeTlsKey(TlsKeyChange::Add(Digest([1; 32]))),
    };
    let told = |effects: &[Effect]| {
        let told = effects
            .iter()
            .filter(|effect| matches!(effect, Effect::HubTlsKeys { .. } | Effect::Reply { .. }));
        told.count()
    };
    let now = shop.now;
    assert_eq!(told(&shop.core.handle(ordered, now)), 0);
    let sequence = shop.core.state().head().sequence;
    assert_eq!(told(&shop.core.handle(Input::Appended { sequence }, now)), 2);
}

#[test]
fn a_start_tells_the_ledger_of_the_recovery_key_and_of_a_recovery_and_tells_once() {
    let mut shop = Shop::online();
    let told = |shop: &Shop| -> Vec<Event> {
        let entries = shop
            .disk
            .iter()
            .map(|bytes| cbor::decode::<Entry>(bytes).unwrap().event);
        let about = |event: &Event| matches!(event.number(), 128 | 129);
        entries.filter(about).collect()
    };
    let recovered = hub_core::Recovered {
        vault_key: [4; 8],
        recovery_key: [1; 8],
        operator: "uid 0".to_owned(),
    };
    let mut wanted = Vec::new();
    let mut before = None;
    for key in [None, Some([1; 8]), Some([2; 8]), None] {
        shop.settings.recovery_key = key;
        // A second start finds nothing to tell.
        shop.crash();
        shop.crash();
        if key != before {
            wanted.push(Event::RecoveryKeyChanged { key, old_key: before });
        }
        before = key;
        assert_eq!(told(&shop), wanted, "{key:?}");
        assert_eq!(shop.core.state().store().recovery_key, key);
    }
    shop.settings.recovered = Some(recovered);
    shop.crash();
    shop.crash();
    wanted.push(Event::StoreRecovered {
        vault_key: [4; 8],
        recovery_key: [1; 8],
        operator: "uid 0".to_owned(),
    });
    assert_eq!(told(&shop), wanted);
    assert_eq!(shop.core.state().store().vault_key, Some([4; 8]));
}
