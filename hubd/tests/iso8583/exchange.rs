//! Every kind of message in every dialect, with the acquirer in Python.

use std::time::Duration;

use hub_core::{GatewayAnswer, Operation};
use hub_protocol::Cryptogram;
use hubd::upstream::iso8583::Acquirer;
use serde_json::json;
use tempfile::TempDir;

use crate::peer::{Peer, check_golden, python};
use crate::setting::{
    DIALECTS, PATIENCE, SHORT_MS, Sale, certificates, dialect, final_of, is_no_answer, settings,
};

struct Setting {
    _dir: TempDir,
    peer: Peer,
    client: Acquirer,
}

fn with(python: &str, name: &str) -> Setting {
    let dir = tempfile::tempdir().unwrap();
    let certificates = certificates(dir.path());
    let peer = Peer::start(python, name, &certificates, None);
    let client = Acquirer::new(settings(dialect(name), peer.port, &certificates)).unwrap();
    Setting {
        _dir: dir,
        peer,
        client,
    }
}

#[test]
fn the_golden_messages_are_the_same_bytes_to_pyiso8583() {
    let Some(python) = python() else { return };
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/iso8583")).unwrap();
    assert_eq!(check_golden(&python), json!({"checked": files.count()}));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_online_authorisation_arrives_whole_and_its_answer_is_taken() {
    let Some(python) = python() else { return };
    for name in DIALECTS {
        let mut set = with(&python, name);
        let sale = Sale::new(7);
        let result = final_of(sale.ask(&set.client, Operation::AuthoriseOnline, 1).await);
        assert!(result.approved);
        assert_eq!(result.response_code, "00");
        assert_eq!(result.authorisation_code.as_deref(), Some("000001"));
        let line = set.peer.line();
        assert_eq!(line["amount"], sale.amount, "{name}");
        assert_eq!(line["payment_id"], sale.id());
        assert_eq!(
            line["sealed_card"],
            data_encoding::HEXLOWER.encode(&sale.card.blob)
        );
        assert_eq!(line["merchant"], "SHOP-001       ");
        assert_eq!(line["acquirer"], "123456");
        assert_eq!(line["order_id"], "order-7");
        assert_eq!(line["deferred"], false);
        assert_eq!(line["mtis"], json!(["0100"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decline_is_final_and_carries_the_acquirers_code() {
    let Some(python) = python() else { return };
    for name in DIALECTS {
        let mut set = with(&python, name);
        set.peer.set("normal", "51");
        let sale = Sale::new(1);
        let result = final_of(sale.ask(&set.client, Operation::AuthoriseDeferred, 1).await);
        assert_eq!((result.approved, result.response_code.as_str()), (false, "51"));
        assert_eq!(set.peer.line()["deferred"], true, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_3_a_payment_that_was_taken_unheard_is_charged_once_however_often_it_is_repeated() {
    let Some(python) = python() else { return };
    for name in DIALECTS {
        let mut set = with(&python, name);
        set.peer.set("unheard", "00");
        let sale = Sale::new(3);
        let answer = sale
            .ask_within(&set.client, Operation::AuthoriseOnline, 1, SHORT_MS)
            .await;
        assert!(is_no_answer(&answer), "{answer:?}");
        set.peer.set("normal", "51");
        for number in 2..5 {
            let operation = Operation::AuthoriseDeferred;
            let result = final_of(sale.ask(&set.client, operation, number).await);
            assert!(result.approved, "the first answer again");
        }
        let line = set.peer.line();
        assert_eq!(line["charges"], 1, "{name}");
        assert_eq!(line["mtis"], json!(["0100", "0101", "0101", "0101"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_chip_approved_goes_as_an_advice_and_its_repeat() {
    let Some(python) = python() else { return };
    for name in DIALECTS {
        let mut set = with(&python, name);
        set.peer.set("unheard", "00");
        let sale = Sale::of(4, Cryptogram::CardApproved);
        let unheard = sale.ask_within(&set.client, Operation::Advice, 1, SHORT_MS).await;
        assert!(is_no_answer(&unheard));
        set.peer.set("normal", "00");
        assert!(final_of(sale.ask(&set.client, Operation::Advice, 2).await).approved);
        let expected = match name {
            "ebcdic" => json!(["0220", "0221"]),
            _ => json!(["0120", "0121"]),
        };
        let line = set.peer.line();
        assert_eq!(line["mtis"], expected);
        assert_eq!((&line["charges"], &line["deferred"]), (&json!(1), &json!(false)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversal_finds_its_original_by_its_references() {
    let Some(python) = python() else { return };
    for name in DIALECTS {
        let mut set = with(&python, name);
        let sale = Sale::new(5);
        assert!(final_of(sale.ask(&set.client, Operation::AuthoriseOnline, 1).await).approved);
        set.peer.set("unheard", "00");
        let unheard = sale
            .ask_within(&set.client, Operation::Reverse, 1, SHORT_MS)
            .await;
        assert!(is_no_answer(&unheard));
        set.peer.set("normal", "00");
        assert!(final_of(sale.ask(&set.client, Operation::Reverse, 2).await).approved);
        let line = set.peer.line();
        assert_eq!(line["mtis"], json!(["0100", "0420", "0421"]), "{name}");
        assert_eq!(line["reversed"], true);
        assert_eq!(line["original"], "010000000509211413200000012345600000000000");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reversal_of_what_never_arrived_succeeds_and_stops_what_comes_after_it() {
    let Some(python) = python() else { return };
    for name in DIALECTS {
        let mut set = with(&python, name);
        let sale = Sale::new(6);
        let reversed = final_of(sale.ask(&set.client, Operation::Reverse, 1).await);
        assert_eq!((reversed.approved, reversed.response_code.as_str()), (true, "25"));
        let late = final_of(sale.ask(&set.client, Operation::AuthoriseOnline, 1).await);
        assert_eq!((late.approved, late.response_code.as_str()), (false, "R1"));
        assert_eq!(set.peer.line()["charges"], 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_cannot_be_reached_is_no_decline() {
    let Some(python) = python() else { return };
    let mut set = with(&python, "ascii");
    let sale = Sale::new(8);
    set.peer.set("normal", "91");
    let answer = sale.ask(&set.client, Operation::AuthoriseDeferred, 1).await;
    assert_eq!(answer, GatewayAnswer::Pending { retry_after_ms: None });
    set.peer.set("normal", "96");
    let answer = sale.ask(&set.client, Operation::AuthoriseDeferred, 2).await;
    assert!(matches!(answer, GatewayAnswer::Broken { .. }), "{answer:?}");
    set.peer.set("normal", "00");
    assert!(final_of(sale.ask(&set.client, Operation::AuthoriseDeferred, 3).await).approved);
    assert_eq!(set.peer.line()["charges"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hub_signs_on_first_and_the_probe_is_an_echo_test_both_ways() {
    let Some(python) = python() else { return };
    for name in DIALECTS {
        let mut set = with(&python, name);
        assert!(set.client.probe(PATIENCE).await.ok);
        let state = set.peer.state();
        assert_eq!((&state["signed_on"], &state["echoes"]), (&json!(1), &json!(1)));
        set.peer.ask_for_echo();
        // On the same line, so the answer to this comes after that to the
        // acquirer's own.
        assert!(set.client.probe(PATIENCE).await.ok);
        let state = set.peer.state();
        assert_eq!(
            (&state["answered_echoes"], &state["faults"]),
            (&json!(1), &json!([]))
        );
        set.peer.set("deaf", "00");
        assert!(
            !set.client.probe(Duration::from_millis(SHORT_MS)).await.ok,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_sign_on_sends_nothing_and_says_so() {
    let Some(python) = python() else { return };
    let mut set = with(&python, "bcd");
    set.peer.set("refuse", "00");
    set.peer.cut();
    let sale = Sale::new(9);
    let refused = async {
        loop {
            let answer = sale.ask(&set.client, Operation::AuthoriseOnline, 1).await;
            if matches!(answer, GatewayAnswer::RefusesHub { .. }) {
                return answer;
            }
            // The cut has not been seen yet.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, refused).await.unwrap();
    let GatewayAnswer::RefusesHub { detail } = answer else {
        panic!("{answer:?}");
    };
    assert!(detail.contains("response code 58"), "{detail}");
    set.peer.set("normal", "00");
    assert!(
        sale.ask_until_final(&set.client, Operation::AuthoriseOnline)
            .await
            .approved
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn many_payments_at_once_each_get_their_own_answer_on_one_line() {
    let Some(python) = python() else { return };
    let mut set = with(&python, "ebcdic");
    let client = std::sync::Arc::new(set.client);
    let asked: Vec<_> = (1..=100)
        .map(|number| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move {
                let operation = Operation::AuthoriseOnline;
                final_of(Sale::new(number).ask(&client, operation, 1).await)
            })
        })
        .collect();
    for (number, asked) in asked.into_iter().enumerate() {
        let result = asked.await.unwrap();
        assert!(result.approved);
        let stan = format!("{:06}", number + 1);
        assert!(result.reference.unwrap().ends_with(&stan));
    }
    let state = set.peer.state();
    assert_eq!(state["book"].as_array().unwrap().len(), 100);
    assert_eq!((&state["signed_on"], &state["faults"]), (&json!(1), &json!([])));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_acquirer_can_ask_for_the_hubs_certificate() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let certificates = certificates(dir.path());
    let ca = certificates.ca.clone();
    let peer = Peer::start(&python, "bcd", &certificates, Some(&ca));
    let mut known = settings(dialect("bcd"), peer.port, &certificates);
    let unknown = Acquirer::new(known.clone()).unwrap();
    known.client_certificate = Some(certificates.client.clone());
    let known = Acquirer::new(known).unwrap();
    let sale = Sale::new(2);
    assert!(final_of(sale.ask(&known, Operation::AuthoriseOnline, 1).await).approved);
    let answer = sale.ask(&unknown, Operation::AuthoriseOnline, 1).await;
    assert!(is_no_answer(&answer), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acquirer_with_a_strangers_certificate_gets_nothing() {
    let Some(python) = python() else { return };
    let mut set = with(&python, "ascii");
    let other = tempfile::tempdir().unwrap();
    let strangers = certificates(other.path());
    let client = Acquirer::new(settings(dialect("ascii"), set.peer.port, &strangers)).unwrap();
    let answer = Sale::new(1).ask(&client, Operation::AuthoriseOnline, 1).await;
    assert!(is_no_answer(&answer), "{answer:?}");
    assert_eq!(set.peer.state()["book"], json!([]));
}
