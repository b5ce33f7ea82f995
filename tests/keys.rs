//! Keys change while devices pay: over real processes.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use hub_tests::process::{Process, Programs, output};
use hub_tests::served::ServedHub;
use serde_json::Value;

fn lines(text: &str) -> Result<Vec<Value>> {
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// A hub that runs, with a device that pays and one that has paid once.
fn shop(dir: &Path) -> Result<ServedHub> {
    let mut hub = ServedHub::new(&Programs::find()?, dir, "{}")?;
    hub.start()?;
    for device in ["till", "away"] {
        hub.enrol(device)?;
        pay(&hub, device, 1)?;
    }
    Ok(hub)
}

fn pay(hub: &ServedHub, device: &str, count: u32) -> Result<Vec<Value>> {
    let count = count.to_string();
    let paid = lines(&output(hub.device(device).args([
        "pay",
        "--amount",
        "1250",
        "--count",
        &count,
        "--every-ms",
        "10",
    ]))?)?;
    for line in &paid {
        let decision = line["decision"].as_str().unwrap_or_default();
        ensure!(decision.starts_with("approved"), "{line}");
    }
    Ok(paid)
}

fn rotate(hub: &ServedHub) -> Result<String> {
    let keys = hub.hubctl(&["keys", "rotate", "signing"])?;
    let signing = keys["keys"].as_array().into_iter().flatten();
    let mut signing = signing.filter(|key| key["purpose"] == "signing");
    let key = signing.next().context("no signing key")?;
    Ok(key["id"].as_str().context("no id")?.to_owned())
}

fn verify(hub: &ServedHub, public: &Path) -> Result<Value> {
    let public = public.to_str().context("a path in UTF-8")?;
    hub.hubctl(&["ledger", "verify", "--key", public])
}

/// The verifier that shares nothing with hubd, by the first public key; if
/// there is a Python with what it needs.
#[allow(clippy::print_stdout)] // the line is for whoever runs the tests
fn python_verifies(hub: &ServedHub, first: &Path) -> Result<()> {
    let python = std::env::var("HUB_PEER_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut probe = Command::new(&python);
    probe
        .args(["-c", "import cbor2, cryptography"])
        .stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
        ensure!(
            !ci,
            "{python} has no cbor2 and cryptography, and in CI nothing is skipped"
        );
        println!("skipped: {python} has no cbor2 and cryptography; `.ci/run peers` makes one that has");
        return Ok(());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python_device/ledger_verify.py");
    let ledger = hub.device_dir("hub").join("ledger");
    let said = output(Command::new(python).arg(script).arg(first).arg(ledger))?;
    ensure!(said.contains("entries hold"), "{said}");
    Ok(())
}

fn first_key(hub: &ServedHub, dir: &Path) -> Result<PathBuf> {
    let first = dir.join("first.pub");
    fs::copy(hub.device_dir("hub").join("hub-signing.pub"), &first)?;
    Ok(first)
}

#[test]
fn rule_2_the_signing_key_changes_twice_while_devices_pay_and_nothing_is_lost() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let first = first_key(&hub, dir.path())?;
    let old_seed = fs::read(hub.device_dir("hub").join("keys/hub-signing.key"))?;

    // One device pays all the time; the other is away for both changes.
    let mut paying = hub.device("till");
    let paying = Process::start(
        "the till",
        paying.args(["pay", "--amount", "1250", "--count", "60", "--every-ms", "50"]),
    )?;
    let mut ids = vec![String::new()];
    let mut paid = 0;
    for change in 0..60 {
        let line: Value = serde_json::from_str(&paying.line()?)?;
        let decision = line["decision"].as_str().unwrap_or_default();
        ensure!(decision.starts_with("approved"), "{line}");
        paid += 1;
        if change == 15 || change == 35 {
            ids.push(rotate(&hub)?);
        }
    }
    assert_eq!(paid, 60, "each was answered, and its receipt held");
    assert!(ids[1] != ids[2], "another key each time");
    pay(&hub, "away", 3)?;
    // A restart opens with the newest key; both devices know it from disk.
    hub.kill()?;
    hub.start()?;
    pay(&hub, "till", 1)?;
    pay(&hub, "away", 1)?;
    hub.drained()?;

    let keys = hub.device_dir("hub").join("keys");
    assert!(!keys.join("hub-signing.next.key").exists());
    assert_ne!(
        fs::read(keys.join("hub-signing.key"))?,
        old_seed,
        "the old key is gone"
    );
    hub.kill()?;
    for public in [first, hub.device_dir("hub").join("hub-signing.pub")] {
        let report = verify(&hub, &public)?;
        assert_eq!(report["kinds"]["hub-key-changed"], 2, "{report:#}");
    }
    python_verifies(&hub, &dir.path().join("first.pub"))?;
    let charges = hub.charges()?;
    assert_eq!(charges.len(), 67, "each payment is charged");
    let mut once = charges.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), charges.len(), "and once");
    Ok(())
}

#[test]
fn a_next_key_that_was_supplied_is_taken_and_the_ledger_tells_of_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let first = first_key(&hub, dir.path())?;
    let programs = Programs::find()?;
    let keys = hub.device_dir("hub").join("keys");
    let next = keys.join("hub-signing.next.key");
    output(Command::new(&programs.hubctl).arg("keygen").arg(&next))?;
    let seed = fs::read(&next)?;
    rotate(&hub)?;
    assert_eq!(fs::read(keys.join("hub-signing.key"))?, seed);
    pay(&hub, "till", 2)?;
    hub.kill()?;
    assert_eq!(verify(&hub, &first)?["kinds"]["hub-key-changed"], 1);
    hub.start()?;
    pay(&hub, "away", 1).map(drop)
}

#[test]
fn a_device_that_was_enrolled_after_a_change_pays_after_the_next_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    rotate(&hub)?;
    for device in ["late", "late and away"] {
        hub.enrol(device)?;
        pay(&hub, device, 1)?;
    }
    // One hears of the change by a push, one when it comes back, and one was
    // enrolled before and is away for both.
    let mut paying = hub.device("late");
    let paying = Process::start(
        "late",
        paying.args(["pay", "--amount", "1250", "--count", "20", "--every-ms", "50"]),
    )?;
    for paid in 0..20 {
        let line: Value = serde_json::from_str(&paying.line()?)?;
        let decision = line["decision"].as_str().unwrap_or_default();
        ensure!(decision.starts_with("approved"), "{line}");
        if paid == 5 {
            rotate(&hub)?;
        }
    }
    // Each payment is by a client that has just started.
    for device in ["late", "late and away", "away"] {
        pay(&hub, device, 1)?;
        pay(&hub, device, 1)?;
    }
    hub.kill()?;
    hub.start()?;
    rotate(&hub)?;
    for device in ["late", "late and away", "away", "till"] {
        pay(&hub, device, 1)?;
    }
    Ok(())
}

fn rotate_vault(hub: &ServedHub) -> Result<String> {
    let keys = hub.hubctl(&["keys", "rotate", "vault"])?;
    let mut vault = keys["keys"].as_array().into_iter().flatten();
    let key = vault
        .find(|key| key["purpose"] == "vault")
        .context("no vault key")?;
    Ok(key["id"].as_str().context("no id")?.to_owned())
}

#[test]
fn rule_2_the_vault_key_changes_twice_while_a_device_pays_and_everything_stays_readable() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let first = first_key(&hub, dir.path())?;
    let file = hub.device_dir("hub").join("keys/hub-vault.key");
    let (old_seed, old_copy) = (fs::read(&file)?, dir.path().join("old.key"));
    fs::copy(&file, &old_copy)?;
    let mut paying = hub.device("till");
    let paying = Process::start(
        "the till",
        paying.args(["pay", "--amount", "1250", "--count", "40", "--every-ms", "50"]),
    )?;
    let mut ids = Vec::new();
    for paid in 0..40 {
        let line: Value = serde_json::from_str(&paying.line()?)?;
        let decision = line["decision"].as_str().unwrap_or_default();
        ensure!(decision.starts_with("approved"), "{line}");
        if paid == 10 || paid == 25 {
            ids.push(rotate_vault(&hub)?);
        }
    }
    assert!(ids[0] != ids[1], "another key each time");
    assert_ne!(fs::read(&file)?, old_seed, "the old key is gone");
    assert!(!file.with_file_name("hub-vault.next.key").exists());
    hub.kill()?;
    hub.start()?;
    pay(&hub, "away", 1)?;
    hub.drained()?;
    hub.kill()?;
    let report = verify(&hub, &first)?;
    assert_eq!(
        (&report["kinds"]["vault-key-changed"], &report["unread"]),
        (&2.into(), &0.into())
    );
    assert_eq!(report["kinds"]["payment-decided"], 43, "{report:#}");
    // Whoever had copied the first key opens nothing with it.
    let old = old_copy.to_str().context("a path in UTF-8")?;
    let said = hub.hubctl(&["ledger", "verify", "--vault-key", old]);
    let said = format!("{:#}", said.err().context("the old vault key still opens")?);
    assert!(said.contains("another vault key"), "{said}");
    Ok(())
}

#[test]
fn rule_2_a_hub_killed_at_any_moment_of_a_vault_key_change_opens_and_reads_everything() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let first = first_key(&hub, dir.path())?;
    let programs = Programs::find()?;
    let folder = hub.device_dir("hub");
    for after_ms in [0, 2, 4, 6, 8, 11, 14, 18, 25, 40] {
        let mut change = Command::new(&programs.hubctl)
            .args(["--json", "--dir"])
            .arg(&folder)
            .args(["keys", "rotate", "vault"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(after_ms));
        hub.kill()?;
        change.wait()?;
        hub.start()?;
        pay(&hub, "till", 1)?;
        let keys = folder.join("keys");
        assert!(!keys.join("hub-vault.next.key").exists(), "after {after_ms} ms");
        assert!(!keys.join("hub-vault.next.made").exists(), "after {after_ms} ms");
    }
    rotate_vault(&hub)?;
    hub.drained()?;
    hub.kill()?;
    let report = verify(&hub, &first)?;
    assert_eq!(
        (&report["verified"], &report["unread"]),
        (&true.into(), &0.into()),
        "{report:#}"
    );
    Ok(())
}

#[test]
fn rule_2_a_backup_of_keys_and_data_key_from_before_a_change_reads_everything() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let first = first_key(&hub, dir.path())?;
    let folder = hub.device_dir("hub");
    let files = ["keys/hub-vault.key", "data-key"];
    let backup: Vec<Vec<u8>> = files
        .iter()
        .map(|file| fs::read(folder.join(file)))
        .collect::<Result<_, _>>()?;
    rotate_vault(&hub)?;
    pay(&hub, "till", 2)?;
    hub.kill()?;
    for (file, bytes) in files.iter().zip(&backup) {
        fs::write(folder.join(file), bytes)?;
    }
    // Before the hub has started, too.
    let report = verify(&hub, &first)?;
    assert_eq!(report["unread"], 0, "{report:#}");
    hub.start()?;
    pay(&hub, "away", 1)?;
    rotate_vault(&hub)?;
    hub.kill()?;
    hub.start()?;
    pay(&hub, "till", 1)?;
    hub.drained()?;
    hub.kill()?;
    let report = verify(&hub, &first)?;
    assert_eq!(
        (&report["verified"], &report["unread"]),
        (&true.into(), &0.into()),
        "{report:#}"
    );
    assert_eq!(report["kinds"]["payment-decided"], 6, "{report:#}");
    Ok(())
}
