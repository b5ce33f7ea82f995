//! The index is derived: deleting or damaging it costs a rebuild, never a
//! payment, and never an answer that was given.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hub_tests::hub::CutOffHub;
use hub_tests::process::{Programs, output};
use serde_json::Value;

type Damage = fn(&Path, &Path) -> Result<()>;

/// What can happen to an index. The second folder is an older copy of it.
const DAMAGES: &[(&str, Damage)] = &[
    ("nothing", |_, _| Ok(())),
    ("deleted", |index, _| Ok(fs::remove_dir_all(index)?)),
    ("its file truncated", |index, _| {
        let db = fs::OpenOptions::new().write(true).open(index.join("db"))?;
        Ok(db.set_len(db.metadata()?.len() / 2)?)
    }),
    ("its file overwritten", |index, _| {
        Ok(fs::write(index.join("db"), vec![0x5a; 100_000])?)
    }),
    ("bits flipped", |index, _| {
        let file = index.join("db");
        let mut bytes = fs::read(&file)?;
        bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 1);
        Ok(fs::write(file, bytes)?)
    }),
    ("an older copy put back", |index, older| {
        fs::remove_dir_all(index)?;
        copy(older, index)
    }),
    ("replaced by a file", |index, _| {
        fs::remove_dir_all(index)?;
        Ok(fs::write(index, "no folder")?)
    }),
];

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn pay(hub: &CutOffHub, card: &str) -> Result<String> {
    let line = output(
        hub.device("till")
            .args(["pay", "--amount", "1500", "--card", card]),
    )?;
    let receipt: Value = serde_json::from_str(line.trim())?;
    assert_eq!(receipt["decision"], "approved-offline", "{receipt}");
    Ok(receipt["payment_id"]
        .as_str()
        .context("no payment id")?
        .to_owned())
}

#[test]
fn rule_2_a_lost_or_damaged_index_costs_a_rebuild_and_no_payment() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = CutOffHub::new(&Programs::find()?, dir.path())?;
    hub.start()?;
    hub.enrol("till")?;
    let mut paid = vec![pay(&hub, "card 0")?];
    hub.kill()?;
    let index = hub.dir().join("index");
    let older = dir.path().join("older");
    copy(&index, &older)?;

    for (number, (what, damage)) in DAMAGES.iter().enumerate() {
        damage(&index, &older).with_context(|| format!("index {what}"))?;
        hub.start().with_context(|| format!("index {what}"))?;
        let queue = hub.hubctl(&["queue"])?;
        let waiting: Vec<&str> = queue["items"]
            .as_array()
            .context("no items")?
            .iter()
            .filter_map(|item| item["payment_id"].as_str())
            .collect();
        assert_eq!(waiting, paid, "index {what}: every payment still waits, in order");
        let status = hub.hubctl(&["status"])?;
        assert_eq!(
            status["exposure_minor"],
            1500 * paid.len(),
            "index {what}: the exposure is the same"
        );
        let first = output(hub.device("till").args(["status", &paid[0]]))?;
        assert!(first.contains("approved-offline"), "index {what}: {first}");
        paid.push(pay(&hub, &format!("card {}", number + 1))?);
        hub.kill()?;
    }
    let verified = hub.hubctl(&["ledger", "verify"])?;
    assert_eq!(verified["verified"], true);
    assert_eq!(verified["kinds"]["payment-decided"], paid.len());
    Ok(())
}
