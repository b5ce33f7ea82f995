//! Allowances: what a device may approve while it cannot reach the hub.
//!
//! What always holds:
//!
//! 1. All of an allowance is at risk from the entry that gives it, so it was
//!    taken out of what others may use before the device can know of it.
//! 2. It is kept back until its payments have come, or the device returns it,
//!    or a person declares the device lost; never until some time. A device out
//!    of reach may have approved all of it.
//! 3. A device has one open allowance. Who asks again gets the same.
//! 4. Every payment that a device says it approved is kept, whatever it did
//!    wrong: the customer has left. One that is refused for good leaves its
//!    amount at risk, and its place in the chain is taken.
//! 5. A chain with two ends is closed. What either end may still bring stays
//!    at risk until a person has looked at the device.

use hub_protocol::entry::{DecisionRecord, Event};
use hub_protocol::{
    Allowance, AllowanceMisuse, AllowanceReturn, Decision, DeviceId, DeviceReceipt, PaymentRequest, Reason,
    Refusal, RefusalCode, SealedCard, TransactionType,
};

mod size;

use size::size;

use crate::core::Core;
use crate::decide::{objection_always, refuse, submission};
use crate::effect::{Effect, OpenAllowance, OperatorReply, Reply};
use crate::input::Ticket;
use crate::reserve::{Link, Reserved};
use crate::state::{CardKey, DeviceRecord, PaymentRecord};

/// A payment that a device approved, as it arrives.
pub(crate) struct Synced<'a> {
    pub(crate) request: &'a PaymentRequest,
    pub(crate) signed: Vec<u8>,
    pub(crate) sealed_card: SealedCard,
    pub(crate) receipt: &'a DeviceReceipt,
    pub(crate) signed_receipt: Vec<u8>,
}

/// What a device's receipt is, by what is known of its allowance.
struct Judged {
    link: Link,
    /// It shows that there is another end of the chain than the hub knows.
    two_ends: bool,
    misuses: Vec<AllowanceMisuse>,
}

impl Core {
    pub(crate) fn give_allowance(&mut self, ticket: Ticket, device: DeviceId, closed: Option<u64>) {
        if self.refuse_if_stopping(ticket) || self.refuse_if_not_enrolled(ticket, device) {
            return;
        }
        let Some(asking) = self.state.device(&device) else {
            return;
        };
        let counts = !asking.quarantined() && self.policy_counts_by_root();
        if let Some(held) = asking.open_allowance().filter(|_| counts) {
            let (allowance, chain) = (Box::new(held.allowance.clone()), held.chain);
            let reply = Reply::Allowance { allowance, chain };
            self.reply_after(self.state.head().sequence, ticket, reply);
            return;
        }
        let last = asking.allowance.as_ref().map_or(0, |held| held.allowance.number);
        // A hub restored from a backup has forgotten allowances.
        let number = last.max(closed.unwrap_or(0)).checked_add(1);
        let situation = self.situation_of_any(asking);
        let sized = match asking.quarantined() {
            true => Err(Reason::DeviceSuspended),
            // One that was given before the root said no is not shown again.
            false if !self.policy_counts_by_root() => Err(Reason::PolicyExpired),
            false => size(&situation, self.state.store().offline_since_ms),
        };
        let (policy, mut allowance) =
            match sized.and_then(|sized| Ok((sized, number.ok_or(Reason::DeviceCeiling)?))) {
                Err(reason) => {
                    let none = self
                        .state
                        .policy()
                        .is_some_and(|policy| policy.allowance.is_none());
                    let text = match reason {
                        Reason::OfflineDisabled if none => {
                            "no allowance is given in this shop: the policy has no [allowance]".to_owned()
                        }
                        _ => format!("no allowance is given to this device now: {reason}"),
                    };
                    self.refuse(ticket, RefusalCode::AllowanceNotGiven, &text);
                    return;
                }
                Ok(((policy, allowance), number)) => (policy, Allowance { number, ..allowance }),
            };
        allowance.hub = self.settings.hub;
        allowance.device = device;
        allowance.policy_version = policy.version;
        let event = Event::AllowanceGiven {
            allowance: allowance.clone(),
        };
        let sequence = self.append(event, None, None);
        let chain = hub_protocol::AllowanceChain::new(&allowance);
        let allowance = Box::new(allowance);
        self.reply_after(sequence, ticket, Reply::Allowance { allowance, chain });
    }

    /// A payment that a device approved while it could not reach the hub.
    pub(crate) fn sync(&mut self, ticket: Ticket, device: DeviceId, synced: Synced<'_>) {
        if self.refuse_if_stopping(ticket) || self.refuse_if_not_enrolled(ticket, device) {
            return;
        }
        let (id, number) = (synced.request.payment_id, synced.receipt.number);
        if let Err(refusal) = synced.receipt.check(number, synced.request, &synced.signed) {
            self.sync_refused(ticket, device, synced.receipt, synced.signed_receipt, refusal);
            return;
        }
        let card = CardKey::of_token(&synced.request.card.token);
        let known = self.state.payment(&id);
        let conflict = known.is_some_and(|known| {
            known.device != device || known.request_digest != synced.receipt.request_digest
        });
        if conflict {
            let refusal = Refusal::new(
                RefusalCode::PaymentIdConflict,
                "this payment id was used before with other content",
            );
            self.sync_refused(ticket, device, synced.receipt, synced.signed_receipt, refusal);
            return;
        }
        if known.is_none() && !self.state.knows_card(&card) {
            self.refuse(
                ticket,
                RefusalCode::LedgerUnavailable,
                "what the card has at risk cannot be read; try again",
            );
            return;
        }
        let judged = self.judge(device, &synced, card);
        if judged.two_ends {
            // Before the decision: what may come is never not at risk.
            self.forked(device, synced.receipt);
        }
        self.decide_synced(device, &synced);
        if judged.link == Link::Next {
            let event = Event::AllowanceSpent {
                device,
                receipt: synced.signed_receipt.clone(),
                card: card.0,
            };
            self.append(event, None, None);
        }
        for kind in judged.misuses {
            self.misused(device, number, kind, synced.signed_receipt.clone());
        }
        let receipt = self
            .state
            .payment(&id)
            .and_then(|payment| payment.receipt(self.settings.hub, id));
        if let Some(receipt) = receipt {
            // All of it, or the device would forget what the hub does not know.
            let sequence = self.state.head().sequence;
            self.reply_after(sequence, ticket, Reply::Synced(Box::new(receipt)));
        }
    }

    /// The device's approval is the decision, if there is none yet.
    fn decide_synced(&mut self, device: DeviceId, synced: &Synced<'_>) {
        let id = synced.request.payment_id;
        let record = self.record_of(synced);
        match self.state.payment(&id).map(|known| known.decided.is_some()) {
            Some(true) => {}
            // Asked online before the device lost the hub: the customer has
            // been told, so nobody waits for the gateway any more. What it has
            // taken of something that no device may approve goes back.
            Some(false) => {
                let record = DecisionRecord {
                    reversal_queued: !record.decision.approved(),
                    ..record
                };
                self.decide_open(id, device, record);
            }
            None => {
                let card = record.decision.approved();
                let card = card.then(|| (id, synced.sealed_card.clone()));
                let event = Event::PaymentDecided {
                    payment_id: id,
                    device,
                    request: Some(synced.signed.clone()),
                    record,
                };
                self.append(event, Some(synced.request), card);
            }
        }
    }

    fn record_of(&self, synced: &Synced<'_>) -> DecisionRecord {
        let refund = synced.request.transaction_type() == TransactionType::Refund;
        let money_out = refund.then_some(Reason::TransactionTypeNotAllowed);
        let record = match objection_always(synced.request, self.settings.currency).or(money_out) {
            // No device can turn the card's refusal into an approval, nor give
            // money away.
            Some(reason) => refuse(reason),
            None => DecisionRecord {
                decision: Decision::ApprovedOffline,
                submission: Some(submission(synced.request.cryptogram)),
                ..refuse(Reason::None)
            },
        };
        DecisionRecord {
            allowance: Some(synced.receipt.number),
            percent: u8::try_from(self.store_percent())
                .ok()
                .filter(|percent| *percent < 100),
            ..record
        }
    }

    /// A payment that a device approved cannot be taken. The customer has left
    /// all the same, so its place in the chain is, and its amount is at risk
    /// until a person has looked. What is beside the receipt is not kept.
    pub(crate) fn sync_refused(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        receipt: &DeviceReceipt,
        signed_receipt: Vec<u8>,
        refusal: Refusal,
    ) {
        if self.refuse_if_stopping(ticket) || self.refuse_if_not_enrolled(ticket, device) {
            return;
        }
        let told = self.state.device(&device).is_some_and(DeviceRecord::misused);
        let number = receipt.number;
        let link = self.link(device, receipt);
        let judged = Judged::of(link, told, Vec::new);
        if judged.two_ends {
            self.forked(device, receipt);
            for kind in judged.misuses {
                self.misused(device, number, kind, signed_receipt.clone());
            }
        } else if link == Link::Next {
            if !told {
                self.misused(
                    device,
                    number,
                    AllowanceMisuse::PaymentUnusable,
                    signed_receipt.clone(),
                );
            }
            let event = Event::AllowancePaymentRefused {
                device,
                receipt: signed_receipt,
                refusal: refusal.code,
            };
            self.append(event, None, None);
        }
        let sequence = self.state.head().sequence;
        self.reply_after(sequence, ticket, Reply::Refused(refusal));
    }

    fn link(&self, device: DeviceId, receipt: &DeviceReceipt) -> Link {
        let asking = self.state.device(&device);
        let held = asking.and_then(|asking| asking.allowance.as_deref());
        held.map_or(Link::NotGiven, |held| held.link(receipt))
    }

    fn judge(&self, device: DeviceId, synced: &Synced<'_>, card: CardKey) -> Judged {
        let known = self.state.payment(&synced.receipt.payment_id);
        let asking = self.state.device(&device);
        // Asked again, or of a device that is known for it.
        let again = known.is_some_and(by_allowance);
        let told = again || asking.is_some_and(DeviceRecord::misused);
        let link = match self.link(device, synced.receipt) {
            // It can have been in its place; or another receipt for a payment
            // that is accounted, which brings nothing.
            Link::Older if known.is_some_and(|payment| payment.decided.is_some()) => Link::Known,
            Link::Forked if again => Link::Known,
            link => link,
        };
        Judged::of(link, told, || self.misuses_of(device, synced, card))
    }

    /// What is wrong with a receipt that is the next of its chain.
    fn misuses_of(&self, device: DeviceId, synced: &Synced<'_>, card: CardKey) -> Vec<AllowanceMisuse> {
        let asking = self.state.device(&device);
        let Some(held) = asking.and_then(|asking| asking.allowance.as_deref()) else {
            return Vec::new();
        };
        let (chain, spent) = (&held.chain, held.of_card(&card));
        let at_ms = synced.receipt.device_time_ms;
        let against = held.allowance.objections(synced.request, chain, spent, at_ms);
        let mut misuses: Vec<_> = against.into_iter().map(AllowanceMisuse::of).collect();
        misuses.sort_unstable();
        misuses.dedup();
        misuses
    }

    /// This receipt is of another end of the chain than the hub knows.
    fn forked(&mut self, device: DeviceId, receipt: &DeviceReceipt) {
        let asking = self.state.device(&device);
        let Some(held) = asking.and_then(|asking| asking.allowance.as_deref()) else {
            return;
        };
        let mut both = held.of_both_ends(receipt.index, &receipt.previous);
        // Of what was overspent there is no less than what came.
        both.minor = both.minor.max(receipt.amount_minor);
        self.close_forked(device, receipt.number, both);
    }

    fn close_forked(&mut self, device: DeviceId, number: u64, withheld: Reserved) {
        let event = Event::AllowanceForked {
            device,
            number,
            amount_minor: withheld.minor,
            count: withheld.count,
        };
        self.append(event, None, None);
    }

    fn misused(&mut self, device: DeviceId, number: u64, kind: AllowanceMisuse, evidence: Vec<u8>) {
        let event = Event::AllowanceMisused {
            device,
            number,
            kind,
            evidence,
        };
        let sequence = self.append(event, None, None);
        self.after(sequence, Effect::AllowanceMisused { device, number, kind });
    }

    pub(crate) fn return_allowance(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        statement: &AllowanceReturn,
        signed: Vec<u8>,
    ) {
        if self.refuse_if_stopping(ticket) || self.refuse_if_not_enrolled(ticket, device) {
            return;
        }
        let number = statement.number;
        let asking = self.state.device(&device);
        let held = asking.and_then(|asking| asking.allowance.as_deref());
        let Some(held) = held.filter(|held| (1..=held.allowance.number).contains(&number)) else {
            self.refuse(
                ticket,
                RefusalCode::AllowanceUnknown,
                "this device has never had an allowance of this number",
            );
            return;
        };
        let (chain, closed) = (
            held.chain,
            held.closed.is_some() || number < held.allowance.number,
        );
        if !closed && !statement.agrees_with(&chain) {
            // Who has approved more than is known has still to sync it.
            if statement.count > chain.index {
                self.refuse(
                    ticket,
                    RefusalCode::AllowanceNotSynced,
                    "the hub knows another end of this allowance's receipts; sync what is missing first",
                );
                return;
            }
            // This end brings nothing more, but what it says it has spent may
            // not have come; of the one that the hub knows the rest may.
            let mut withheld = held.reserved;
            withheld.add(Reserved {
                minor: statement.total_minor,
                count: statement.count,
            });
            self.close_forked(device, number, withheld);
            self.misused(device, number, AllowanceMisuse::Forked, signed);
        } else if !closed {
            let event = Event::AllowanceReturned {
                device,
                number,
                statement: Some(signed),
                operator: None,
            };
            self.append(event, None, None);
        }
        self.reply_after(self.state.head().sequence, ticket, Reply::Returned { number });
    }

    pub(crate) fn open_allowances(&self) -> Vec<OpenAllowance> {
        let open = self.state.devices().filter_map(|device| {
            let held = device.allowance.as_deref()?;
            let out = held.closed.is_none() || held.withheld.is_some();
            out.then(|| OpenAllowance {
                device: device.registration.device,
                number: held.allowance.number,
                reserved: device.reserved(),
                expires_ms: held.allowance.expires_ms,
            })
        });
        let mut open: Vec<_> = open.collect();
        open.sort_unstable_by_key(|one| one.device);
        open
    }

    /// The number of a device's allowance, if something is kept back for it.
    pub(crate) fn kept_back_for(&self, device: DeviceId) -> Option<u64> {
        let held = self.state.device(&device)?.allowance.as_deref()?;
        (held.closed.is_none() || held.withheld.is_some()).then_some(held.allowance.number)
    }

    /// A person declares a device lost.
    pub(crate) fn forfeit_allowance(&mut self, ticket: Ticket, operator: String, device: DeviceId) {
        let Some(number) = self.kept_back_for(device) else {
            let text = "no such device is enrolled, or nothing is kept back for it";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        };
        let event = Event::AllowanceReturned {
            device,
            number,
            statement: None,
            operator: Some(operator),
        };
        let sequence = self.append(event, None, None);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }
}

impl Judged {
    /// `told`: nothing new would be said about the device, or the payment.
    fn of(link: Link, told: bool, of_next: impl FnOnce() -> Vec<AllowanceMisuse>) -> Self {
        let unless_told = |kind| if told { Vec::new() } else { vec![kind] };
        let misuses = match link {
            Link::Known => Vec::new(),
            Link::Next => of_next(),
            // It is closed by that, so this is said once.
            Link::Forked => vec![AllowanceMisuse::Forked],
            Link::NotGiven => unless_told(AllowanceMisuse::NotGiven),
            Link::Older | Link::Closed => unless_told(AllowanceMisuse::Reused),
            Link::Ahead => unless_told(AllowanceMisuse::ReceiptGap),
        };
        Self {
            link,
            two_ends: link == Link::Forked || (link == Link::Closed && !told),
            misuses,
        }
    }
}

/// Whether a device's own receipt for it has come before.
fn by_allowance(payment: &PaymentRecord) -> bool {
    payment
        .decided
        .as_ref()
        .is_some_and(|decided| decided.record.allowance.is_some())
}
