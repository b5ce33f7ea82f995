//! Opening: from the files on disk to the folded state.
//!
//! The journal is the truth. The index saves folding it from the beginning;
//! if it is missing, damaged, or does not agree with the journal, it is set
//! aside and built again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use hub_core::state::{CardKey, CardRecord, FoldError, Head, PaymentRecord, Recalled, State};
use hub_protocol::entry::{Entry, Event, StorageLevel};
use hub_protocol::{HubId, PaymentId, PaymentRequest, cbor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::Config;
use crate::ledger::{
    self, Archives, Batch, Damage, DataLock, INDEX_FORMAT, Index, IndexReader, Journal, JournalOptions,
    JournalReader, LedgerError, STORE_FORMAT, Space, Stamp, StoredEntry, Vault, read_store_format,
    write_store_format,
};
use crate::run::migration::{self, AtStep};
use crate::run::storage;

/// Entries folded between two writes to the index while it is rebuilt.
const REBUILD_BATCH: u64 = 4_000;

/// Entries are decoded in groups of so many, and so many groups ahead.
const DECODED_TOGETHER: usize = 256;
const DECODED_AHEAD: usize = 8;

/// So many batches wait for the index while it is rebuilt.
const WRITTEN_AHEAD: usize = 1;

/// The most entries whose cards can still be there although they should not,
/// and the most cards whose entries never came: more than wait for the
/// committer at any time.
const MOST_BEHIND: usize = 16 * 1024;

/// The size of a vault file, in bytes.
const VAULT_FILE: usize = 16 << 20;

/// A store that is open.
pub struct Opened {
    /// Keeps other hubs out.
    pub lock: DataLock,
    /// The room on the disk.
    pub space: Space,
    /// The journal, with its archives.
    pub journal: Journal,
    /// Sealed cards.
    pub vault: Vault,
    /// The index, up to the journal's end.
    pub index: Index,
    /// The state, up to the journal's end.
    pub state: State,
    /// Bytes of an unfinished write that were cut off the journal.
    pub torn_bytes: u64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({:?})", self.journal)
    }
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

/// Opens everything in the hub's folder, as a hub does at its start; for tools
/// that work on a store, too.
///
/// # Errors
/// [`OpenError`] says what is wrong and what to do.
pub fn open(config: &Config) -> Result<Opened, OpenError> {
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
    let archives = journal.archives();
    let (mut index, mut state) = open_state(&layout.index, config.keys.hub_id, &reader, &archives, full)?;
    let mut vault = Vault::open(&layout.vault, &config.keys.vault, VAULT_FILE)?.0;
    let unneeded = match unneeded_cards(&vault, &reader, &index.reader(), &state) {
        // Damage that shows only now.
        Err(OpenError::Index(damage)) => {
            drop(index);
            let trouble = damage.to_string();
            (index, state) = rebuild(&layout.index, config.keys.hub_id, &reader, &archives, &trouble)?;
            unneeded_cards(&vault, &reader, &index.reader(), &state)?
        }
        unneeded => unneeded?,
    };
    vault.erase(&unneeded)?;
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
    archives: &Archives,
    full: bool,
) -> Result<(Index, State), OpenError> {
    match from_index(dir, journal, archives, full) {
        Ok(found) => Ok(found),
        Err(trouble) => rebuild(dir, hub, journal, archives, &trouble),
    }
}

/// Sets the index aside and builds it from the base or the journal.
fn rebuild(
    dir: &Path,
    hub: HubId,
    journal: &JournalReader,
    archives: &Archives,
    trouble: &str,
) -> Result<(Index, State), OpenError> {
    if journal.head().sequence > 0 {
        tracing::warn!(hub = %hub.short(), %trouble, "the index is set aside and built again from the journal");
    }
    ledger::set_aside(dir).map_err(OpenError::Index)?;
    if let Some(found) = from_base(dir, journal, archives)? {
        return Ok(found);
    }
    let mut index = Index::create(dir).map_err(OpenError::Index)?;
    index.look_into(archives);
    let mut state = State::default();
    fold_tail(journal, &mut index, &mut state)?;
    index.checkpoint().map_err(OpenError::Index)?;
    Ok((index, state))
}

/// A new index, filled from the base and what came after it. `None` if there
/// is no base that can be believed: the journal from its first entry on, with
/// the archives, must serve then.
fn from_base(
    dir: &Path,
    journal: &JournalReader,
    archives: &Archives,
) -> Result<Option<(Index, State)>, OpenError> {
    let base = match archives.base() {
        Ok(None) => return Ok(None),
        Ok(Some(base)) => base,
        Err(error) => {
            tracing::warn!(%error, "the base cannot be used");
            return Ok(None);
        }
    };
    let mut index = Index::create(dir).map_err(OpenError::Index)?;
    index.look_into(archives);
    let restored = ledger::restore_base(&base, &mut index)
        .map_err(|error| error.to_string())
        .and_then(|()| restore(&index, journal, archives));
    match restored {
        Ok(mut state) => {
            fold_tail(journal, &mut index, &mut state)?;
            index.checkpoint().map_err(OpenError::Index)?;
            tracing::info!(
                entry = base.statement.sequence,
                "the index is built from the base"
            );
            Ok(Some((index, state)))
        }
        Err(error) => {
            tracing::warn!(error, "the base cannot be used");
            drop(index);
            ledger::set_aside(dir).map_err(OpenError::Index)?;
            Ok(None)
        }
    }
}

fn from_index(
    dir: &Path,
    journal: &JournalReader,
    archives: &Archives,
    full: bool,
) -> Result<(Index, State), String> {
    let mut index = Index::open(dir).map_err(|damage| damage.to_string())?;
    index.look_into(archives);
    let mut state = restore(&index, journal, archives)?;
    if full {
        let through = journal.head().sequence;
        let mut known = Known::by(index.reader());
        fold(journal, through, &mut known, &mut state, &mut |_, _| Ok(()))
            .and_then(|()| recall_held(&known, &mut state))
    } else {
        fold_tail(journal, &mut index, &mut state)
    }
    .map_err(|error| error.to_string())?;
    Ok((index, state))
}

/// A new index in `dir`, of the whole journal, and the state by it. Both are
/// shown to `check` as they are after the entry `pause`.
pub(super) fn build_index(
    dir: &Path,
    journal: &JournalReader,
    pause: Option<u64>,
    check: &mut dyn FnMut(&State, &IndexReader) -> Result<(), OpenError>,
) -> Result<State, OpenError> {
    let mut index = Index::create(dir).map_err(OpenError::Index)?;
    let lookup = index.reader();
    let mut state = State::default();
    if let Some(through) = pause {
        let mut known = Known::by(lookup.clone());
        fold(journal, through, &mut known, &mut state, &mut |state, _| {
            let (changes, stamp) = changes(state);
            index.write(changes, stamp).map_err(unusable)
        })?;
        recall_held(&known, &mut state)?;
        check(&state, &lookup)?;
    }
    fold_tail(journal, &mut index, &mut state)?;
    index.checkpoint().map_err(OpenError::Index)?;
    Ok(state)
}

fn restore(index: &Index, journal: &JournalReader, archives: &Archives) -> Result<State, String> {
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
        .for_each_small(&mut |key, value| {
            if unreadable.is_ok() {
                unreadable = state.restore(key, value);
            }
        })
        .map_err(|damage| damage.to_string())?;
    unreadable.map_err(|error| error.to_string())?;
    let policy = match state.store().policy_sequence {
        Some(sequence) => Some(policy_in(journal, archives, sequence)?),
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

/// A policy in force may be older than what is kept: the base holds it too.
fn policy_in(journal: &JournalReader, archives: &Archives, sequence: u64) -> Result<Vec<u8>, String> {
    if sequence < journal.first_plain()
        && let Ok(Some(base)) = archives.base()
        && let Some(held) = base.statement.policy
        && held.sequence == sequence
    {
        return Ok(held.policy);
    }
    match journal.entry(sequence) {
        Ok(StoredEntry { entry, .. }) => match entry.event {
            Event::PolicyActivated { policy, .. } => Ok(policy),
            _ => Err(format!("entry {sequence} holds no policy")),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// Folds what the index does not hold yet, and writes it there, on a thread of
/// its own.
fn fold_tail(journal: &JournalReader, index: &mut Index, state: &mut State) -> Result<(), OpenError> {
    let mut known = Known::by(index.reader());
    let through = journal.head().sequence;
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel::<(Arc<Changes>, Stamp)>(WRITTEN_AHEAD);
        let writing = scope.spawn(move || -> Result<(), Damage> {
            for (changes, stamp) in batches {
                let mut changes: Batch = changes
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect();
                changes.sort_unstable();
                index.write(changes, stamp)?;
            }
            Ok(())
        });
        let folded = fold(journal, through, &mut known, state, &mut |state, known| {
            let (changes, stamp) = changes(state);
            let changes = Arc::new(Changes::from_iter(changes));
            known.will_hold(stamp.sequence, Arc::clone(&changes));
            // Nobody takes it: writing has failed and says why.
            let _ = sender.send((changes, stamp));
            Ok(())
        });
        drop(sender);
        let written = writing.join();
        written
            .unwrap_or(Err(Damage::Panicked("writing".to_owned())))
            .map_err(unusable)?;
        folded
    })?;
    recall_held(&known, state)
}

/// What the index answers, and what it is about to be able to.
struct Known {
    index: IndexReader,
    /// On their way into the index, oldest first: the last entry, and the
    /// changes.
    ahead: VecDeque<(u64, Arc<Changes>)>,
}

/// New values by their keys; `None` for those to remove.
type Changes = HashMap<Vec<u8>, Option<Vec<u8>>>;

impl Known {
    fn by(index: IndexReader) -> Self {
        let ahead = VecDeque::new();
        Self { index, ahead }
    }

    fn will_hold(&mut self, sequence: u64, changes: Arc<Changes>) {
        let written = self.index.written();
        self.ahead.retain(|(sequence, _)| *sequence > written);
        self.ahead.push_back((sequence, changes));
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
        for (_, changes) in self.ahead.iter().rev() {
            if let Some(value) = changes.get(key) {
                return Ok(value.clone());
            }
        }
        self.index.get(key).map_err(unusable)
    }
}

/// Folds what the state does not hold yet, up to an entry; `keep` hears of it
/// now and then, and at the end. One thread reads and decodes, the other folds.
fn fold(
    journal: &JournalReader,
    through: u64,
    known: &mut Known,
    state: &mut State,
    keep: &mut dyn FnMut(&mut State, &mut Known) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let from = state.head().sequence;
    let bar = progress(through.saturating_sub(from));
    let (sender, decoded) = sync_channel(DECODED_AHEAD);
    std::thread::scope(|scope| -> Result<(), OpenError> {
        let reading = scope.spawn(move || decode_all(journal, from + 1, through, &sender));
        for (stored, request) in decoded.iter().flatten() {
            recall(known, state, &stored.entry, request.as_ref())?;
            state.apply_known(&stored.entry, stored.digest, request.as_ref())?;
            bar.inc(1);
            if state.head().sequence.is_multiple_of(REBUILD_BATCH) {
                keep(state, known)?;
            }
        }
        drop(decoded);
        reading.join().unwrap_or(Ok(()))
    })?;
    keep(state, known)?;
    bar.finish_and_clear();
    Ok(())
}

/// What is being asked online, or is kept for later, is always in memory.
fn recall_held(known: &Known, state: &mut State) -> Result<(), OpenError> {
    let held = known.index.range(State::HELD, State::HELD, usize::MAX);
    for (_, id) in held.map_err(unusable)? {
        let id = id.try_into().map_err(|_| FoldError::IndexValue)?;
        recall_payment(known, state, PaymentId(id))?;
    }
    Ok(())
}

/// An entry and the request that it brings.
type Decoded = (StoredEntry, Option<PaymentRequest>);

/// Reads the journal up to an entry, or until nobody listens.
fn decode_all(
    journal: &JournalReader,
    from: u64,
    through: u64,
    to: &SyncSender<Vec<Decoded>>,
) -> Result<(), OpenError> {
    let mut together = Vec::with_capacity(DECODED_TOGETHER);
    for stored in journal.entries_from(from)? {
        let stored = stored?;
        if stored.entry.sequence > through {
            break;
        }
        let request = State::request_in(&stored.entry)?;
        together.push((stored, request));
        if together.len() == DECODED_TOGETHER && to.send(std::mem::take(&mut together)).is_err() {
            return Ok(());
        }
    }
    // Nobody listens: folding has failed and says why.
    let _ = to.send(together);
    Ok(())
}

/// Takes back into memory what an entry speaks of.
fn recall(
    known: &Known,
    state: &mut State,
    entry: &Entry,
    request: Option<&PaymentRequest>,
) -> Result<(), OpenError> {
    match (request, entry.event.payment_id()) {
        (Some(request), _) => {
            let card = CardKey::of_token(&request.card.token);
            if !state.knows_card(&card) {
                let record = card_in(known, &card)?;
                state.recall_card(card, record);
            }
        }
        (None, Some(id)) => recall_payment(known, state, id)?,
        (None, None) => {}
    }
    Ok(())
}

fn recall_payment(known: &Known, state: &mut State, payment_id: PaymentId) -> Result<(), OpenError> {
    if state.payment(&payment_id).is_none()
        && let Some(value) = known.get(&State::payment_key(&payment_id))?
    {
        let record: PaymentRecord = cbor::decode(&value).map_err(|_| FoldError::IndexValue)?;
        let card = card_in(known, &record.card)?;
        state.recall(Recalled {
            payment_id,
            record,
            card,
        });
    }
    Ok(())
}

fn card_in(known: &Known, card: &CardKey) -> Result<CardRecord, OpenError> {
    let value = known.get(&State::card_key(card))?;
    let record = value
        .map(|value| cbor::decode(&value))
        .transpose()
        .map_err(|_| FoldError::IndexValue)?;
    Ok(record.unwrap_or_default())
}

/// What changed since the last time, for the index; it leaves the memory.
fn changes(state: &mut State) -> (Batch, Stamp) {
    let changes = state.take_dirty();
    let head = state.head();
    state.evict_all();
    let stamp = Stamp {
        sequence: head.sequence,
        digest: head.digest,
        format: INDEX_FORMAT,
    };
    (changes, stamp)
}

fn unusable(damage: Damage) -> OpenError {
    OpenError::Index(damage)
}

/// Cards that no payment needs any more and that are to be destroyed: the hub was killed
/// between an answer and the destruction, or between card and entry. What can
/// be behind is bounded by what waits for the committer, so that only the
/// newest entries and the newest cards are looked at.
fn unneeded_cards(
    vault: &Vault,
    journal: &JournalReader,
    index: &IndexReader,
    state: &State,
) -> Result<Vec<PaymentId>, OpenError> {
    let reader = vault.reader();
    let mut suspects: BTreeSet<PaymentId> = reader.newest(MOST_BEHIND)?.into_iter().collect();
    let first = journal.head().sequence.saturating_sub(MOST_BEHIND as u64) + 1;
    // Archived payments ended long ago.
    let first = first.max(journal.first_plain());
    for stored in journal.entries_from(first)? {
        if let Some(id) = stored?.entry.event.payment_id()
            && !suspects.contains(&id)
            && reader.holds(id)?
        {
            suspects.insert(id);
        }
    }
    let mut unneeded = Vec::new();
    for id in suspects {
        let needed = match (
            state.payment(&id),
            index.get(&State::payment_key(&id)).map_err(unusable)?,
        ) {
            (Some(payment), _) => payment.needs_card(),
            (None, Some(value)) => cbor::decode::<PaymentRecord>(&value)
                .map_err(|_| FoldError::IndexValue)?
                .needs_card(),
            (None, None) => false,
        };
        if !needed {
            unneeded.push(id);
        }
    }
    Ok(unneeded)
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
