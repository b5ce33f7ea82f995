//! Each answer of a gateway, as the core hears it.

use std::sync::Arc;
use std::time::Duration;

use hub_core::{GatewayAnswer, Operation};
use hub_protocol::PaymentId;
use hubd::port::{HubPort, Message, Tell};
use hubd::upstream::{Gateway, probe_loop};
use sim_devices::gateway::{Canned, Faults};

use crate::setting::{PATIENCE, SHORT_MS, Sale, final_of, is_no_answer, setting, settings, with};

fn canned(status: u16, retry_after: Option<&str>, body: &str) -> Faults {
    Faults {
        canned: Some(Canned {
            status,
            retry_after: retry_after.map(str::to_owned),
            body: body.to_owned(),
        }),
        ..Faults::default()
    }
}

async fn hear(status: u16, retry_after: Option<&str>, body: &str) -> GatewayAnswer {
    let set = with(canned(status, retry_after, body)).await;
    Sale::new(1).ask(&set.client, Operation::AuthoriseOnline).await
}

#[tokio::test]
async fn every_status_arrives_as_what_it_means() {
    let set = setting().await;
    let sale = Sale::new(1);
    let approved = r#"{"payment_id":"{payment_id}","status":"approved","response_code":"00"}"#;
    type Check = fn(&GatewayAnswer) -> bool;
    let cases: [(u16, Option<&str>, &str, Check); 18] = [
        (
            200,
            None,
            approved,
            |a| matches!(a, GatewayAnswer::Final(r) if r.approved),
        ),
        (
            200,
            None,
            &approved.replace("approved", "declined"),
            |a| matches!(a, GatewayAnswer::Final(r) if !r.approved),
        ),
        (202, Some("2"), "", |a| {
            *a == GatewayAnswer::Pending {
                retry_after_ms: Some(2000),
            }
        }),
        (202, None, "", |a| {
            *a == GatewayAnswer::Pending { retry_after_ms: None }
        }),
        (409, Some("1"), "", |a| {
            *a == GatewayAnswer::Pending {
                retry_after_ms: Some(1000),
            }
        }),
        (
            422,
            None,
            "x",
            |a| matches!(a, GatewayAnswer::Conflict { detail } if detail == "HTTP 422: x"),
        ),
        (429, Some("5"), "", |a| {
            *a == GatewayAnswer::Throttled {
                retry_after_ms: Some(5000),
            }
        }),
        (429, None, "", |a| {
            *a == GatewayAnswer::Throttled { retry_after_ms: None }
        }),
        (400, None, "", |a| {
            matches!(a, GatewayAnswer::RefusesMessage { .. })
        }),
        (404, None, "", |a| {
            matches!(a, GatewayAnswer::RefusesMessage { .. })
        }),
        (413, None, "", |a| {
            matches!(a, GatewayAnswer::RefusesMessage { .. })
        }),
        (401, None, "", |a| matches!(a, GatewayAnswer::RefusesHub { .. })),
        (403, None, "", |a| matches!(a, GatewayAnswer::RefusesHub { .. })),
        (302, None, "", |a| matches!(a, GatewayAnswer::Broken { .. })),
        (500, None, "", |a| {
            matches!(
                a,
                GatewayAnswer::Broken {
                    retry_after_ms: None,
                    ..
                }
            )
        }),
        (503, Some("9"), "", |a| {
            matches!(
                a,
                GatewayAnswer::Broken {
                    retry_after_ms: Some(9000),
                    ..
                }
            )
        }),
        (204, None, "", is_no_answer),
        (201, None, approved, is_no_answer),
    ];
    for (status, retry_after, body, fits) in cases {
        set.gateway.set_faults(canned(status, retry_after, body)).unwrap();
        let answer = sale.ask(&set.client, Operation::AuthoriseOnline).await;
        assert!(fits(&answer), "{status} {body}: {answer:?}");
    }
}

#[tokio::test]
async fn retry_after_as_a_date_counts_from_the_gateways_own_clock() {
    // Far ahead and long past, so that no clock of this machine matters.
    let far = hear(429, Some("Fri, 01 Jan 2100 00:00:00 GMT"), "").await;
    let longest = Some(hub_core::LONGEST_RETRY_AFTER_MS);
    assert_eq!(
        far,
        GatewayAnswer::Throttled {
            retry_after_ms: longest
        }
    );
    let past = hear(429, Some("Sun, 06 Nov 1994 08:49:37 GMT"), "").await;
    assert_eq!(
        past,
        GatewayAnswer::Throttled {
            retry_after_ms: Some(0)
        }
    );
    let rubbish = hear(429, Some("when it suits"), "").await;
    assert_eq!(rubbish, GatewayAnswer::Throttled { retry_after_ms: None });
}

#[tokio::test]
async fn a_response_for_another_payment_is_never_final() {
    let other = PaymentId([9; 16]);
    let body = format!(r#"{{"payment_id":"{other}","status":"approved","response_code":"00"}}"#);
    let answer = hear(200, None, &body).await;
    assert!(is_no_answer(&answer), "{answer:?}");
}

#[tokio::test]
async fn an_oversized_body_is_never_final_and_hides_no_status() {
    let blanks = " ".repeat(64 * 1024);
    let long =
        format!(r#"{{"payment_id":"{{payment_id}}","status":"approved","response_code":"00"}}{blanks}"#);
    let answer = hear(200, None, &long).await;
    assert!(is_no_answer(&answer), "{answer:?}");
    let answer = hear(503, None, &long).await;
    assert!(
        matches!(&answer, GatewayAnswer::Broken { detail, .. } if detail.len() <= 200),
        "{answer:?}"
    );
}

#[tokio::test]
async fn rule_6_a_card_number_in_an_answer_goes_no_further() {
    let answer = hear(400, None, r#"{"detail":"bad card 4111 1111 1111 1111"}"#).await;
    assert!(!format!("{answer:?}").contains("4111"), "{answer:?}");
}

#[tokio::test]
async fn a_wrong_credential_is_told_apart_from_a_wrong_message() {
    let set = setting().await;
    let wrong = settings(set.gateway.ca_pem_path(), "wrong", set.gateway.url());
    let answer = Sale::new(1)
        .ask(&Gateway::new(wrong).unwrap(), Operation::Advice)
        .await;
    assert!(matches!(answer, GatewayAnswer::RefusesHub { .. }), "{answer:?}");
    assert_eq!(set.gateway.counts().unauthorised, 1);
}

#[tokio::test]
async fn nothing_is_sent_to_a_gateway_with_another_certificate() {
    let (set, other) = (setting().await, setting().await);
    let wrong = settings(
        other.gateway.ca_pem_path(),
        set.gateway.credential(),
        set.gateway.url(),
    );
    let answer = Sale::new(1)
        .ask(&Gateway::new(wrong).unwrap(), Operation::AuthoriseOnline)
        .await;
    assert!(is_no_answer(&answer), "{answer:?}");
    assert_eq!(set.gateway.counts().calls, 0);
}

#[tokio::test]
async fn without_the_right_sealed_card_nothing_is_sent() {
    let set = setting().await;
    let (sale, other) = (Sale::new(1), Sale::new(2));
    let forward = sale.forward(Operation::AuthoriseDeferred, 1, SHORT_MS);
    for card in [None, Some(&other.card)] {
        let (answer, _) = set.client.submit(&forward, &sale.signed, card).await;
        assert_eq!(answer, GatewayAnswer::CardMissing);
    }
    // Nor is another payment's request, nor rubbish.
    for request in [other.signed.as_slice(), b"rubbish"] {
        let (answer, _) = set.client.submit(&forward, request, Some(&sale.card)).await;
        assert!(matches!(answer, GatewayAnswer::Unsendable { .. }), "{answer:?}");
    }
    assert_eq!(set.gateway.counts().calls, 0);
}

#[tokio::test]
async fn a_reversal_needs_no_sealed_card() {
    let set = setting().await;
    let sale = Sale::new(1);
    let forward = sale.forward(Operation::Reverse, 1, crate::setting::ENOUGH_MS);
    let (answer, _) = set.client.submit(&forward, &sale.signed, None).await;
    assert!(final_of(answer).approved);
}

#[tokio::test]
async fn the_probe_brings_the_gateways_time_and_fails_when_nobody_answers() {
    let set = setting().await;
    let probe = set.client.probe(PATIENCE).await;
    assert!(probe.ok);
    // 2020-01-01: only that it is a time, and in milliseconds.
    assert!(
        probe.gateway_time_ms.is_some_and(|ms| ms > 1_577_836_800_000),
        "{probe:?}"
    );
    for faults in [
        Faults {
            never_answer: 1.0,
            health_too: true,
            ..Faults::default()
        },
        Faults {
            unavailable: 1.0,
            health_too: true,
            ..Faults::default()
        },
    ] {
        set.gateway.set_faults(faults).unwrap();
        assert!(!set.client.probe(Duration::from_millis(SHORT_MS)).await.ok);
    }
    set.gateway.stop().await;
    let probe = set.client.probe(PATIENCE).await;
    assert_eq!((probe.ok, probe.gateway_time_ms), (false, None));
}

#[tokio::test]
async fn the_probe_loop_tells_the_hub_until_the_hub_is_gone() {
    let set = setting().await;
    let (port, mut hub) = HubPort::new();
    let probing = tokio::spawn(probe_loop(
        Arc::new(set.client.into()),
        port,
        Duration::from_millis(10),
    ));
    for _ in 0..3 {
        let told = tokio::time::timeout(PATIENCE, hub.recv()).await.unwrap();
        assert!(
            matches!(told, Some(Message::Tell(Tell::Probe(probe))) if probe.ok),
            "{told:?}"
        );
    }
    drop(hub);
    tokio::time::timeout(PATIENCE, probing).await.unwrap().unwrap();
}
