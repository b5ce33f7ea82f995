//! Many seeds, on several threads.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use hub_protocol::entry::Event;
use hub_protocol::{AllowanceMisuse, Reason};

use crate::violation::{Rule, Violation};
use crate::world::World;

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Steps before the faults cease.
    pub steps: u64,
    /// Keep a log that a person can read.
    pub trace: bool,
    /// Without allowances, anomalies, words on devices, a disk that fills up,
    /// early policies and shops that turn on taps: the run that this seed gave before there were any. For
    /// seeds that failed then.
    pub plain: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps: 300,
            trace: false,
            plain: false,
        }
    }
}

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// Steps taken, healing included.
    pub steps: u64,
    /// Virtual time that passed, in milliseconds.
    pub virtual_ms: u64,
    /// How often the hub was started again.
    pub restarts: u64,
    /// Payments that the ledger holds.
    pub payments: usize,
    /// The reasons of their decisions.
    pub reasons: BTreeSet<Reason>,
    /// Allowances that the ledger holds.
    pub allowances: usize,
    /// What devices did with them that they must not.
    pub misuses: BTreeSet<AllowanceMisuse>,
    /// Over everything that came out of the hub.
    pub hash: u64,
    /// The first rule that did not hold.
    pub violation: Option<Violation>,
    /// The log, if one was asked for.
    pub trace: Vec<String>,
}

/// In an outage at the beginning; more are not made.
const MOST_STEPS_A_SALE: u64 = 20;

/// In which a part of the queue is sent before all faults cease.
const STEPS_A_SALE: u64 = 3;

/// More, where devices with allowances take some of them.
const STEPS_APART: u64 = 120;

/// Runs one seed. The same seed and options give the same outcome.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut world = World::new(seed, options);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let stock = world.profile.stock;
        while world.stocks() && world.steps < MOST_STEPS_A_SALE * stock {
            world.step()?;
        }
        let apart = if world.wallets.is_empty() { 0 } else { STEPS_APART };
        let most = world.steps + options.steps + apart + STEPS_A_SALE * stock;
        while world.steps < most {
            world.step()?;
        }
        world.heal()
    }));
    let violation = match played {
        Ok(played) => played.err(),
        Err(panic) => Some(Violation {
            rule: Rule::Broken,
            text: format!("the core panicked: {}", words(panic.as_ref())),
        }),
    };
    let payments = &world.check.ledger.payments;
    let decided = payments.values().filter_map(|payment| payment.decided.as_ref());
    let reasons = decided.map(|(_, record)| record.reason).collect();
    let events = || world.disk.records.iter().map(|record| &record.entry.event);
    let given = |event: &&Event| matches!(event, Event::AllowanceGiven { .. });
    let allowances = events().filter(given).count();
    let misuses = events().filter_map(|event| match event {
        Event::AllowanceMisused { kind, .. } => Some(*kind),
        _ => None,
    });
    let misuses = misuses.collect();
    Outcome {
        seed,
        steps: world.steps,
        virtual_ms: world.now_ms,
        restarts: world.restarts,
        payments: payments.len(),
        reasons,
        allowances,
        misuses,
        hash: world.check.hash,
        violation,
        trace: world.into_trace(),
    }
}

fn words(panic: &(dyn core::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

/// What came of many seeds.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds run.
    pub runs: u64,
    /// Steps taken in all.
    pub steps: u64,
    /// Payments in all ledgers.
    pub payments: u64,
    /// The reasons of their decisions.
    pub reasons: BTreeSet<Reason>,
    /// Allowances in all ledgers.
    pub allowances: u64,
    /// What devices did with them that they must not.
    pub misuses: BTreeSet<AllowanceMisuse>,
    /// Restarts of the hub in all.
    pub restarts: u64,
    /// Virtual time in all, in milliseconds.
    pub virtual_ms: u64,
    /// The failing outcome with the smallest seed.
    pub first_failure: Option<Outcome>,
}

impl Summary {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.steps += outcome.steps;
        self.payments += u64::try_from(outcome.payments).unwrap_or_default();
        self.reasons.extend(&outcome.reasons);
        self.allowances += u64::try_from(outcome.allowances).unwrap_or_default();
        self.misuses.extend(&outcome.misuses);
        self.restarts += outcome.restarts;
        self.virtual_ms += outcome.virtual_ms;
        let first = self
            .first_failure
            .as_ref()
            .is_none_or(|known| outcome.seed < known.seed);
        if outcome.violation.is_some() && first {
            self.first_failure = Some(outcome);
        }
    }
}

/// Every so many seeds one is run twice.
const TWICE_EVERY: u64 = 16;

/// Now and then runs a seed a second time: it must come out the same.
fn run_and_compare(seed: u64, options: &Options) -> Outcome {
    let mut outcome = run(seed, options);
    if seed.is_multiple_of(TWICE_EVERY) && outcome.violation.is_none() {
        let again = run(seed, options);
        if (again.hash, again.steps) != (outcome.hash, outcome.steps) {
            outcome.violation = Some(Violation {
                rule: Rule::SameAgain,
                text: "the same seed gave another run".to_owned(),
            });
        }
    }
    outcome
}

/// Runs `count` seeds from `first` on, up to the first that fails. `done` is
/// told of every run that has ended.
pub fn run_many(
    first: u64,
    count: u64,
    threads: usize,
    options: &Options,
    done: &(dyn Fn(u64) + Sync),
) -> Summary {
    let next = AtomicU64::new(first);
    let failed = AtomicU64::new(u64::MAX);
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    // Smaller seeds are still run to the end, so that the
                    // first one to fail is the same with any thread count.
                    if seed - first >= count || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = run_and_compare(seed, options);
                    if outcome.violation.is_some() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                    if let Ok(mut summary) = summary.lock() {
                        summary.add(outcome);
                        done(summary.runs);
                    }
                }
            });
        }
    });
    summary.into_inner().unwrap_or_default()
}
