//! A deterministic simulator over the real `hub-core`: a shop in virtual
//! time, in which everything that can go wrong does, and the rules held to all
//! that comes out.
//!
//! - **The world** ([`run`]; `world.rs`, `people.rs`): one thing happens after
//!   the other, each drawn from the seed. Devices sell, retry the same bytes,
//!   move to another network, come back from an old backup, void, and lie
//!   (`people.rs`); some state who stands there and what is asked for
//!   (`terms.rs`). Some hold allowances, lose the hub and approve by themselves,
//!   as they may or not (`wallet.rs`, `world/apart.rs`, `world/frames.rs`), or
//!   say what they are (`attested.rs`). Questions and answers are dropped,
//!   doubled, delayed and so reordered. The line goes down and up. Clocks jump.
//!   People block devices, install policies, release and drain. The hub is
//!   stopped, killed or loses power between any two steps.
//! - **The disk** (`disk.rs`): keeps what was flushed. A crash may leave the
//!   group under way whole, though nobody was told, or tear it, which leaves
//!   nothing of it but, perhaps, its cards. The index lags behind, loses its
//!   last batches, or vanishes. Others take its room (`room.rs`).
//! - **The gateway** (`gateway.rs`): late, silent after booking, throttling,
//!   out of order, refusing, undecided; and it forgets idempotency keys after
//!   its retention and then books again. Its book is kept apart from
//!   everything that the hub believes.
//! - **The shell** (`shell.rs`): what hubd does around the core, and the only
//!   file that speaks the core's own types.
//! - **The checkers** (`checker.rs`, `ledger.rs`, `verdict.rs`; of allowances
//!   `kept.rs` and `sized.rs`, of anomalies `watched.rs`): a simple model,
//!   written apart from the core, of what the journal says, what each limit has
//!   room for and what may leave when. Held after every step. At the end all
//!   faults cease, people mend what is parked, everybody asks once more, and the
//!   ledger, the gateway's book and what was told must be one story
//!   (`healing.rs`).
//! - **The checkers' test** (`faults.toml`): deliberate faults of the core,
//!   each of which must be found.
//!
//! A failing seed: `hub-sim --seed N --trace` prints what happened step by
//! step, with virtual milliseconds in front; its last lines are the step that
//! broke the rule. The same seed gives the same run, as long as neither the
//! core nor the simulator changes.

mod attested;
mod checker;
#[cfg(feature = "cli")]
pub mod cli;
mod closed;
mod disk;
#[cfg(feature = "cli")]
mod faults;
pub mod figures;
#[cfg(feature = "cli")]
pub mod fraud;
mod gateway;
pub mod generate;
mod healing;
mod kept;
mod ledger;
mod limits;
pub mod patch;
mod people;
mod profile;
pub mod rng;
mod room;
mod runner;
pub mod sale;
mod shell;
mod sized;
mod terms;
mod verdict;
mod violation;
mod wallet;
mod watched;
mod wire;
mod world;

pub use runner::{Options, Outcome, Summary, run, run_many};
pub use violation::{Rule, Violation};
