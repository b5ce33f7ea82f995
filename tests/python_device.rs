//! A hub as shipped against the payment device in `python_device/`, which was
//! written from `docs/protocol.md` alone.
#![allow(missing_docs)]

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use hub_tests::process::Programs;

const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python_device/run.py");

/// A Python with what the device needs, or the one line that says there is none.
#[allow(clippy::print_stdout)] // the line is for whoever runs the tests
fn python() -> Option<String> {
    let python = std::env::var("HUB_PEER_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut probe = Command::new(&python);
    probe
        .args(["-c", "import aioquic, cbor2, cryptography, zeroconf"])
        .stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let why = format!(
        "{python} has no aioquic, cbor2, cryptography and zeroconf; `.ci/run peers` makes one that has"
    );
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "python_device: {why}, and in CI nothing is skipped");
    println!("skipped: python_device: {why}");
    None
}

#[test]
#[allow(clippy::print_stdout)] // the table is for whoever runs the tests
fn a_device_written_from_the_document_gets_what_the_document_says() -> Result<()> {
    let Some(python) = python() else { return Ok(()) };
    let programs = Programs::find()?;
    let mut run = Command::new(python);
    run.args(["-B", RUN, "--hubd"]).arg(&programs.hubd);
    run.arg("--hubctl").arg(&programs.hubctl);
    run.arg("--sim").arg(&programs.sim);
    let done = run.stdin(Stdio::null()).output().context("cannot start Python")?;
    println!("{}", String::from_utf8_lossy(&done.stdout));
    assert!(
        done.status.success(),
        "{}: {}",
        done.status,
        String::from_utf8_lossy(&done.stderr)
    );
    Ok(())
}
