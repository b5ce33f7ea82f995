//! What an entry counts towards in the totals of a stretch of the ledger: of
//! an archive, or of a day, month or year.

use hub_protocol::entry::{Event, Finding, VoidEffect};
use hub_protocol::{Currency, Decision, LedgerTotals, PaymentRequest, PaymentState, Total, TransactionType};

use crate::record::PaymentRecord;

/// What has to be known of a payment to count what happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Minor units.
    pub minor: u64,
    /// ISO 4217.
    pub currency: Currency,
    /// Money goes back to the customer.
    pub refund: bool,
    /// It was approved, by whomever.
    pub approved: bool,
    /// It is being reversed, or was.
    pub reversing: bool,
}

impl Told {
    /// Of a payment that has just been asked for.
    pub fn of_request(request: &PaymentRequest) -> Self {
        Self {
            minor: request.amount_minor(),
            currency: request.currency,
            refund: request.transaction_type() == TransactionType::Refund,
            approved: false,
            reversing: false,
        }
    }

    /// Of a payment as the state has it.
    pub fn of_record(record: &PaymentRecord) -> Self {
        let decision = record.decided.as_ref().map(|decided| decided.record.decision);
        Self {
            minor: record.amount_minor,
            currency: record.currency,
            refund: record
                .terms
                .is_some_and(|terms| terms.transaction_type == TransactionType::Refund),
            approved: decision.is_some_and(is_approval),
            reversing: matches!(
                record.state,
                PaymentState::ReversalQueued | PaymentState::ReversalParked | PaymentState::Reversed
            ),
        }
    }

    /// Takes in what an entry about it says.
    pub fn follow(&mut self, event: &Event) {
        match event {
            Event::PaymentDecided { record, .. } => {
                self.approved = is_approval(record.decision);
                self.reversing = record.reversal_queued;
            }
            Event::PaymentVoided {
                effect: VoidEffect::ReversalQueued,
                ..
            } => self.reversing = true,
            _ => {}
        }
    }
}

/// Adds what an entry about this payment counts for, once the entry was
/// [followed](Told::follow). Gives whether it counts for anything.
pub fn count(totals: &mut Vec<LedgerTotals>, event: &Event, told: &Told) -> bool {
    let Some(column) = column(event, told) else {
        return false;
    };
    let place = match totals.binary_search_by_key(&told.currency, |known| known.currency) {
        Ok(place) => place,
        Err(place) => {
            totals.insert(place, LedgerTotals::none(told.currency));
            place
        }
    };
    if let Some(of) = totals.get_mut(place) {
        column(of).add(told.minor);
    }
    true
}

/// Whether an entry counts for a payment of some kind, and so cannot be counted
/// if nothing is known of the payment.
pub fn may_count(event: &Event) -> bool {
    match event {
        Event::PaymentDecided { record, .. } => is_approval(record.decision),
        Event::PaymentVoided { effect, .. } => *effect == VoidEffect::CancelledBeforeSending,
        Event::PaymentSettled { .. } | Event::PaymentReversed { .. } | Event::PaymentClosed { .. } => true,
        _ => false,
    }
}

/// One of the totals.
type Column = fn(&mut LedgerTotals) -> &mut Total;

fn column(event: &Event, told: &Told) -> Option<Column> {
    match event {
        Event::PaymentDecided { record, .. } => approved(record.decision, told.refund),
        Event::PaymentSettled { gateway, .. } => ended(told, gateway.approved),
        Event::PaymentVoided {
            effect: VoidEffect::CancelledBeforeSending,
            ..
        }
        | Event::PaymentReversed { .. } => undone(told),
        // Never of a reversal, whatever has become of the payment since.
        Event::PaymentClosed {
            finding: Finding::Taken,
            ..
        } => ended(told, true),
        Event::PaymentClosed {
            finding: Finding::NotThere,
            ..
        } if !told.reversing => ended(told, false),
        Event::PaymentClosed { .. } => undone(told),
        _ => None,
    }
}

fn approved(decision: Decision, refund: bool) -> Option<Column> {
    match decision {
        Decision::Declined | Decision::Fallback => None,
        _ if refund => Some(|totals| totals.refunded.get_or_insert_default()),
        Decision::ApprovedOnline => Some(|totals| &mut totals.approved_online),
        Decision::ApprovedOffline => Some(|totals| &mut totals.approved_offline),
    }
}

/// What the gateway, or a person, said of what the hub had approved.
fn ended(told: &Told, well: bool) -> Option<Column> {
    match (told.refund, well) {
        (false, true) => Some(|totals| &mut totals.settled),
        (false, false) => Some(|totals| &mut totals.declined_at_replay),
        (true, true) => None,
        (true, false) => undone(told),
    }
}

/// What was never approved is in no total, so nothing is taken off.
fn undone(told: &Told) -> Option<Column> {
    match (told.approved, told.refund) {
        (false, _) => None,
        (true, false) => Some(|totals| &mut totals.voided),
        (true, true) => Some(|totals| totals.refunds_voided.get_or_insert_default()),
    }
}

fn is_approval(decision: Decision) -> bool {
    matches!(decision, Decision::ApprovedOnline | Decision::ApprovedOffline)
}

#[cfg(test)]
mod tests {
    use hub_protocol::PaymentId;

    use super::*;

    /// Whoever counts weeks later may know a payment as it has become since.
    #[test]
    fn what_a_person_found_counts_the_same_whatever_became_of_the_payment_since() {
        let closed = |finding| Event::PaymentClosed {
            payment_id: PaymentId([1; 16]),
            finding,
            note: "desk".to_owned(),
            operator: "uid 0".to_owned(),
        };
        for reversing in [false, true] {
            let told = Told {
                minor: 700,
                currency: Currency::EUR,
                refund: false,
                approved: true,
                reversing,
            };
            let mut totals = Vec::new();
            assert!(count(&mut totals, &closed(Finding::Taken), &told));
            let mut wanted = LedgerTotals::none(Currency::EUR);
            wanted.settled.add(700);
            assert_eq!(totals, [wanted], "reversing {reversing}");
        }
    }
}
