//! What the gateway makes of calls that the hub would never send, and its
//! control endpoint.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hub_core::Operation;
use hub_protocol::{Cryptogram, Terms, TransactionType};
use reqwest::{Client, RequestBuilder, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sim_devices::gateway::{BookPayment, Faults};

use crate::setting::{Sale, Setting, final_of, setting};

/// A client without the hub's manners.
fn raw(set: &Setting) -> Client {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(set.gateway.ca_pem_path()).unwrap())
        .unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(config)
        .build()
        .unwrap()
}

fn body(sale: &Sale) -> Value {
    let request = &sale.request;
    json!({
        "payment_id": sale.id().to_string(),
        "operation": "authorise-online",
        "store_id": "shop-001",
        "device_id": "01".repeat(32),
        "amount_minor": request.amount_minor(),
        "currency": "EUR",
        "order_id": request.order_id,
        "card": { "scheme": "cb", "funding": "debit", "issuer_country": "FR", "last4": "1234", "token": "tok_abc" },
        "entry_mode": "contactless",
        "verification": "none",
        "cryptogram": "asks-online",
        "device_time_ms": request.device_time_ms,
        "decided_ms": 1,
        "attempt": 1,
        "signed_request": BASE64_STANDARD.encode(&sale.signed),
        "sealed_card": BASE64_STANDARD.encode(&sale.card.blob),
        "sealed_card_salt": BASE64_STANDARD.encode(sale.card.salt),
    })
}

fn post(set: &Setting, sale: &Sale, body: &Value) -> RequestBuilder {
    raw(set)
        .post(format!("{}/v1/payments", set.gateway.url()))
        .bearer_auth(set.gateway.credential())
        .header("idempotency-key", format!("\"{}\"", sale.id()))
        .json(body)
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

/// The names under `required:` of a schema in the OpenAPI file.
fn required(schema: &str) -> Vec<String> {
    include_str!("../../../docs/gateway.openapi.yaml")
        .lines()
        .skip_while(|line| *line != format!("    {schema}:"))
        .skip_while(|line| !line.starts_with("      required:"))
        .skip(1)
        .map_while(|line| line.strip_prefix("        - "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_openapi_file_names_the_fields_that_are_sent() {
    let body = body(&Sale::new(1));
    let mut documented = required("Payment");
    documented.sort_unstable();
    // Both sorted; what the hub itself sends is held to the same names by the
    // gateway, which refuses missing and unknown ones.
    let sent: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
    assert_eq!(documented, sent);
}

#[tokio::test]
async fn a_call_in_order_is_booked_and_can_be_looked_up() {
    let set = setting().await;
    let sale = Sale::new(1);
    let look_up = |id: String| {
        raw(&set)
            .get(format!("{}/v1/payments/{id}", set.gateway.url()))
            .bearer_auth(set.gateway.credential())
    };
    assert_eq!(
        status(look_up(sale.id().to_string())).await,
        StatusCode::NOT_FOUND
    );
    let booked: Value = post(&set, &sale, &body(&sale))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let found: Value = look_up(sale.id().to_string())
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(booked, found);
    assert_eq!(found["status"], "approved");
    assert_eq!(found["payment_id"], sale.id().to_string());
}

#[tokio::test]
async fn whatever_differs_from_what_the_device_signed_is_refused_and_not_booked() {
    let set = setting().await;
    let sale = Sale::new(1);
    let other = Sale::new(2);
    let changes: Vec<(&str, Value)> = vec![
        ("amount_minor", json!(1)),
        ("currency", json!("USD")),
        ("order_id", json!("order-2")),
        ("entry_mode", json!("chip")),
        ("verification", json!("offline-pin")),
        ("cryptogram", json!("card-approved")),
        ("device_time_ms", json!(1)),
        ("operation", json!("advice")),
        ("operation", json!("refund")),
        ("attempt", json!(0)),
        ("device_id", json!("01")),
        ("store_id", json!("")),
        ("signed_request", json!(BASE64_STANDARD.encode(&other.signed))),
        ("signed_request", json!("?")),
        // The sealed card must be the one whose digest the device signed.
        ("sealed_card", json!(BASE64_STANDARD.encode(&other.card.blob))),
        ("sealed_card_salt", json!(BASE64_STANDARD.encode(other.card.salt))),
        ("sealed_card", json!("")),
        ("unknown_field", json!(true)),
    ];
    let tried = changes.len() as u64;
    for (field, value) in changes {
        let mut body = body(&sale);
        body[field] = value.clone();
        assert_eq!(
            status(post(&set, &sale, &body)).await,
            StatusCode::BAD_REQUEST,
            "{field} = {value}"
        );
    }
    assert_eq!(set.gateway.counts().refused, tried);
    assert!(set.gateway.payments().is_empty());
}

#[tokio::test]
async fn the_idempotency_key_is_the_payment_id_as_a_quoted_string() {
    let set = setting().await;
    let sale = Sale::new(1);
    let url = format!("{}/v1/payments", set.gateway.url());
    let client = raw(&set);
    let call = || {
        client
            .post(&url)
            .bearer_auth(set.gateway.credential())
            .json(&body(&sale))
    };
    assert_eq!(status(call()).await, StatusCode::BAD_REQUEST);
    for key in [sale.id().to_string(), "\"another\"".to_owned()] {
        let keyed = call().header("idempotency-key", key);
        assert_eq!(status(keyed).await, StatusCode::BAD_REQUEST);
    }
    let keyed = call().header("idempotency-key", format!("\"{}\"", sale.id()));
    assert_eq!(status(keyed).await, StatusCode::OK);
}

#[tokio::test]
async fn without_the_credential_nothing_is_told_and_too_much_is_not_read() {
    let set = setting().await;
    let sale = Sale::new(1);
    let url = set.gateway.url();
    let bare = raw(&set);
    for request in [
        bare.post(format!("{url}/v1/payments")).json(&body(&sale)),
        bare.get(format!("{url}/v1/payments/{}", sale.id())),
        bare.post(format!("{url}/v1/payments/{}/reversal", sale.id())),
        bare.get(format!("{url}/v1/payments/{}", sale.id()))
            .bearer_auth("wrong"),
    ] {
        assert_eq!(status(request).await, StatusCode::UNAUTHORIZED);
    }
    let long = json!({ "padding": "x".repeat(70_000) });
    assert_eq!(
        status(post(&set, &sale, &long)).await,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    assert_eq!(status(bare.get(format!("{url}/v1/health"))).await, StatusCode::OK);
}

#[tokio::test]
async fn the_settlement_file_adds_up_to_the_charges() {
    let set = setting().await;
    for number in 1..=3 {
        final_of(
            Sale::new(number)
                .ask(&set.client, Operation::AuthoriseOnline)
                .await,
        );
    }
    final_of(Sale::new(3).ask(&set.client, Operation::Reverse).await);
    let settlement = set.gateway.write_settlement().unwrap();
    assert_eq!((settlement.charges, settlement.total_minor), (2, 1001 + 1002));
    let text = std::fs::read_to_string(&settlement.path).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "payment_id,order_id,amount_minor,currency,transaction_type,operation,reference,status"
    );
    assert!(lines[1].starts_with(&format!(
        "{},order-1,1001,EUR,sale,authorise-online,gw-",
        Sale::new(1).id()
    )));
    assert!(lines[3].ends_with(",reversed"));
    assert_eq!(lines[4], "total,2,2003,EUR,,,,charged");
    assert_eq!(lines.len(), 5);
}

#[tokio::test]
async fn a_refund_and_cash_back_reach_the_gateway_as_what_they_are() {
    let set = setting().await;
    let refund = Sale::new(1).stating(Terms::of(TransactionType::Refund));
    let cash_back = Sale::new(2).stating(Terms {
        cash_back_minor: Some(500),
        ..Terms::of(TransactionType::CashBack)
    });
    for sale in [&refund, &cash_back] {
        assert!(final_of(sale.ask(&set.client, Operation::AuthoriseOnline).await).approved);
    }
    assert_eq!(
        set.gateway.payment(refund.id()).unwrap().transaction_type,
        "refund"
    );
    assert_eq!(
        set.gateway.payment(cash_back.id()).unwrap().transaction_type,
        "cash-back"
    );
    let settlement = set.gateway.write_settlement().unwrap();
    assert_eq!(settlement.total_minor, 1002 - 1001, "a refund is money paid out");
}

#[tokio::test]
async fn faults_book_and_settlement_are_had_over_the_control_endpoint() {
    let set = setting().await;
    let control = set.gateway.control_url().unwrap();
    let client = raw(&set);
    let faults = client.post(format!("{control}/control/faults"));
    let told = faults.body(r#"{"decline":1.0}"#).send().await.unwrap();
    assert_eq!(told.status(), StatusCode::OK);
    assert_eq!(
        set.gateway.faults(),
        Faults {
            decline: 1.0,
            ..Faults::default()
        }
    );
    for bad in [r#"{"decline":2}"#, r#"{"nonsense":1}"#, "rubbish"] {
        let faults = client.post(format!("{control}/control/faults")).body(bad);
        assert_eq!(status(faults).await, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert!(!final_of(Sale::new(1).ask(&set.client, Operation::AuthoriseOnline).await).approved);
    let get = |path: &str| client.get(format!("{control}/control/{path}")).send();
    let book: Vec<BookPayment> = get("book").await.unwrap().json().await.unwrap();
    assert_eq!(book, set.gateway.payments());
    let summary: Value = get("summary").await.unwrap().json().await.unwrap();
    assert_eq!(
        (&summary["charges"], &summary["payments"]),
        (&json!(0), &json!(1))
    );
    let settled: Value = client
        .post(format!("{control}/control/settle"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(settled["charges"], 0);
}

#[tokio::test]
async fn what_is_sent_says_which_order_it_is_and_when_it_was() {
    // Of two payments of one card and amount, sent in the same second, the
    // gateway can tell that they are two and when they were.
    let set = setting().await;
    let card = |number| Sale::of(number, 500, "tok_abc", Cryptogram::AsksOnline);
    let (first, second) = (card(1), card(2));
    // The gateway refuses a call whose order id or time differ from what the
    // device signed, or are missing.
    for sale in [&first, &second] {
        final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await);
        let booked = set.gateway.payment(sale.id()).unwrap();
        assert_eq!(booked.order_id, sale.request.order_id);
    }
    assert_eq!((set.gateway.charges(), set.gateway.charged_twice()), (2, 0));
    for missing in ["order_id", "device_time_ms"] {
        let third = Sale::new(3);
        let mut body = body(&third);
        body.as_object_mut().unwrap().remove(missing);
        assert_eq!(
            status(post(&set, &third, &body)).await,
            StatusCode::BAD_REQUEST,
            "{missing}"
        );
    }
}
