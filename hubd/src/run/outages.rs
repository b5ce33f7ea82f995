//! Beginnings and ends of outages, told to the ledger's folder when their
//! entries are on disk, before anybody else hears of that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ledger::{Home, LedgerError};

/// Those whose entries are not on disk yet. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Outages {
    home: Home,
    expected: Arc<Mutex<VecDeque<(u64, bool)>>>,
}

impl Outages {
    pub(super) fn of(home: Home) -> Self {
        Self {
            home,
            expected: Arc::default(),
        }
    }

    /// This entry, when it comes, begins an outage or ends one.
    pub(super) fn expect(&self, sequence: u64, begins: bool) {
        let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.push_back((sequence, begins));
    }

    /// Everything up to this entry is on disk.
    ///
    /// # Errors
    /// An end that the folder did not take: nothing may leave, and the hub must
    /// end.
    pub(super) fn follow(&self, durable: u64) -> Result<(), LedgerError> {
        let mut last = None;
        {
            let mut expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
            while expected.front().is_some_and(|(sequence, _)| *sequence <= durable) {
                last = expected.pop_front();
            }
        }
        match last {
            None => Ok(()),
            Some((_, false)) => self.home.outage_ends(),
            Some((sequence, true)) => {
                if let Err(error) = self.home.outage_begins(sequence) {
                    tracing::warn!(%error, "after a restart, whatever waits will count as perhaps sent");
                    // What is there may be of an outage before.
                    return self.home.outage_ends();
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_3_the_folder_hears_of_an_outage_with_its_entry_and_of_the_last_of_several() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::of(dir.path());
        let outages = Outages::of(home.clone());
        outages.expect(7, true);
        outages.follow(6).unwrap();
        assert!(!home.is_in_outage_since(7), "not on disk yet");
        outages.follow(7).unwrap();
        assert!(home.is_in_outage_since(7));
        outages.clone().expect(9, false);
        outages.expect(11, true);
        outages.follow(8).unwrap();
        assert!(home.is_in_outage_since(7));
        outages.follow(11).unwrap();
        assert!(home.is_in_outage_since(11));
        outages.expect(12, false);
        outages.follow(20).unwrap();
        assert!(!home.is_in_outage_since(11));
    }

    #[test]
    fn rule_3_an_end_that_the_folder_does_not_take_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let outages = Outages::of(Home::of(&dir.path().join("gone")));
        outages.expect(1, true);
        assert!(
            outages.follow(1).is_err(),
            "nor can it be said that there is none"
        );
        outages.expect(2, false);
        assert!(outages.follow(2).is_err());
        assert!(outages.follow(3).is_ok());
    }
}
