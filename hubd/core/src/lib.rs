//! The machine that decides.
//!
//! One synchronous state machine: [`Core::handle`] takes an [`Input`] and the
//! time and returns [`Effect`]s, which the shell around it carries out. No
//! clock, no randomness, no I/O, no thread, no async: the same inputs give
//! the same effects, so a failure is a list of inputs.
//!
//! What the core knows is a fold over ledger entries
//! ([`state::State::apply`]): whatever is decided becomes an entry first, and
//! only the entry changes the state. `Append` goes out; only the later input
//! [`Input::Appended`] releases the reply that depends on it.

pub mod admission;
mod allowance;
mod anomaly;
mod archive;
mod breaker;
pub mod clock;
pub mod closure;
pub mod closure_audit;
mod contact;
mod core;
pub mod counter;
pub mod decide;
pub mod described;
pub mod device_keys;
pub mod effect;
pub mod few;
mod fleet;
mod hub_key;
pub mod input;
mod instead;
mod limits;
mod online;
mod operator;
mod pace;
mod pacing;
mod parked;
pub mod policy;
pub mod profile;
mod queue;
mod random;
mod record;
mod replay;
mod reserve;
mod restrict;
pub mod retry;
pub mod risk;
mod root;
mod score;
mod settings;
mod settle;
mod situation;
pub mod state;
pub mod toml_reader;
pub mod totals;
mod void;
pub mod wan;
pub mod watch;

pub use crate::core::Core;
pub use crate::settings::{Recovered, Settings};
pub use effect::{
    Effect, Forward, OpenAllowance, Operation, OperatorReply, Overview, QueueItem, Reply, Restricted,
    RootStanding,
};
pub use fleet::{
    Contradiction, Joining, ListChanges, ListToTake, MAX_FLEET_MS, MAX_FLEET_SIZE, MAX_FLEET_TOKENS, Sign,
    Standing,
};
pub use input::{
    ArchiveChange, AttemptId, Disclosed, GatewayAnswer, Input, MAX_NOTE, Now, OperatorCommand, Probe, Ticket,
    TlsKeyChange,
};
pub use pacing::LONGEST_SPREAD_MS;
pub use settle::{LEAST_UNDECIDED_ANSWERS, LONGEST_RETRY_AFTER_MS, MOST_FAILURES_ALONE};
pub use situation::Moment;
