//! The model of allowances: what the entries say is kept back, and what must
//! come of it when a device tells of its approvals.

use std::collections::BTreeSet;
use std::rc::Rc;

use hub_protocol::entry::{EntryTime, Event};
use hub_protocol::{
    Allowance, AllowanceMisuse, AllowanceReturn, Decision, DeviceId, Digest, PaymentId, PaymentState, Reason,
    RefusalCode, TransactionType,
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
    /// Indexes of those that were refused: nobody can tell whose card it was.
    refused: BTreeSet<u32>,
    /// The entry that closed it, and whether a person did.
    pub(crate) closed: Option<(u64, bool)>,
    /// What stays at risk until a person has looked, in minor units, and for
    /// how many payments.
    pub(crate) withheld: (u64, u32),
    /// The most that one card has paid under those before it.
    card_before: u64,
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
        let of_card = |approval: &&Rc<Approval>| {
            approval.message.request.card.token == card && !self.refused.contains(&approval.receipt.index)
        };
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

    /// What is still out: kept back, or withheld.
    pub(crate) fn out(&self) -> Option<(u64, u32)> {
        let both = plus(self.back(), self.withheld);
        (self.closed.is_none() || self.withheld != (0, 0)).then_some(both)
    }

    /// The most that one card can have paid by this device, as far as nobody
    /// has answered for it.
    fn of_one_card(&self) -> u64 {
        let most = self.allowance.card_ceiling_minor;
        let ends = match self.closed {
            None => most,
            Some(_) if self.withheld == (0, 0) => most.min(self.total()),
            Some(_) => most + most.min(self.total()),
        };
        ends + self.card_before
    }

    /// What both ends of the chain may still bring, of which one is known and
    /// the other has this receipt: all that was left where they part, and
    /// nothing is common that cannot be shown to be.
    fn both_ends(&self, receipt: &hub_protocol::DeviceReceipt) -> (u64, u32) {
        let mut left = (self.allowance.amount_minor, self.allowance.count);
        let mut head = self.allowance.digest();
        let (mut parts, mut before) = (left, 1);
        for known in core::iter::once(None).chain(self.spent.iter().map(Some)) {
            if let Some(known) = known {
                left = (left.0.saturating_sub(known.amount()), left.1.saturating_sub(1));
                head = known.digest;
                before += 1;
            }
            if receipt.previous == head && receipt.index.max(1) == before {
                parts = left;
            }
        }
        let sum = plus(self.back(), parts);
        (sum.0.max(receipt.amount_minor), sum.1)
    }

    pub(crate) fn agrees(&self, said: &AllowanceReturn) -> bool {
        (said.count, said.total_minor, said.head) == (self.count(), self.total(), self.head())
    }
}

fn plus(one: (u64, u32), other: (u64, u32)) -> (u64, u32) {
    (one.0 + other.0, one.1 + other.1)
}

fn receipt_place(approval: &Approval) -> u64 {
    u64::from(approval.receipt.index).wrapping_sub(1)
}

/// Where a receipt stands in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// It has come before, or the payment has by another receipt.
    Known,
    Next,
    /// It has no place there.
    Outside,
    /// The chain is closed, and not by a person.
    Closed,
    /// Another has its place.
    Forked,
}

impl Link {
    /// `told`: of this device, or this payment, nothing new would be said.
    fn has_two_ends(self, told: bool) -> bool {
        self == Self::Forked || self == Self::Closed && !told
    }
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
    /// The chain has two ends: so much, and so many, stay at risk.
    pub(crate) forked: Option<(u64, u32)>,
    pub(crate) misuses: BTreeSet<AllowanceMisuse>,
}

/// What must come of an allowance that is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DueReturn {
    /// There never was one of this number.
    Unknown,
    /// It is closed, by an entry unless it was before.
    Closed { now: bool },
    /// Receipts are missing.
    NotSynced,
    /// The hub knows another end, and what both may bring stays at risk.
    Forked((u64, u32)),
}

impl Ledger {
    /// What is kept back of a subject, in minor units, and for how many
    /// payments.
    pub(crate) fn kept_back(&self, subject: &Subject) -> (u64, u32) {
        let of = |device: &DeviceId| self.kept.get(device).and_then(Kept::out).unwrap_or_default();
        match subject {
            Subject::Device(device) => of(device),
            // Anybody may stand at every device that is out of reach.
            Subject::Store | Subject::Staff(_) => self.kept.keys().map(of).fold((0, 0), plus),
            Subject::Card(_) => (0, 0),
        }
    }

    /// The most that one card can have at risk by what devices have approved
    /// themselves, or may have.
    pub(crate) fn card_out_of_reach(&self) -> u64 {
        let all = self.kept.keys();
        all.map(|device| self.card_at_device(device)).sum()
    }

    fn card_at_device(&self, device: &DeviceId) -> u64 {
        let [exposure] = self.exposures(&[Subject::Device(*device)]);
        let kept = self.kept.get(device);
        let kept = kept.filter(|kept| exposure > 0 || kept.out().is_some());
        kept.map_or(0, Kept::of_one_card)
    }

    /// What must come of it, if it is told to the hub now.
    pub(crate) fn due(&self, approval: &Approval) -> Due {
        let receipt = &approval.receipt;
        let known = self.payments.get(&receipt.payment_id);
        let suspected = self.quarantined.contains(&approval.device);
        if known.is_some_and(|p| p.device != approval.device || p.request_digest != receipt.request_digest) {
            // Its place in the chain counts all the same.
            let (link, found) = self.judge(approval, false);
            let forked = link.has_two_ends(suspected);
            let due = Due {
                conflict: true,
                ..Due::default()
            };
            return match link {
                Link::Next if suspected => Due { next: true, ..due },
                Link::Next => Due {
                    next: true,
                    misuses: BTreeSet::from([AllowanceMisuse::PaymentUnusable]),
                    ..due
                },
                _ if forked => Due {
                    forked: self.of_both_ends(approval),
                    misuses: found,
                    ..due
                },
                _ => due,
            };
        }
        let decided = known.is_none_or(|p| p.decided.is_none());
        let by_device = known
            .and_then(|p| p.decided.as_ref())
            .is_some_and(|(_, record)| record.allowance.is_some());
        let (link, found) = self.judge(approval, by_device);
        // What is outside of the chain is told of once, and of a device that
        // is known for it not again. Another end closes the chain, so it is
        // told of in any case.
        let quiet = link == Link::Outside && (by_device || suspected);
        let forked = link.has_two_ends(by_device || suspected);
        let forked = forked.then(|| self.of_both_ends(approval)).flatten();
        Due {
            conflict: false,
            decided,
            next: link == Link::Next,
            forked,
            misuses: if quiet || link == Link::Closed && forked.is_none() {
                BTreeSet::new()
            } else {
                found
            },
        }
    }

    fn of_both_ends(&self, approval: &Approval) -> Option<(u64, u32)> {
        let kept = self.kept.get(&approval.device)?;
        Some(kept.both_ends(&approval.receipt))
    }

    /// `by_device`: the payment is decided by a receipt of the device's own.
    fn judge(&self, approval: &Approval, by_device: bool) -> (Link, BTreeSet<AllowanceMisuse>) {
        let receipt = &approval.receipt;
        let one = |link, kind| (link, BTreeSet::from([kind]));
        let newest = self.kept.get(&approval.device);
        let Some(newest) = newest.filter(|kept| receipt.number <= kept.allowance.number) else {
            return one(Link::Outside, AllowanceMisuse::NotGiven);
        };
        let older = receipt.number < newest.allowance.number;
        let known = self.payments.contains_key(&receipt.payment_id);
        if older && known || !older && newest.holds(approval) {
            return (Link::Known, BTreeSet::new());
        }
        if older {
            return one(Link::Outside, AllowanceMisuse::Reused);
        }
        if newest.closed.is_some_and(|(_, by_a_person)| !by_a_person) {
            return one(Link::Closed, AllowanceMisuse::Reused);
        }
        if receipt.index > newest.count() + 1 {
            return one(Link::Outside, AllowanceMisuse::ReceiptGap);
        }
        if !newest.follows(approval) {
            // A second receipt for a payment that the first accounts for.
            return match by_device {
                true => (Link::Known, BTreeSet::new()),
                false => one(Link::Forked, AllowanceMisuse::Forked),
            };
        }
        let request = &approval.message.request;
        let before = newest.before(&request.card.token);
        let found = misuses(&newest.allowance, request, before, receipt.device_time_ms);
        (Link::Next, found)
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
            match said.count > kept.count() {
                true => DueReturn::NotSynced,
                false => DueReturn::Forked(plus(kept.back(), (said.total_minor, said.count))),
            }
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
                    refused: BTreeSet::new(),
                    closed: None,
                    withheld: self
                        .kept
                        .get(&allowance.device)
                        .map_or((0, 0), |before| before.withheld),
                    card_before: self.card_at_device(&allowance.device),
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
                let by_a_person = statement.is_none() && operator.is_some();
                let kept = self.kept.get_mut(device).filter(|kept| {
                    let out = kept.closed.is_none() || by_a_person && kept.withheld != (0, 0);
                    kept.allowance.number == *number && out
                });
                let Some(kept) = kept else {
                    return hold(false, Rule::NoCeilingPassed, || {
                        format!("allowance {number} is closed, and is not open")
                    });
                };
                let by_device = said.is_some_and(|said| said.number == *number && kept.agrees(said));
                hold(by_device || by_a_person, Rule::NoCeilingPassed, || {
                    format!("allowance {number} is closed by nobody's word")
                })?;
                kept.closed.get_or_insert((sequence, by_a_person));
                if by_a_person {
                    kept.withheld = (0, 0);
                }
                Ok(())
            }
            Event::AllowancePaymentRefused {
                device,
                receipt,
                refusal,
            } => {
                self.quarantined.insert(*device);
                let Some(approval) = signed.approvals.get(receipt).filter(|a| a.device == *device) else {
                    return hold(false, Rule::OneCharge, || {
                        "a receipt that no device has signed takes a place".to_owned()
                    });
                };
                let id = approval.receipt.payment_id;
                let other = self.payments.get(&id).is_some_and(|known| {
                    known.device != *device || known.request_digest != approval.receipt.request_digest
                });
                hold(
                    other && *refusal == RefusalCode::PaymentIdConflict,
                    Rule::NothingLost,
                    || format!("{id} was approved by its device, and is refused: {refusal}"),
                )?;
                let kept = self.kept.get_mut(device).filter(|kept| {
                    kept.allowance.number == approval.receipt.number && kept.follows(approval)
                });
                let Some(kept) = kept else {
                    return hold(false, Rule::NoCeilingPassed, || {
                        format!("{id} is refused, and does not follow in its allowance")
                    });
                };
                kept.refused.insert(approval.receipt.index);
                kept.spent.push(Rc::clone(approval));
                kept.withheld = plus(kept.withheld, (approval.amount(), 1));
                Ok(())
            }
            Event::AllowanceForked {
                device,
                number,
                amount_minor,
                count,
            } => {
                self.quarantined.insert(*device);
                let kept = self.kept.get_mut(device);
                let Some(kept) = kept.filter(|kept| kept.allowance.number == *number) else {
                    return hold(false, Rule::NoCeilingPassed, || {
                        format!("allowance {number} has two ends, and is not the newest")
                    });
                };
                kept.closed.get_or_insert((sequence, false));
                kept.withheld = plus(kept.withheld, (*amount_minor, *count));
                Ok(())
            }
            Event::AllowanceMisused { device, .. } | Event::CardNumbersSent { device, .. } => {
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
