//! When an allowance ends: not after the moment at which the hub itself would
//! approve less, or nothing, for the time that has passed.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use ed25519_dalek::SigningKey;
use hub_core::{Input, Reply};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::description::{AttestationStatus, Certification};
use hub_protocol::{Allowance, AttestationResult, DeviceDescription, DeviceId, cbor};
use support::wallet::{Wallet, policy};
use support::{MPOS, NOON_MS, SOFTPOS, Shop, request};

const MINUTE_MS: u64 = 60_000;

fn verifier() -> SigningKey {
    SigningKey::from_bytes(&[88; 32])
}

/// Allowances for up to 230 of the 240 minutes that a shop may be offline.
fn long() -> String {
    let long = policy().replace("minutes = 60", "minutes = 230");
    assert_ne!(long, policy());
    long
}

/// And a verifier's word of at most 200 minutes, after which time it is stale.
fn attested(stale: &str) -> String {
    let key: String = verifier()
        .verifying_key()
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "{}\n[attestation]\nclasses = [\"softpos\"]\nmax_age_minutes = 200\n{stale}\
         [[attestation.verifier]]\nname = \"Verifier\"\nkey = \"{key}\"\n",
        long()
    )
}

fn describe(shop: &mut Shop, device: DeviceId, issued_ms: u64, status: AttestationStatus) {
    let ticket = shop.ticket();
    let description = DeviceDescription {
        device,
        device_time_ms: NOON_MS,
        vendor: "Acme".to_owned(),
        model: "Tap".to_owned(),
        os: "Android".to_owned(),
        os_version: "13".parse().unwrap(),
        app_version: "2.4".parse().unwrap(),
        certification: Certification::Mpoc,
    };
    let word = AttestationResult::new(device, issued_ms / 1000, status);
    let signed = cose::sign(
        &support::device_key(device),
        ObjectType::DeviceDescription,
        &cbor::encode(&description),
    );
    shop.input(Input::Describe {
        ticket,
        device,
        description: Box::new(description),
        signed,
        attestation: Some(cose::sign(
            &verifier(),
            ObjectType::AttestationResult,
            &cbor::encode(&word),
        )),
    });
    let Some(Reply::Described { attested: true }) = shop.replies.get(&ticket) else {
        panic!("{:?}", shop.replies.get(&ticket));
    };
}

/// How long it is good for, in minutes.
fn minutes(given: &Allowance) -> u64 {
    assert_eq!((given.expires_ms - given.issued_ms) % MINUTE_MS, 0);
    (given.expires_ms - given.issued_ms) / MINUTE_MS
}

/// Given after so many minutes of an outage under this policy.
fn given_after(policy: &str, passed: u64) -> Option<Allowance> {
    let mut shop = Shop::offline_under(policy);
    shop.pass(passed * MINUTE_MS);
    Wallet::new(MPOS).ask(&mut shop)
}

#[test]
fn rule_5_an_allowance_ends_with_the_word_on_its_device() {
    for (name, stale, status, passed, expected, ceiling) in [
        ("fresh", "", AttestationStatus::Affirming, 50, 150, 5_000),
        (
            "not stale yet",
            "stale_minutes = 60\nstale_percent = 50\n",
            AttestationStatus::Affirming,
            50,
            10,
            5_000,
        ),
        (
            "stale at giving",
            "stale_minutes = 60\nstale_percent = 50\n",
            AttestationStatus::Affirming,
            70,
            130,
            2_500,
        ),
        (
            "a warning is stale from the first",
            "stale_minutes = 60\nstale_percent = 50\n",
            AttestationStatus::Warning,
            50,
            150,
            2_500,
        ),
    ] {
        let mut shop = Shop::offline_under(&attested(stale));
        // A verifier's clock counts seconds.
        let issued_ms = shop.now.wall_ms / 1_000 * 1_000;
        describe(&mut shop, SOFTPOS, issued_ms, status);
        shop.pass(issued_ms + passed * MINUTE_MS - shop.now.wall_ms);
        let given = Wallet::new(SOFTPOS).ask(&mut shop).unwrap();
        assert_eq!(minutes(&given), expected, "{name}");
        assert_eq!(given.transaction_ceiling_minor, ceiling, "{name}");
    }
    // None is asked for from an mPOS.
    let given = given_after(&attested("stale_minutes = 60\nstale_percent = 50\n"), 0).unwrap();
    assert_eq!(minutes(&given), 230);
}

#[test]
fn rule_5_an_allowance_ends_before_the_next_step_of_an_outage() {
    let step = |from: u64, percent: u64| {
        format!("\n[[moving.outage]]\nfrom_minutes = {from}\npercent = {percent}\n")
    };
    let steps = format!("{}{}{}", long(), step(30, 50), step(120, 0));
    let ends = |policy: &str, passed| given_after(policy, passed).map(|given| minutes(&given));
    assert_eq!(ends(&steps, 0), Some(30), "the first step");
    assert_eq!(ends(&steps, 29), Some(1));
    assert_eq!(ends(&steps, 30), Some(90), "it holds already; the second");
    assert_eq!(ends(&steps, 120), None, "nothing is left");
    let same = format!("{}{}{}", long(), step(30, 50), step(120, 50));
    assert_eq!(ends(&same, 30), Some(210), "a step that lowers nothing");
    // Another share is lower than the first step already.
    let aged = format!("{steps}\n[[moving.policy_age]]\nfrom_days = 1\npercent = 50\n");
    assert_eq!(ends(&aged, 0), Some(120));
}

/// A shop that is not offline yet is from the next moment on, for all that a
/// device out of reach can know.
#[test]
fn rule_5_without_an_outage_its_steps_are_counted_from_the_giving() {
    let policy = format!("{}\n[[moving.outage]]\nfrom_minutes = 30\npercent = 50\n", long());
    let mut shop = Shop::online();
    assert!(
        shop.install(&policy.replace("version = 1", "version = 2"))
            .is_some()
    );
    shop.pass(90 * MINUTE_MS);
    let given = Wallet::new(MPOS).ask(&mut shop).unwrap();
    assert_eq!(minutes(&given), 30);
}

#[test]
fn rule_5_an_allowance_ends_before_a_policy_has_aged() {
    // The policy of the tests is from 1 January; noon is 4:26:40 on 23 December.
    let policy = format!(
        "{}\n[[moving.policy_age]]\nfrom_days = 357\npercent = 50\n",
        long()
    );
    let age_ms = NOON_MS - 1_767_225_600_000;
    let day_ms = 24 * 60 * MINUTE_MS;
    assert_eq!(age_ms / day_ms, 356);
    let policy = policy.replace("longest_minutes = 240", "longest_minutes = 43200");
    let mut shop = Shop::offline_under(&policy);
    shop.pass(19 * 60 * MINUTE_MS);
    let given = Wallet::new(MPOS).ask(&mut shop).unwrap();
    assert_eq!(given.expires_ms, 1_767_225_600_000 + 357 * day_ms);
    assert_eq!(given.transaction_ceiling_minor, 8_000);
}

#[test]
fn rule_5_an_allowance_ends_before_what_waits_is_too_old() {
    let end = long().replace("[offline]\n", "[offline]\noldest_unsent_minutes = 100\n");
    let step = format!(
        "{}\n[[moving.oldest_unsent]]\nfrom_minutes = 100\npercent = 50\n",
        long()
    );
    for policy in [end, step] {
        let mut shop = Shop::offline_under(&policy);
        let given = Wallet::new(MPOS).ask(&mut shop).unwrap();
        assert_eq!(
            minutes(&given),
            100,
            "nothing waits, and something may from now on"
        );
        let mut shop = Shop::offline_under(&policy);
        shop.pay(SOFTPOS, &request(1, 1_000, "card"));
        shop.pass(40 * MINUTE_MS);
        let given = Wallet::new(MPOS).ask(&mut shop).unwrap();
        let left = given.expires_ms - given.issued_ms;
        assert!(left <= 60 * MINUTE_MS && left > 59 * MINUTE_MS, "{left}");
    }
}
