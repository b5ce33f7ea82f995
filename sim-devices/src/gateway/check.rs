//! Reading what a hub sends, and holding it to what the device signed.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hub_protocol::cose::Unverified;
use hub_protocol::{Cryptogram, Digest, PaymentId, PaymentRequest, SealedCard, cbor};
use serde::Deserialize;

use super::problem::Problem;

/// What a gateway understands. The simulated one is strict about unknown
/// fields, so that the hub, this and the documents cannot drift apart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PaymentBody {
    payment_id: String,
    operation: String,
    store_id: String,
    device_id: String,
    amount_minor: u64,
    currency: String,
    order_id: String,
    card: CardBody,
    entry_mode: String,
    verification: String,
    cryptogram: String,
    transaction_type: Option<String>,
    cash_back_minor: Option<u64>,
    device_time_ms: u64,
    // Of interest to people only.
    #[serde(rename = "decided_ms")]
    _decided_ms: u64,
    attempt: u32,
    signed_request: String,
    sealed_card: String,
    sealed_card_salt: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CardBody {
    scheme: String,
    funding: String,
    issuer_country: Option<String>,
    bin: Option<String>,
    last4: Option<String>,
    token: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReversalBody {
    payment_id: String,
    store_id: String,
    signed_request: String,
    attempt: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresentationBody {
    payment_id: String,
    store_id: String,
    signed_request: String,
    presentation: u32,
    attempt: u32,
}

/// A call that is in order.
pub(super) struct Checked {
    pub(super) payment_id: String,
    pub(super) operation: String,
    pub(super) store_id: String,
    /// Empty for a reversal.
    pub(super) device_id: String,
    pub(super) request: PaymentRequest,
    /// Which presentation to the issuer, from 1.
    pub(super) presentation: u32,
    /// SHA-256 over payment id and signed request. The operation is not part
    /// of it: a payment first asked online and then decided offline is the
    /// same payment.
    pub(super) fingerprint: String,
    /// The sealed card; empty for whatever comes without one.
    pub(super) sealed_card: Vec<u8>,
}

/// Whether the call shows this credential.
pub(super) fn authorised(headers: &HeaderMap, credential: &str) -> bool {
    headers
        .get(AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "))
        .is_some_and(|shown| shown == credential.as_bytes())
}

/// Reads `POST /v1/payments`.
pub(super) fn payment(headers: &HeaderMap, body: &[u8]) -> Result<Checked, Problem> {
    let body: PaymentBody = json(body)?;
    key_matches(headers, &body.payment_id)?;
    let (request, fingerprint) = signed(&body.payment_id, &body.signed_request)?;
    attempt(body.attempt)?;
    check_operation(&body.operation, request.cryptogram)?;
    let terms = request.terms.as_deref();
    let says_the_same = body.amount_minor == request.amount_minor()
        && body.currency == request.currency.as_str()
        && body.order_id == request.order_id
        && body.card.scheme == request.card.scheme.name()
        && body.card.funding == request.card.funding.name()
        && body.card.issuer_country == request.card.issuer_country
        && body.card.bin == request.card.bin
        && body.card.last4 == request.card.last4
        && body.card.token == request.card.token
        && body.entry_mode == request.entry_mode.name()
        && body.verification == request.verification.name()
        && body.cryptogram == request.cryptogram.name()
        && body.transaction_type.as_deref() == terms.map(|terms| terms.transaction_type.name())
        && body.cash_back_minor == terms.and_then(|terms| terms.cash_back_minor)
        && body.device_time_ms == request.device_time_ms;
    if !says_the_same {
        return Err(Problem::malformed("the fields differ from the signed request"));
    }
    if body.device_id.len() != 64 || body.store_id.is_empty() {
        return Err(Problem::malformed("device_id or store_id is not one"));
    }
    let sealed = SealedCard {
        salt: base64("sealed_card_salt", &body.sealed_card_salt)?
            .try_into()
            .map_err(|_| Problem::malformed("sealed_card_salt: 16 bytes expected"))?,
        blob: base64("sealed_card", &body.sealed_card)?,
    };
    sealed
        .check(&request.sealed_card_digest)
        .map_err(|refusal| Problem::malformed(&refusal.to_string()))?;
    Ok(Checked {
        payment_id: body.payment_id,
        operation: body.operation,
        store_id: body.store_id,
        device_id: body.device_id,
        request,
        presentation: 1,
        fingerprint,
        sealed_card: sealed.blob,
    })
}

/// Reads `POST /v1/payments/{id}/reversal`.
pub(super) fn reversal(in_path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Checked, Problem> {
    let body: ReversalBody = json(body)?;
    key_matches(headers, &body.payment_id)?;
    if body.payment_id != in_path {
        return Err(Problem::malformed("payment_id differs from the one in the path"));
    }
    attempt(body.attempt)?;
    let (request, fingerprint) = signed(&body.payment_id, &body.signed_request)?;
    Ok(Checked {
        payment_id: body.payment_id,
        operation: "reversal".to_owned(),
        store_id: body.store_id,
        device_id: String::new(),
        request,
        presentation: 1,
        fingerprint,
        sealed_card: Vec::new(),
    })
}

/// Reads `POST /v1/payments/{id}/presentation`.
pub(super) fn presentation(in_path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Checked, Problem> {
    let body: PresentationBody = json(body)?;
    key_matches(headers, &body.payment_id)?;
    if body.payment_id != in_path {
        return Err(Problem::malformed("payment_id differs from the one in the path"));
    }
    attempt(body.attempt)?;
    if body.presentation < 2 {
        return Err(Problem::malformed("presentation: the first one is a payment"));
    }
    let (request, fingerprint) = signed(&body.payment_id, &body.signed_request)?;
    Ok(Checked {
        payment_id: body.payment_id,
        operation: "presentation".to_owned(),
        store_id: body.store_id,
        device_id: String::new(),
        request,
        presentation: body.presentation,
        fingerprint,
        sealed_card: Vec::new(),
    })
}

fn json<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::malformed(&error.to_string()))
}

/// `Idempotency-Key` (IETF httpapi draft 07) is a quoted string, and here
/// always the payment id.
fn key_matches(headers: &HeaderMap, payment_id: &str) -> Result<(), Problem> {
    let expected = format!("\"{payment_id}\"");
    match headers.get("idempotency-key") {
        None => Err(Problem::malformed("the Idempotency-Key header is missing")),
        Some(key) if key.as_bytes() == expected.as_bytes() => Ok(()),
        Some(_) => Err(Problem::malformed(
            "Idempotency-Key is not the payment id as a quoted string",
        )),
    }
}

fn attempt(attempt: u32) -> Result<(), Problem> {
    if attempt == 0 {
        return Err(Problem::malformed("attempt: counted from 1"));
    }
    Ok(())
}

/// What the chip promised decides as what a payment may come: an advice tells
/// of an approval by the chip, a deferred authorisation asks for one.
fn check_operation(operation: &str, cryptogram: Cryptogram) -> Result<(), Problem> {
    match (operation, cryptogram) {
        (_, Cryptogram::Refused) => Err(Problem::malformed("the card itself refused this payment")),
        ("authorise-online", _)
        | ("authorise-deferred", Cryptogram::AsksOnline)
        | ("advice", Cryptogram::CardApproved) => Ok(()),
        ("authorise-deferred" | "advice", _) => Err(Problem::malformed(
            "the operation does not fit the card's cryptogram",
        )),
        _ => Err(Problem::malformed("operation: not one that is known here")),
    }
}

/// Decodes the signed request without checking the device's signature: a PSP
/// that knows the devices' keys would check it here.
fn signed(payment_id: &str, encoded: &str) -> Result<(PaymentRequest, String), Problem> {
    let id: PaymentId = payment_id
        .parse()
        .map_err(|_| Problem::malformed("payment_id: a UUID in lower case expected"))?;
    let bytes = base64("signed_request", encoded)?;
    let object = Unverified::parse(&bytes).map_err(|error| Problem::malformed(&error.to_string()))?;
    let request: PaymentRequest = cbor::decode(object.payload_unverified())
        .map_err(|error| Problem::malformed(&format!("signed_request: {error}")))?;
    request
        .check()
        .map_err(|refusal| Problem::malformed(&refusal.to_string()))?;
    if request.payment_id != id {
        return Err(Problem::malformed("the signed request is of another payment"));
    }
    let mut both = id.0.to_vec();
    both.extend_from_slice(&bytes);
    Ok((request, Digest::of(&both).to_string()))
}

fn base64(field: &str, text: &str) -> Result<Vec<u8>, Problem> {
    BASE64_STANDARD
        .decode(text)
        .map_err(|_| Problem::malformed(&format!("{field}: not base64")))
}
