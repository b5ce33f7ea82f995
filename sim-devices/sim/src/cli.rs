//! The command line: `hub-sim …`, and the same as `sim-devices sim …`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::faults;
use crate::fraud::cli::{self as fraud, FraudArgs};
use crate::runner::{Options, Outcome, Summary, run, run_many};

/// Between two lines of progress.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// Runs the shop in virtual time around the real core, faults and all.
#[derive(Args, Clone, Debug)]
pub struct SimArgs {
    /// Run this one seed; the same seed gives the same run
    #[arg(long, conflicts_with_all = ["runs", "first"])]
    seed: Option<u64>,
    /// Run so many seeds, up to the first that fails
    #[arg(long, default_value_t = 1_000)]
    runs: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Steps of each run before all faults cease
    #[arg(long, default_value_t = Options::default().steps)]
    steps: u64,
    /// Threads; one a processor unless told otherwise
    #[arg(long)]
    threads: Option<usize>,
    /// With --seed: print what happened, step by step
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Without allowances, anomalies, words on devices, a disk that fills up
    /// and early policies: the run that a seed gave before there were any
    #[arg(long)]
    plain: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<SimCommand>,
}

#[derive(Clone, Debug, Subcommand)]
enum SimCommand {
    /// Builds the core with one deliberate fault after the other and shows
    /// that the checkers find each
    Faults {
        /// The project's folder
        #[arg(long, default_value = ".")]
        project: PathBuf,
        /// Only these
        #[arg(long)]
        only: Vec<String>,
        /// The most seeds a fault may go unnoticed
        #[arg(long, default_value_t = 3_000)]
        runs: u64,
        /// One JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Plays shop days with fraud, and measures what it is let through and what
    /// the policy's detectors see
    Fraud(FraudArgs),
}

/// Runs what was asked. True if every rule held.
///
/// # Errors
/// Output that cannot be written; deliberate faults that cannot be built.
pub fn main(args: &SimArgs) -> std::io::Result<bool> {
    if let Some(SimCommand::Fraud(args)) = &args.command {
        return fraud::main(args);
    }
    if let Some(SimCommand::Faults {
        project,
        only,
        runs,
        json,
    }) = &args.command
    {
        return faults::main(project, only, *runs, *json);
    }
    let options = Options {
        steps: args.steps,
        trace: args.trace,
        plain: args.plain,
    };
    // A panic of the core is an outcome here, and reported as one.
    std::panic::set_hook(Box::new(|_| {}));
    let held = match args.seed {
        Some(seed) => one(seed, &options, args.json),
        None => many(args, &options),
    };
    let _ = std::panic::take_hook();
    match held {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(true),
        held => held,
    }
}

fn one(seed: u64, options: &Options, as_json: bool) -> std::io::Result<bool> {
    let outcome = run(seed, options);
    let mut out = std::io::stdout().lock();
    for line in &outcome.trace {
        writeln!(out, "{line}")?;
    }
    if as_json {
        writeln!(out, "{}", to_json(&outcome))?;
    } else {
        writeln!(
            out,
            "seed {}: {} steps, {} payments, {} restarts, {} s of virtual time, trace {:016x}",
            outcome.seed,
            outcome.steps,
            outcome.payments,
            outcome.restarts,
            outcome.virtual_ms / 1_000,
            outcome.hash
        )?;
        match &outcome.violation {
            None => writeln!(out, "every rule held")?,
            Some(violation) => writeln!(out, "BROKEN {violation}")?,
        }
    }
    Ok(outcome.violation.is_none())
}

fn to_json(outcome: &Outcome) -> serde_json::Value {
    json!({
        "seed": outcome.seed,
        "steps": outcome.steps,
        "payments": outcome.payments,
        "restarts": outcome.restarts,
        "virtual_ms": outcome.virtual_ms,
        "trace": format!("{:016x}", outcome.hash),
        "broken": outcome.violation.as_ref().map(|v| json!({
            "rule": v.rule.to_string(),
            "text": v.text,
        })),
    })
}

// Only how fast it runs is read off a clock; no run sees it.
#[allow(clippy::disallowed_methods)]
fn many(args: &SimArgs, options: &Options) -> std::io::Result<bool> {
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let began = Instant::now();
    let reported = Mutex::new(began);
    let progress = |done: u64| {
        let Ok(mut last) = reported.try_lock() else {
            return;
        };
        if last.elapsed() >= REPORT_EVERY {
            *last = Instant::now();
            let _ = writeln!(
                std::io::stderr(),
                "{done} of {} runs, {:.0} a second",
                args.runs,
                rate(done, began.elapsed())
            );
        }
    };
    let summary = run_many(args.first, args.runs, threads, options, &progress);
    report(&summary, began.elapsed(), args.json)?;
    Ok(summary.first_failure.is_none())
}

fn report(summary: &Summary, took: Duration, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let a_second = rate(summary.runs, took);
    if as_json {
        return writeln!(
            out,
            "{}",
            json!({
                "runs": summary.runs,
                "runs_a_second": a_second.round(),
                "steps": summary.steps,
                "payments": summary.payments,
                "restarts": summary.restarts,
                "allowances": summary.allowances,
                "virtual_ms": summary.virtual_ms,
                "first_failure": summary.first_failure.as_ref().map(to_json),
            })
        );
    }
    writeln!(
        out,
        "{} runs, {a_second:.0} a second: {} steps, {} payments, {} restarts, {} allowances, {} days of virtual time",
        summary.runs,
        summary.steps,
        summary.payments,
        summary.restarts,
        summary.allowances,
        summary.virtual_ms / 86_400_000
    )?;
    match &summary.first_failure {
        None => writeln!(out, "every rule held in every run"),
        Some(failed) => {
            let what = failed.violation.as_ref().map(ToString::to_string);
            writeln!(
                out,
                "FIRST FAILING SEED {}: {}\nsee it: hub-sim --seed {} --trace",
                failed.seed,
                what.unwrap_or_default(),
                failed.seed
            )
        }
    }
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn rate(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(f64::MIN_POSITIVE)
}
