//! What waits to be sent to the gateway, and in which order it may go.
//!
//! Each item stands in two lanes, its card's and its device's. It may go only
//! when it is first in both, so order is kept per card and per device while
//! one stuck card or device holds up nobody else. Parked items stand in no
//! lane. All of this is derived from the state; only the retries are extra,
//! and they may be forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hub_protocol::{DeviceId, PaymentId, PaymentState, Submission};

use crate::effect::Operation;
use crate::input::AttemptId;
use crate::state::{CardKey, PaymentRecord, State};

/// One payment or reversal that waits.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) payment_id: PaymentId,
    card: CardKey,
    device: DeviceId,
    /// Attempts since the hub started.
    pub(crate) attempts: u32,
    /// How often it failed while others were answered.
    pub(crate) failed_alone: u32,
    /// How many final answers there had been when it failed last.
    finals_seen: u64,
    /// The gateway wants no attempt before this.
    asked_to_wait_until_ms: u64,
    pub(crate) in_flight: Option<AttemptId>,
    /// Whether the newest attempt asked for a reversal.
    pub(crate) sent_reversal: bool,
    pub(crate) not_before_ms: u64,
    pub(crate) last_error: Option<String>,
    /// Decided by this process, so `attempts` counts all there ever were.
    pub(crate) fresh: bool,
}

/// The queue of the store.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    items: BTreeMap<u64, Item>,
    parked: BTreeMap<u64, Item>,
    by_payment: HashMap<PaymentId, u64>,
    cards: HashMap<CardKey, BTreeSet<u64>>,
    devices: HashMap<DeviceId, BTreeSet<u64>>,
    /// First in both lanes and not in flight: when they may go, and which.
    eligible: BTreeSet<(u64, u64)>,
    in_flight: BTreeMap<AttemptId, u64>,
    pub(crate) paused_until_ms: u64,
    /// Final answers of the gateway since the start.
    finals: u64,
    /// Somebody asked to send now: go once, whatever the connectivity.
    pub(crate) forced: BTreeSet<u64>,
}

/// What the item of this payment asks of the gateway.
pub(crate) fn operation(payment: &PaymentRecord) -> Operation {
    match payment.state {
        PaymentState::ReversalQueued | PaymentState::ReversalParked => Operation::Reverse,
        _ => match payment
            .decided
            .as_ref()
            .and_then(|decided| decided.record.submission)
        {
            Some(Submission::Advice) => Operation::Advice,
            _ => Operation::AuthoriseDeferred,
        },
    }
}

impl Queue {
    /// The queue of a state that was just opened.
    pub(crate) fn restored(state: &State) -> Self {
        let mut queue = Self::default();
        let mut waiting: Vec<_> = state
            .payments()
            .filter(|(_, p)| p.queue_sequence.is_some())
            .collect();
        waiting.sort_unstable_by_key(|(_, payment)| payment.queue_sequence);
        for (id, payment) in waiting {
            queue.insert(*id, payment, false);
        }
        queue
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len() + self.parked.len()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// All items, oldest first, with whether they are parked.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Item, bool)> {
        let waiting = self.items.values().map(|item| (item, false));
        waiting.chain(self.parked.values().map(|item| (item, true)))
    }

    pub(crate) fn get(&self, id: &PaymentId) -> Option<&Item> {
        let sequence = self.by_payment.get(id)?;
        self.items.get(sequence).or_else(|| self.parked.get(sequence))
    }

    /// Puts a payment in its place, or takes note that its state changed.
    pub(crate) fn insert(&mut self, id: PaymentId, payment: &PaymentRecord, fresh: bool) {
        let Some(sequence) = payment.queue_sequence else {
            return;
        };
        let known = self.parked.remove(&sequence).or_else(|| self.take_out(sequence));
        let item = known.unwrap_or(Item {
            payment_id: id,
            card: payment.card,
            device: payment.device,
            attempts: 0,
            failed_alone: 0,
            finals_seen: self.finals,
            asked_to_wait_until_ms: 0,
            in_flight: None,
            sent_reversal: false,
            not_before_ms: 0,
            last_error: None,
            fresh,
        });
        self.by_payment.insert(id, sequence);
        if payment.parked.is_some() {
            self.forced.remove(&sequence);
            self.parked.insert(sequence, item);
            return;
        }
        self.cards.entry(item.card).or_default().insert(sequence);
        self.devices.entry(item.device).or_default().insert(sequence);
        let (card, device) = (item.card, item.device);
        self.items.insert(sequence, item);
        self.refresh_lanes(card, device);
    }

    /// Takes a payment off the queue.
    pub(crate) fn remove(&mut self, id: &PaymentId) {
        if let Some(sequence) = self.by_payment.remove(id) {
            self.parked.remove(&sequence);
            self.take_out(sequence);
            self.forced.remove(&sequence);
        }
    }

    fn take_out(&mut self, sequence: u64) -> Option<Item> {
        let item = self.items.remove(&sequence)?;
        self.eligible.remove(&(item.not_before_ms, sequence));
        remove_from_lane(&mut self.cards, item.card, sequence);
        remove_from_lane(&mut self.devices, item.device, sequence);
        self.refresh_lanes(item.card, item.device);
        Some(item)
    }

    /// Whoever is first in both lanes now may go.
    fn refresh_lanes(&mut self, card: CardKey, device: DeviceId) {
        let heads = [
            self.cards.get(&card).and_then(|lane| lane.first()),
            self.devices.get(&device).and_then(|lane| lane.first()),
        ];
        for sequence in heads.into_iter().flatten().copied() {
            if let Some(item) = self.items.get(&sequence)
                && item.in_flight.is_none()
                && first(&self.cards, item.card) == Some(sequence)
                && first(&self.devices, item.device) == Some(sequence)
            {
                self.eligible.insert((item.not_before_ms, sequence));
            }
        }
        // An item that came in before others of its lane (a payment put back
        // into the queue) takes their turn.
        let no_longer_first = |queue: &Self, lane: Option<&BTreeSet<u64>>| {
            lane.and_then(|lane| lane.iter().nth(1))
                .and_then(|s| Some((queue.items.get(s)?.not_before_ms, *s)))
        };
        let seconds = [
            no_longer_first(self, self.cards.get(&card)),
            no_longer_first(self, self.devices.get(&device)),
        ];
        for key in seconds.into_iter().flatten() {
            self.eligible.remove(&key);
        }
    }

    /// The payment of an item.
    pub(crate) fn payment_at(&self, sequence: u64) -> Option<PaymentId> {
        self.items.get(&sequence).map(|item| item.payment_id)
    }

    /// The next item that may go now. `on_disk` says of a payment whether
    /// everything decided about it is.
    pub(crate) fn next(
        &self,
        now_ms: u64,
        only_forced: bool,
        on_disk: impl Fn(&PaymentId) -> bool,
    ) -> Option<u64> {
        self.eligible
            .range(..=(now_ms, u64::MAX))
            .map(|(_, sequence)| *sequence)
            .filter(|sequence| !only_forced || self.forced.contains(sequence))
            .find(|sequence| {
                self.items
                    .get(sequence)
                    .is_some_and(|item| on_disk(&item.payment_id))
            })
    }

    /// Marks an item as being sent.
    pub(crate) fn take_off(&mut self, sequence: u64, attempt: AttemptId, reversal: bool) -> Option<&Item> {
        let item = self.items.get_mut(&sequence)?;
        self.eligible.remove(&(item.not_before_ms, sequence));
        self.forced.remove(&sequence);
        item.in_flight = Some(attempt);
        item.sent_reversal = reversal;
        item.attempts = item.attempts.saturating_add(1);
        self.in_flight.insert(attempt, sequence);
        Some(item)
    }

    /// An attempt that was made for a waiting customer becomes the item's.
    pub(crate) fn adopt(&mut self, id: PaymentId, attempt: AttemptId, state: &State) {
        if let Some(sequence) = state.payment(&id).and_then(|payment| payment.queue_sequence) {
            self.take_off(sequence, attempt, false);
        }
    }

    /// An attempt has ended: the payment it was for, if it still waits.
    pub(crate) fn landed(&mut self, attempt: AttemptId) -> Option<PaymentId> {
        let sequence = self.in_flight.remove(&attempt)?;
        let item = self
            .items
            .get_mut(&sequence)
            .or_else(|| self.parked.get_mut(&sequence))?;
        item.in_flight = None;
        Some(item.payment_id)
    }

    /// Sets when an item may go again, and why it did not. The gateway may
    /// have asked to wait `at_least_until_ms`.
    pub(crate) fn try_again(
        &mut self,
        id: &PaymentId,
        not_before_ms: u64,
        at_least_until_ms: u64,
        error: Option<String>,
    ) {
        let Some(sequence) = self.by_payment.get(id).copied() else {
            return;
        };
        let Some(item) = self.items.get_mut(&sequence) else {
            return;
        };
        self.eligible.remove(&(item.not_before_ms, sequence));
        item.not_before_ms = not_before_ms.max(at_least_until_ms);
        item.asked_to_wait_until_ms = at_least_until_ms;
        item.last_error = error;
        let (card, device) = (item.card, item.device);
        self.refresh_lanes(card, device);
    }

    /// The gateway gave a final answer to some payment.
    pub(crate) fn note_final(&mut self) {
        self.finals += 1;
    }

    /// An item failed. It counts against the item only if others have been
    /// answered since it failed last: a gateway that is out of order for all
    /// is nobody's fault. Returns how often that was.
    pub(crate) fn note_failure(&mut self, id: &PaymentId) -> u32 {
        let finals = self.finals;
        let item = self
            .by_payment
            .get(id)
            .and_then(|sequence| self.items.get_mut(sequence));
        item.map_or(0, |item| {
            if finals > item.finals_seen {
                item.finals_seen = finals;
                item.failed_alone = item.failed_alone.saturating_add(1);
            }
            item.failed_alone
        })
    }

    /// Forgets earlier failures of an item that was put back by hand.
    pub(crate) fn start_over(&mut self, id: &PaymentId) {
        self.try_again(id, 0, 0, None);
        if let Some(item) = self
            .by_payment
            .get(id)
            .and_then(|sequence| self.items.get_mut(sequence))
        {
            item.failed_alone = 0;
        }
    }

    pub(crate) fn note_error(&mut self, id: &PaymentId, error: String) {
        if let Some(sequence) = self.by_payment.get(id)
            && let Some(item) = self
                .items
                .get_mut(sequence)
                .or_else(|| self.parked.get_mut(sequence))
        {
            item.last_error = Some(error);
        }
    }

    /// The gateway answers again: waiting out old failures makes no sense.
    /// What the gateway itself asked for still holds.
    pub(crate) fn gateway_is_back(&mut self, now_ms: u64) {
        let waiting: Vec<u64> = self
            .eligible
            .range((now_ms + 1, 0)..)
            .map(|(_, sequence)| *sequence)
            .collect();
        for sequence in waiting {
            if let Some(item) = self.items.get_mut(&sequence) {
                let (id, until) = (item.payment_id, item.asked_to_wait_until_ms);
                let error = item.last_error.take();
                self.try_again(&id, now_ms, until, error);
            }
        }
    }

    /// Somebody wants everything sent now.
    pub(crate) fn force(&mut self, now_ms: u64) {
        self.gateway_is_back(now_ms);
        self.forced = self.items.keys().copied().collect();
    }

    /// When the next item may go, if that is still to come.
    pub(crate) fn next_wake_ms(&self, now_ms: u64) -> Option<u64> {
        if self.paused_until_ms > now_ms && !self.eligible.is_empty() {
            return Some(self.paused_until_ms);
        }
        self.eligible
            .range((now_ms + 1, 0)..)
            .next()
            .map(|(when, _)| *when)
    }
}

fn first<K: std::hash::Hash + Eq>(lanes: &HashMap<K, BTreeSet<u64>>, key: K) -> Option<u64> {
    lanes.get(&key)?.first().copied()
}

fn remove_from_lane<K: std::hash::Hash + Eq>(lanes: &mut HashMap<K, BTreeSet<u64>>, key: K, sequence: u64) {
    if let Some(lane) = lanes.get_mut(&key) {
        lane.remove(&sequence);
        if lane.is_empty() {
            lanes.remove(&key);
        }
    }
}
