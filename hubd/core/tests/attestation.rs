//! What a device is, and what a verifier says of it.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use ed25519_dalek::SigningKey;
use hub_core::{Input, Joining, OperatorCommand, OperatorReply, Reply};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::description::{AttestationStatus, Certification};
use hub_protocol::{
    AttestationResult, Decision, DeviceClass, DeviceDescription, DeviceId, DeviceKeyChange, Digest, KeyId,
    PaymentRequest, Reason, Verification, cbor,
};
use support::{MPOS, NOON_MS, POLICY, SOFTPOS, Shop, request};

const MINUTE_MS: u64 = 60_000;

fn verifier() -> SigningKey {
    SigningKey::from_bytes(&[88; 32])
}

/// SoftPOS: an Acme Tap with OS 13 and app 2.4 or later, certified by MPoC,
/// and a verifier's word of at most 200 minutes; after 1 hour 50 %; online 24.
fn policy() -> String {
    let key: String = verifier()
        .verifying_key()
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{POLICY}\n\
         [[model]]\nvendor = \"Acme\"\nmodel = \"Tap\"\nclass = \"softpos\"\nos_version = \"13\"\n\
         app_version = \"2.4\"\ncertification = [\"mpoc\", \"cpoc\"]\n\
         [[model]]\nvendor = \"Acme\"\nmodel = \"Pin\"\ncertification = [\"mpoc\"]\npin_on_glass = true\n\
         [[model]]\nvendor = \"Reader\"\nmodel = \"*\"\nclass = \"mpos\"\ncertification = [\"pts\"]\n\
         [attestation]\nclasses = [\"softpos\"]\nmax_age_minutes = 200\nstale_minutes = 60\n\
         stale_percent = 50\nonline_max_age_minutes = 1440\n\
         [[attestation.verifier]]\nname = \"Verifier\"\nkey = \"{key}\"\n"
    )
}

fn tap(device: DeviceId) -> DeviceDescription {
    DeviceDescription {
        device,
        device_time_ms: NOON_MS,
        vendor: "Acme".to_owned(),
        model: "Tap".to_owned(),
        os: "Android".to_owned(),
        os_version: "13".parse().unwrap(),
        app_version: "2.4".parse().unwrap(),
        certification: Certification::Mpoc,
    }
}

fn word(key: &SigningKey, device: DeviceId, issued_ms: u64, status: AttestationStatus) -> Vec<u8> {
    let result = AttestationResult::new(device, issued_ms / 1000, status);
    cose::sign(key, ObjectType::AttestationResult, &cbor::encode(&result))
}

fn affirming(device: DeviceId, issued_ms: u64) -> Vec<u8> {
    word(&verifier(), device, issued_ms, AttestationStatus::Affirming)
}

/// Whether the attestation counts.
fn describe(
    shop: &mut Shop,
    device: DeviceId,
    what: &DeviceDescription,
    attestation: Option<Vec<u8>>,
) -> bool {
    let ticket = shop.ticket();
    let signed = cose::sign(
        &support::device_key(device),
        ObjectType::DeviceDescription,
        &cbor::encode(what),
    );
    shop.input(Input::Describe {
        ticket,
        device,
        description: Box::new(what.clone()),
        signed,
        attestation,
    });
    match shop.replies.get(&ticket) {
        Some(Reply::Described { attested }) => *attested,
        other => panic!("{other:?}"),
    }
}

fn pay(shop: &mut Shop, device: DeviceId, number: u64, amount: u64) -> Reason {
    let asked = PaymentRequest {
        // So that receipts give the ledger's reason.
        terms: Some(Box::new(hub_protocol::Terms::of(
            hub_protocol::TransactionType::Sale,
        ))),
        ..request(number, amount, &format!("card {number}"))
    };
    shop.pay(device, &asked).reason
}

fn offline() -> Shop {
    Shop::offline_under(&policy())
}

/// To the moment at which a word given now has this age.
fn at_age(shop: &mut Shop, ms: u64) {
    shop.pass(ms);
}

#[test]
fn a_device_that_waits_to_be_approved_fills_no_ledger_with_descriptions() {
    const NEW: DeviceId = DeviceId([11; 32]);
    let token = Digest([0x46; 32]);
    let mut shop = Shop::offline_under(&policy());
    shop.operate(OperatorCommand::MakeFleetToken {
        token,
        class: DeviceClass::Softpos,
        most: 1,
        valid_ms: 60 * MINUTE_MS,
    });
    let ticket = shop.ticket();
    shop.input(Input::Join {
        ticket,
        registration: Box::new(support::registration(NEW, DeviceClass::Softpos)),
        joining: Joining::Fleet(token),
    });
    let version = |shop: &Shop| {
        let known = shop.core.state().device(&NEW).unwrap();
        known.described.as_ref().map(|said| said.app_version.to_string())
    };
    let said = |version: &str| DeviceDescription {
        app_version: version.parse().unwrap(),
        ..tap(NEW)
    };
    describe(&mut shop, NEW, &said("2.4"), None);
    assert_eq!(
        version(&shop).as_deref(),
        Some("2.4"),
        "whoever approves it sees what it is"
    );
    let head = shop.core.state().head().sequence;
    for number in 5..50 {
        let word = affirming(NEW, NOON_MS + number);
        describe(&mut shop, NEW, &said(&format!("2.{number}")), Some(word));
    }
    assert_eq!(
        shop.core.state().head().sequence,
        head,
        "answered, and not written down"
    );
    shop.operate(OperatorCommand::Approve(NEW));
    let word = affirming(NEW, NOON_MS);
    assert!(describe(&mut shop, NEW, &said("2.9"), Some(word)));
    assert_eq!(version(&shop).as_deref(), Some("2.9"));
}

#[test]
fn rule_5_a_device_that_does_not_say_what_it_is_is_not_certified() {
    let mut shop = offline();
    assert_eq!(pay(&mut shop, SOFTPOS, 1, 1_000), Reason::ModelNotCertified);
    assert_eq!(pay(&mut shop, MPOS, 2, 1_000), Reason::ModelNotCertified);
    let reader = DeviceDescription {
        vendor: "Reader".to_owned(),
        model: "whichever".to_owned(),
        certification: Certification::Pts,
        ..tap(MPOS)
    };
    describe(&mut shop, MPOS, &reader, None);
    assert_eq!(
        pay(&mut shop, MPOS, 3, 1_000),
        Reason::None,
        "no attestation for its class"
    );
}

#[test]
fn each_part_of_a_model_counts_at_its_edge() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    type Change = fn(&mut DeviceDescription);
    let cases: [(&str, Change, Reason); 8] = [
        ("as certified", |_| {}, Reason::None),
        (
            "a later app",
            |d| d.app_version = "2.10".parse().unwrap(),
            Reason::None,
        ),
        (
            "an app before",
            |d| d.app_version = "2.3.9".parse().unwrap(),
            Reason::ModelNotCertified,
        ),
        (
            "an OS before",
            |d| d.os_version = "12.9".parse().unwrap(),
            Reason::ModelNotCertified,
        ),
        (
            "another model",
            |d| d.model = "Top".to_owned(),
            Reason::ModelNotCertified,
        ),
        (
            "another vendor",
            |d| d.vendor = "acme".to_owned(),
            Reason::ModelNotCertified,
        ),
        (
            "certified otherwise",
            |d| d.certification = Certification::Cpoc,
            Reason::None,
        ),
        (
            "not certified",
            |d| d.certification = Certification::None,
            Reason::ModelNotCertified,
        ),
    ];
    for (number, (what, change, expected)) in (10..).zip(cases) {
        let mut description = tap(SOFTPOS);
        change(&mut description);
        assert!(describe(
            &mut shop,
            SOFTPOS,
            &description,
            Some(affirming(SOFTPOS, now_ms))
        ));
        assert_eq!(pay(&mut shop, SOFTPOS, number, 1_000), expected, "{what}");
    }
}

#[test]
fn an_attestation_grows_stale_and_then_too_old() {
    let mut shop = offline();
    let issued_ms = shop.now.wall_ms / 1000 * 1000;
    assert!(describe(
        &mut shop,
        SOFTPOS,
        &tap(SOFTPOS),
        Some(affirming(SOFTPOS, issued_ms))
    ));
    let since = shop.now.wall_ms - issued_ms;
    at_age(&mut shop, 60 * MINUTE_MS - since);
    assert_eq!(pay(&mut shop, SOFTPOS, 1, 5_000), Reason::None, "an hour old");
    at_age(&mut shop, 1);
    assert_eq!(
        pay(&mut shop, SOFTPOS, 2, 2_501),
        Reason::TransactionCeiling,
        "a millisecond more"
    );
    assert_eq!(pay(&mut shop, SOFTPOS, 3, 2_500), Reason::None);
    shop.crash();
    assert_eq!(
        pay(&mut shop, SOFTPOS, 4, 2_501),
        Reason::TransactionCeiling,
        "after a restart too"
    );
    let now = shop.now.wall_ms;
    at_age(&mut shop, issued_ms + 200 * MINUTE_MS - now + 1);
    assert_eq!(pay(&mut shop, SOFTPOS, 5, 100), Reason::AttestationMissing);
    let fresh_ms = shop.now.wall_ms;
    assert!(describe(
        &mut shop,
        SOFTPOS,
        &tap(SOFTPOS),
        Some(affirming(SOFTPOS, fresh_ms))
    ));
    assert_ne!(pay(&mut shop, SOFTPOS, 6, 100), Reason::AttestationMissing);
}

#[test]
fn online_an_attestation_may_be_older() {
    let mut shop = offline();
    let issued_ms = shop.now.wall_ms / 1000 * 1000;
    describe(
        &mut shop,
        SOFTPOS,
        &tap(SOFTPOS),
        Some(affirming(SOFTPOS, issued_ms)),
    );
    shop.pass(issued_ms + 1440 * MINUTE_MS - shop.now.wall_ms);
    shop.go_online();
    let asked = request(1, 1_000, "card");
    shop.send(SOFTPOS, &asked);
    assert_eq!(shop.forwards.len(), 1, "a day old");
    shop.pass(1);
    let refused = shop.send(SOFTPOS, &request(2, 1_000, "other card"));
    let receipt = shop.receipt(refused);
    assert_eq!(receipt.decision, Decision::Declined, "a millisecond more");
    assert_eq!(shop.forwards.len(), 1);
}

#[test]
fn a_warning_is_as_stale_and_a_contraindication_as_none() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    let warned = word(&verifier(), SOFTPOS, now_ms, AttestationStatus::Warning);
    assert!(describe(&mut shop, SOFTPOS, &tap(SOFTPOS), Some(warned)));
    assert_eq!(pay(&mut shop, SOFTPOS, 1, 2_501), Reason::TransactionCeiling);
    assert_eq!(pay(&mut shop, SOFTPOS, 2, 2_500), Reason::None);
    for (number, status) in [
        (3, AttestationStatus::Contraindicated),
        (4, AttestationStatus::None),
    ] {
        let said = word(&verifier(), SOFTPOS, now_ms + number * 1000, status);
        describe(&mut shop, SOFTPOS, &tap(SOFTPOS), Some(said));
        assert_eq!(pay(&mut shop, SOFTPOS, number, 100), Reason::AttestationMissing);
    }
}

#[test]
fn rule_5_a_word_on_another_device_by_a_stranger_or_from_the_future_does_not_count() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    let cases = [
        ("on another device", affirming(MPOS, now_ms)),
        (
            "by a stranger",
            word(
                &SigningKey::from_bytes(&[9; 32]),
                SOFTPOS,
                now_ms,
                AttestationStatus::Affirming,
            ),
        ),
        ("from the future", affirming(SOFTPOS, now_ms + 6 * MINUTE_MS)),
        ("garbage", vec![0xd2]),
    ];
    for (number, (what, said)) in (1..).zip(cases) {
        assert!(!describe(&mut shop, SOFTPOS, &tap(SOFTPOS), Some(said)), "{what}");
        assert_eq!(
            pay(&mut shop, SOFTPOS, number, 100),
            Reason::AttestationMissing,
            "{what}"
        );
    }
    // What an older word says is not taken back by asking with it again.
    let later = word(&verifier(), SOFTPOS, now_ms, AttestationStatus::Contraindicated);
    describe(&mut shop, SOFTPOS, &tap(SOFTPOS), Some(later));
    describe(
        &mut shop,
        SOFTPOS,
        &tap(SOFTPOS),
        Some(affirming(SOFTPOS, now_ms - 60_000)),
    );
    assert_eq!(pay(&mut shop, SOFTPOS, 9, 100), Reason::AttestationMissing);
}

/// The device signs with the key of this seed from now on.
fn change_keys(shop: &mut Shop, device: DeviceId, number: u32, seed: u8) {
    let known = shop.core.state().device(&device).unwrap();
    let change = DeviceKeyChange {
        hub: shop.settings.hub,
        device,
        number,
        old_key: known.registration.signing_key,
        new_key: SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes(),
        last_sequence: 0,
        new_tls_key: [seed; 91],
    };
    let ticket = shop.ticket();
    shop.input(Input::ChangeDeviceKeys {
        ticket,
        device,
        change: Box::new(change),
        signed: vec![1],
    });
    assert_eq!(shop.replies.remove(&ticket), Some(Reply::KeysChanged { number }));
}

/// A word on the device while it signs with the key of this seed.
fn naming(device: DeviceId, issued_ms: u64, seed: u8) -> Vec<u8> {
    let key = SigningKey::from_bytes(&[seed; 32]).verifying_key();
    let key = KeyId::of_key(key.as_bytes());
    let result = AttestationResult::new(device, issued_ms / 1000, AttestationStatus::Affirming);
    let result = result.signing_with(key);
    cose::sign(&verifier(), result.object_type(), &cbor::encode(&result))
}

fn shows_a_word(shop: &mut Shop) -> bool {
    let OperatorReply::Described(all) = shop.operate(OperatorCommand::Described) else {
        panic!("descriptions expected");
    };
    let told = all.into_iter().find(|(device, _)| *device == SOFTPOS);
    told.is_some_and(|(_, described)| described.attested.is_some())
}

#[test]
fn rule_5_a_verifiers_word_counts_while_the_device_has_the_keys_that_it_was_given_for() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    let told = |shop: &mut Shop, word: Vec<u8>| describe(shop, SOFTPOS, &tap(SOFTPOS), Some(word));
    assert!(
        !told(&mut shop, naming(SOFTPOS, now_ms, 50)),
        "on a key that it has not"
    );
    assert!(told(&mut shop, affirming(SOFTPOS, now_ms)));
    assert_eq!(pay(&mut shop, SOFTPOS, 1, 100), Reason::None);
    for (number, key) in [(1, 50), (2, 51)] {
        let asked = u64::from(number) * 10;
        assert!(shows_a_word(&mut shop));
        change_keys(&mut shop, SOFTPOS, number, key);
        assert!(!shows_a_word(&mut shop), "nor is it shown to people");
        assert_eq!(pay(&mut shop, SOFTPOS, asked, 100), Reason::AttestationMissing);
        shop.crash();
        assert_eq!(
            pay(&mut shop, SOFTPOS, asked + 1, 100),
            Reason::AttestationMissing
        );
        // One that names no key, however fresh, and one on the keys before.
        shop.pass(5_000);
        let later_ms = shop.now.wall_ms;
        assert!(!told(&mut shop, affirming(SOFTPOS, later_ms)));
        assert!(!told(&mut shop, naming(SOFTPOS, later_ms, key - 1)));
        assert_eq!(
            pay(&mut shop, SOFTPOS, asked + 2, 100),
            Reason::AttestationMissing
        );
        // Though it is older than the word on the keys before.
        assert!(told(&mut shop, naming(SOFTPOS, now_ms - 60_000, key)));
        assert_eq!(pay(&mut shop, SOFTPOS, asked + 3, 100), Reason::None);
        shop.crash();
        assert_eq!(pay(&mut shop, SOFTPOS, asked + 4, 100), Reason::None);
    }
}

#[test]
fn a_word_signed_as_the_type_of_another_does_not_count() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    let key = shop
        .core
        .state()
        .device(&SOFTPOS)
        .unwrap()
        .registration
        .signing_key;
    let plain = AttestationResult::new(SOFTPOS, now_ms / 1000, AttestationStatus::Affirming);
    let naming = plain.signing_with(KeyId::of_key(&key));
    for (result, object, counts) in [
        (plain, ObjectType::AttestationResult2, false),
        (naming, ObjectType::AttestationResult, false),
        (naming, ObjectType::AttestationResult2, true),
    ] {
        let word = cose::sign(&verifier(), object, &cbor::encode(&result));
        assert_eq!(describe(&mut shop, SOFTPOS, &tap(SOFTPOS), Some(word)), counts);
    }
}

#[test]
fn a_verifier_that_the_next_policy_does_not_name_counts_no_more() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    describe(
        &mut shop,
        SOFTPOS,
        &tap(SOFTPOS),
        Some(affirming(SOFTPOS, now_ms)),
    );
    assert_eq!(pay(&mut shop, SOFTPOS, 1, 100), Reason::None);
    let other: String = SigningKey::from_bytes(&[89; 32])
        .verifying_key()
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (head, _) = policy()
        .rsplit_once("key = ")
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .unwrap();
    let next = format!("{head}key = \"{other}\"\n").replacen("version = 1 ", "version = 2 ", 1);
    shop.install(&next);
    assert_eq!(pay(&mut shop, SOFTPOS, 2, 100), Reason::AttestationMissing);
    // Though its word is older than the other's.
    let said = word(
        &SigningKey::from_bytes(&[89; 32]),
        SOFTPOS,
        now_ms - 60_000,
        AttestationStatus::Affirming,
    );
    assert!(describe(&mut shop, SOFTPOS, &tap(SOFTPOS), Some(said)));
    assert_eq!(pay(&mut shop, SOFTPOS, 3, 100), Reason::None);
}

#[test]
fn the_same_description_again_is_not_written_down_again() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    let said = affirming(SOFTPOS, now_ms);
    describe(&mut shop, SOFTPOS, &tap(SOFTPOS), Some(said.clone()));
    let entries = shop.disk.len();
    let later = DeviceDescription {
        device_time_ms: NOON_MS + 5,
        ..tap(SOFTPOS)
    };
    assert!(describe(&mut shop, SOFTPOS, &later, Some(said)));
    assert!(
        !describe(&mut shop, SOFTPOS, &later, None),
        "without a word none counts"
    );
    assert_eq!(shop.disk.len(), entries);
    assert_eq!(
        pay(&mut shop, SOFTPOS, 1, 100),
        Reason::None,
        "what was said stays"
    );
}

#[test]
fn the_pin_is_entered_on_glass_only_where_that_is_certified() {
    let mut shop = offline();
    let now_ms = shop.now.wall_ms;
    let pin = |number| PaymentRequest {
        verification: Verification::OfflinePin,
        terms: Some(Box::new(hub_protocol::Terms::of(
            hub_protocol::TransactionType::Sale,
        ))),
        ..request(number, 1_000, &format!("card {number}"))
    };
    describe(
        &mut shop,
        SOFTPOS,
        &tap(SOFTPOS),
        Some(affirming(SOFTPOS, now_ms)),
    );
    assert_eq!(shop.pay(SOFTPOS, &pin(1)).reason, Reason::PinOnGlassNotAllowed);
    let with_pin = DeviceDescription {
        model: "Pin".to_owned(),
        ..tap(SOFTPOS)
    };
    describe(&mut shop, SOFTPOS, &with_pin, None);
    assert_eq!(shop.pay(SOFTPOS, &pin(2)).reason, Reason::None);
}

#[test]
fn nobody_is_asked_for_a_pin_where_none_may_be_entered() {
    let by_pin = "[[ceiling]]\nclass = \"softpos\"\nverification = \"offline-pin\"\namount = 10000\n";
    let mut shop = Shop::offline_under(&format!("{}{by_pin}", policy()));
    let now_ms = shop.now.wall_ms;
    let tap_without_pin = |number| PaymentRequest {
        terms: Some(Box::new(hub_protocol::Terms::of(
            hub_protocol::TransactionType::Sale,
        ))),
        verification: Verification::None,
        ..request(number, 5_001, "card")
    };
    describe(
        &mut shop,
        SOFTPOS,
        &tap(SOFTPOS),
        Some(affirming(SOFTPOS, now_ms)),
    );
    let told = shop.pay(SOFTPOS, &tap_without_pin(1));
    assert_eq!(
        (told.decision, told.reason),
        (Decision::Declined, Reason::PinOnGlassNotAllowed)
    );
    let with_pin = DeviceDescription {
        model: "Pin".to_owned(),
        ..tap(SOFTPOS)
    };
    describe(&mut shop, SOFTPOS, &with_pin, None);
    let told = shop.pay(SOFTPOS, &tap_without_pin(2));
    assert_eq!(
        (told.decision, told.reason, told.fallback),
        (Decision::Declined, Reason::VerificationRequired, None),
        "with the PIN on its glass it passes, and there is nothing to insert a card into"
    );
}
