//! Rule 8, over real processes: a backlog drains while customers pay, and in
//! the end everything is charged once.
#![allow(missing_docs)]

use std::process::Command;

use anyhow::{Context, Result};
use hub_tests::process::{Programs, output};
use serde_json::Value;

#[test]
fn rule_8_customers_are_answered_online_while_a_backlog_drains_and_nothing_is_lost() -> Result<()> {
    let programs = Programs::find()?;
    let bin_dir = programs.hubd.parent().context("hubd is in no folder")?;
    // Slow enough that something is left when the sales are over.
    let out = output(
        Command::new(&programs.sim)
            .args([
                "drain",
                "--queue",
                "4000",
                "--devices",
                "4",
                "--every-ms",
                "250",
                "--places",
                "16",
            ])
            .args(["--seconds", "3", "--to-the-end", "--json", "--bin-dir"])
            .arg(bin_dir),
    )?;
    let report: Value = serde_json::from_str(out.trim())?;
    assert_eq!(report["queued"], 4000, "{report:#}");
    assert!(report["draining"]["sales"].as_u64() > Some(0), "{report:#}");
    assert!(
        report["left"].as_u64() < Some(4000),
        "the backlog moved: {report:#}"
    );
    assert_eq!(report["lost"], 0, "{report:#}");
    assert_eq!(report["charged_twice"], 0, "{report:#}");
    Ok(())
}
