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
    // The gateway works on as many calls at a time as the hub may send of the
    // backlog, long enough on each that customers wait nearly all the time. And
    // slow enough that something is left when the sales are over.
    let out = output(
        Command::new(&programs.sim)
            .args(["drain", "--queue", "4000", "--devices", "8", "--every-ms", "100"])
            .args(["--places", "64", "--delay-ms", "200"])
            .args(["--seconds", "3", "--to-the-end", "--json", "--bin-dir"])
            .arg(bin_dir),
    )?;
    let report: Value = serde_json::from_str(out.trim())?;
    let number = |value: &Value| value.as_u64().context("not a number");
    assert_eq!(report["queued"], 4000, "{report:#}");
    assert!(
        report["left"].as_u64() < Some(4000),
        "the backlog moved: {report:#}"
    );
    // By the gateway's own record, places and order, no times. The sales do
    // not wait until nothing of the backlog is under way,
    let sales = number(&report["draining"]["sales"])?;
    let live = number(&report["live_calls"])?;
    assert!(sales > 0 && live >= sales, "{report:#}");
    assert!(
        number(&report["live_beside_backlog"])? > live / 2,
        "a live sale waits for the backlog: {report:#}"
    );
    // and beside them no more of the backlog is sent than its quarter of the
    // places. Calls pass one another on their way, hence the tenth.
    let beside = number(&report["backlog_beside_live"])?;
    let above = number(&report["backlog_above_its_share"])?;
    assert!(
        beside > 0 && above <= beside / 10,
        "the backlog takes the customers' room: {report:#}"
    );
    assert_eq!(report["lost"], 0, "{report:#}");
    assert_eq!(report["charged_twice"], 0, "{report:#}");
    Ok(())
}
