//! Enrolling in number, headquarters' list, replacement, and who is who.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use ed25519_dalek::SigningKey;
use hub_core::state::State;
use hub_core::{
    Input, Joining, ListChanges, ListToTake, OperatorCommand, OperatorReply, Reply, Sign, Standing,
};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::Event;
use hub_protocol::{
    DeviceClass, DeviceId, DeviceList, Digest, Entry, KeyId, ListedDevice, RefusalCode, Registration,
    Restriction, cbor,
};
use support::wallet::{Wallet, policy};
use support::{MPOS, NOON_MS, SOFTPOS, Shop, payment_id, registration, request};

const NEW: DeviceId = DeviceId([11; 32]);
const OTHER: DeviceId = DeviceId([12; 32]);
const THIRD: DeviceId = DeviceId([13; 32]);
const TOKEN: Digest = Digest([0x46; 32]);
const HOUR_MS: u64 = 3_600_000;

fn make_token(shop: &mut Shop, most: u32, valid_ms: u64) -> OperatorReply {
    shop.operate(OperatorCommand::MakeFleetToken {
        token: TOKEN,
        class: DeviceClass::Softpos,
        most,
        valid_ms,
    })
}

fn join(shop: &mut Shop, device: DeviceId, joining: Joining) -> Result<DeviceClass, RefusalCode> {
    let ticket = shop.ticket();
    let mut asked = registration(device, DeviceClass::Terminal);
    asked.name = "Neu".to_owned();
    shop.input(Input::Join {
        ticket,
        registration: Box::new(asked),
        joining,
    });
    match shop.replies.remove(&ticket) {
        Some(Reply::Registered(registration)) => Ok(registration.class),
        Some(Reply::Refused(refusal)) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

fn by_token(shop: &mut Shop, device: DeviceId) -> Result<DeviceClass, RefusalCode> {
    join(shop, device, Joining::Fleet(TOKEN))
}

fn replacing(device: DeviceId, lost: bool) -> Joining {
    Joining::Replacing {
        device,
        lost,
        operator: "anna".to_owned(),
    }
}

fn pays(shop: &mut Shop, device: DeviceId, number: u64) -> Result<bool, RefusalCode> {
    let ticket = shop.send(device, &request(number, 100, &format!("card {number}")));
    match shop.replies.remove(&ticket) {
        Some(Reply::Receipt(receipt)) => Ok(receipt.decision.approved()),
        Some(Reply::Refused(refusal)) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

fn listed(device: DeviceId) -> ListedDevice {
    ListedDevice {
        device,
        signing_key: support::device_key(device).verifying_key().to_bytes(),
        class: DeviceClass::Mpos,
        name: format!("Liste {}", device.0[0]),
        model: "HQ 1".to_owned(),
    }
}

fn list(version: u64, devices: &[DeviceId], revoked: &[DeviceId]) -> DeviceList {
    DeviceList {
        tenant: "demo".to_owned(),
        stores: vec!["shop-001".to_owned()],
        version,
        not_before_ms: NOON_MS - HOUR_MS,
        expires_ms: NOON_MS + 100 * HOUR_MS,
        devices: devices.iter().copied().map(listed).collect(),
        revoked: revoked.to_vec(),
    }
}

fn take(shop: &mut Shop, list: DeviceList) -> Result<ListChanges, String> {
    take_by(shop, &SigningKey::from_bytes(&[50; 32]), list)
}

fn take_by(shop: &mut Shop, key: &SigningKey, list: DeviceList) -> Result<ListChanges, String> {
    let signed = cose::sign(key, ObjectType::DeviceList, &cbor::encode(&list));
    let key = KeyId::of_key(key.verifying_key().as_bytes());
    let hub_signing_key = [8; 32];
    match shop.operate(OperatorCommand::TakeList(Box::new(ListToTake {
        list,
        signed,
        key,
        hub_signing_key,
    }))) {
        OperatorReply::ListTaken(changes) => Ok(changes),
        OperatorReply::Refused(text) => Err(text),
        other => panic!("{other:?}"),
    }
}

fn standing(shop: &mut Shop, device: DeviceId) -> Standing {
    match shop.operate(OperatorCommand::Standings) {
        OperatorReply::Standings(all) => all.into_iter().find(|one| one.device == device).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn events(shop: &Shop) -> Vec<Event> {
    let entries = shop.disk.iter();
    entries
        .map(|entry| cbor::decode::<Entry>(entry).unwrap().event)
        .collect()
}

#[test]
fn rule_5_a_device_that_came_by_a_fleets_token_is_pending_until_somebody_approves_it() {
    let mut shop = Shop::offline();
    assert_eq!(make_token(&mut shop, 2, 24 * HOUR_MS), OperatorReply::Done);
    shop.crash();
    assert_eq!(
        by_token(&mut shop, NEW),
        Ok(DeviceClass::Softpos),
        "not what it says of itself"
    );
    for restart in [false, true] {
        if restart {
            shop.crash();
        }
        assert_eq!(pays(&mut shop, NEW, 1), Err(RefusalCode::DevicePending));
        let asked = shop.status(NEW, payment_id(1));
        assert_eq!(shop.refusal(asked).code, RefusalCode::DevicePending);
        let voided = shop.void(NEW, payment_id(1));
        assert_eq!(shop.refusal(voided).code, RefusalCode::DevicePending);
        let allowance = shop.ask_allowance(NEW, None);
        assert_eq!(shop.refusal(allowance).code, RefusalCode::DevicePending);
    }
    assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
    assert!(standing(&mut shop, NEW).pending);
    assert_eq!(shop.operate(OperatorCommand::Approve(NEW)), OperatorReply::Done);
    assert_eq!(pays(&mut shop, NEW, 1), Ok(true));
    shop.crash();
    assert_eq!(pays(&mut shop, NEW, 2), Ok(true));
    assert!(matches!(
        shop.operate(OperatorCommand::Approve(NEW)),
        OperatorReply::Refused(_)
    ));
    let approved = Event::DeviceApproved {
        device: NEW,
        operator: Some("anna".to_owned()),
        list: None,
    };
    assert!(events(&shop).contains(&approved));
}

#[test]
fn a_blocked_device_is_not_approved_and_a_pending_one_can_be_blocked() {
    let mut shop = Shop::offline();
    make_token(&mut shop, 2, HOUR_MS);
    by_token(&mut shop, NEW).unwrap();
    shop.operate(OperatorCommand::Block(NEW));
    assert!(matches!(
        shop.operate(OperatorCommand::Approve(NEW)),
        OperatorReply::Refused(_)
    ));
    assert_eq!(pays(&mut shop, NEW, 1), Err(RefusalCode::DeviceNotAllowed));
    shop.operate(OperatorCommand::Unblock(NEW));
    assert_eq!(
        pays(&mut shop, NEW, 1),
        Err(RefusalCode::DevicePending),
        "nobody has approved it"
    );
}

#[test]
fn a_fleets_token_is_bounded_by_count_and_time_can_be_withdrawn_and_survives_a_restart() {
    let mut shop = Shop::offline();
    make_token(&mut shop, 1, HOUR_MS);
    assert_eq!(by_token(&mut shop, NEW), Ok(DeviceClass::Softpos));
    shop.crash();
    assert_eq!(
        by_token(&mut shop, OTHER),
        Err(RefusalCode::EnrolmentUnknown),
        "used up"
    );
    assert_eq!(
        by_token(&mut shop, NEW),
        Ok(DeviceClass::Softpos),
        "its answer was lost"
    );
    assert!(shop.core.state().device(&OTHER).is_none());
    take(&mut shop, list(1, &[OTHER], &[])).unwrap();
    assert_eq!(
        by_token(&mut shop, OTHER),
        Ok(DeviceClass::Mpos),
        "on the list: it fetches its registration"
    );
    let OperatorReply::Fleet { tokens, .. } = shop.operate(OperatorCommand::Fleet) else {
        panic!("no tokens");
    };
    assert_eq!(tokens[0].used, 1);

    let mut shop = Shop::offline();
    make_token(&mut shop, 9, HOUR_MS);
    shop.pass(HOUR_MS - 1);
    assert!(by_token(&mut shop, NEW).is_ok());
    shop.pass(1);
    assert_eq!(by_token(&mut shop, OTHER), Err(RefusalCode::EnrolmentExpired));

    let mut shop = Shop::offline();
    make_token(&mut shop, 9, HOUR_MS);
    assert_eq!(
        shop.operate(OperatorCommand::WithdrawFleetToken(TOKEN)),
        OperatorReply::Done
    );
    shop.crash();
    assert_eq!(by_token(&mut shop, NEW), Err(RefusalCode::EnrolmentUnknown));
    assert!(matches!(
        shop.operate(OperatorCommand::WithdrawFleetToken(TOKEN)),
        OperatorReply::Refused(_)
    ));
}

#[test]
fn no_token_is_for_too_many_too_long_or_one_of_too_many() {
    let mut shop = Shop::offline();
    for (most, valid_ms) in [
        (0, HOUR_MS),
        (501, HOUR_MS),
        (1, 59_999),
        (1, 30 * 24 * HOUR_MS + 1),
    ] {
        assert!(matches!(
            make_token(&mut shop, most, valid_ms),
            OperatorReply::Refused(_)
        ));
    }
    let token = |number: u8| OperatorCommand::MakeFleetToken {
        token: Digest([number; 32]),
        class: DeviceClass::Mpos,
        most: 1,
        valid_ms: HOUR_MS,
    };
    for number in 0..8 {
        assert_eq!(shop.operate(token(number)), OperatorReply::Done);
    }
    assert!(matches!(shop.operate(token(8)), OperatorReply::Refused(_)));
    shop.pass(HOUR_MS);
    assert_eq!(
        shop.operate(token(8)),
        OperatorReply::Done,
        "the others have expired"
    );
    assert_eq!(shop.core.state().fleet().tokens.len(), 1);
}

#[test]
fn headquarters_list_enrols_approves_and_shuts_out_and_a_restart_changes_nothing() {
    let mut shop = Shop::offline();
    make_token(&mut shop, 9, HOUR_MS);
    by_token(&mut shop, NEW).unwrap();
    let changes = take(&mut shop, list(1, &[NEW, OTHER], &[])).unwrap();
    assert_eq!(
        (changes.enrolled, changes.approved, changes.shut_out),
        (1, 1, 0),
        "one waited, and has another class by the list"
    );
    for device in [NEW, OTHER] {
        assert_eq!(
            pays(&mut shop, device, u64::from(device.0[0])),
            Ok(true),
            "nobody was at the hub"
        );
        let class = shop.core.state().device(&device).unwrap().registration.class;
        assert_eq!(class, DeviceClass::Mpos, "what headquarters says");
    }
    assert_eq!(pays(&mut shop, MPOS, 3), Ok(true), "it was enrolled at the hub");
    // Left out, and revoked although it was enrolled at the hub.
    let changes = take(&mut shop, list(2, &[OTHER], &[MPOS])).unwrap();
    assert_eq!((changes.enrolled, changes.approved, changes.shut_out), (0, 0, 2));
    for restart in [false, true] {
        if restart {
            shop.crash();
        }
        assert_eq!(pays(&mut shop, NEW, 4), Err(RefusalCode::DeviceNotAllowed));
        assert_eq!(pays(&mut shop, MPOS, 5), Err(RefusalCode::DeviceNotAllowed));
        assert_eq!(pays(&mut shop, SOFTPOS, 60 + u64::from(restart)), Ok(true));
    }
    for device in [NEW, MPOS] {
        for command in [OperatorCommand::Unblock(device), OperatorCommand::Approve(device)] {
            assert!(matches!(shop.operate(command), OperatorReply::Refused(_)));
        }
    }
    // It is let in again only by a later list.
    let changes = take(&mut shop, list(3, &[NEW, OTHER], &[])).unwrap();
    assert_eq!((changes.enrolled, changes.approved, changes.shut_out), (0, 1, 0));
    assert_eq!(pays(&mut shop, NEW, 4), Ok(true));
    assert_eq!(pays(&mut shop, MPOS, 5), Err(RefusalCode::DeviceNotAllowed));
}

#[test]
fn a_block_at_the_hub_wins_over_every_list() {
    let mut shop = Shop::offline();
    take(&mut shop, list(1, &[NEW], &[])).unwrap();
    shop.operate(OperatorCommand::Block(NEW));
    for version in [2, 3] {
        let changes = take(&mut shop, list(version, &[NEW], &[])).unwrap();
        assert_eq!(changes.blocked, 1);
        assert_eq!(pays(&mut shop, NEW, 1), Err(RefusalCode::DeviceNotAllowed));
        shop.crash();
    }
    // By another name: the registration is new, the block is not.
    let mut renamed = list(4, &[NEW], &[]);
    renamed.devices[0].name = "Autre".to_owned();
    take(&mut shop, renamed).unwrap();
    assert_eq!(pays(&mut shop, NEW, 1), Err(RefusalCode::DeviceNotAllowed));
    shop.operate(OperatorCommand::Unblock(NEW));
    assert_eq!(pays(&mut shop, NEW, 1), Ok(true));
}

#[test]
fn a_revoked_device_that_is_not_enrolled_cannot_enrol() {
    let mut shop = Shop::offline();
    take(&mut shop, list(1, &[], &[NEW])).unwrap();
    shop.crash();
    make_token(&mut shop, 9, HOUR_MS);
    assert_eq!(by_token(&mut shop, NEW), Err(RefusalCode::DeviceNotAllowed));
    shop.enrol(NEW, DeviceClass::Mpos);
    assert!(shop.core.state().device(&NEW).is_none());
}

#[test]
fn a_list_is_judged_whole_before_it_changes_anything_and_never_an_older_one() {
    let mut shop = Shop::offline();
    let first = list(5, &[NEW], &[]);
    take(&mut shop, first.clone()).unwrap();
    let before = shop.core.state().head();
    assert_eq!(take(&mut shop, first).unwrap().enrolled, 0, "the same again");
    let spoilt = |spoil: &dyn Fn(&mut DeviceList)| {
        let mut list = list(6, &[NEW, OTHER], &[]);
        spoil(&mut list);
        list
    };
    for (wrong, expected) in [
        (spoilt(&|l| l.version = 5), "not newer"),
        (spoilt(&|l| l.version = 4), "not newer"),
        (
            spoilt(&|l| l.stores = vec!["shop-002".to_owned()]),
            "not for this store",
        ),
        (spoilt(&|l| l.tenant = "else".to_owned()), "another tenant"),
        (spoilt(&|l| l.expires_ms = NOON_MS), "expired"),
        (
            spoilt(&|l| l.not_before_ms = NOON_MS + HOUR_MS),
            "not in force yet",
        ),
        (spoilt(&|l| l.devices.push(listed(NEW))), "twice"),
    ] {
        let text = take(&mut shop, wrong).unwrap_err();
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(shop.core.state().head(), before, "nothing was written");
    assert!(shop.core.state().device(&OTHER).is_none());
}

/// One phone with other keys than device management knows must not keep a
/// stolen one in.
#[test]
fn rule_5_a_line_that_contradicts_the_hub_is_passed_over_and_the_rest_of_the_list_holds() {
    let mut shop = Shop::offline();
    take(&mut shop, list(1, &[NEW, SOFTPOS], &[])).unwrap();
    make_token(&mut shop, 9, HOUR_MS);
    by_token(&mut shop, STRANGE).unwrap();
    let mut second = list(2, &[NEW, STRANGE, OTHER, THIRD], &[SOFTPOS]);
    second.devices[2].signing_key = listed(MPOS).signing_key;
    for (line, seed) in [(0, 0x21), (1, 0x22)] {
        let other = SigningKey::from_bytes(&[seed; 32]);
        second.devices[line].signing_key = other.verifying_key().to_bytes();
    }
    for again in [false, true] {
        let changes = take(&mut shop, second.clone()).unwrap();
        let lines: Vec<_> = changes
            .contradicted
            .iter()
            .map(|line| (line.listed, line.known))
            .collect();
        assert_eq!(lines, [(NEW, NEW), (OTHER, MPOS), (STRANGE, STRANGE)]);
        let made = (
            changes.enrolled,
            changes.approved,
            changes.changed,
            changes.shut_out,
        );
        assert_eq!(made, if again { (0, 0, 0, 0) } else { (1, 0, 0, 1) });
        shop.crash();
        // The one that had to go is gone, and the new one is in.
        assert_eq!(pays(&mut shop, SOFTPOS, 1), Err(RefusalCode::DeviceNotAllowed));
        assert_eq!(pays(&mut shop, THIRD, 2 + u64::from(again)), Ok(true));
        // Whom the lines mean stays as it was: in, waiting, unknown.
        assert_eq!(pays(&mut shop, NEW, 4 + u64::from(again)), Ok(true));
        assert_eq!(pays(&mut shop, STRANGE, 6), Err(RefusalCode::DevicePending));
        assert!(shop.core.state().device(&OTHER).is_none());
        assert_eq!(shop.core.state().fleet().list_left, None);
    }
    // Such a line is no shield: who is revoked beside it goes.
    let mut third = list(3, &[OTHER], &[MPOS]);
    third.devices[0].signing_key = listed(MPOS).signing_key;
    assert_eq!(
        take(&mut shop, third).unwrap().shut_out,
        3,
        "and two that it leaves out"
    );
    assert_eq!(pays(&mut shop, MPOS, 7), Err(RefusalCode::DeviceNotAllowed));
}

/// Wherever the power fails between the entries of a list.
#[test]
fn rules_2_and_5_a_list_that_a_power_failure_cut_off_is_finished_by_applying_it_again() {
    let whole = || {
        let mut shop = Shop::offline();
        take(&mut shop, list(1, &[STRANGE], &[])).unwrap();
        make_token(&mut shop, 9, HOUR_MS);
        by_token(&mut shop, NEW).unwrap();
        let before = shop.disk.len();
        (shop, before)
    };
    let second = || list(2, &[NEW, OTHER], &[MPOS]);
    let left = |shop: &mut Shop| match shop.operate(OperatorCommand::Fleet) {
        OperatorReply::Fleet { list_left, .. } => list_left,
        other => panic!("{other:?}"),
    };
    let (mut shop, before) = whole();
    take(&mut shop, second()).unwrap();
    let entries = shop.disk.len() - before;
    assert_eq!(entries, 5, "the list and four devices");
    for kept in 1..=entries {
        let (mut shop, before) = whole();
        take(&mut shop, second()).unwrap();
        shop.disk.truncate(before + kept);
        shop.crash();
        let missing = entries - kept;
        assert_eq!(left(&mut shop), u32::try_from(missing).unwrap(), "{kept}");
        let changes = take(&mut shop, second()).unwrap();
        assert_eq!(changes.enrolled + changes.approved + changes.shut_out, missing);
        for restart in [false, true] {
            if restart {
                shop.crash();
            }
            assert_eq!(left(&mut shop), 0);
            for (device, number) in [(NEW, 1), (OTHER, 2)] {
                let number = 10 * number + u64::from(restart);
                assert_eq!(pays(&mut shop, device, number), Ok(true), "{kept}");
            }
            for device in [MPOS, STRANGE] {
                assert_eq!(
                    pays(&mut shop, device, 3),
                    Err(RefusalCode::DeviceNotAllowed),
                    "{kept}"
                );
            }
        }
        let taken = |event: &Event| matches!(event, Event::DeviceListTaken { version: 2, .. });
        assert_eq!(events(&shop).iter().filter(|event| taken(event)).count(), 1);
        let head = shop.core.state().head();
        take(&mut shop, second()).unwrap();
        assert_eq!(shop.core.state().head(), head, "nothing twice");
    }
}

/// The technician helps himself while the list is half done.
#[test]
fn rules_2_and_5_a_list_that_a_power_failure_cut_off_has_nothing_left_once_its_device_came_by_hand() {
    let mut shop = Shop::offline();
    let other_keys = || {
        let mut list = list(1, &[NEW, OTHER], &[]);
        let key = SigningKey::from_bytes(&[0x21; 32]);
        list.devices[1].signing_key = key.verifying_key().to_bytes();
        list
    };
    let before = shop.disk.len();
    take(&mut shop, other_keys()).unwrap();
    shop.disk.truncate(before + 2);
    shop.crash();
    assert_eq!(shop.core.state().fleet().list_left, Some(1));
    shop.enrol(OTHER, DeviceClass::Mpos);
    for again in [false, true] {
        let head = shop.core.state().head();
        let changes = take(&mut shop, other_keys()).unwrap();
        assert_eq!((changes.enrolled, changes.contradicted.len()), (0, 1));
        assert_eq!(shop.core.state().head() == head, again, "said once");
        shop.crash();
        assert_eq!(shop.core.state().fleet().list_left, None);
    }
    assert_eq!(pays(&mut shop, OTHER, 1), Ok(true));
}

const STRANGE: DeviceId = DeviceId([77; 32]);

#[test]
fn a_replacement_blocks_the_old_device_in_the_same_entry_and_keeps_its_exposure() {
    let mut shop = Shop::offline();
    assert_eq!(pays(&mut shop, MPOS, 1), Ok(true));
    let class = join(&mut shop, NEW, replacing(MPOS, false));
    assert_eq!(class, Ok(DeviceClass::Mpos), "the old one's");
    for restart in [false, true] {
        if restart {
            shop.crash();
        }
        let state = shop.core.state();
        let (old, new) = (state.device(&MPOS).unwrap(), state.device(&NEW).unwrap());
        assert!(old.blocked && !new.blocked && !new.pending());
        assert_eq!((old.subject.exposure_minor, new.subject.exposure_minor), (100, 0));
        assert_eq!(new.registration.name, old.registration.name);
        assert_eq!(pays(&mut shop, MPOS, 2), Err(RefusalCode::DeviceNotAllowed));
    }
    assert_eq!(pays(&mut shop, NEW, 3), Ok(true));
    let found = events(&shop);
    assert!(found.iter().any(|event| matches!(
        event,
        Event::DeviceReplaced {
            replaces: MPOS,
            lost: false,
            ..
        }
    )));
    assert!(
        !found
            .iter()
            .any(|event| matches!(event, Event::DeviceBlocked { .. })),
        "one entry"
    );
    let old = standing(&mut shop, MPOS).replaced.unwrap();
    assert_eq!((old.by, old.lost), (NEW, false));
    assert_eq!(standing(&mut shop, NEW).replaces, Some(MPOS));
    assert_eq!(
        join(&mut shop, NEW, replacing(NEW, false)),
        Err(RefusalCode::EnrolledAlready)
    );
    assert_eq!(
        join(&mut shop, OTHER, replacing(STRANGE, false)),
        Err(RefusalCode::EnrolmentUnknown)
    );
}

#[test]
fn rule_5_a_code_that_replaces_a_device_never_succeeds_without_shutting_it_out() {
    // The phone came by a fleet's code first.
    let mut shop = Shop::offline();
    make_token(&mut shop, 9, HOUR_MS);
    by_token(&mut shop, NEW).unwrap();
    assert_eq!(
        join(&mut shop, NEW, replacing(MPOS, false)),
        Ok(DeviceClass::Mpos),
        "the old one's class"
    );
    for restart in [false, true] {
        if restart {
            shop.crash();
        }
        let number = 20 + u64::from(restart);
        assert_eq!(pays(&mut shop, MPOS, number), Err(RefusalCode::DeviceNotAllowed));
        assert_eq!(pays(&mut shop, NEW, 10 + number), Ok(true));
        let head = shop.core.state().head().sequence;
        let again = join(&mut shop, NEW, replacing(MPOS, false));
        assert_eq!(again, Ok(DeviceClass::Mpos), "its answer was lost");
        assert_eq!(shop.core.state().head().sequence, head);
    }
    // It is in: nobody is told that it has another's place besides.
    assert_eq!(
        join(&mut shop, NEW, replacing(SOFTPOS, true)),
        Err(RefusalCode::EnrolledAlready)
    );
    let mut shop = Shop::offline();
    assert_eq!(
        join(&mut shop, SOFTPOS, replacing(MPOS, true)),
        Err(RefusalCode::EnrolledAlready)
    );
    assert!(!shop.core.state().device(&MPOS).unwrap().blocked);
}

#[test]
fn a_pending_device_is_let_in_by_a_code_of_its_own_unless_it_is_blocked() {
    let mut shop = Shop::offline();
    make_token(&mut shop, 9, HOUR_MS);
    for device in [NEW, OTHER] {
        by_token(&mut shop, device).unwrap();
    }
    shop.operate(OperatorCommand::Block(OTHER));
    for device in [NEW, OTHER] {
        shop.enrol(device, DeviceClass::Terminal);
    }
    for restart in [false, true] {
        if restart {
            shop.crash();
        }
        let number = 1 + u64::from(restart);
        assert_eq!(pays(&mut shop, NEW, number), Ok(true));
        assert_eq!(pays(&mut shop, OTHER, 5), Err(RefusalCode::DeviceNotAllowed));
        assert!(standing(&mut shop, OTHER).pending);
    }
    let class = shop.core.state().device(&NEW).unwrap().registration.class;
    assert_eq!(class, DeviceClass::Terminal, "the code's");
}

#[test]
fn strangers_who_wait_to_be_approved_restrict_nobody_but_themselves() {
    let rules = "[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 10\n\
                 [anomaly.bad_signatures]\ncount = 3\nwithin_minutes = 10\npoints = 20\n\
                 [anomaly.store]\nwarn = 5\ntighten = 10\nstop = 20\n";
    let text = format!("{}\n{rules}", support::POLICY);
    let mut shop = Shop::offline_under(&text);
    make_token(&mut shop, 9, HOUR_MS);
    let strangers = [NEW, OTHER, STRANGE];
    for device in strangers {
        by_token(&mut shop, device).unwrap();
    }
    shop.operate(OperatorCommand::Block(STRANGE));
    let before = shop.core.state().head().sequence;
    for device in strangers {
        for _ in 0..100 {
            shop.input(Input::BadSignature { device });
        }
    }
    assert_eq!(shop.core.state().head().sequence, before);
    for device in strangers {
        for _ in 0..100 {
            shop.input(Input::CardNumber { device });
        }
    }
    for restart in [false, true] {
        if restart {
            shop.crash();
        }
        let alert = shop.core.state().alert();
        assert_eq!(alert.restriction, Restriction::None);
        assert_eq!(pays(&mut shop, MPOS, 1 + u64::from(restart)), Ok(true));
    }
    // The same of a device that is in is looked at.
    for _ in 0..3 {
        shop.input(Input::BadSignature { device: MPOS });
    }
    assert_ne!(shop.core.state().alert().restriction, Restriction::None);
}

#[test]
fn strangers_who_wait_to_be_approved_take_no_place_from_the_shops_devices() {
    // Two of the tests' devices are in.
    let mut shop = Shop::offline_with(support::POLICY, |settings| settings.max_devices = 4);
    make_token(&mut shop, 500, 24 * HOUR_MS);
    let stranger = |number: u8| DeviceId([number; 32]);
    let first = 30;
    for number in 0..200 {
        assert!(by_token(&mut shop, stranger(first + number)).is_ok(), "{number}");
    }
    shop.crash();
    assert_eq!(by_token(&mut shop, NEW), Err(RefusalCode::Busy));
    assert!(by_token(&mut shop, stranger(first)).is_ok(), "it is in already");
    // The shop's own come in all the same, by each way.
    shop.enrol(OTHER, DeviceClass::Mpos);
    assert_eq!(pays(&mut shop, OTHER, 1), Ok(true));
    take(&mut shop, list(1, &[DeviceId([20; 32])], &[])).unwrap();
    // A line that is passed over takes no place either.
    let mut passed_over = list(2, &[DeviceId([20; 32]), stranger(first)], &[]);
    let other = SigningKey::from_bytes(&[0xf1; 32]);
    passed_over.devices[1].signing_key = other.verifying_key().to_bytes();
    assert_eq!(take(&mut shop, passed_over).unwrap().contradicted.len(), 1);
    // And no more than the hub takes, by any way.
    let text = take(&mut shop, list(3, &[DeviceId([20; 32]), stranger(first)], &[])).unwrap_err();
    assert!(text.contains("than this hub takes"), "{text}");
    let approve = OperatorCommand::Approve(stranger(first));
    assert!(matches!(shop.operate(approve.clone()), OperatorReply::Refused(_)));
    shop.enrol(stranger(first), DeviceClass::Mpos);
    assert!(standing(&mut shop, stranger(first)).pending);
    shop.settings.max_devices = 5;
    shop.crash();
    assert_eq!(shop.operate(approve), OperatorReply::Done);
    shop.settings.max_devices = 9;
    shop.crash();
    // One is approved, and its place is free; another is blocked.
    assert!(by_token(&mut shop, NEW).is_ok());
    assert_eq!(by_token(&mut shop, NEXT), Err(RefusalCode::Busy));
    shop.operate(OperatorCommand::Block(stranger(first + 1)));
    shop.crash();
    assert!(by_token(&mut shop, NEXT).is_ok());
}

const NEXT: DeviceId = DeviceId([13; 32]);

#[test]
fn rule_4_only_a_lost_device_frees_what_is_kept_back_for_its_allowance() {
    for lost in [false, true] {
        let mut shop = Shop::offline_under(&policy());
        Wallet::new(MPOS).ask(&mut shop).unwrap();
        let kept_back = shop.core.state().store().at_risk().exposure_minor;
        assert!(kept_back > 0);
        join(&mut shop, NEW, replacing(MPOS, lost)).unwrap();
        let left = shop.core.state().store().at_risk().exposure_minor;
        assert_eq!(left, if lost { 0 } else { kept_back });
    }
}

#[test]
fn a_reset_device_is_told_by_its_name_from_a_copied_one_told_by_its_keys() {
    let mut shop = Shop::offline();
    let enrol = |shop: &mut Shop, registration: Registration| {
        let ticket = shop.ticket();
        shop.input(Input::Enrol {
            ticket,
            registration: Box::new(registration),
        });
    };
    // All of the tests' devices have one name and model, but for these two.
    let other_name = Registration {
        name: "Caisse 9".to_owned(),
        ..registration(OTHER, DeviceClass::Mpos)
    };
    let other_model = Registration {
        model: "HQ 9".to_owned(),
        ..registration(NEXT, DeviceClass::Mpos)
    };
    enrol(&mut shop, other_name);
    enrol(&mut shop, other_model);
    shop.pass(1_000);
    let mut again = registration(NEW, DeviceClass::Mpos);
    again.enrolled_ms += 1_000;
    enrol(&mut shop, again);
    assert_eq!(standing(&mut shop, NEW).like_older, [MPOS, SOFTPOS]);
    assert_eq!(standing(&mut shop, NEW).like_newer, []);
    assert!(standing(&mut shop, MPOS).like_newer.contains(&NEW));
    assert_eq!(standing(&mut shop, NEW).signs, []);
    assert_eq!(pays(&mut shop, MPOS, 1), Ok(true), "nothing happens by itself");
    // The same keys from two places.
    for _ in 0..2 {
        shop.input(Input::TwoPlaces {
            device: MPOS,
            returns: 3,
        });
    }
    shop.crash();
    let signs = standing(&mut shop, MPOS).signs;
    assert!(matches!(signs[..], [Sign::TwoPlaces(_)]), "{signs:?}");
    let said = events(&shop);
    let said = said
        .iter()
        .filter(|event| matches!(event, Event::DeviceInTwoPlaces { .. }));
    assert_eq!(said.count(), 1, "once an hour");
    shop.operate(OperatorCommand::Block(MPOS));
    shop.operate(OperatorCommand::Unblock(MPOS));
    assert_eq!(standing(&mut shop, MPOS).signs, [], "a person has looked");
}

#[test]
fn what_is_remembered_of_fleets_comes_back_from_the_index_and_is_never_too_large_for_it() {
    let mut shop = Shop::offline();
    for number in 0..8 {
        let made = shop.operate(OperatorCommand::MakeFleetToken {
            token: Digest([number; 32]),
            class: DeviceClass::Mpos,
            most: 500,
            valid_ms: HOUR_MS,
        });
        assert_eq!(made, OperatorReply::Done);
    }
    let revoked: Vec<_> = (0..128).map(|number| DeviceId([100 + number; 32])).collect();
    for version in 1..=20 {
        let key = SigningKey::from_bytes(&[u8::try_from(version).unwrap(); 32]);
        take_by(&mut shop, &key, list(version, &[NEW], &revoked)).unwrap();
    }
    join(&mut shop, OTHER, replacing(MPOS, true)).unwrap();
    let folded = shop.core.state().clone();
    let mut restored = State::default();
    for (key, value) in shop.core.state_mut().take_dirty() {
        let value = value.unwrap_or_default();
        // MAX_VALUE of the index.
        assert!(value.len() < 6 * 1024, "{} bytes", value.len());
        if State::RESTORED.iter().any(|prefix| key.starts_with(prefix)) {
            restored.restore(&key, &value).unwrap();
        }
    }
    assert_eq!(restored.fleet(), folded.fleet());
    for device in folded.devices() {
        assert_eq!(restored.device(&device.registration.device), Some(device));
    }
}

#[test]
fn rule_5_a_replaced_device_comes_back_only_once_what_has_its_place_is_blocked() {
    let mut shop = Shop::offline();
    join(&mut shop, NEW, replacing(MPOS, true)).unwrap();
    let head = shop.core.state().head().sequence;
    let refused = shop.operate(OperatorCommand::Unblock(MPOS));
    assert!(matches!(&refused, OperatorReply::Refused(text) if text.contains(&NEW.to_string())));
    assert_eq!(shop.core.state().head().sequence, head);
    assert_eq!(pays(&mut shop, MPOS, 1), Err(RefusalCode::DeviceNotAllowed));
    assert_eq!(pays(&mut shop, NEW, 2), Ok(true));
    // It was found again, and its replacement goes back into the drawer.
    shop.operate(OperatorCommand::Block(NEW));
    assert_eq!(shop.operate(OperatorCommand::Unblock(MPOS)), OperatorReply::Done);
    assert_eq!(pays(&mut shop, MPOS, 3), Ok(true));
}
