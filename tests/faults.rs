//! Power cuts, kill -9, failing disks, damaged files: a short run of each. The long ones
//! are `cargo run --release -p hub-tests --bin faults -- power` and so on.
#![allow(missing_docs)]

use std::process::Command;

use anyhow::{Context, Result};
use hub_tests::machine;
use hub_tests::process::Programs;
use serde_json::Value;

/// Runs `faults` with the programs as shipped. Gives its report, and whether
/// it says that nothing is wrong.
fn faults(arguments: &[&str]) -> Result<(Value, bool)> {
    let programs = Programs::find()?;
    let bin_dir = programs.hubd.parent().context("hubd is in no folder")?;
    let done = Command::new(env!("CARGO_BIN_EXE_faults"))
        .args(arguments)
        .args(["--json", "--bin-dir"])
        .arg(bin_dir)
        .output()?;
    let out = String::from_utf8_lossy(&done.stdout);
    let report = serde_json::from_str(out.trim())
        .with_context(|| format!("{out}{}", String::from_utf8_lossy(&done.stderr)))?;
    Ok((report, done.status.success()))
}

/// The sum of a column.
fn sum(report: &Value, column: &str) -> u64 {
    let rows = report["rows"].as_array().into_iter().flatten();
    rows.filter_map(|row| row[column].as_u64()).sum()
}

/// Nothing is lost, nothing charged twice, and there was something to lose.
fn assert_kept(report: &Value, clean: bool, tries: u64) {
    assert!(clean, "{report:#}");
    assert_eq!(report["clean"], true, "{report:#}");
    assert_eq!(sum(report, "tries"), tries, "{report:#}");
    assert_eq!(sum(report, "lost") + sum(report, "twice"), 0, "{report:#}");
    assert_eq!(sum(report, "receipts"), sum(report, "found"), "{report:#}");
    assert!(sum(report, "receipts") > 10 * tries, "{report:#}");
    assert!(sum(report, "charges") > 0, "{report:#}");
}

#[test]
fn rule_2_receipts_survive_power_cuts_and_kills_and_are_charged_once() -> Result<()> {
    if machine::skip("power cuts", machine::missing_for_power()) {
        return Ok(());
    }
    let (report, clean) = faults(&["power", "--cuts", "15", "--kills", "15", "--fs", "ext4,xfs"])?;
    assert_kept(&report, clean, 60);
    Ok(())
}

#[test]
fn rule_2_receipts_and_archives_survive_power_cuts_amid_archiving() -> Result<()> {
    if machine::skip("power cuts", machine::missing_for_power()) {
        return Ok(());
    }
    let (report, clean) = faults(&["archiving", "--cuts", "3", "--fs", "ext4"])?;
    assert!(clean && report["clean"] == true, "{report:#}");
    assert_eq!(sum(&report, "tries"), 3, "{report:#}");
    assert!(sum(&report, "inside") > 0, "{report:#}");
    assert_eq!(sum(&report, "lost") + sum(&report, "twice"), 0, "{report:#}");
    assert_eq!(sum(&report, "receipts"), sum(&report, "found"), "{report:#}");
    assert!(
        sum(&report, "earlier") > 10_000 && sum(&report, "charges") > 0,
        "{report:#}"
    );
    Ok(())
}

#[test]
fn rule_2_older_stores_survive_power_cuts_while_they_are_taken_over() -> Result<()> {
    if machine::skip("power cuts", machine::missing_for_power()) {
        return Ok(());
    }
    // Format 1, and 2 after so many.
    let (report, clean) = faults(&["migration", "--cuts", "5", "--fs", "xfs"])?;
    assert!(clean && report["clean"] == true, "{report:#}");
    assert!(sum(&report, "tries") >= 5, "{report:#}");
    assert!(sum(&report, "inside") > 0, "{report:#}");
    assert_eq!(sum(&report, "lost") + sum(&report, "twice"), 0, "{report:#}");
    assert!(
        sum(&report, "earlier") > 5_000 && sum(&report, "charges") > 1_000,
        "{report:#}"
    );
    Ok(())
}

#[test]
fn a_disk_that_lies_about_flushes_is_seen_to_lose_receipts() -> Result<()> {
    if machine::skip("a lying disk", machine::missing_for_power())
        || machine::skip("a lying disk", machine::missing_for_failing_disk())
    {
        return Ok(());
    }
    for system in ["ext4", "xfs"] {
        let (report, clean) = faults(&["power", "--lying-disk", "--fs", system])?;
        assert!(!clean && report["clean"] == false, "{report:#}");
        assert!(sum(&report, "lost") > 0, "{report:#}");
    }
    Ok(())
}

#[test]
fn rule_1_a_flush_or_write_that_fails_once_ends_the_hub_and_nothing_is_lost() -> Result<()> {
    if machine::skip("failing disks", machine::missing_for_failing_disk()) {
        return Ok(());
    }
    let (report, clean) = faults(&["disk", "--each", "5"])?;
    assert_kept(&report, clean, 20);
    assert_eq!(sum(&report, "ended_itself"), 20, "{report:#}");
    Ok(())
}

#[test]
fn damage_at_random_is_refused_or_mended_and_nothing_outside_it_is_lost() -> Result<()> {
    let (report, clean) = faults(&["damage", "--each", "1", "--payments", "5000"])?;
    assert!(clean && report["clean"] == true, "{report:#}");
    let row = |name: &str| {
        let rows = report["rows"].as_array().into_iter().flatten();
        rows.clone()
            .find(|row| row["damage"] == name)
            .cloned()
            .unwrap_or_default()
    };
    // A missing segment is refused, named and salvaged; a deleted index built
    // again; the cards of a removed file are parked.
    let missing = row("journal: a segment missing");
    for column in ["refused", "named", "salvaged"] {
        assert_eq!(missing[column], 1, "{report:#}");
    }
    assert_eq!(row("index: deleted")["rebuilt"], 1, "{report:#}");
    assert_eq!(row("index: deleted")["aside"], 1, "{report:#}");
    // Where the hub starts, all of it is in the gateway's book in the end.
    for name in [
        "index: deleted",
        "index: an older copy",
        "journal: its last write torn",
    ] {
        assert_eq!(row(name)["charges"], 6000, "{report:#}");
    }
    assert!(
        row("sealed cards: a file removed")["parked"].as_u64() > Some(0),
        "{report:#}"
    );
    Ok(())
}

#[test]
fn a_long_queue_is_the_same_with_its_index_behind_it_and_without_it() -> Result<()> {
    let (report, clean) = faults(&[
        "rebuild",
        "--payments",
        "6000",
        "--devices",
        "6",
        "--cards",
        "2000",
    ])?;
    assert!(clean, "{report:#}");
    let starts = report["starts"].as_array().context("no starts")?;
    assert_eq!(starts.len(), 5, "{report:#}");
    assert!(starts.iter().all(|start| start["queued"] == 6000), "{report:#}");
    Ok(())
}
