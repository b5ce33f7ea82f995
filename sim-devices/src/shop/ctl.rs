//! What is asked of the hub through `hubctl`, as an operator would.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hub_protocol::{DeviceClass, PaymentId};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::{PATIENCE, Shop};
use crate::scene::LedgerCheck;
use crate::told::Waiting;

/// The most items that `hubctl queue list` gives.
const MOST_LISTED: &str = "1000";

/// How many receipts are held against the ledger with one command line.
const RECEIPTS_AT_ONCE: usize = 10_000;

/// Runs a command that prints one JSON value.
pub(super) async fn json(mut command: Command, what: &str) -> Result<Value> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(PATIENCE * 4, output)
        .await
        .with_context(|| format!("{what} did not end"))?
        .with_context(|| format!("cannot start {what}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let also = String::from_utf8_lossy(&output.stdout);
        bail!(
            "{what} ended with {}: {} {}",
            output.status,
            said.trim(),
            also.trim()
        );
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("{what} did not print JSON"))
}

impl Shop {
    /// `hubctl status`.
    pub async fn status(&self) -> Result<Value> {
        self.ctl(&["status"]).await
    }

    /// A fresh enrolment code for a device of this class.
    pub async fn enrolment_code(&self, class: DeviceClass) -> Result<String> {
        let answer = self.ctl(&["enrol", "--class", class.name()]).await?;
        answer["code"]
            .as_str()
            .map(str::to_owned)
            .context("hubctl enrol gave no code")
    }

    /// Everything that waits to be sent.
    pub async fn queue(&self) -> Result<Vec<Waiting>> {
        let answer = self.ctl(&["queue", "list", "--limit", MOST_LISTED]).await?;
        let total = answer["total"].as_u64();
        let listed = answer["items"].as_array().map_or(0, Vec::len) as u64;
        if total.is_some_and(|total| total > listed) {
            bail!("{total:?} payments wait to be sent, more than hubctl lists at once ({MOST_LISTED})");
        }
        let items = answer["items"].as_array().context("hubctl queue gave no items")?;
        items.iter().map(waiting).collect()
    }

    /// How many wait to be sent by themselves: payments and reversals.
    pub async fn unsent(&self) -> Result<u64> {
        let status = self.status().await?;
        let count = |key: &str| {
            status[key]
                .as_u64()
                .with_context(|| format!("hubctl status gave no {key}"))
        };
        Ok(count("queued")? + count("reversals_queued")?)
    }

    /// Waits until the hub stands so to the gateway: `online`, `offline`.
    pub async fn wait_wan(&self, wanted: &str) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status().await?;
            if status["wan"] == wanted {
                return Ok(());
            }
            if Instant::now() >= until {
                bail!(
                    "the hub did not become {wanted} in {} s: {status}",
                    PATIENCE.as_secs()
                );
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until nothing waits to be sent by itself, telling `progress` how
    /// many do. Pushes the queue along every 2 s, as an operator can. Gives
    /// what is left after `patience`.
    pub async fn drain(&self, patience: Duration, progress: impl Fn(u64)) -> Result<u64> {
        let until = Instant::now() + patience;
        let mut push_at = Instant::now() + Duration::from_secs(2);
        loop {
            let left = self.unsent().await?;
            progress(left);
            if left == 0 || Instant::now() >= until {
                return Ok(left);
            }
            if Instant::now() >= push_at {
                // What does not get through now is tried again by the hub.
                let _ = self.ctl(&["queue", "drain", "--timeout", "1s"]).await;
                push_at = Instant::now() + Duration::from_secs(2);
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Shop {
    /// `hubctl ledger verify` on the files of a hub that has stopped, with
    /// nothing but its public key, against every receipt that a device holds.
    pub async fn verify_ledger(&self, receipts: &[Vec<u8>]) -> Result<LedgerCheck> {
        let folder = self.options.dir.join("receipts");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut check = LedgerCheck {
            receipts: receipts.len() as u64,
            ..LedgerCheck::default()
        };
        let mut arguments: Vec<String> = Vec::with_capacity(receipts.len());
        for (number, receipt) in receipts.iter().enumerate() {
            let file = folder.join(format!("{number:06}.cose"));
            std::fs::write(&file, receipt).with_context(|| format!("cannot write {}", file.display()))?;
            arguments.push(format!("--receipt={}", file.display()));
        }
        // At least one, so that a ledger without receipts is verified too.
        let mut batches: Vec<&[String]> = arguments.chunks(RECEIPTS_AT_ONCE).collect();
        if batches.is_empty() {
            batches.push(&[]);
        }
        for batch in batches {
            let mut line = vec!["ledger", "verify"];
            line.extend(batch.iter().map(String::as_str));
            match json(self.hubctl(&line), "hubctl ledger verify").await {
                Ok(answer) => check.entries = answer["entries"].as_u64().unwrap_or(0),
                Err(error) => {
                    check.fault = Some(format!("{error:#}"));
                    return Ok(check);
                }
            }
        }
        check.verified = true;
        Ok(check)
    }
}

fn waiting(item: &Value) -> Result<Waiting> {
    let id = item["payment_id"]
        .as_str()
        .context("an item of the queue has no payment id")?;
    let payment_id: PaymentId = id.parse().context("an item of the queue has no payment id")?;
    let state = item["state"]
        .as_str()
        .context("an item of the queue has no state")?;
    Ok(Waiting {
        payment_id,
        parked: matches!(state, "parked" | "reversal-parked"),
        reversal: matches!(state, "reversal-queued" | "reversal-parked"),
    })
}
