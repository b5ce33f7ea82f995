//! What is sent: the JSON bodies of `docs/gateway-api.md`.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hub_core::{Forward, Operation};
use hub_protocol::cose::Unverified;
use hub_protocol::{PaymentRequest, SealedCard, cbor};
use serde::Serialize;

/// A call, ready to be sent.
pub(super) struct Call {
    /// Below the base address.
    pub(super) path: String,
    /// JSON to be posted; `None` for a look-up, which is a GET.
    pub(super) body: Option<Vec<u8>>,
}

/// Why there is nothing to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unsendable {
    /// The stored request is not the one that the ledger says it is.
    Request(String),
    /// The sealed card is missing or another one.
    Card,
}

#[derive(Serialize)]
struct Payment<'a> {
    payment_id: String,
    operation: &'static str,
    store_id: &'a str,
    device_id: String,
    amount_minor: u64,
    currency: &'a str,
    order_id: &'a str,
    card: Card<'a>,
    entry_mode: &'static str,
    verification: &'static str,
    cryptogram: &'static str,
    // Left out unless the device states them.
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cash_back_minor: Option<u64>,
    device_time_ms: u64,
    decided_ms: u64,
    attempt: u32,
    signed_request: String,
    sealed_card: String,
    sealed_card_salt: String,
}

#[derive(Serialize)]
struct Card<'a> {
    scheme: &'static str,
    funding: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer_country: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last4: Option<&'a str>,
    token: &'a str,
}

/// Of a payment that the gateway itself has declined: it has the card.
#[derive(Serialize)]
struct Presentation<'a> {
    payment_id: String,
    store_id: &'a str,
    signed_request: String,
    presentation: u32,
    attempt: u32,
}

#[derive(Serialize)]
struct Reversal<'a> {
    payment_id: String,
    store_id: &'a str,
    signed_request: String,
    attempt: u32,
}

/// Builds the call for `forward`. The request was verified when it came in;
/// here it is only held to be the one that the forward names.
pub(super) fn build(
    store_id: &str,
    forward: &Forward,
    signed_request: &[u8],
    sealed_card: Option<&SealedCard>,
) -> Result<Call, Unsendable> {
    if forward.operation == Operation::LookUp {
        return Ok(Call {
            path: format!("v1/payments/{}", forward.payment_id),
            body: None,
        });
    }
    let request = request_of(forward, signed_request)?;
    let payment_id = forward.payment_id.to_string();
    let operation = match forward.operation {
        Operation::AuthoriseOnline | Operation::AuthoriseDeferred | Operation::Advice
            if forward.presentation > 1 =>
        {
            return Ok(Call {
                path: format!("v1/payments/{payment_id}/presentation"),
                body: Some(json(&Presentation {
                    payment_id,
                    store_id,
                    signed_request: BASE64_STANDARD.encode(signed_request),
                    presentation: forward.presentation,
                    attempt: forward.number,
                })?),
            });
        }
        Operation::AuthoriseOnline => "authorise-online",
        Operation::AuthoriseDeferred | Operation::LookUp => "authorise-deferred",
        Operation::Advice => "advice",
        Operation::Reverse => {
            return Ok(Call {
                path: format!("v1/payments/{payment_id}/reversal"),
                body: Some(json(&Reversal {
                    payment_id,
                    store_id,
                    signed_request: BASE64_STANDARD.encode(signed_request),
                    attempt: forward.number,
                })?),
            });
        }
    };
    let sealed = sealed_card.ok_or(Unsendable::Card)?;
    sealed
        .check(&request.sealed_card_digest)
        .map_err(|_| Unsendable::Card)?;
    let body = json(&Payment {
        payment_id,
        operation,
        store_id,
        device_id: forward.device.to_string(),
        amount_minor: request.amount_minor(),
        currency: request.currency.as_str(),
        order_id: &request.order_id,
        card: Card {
            scheme: request.card.scheme.name(),
            funding: request.card.funding.name(),
            issuer_country: request.card.issuer_country.as_deref(),
            bin: request.card.bin.as_deref(),
            last4: request.card.last4.as_deref(),
            token: &request.card.token,
        },
        entry_mode: request.entry_mode.name(),
        verification: request.verification.name(),
        cryptogram: request.cryptogram.name(),
        transaction_type: request.terms.as_ref().map(|terms| terms.transaction_type.name()),
        cash_back_minor: request.terms.as_ref().and_then(|terms| terms.cash_back_minor),
        device_time_ms: request.device_time_ms,
        decided_ms: forward.decided_ms,
        attempt: forward.number,
        signed_request: BASE64_STANDARD.encode(signed_request),
        sealed_card: BASE64_STANDARD.encode(&sealed.blob),
        sealed_card_salt: BASE64_STANDARD.encode(sealed.salt),
    })?;
    Ok(Call {
        path: "v1/payments".to_owned(),
        body: Some(body),
    })
}

/// The request that `forward` names.
pub(super) fn request_of(forward: &Forward, signed_request: &[u8]) -> Result<PaymentRequest, Unsendable> {
    let request = decode(signed_request)?;
    if request.payment_id != forward.payment_id {
        return Err(Unsendable::Request(
            "the stored request is of another payment; run `hubctl ledger verify`".to_owned(),
        ));
    }
    Ok(request)
}

fn decode(signed_request: &[u8]) -> Result<PaymentRequest, Unsendable> {
    let unreadable =
        |error: String| Unsendable::Request(format!("the stored request cannot be read: {error}"));
    let object = Unverified::parse(signed_request).map_err(|error| unreadable(error.to_string()))?;
    let request: PaymentRequest =
        cbor::decode(object.payload_unverified()).map_err(|error| unreadable(error.to_string()))?;
    request
        .check()
        .map_err(|refusal| unreadable(refusal.to_string()))?;
    Ok(request)
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, Unsendable> {
    serde_json::to_vec(value).map_err(|error| Unsendable::Request(error.to_string()))
}
