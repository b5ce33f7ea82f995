//! What of the state is in memory. Payments and cards come and go: whoever
//! needs one that is not here recalls it from the index first.
//!
//! What always holds:
//!
//! 1. A card is in memory while a payment of it is. So nothing changes what
//!    an unknown card has at risk.
//! 2. A payment or card leaves only when the index has its newest change.
//! 3. What is decided on a card that is not in memory is decided only if no
//!    card was ever left to the index.

use std::collections::HashMap;

use hub_protocol::entry::{Entry, Event};
use hub_protocol::{PaymentId, PaymentRequest, PaymentState, cbor};

mod cards;
mod forget;
mod order;

pub(super) use cards::Cards;
pub(super) use order::Order;

use super::fold::parse_request;
use super::stored::Key;
use super::{FoldError, State};
use crate::record::{CardKey, CardRecord, PaymentRecord, Place};

/// A payment from the index, with its card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Which payment.
    pub payment_id: PaymentId,
    /// What the index holds of it.
    pub record: PaymentRecord,
    /// What the index holds of its card; the default if it holds nothing.
    pub card: CardRecord,
}

/// A card in memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Card {
    pub(super) record: CardRecord,
    /// Payments in memory.
    held_by: u32,
    /// The newest entry that changed it.
    latest: u64,
}

/// What has left the memory.
#[derive(Debug)]
pub struct Evicted {
    _payments: HashMap<PaymentId, Box<PaymentRecord>>,
    _cards: Cards,
}

impl Card {
    pub(super) fn value(&self) -> Option<Vec<u8>> {
        (!self.record.is_blank()).then(|| cbor::encode(&self.record))
    }
}

impl State {
    /// Whether what a card has at risk is known. If not, hand over what the
    /// index holds ([`recall_card`](Self::recall_card)).
    pub fn knows_card(&self, key: &CardKey) -> bool {
        self.all_cards || self.cards.contains_key(key)
    }

    /// What is remembered of a card, if it is in memory.
    pub(crate) fn card_record(&self, key: &CardKey) -> Option<&CardRecord> {
        self.cards.get(key).map(|card| &card.record)
    }

    /// The request that an entry holds in its signed form, if it is the first
    /// one about a payment. Its card must be in memory before the entry is
    /// folded; of any other entry about a payment, the payment.
    ///
    /// # Errors
    /// The signed request cannot be read.
    pub fn request_in(entry: &Entry) -> Result<Option<PaymentRequest>, FoldError> {
        match &entry.event {
            Event::PaymentOpened { request, .. }
            | Event::PaymentDecided {
                request: Some(request),
                ..
            } => parse_request(request, entry.sequence).map(Some),
            _ => Ok(None),
        }
    }

    /// Takes a payment back in that was left to the index, with its card.
    /// What is in memory already is newer and stays.
    pub fn recall(&mut self, recalled: Recalled) {
        let Recalled {
            payment_id,
            record,
            card,
        } = recalled;
        if self.payments.contains_key(&payment_id) {
            return;
        }
        self.recall_card(record.card, card);
        self.insert(payment_id, record);
    }

    pub(super) fn insert(&mut self, id: PaymentId, record: PaymentRecord) {
        let card = self.card_mut(record.card);
        card.held_by = card.held_by.saturating_add(1);
        self.payments.insert(id, Box::new(record));
    }

    /// Takes a card back in that was left to the index. What is in memory
    /// already is newer and stays.
    pub fn recall_card(&mut self, key: CardKey, record: CardRecord) {
        if !self.all_cards && !self.cards.contains_key(&key) {
            self.card_mut(key).record = record;
        }
    }

    /// Takes out what the index holds and opening does not need, while opening.
    /// To drop it takes a while; another thread may do that.
    pub fn evict_all(&mut self) -> Evicted {
        self.card_order.clear();
        self.all_cards = false;
        Evicted {
            _payments: core::mem::take(&mut self.payments),
            _cards: core::mem::take(&mut self.cards),
        }
    }

    pub(super) fn must_know(&self, card: &CardKey, sequence: u64) -> Result<(), FoldError> {
        if self.knows_card(card) {
            Ok(())
        } else {
            Err(FoldError::CardNotRecalled { sequence })
        }
    }

    /// Changes a card by the entry after the head.
    pub(super) fn change_card(&mut self, key: CardKey, change: impl FnOnce(&mut CardRecord)) {
        let sequence = self.head.sequence + 1;
        let card = self.card_mut(key);
        change(&mut card.record);
        card.latest = sequence;
        self.dirty.insert(Key::Card(key));
    }

    fn card_mut(&mut self, key: CardKey) -> &mut Card {
        let order = &mut self.card_order;
        self.cards.get_or_add(key, || order.push_back(key))
    }

    /// An entry has changed a payment: its place, and who counts it, follow.
    pub(super) fn moved(&mut self, id: PaymentId, before: Option<(Place, PaymentState)>, sequence: u64) {
        let Some(payment) = self.payments.get(&id) else {
            return;
        };
        debug_assert_eq!(payment.latest, sequence);
        let (card, state) = (payment.card, payment.state);
        let after = payment.place(id).map(|place| (place, state));
        if before == after {
            return;
        }
        if let Some((place, state)) = before {
            self.count(place, state, -1);
        }
        if let Some((place, state)) = after {
            self.count(place, state, 1);
        }
        let (left, taken) = (before.map(|(place, _)| place), after.map(|(place, _)| place));
        if left == taken {
            return;
        }
        if let Some(place) = left {
            self.dirty_places.insert(place, None);
            if let Place::Waiting(_, at) = place {
                self.change_card(card, |record| record.leaves(at));
            }
        }
        if let Some(place) = taken {
            self.dirty_places.insert(place, Some(id));
            if let Place::Waiting(_, at) = place {
                self.change_card(card, |record| record.joins(at));
            }
        }
    }

    fn count(&mut self, place: Place, state: PaymentState, by: i64) {
        if let Some(count) = self.store.queue.of(place, state) {
            *count = count.saturating_add_signed(by);
        }
        if let Place::Waiting(device, _) = place
            && let Some(record) = self.devices.get_mut(&device)
        {
            record.waiting = u32::try_from(i64::from(record.waiting) + by).unwrap_or(0);
            self.dirty.insert(Key::Device(device));
        }
    }

    /// Drops a payment from memory, if the index has its newest entry and it
    /// stands in a lane or nothing more will happen to it.
    pub(crate) fn evict(&mut self, id: &PaymentId, indexed: u64) -> bool {
        let Some(payment) = self.payments.get(id) else {
            return false;
        };
        let place = payment.place(*id);
        let card = payment.card;
        if payment.latest > indexed
            || matches!(place, Some(Place::Held(_)))
            || self.dirty.contains(&Key::Payment(*id))
        {
            return false;
        }
        self.payments.remove(id);
        if let Some(card) = self.cards.get_mut(&card) {
            card.held_by = card.held_by.saturating_sub(1);
        }
        true
    }

    /// Drops cards from memory until no more than `most` are left, as far as
    /// the index has their newest change and no payment needs them.
    pub(crate) fn evict_cards(&mut self, most: usize, indexed: u64) {
        // A bounded effort each time: those that are needed go to the end.
        for _ in 0..self.cards.len().saturating_sub(most).saturating_mul(2).min(512) {
            let Some(key) = self.card_order.pop_front() else {
                return;
            };
            let needed = self
                .cards
                .get(&key)
                .is_some_and(|card| card.held_by > 0 || card.latest > indexed)
                || self.dirty.contains(&Key::Card(key));
            if needed {
                self.card_order.push_back(key);
            } else {
                self.cards.remove(&key);
                self.all_cards = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_with_one_payment_at_risk_takes_little_memory() {
        assert!(size_of::<Card>() <= 120, "{} bytes", size_of::<Card>());
    }
}
