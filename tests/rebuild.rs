//! The index is derived: deleting or damaging it costs a rebuild, never a
//! payment, and never an answer that was given.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hub_protocol::DataKey;
use hub_tests::process::{Programs, output};
use hub_tests::served::ServedHub;
use hubd::ledger::{Damage as IndexDamage, Index, RestSeal};
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

fn pay(hub: &ServedHub, card: &str) -> Result<String> {
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

/// A hub with a till, cut off from its gateway.
fn cut_off(dir: &Path) -> Result<ServedHub> {
    let mut hub = ServedHub::new(&Programs::find()?, dir, "{}")?;
    hub.start()?;
    hub.enrol("till")?;
    hub.cut()?;
    hub.stands("offline")?;
    Ok(hub)
}

/// All that was paid still waits, in order, is at risk, and is answered as
/// before.
fn assert_kept(hub: &ServedHub, paid: &[String], what: &str) -> Result<()> {
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
    Ok(())
}

/// The line comes back: the gateway's book has each payment, once.
fn assert_charged_once(hub: &mut ServedHub, paid: &[String]) -> Result<()> {
    hub.mend()?;
    hub.start()?;
    hub.drained()?;
    hub.kill()?;
    let verified = hub.hubctl(&["ledger", "verify"])?;
    assert_eq!(verified["verified"], true);
    assert_eq!(verified["kinds"]["payment-decided"], paid.len());
    let mut paid = paid.to_vec();
    paid.sort();
    assert_eq!(hub.charges()?, paid, "each once");
    Ok(())
}

#[test]
fn rule_2_a_lost_or_damaged_index_costs_a_rebuild_and_no_payment() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = cut_off(dir.path())?;
    let mut paid = vec![pay(&hub, "card 0")?];
    hub.kill()?;
    let index = hub.dir().join("index");
    let older = dir.path().join("older");
    copy(&index, &older)?;

    for (number, (what, damage)) in DAMAGES.iter().enumerate() {
        damage(&index, &older).with_context(|| format!("index {what}"))?;
        hub.start_until("offline")
            .with_context(|| format!("index {what}"))?;
        assert_kept(&hub, &paid, what)?;
        paid.push(pay(&hub, &format!("card {}", number + 1))?);
        hub.kill()?;
    }
    assert_charged_once(&mut hub, &paid)
}

/// Where the second message of a new log of sled 0.34.7 lies in `db`, behind
/// the segment's header (20 bytes) and the first message (8): CRC-32 of what
/// follows, kind 5 (a counter), length 1, segment 0, page 1.
const MESSAGE: usize = 28;
const COUNTER: [u8; 8] = [0x71, 0xa2, 0xc6, 0x78, 5, 1, 0, 1];

/// The same as a message that was given up (kind 1), with the right CRC: what
/// a write that never came to its end leaves. The page is then nowhere, pages
/// behind it are there, and sled panics when it writes its snapshot, "tried to
/// serialize Uninitialized".
const GIVEN_UP: [u8; 8] = [0x26, 0x35, 0xa4, 0xf7, 1, 1, 0, 1];

/// Has sled panic at its next opening of this index.
fn make_sled_panic(index: &Path) -> Result<()> {
    for item in fs::read_dir(index)? {
        let path = item?.path();
        // With its snapshot sled would not read the log from the beginning.
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("snap."))
        {
            fs::remove_file(path)?;
        }
    }
    let db = index.join("db");
    let mut bytes = fs::read(&db)?;
    let message = bytes.get_mut(MESSAGE..MESSAGE + 8).context("a short log")?;
    anyhow::ensure!(message == COUNTER, "another log than expected: {message:x?}");
    message.copy_from_slice(&GIVEN_UP);
    Ok(fs::write(db, bytes)?)
}

#[test]
fn rule_2_an_index_at_which_sled_panics_is_set_aside_and_built_again_and_the_hub_goes_on() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = cut_off(dir.path())?;
    let mut paid = vec![pay(&hub, "card 0")?, pay(&hub, "card 1")?];
    hub.kill()?;
    let index = hub.dir().join("index");
    make_sled_panic(&index)?;
    // It does panic, at open.
    let other = dir.path().join("other");
    copy(&index, &other)?;
    let seal = RestSeal::index(&DataKey::new([0; 32]));
    let opened = Index::open(&other, &seal).err();
    assert!(
        matches!(&opened, Some(IndexDamage::Panicked(text)) if text.contains("Uninitialized")),
        "{opened:?}"
    );

    hub.start_until("offline")?;
    assert!(hub.dir().join("index.damaged-1").is_dir(), "it is set aside");
    assert_kept(&hub, &paid, "at which sled panics")?;
    paid.push(pay(&hub, "card 2")?);
    assert!(hub.runs()?, "the process did not end");
    hub.kill()?;
    // Built again, it serves: nothing more is set aside.
    hub.start_until("offline")?;
    assert_kept(&hub, &paid, "built again")?;
    assert!(!hub.dir().join("index.damaged-2").exists());
    hub.kill()?;
    assert_charged_once(&mut hub, &paid)
}
