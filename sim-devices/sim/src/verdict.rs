//! The decision a second time: every objection of the policy's numbers to one
//! payment, of which the one with the smallest number is the reason.

use hub_protocol::entry::{ClockQuality, DecisionRecord, EntryTime};
use hub_protocol::{Decision, EntryMode, PaymentId, PaymentRequest, PaymentState, Reason, Verification};

use crate::ledger::{Ledger, Subject, objection_always};
use crate::limits::Pair;
use crate::violation::{Checked, Rule, hold};

impl Ledger {
    /// Holds a decision, before it is taken in, to the rules.
    pub(crate) fn hold_decision(
        &self,
        id: &PaymentId,
        record: &DecisionRecord,
        time: EntryTime,
        asked_online: bool,
        max_queue: usize,
    ) -> Checked {
        let Some(payment) = self.payments.get(id) else {
            return Ok(());
        };
        let request = &payment.asked.request;
        match record.decision {
            Decision::ApprovedOnline => {
                let says = asked_online && record.gateway.as_ref().is_some_and(|g| g.approved);
                hold(says, Rule::SilenceMeansNo, || {
                    format!("{id} is approved online without the gateway's word")
                })
            }
            Decision::ApprovedOffline => {
                match self.reason_against(payment.device, request, time, max_queue) {
                    None => Ok(()),
                    Some(reason) => hold(false, rule_of(reason), || {
                        format!(
                            "{id} is approved offline although {reason}: {}",
                            self.numbers(request, payment.device)
                        )
                    }),
                }
            }
            // The gateway's own no, and the hub's own end of waiting.
            Decision::Declined if asked_online && record.reason == Reason::GatewayDeclined => {
                hold(record.gateway.is_some(), Rule::SilenceMeansNo, || {
                    format!("{id} is declined in the gateway's name without its word")
                })
            }
            Decision::Declined
                if asked_online && matches!(record.reason, Reason::Abandoned | Reason::Cancelled) =>
            {
                Ok(())
            }
            Decision::Declined | Decision::Fallback => {
                let reason = self.reason_against(payment.device, request, time, max_queue);
                hold(reason == Some(record.reason), rule_of(record.reason), || {
                    format!(
                        "{id} is refused for {}, by the policy's numbers {reason:?}: {}",
                        record.reason,
                        self.numbers(request, payment.device)
                    )
                })
            }
        }
    }

    fn numbers(&self, request: &PaymentRequest, device: hub_protocol::DeviceId) -> String {
        let card = Subject::Card(request.card.token.clone());
        let of = |subject: &Subject| format!("{} in {}", self.exposure(subject), self.consecutive(subject));
        format!(
            "amount {}, at risk: card {}, device {}, store {}",
            request.amount_minor(),
            of(&card),
            of(&Subject::Device(device)),
            of(&Subject::Store)
        )
    }

    /// Why this payment must not be approved offline now.
    fn reason_against(
        &self,
        device: hub_protocol::DeviceId,
        request: &PaymentRequest,
        time: EntryTime,
        max_queue: usize,
    ) -> Option<Reason> {
        let mut all = Vec::new();
        let mut against = |condition: bool, reason: Reason| {
            if condition {
                all.push(reason);
            }
        };
        if let Some(reason) = objection_always(request) {
            return Some(reason);
        }
        let blocked = self.devices.get(&device).is_some_and(|(_, blocked)| *blocked);
        against(blocked, Reason::DeviceBlocked);
        against(self.queue().len() >= max_queue, Reason::QueueFull);
        let Some(limits) = &self.policy else {
            against(true, Reason::NoPolicy);
            return all.into_iter().min_by_key(|r| r.number());
        };
        let class = self.devices.get(&device).map(|(class, _)| *class)?;
        let amount = request.amount_minor();
        let now = time.wall_ms;
        against(now < limits.not_before_ms, Reason::PolicyNotYetValid);
        against(now >= limits.expires_ms, Reason::PolicyExpired);
        against(!limits.enabled, Reason::OfflineDisabled);
        against(self.alone_ms(now) > limits.longest_ms, Reason::OfflineTooLong);
        against(
            !limits.schemes.contains(&request.card.scheme),
            Reason::SchemeNotAllowed,
        );
        against(
            !limits.funding.contains(&request.card.funding),
            Reason::FundingNotAllowed,
        );
        against(
            !limits.entry_modes.contains(&request.entry_mode),
            Reason::EntryModeNotAllowed,
        );
        against(
            request.verification == Verification::OnlinePin,
            Reason::OnlinePinNotPossible,
        );
        // A clock in doubt halves every amount.
        let by_clock = if time.quality == ClockQuality::Suspect {
            2
        } else {
            1
        };
        let unverified =
            request.entry_mode == EntryMode::Contactless && request.verification == Verification::None;
        against(
            unverified && limits.unverified.is_some_and(|most| amount > most / by_clock),
            Reason::VerificationRequired,
        );
        let Some((_, transaction, of_device)) = limits.classes.iter().find(|(c, _, _)| *c == class) else {
            against(true, Reason::ClassNotAllowed);
            return all.into_iter().min_by_key(|r| r.number());
        };
        let subjects = [
            (
                Subject::Card(request.card.token.clone()),
                limits.card,
                Reason::CardCeiling,
                Reason::CardConsecutiveLimit,
            ),
            (
                Subject::Device(device),
                *of_device,
                Reason::DeviceCeiling,
                Reason::DeviceConsecutiveLimit,
            ),
            (
                Subject::Store,
                limits.store,
                Reason::StoreCeiling,
                Reason::StoreConsecutiveLimit,
            ),
        ];
        let past = |subject: &Subject, pair: &Pair, parts: u32| {
            (
                self.exposure(subject) + amount > pair.exposure / u64::from(parts),
                self.consecutive(subject) >= pair.consecutive / parts,
            )
        };
        against(amount > *transaction, Reason::TransactionCeiling);
        for (subject, pair, ceiling, count) in &subjects {
            let (too_much, too_many) = past(subject, pair, 1);
            against(too_much, *ceiling);
            against(too_many, *count);
        }
        let halved = time.quality == ClockQuality::Suspect
            && (amount > transaction / 2
                || subjects.iter().any(|(subject, pair, _, _)| {
                    let (too_much, too_many) = past(subject, pair, 2);
                    too_much || too_many
                }));
        // A clock in doubt halves the limits, once nothing else is in the way.
        all.into_iter()
            .min_by_key(|r| r.number())
            .or(halved.then_some(Reason::ClockInDoubt))
    }
}

/// The rule that a reason serves.
fn rule_of(reason: Reason) -> Rule {
    match reason {
        Reason::TransactionCeiling
        | Reason::CardCeiling
        | Reason::DeviceCeiling
        | Reason::StoreCeiling
        | Reason::CardConsecutiveLimit
        | Reason::DeviceConsecutiveLimit
        | Reason::StoreConsecutiveLimit => Rule::NoCeilingPassed,
        _ => Rule::SilenceMeansNo,
    }
}

/// Whether the sealed card may still be needed.
pub(crate) fn needs_card(state: PaymentState) -> bool {
    matches!(
        state,
        PaymentState::Open | PaymentState::Queued | PaymentState::Parked
    )
}
