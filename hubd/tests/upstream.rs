//! The client of the gateway against the simulated gateway, over real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the helpers of these tests, too

#[path = "upstream/answers.rs"]
mod answers;
#[path = "upstream/charges.rs"]
mod charges;
#[path = "upstream/contract.rs"]
mod contract;
#[path = "upstream/line.rs"]
mod line;
#[path = "upstream/setting.rs"]
mod setting;
