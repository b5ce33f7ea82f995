//! When the backlog may go: the number in flight, the breaker, the spread of
//! first contact after an outage, and the gap between payments of one card.

use std::collections::HashMap;

use crate::breaker::Breaker;
use crate::pace::Pace;
use crate::state::CardKey;

/// The longest window over which first contact is spread, in milliseconds.
pub const LONGEST_SPREAD_MS: u64 = 60 * 60 * 1000;

/// The most cards whose last payment is remembered. Above it all is forgotten,
/// and with it a gap or two.
const MOST_CARDS: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Pacing {
    pub(crate) pace: Pace,
    pub(crate) breaker: Breaker,
    /// The window that the gateway asked for last.
    pub(crate) asked_spread_ms: u64,
    /// Nothing of the backlog goes before this.
    pub(crate) first_contact_ms: u64,
    cards: HashMap<CardKey, u64>,
}

impl Pacing {
    pub(crate) fn new(ceiling: usize, now_ms: u64) -> Self {
        Self {
            pace: Pace::new(ceiling, now_ms),
            breaker: Breaker::default(),
            asked_spread_ms: 0,
            first_contact_ms: 0,
            cards: HashMap::new(),
        }
    }

    /// Somebody wants the backlog sent now: breaker and spread are over.
    pub(crate) fn hurry(&mut self) {
        self.breaker.answered();
        self.first_contact_ms = 0;
    }

    /// A payment of this card goes; the next one not before `gap_ms` later.
    pub(crate) fn card_used(&mut self, card: CardKey, now_ms: u64, gap_ms: u64) {
        if gap_ms == 0 {
            return;
        }
        if self.cards.len() >= MOST_CARDS {
            self.cards.retain(|_, until| *until > now_ms);
            if self.cards.len() >= MOST_CARDS {
                self.cards.clear();
            }
        }
        self.cards.insert(card, now_ms.saturating_add(gap_ms));
    }

    /// Whether the gap after this card's last payment is over.
    pub(crate) fn card_free(&self, card: CardKey, now_ms: u64) -> bool {
        self.cards.get(&card).is_none_or(|until| *until <= now_ms)
    }

    /// When something that is held up here may go: the earliest instant after
    /// `now_ms`.
    pub(crate) fn wake_ms(&self, now_ms: u64) -> Option<u64> {
        let later = |at: &u64| *at > now_ms;
        let cards = self.cards.values().copied().filter(later).min();
        let others = [Some(self.first_contact_ms), self.breaker.until_ms()];
        others.into_iter().flatten().filter(later).chain(cards).min()
    }
}
