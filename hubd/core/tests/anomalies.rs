//! Anomalies: each is found at its edge, counts once, is written down before
//! the payment that shows it is decided, restricts, and ends.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, Input, OperatorCommand, OperatorReply, Probe};
use hub_protocol::entry::Event;
use hub_protocol::{
    AnomalyKind, Cryptogram, Decision, DeviceId, Entry, GatewayResult, PaymentRequest, Reason, Receipt,
    Restriction, RestrictionCause, Terms, TransactionType, Verification, cbor,
};
use support::{MPOS, POLICY, SOFTPOS, Shop, payment_id, request};

const MINUTE: u64 = 60_000;

/// The sample policy with `[anomaly]` of these keys and tables.
fn policy(rest: &str) -> String {
    format!(
        "{POLICY}\n[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 10\n{rest}\n\
         [anomaly.device]\nwarn = 10\ntighten = 20\nstop = 40\n"
    )
}

/// A payment as the device's own clock has it.
fn asked(shop: &Shop, number: u64, amount: u64, card: &str) -> PaymentRequest {
    PaymentRequest {
        device_time_ms: shop.now.wall_ms,
        ..request(number, amount, card)
    }
}

fn pay(shop: &mut Shop, device: DeviceId, number: u64, amount: u64, card: &str) -> Receipt {
    let request = asked(shop, number, amount, card);
    shop.pay(device, &request)
}

fn events(shop: &Shop) -> Vec<Event> {
    let entries = shop.disk.iter();
    entries
        .map(|payload| cbor::decode::<Entry>(payload).unwrap().event)
        .collect()
}

/// What was found, and at which payment.
fn found(shop: &Shop) -> Vec<(AnomalyKind, u64)> {
    let number = |id: hub_protocol::PaymentId| u64::from_be_bytes(id.0[8..].try_into().unwrap());
    let one = |event| match event {
        Event::AnomalyFound { kind, shown_by, .. } => Some((kind, shown_by.map_or(0, number))),
        _ => None,
    };
    events(shop).into_iter().filter_map(one).collect()
}

fn restrictions(shop: &Shop) -> Vec<(Option<DeviceId>, Restriction, RestrictionCause)> {
    let one = |event| match event {
        Event::RestrictionChanged {
            device,
            restriction,
            cause,
            ..
        } => Some((device, restriction, cause)),
        _ => None,
    };
    events(shop).into_iter().filter_map(one).collect()
}

#[test]
fn equal_amounts_in_a_row_at_one_device_are_found() {
    let text = policy("[anomaly.equal_amounts]\nin_a_row = 3\nfrom_amount = 500\npoints = 5");
    let mut shop = Shop::offline_under(&text);
    let mut number = 0;
    let mut next = |shop: &mut Shop, device, amount| {
        number += 1;
        pay(shop, device, number, amount, &format!("card {number}"));
    };
    for _ in 0..5 {
        next(&mut shop, MPOS, 499);
    }
    next(&mut shop, MPOS, 900);
    next(&mut shop, MPOS, 900);
    // At another device, and too small to count: neither ends the run.
    next(&mut shop, SOFTPOS, 900);
    next(&mut shop, MPOS, 100);
    assert_eq!(found(&shop), []);
    shop.crash();
    next(&mut shop, MPOS, 900);
    assert_eq!(found(&shop), [(AnomalyKind::EqualAmounts, 10)]);
    next(&mut shop, MPOS, 900);
    assert_eq!(found(&shop).len(), 1, "once in a while");
    shop.pass(10 * MINUTE);
    next(&mut shop, MPOS, 900);
    assert_eq!(found(&shop).len(), 2);
}

#[test]
fn a_card_that_pays_again_and_again_just_below_its_ceiling_is_found() {
    let text =
        policy("[anomaly.ceiling_split]\ncount = 3\nwithin_minutes = 30\nfrom_percent = 90\npoints = 5");
    let text = text.replace("exposure_ceiling = 15000", "exposure_ceiling = 60000");
    let mut shop = Shop::offline_under(&text);
    // mPOS: 100,00.
    pay(&mut shop, MPOS, 1, 9_000, "a");
    pay(&mut shop, MPOS, 2, 8_999, "a");
    pay(&mut shop, MPOS, 3, 10_000, "a");
    pay(&mut shop, MPOS, 4, 10_000, "b");
    assert_eq!(found(&shop), [], "8 999 is not just below");
    shop.pass(30 * MINUTE);
    pay(&mut shop, MPOS, 5, 9_500, "b");
    assert_eq!(found(&shop), [], "the first was half an hour ago");
    shop.crash();
    pay(&mut shop, MPOS, 6, 9_500, "b");
    assert_eq!(found(&shop), []);
    pay(&mut shop, MPOS, 7, 9_000, "b");
    assert_eq!(found(&shop), [(AnomalyKind::CeilingSplit, 7)]);
}

#[test]
fn taps_just_below_the_pin_are_split_too_though_a_pin_would_allow_more() {
    let text =
        policy("[anomaly.ceiling_split]\ncount = 3\nwithin_minutes = 30\nfrom_percent = 90\npoints = 5");
    let mut shop = Shop::offline_under(&text);
    let tap = |shop: &mut Shop, number, amount, verification| {
        let request = PaymentRequest {
            verification,
            ..asked(shop, number, amount, "a")
        };
        shop.pay(MPOS, &request);
    };
    tap(&mut shop, 1, 4_500, Verification::None);
    tap(&mut shop, 2, 5_000, Verification::None);
    tap(&mut shop, 3, 4_500, Verification::Cdcvm);
    assert_eq!(found(&shop), [], "verified: far below 100,00");
    tap(&mut shop, 4, 4_499, Verification::None);
    assert_eq!(found(&shop), []);
    tap(&mut shop, 5, 4_500, Verification::None);
    assert_eq!(found(&shop), [(AnomalyKind::CeilingSplit, 5)]);
}

#[test]
fn a_card_at_many_devices_is_found() {
    let text = policy("[anomaly.card_at_devices]\ndevices = 3\nwithin_minutes = 30\npoints = 5");
    let mut shop = Shop::offline_under(&text);
    let third = DeviceId([3; 32]);
    shop.enrol(third, hub_protocol::DeviceClass::Terminal);
    pay(&mut shop, MPOS, 1, 100, "a");
    pay(&mut shop, SOFTPOS, 2, 100, "a");
    pay(&mut shop, MPOS, 3, 100, "a");
    pay(&mut shop, third, 4, 100, "b");
    assert_eq!(found(&shop), []);
    shop.crash();
    pay(&mut shop, third, 5, 100, "a");
    assert_eq!(found(&shop), [(AnomalyKind::CardAtDevices, 5)]);
}

#[test]
fn cards_that_are_tried_out_one_after_the_other_are_found() {
    let text = policy("[anomaly.card_testing]\ndeclined_cards = 2\nwithin_minutes = 10\npoints = 5");
    let mut shop = Shop::offline_under(&text);
    let refused = |shop: &mut Shop, number, card: &str| {
        let request = PaymentRequest {
            cryptogram: Cryptogram::Refused,
            ..asked(shop, number, 100, card)
        };
        assert_eq!(shop.pay(MPOS, &request).decision, Decision::Declined);
    };
    refused(&mut shop, 1, "a");
    refused(&mut shop, 2, "a");
    pay(&mut shop, MPOS, 3, 100, "c");
    assert_eq!(found(&shop), [], "one card twice");
    refused(&mut shop, 4, "b");
    pay(&mut shop, SOFTPOS, 5, 100, "c");
    assert_eq!(found(&shop), [], "at another device");
    shop.crash();
    pay(&mut shop, MPOS, 6, 100, "c");
    assert_eq!(found(&shop), [(AnomalyKind::CardTesting, 6)]);
    shop.pass(10 * MINUTE);
    pay(&mut shop, MPOS, 7, 100, "d");
    assert_eq!(found(&shop).len(), 1, "ten minutes ago");
}

/// A copy of a device goes on from where it was made, however long ago.
#[test]
fn a_number_that_comes_again_is_found_and_one_that_is_late_is_not() {
    for behind in [1, 2, 20, 40, 63, 64, 80, 199] {
        let text = policy("[anomaly.sequence_reused]\npoints = 5")
            .replace("consecutive_limit = 60", "consecutive_limit = 600");
        let mut shop = Shop::offline_under(&text);
        for number in 1..=200 {
            // One is kept back.
            if number != 150 {
                pay(&mut shop, MPOS, number, 1, &format!("card {number}"));
            }
            if number == 180 {
                pay(&mut shop, MPOS, 150, 1, "late");
            }
        }
        shop.crash();
        assert_eq!(found(&shop), [], "late, and never seen");
        let copy = PaymentRequest {
            device_sequence: 200 - behind,
            ..asked(&shop, 1_000, 1, "copy")
        };
        shop.pay(MPOS, &copy);
        // The same bytes again are no new request.
        shop.pay(MPOS, &copy);
        assert_eq!(
            found(&shop),
            [(AnomalyKind::SequenceReused, 1_000)],
            "{behind} behind"
        );
    }
}

#[test]
fn numbers_that_are_left_out_are_found() {
    let text = policy("[anomaly.sequence_gap]\nnumbers = 10\npoints = 5");
    let mut shop = Shop::offline_under(&text);
    let with = |shop: &mut Shop, number, sequence| {
        let request = PaymentRequest {
            device_sequence: sequence,
            ..asked(shop, number, 100, &format!("card {number}"))
        };
        shop.pay(MPOS, &request);
    };
    with(&mut shop, 1, 500);
    with(&mut shop, 2, 510);
    assert_eq!(found(&shop), [], "the first of all, and nine left out");
    shop.crash();
    with(&mut shop, 3, 521);
    assert_eq!(found(&shop), [(AnomalyKind::SequenceGap, 3)]);
}

/// While a policy looked for nothing, nobody watched the counter.
#[test]
fn a_policy_without_rules_in_between_makes_no_gap() {
    let text = policy("[anomaly.sequence_gap]\nnumbers = 100\npoints = 20");
    let version = |text: &str, number| text.replace("version = 1 ", &format!("version = {number} "));
    let mut shop = Shop::offline_under(&text);
    pay(&mut shop, MPOS, 1, 100, "a");
    shop.install(&version(POLICY, 2)).unwrap();
    shop.install(&version(&text, 3)).unwrap();
    pay(&mut shop, MPOS, 200, 100, "c");
    assert_eq!(found(&shop), []);
}

fn gateway_says(shop: &mut Shop, gateway_ms: u64) {
    shop.input(Input::Probe(Probe {
        ok: true,
        latency_ms: 20,
        gateway_time_ms: Some(gateway_ms),
    }));
}

#[test]
fn a_clock_ahead_of_a_hub_that_knows_the_time_is_found() {
    let text = policy("[anomaly.clock_skew]\nminutes = 5\npoints = 5");
    let mut shop = Shop::offline_with(&text, |settings| settings.gateway_tells_time = true);
    let off = |shop: &mut Shop, number, ahead_ms: u64| {
        let mut request = asked(shop, number, 100, &format!("card {number}"));
        request.device_time_ms += ahead_ms;
        shop.pay(MPOS, &request);
    };
    off(&mut shop, 1, 3_600_000);
    assert_eq!(found(&shop), [], "who knows which of the two is wrong");
    let now_ms = shop.now.wall_ms + 3_600_000;
    shop.now.wall_ms = now_ms;
    gateway_says(&mut shop, now_ms);
    shop.go_offline();
    off(&mut shop, 2, 5 * MINUTE);
    assert_eq!(found(&shop), []);
    off(&mut shop, 3, 5 * MINUTE + 1);
    assert_eq!(found(&shop), [(AnomalyKind::ClockSkew, 3)]);
    shop.pass(10 * MINUTE);
    off(&mut shop, 4, 9 * MINUTE);
    assert_eq!(found(&shop).len(), 1, "as wrong as before is nothing new");
    off(&mut shop, 5, 15 * MINUTE);
    assert_eq!(found(&shop).last(), Some(&(AnomalyKind::ClockSkew, 5)));
    shop.pass(10 * MINUTE);
    off(&mut shop, 6, 0);
    assert_eq!(found(&shop).len(), 2, "set right");
    shop.pass(10 * MINUTE);
    off(&mut shop, 7, 15 * MINUTE);
    assert_eq!(
        found(&shop).last(),
        Some(&(AnomalyKind::ClockSkew, 7)),
        "wrong again"
    );
}

#[test]
fn a_clock_behind_its_own_of_before_is_found_and_an_old_request_is_not() {
    let text = policy("[anomaly.clock_skew]\nminutes = 5\npoints = 5");
    let mut shop = Shop::offline_under(&text);
    let old = asked(&shop, 2, 100, "b");
    pay(&mut shop, MPOS, 1, 100, "a");
    shop.pass(60 * MINUTE);
    pay(&mut shop, MPOS, 3, 100, "c");
    shop.pay(MPOS, &old);
    assert_eq!(found(&shop), [], "it found no hub for an hour");
    shop.crash();
    let behind = |shop: &mut Shop, number, by_ms| {
        let mut request = asked(shop, number, 100, &format!("card {number}"));
        request.device_time_ms -= 5_000 + by_ms;
        shop.pay(MPOS, &request);
    };
    behind(&mut shop, 4, 5 * MINUTE);
    assert_eq!(found(&shop), []);
    pay(&mut shop, MPOS, 5, 100, "e");
    behind(&mut shop, 6, 5 * MINUTE + 5_001);
    assert_eq!(found(&shop), [(AnomalyKind::ClockSkew, 6)]);
}

#[test]
fn sales_while_the_shop_is_closed_are_found() {
    let text = policy(
        "[anomaly.outside_hours]\npoints = 5\n[hours]\ntime_zone = \"UTC0\"\napprove_outside = true\n\
         wednesday = [\"00:00-04:27\"]",
    );
    let mut shop = Shop::offline_under(&text);
    pay(&mut shop, MPOS, 1, 100, "a");
    assert_eq!(found(&shop), []);
    shop.pass(MINUTE);
    assert!(pay(&mut shop, MPOS, 2, 100, "b").decision.approved());
    assert_eq!(found(&shop), [(AnomalyKind::OutsideHours, 2)]);
}

const WEEK: u64 = 7 * 24 * 60 * MINUTE;

const KNOWN: &str = "[profile]\nleast_payments = 20\nleast_weeks = 2";

/// A shop that has had 10 payments of 10,00 in this hour of each of two weeks.
fn known_shop(rest: &str) -> Shop {
    let text = policy(rest)
        .replace("longest_minutes = 240", "longest_minutes = 43200")
        .replace("exposure_ceiling = 300000", "exposure_ceiling = 3000000");
    let mut shop = Shop::offline_under(&format!("{text}\n{KNOWN}\n"));
    for week in 0..2 {
        for number in 1..=10 {
            let number = 1_000 * (week + 1) + number;
            pay(&mut shop, MPOS, number, 1_000, &format!("card {number}"));
        }
        shop.pass(WEEK);
    }
    assert_eq!(found(&shop), []);
    shop
}

#[test]
fn many_more_payments_than_the_shop_has_at_this_hour_are_found_once() {
    let rule = "[anomaly.arrival_rate]\ntimes = 2\nleast = 21\npoints = 5";
    for (rule, first) in [
        (rule.to_owned(), 21),
        (rule.replace("least = 21", "least = 23"), 23),
        (rule.replace("least = 21", "least = 2"), 21),
    ] {
        let mut shop = known_shop(&rule);
        let next = |shop: &mut Shop, device, number| {
            pay(shop, device, 3_000 + number, 100, &format!("card {number}"));
        };
        for number in 1..first {
            next(&mut shop, MPOS, number);
        }
        assert_eq!(found(&shop), [], "{rule}");
        shop.crash();
        next(&mut shop, SOFTPOS, first);
        assert_eq!(
            found(&shop),
            [(AnomalyKind::ArrivalRate, 3_000 + first)],
            "{rule}"
        );
        next(&mut shop, MPOS, first + 1);
        assert_eq!(found(&shop).len(), 1, "once in a while, at whichever device");
        shop.pass(10 * MINUTE);
        next(&mut shop, MPOS, first + 2);
        assert_eq!(found(&shop).len(), 2);
    }
}

#[test]
fn before_enough_weeks_nothing_is_many() {
    let text = policy("[anomaly.arrival_rate]\ntimes = 2\nleast = 2\npoints = 5");
    let mut shop = Shop::offline_under(&format!("{text}\n{KNOWN}\n"));
    for number in 1..=40 {
        pay(&mut shop, MPOS, number, 1_000, &format!("card {number}"));
    }
    assert_eq!(found(&shop), []);
}

#[test]
fn an_amount_that_is_far_above_what_is_usual_is_found() {
    // 10,00 is in the bucket of 992 to 1023: three times that is 30,69.
    let rule = "[anomaly.unusual_amount]\npercentile = 95\ntimes = 3\npoints = 5";
    let mut shop = known_shop(rule);
    pay(&mut shop, MPOS, 3_001, 3_069, "a");
    assert_eq!(found(&shop), []);
    shop.crash();
    pay(&mut shop, MPOS, 3_002, 3_070, "b");
    assert_eq!(found(&shop), [(AnomalyKind::UnusualAmount, 3_002)]);
    // One payment fewer is known.
    let mut shop = Shop::offline_under(&format!("{}\n{KNOWN}\n", policy(rule)));
    for number in 1..=19 {
        pay(&mut shop, MPOS, number, 1_000, &format!("card {number}"));
    }
    pay(&mut shop, MPOS, 20, 9_000, "x");
    assert_eq!(found(&shop), []);
}

/// A refund by this member of staff, or by nobody who is named.
fn refund(shop: &mut Shop, device: DeviceId, number: u64, staff: Option<&str>) -> Receipt {
    let request = PaymentRequest {
        terms: Some(Box::new(Terms {
            staff: staff.map(str::to_owned),
            ..Terms::of(TransactionType::Refund)
        })),
        ..asked(shop, number, 1_000, &format!("card {number}"))
    };
    shop.pay(device, &request)
}

const REFUNDS: &str = "[anomaly.refunds]\ncount = 3\nwithin_minutes = 30\npoints = 5";

#[test]
fn refunds_at_one_device_are_found_whoever_asks_and_whatever_the_answer() {
    let mut shop = Shop::offline_under(&policy(REFUNDS));
    assert!(!refund(&mut shop, MPOS, 1, None).decision.approved());
    shop.pass(30 * MINUTE);
    refund(&mut shop, MPOS, 2, Some("anna"));
    refund(&mut shop, SOFTPOS, 3, None);
    pay(&mut shop, MPOS, 4, 1_000, "a");
    refund(&mut shop, MPOS, 5, Some("bob"));
    assert_eq!(found(&shop), [], "the first was half an hour ago");
    shop.crash();
    // A restart takes five seconds.
    shop.pass(30 * MINUTE - 5_001);
    pay(&mut shop, MPOS, 6, 1_000, "b");
    assert_eq!(found(&shop), [], "a sale shows nothing");
    refund(&mut shop, MPOS, 7, None);
    assert_eq!(found(&shop), [(AnomalyKind::Refunds, 7)]);
    refund(&mut shop, MPOS, 8, None);
    assert_eq!(found(&shop).len(), 1, "once in a while");
}

#[test]
fn refunds_that_are_approved_are_found_too() {
    let text = policy(REFUNDS).replace(
        "[offline]\n",
        "[offline]\ntransaction_types = [\"sale\", \"refund\"]\n",
    );
    let mut shop = Shop::offline_under(&text);
    for number in 1..=3 {
        assert_eq!(found(&shop), []);
        assert!(refund(&mut shop, MPOS, number, None).decision.approved());
    }
    assert_eq!(found(&shop), [(AnomalyKind::Refunds, 3)]);
}

#[test]
fn refunds_by_one_member_of_staff_are_found_at_whichever_device() {
    let mut shop = Shop::offline_under(&policy(REFUNDS));
    let third = DeviceId([3; 32]);
    shop.enrol(third, hub_protocol::DeviceClass::Terminal);
    for (number, device) in [(1, MPOS), (2, SOFTPOS)] {
        refund(&mut shop, device, number, Some("anna"));
        refund(&mut shop, device, number + 10, None);
    }
    refund(&mut shop, third, 3, Some("bob"));
    refund(&mut shop, third, 4, None);
    assert_eq!(found(&shop), [], "who names nobody is no one person");
    shop.crash();
    // A restart takes five seconds.
    shop.pass(30 * MINUTE - 5_001);
    let mut sale = asked(&shop, 5, 1_000, "a");
    sale.terms = Some(Box::new(Terms {
        staff: Some("anna".to_owned()),
        ..Terms::of(TransactionType::Sale)
    }));
    shop.pay(MPOS, &sale);
    assert_eq!(found(&shop), []);
    refund(&mut shop, SOFTPOS, 6, Some("anna"));
    assert_eq!(found(&shop), [(AnomalyKind::Refunds, 6)]);
}

#[test]
fn somebody_who_practises_refunds_shows_nothing() {
    let mut shop = Shop::offline_under(&policy(REFUNDS));
    for number in 1..=5 {
        let request = PaymentRequest {
            terms: Some(Box::new(Terms {
                training: true,
                ..Terms::of(TransactionType::Refund)
            })),
            ..asked(&shop, number, 1_000, "a")
        };
        shop.pay(MPOS, &request);
    }
    refund(&mut shop, MPOS, 6, None);
    assert_eq!(found(&shop), []);
}

/// A device keeps sixteen, enough for the highest count of a rule.
#[test]
fn no_more_refunds_are_remembered_than_a_rule_can_ask_for() {
    let text = policy(&REFUNDS.replace("count = 3", "count = 16"));
    let mut shop = Shop::offline_under(&text);
    for number in 1..=15 {
        refund(&mut shop, MPOS, number, None);
    }
    assert_eq!(found(&shop), []);
    for number in 16..=40 {
        refund(&mut shop, MPOS, number, None);
    }
    assert_eq!(found(&shop), [(AnomalyKind::Refunds, 16)]);
    let watch = shop.core.state().device(&MPOS).unwrap().watch.clone().unwrap();
    assert_eq!(watch.refunds.len(), 16);
}

#[test]
fn refunds_are_not_remembered_under_a_policy_that_does_not_look_for_them() {
    let mut shop = Shop::offline_under(&policy(AGAIN));
    refund(&mut shop, MPOS, 1, None);
    let watch = shop.core.state().device(&MPOS).unwrap().watch.clone().unwrap();
    assert_eq!(watch.refunds, []);
}

#[test]
fn requests_that_a_device_has_not_signed_are_found_and_fill_no_ledger() {
    let text = policy("[anomaly.bad_signatures]\ncount = 3\nwithin_minutes = 10\npoints = 20");
    let mut shop = Shop::offline_under(&text);
    let bad = |shop: &mut Shop, device| shop.input(Input::BadSignature { device });
    let head = |shop: &Shop| shop.core.state().head().sequence;
    let before = head(&shop);
    bad(&mut shop, MPOS);
    shop.pass(10 * MINUTE);
    bad(&mut shop, MPOS);
    bad(&mut shop, MPOS);
    bad(&mut shop, SOFTPOS);
    bad(&mut shop, support::STRANGER);
    assert_eq!(head(&shop), before, "the first was ten minutes ago");
    bad(&mut shop, MPOS);
    assert_eq!(
        found(&shop),
        [(AnomalyKind::BadSignatures, 0)],
        "no payment showed it"
    );
    assert_eq!(
        restrictions(&shop),
        [(Some(MPOS), Restriction::Tightened, RestrictionCause::Anomalies)]
    );
    for _ in 0..1_000 {
        bad(&mut shop, MPOS);
    }
    assert_eq!(found(&shop).len(), 1, "once in a while");
    shop.crash();
    assert_eq!(
        pay(&mut shop, MPOS, 1, 5_001, "a").reason,
        Reason::TransactionCeiling
    );
    for _ in 0..3 {
        bad(&mut shop, MPOS);
    }
    assert_eq!(found(&shop).len(), 1, "through a restart");
    shop.pass(10 * MINUTE);
    for _ in 0..3 {
        bad(&mut shop, MPOS);
    }
    assert_eq!(found(&shop).len(), 2);
}

#[test]
fn nobody_looks_at_bad_signatures_unless_the_policy_says_so() {
    let mut shop = Shop::offline_under(&policy(AGAIN));
    let before = shop.core.state().head().sequence;
    for _ in 0..100 {
        shop.input(Input::BadSignature { device: MPOS });
    }
    assert_eq!(shop.core.state().head().sequence, before);
}

/// Each number that comes again: 15 points, 10 an hour fade.
const AGAIN: &str = "[anomaly.sequence_reused]\npoints = 15";

/// Both devices have used the number 1.
fn shop_under(text: &str) -> Shop {
    let mut shop = Shop::offline_under(text);
    for (number, device) in [(901, MPOS), (902, SOFTPOS)] {
        odd(&mut shop, device, number, 1);
    }
    assert_eq!(found(&shop), []);
    shop
}

fn odd(shop: &mut Shop, device: DeviceId, number: u64, amount: u64) -> Receipt {
    let card = format!("card {number}");
    let request = PaymentRequest {
        device_sequence: 1,
        ..asked(shop, number, amount, &card)
    };
    shop.pay(device, &request)
}

#[test]
fn rule_5_points_warn_tighten_and_stop_a_device_before_the_payment_that_shows_them() {
    for restarts in [false, true] {
        let mut shop = shop_under(&policy(AGAIN));
        let between = |shop: &mut Shop| {
            if restarts {
                shop.crash();
            }
        };
        assert!(odd(&mut shop, MPOS, 1, 5_001).decision.approved());
        between(&mut shop);
        shop.pass(10 * MINUTE);
        let tightened = odd(&mut shop, MPOS, 2, 5_001);
        assert_eq!(
            tightened.reason,
            Reason::TransactionCeiling,
            "28 points: half of 100,00"
        );
        assert!(pay(&mut shop, MPOS, 3, 5_000, "d").decision.approved());
        assert!(
            pay(&mut shop, SOFTPOS, 4, 5_000, "e").decision.approved(),
            "that device only"
        );
        between(&mut shop);
        shop.pass(10 * MINUTE);
        let stopped = odd(&mut shop, MPOS, 5, 100);
        assert_eq!(
            stopped.reason,
            Reason::ClassNotAllowed,
            "41 points; as receipts say it"
        );
        let record = shop.core.state().payment(&payment_id(5)).unwrap();
        let record = &record.decided.as_ref().unwrap().record;
        assert_eq!(record.reason, Reason::DeviceSuspended);
        between(&mut shop);
        assert!(!pay(&mut shop, MPOS, 6, 100, "f").decision.approved());
        assert!(pay(&mut shop, SOFTPOS, 7, 100, "g").decision.approved());
        let steps = [Restriction::Warned, Restriction::Tightened, Restriction::Stopped];
        assert_eq!(
            restrictions(&shop),
            steps.map(|step| (Some(MPOS), step, RestrictionCause::Anomalies))
        );
    }
}

#[test]
fn points_that_have_faded_restrict_nothing_and_what_is_restricted_stays_so() {
    let mut shop = shop_under(&policy(AGAIN));
    for number in 1..=3 {
        odd(&mut shop, MPOS, number, 100);
        shop.pass(31 * MINUTE);
    }
    assert_eq!(
        restrictions(&shop).last().unwrap().1,
        Restriction::Tightened,
        "15, then 25 - 0.2, then 35 - 0.4"
    );
    shop.pass(60 * MINUTE);
    let still = pay(&mut shop, MPOS, 4, 5_001, "x");
    assert_eq!(still.reason, Reason::TransactionCeiling);
}

#[test]
fn rule_5_points_of_all_devices_together_stop_the_store() {
    let text = policy(&format!("{AGAIN}\n[anomaly.store]\nstop = 30"));
    let mut shop = shop_under(&text);
    assert!(odd(&mut shop, MPOS, 1, 100).decision.approved());
    let stopped = odd(&mut shop, SOFTPOS, 2, 100);
    assert_eq!(stopped.reason, Reason::OfflineDisabled, "as receipts say it");
    shop.crash();
    assert!(!pay(&mut shop, MPOS, 3, 100, "x").decision.approved());
    assert!(restrictions(&shop).contains(&(None, Restriction::Stopped, RestrictionCause::Anomalies)));
    // Online the gateway decides.
    shop.come_back();
    let ticket = shop.send(MPOS, &asked(&shop, 4, 100, "y"));
    let live = shop
        .forwards
        .iter()
        .position(|forward| forward.payment_id == payment_id(4))
        .unwrap();
    let live = shop.forwards.remove(live);
    shop.answer(live.attempt, support::approved());
    assert!(shop.receipt(ticket).decision.approved());
}

/// A device that is stopped, and how it may begin again.
fn stopped(rest: &str) -> Shop {
    let text = policy(&format!("{rest}\n{AGAIN}")).replace("stop = 40", "stop = 21");
    let text = text.replace("warn = 10\ntighten = 20\n", "");
    let mut shop = shop_under(&text);
    odd(&mut shop, MPOS, 1, 100);
    shop.pass(10 * MINUTE);
    assert!(!odd(&mut shop, MPOS, 2, 100).decision.approved());
    shop
}

#[test]
fn a_person_lifts_a_restriction_and_the_ledger_says_who() {
    let mut shop = stopped("");
    let lift = |shop: &mut Shop, device| shop.operate(OperatorCommand::Lift(device));
    assert!(
        matches!(lift(&mut shop, None), OperatorReply::Refused(_)),
        "the store is free"
    );
    assert_eq!(lift(&mut shop, Some(MPOS)), OperatorReply::Done);
    assert!(matches!(lift(&mut shop, Some(MPOS)), OperatorReply::Refused(_)));
    shop.crash();
    assert!(pay(&mut shop, MPOS, 3, 100, "x").decision.approved());
    let by = events(&shop).into_iter().find_map(|event| match event {
        Event::RestrictionChanged { operator, .. } => operator,
        _ => None,
    });
    assert!(by.is_some());
}

#[test]
fn a_restriction_ends_by_time_online_only_if_the_policy_says_so() {
    for (rest, ends) in [("recover_online_minutes = 30", true), ("", false)] {
        let mut shop = stopped(rest);
        shop.come_back();
        shop.pass(30 * MINUTE - 1);
        shop.go_offline();
        shop.come_back();
        shop.pass(30 * MINUTE - 1);
        assert!(
            !restrictions(&shop)
                .iter()
                .any(|(_, to, _)| *to == Restriction::None)
        );
        shop.pass(1_000);
        let ended =
            restrictions(&shop).contains(&(Some(MPOS), Restriction::None, RestrictionCause::TimeOnline));
        assert_eq!(ended, ends, "{rest}");
    }
}

/// Killed between the policy and anything that would follow it, too.
#[test]
fn a_new_policy_ends_every_restriction_and_the_same_one_none() {
    let mut shop = stopped("");
    let text = policy(AGAIN)
        .replace("stop = 40", "stop = 21")
        .replace("warn = 10\ntighten = 20\n", "");
    shop.install(&format!("\n{text}").replacen('\n', "", 1));
    assert!(!pay(&mut shop, MPOS, 3, 100, "x").decision.approved());
    shop.install(&text.replace("version = 1 ", "version = 2 "))
        .unwrap();
    shop.crash();
    assert!(pay(&mut shop, MPOS, 4, 100, "y").decision.approved());
    // What it had done stays known: it is a copy still.
    shop.pass(10 * MINUTE);
    odd(&mut shop, MPOS, 5, 100);
    assert_eq!(found(&shop).last(), Some(&(AnomalyKind::SequenceReused, 5)));
}

fn live(shop: &mut Shop, device: DeviceId, request: &PaymentRequest, answer: GatewayAnswer) -> Receipt {
    let ticket = shop.send(device, request);
    let mut forwards = shop.forwards.iter();
    let at = forwards.position(|forward| forward.payment_id == request.payment_id);
    let forward = shop.forwards.remove(at.unwrap());
    shop.answer(forward.attempt, answer);
    shop.receipt(ticket)
}

/// A shop that has been online for long when something odd begins.
#[test]
fn rule_5_a_restriction_that_begins_online_holds_when_the_line_goes() {
    let text = policy(&format!("recover_online_minutes = 30\n{AGAIN}"))
        .replace("warn = 10\ntighten = 20\nstop = 40", "stop = 10");
    let mut shop = shop_under(&text);
    shop.come_back();
    shop.pass(31 * MINUTE);
    let again = PaymentRequest {
        device_sequence: 1,
        ..asked(&shop, 1, 100, "a")
    };
    // The gateway is gone, and nobody has noticed yet.
    let ticket = shop.send(MPOS, &again);
    for _ in 0..6 {
        shop.pass(500);
    }
    assert!(!shop.receipt(ticket).decision.approved());
    shop.go_offline();
    assert!(!pay(&mut shop, MPOS, 2, 100, "b").decision.approved());
}

#[test]
fn issuers_and_gateways_that_are_out_of_order_are_no_card_testing() {
    let text = policy(
        "[anomaly.card_testing]\ndeclined_cards = 2\nwithin_minutes = 15\nresponse_codes = [\"05\"]\npoints = 5",
    );
    let code = |code: &str| {
        GatewayAnswer::Final(GatewayResult {
            approved: false,
            response_code: code.to_owned(),
            authorisation_code: None,
            reference: None,
        })
    };
    let refuses = GatewayAnswer::RefusesMessage {
        detail: "400".to_owned(),
    };
    for (answer, is_testing) in [(refuses, false), (code("91"), false), (code("05"), true)] {
        let mut shop = Shop::offline_under(&text);
        shop.come_back();
        for number in 1..=3 {
            let request = asked(&shop, number, 100, &format!("card {number}"));
            live(&mut shop, MPOS, &request, answer.clone());
        }
        assert_eq!(!found(&shop).is_empty(), is_testing, "{answer:?}");
    }
}

#[test]
fn a_device_that_is_stopped_does_not_stop_the_store() {
    let text = policy(&format!("{AGAIN}\n[anomaly.store]\nstop = 90"));
    let mut shop = shop_under(&text);
    for number in 1..=20 {
        odd(&mut shop, MPOS, number, 100);
        shop.pass(11 * MINUTE);
    }
    assert!(pay(&mut shop, SOFTPOS, 50, 100, "honest").decision.approved());
}

#[test]
fn rule_5_a_clock_that_was_ahead_does_not_silence_detectors() {
    let mut shop = shop_under(&policy(AGAIN));
    shop.now.wall_ms += 20 * 60 * MINUTE;
    odd(&mut shop, MPOS, 1, 100);
    assert_eq!(found(&shop).len(), 1);
    let right_ms = shop.now.wall_ms - 20 * 60 * MINUTE;
    gateway_says(&mut shop, right_ms);
    shop.go_offline();
    shop.pass(11 * MINUTE);
    odd(&mut shop, MPOS, 2, 100);
    assert_eq!(found(&shop).len(), 2);
}

#[test]
fn without_rules_nothing_is_remembered() {
    let mut shop = Shop::offline();
    for number in 1..=5 {
        odd(&mut shop, MPOS, number, 100);
    }
    assert_eq!(found(&shop), []);
    assert_eq!(shop.core.state().device(&MPOS).unwrap().watch, None);
}
