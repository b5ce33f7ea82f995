//! Somebody on the shop's network sends all it can, in every way that there
//! is; over real processes. How long customers wait is not looked at here.
#![allow(missing_docs)]

use std::process::Command;

use anyhow::{Context, Result};
use hub_tests::process::{Programs, output};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// What a hub may take at the most in this test: some 25 MiB are its own, the
/// payments of all floods are queued, and a hostile device can have it keep
/// some 8 MiB for its 4 connections.
const MOST_MEMORY: u64 = 64 * MIB;

/// The same while streams are slow: it came to 28 MiB, and to 149 in a hub that
/// counted no QUIC frames and kept packets for the byte that is in them.
const MOST_MEMORY_FOR_BYTES: u64 = 44 * MIB;

/// What it may write to its log under one flood.
const MOST_LOG: u64 = 64 * 1024;

/// What the hub lets one device ask a second, and twice as much at once. The
/// 4 honest devices ask 20 times. So low, a slow machine reaches it too.
const RATE: &str = "30";

/// Runs the floods, and gives the rows: alone, each flood, alone.
fn floods() -> Result<Value> {
    let programs = Programs::find()?;
    let bin_dir = programs.hubd.parent().context("hubd is in no folder")?;
    let out = output(
        Command::new(&programs.sim)
            .args(["flood", "--seconds", "2", "--devices", "4", "--json"])
            .args(["--requests-per-second", RATE, "--bin-dir"])
            .arg(bin_dir),
    )?;
    Ok(serde_json::from_str(out.trim())?)
}

#[test]
fn rule_2_no_flood_costs_an_honest_payment_and_each_is_bounded() -> Result<()> {
    let report = floods()?;
    assert_eq!(report["ledger_verified"], true, "{report:#}");
    let rows = report["rows"].as_array().context("no rows")?;
    assert_eq!(rows.len(), 11, "alone, nine floods, alone");
    for row in rows {
        let name = row["flood"].as_str().unwrap_or("none");
        let number = |key: &str| row[key].as_u64().unwrap_or(0);
        assert!(number("sales") > 0, "{name}: {row:#}");
        assert_eq!(
            (number("unanswered"), number("not_approved")),
            (0, 0),
            "{name}: {row:#}"
        );
        let memory = number("memory_bytes");
        assert!(memory > 0 && memory < MOST_MEMORY, "{name}: {row:#}");
        assert!(number("log_bytes") < MOST_LOG, "{name}: {row:#}");
        assert_eq!(number("sent") == 0, name == "none", "{name}: {row:#}");
        let answered = |what: &str| row["answers"][what].as_u64().unwrap_or(0);
        let counted = |bound: &str| row["turned_away"][bound].as_u64().unwrap_or(0);
        match name {
            "handshakes" => assert!(counted("handshakes") > 0, "48 of strangers at most: {row:#}"),
            "slow-streams" => {
                assert!(counted("quic-frames-of-device") > 0, "{row:#}");
                assert!(memory < MOST_MEMORY_FOR_BYTES, "{row:#}");
            }
            "padded-handshakes" => {
                assert!(answered("address-proved") > 0, "{row:#}");
                assert!(counted("handshake-packets") > 0, "{row:#}");
            }
            "padding" => assert!(counted("quic-frames-of-device") > 0, "{row:#}"),
            "huge-frames" => {
                assert!(counted("long-frames") > 0, "{row:#}");
                // The last ones may end with the flood.
                assert!(answered("oversized") <= counted("long-frames"), "{row:#}");
                assert_eq!(answered("answered"), 0, "{row:#}");
            }
            "unknown-devices" => {
                assert!(counted("failed-handshakes") > 0, "{row:#}");
                assert_eq!(answered("answered"), 0, "nobody came in: {row:#}");
            }
            "enrolment" => {
                assert!(answered("enrolment-unknown") > 0, "{row:#}");
                assert_eq!(answered("answered"), 0, "nobody was enrolled: {row:#}");
            }
            "mad-device" => {
                assert!(counted("requests-of-device") > 0, "{row:#}");
                assert!(answered("answered") > 0, "and what is good is answered: {row:#}");
            }
            _ => {}
        }
    }
    Ok(())
}
