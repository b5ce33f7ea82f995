//! A device changes its keys while it pays: over real processes.
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hub_tests::process::{Process, Programs, output};
use hub_tests::served::ServedHub;
use serde_json::Value;

const ALLOWANCE: &str = "\n[allowance]\namount = 10000\ncount = 5\ntransaction_ceiling = 4000\n\
                         minutes = 60\nclasses = [\"terminal\"]\ncard_ceiling = 4000\ndevices = 2\n";

fn shop(dir: &Path) -> Result<ServedHub> {
    let mut hub = ServedHub::new(&Programs::find()?, dir, "{}")?;
    hub.start()?;
    hub.enrol("till")?;
    pay(&hub, "till", 1)?;
    Ok(hub)
}

fn run(hub: &ServedHub, device: &str, args: &[&str]) -> Result<Vec<Value>> {
    let said = output(hub.device(device).args(args))?;
    said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn pay(hub: &ServedHub, device: &str, count: u32) -> Result<()> {
    let paid = run(
        hub,
        device,
        &["pay", "--amount", "1250", "--count", &count.to_string()],
    )?;
    for line in &paid {
        let decision = line["decision"].as_str().unwrap_or_default();
        ensure!(decision.starts_with("approved"), "{line}");
    }
    Ok(())
}

fn rotate(hub: &ServedHub, device: &str) -> Result<()> {
    let said = run(hub, device, &["rotate-keys"])?;
    ensure!(said[0]["keys"] == "changed", "{said:?}");
    Ok(())
}

/// What `hubctl devices` says of the only device.
fn device(hub: &ServedHub) -> Result<Value> {
    let devices = hub.hubctl(&["devices"])?;
    let devices = devices["devices"].as_array().context("no list")?;
    let mut enrolled = devices.iter().filter(|device| device["enrolled"] == true);
    let device = enrolled.next().context("no device")?.clone();
    ensure!(enrolled.next().is_none(), "one device, whatever its keys");
    Ok(device)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A policy with allowances in force.
fn allow(hub: &ServedHub) -> Result<()> {
    let dir = hub.device_dir("hub");
    let text = fs::read_to_string(dir.join("policy.toml"))?;
    let text = text.replace("\nversion = 1", "\nversion = 2") + ALLOWANCE;
    let (toml, signed) = (dir.join("allowing.toml"), dir.join("allowing.cose"));
    fs::write(&toml, text)?;
    let key = dir.join("keys").join("policy-local.key");
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
    let (key, toml, signed) = (path(&key)?, path(&toml)?, path(&signed)?);
    hub.hubctl(&["policy", "sign", "--key", &key, &toml, &signed])?;
    hub.hubctl(&["policy", "install", &signed]).map(|_| ())
}

fn kinds(hub: &ServedHub) -> Result<Value> {
    let public = hub.device_dir("hub").join("hub-signing.pub");
    let public = public.to_str().context("a path in UTF-8")?;
    Ok(hub.hubctl(&["ledger", "verify", "--key", public])?["kinds"].clone())
}

#[test]
fn rule_4_a_device_changes_its_keys_and_a_copy_with_the_old_ones_is_found_out() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    let before = device(&hub)?;
    let (till, copied) = (hub.device_dir("till"), hub.device_dir("copy"));
    copy(&till, &copied)?;
    rotate(&hub, "till")?;
    pay(&hub, "till", 2)?;
    let after = device(&hub)?;
    ensure!(
        after["id"] == before["id"] && after["key"] != before["key"],
        "{after}"
    );
    // The copy is told, and so is whoever looks at the devices.
    let refused = run(&hub, "copy", &["pay", "--amount", "1250"])?;
    ensure!(refused[0]["refused"] == 6007, "{refused:?}");
    let standing = device(&hub)?["standing"].clone();
    ensure!(standing["signs"][0]["sign"] == "old-keys", "{standing}");
    // The same after kill -9; and a second change.
    hub.kill()?;
    hub.start()?;
    pay(&hub, "till", 1)?;
    let refused = run(&hub, "copy", &["pay", "--amount", "1250"])?;
    ensure!(refused[0]["refused"] == 6007, "{refused:?}");
    rotate(&hub, "till")?;
    pay(&hub, "till", 1)?;
    hub.drained()?;
    hub.kill()?;
    let kinds = kinds(&hub)?;
    ensure!(
        kinds["device-keys-changed"] == 2 && kinds["device-keys-settled"] == 2,
        "{kinds}"
    );
    ensure!(kinds["device-old-keys-used"] == 1, "{kinds}");
    let charges = hub.charges()?;
    assert_eq!(charges.len(), 5, "the copy has paid nothing");
    Ok(())
}

/// The hub has taken a change, and the device `saved` has only its old keys
/// and the next ones: its answer was lost.
fn answer_lost(hub: &ServedHub) -> Result<()> {
    let (till, saved) = (hub.device_dir("till"), hub.device_dir("saved"));
    copy(&till, &saved)?;
    let identity = hub_sdk::DeviceIdentity::load(&till)?;
    let enrolled = hub_sdk::Enrolled::load(&till)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let options = hub_sdk::ClientOptions {
        next_sequence: 2,
        ..Default::default()
    };
    let client = {
        let _inside = runtime.enter();
        hub_sdk::DeviceClient::new(identity, enrolled, options)?
    };
    runtime.block_on(client.rotate_keys(&till))?;
    let next = saved.join("next");
    fs::create_dir_all(&next)?;
    for name in ["device-tls.key", "device-signing.key", "device-id"] {
        fs::copy(till.join(name), next.join(name))?;
    }
    Ok(())
}

#[test]
fn rule_2_a_device_that_is_stopped_while_it_changes_its_keys_is_not_locked_out() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hub = shop(dir.path())?;
    answer_lost(&hub)?;
    // By itself, before it pays.
    pay(&hub, "saved", 2)?;
    ensure!(
        device(&hub)?["standing"]["signs"] == serde_json::json!([]),
        "no copy"
    );
    ensure!(!hub.device_dir("saved").join("next").exists(), "it is ended");
    Ok(())
}

/// Where a kill falls in the change hangs on how long it was waited for: from
/// before the device has begun to after it has ended.
#[test]
fn rule_2_a_device_killed_at_any_moment_of_its_change_of_keys_goes_on_by_itself() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    // The last of the next keys' files: without it they were never sent.
    let whole = hub.device_dir("till").join("next").join("device-id");
    let (mut under_way, mut ended) = (0, 0);
    let mut paid = 1;
    for milliseconds in (0..120).step_by(4) {
        let mut rotating = hub.device("till");
        let mut rotating = rotating
            .arg("rotate-keys")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        std::thread::sleep(Duration::from_millis(milliseconds));
        let still_ran = rotating.try_wait()?.is_none();
        rotating.kill()?;
        rotating.wait()?;
        under_way += usize::from(still_ran && whole.exists());
        ended += usize::from(!still_ran);
        if milliseconds % 16 == 0 {
            // The hub too, which may not have told that the key was used.
            hub.kill()?;
            hub.start()?;
        }
        pay(&hub, "till", 1).with_context(|| format!("killed after {milliseconds} ms"))?;
        paid += 1;
        ensure!(!whole.exists(), "it is ended");
    }
    ensure!(under_way > 0, "no kill fell into a change");
    ensure!(ended > 0, "no change came to its end");
    ensure!(
        device(&hub)?["standing"]["signs"] == serde_json::json!([]),
        "no copy"
    );
    hub.drained()?;
    hub.kill()?;
    let kinds = kinds(&hub)?;
    ensure!(
        kinds["device-keys-changed"].as_u64() >= Some(under_way as u64),
        "{kinds}"
    );
    ensure!(kinds["device-old-keys-used"].is_null(), "{kinds}");
    assert_eq!(hub.charges()?.len(), paid, "each once");
    Ok(())
}

#[test]
fn rule_2_a_device_that_asks_for_its_change_of_keys_while_it_is_blocked_is_not_locked_out() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hub = shop(dir.path())?;
    answer_lost(&hub)?;
    let id = device(&hub)?["id"].as_str().context("no id")?.to_owned();
    hub.hubctl(&["devices", "block", &id])?;
    for _ in 0..2 {
        ensure!(rotate(&hub, "saved").is_err(), "it is blocked");
        let refused = run(&hub, "saved", &["pay", "--amount", "1250"])?;
        ensure!(refused[0]["refused"] == 6005, "{refused:?}");
    }
    hub.hubctl(&["devices", "unblock", &id])?;
    pay(&hub, "saved", 2)?;
    ensure!(
        device(&hub)?["standing"]["signs"] == serde_json::json!([]),
        "no copy"
    );
    Ok(())
}

#[test]
fn rule_2_payments_approved_before_a_change_of_keys_and_told_after_it_are_charged_once() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = shop(dir.path())?;
    allow(&hub)?;
    run(&hub, "till", &["allowance", "ask"])?;
    hub.kill()?;
    let offline = run(
        &hub,
        "till",
        &["pay", "--under-allowance", "--amount", "900", "--count", "2"],
    )?;
    ensure!(offline.len() == 2, "{offline:?}");
    hub.start()?;
    rotate(&hub, "till")?;
    let told = run(&hub, "till", &["sync"])?;
    ensure!(told.iter().all(|line| line["refused"].is_null()), "{told:?}");
    pay(&hub, "till", 1)?;
    // One more under the same allowance, by the new key.
    run(&hub, "till", &["pay", "--under-allowance", "--amount", "900"])?;
    run(&hub, "till", &["sync"])?;
    run(&hub, "till", &["allowance", "return"])?;
    hub.drained()?;
    ensure!(
        device(&hub)?["standing"]["signs"] == serde_json::json!([]),
        "no misuse"
    );
    hub.kill()?;
    let kinds = kinds(&hub)?;
    ensure!(
        kinds["allowance-spent"] == 3 && kinds["allowance-misused"].is_null(),
        "{kinds}"
    );
    let charges = hub.charges()?;
    let mut once = charges.clone();
    once.sort();
    once.dedup();
    assert_eq!((charges.len(), once.len()), (5, 5), "each once");
    Ok(())
}

#[test]
fn a_device_changes_its_keys_while_others_pay() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hub = shop(dir.path())?;
    hub.enrol("other")?;
    let mut paying = hub.device("other");
    let paying = Process::start(
        "the other",
        paying.args(["pay", "--amount", "1250", "--count", "20", "--every-ms", "50"]),
    )?;
    for paid in 0..20 {
        let line: Value = serde_json::from_str(&paying.line()?)?;
        let decision = line["decision"].as_str().unwrap_or_default();
        ensure!(decision.starts_with("approved"), "{line}");
        if paid == 5 {
            rotate(&hub, "till")?;
        }
    }
    pay(&hub, "till", 1)
}
