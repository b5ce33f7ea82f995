//! The witness: what each customer was told, written down before the next
//! customer comes.
//!
//! Lines of JSON in a file, and the same in memory. A line `asked` stands
//! before a payment is sent for the first time, a line `told` after its
//! answer was checked, so that a run that dies leaves its evidence behind.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_protocol::{Decision, PaymentId};
use serde_json::json;

use crate::told::{Answer, Told};

/// Takes evidence from all tills.
#[derive(Debug)]
pub struct Witness {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    told: Vec<Told>,
    receipts: Vec<Vec<u8>>,
}

impl Witness {
    /// Begins a new list at `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot write the witness list {}", path.display()))?;
        let inner = Inner {
            file,
            told: Vec::new(),
            receipts: Vec::new(),
        };
        Ok(Self {
            path: path.to_owned(),
            inner: Mutex::new(inner),
        })
    }

    /// A payment is about to be sent for the first time.
    pub fn asked(&self, payment_id: PaymentId, order_id: &str, till: usize) -> Result<()> {
        let line = json!({
            "asked": payment_id.to_string(), "order_id": order_id, "till": till,
        });
        self.write(&mut self.lock(), &line)
    }

    /// A customer was told. `receipt` is as the hub signed it, if there is
    /// one.
    pub fn told(&self, told: Told, receipt: Option<Vec<u8>>) -> Result<()> {
        let mut line = json!({
            "told": told.payment_id.to_string(),
            "order_id": told.order_id,
            "device": told.device.to_string(),
            "class": told.class.name(),
            "amount_minor": told.amount_minor,
            "card": told.card.token,
        });
        match &told.answer {
            Answer::Receipt(slip) => {
                line["decision"] = json!(slip.decision.name());
                line["reason"] = json!(slip.reason.name());
                line["sequence"] = json!(slip.sequence);
                line["decided_ms"] = json!(slip.decided_ms);
                line["receipt"] = json!(receipt.as_ref().map(|r| STANDARD.encode(r)));
            }
            Answer::Refused(code) => line["refused"] = json!(code.name()),
            Answer::None(why) => line["no_answer"] = json!(why),
        }
        let mut inner = self.lock();
        self.write(&mut inner, &line)?;
        inner.told.push(told);
        inner.receipts.extend(receipt);
        Ok(())
    }

    /// Everything told so far.
    pub fn all(&self) -> Vec<Told> {
        self.lock().told.clone()
    }

    /// Every receipt so far, as signed.
    pub fn receipts(&self) -> Vec<Vec<u8>> {
        self.lock().receipts.clone()
    }

    /// How many payments of [`all`](Self::all) were decided so.
    pub fn count(&self, decision: Decision) -> u64 {
        let is_it = |t: &&Told| t.slip().is_some_and(|s| s.decision == decision);
        self.lock().told.iter().filter(is_it).count() as u64
    }

    fn write(&self, inner: &mut Inner, line: &serde_json::Value) -> Result<()> {
        // One write a line: the kernel has it even if this process dies.
        inner
            .file
            .write_all(format!("{line}\n").as_bytes())
            .with_context(|| format!("cannot write the witness list {}", self.path.display()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A till that panicked has not left half a line behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_and_told_stands_in_the_file_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("witness.jsonl");
        let witness = Witness::create(&path).unwrap();
        let told = crate::sample::told(1);
        witness.asked(told.payment_id, &told.order_id, 3).unwrap();
        witness.told(told.clone(), Some(vec![1, 2, 3])).unwrap();
        let lines: Vec<serde_json::Value> = std::fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["asked"], lines[1]["told"]);
        assert_eq!(lines[1]["decision"], "approved-offline");
        assert_eq!(
            (witness.all(), witness.receipts()),
            (vec![told], vec![vec![1, 2, 3]])
        );
        assert_eq!(witness.count(Decision::ApprovedOffline), 1);
    }
}
