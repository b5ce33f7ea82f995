//! Which calls were under way beside one another: what customers waited for
//! and what of the backlog the hub sent meanwhile, by the gateway's own
//! record. Places and order, no times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Calls by what was under way when they began. All counts are since the start
/// or the last time that they were taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Calls of customers who wait (`authorise-online`).
    pub live: u64,
    /// Of those, how many began while calls of the backlog were under way.
    pub live_beside_backlog: u64,
    /// Calls of the backlog that began while a customer's was under way, by
    /// how many of the backlog were under way then, each itself counted in.
    pub backlog_beside_live: BTreeMap<u64, u64>,
}

impl Beside {
    /// Calls of the backlog that began beside a customer's.
    pub fn backlog(&self) -> u64 {
        self.backlog_beside_live.values().sum()
    }

    /// Of those, how many began with more than `places` of the backlog under
    /// way.
    pub fn backlog_above(&self, places: u64) -> u64 {
        self.backlog_beside_live
            .range(places + 1..)
            .map(|(_, count)| count)
            .sum()
    }
}

/// The record.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    live: u64,
    backlog: u64,
    beside: Beside,
}

/// A call, until it is answered.
pub(super) struct Call {
    of: Arc<UnderWay>,
    live: bool,
}

impl UnderWay {
    /// A call begins.
    pub(super) fn begins(self: &Arc<Self>, operation: &str) -> Call {
        let live = operation == "authorise-online";
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if live {
            inner.live += 1;
            inner.beside.live += 1;
            inner.beside.live_beside_backlog += u64::from(inner.backlog > 0);
        } else {
            inner.backlog += 1;
            if inner.live > 0 {
                let backlog = inner.backlog;
                *inner.beside.backlog_beside_live.entry(backlog).or_default() += 1;
            }
        }
        Call {
            of: Arc::clone(self),
            live,
        }
    }

    /// What was counted, and begins to count anew.
    pub(super) fn take(&self) -> Beside {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut inner.beside)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut inner = self.of.0.lock().unwrap_or_else(PoisonError::into_inner);
        match self.live {
            true => inner.live -= 1,
            false => inner.backlog -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_what_is_under_way_beside_them() {
        let record = Arc::new(UnderWay::default());
        let alone = record.begins("advice");
        let live = record.begins("authorise-online");
        let (second, third) = (record.begins("authorise-deferred"), record.begins("reversal"));
        drop((alone, second));
        let fourth = record.begins("advice");
        drop(live);
        let unseen = record.begins("advice");
        drop((third, fourth, unseen));
        drop(record.begins("authorise-online"));
        let beside = record.take();
        assert_eq!((beside.live, beside.live_beside_backlog), (2, 1));
        assert_eq!(beside.backlog_beside_live, BTreeMap::from([(2, 2), (3, 1)]));
        assert_eq!((beside.backlog(), beside.backlog_above(2)), (3, 1));
        assert_eq!(record.take(), Beside::default());
    }
}
