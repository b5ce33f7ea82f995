//! A ledger folded again, as it was or with other decisions in it.

use std::collections::VecDeque;

use hub_core::state::{FoldError, State};
use hub_protocol::entry::{Entry, EntryTime, Event};
use hub_protocol::{Digest, PaymentId, PaymentRequest};

/// So many payments are kept after their end, because a void or a reversal
/// may follow. Older ones are forgotten, so that memory does not grow with the
/// ledger.
const KEPT: usize = 10_000;

/// A state, and which of its payments may be forgotten.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fold {
    pub(crate) state: State,
    ended: VecDeque<PaymentId>,
    /// All are kept.
    whole: bool,
}

impl Fold {
    /// One that forgets no payment, for half a kilobyte each.
    pub(crate) fn whole() -> Self {
        Self {
            whole: true,
            ..Self::default()
        }
    }

    /// Folds what happened at this time, and says which payment was forgotten
    /// for it. What is about a payment that is not known (any more) changes
    /// nothing that is at risk, and is left out.
    pub(crate) fn apply(
        &mut self,
        event: Event,
        time: EntryTime,
        request: Option<&PaymentRequest>,
    ) -> Result<Option<PaymentId>, FoldError> {
        let id = event.payment_id();
        if request.is_none() && id.is_some_and(|id| self.state.payment(&id).is_none()) {
            return Ok(None);
        }
        // Neither archives that are elsewhere nor other decisions may break
        // the chain, which was checked where it was read.
        let head = self.state.head();
        let entry = Entry {
            sequence: head.sequence + 1,
            previous: head.digest,
            time,
            policy_version: self.state.store().policy_version,
            event,
        };
        self.state.apply_known(&entry, Digest::ZERO, request)?;
        self.state.forget_changes();
        Ok(id.filter(|_| !self.whole).and_then(|id| self.note_end(id)))
    }

    fn note_end(&mut self, id: PaymentId) -> Option<PaymentId> {
        let ended = self.state.payment(&id).is_some_and(|payment| payment.is_final());
        if ended {
            self.ended.push_back(id);
        }
        let oldest = (self.ended.len() > KEPT)
            .then(|| self.ended.pop_front())
            .flatten()?;
        // It may go on after all, because it was voided.
        self.state.forget(&oldest).then_some(oldest)
    }
}
