//! The checkers' own test: the core with one deliberate fault after the
//! other, each of which must be found.
//!
//! A fault is a patch of the source, listed in `faults.toml`, so that the
//! core itself stays clean. Each is applied to a copy of the pure crates and
//! of this one, built, and run until a seed fails. A patch whose text is not
//! found exactly once is an error: the list keeps up with the code.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::json;

use crate::patch::{self, Patch, mirror};

/// What a build of the simulator needs.
const COPIED: &[&str] = &[
    "protocol/Cargo.toml",
    "protocol/src",
    "hubd/core/Cargo.toml",
    "hubd/core/src",
    // The manifest names them.
    "hubd/core/benches",
];

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fault {
    /// What goes wrong, in a few words.
    name: String,
    /// The rule that it breaks.
    rule: String,
    /// The file, from the project's folder.
    file: String,
    /// Text that is there exactly once.
    find: String,
    /// What stands there instead.
    put: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    fault: Vec<Fault>,
}

/// What came of one.
#[derive(Debug)]
struct Found {
    fault: Fault,
    /// Seeds up to and with the one that failed, and what the checker said.
    after: Option<(u64, String)>,
}

/// Runs the faults and prints the table. True if all were found.
pub(crate) fn main(project: &Path, only: &[String], runs: u64, as_json: bool) -> io::Result<bool> {
    let project = &project.canonicalize()?;
    let text = fs::read_to_string(project.join("sim-devices/sim/faults.toml"))?;
    let list: List = toml::from_str(&text).map_err(io::Error::other)?;
    let scratch = project.join("target").join("faults");
    let workspace = copy(project, &scratch)?;
    let mut all = Vec::new();
    for fault in list.fault {
        if !only.is_empty() && !only.contains(&fault.name) {
            continue;
        }
        let found = try_out(project, &workspace, fault, runs)?;
        let _ = writeln!(
            io::stderr(),
            "{}: {}",
            found.fault.name,
            found.after.as_ref().map_or("NOT FOUND", |_| "found")
        );
        all.push(found);
    }
    print(&all, as_json)?;
    Ok(!all.is_empty() && all.iter().all(|found| found.after.is_some()))
}

fn print(all: &[Found], as_json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if as_json {
        let rows: Vec<_> = all
            .iter()
            .map(|found| {
                json!({
                    "fault": found.fault.name,
                    "rule": found.fault.rule,
                    "seeds": found.after.as_ref().map(|(seeds, _)| seeds),
                    "checker": found.after.as_ref().map(|(_, said)| said),
                })
            })
            .collect();
        return writeln!(out, "{}", json!({ "faults": rows }));
    }
    writeln!(
        out,
        "{:<44} {:<28} {:>5}  the checker said",
        "deliberate fault", "rule", "seeds"
    )?;
    for found in all {
        let (seeds, said) = match &found.after {
            Some((seeds, said)) => (seeds.to_string(), said.as_str()),
            None => ("-".to_owned(), "NOT FOUND"),
        };
        writeln!(
            out,
            "{:<44} {:<28} {seeds:>5}  {said}",
            found.fault.name, found.fault.rule
        )?;
    }
    Ok(())
}

/// A workspace of the pure crates and the simulator, without its command line.
fn copy(project: &Path, scratch: &Path) -> io::Result<PathBuf> {
    let workspace = scratch.join("workspace");
    if workspace.exists() {
        fs::remove_dir_all(&workspace)?;
    }
    for part in COPIED {
        mirror(&project.join(part), &workspace.join(part), &|_| false)?;
    }
    for part in ["Cargo.toml", "src"] {
        mirror(
            &project.join("sim-devices/sim").join(part),
            &workspace.join("sim-devices/sim").join(part),
            &|_| false,
        )?;
    }
    mirror(
        &project.join("Cargo.lock"),
        &workspace.join("Cargo.lock"),
        &|_| false,
    )?;
    let manifest = fs::read_to_string(project.join("Cargo.toml"))?;
    let members = manifest
        .lines()
        .map(|line| match line.starts_with("members = ") {
            true => r#"members = ["protocol", "hubd/core", "sim-devices/sim"]"#,
            false => line,
        })
        .collect::<Vec<_>>()
        .join("\n");
    fs::write(workspace.join("Cargo.toml"), members)?;
    Ok(workspace)
}

fn try_out(project: &Path, workspace: &Path, fault: Fault, runs: u64) -> io::Result<Found> {
    let patch = Patch {
        file: &fault.file,
        find: &fault.find,
        put: &fault.put,
    };
    let said = patch::with(project, workspace, &[patch], || build_and_run(workspace, runs))
        .flatten()
        .map_err(|error| io::Error::other(format!("fault \"{}\": {error}", fault.name)))?;
    // "failed SEED RULE: TEXT", seeds from 1 on.
    let after = said.strip_prefix("failed ").and_then(|rest| {
        let (seed, said) = rest.split_once(' ')?;
        Some((seed.parse().ok()?, said.trim().to_owned()))
    });
    Ok(Found { fault, after })
}

fn build_and_run(workspace: &Path, runs: u64) -> io::Result<String> {
    let target = workspace.with_file_name("build");
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args([
            "build",
            "--release",
            "--offline",
            "--quiet",
            "--package",
            "hub-sim",
        ])
        .args([
            "--no-default-features",
            "--bin",
            "seeds",
            "--config",
            "profile.release.debug=false",
            // Each fault changes one function.
            "--config",
            "profile.release.incremental=true",
        ])
        .current_dir(workspace)
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", "--cap-lints allow");
    let built = build.output()?;
    if !built.status.success() {
        return Err(io::Error::other(format!(
            "does not build:\n{}",
            String::from_utf8_lossy(&built.stderr)
        )));
    }
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    let ran = Command::new(target.join("release/seeds"))
        .args(["1", &runs.to_string(), &threads])
        .output()?;
    Ok(String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}
