//! For how long the gateway has had an item without deciding it.

use hub_protocol::PaymentId;

use super::Queue;

/// That the gateway has an item, and keeps saying that it does not know yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecided {
    /// For how long it has said so, in milliseconds.
    pub(crate) for_ms: u64,
    /// How often.
    pub(crate) answers: u32,
    last_ms: u64,
    of_reversal: bool,
}

impl Undecided {
    /// One more such answer. Between two of them at most `gap_ms` counts: in
    /// an outage nobody was asked.
    fn again(mut self, now_ms: u64, gap_ms: u64) -> Self {
        let gap = now_ms.saturating_sub(self.last_ms).min(gap_ms);
        self.for_ms = self.for_ms.saturating_add(gap);
        self.answers = self.answers.saturating_add(1);
        self.last_ms = now_ms;
        self
    }
}

impl Queue {
    /// The gateway has this item and does not know yet. What came in between
    /// of another kind ends nothing: it decided nothing either. A payment and
    /// its reversal are two questions.
    pub(crate) fn note_undecided(&mut self, id: &PaymentId, now_ms: u64, gap_ms: u64) -> Option<Undecided> {
        let sequence = self.by_payment.get(id)?;
        let item = self.items.get_mut(sequence)?;
        let of_reversal = item.sent_reversal;
        let first = Undecided {
            for_ms: 0,
            answers: 0,
            last_ms: now_ms,
            of_reversal,
        };
        let before = item.undecided.filter(|before| before.of_reversal == of_reversal);
        item.undecided = Some(before.unwrap_or(first).again(now_ms, gap_ms));
        item.undecided
    }
}
