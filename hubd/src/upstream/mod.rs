//! The gateway: payments, replay, probe.
//!
//! Speaks the API of `docs/gateway-api.md` over HTTPS, or an acquirer's ISO
//! 8583 over TLS ([`iso8583`]), one exchange for each [`hub_core::Forward`],
//! and says in the core's words what came of it. It never decides and never repeats a call by itself: when to ask again is the
//! core's affair, and only the core knows that the id stays the same.
//!
//! What holds for HTTPS:
//! - Only an answer with status 200 that names the payment it was asked for
//!   is final. Whatever cannot be read is "no answer", because the gateway
//!   may have taken the payment.
//! - Live sales have connections of their own, so that a replay of any length
//!   never stands in a customer's way.
//! - Everything is bounded: calls at a time, the size of an answer, the time
//!   to wait, the length of texts taken over.
//! - Texts from outside come in without control characters and without clear
//!   card numbers.

mod answer;
mod client;
pub mod iso8583;
mod message;
mod probe;
mod settings;
mod text;

#[cfg(fuzzing)]
pub use answer::fuzz;
pub use client::Gateway;
pub use probe::probe_loop;
pub use settings::{Settings, UpstreamError};

/// A call of `docs/gateway-api.md` that posts something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayCall {
    /// Below the gateway's base address.
    pub path: String,
    /// JSON.
    pub body: String,
}

/// The call for `forward`, for somebody who makes it in a hub's place.
///
/// # Errors
/// In words: the card is missing or another one, the request cannot be read, or
/// it is a look-up, which posts nothing.
pub fn call_for(
    store_id: &str,
    forward: &hub_core::Forward,
    signed_request: &[u8],
    sealed_card: Option<&hub_protocol::SealedCard>,
) -> Result<GatewayCall, String> {
    let call =
        message::build(store_id, forward, signed_request, sealed_card).map_err(|error| match error {
            message::Unsendable::Card => {
                "the sealed card is missing, damaged or another one: a person has to ask the customer again"
                    .to_owned()
            }
            message::Unsendable::Request(text) => text,
        })?;
    let body = call.body.and_then(|body| String::from_utf8(body).ok());
    Ok(GatewayCall {
        path: call.path,
        body: body.ok_or("nothing is posted for this")?,
    })
}

/// Either way to whoever authorises payments.
#[derive(Debug)]
pub enum Upstream {
    /// A payment service provider, over HTTPS.
    Https(Box<Gateway>),
    /// An acquirer, in ISO 8583.
    Iso8583(Box<iso8583::Acquirer>),
}

impl From<Gateway> for Upstream {
    fn from(gateway: Gateway) -> Self {
        Self::Https(Box::new(gateway))
    }
}

impl From<iso8583::Acquirer> for Upstream {
    fn from(acquirer: iso8583::Acquirer) -> Self {
        Self::Iso8583(Box::new(acquirer))
    }
}

impl Upstream {
    /// Makes one attempt and says what came of it and how many milliseconds
    /// it took; see [`Gateway::submit`] and [`iso8583::Acquirer::submit`].
    pub async fn submit(
        &self,
        forward: &hub_core::Forward,
        stored: &iso8583::Stored<'_>,
    ) -> (hub_core::GatewayAnswer, u64) {
        match self {
            Self::Https(gateway) => {
                gateway
                    .submit(forward, stored.signed_request, stored.sealed_card)
                    .await
            }
            Self::Iso8583(acquirer) => acquirer.submit(forward, stored).await,
        }
    }

    /// What came of a probe, and the window of first contact, in
    /// milliseconds, that the gateway asked for with it.
    async fn probe_as_set(&self) -> (hub_core::Probe, Option<u64>) {
        match self {
            Self::Https(gateway) => gateway.probe_as_set().await,
            Self::Iso8583(acquirer) => (acquirer.probe_as_set().await, None),
        }
    }
}
