//! What anomalies lead to: points come together, restrict before the payment
//! that shows them is decided, fade, and restrictions end.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, OperatorCommand, OperatorReply};
use hub_protocol::entry::Event;
use hub_protocol::{
    AnomalyKind, DeviceId, GatewayResult, PaymentRequest, Reason, Receipt, Restriction, RestrictionCause,
};
use support::odd::{AGAIN, MINUTE, asked, events, found, gateway_says, pay, policy, restrictions};
use support::{MPOS, SOFTPOS, Shop, payment_id};

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
