//! What the gateway's answers to the backlog lead to: settled, presented
//! again, tried again, parked. Never dropped.

use hub_protocol::entry::{Event, ParkReason};
use hub_protocol::{GatewayResult, MerchantAdvice, PaymentId, PaymentState};

use crate::core::Core;
use crate::effect::{Effect, Operation};
use crate::input::{AttemptId, GatewayAnswer};
use crate::queue::operation;
use crate::wan::Evidence;

/// The first retry comes after at most this, in milliseconds.
const BACKOFF_BASE_MS: u64 = 500;

/// A retry comes after at most this, in milliseconds.
const BACKOFF_CAP_MS: u64 = 60_000;

/// The longest wait that the gateway can ask for, in milliseconds. A longer
/// one is cut: a slip at the gateway must not hold a queue up for a year.
pub const LONGEST_RETRY_AFTER_MS: u64 = 60 * 60 * 1000;

/// An item that fails so often while others are answered is taken for the
/// cause and parked.
pub const MOST_FAILURES_ALONE: u32 = 20;

/// So often at least must the gateway have said of an item that it does not
/// know yet before the item is parked for that.
pub const LEAST_UNDECIDED_ANSWERS: u32 = 5;

/// The longest that two attempts at an item that the gateway has are apart
/// while the gateway can be asked.
const LONGEST_PAUSE_MS: u64 = LONGEST_RETRY_AFTER_MS + BACKOFF_CAP_MS;

/// The longest text of the gateway that is written down, in bytes.
const LONGEST_DETAIL: usize = 200;

impl Core {
    pub(crate) fn gateway_answered(&mut self, attempt: AttemptId, answer: GatewayAnswer, latency_ms: u64) {
        let (answer, advice) = answer.split_advice();
        let live = self.online.waits_for(attempt);
        let looked_up = self.contacts.looked_up(attempt);
        match answer {
            GatewayAnswer::NoAnswer { .. } | GatewayAnswer::Broken { .. } if live => {
                self.observe_wan(Evidence::PaymentFailed);
            }
            // The end of an attempt that began before the line came back says
            // little about now.
            GatewayAnswer::NoAnswer { .. } | GatewayAnswer::Broken { .. } => {
                self.observe_wan(Evidence::BacklogFailed);
            }
            GatewayAnswer::CardMissing | GatewayAnswer::Unsendable { .. } | GatewayAnswer::NotSent { .. } => {
            }
            _ => self.observe_wan(Evidence::PaymentAnswered { latency_ms }),
        }
        if matches!(answer, GatewayAnswer::Final(_)) {
            self.queue.note_final();
        }
        self.learn_pace(attempt, &answer, latency_ms);
        if let Some(id) = self.online_answered(attempt, &answer, looked_up) {
            self.heed_at_the_counter(id, &answer);
            return;
        }
        // Of a payment that is in the index only.
        let elsewhere = self.queue.elsewhere(attempt);
        if let Some(id) = self.queue.landed(attempt) {
            self.learn_breaker(attempt, id, &answer);
            self.replay_answered(id, answer, looked_up, advice);
        } else {
            self.pacing.breaker.not_sent(attempt, self.now.monotonic_ms);
            if let Some(id) = elsewhere {
                self.heed(&answer);
                self.heed_elsewhere(id, &answer);
            }
        }
    }

    /// What an answer asks of the whole queue, whichever payment it is for.
    fn heed(&mut self, answer: &GatewayAnswer) {
        match answer {
            GatewayAnswer::Throttled { retry_after_ms } => self.pause(*retry_after_ms),
            GatewayAnswer::Broken { retry_after_ms, .. } if retry_after_ms.is_some() => {
                self.pause(*retry_after_ms);
            }
            _ => {}
        }
    }

    /// What an answer to a sale at the counter asks of the queue, which that
    /// sale may have come into.
    fn heed_at_the_counter(&mut self, id: PaymentId, answer: &GatewayAnswer) {
        self.heed(answer);
        let asked = match answer {
            GatewayAnswer::Pending { retry_after_ms }
            | GatewayAnswer::Throttled { retry_after_ms }
            | GatewayAnswer::Broken { retry_after_ms, .. } => *retry_after_ms,
            _ => None,
        };
        let queued = self
            .state
            .payment(&id)
            .is_some_and(|payment| payment.state == PaymentState::Queued);
        if asked.is_none() || !queued {
            return;
        }
        if self.queue.get(&id).is_some() {
            let error = "the gateway asked at the counter to wait".to_owned();
            self.back_off(id, asked, error);
        } else {
            let now = self.now.monotonic_ms;
            let until = now.saturating_add(self.delay_ms(1, asked));
            self.queue.wait_elsewhere(id, until, now);
        }
    }

    /// What the answer says about how many may be under way. Attempts for
    /// customers are not counted there, and change nothing.
    fn learn_pace(&mut self, attempt: AttemptId, answer: &GatewayAnswer, latency_ms: u64) {
        let now = self.now.monotonic_ms;
        match answer {
            GatewayAnswer::NoAnswer { .. }
            | GatewayAnswer::Broken { .. }
            | GatewayAnswer::Throttled { .. } => {
                self.pacing.pace.failed(attempt);
            }
            GatewayAnswer::CardMissing | GatewayAnswer::Unsendable { .. } | GatewayAnswer::NotSent { .. } => {
                self.pacing.pace.forget(attempt)
            }
            _ => self.pacing.pace.answered(attempt, latency_ms, now),
        }
        let proves_that_payments_are_taken = !matches!(
            answer,
            GatewayAnswer::NoAnswer { .. }
                | GatewayAnswer::Broken { .. }
                | GatewayAnswer::RefusesHub { .. }
                | GatewayAnswer::CardMissing
                | GatewayAnswer::Unsendable { .. }
                | GatewayAnswer::NotSent { .. }
        );
        if proves_that_payments_are_taken && self.pacing.breaker.answered() {
            self.pacing.pace.restart(1, now);
        }
    }

    fn learn_breaker(&mut self, attempt: AttemptId, id: PaymentId, answer: &GatewayAnswer) {
        let now = self.now.monotonic_ms;
        match answer {
            GatewayAnswer::NoAnswer { .. }
            | GatewayAnswer::Broken { .. }
            | GatewayAnswer::RefusesHub { .. } => {
                self.pacing.breaker.failed(attempt, id, now, &mut self.random);
            }
            _ => self.pacing.breaker.not_sent(attempt, now),
        }
    }

    fn replay_answered(
        &mut self,
        id: PaymentId,
        answer: GatewayAnswer,
        looked_up: bool,
        advice: Option<MerchantAdvice>,
    ) {
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
        self.heed(&answer);
        match answer {
            GatewayAnswer::Final(result) => self.finally(id, result, asks_reversal, advice),
            // Taken apart on the way in.
            GatewayAnswer::Advised { result, advice } => {
                self.finally(id, result, asks_reversal, Some(advice))
            }
            GatewayAnswer::NotFound if looked_up => self.send_after_look_up(&id),
            GatewayAnswer::NotFound => {
                let detail = "the gateway says that it does not know what it was asked to do";
                self.failed(id, None, detail, detail.to_owned());
            }
            GatewayAnswer::Conflict { detail } | GatewayAnswer::RefusesMessage { detail } if looked_up => {
                // Without the look-up the payment is not sent: it waits, and
                // is parked in the end if others are answered meanwhile.
                let error = format!("it is too old to be sent without a look-up, and that failed: {detail}");
                self.failed(id, None, &detail, error);
            }
            GatewayAnswer::Pending { retry_after_ms } => self.undecided(id, retry_after_ms),
            GatewayAnswer::Throttled { retry_after_ms } => {
                self.back_off(id, retry_after_ms, "the gateway asks to slow down".to_owned());
            }
            GatewayAnswer::Conflict { detail } => self.park(id, ParkReason::GatewayConflict, &detail),
            GatewayAnswer::RefusesMessage { detail } => {
                self.park(id, ParkReason::GatewayRefusesMessage, &detail)
            }
            GatewayAnswer::CardMissing => self.park(id, ParkReason::SealedCardMissing, ""),
            GatewayAnswer::Unsendable { detail } => self.park(id, ParkReason::CannotBeSent, &detail),
            GatewayAnswer::NotSent { detail } => self.back_off(id, None, format!("not sent: {detail}")),
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
                let error = format!("the gateway is out of order: {detail}");
                self.failed(id, retry_after_ms, &detail, error);
            }
            GatewayAnswer::NoAnswer { detail } => {
                self.failed(id, None, &detail, format!("no answer: {detail}"));
            }
        }
    }

    fn heed_elsewhere(&mut self, id: PaymentId, answer: &GatewayAnswer) {
        if let GatewayAnswer::Pending { retry_after_ms } = answer {
            let now = self.now.monotonic_ms;
            let until = now.saturating_add(self.delay_ms(1, *retry_after_ms));
            self.queue.wait_elsewhere(id, until, now);
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

    /// The gateway has it and does not know yet. It is asked again, though not
    /// for ever: everything behind it with its card and at its device waits.
    fn undecided(&mut self, id: PaymentId, retry_after_ms: Option<u64>) {
        self.back_off(
            id,
            retry_after_ms,
            "the gateway has it and does not know yet".to_owned(),
        );
        let now = self.now.monotonic_ms;
        let Some(told) = self.queue.note_undecided(&id, now, LONGEST_PAUSE_MS) else {
            return;
        };
        let bound_ms = self.settings.undecided_after_ms;
        if told.for_ms >= bound_ms && told.answers >= LEAST_UNDECIDED_ANSWERS {
            let detail = format!(
                "the gateway has had it for {} and has not decided: ask the gateway what became of it, then close it; \
                 released, it is asked for again",
                span(told.for_ms)
            );
            self.park(id, ParkReason::GatewayUndecided, &detail);
        }
    }

    /// The gateway's final answer to what was last asked.
    fn finally(
        &mut self,
        id: PaymentId,
        result: GatewayResult,
        asks_reversal: bool,
        advice: Option<MerchantAdvice>,
    ) {
        let Some(payment) = self.state.payment(&id) else {
            return;
        };
        let device = payment.device;
        if asks_reversal && !result.approved {
            self.park(
                id,
                ParkReason::GatewayRefusesMessage,
                &format!("reversal refused: {}", result.response_code),
            );
            return;
        }
        if !asks_reversal && !result.approved && self.presented_again(id, &result, advice) {
            return;
        }
        let event = if asks_reversal {
            Event::PaymentReversed {
                payment_id: id,
                gateway: result,
            }
        } else {
            Event::PaymentSettled {
                payment_id: id,
                gateway: result,
                advice,
            }
        };
        let sequence = self.append(event, None, None);
        self.contacts.forget(&id);
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

    pub(crate) fn park(&mut self, id: PaymentId, reason: ParkReason, detail: &str) {
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
}

/// A time as people say it.
fn span(ms: u64) -> String {
    match ms / 60_000 {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes => format!("{} h", minutes / 60),
    }
}

fn shortened(text: &str) -> String {
    let mut end = text.len().min(LONGEST_DETAIL);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
