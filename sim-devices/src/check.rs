//! The reconciliation: what customers were told against the gateway's book.
//!
//! It uses nothing that the hub says of its own work but the list of what
//! still waits to be sent.

use std::collections::{BTreeMap, HashMap, HashSet};

use hub_protocol::{Decision, PaymentId};

use crate::ceilings::{self, Breach, Outage};
use crate::limits::Limits;
use crate::told::{Answer, Booked, Standing, Told, Waiting};

/// Everything that is compared.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// What customers were told.
    pub told: &'a [Told],
    /// The gateway's book.
    pub book: &'a [Booked],
    /// What the hub shows as still to be sent.
    pub waiting: &'a [Waiting],
    /// The policy.
    pub limits: &'a Limits,
    /// When the line was down.
    pub outages: &'a [Outage],
}

/// One thing that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The payment, or one of them.
    pub payment_id: PaymentId,
    /// The order.
    pub order_id: String,
    /// What is wrong, in words.
    pub what: String,
}

/// What came of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Approved to a customer and neither answered by the gateway nor
    /// waiting to be sent.
    pub lost: Vec<Fault>,
    /// An order charged more often than its customer was told, or charged
    /// although its customer was told no.
    pub charged_twice: Vec<Fault>,
    /// Charged, and the device never got an answer.
    pub charged_untold: Vec<Fault>,
    /// Charged another amount than the customer was told.
    pub wrong_amount: Vec<Fault>,
    /// Charges that no device asked for.
    pub unasked: Vec<Fault>,
    /// Approvals that the policy did not allow.
    pub ceiling_breaches: Vec<Breach>,
    /// Approved offline and then declined by the gateway: how many.
    pub merchant_losses: u64,
    /// And their sum, in minor units.
    pub merchant_loss_minor: u64,
    /// Approved and still to be sent.
    pub still_queued: u64,
    /// Approved, and waiting for a person.
    pub parked: u64,
    /// Charged, told no, and the reversal still to be sent.
    pub reversals_waiting: u64,
    /// Charges in the gateway's book that were not undone.
    pub gateway_charges: u64,
    /// And their sum, in minor units.
    pub gateway_minor: u64,
    /// Charges that were undone.
    pub gateway_reversed: u64,
}

impl Verdict {
    /// Whether nothing is wrong and nothing is left to be sent.
    pub fn clean(&self) -> bool {
        self.faults().next().is_none() && self.ceiling_breaches.is_empty() && self.unsent() == 0
    }

    /// What the line could have carried and did not.
    pub fn unsent(&self) -> u64 {
        self.still_queued + self.reversals_waiting
    }

    /// Every fault but the breaches, the worst first.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.lost
            .iter()
            .chain(&self.charged_twice)
            .chain(&self.charged_untold)
            .chain(&self.wrong_amount)
            .chain(&self.unasked)
    }
}

/// Compares.
pub fn reconcile(evidence: &Evidence<'_>) -> Verdict {
    let mut verdict = Verdict {
        ceiling_breaches: ceilings::breaches(evidence.limits, evidence.told, evidence.book, evidence.outages),
        ..Verdict::default()
    };
    let book: HashMap<PaymentId, &Booked> = evidence.book.iter().map(|b| (b.payment_id, b)).collect();
    let waiting: HashMap<PaymentId, &Waiting> = evidence.waiting.iter().map(|w| (w.payment_id, w)).collect();
    for told in evidence.told {
        if told.approved() {
            follow_approval(
                &mut verdict,
                told,
                book.get(&told.payment_id),
                waiting.get(&told.payment_id),
            );
        }
        if let Some(booked) = book.get(&told.payment_id)
            && booked.net_charges() > 0
            && booked.amount_minor != told.amount_minor
        {
            let what = format!("told {}, charged {}", told.amount_minor, booked.amount_minor);
            verdict.wrong_amount.push(fault(told, what));
        }
    }
    count_charges(&mut verdict, evidence, &book, &waiting);
    verdict
}

/// Follows one approval into the gateway's book.
fn follow_approval(verdict: &mut Verdict, told: &Told, booked: Option<&&Booked>, waiting: Option<&&Waiting>) {
    let online = told
        .slip()
        .is_some_and(|s| s.decision == Decision::ApprovedOnline);
    match booked.map(|b| b.standing) {
        Some(Standing::Approved) => {}
        Some(Standing::Declined) if !online => {
            verdict.merchant_losses += 1;
            verdict.merchant_loss_minor += told.amount_minor;
        }
        standing => match waiting {
            Some(item) if item.parked => verdict.parked += 1,
            Some(item) if !item.reversal => verdict.still_queued += 1,
            _ => {
                let what = match standing {
                    None => "approved, not in the gateway's book and not waiting".to_owned(),
                    Some(standing) => format!("approved, and the gateway's book says {standing:?}"),
                };
                verdict.lost.push(fault(told, what));
            }
        },
    }
}

/// Holds every charge in the book to what the customer was told.
fn count_charges(
    verdict: &mut Verdict,
    evidence: &Evidence<'_>,
    book: &HashMap<PaymentId, &Booked>,
    waiting: &HashMap<PaymentId, &Waiting>,
) {
    let mut orders: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
    for told in evidence.told {
        orders.entry(&told.order_id).or_default().push(told);
    }
    for booked in evidence.book {
        let net = u64::from(booked.net_charges());
        verdict.gateway_charges += net;
        verdict.gateway_minor += net * booked.amount_minor;
        verdict.gateway_reversed += u64::from(booked.charges) - net;
    }
    for told in orders.values() {
        judge_order(verdict, told, book, waiting);
    }
    let asked: HashSet<PaymentId> = evidence.told.iter().map(|t| t.payment_id).collect();
    for booked in evidence
        .book
        .iter()
        .filter(|b| !asked.contains(&b.payment_id) && b.net_charges() > 0)
    {
        verdict.unasked.push(Fault {
            payment_id: booked.payment_id,
            order_id: booked.order_id.clone(),
            what: format!("charged {}, and no device asked", booked.amount_minor),
        });
    }
}

/// One order: its customer may be charged once if told yes, else never.
fn judge_order(
    verdict: &mut Verdict,
    told: &[&Told],
    book: &HashMap<PaymentId, &Booked>,
    waiting: &HashMap<PaymentId, &Waiting>,
) {
    let charges_of = |t: &Told| book.get(&t.payment_id).map_or(0, |b| b.net_charges());
    let being_reversed = |t: &Told| waiting.get(&t.payment_id).is_some_and(|w| w.reversal);
    let mut left = u32::from(told.iter().any(|t| t.approved()));
    // Charges that the customer was told of come first.
    let by_answer = |wanted: bool| told.iter().filter(move |t| t.approved() == wanted);
    for told in by_answer(true).chain(by_answer(false)) {
        let charges = charges_of(told);
        if charges == 0 {
            continue;
        }
        if told.approved() && charges <= left {
            left -= charges;
        } else if !told.approved() && charges == 1 && being_reversed(told) {
            verdict.reversals_waiting += 1;
        } else if matches!(told.answer, Answer::None(_)) {
            verdict
                .charged_untold
                .push(fault(told, "charged, and the device got no answer".to_owned()));
        } else {
            let what = match told.approved() {
                true => format!("charged {charges} times for an order paid once"),
                false => format!("charged {charges} times, and the customer was told no"),
            };
            verdict.charged_twice.push(fault(told, what));
            left = 0;
        }
    }
}

fn fault(told: &Told, what: String) -> Fault {
    Fault {
        payment_id: told.payment_id,
        order_id: told.order_id.clone(),
        what,
    }
}

#[cfg(test)]
mod tests;
