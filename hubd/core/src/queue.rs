//! What waits to be sent to the gateway, and in which order it may go.
//!
//! Each item stands in two lanes, its card's and its device's. It may go only
//! when it is first in both, so order is kept per card and per device while
//! one stuck card or device holds up nobody else. Of those that may go, the
//! one goes first whose approval expires first, and of those the largest.
//! Parked items stand in no lane.
//!
//! Memory holds a window of the queue; the rest is in the index. What always
//! holds, so that nothing depends on how large the window is:
//!
//! 1. **The window is the front of each device's lane.** Everything of a
//!    device that waits at or before [`DeviceLane::through`] is in the window,
//!    whatever lies behind it need not be. So whoever is first of a device in
//!    the window is first of the device.
//! 2. **A device has its own share of the window.** One that is stuck fills
//!    its own and no other's.
//! 3. **Who is first of a card, the card's record says:** it names the lowest
//!    places that wait, in the window or not, on any device. Beyond the
//!    [`MOST_PLACES`](crate::state::MOST_PLACES) that it names, an item goes
//!    only when everything before it has been seen.
//! 4. **The lowest place of all may always go.** It is first of its device and
//!    of its card; so the queue never locks up.
//! 5. **The queue follows the fold.** [`Queue::follow`] is called after every
//!    entry about a payment and derives everything from its record; only the
//!    retries are extra, and they may be forgotten.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use hub_protocol::{DeviceId, PaymentId, PaymentState, Submission};

use crate::effect::Operation;
use crate::input::AttemptId;
use crate::policy::replay::ReplayRules;
use crate::state::{CardKey, Lane, PaymentRecord, Place, State};

mod undecided;
mod window;

use undecided::Undecided;
pub(crate) use window::Load;
use window::{DeviceLane, FirstOfCard};

/// The most parked items in memory.
pub(crate) const MOST_PARKED: usize = 1_000;

/// One hour. Approvals that expire within the same one are sent by amount.
const EXPIRY_STEP_MS: u64 = 60 * 60 * 1000;

/// The most payments outside of the window whose waiting is kept in mind. One
/// beyond may be asked for again too early, under the same id.
const MOST_WAIT_ELSEWHERE: usize = 1_000;

/// One payment or reversal that waits.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) payment_id: PaymentId,
    card: CardKey,
    device: DeviceId,
    /// The hour in which the approval expires, and the amount.
    urgency: (u64, Reverse<u64>),
    /// Attempts since the hub started.
    pub(crate) attempts: u32,
    /// How often it failed while others were answered.
    pub(crate) failed_alone: u32,
    /// How many final answers there had been when it failed last.
    finals_seen: u64,
    /// The gateway wants no attempt before this.
    asked_to_wait_until_ms: u64,
    /// Whether the gateway has it and does not know yet.
    undecided: Option<Undecided>,
    pub(crate) in_flight: Option<AttemptId>,
    /// Whether the newest attempt asked for a reversal.
    pub(crate) sent_reversal: bool,
    /// How many of the attempts asked for one.
    pub(crate) reversals: u32,
    pub(crate) not_before_ms: u64,
    pub(crate) last_error: Option<String>,
}

/// The items in memory that wait for the gateway on behalf of one card.
#[derive(Debug)]
struct CardLane {
    items: BTreeSet<u64>,
    first: FirstOfCard,
}

/// The queue of the store.
#[derive(Debug)]
pub(crate) struct Queue {
    items: BTreeMap<u64, Item>,
    parked: BTreeMap<u64, Item>,
    by_payment: HashMap<PaymentId, u64>,
    cards: HashMap<CardKey, CardLane>,
    devices: HashMap<DeviceId, DeviceLane>,
    /// First in both lanes and not in flight: when they may go, and which.
    eligible: BTreeSet<(u64, u64)>,
    /// First of their device, while nobody knows whether of their card.
    unclear: BTreeSet<u64>,
    in_flight: BTreeMap<AttemptId, u64>,
    /// Attempts under way, made for customers, whose payments wait outside of
    /// the window.
    elsewhere: BTreeMap<AttemptId, PaymentId>,
    /// Payments outside of the window that the gateway asked to wait, and
    /// until when on the monotonic clock.
    wait_elsewhere: BTreeMap<PaymentId, u64>,
    pub(crate) paused_until_ms: u64,
    /// Final answers of the gateway since the start.
    finals: u64,
    /// Somebody asked to send now: go once, whatever the connectivity.
    pub(crate) forced: BTreeSet<u64>,
    /// The same of what was not in memory then.
    forced_through: u64,
    /// What was queued after this entry has been tried by no earlier process:
    /// the newest entry when the hub started, or the one since which the
    /// gateway had been gone by then.
    untried_after: u64,
    /// How long an approval is worth sending, by the policy.
    worth_sending: ReplayRules,
    /// Each device's share of the window.
    share: usize,
    /// Devices of which more should be loaded.
    hungry: BTreeSet<DeviceId>,
    loading: Option<Lane>,
    /// Up to where the index was asked for parked items.
    parked_through: u64,
    /// Whether a parked item, and what was tried of it, was ever dropped.
    parked_dropped: bool,
    parked_hungry: bool,
    /// The index had none that is parked; not asked again before it has more.
    index_lacks_parked: bool,
    /// All that waits or is parked, in memory or not.
    total: u64,
    total_parked: u64,
}

/// What has waited longest to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Oldest<'a> {
    /// Nothing waits.
    Nothing,
    /// This payment, or its reversal.
    Payment(&'a PaymentId),
    /// The index has not told yet.
    Unknown,
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

/// When the approval expires, and how large it is. The order of what may go,
/// and no more: what has expired is sent too.
fn urgency(rules: &ReplayRules, payment: &PaymentRecord) -> (u64, Reverse<u64>) {
    let decided_ms = payment.decided.as_ref().map_or(0, |decided| decided.time.wall_ms);
    let expires_ms = decided_ms.saturating_add(rules.worth_sending_ms(payment.scheme));
    (expires_ms / EXPIRY_STEP_MS, Reverse(payment.amount_minor))
}

impl Queue {
    /// All that waits or is parked, in memory or not.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.total).unwrap_or(usize::MAX)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.len() + self.elsewhere.len()
    }

    /// All items in memory, oldest first, with whether they are parked.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Item, bool)> {
        let waiting = self.items.values().map(|item| (item, false));
        waiting.chain(self.parked.values().map(|item| (item, true)))
    }

    /// The first of all that waits and is not parked.
    pub(crate) fn oldest(&self) -> Oldest<'_> {
        let mut first: Option<u64> = None;
        for lane in self.devices.values().filter(|lane| lane.waiting > 0) {
            let Some(front) = lane.front() else {
                return Oldest::Unknown;
            };
            first = Some(first.map_or(front, |first| first.min(front)));
        }
        let Some(sequence) = first else {
            return Oldest::Nothing;
        };
        let spilled = || self.devices.values().find_map(|lane| lane.spilled.get(&sequence));
        let in_window = self.items.get(&sequence).map(|item| &item.payment_id);
        in_window
            .or_else(spilled)
            .map_or(Oldest::Unknown, Oldest::Payment)
    }

    pub(crate) fn get(&self, id: &PaymentId) -> Option<&Item> {
        let sequence = self.by_payment.get(id)?;
        self.items.get(sequence).or_else(|| self.parked.get(sequence))
    }

    /// Nothing goes any more only because somebody asked for it.
    pub(crate) fn unforce(&mut self) {
        self.forced.clear();
        self.forced_through = 0;
    }

    /// Whether an attempt at this payment is under way.
    pub(crate) fn under_way(&self, id: &PaymentId) -> bool {
        self.get(id).is_some_and(|item| item.in_flight.is_some())
            || self.elsewhere.values().any(|other| other == id)
    }

    /// Whether no reversal of this payment, for which one waits, was ever asked
    /// for.
    pub(crate) fn never_reversed(&self, id: &PaymentId, payment: &PaymentRecord) -> bool {
        payment.latest > self.untried_after
            && payment.parked_at.is_none()
            && self.get(id).is_none_or(|item| item.reversals == 0)
    }

    /// Whether no attempt at this payment, which waits, was ever made out of
    /// the queue. What is not in the window is not being tried.
    pub(crate) fn never_tried(&self, id: &PaymentId, payment: &PaymentRecord) -> bool {
        payment.parked_at.is_none() && self.never_sent(id, payment)
    }

    /// The same of one that may have been parked by a person before anything
    /// else had come of it.
    pub(crate) fn never_sent(&self, id: &PaymentId, payment: &PaymentRecord) -> bool {
        let decided_at = payment.decided.as_ref().map(|decided| decided.sequence);
        let decided_since = decided_at.is_some_and(|at| at > self.untried_after);
        let remembered = payment.parked_at.is_none() || !self.parked_dropped;
        decided_since
            && remembered
            && payment.queue_sequence == decided_at
            && self.get(id).is_none_or(|item| item.attempts == 0)
    }

    /// An entry about a payment was folded, which stood at `before`: the queue
    /// follows.
    pub(crate) fn follow(&mut self, id: PaymentId, before: Option<Place>, state: &State) {
        let Some(payment) = state.payment(&id) else {
            return;
        };
        self.total = state.store().queue.all();
        self.total_parked = state.store().queue.parked;
        self.sync_device(payment.device, state);
        let place = payment.place(id);
        if let Some(Place::Waiting(device, sequence)) = before.filter(|_| before != place) {
            self.unspill(device, sequence);
        }
        match place {
            Some(Place::Waiting(_, sequence)) => {
                self.forget_other_place(id, sequence);
                let parked = self.parked.remove(&sequence);
                if self.items.contains_key(&sequence) {
                    // Its state changed, not its place.
                } else if self.fits(payment.device, sequence) {
                    let item = parked.unwrap_or_else(|| self.item(id, payment));
                    self.enter(sequence, item);
                } else {
                    self.by_payment.remove(&id);
                    self.spill(payment.device, sequence, id);
                }
            }
            Some(Place::Parked(sequence)) => {
                let item = self.take_out(sequence);
                self.forced.remove(&sequence);
                let item = item.unwrap_or_else(|| self.item(id, payment));
                self.park(sequence, item);
            }
            Some(Place::Held(_)) | None => {
                if let Some(sequence) = self.by_payment.remove(&id) {
                    self.parked.remove(&sequence);
                    self.take_out(sequence);
                    self.forced.remove(&sequence);
                }
            }
        }
        self.sync_card(payment.card, state);
        self.refresh(payment.card, payment.device);
    }

    /// A policy has come into force: what waits in memory is put in its order.
    pub(crate) fn follow_policy(&mut self, state: &State) {
        self.worth_sending = state
            .policy()
            .map_or_else(ReplayRules::default, |policy| policy.replay.clone());
        let rules = &self.worth_sending;
        for item in self.items.values_mut().chain(self.parked.values_mut()) {
            if let Some(payment) = state.payment(&item.payment_id) {
                item.urgency = urgency(rules, payment);
            }
        }
    }

    fn item(&self, id: PaymentId, payment: &PaymentRecord) -> Item {
        Item {
            payment_id: id,
            card: payment.card,
            device: payment.device,
            urgency: urgency(&self.worth_sending, payment),
            attempts: 0,
            failed_alone: 0,
            finals_seen: self.finals,
            asked_to_wait_until_ms: 0,
            undecided: None,
            in_flight: None,
            sent_reversal: false,
            reversals: 0,
            not_before_ms: 0,
            last_error: None,
        }
    }

    /// A payment that was put into the queue anew leaves its old place.
    fn forget_other_place(&mut self, id: PaymentId, sequence: u64) {
        if let Some(before) = self.by_payment.get(&id).copied()
            && before != sequence
        {
            self.by_payment.remove(&id);
            self.parked.remove(&before);
            self.take_out(before);
            self.forced.remove(&before);
        }
    }

    /// Puts an item into the lanes. The lanes' heads are refreshed after it.
    fn enter(&mut self, sequence: u64, mut item: Item) {
        let under_way = self.elsewhere.iter().find(|(_, id)| **id == item.payment_id);
        if let Some(attempt) = under_way.map(|(attempt, _)| *attempt) {
            self.elsewhere.remove(&attempt);
            self.in_flight.insert(attempt, sequence);
            item.in_flight = Some(attempt);
            item.attempts = item.attempts.saturating_add(1);
        }
        if let Some(until_ms) = self.wait_elsewhere.remove(&item.payment_id) {
            item.not_before_ms = item.not_before_ms.max(until_ms);
            item.asked_to_wait_until_ms = until_ms;
        }
        self.unspill(item.device, sequence);
        self.by_payment.insert(item.payment_id, sequence);
        if sequence <= self.forced_through && item.attempts == 0 {
            self.forced.insert(sequence);
        }
        let lane = self.devices.entry(item.device).or_default();
        lane.items.insert(sequence);
        lane.through = lane.through.max(sequence);
        let unknown = || CardLane {
            items: BTreeSet::new(),
            first: FirstOfCard::default(),
        };
        let card = self.cards.entry(item.card).or_insert_with(unknown);
        card.items.insert(sequence);
        self.items.insert(sequence, item);
    }

    fn take_out(&mut self, sequence: u64) -> Option<Item> {
        let item = self.items.remove(&sequence)?;
        self.eligible.remove(&(item.not_before_ms, sequence));
        self.unclear.remove(&sequence);
        if let Some(lane) = self.cards.get_mut(&item.card) {
            lane.items.remove(&sequence);
            if lane.items.is_empty() {
                self.cards.remove(&item.card);
            }
        }
        if let Some(lane) = self.devices.get_mut(&item.device) {
            lane.items.remove(&sequence);
            if lane.wants_more(self.share) {
                self.hungry.insert(item.device);
            }
        }
        Some(item)
    }

    /// Whoever is first in both lanes now may go; whoever no longer is, may
    /// not (a payment that was put back into the queue takes its turn).
    fn refresh(&mut self, card: CardKey, device: DeviceId) {
        let of_card = self
            .cards
            .get(&card)
            .into_iter()
            .flat_map(|lane| lane.items.iter().take(2));
        let of_device = self
            .devices
            .get(&device)
            .into_iter()
            .flat_map(|lane| lane.items.iter().take(2));
        let heads: Vec<u64> = of_card.chain(of_device).copied().collect();
        for sequence in heads {
            self.refresh_item(sequence);
        }
    }

    fn refresh_item(&mut self, sequence: u64) {
        let Some(item) = self.items.get(&sequence) else {
            return;
        };
        let key = (item.not_before_ms, sequence);
        let first_of_device = self
            .devices
            .get(&item.device)
            .is_some_and(|lane| lane.items.first() == Some(&sequence));
        let first_of_card = if first_of_device {
            self.is_first_of_card(item.card, sequence)
        } else {
            Some(false)
        };
        if first_of_card == Some(true) && item.in_flight.is_none() {
            self.eligible.insert(key);
        } else {
            self.eligible.remove(&key);
        }
        if first_of_card.is_none() {
            self.unclear.insert(sequence);
        } else {
            self.unclear.remove(&sequence);
        }
    }

    /// The payment of an item.
    pub(crate) fn payment_at(&self, sequence: u64) -> Option<PaymentId> {
        self.items.get(&sequence).map(|item| item.payment_id)
    }

    /// The next item that may go now: of those whose time has come, the one
    /// whose approval expires first, of these the largest, of these the
    /// oldest. `on_disk` says of a payment whether everything decided about
    /// it is.
    pub(crate) fn next(
        &self,
        now_ms: u64,
        only_forced: bool,
        on_disk: impl Fn(&PaymentId) -> bool,
    ) -> Option<u64> {
        // There are no more of these than devices.
        self.eligible
            .range(..=(now_ms, u64::MAX))
            .map(|(_, sequence)| *sequence)
            .filter(|sequence| !only_forced || self.forced.contains(sequence))
            .filter_map(|sequence| Some((sequence, self.items.get(&sequence)?)))
            .filter(|(_, item)| on_disk(&item.payment_id))
            .min_by_key(|(sequence, item)| (item.urgency, *sequence))
            .map(|(sequence, _)| sequence)
    }

    /// Marks an item as being sent.
    pub(crate) fn take_off(&mut self, sequence: u64, attempt: AttemptId, reversal: bool) -> Option<&Item> {
        let item = self.items.get_mut(&sequence)?;
        self.eligible.remove(&(item.not_before_ms, sequence));
        self.forced.remove(&sequence);
        item.in_flight = Some(attempt);
        item.sent_reversal = reversal;
        item.reversals = item.reversals.saturating_add(u32::from(reversal));
        item.attempts = item.attempts.saturating_add(1);
        self.in_flight.insert(attempt, sequence);
        Some(item)
    }

    /// An attempt that was made for a waiting customer becomes the item's.
    /// If that is not in the window, it does not leave before the attempt has
    /// ended, and then asks again, under the same id.
    pub(crate) fn adopt(&mut self, id: PaymentId, attempt: AttemptId, state: &State) {
        if let Some(sequence) = state.payment(&id).and_then(|payment| payment.queue_sequence)
            && self.take_off(sequence, attempt, false).is_none()
        {
            self.elsewhere.insert(attempt, id);
        }
    }

    /// The payment that adopted an attempt, if it is not in the window.
    pub(crate) fn elsewhere(&self, attempt: AttemptId) -> Option<PaymentId> {
        self.elsewhere.get(&attempt).copied()
    }

    /// The gateway asked that a payment wait which is not in the window.
    pub(crate) fn wait_elsewhere(&mut self, id: PaymentId, until_ms: u64, now_ms: u64) {
        if self.wait_elsewhere.len() >= MOST_WAIT_ELSEWHERE {
            self.wait_elsewhere.retain(|_, until_ms| *until_ms > now_ms);
        }
        if self.wait_elsewhere.len() < MOST_WAIT_ELSEWHERE {
            self.wait_elsewhere.insert(id, until_ms);
        }
    }

    /// An attempt has ended: the payment it was for, if it still waits.
    pub(crate) fn landed(&mut self, attempt: AttemptId) -> Option<PaymentId> {
        self.elsewhere.remove(&attempt);
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
        self.refresh_item(sequence);
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

    /// A released item starts over.
    pub(crate) fn start_over(&mut self, id: &PaymentId) {
        self.try_again(id, 0, 0, None);
        if let Some(item) = self
            .by_payment
            .get(id)
            .and_then(|sequence| self.items.get_mut(sequence))
        {
            item.failed_alone = 0;
            item.undecided = None;
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
    pub(crate) fn force(&mut self, now_ms: u64, head: u64) {
        self.gateway_is_back(now_ms);
        self.forced = self.items.keys().copied().collect();
        self.forced_through = head;
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
