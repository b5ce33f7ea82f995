//! Opening: from the files on disk to the folded state.
//!
//! The journal is the truth. The index saves folding it from the beginning;
//! if it is missing, damaged, or does not agree with the journal, it is set
//! aside and built again.

use std::path::Path;

use hub_core::state::{FoldError, Head, State};
use hub_protocol::entry::{Event, StorageLevel};
use hub_protocol::{HubId, PaymentId};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::Config;
use crate::ledger::{
    self, Damage, DataLock, INDEX_FORMAT, Index, IndexReader, Journal, JournalOptions, JournalReader,
    LedgerError, STORE_FORMAT, Space, Stamp, StoredEntry, Vault, read_store_format, write_store_format,
};
use crate::run::migration::{self, AtStep};
use crate::run::storage;

/// Entries folded between two writes to the index while it is rebuilt.
const REBUILD_BATCH: u64 = 10_000;

/// The size of a vault file, in bytes.
const VAULT_FILE: usize = 16 << 20;

/// A ledger that is open.
pub(super) struct Opened {
    pub(super) lock: DataLock,
    pub(super) space: Space,
    pub(super) journal: Journal,
    pub(super) vault: Vault,
    pub(super) index: Index,
    pub(super) state: State,
    pub(super) torn_bytes: u64,
}

/// Why the ledger could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The files.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The index could not even be made anew.
    #[error("the index cannot be built: {0}; check the disk and the folder's owner")]
    Index(Damage),
    /// The store could not be brought to this program's format.
    #[error("the store of an older format cannot be migrated: {0}. The old one is as it was")]
    Migration(String),
    /// The journal verifies and does not fit together: written by another
    /// program.
    #[error("ledger: {0}; keep the files as they are and run `hubctl ledger verify`")]
    Fold(#[from] FoldError),
}

/// Opens everything in the hub's folder.
pub(super) fn open(config: &Config) -> Result<Opened, OpenError> {
    open_at(config, &mut |_| Ok(()))
}

/// [`open`], and `at` hears of each step of a migration.
pub(super) fn open_at(config: &Config, at: AtStep<'_>) -> Result<Opened, OpenError> {
    let layout = &config.layout;
    // Before anything is touched: the reserve and the stamp have one owner
    // too.
    let lock = DataLock::acquire(&layout.dir)?;
    let format = read_store_format(&layout.format)?;
    // A journal that vanished must not become an empty one; a first start that
    // was cut off between two folders must not stand in the next one's way.
    let never_used = !layout.index.exists() && !layout.vault.exists();
    let outdated = format != Some(STORE_FORMAT) && layout.ledger.exists() && !never_used;
    let verified = match outdated {
        true => Some(migration::verify_old(config, format.unwrap_or(1), at)?),
        false => None,
    };
    let space = storage::open(config)?;
    let full = space.level() == StorageLevel::Full;
    if full && outdated {
        return Err(OpenError::Migration("the disk has no room for it".to_owned()));
    }
    let options = JournalOptions {
        segment_bytes: config.ledger.segment_bytes,
        create: never_used,
    };
    let (mut journal, report) = Journal::open(
        &layout.ledger,
        config.keys.hub_id,
        config.keys.signing.clone(),
        options,
    )?;
    journal.keep_room(&space);
    if report.torn_bytes > 0 {
        tracing::warn!(
            bytes = report.torn_bytes,
            "cut an unfinished write off the journal; nothing in it was answered"
        );
    }
    let reader = journal.reader();
    match verified {
        Some(head) => migration::migrate(layout, &reader, head, at)?,
        None if format.is_none() => write_store_format(&layout.format)?,
        None => migration::tidy_up(layout),
    }
    if full {
        // What the index writes when it is opened; it is asked for no more
        // until there is room.
        space.give_back()?;
    }
    let (index, state) = open_state(&layout.index, config.keys.hub_id, &reader, full)?;
    let mut vault = open_vault(config, &state)?;
    vault.keep_room(&space);
    Ok(Opened {
        lock,
        space,
        journal,
        vault,
        index,
        state,
        torn_bytes: report.torn_bytes,
    })
}

/// The index, and the state up to the journal's end: from the index if that
/// can be had, from the journal alone if not.
///
/// With a `full` disk the index is read and not written: what it lacks stays
/// in memory until there is room.
fn open_state(
    dir: &Path,
    hub: HubId,
    journal: &JournalReader,
    full: bool,
) -> Result<(Index, State), OpenError> {
    let trouble = match from_index(dir, journal, full) {
        Ok(found) => return Ok(found),
        Err(trouble) => trouble,
    };
    if journal.head().sequence > 0 {
        tracing::warn!(hub = %hub.short(), %trouble, "the index is set aside and built again from the journal");
    }
    ledger::set_aside(dir).map_err(OpenError::Index)?;
    let mut index = Index::create(dir).map_err(OpenError::Index)?;
    let mut state = State::default();
    fold_tail(journal, &mut index, &mut state)?;
    Ok((index, state))
}

fn from_index(dir: &Path, journal: &JournalReader, full: bool) -> Result<(Index, State), String> {
    let mut index = Index::open(dir).map_err(|damage| damage.to_string())?;
    let mut state = restore(&index, journal)?;
    if full {
        fold(journal, &index.reader(), &mut state, &mut |_| Ok(()))
    } else {
        fold_tail(journal, &mut index, &mut state)
    }
    .map_err(|error| error.to_string())?;
    Ok((index, state))
}

/// The state by an index that stays as it is.
pub(super) fn restore_only(dir: &Path, journal: &JournalReader) -> Result<State, String> {
    from_index(dir, journal, true).map(|(_, state)| state)
}

/// A new index in `dir`, of the whole journal, and the state by it.
pub(super) fn build_index(dir: &Path, journal: &JournalReader) -> Result<State, OpenError> {
    let mut index = Index::create(dir).map_err(OpenError::Index)?;
    let mut state = State::default();
    fold_tail(journal, &mut index, &mut state)?;
    Ok(state)
}

fn restore(index: &Index, journal: &JournalReader) -> Result<State, String> {
    let stamp = index.stamp();
    let digest = journal.digest_at(stamp.sequence).map_err(|error| {
        format!("it is ahead of the journal or the journal cannot be read there: {error}")
    })?;
    if digest != stamp.digest {
        return Err("it belongs to another journal".to_owned());
    }
    let mut state = State::default();
    let mut unreadable = Ok(());
    index
        .for_each(&mut |key, value| {
            if unreadable.is_ok() {
                unreadable = state.restore(key, value);
            }
        })
        .map_err(|damage| damage.to_string())?;
    unreadable.map_err(|error| error.to_string())?;
    let policy = match state.store().policy_sequence {
        Some(sequence) => Some(policy_in(journal, sequence)?),
        None => None,
    };
    state.restored(
        Head {
            sequence: stamp.sequence,
            digest: stamp.digest,
        },
        policy.as_deref(),
    );
    Ok(state)
}

fn policy_in(journal: &JournalReader, sequence: u64) -> Result<Vec<u8>, String> {
    match journal.entry(sequence) {
        Ok(StoredEntry { entry, .. }) => match entry.event {
            Event::PolicyActivated { policy, .. } => Ok(policy),
            _ => Err(format!("entry {sequence} holds no policy")),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// Folds what the index does not hold yet, and writes it there.
fn fold_tail(journal: &JournalReader, index: &mut Index, state: &mut State) -> Result<(), OpenError> {
    let lookup = index.reader();
    fold(journal, &lookup, state, &mut |state| write(index, state))
}

/// Folds what the state does not hold yet; `keep` hears of it now and then,
/// and at the end.
fn fold(
    journal: &JournalReader,
    lookup: &IndexReader,
    state: &mut State,
    keep: &mut dyn FnMut(&mut State) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let from = state.head().sequence;
    let bar = progress(journal.head().sequence - from);
    for stored in journal.entries_from(from + 1)? {
        let stored = stored?;
        if let Some(id) = stored.entry.event.payment_id() {
            recall(lookup, state, id)?;
        }
        state.apply(&stored.entry, stored.digest)?;
        bar.inc(1);
        if state.head().sequence.is_multiple_of(REBUILD_BATCH) {
            keep(state)?;
        }
    }
    keep(state)?;
    bar.finish_and_clear();
    Ok(())
}

/// A payment that was final when it was written to the index is not in
/// memory; an entry that speaks of it again needs it back.
fn recall(index: &IndexReader, state: &mut State, id: PaymentId) -> Result<(), OpenError> {
    if state.payment(&id).is_none()
        && let Some(value) = index.get(&State::payment_key(&id)).map_err(unusable)?
    {
        let record = hub_protocol::cbor::decode(&value).map_err(|_| FoldError::IndexValue)?;
        state.recall(id, record);
    }
    Ok(())
}

fn write(index: &mut Index, state: &mut State) -> Result<(), OpenError> {
    let changes = state.take_dirty();
    let head = state.head();
    index
        .write(
            changes,
            Stamp {
                sequence: head.sequence,
                digest: head.digest,
                format: INDEX_FORMAT,
            },
        )
        .map_err(unusable)?;
    index.checkpoint().map_err(unusable)?;
    state.evict_finals();
    Ok(())
}

fn unusable(damage: Damage) -> OpenError {
    OpenError::Index(damage)
}

/// Cards that no payment needs any more are destroyed: the hub was killed
/// between an answer and the destruction, or between card and entry.
fn open_vault(config: &Config, state: &State) -> Result<Vault, OpenError> {
    let mut vault = Vault::open(&config.layout.vault, &config.keys.vault, VAULT_FILE)?.0;
    let needed = |id: &PaymentId| state.payment(id).is_some_and(|payment| payment.needs_card());
    let unneeded: Vec<PaymentId> = vault
        .reader()
        .ids()
        .into_iter()
        .filter(|id| !needed(id))
        .collect();
    vault.erase(&unneeded)?;
    let held: std::collections::HashSet<PaymentId> = vault.reader().ids().into_iter().collect();
    let missing = state
        .payments()
        .filter(|(id, payment)| payment.needs_card() && !held.contains(*id))
        .count();
    if missing > 0 {
        tracing::error!(missing, "payments whose sealed card is missing will be parked");
    }
    Ok(vault)
}

fn progress(length: u64) -> ProgressBar {
    // A bar for people at a terminal, nothing in a log.
    let target = if length > REBUILD_BATCH {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    if let Ok(style) = ProgressStyle::with_template("index {bar:40} {pos}/{len} entries, {eta} left") {
        bar.set_style(style);
    }
    bar
}
