//! `seeds FIRST COUNT THREADS`: runs seeds up to the first that fails, without
//! a command line worth the name. Used by the deliberate faults.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let [first, count, threads] = numbers[..] else {
        let _ = writeln!(std::io::stderr(), "usage: seeds FIRST COUNT THREADS");
        return ExitCode::from(2);
    };
    // A panic of the core is an outcome here, not news.
    std::panic::set_hook(Box::new(|_| {}));
    let threads = usize::try_from(threads).unwrap_or(1);
    let summary = hub_sim::run_many(first, count, threads, &hub_sim::Options::default(), &|_| {});
    let mut out = std::io::stdout().lock();
    let _ = match summary
        .first_failure
        .as_ref()
        .and_then(|o| o.violation.as_ref().map(|v| (o.seed, v)))
    {
        None => writeln!(out, "passed {}", summary.runs),
        Some((seed, violation)) => writeln!(out, "failed {seed} {violation}"),
    };
    ExitCode::SUCCESS
}
