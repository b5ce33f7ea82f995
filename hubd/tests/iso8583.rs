//! The line to an acquirer: against one written in Python with pyiso8583, and
//! against peers that mean no good.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of these tests, too

#[path = "iso8583/exchange.rs"]
mod exchange;
#[path = "iso8583/hostile.rs"]
mod hostile;
#[path = "iso8583/peer.rs"]
mod peer;
#[path = "iso8583/setting.rs"]
mod setting;
