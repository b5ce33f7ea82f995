//! Folding the journal into the state, and into the index.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use hub_core::state::{CardKey, CardRecord, FoldError, PaymentRecord, Recalled, State};
use hub_protocol::entry::Entry;
use hub_protocol::{PaymentId, PaymentRequest, cbor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{OpenError, unusable};
use crate::ledger::{Batch, Damage, INDEX_FORMAT, Index, IndexReader, JournalReader, Stamp, StoredEntry};

/// Entries folded between two writes to the index while it is rebuilt.
const REBUILD_BATCH: u64 = 4_000;

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
            // Nobody takes it: writing has failed, and says why when joined.
            sender
                .send((changes, stamp))
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
    /// changes.
    ahead: VecDeque<(u64, Arc<Changes>)>,
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
    let bar = progress(through.saturating_sub(from));
    fold_read(
        |to| decode_all(journal, from + 1, through, &to),
        known,
        state,
        &bar,
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
    keep: Keep<'_>,
) -> Result<(), OpenError> {
    let (sender, decoded) = sync_channel(DECODED_AHEAD);
    std::thread::scope(|scope| -> Result<(), OpenError> {
        let reading = scope.spawn(move || read(sender));
        let folded = decoded.iter().flatten().try_for_each(|(stored, request)| {
            recall(known, state, &stored.entry, request.as_ref())?;
            state.apply_known(&stored.entry, stored.digest, request.as_ref())?;
            bar.inc(1);
            match state.head().sequence.is_multiple_of(REBUILD_BATCH) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_2_a_reader_that_ends_early_is_no_good_end_of_the_journal() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::create(&dir.path().join("index")).unwrap();
        let mut kept = 0;
        let mut fold = |read: fn(SyncSender<Vec<Decoded>>) -> Result<(), OpenError>| {
            fold_read(
                read,
                &mut Known::by(index.reader()),
                &mut State::default(),
                &ProgressBar::hidden(),
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
