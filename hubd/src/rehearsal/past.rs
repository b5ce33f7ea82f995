//! A shop's own past under another policy: its ledger is folded twice, as it
//! was and with the decisions that the core makes under the new policy.
//! Everything else is played as it happened. What nobody can know is told in
//! `docs/policy.md`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use hub_core::Moment;
use hub_core::decide::{Assessment, Situation, assess_offline};
use hub_core::policy::Policy;
use hub_core::state::{FoldError, State};
use hub_protocol::entry::{ClockQuality, DecisionRecord, Entry, EntryTime, Event, WanState};
use hub_protocol::root::Term;
use hub_protocol::{
    Currency, Decision, DeviceClass, DeviceId, GatewayResult, PaymentId, PaymentRequest, Reason,
};

use super::fold::Fold;

/// One side of the comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// Approved offline, and their sum in minor units.
    pub approved: (u64, u64),
    /// Declined.
    pub declined: u64,
    /// Sent another way.
    pub fallback: u64,
    /// The store's highest exposure, minor units.
    pub highest_minor: u64,
    /// Of those approved: declined by the issuer in the end, and their sum.
    pub declined_later: (u64, u64),
    /// How many decisions had which reason; approvals have none.
    pub reasons: BTreeMap<Reason, u64>,
}

/// A payment that would have been decided otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub payment_id: PaymentId,
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// What it was.
    pub request: PaymentRequest,
    /// The class of the asking device.
    pub class: DeviceClass,
    /// What was decided.
    pub before: DecisionRecord,
    /// What would have been, and what led to it.
    pub after: Assessment,
}

/// What a rehearsal found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Times of the first and the last entry looked at.
    pub times: Option<(u64, u64)>,
    /// Payments decided with the gateway, or for a reason that is no policy's.
    pub as_they_were: u64,
    /// Payments that a policy decided.
    pub offline: u64,
    /// Of these, how many would have been decided otherwise.
    pub otherwise: u64,
    /// And how many the same way, for another reason.
    pub other_reason: u64,
    /// Of these, how many cannot be decided again, because their device was
    /// enrolled in an archive that is elsewhere. They stay as they were.
    pub unknown_device: u64,
    /// The currency of payments that were approved offline in another one than
    /// the policy's, if there are any.
    pub other_currency: Option<Currency>,
    /// As it was.
    pub before: Side,
    /// As it would have been.
    pub after: Side,
    /// The first payments that would have been decided otherwise.
    pub first: Vec<Changed>,
}

/// A rehearsal under way; entries are given to it in order.
#[derive(Debug)]
pub struct Rehearsal {
    /// In force all the time, whatever it says of that.
    policy: Policy,
    not_before_ms: u64,
    since_ms: u64,
    most_listed: usize,
    before: Fold,
    /// Since when decisions are made again; before that they are as they were.
    after: Option<Fold>,
    /// Requests that were asked online and have no decision yet.
    open: HashMap<PaymentId, PaymentRequest>,
    /// Approved on one side only: what the ledger says of their end is not
    /// for the other.
    one_sided: HashSet<PaymentId>,
    /// Approved only under the new policy and not settled yet.
    added: BTreeSet<PaymentId>,
    findings: Findings,
}

/// How long what waits has waited, if the policy asks for it. All that has not
/// ended is in memory here.
fn oldest_unsent_ms(policy: &Policy, state: &State, now_ms: u64) -> u64 {
    if policy.offline.oldest_unsent_ms.is_none() && policy.moving.oldest_unsent.is_empty() {
        return 0;
    }
    let waits = state
        .payments()
        .filter(|(_, payment)| payment.queue_sequence.is_some() && payment.parked.is_none());
    let since = waits.filter_map(|(_, payment)| match &payment.retry {
        Some(retry) => Some(retry.queued_ms),
        None => Some(payment.decided.as_ref()?.time.wall_ms),
    });
    since.min().map_or(0, |since| now_ms.saturating_sub(since))
}

impl Rehearsal {
    /// A rehearsal of what happened at `since_ms` or later; `most_listed` of
    /// the changed payments are kept.
    pub fn new(policy: Policy, since_ms: u64, most_listed: usize) -> Self {
        Self {
            not_before_ms: policy.not_before_ms,
            policy: Policy {
                expires_ms: u64::MAX,
                ..policy
            },
            since_ms,
            most_listed,
            before: Fold::default(),
            after: None,
            open: HashMap::new(),
            one_sided: HashSet::new(),
            added: BTreeSet::new(),
            findings: Findings::default(),
        }
    }

    /// The next entry of the ledger.
    ///
    /// # Errors
    /// It holds something that cannot be read.
    pub fn entry(&mut self, entry: &Entry) -> Result<(), FoldError> {
        let time = entry.time;
        if self.after.is_none() && time.wall_ms >= self.since_ms {
            let mut after = self.before.clone();
            after.state.rehearse_under(self.policy.clone());
            self.after = Some(after);
        }
        let request = State::request_in(entry)?;
        if let (Event::PaymentOpened { payment_id, .. }, Some(request)) = (&entry.event, &request) {
            self.open.insert(*payment_id, request.clone());
        }
        let under_policy = match &entry.event {
            Event::PaymentDecided {
                payment_id,
                device,
                record,
                ..
            } => {
                let asked = self.open.remove(payment_id);
                match request.as_ref().or(asked.as_ref()) {
                    Some(request) => self.decided_again(*device, request, record, time),
                    None => record.clone(),
                }
                .into()
            }
            _ => None,
        };
        self.count_settled(&entry.event);
        let forgotten = self.before.apply(entry.event.clone(), time, request.as_ref())?;
        self.apply_after(entry, under_policy, request.as_ref())?;
        if let (Event::PolicyActivated { .. }, Some(after)) = (&entry.event, &mut self.after) {
            after.state.rehearse_under(self.policy.clone());
        }
        if let Some(id) = forgotten {
            self.one_sided.remove(&id);
        }
        self.measure(time);
        self.settle_added(time)
    }

    /// What was found.
    pub fn finish(self) -> Findings {
        self.findings
    }

    /// The decision under the new policy, or the old one where that has
    /// nothing to say.
    fn decided_again(
        &mut self,
        device: DeviceId,
        request: &PaymentRequest,
        before: &DecisionRecord,
        time: EntryTime,
    ) -> DecisionRecord {
        // Before its beginning it counts as one that has just begun.
        self.policy.not_before_ms = self.not_before_ms.min(time.wall_ms);
        let Some(after) = &self.after else {
            return before.clone();
        };
        if !decided_by_a_policy(before) {
            self.findings.as_they_were += 1;
            return before.clone();
        }
        self.findings.offline += 1;
        let Some(asking) = after.state.device(&device) else {
            self.findings.unknown_device += 1;
            self.count(before, before, request);
            return before.clone();
        };
        let moment = Moment {
            now_ms: time.wall_ms,
            oldest_unsent_ms: oldest_unsent_ms(&self.policy, &after.state, time.wall_ms),
            clock_suspect: time.quality == ClockQuality::Suspect,
            // These come before anything that a policy says, so that the
            // reason given then tells how it was.
            queue_has_room: before.reason != Reason::QueueFull,
            // A rehearsal asks what a policy would have said, not who signed it.
            policy_term: Term::ALWAYS,
            storage_full: before.reason == Reason::StorageFull,
        };
        let situation = Situation {
            policy: Some(&self.policy),
            ..Situation::of(&after.state, self.policy.currency, asking, request, moment)
        };
        let class = situation.class;
        let assessed = assess_offline(request, &situation);
        let mut record = assessed.record.clone();
        let approved = record.decision.approved();
        record.reversal_queued = before.reversal_queued && !approved;
        self.count(before, &record, request);
        if approved != before.decision.approved() {
            self.one_sided.insert(request.payment_id);
            if approved {
                self.added.insert(request.payment_id);
            }
        }
        if record.decision != before.decision {
            self.findings.otherwise += 1;
            if self.findings.first.len() < self.most_listed {
                self.findings.first.push(Changed {
                    payment_id: request.payment_id,
                    at_ms: time.wall_ms,
                    request: request.clone(),
                    class,
                    before: before.clone(),
                    after: assessed,
                });
            }
        } else if record.reason != before.reason {
            self.findings.other_reason += 1;
        }
        record
    }

    fn count(&mut self, before: &DecisionRecord, after: &DecisionRecord, request: &PaymentRequest) {
        if before.decision == Decision::ApprovedOffline && request.currency != self.policy.currency {
            self.findings.other_currency = Some(request.currency);
        }
        for (side, record) in [
            (&mut self.findings.before, before),
            (&mut self.findings.after, after),
        ] {
            match record.decision {
                Decision::ApprovedOffline => {
                    side.approved.0 += 1;
                    side.approved.1 += request.amount_minor();
                    continue;
                }
                Decision::Fallback => side.fallback += 1,
                Decision::Declined | Decision::ApprovedOnline => side.declined += 1,
            }
            *side.reasons.entry(record.reason).or_default() += 1;
        }
    }

    fn count_settled(&mut self, event: &Event) {
        let Event::PaymentSettled {
            payment_id, gateway, ..
        } = event
        else {
            return;
        };
        let (Some(after), false) = (&self.after, gateway.approved) else {
            return;
        };
        let amount = |fold: &Fold| fold.state.payment(payment_id).map(|payment| payment.amount_minor);
        let not_after = self.one_sided.contains(payment_id);
        let amounts = [amount(&self.before), amount(after).filter(|_| !not_after)];
        let sides = [&mut self.findings.before, &mut self.findings.after];
        for (side, amount) in sides.into_iter().zip(amounts) {
            if let Some(amount) = amount {
                side.declined_later.0 += 1;
                side.declined_later.1 += amount;
            }
        }
    }

    fn apply_after(
        &mut self,
        entry: &Entry,
        under_policy: Option<DecisionRecord>,
        request: Option<&PaymentRequest>,
    ) -> Result<(), FoldError> {
        let Some(after) = &mut self.after else {
            return Ok(());
        };
        let mut event = entry.event.clone();
        match (&mut event, under_policy) {
            (Event::PaymentDecided { record, .. }, Some(other)) => *record = other,
            (event, _) if event.payment_id().is_some_and(|id| self.one_sided.contains(&id)) => return Ok(()),
            _ => {}
        }
        after.apply(event, entry.time, request).map(drop)
    }

    /// Nobody knows how payments would have ended that only the new policy
    /// approves. They are taken as sent with the rest, and approved when the
    /// last of that has its answer.
    fn settle_added(&mut self, time: EntryTime) -> Result<(), FoldError> {
        let store = self.before.state.store();
        let waits = store.subject.unsettled > store.subject.parked || store.wan != WanState::Online;
        let Some(after) = self.after.as_mut().filter(|_| !waits) else {
            return Ok(());
        };
        for payment_id in std::mem::take(&mut self.added) {
            let gateway = GatewayResult {
                approved: true,
                response_code: "00".to_owned(),
                authorisation_code: None,
                reference: None,
            };
            let settled = Event::PaymentSettled {
                payment_id,
                gateway,
                advice: None,
            };
            after.apply(settled, time, None)?;
        }
        Ok(())
    }

    fn measure(&mut self, time: EntryTime) {
        let Some(after) = &self.after else {
            return;
        };
        let (first, last) = self.findings.times.unwrap_or((time.wall_ms, time.wall_ms));
        self.findings.times = Some((first, last.max(time.wall_ms)));
        for (side, fold) in [
            (&mut self.findings.before, &self.before),
            (&mut self.findings.after, after),
        ] {
            side.highest_minor = side.highest_minor.max(fold.state.store().subject.exposure_minor);
        }
    }
}

/// Whether a policy had a say in it. The reasons before [`Reason::QueueFull`]
/// are the card's, the device's and the gateway's.
fn decided_by_a_policy(record: &DecisionRecord) -> bool {
    match record.decision {
        // By a device out of reach, under the allowance that it had.
        Decision::ApprovedOffline => record.allowance.is_none(),
        Decision::ApprovedOnline => false,
        Decision::Declined | Decision::Fallback => {
            record.gateway.is_none() && record.reason >= Reason::QueueFull
        }
    }
}
