//! Payments that are being asked online while a customer waits, and those
//! that were when the hub last stopped.

use std::collections::{BTreeMap, HashMap};

use hub_protocol::entry::{DecisionRecord, Event, WanState};
use hub_protocol::{
    Decision, DeviceId, GatewayResult, PaymentId, PaymentRequest, PaymentState, Reason, RefusalCode,
    SealedCard,
};

use crate::core::Core;
use crate::decide::{objection_always, refuse};
use crate::effect::{Effect, Forward, Operation, Reply};
use crate::input::{AttemptId, GatewayAnswer, Ticket};
use crate::state::{CardKey, DeviceRecord, PaymentRecord};
use crate::wan::Evidence;

/// One payment that waits for the gateway.
#[derive(Debug)]
struct Flight {
    payment_id: PaymentId,
    request: PaymentRequest,
    tickets: Vec<Ticket>,
    deadline_ms: u64,
    /// Asked before by a hub that was interrupted: whatever the answer to
    /// this attempt, the earlier one may have been taken.
    resumed: bool,
}

/// All payments that wait for the gateway.
#[derive(Debug, Default)]
pub(crate) struct OnlineFlights {
    by_attempt: BTreeMap<AttemptId, Flight>,
    by_payment: HashMap<PaymentId, AttemptId>,
    /// Open in the ledger, but nobody has asked since the hub started.
    interrupted: Vec<PaymentId>,
    interrupted_until_ms: Option<u64>,
}

impl OnlineFlights {
    pub(crate) fn count(&self) -> usize {
        self.by_attempt.len()
    }

    /// Whether a customer waits for this attempt.
    pub(crate) fn waits_for(&self, attempt: AttemptId) -> bool {
        self.by_attempt.contains_key(&attempt)
    }

    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        let first = self.by_attempt.values().map(|flight| flight.deadline_ms).min();
        [first, self.interrupted_until_ms].into_iter().flatten().min()
    }

    fn first_expired(&self, now_ms: u64) -> Option<AttemptId> {
        let mut flights = self.by_attempt.iter();
        flights
            .find(|(_, flight)| flight.deadline_ms <= now_ms)
            .map(|(attempt, _)| *attempt)
    }

    fn put(&mut self, attempt: AttemptId, flight: Flight) {
        self.by_payment.insert(flight.payment_id, attempt);
        self.by_attempt.insert(attempt, flight);
    }

    fn take(&mut self, attempt: AttemptId) -> Option<Flight> {
        let flight = self.by_attempt.remove(&attempt)?;
        self.by_payment.remove(&flight.payment_id);
        Some(flight)
    }
}

impl Core {
    pub(crate) fn pay(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        request: &PaymentRequest,
        signed: Vec<u8>,
        sealed_card: SealedCard,
    ) {
        if self.refuse_if_stopping(ticket) || self.refuse_if_not_enrolled(ticket, device) {
            return;
        }
        let id = request.payment_id;
        if let Some(known) = self.state.payment(&id).cloned() {
            self.pay_again(ticket, device, request, &signed, &known);
        } else if !self.state.knows_card(&CardKey::of_token(&request.card.token)) {
            // Rule 4: nothing is decided on a card of which nobody knows what
            // it has at risk.
            self.refuse(
                ticket,
                RefusalCode::LedgerUnavailable,
                "what the card has at risk cannot be read; try again",
            );
        } else {
            if request.terms.as_ref().is_none_or(|terms| !terms.training) {
                self.watch(device, request);
            }
            self.pay_first(ticket, device, request, signed, sealed_card);
        }
    }

    /// A payment that no entry holds yet.
    fn pay_first(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        request: &PaymentRequest,
        signed: Vec<u8>,
        sealed_card: SealedCard,
    ) {
        let id = request.payment_id;
        if let Some(reason) = objection_always(request, self.settings.currency) {
            let record = refuse(reason);
            self.decide_now(ticket, device, request, signed, None, record);
        } else if let Some(reason) = self.objection_online(device, request) {
            let record = refuse(reason);
            self.decide_now(ticket, device, request, signed, None, record);
        } else if self.should_ask_online(request) {
            let event = Event::PaymentOpened {
                payment_id: id,
                device,
                request: signed,
            };
            let sequence = self.append(event, Some(request), Some((id, sealed_card)));
            self.ask_online(ticket, request, sequence, None);
        } else {
            let record = self.decide_offline(device, request);
            let card = record.decision.approved().then_some((id, sealed_card));
            self.decide_now(ticket, device, request, signed, card, record);
        }
    }

    /// The chip's own approval needs no authorisation; everything else asks
    /// the gateway while it answers.
    fn should_ask_online(&self, request: &PaymentRequest) -> bool {
        request.cryptogram == hub_protocol::Cryptogram::AsksOnline && self.wan.state() != WanState::Offline
    }

    /// What stands against asking the gateway.
    fn objection_online(&self, device: DeviceId, request: &PaymentRequest) -> Option<Reason> {
        let record = self
            .state
            .device(&device)
            .filter(|_| self.should_ask_online(request))?;
        let standing = record.standing(self.state.policy(), self.clock.effective_ms());
        (!standing.online).then_some(Reason::AttestationMissing)
    }

    pub(crate) fn refuse_if_not_enrolled(&mut self, ticket: Ticket, device: DeviceId) -> bool {
        let pending = self.state.device(&device).is_some_and(DeviceRecord::pending);
        if self.refuse_if_barred(ticket, device) {
            return true;
        }
        if pending {
            self.refuse(
                ticket,
                RefusalCode::DevicePending,
                "this device waits to be approved; ask the manager, then try again",
            );
        }
        pending
    }

    /// A device that is pending is not refused here.
    pub(crate) fn refuse_if_barred(&mut self, ticket: Ticket, device: DeviceId) -> bool {
        let allowed = self.state.device(&device).is_some_and(|record| !record.barred());
        if !allowed {
            self.refuse(
                ticket,
                RefusalCode::DeviceNotAllowed,
                "this device is not enrolled here, or is blocked",
            );
        }
        !allowed
    }

    /// The same id again: the same answer for the same bytes, a conflict for
    /// others.
    fn pay_again(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        request: &PaymentRequest,
        signed: &[u8],
        known: &PaymentRecord,
    ) {
        let id = request.payment_id;
        if known.device != device || known.request_digest != hub_protocol::Digest::of(signed) {
            self.refuse(
                ticket,
                RefusalCode::PaymentIdConflict,
                "this payment id was used before with other content",
            );
        } else if let Some(receipt) = known.receipt(self.settings.hub, id) {
            self.reply_after(receipt.sequence, ticket, Reply::Receipt(Box::new(receipt)));
        } else if let Some(attempt) = self.online.by_payment.get(&id) {
            if let Some(flight) = self.online.by_attempt.get_mut(attempt) {
                flight.tickets.push(ticket);
            }
        } else {
            // Interrupted by a restart. The sealed card is in the vault.
            self.online.interrupted.retain(|waiting| *waiting != id);
            let received_ms = self.comparable_ms(known.request_sequence, known.received_ms);
            // Too long ago to be asked again without looking.
            let look_up = !self.can_tell_age(false) || self.past_retention(received_ms);
            if look_up && !self.settings.looks_up {
                // Nor can anybody be asked whether it was taken: the answer
                // is no, and what may have been taken is reversed.
                self.abandon(id, vec![ticket]);
            } else if self.wan.state() == WanState::Offline {
                let record = self.decide_unanswered(device, request);
                self.conclude(id, device, record, vec![ticket]);
            } else {
                self.ask_online(ticket, request, known.request_sequence, Some(look_up));
            }
        }
    }

    /// `resumed`: asked before, by a hub that was interrupted, and whether it
    /// must be looked up first.
    fn ask_online(
        &mut self,
        ticket: Ticket,
        request: &PaymentRequest,
        request_sequence: u64,
        resumed: Option<bool>,
    ) {
        let flight = Flight {
            payment_id: request.payment_id,
            request: request.clone(),
            tickets: vec![ticket],
            deadline_ms: self
                .now
                .monotonic_ms
                .saturating_add(self.settings.online_deadline_ms),
            resumed: resumed.is_some(),
        };
        self.fly(flight, request_sequence, resumed == Some(true));
    }

    /// One attempt for a waiting customer.
    fn fly(&mut self, flight: Flight, request_sequence: u64, look_up: bool) {
        let attempt = self.next_attempt();
        let Some(payment) = self.state.payment(&flight.payment_id) else {
            return;
        };
        let operation = if look_up {
            self.contacts.looks_up(attempt);
            Operation::LookUp
        } else {
            Operation::AuthoriseOnline
        };
        let forward = Forward {
            attempt,
            payment_id: flight.payment_id,
            operation,
            request_sequence,
            device: payment.device,
            decided_ms: self.clock.effective_ms(),
            number: 1,
            presentation: 1,
            maybe_sent: flight.resumed,
            traces: self.state.store().traces_at(request_sequence),
            deadline_ms: flight.deadline_ms.saturating_sub(self.now.monotonic_ms),
        };
        self.online.put(attempt, flight);
        self.after(request_sequence, Effect::Forward(forward));
    }

    /// The gateway answered a payment whose customer still waits. Gives which;
    /// `None` if this is not such an attempt.
    pub(crate) fn online_answered(
        &mut self,
        attempt: AttemptId,
        answer: &GatewayAnswer,
        looked_up: bool,
    ) -> Option<PaymentId> {
        let flight = self.online.take(attempt)?;
        let id = flight.payment_id;
        let Some((device, request_sequence)) =
            self.state.payment(&id).map(|p| (p.device, p.request_sequence))
        else {
            return Some(id);
        };
        if looked_up && *answer == GatewayAnswer::NotFound && flight.deadline_ms > self.now.monotonic_ms {
            // Nothing was taken so far. What was sent before the restart may
            // still be under way, so a no is reversed all the same.
            let (now, effective) = (self.now.monotonic_ms, self.clock.effective_ms());
            self.contacts.sent(id, effective, effective, now);
            self.fly(flight, request_sequence, false);
            return Some(id);
        }
        let record = match answer {
            GatewayAnswer::Final(result) if result.approved => DecisionRecord {
                decision: Decision::ApprovedOnline,
                submission: Some(hub_protocol::Submission::Online),
                gateway: Some(result.clone()),
                ..refuse(Reason::None)
            },
            GatewayAnswer::Final(result) => DecisionRecord {
                gateway: Some(result.clone()),
                ..refuse(Reason::GatewayDeclined)
            },
            // The same bytes would be refused at replay too: an offline
            // approval could never be collected.
            GatewayAnswer::Conflict { .. }
            | GatewayAnswer::RefusesMessage { .. }
            | GatewayAnswer::Unsendable { .. }
                if !looked_up =>
            {
                let result = GatewayResult {
                    approved: false,
                    response_code: "30".to_owned(),
                    authorisation_code: None,
                    reference: None,
                };
                DecisionRecord {
                    gateway: Some(result),
                    reversal_queued: flight.resumed,
                    ..refuse(Reason::GatewayDeclined)
                }
            }
            // Nothing was taken.
            GatewayAnswer::Throttled { .. }
            | GatewayAnswer::RefusesHub { .. }
            | GatewayAnswer::NotSent { .. }
                if !flight.resumed =>
            {
                self.decide_offline(device, &flight.request)
            }
            // Without its card the payment could never be collected.
            GatewayAnswer::CardMissing => DecisionRecord {
                reversal_queued: flight.resumed,
                ..refuse(Reason::Abandoned)
            },
            // Something may have been taken.
            _ => self.decide_unanswered(device, &flight.request),
        };
        self.conclude(id, device, record, flight.tickets);
        Some(id)
    }

    /// Decides those whose customers have waited long enough.
    pub(crate) fn expire_online(&mut self) {
        while let Some(attempt) = self.online.first_expired(self.now.monotonic_ms) {
            let Some(flight) = self.online.take(attempt) else {
                return;
            };
            let Some(device) = self.state.payment(&flight.payment_id).map(|p| p.device) else {
                return;
            };
            // Not answered in time is a failure now, whatever comes later.
            self.observe_wan(Evidence::PaymentFailed);
            let record = self.decide_unanswered(device, &flight.request);
            self.conclude(flight.payment_id, device, record, flight.tickets);
            // The attempt is still under way: its answer, if it comes, is the
            // answer of the queue's first attempt.
            if !self.withdraw(attempt) {
                self.queue.adopt(flight.payment_id, attempt, &self.state);
            }
        }
    }

    /// The customer does not want to wait for the answer any more: the answer
    /// is no, and whatever the gateway took is reversed.
    pub(crate) fn cancel_open(&mut self, id: PaymentId, device: DeviceId) {
        let record = DecisionRecord {
            reversal_queued: true,
            ..refuse(Reason::Cancelled)
        };
        self.decide_open(id, device, record);
    }

    /// Decides a payment that is being asked online, or was when the hub last
    /// stopped. Whoever waits for it is answered.
    pub(crate) fn decide_open(&mut self, id: PaymentId, device: DeviceId, record: DecisionRecord) {
        self.online.interrupted.retain(|waiting| *waiting != id);
        let attempt = self.online.by_payment.get(&id).copied();
        let flight = attempt.and_then(|attempt| self.online.take(attempt));
        let under_way = attempt.filter(|attempt| !self.withdraw(*attempt));
        self.conclude(
            id,
            device,
            record,
            flight.map_or_else(Vec::new, |flight| flight.tickets),
        );
        if let Some(attempt) = under_way {
            // The queue waits for its end.
            self.queue.adopt(id, attempt, &self.state);
        }
    }

    /// Takes back an attempt that has not left yet, because its payment is
    /// not on disk. What has been decided otherwise meanwhile is not sent as
    /// if a customer waited.
    fn withdraw(&mut self, attempt: AttemptId) -> bool {
        let is_it =
            |effect: &Effect| matches!(effect, Effect::Forward(forward) if forward.attempt == attempt);
        let Some(effects) = self.held.values_mut().find(|effects| effects.iter().any(is_it)) else {
            return false;
        };
        effects.retain(|effect| !is_it(effect));
        true
    }

    /// Decides offline what the gateway may have taken: if the answer is no,
    /// whatever it took is reversed.
    fn decide_unanswered(&self, device: DeviceId, request: &PaymentRequest) -> DecisionRecord {
        let mut record = self.decide_offline(device, request);
        record.reversal_queued = !record.decision.approved();
        record
    }

    fn decide_offline(&self, device: DeviceId, request: &PaymentRequest) -> DecisionRecord {
        let Some(asking) = self.state.device(&device) else {
            return refuse(Reason::DeviceBlocked);
        };
        if asking.barred() {
            // Since it asked.
            return refuse(Reason::DeviceBlocked);
        }
        self.assess(asking, request).record
    }

    /// Writes down a decision on a request that no entry holds yet.
    fn decide_now(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        request: &PaymentRequest,
        signed: Vec<u8>,
        card: Option<(PaymentId, SealedCard)>,
        record: DecisionRecord,
    ) {
        let id = request.payment_id;
        let event = Event::PaymentDecided {
            payment_id: id,
            device,
            request: Some(signed),
            record,
        };
        let sequence = self.append(event, Some(request), card);
        self.decided(id, sequence, vec![ticket]);
    }

    /// Writes down a decision on a payment that an earlier entry opened.
    fn conclude(&mut self, id: PaymentId, device: DeviceId, record: DecisionRecord, tickets: Vec<Ticket>) {
        let event = Event::PaymentDecided {
            payment_id: id,
            device,
            request: None,
            record,
        };
        let sequence = self.append(event, None, None);
        self.decided(id, sequence, tickets);
    }

    fn decided(&mut self, id: PaymentId, sequence: u64, tickets: Vec<Ticket>) {
        let Some(payment) = self.state.payment(&id) else {
            return;
        };
        let receipt = payment.receipt(self.settings.hub, id);
        for (ticket, receipt) in tickets.into_iter().zip(core::iter::repeat(receipt)) {
            if let Some(receipt) = receipt {
                self.reply_after(sequence, ticket, Reply::Receipt(Box::new(receipt)));
            }
        }
    }

    /// At the start: payments that were being asked online.
    pub(crate) fn find_interrupted(&mut self) {
        let mut open: Vec<(u64, PaymentId)> = self
            .state
            .payments()
            .filter(|(_, payment)| payment.state == PaymentState::Open)
            .map(|(id, payment)| (payment.latest, *id))
            .collect();
        open.sort_unstable();
        self.online.interrupted = open.into_iter().map(|(_, id)| id).collect();
        self.online.interrupted_until_ms = (!self.online.interrupted.is_empty()).then(|| {
            self.now
                .monotonic_ms
                .saturating_add(self.settings.abandoned_after_ms)
        });
    }

    /// Nobody asked again in time: the answer is no, and what the gateway may
    /// have taken is reversed.
    pub(crate) fn decide_interrupted(&mut self) {
        if self
            .online
            .interrupted_until_ms
            .is_none_or(|until| self.now.monotonic_ms < until)
        {
            return;
        }
        self.online.interrupted_until_ms = None;
        for id in core::mem::take(&mut self.online.interrupted) {
            self.abandon(id, Vec::new());
        }
    }

    fn abandon(&mut self, id: PaymentId, tickets: Vec<Ticket>) {
        let Some(device) = self.state.payment(&id).map(|payment| payment.device) else {
            return;
        };
        let record = DecisionRecord {
            reversal_queued: true,
            ..refuse(Reason::Abandoned)
        };
        self.conclude(id, device, record, tickets);
    }
}
