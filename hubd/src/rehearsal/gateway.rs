//! The simulated gateway: what it answers at once, and what waits until a line
//! says how it goes.

use hub_core::{Forward, GatewayAnswer, Input, Operation};
use hub_protocol::{GatewayResult, PaymentId, PaymentState};

use super::lines::GatewaySays;
use super::shop::{Refused, Shop};

/// For how long a payment of the backlog may be held up by the hub's own
/// pacing before it is taken for stuck, in milliseconds.
const LONGEST_WAIT_MS: u64 = 2 * 60 * 60 * 1000;

impl Shop {
    /// The gateway answers this payment, as soon as the hub has sent it.
    pub(super) fn settle(&mut self, id: PaymentId, answer: GatewayAnswer) -> Result<(), Refused> {
        let state = self.core.state().payment(&id).map(|payment| payment.state);
        if state != Some(PaymentState::Queued) {
            let stands = state.map_or("not known", PaymentState::name);
            return Err(Refused(format!(
                "settled: the payment does not wait for the gateway: it is {stands}"
            )));
        }
        let from_ms = self.now.monotonic_ms;
        loop {
            if let Some(attempt) = self.under_way.remove(&id) {
                self.answer(attempt, answer);
                return Ok(());
            }
            self.free_places();
            if !self.under_way.contains_key(&id) && !self.wait_for_the_queue(from_ms) {
                return Err(Refused(
                    "settled: another payment of its card or device, from a line above, is sent before it; \
                     settle that one first, or all by leaving payment_id out"
                        .to_owned(),
                ));
            }
        }
    }

    pub(super) fn settle_all(&mut self, answer: &GatewayAnswer) -> Result<(), Refused> {
        let from_ms = self.now.monotonic_ms;
        while self.core.state().store().queue.queued > 0 {
            match self.under_way.keys().min().copied() {
                Some(id) => {
                    if let Some(attempt) = self.under_way.remove(&id) {
                        self.answer(attempt, answer.clone());
                    }
                }
                None if self.wait_for_the_queue(from_ms) => {}
                None => {
                    return Err(Refused(
                        "settled: the hub does not send what waits; is the line up long enough?".to_owned(),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Lets time pass until the queue wants to send again. Whether it does
    /// soon enough.
    fn wait_for_the_queue(&mut self, from_ms: u64) -> bool {
        let waited_ms = self.now.monotonic_ms.saturating_sub(from_ms);
        let Some(wake_ms) = self.core.next_wake_ms().filter(|_| waited_ms < LONGEST_WAIT_MS) else {
            return false;
        };
        self.pass(wake_ms.saturating_sub(self.now.monotonic_ms).max(1));
        true
    }

    /// Only so many are under way at a time: makes room for others.
    pub(super) fn free_places(&mut self) {
        for (_, attempt) in std::mem::take(&mut self.under_way) {
            self.answer(attempt, not_sent());
        }
    }

    /// What the simulated gateway does at once; the backlog waits for a line
    /// that says how it goes.
    pub(super) fn forward(&mut self, forward: &Forward) -> Option<Input> {
        let answer = match forward.operation {
            Operation::AuthoriseDeferred | Operation::Advice => {
                self.under_way.insert(forward.payment_id, forward.attempt);
                return None;
            }
            Operation::LookUp => GatewayAnswer::NotFound,
            Operation::Reverse => final_answer(true),
            Operation::AuthoriseOnline => match self.says {
                GatewaySays::Approved => final_answer(true),
                GatewaySays::Declined => final_answer(false),
                GatewaySays::Nothing => GatewayAnswer::NoAnswer {
                    detail: "no answer".to_owned(),
                },
            },
        };
        Some(Input::Gateway {
            attempt: forward.attempt,
            answer,
            latency_ms: 40,
        })
    }
}

fn final_answer(approved: bool) -> GatewayAnswer {
    GatewayAnswer::Final(GatewayResult {
        approved,
        response_code: if approved { "00" } else { "05" }.to_owned(),
        authorisation_code: None,
        reference: None,
    })
}

pub(super) fn not_sent() -> GatewayAnswer {
    GatewayAnswer::NotSent {
        detail: "its turn has not come".to_owned(),
    }
}
