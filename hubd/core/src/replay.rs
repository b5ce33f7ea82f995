//! Replay: what was decided offline goes to the gateway, each as what it is,
//! under the payment's own id, until there is a final answer. Here: what may
//! go when. What answers lead to is in [`settle`](crate::settle).

use hub_protocol::entry::WanState;
use hub_protocol::{PaymentId, PaymentState};

use crate::breaker::Permit;
use crate::core::Core;
use crate::effect::{Effect, Forward, Operation};
use crate::pace;
use crate::pacing::LONGEST_SPREAD_MS;
use crate::queue::operation;

impl Core {
    /// Sends what may go now.
    pub(crate) fn replay(&mut self) {
        if self.stopping {
            return;
        }
        self.queue_due_retries();
        while let Some(sequence) = self.next_to_send() {
            if !self.send(sequence) {
                return;
            }
        }
    }

    /// Whether it is on disk that the gateway is back, or that a person wants
    /// the queue sent all the same: after a crash, what was queued in an outage
    /// counts as never sent until the ledger says so.
    fn may_send(&self) -> bool {
        self.sends_after <= self.durable
    }

    fn next_to_send(&self) -> Option<u64> {
        let now = self.now.monotonic_ms;
        let offline = self.wan.state() == WanState::Offline;
        if offline && self.queue.forced.is_empty() {
            // With nobody to send to, every payment comes by here.
            return None;
        }
        let held_back = !self.may_send()
            || self.queue.in_flight() >= self.replay_limit()
            || self.queue.paused_until_ms > now
            || self.queue.lacks_a_head()
            || self.pacing.first_contact_ms > now;
        let rather_not = match self.pacing.breaker.permit(now) {
            _ if held_back => return None,
            Permit::None => return None,
            Permit::All => None,
            Permit::One(failed_before) => failed_before,
        };
        let may_go = |id: &PaymentId| {
            self.state.payment(id).is_some_and(|payment| {
                payment.latest <= self.durable && self.pacing.card_free(payment.card, now)
            })
        };
        let other = |id: &PaymentId| rather_not != Some(*id) && may_go(id);
        self.queue
            .next(now, offline, other)
            .or_else(|| rather_not.and_then(|_| self.queue.next(now, offline, may_go)))
    }

    /// Sends the item that stands at this place of the queue, or looks it up
    /// first.
    fn send(&mut self, sequence: u64) -> bool {
        let Some(id) = self.queue.payment_at(sequence) else {
            return false;
        };
        let Some(payment) = self.state.payment(&id) else {
            return false;
        };
        let wanted = operation(payment);
        let look_up = wanted != Operation::Reverse && self.must_look_up(&id);
        let operation = if look_up { Operation::LookUp } else { wanted };
        let (card, since_ms) = (payment.card, self.maybe_sent_since_ms(&id));
        let mut forward = Forward {
            operation,
            maybe_sent: if wanted == Operation::Reverse {
                !self.queue.never_reversed(&id, payment)
            } else {
                self.may_have_been_sent(&id)
            },
            traces: self.state.store().traces_at(payment.request_sequence),
            deadline_ms: self.settings.replay_deadline_ms,
            ..payment.forward(id)
        };
        let attempt = self.next_attempt();
        forward.attempt = attempt;
        let reversal = operation == Operation::Reverse;
        if let Some(item) = self.queue.take_off(sequence, attempt, reversal) {
            forward.number = if reversal { item.reversals } else { item.attempts };
        }
        let now = self.now.monotonic_ms;
        if look_up {
            self.contacts.looks_up(attempt);
        } else if !reversal {
            self.contacts.sent(id, since_ms, self.clock.effective_ms(), now);
            let gap_ms = self
                .state
                .policy()
                .map_or(0, |policy| policy.replay.same_card_gap_ms);
            self.pacing.card_used(card, now, gap_ms);
        }
        self.pacing.pace.sent(attempt, self.queue.in_flight());
        self.pacing.breaker.sent(attempt);
        self.out.push(Effect::Forward(forward));
        true
    }

    /// The gateway does not know the payment: it goes at once, while that is
    /// true, unless customers need the room meanwhile or it is not its turn any
    /// more.
    pub(crate) fn send_after_look_up(&mut self, id: &PaymentId) {
        let now = self.now.monotonic_ms;
        let since_ms = self.maybe_sent_since_ms(id);
        self.contacts.not_found(*id, since_ms, now);
        self.queue.try_again(id, now, 0, None);
        let goes = self
            .state
            .payment(id)
            .is_some_and(|payment| payment.state == PaymentState::Queued && payment.latest <= self.durable);
        // One that was released meanwhile can stand before it again.
        let turn = self.queue.next(now, false, |other| goes && other == id);
        let room = self.may_send()
            && self.queue.in_flight() < self.replay_limit()
            && self.queue.paused_until_ms <= now;
        if let Some(sequence) = turn.filter(|_| room && !self.stopping) {
            self.send(sequence);
        }
    }

    /// Live sales go first: while a customer waits for the gateway, or the
    /// gateway struggles, the backlog gets a quarter of the room.
    fn replay_limit(&self) -> usize {
        let whole = self.pacing.pace.limit();
        let reduced = self.online.count() > 0 || self.wan.state() != WanState::Online;
        if reduced { (whole / 4).max(1) } else { whole }
    }

    pub(crate) fn queue_wake_ms(&self) -> Option<u64> {
        let now = self.now.monotonic_ms;
        let can_go = (self.wan.state() != WanState::Offline || !self.queue.forced.is_empty())
            && self.queue.in_flight() < self.replay_limit()
            && self.queue.len() > 0;
        let wakes = [self.queue.next_wake_ms(now), self.pacing.wake_ms(now)];
        wakes.into_iter().flatten().min().filter(|_| can_go)
    }

    /// The gateway has been gone and answers again: the backlog goes slowly
    /// at first, and not before a random moment of the window, so that a
    /// thousand shops do not come at once. Live sales do not wait for it.
    pub(crate) fn outage_ended(&mut self) {
        let now = self.now.monotonic_ms;
        self.pacing.pace.restart(pace::START, now);
        self.pacing.breaker.answered();
        let by_policy = self.state.policy().map_or(0, |policy| policy.replay.spread_ms);
        let window_ms = self
            .settings
            .spread_ms
            .max(by_policy)
            .max(self.pacing.asked_spread_ms)
            .min(LONGEST_SPREAD_MS);
        self.pacing.first_contact_ms = match window_ms {
            0 => 0,
            window_ms => now.saturating_add(self.random.up_to(window_ms)),
        };
    }

    /// A start with a backlog is a first contact too: power comes back to a
    /// whole town at once.
    pub(crate) fn spread_after_start(&mut self) {
        if self.queue.len() > 0 {
            self.outage_ended();
        }
    }

    /// Whether the payment must be looked up before it is sent: it may have
    /// been sent before, and so long ago, or by a clock so doubtful, that the
    /// gateway may no longer know its idempotency key.
    pub(crate) fn must_look_up(&self, id: &PaymentId) -> bool {
        if !self.may_have_been_sent(id) || self.contacts.absent(id, self.now.monotonic_ms) {
            return false;
        }
        let sent_here = self.contacts.first_sent_ms(id).is_some();
        !self.can_tell_age(sent_here) || self.past_retention(self.maybe_sent_since_ms(id))
    }

    /// Whether the clock can tell how long ago something was sent: by this
    /// process (`sent_here`) or by an earlier one. A clock may have stood
    /// still while the box was without power.
    pub(crate) fn can_tell_age(&self, sent_here: bool) -> bool {
        let told = self.clock.synchronised() || !self.settings.gateway_tells_time;
        !self.clock.suspect() && (sent_here || told)
    }

    /// Whether a key that was sent first at `since_ms` may be forgotten. A
    /// tenth of the time is kept as a margin.
    pub(crate) fn past_retention(&self, since_ms: u64) -> bool {
        let age_ms = self.clock.effective_ms().saturating_sub(since_ms);
        age_ms >= self.settings.idempotency_retention_ms / 10 * 9
    }

    /// When the gateway may have got the payment first: as this process
    /// knows, or else when its request was written down. A payment that was
    /// certainly never sent is sent first now.
    fn maybe_sent_since_ms(&self, id: &PaymentId) -> u64 {
        let effective_ms = self.clock.effective_ms();
        if !self.may_have_been_sent(id) {
            return effective_ms;
        }
        self.contacts.first_sent_ms(id).unwrap_or_else(|| {
            let payment = self.state.payment(id);
            payment.map_or(0, |payment| {
                let (sequence, since_ms) = payment.maybe_sent_since();
                self.comparable_ms(sequence, since_ms)
            })
        })
    }

    /// A time in an entry, at or after the one of that sequence, or 0 if the
    /// clock was set back since, so that nobody can tell how long ago it is.
    pub(crate) fn comparable_ms(&self, sequence: u64, time_ms: u64) -> u64 {
        let set_back = self.state.store().set_back_at.is_some_and(|at| sequence < at);
        if set_back { 0 } else { time_ms }
    }

    /// Whether a payment may have reached the gateway.
    pub(crate) fn may_have_been_sent(&self, id: &PaymentId) -> bool {
        !self.state.payment(id).is_some_and(|payment| {
            payment.state == PaymentState::Queued
                && !payment.asked_online
                && self.queue.never_tried(id, payment)
        })
    }
}
