//! A declined payment is presented again only as its card's scheme allows,
//! and what was done is known after a restart.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, Operation, OperatorCommand};
use hub_protocol::entry::Event;
use hub_protocol::{Entry, GatewayResult, PaymentState, cbor};
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, no_answer, payment_id, request};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// The requests of these tests are of scheme `cb`.
fn policy() -> String {
    format!(
        "{POLICY}\n[replay.scheme.cb]\nnever_retry = [\"04\"]\nretry = [\"51\"]\n\
         most_per_24h = 2\nmost_per_30_days = 3\nmin_wait_minutes = 60\n\
         never_retry_advice = [\"03\"]\n\
         [[replay.scheme.cb.advice_wait]]\ncode = \"26\"\nhours = 48\n"
    )
}

/// A decline that could be presented again, and what the issuer advises.
fn declined_with(advice: &str) -> GatewayAnswer {
    let GatewayAnswer::Final(result) = declined("51") else {
        unreachable!("a decline is final")
    };
    GatewayAnswer::Advised {
        result,
        advice: advice.parse().unwrap(),
    }
}

/// What the ledger says that the issuer advised, by the event's name.
fn advised(shop: &Shop) -> Vec<(&'static str, Option<String>)> {
    let events = shop.disk.iter().map(|payload| {
        let entry: Entry = cbor::decode(payload).unwrap();
        entry.event
    });
    events
        .filter_map(|event| match &event {
            Event::PaymentSettled { advice, .. } | Event::PaymentRetryScheduled { advice, .. } => {
                Some((event.name(), advice.map(|code| code.to_string())))
            }
            _ => None,
        })
        .collect()
}

fn declined(code: &str) -> GatewayAnswer {
    GatewayAnswer::Final(GatewayResult {
        approved: false,
        response_code: code.to_owned(),
        authorisation_code: None,
        reference: Some("ref".to_owned()),
    })
}

fn declined_once() -> Shop {
    let mut shop = Shop::offline_under(&policy());
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    assert_eq!(shop.gateway(declined("51")).presentation, 1);
    shop
}

#[test]
fn where_nothing_can_be_presented_again_every_decline_is_final() {
    let mut shop = Shop::offline_with(&policy(), |settings| settings.presents_again = false);
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(declined("51"));
    assert_eq!(shop.state_of(1), PaymentState::SettledDeclined);
    assert_eq!(
        shop.core.state().store().subject.exposure_minor,
        0,
        "the store's loss, and at risk no more"
    );
    shop.pass(40 * 24 * HOUR_MS);
    assert!(shop.forwards.is_empty());
}

#[test]
fn a_declined_payment_is_presented_again_when_its_scheme_allows_and_no_sooner() {
    let mut shop = declined_once();
    assert_eq!(shop.state_of(1), PaymentState::Queued);
    assert_eq!(
        shop.core.state().store().subject.exposure_minor,
        2_000,
        "still at risk"
    );
    assert!(
        shop.erased.contains(&payment_id(1)),
        "rule 6: the decline ended the authorisation"
    );
    shop.operate(OperatorCommand::Drain);
    assert!(shop.forwards.is_empty(), "nobody may hurry a scheme");
    shop.pass(HOUR_MS - 1);
    assert!(shop.forwards.is_empty());
    shop.pass(1);
    let again = shop.gateway(approved());
    assert_eq!(
        (again.operation, again.presentation),
        (Operation::AuthoriseDeferred, 2)
    );
    assert_eq!(shop.state_of(1), PaymentState::Settled);
    assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
}

#[test]
fn the_counts_survive_restarts_and_end_in_a_settled_decline() {
    let mut shop = declined_once();
    shop.crash();
    assert!(shop.forwards.is_empty());
    shop.pass(HOUR_MS);
    assert_eq!(shop.gateway(declined("51")).presentation, 2);
    shop.crash();
    shop.pass(2 * HOUR_MS);
    assert!(shop.forwards.is_empty(), "two in 24 hours are enough");
    shop.pass(23 * HOUR_MS);
    let third = shop.forwards.remove(0);
    assert_eq!(third.presentation, 3);
    shop.crash();
    shop.pass(0);
    let third_again = shop.forwards.remove(0);
    assert_eq!(
        third_again.presentation, 3,
        "not known to be answered, so not counted"
    );
    shop.answer(third_again.attempt, declined("51"));
    assert_eq!(
        shop.state_of(1),
        PaymentState::SettledDeclined,
        "three in 30 days are all"
    );
    let subject = shop.core.state().store().subject;
    assert_eq!(
        (subject.exposure_minor, subject.unsettled, subject.parked),
        (0, 0, 0)
    );
}

#[test]
fn a_code_that_must_not_be_retried_is_final_at_once() {
    for code in ["04", "05"] {
        let mut shop = Shop::offline_under(&policy());
        shop.pay(MPOS, &request(1, 2_000, "card"));
        shop.go_online();
        shop.gateway(declined(code));
        assert_eq!(shop.state_of(1), PaymentState::SettledDeclined, "{code}");
    }
}

#[test]
fn a_decline_that_is_never_to_be_tried_again_is_final_whatever_its_code_may() {
    let mut shop = Shop::offline_under(&policy());
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(declined_with("03"));
    assert_eq!(shop.state_of(1), PaymentState::SettledDeclined);
    assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
    assert!(shop.erased.contains(&payment_id(1)));
    shop.pass(40 * 24 * HOUR_MS);
    assert!(shop.forwards.is_empty());
    assert_eq!(advised(&shop), [("payment-settled", Some("03".to_owned()))]);
}

#[test]
fn a_payment_waits_as_long_as_the_issuer_advises_through_a_restart() {
    let mut shop = Shop::offline_under(&policy());
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(declined_with("26"));
    assert_eq!(shop.state_of(1), PaymentState::Queued);
    assert_eq!(
        advised(&shop),
        [("payment-retry-scheduled", Some("26".to_owned()))]
    );
    shop.pass(24 * HOUR_MS);
    shop.crash();
    shop.go_online();
    shop.pass(23 * HOUR_MS);
    assert!(shop.forwards.is_empty(), "not before 48 hours are over");
    shop.pass(2 * HOUR_MS);
    // Without an advice the next one has the rest of the rules.
    assert_eq!(shop.gateway(declined("51")).presentation, 2);
    shop.pass(HOUR_MS);
    assert_eq!(shop.gateway(declined_with("26")).presentation, 3);
    assert_eq!(
        shop.state_of(1),
        PaymentState::SettledDeclined,
        "an advice to wait allows no presentation more than the scheme does"
    );
    let told: Vec<_> = advised(&shop).into_iter().map(|(_, code)| code).collect();
    assert_eq!(told, [Some("26".to_owned()), None, Some("26".to_owned())]);
}

#[test]
fn an_advised_decline_of_a_reversal_or_at_the_counter_is_a_decline() {
    let mut shop = Shop::offline_under(&policy());
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(no_answer());
    shop.void(MPOS, payment_id(1));
    shop.pass(60_000);
    assert_eq!(shop.gateway(declined_with("26")).operation, Operation::Reverse);
    assert_eq!(shop.state_of(1), PaymentState::ReversalParked);
    let ticket = shop.send(SOFTPOS, &request(2, 300, "other"));
    shop.gateway(declined_with("26"));
    assert!(!shop.receipt(ticket).decision.approved());
    assert_eq!(shop.state_of(2), PaymentState::Refused);
}

#[test]
fn without_rules_for_the_scheme_every_decline_is_final() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(declined("51"));
    assert_eq!(shop.state_of(1), PaymentState::SettledDeclined);
}

#[test]
fn a_payment_that_waits_for_its_scheme_holds_up_neither_its_card_nor_its_device() {
    let mut shop = declined_once();
    shop.go_offline();
    shop.pay(MPOS, &request(2, 300, "card"));
    shop.go_online();
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(2));
    let queue = shop.queue();
    assert_eq!(queue.len(), 1);
    assert!(
        queue[0].last_error.as_ref().unwrap().contains("51"),
        "it is visible, with its error"
    );
    assert_eq!(queue[0].next_try_ms, Some(HOUR_MS));
}

#[test]
fn a_payment_that_waits_for_its_scheme_does_not_hold_the_consecutive_counts() {
    let mut shop = declined_once();
    let ticket = shop.send(SOFTPOS, &request(2, 300, "other"));
    shop.gateway(approved());
    assert!(shop.receipt(ticket).decision.approved());
    assert_eq!(shop.core.state().store().subject.consecutive, 0);
}

#[test]
fn a_payment_voided_while_it_waits_for_its_scheme_is_never_presented_again() {
    let mut shop = declined_once();
    let ticket = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(ticket).state, PaymentState::ReversalQueued);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    shop.pass(48 * HOUR_MS);
    assert!(shop.forwards.is_empty());
    let subject = shop.core.state().store().subject;
    assert_eq!(
        (subject.exposure_minor, subject.unsettled, subject.parked),
        (0, 0, 0)
    );
}

#[test]
fn a_presentation_that_may_have_been_sent_too_long_ago_is_looked_up_first() {
    let mut shop = declined_once();
    shop.pass(HOUR_MS);
    shop.gateway(no_answer());
    shop.go_offline();
    shop.pass(25 * HOUR_MS);
    shop.come_back();
    shop.pass(60_000);
    let look_up = shop.gateway(GatewayAnswer::NotFound);
    assert_eq!((look_up.operation, look_up.presentation), (Operation::LookUp, 2));
    let again = shop.gateway(approved());
    assert_eq!(
        (again.operation, again.presentation),
        (Operation::AuthoriseDeferred, 2)
    );
}
