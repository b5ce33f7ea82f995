//! A device changes its keys, and is the same device.
#![allow(missing_docs, clippy::panic)]

use ed25519_dalek::SigningKey;
use hub_core::{Input, ListToTake, OperatorCommand, OperatorReply, Reply};
use hub_protocol::{
    DeviceClass, DeviceId, DeviceKeyChange, DeviceList, Digest, Event, HubId, KeyId, ListedDevice,
    RefusalCode, Registration, cbor,
};

mod support;

use support::*;

fn public(seed: u8) -> [u8; 32] {
    SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes()
}

/// What stands in the place of a TLS key's SubjectPublicKeyInfo: the core
/// hashes it, and whether it is one is seen before.
fn spki(byte: u8) -> [u8; 91] {
    [byte; 91]
}

fn tls(byte: u8) -> Digest {
    Digest::of(&spki(byte))
}

fn own() -> DeviceId {
    DeviceId(tls(1).0)
}

fn other() -> DeviceId {
    DeviceId(tls(2).0)
}

fn change(shop: &Shop, number: u32, new: u8) -> DeviceKeyChange {
    let known = shop
        .core
        .state()
        .device(&own())
        .unwrap_or_else(|| panic!("enrolled"));
    DeviceKeyChange {
        hub: shop.settings.hub,
        device: own(),
        number,
        old_key: known.registration.signing_key,
        new_key: public(new),
        new_tls_key: spki(new),
        last_sequence: 7,
    }
}

/// The number of the change, or the refusal's code.
fn ask(shop: &mut Shop, change: &DeviceKeyChange) -> Result<u32, RefusalCode> {
    let ticket = shop.ticket();
    shop.input(Input::ChangeDeviceKeys {
        ticket,
        device: own(),
        change: Box::new(change.clone()),
        signed: vec![1],
    });
    match shop.replies.remove(&ticket) {
        Some(Reply::KeysChanged { number }) => Ok(number),
        Some(Reply::Refused(refusal)) => Err(refusal.code),
        other => panic!("an answer expected, not {other:?}"),
    }
}

fn shop() -> Shop {
    let mut shop = Shop::online();
    shop.enrol(own(), DeviceClass::Softpos);
    shop.enrol(other(), DeviceClass::Softpos);
    shop
}

fn head(shop: &Shop) -> u64 {
    shop.core.state().head().sequence
}

#[test]
fn a_change_of_a_devices_keys_is_taken_once_and_only_if_it_follows_the_present_keys() {
    let mut shop = shop();
    let good = change(&shop, 1, 50);
    let others = shop
        .core
        .state()
        .device(&other())
        .unwrap()
        .registration
        .signing_key;
    let with = |edit: fn(&mut DeviceKeyChange)| {
        let mut bad = good.clone();
        edit(&mut bad);
        bad
    };
    let other_key = DeviceKeyChange {
        new_key: others,
        ..good.clone()
    };
    for (bad, code) in [
        (with(|c| c.hub = HubId([9; 32])), RefusalCode::FieldMalformed),
        (with(|c| c.device = other()), RefusalCode::FieldMalformed),
        (with(|c| c.number = 2), RefusalCode::KeysReplaced),
        (with(|c| c.number = 0), RefusalCode::KeysReplaced),
        (with(|c| c.old_key = public(60)), RefusalCode::KeysReplaced),
        (with(|c| c.new_key = c.old_key), RefusalCode::EnrolledAlready),
        (with(|c| c.new_tls_key = spki(2)), RefusalCode::EnrolledAlready),
        (with(|c| c.new_tls_key = spki(1)), RefusalCode::EnrolledAlready),
        (other_key, RefusalCode::EnrolledAlready),
    ] {
        let before = head(&shop);
        assert_eq!(ask(&mut shop, &bad), Err(code), "{bad:?}");
        assert_eq!(head(&shop), before, "nothing is written");
    }
    assert_eq!(ask(&mut shop, &good), Ok(1));
    let before = head(&shop);
    assert_eq!(ask(&mut shop, &good), Ok(1), "its answer was lost");
    assert_eq!(head(&shop), before, "and nothing is written twice");
    let more = DeviceKeyChange {
        last_sequence: 9,
        ..good.clone()
    };
    assert_eq!(ask(&mut shop, &more), Ok(1), "it has signed more meanwhile");
    shop.input(Input::DeviceKeysUsed {
        device: own(),
        old: false,
    });
    let still_more = DeviceKeyChange {
        last_sequence: 99,
        ..good
    };
    ask(&mut shop, &still_more).unwrap();
    shop.crash();
    let known = shop.core.state().device(&own()).unwrap();
    let keys = known.keys.as_deref().unwrap();
    assert_eq!((known.registration.signing_key, keys.tls), (public(50), tls(50)));
    assert!(keys.settled);
    assert_eq!(keys.before.len(), 1);
    assert_eq!(keys.before[0].tls, Digest(own().0));
    assert_eq!(keys.before[0].last_sequence, 9, "not once the new key was used");
}

#[test]
fn rule_4_a_change_of_keys_resets_nothing_that_is_kept_of_a_device() {
    let mut shop = Shop::offline();
    shop.enrol(own(), DeviceClass::Softpos);
    for number in 1..=3 {
        let request = request(number, 1_000, "tok_1");
        shop.pay(own(), &request);
    }
    let before = shop.core.state().device(&own()).unwrap().clone();
    assert!(
        before.subject.unsettled > 0 && before.waiting > 0,
        "something is at risk"
    );
    for (number, key) in [(1, 50), (2, 51)] {
        let change = change(&shop, number, key);
        assert_eq!(ask(&mut shop, &change), Ok(number));
        shop.input(Input::DeviceKeysUsed {
            device: own(),
            old: false,
        });
    }
    let mut after = shop.core.state().device(&own()).unwrap().clone();
    assert_eq!(after.keys.take().unwrap().number, 2);
    assert_eq!(after.registration.signing_key, public(51));
    after.registration.signing_key = before.registration.signing_key;
    assert_eq!(after, before, "all else is as it was");
}

#[test]
fn rule_4_a_device_does_not_enrol_anew_with_keys_that_it_has_or_had() {
    let mut shop = shop();
    let first = shop.core.state().device(&own()).unwrap().registration.clone();
    let good = change(&shop, 1, 50);
    ask(&mut shop, &good).unwrap();
    let enrol = |shop: &mut Shop, registration: Registration| {
        let ticket = shop.ticket();
        shop.input(Input::Enrol {
            ticket,
            registration: Box::new(registration),
        });
        match shop.replies.remove(&ticket) {
            Some(Reply::Refused(refusal)) => Some(refusal.code),
            _ => None,
        }
    };
    let with = |device: DeviceId, signing_key: [u8; 32]| Registration {
        device,
        signing_key,
        ..first.clone()
    };
    for (registration, what) in [
        (with(own(), first.signing_key), "both old keys"),
        (with(DeviceId(tls(50).0), public(50)), "both new keys"),
        (with(DeviceId(tls(50).0), public(70)), "the new TLS key"),
        (with(DeviceId([70; 32]), public(50)), "the new signing key"),
        (with(DeviceId([70; 32]), first.signing_key), "the old signing key"),
    ] {
        let refused = enrol(&mut shop, registration);
        assert_eq!(refused, Some(RefusalCode::EnrolledAlready), "{what}");
    }
    assert_eq!(enrol(&mut shop, with(DeviceId([70; 32]), public(70))), None);
}

#[test]
fn rule_4_a_block_outlives_a_change_of_keys_and_the_barred_change_none() {
    let mut shop = shop();
    let good = change(&shop, 1, 50);
    ask(&mut shop, &good).unwrap();
    assert_eq!(shop.operate(OperatorCommand::Block(own())), OperatorReply::Done);
    let next = change(&shop, 2, 51);
    assert_eq!(ask(&mut shop, &next), Err(RefusalCode::DeviceNotAllowed));
    shop.crash();
    assert!(shop.core.state().device(&own()).unwrap().blocked);
}

#[test]
fn old_keys_that_are_used_after_the_change_are_a_sign_of_a_copy_once_an_hour() {
    let mut shop = shop();
    let used = |shop: &mut Shop, old: bool| shop.input(Input::DeviceKeysUsed { device: own(), old });
    used(&mut shop, true);
    let good = change(&shop, 1, 50);
    ask(&mut shop, &good).unwrap();
    let before = head(&shop);
    used(&mut shop, true);
    assert_eq!(head(&shop), before, "its answer may have been lost");
    used(&mut shop, false);
    used(&mut shop, false);
    assert_eq!(head(&shop), before + 1, "settled, once");
    used(&mut shop, true);
    used(&mut shop, true);
    shop.pass(3_600_000);
    used(&mut shop, true);
    let told = shop.disk.iter().filter(|payload| {
        let entry: hub_protocol::Entry = cbor::decode(payload).unwrap();
        matches!(entry.event, Event::DeviceOldKeysUsed { device } if device == own())
    });
    assert_eq!(told.count(), 2);
    let signs = signs(&mut shop);
    assert!(matches!(signs[..], [hub_core::Sign::OldKeys(_)]), "{signs:?}");
}

fn signs(shop: &mut Shop) -> Vec<hub_core::Sign> {
    let OperatorReply::Standings(standings) = shop.operate(OperatorCommand::Standings) else {
        panic!("standings expected");
    };
    let standing = standings.into_iter().find(|one| one.device == own());
    standing.map(|one| one.signs).unwrap_or_default()
}

#[test]
fn old_keys_that_were_used_are_no_sign_any_more_once_a_person_has_looked() {
    let mut shop = shop();
    let good = change(&shop, 1, 50);
    ask(&mut shop, &good).unwrap();
    for old in [false, true] {
        shop.input(Input::DeviceKeysUsed { device: own(), old });
    }
    assert_eq!(signs(&mut shop).len(), 1);
    shop.operate(OperatorCommand::Block(own()));
    assert_eq!(signs(&mut shop).len(), 1, "blocked, but nobody answers for it");
    shop.operate(OperatorCommand::Unblock(own()));
    assert_eq!(signs(&mut shop), []);
    shop.crash();
    assert_eq!(signs(&mut shop), [], "after a restart neither");
    // Whoever has them still is told of again.
    shop.input(Input::DeviceKeysUsed {
        device: own(),
        old: true,
    });
    assert_eq!(signs(&mut shop).len(), 1);
}

#[test]
fn a_list_goes_on_naming_a_device_by_the_keys_that_it_was_enrolled_with() {
    let mut shop = shop();
    let first = shop.core.state().device(&own()).unwrap().registration.clone();
    let good = change(&shop, 1, 50);
    ask(&mut shop, &good).unwrap();
    let listed = |device: DeviceId, signing_key: [u8; 32], name: &str| ListedDevice {
        device,
        signing_key,
        class: first.class,
        name: name.to_owned(),
        model: first.model.clone(),
    };
    let take = |shop: &mut Shop, version: u64, devices: Vec<ListedDevice>| {
        let list = DeviceList {
            tenant: "demo".to_owned(),
            stores: vec!["*".to_owned()],
            version,
            not_before_ms: 0,
            expires_ms: u64::MAX,
            devices,
            revoked: Vec::new(),
        };
        let signed = cbor::encode(&list);
        shop.operate(OperatorCommand::TakeList(Box::new(ListToTake {
            list,
            signed,
            key: KeyId([7; 16]),
            hub_signing_key: [9; 32],
        })))
    };
    let mut version = 0;
    for (key, name) in [(first.signing_key, "Caisse A"), (public(50), "Caisse B")] {
        version += 1;
        let taken = take(&mut shop, version, vec![listed(own(), key, name)]);
        assert!(matches!(taken, OperatorReply::ListTaken(_)), "{taken:?}");
        let known = shop.core.state().device(&own()).unwrap();
        assert_eq!(known.registration.name, name);
        assert_eq!(
            known.registration.signing_key,
            public(50),
            "the old key is not brought back"
        );
        assert_eq!(known.keys.as_deref().unwrap().number, 1);
    }
    // Its new keys are no other device's.
    for (device, key) in [
        (DeviceId([70; 32]), public(50)),
        (DeviceId(tls(50).0), public(70)),
        (DeviceId([70; 32]), first.signing_key),
        (own(), public(70)),
    ] {
        version += 1;
        let taken = take(&mut shop, version, vec![listed(device, key, "Caisse C")]);
        let OperatorReply::ListTaken(changes) = taken else {
            panic!("{device} {taken:?}");
        };
        let passed_over: Vec<_> = changes.contradicted.iter().map(|line| line.known).collect();
        assert_eq!(passed_over, [own()], "{device}");
        // It lets nobody in, and the device's own keys in another's line are
        // no reason to stay.
        let names: Vec<_> = shop
            .core
            .state()
            .devices()
            .map(|known| known.registration.name.as_str())
            .collect();
        assert!(
            names.contains(&"Caisse B") && !names.contains(&"Caisse C"),
            "{names:?}"
        );
        let known = shop.core.state().device(&own()).unwrap();
        assert_eq!(known.registration.signing_key, public(50));
        assert!(known.admission.as_deref().unwrap().shut_out.is_some());
    }
}
