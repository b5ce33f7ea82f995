//! Anomalies: each is found at its edge, counts once, and is written down before
//! the payment that shows it is decided.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{Input, OperatorCommand};
use hub_protocol::entry::Event;
use hub_protocol::{
    AnomalyKind, Cryptogram, Decision, DeviceId, PaymentRequest, Reason, Receipt, Restriction,
    RestrictionCause, Terms, TransactionType, Verification,
};
use support::odd::{AGAIN, MINUTE, asked, events, found, gateway_says, pay, policy, restrictions};
use support::{MPOS, POLICY, SOFTPOS, Shop};

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

#[test]
fn rule_6_a_device_that_sends_card_numbers_again_and_again_is_quarantined() {
    // No policy has to ask for it.
    let mut shop = Shop::offline_under(&policy(AGAIN));
    let sent = |shop: &mut Shop, device| shop.input(Input::CardNumber { device });
    let sent_events = |shop: &Shop| -> Vec<Event> {
        let sent = |event: &Event| matches!(event, Event::CardNumbersSent { .. });
        events(shop).into_iter().filter(sent).collect()
    };
    let stopped =
        |shop: &Shop| shop.core.state().device(&MPOS).unwrap().restriction() == Restriction::Stopped;
    let before = shop.core.state().head().sequence;
    sent(&mut shop, MPOS);
    shop.pass(60 * MINUTE);
    sent(&mut shop, MPOS);
    sent(&mut shop, MPOS);
    sent(&mut shop, SOFTPOS);
    sent(&mut shop, support::STRANGER);
    assert_eq!(
        shop.core.state().head().sequence,
        before,
        "the first was an hour ago"
    );
    assert!(!stopped(&shop));
    sent(&mut shop, MPOS);
    let expected = [Event::CardNumbersSent {
        device: MPOS,
        count: 3,
    }];
    assert_eq!(sent_events(&shop), expected);
    assert!(stopped(&shop));
    for _ in 0..1_000 {
        sent(&mut shop, MPOS);
    }
    assert_eq!(sent_events(&shop), expected, "it fills no ledger");
    assert_eq!(pay(&mut shop, MPOS, 1, 100, "a").decision, Decision::Declined);
    shop.crash();
    assert!(stopped(&shop), "through a restart");
    shop.operate(OperatorCommand::Lift(Some(MPOS)));
    assert!(!stopped(&shop));
    assert_eq!(
        pay(&mut shop, MPOS, 2, 100, "a").decision,
        Decision::ApprovedOffline
    );
}
