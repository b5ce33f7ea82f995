//! Replay: what was decided offline goes to the gateway, each as what it is,
//! under the payment's own id, until there is a final answer.

use hub_protocol::entry::{Event, ParkReason, WanState};
use hub_protocol::{GatewayResult, PaymentId, PaymentState};

use crate::core::Core;
use crate::effect::{Effect, Forward, Operation};
use crate::input::{AttemptId, GatewayAnswer};
use crate::queue::operation;
use crate::wan::Evidence;

/// The first retry comes after at most this, in milliseconds.
const BACKOFF_BASE_MS: u64 = 500;

/// A retry comes after at most this, in milliseconds.
const BACKOFF_CAP_MS: u64 = 60_000;

/// The longest wait that the gateway can ask for, in milliseconds.
const LONGEST_RETRY_AFTER_MS: u64 = 60 * 60 * 1000;

/// An item that fails so often while others are answered is taken for the
/// cause and parked.
pub const MOST_FAILURES_ALONE: u32 = 20;

/// The longest text of the gateway that is written down, in bytes.
const LONGEST_DETAIL: usize = 200;

impl Core {
    /// Sends what may go now.
    pub(crate) fn replay(&mut self) {
        let now = self.now.monotonic_ms;
        while !self.stopping && self.queue.in_flight() < self.replay_limit() {
            let offline = self.wan.state() == WanState::Offline;
            if self.queue.paused_until_ms > now {
                return;
            }
            let on_disk = |id: &PaymentId| {
                self.state
                    .payment(id)
                    .is_some_and(|payment| payment.latest <= self.durable)
            };
            let Some(sequence) = self.queue.next(now, offline, on_disk) else {
                return;
            };
            let attempt = self.next_attempt();
            let Some(id) = self.queue.payment_at(sequence) else {
                return;
            };
            let Some(payment) = self.state.payment(&id) else {
                return;
            };
            let operation = operation(payment);
            let reversal = operation == Operation::Reverse;
            let number = self
                .queue
                .take_off(sequence, attempt, reversal)
                .map_or(1, |item| item.attempts);
            let decided_ms = payment.decided.as_ref().map_or(0, |decided| decided.time.wall_ms);
            self.out.push(Effect::Forward(Forward {
                attempt,
                payment_id: id,
                operation,
                request_sequence: payment.request_sequence,
                device: payment.device,
                decided_ms,
                number,
                deadline_ms: self.settings.replay_deadline_ms,
            }));
        }
    }

    /// Live sales go first: while a customer waits for the gateway, or the
    /// gateway struggles, the backlog gets a quarter of the room.
    fn replay_limit(&self) -> usize {
        let whole = self.settings.max_in_flight;
        let reduced = self.online.count() > 0 || self.wan.state() != WanState::Online;
        if reduced { (whole / 4).max(1) } else { whole }
    }

    pub(crate) fn queue_wake_ms(&self) -> Option<u64> {
        let can_go = self.wan.state() != WanState::Offline && self.queue.in_flight() < self.replay_limit();
        can_go
            .then(|| self.queue.next_wake_ms(self.now.monotonic_ms))
            .flatten()
    }

    pub(crate) fn gateway_answered(&mut self, attempt: AttemptId, answer: GatewayAnswer, latency_ms: u64) {
        let live = self.online.waits_for(attempt);
        match answer {
            GatewayAnswer::NoAnswer { .. } | GatewayAnswer::Broken { .. } if live => {
                self.observe_wan(Evidence::PaymentFailed);
            }
            // The end of an attempt that began before the line came back says
            // little about now.
            GatewayAnswer::NoAnswer { .. } | GatewayAnswer::Broken { .. } => {
                self.observe_wan(Evidence::BacklogFailed);
            }
            GatewayAnswer::CardMissing => {}
            _ => self.observe_wan(Evidence::PaymentAnswered { latency_ms }),
        }
        if matches!(answer, GatewayAnswer::Final(_)) {
            self.queue.note_final();
        }
        if self.online_answered(attempt, &answer) {
            return;
        }
        if let Some(id) = self.queue.landed(attempt) {
            self.replay_answered(id, answer);
        }
    }

    fn replay_answered(&mut self, id: PaymentId, answer: GatewayAnswer) {
        let Some(payment) = self.state.payment(&id) else {
            return;
        };
        let now = self.now.monotonic_ms;
        let asks_reversal = operation(payment) == Operation::Reverse;
        if asks_reversal && self.queue.get(&id).is_some_and(|item| !item.sent_reversal) {
            // Voided while its authorisation was under way: whatever came of
            // that, the reversal is still to be asked for.
            self.queue.try_again(&id, now, 0, None);
            return;
        }
        match answer {
            GatewayAnswer::Final(result) => self.finally(id, result, asks_reversal),
            GatewayAnswer::Pending { retry_after_ms } => {
                self.back_off(
                    id,
                    retry_after_ms,
                    "the gateway has it and does not know yet".to_owned(),
                );
            }
            GatewayAnswer::Throttled { retry_after_ms } => {
                self.pause(retry_after_ms);
                self.back_off(id, retry_after_ms, "the gateway asks to slow down".to_owned());
            }
            GatewayAnswer::Conflict { detail } => self.park(id, ParkReason::GatewayConflict, &detail),
            GatewayAnswer::RefusesMessage { detail } => {
                self.park(id, ParkReason::GatewayRefusesMessage, &detail)
            }
            GatewayAnswer::CardMissing => self.park(id, ParkReason::SealedCardMissing, ""),
            GatewayAnswer::RefusesHub { detail } => {
                // The hub's credentials are wrong, not this payment: all wait
                // until somebody mends them.
                self.back_off(
                    id,
                    None,
                    format!("the gateway refuses the hub's credentials: {detail}"),
                );
            }
            GatewayAnswer::Broken {
                retry_after_ms,
                detail,
            } => {
                if retry_after_ms.is_some() {
                    self.pause(retry_after_ms);
                }
                let error = format!("the gateway is out of order: {detail}");
                self.failed(id, retry_after_ms, &detail, error);
            }
            GatewayAnswer::NoAnswer { detail } => {
                self.failed(id, None, &detail, format!("no answer: {detail}"));
            }
        }
    }

    /// Nothing is sent for as long as the gateway asks, or a moment.
    fn pause(&mut self, retry_after_ms: Option<u64>) {
        let until = self
            .now
            .monotonic_ms
            .saturating_add(self.delay_ms(1, retry_after_ms));
        self.queue.paused_until_ms = self.queue.paused_until_ms.max(until);
    }

    fn failed(&mut self, id: PaymentId, retry_after_ms: Option<u64>, detail: &str, error: String) {
        if self.queue.note_failure(&id) >= MOST_FAILURES_ALONE {
            self.park(id, ParkReason::AttemptsExhausted, detail);
        } else {
            self.back_off(id, retry_after_ms, error);
        }
    }

    /// The gateway's final answer to what was last asked.
    fn finally(&mut self, id: PaymentId, result: GatewayResult, asks_reversal: bool) {
        let Some(payment) = self.state.payment(&id) else {
            return;
        };
        if asks_reversal && !result.approved {
            self.park(
                id,
                ParkReason::GatewayRefusesMessage,
                &format!("reversal refused: {}", result.response_code),
            );
            return;
        }
        let device = payment.device;
        let event = if asks_reversal {
            Event::PaymentReversed {
                payment_id: id,
                gateway: result,
            }
        } else {
            Event::PaymentSettled {
                payment_id: id,
                gateway: result,
            }
        };
        let sequence = self.append(event, None, None);
        self.queue.remove(&id);
        self.push_status(id, device, sequence);
    }

    fn back_off(&mut self, id: PaymentId, retry_after_ms: Option<u64>, error: String) {
        let attempts = self.queue.get(&id).map_or(1, |item| item.attempts);
        let now = self.now.monotonic_ms;
        let until = now.saturating_add(self.delay_ms(attempts, retry_after_ms));
        let asked = retry_after_ms.map_or(0, |wait| now.saturating_add(wait.min(LONGEST_RETRY_AFTER_MS)));
        self.queue.try_again(&id, until, asked, Some(shortened(&error)));
    }

    /// Full jitter, and never before the gateway wants to be asked again.
    fn delay_ms(&mut self, attempts: u32, retry_after_ms: Option<u64>) -> u64 {
        let doublings = attempts.saturating_sub(1).min(16);
        let most = (BACKOFF_BASE_MS << doublings).min(BACKOFF_CAP_MS);
        let jitter = self.random.up_to(most);
        retry_after_ms
            .unwrap_or(0)
            .min(LONGEST_RETRY_AFTER_MS)
            .saturating_add(jitter)
    }

    fn park(&mut self, id: PaymentId, reason: ParkReason, detail: &str) {
        let Some(device) = self.state.payment(&id).map(|payment| payment.device) else {
            return;
        };
        let detail = shortened(detail);
        self.queue.note_error(&id, detail.clone());
        let sequence = self.append(
            Event::PaymentParked {
                payment_id: id,
                reason,
                detail,
            },
            None,
            None,
        );
        if let Some(payment) = self.state.payment(&id) {
            self.queue.insert(id, payment, false);
        }
        self.push_status(id, device, sequence);
    }

    pub(crate) fn push_status(&mut self, id: PaymentId, device: hub_protocol::DeviceId, sequence: u64) {
        let status = self
            .state
            .payment(&id)
            .map(|payment| payment.status(self.settings.hub, id));
        if let Some(status) = status {
            self.after(sequence, Effect::Push { device, status });
        }
    }

    /// Whether a payment may have reached the gateway.
    pub(crate) fn may_have_been_sent(&self, id: &PaymentId) -> bool {
        let never_tried = self
            .queue
            .get(id)
            .is_some_and(|item| item.fresh && item.attempts == 0);
        let asked_online = self.state.payment(id).is_some_and(|payment| payment.asked_online);
        let waits = self
            .state
            .payment(id)
            .is_some_and(|payment| payment.state == PaymentState::Queued);
        !(waits && never_tried && !asked_online)
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(LONGEST_DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
