//! Fraud in a shop that is offline: what it gets under a policy, and what the
//! policy's detectors see of it.
//!
//! - **The honest day** (`day.rs`): a shop, its devices, its customers and its
//!   ordinary mishaps, drawn from a seed and from the figures of real days.
//! - **The fraud** (`cards.rs`, `tampered.rs`, `refunds.rs`, which has the honest
//!   refunds too): labelled attackers, who go on
//!   as long as it pays and know nothing of detectors.
//! - **The hub** (`hub.rs`): the real core in virtual time.
//! - **The play** (`play.rs`): one day under one policy, payment by payment.
//! - **The measure** (`measure.rs`): many days, in figures.
//! - **The policies** (`rules.rs`): the one that is measured and what it is
//!   measured against.
//! - **The tuning** (`tuning.rs`): better numbers for `[anomaly]`, found on
//!   seeds that are never reported.
//! - **The report** (`report.rs`, `cli.rs`).
//!
//! Neither `day.rs` nor the attackers read a policy: what they know of limits
//! is what a shop's customers can know.

mod cards;
pub mod cli;
mod day;
mod hub;
pub mod measure;
mod play;
mod refunds;
mod report;
pub mod rules;
mod scenarios;
mod tampered;
mod tuning;

pub use scenarios::Scenario;
