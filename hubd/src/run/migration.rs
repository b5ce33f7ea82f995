//! From a store of an older format to this program's.
//!
//! Journal and vault of older formats stay as they are: their readers are
//! kept, and what is written from now on goes into new files. What is made
//! anew is the index, beside the old one; only when both say the same of
//! everything that is open does the new one take its place, and only then is
//! the store stamped. A crash anywhere leaves a store that opens: without the
//! stamp this starts over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use hub_core::state::{State, Subject};
use hub_protocol::{DeviceId, PaymentId, PaymentState};

use super::opening::{OpenError, build_index, restore_only};
use crate::config::{Config, Layout};
use crate::ledger::{
    Fault, Head, JournalReader, LedgerError, STORE_FORMAT, sync_folder, verify, write_store_format,
};

/// What has been done, in order; where tests cut the power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The old journal verifies.
    Verified,
    /// The new index is complete beside the old one.
    Built,
    /// The old index has its other name.
    OldAside,
    /// The new index has its name.
    NewInPlace,
    /// The store is stamped.
    Stamped,
}

/// Hears of every step; an error ends the migration there.
pub(super) type AtStep<'a> = &'a mut dyn FnMut(Step) -> Result<(), OpenError>;

/// Verifies the old journal, every signature, before anything is touched.
pub(super) fn verify_old(config: &Config, found: u16, at: AtStep<'_>) -> Result<Head, OpenError> {
    tracing::warn!(
        found,
        to = STORE_FORMAT,
        "the store is of an older format: it is verified and then migrated; journal and vault stay as they are"
    );
    let key = config.keys.signing.verifying_key();
    let report = verify(&config.layout.ledger, &key, &mut |progress| {
        tracing::info!(
            segments = progress.segments,
            of = progress.of_segments,
            entries = progress.entries,
            "verified"
        );
    })?;
    match report.broken {
        // What a power cut leaves; opening cuts it off.
        Some(broken) if !matches!(broken.fault, Fault::TornTail { .. }) => {
            Err(LedgerError::Damaged(broken).into())
        }
        _ => {
            at(Step::Verified)?;
            Ok(report.head)
        }
    }
}

/// Builds the new index, holds it against the old, and switches.
pub(super) fn migrate(
    layout: &Layout,
    journal: &JournalReader,
    verified: Head,
    at: AtStep<'_>,
) -> Result<(), OpenError> {
    if journal.head() != verified {
        return Err(OpenError::Migration(format!(
            "the journal opens at entry {}, and was verified up to entry {}",
            journal.head().sequence,
            verified.sequence
        )));
    }
    let (fresh, aside) = (
        beside(&layout.index, "new"),
        beside(&layout.index, "before-migration"),
    );
    remove(&fresh)?;
    let state = build_index(&fresh, journal)?;
    at(Step::Built)?;
    // After a crash between the two renames, only the other name is there.
    let old = if layout.index.exists() {
        &layout.index
    } else {
        &aside
    };
    match restore_only(old, journal) {
        Ok(before) => compare(&Open::of(&before), &Open::of(&state))?,
        Err(trouble) => {
            tracing::warn!(%trouble, "the old index cannot be compared with the new one, which is built from the journal alone");
        }
    }
    if layout.index.exists() {
        remove(&aside)?;
        rename(&layout.index, &aside, &layout.dir)?;
    }
    at(Step::OldAside)?;
    rename(&fresh, &layout.index, &layout.dir)?;
    at(Step::NewInPlace)?;
    write_store_format(&layout.format)?;
    at(Step::Stamped)?;
    tracing::warn!(
        format = STORE_FORMAT,
        entries = state.head().sequence,
        old_index = %aside.display(),
        "the store is migrated; the old index is removed at the next start"
    );
    Ok(())
}

/// Removes what an earlier start migrated from.
pub(super) fn tidy_up(layout: &Layout) {
    let aside = beside(&layout.index, "before-migration");
    if aside.exists() {
        match remove(&aside) {
            Ok(()) => {
                tracing::info!(folder = %aside.display(), "the index from before the migration is removed")
            }
            Err(error) => tracing::warn!(%error, "the index from before the migration stays"),
        }
    }
}

/// What must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
struct Open {
    head: Head,
    store: Subject,
    policy_version: u64,
    devices: BTreeMap<DeviceId, (bool, Subject)>,
    payments: BTreeMap<PaymentId, (PaymentState, u64, Option<u64>)>,
}

impl Open {
    fn of(state: &State) -> Self {
        let devices = state
            .devices()
            .map(|device| (device.registration.device, (device.blocked, device.subject)));
        let open = state.payments().filter(|(_, payment)| !payment.is_final());
        Self {
            head: state.head(),
            store: state.store().subject,
            policy_version: state.store().policy_version,
            devices: devices.collect(),
            payments: open
                .map(|(id, payment)| (*id, (payment.state, payment.amount_minor, payment.queue_sequence)))
                .collect(),
        }
    }
}

fn compare(before: &Open, after: &Open) -> Result<(), OpenError> {
    if before == after {
        tracing::info!(
            entries = after.head.sequence,
            open_payments = after.payments.len(),
            exposure_minor = after.store.exposure_minor,
            "old and new index agree"
        );
        return Ok(());
    }
    Err(OpenError::Migration(format!(
        "the old index has {} open payments and an exposure of {}, the new one {} and {}",
        before.payments.len(),
        before.store.exposure_minor,
        after.payments.len(),
        after.store.exposure_minor
    )))
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".");
    name.push(what);
    name.into()
}

fn rename(from: &Path, to: &Path, dir: &Path) -> Result<(), OpenError> {
    fs::rename(from, to).map_err(|error| OpenError::Migration(format!("{}: {error}", from.display())))?;
    Ok(sync_folder(dir)?)
}

fn remove(dir: &Path) -> Result<(), OpenError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(OpenError::Migration(format!("{}: {error}", dir.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "migration_tests.rs"]
mod tests;
