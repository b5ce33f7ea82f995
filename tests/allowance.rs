//! An allowance over real processes: a device approves while the hub is off,
//! and what it approved is in the ledger and at the gateway once it is back.
#![allow(missing_docs)]

use std::fs;

use anyhow::{Context, Result, ensure};
use hub_tests::process::{Programs, output, until};
use hub_tests::served::ServedHub;
use serde_json::Value;

/// So slow that what is sent can be seen while it waits.
const SLOW: &str = r#"{"slow":1.0,"delay_ms":3000}"#;

const ALLOWANCE: &str = "\n[allowance]\namount = 10000\ncount = 5\ntransaction_ceiling = 4000\n\
                         minutes = 60\nclasses = [\"terminal\"]\ncard_ceiling = 4000\ndevices = 2\n";

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn said(hub: &ServedHub, args: &[&str]) -> Result<Vec<Value>> {
    lines(&output(hub.device("till").args(args))?)
}

fn ids(lines: &[Value]) -> Vec<String> {
    let id = |line: &Value| line["payment_id"].as_str().unwrap_or_default().to_owned();
    lines.iter().map(id).collect()
}

/// A policy with allowances in force.
fn install(hub: &ServedHub) -> Result<()> {
    let dir = hub.device_dir("hub");
    let text = fs::read_to_string(dir.join("policy.toml"))?;
    let text = text.replace("\nversion = 1", "\nversion = 2") + ALLOWANCE;
    let (toml, signed) = (dir.join("allowing.toml"), dir.join("allowing.cose"));
    fs::write(&toml, text)?;
    let key = dir.join("keys").join("policy-local.key");
    let path = |path: &std::path::Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
    hub.hubctl(&[
        "policy",
        "sign",
        "--key",
        &path(&key)?,
        &path(&toml)?,
        &path(&signed)?,
    ])?;
    hub.hubctl(&["policy", "install", &path(&signed)?]).map(|_| ())
}

#[test]
fn rule_2_what_a_device_approves_while_the_hub_is_off_is_told_queued_and_charged_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = ServedHub::new(&Programs::find()?, dir.path(), SLOW)?;
    hub.start()?;
    install(&hub)?;
    hub.enrol("till")?;
    let none = said(&hub, &["allowance", "show"])?;
    assert_eq!(none[0]["allowance"], Value::Null);
    let given = said(&hub, &["allowance", "ask"])?;
    assert_eq!(given[0]["allowance"]["amount_minor"], 10_000, "{given:?}");
    assert_eq!(hub.hubctl(&["status"])?["exposure_minor"], 10_000, "kept back");

    hub.kill()?;
    let pay = |card, amount| ["pay", "--under-allowance", "--card", card, "--amount", amount];
    let mut approved = Vec::new();
    for (card, amount) in [("a", "4000"), ("b", "1500")] {
        let line = said(&hub, &pay(card, amount))?;
        assert_eq!(line[0]["decision"], "approved-under-allowance", "{line:?}");
        approved.extend(ids(&line));
    }
    for (card, amount, reason) in [("a", "1", "card-ceiling"), ("c", "4001", "transaction-ceiling")] {
        let line = said(&hub, &pay(card, amount))?;
        assert_eq!(
            (&line[0]["decision"], &line[0]["reason"]),
            (&"declined".into(), &reason.into())
        );
    }
    let held = said(&hub, &["allowance", "show"])?;
    assert_eq!(
        (
            &held[0]["unsynced"],
            &held[0]["left_minor"],
            &held[0]["left_count"]
        ),
        (&2.into(), &4_500.into(), &3.into())
    );

    hub.start()?;
    let early = hub.device("till").args(["allowance", "return"]).output()?;
    assert!(!early.status.success(), "what is not told yet cannot be returned");
    let told = said(&hub, &["sync"])?;
    assert_eq!(ids(&told), approved);
    assert!(
        told.iter().all(|line| line["decision"] == "approved-offline"),
        "{told:?}"
    );
    let queue = hub.hubctl(&["queue"])?.to_string();
    for id in &approved {
        ensure!(queue.contains(id), "{id} waits to be sent: {queue}");
    }
    assert_eq!(said(&hub, &["sync"])?, Vec::<Value>::new(), "told once");
    said(&hub, &["allowance", "return"])?;
    let receipt = dir.path().join("receipt");
    fs::write(&receipt, told[0]["receipt"].as_str().context("no receipt")?)?;

    hub.drained()?;
    until("nothing to be at risk", || {
        let status = hub.hubctl(&["status"]).ok()?;
        (status["exposure_minor"] == 0).then_some(())
    })?;
    let receipt = receipt.to_str().context("a path in UTF-8")?;
    let verified = hub.hubctl(&["ledger", "verify", "--receipt", receipt])?;
    assert_eq!(verified["verified"], true, "{verified}");
    for id in &approved {
        let status = said(&hub, &["status", id])?;
        assert_eq!(status[0]["state"], "settled");
    }
    let mut charges = hub.charges()?;
    charges.sort_unstable();
    approved.sort_unstable();
    assert_eq!(charges, approved, "each charged once, and nothing else");
    Ok(())
}
