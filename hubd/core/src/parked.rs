//! What a person does with a payment that waits for one: releases it, ends it
//! by what they found out elsewhere, or keeps one back.

use hub_protocol::card_number::holds_card_number;
use hub_protocol::entry::{Event, Finding, ParkReason};
use hub_protocol::{PaymentId, PaymentState};

use crate::core::Core;
use crate::effect::{OperatorReply, Reply};
use crate::input::{MAX_NOTE, Ticket};
use crate::record::Place;

impl Core {
    pub(crate) fn release(&mut self, ticket: Ticket, operator: String, id: PaymentId, not_there: bool) {
        let Some(state) = self.parked(ticket, id) else {
            return;
        };
        if not_there && state == PaymentState::ReversalParked {
            let text = "what is not there needs no reversal: close it as not there";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        let event = Event::PaymentReleased {
            payment_id: id,
            operator,
            finding: not_there.then_some(Finding::NotThere),
        };
        let sequence = self.append(event, None, None);
        self.queue.start_over(&id);
        if not_there {
            // What this process sent of it did not arrive; nothing is under
            // way, since it was parked.
            let since_ms = self.clock.effective_ms();
            self.contacts.not_found(id, since_ms, self.now.monotonic_ms);
        }
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    pub(crate) fn close(
        &mut self,
        ticket: Ticket,
        operator: String,
        id: PaymentId,
        finding: Finding,
        note: String,
    ) {
        let Some(state) = self.parked(ticket, id) else {
            return;
        };
        if state == PaymentState::ReversalParked && finding == Finding::Taken {
            let text =
                "the customer was told that it is not taken: have it undone there, then close it as undone";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        if finding != Finding::NotThere && self.never_left(&id) {
            let text = "it has never left the hub: release it, or close it as not there";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        if note.trim().is_empty() || note.len() > MAX_NOTE {
            let text = format!("the note must have 1 to {MAX_NOTE} bytes: who was asked, and what they said");
            self.operator_reply(ticket, OperatorReply::Refused(text));
            return;
        }
        if holds_card_number(&note) {
            let text =
                "the note holds a card number, which is never written down: give the reference instead";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        let Some(device) = self.state.payment(&id).map(|payment| payment.device) else {
            return;
        };
        let event = Event::PaymentClosed {
            payment_id: id,
            finding,
            note,
            operator,
        };
        let sequence = self.append(event, None, None);
        self.contacts.forget(&id);
        self.push_status(id, device, sequence);
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    /// Parks what waits, so that nothing of it is sent until it is released.
    pub(crate) fn keep_back(&mut self, ticket: Ticket, operator: &str, id: PaymentId) {
        let place = self.state.payment(&id).and_then(|payment| payment.place(id));
        let refusal = match place {
            Some(Place::Waiting(..)) if self.queue.under_way(&id) => {
                Some("it is under way to the gateway; try again in a moment")
            }
            Some(Place::Waiting(..)) => None,
            _ => Some("no payment that waits to be sent has this id"),
        };
        if let Some(text) = refusal {
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
            return;
        }
        self.park(id, ParkReason::KeptBack, operator);
        let sequence = self.state.head().sequence;
        self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
    }

    /// Whether a parked payment was kept back before anything of it was sent.
    fn never_left(&self, id: &PaymentId) -> bool {
        self.state.payment(id).is_some_and(|payment| {
            payment.state == PaymentState::Parked
                && payment.parked == Some(ParkReason::KeptBack)
                && !payment.asked_online
                && self.queue.never_sent(id, payment)
        })
    }

    /// The state of a payment that is parked; of any other the person is told
    /// that it is not.
    fn parked(&mut self, ticket: Ticket, id: PaymentId) -> Option<PaymentState> {
        let state = self.state.payment(&id).map(|payment| payment.state);
        let parked =
            state.filter(|state| matches!(state, PaymentState::Parked | PaymentState::ReversalParked));
        if parked.is_none() {
            let text = "no parked payment has this id";
            self.operator_reply(ticket, OperatorReply::Refused(text.to_owned()));
        }
        parked
    }
}
