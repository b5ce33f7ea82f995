//! How large an allowance is, and to whom none is given.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use hub_core::{OperatorCommand, Reply};
use hub_protocol::{Decision, Reason, RefusalCode};
use support::wallet::{Wallet, at_risk, given, policy, shop};
use support::{MPOS, NOON_MS, SOFTPOS, STRANGER, Shop, request};

#[test]
fn the_next_allowance_has_a_higher_number_also_than_a_forgotten_one() {
    let (mut shop, mut wallet) = given();
    wallet.give_back(&mut shop);
    assert_eq!(wallet.ask(&mut shop).unwrap().number, 2);
    wallet.give_back(&mut shop);
    wallet.closed = Some(17);
    assert_eq!(wallet.ask(&mut shop).unwrap().number, 18);
    let ticket = shop.ask_allowance(SOFTPOS, Some(u64::MAX));
    assert_eq!(shop.refusal(ticket).code, RefusalCode::AllowanceNotGiven);
}

#[test]
fn rule_4_what_is_kept_back_is_not_there_for_others() {
    let policy = policy().replace("exposure_ceiling = 300000", "exposure_ceiling = 25000");
    let mut shop = Shop::offline_under(&policy);
    let mut wallet = Wallet::new(MPOS);
    assert_eq!(wallet.ask(&mut shop).unwrap().amount_minor, 20_000);
    let told = shop.pay(SOFTPOS, &request(1, 5_000, "card 1"));
    assert_eq!(
        told.decision,
        Decision::ApprovedOffline,
        "the ceiling is inclusive"
    );
    let told = shop.pay(SOFTPOS, &request(2, 1, "card 2"));
    assert_eq!(told.reason, Reason::StoreCeiling);
    let ticket = shop.ask_allowance(SOFTPOS, None);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::AllowanceNotGiven);
    wallet.give_back(&mut shop);
    let told = shop.pay(SOFTPOS, &request(3, 5_000, "card 3"));
    assert_eq!(
        told.decision,
        Decision::ApprovedOffline,
        "what was not used is back"
    );
}

#[test]
fn rule_5_an_allowance_is_as_large_as_there_is_room_for_or_none() {
    type Given = Option<(u64, u32, u64, u64)>;
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u64, Given);
    let hour = 3_600_000;
    let cases: [Case<'_>; 19] = [
        ("as it is", &[], 0, Some((20_000, 4, 8_000, hour))),
        (
            "no section",
            &[(
                "[allowance]\namount = 20000\ncount = 4\ntransaction_ceiling = 8000\nminutes = 60\n\
                 classes = [\"mpos\", \"softpos\"]\ncard_ceiling = 15000\ndevices = 2\n",
                "",
            )],
            0,
            None,
        ),
        (
            "another class",
            &[("classes = [\"mpos\", \"softpos\"]", "classes = [\"softpos\"]")],
            0,
            None,
        ),
        (
            "offline is off",
            &[("enabled = true", "enabled = false")],
            0,
            None,
        ),
        (
            "no sales offline",
            &[("[offline]\n", "[offline]\ntransaction_types = [\"refund\"]\n")],
            0,
            None,
        ),
        (
            "nothing offline at all",
            &[("[offline]\n", "[offline]\ntransaction_types = []\n")],
            0,
            None,
        ),
        (
            "little left of the device",
            &[(
                "device_exposure_ceiling = 100000",
                "device_exposure_ceiling = 6000",
            )],
            0,
            Some((6_000, 4, 6_000, hour)),
        ),
        (
            "little left of the store",
            &[("\nexposure_ceiling = 300000", "\nexposure_ceiling = 7000")],
            0,
            Some((7_000, 4, 7_000, hour)),
        ),
        (
            "nothing left of the store",
            &[("\nexposure_ceiling = 300000", "\nexposure_ceiling = 0")],
            0,
            None,
        ),
        (
            "few left in a row",
            &[("device_consecutive_limit = 60", "device_consecutive_limit = 3")],
            0,
            Some((20_000, 3, 8_000, hour)),
        ),
        (
            "none left in a row",
            &[("consecutive_limit = 300", "consecutive_limit = 0")],
            0,
            None,
        ),
        (
            "a window",
            &[(
                "device_consecutive_limit = 60",
                "device_consecutive_limit = 60\ndevice_window_count = 2\ndevice_window_minutes = 10",
            )],
            0,
            Some((20_000, 2, 8_000, hour)),
        ),
        (
            "a PIN from 2 in a row on",
            &[(
                "device_consecutive_limit = 60",
                "device_consecutive_limit = 60\ndevice_consecutive_lower_limit = 2",
            )],
            0,
            Some((20_000, 2, 8_000, hour)),
        ),
        (
            "a lower ceiling of some kind",
            &[(
                "[allowance]",
                "[[ceiling]]\nentry_mode = \"contactless\"\namount = 3000\n[allowance]",
            )],
            0,
            Some((20_000, 4, 3_000, hour)),
        ),
        (
            "of another class",
            &[(
                "[allowance]",
                "[[ceiling]]\nclass = \"softpos\"\namount = 3000\n[allowance]",
            )],
            0,
            Some((20_000, 4, 8_000, hour)),
        ),
        (
            "ceilings have moved",
            &[(
                "[allowance]",
                "[[moving.outage]]\nfrom_minutes = 0\npercent = 10\n[allowance]",
            )],
            0,
            Some((10_000, 4, 1_000, hour)),
        ),
        (
            "offline for 3 h 30 of 4 h",
            &[],
            210,
            Some((20_000, 4, 8_000, hour / 2)),
        ),
        ("offline for too long", &[], 241, None),
        (
            "a list that no device knows",
            &[("[allowance]", "[[card.exception]]\ntoken = \"tok\"\n[allowance]")],
            0,
            None,
        ),
    ];
    for (name, changes, minutes, expected) in cases {
        let mut text = policy();
        for (from, to) in changes {
            assert!(text.contains(from), "{name}: {from}");
            text = text.replacen(from, to, 1);
        }
        let mut shop = Shop::offline_under(&text);
        shop.pass(minutes * 60_000);
        let ticket = shop.ask_allowance(MPOS, None);
        let found: Given = match shop.replies.remove(&ticket) {
            Some(Reply::Allowance { allowance, .. }) => Some((
                allowance.amount_minor,
                allowance.count,
                allowance.transaction_ceiling_minor,
                allowance.expires_ms - allowance.issued_ms,
            )),
            Some(Reply::Refused(refusal)) => {
                assert_eq!(refusal.code, RefusalCode::AllowanceNotGiven, "{name}");
                assert_eq!(at_risk(&shop)[1].2, 0, "{name}");
                None
            }
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn an_allowance_ends_with_the_policy_and_at_closing_time() {
    let hours = policy().replace(
        "[allowance]",
        "[hours]\ntime_zone = \"UTC0\"\nmonday = [\"00:00-24:00\"]\ntuesday = [\"00:00-24:00\"]\n\
         wednesday = [\"00:00-04:45\"]\nthursday = [\"00:00-24:00\"]\n[allowance]",
    );
    // Wednesday, 23 December 2026, 04:26:40.
    let mut shop = Shop::offline_under(&hours);
    let given = Wallet::new(MPOS).ask(&mut shop).unwrap();
    assert_eq!(
        given.expires_ms,
        NOON_MS / 60_000 * 60_000 + 19 * 60_000,
        "at 04:45"
    );
    let outside = hours
        .replace("[allowance]", "")
        .replace("time_zone", "approve_outside = true\ntime_zone");
    let outside = format!("{outside}\n").replace("\namount = 20000", "\n[allowance]\namount = 20000");
    let mut shop = Shop::offline_under(&outside);
    let given = Wallet::new(MPOS).ask(&mut shop).unwrap();
    assert_eq!(given.expires_ms, NOON_MS + 3_600_000);
    let ending = policy().replace("2027-12-31T00:00:00Z", "2026-12-23T04:30:00Z");
    let mut shop = Shop::offline_under(&ending);
    let given = Wallet::new(MPOS).ask(&mut shop).unwrap();
    assert_eq!(given.expires_ms - given.issued_ms, 200_000);
}

#[test]
fn rule_5_strangers_and_blocked_devices_get_none() {
    let (mut shop, _) = shop();
    let ticket = shop.ask_allowance(STRANGER, None);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::DeviceNotAllowed);
    shop.operate(OperatorCommand::Block(MPOS));
    let ticket = shop.ask_allowance(MPOS, None);
    assert_eq!(shop.refusal(ticket).code, RefusalCode::DeviceNotAllowed);
}

#[test]
fn a_queue_keeps_room_for_what_devices_may_bring() {
    let mut shop = Shop::offline_with(&policy(), |settings| settings.max_queue = 5);
    Wallet::new(MPOS).ask(&mut shop).unwrap();
    assert_eq!(
        shop.pay(SOFTPOS, &request(1, 100, "a")).decision,
        Decision::ApprovedOffline
    );
    assert_eq!(shop.pay(SOFTPOS, &request(2, 100, "b")).reason, Reason::QueueFull);
}
