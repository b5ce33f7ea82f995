//! Scores in a shop: what they need is remembered, from the ledger and from the
//! index, and only if the policy asks for it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::state::CardKey;
use hub_protocol::{
    Decision, DeviceId, EntryMode, FallbackAction, PaymentRequest, Reason, Score, ScoreFactor, Terms,
    TransactionType, Verification,
};
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, declined, payment_id, request};

fn policy(version: u64, rest: &str) -> String {
    let text = POLICY.replace("version = 1 ", &format!("version = {version} "));
    format!("{text}\n{rest}\n")
}

const NEW_CARDS: &str = "[score]\nverify_from = 10\n[score.new_card]\npoints = 10";

/// By chip, signed for.
fn signed(number: u64, card: &str) -> PaymentRequest {
    PaymentRequest {
        entry_mode: EntryMode::Chip,
        verification: Verification::Signature,
        ..request(number, 100, card)
    }
}

fn pin(number: u64, card: &str) -> PaymentRequest {
    PaymentRequest {
        verification: Verification::OfflinePin,
        ..signed(number, card)
    }
}

/// What the ledger says of the decision.
fn record(shop: &Shop, number: u64) -> (Reason, Option<Score>) {
    let payment = shop.core.state().payment(&payment_id(number)).unwrap();
    let record = &payment.decided.as_ref().unwrap().record;
    (record.reason, record.score.as_deref().cloned())
}

fn live(shop: &mut Shop, device: DeviceId, request: &PaymentRequest, answer: hub_core::GatewayAnswer) {
    shop.forwards.clear();
    shop.send(device, request);
    let forward = shop.forwards.remove(0);
    shop.answer(forward.attempt, answer);
}

#[test]
fn a_card_is_new_until_a_payment_of_it_was_approved() {
    for restarts in [false, true] {
        let mut shop = Shop::offline_under(&policy(1, NEW_CARDS));
        let receipt = shop.pay(MPOS, &signed(1, "a"));
        assert_eq!(
            (receipt.decision, receipt.fallback, receipt.reason),
            (
                Decision::Fallback,
                Some(FallbackAction::InsertCardEnterPin),
                Reason::VerificationRequired
            ),
            "as receipts say it"
        );
        let (reason, score) = record(&shop, 1);
        let score = score.unwrap();
        assert_eq!((reason, score.points), (Reason::ScoreVerification, 10));
        assert_eq!(score.parts[0].factor, ScoreFactor::NewCard);
        assert_eq!(
            shop.pay(MPOS, &signed(2, "a")).decision,
            Decision::Fallback,
            "nothing was approved"
        );
        assert!(shop.pay(MPOS, &pin(3, "a")).decision.approved());
        assert_eq!(record(&shop, 3).1.unwrap().points, 10);
        if restarts {
            shop.crash();
        }
        assert!(shop.pay(SOFTPOS, &signed(4, "a")).decision.approved());
        assert_eq!(record(&shop, 4).1, Some(Score::default()));
        assert_eq!(shop.pay(MPOS, &signed(5, "b")).decision, Decision::Fallback);
    }
}

#[test]
fn a_receipt_for_stated_terms_carries_the_score_and_another_does_not() {
    let mut shop = Shop::offline_under(&policy(1, NEW_CARDS));
    let stated = PaymentRequest {
        terms: Some(Box::new(Terms::of(TransactionType::Sale))),
        ..signed(1, "a")
    };
    let receipt = shop.pay(MPOS, &stated);
    assert_eq!(receipt.reason, Reason::ScoreVerification);
    assert_eq!(receipt.score.as_deref(), record(&shop, 1).1.as_ref());
    assert_eq!(receipt.score.as_ref().map(|score| score.points), Some(10));
    shop.crash();
    assert_eq!(shop.pay(MPOS, &stated), receipt);
    assert_eq!(shop.pay(MPOS, &signed(2, "b")).score, None);
}

#[test]
fn the_gateway_makes_a_card_known_as_well_and_its_no_does_not() {
    let mut shop = Shop::offline_under(&policy(1, NEW_CARDS));
    shop.come_back();
    live(&mut shop, MPOS, &signed(1, "yes"), approved());
    live(&mut shop, MPOS, &signed(2, "no"), declined());
    assert_eq!(record(&shop, 1).1, None, "the gateway decided");
    shop.go_offline();
    assert!(shop.pay(MPOS, &signed(3, "yes")).decision.approved());
    assert_eq!(shop.pay(MPOS, &signed(4, "no")).decision, Decision::Fallback);
}

#[test]
fn a_known_card_stays_in_the_index_and_without_the_rule_none_does() {
    for (rest, kept) in [(NEW_CARDS, true), ("", false)] {
        let mut shop = Shop::offline_under(&policy(1, rest));
        shop.come_back();
        live(&mut shop, MPOS, &signed(1, "a"), approved());
        let key = [&b"c"[..], &CardKey::of_token("a").0].concat();
        let changes = shop.core.state_mut().take_dirty();
        let value = changes.iter().find(|(found, _)| *found == key);
        let value = value.and_then(|(_, value)| value.as_ref());
        assert_eq!(value.is_some(), kept);
        assert!(value.is_none_or(|value| value.len() <= 32), "{value:?}");
    }
}

#[test]
fn offline_payments_of_a_card_count_for_the_score_without_a_window() {
    let mut shop = Shop::offline_under(&policy(
        1,
        "[score]\ndecline_from = 10\n[score.card_lately]\ncount = 3\nwithin_minutes = 30\npoints = 10",
    ));
    for number in 1..=2 {
        assert!(shop.pay(MPOS, &pin(number, "a")).decision.approved());
        shop.crash();
    }
    let third = shop.pay(SOFTPOS, &request(3, 100, "a"));
    assert_eq!(
        (third.decision, third.reason),
        (Decision::Declined, Reason::CardCeiling)
    );
    assert_eq!(record(&shop, 3).0, Reason::ScoreTooHigh);
    shop.pass(30 * 60_000);
    assert!(shop.pay(SOFTPOS, &request(4, 100, "a")).decision.approved());
}

#[test]
fn points_of_anomalies_at_a_device_count_until_they_have_faded() {
    let mut shop = Shop::offline_under(&policy(
        1,
        "[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 10\n[anomaly.sequence_reused]\npoints = 15\n\
         [score]\ndecline_from = 10\n[score.device_odd]\nfrom_points = 12\npoints = 10",
    ));
    let odd = PaymentRequest {
        device_sequence: 1,
        ..pin(2, "b")
    };
    assert!(shop.pay(MPOS, &pin(1, "a")).decision.approved());
    assert!(
        !shop.pay(MPOS, &odd).decision.approved(),
        "what it shows itself counts"
    );
    assert!(shop.pay(SOFTPOS, &request(3, 100, "c")).decision.approved());
    shop.crash();
    assert!(!shop.pay(MPOS, &pin(4, "d")).decision.approved());
    shop.pass(24 * 60_000);
    assert!(
        shop.pay(MPOS, &pin(5, "e")).decision.approved(),
        "less than 12 are left"
    );
}
