//! What limits remember beside exposure and counts: payments lately, taps
//! without verification, outcomes at replay, and the share that holds.

use hub_protocol::PaymentRequest;
use minicbor::{Decode, Encode};

use crate::few::Few;
use crate::policy::velocity::{LONGEST_WINDOW_MS, MAX_IN_WINDOW, Window};

/// Offline approvals of a card or device lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Recent {
    /// When each was approved, oldest first, milliseconds since 1970 UTC: of
    /// the last 7 days, as many as the largest window counts.
    #[n(1)]
    pub approved_ms: Few<u64>,
}

impl Recent {
    /// One more, at this time. What no window could count is dropped; a later
    /// policy may have a larger one than this.
    pub(crate) fn approved(&mut self, at_ms: u64) {
        self.forget(at_ms);
        self.approved_ms.push(at_ms);
        self.approved_ms.keep_last(MAX_IN_WINDOW);
    }

    /// Drops what no window can count at this time.
    pub(crate) fn forget(&mut self, now_ms: u64) {
        self.approved_ms
            .retain(|at| now_ms.saturating_sub(*at) < LONGEST_WINDOW_MS);
    }

    /// How many of them count at this time. One that a clock set back has put
    /// into the future counts until the clock has caught up with it.
    pub(crate) fn count(&self, now_ms: u64, window: Window) -> u64 {
        let counts = |at: &&u64| now_ms.saturating_sub(**at) < window.within_ms;
        self.approved_ms.iter().filter(counts).count() as u64
    }
}

/// Contactless payments of a card without strong authentication, approved
/// offline since the holder was last verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Taps {
    /// Their sum, minor units.
    #[n(1)]
    pub sum_minor: u64,
    /// How many.
    #[n(2)]
    pub count: u32,
}

impl Taps {
    pub(crate) fn approved(&mut self, amount: u64) {
        self.sum_minor = self.sum_minor.saturating_add(amount);
        self.count = self.count.saturating_add(1);
    }
}

/// How the holder stood to a payment, as far as limits ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Holder {
    /// Neither of the others, such as inserted and signed for.
    #[default]
    #[n(0)]
    Other,
    /// Verified by a PIN, or on the holder's own device: strong
    /// authentication in the sense of the RTS 2018/389.
    #[n(1)]
    Verified,
    /// Contactless, and verified in neither of these ways: a signature is none
    /// (article 11 of the same).
    #[n(2)]
    Tap,
}

impl Holder {
    pub(crate) fn of(request: &PaymentRequest) -> Self {
        if request.strongly_verified() {
            Self::Verified
        } else if request.is_unverified_tap() {
            Self::Tap
        } else {
            Self::Other
        }
    }
}

/// Of each outcome this share of what was before is forgotten: 1/32.
const FORGOTTEN: u32 = 5;

/// What an outcome weighs at first.
const UNIT: u32 = 1024;

/// How offline approvals ended at replay: recent outcomes weigh more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Outcomes {
    /// Outcomes so far.
    #[n(1)]
    pub count: u32,
    /// What they weigh, the last one 1024.
    #[n(2)]
    pub weight: u32,
    /// What the declines among them weigh.
    #[n(3)]
    pub declined: u32,
    /// When the last one came, milliseconds since 1970 UTC.
    #[n(4)]
    pub last_ms: u64,
}

/// Outcomes say nothing any more this long after the last one, in
/// milliseconds: a shop that they have closed would have no others, ever.
const OUTCOMES_LAST_MS: u64 = 7 * 24 * 60 * 60 * 1000;

impl Outcomes {
    pub(crate) fn ended(&mut self, approved: bool, at_ms: u64) {
        if self.is_old(at_ms) {
            *self = Self::default();
        }
        self.last_ms = at_ms;
        self.count = self.count.saturating_add(1);
        self.weight = self.weight - (self.weight >> FORGOTTEN) + UNIT;
        self.declined = self.declined - (self.declined >> FORGOTTEN) + if approved { 0 } else { UNIT };
    }

    /// The share of declines, 0 to 100, rounded down; 0 as long as fewer
    /// outcomes are known.
    pub(crate) fn percent_declined(&self, least: u32, now_ms: u64) -> u64 {
        if self.count < least.max(1) || self.is_old(now_ms) {
            return 0;
        }
        u64::from(self.declined) * 100 / u64::from(self.weight.max(1))
    }
}

impl Outcomes {
    fn is_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_ms) >= OUTCOMES_LAST_MS
    }
}

/// Shares of declines at replay, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Declined {
    /// In the store.
    pub store_percent: u64,
    /// Of the card's scheme or at the device, the higher.
    pub own_percent: u64,
}

/// The share of the signed ceilings that held last in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Held {
    /// 0 to 100.
    #[n(1)]
    pub percent: u8,
    /// Since when, milliseconds since 1970 UTC.
    #[n(2)]
    pub since_ms: u64,
}

impl Held {
    /// A payment was decided under this share; `caused` says whether it was
    /// more than the rest of one that held before: then it grows from now on.
    pub(crate) fn after(before: Option<Self>, percent: u8, caused: bool, at_ms: u64) -> Option<Self> {
        match before {
            Some(held) if held.percent == percent && !caused => Some(held),
            // Nothing is reduced: nothing to loosen.
            _ if percent >= 100 => None,
            _ => Some(Self {
                percent,
                since_ms: at_ms,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_window_can_count_is_forgotten() {
        let mut recent = Recent::default();
        for at in 0..100 {
            recent.approved(at);
        }
        assert_eq!(recent.approved_ms, (36..100).collect::<Few<_>>());
        recent.approved(LONGEST_WINDOW_MS + 90);
        assert_eq!(recent.approved_ms.len(), 10);
    }

    #[test]
    fn a_payment_counts_up_to_the_end_of_its_window() {
        let window = Window {
            most: 3,
            within_ms: 1_000,
        };
        let mut recent = Recent::default();
        for at in [200, 900, 1_000] {
            recent.approved(at);
        }
        assert_eq!(recent.count(1_199, window), 3);
        assert_eq!(recent.count(1_200, window), 2, "the oldest is a whole window old");
        assert_eq!(recent.count(100, window), 3, "the clock was set back");
    }

    #[test]
    fn recent_outcomes_weigh_more_than_old_ones() {
        let mut outcomes = Outcomes::default();
        for _ in 0..1_000 {
            outcomes.ended(true, 1);
        }
        assert_eq!(outcomes.percent_declined(10, 1), 0);
        for _ in 0..16 {
            outcomes.ended(false, 1);
        }
        let bad = outcomes.percent_declined(10, 1);
        assert!((35..=45).contains(&bad), "{bad}");
        for _ in 0..64 {
            outcomes.ended(true, 1);
        }
        let better = outcomes.percent_declined(10, 1);
        assert!(better < 10, "{better}");
    }

    #[test]
    fn few_outcomes_say_nothing_and_all_declined_is_all() {
        let mut outcomes = Outcomes::default();
        for _ in 0..9 {
            outcomes.ended(false, 1);
        }
        assert_eq!(outcomes.percent_declined(10, 1), 0);
        outcomes.ended(false, 1);
        assert_eq!(outcomes.percent_declined(10, 1), 100);
        assert_eq!(outcomes.percent_declined(10, OUTCOMES_LAST_MS), 100);
        assert_eq!(
            outcomes.percent_declined(10, OUTCOMES_LAST_MS + 1),
            0,
            "a week after the last"
        );
        for _ in 0..100_000 {
            outcomes.ended(false, 1);
        }
        assert_eq!(outcomes.percent_declined(10, 1), 100);
    }
}
