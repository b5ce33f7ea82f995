//! Counting what happened in a stretch of the ledger.

use std::collections::BTreeMap;

use hub_core::state::State;
use hub_core::totals::{Told, count, may_count};
use hub_protocol::entry::VoidEffect;
use hub_protocol::{Decision, Entry, Event, LedgerTotals, PaymentId, Total};

use crate::ledger::error::Fault;

/// By which rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    /// Those of today.
    #[default]
    Today,
    /// Those of hubs that did not tell refunds apart, and counted as voided
    /// what was reversed without an approval too.
    RefundsAsSales,
}

impl Way {
    /// By which the totals of a manifest were counted.
    pub(super) fn of(totals: &[LedgerTotals]) -> Self {
        match totals.iter().any(|totals| totals.refunded.is_none()) {
            true => Self::RefundsAsSales,
            false => Self::Today,
        }
    }
}

/// Totals, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Totals {
    way: Way,
    counted: Vec<LedgerTotals>,
    /// Payments whose request is in this stretch.
    requested: BTreeMap<PaymentId, Told>,
    /// Entries about payments whose request is in an earlier one.
    pub(super) from_before: u64,
}

impl Totals {
    pub(super) fn new(way: Way) -> Self {
        Self {
            way,
            ..Self::default()
        }
    }

    /// Takes an entry in. `earlier` knows the payments whose request came
    /// before this stretch; what it does not know is counted as nothing.
    pub(super) fn add(
        &mut self,
        entry: &Entry,
        earlier: &mut dyn FnMut(PaymentId) -> Option<Told>,
    ) -> Result<(), Fault> {
        let request = State::request_in(entry).map_err(|error| Fault::Entry(error.to_string()))?;
        if let Some(request) = request {
            self.requested
                .insert(request.payment_id, Told::of_request(&request));
        }
        let Some(payment) = entry.event.payment_id() else {
            return Ok(());
        };
        let told = match self.requested.get_mut(&payment) {
            Some(told) => {
                told.follow(&entry.event);
                Some(*told)
            }
            None => {
                self.from_before += u64::from(may_count(&entry.event));
                earlier(payment)
            }
        };
        if let Some(told) = told {
            match self.way {
                Way::Today => {
                    count(&mut self.counted, &entry.event, &told);
                }
                Way::RefundsAsSales => self.add_as_before(&entry.event, &told),
            }
        }
        Ok(())
    }

    fn add_as_before(&mut self, event: &Event, told: &Told) {
        let column: fn(&mut LedgerTotals) -> &mut Total = match event {
            Event::PaymentDecided { record, .. } => match record.decision {
                Decision::ApprovedOnline => |totals| &mut totals.approved_online,
                Decision::ApprovedOffline => |totals| &mut totals.approved_offline,
                Decision::Declined | Decision::Fallback => return,
            },
            Event::PaymentSettled { gateway, .. } if gateway.approved => |totals| &mut totals.settled,
            Event::PaymentSettled { .. } => |totals| &mut totals.declined_at_replay,
            Event::PaymentVoided {
                effect: VoidEffect::CancelledBeforeSending,
                ..
            }
            | Event::PaymentReversed { .. } => |totals| &mut totals.voided,
            _ => return,
        };
        let mut more = LedgerTotals::none_with_refunds_as_sales(told.currency);
        column(&mut more).add(told.minor);
        self.counted = LedgerTotals::sum(&self.counted, &[more]);
    }

    pub(super) fn finish(self) -> Vec<LedgerTotals> {
        self.counted
    }
}
