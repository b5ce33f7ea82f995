//! The root over the policy keys: each attack of TUF's list, tried.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use ed25519_dalek::SigningKey;
use hub_core::policy::Policy;
use hub_core::state::{CardKey, State};
use hub_core::{Input, ListToTake, OperatorCommand, OperatorReply, Reply};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::Event;
use hub_protocol::root::{Delegated, Delegation, Root, RootKey, SignedRoot};
use hub_protocol::{Decision, DeviceClass, DeviceId, DeviceList, Entry, KeyId, Reason, RefusalCode, cbor};

use support::{MPOS, NOON_MS, POLICY, SOFTPOS, Shop, request};

const DAY_MS: u64 = 86_400_000;

/// Root keys are 1 to 9, policy keys from 11 on.
fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn delegation(seed: u8) -> Delegation {
    Delegation {
        name: format!("policies {seed}"),
        key: key(seed).verifying_key().to_bytes(),
        stores: vec!["*".to_owned()],
        signs: vec![Delegated::Policies],
        not_before_ms: NOON_MS - DAY_MS,
        expires_ms: NOON_MS + 60 * DAY_MS,
        least_version: None,
    }
}

/// Two of the keys 1, 2 and 3 delegate these.
fn root(version: u32, policy_keys: &[u8]) -> Root {
    Root {
        tenant: "acme".to_owned(),
        version,
        expires_ms: NOON_MS + 90 * DAY_MS,
        threshold: 2,
        keys: [1, 2, 3]
            .map(|seed| RootKey {
                name: format!("holder {seed}"),
                key: key(seed).verifying_key().to_bytes(),
            })
            .to_vec(),
        delegations: policy_keys.iter().map(|seed| delegation(*seed)).collect(),
    }
}

fn signed(root: Root, by: &[u8]) -> Vec<u8> {
    let mut signed = SignedRoot::unsigned(root).unwrap();
    for seed in by {
        signed.sign(&key(*seed)).unwrap();
    }
    signed.to_bytes()
}

fn policy(version: u64) -> String {
    let sample = Policy::parse(POLICY.as_bytes()).unwrap();
    assert_eq!(sample.version, 1);
    POLICY
        .replace(&format!("tenant = \"{}\"", sample.tenant), "tenant = \"acme\"")
        .replace("version = 1 ", &format!("version = {version} "))
}

/// Two devices, offline, installed with a root that delegates key 11.
fn shop() -> Shop {
    shop_under(root(1, &[11]))
}

fn shop_under(first: Root) -> Shop {
    let mut shop = Shop::empty_with(|settings| settings.pinned_root = Some(signed(first, &[1, 2])));
    shop.enrol(MPOS, DeviceClass::Mpos);
    shop.enrol(SOFTPOS, DeviceClass::Softpos);
    shop.go_offline();
    shop.replies.clear();
    shop
}

/// Brings a policy, signed by this key.
fn install(shop: &mut Shop, by: u8, text: &str) -> Result<u64, String> {
    let public = key(by).verifying_key();
    let ticket = shop.ticket();
    shop.input(Input::Activate {
        ticket: Some(ticket),
        policy: Box::new(Policy::parse(text.as_bytes()).unwrap()),
        signed: cose::sign(&key(by), ObjectType::Policy, text.as_bytes()),
        key: KeyId::of_key(public.as_bytes()),
    });
    match shop.replies.remove(&ticket) {
        Some(Reply::PolicyActive { version }) => Ok(version),
        Some(Reply::Operator(OperatorReply::Refused(text))) => Err(text),
        other => panic!("{other:?}"),
    }
}

fn apply(shop: &mut Shop, signed: Vec<u8>) -> Result<u32, String> {
    match shop.operate(OperatorCommand::ApplyRoot { signed }) {
        OperatorReply::RootInForce(standing) => Ok(standing.version),
        OperatorReply::Refused(text) => Err(text),
        other => panic!("{other:?}"),
    }
}

/// What a payment gets, and whether the policy still counts.
fn pays(shop: &mut Shop, number: u64) -> (Decision, Reason) {
    let receipt = shop.pay(MPOS, &request(number, 2_000, &format!("card {number}")));
    (receipt.decision, receipt.reason)
}

const APPROVED: (Decision, Reason) = (Decision::ApprovedOffline, Reason::None);

fn refused<T: std::fmt::Debug>(answer: Result<T, String>, expected: &str) {
    let text = answer.unwrap_err();
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_hub_is_installed_with_a_root_and_keeps_to_it() {
    let mut shop = shop();
    assert_eq!(pays(&mut shop, 1).1, Reason::NoPolicy);
    assert_eq!(install(&mut shop, 11, &policy(1)), Ok(1));
    assert_eq!(pays(&mut shop, 2), APPROVED);
    refused(install(&mut shop, 12, &policy(2)), "not delegated by root 1");
    refused(install(&mut shop, 1, &policy(2)), "not delegated by root 1");
    let applied: Vec<(u32, Option<String>)> = shop
        .disk
        .iter()
        .filter_map(|payload| root_event(payload))
        .collect();
    assert_eq!(applied, [(1, None)]);
    // The pinned one counts once: it is in the ledger from then on, and stays
    // when hubd.toml names others or none.
    shop.crash();
    shop.settings.pinned_root = Some(signed(root(7, &[12]), &[1, 2]));
    shop.crash();
    shop.settings.pinned_root = None;
    shop.crash();
    assert_eq!(
        shop.disk.iter().filter_map(|payload| root_event(payload)).count(),
        1
    );
    assert_eq!(shop.core.state().root().unwrap().version, 1);
    refused(install(&mut shop, 12, &policy(2)), "not delegated by root 1");
}

fn root_event(payload: &[u8]) -> Option<(u32, Option<String>)> {
    match cbor::decode::<Entry>(payload).unwrap().event {
        Event::RootApplied {
            version, operator, ..
        } => Some((version, operator)),
        _ => None,
    }
}

#[test]
fn rollback_an_older_root_never_comes_back() {
    let mut shop = shop();
    let (one, two) = (signed(root(1, &[11]), &[1, 2]), signed(root(2, &[12]), &[1, 2]));
    assert_eq!(apply(&mut shop, two.clone()), Ok(2));
    for _ in 0..2 {
        refused(apply(&mut shop, one.clone()), "root 3 comes next");
        assert_eq!(
            apply(&mut shop, two.clone()),
            Ok(2),
            "the one in force is no news"
        );
        let other = signed(root(2, &[11]), &[1, 2, 3]);
        refused(apply(&mut shop, other), "root 3 comes next");
        assert_eq!(shop.core.state().root().unwrap().version, 2);
        // Nor after a restart from the ledger.
        shop.crash();
    }
    let applied: Vec<_> = shop
        .disk
        .iter()
        .filter_map(|payload| root_event(payload))
        .collect();
    assert_eq!(applied, [(1, None), (2, Some("anna".to_owned()))]);
}

#[test]
fn rollback_an_older_policy_never_comes_back_under_any_delegated_key() {
    let mut shop = shop_under(root(1, &[11, 12]));
    assert_eq!(install(&mut shop, 11, &policy(5)), Ok(5));
    refused(install(&mut shop, 11, &policy(4)), "not newer than version 5");
    // One that the other key signed before, and that was never seen here.
    refused(
        install(&mut shop, 12, &policy(4)),
        "versions go on from one key to the next",
    );
    let laxer = policy(5).replace("exposure_ceiling = 300000", "exposure_ceiling = 900000");
    refused(
        install(&mut shop, 12, &laxer),
        "versions go on from one key to the next",
    );
    // The same content, signed once more: how a policy outlives its key.
    assert_eq!(install(&mut shop, 12, &policy(5)), Ok(5));
    assert_eq!(
        shop.core.state().policy_key(),
        Some(KeyId::of_key(key(12).verifying_key().as_bytes()))
    );
    assert_eq!(install(&mut shop, 12, &policy(6)), Ok(6));
}

#[test]
fn rollback_a_hub_installed_anew_is_told_the_least_version() {
    let mut first = root(1, &[11]);
    first.delegations[0].least_version = Some(5);
    let mut shop = shop_under(first);
    refused(install(&mut shop, 11, &policy(4)), "older than version 5");
    assert_eq!(install(&mut shop, 11, &policy(5)), Ok(5));
    assert_eq!(pays(&mut shop, 1), APPROVED);
    // And a root that raises it ends what is older and in force.
    let mut next = root(2, &[11]);
    next.delegations[0].least_version = Some(6);
    assert_eq!(apply(&mut shop, signed(next, &[1, 2])), Ok(2));
    assert_eq!(pays(&mut shop, 2).1, Reason::PolicyExpired);
    assert_eq!(install(&mut shop, 11, &policy(6)), Ok(6));
    assert_eq!(pays(&mut shop, 3), APPROVED);
}

#[test]
fn freeze_what_a_root_delegates_ends_with_it() {
    let mut first = root(1, &[11]);
    first.expires_ms = NOON_MS + 10 * DAY_MS;
    let mut shop = shop_under(first);
    install(&mut shop, 11, &policy(1)).unwrap();
    assert_eq!(pays(&mut shop, 1), APPROVED);
    let OperatorReply::Overview(overview) = shop.operate(OperatorCommand::Overview) else {
        panic!("an overview expected");
    };
    assert_eq!(overview.policy_expires_ms, Some(NOON_MS + 10 * DAY_MS));
    shop.now.wall_ms += 10 * DAY_MS;
    shop.now.monotonic_ms += 10 * DAY_MS;
    assert_eq!(pays(&mut shop, 2).1, Reason::PolicyExpired);
    refused(install(&mut shop, 11, &policy(2)), "has expired");
    // An expired root is still followed by the next one.
    assert_eq!(apply(&mut shop, signed(root(2, &[11]), &[1, 2])), Ok(2));
    let (decision, reason) = pays(&mut shop, 3);
    assert!(reason != Reason::PolicyExpired, "{decision:?} {reason:?}");
}

#[test]
fn freeze_a_root_that_came_too_late_is_kept_and_delegates_nothing() {
    let mut shop = shop();
    install(&mut shop, 11, &policy(1)).unwrap();
    let mut late = root(2, &[11]);
    late.expires_ms = NOON_MS - 1;
    assert_eq!(apply(&mut shop, signed(late, &[1, 2])), Ok(2));
    assert_eq!(pays(&mut shop, 1).1, Reason::PolicyExpired);
    assert_eq!(apply(&mut shop, signed(root(3, &[11]), &[1, 2])), Ok(3));
    assert_eq!(pays(&mut shop, 2), APPROVED);
}

#[test]
fn freeze_what_a_delegation_lets_sign_ends_with_it() {
    let mut first = root(1, &[11]);
    first.delegations[0].expires_ms = NOON_MS + DAY_MS / 24;
    let mut shop = shop_under(first);
    install(&mut shop, 11, &policy(1)).unwrap();
    assert_eq!(pays(&mut shop, 1), APPROVED);
    shop.pass(DAY_MS / 24);
    assert_eq!(pays(&mut shop, 2).1, Reason::PolicyExpired);
}

#[test]
fn a_key_whose_time_has_not_begun_signs_nothing_into_force() {
    let mut first = root(1, &[11]);
    first.delegations[0].not_before_ms = NOON_MS + DAY_MS;
    let mut shop = shop_under(first);
    refused(install(&mut shop, 11, &policy(1)), "does not count yet");
    shop.now.wall_ms += DAY_MS;
    shop.now.monotonic_ms += DAY_MS;
    assert_eq!(install(&mut shop, 11, &policy(1)), Ok(1));
    // A root that puts the beginning off ends what is in force until then.
    let mut later = root(2, &[11]);
    later.delegations[0].not_before_ms = NOON_MS + 2 * DAY_MS;
    apply(&mut shop, signed(later, &[1, 2])).unwrap();
    assert_eq!(pays(&mut shop, 1).1, Reason::PolicyNotYetValid);
}

#[test]
fn mix_and_match_a_root_or_policy_of_another_tenant_is_refused() {
    let mut shop = shop();
    let other = Root {
        tenant: "other".to_owned(),
        ..root(2, &[12])
    };
    refused(apply(&mut shop, signed(other, &[1, 2, 3])), "for tenant other");
    let theirs = policy(1).replace("tenant = \"acme\"", "tenant = \"other\"");
    refused(install(&mut shop, 11, &theirs), "of tenant other");
}

#[test]
fn mix_and_match_a_policy_by_a_key_of_another_root_is_refused() {
    let mut shop = shop();
    install(&mut shop, 11, &policy(1)).unwrap();
    apply(&mut shop, signed(root(2, &[12]), &[1, 2])).unwrap();
    // Of the root before, and of one that has not come yet.
    refused(install(&mut shop, 11, &policy(2)), "not delegated by root 2");
    refused(install(&mut shop, 13, &policy(2)), "not delegated by root 2");
    assert_eq!(install(&mut shop, 12, &policy(2)), Ok(2));
}

#[test]
fn a_policy_in_force_counts_no_more_once_its_key_is_taken_away() {
    let mut shop = shop();
    install(&mut shop, 11, &policy(1)).unwrap();
    assert_eq!(pays(&mut shop, 1), APPROVED);
    apply(&mut shop, signed(root(2, &[12]), &[1, 2])).unwrap();
    for number in [2, 3] {
        assert_eq!(pays(&mut shop, number).1, Reason::PolicyExpired);
        shop.crash();
    }
    // By other things it may sign, or for other stores, it is taken away too.
    for (version, change) in [
        (
            3,
            (|d| d.signs = vec![Delegated::DeviceLists]) as fn(&mut Delegation),
        ),
        (4, |d| d.stores = vec!["shop-002".to_owned()]),
    ] {
        let mut next = root(version, &[11]);
        change(&mut next.delegations[0]);
        assert_eq!(apply(&mut shop, signed(next, &[1, 2])), Ok(version));
        assert_eq!(pays(&mut shop, 10 + u64::from(version)).1, Reason::PolicyExpired);
    }
    apply(&mut shop, signed(root(5, &[11]), &[1, 2])).unwrap();
    assert_eq!(pays(&mut shop, 20), APPROVED);
}

#[test]
fn fast_forward_by_a_stolen_key_is_mended_by_delegating_another() {
    let mut shop = shop();
    install(&mut shop, 11, &policy(7)).unwrap();
    // The thief signs the highest version that there is.
    let highest = u64::from(u32::MAX);
    assert_eq!(install(&mut shop, 11, &policy(highest)), Ok(highest));
    refused(install(&mut shop, 11, &policy(8)), "not newer");
    // With both delegated nothing is lower than the thief's yet.
    apply(&mut shop, signed(root(2, &[11, 12]), &[1, 2])).unwrap();
    refused(install(&mut shop, 12, &policy(8)), "versions go on");
    apply(&mut shop, signed(root(3, &[12]), &[1, 2])).unwrap();
    assert_eq!(pays(&mut shop, 1).1, Reason::PolicyExpired);
    assert_eq!(install(&mut shop, 12, &policy(8)), Ok(8));
    assert_eq!(pays(&mut shop, 2), APPROVED);
    shop.crash();
    refused(
        install(&mut shop, 11, &policy(highest)),
        "not delegated by root 3",
    );
    refused(install(&mut shop, 12, &policy(7)), "not newer");
    assert_eq!(pays(&mut shop, 3), APPROVED);
}

#[test]
fn wrong_store_neither_key_nor_policy_of_another_store_counts() {
    let mut first = root(1, &[11, 12]);
    first.delegations[0].stores = vec!["shop-002".to_owned()];
    let mut shop = shop_under(first);
    refused(
        install(&mut shop, 11, &policy(1)),
        "not for this store (shop-001)",
    );
    let elsewhere = policy(1).replace("[\"*\"]", "[\"shop-002\"]");
    refused(install(&mut shop, 12, &elsewhere), "not for this store");
    assert_eq!(install(&mut shop, 12, &policy(1)), Ok(1));
}

#[test]
fn roots_come_one_after_the_other_with_the_thresholds_of_both() {
    let mut shop = shop();
    refused(
        apply(&mut shop, signed(root(3, &[12]), &[1, 2, 3])),
        "root 2 comes next",
    );
    refused(
        apply(&mut shop, signed(root(2, &[12]), &[1])),
        "1 of the 2 signatures",
    );
    refused(
        apply(&mut shop, signed(root(2, &[12]), &[1, 1])),
        "1 of the 2 signatures",
    );
    let mut taken_over = root(2, &[12]);
    for (place, seed) in [4, 5, 6].into_iter().enumerate() {
        taken_over.keys[place].key = key(seed).verifying_key().to_bytes();
    }
    refused(
        apply(&mut shop, signed(taken_over.clone(), &[4, 5, 6])),
        "keys of root 1",
    );
    refused(
        apply(&mut shop, signed(taken_over.clone(), &[1, 2, 3])),
        "of its own keys",
    );
    refused(apply(&mut shop, b"not a root".to_vec()), "COSE");
    assert_eq!(apply(&mut shop, signed(taken_over, &[1, 2, 4, 5])), Ok(2));
    refused(
        apply(&mut shop, signed(root(3, &[12]), &[1, 2, 3])),
        "keys of root 2",
    );
}

#[test]
fn a_hub_that_obeys_keys_of_its_own_takes_no_root_until_it_is_installed_with_one() {
    let mut shop = Shop::offline();
    refused(apply(&mut shop, signed(root(1, &[11]), &[1, 2])), "root_file");
    assert_eq!(pays(&mut shop, 1), APPROVED);
    // With the root, keys that it does not delegate count no more: here the
    // sample's, and its tenant is another.
    shop.settings.pinned_root = Some(signed(root(1, &[11]), &[1, 2]));
    shop.crash();
    assert_eq!(pays(&mut shop, 2).1, Reason::PolicyExpired);
    assert_eq!(install(&mut shop, 11, &policy(1)), Ok(1));
    assert_eq!(pays(&mut shop, 3), APPROVED);
}

#[test]
fn a_pinned_root_without_its_threshold_is_never_in_force() {
    let mut shop = Shop::empty_with(|settings| {
        settings.pinned_root = Some(signed(root(1, &[11]), &[1]));
    });
    assert!(!shop.core.state().has_root());
    assert_eq!(
        shop.disk.iter().filter_map(|payload| root_event(payload)).count(),
        0
    );
    shop.crash();
    assert!(!shop.core.state().has_root());
}

/// The index holds nothing of the card that pays next.
fn nothing_at_risk(shop: &mut Shop) {
    shop.input(Input::Recalled {
        payments: Vec::new(),
        cards: vec![(CardKey::of_token("card 1"), Default::default())],
    });
}

/// Opened from the index, with the signed objects that its places name; and
/// with a root that nobody could read back.
#[test]
fn a_root_that_cannot_be_read_delegates_nothing() {
    let mut shop = shop();
    install(&mut shop, 11, &policy(1)).unwrap();
    let index = shop.core.state_mut().take_dirty();
    let head = shop.core.state().head();
    let (mut policy_signed, mut root_signed) = (None, None);
    for payload in &shop.disk {
        match cbor::decode::<Entry>(payload).unwrap().event {
            Event::PolicyActivated { policy, .. } => policy_signed = Some(policy),
            Event::RootApplied { root, .. } => root_signed = Some(root),
            _ => {}
        }
    }
    let open = |with_root: bool| {
        let mut state = State::default();
        for (key, value) in &index {
            if State::RESTORED.iter().any(|prefix| key.starts_with(prefix)) {
                state.restore(key, value.as_ref().unwrap()).unwrap();
            }
        }
        state.restored(head, policy_signed.as_deref());
        if with_root {
            state.restore_root(root_signed.as_deref().unwrap());
        }
        state
    };
    let disk = shop.disk.clone();
    shop.restart(open(true));
    nothing_at_risk(&mut shop);
    assert_eq!(pays(&mut shop, 1), APPROVED);
    shop.disk = disk;
    shop.restart(open(false));
    nothing_at_risk(&mut shop);
    assert_eq!(pays(&mut shop, 1).1, Reason::PolicyExpired);
    refused(install(&mut shop, 11, &policy(2)), "cannot be read");
    refused(
        apply(&mut shop, signed(root(2, &[11]), &[1, 2])),
        "cannot be read",
    );
}

/// Brings a list of devices, signed by this key.
fn take_list(shop: &mut Shop, by: u8, tenant: &str, version: u64) -> Result<u64, String> {
    let list = DeviceList {
        tenant: tenant.to_owned(),
        stores: vec!["shop-001".to_owned()],
        version,
        not_before_ms: 0,
        expires_ms: NOON_MS + 80 * DAY_MS,
        devices: Vec::new(),
        revoked: vec![DeviceId([77; 32])],
    };
    let public = key(by).verifying_key();
    let taken = ListToTake {
        signed: cose::sign(&key(by), ObjectType::DeviceList, &cbor::encode(&list)),
        list,
        key: KeyId::of_key(public.as_bytes()),
        hub_signing_key: [8; 32],
    };
    match shop.operate(OperatorCommand::TakeList(Box::new(taken))) {
        OperatorReply::ListTaken(changes) => Ok(changes.version),
        OperatorReply::Refused(text) => Err(text),
        other => panic!("{other:?}"),
    }
}

fn for_lists(seed: u8) -> Delegation {
    Delegation {
        signs: vec![Delegated::DeviceLists],
        ..delegation(seed)
    }
}

#[test]
fn a_list_of_devices_counts_by_a_key_that_the_root_delegates_for_lists() {
    let elsewhere = Delegation {
        stores: vec!["shop-002".to_owned()],
        ..for_lists(13)
    };
    let mut first = root(1, &[11]);
    first.delegations.extend([for_lists(12), elsewhere]);
    let mut shop = shop_under(first);
    refused(take_list(&mut shop, 11, "acme", 1), "may not sign");
    refused(take_list(&mut shop, 13, "acme", 1), "not for this store");
    refused(take_list(&mut shop, 14, "acme", 1), "not delegated by root 1");
    refused(take_list(&mut shop, 12, "other", 1), "another tenant");
    refused(install(&mut shop, 12, &policy(1)), "may not sign");
    assert_eq!(take_list(&mut shop, 12, "acme", 1), Ok(1));
}

#[test]
fn fast_forward_of_a_list_by_a_stolen_key_is_mended_by_delegating_another() {
    let mut first = root(1, &[11]);
    first.delegations.push(for_lists(12));
    let mut shop = shop_under(first);
    assert_eq!(
        take_list(&mut shop, 12, "acme", u64::from(u32::MAX)),
        Ok(u64::from(u32::MAX))
    );
    refused(take_list(&mut shop, 12, "acme", 2), "is not newer");
    let mut second = root(2, &[11]);
    second.delegations.push(for_lists(13));
    assert_eq!(apply(&mut shop, signed(second, &[1, 2])), Ok(2));
    assert_eq!(take_list(&mut shop, 13, "acme", 2), Ok(2));
    refused(take_list(&mut shop, 13, "acme", 1), "is not newer");
}

#[test]
fn rule_5_an_allowance_is_not_given_out_again_once_its_policys_key_is_taken_away() {
    let mut shop = shop();
    let with_allowances = format!(
        "{}\n[allowance]\namount = 20000\ncount = 4\ntransaction_ceiling = 8000\nminutes = 60\n\
         classes = [\"mpos\", \"softpos\"]\ncard_ceiling = 5000\ndevices = 2\n",
        policy(1)
    );
    assert_eq!(install(&mut shop, 11, &with_allowances), Ok(1));
    let asks = |shop: &mut Shop| {
        let ticket = shop.ask_allowance(MPOS, None);
        match shop.replies.remove(&ticket) {
            Some(Reply::Allowance { allowance, .. }) => Some(allowance.number),
            Some(Reply::Refused(refusal)) => {
                assert_eq!(refusal.code, RefusalCode::AllowanceNotGiven);
                None
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(asks(&mut shop), Some(1));
    assert_eq!(asks(&mut shop), Some(1), "the same again");
    assert_eq!(apply(&mut shop, signed(root(2, &[12]), &[1, 2])), Ok(2));
    assert_eq!(asks(&mut shop), None);
}

#[test]
fn an_old_list_does_not_come_back_once_another_key_has_signed_and_been_taken_away() {
    let next = |version: u32, by: u8| {
        let mut root = root(version, &[11]);
        root.delegations.push(for_lists(by));
        root
    };
    let mut shop = shop_under(next(1, 12));
    for version in [3, 5] {
        assert_eq!(take_list(&mut shop, 12, "acme", version), Ok(version));
    }
    assert_eq!(apply(&mut shop, signed(next(2, 13), &[1, 2])), Ok(2));
    assert_eq!(take_list(&mut shop, 13, "acme", 1), Ok(1));
    assert_eq!(apply(&mut shop, signed(next(3, 12), &[1, 2])), Ok(3));
    for version in [2, 3, 4, 5] {
        refused(
            take_list(&mut shop, 12, "acme", version),
            "is not newer than version 5",
        );
    }
    shop.crash();
    refused(take_list(&mut shop, 12, "acme", 5), "is not newer than version 5");
    assert_eq!(take_list(&mut shop, 12, "acme", 6), Ok(6));
}
