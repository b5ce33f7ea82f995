//! A disk that keeps what was flushed, and may or may not keep the group that
//! was being written; and the index, which lags behind and may vanish.
//!
//! As the real ledger has it: sealed cards are flushed before the entries of
//! their group. A group counts by the mark at its end and is whole or, on
//! opening, cut off whole, whatever of it is on disk. It ends between any two
//! entries, for the writer takes what has arrived. Cards are destroyed later,
//! when there is time.

use std::collections::{BTreeMap, BTreeSet};

use hub_protocol::{Digest, Entry, PaymentId};

use crate::room::Room;

/// One entry of the journal.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) entry: Entry,
    pub(crate) digest: Digest,
    pub(crate) bytes: usize,
}

/// The journal, and the sealed cards that are written with it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Everything handed over, in order. The first `durable` are on disk.
    pub(crate) records: Vec<Record>,
    pub(crate) durable: usize,
    /// The group that is being written ends here.
    pub(crate) writing: Option<usize>,
    /// Cards on disk.
    pub(crate) cards: BTreeSet<PaymentId>,
    /// Cards that go to disk with an entry.
    waiting_cards: Vec<(usize, PaymentId)>,
    /// Cards to be destroyed.
    pub(crate) erasures: BTreeSet<PaymentId>,
    pub(crate) index: Index,
    pub(crate) room: Room,
}

/// What one crash does to the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damage {
    /// The group that was being written is whole on disk, though nobody was
    /// told. Otherwise nothing of it counts.
    pub(crate) keeps_last_write: bool,
    /// Then its first so many thousandths are on disk, and are cut off.
    pub(crate) torn: u64,
    /// And so many thousandths of its cards.
    pub(crate) kept_cards: u64,
    /// So many of the index's last batches are gone.
    pub(crate) lost_batches: usize,
    /// The index is gone.
    pub(crate) loses_index: bool,
}

impl Disk {
    pub(crate) fn append(&mut self, record: Record, card: Option<PaymentId>) {
        self.records.push(record);
        if let Some(id) = card {
            self.waiting_cards.push((self.records.len(), id));
        }
    }

    /// Begins to write what waits, `most` entries of it. False if there is
    /// nothing, or something is being written.
    pub(crate) fn begin_write(&mut self, most: usize) -> bool {
        let waiting = self.records.len() - self.durable;
        if self.writing.is_some() || waiting == 0 || self.room.is_used_up() {
            return false;
        }
        self.writing = Some(self.durable + waiting.min(most.max(1)));
        true
    }

    /// What waits to be written, in bytes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        let waiting = self.records.get(self.durable..).unwrap_or_default();
        waiting.iter().map(|record| record.bytes).sum()
    }

    /// Has a card destroyed, by and by.
    pub(crate) fn erase(&mut self, id: PaymentId) {
        self.erasures.insert(id);
    }

    /// There is time to destroy cards.
    pub(crate) fn erase_now(&mut self) {
        for id in core::mem::take(&mut self.erasures) {
            self.cards.remove(&id);
        }
    }

    /// The write under way has been flushed. The newest durable sequence.
    pub(crate) fn flushed(&mut self) -> usize {
        if let Some(end) = self.writing.take() {
            let group = self.records.get(self.durable..end).unwrap_or_default();
            let bytes = group.iter().map(|record| record.bytes).sum();
            let cards = self.waiting_cards.iter().filter(|(at, _)| *at <= end);
            self.room.write(bytes, cards.count());
            self.durable = end;
            self.put_cards(end, usize::MAX);
        }
        self.durable
    }

    /// The first `most` cards of the entries up to `end` are on disk.
    fn put_cards(&mut self, end: usize, most: usize) {
        let waiting = core::mem::take(&mut self.waiting_cards);
        let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(sequence, _)| *sequence <= end);
        self.waiting_cards = later;
        for (_, id) in now.into_iter().take(most) {
            // Whatever lay there before is replaced, and so destroyed.
            self.erasures.remove(&id);
            self.cards.insert(id);
        }
    }

    /// The power fails, or the process is killed. Bytes of an unfinished
    /// write that were cut off.
    pub(crate) fn crash(&mut self, damage: Damage) -> u64 {
        if damage.keeps_last_write {
            self.flushed();
        }
        let mut torn = 0;
        if let Some(end) = self.writing.take() {
            let group = self.records.get(self.durable..end).unwrap_or_default();
            let bytes: usize = group.iter().map(|record| record.bytes).sum();
            torn = share(bytes, damage.torn);
            // The journal is not touched before all cards are on disk.
            let all = self
                .waiting_cards
                .iter()
                .filter(|(sequence, _)| *sequence <= end)
                .count();
            let kept = if torn > 0 {
                all
            } else {
                share(all, damage.kept_cards)
            };
            self.put_cards(end, kept);
        }
        self.records.truncate(self.durable);
        self.waiting_cards.clear();
        self.erasures.clear();
        self.index.crash(damage);
        u64::try_from(torn).unwrap_or_default()
    }

    /// The record with this sequence, if it is on disk.
    pub(crate) fn read(&self, sequence: u64) -> Option<&Record> {
        let place = usize::try_from(sequence.checked_sub(1)?).ok()?;
        (place < self.durable).then(|| self.records.get(place)).flatten()
    }
}

fn share(of: usize, thousandths: u64) -> usize {
    usize::try_from(thousandths).map_or(of, |parts| of * parts / 1_000)
}

/// Changes of the index, and the entry up to which they hold.
pub(crate) type Batch = (Vec<(Vec<u8>, Option<Vec<u8>>)>, u64);

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Waiting until their entries are on disk.
    pub(crate) waiting: Vec<Batch>,
    written: Vec<Batch>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Index {
    /// Writes the waiting batches whose entries are on disk. The entry up to
    /// which the index holds now.
    pub(crate) fn write(&mut self, durable: usize) -> u64 {
        let ready = self
            .waiting
            .iter()
            .take_while(|(_, head)| usize::try_from(*head).is_ok_and(|head| head <= durable))
            .count();
        for batch in self.waiting.drain(..ready) {
            merge(&mut self.values, &batch);
            self.written.push(batch);
        }
        self.head()
    }

    pub(crate) fn head(&self) -> u64 {
        self.written.last().map_or(0, |(_, head)| *head)
    }

    pub(crate) fn batches(&self) -> usize {
        self.written.len()
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.values.get(key)
    }

    pub(crate) fn values(&self) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.values
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn crash(&mut self, damage: Damage) {
        self.waiting.clear();
        if damage.loses_index {
            self.clear();
            return;
        }
        let left = self.written.len().saturating_sub(damage.lost_batches);
        if left < self.written.len() {
            self.written.truncate(left);
            self.values.clear();
            for batch in &self.written {
                merge(&mut self.values, batch);
            }
        }
    }
}

fn merge(values: &mut BTreeMap<Vec<u8>, Vec<u8>>, batch: &Batch) {
    for (key, value) in &batch.0 {
        match value {
            Some(value) => values.insert(key.clone(), value.clone()),
            None => values.remove(key),
        };
    }
}
