//! What an issuer advises with a decline, over real processes: from the
//! gateway's answer to the ledger, and to whether and when the payment is
//! presented again under the sample policy.
#![allow(missing_docs)]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use hub_tests::process::{Programs, output, until};
use hub_tests::served::ServedHub;
use serde_json::Value;

const HOUR_MS: u64 = 60 * 60 * 1000;

/// A hub with one payment that was approved without the gateway and then
/// declined by it with this advice.
fn declined_with(dir: &Path, advice: &str) -> Result<ServedHub> {
    let faults = format!(r#"{{"decline_amount_ending":1,"decline_code":"51","decline_advice":"{advice}"}}"#);
    let mut hub = ServedHub::new(&Programs::find()?, dir, &faults)?;
    hub.start()?;
    hub.enrol("till")?;
    hub.cut()?;
    hub.stands("offline")?;
    let mut device = hub.device("till");
    let paid = output(device.args(["pay", "--amount", "1201", "--scheme", "mastercard"]))?;
    ensure!(paid.contains("approved-offline"), "{paid}");
    hub.mend()?;
    hub.stands("online")?;
    Ok(hub)
}

/// How often each kind of entry stands in the ledger.
fn kinds(hub: &ServedHub) -> Result<Value> {
    let public = hub.dir().join("hub-signing.pub");
    let public = public.to_str().context("a path in UTF-8")?;
    Ok(hub.hubctl(&["ledger", "verify", "--key", public])?["kinds"].clone())
}

#[test]
fn a_decline_that_says_never_again_is_final_although_its_code_may_be_tried_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = declined_with(dir.path(), "03")?;
    hub.drained()?;
    hub.kill()?;
    let kinds = kinds(&hub)?;
    ensure!(kinds["payment-settled"] == 1, "{kinds}");
    ensure!(kinds["payment-retry-scheduled"].is_null(), "{kinds}");
    assert!(hub.charges()?.is_empty(), "nothing was charged");
    Ok(())
}

#[test]
fn a_declined_payment_waits_as_long_as_was_advised_and_through_a_kill() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut hub = declined_with(dir.path(), "26")?;
    for _ in 0..2 {
        // Two days are advised; by the policy alone it would be one.
        let wait = until("the payment to wait for its next presentation", || {
            let queue = hub.hubctl(&["queue", "list"]).ok()?;
            let item = &queue["items"][0];
            let declined = item["last_error"].as_str()?.contains("declined (51)");
            item["next_try_ms"].as_u64().filter(|_| declined)
        })?;
        ensure!((47 * HOUR_MS..=48 * HOUR_MS).contains(&wait), "{wait}");
        hub.kill()?;
        hub.start()?;
    }
    hub.kill()?;
    let kinds = kinds(&hub)?;
    ensure!(kinds["payment-retry-scheduled"] == 1, "{kinds}");
    Ok(())
}
