//! The command line: `hub-sim fraud …`, and the same as `sim-devices sim fraud …`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use super::measure::{Contender, Measured, Seeds, measure, measure_with};
use super::report::{self, Row};
use super::rules;
use super::scenarios::Scenario;
use super::tuning::tune;

/// Plays shop days with fraud through the real core, and measures what it is
/// let through and what the policy's detectors see
#[derive(Args, Clone, Debug)]
pub struct FraudArgs {
    /// Seeds that are measured and reported
    #[arg(long, value_name = "FIRST-LAST", default_value = "1001-1400")]
    report: Seeds,
    /// First look on these seeds for better numbers of detectors; none of them
    /// may be reported
    #[arg(long, value_name = "FIRST-LAST")]
    tune: Option<Seeds>,
    /// The policy (TOML) instead of config/policies/france-watchful.toml
    #[arg(long)]
    policy: Option<PathBuf>,
    /// With the detectors of this policy (TOML) instead of its own
    #[arg(long)]
    anomaly: Option<PathBuf>,
    /// Threads; one a processor unless told otherwise
    #[arg(long)]
    threads: Option<usize>,
    /// One JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// So many policies are played with every kind of fraud, the others with refunds
/// only.
const WHOLE: usize = 3;

/// Runs what was asked.
///
/// # Errors
/// A policy that cannot be read or is not good; output that cannot be written.
pub fn main(args: &FraudArgs) -> std::io::Result<bool> {
    let wrong = |text: String| std::io::Error::other(text);
    if args.tune.is_some_and(|tune| !tune.apart(args.report)) {
        return Err(wrong("a seed that was tuned on must not be reported".to_owned()));
    }
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);
    let (name, text) = match &args.policy {
        None => ("france-watchful".to_owned(), rules::WATCHFUL.to_owned()),
        Some(path) => (stem(path), std::fs::read_to_string(path)?),
    };
    let mut measured = match &args.anomaly {
        None => rules::whole(&name, &text),
        Some(path) => {
            let other = std::fs::read_to_string(path)?;
            let name = format!("{name}, [anomaly] of {}", stem(path));
            rules::with_detectors_of(&name, &text, &other)
        }
    }
    .map_err(wrong)?;
    if let Some(seeds) = args.tune {
        let tuned = tune(&measured, seeds, threads, &|line| say(line)).map_err(wrong)?;
        let mut err = std::io::stderr().lock();
        writeln!(
            err,
            "tuned on seeds {seeds}: {} numbers changed",
            tuned.changed.len()
        )?;
        for (path, from, to) in &tuned.changed {
            writeln!(err, "  anomaly.{path}: {from} -> {to}")?;
        }
        measured = tuned.contender;
    }
    // What the policy would let employees do, were refunds taken offline.
    let with_refunds = rules::with_refunds(&format!("{name} with refunds"), &measured.text);
    let unlooked = with_refunds.as_ref().map_err(String::clone).and_then(|with| {
        rules::without_detector(&format!("{}, not looked for", with.name), &with.text, "refunds")
    });
    let tightened = with_refunds.as_ref().map_err(String::clone).and_then(|with| {
        rules::tightened_by(
            &format!("{}, tightened at once", with.name),
            &with.text,
            "refunds",
        )
    });
    let contenders = [
        rules::caps_only("fixed caps per device", &text),
        rules::without_detectors(&format!("{name} without [anomaly]"), &text),
        Ok(measured),
        unlooked,
        with_refunds,
        tightened,
    ];
    let contenders: Vec<Contender> = contenders.into_iter().collect::<Result<_, _>>().map_err(wrong)?;
    let results: Vec<Measured> = contenders
        .iter()
        .enumerate()
        .map(|(place, contender)| {
            let progress = |done: u64| {
                if done.is_multiple_of(50) {
                    say(&format!("{}: {done} seeds", contender.name));
                }
            };
            if place < WHOLE {
                measure(contender, args.report, threads, &progress)
            } else {
                measure_with(
                    contender,
                    args.report,
                    &[Scenario::RefundAbuse],
                    threads,
                    &progress,
                )
            }
        })
        .collect();
    let rows: Vec<Row<'_>> = contenders
        .iter()
        .zip(&results)
        .map(|(contender, measured)| Row {
            name: &contender.name,
            measured,
        })
        .collect();
    let (whole, refunds) = rows.split_at(WHOLE);
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report::json(whole, refunds, args.report, args.tune))?;
    } else {
        write!(out, "{}", report::text(whole, refunds, args.report))?;
    }
    Ok(true)
}

/// Progress is lost on nobody who does not look.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .map_or_else(|| "policy".to_owned(), |stem| stem.to_string_lossy().into_owned())
}
