//! The gateway: payments, replay, probe.
//!
//! Speaks the API of `docs/gateway-api.md` over HTTPS, one call for each
//! [`hub_core::Forward`], and says in the core's words what came of it. It
//! never decides and never repeats a call by itself: when to ask again is the
//! core's affair, and only the core knows that the id stays the same.
//!
//! What holds here:
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
mod message;
mod probe;
mod settings;
mod text;

pub use client::Gateway;
pub use probe::probe_loop;
pub use settings::{Settings, UpstreamError};
