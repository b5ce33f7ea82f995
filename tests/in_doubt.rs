//! Payments in doubt, over real processes: the hub is killed while customers
//! wait for the gateway, and a device comes back from a backup.
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use hub_tests::process::{Process, Programs, until};
use hub_tests::served::ServedHub;
use serde_json::Value;

/// Slow enough that a payment can be interrupted in the middle.
const SLOW: &str = r#"{"slow":1.0,"delay_ms":700}"#;

fn told(line: &str) -> Result<(String, String)> {
    let receipt: Value = serde_json::from_str(line.trim())?;
    let field = |name: &str| receipt[name].as_str().map(str::to_owned).context("no receipt");
    Ok((field("payment_id")?, field("decision")?))
}

#[test]
fn rule_3_kill_9_in_the_midst_of_online_payments_leaves_one_answer_and_one_charge() -> Result<()> {
    const PAYMENTS: usize = 4;
    let dir = tempfile::tempdir()?;
    let mut hub = ServedHub::new(&Programs::find()?, dir.path(), SLOW)?;
    hub.start()?;
    let tills = ["till-1", "till-2", "till-3"];
    for till in tills {
        hub.enrol(till)?;
    }
    let mut selling = Vec::new();
    for till in tills {
        let mut device = hub.device(till);
        let card = format!("card of {till}");
        device.args([
            "--request-timeout-ms",
            "500",
            "pay",
            "--amount",
            "1500",
            "--card",
            &card,
        ]);
        device.args(["--count", &PAYMENTS.to_string()]);
        selling.push(Process::start(till, &mut device)?);
    }
    for _ in 0..3 {
        // All tills have a payment in the ledger and at the gateway: now.
        let before = hub.entries()?;
        until("payments to be under way", || {
            (hub.entries().ok()? >= before + 2).then_some(())
        })?;
        hub.kill()?;
        hub.start()?;
    }
    let mut approved = BTreeSet::new();
    for till in &mut selling {
        for _ in 0..PAYMENTS {
            let (id, decision) = told(&till.line()?)?;
            assert!(decision.starts_with("approved"), "{decision}");
            assert!(approved.insert(id), "one answer for a payment");
        }
        assert!(till.wait()?.success());
    }
    hub.drained()?;
    let verified = hub.hubctl(&["ledger", "verify"])?;
    assert_eq!(verified["verified"], true);
    let charges = hub.charges()?;
    assert_eq!(charges.len(), tills.len() * PAYMENTS, "{charges:?}");
    assert_eq!(charges.into_iter().collect::<BTreeSet<_>>(), approved);
    Ok(())
}

#[test]
fn rule_3_a_device_restored_from_a_backup_asks_again_and_is_told_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = ServedHub::new(&Programs::find()?, dir.path(), SLOW)?;
    hub.start()?;
    hub.enrol("till")?;
    let pending = hub.device_dir("till").join("pending.payment");
    let backup = dir.path().join("backup.payment");
    let pay = |hub: &ServedHub| {
        let mut device = hub.device("till");
        device.args(["pay", "--amount", "1500", "--card", "card"]);
        Process::start("till", &mut device)
    };
    // The backup is made in the middle of a payment.
    let mut first = pay(&hub)?;
    until("the payment to be under way", || fs::copy(&pending, &backup).ok())?;
    let heard = told(&first.line()?)?;
    assert!(first.wait()?.success());
    // A day later, for the device, the payment was never answered.
    hub.kill()?;
    hub.start()?;
    fs::copy(&backup, &pending)?;
    let mut second = pay(&hub)?;
    assert_eq!(told(&second.line()?)?, heard, "the same answer to the same bytes");
    assert!(second.wait()?.success());
    hub.drained()?;
    let charges = hub.charges()?;
    let times = charges.iter().filter(|id| **id == heard.0).count();
    assert_eq!(times, 1, "charged once");
    Ok(())
}
