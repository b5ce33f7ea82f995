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
use hub_protocol::{DeviceId, PaymentId, PaymentState, Registration};
use minicbor::Decode;

use super::opening::{OpenError, build_index};
use crate::config::{Config, Layout};
use crate::ledger::{
    Fault, Head, IndexReader, JournalReader, LedgerError, RestSeal, STORE_FORMAT, read_older_index,
    remove_left_in_clear, sync_folder, verify, write_store_format,
};

/// Behind the name of the index that a migration began with.
const BEFORE: &str = "before-migration";

/// Behind the name of the one that it builds.
const UNFINISHED: &str = "new";

/// Payments read from an index at once.
const PAGE: usize = 4096;

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
    (layout, seal): (&Layout, &RestSeal),
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
    let (fresh, aside) = (beside(&layout.index, UNFINISHED), beside(&layout.index, BEFORE));
    remove(&fresh)?;
    // After a crash between the renames, the old one has its other name.
    let old = if aside.exists() { &aside } else { &layout.index };
    let before = match Open::in_older_index(old, journal) {
        Ok(before) => Some(before),
        Err(trouble) => {
            tracing::warn!(%trouble, "the old index cannot be compared with the new one, which is built from the journal alone");
            None
        }
    };
    // The old index may lack the journal's last entries: both are compared as
    // of its last one.
    let pause = before.as_ref().map(|before| before.head.sequence);
    let state = build_index(
        (&fresh, seal),
        journal,
        pause,
        &mut |state, index| match &before {
            Some(before) => compare(before, &Open::of(state, index)?),
            None => Ok(()),
        },
    )?;
    at(Step::Built)?;
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
        "the store is migrated; the old index is removed once the new one is in use"
    );
    Ok(())
}

/// Removes what earlier starts left beside the index, once that is in use:
/// what they migrated from or did not finish, and damaged ones of versions that
/// encrypted none.
pub(super) fn tidy_up(layout: &Layout) {
    if let Err(error) = remove_left_in_clear(&layout.index, &[BEFORE, UNFINISHED]) {
        tracing::warn!(%error, "an index of an earlier version stays, which may name cards and people: the next start tries again");
    }
}

/// What must be the same before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Open {
    head: Head,
    store: Subject,
    policy_version: u64,
    devices: BTreeMap<DeviceId, (bool, Subject)>,
    payments: BTreeMap<PaymentId, (PaymentState, u64, Option<u64>)>,
}

/// Of an older index's record of a device, what is compared. What later
/// versions added is passed over.
#[derive(Decode)]
#[cbor(map)]
struct OlderDevice {
    #[n(1)]
    registration: Registration,
    #[n(2)]
    blocked: bool,
    #[n(3)]
    subject: Subject,
}

/// Of an older index's record of the store, what is compared.
#[derive(Decode)]
#[cbor(map)]
struct OlderStore {
    #[n(1)]
    subject: Subject,
    #[n(6)]
    policy_version: u64,
}

/// Of a record of a payment, older or newer, what is compared.
#[derive(Decode)]
#[cbor(map)]
struct AnyPayment {
    #[n(4)]
    amount_minor: u64,
    #[n(8)]
    state: PaymentState,
    #[n(12)]
    queue_sequence: Option<u64>,
}

impl Open {
    /// By the state, which knows devices and store, and its index.
    fn of(state: &State, index: &IndexReader) -> Result<Self, OpenError> {
        let devices = state
            .devices()
            .map(|device| (device.registration.device, (device.blocked, device.subject)));
        let mut open = Self {
            head: state.head(),
            store: state.store().subject,
            policy_version: state.store().policy_version,
            devices: devices.collect(),
            payments: BTreeMap::new(),
        };
        let mut from = State::PAYMENTS.to_vec();
        loop {
            let page = index
                .range(State::PAYMENTS, &from, PAGE)
                .map_err(OpenError::Index)?;
            for (key, value) in &page {
                open.payment(key, value).map_err(OpenError::Migration)?;
            }
            match page.last() {
                // The least key behind the last one.
                Some((last, _)) if page.len() == PAGE => from = [last, &[0][..]].concat(),
                _ => return Ok(open),
            }
        }
    }

    /// By an index of the format before tables, in which everything is.
    fn in_older_index(dir: &Path, journal: &JournalReader) -> Result<Self, String> {
        let mut open = Self {
            head: Head::EMPTY,
            store: Subject::default(),
            policy_version: 0,
            devices: BTreeMap::new(),
            payments: BTreeMap::new(),
        };
        let mut unreadable = Ok(());
        let stamp = read_older_index(dir, &mut |key, value| {
            if unreadable.is_ok() {
                unreadable = open.older_record(key, value);
            }
        })
        .map_err(|damage| damage.to_string())?;
        unreadable?;
        let digest = journal
            .digest_at(stamp.sequence)
            .map_err(|error| error.to_string())?;
        if digest != stamp.digest {
            return Err("it belongs to another journal".to_owned());
        }
        open.head = Head {
            sequence: stamp.sequence,
            digest,
        };
        Ok(open)
    }

    fn older_record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let unreadable = |_| "a record of it cannot be read".to_owned();
        match key.first() {
            Some(b'p') => return self.payment(key, value),
            Some(b'd') => {
                let device: OlderDevice = minicbor::decode(value).map_err(unreadable)?;
                self.devices
                    .insert(device.registration.device, (device.blocked, device.subject));
            }
            Some(b's') => {
                let store: OlderStore = minicbor::decode(value).map_err(unreadable)?;
                (self.store, self.policy_version) = (store.subject, store.policy_version);
            }
            // Cards are in the exposure of their payments.
            _ => {}
        }
        Ok(())
    }

    /// Takes a payment in, unless it is final.
    fn payment(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let unreadable = || "a payment of the index cannot be read".to_owned();
        let id = key
            .strip_prefix(State::PAYMENTS)
            .and_then(|id| id.try_into().ok());
        let id = PaymentId(id.ok_or_else(unreadable)?);
        let payment: AnyPayment = minicbor::decode(value).map_err(|_| unreadable())?;
        if !payment.state.is_final() {
            let found = (payment.state, payment.amount_minor, payment.queue_sequence);
            self.payments.insert(id, found);
        }
        Ok(())
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
