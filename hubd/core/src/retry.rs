//! Presenting a declined payment again, as far as its card's scheme allows.
//!
//! A decline by the issuer is final unless the policy says otherwise for the
//! payment's scheme and the response code; what the issuer advises with it
//! can only forbid more or ask for a longer wait. The schemes' rules change, so
//! all of them are policy data. Every decline and every return to the queue is a
//! ledger entry, so that counts survive a restart.

use std::collections::BTreeSet;

use hub_protocol::entry::Event;
use hub_protocol::{GatewayResult, MerchantAdvice, PaymentId, PaymentState, Submission};

use crate::core::Core;
use crate::policy::replay::RetryRules;
use crate::record::PaymentRecord;
use crate::state::State;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What a decline leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterDecline {
    /// The decline stands.
    Final,
    /// The payment is presented again, not before this instant, milliseconds
    /// since 1970 UTC.
    PresentAgain {
        /// When.
        due_ms: u64,
    },
}

/// Whether a payment that was declined with `code`, and with this advice of the
/// issuer, may be presented again. `declined_ms` holds the times of all its declines, this one included,
/// oldest first; `now_ms` is effective time.
#[must_use]
pub fn after_decline(
    rules: Option<&RetryRules>,
    code: &str,
    advice: Option<MerchantAdvice>,
    declined_ms: &[u64],
    now_ms: u64,
) -> AfterDecline {
    let Some(rules) = rules else {
        return AfterDecline::Final;
    };
    let has = |codes: &[String]| codes.iter().any(|listed| listed == code);
    if has(&rules.never_retry) || !has(&rules.retry) {
        return AfterDecline::Final;
    }
    if advice.is_some_and(|advice| rules.never_retry_advice.contains(&advice)) {
        return AfterDecline::Final;
    }
    let advised_ms = advice.and_then(|advice| rules.advice_wait_ms.get(&advice));
    let wait_ms = rules.min_wait_ms.max(advised_ms.copied().unwrap_or(0));
    let count = |most: u32| usize::try_from(most).unwrap_or(usize::MAX);
    let last_instant = declined_ms
        .first()
        .map_or(now_ms, |first| first.saturating_add(30 * DAY_MS));
    if declined_ms.len() >= count(rules.most_per_30_days) || rules.most_per_24h == 0 {
        return AfterDecline::Final;
    }
    // The presentation that has to be a day old before one more is in order.
    let room = declined_ms
        .len()
        .checked_sub(count(rules.most_per_24h))
        .and_then(|index| declined_ms.get(index))
        .map_or(0, |old| old.saturating_add(DAY_MS));
    let due_ms = now_ms.saturating_add(wait_ms).max(room);
    if due_ms >= last_instant {
        return AfterDecline::Final;
    }
    AfterDecline::PresentAgain { due_ms }
}

/// Payments that wait to be presented again, by when they may. They stand in
/// no lane meanwhile and hold up nobody.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    due: BTreeSet<(u64, PaymentId)>,
}

impl Retries {
    /// Those of a state that was just opened.
    pub(crate) fn restored(state: &State) -> Self {
        let waiting = |(id, payment): (&PaymentId, &PaymentRecord)| Some((payment.retry_due_ms()?, *id));
        Self {
            due: state.payments().filter_map(waiting).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.due.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, PaymentId)> {
        self.due.iter().copied()
    }

    /// A payment no longer waits for `due_ms`.
    pub(crate) fn remove(&mut self, due_ms: u64, id: PaymentId) {
        self.due.remove(&(due_ms, id));
    }

    fn first_due(&self, effective_ms: u64) -> Option<(u64, PaymentId)> {
        self.due.first().copied().filter(|(due, _)| *due <= effective_ms)
    }
}

impl Core {
    /// A decline of the backlog: schedules another presentation if the
    /// policy allows one. Returns false if the decline stands.
    pub(crate) fn presented_again(
        &mut self,
        id: PaymentId,
        result: &GatewayResult,
        advice: Option<MerchantAdvice>,
    ) -> bool {
        if !self.settings.presents_again {
            return false;
        }
        let now_ms = self.clock.effective_ms();
        let Some(payment) = self.state.payment(&id) else {
            return false;
        };
        let submission = payment.decided.as_ref().and_then(|d| d.record.submission);
        if payment.state != PaymentState::Queued || submission != Some(Submission::Deferred) {
            return false;
        }
        let until_ms = self.policy_term().until_ms;
        let policy = self.state.policy();
        let policy = policy.filter(|policy| now_ms < policy.expires_ms.min(until_ms));
        let rules = policy.and_then(|policy| policy.replay.schemes.get(&payment.scheme));
        let mut declined_ms = payment.declined_ms().to_vec();
        declined_ms.push(now_ms);
        let (device, presentation) = (payment.device, payment.presentation());
        match after_decline(rules, &result.response_code, advice, &declined_ms, now_ms) {
            AfterDecline::Final => false,
            AfterDecline::PresentAgain { due_ms } => {
                let sequence = self.append(
                    Event::PaymentRetryScheduled {
                        payment_id: id,
                        gateway: result.clone(),
                        presentation,
                        due_ms,
                        advice,
                    },
                    None,
                    None,
                );
                self.contacts.forget(&id);
                self.retries.due.insert((due_ms, id));
                self.push_status(id, device, sequence);
                true
            }
        }
    }

    /// Those that may be presented again go back into the queue, at its end.
    pub(crate) fn queue_due_retries(&mut self) {
        while let Some((due_ms, id)) = self.retries.first_due(self.clock.effective_ms()) {
            self.retries.remove(due_ms, id);
            self.append(Event::PaymentRetryDue { payment_id: id }, None, None);
        }
    }

    /// When the next retry is due, on the monotonic clock.
    pub(crate) fn retry_wake_ms(&self) -> Option<u64> {
        let (due_ms, _) = self.retries.due.first()?;
        let wait = due_ms.saturating_sub(self.clock.effective_ms());
        Some(self.now.monotonic_ms.saturating_add(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 60 * 60 * 1000;
    const NOW: u64 = 1_800_000_000_000;

    fn rules() -> RetryRules {
        RetryRules {
            never_retry: vec!["04".to_owned(), "91".to_owned()],
            retry: vec!["51".to_owned(), "91".to_owned()],
            most_per_24h: 2,
            most_per_30_days: 4,
            min_wait_ms: HOUR_MS,
            never_retry_advice: vec![advice("03"), advice("21")],
            advice_wait_ms: [("24", 1), ("02", 24), ("26", 48), ("30", 240), ("88", 720)]
                .map(|(code, hours)| (advice(code), hours * HOUR_MS))
                .into(),
        }
    }

    fn advice(code: &str) -> MerchantAdvice {
        code.parse().unwrap()
    }

    /// Declines so many hours ago.
    fn ago(hours: &[u64]) -> Vec<u64> {
        hours.iter().map(|hours| NOW - hours * HOUR_MS).collect()
    }

    #[test]
    fn scheme_rules_in_order_of_precedence() {
        use AfterDecline::Final;
        let again = |hours: u64| AfterDecline::PresentAgain {
            due_ms: NOW + hours * HOUR_MS,
        };
        // What the table says of: code, declines (hours ago), the answer.
        let table: &[(&str, &str, &[u64], AfterDecline)] = &[
            ("a code that is never retried", "04", &[0], Final),
            ("never goes before may", "91", &[0], Final),
            ("a code that nobody names", "05", &[0], Final),
            ("the first decline", "51", &[0], again(1)),
            (
                "as many as allowed in a day: the oldest must be a day old",
                "51",
                &[5, 0],
                again(19),
            ),
            (
                "the least wait goes before a day that is nearly over",
                "51",
                &[24, 0],
                again(1),
            ),
            ("only the day's own count", "51", &[30, 0], again(1)),
            ("as many as allowed in 30 days", "51", &[90, 60, 30, 0], Final),
            ("one fewer", "51", &[60, 30, 0], again(1)),
            ("not past 30 days after the first", "51", &[30 * 24 - 1, 0], Final),
            ("the last hour before that", "51", &[30 * 24 - 2, 0], again(1)),
        ];
        for (what, code, declined, expected) in table {
            let told = after_decline(Some(&rules()), code, None, &ago(declined), NOW);
            assert_eq!(told, *expected, "{what}");
        }
        assert_eq!(
            after_decline(None, "51", None, &ago(&[0]), NOW),
            Final,
            "no rules: no retry"
        );
        let none = RetryRules {
            most_per_24h: 0,
            ..rules()
        };
        assert_eq!(
            after_decline(Some(&none), "51", None, &ago(&[0]), NOW),
            Final,
            "none a day"
        );
    }

    #[test]
    fn what_the_issuer_advises_only_forbids_more_or_waits_longer() {
        use AfterDecline::Final;
        let again = |hours: u64| AfterDecline::PresentAgain {
            due_ms: NOW + hours * HOUR_MS,
        };
        // What the line says of: code, advice, declines (hours ago), the answer.
        let table: &[(&str, &str, &str, &[u64], AfterDecline)] = &[
            ("never, though the code may", "51", "03", &[0], Final),
            ("cancelled, though the code may", "51", "21", &[0], Final),
            (
                "a wait does not allow what the code forbids",
                "04",
                "24",
                &[0],
                Final,
            ),
            ("nor a code that nobody names", "05", "24", &[0], Final),
            ("never by both", "04", "03", &[0], Final),
            (
                "an advice that nobody names changes nothing",
                "51",
                "01",
                &[0],
                again(1),
            ),
            ("as long as the least wait", "51", "24", &[0], again(1)),
            ("a longer wait goes before the least", "51", "26", &[0], again(48)),
            ("ten days", "51", "30", &[0], again(240)),
            (
                "the day's count goes before a shorter advice",
                "51",
                "24",
                &[5, 0],
                again(19),
            ),
            (
                "a longer advice goes before the day's count",
                "51",
                "02",
                &[5, 0],
                again(24),
            ),
            (
                "as many as allowed in 30 days",
                "51",
                "24",
                &[90, 60, 30, 0],
                Final,
            ),
            (
                "not past 30 days after the first",
                "51",
                "30",
                &[21 * 24, 0],
                Final,
            ),
            ("a wait of as long as there is", "51", "88", &[0], Final),
        ];
        for (what, code, advised, declined, expected) in table {
            let told = after_decline(Some(&rules()), code, Some(advice(advised)), &ago(declined), NOW);
            assert_eq!(told, *expected, "{what}");
        }
        // A least wait that is longer than what is advised holds.
        let patient = RetryRules {
            min_wait_ms: 12 * HOUR_MS,
            ..rules()
        };
        let told = after_decline(Some(&patient), "51", Some(advice("24")), &ago(&[0]), NOW);
        assert_eq!(told, again(12));
    }
}
