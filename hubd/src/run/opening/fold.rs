//! Folding the journal into the state, and into the index.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use hub_core::state::{CardKey, CardRecord, Evicted, FoldError, PaymentRecord, Recalled, State};
use hub_protocol::entry::Entry;
use hub_protocol::{PaymentId, PaymentRequest, cbor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{OpenError, unusable};
use crate::ledger::{
    Batch, BorrowedRecord, Damage, INDEX_FORMAT, Index, IndexReader, JournalReader, Stamp, StoredEntry,
};

/// Entries folded between two writes to the index while it is rebuilt: the
/// more, the fewer tables there are to look into and to merge.
const REBUILD_BATCH: u64 = 16_000;

/// The same for what a hub leaves behind when it ends, or some more: it is
/// folded in at once, and without much memory.
const TAIL_BATCH: u64 = 2_000;

/// From so many entries on the index is being rebuilt.
const REBUILD_FROM: u64 = 100_000;

/// From so many entries on there is progress to be shown.
const PROGRESS_FROM: u64 = 4_000;

/// Entries are decoded in groups of so many, and so many groups ahead.
const DECODED_TOGETHER: usize = 256;
const DECODED_AHEAD: usize = 8;

/// So many batches wait for the index while it is rebuilt.
const WRITTEN_AHEAD: usize = 1;

/// Folds what the index does not hold yet, and writes it there, on a thread of
/// its own.
pub(super) fn fold_tail(
    journal: &JournalReader,
    index: &mut Index,
    state: &mut State,
) -> Result<(), OpenError> {
    let mut known = Known::by(index.reader());
    let through = journal.head().sequence;
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel::<(Arc<Changes>, Batch, Stamp, Evicted)>(WRITTEN_AHEAD);
        let writing = scope.spawn(move || -> Result<(), Damage> {
            for (recalled, others, stamp, evicted) in batches {
                let mut changes: Vec<BorrowedRecord<'_>> = recalled
                    .iter()
                    .chain(others.iter().map(|(key, value)| (key, value)))
                    .map(|(key, value)| (key.as_slice(), value.as_deref()))
                    .collect();
                changes.sort_unstable();
                index.write_sorted(&changes, stamp)?;
                drop(evicted);
            }
            Ok(())
        });
        let folded = fold(journal, through, &mut known, state, &mut |state, known| {
            let (changes, stamp) = take_changes(state);
            let evicted = state.evict_all();
            let (recalled, others): (Vec<_>, Batch) =
                changes.into_iter().partition(|(key, _)| is_recalled(key));
            let recalled = Arc::new(Changes::from_iter(recalled));
            known.will_hold(stamp.sequence, Arc::clone(&recalled));
            // Nobody takes it: writing has failed, and says why when joined.
            sender
                .send((recalled, others, stamp, evicted))
                .map_err(|_| OpenError::Ended("writes the index"))
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
pub(super) struct Known {
    index: IndexReader,
    /// On their way into the index, oldest first: the last entry, and the
    /// changes of what is looked up.
    ahead: VecDeque<(u64, Arc<Changes>)>,
}

/// Whether the record under a key is looked up while folding. Places are not.
fn is_recalled(key: &[u8]) -> bool {
    key.starts_with(State::PAYMENTS) || key.starts_with(State::CARDS)
}

/// New values by their keys; `None` for those to remove.
type Changes = HashMap<Vec<u8>, Option<Vec<u8>>>;

impl Known {
    pub(super) fn by(index: IndexReader) -> Self {
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
pub(super) fn fold(
    journal: &JournalReader,
    through: u64,
    known: &mut Known,
    state: &mut State,
    keep: Keep<'_>,
) -> Result<(), OpenError> {
    let from = state.head().sequence;
    let behind = through.saturating_sub(from);
    let bar = progress(behind);
    let batch = if behind < REBUILD_FROM {
        TAIL_BATCH
    } else {
        REBUILD_BATCH
    };
    fold_read(
        |to| decode_all(journal, from + 1, through, &to),
        known,
        state,
        &bar,
        batch,
        keep,
    )?;
    bar.finish_and_clear();
    Ok(())
}

/// Told of the state now and then.
type Keep<'a> = &'a mut dyn FnMut(&mut State, &mut Known) -> Result<(), OpenError>;

/// Folds what `read`, on a thread of its own, sends.
fn fold_read(
    read: impl FnOnce(SyncSender<Vec<Decoded>>) -> Result<(), OpenError> + Send,
    known: &mut Known,
    state: &mut State,
    bar: &ProgressBar,
    batch: u64,
    keep: Keep<'_>,
) -> Result<(), OpenError> {
    let (sender, decoded) = sync_channel(DECODED_AHEAD);
    std::thread::scope(|scope| -> Result<(), OpenError> {
        let reading = scope.spawn(move || read(sender));
        let folded = decoded.iter().flatten().try_for_each(|(stored, request)| {
            recall(known, state, &stored.entry, request.as_ref())?;
            state.apply_known(&stored.entry, stored.digest, request.as_ref())?;
            bar.inc(1);
            match state.head().sequence.is_multiple_of(batch) {
                true => keep(state, known),
                false => Ok(()),
            }
        });
        drop(decoded);
        let read = reading.join();
        folded.and(read.unwrap_or(Err(OpenError::Ended("reads the journal"))))
    })?;
    keep(state, known)
}

/// What is being asked online, or is kept for later, is always in memory.
pub(super) fn recall_held(known: &Known, state: &mut State) -> Result<(), OpenError> {
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
pub(super) fn changes(state: &mut State) -> (Batch, Stamp) {
    let changes = take_changes(state);
    drop(state.evict_all());
    changes
}

fn take_changes(state: &mut State) -> (Batch, Stamp) {
    let changes = state.take_dirty();
    let head = state.head();
    let stamp = Stamp {
        sequence: head.sequence,
        digest: head.digest,
        format: INDEX_FORMAT,
    };
    (changes, stamp)
}

fn progress(length: u64) -> ProgressBar {
    // A bar for people at a terminal, nothing in a log.
    let target = if length > PROGRESS_FROM {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_a_reader_that_ends_early_is_no_good_end_of_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let seal = crate::ledger::RestSeal::index(&hub_protocol::DataKey::new([5; 32]));
        let index = Index::create(&dir.path().join("index"), &seal).unwrap();
        let mut kept = 0;
        let mut fold = |read: fn(SyncSender<Vec<Decoded>>) -> Result<(), OpenError>| {
            fold_read(
                read,
                &mut Known::by(index.reader()),
                &mut State::default(),
                &ProgressBar::hidden(),
                TAIL_BATCH,
                &mut |_, _| {
                    kept += 1;
                    Ok(())
                },
            )
        };
        fold(|_| Ok(())).unwrap();
        let ended = fold(|_| panic!("on purpose"));
        assert!(matches!(ended, Err(OpenError::Ended(_))), "{ended:?}");
        assert_eq!(kept, 1, "nothing is kept of it");
    }
}
