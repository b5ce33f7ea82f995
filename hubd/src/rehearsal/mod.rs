//! Policies tried out before they are signed: on payments that somebody wrote
//! down, and on a shop's own past. The decisions are those of [`hub_core`]; nothing of them is made here.

mod describe;
mod example;
mod fields;
mod fold;
mod gateway;
pub mod highest;
mod lines;
mod object;
mod past;
mod payment;
mod rule;
mod shop;

pub(crate) use fold::Fold;
pub use lines::{Fault, GatewaySays, Line, MAX_LINE, Pay, Reader, Step};
pub use past::{Changed, Findings, Rehearsal, Side};
pub use rule::key as rule_key;
pub use shop::{Answer, Decided, Refused, Shop};
