//! How much room the disk has, as `docs/ledger.md` says: what others leave, the
//! marks at which a person is warned and nothing more is approved offline, and
//! the reserve behind them.

use hub_protocol::entry::StorageLevel;

use crate::profile::pick;
use crate::rng::Rng;

/// Below it nothing more is approved offline.
const FULL: i64 = 30_000;

/// Below it a person is warned.
const LOW: i64 = 70_000;

/// What is kept aside for what was accepted before.
const RESERVE: i64 = 25_000;

/// More than a run can write.
const PLENTY: i64 = 100_000_000;

/// A sealed card takes so much.
const CARD: i64 = 300;

/// See the module's documentation. In bytes.
#[derive(Debug)]
pub(crate) struct Room {
    /// Beside the reserve; less than nothing once that is being used.
    free: i64,
    pub(crate) level: StorageLevel,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            free: PLENTY,
            level: StorageLevel::Enough,
        }
    }
}

impl Room {
    /// Others take room, or give it back.
    pub(crate) fn others(&mut self, newer: &mut Rng) {
        let left = pick(
            newer,
            &[0, 10_000, 29_000, 31_000, 36_000, 45_000, 90_000, 1_000_000],
        );
        self.free = i64::try_from(left).unwrap_or_default();
    }

    pub(crate) fn all_is_free(&mut self) {
        self.free = PLENTY;
    }

    /// So much has been written, and so many cards.
    pub(crate) fn write(&mut self, bytes: usize, cards: usize) {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.free = self.free.saturating_sub(signed(bytes) + CARD * signed(cards));
    }

    /// Whether so much more leaves the reserve whole.
    pub(crate) fn has(&self, bytes: usize) -> bool {
        i64::try_from(bytes).is_ok_and(|bytes| bytes <= self.free)
    }

    /// Nothing can be written any more.
    pub(crate) fn is_used_up(&self) -> bool {
        self.free <= -RESERVE
    }

    pub(crate) fn free_bytes(&self) -> u64 {
        u64::try_from(self.free).unwrap_or_default()
    }

    /// Looks how much there is. Once little or full, a bit more than the mark
    /// is wanted before it is called better.
    pub(crate) fn look(&mut self) -> StorageLevel {
        let full = if self.level == StorageLevel::Full {
            FULL + FULL / 4
        } else {
            FULL
        };
        let low = if self.level == StorageLevel::Enough {
            LOW
        } else {
            LOW + LOW / 8
        };
        self.level = match self.free {
            free if free < full => StorageLevel::Full,
            free if free < low => StorageLevel::Low,
            _ => StorageLevel::Enough,
        };
        self.level
    }
}
