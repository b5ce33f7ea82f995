//! The window: which part of the queue is in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hub_protocol::{DeviceId, PaymentId};

use super::{Item, MOST_PARKED, Queue};
use crate::policy::replay::ReplayRules;
use crate::settings::Settings;
use crate::state::{CardKey, Lane, Place, State};

/// The most items that one load asks for: what it takes to read them is what
/// a customer may have to wait.
const LOAD_AT_ONCE: usize = 16;

/// What waits of one device.
#[derive(Debug, Default)]
pub(super) struct DeviceLane {
    /// In the window.
    pub(super) items: BTreeSet<u64>,
    /// Everything that waits at or before this place is in the window.
    pub(super) through: u64,
    /// Not in the window, but the payment is in memory.
    pub(super) spilled: BTreeMap<u64, PaymentId>,
    /// All that waits, in memory or not.
    pub(super) waiting: usize,
    /// The index had less than it should; not asked again before it has more.
    pub(super) index_lacks: bool,
}

impl DeviceLane {
    /// How many of the waiting ones are not in the window.
    pub(super) fn outside(&self) -> usize {
        self.waiting.saturating_sub(self.items.len())
    }

    /// How many of the waiting ones only the index has.
    fn in_index(&self) -> usize {
        self.outside().saturating_sub(self.spilled.len())
    }

    /// The first that waits; `None` if only the index could tell.
    pub(super) fn front(&self) -> Option<u64> {
        let in_window = self.items.first();
        let beside = self.spilled.keys().next().filter(|_| self.in_index() == 0);
        in_window.into_iter().chain(beside).min().copied()
    }

    pub(super) fn wants_more(&self, share: usize) -> bool {
        self.outside() > 0 && self.items.len() * 2 <= share && !self.index_lacks
    }
}

/// Who of a card goes first, by the card's record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum FirstOfCard {
    /// Nobody waits.
    #[default]
    Nobody,
    /// This place.
    Place(u64),
    /// One of this many, of which the record names none.
    OneOf(u32),
}

/// What is to be loaded from the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) lane: Lane,
    pub(crate) after: u64,
    pub(crate) limit: usize,
}

impl Queue {
    /// The queue of a state that was just opened.
    ///
    /// `torn_bytes`: how much of an unfinished write was cut off the ledger.
    pub(crate) fn restored(state: &State, settings: &Settings, torn_bytes: u64) -> Self {
        // What is no longer there may have said that the gateway was back.
        let unsent_since = state.store().unsent_since;
        let unsent_since = unsent_since.filter(|_| torn_bytes == 0 && !settings.away);
        let mut queue = Self {
            items: BTreeMap::new(),
            parked: BTreeMap::new(),
            by_payment: HashMap::new(),
            cards: HashMap::new(),
            devices: HashMap::new(),
            eligible: BTreeSet::new(),
            unclear: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            wait_elsewhere: BTreeMap::new(),
            paused_until_ms: 0,
            finals: 0,
            forced: BTreeSet::new(),
            forced_through: 0,
            untried_after: unsent_since.unwrap_or(state.head().sequence),
            worth_sending: ReplayRules::default(),
            share: 0,
            hungry: BTreeSet::new(),
            loading: None,
            parked_through: 0,
            parked_dropped: false,
            parked_hungry: false,
            index_lacks_parked: false,
            total: state.store().queue.all(),
            total_parked: state.store().queue.parked,
        };
        queue.share_out(state, settings);
        queue.follow_policy(state);
        for (id, payment) in state.payments() {
            match payment.place(*id) {
                Some(Place::Waiting(device, sequence)) => queue.spill(device, sequence, *id),
                Some(Place::Parked(sequence)) => {
                    let item = queue.item(*id, payment);
                    queue.park(sequence, item);
                }
                Some(Place::Held(_)) | None => {}
            }
        }
        let devices: Vec<DeviceId> = state.devices().map(|d| d.registration.device).collect();
        for device in devices {
            queue.sync_device(device, state);
        }
        queue.parked_hungry = (queue.parked.len() as u64) < queue.total_parked;
        queue
    }

    /// Shares the window out among the devices.
    pub(crate) fn share_out(&mut self, state: &State, settings: &Settings) {
        self.share = (settings.queue_window / state.devices().count().max(1)).max(2);
    }

    pub(super) fn sync_device(&mut self, device: DeviceId, state: &State) {
        let waiting = state.device(&device).map_or(0, |record| record.waiting as usize);
        if waiting == 0 && !self.devices.contains_key(&device) {
            return;
        }
        let lane = self.devices.entry(device).or_default();
        lane.waiting = waiting;
        if lane.wants_more(self.share) {
            self.hungry.insert(device);
        }
    }

    pub(super) fn sync_card(&mut self, card: CardKey, state: &State) {
        if let Some(lane) = self.cards.get_mut(&card) {
            lane.first = match state.card_record(&card) {
                None => FirstOfCard::Nobody,
                Some(record) => match record.waiting.first() {
                    Some(place) => FirstOfCard::Place(*place),
                    None if record.beyond > 0 => FirstOfCard::OneOf(record.beyond),
                    None => FirstOfCard::Nobody,
                },
            };
        }
    }

    /// Whether this item goes first of its card; `None` if nobody can tell
    /// yet.
    pub(super) fn is_first_of_card(&self, card: CardKey, sequence: u64) -> Option<bool> {
        let lane = self.cards.get(&card)?;
        match lane.first {
            FirstOfCard::Nobody => Some(true),
            FirstOfCard::Place(place) => Some(place == sequence),
            FirstOfCard::OneOf(_) if lane.items.first() != Some(&sequence) => Some(false),
            FirstOfCard::OneOf(all) => {
                let all_seen = lane.items.len() == all as usize;
                (all_seen || sequence <= self.seen_through()).then_some(true)
            }
        }
    }

    /// Everything that waits at or before this place is in the window.
    fn seen_through(&self) -> u64 {
        self.devices
            .values()
            .filter(|lane| lane.outside() > 0)
            .map(|lane| lane.through)
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Whether a payment at this place belongs into the window. The lane
    /// counts it already.
    pub(super) fn fits(&self, device: DeviceId, sequence: u64) -> bool {
        let Some(lane) = self.devices.get(&device) else {
            return false;
        };
        sequence <= lane.through || (lane.outside() <= 1 && lane.items.len() < self.share)
    }

    pub(super) fn spill(&mut self, device: DeviceId, sequence: u64, id: PaymentId) {
        self.devices
            .entry(device)
            .or_default()
            .spilled
            .insert(sequence, id);
    }

    pub(super) fn unspill(&mut self, device: DeviceId, sequence: u64) {
        if let Some(lane) = self.devices.get_mut(&device) {
            lane.spilled.remove(&sequence);
        }
    }

    /// Keeps a parked item in memory, if there is room.
    pub(super) fn park(&mut self, sequence: u64, item: Item) {
        self.by_payment.insert(item.payment_id, sequence);
        self.parked.insert(sequence, item);
        while self.parked.len() > MOST_PARKED {
            if let Some((dropped, item)) = self.parked.pop_last() {
                self.by_payment.remove(&item.payment_id);
                self.parked_dropped = true;
                self.parked_through = self.parked_through.min(dropped.saturating_sub(1));
            }
        }
    }

    /// Whether the queue holds this payment's item in memory.
    pub(crate) fn holds(&self, id: &PaymentId) -> bool {
        self.by_payment.contains_key(id)
    }

    /// A payment has left the memory; the index has it.
    pub(crate) fn evicted(&mut self, place: Place) {
        if let Place::Waiting(device, sequence) = place {
            self.unspill(device, sequence);
        }
    }

    /// The index has more than before.
    pub(crate) fn index_grew(&mut self) {
        if core::mem::take(&mut self.index_lacks_parked) {
            self.parked_through = 0;
        }
        for (device, lane) in &mut self.devices {
            if core::mem::take(&mut lane.index_lacks) && lane.wants_more(self.share) {
                self.hungry.insert(*device);
            }
        }
    }

    /// Whether a device has something waiting and nothing in the window yet:
    /// who goes next is known in a moment.
    pub(crate) fn lacks_a_head(&self) -> bool {
        let loading = match self.loading {
            Some(Lane::Device(device)) => Some(device),
            _ => None,
        };
        let mut awaited = self.hungry.iter().copied().chain(loading);
        awaited.any(|device| {
            self.devices
                .get(&device)
                .is_some_and(|lane| lane.items.is_empty() && lane.outside() > 0)
        })
    }

    /// Fills the window with what is in memory already, and says what is to
    /// be loaded from the index. One load at a time.
    pub(crate) fn fill(&mut self, state: &State) -> Option<Load> {
        let load = self.fill_lanes(state);
        // More has been seen, maybe enough to tell.
        for sequence in self.unclear.clone() {
            self.refresh_item(sequence);
        }
        load
    }

    fn fill_lanes(&mut self, state: &State) -> Option<Load> {
        while let Some(device) = self.hungry.first().copied() {
            let Some(lane) = self.devices.get(&device) else {
                self.hungry.remove(&device);
                continue;
            };
            if !lane.wants_more(self.share) {
                self.hungry.remove(&device);
            } else if lane.in_index() == 0 {
                self.admit_spilled(device, u64::MAX, state);
            } else if self.loading.is_none() {
                let (lane, after) = (Lane::Device(device), lane.through);
                self.loading = Some(lane);
                self.hungry.remove(&device);
                return Some(Load {
                    lane,
                    after,
                    limit: LOAD_AT_ONCE.min(self.share),
                });
            } else {
                break;
            }
        }
        let none_here = self.parked.is_empty() && self.total_parked > 0 && !self.index_lacks_parked;
        if (self.parked_hungry || none_here) && self.loading.is_none() {
            self.parked_hungry = false;
            self.loading = Some(Lane::Parked);
            return Some(Load {
                lane: Lane::Parked,
                after: self.parked_through,
                limit: LOAD_AT_ONCE,
            });
        }
        None
    }

    /// Takes spilled payments into the window, oldest first, up to a place.
    fn admit_spilled(&mut self, device: DeviceId, through: u64, state: &State) {
        loop {
            let Some(lane) = self.devices.get(&device) else {
                return;
            };
            let full = through == u64::MAX && lane.items.len() >= self.share;
            let next = lane.spilled.first_key_value().map(|(at, id)| (*at, *id));
            match next {
                Some((sequence, id)) if !full && sequence <= through => {
                    self.admit(device, sequence, id, state);
                }
                _ => return,
            }
        }
    }

    fn admit(&mut self, device: DeviceId, sequence: u64, id: PaymentId, state: &State) {
        self.unspill(device, sequence);
        let Some(payment) = state.payment(&id) else {
            return;
        };
        if payment.place(id) == Some(Place::Waiting(payment.device, sequence))
            && !self.items.contains_key(&sequence)
        {
            let item = self.item(id, payment);
            self.enter(sequence, item);
            self.sync_card(payment.card, state);
            self.refresh(payment.card, payment.device);
        }
    }

    /// What the index had of a lane: places and payments, ascending, all of
    /// which are in memory now. `end` if there is nothing behind them.
    pub(crate) fn loaded(&mut self, lane: Lane, found: &[(u64, PaymentId)], end: bool, state: &State) {
        self.loading = None;
        let last = found.last().map(|(sequence, _)| *sequence);
        match lane {
            Lane::Parked => {
                // Also where none of them is parked any more, which the index
                // may not know yet: the next load goes on behind them.
                self.parked_through = self.parked_through.max(last.unwrap_or(0));
                for (sequence, id) in found {
                    if let Some(payment) = state.payment(id)
                        && payment.place(*id) == Some(Place::Parked(*sequence))
                        && !self.parked.contains_key(sequence)
                    {
                        let item = self.item(*id, payment);
                        self.park(*sequence, item);
                    }
                }
                self.parked_hungry = !end && self.parked.len() < MOST_PARKED;
                self.index_lacks_parked = end && self.parked.is_empty();
            }
            Lane::Device(device) => {
                for (sequence, id) in found {
                    // What changed since stands where its record says.
                    self.admit(device, *sequence, *id, state);
                }
                // In memory, and in the index not yet.
                self.admit_spilled(device, if end { u64::MAX } else { last.unwrap_or(0) }, state);
                let share = self.share;
                if let Some(lane) = self.devices.get_mut(&device) {
                    lane.through = lane.through.max(last.unwrap_or(0));
                    lane.index_lacks = end && lane.in_index() > 0;
                    if lane.wants_more(share) {
                        self.hungry.insert(device);
                    }
                }
            }
        }
    }
}
