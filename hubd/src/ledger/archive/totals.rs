//! Counting what happened in a stretch of the ledger.

use std::collections::BTreeMap;

use hub_core::state::State;
use hub_protocol::entry::VoidEffect;
use hub_protocol::{ArchiveTotals, Currency, Decision, Entry, Event, PaymentId};

use crate::ledger::error::Fault;

/// What an entry counts towards.
type Column = fn(&mut ArchiveTotals) -> &mut hub_protocol::Total;

/// Totals, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Totals {
    by_currency: BTreeMap<Currency, ArchiveTotals>,
    /// Amounts of payments whose request is in this stretch.
    requested: BTreeMap<PaymentId, (u64, Currency)>,
    /// Entries about payments whose request is in an earlier one.
    pub(super) from_before: u64,
}

impl Totals {
    /// Takes an entry in. `earlier` knows the amounts of payments whose
    /// request came before this stretch; what it does not know is counted as
    /// nothing.
    pub(super) fn add(
        &mut self,
        entry: &Entry,
        earlier: &mut dyn FnMut(PaymentId) -> Option<(u64, Currency)>,
    ) -> Result<(), Fault> {
        let request = State::request_in(entry).map_err(|error| Fault::Entry(error.to_string()))?;
        if let Some(request) = request {
            let amount = (request.amount_minor(), request.currency);
            self.requested.insert(request.payment_id, amount);
        }
        let Some((payment, column)) = counted(&entry.event) else {
            return Ok(());
        };
        let amount = match self.requested.get(&payment) {
            Some(amount) => Some(*amount),
            None => {
                self.from_before += 1;
                earlier(payment)
            }
        };
        if let Some((minor, currency)) = amount {
            let totals = self
                .by_currency
                .entry(currency)
                .or_insert_with(|| ArchiveTotals::none(currency));
            column(totals).add(minor);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<ArchiveTotals> {
        self.by_currency.into_values().collect()
    }
}

fn counted(event: &Event) -> Option<(PaymentId, Column)> {
    let (payment, column): (_, Column) = match event {
        Event::PaymentDecided {
            payment_id, record, ..
        } => match record.decision {
            Decision::ApprovedOnline => (payment_id, |totals| &mut totals.approved_online),
            Decision::ApprovedOffline => (payment_id, |totals| &mut totals.approved_offline),
            Decision::Declined | Decision::Fallback => return None,
        },
        Event::PaymentSettled {
            payment_id, gateway, ..
        } if gateway.approved => (payment_id, |totals| &mut totals.settled),
        Event::PaymentSettled { payment_id, .. } => (payment_id, |totals| &mut totals.declined_at_replay),
        Event::PaymentVoided {
            payment_id,
            effect: VoidEffect::CancelledBeforeSending,
            ..
        }
        | Event::PaymentReversed { payment_id, .. } => (payment_id, |totals| &mut totals.voided),
        _ => return None,
    };
    Some((*payment, column))
}
