//! `texts.json`: which texts may stand in an order id or token, and in a name.

use hub_protocol::*;
use serde::{Deserialize, Serialize};

use crate::files::{committed, hold};
use crate::fixtures::*;

#[derive(Serialize, Deserialize)]
struct Text {
    /// "identifier": order id and card token; "name": device name and model,
    /// app.
    field: String,
    text: String,
    refusal: Option<u16>,
}

fn texts() -> Vec<Text> {
    let sixty_four = "x".repeat(64);
    let sixty_five = "x".repeat(65);
    let accented = "é".repeat(33);
    let identifiers = [
        "1",
        &sixty_four,
        "190328106044-104",
        "2026-01-12-000123",
        "m1-1/7 #3",
        "ANON-0000-0000-0001",
        "tok_9f86d081884c7d65",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "018f3c2a-4111-7111-8111-111111111111",
        "4111111111111112",
        "1111111111111117",
        "",
        &sixty_five,
        "a\nb",
        "commande é",
        "4111\u{200b}1111\u{200b}1111\u{200b}1111",
        "４１１１１１１１１１１１１１１１",
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111.1111.1111.1111",
        "3782 822463 10005",
        "PAN4111111111111111",
        "tok_4111111111111111",
        "0004111111111111111",
        "41111111111111112712",
        "4111111111111111D27121010000012300000F",
        "4222 222 222 222",
        "620550 0000000000004",
        "4111    1111    1111    1111",
        "VISA4111111111111111EXP1227CVV123",
        "id5A084111111111111111",
        "4012-20261127-0018",
        "411111-1795781447562",
    ];
    let names = [
        "Caisse 3 – entrée",
        "n° 7",
        "レジ",
        "",
        &sixty_five,
        &accented,
        "Caisse\t3",
        "Caisse \u{202e}3",
        "Caisse\u{2028}3",
        "Caisse ３",
        "4111 1111 1111 1111",
        "4111\u{a0}1111\u{a0}1111\u{a0}1111",
    ];
    let identifiers = identifiers.iter().map(|text| ("identifier", text));
    let names = names.iter().map(|text| ("name", text));
    identifiers
        .chain(names)
        .map(|(field, text)| Text {
            field: field.into(),
            text: (*text).into(),
            refusal: judge(field, text).map(RefusalCode::number),
        })
        .collect()
}

fn judge(field: &str, text: &str) -> Option<RefusalCode> {
    let checks = match field {
        "identifier" => {
            let order = PaymentRequest {
                order_id: text.into(),
                ..payment_full()
            };
            let mut token = payment_full();
            token.card.token = text.into();
            vec![order.check(), token.check()]
        }
        _ => {
            let name = EnrolmentRequest {
                name: text.into(),
                ..enrolment_request()
            };
            let model = EnrolmentRequest {
                model: text.into(),
                ..enrolment_request()
            };
            vec![
                name.check(),
                model.check(),
                Request::Hello { app: text.into() }.check(),
            ]
        }
    };
    let codes: Vec<_> = checks
        .into_iter()
        .map(|check| check.err().map(|refusal| refusal.code))
        .collect();
    assert!(
        codes.windows(2).all(|pair| pair[0] == pair[1]),
        "one rule for all of {field}: {text:?}"
    );
    codes[0]
}

#[test]
fn the_committed_texts_are_judged_as_committed() {
    hold("texts.json", &texts());
    let vectors: Vec<Text> = committed("texts.json");
    for vector in &vectors {
        assert_eq!(
            judge(&vector.field, &vector.text).map(RefusalCode::number),
            vector.refusal
        );
    }
    for code in [None, Some(3005), Some(3006)] {
        for field in ["identifier", "name"] {
            assert!(
                vectors
                    .iter()
                    .any(|vector| vector.field == field && vector.refusal == code)
            );
        }
    }
}

#[test]
fn rule_6_a_refusal_never_repeats_what_was_received() {
    for vector in texts()
        .iter()
        .filter(|vector| vector.refusal.is_some() && vector.text.len() > 4)
    {
        let order = PaymentRequest {
            order_id: vector.text.clone(),
            ..payment_full()
        };
        if let Err(refusal) = order.check() {
            assert!(!refusal.text.contains(&vector.text), "{}", refusal.text);
        }
    }
}
