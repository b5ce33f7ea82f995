//! A hub as shipped against the payment device in `python_device/`, which was
//! written from `docs/protocol.md` alone.
#![allow(missing_docs)]

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use hub_tests::peer::python;
use hub_tests::process::Programs;

const RUN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python_device/run.py");

#[test]
#[allow(clippy::print_stdout)] // the table is for whoever runs the tests
fn a_device_written_from_the_document_gets_what_the_document_says() -> Result<()> {
    let modules = "aioquic, cbor2, cryptography, zeroconf";
    let Some(python) = python("python_device", modules) else {
        return Ok(());
    };
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
