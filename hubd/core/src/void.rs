//! Voiding a payment, which cancels it while it is unanswered, and asking where one stands.

use hub_protocol::entry::{Event, VoidEffect};
use hub_protocol::{DeviceId, PaymentId, PaymentState, RefusalCode, VoidRequest};

use crate::core::Core;
use crate::effect::Reply;
use crate::input::Ticket;
use crate::state::PaymentRecord;

impl Core {
    pub(crate) fn void(&mut self, ticket: Ticket, device: DeviceId, request: &VoidRequest, signed: Vec<u8>) {
        let id = request.payment_id;
        if self.refuse_if_stopping(ticket)
            || self.refuse_if_not_enrolled(ticket, device)
            || self.refuse_if_not_its_payment(ticket, device, &id)
        {
            return;
        }
        let known = self.state.payment(&id);
        let Some((state, requested)) = known.map(|payment| (payment.state, payment.request_sequence)) else {
            return;
        };
        if state == PaymentState::Settled && requested <= self.state.archives().through {
            self.refuse(
                ticket,
                RefusalCode::PaymentArchived,
                "the payment is too old to be voided: it is in the archive; refund it instead",
            );
            return;
        }
        if state == PaymentState::Settled && requested <= self.archiving {
            self.refuse(
                ticket,
                RefusalCode::Busy,
                "the payment is about to be archived; try again shortly",
            );
            return;
        }
        match state {
            PaymentState::Open => {
                self.cancel_open(id, device);
                self.write_void(id, signed);
            }
            PaymentState::Refused | PaymentState::SettledDeclined => {
                self.refuse(
                    ticket,
                    RefusalCode::NothingToVoid,
                    "the payment was not approved; there is nothing to void",
                );
                return;
            }
            PaymentState::Queued | PaymentState::Parked | PaymentState::Settled => {
                self.write_void(id, signed);
            }
            // Voided before: the answer is where that stands.
            PaymentState::Voided
            | PaymentState::ReversalQueued
            | PaymentState::ReversalParked
            | PaymentState::Reversed => {}
        }
        self.reply_status(ticket, id);
    }

    fn write_void(&mut self, id: PaymentId, signed: Vec<u8>) {
        let effect = if self.may_have_been_sent(&id) {
            VoidEffect::ReversalQueued
        } else {
            VoidEffect::CancelledBeforeSending
        };
        if let Some(due_ms) = self.state.payment(&id).and_then(PaymentRecord::retry_due_ms) {
            self.retries.remove(due_ms, id);
        }
        self.append(
            Event::PaymentVoided {
                payment_id: id,
                request: signed,
                effect,
            },
            None,
            None,
        );
        let waits = |payment: &PaymentRecord| payment.queue_sequence.is_some();
        if !self.state.payment(&id).is_some_and(waits) {
            self.contacts.forget(&id);
        }
    }

    pub(crate) fn status(&mut self, ticket: Ticket, device: DeviceId, id: PaymentId) {
        if !self.refuse_if_not_enrolled(ticket, device)
            && !self.refuse_if_not_its_payment(ticket, device, &id)
        {
            self.reply_status(ticket, id);
        }
    }

    fn refuse_if_not_its_payment(&mut self, ticket: Ticket, device: DeviceId, id: &PaymentId) -> bool {
        match self.state.payment(id).map(|payment| payment.device) {
            Some(owner) if owner == device => return false,
            Some(_) => {
                self.refuse(
                    ticket,
                    RefusalCode::PaymentOfOtherDevice,
                    "the payment was made by another device",
                );
            }
            None => self.refuse(
                ticket,
                RefusalCode::PaymentUnknown,
                "no payment is known under this id",
            ),
        }
        true
    }

    fn reply_status(&mut self, ticket: Ticket, id: PaymentId) {
        let Some(payment) = self.state.payment(&id) else {
            return;
        };
        let (hub, sequence) = (self.settings.hub, payment.latest);
        let reply = Reply::Status {
            status: Box::new(payment.status(hub, id)),
            receipt: payment.receipt(hub, id).map(Box::new),
        };
        self.reply_after(sequence, ticket, reply);
    }
}
