//! The circuit breaker of the backlog: when payment after payment fails,
//! nothing more is sent for a while, and then one alone, to see.
//!
//! [`Wan`](crate::wan::Wan) judges whether customers are served online and
//! hears probes and live sales; failures of the backlog do not send the shop
//! offline. The breaker judges the backlog alone. Any answer to a payment,
//! live or not, closes it.

use std::collections::BTreeSet;

use hub_protocol::PaymentId;

use crate::input::AttemptId;
use crate::random::Random;

/// So many different payments failing without any answer in between open the
/// breaker. Different ones: a payment that the gateway stumbles over is the
/// affair of parking.
pub(crate) const FAILURES_TO_OPEN: usize = 5;

/// The first wait before one is tried, at most, in milliseconds.
const FIRST_WAIT_MS: u64 = 1_000;

/// The longest wait before one is tried, in milliseconds.
const LONGEST_WAIT_MS: u64 = 60_000;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    state: State,
    failed: BTreeSet<PaymentId>,
    waits: u32,
    /// The payment whose trial failed last: another one is tried next, if
    /// there is one.
    last_trial: Option<PaymentId>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        until_ms: u64,
    },
    HalfOpen {
        trial: AttemptId,
    },
}

/// What may be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Permit {
    /// As many as there is room for.
    All,
    /// One, rather not the payment named.
    One(Option<PaymentId>),
    /// None.
    None,
}

impl Breaker {
    pub(crate) fn permit(&self, now_ms: u64) -> Permit {
        match self.state {
            State::Closed => Permit::All,
            State::Open { until_ms } if until_ms <= now_ms => Permit::One(self.last_trial),
            State::Open { .. } | State::HalfOpen { .. } => Permit::None,
        }
    }

    /// An attempt leaves.
    pub(crate) fn sent(&mut self, attempt: AttemptId) {
        if matches!(self.state, State::Open { .. }) {
            self.state = State::HalfOpen { trial: attempt };
        }
    }

    /// A payment was answered. Returns whether that closed the breaker.
    pub(crate) fn answered(&mut self) -> bool {
        let closed = self.state != State::Closed;
        *self = Self::default();
        closed
    }

    /// An attempt of the backlog failed.
    pub(crate) fn failed(
        &mut self,
        attempt: AttemptId,
        payment: PaymentId,
        now_ms: u64,
        random: &mut Random,
    ) {
        match self.state {
            State::Closed => {
                self.failed.insert(payment);
                if self.failed.len() >= FAILURES_TO_OPEN {
                    self.open(now_ms, random);
                }
            }
            State::HalfOpen { trial } if trial == attempt => {
                self.last_trial = Some(payment);
                self.open(now_ms, random);
            }
            State::HalfOpen { .. } | State::Open { .. } => {}
        }
    }

    /// An attempt ended before it was sent: the trial is still to be made.
    pub(crate) fn not_sent(&mut self, attempt: AttemptId, now_ms: u64) {
        if self.state == (State::HalfOpen { trial: attempt }) {
            self.state = State::Open { until_ms: now_ms };
        }
    }

    /// When one may be tried, if nothing may go before.
    pub(crate) fn until_ms(&self) -> Option<u64> {
        match self.state {
            State::Open { until_ms } => Some(until_ms),
            State::Closed | State::HalfOpen { .. } => None,
        }
    }

    /// Between half and the whole of a wait that doubles.
    fn open(&mut self, now_ms: u64, random: &mut Random) {
        let whole = (FIRST_WAIT_MS << self.waits.min(16)).min(LONGEST_WAIT_MS);
        self.waits = self.waits.saturating_add(1);
        self.failed.clear();
        let wait = whole / 2 + random.up_to(whole / 2);
        self.state = State::Open {
            until_ms: now_ms.saturating_add(wait),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(number: u8) -> PaymentId {
        PaymentId([number; 16])
    }

    #[test]
    fn failures_of_different_payments_open_it_and_one_trial_closes_it() {
        let (mut breaker, mut random) = (Breaker::default(), Random::new(1));
        for _ in 0..50 {
            breaker.failed(AttemptId(1), payment(1), 0, &mut random);
        }
        assert_eq!(breaker.permit(0), Permit::All, "one stumbling block is no outage");
        for number in 2..=5 {
            breaker.failed(AttemptId(1), payment(number), 0, &mut random);
        }
        assert_eq!(breaker.permit(0), Permit::None);
        let until = breaker.until_ms().unwrap();
        assert!((500..=1_000).contains(&until), "{until}");
        assert_eq!(breaker.permit(until), Permit::One(None));
        breaker.sent(AttemptId(9));
        assert_eq!(breaker.permit(until), Permit::None, "one trial at a time");
        breaker.failed(AttemptId(8), payment(7), until, &mut random);
        assert_eq!(
            breaker.permit(until + 99_999),
            Permit::None,
            "not this trial's answer"
        );
        breaker.failed(AttemptId(9), payment(9), until, &mut random);
        let second = breaker.until_ms().unwrap();
        assert!((1_000..=2_000).contains(&(second - until)), "the wait doubles");
        assert_eq!(breaker.permit(second), Permit::One(Some(payment(9))));
        breaker.sent(AttemptId(10));
        assert!(breaker.answered());
        assert_eq!(breaker.permit(second), Permit::All);
    }

    #[test]
    fn an_answer_in_between_starts_the_count_anew_and_an_unsent_trial_is_made_again() {
        let (mut breaker, mut random) = (Breaker::default(), Random::new(1));
        for number in 1..=4 {
            breaker.failed(AttemptId(1), payment(number), 0, &mut random);
        }
        assert!(!breaker.answered());
        for number in 1..=4 {
            breaker.failed(AttemptId(1), payment(number), 0, &mut random);
        }
        assert_eq!(breaker.permit(0), Permit::All);
        breaker.failed(AttemptId(1), payment(5), 0, &mut random);
        let until = breaker.until_ms().unwrap();
        breaker.sent(AttemptId(2));
        breaker.not_sent(AttemptId(2), until);
        assert_eq!(breaker.permit(until), Permit::One(None));
    }

    #[test]
    fn the_wait_never_passes_a_minute() {
        let (mut breaker, mut random) = (Breaker::default(), Random::new(1));
        for number in 1..=5 {
            breaker.failed(AttemptId(1), payment(number), 0, &mut random);
        }
        let mut now = 0;
        for number in 0..40 {
            let until = breaker.until_ms().unwrap();
            assert!(until - now <= LONGEST_WAIT_MS);
            now = until;
            breaker.sent(AttemptId(number));
            breaker.failed(AttemptId(number), payment(1), now, &mut random);
        }
    }
}
