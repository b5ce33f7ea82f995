//! Holding closures against the entries that they cover: by counting again,
//! from the entries alone.

use std::collections::HashMap;

use hub_protocol::entry::{Entry, Event};
use hub_protocol::{Closure, LedgerTotals, PaymentId, Period};

use crate::state::{FoldError, State};
use crate::totals::{Told, count};

/// What came of one closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The entries say the same.
    Right,
    /// Entries that it covers, or those of payments in them, are not here: it
    /// is the hub's word, and follows from the closure before.
    HubsWord,
    /// The entries say something else.
    Wrong,
}

/// Goes through a ledger in its order. What it remembers grows with the
/// payments in it, about 100 bytes each.
#[derive(Debug, Default)]
pub struct ClosureAudit {
    payments: HashMap<PaymentId, Told>,
    last: Option<u64>,
    day: Kind,
    month: Kind,
    year: Kind,
    running: Counted,
}

/// What was counted for closures of one kind.
#[derive(Debug, Default)]
struct Kind {
    counted: Counted,
    /// Number and end of the closure before.
    before: Option<(u32, u64)>,
}

/// Totals since a known place; `None` as long as it is not known where
/// counting began.
#[derive(Debug, Default)]
struct Counted(Option<Vec<LedgerTotals>>);

impl Counted {
    /// Whether that is what was counted; if that is not known, what is said
    /// counts from here on.
    fn compare(&self, said: &[LedgerTotals]) -> Held {
        match &self.0 {
            None => Held::HubsWord,
            Some(counted) if counted == said => Held::Right,
            Some(_) => Held::Wrong,
        }
    }
}

impl ClosureAudit {
    /// Takes the next entry that can be read. Gives the closure in it, if it is
    /// one, and what came of that.
    ///
    /// # Errors
    /// A request in it cannot be read.
    pub fn take<'a>(&mut self, entry: &'a Entry) -> Result<Option<(&'a Closure, Held)>, FoldError> {
        let follows = self
            .last
            .is_none_or(|last| last.checked_add(1) == Some(entry.sequence));
        if !follows {
            self.begin(None);
        }
        let from_the_first = self.last.is_none() && entry.sequence == 1;
        self.last = Some(entry.sequence);
        if let Some(request) = State::request_in(entry)? {
            self.payments
                .insert(request.payment_id, Told::of_request(&request));
        }
        if let Some(payment) = entry.event.payment_id() {
            self.count(payment, &entry.event);
        }
        match &entry.event {
            // A ledger that had closures from its first entry on. One that got
            // them later counts from its first closure.
            Event::HubStarted {
                closes: Some(true), ..
            } if from_the_first => self.begin(Some(Vec::new())),
            Event::PeriodClosed { closure } => return Ok(Some((closure, self.close(closure)))),
            _ => {}
        }
        Ok(None)
    }

    /// From here on everything is counted, beginning with this; or nothing is
    /// known.
    fn begin(&mut self, totals: Option<Vec<LedgerTotals>>) {
        for kind in [&mut self.day, &mut self.month, &mut self.year] {
            *kind = Kind {
                counted: Counted(totals.clone()),
                before: None,
            };
        }
        self.running = Counted(totals);
    }

    fn count(&mut self, payment: PaymentId, event: &Event) {
        let told = self.payments.get_mut(&payment).map(|told| {
            told.follow(event);
            *told
        });
        let all = [
            &mut self.day.counted,
            &mut self.month.counted,
            &mut self.year.counted,
            &mut self.running,
        ];
        for Counted(counted) in all {
            match told {
                Some(told) => {
                    if let Some(totals) = counted {
                        count(totals, event, &told);
                    }
                }
                None => *counted = None,
            }
        }
    }

    fn close(&mut self, closure: &Closure) -> Held {
        let running = self.running.compare(&closure.running);
        self.running = Counted(Some(closure.running.clone()));
        let kind = match closure.period {
            Period::Day => &mut self.day,
            Period::Month => &mut self.month,
            Period::Year => &mut self.year,
        };
        let totals = kind.counted.compare(&closure.totals);
        let follows = kind.before.is_none_or(|(number, last)| {
            number.checked_add(1) == Some(closure.number) && last.checked_add(1) == Some(closure.first)
        });
        let ends = self.last == closure.last.checked_add(1);
        *kind = Kind {
            counted: Counted(Some(Vec::new())),
            before: Some((closure.number, closure.last)),
        };
        match (totals, running) {
            _ if !follows || !ends => Held::Wrong,
            (Held::Wrong, _) | (_, Held::Wrong) => Held::Wrong,
            (Held::Right, Held::Right) => Held::Right,
            _ => Held::HubsWord,
        }
    }
}
