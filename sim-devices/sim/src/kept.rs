//! The model of allowances: what the entries say is kept back, and what must
//! come of it when a device tells of its approvals.

use std::collections::BTreeSet;
use std::rc::Rc;

use hub_protocol::entry::{EntryTime, Event};
use hub_protocol::{
    Allowance, AllowanceMisuse, AllowanceReturn, Decision, DeviceId, Digest, PaymentId, PaymentState, Reason,
    TransactionType,
};

use crate::ledger::{Ledger, Signed, Subject, objection_always};
use crate::violation::{Checked, Rule, hold};
use crate::wallet::{Approval, Before, misuses};

/// The newest allowance of a device.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) allowance: Rc<Allowance>,
    /// Its payments, in the order of the chain.
    pub(crate) spent: Vec<Rc<Approval>>,
    /// The entry that closed it, and whether a person did.
    pub(crate) closed: Option<(u64, bool)>,
}

impl Kept {
    /// What is kept back, in minor units, and for how many payments.
    pub(crate) fn back(&self) -> (u64, u32) {
        if self.closed.is_some() {
            return (0, 0);
        }
        let left = self.allowance.amount_minor.saturating_sub(self.total());
        (left, self.allowance.count.saturating_sub(self.count()))
    }

    fn total(&self) -> u64 {
        self.spent.iter().map(|approval| approval.amount()).sum()
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.spent.len()).unwrap_or(u32::MAX)
    }

    fn head(&self) -> Digest {
        let last = self.spent.last();
        last.map_or_else(|| self.allowance.digest(), |approval| approval.digest)
    }

    fn before(&self, card: &str) -> Before {
        let of_card = |approval: &&Rc<Approval>| approval.message.request.card.token == card;
        Before {
            count: self.count(),
            total: self.total(),
            last_ms: self
                .spent
                .iter()
                .map(|approval| approval.receipt.device_time_ms)
                .max()
                .unwrap_or_default(),
            of_card: self
                .spent
                .iter()
                .filter(of_card)
                .map(|approval| approval.amount())
                .sum(),
        }
    }

    fn follows(&self, approval: &Approval) -> bool {
        let receipt = &approval.receipt;
        receipt.index == self.count() + 1
            && receipt.previous == self.head()
            && receipt.total_minor == self.total() + receipt.amount_minor
    }

    fn holds(&self, approval: &Approval) -> bool {
        let known = usize::try_from(receipt_place(approval))
            .ok()
            .and_then(|place| self.spent.get(place));
        known.is_some_and(|known| known.digest == approval.digest)
    }

    pub(crate) fn agrees(&self, said: &AllowanceReturn) -> bool {
        (said.count, said.total_minor, said.head) == (self.count(), self.total(), self.head())
    }
}

fn receipt_place(approval: &Approval) -> u64 {
    u64::from(approval.receipt.index).wrapping_sub(1)
}

/// What must come of a payment that a device has approved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// The id belongs to other content.
    pub(crate) conflict: bool,
    /// It is decided now.
    pub(crate) decided: bool,
    /// It is the next one of the chain.
    pub(crate) next: bool,
    pub(crate) misuses: BTreeSet<AllowanceMisuse>,
}

/// What must come of an allowance that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DueReturn {
    /// There never was one of this number.
    Unknown,
    /// It is closed, by an entry unless it was before.
    Closed { now: bool },
    /// The hub knows another end, and takes note of it if no honest device
    /// could say so.
    Other { forked: bool },
}

impl Ledger {
    /// What is kept back of a subject, in minor units, and for how many
    /// payments.
    pub(crate) fn kept_back(&self, subject: &Subject) -> (u64, u32) {
        let of = |device: &DeviceId| self.kept.get(device).map(Kept::back).unwrap_or_default();
        match subject {
            Subject::Device(device) => of(device),
            Subject::Store => self.kept.keys().map(of).fold((0, 0), |sum, one| {
                let (minor, count): (u64, u32) = sum;
                (minor + one.0, count + one.1)
            }),
            Subject::Card(_) | Subject::Staff(_) => (0, 0),
        }
    }

    /// What must come of it, if it is told to the hub now.
    pub(crate) fn due(&self, approval: &Approval) -> Due {
        let receipt = &approval.receipt;
        let known = self.payments.get(&receipt.payment_id);
        if known.is_some_and(|p| p.device != approval.device || p.request_digest != receipt.request_digest) {
            return Due {
                conflict: true,
                ..Due::default()
            };
        }
        let decided = known.is_none_or(|p| p.decided.is_none());
        let (next, found) = self.judge(approval);
        let by_device = known
            .and_then(|p| p.decided.as_ref())
            .is_some_and(|(_, record)| record.allowance.is_some());
        // What is outside of the chain is told of once, and of a device that
        // is known for it not again.
        let quiet = !next && known.is_some() && (by_device || self.quarantined.contains(&approval.device));
        Due {
            conflict: false,
            decided,
            next,
            misuses: if quiet { BTreeSet::new() } else { found },
        }
    }

    fn judge(&self, approval: &Approval) -> (bool, BTreeSet<AllowanceMisuse>) {
        let receipt = &approval.receipt;
        let one = |kind| (false, BTreeSet::from([kind]));
        let newest = self.kept.get(&approval.device);
        let Some(newest) = newest.filter(|kept| receipt.number <= kept.allowance.number) else {
            return one(AllowanceMisuse::NotGiven);
        };
        let older = receipt.number < newest.allowance.number;
        let known = self.payments.contains_key(&receipt.payment_id);
        if known && (older || newest.holds(approval)) {
            return (false, BTreeSet::new());
        }
        if older || newest.closed.is_some_and(|(_, by_a_person)| !by_a_person) {
            return one(AllowanceMisuse::Reused);
        }
        if receipt.index > newest.count() + 1 {
            return one(AllowanceMisuse::ReceiptGap);
        }
        if !newest.follows(approval) {
            return one(AllowanceMisuse::Forked);
        }
        if newest.count() >= newest.allowance.count {
            return one(AllowanceMisuse::Overspent);
        }
        let request = &approval.message.request;
        let before = newest.before(&request.card.token);
        let found = misuses(&newest.allowance, request, before, receipt.device_time_ms);
        (true, found)
    }

    pub(crate) fn due_return(&self, device: DeviceId, said: &AllowanceReturn) -> DueReturn {
        let Some(kept) = self.kept.get(&device).filter(|kept| {
            let newest = kept.allowance.number;
            said.number >= 1 && said.number <= newest
        }) else {
            return DueReturn::Unknown;
        };
        if kept.closed.is_some() || said.number < kept.allowance.number {
            DueReturn::Closed { now: false }
        } else if kept.agrees(said) {
            DueReturn::Closed { now: true }
        } else {
            let forked = said.count <= kept.count() && !self.quarantined.contains(&device);
            DueReturn::Other { forked }
        }
    }

    /// Takes in an entry about allowances.
    pub(crate) fn apply_allowance(
        &mut self,
        event: &Event,
        sequence: u64,
        time: EntryTime,
        signed: &Signed,
        max_queue: usize,
    ) -> Checked {
        match event {
            Event::AllowanceGiven { allowance } => {
                self.hold_given(allowance, time, max_queue)?;
                let kept = Kept {
                    allowance: Rc::new(allowance.clone()),
                    spent: Vec::new(),
                    closed: None,
                };
                self.kept.insert(allowance.device, kept);
                Ok(())
            }
            Event::AllowanceSpent { device, receipt, .. } => {
                let Some(approval) = signed.approvals.get(receipt).filter(|a| a.device == *device) else {
                    return hold(false, Rule::OneCharge, || {
                        "a receipt that no device has signed is spent".to_owned()
                    });
                };
                let id = approval.receipt.payment_id;
                let at_risk = self.payments.get(&id).is_some_and(|p| p.decided.is_some());
                hold(at_risk, Rule::NoCeilingPassed, || {
                    format!("{id} is taken out of an allowance before it is at risk itself")
                })?;
                let kept = self.kept.get_mut(device).filter(|kept| {
                    kept.allowance.number == approval.receipt.number && kept.follows(approval)
                });
                let Some(kept) = kept else {
                    return hold(false, Rule::OneCharge, || {
                        format!("{id} is spent, and does not follow in its allowance")
                    });
                };
                kept.spent.push(Rc::clone(approval));
                Ok(())
            }
            Event::AllowanceReturned {
                device,
                number,
                statement,
                operator,
            } => {
                let said = statement.as_ref().and_then(|bytes| signed.returns.get(bytes));
                let kept = self
                    .kept
                    .get_mut(device)
                    .filter(|kept| kept.allowance.number == *number && kept.closed.is_none());
                let Some(kept) = kept else {
                    return hold(false, Rule::NoCeilingPassed, || {
                        format!("allowance {number} is closed, and is not open")
                    });
                };
                let by_device = said.is_some_and(|said| said.number == *number && kept.agrees(said));
                hold(
                    by_device || statement.is_none() && operator.is_some(),
                    Rule::NoCeilingPassed,
                    || format!("allowance {number} is closed by nobody's word"),
                )?;
                kept.closed = Some((sequence, operator.is_some()));
                Ok(())
            }
            Event::AllowanceMisused { device, .. } => {
                self.quarantined.insert(*device);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A device's approval is a decision of its own kind.
    pub(crate) fn hold_device_decision(
        &self,
        id: &PaymentId,
        record: &hub_protocol::entry::DecisionRecord,
        sequence: u64,
        signed: &Signed,
    ) -> Checked {
        let Some(payment) = self.payments.get(id) else {
            return Ok(());
        };
        let told = signed.approvals.values().any(|approval| {
            approval.device == payment.device
                && approval.receipt.payment_id == *id
                && approval.receipt.request_digest == payment.request_digest
                && record.allowance == Some(approval.receipt.number)
        });
        hold(told, Rule::SilenceMeansNo, || {
            format!("{id} is decided by a device that never approved it")
        })?;
        let request = &payment.asked.request;
        let kind = request.terms.as_ref().map(|terms| terms.transaction_type);
        let refund = (kind == Some(TransactionType::Refund)).then_some(Reason::TransactionTypeNotAllowed);
        let (decision, reason) = match objection_always(request).or(refund) {
            Some(reason) => (Decision::Declined, reason),
            None => (Decision::ApprovedOffline, Reason::None),
        };
        let agreed = (record.decision, record.reason) == (decision, reason)
            && record.lifted.is_none()
            && record.gateway.is_none();
        let asked = payment.request_sequence < sequence;
        hold(
            record.reversal_queued == (asked && !decision.approved()),
            Rule::OneCharge,
            || {
                format!(
                    "{id} is {decision}, was asked online: {asked}, and reversed: {}",
                    record.reversal_queued
                )
            },
        )?;
        hold(agreed, Rule::NothingLost, || {
            format!(
                "{id} was approved by its device, which makes it {decision} ({reason}), and is {} ({})",
                record.decision, record.reason
            )
        })
    }

    /// What a device holds and has approved is inside what is kept back for it.
    pub(crate) fn hold_inside<'a>(
        &self,
        device: DeviceId,
        number: u64,
        unsynced: impl Iterator<Item = &'a Rc<Approval>>,
    ) -> Checked {
        let Some(kept) = self.kept.get(&device) else {
            return hold(false, Rule::NoCeilingPassed, || {
                format!("allowance {number} is held, and the ledger knows of none")
            });
        };
        if kept.closed.is_some_and(|(_, by_a_person)| by_a_person) {
            return Ok(());
        }
        let out_there = unsynced.filter(|a| {
            a.receipt.number == number && (number != kept.allowance.number || a.receipt.index > kept.count())
        });
        let (minor, count) = out_there.fold((0, 0), |(minor, count), a| (minor + a.amount(), count + 1));
        let back = kept.back();
        hold(minor <= back.0 && count <= back.1, Rule::NoCeilingPassed, || {
            format!(
                "{minor} in {count} payments are approved out of reach under allowance {number}, {} in {} are kept back",
                back.0, back.1
            )
        })
    }

    /// Whether a payment may still be told of as the device's approval.
    pub(crate) fn is_final(&self, id: &PaymentId) -> bool {
        self.payments
            .get(id)
            .is_some_and(|p| p.state != PaymentState::Open && p.decided.is_some())
    }
}
