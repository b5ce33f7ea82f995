//! One event, folded.

use hub_protocol::cose::Unverified;
use hub_protocol::entry::{ClockQuality, Entry, Event, Finding, TraceRule, VoidEffect, WanState};
use hub_protocol::{Decision, Digest, PaymentId, PaymentRequest, PaymentState, Root, SignedRoot, cbor};

use super::stored::Key;
use super::{CardKey, Decided, FoldError, KeyRatchet, NotThere, PaymentRecord, Reserved, State, Subject};
use crate::clock::is_set_back;
use crate::closure::OpenPeriods;
use crate::described::Described;
use crate::policy::Policy;

/// What [`Event::OperatorActed`] says of a person who had the queue sent,
/// whether the gateway was thought to be there or not.
pub(crate) const SENDS_NOW: &str = "queue drain";

impl State {
    pub(super) fn apply_event(
        &mut self,
        entry: &Entry,
        digest: Digest,
        known: Option<&PaymentRequest>,
    ) -> Result<(), FoldError> {
        let sequence = entry.sequence;
        let read = |signed: &[u8]| known.map_or_else(|| parse_request(signed, sequence), |r| Ok(r.clone()));
        match &entry.event {
            Event::HubStarted {
                traces,
                away,
                torn_bytes,
                closes,
                ..
            } => {
                if *closes == Some(true) && self.open_periods.is_none() {
                    self.open_periods = Some(Box::new(OpenPeriods::since(sequence)));
                    self.dirty.insert(Key::OpenPeriods);
                }
                self.store.tells_before_sending = traces.is_some();
                if traces.is_none() || *away == Some(true) || *torn_bytes > 0 {
                    self.store.unsent_since = None;
                }
                self.store.traced_by(traces.unwrap_or(TraceRule::Entry), sequence);
            }
            Event::OperatorActed { action, .. } => {
                if action == SENDS_NOW {
                    self.store.unsent_since = None;
                }
            }
            Event::HubStopped | Event::HubKeyChanged { .. } | Event::StorageChanged { .. } => {}
            Event::VaultKeyChanged { key, .. } => self.store.vault_key = Some(*key),
            Event::StoreRecovered { vault_key, .. } => self.store.vault_key = Some(*vault_key),
            Event::RecoveryKeyChanged { key, .. } => self.store.recovery_key = *key,
            Event::ClockChanged { quality, jump_ms } => {
                if *quality != ClockQuality::Suspect
                    && let Some(open) = &mut self.open_periods
                    && open.trusted(entry.time.wall_ms)
                {
                    self.dirty.insert(Key::OpenPeriods);
                }
                if is_set_back(*quality, *jump_ms) {
                    self.store.set_back_at = Some(sequence);
                    // Or the next start would have the wrong time again.
                    self.store.high_water_ms = 0;
                    // Or the time without the gateway would begin in the
                    // future, and be allowed twice.
                    if let Some(since) = &mut self.store.offline_since_ms {
                        *since = since.saturating_sub(jump_ms.unsigned_abs());
                    }
                    self.set_back(jump_ms.unsigned_abs());
                }
            }
            Event::AnomalyFound {
                device, kind, points, ..
            } => self.anomaly(*device, *kind, *points, entry.time.wall_ms),
            Event::RestrictionChanged {
                device,
                restriction,
                cause,
                ..
            } => self.restricted(*device, *restriction, *cause),
            Event::AllowanceGiven { allowance } => self.allowance_given(allowance),
            Event::AllowanceSpent {
                device,
                receipt,
                card,
            } => {
                self.allowance_spent(*device, receipt, CardKey(*card), sequence)?;
            }
            Event::AllowanceReturned {
                device,
                number,
                operator,
                ..
            } => self.allowance_closed(*device, *number, sequence, operator.is_some()),
            Event::AllowanceMisused { device, .. } => self.quarantined(*device, sequence),
            Event::CardNumbersSent { device, .. } => self.card_numbers_sent(*device, sequence),
            Event::AllowancePaymentRefused { device, receipt, .. } => {
                self.allowance_payment_refused(*device, receipt, sequence)?;
            }
            Event::AllowanceForked {
                device,
                number,
                amount_minor,
                count,
            } => {
                let withheld = Reserved {
                    minor: *amount_minor,
                    count: *count,
                };
                self.allowance_forked(*device, *number, withheld, sequence);
            }
            Event::SegmentArchived { number, last, .. } => {
                let marks = self.store.archives.get_or_insert_default();
                (marks.written, marks.through) = (*number, *last);
            }
            Event::PeriodClosed { closure } => {
                if let Some(open) = &mut self.open_periods {
                    open.closed(closure);
                    self.dirty.insert(Key::OpenPeriods);
                }
            }
            Event::ArchiveExported { number, .. } => {
                let marks = self.store.archives.get_or_insert_default();
                if *number == marks.exported + 1 {
                    marks.exported = *number;
                }
            }
            Event::ArchiveRemoved { number, .. } => {
                self.store.archives.get_or_insert_default().removed = *number;
            }
            Event::PaymentOpened {
                payment_id,
                device,
                request,
            } => {
                let parsed = read(request)?;
                let mut record = PaymentRecord::received(*device, &parsed, request, sequence);
                self.must_know(&record.card, sequence)?;
                record.asked_online = true;
                record.received_ms = entry.time.wall_ms;
                self.insert(*payment_id, record);
                self.asked(*device, &parsed, entry.time);
                self.dirty.insert(Key::Payment(*payment_id));
            }
            Event::PaymentDecided {
                payment_id,
                device,
                request,
                record,
            } => {
                if let Some(request) = request {
                    let parsed = read(request)?;
                    let mut received = PaymentRecord::received(*device, &parsed, request, sequence);
                    received.received_ms = entry.time.wall_ms;
                    self.must_know(&received.card, sequence)?;
                    self.insert(*payment_id, received);
                    self.asked(*device, &parsed, entry.time);
                }
                let decided = Decided {
                    sequence,
                    digest,
                    time: entry.time,
                    policy_version: entry.policy_version,
                    record: record.clone(),
                };
                if record
                    .gateway
                    .as_ref()
                    .is_some_and(|gateway| gateway.reference.is_some() || gateway.approved)
                {
                    self.gateway_spoke(entry);
                }
                self.decided(*payment_id, decided)?;
            }
            Event::PaymentSettled {
                payment_id, gateway, ..
            } => {
                self.gateway_spoke(entry);
                self.unpark(*payment_id);
                self.outcome(payment_id, gateway.approved, entry.time.wall_ms);
                let payment = self.release(*payment_id, sequence)?;
                payment.state = if gateway.approved {
                    PaymentState::Settled
                } else {
                    PaymentState::SettledDeclined
                };
                payment.gateway = Some(gateway.clone());
                payment.queue_sequence = None;
                if gateway.approved {
                    self.approved_by_gateway(*payment_id, entry.time.wall_ms);
                }
            }
            Event::PaymentVoided {
                payment_id, effect, ..
            } => match effect {
                VoidEffect::CancelledBeforeSending => {
                    self.unpark(*payment_id);
                    let payment = self.release(*payment_id, sequence)?;
                    payment.state = PaymentState::Voided;
                    payment.queue_sequence = None;
                }
                VoidEffect::ReversalQueued => {
                    self.unpark(*payment_id);
                    let payment = self.touch(*payment_id, sequence)?;
                    payment.state = PaymentState::ReversalQueued;
                    payment.parked_at = None;
                    payment.queue_sequence.get_or_insert(sequence);
                }
            },
            Event::PaymentReversed { payment_id, gateway } => {
                self.gateway_spoke(entry);
                self.unpark(*payment_id);
                let payment = self.release(*payment_id, sequence)?;
                payment.state = PaymentState::Reversed;
                payment.gateway = Some(gateway.clone());
                payment.queue_sequence = None;
            }
            Event::PaymentParked {
                payment_id, reason, ..
            } => {
                let payment = self.touch(*payment_id, sequence)?;
                let newly = payment.parked.replace(*reason).is_none() && payment.exposed;
                payment.parked_at = Some(sequence);
                payment.state = match payment.state {
                    PaymentState::ReversalQueued => PaymentState::ReversalParked,
                    _ => PaymentState::Parked,
                };
                if newly {
                    self.each_subject(*payment_id, Subject::set_aside);
                }
            }
            Event::PaymentReleased {
                payment_id, finding, ..
            } => {
                self.unpark(*payment_id);
                let payment = self.touch(*payment_id, sequence)?;
                if *finding == Some(Finding::NotThere) {
                    payment.not_there = Some(Box::new(NotThere {
                        sequence,
                        at_ms: entry.time.wall_ms,
                    }));
                }
                payment.state = match payment.state {
                    PaymentState::ReversalParked => PaymentState::ReversalQueued,
                    _ => PaymentState::Queued,
                };
            }
            Event::PaymentClosed {
                payment_id, finding, ..
            } => {
                self.unpark(*payment_id);
                let payment = self.release(*payment_id, sequence)?;
                payment.state = closed(payment.state, *finding);
                payment.queue_sequence = None;
            }
            Event::PaymentRetryScheduled {
                payment_id,
                gateway,
                due_ms,
                ..
            } => {
                self.gateway_spoke(entry);
                self.outcome(payment_id, false, entry.time.wall_ms);
                let payment = self.touch(*payment_id, sequence)?;
                payment.queue_sequence = None;
                let retry = payment.retry.get_or_insert_default();
                retry.declined_ms.push(entry.time.wall_ms);
                retry.response_code.clone_from(&gateway.response_code);
                let newly = retry.due_ms.replace(*due_ms).is_none() && payment.exposed;
                if newly {
                    self.each_subject(*payment_id, Subject::set_aside);
                }
            }
            Event::PaymentRetryDue { payment_id } => {
                self.unpark(*payment_id);
                let payment = self.touch(*payment_id, sequence)?;
                payment.queue_sequence = Some(sequence);
                payment.not_there = None;
                if let Some(retry) = &mut payment.retry {
                    retry.queued_ms = entry.time.wall_ms;
                }
            }
            Event::DeviceEnrolled { registration } => {
                self.enrolled(registration);
                if let Some(record) = self.devices.get_mut(&registration.device) {
                    record.blocked = false;
                    // Whoever made its code answers for it.
                    if let Some(admission) = &mut record.admission {
                        admission.pending = false;
                    }
                }
            }
            Event::FleetTokenMade { .. }
            | Event::FleetTokenWithdrawn { .. }
            | Event::FleetDeviceEnrolled { .. }
            | Event::DeviceApproved { .. }
            | Event::DeviceListTaken { .. }
            | Event::DeviceListed { .. }
            | Event::DeviceShutOut { .. }
            | Event::DeviceReplaced { .. }
            | Event::DeviceInTwoPlaces { .. } => self.apply_fleet(&entry.event, entry.time.wall_ms),
            Event::DeviceBlocked { device, blocked, .. } => {
                if let Some(record) = self.devices.get_mut(device) {
                    record.blocked = *blocked;
                    self.dirty.insert(Key::Device(*device));
                }
                if !*blocked {
                    self.looked_at(*device);
                }
            }
            Event::DeviceDescribed {
                device,
                description,
                attestation,
            } => {
                if let Some(record) = self.devices.get_mut(device) {
                    let before = record.described.as_deref();
                    let after = Described::folded(before, description, attestation.as_deref());
                    record.described = after.map(Box::new);
                    self.dirty.insert(Key::Device(*device));
                }
            }
            Event::PolicyActivated { version, key, policy } => {
                self.store.policy_sequence = Some(sequence);
                self.store.policy_version = *version;
                match self.store.ratchets.iter_mut().find(|ratchet| ratchet.key == *key) {
                    Some(ratchet) => ratchet.version = ratchet.version.max(*version),
                    None => self.store.ratchets.push(KeyRatchet {
                        key: *key,
                        version: *version,
                    }),
                }
                self.policy = parse_policy(policy);
                self.policy_key = Some(*key);
                self.hub_part_changed();
                self.policy_changed();
            }
            Event::RootApplied { root, .. } => {
                self.store.root_sequence = Some(sequence);
                self.root = parse_root(root);
            }
            Event::DeviceKeysChanged { .. }
            | Event::DeviceKeysSettled { .. }
            | Event::DeviceOldKeysUsed { .. } => {
                self.apply_device_keys(&entry.event, entry.time.wall_ms);
            }
            Event::HubTlsKeyAdded {
                number, key, beside, ..
            } => self.reached_under(*number, vec![*key, *beside], entry),
            Event::HubTlsKeyDropped { number, key, .. } => self.reached_under(*number, vec![*key], entry),
            Event::WanChanged { to, reason, .. } => {
                self.store.wan = *to;
                self.store.wan_reason = *reason;
                self.store.unsent_since =
                    (*to == WanState::Offline && self.store.tells_before_sending).then_some(sequence);
                match to {
                    // With payments waiting, only the gateway's word on one of
                    // them ends the time without it.
                    WanState::Online if self.store.subject.unsettled <= self.store.subject.parked => {
                        self.store.offline_since_ms = None;
                    }
                    WanState::Online => {}
                    WanState::Offline => {
                        self.store.offline_since_ms.get_or_insert(entry.time.wall_ms);
                    }
                    WanState::Degraded => {}
                }
            }
        }
        Ok(())
    }

    /// The gateway gave a final answer: the time without it is over, or
    /// begins anew if it is thought to be gone.
    pub(super) fn gateway_spoke(&mut self, entry: &Entry) {
        self.store.offline_since_ms = (self.store.wan == WanState::Offline).then_some(entry.time.wall_ms);
    }

    /// A payment is no longer parked, nor does it wait for a retry.
    pub(super) fn unpark(&mut self, payment_id: PaymentId) {
        let unparked = self.payments.get_mut(&payment_id).is_some_and(|payment| {
            let parked = payment.parked.take().is_some();
            let waited = payment.retry.as_mut().and_then(|retry| retry.due_ms.take());
            (parked || waited.is_some()) && payment.exposed
        });
        if unparked {
            self.each_subject(payment_id, |subject| {
                subject.parked = subject.parked.saturating_sub(1)
            });
        }
    }

    pub(super) fn decided(&mut self, payment_id: PaymentId, decided: Decided) -> Result<(), FoldError> {
        let sequence = decided.sequence;
        let (decision, at_ms) = (decided.record.decision, decided.time.wall_ms);
        if decided.record.lifted.is_some() {
            self.store.overrides.get_or_insert_default().approved(at_ms);
        }
        self.share_held(&decided.record, at_ms);
        self.watch_decision(payment_id, &decided.record, at_ms);
        if decision == Decision::ApprovedOffline {
            self.store.offline_since_ms.get_or_insert(decided.time.wall_ms);
        }
        let payment = self.touch(payment_id, sequence)?;
        payment.state = match decision {
            Decision::ApprovedOnline => PaymentState::Settled,
            Decision::ApprovedOffline => PaymentState::Queued,
            Decision::Declined | Decision::Fallback if decided.record.reversal_queued => {
                PaymentState::ReversalQueued
            }
            Decision::Declined | Decision::Fallback => PaymentState::Refused,
        };
        payment.gateway.clone_from(&decided.record.gateway);
        payment.exposed = decision == Decision::ApprovedOffline;
        payment.queue_sequence =
            matches!(payment.state, PaymentState::Queued | PaymentState::ReversalQueued).then_some(sequence);
        payment.decided = Some(decided);
        let amount = payment.amount_minor;
        match decision {
            Decision::ApprovedOffline => {
                self.usual_amount(amount);
                self.card_known(payment_id, at_ms);
                self.hub_part_begins();
                self.each_subject(payment_id, |subject| subject.approved_offline(amount));
                self.approved_offline(payment_id, at_ms);
            }
            Decision::ApprovedOnline => {
                self.usual_amount(amount);
                self.card_known(payment_id, at_ms);
                self.approved_by_gateway(payment_id, at_ms);
                self.holder_verified(payment_id);
            }
            Decision::Declined | Decision::Fallback => {}
        }
        Ok(())
    }

    pub(super) fn touch(
        &mut self,
        payment_id: PaymentId,
        sequence: u64,
    ) -> Result<&mut PaymentRecord, FoldError> {
        self.dirty.insert(Key::Payment(payment_id));
        let payment = self
            .payments
            .get_mut(&payment_id)
            .ok_or(FoldError::UnknownPayment { sequence, payment_id })?;
        payment.latest = sequence;
        Ok(payment)
    }

    /// Takes a payment out of the exposure of its subjects, once.
    pub(super) fn release(
        &mut self,
        payment_id: PaymentId,
        sequence: u64,
    ) -> Result<&mut PaymentRecord, FoldError> {
        let payment = self.touch(payment_id, sequence)?;
        let amount = payment.amount_minor;
        if core::mem::take(&mut payment.exposed) {
            self.each_subject(payment_id, |subject| subject.released(amount));
        }
        self.touch(payment_id, sequence)
    }

    pub(super) fn each_subject(&mut self, payment_id: PaymentId, change: impl Fn(&mut Subject)) {
        let Some(payment) = self.payments.get(&payment_id) else {
            return;
        };
        let (card, device, staff) = (payment.card, payment.device, payment.staff());
        change(&mut self.store.subject);
        self.change_staff(staff, &change);
        if let Some(record) = self.devices.get_mut(&device) {
            change(&mut record.subject);
            self.dirty.insert(Key::Device(device));
        }
        self.change_card(card, |record| change(&mut record.subject));
    }
}

/// Where a parked payment stands once a person has ended it.
fn closed(state: PaymentState, finding: Finding) -> PaymentState {
    match (state, finding) {
        (PaymentState::ReversalParked, _) | (_, Finding::Undone) => PaymentState::Reversed,
        (_, Finding::Taken) => PaymentState::Settled,
        (_, Finding::NotThere) => PaymentState::SettledDeclined,
    }
}

pub(super) fn parse_request(signed: &[u8], sequence: u64) -> Result<PaymentRequest, FoldError> {
    let unreadable = |what: String| FoldError::Unreadable { sequence, what };
    let object = Unverified::parse(signed).map_err(|e| unreadable(e.to_string()))?;
    cbor::decode(object.payload_unverified()).map_err(|e| unreadable(e.to_string()))
}

/// A root that this program cannot read any more delegates nothing.
pub(super) fn parse_root(signed: &[u8]) -> Option<(Box<Root>, Digest)> {
    let signed = SignedRoot::parse(signed).ok()?;
    Some((Box::new(signed.root().clone()), signed.digest()))
}

/// A policy that this program cannot read any more is no policy.
pub(crate) fn parse_policy(signed: &[u8]) -> Option<Policy> {
    let object = Unverified::parse(signed).ok()?;
    Policy::parse_taken(object.payload_unverified()).ok()
}

#[cfg(test)]
mod tests {
    use hub_protocol::cose::{ObjectType, sign};

    use super::*;

    #[test]
    fn rule_2_a_policy_that_an_older_program_took_is_still_in_force_after_an_upgrade() {
        let sample = include_str!("../../../../config/policies/france-cautious.toml");
        let doubled = sample.replace("[\"cb\", \"visa\"", "[\"cb\", \"cb\"");
        assert!(Policy::parse(doubled.as_bytes()).is_err(), "no new policy");
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        assert!(parse_policy(&sign(&key, ObjectType::Policy, doubled.as_bytes())).is_some());
        let broken = doubled.replace("version = 1", "version = 0");
        assert!(parse_policy(&sign(&key, ObjectType::Policy, broken.as_bytes())).is_none());
    }
}
