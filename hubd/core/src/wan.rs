//! How the hub stands to the gateway: online, degraded or offline.
//!
//! Active probes and the outcome of real traffic are the evidence. Hysteresis
//! keeps one lost packet from switching a shop offline and one lucky answer
//! from switching it back.

use hub_protocol::entry::{WanReason, WanState};

/// How much evidence changes the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WanSettings {
    /// Failures in a row until offline. One failure already makes it degraded.
    pub offline_after: u32,
    /// Good answers in a row until online.
    pub online_after: u32,
    /// Good probes in a row until online, if a payment has failed since a
    /// payment was last answered: a gateway whose health page answers while
    /// its payments do not is not back.
    pub online_after_payment_failure: u32,
    /// An answer later than this counts as slow, in milliseconds.
    pub slow_ms: u64,
    /// Slow answers in a row until degraded.
    pub degraded_after_slow: u32,
}

impl Default for WanSettings {
    fn default() -> Self {
        Self {
            offline_after: 3,
            online_after: 2,
            online_after_payment_failure: 6,
            slow_ms: 1500,
            degraded_after_slow: 3,
        }
    }
}

/// The connectivity and the evidence for it.
#[derive(Clone, Debug)]
pub struct Wan {
    settings: WanSettings,
    state: WanState,
    reason: WanReason,
    failures: u32,
    good: u32,
    slow: u32,
    /// A payment has failed since one was last answered.
    payment_failed: bool,
}

/// One piece of evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The probe was answered.
    ProbeAnswered {
        /// How long it took.
        latency_ms: u64,
    },
    /// The probe was not answered, or with being out of order.
    ProbeFailed,
    /// A payment was answered.
    PaymentAnswered {
        /// How long it took.
        latency_ms: u64,
    },
    /// A customer's payment was not answered, or with being out of order.
    PaymentFailed,
    /// The same of a payment out of the backlog. Live sales are not sent
    /// offline for it.
    BacklogFailed,
}

/// A change of state, to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WanChange {
    /// From.
    pub from: WanState,
    /// To.
    pub to: WanState,
    /// Why.
    pub reason: WanReason,
}

impl Wan {
    /// Begins where the ledger left off.
    pub fn new(settings: WanSettings, state: WanState, reason: WanReason) -> Self {
        Self {
            settings,
            state,
            reason,
            failures: 0,
            good: 0,
            slow: 0,
            payment_failed: false,
        }
    }

    /// The state.
    pub fn state(&self) -> WanState {
        self.state
    }

    /// Why.
    pub fn reason(&self) -> WanReason {
        self.reason
    }

    /// Takes note of evidence. Returns the change if there is one.
    pub fn observe(&mut self, evidence: Evidence) -> Option<WanChange> {
        let (to, reason) = match evidence {
            Evidence::ProbeFailed => self.failed(true),
            Evidence::PaymentFailed => {
                self.payment_failed = true;
                self.failed(true)
            }
            Evidence::BacklogFailed => {
                self.payment_failed = true;
                self.failed(false)
            }
            Evidence::ProbeAnswered { latency_ms } => self.answered(latency_ms),
            Evidence::PaymentAnswered { latency_ms } => {
                self.payment_failed = false;
                self.answered(latency_ms)
            }
        }?;
        if to == self.state {
            return None;
        }
        let change = WanChange {
            from: self.state,
            to,
            reason,
        };
        self.state = to;
        self.reason = reason;
        Some(change)
    }

    fn failed(&mut self, counts: bool) -> Option<(WanState, WanReason)> {
        self.good = 0;
        self.slow = 0;
        self.failures = self.failures.saturating_add(u32::from(counts));
        if self.failures >= self.settings.offline_after {
            Some((WanState::Offline, WanReason::ManyFailed))
        } else if self.state == WanState::Online {
            Some((WanState::Degraded, WanReason::SomeFailed))
        } else {
            None
        }
    }

    fn answered(&mut self, latency_ms: u64) -> Option<(WanState, WanReason)> {
        self.failures = 0;
        if latency_ms > self.settings.slow_ms {
            self.slow = self.slow.saturating_add(1);
            self.good = 0;
        } else {
            self.slow = 0;
            self.good = self.good.saturating_add(1);
        }
        let enough = if self.payment_failed {
            self.settings.online_after_payment_failure
        } else {
            self.settings.online_after
        };
        if self.good >= enough {
            Some((WanState::Online, WanReason::AnswersGood))
        } else if self.slow >= self.settings.degraded_after_slow {
            // Slow answers are still answers: offline becomes degraded too.
            Some((WanState::Degraded, WanReason::AnswersSlow))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Evidence = Evidence::ProbeAnswered { latency_ms: 50 };
    const SLOW: Evidence = Evidence::ProbeAnswered { latency_ms: 1501 };

    fn after(start: WanState, evidence: &[Evidence]) -> (WanState, WanReason) {
        let mut wan = Wan::new(WanSettings::default(), start, WanReason::Starting);
        for piece in evidence {
            wan.observe(*piece);
        }
        (wan.state(), wan.reason())
    }

    #[test]
    fn connectivity_changes_with_hysteresis() {
        use Evidence::{BacklogFailed, PaymentAnswered, PaymentFailed, ProbeFailed as Failed};
        use WanReason::{AnswersGood, AnswersSlow, ManyFailed, SomeFailed, Starting};
        use WanState::{Degraded, Offline, Online};
        let table: &[(WanState, &[Evidence], (WanState, WanReason))] = &[
            (Online, &[Failed], (Degraded, SomeFailed)),
            (Online, &[Failed, Failed], (Degraded, SomeFailed)),
            (Online, &[Failed, Failed, Failed], (Offline, ManyFailed)),
            (Online, &[Failed, GOOD, Failed, Failed], (Degraded, SomeFailed)),
            (Offline, &[GOOD], (Offline, Starting)),
            (Offline, &[GOOD, GOOD], (Online, AnswersGood)),
            (Offline, &[GOOD, Failed, GOOD], (Offline, Starting)),
            (Degraded, &[GOOD, GOOD], (Online, AnswersGood)),
            (Online, &[SLOW, SLOW], (Online, Starting)),
            (Online, &[SLOW, SLOW, SLOW], (Degraded, AnswersSlow)),
            (Online, &[SLOW, GOOD, SLOW, SLOW], (Online, Starting)),
            (Offline, &[SLOW, SLOW, SLOW], (Degraded, AnswersSlow)),
            (
                Online,
                &[PaymentFailed, GOOD, GOOD, GOOD, GOOD, GOOD],
                (Degraded, SomeFailed),
            ),
            (
                Online,
                &[PaymentFailed, GOOD, GOOD, GOOD, GOOD, GOOD, GOOD],
                (Online, AnswersGood),
            ),
            (
                Online,
                &[PaymentFailed, PaymentAnswered { latency_ms: 9 }, GOOD],
                (Online, AnswersGood),
            ),
            (
                Online,
                &[BacklogFailed, BacklogFailed, BacklogFailed, BacklogFailed],
                (Degraded, SomeFailed),
            ),
        ];
        for (start, evidence, expected) in table {
            assert_eq!(after(*start, evidence), *expected, "{start} {evidence:?}");
        }
    }

    #[test]
    fn every_change_is_reported_once_with_its_reason() {
        let mut wan = Wan::new(WanSettings::default(), WanState::Online, WanReason::Starting);
        assert!(wan.observe(Evidence::ProbeFailed).is_some());
        assert!(wan.observe(Evidence::ProbeFailed).is_none());
        let change = wan.observe(Evidence::ProbeFailed).unwrap();
        assert_eq!((change.from, change.to), (WanState::Degraded, WanState::Offline));
        assert!(wan.observe(Evidence::ProbeFailed).is_none());
    }
}
