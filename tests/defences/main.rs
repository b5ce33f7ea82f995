//! `defences`: takes the defences of `docs/threats.md` away, one after the
//! other, and wants the tests that the document names for them to fail.
//!
//! Each is a patch of a copy of the source, listed in `defences.toml`: a
//! plausible mistake that compiles. The copy and what is built from it stay
//! in the target folder, so that each patch costs the building of one crate.
//! A test counts as having noticed if it passes without the patch and, with
//! it, runs and fails.
//!
//! Exit codes: 0 each was noticed; 1 one was not, or it could not be tried;
//! 2 wrong usage.
#![allow(clippy::disallowed_methods)] // how long real builds take, in real time

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use hub_sim::patch;
use hub_tests::defences::{self, Defence};
use serde::Serialize;
use workshop::{Target, Verdict, Workshop};

mod workshop;

/// Takes the defences of docs/threats.md away, one after the other, and wants
/// the tests that are named there to fail.
#[derive(Parser)]
struct Cli {
    /// Only those of this name, or of the threats that begin so (may be given
    /// several times)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How many processes cargo builds with at once; otherwise as it likes
    #[arg(long)]
    jobs: Option<u32>,
    /// The project's folder
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.."))]
    project: PathBuf,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// What came of one defence.
#[derive(Debug, Serialize)]
struct Row {
    threat: String,
    name: String,
    package: String,
    target: String,
    tests: Vec<String>,
    noticed: bool,
    /// What the tests said, or why it was not noticed.
    said: String,
    seconds: u64,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(std::io::stderr(), "defences: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tries them all out and prints what came of it. Gives whether each was
/// noticed.
fn run(cli: &Cli) -> Result<bool> {
    let project = cli.project.canonicalize().context("no such project")?;
    let wrong = defences::faults(&project)?;
    if !wrong.is_empty() {
        bail!("mend tests/defences/defences.toml:\n{}", wrong.join("\n"));
    }
    let (list, _) = defences::read(&project)?;
    let asked = |defence: &Defence| {
        cli.only.is_empty()
            || cli
                .only
                .iter()
                .any(|only| *only == defence.name || defence.row.starts_with(only.as_str()))
    };
    let mut targets: Vec<(Target, Vec<Defence>)> = Vec::new();
    for defence in list.defence.into_iter().filter(asked) {
        let target = Target::of(&defence)?;
        match targets.iter_mut().find(|(other, _)| *other == target) {
            Some((_, defences)) => defences.push(defence),
            None => targets.push((target, vec![defence])),
        }
    }
    if targets.is_empty() {
        bail!("nothing of this name; the names stand in tests/defences/defences.toml");
    }
    let workshop = Workshop::open(&project, &target_folder()?, cli.jobs)?;
    let mut rows = Vec::new();
    for (target, defences) in targets {
        let sound = is_sound(&workshop, &target, &defences)?;
        for defence in defences {
            let row = try_out(&project, &workshop, &target, defence, &sound)?;
            let verdict = if row.noticed { "noticed" } else { "NOT NOTICED" };
            // As it goes, for whoever watches; nobody has to.
            let _ = writeln!(
                std::io::stderr(),
                "{verdict:<11} {:>4} s  {}: {}",
                row.seconds,
                row.name,
                row.said
            );
            rows.push(row);
        }
    }
    print(&rows, cli.json)?;
    Ok(rows.iter().all(|row| row.noticed))
}

/// Runs every test of a target that is named, once, without any patch. Gives
/// what each came to.
fn is_sound(workshop: &Workshop, target: &Target, defences: &[Defence]) -> Result<BTreeMap<String, Verdict>> {
    let program = workshop
        .build(target)?
        .map_err(|error| anyhow::anyhow!("{target} does not build:\n{error}"))?;
    let mut tests: Vec<String> = defences
        .iter()
        .flat_map(|defence| defence.tests.clone())
        .collect();
    tests.sort();
    tests.dedup();
    workshop.run(target, &program, &tests)
}

/// Takes one defence away and sees what its tests say.
fn try_out(
    project: &Path,
    workshop: &Workshop,
    target: &Target,
    defence: Defence,
    sound: &BTreeMap<String, Verdict>,
) -> Result<Row> {
    let began = Instant::now();
    let unsound = defence.tests.iter().find_map(|test| match sound.get(test) {
        Some(Verdict::Passed) => None,
        Some(Verdict::Failed(why)) => Some(format!("{test} fails without the patch too: {why}")),
        Some(Verdict::Ended) | None => Some(format!("{test} comes to no end without the patch")),
    });
    let (noticed, said) = match unsound {
        Some(said) => (false, said),
        None => {
            let ran = patch::with(project, &workshop.copy, &defence.patches(), || {
                let program = match workshop.build(target)? {
                    Ok(program) => program,
                    Err(error) => return Ok(Err(error)),
                };
                workshop.run(target, &program, &defence.tests).map(Ok)
            })
            .with_context(|| format!("\"{}\"", defence.name))??;
            match ran {
                Ok(verdicts) => judge(&defence.tests, &verdicts),
                Err(error) => (false, format!("does not build: {error}")),
            }
        }
    };
    Ok(Row {
        threat: defence.row,
        name: defence.name,
        package: defence.package,
        target: defence.target,
        tests: defence.tests,
        noticed,
        said,
        seconds: began.elapsed().as_secs(),
    })
}

/// Whether all of a defence's tests failed, and what they said.
fn judge(tests: &[String], verdicts: &BTreeMap<String, Verdict>) -> (bool, String) {
    let mut said = Vec::new();
    for test in tests {
        match verdicts.get(test) {
            Some(Verdict::Failed(why)) => said.push(why.clone()),
            Some(Verdict::Passed) => return (false, format!("{test} passes without the defence")),
            Some(Verdict::Ended) | None => return (false, format!("{test} came to no end by itself")),
        }
    }
    said.dedup();
    (true, said.join("; "))
}

/// Where the project is built: this program lies in a folder of it.
fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?.canonicalize()?;
    let target = own.parent().and_then(Path::parent).context("no target folder")?;
    Ok(target.to_owned())
}

fn print(rows: &[Row], as_json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", serde_json::json!({ "defences": rows }))?;
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(["threat", "defence taken away", "", "seconds", "the tests said"]);
    for row in rows {
        table.add_row([
            row.threat.clone(),
            row.name.clone(),
            if row.noticed { "noticed" } else { "NOT NOTICED" }.to_owned(),
            row.seconds.to_string(),
            row.said.clone(),
        ]);
    }
    let noticed = rows.iter().filter(|row| row.noticed).count();
    writeln!(out, "{table}\n{noticed} of {} noticed", rows.len())?;
    Ok(())
}
