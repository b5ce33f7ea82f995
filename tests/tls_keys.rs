//! The hub's TLS key changes while devices pay: over real processes.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hub_tests::process::{Process, Programs, output, until};
use hub_tests::served::ServedHub;
use serde_json::Value;

fn shop(dir: &Path) -> Result<ServedHub> {
    let mut hub = ServedHub::new(&Programs::find()?, dir, "{}")?;
    hub.start()?;
    for device in ["till", "away"] {
        hub.enrol(device)?;
        pay(&hub, device)?;
    }
    Ok(hub)
}

fn approved(line: &str) -> Result<()> {
    let line: Value = serde_json::from_str(line)?;
    let decision = line["decision"].as_str().unwrap_or_default();
    ensure!(decision.starts_with("approved"), "{line}");
    Ok(())
}

/// One payment, by a client that has just started.
fn pay(hub: &ServedHub, device: &str) -> Result<()> {
    approved(output(hub.device(device).args(["pay", "--amount", "1250"]))?.trim())
}

fn tls(hub: &ServedHub, more: &[&str]) -> Result<Value> {
    hub.hubctl(&[&["keys", "rotate", "tls"], more].concat())
}

/// The hub's name, and the ids of its TLS keys.
fn ids(hub: &ServedHub) -> Result<(String, Vec<String>)> {
    let name = hub.hubctl(&["status"])?["hub_id"].to_string();
    let keys = hub.hubctl(&["keys"])?;
    let keys = keys["keys"].as_array().into_iter().flatten();
    let keys = keys.filter(|key| key["purpose"] == "tls" || key["purpose"] == "tls-next");
    Ok((name, keys.map(|key| key["id"].to_string()).collect()))
}

fn kinds(hub: &ServedHub) -> Result<Value> {
    let public = hub.device_dir("hub").join("hub-signing.pub");
    let public = public.to_str().context("a path in UTF-8")?;
    Ok(hub.hubctl(&["ledger", "verify", "--key", public])?["kinds"].clone())
}

#[test]
fn rule_2_the_tls_key_changes_while_devices_pay_and_nothing_is_lost() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let old = fs::read(hub.device_dir("hub").join("keys/hub-tls.key"))?;
    let before = ids(&hub)?;
    let mut paying = hub.device("till");
    let paying = Process::start(
        "the till",
        paying.args(["pay", "--amount", "1250", "--count", "60", "--every-ms", "50"]),
    )?;
    for paid in 0..60 {
        approved(&paying.line()?)?;
        if paid == 10 {
            let begun = tls(&hub, &[])?;
            ensure!(begun["changed"] == true && begun["overlap"] == true, "{begun}");
            ensure!(
                begun["enrolled"] == 2 && begun["too_old"] == serde_json::json!([]),
                "{begun}"
            );
        }
        if paid == 20 {
            // The till was told while it was connected, the other is away.
            until("the till to be told", || {
                let report = tls(&hub, &[]).ok()?;
                (report["unheard"] == serde_json::json!(["away"])).then_some(())
            })?;
            ensure!(tls(&hub, &["--finish"]).is_err(), "one is left behind");
        }
        if paid == 30 {
            let finished = tls(&hub, &["--finish", "--yes"])?;
            ensure!(
                finished["changed"] == true && finished["overlap"] == false,
                "{finished}"
            );
        }
    }
    // Both come anew: one was told, the other learns it in the handshake.
    pay(&hub, "till")?;
    pay(&hub, "away")?;
    let keys = hub.device_dir("hub").join("keys");
    ensure!(fs::read(keys.join("hub-tls.key"))? != old, "the old key is gone");
    ensure!(!keys.join("hub-tls.next.key").exists());
    let after = ids(&hub)?;
    ensure!(after.0 == before.0, "the name stays");
    ensure!(after.1.len() == 1 && after.1 != before.1, "the key does not");
    // After a restart the same; and a device that enrols now.
    hub.kill()?;
    hub.start()?;
    ensure!(ids(&hub)? == after);
    pay(&hub, "away")?;
    hub.enrol("late")?;
    pay(&hub, "late")?;
    pay(&hub, "late")?;
    hub.drained()?;
    hub.kill()?;
    let kinds = kinds(&hub)?;
    ensure!(
        kinds["hub-tls-key-added"] == 1 && kinds["hub-tls-key-dropped"] == 1,
        "{kinds}"
    );
    let charges = hub.charges()?;
    assert_eq!(charges.len(), 67, "each payment is charged");
    let mut once = charges.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), charges.len(), "and once");
    Ok(())
}

#[test]
fn a_device_that_missed_changes_of_both_keys_finds_its_hub() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    for _ in 0..2 {
        tls(&hub, &[])?;
        hub.hubctl(&["keys", "rotate", "signing"])?;
        tls(&hub, &["--finish", "--yes"])?;
        hub.hubctl(&["keys", "rotate", "signing"])?;
    }
    pay(&hub, "away")?;
    hub.kill()?;
    hub.start()?;
    pay(&hub, "away")?;
    pay(&hub, "till")
}

#[test]
fn a_change_of_the_tls_key_survives_kill_9_and_is_given_up_without_a_trace_in_devices() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let (name, first) = ids(&hub)?;
    tls(&hub, &[])?;
    hub.kill()?;
    hub.start()?;
    let (_, both) = ids(&hub)?;
    ensure!(both.len() == 2 && both[0] == first[0], "{both:?}");
    // It was told of the new key, and has connected under it.
    pay(&hub, "till")?;
    ensure!(tls(&hub, &[])?["changed"] == false, "it is under way");
    tls(&hub, &["--abandon"])?;
    let now = ids(&hub)?;
    ensure!(now == (name, first), "{now:?}");
    ensure!(!hub.device_dir("hub").join("keys/hub-tls.next.key").exists());
    pay(&hub, "till")?;
    pay(&hub, "away")?;
    hub.kill()?;
    hub.start()?;
    pay(&hub, "till")?;
    ensure!(tls(&hub, &["--finish"]).is_err(), "there is nothing to finish");
    Ok(())
}

#[test]
fn a_next_tls_key_that_was_supplied_is_taken() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hub = shop(dir.path())?;
    let keys = hub.device_dir("hub").join("keys");
    let next = keys.join("hub-tls.next.key");
    let mut keygen = Command::new(Programs::find()?.hubctl);
    output(keygen.arg("keygen").arg("--tls").arg(&next))?;
    let supplied = fs::read(&next)?;
    tls(&hub, &[])?;
    tls(&hub, &["--finish", "--yes"])?;
    ensure!(fs::read(keys.join("hub-tls.key"))? == supplied);
    pay(&hub, "till")
}
