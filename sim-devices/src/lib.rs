//! Simulated devices and days around a real hub.
//!
//! `demo` plays a generated shop day through an outage, `day` a file of real
//! tickets, `load` measures, `flood` too while somebody means no good. All start `hubd` as it ships, as a process of
//! its own, and kill it without warning. [`check`] then compares what the
//! customers were told with the gateway's own book.
#![allow(clippy::disallowed_methods)] // simulations live in real time, and make keys

pub mod binaries;
pub mod card_data;
pub mod ceilings;
pub mod check;
pub mod day;
pub mod demo;
pub mod device;
pub mod drain;
pub mod fleet;
pub mod flood;
pub mod gateway;
pub mod generate;
pub mod limits;
pub mod load;
pub mod payments;
pub mod player;
pub mod progress;
pub mod report;
pub mod scene;
pub mod shop;
pub mod skipped;
pub mod tickets;
pub mod till;
pub mod told;
pub mod wan;
pub mod witness;

pub use hub_sim::{figures as profile, rng, sale};

#[cfg(test)]
mod sample;
