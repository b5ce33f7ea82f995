//! The simple model: what the journal's entries mean, worked out a second
//! time. Nothing is kept up to date that can be counted anew from the list of
//! payments, so there is little to get wrong. It never asks the core.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use hub_protocol::entry::{
    ClockQuality, DecisionRecord, EntryTime, Event, Finding, StorageLevel, VoidEffect, WanState,
};
use hub_protocol::{
    AllowanceReturn, Cryptogram, Decision, DeviceClass, DeviceId, Digest, Entry, PaymentId, PaymentRequest,
    PaymentState, Reason,
};

use crate::attested::{Described, Known};
use crate::closed::Closed;
use crate::kept::Kept;
use crate::limits::{Hours, Limits, Window, is_tap, is_verified};
use crate::violation::{Checked, Rule, hold};
use crate::wallet::Approval;
use crate::watched::Watched;
use crate::wire::PayMessage;

/// What the simulation knows of the world outside: which signed bytes exist.
#[derive(Debug, Default)]
pub(crate) struct Signed {
    pub(crate) payments: BTreeMap<Vec<u8>, Rc<PayMessage>>,
    pub(crate) policies: BTreeMap<Vec<u8>, Rc<Limits>>,
    /// Devices' own receipts.
    pub(crate) approvals: BTreeMap<Vec<u8>, Rc<Approval>>,
    pub(crate) returns: BTreeMap<Vec<u8>, AllowanceReturn>,
    /// What devices have said of themselves.
    pub(crate) descriptions: Vec<Rc<Described>>,
}

/// One payment, as the entries so far have it.
#[derive(Clone, Debug)]
pub(crate) struct Payment {
    pub(crate) device: DeviceId,
    /// What it asked for.
    pub(crate) asked: Rc<PayMessage>,
    pub(crate) card: String,
    pub(crate) amount: u64,
    pub(crate) request_sequence: u64,
    pub(crate) request_digest: Digest,
    pub(crate) state: PaymentState,
    pub(crate) decided: Option<(u64, DecisionRecord)>,
    /// When it was approved offline.
    pub(crate) approved_ms: Option<u64>,
    /// The policy of then had a class for the device, and so a window.
    pub(crate) by_class: bool,
    /// When it was, by a supervisor's word.
    pub(crate) lifted_ms: Option<u64>,
    /// Approved offline, and the gateway's word is not there yet.
    pub(crate) at_risk: bool,
    pub(crate) parked: bool,
    /// A person ended it.
    pub(crate) closed: bool,
    /// Its place in the queue.
    pub(crate) place: Option<u64>,
    /// Each entry about it and the state that it led to.
    pub(crate) history: Vec<(u64, PaymentState)>,
}

impl Payment {
    pub(crate) fn latest(&self) -> u64 {
        self.history.last().map_or(0, |(sequence, _)| *sequence)
    }

    /// Its state when `sequence` was the newest entry.
    pub(crate) fn state_at(&self, sequence: u64) -> Option<PaymentState> {
        self.history
            .iter()
            .rev()
            .find(|(at, _)| *at <= sequence)
            .map(|(_, state)| *state)
    }

    pub(crate) fn decision(&self) -> Option<Decision> {
        self.decided.as_ref().map(|(_, record)| record.decision)
    }

    pub(crate) fn waits_to_be_sent(&self) -> bool {
        matches!(self.state, PaymentState::Queued | PaymentState::ReversalQueued)
    }

    pub(crate) fn is_parked(&self) -> bool {
        matches!(self.state, PaymentState::Parked | PaymentState::ReversalParked)
    }
}

/// A card, a device, the store, or a member of staff: those who name nobody
/// are one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    Card(String),
    Device(DeviceId),
    Store,
    Staff(Option<String>),
}

impl Subject {
    fn covers(&self, payment: &Payment) -> bool {
        match self {
            Self::Card(card) => payment.card == *card,
            Self::Device(device) => payment.device == *device,
            Self::Store => true,
            Self::Staff(staff) => staff_of(&payment.asked.request) == *staff,
        }
    }

    fn of(payment: &Payment) -> [Self; 4] {
        [
            Self::Card(payment.card.clone()),
            Self::Device(payment.device),
            Self::Store,
            Self::Staff(staff_of(&payment.asked.request)),
        ]
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    pub(crate) payments: BTreeMap<PaymentId, Payment>,
    pub(crate) devices: BTreeMap<DeviceId, (DeviceClass, bool)>,
    /// The newest allowance of each device.
    pub(crate) kept: BTreeMap<DeviceId, Kept>,
    /// Devices that have misused one, and nobody has lifted that.
    pub(crate) quarantined: BTreeSet<DeviceId>,
    pub(crate) watched: Watched,
    closed: Closed,
    /// How much room the disk has, as the hub was told since it started.
    pub(crate) storage: Option<StorageLevel>,
    /// What devices have said of themselves, and verifiers of them.
    pub(crate) known: BTreeMap<DeviceId, Known>,
    pub(crate) policy: Option<Rc<Limits>>,
    pub(crate) policy_version: u64,
    pub(crate) wan: Option<WanState>,
    consecutive: BTreeMap<Subject, u32>,
    /// Of cards: sum and number of taps since their holders were verified.
    taps: BTreeMap<String, (u64, u32)>,
    /// Cards of which a payment was approved while a policy asked for that.
    known_cards: BTreeSet<String>,
    alone_since_ms: Option<u64>,
    /// The most that the hub itself may have let one card have, of what is at
    /// risk; `None`: nobody has set a part aside.
    hub_part: Option<u64>,
    /// The newest entry was written by a clock in doubt.
    pub(crate) doubt: bool,
    /// The newest time in an entry since the gateway last set time back.
    pub(crate) newest_ms: u64,
}

impl Ledger {
    /// Takes in one entry, and holds it to the rules. `max_queue` is the
    /// core's setting.
    pub(crate) fn apply(&mut self, entry: &Entry, signed: &Signed, max_queue: usize) -> Checked {
        let about = entry.event.payment_id();
        let state = about
            .and_then(|id| self.payments.get(&id))
            .map(|payment| payment.state);
        let ahead = self.ahead();
        if let Event::ClockChanged { quality, .. } = &entry.event
            && *quality != ClockQuality::Suspect
        {
            self.closed.trusted(entry);
        }
        self.apply_event(entry, signed, max_queue)?;
        match about.and_then(|id| self.payments.get(&id)) {
            // One that is decided with the entry that asks was open before.
            Some(payment) => self
                .closed
                .moved(state.or(Some(PaymentState::Open)), payment, entry, ahead),
            None => Ok(()),
        }
    }

    /// By how many minutes the shop's clocks are ahead of UTC, as far as the
    /// hub's policy knows.
    fn ahead(&self) -> i64 {
        let hours = self.policy.as_ref().and_then(|policy| policy.hours.as_ref());
        hours.map_or(0, Hours::ahead)
    }

    fn apply_event(&mut self, entry: &Entry, signed: &Signed, max_queue: usize) -> Checked {
        let (sequence, time) = (entry.sequence, entry.time);
        self.hold_trust(entry)?;
        match &entry.event {
            Event::PaymentOpened {
                payment_id,
                device,
                request,
            } => {
                self.receive(*payment_id, *device, request, sequence, signed)?;
                self.look_at(payment_id, true, time)?;
                hold(
                    self.may_go_online(*device, time.wall_ms),
                    Rule::SilenceMeansNo,
                    || format!("{payment_id} is asked online from a device without a fresh word on it"),
                )?;
                let objection = signed
                    .payments
                    .get(request)
                    .and_then(|known| objection_always(&known.request));
                hold(objection.is_none(), Rule::SilenceMeansNo, || {
                    format!("{payment_id} is asked online although {objection:?}")
                })?;
                hold(
                    self.wan != Some(WanState::Offline),
                    Rule::LiveBeforeBacklog,
                    || format!("{payment_id} is asked online while offline"),
                )?;
                self.enter(payment_id, sequence, PaymentState::Open);
            }
            Event::PaymentDecided {
                payment_id,
                device,
                request,
                record,
            } => {
                let asked_online = request.is_none();
                if let Some(request) = request {
                    self.receive(*payment_id, *device, request, sequence, signed)?;
                    self.look_at(payment_id, record.allowance.is_none(), time)?;
                    if record.allowance.is_none() && self.may_go_online(*device, time.wall_ms) {
                        self.hold_live_first(payment_id, record, signed, request)?;
                    }
                }
                let before = self.payments.get(payment_id).map(|p| p.state);
                hold(before == Some(PaymentState::Open), Rule::OneCharge, || {
                    format!("{payment_id} is decided in state {before:?}")
                })?;
                if record.allowance.is_some() {
                    self.hold_device_decision(payment_id, record, sequence, signed)?;
                } else {
                    self.hold_decision(payment_id, record, time, asked_online, max_queue)?;
                }
                self.decide(payment_id, sequence, record, time);
            }
            Event::PaymentSettled {
                payment_id, gateway, ..
            } => {
                self.expect(
                    payment_id,
                    &[PaymentState::Queued, PaymentState::Parked],
                    "settled",
                )?;
                self.gateway_spoke(time);
                self.end_risk(payment_id);
                let state = if gateway.approved {
                    self.approved_by_gateway(payment_id);
                    PaymentState::Settled
                } else {
                    PaymentState::SettledDeclined
                };
                self.enter(payment_id, sequence, state);
            }
            Event::PaymentVoided {
                payment_id, effect, ..
            } => {
                use PaymentState::{Parked, Queued, ReversalQueued, Settled};
                match effect {
                    VoidEffect::CancelledBeforeSending => {
                        self.expect(payment_id, &[Queued, Parked], "cancelled")?;
                        self.end_risk(payment_id);
                        self.enter(payment_id, sequence, PaymentState::Voided);
                    }
                    VoidEffect::ReversalQueued => {
                        // Cancelled while the gateway was asked: declined, and
                        // then voided.
                        let cancelled = self
                            .payments
                            .get(payment_id)
                            .and_then(|p| p.decided.as_ref())
                            .is_some_and(|(_, record)| record.reason == Reason::Cancelled);
                        let states: &[_] = if cancelled {
                            &[ReversalQueued]
                        } else {
                            &[Queued, Parked, Settled]
                        };
                        self.expect(payment_id, states, "voided")?;
                        self.unpark(payment_id);
                        self.enter(payment_id, sequence, PaymentState::ReversalQueued);
                    }
                }
            }
            Event::PaymentReversed { payment_id, .. } => {
                use PaymentState::{ReversalParked, ReversalQueued};
                self.expect(payment_id, &[ReversalQueued, ReversalParked], "reversed")?;
                self.gateway_spoke(time);
                self.end_risk(payment_id);
                self.enter(payment_id, sequence, PaymentState::Reversed);
            }
            Event::PaymentParked { payment_id, .. } => {
                use PaymentState::{Parked, Queued, ReversalParked, ReversalQueued};
                self.expect(payment_id, &[Queued, ReversalQueued], "parked")?;
                let reversal = self
                    .payments
                    .get(payment_id)
                    .is_some_and(|p| p.state == ReversalQueued);
                if let Some(payment) = self.payments.get_mut(payment_id) {
                    payment.parked = true;
                }
                self.enter(
                    payment_id,
                    sequence,
                    if reversal { ReversalParked } else { Parked },
                );
            }
            Event::PaymentClosed {
                payment_id, finding, ..
            } => {
                use PaymentState::{Parked, ReversalParked, Reversed, Settled, SettledDeclined};
                self.expect(payment_id, &[Parked, ReversalParked], "closed")?;
                let reversal = self
                    .payments
                    .get(payment_id)
                    .is_some_and(|p| p.state == ReversalParked);
                if let Some(payment) = self.payments.get_mut(payment_id) {
                    payment.closed = true;
                }
                self.unpark(payment_id);
                self.end_risk(payment_id);
                let state = match finding {
                    Finding::Undone => Reversed,
                    Finding::NotThere if reversal => Reversed,
                    Finding::NotThere => SettledDeclined,
                    Finding::Taken => Settled,
                };
                self.enter(payment_id, sequence, state);
            }
            Event::PaymentReleased { payment_id, .. } => {
                use PaymentState::{Parked, Queued, ReversalParked, ReversalQueued};
                self.expect(payment_id, &[Parked, ReversalParked], "released")?;
                let reversal = self
                    .payments
                    .get(payment_id)
                    .is_some_and(|p| p.state == ReversalParked);
                self.unpark(payment_id);
                self.enter(
                    payment_id,
                    sequence,
                    if reversal { ReversalQueued } else { Queued },
                );
            }
            Event::DeviceEnrolled { registration } => {
                self.devices
                    .insert(registration.device, (registration.class, false));
            }
            Event::DeviceBlocked { device, blocked, .. } => {
                if let Some(known) = self.devices.get_mut(device) {
                    known.1 = *blocked;
                }
            }
            Event::PolicyActivated { version, policy, .. } => {
                hold(*version > self.policy_version, Rule::SilenceMeansNo, || {
                    format!("policy {version} comes into force after {}", self.policy_version)
                })?;
                self.policy_version = *version;
                self.policy = signed.policies.get(policy).cloned();
                let part = self.policy.as_ref().map(|limits| limits.hub_part());
                self.hub_part = self.hub_part.zip(part).map(|(before, now)| before.max(now));
                let in_time = self
                    .policy
                    .as_ref()
                    .is_some_and(|limits| (limits.not_before_ms..limits.expires_ms).contains(&time.wall_ms));
                hold(in_time, Rule::SilenceMeansNo, || {
                    format!("policy {version} comes into force outside of its time")
                })?;
                self.apply_watched(&entry.event, time)?;
            }
            Event::WanChanged { to, .. } => {
                self.wan = Some(*to);
                self.apply_watched(&entry.event, time)?;
                match to {
                    WanState::Online if !self.is_open(&Subject::Store) => {
                        self.alone_since_ms = None;
                    }
                    WanState::Offline => {
                        self.alone_since_ms.get_or_insert(time.wall_ms);
                    }
                    WanState::Online | WanState::Degraded => {}
                }
            }
            // The gateway's word that hours passed which never were.
            Event::ClockChanged {
                quality: ClockQuality::Synchronised,
                jump_ms,
            } if *jump_ms < -120_000 => {
                if let Some(since) = self.alone_since_ms {
                    self.alone_since_ms = Some(since.saturating_add_signed(*jump_ms));
                }
                self.apply_watched(&entry.event, time)?;
                let lifted = self.payments.values_mut().filter_map(|p| p.lifted_ms.as_mut());
                lifted.for_each(|at_ms| *at_ms = at_ms.saturating_add_signed(*jump_ms));
            }
            // No policy here has rules for declined payments.
            Event::PaymentRetryScheduled { payment_id, .. } | Event::PaymentRetryDue { payment_id } => {
                hold(false, Rule::SilenceMeansNo, || {
                    format!("{payment_id} is to be presented again, which no policy allows")
                })?;
            }
            Event::AllowanceGiven { .. }
            | Event::AllowanceSpent { .. }
            | Event::AllowanceReturned { .. }
            | Event::AllowanceMisused { .. }
            | Event::AllowancePaymentRefused { .. }
            | Event::AllowanceForked { .. }
            | Event::CardNumbersSent { .. } => {
                self.apply_allowance(&entry.event, sequence, time, signed, max_queue)?;
            }
            Event::DeviceDescribed {
                device,
                description,
                attestation,
            } => self.describe(*device, description, attestation.as_deref(), time.wall_ms, signed)?,
            Event::HubStarted { closes, .. } => {
                if *closes == Some(true) {
                    self.closed.counts(sequence);
                }
                self.storage = None;
                self.apply_watched(&entry.event, time)?;
            }
            Event::PeriodClosed { closure } => {
                let ahead = self.ahead();
                self.closed.closed(entry, closure, ahead)?;
            }
            Event::StorageChanged { level, .. } => self.storage = Some(*level),
            Event::AnomalyFound { .. } | Event::RestrictionChanged { .. } => {
                self.apply_watched(&entry.event, time)?
            }
            // Fleets, lists and replacements are not played here.
            Event::FleetTokenMade { .. }
            | Event::FleetTokenWithdrawn { .. }
            | Event::FleetDeviceEnrolled { .. }
            | Event::DeviceApproved { .. }
            | Event::DeviceListTaken { .. }
            | Event::DeviceListed { .. }
            | Event::DeviceShutOut { .. }
            | Event::DeviceReplaced { .. }
            | Event::DeviceInTwoPlaces { .. } => {
                hold(false, Rule::SilenceMeansNo, || {
                    format!("{} was written, which nobody asked for", entry.event.name())
                })?;
            }
            Event::HubStopped
            | Event::ClockChanged { .. }
            | Event::SegmentArchived { .. }
            | Event::ArchiveExported { .. }
            | Event::ArchiveRemoved { .. }
            | Event::HubKeyChanged { .. }
            | Event::VaultKeyChanged { .. }
            | Event::HubTlsKeyAdded { .. }
            | Event::HubTlsKeyDropped { .. }
            | Event::DeviceKeysChanged { .. }
            | Event::DeviceKeysSettled { .. }
            | Event::DeviceOldKeysUsed { .. }
            | Event::RecoveryKeyChanged { .. }
            | Event::StoreRecovered { .. }
            // No shop here has a root.
            | Event::RootApplied { .. }
            | Event::OperatorActed { .. } => {}
        }
        Ok(())
    }

    /// Trust in the clock comes back only by the gateway's word.
    fn hold_trust(&mut self, entry: &Entry) -> Checked {
        let (told, set_back) = match entry.event {
            Event::ClockChanged {
                quality: ClockQuality::Synchronised,
                jump_ms,
            } => (true, jump_ms < -120_000),
            _ => (false, false),
        };
        let doubt = entry.time.quality == ClockQuality::Suspect;
        let was_in_doubt = core::mem::replace(&mut self.doubt, doubt);
        self.newest_ms = if set_back {
            entry.time.wall_ms
        } else {
            self.newest_ms.max(entry.time.wall_ms)
        };
        hold(doubt || told || !was_in_doubt, Rule::SilenceMeansNo, || {
            format!(
                "entry {} trusts a clock that was in doubt before it",
                entry.sequence
            )
        })
    }

    /// A request that no entry has held before, from a device that may ask.
    fn receive(
        &mut self,
        id: PaymentId,
        device: DeviceId,
        request: &[u8],
        sequence: u64,
        signed: &Signed,
    ) -> Checked {
        hold(!self.payments.contains_key(&id), Rule::OneCharge, || {
            format!("{id} is taken for a new payment a second time")
        })?;
        let allowed = self.devices.get(&device).is_some_and(|(_, blocked)| !blocked);
        hold(allowed, Rule::SilenceMeansNo, || {
            format!("{id} is taken from a device that is unknown or blocked")
        })?;
        let known = signed
            .payments
            .get(request)
            .filter(|known| known.device == device && known.request.payment_id == id);
        let Some(known) = known else {
            return hold(false, Rule::OneCharge, || {
                format!("{id}: no device has signed this request")
            });
        };
        let payment = Payment {
            device,
            asked: Rc::clone(known),
            card: known.request.card.token.clone(),
            amount: known.request.amount_minor(),
            request_sequence: sequence,
            request_digest: Digest::of(request),
            state: PaymentState::Open,
            decided: None,
            approved_ms: None,
            by_class: false,
            lifted_ms: None,
            at_risk: false,
            parked: false,
            closed: false,
            place: None,
            history: Vec::new(),
        };
        self.payments.insert(id, payment);
        Ok(())
    }

    fn look_at(&mut self, id: &PaymentId, by_pay: bool, time: EntryTime) -> Checked {
        let Some(payment) = self.payments.get(id) else {
            return Ok(());
        };
        let (device, asked) = (payment.device, Rc::clone(&payment.asked));
        self.asked(device, &asked.request, by_pay, time)
    }

    /// While the line is up a payment that asks to go online does.
    fn hold_live_first(
        &self,
        id: &PaymentId,
        record: &DecisionRecord,
        signed: &Signed,
        request: &[u8],
    ) -> Checked {
        let asks = signed.payments.get(request).is_some_and(|known| {
            known.request.cryptogram == Cryptogram::AsksOnline && objection_always(&known.request).is_none()
        });
        hold(
            !asks || self.wan == Some(WanState::Offline),
            Rule::LiveBeforeBacklog,
            || {
                format!(
                    "{id} is decided ({}) without asking the gateway, which answers",
                    record.decision
                )
            },
        )
    }

    fn decide(&mut self, id: &PaymentId, sequence: u64, record: &DecisionRecord, time: EntryTime) {
        if record
            .gateway
            .as_ref()
            .is_some_and(|g| g.approved || g.reference.is_some())
        {
            self.gateway_spoke(time);
        }
        let state = match record.decision {
            Decision::ApprovedOnline => PaymentState::Settled,
            Decision::ApprovedOffline => PaymentState::Queued,
            Decision::Declined | Decision::Fallback if record.reversal_queued => PaymentState::ReversalQueued,
            Decision::Declined | Decision::Fallback => PaymentState::Refused,
        };
        let class = self.payments.get(id).and_then(|p| self.devices.get(&p.device));
        let by_class = self
            .policy
            .as_ref()
            .zip(class)
            .is_some_and(|(limits, known)| limits.classes.iter().any(|(named, _, _)| *named == known.0));
        if record.decision == Decision::ApprovedOffline && self.nothing_at_risk() {
            let limits = self.policy.as_ref();
            let limits = limits.filter(|limits| limits.allowance.is_some());
            self.hub_part = limits.map(|limits| limits.hub_part());
        }
        if let Some(payment) = self.payments.get_mut(id) {
            payment.by_class = by_class;
            payment.decided = Some((sequence, record.clone()));
            payment.at_risk = record.decision == Decision::ApprovedOffline;
            payment.approved_ms = payment.at_risk.then_some(time.wall_ms);
            payment.lifted_ms = record.lifted.map(|_| time.wall_ms);
        }
        self.enter(id, sequence, state);
        if record.decision.approved() {
            self.know_card(id);
        }
        if record.decision == Decision::ApprovedOffline {
            self.alone_since_ms.get_or_insert(time.wall_ms);
            for subject in self.subjects(id) {
                *self.consecutive.entry(subject).or_default() += 1;
            }
            self.count_tap(id);
        } else if record.decision == Decision::ApprovedOnline {
            self.approved_by_gateway(id);
            self.holder_seen(id);
        }
    }

    fn know_card(&mut self, id: &PaymentId) {
        let score = self.policy.as_ref().and_then(|limits| limits.score);
        let asks = score.is_some_and(|score| score.new_card.is_some());
        if let Some(payment) = self.payments.get(id).filter(|_| asks) {
            self.known_cards.insert(payment.card.clone());
        }
    }

    /// Whether a payment of this card was approved while a policy asked.
    pub(crate) fn knows_card(&self, card: &str) -> bool {
        self.known_cards.contains(card)
    }

    /// One more without verification, or the holder is known again.
    fn count_tap(&mut self, id: &PaymentId) {
        if let Some(payment) = self.payments.get(id).filter(|p| is_tap(&p.asked.request)) {
            let (sum, count) = self.taps.entry(payment.card.clone()).or_default();
            (*sum, *count) = (*sum + payment.amount, *count + 1);
        }
        self.holder_seen(id);
    }

    fn holder_seen(&mut self, id: &PaymentId) {
        if let Some(payment) = self.payments.get(id).filter(|p| is_verified(&p.asked.request)) {
            self.taps.remove(&payment.card);
        }
    }

    fn enter(&mut self, id: &PaymentId, sequence: u64, state: PaymentState) {
        if let Some(payment) = self.payments.get_mut(id) {
            payment.state = state;
            payment.history.push((sequence, state));
            if payment.waits_to_be_sent() || payment.is_parked() {
                payment.place.get_or_insert(sequence);
            } else {
                payment.place = None;
            }
        }
    }

    fn expect(&self, id: &PaymentId, states: &[PaymentState], what: &str) -> Checked {
        let state = self.payments.get(id).map(|p| p.state);
        hold(
            state.is_some_and(|s| states.contains(&s)),
            Rule::OneCharge,
            || format!("{id} is {what} in state {state:?}"),
        )
    }

    fn subjects(&self, id: &PaymentId) -> Vec<Subject> {
        self.payments
            .get(id)
            .map_or(Vec::new(), |p| Subject::of(p).to_vec())
    }

    fn gateway_spoke(&mut self, time: EntryTime) {
        self.alone_since_ms = (self.wan == Some(WanState::Offline)).then_some(time.wall_ms);
    }

    fn end_risk(&mut self, id: &PaymentId) {
        self.unpark(id);
        if let Some(payment) = self.payments.get_mut(id) {
            payment.at_risk = false;
        }
    }

    fn unpark(&mut self, id: &PaymentId) {
        if let Some(payment) = self.payments.get_mut(id) {
            payment.parked = false;
        }
    }

    /// A run of consecutive approvals ends when the gateway has approved one
    /// of the subject's and nothing of it is left but what is parked.
    fn approved_by_gateway(&mut self, id: &PaymentId) {
        for subject in self.subjects(id) {
            if !self.is_open(&subject) {
                self.consecutive.remove(&subject);
                if let Subject::Card(card) = subject {
                    self.taps.remove(&card);
                }
            }
        }
    }

    /// Something of it is approved offline, neither settled nor parked.
    fn is_open(&self, subject: &Subject) -> bool {
        self.payments
            .values()
            .rev()
            .any(|p| p.at_risk && !p.parked && subject.covers(p))
    }

    fn nothing_at_risk(&self) -> bool {
        self.exposures(&[Subject::Store]) == [0]
    }

    /// The highest sum that one card may have at risk by the hub itself.
    pub(crate) fn hub_part(&self, limits: &Limits) -> u64 {
        match self.nothing_at_risk() {
            true => limits.hub_part(),
            false => self.hub_part.unwrap_or(u64::MAX),
        }
    }

    /// What whoever has most at risk of the staff has, and the most in a row.
    pub(crate) fn most_of_staff(&self) -> (u64, u32) {
        let all: BTreeSet<_> = self
            .payments
            .values()
            .map(|p| Subject::Staff(staff_of(&p.asked.request)))
            .collect();
        all.iter().fold((0, 0), |most, one| {
            let [exposure] = self.exposures(core::array::from_ref(one));
            (most.0.max(exposure), most.1.max(self.consecutive(one)))
        })
    }

    /// Approved offline and not settled, in minor units, of each.
    pub(crate) fn exposures<const N: usize>(&self, subjects: &[Subject; N]) -> [u64; N] {
        let mut sums = [0; N];
        for payment in self.payments.values().filter(|p| p.at_risk) {
            for (sum, subject) in sums.iter_mut().zip(subjects) {
                if subject.covers(payment) {
                    *sum += payment.amount;
                }
            }
        }
        sums
    }

    pub(crate) fn consecutive(&self, subject: &Subject) -> u32 {
        self.consecutive.get(subject).copied().unwrap_or_default()
    }

    /// Sum and number of a card's taps.
    pub(crate) fn taps(&self, card: &str) -> (u64, u32) {
        self.taps.get(card).copied().unwrap_or_default()
    }

    /// Offline approvals that a window still counts, whatever came of them.
    pub(crate) fn lately(&self, subject: &Subject, window: Window, now_ms: u64) -> u32 {
        let by_class = |p: &&Payment| p.by_class || !matches!(subject, Subject::Device(_));
        let of_subject = self
            .payments
            .values()
            .filter(|p| subject.covers(p))
            .filter(by_class);
        let approved = of_subject.filter_map(|p| p.approved_ms);
        let count = approved.filter(|at_ms| window.counts(*at_ms, now_ms)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Approvals by a supervisor's word that a window still counts.
    pub(crate) fn lifted_lately(&self, window: Window, now_ms: u64) -> u32 {
        let lifted = self.payments.values().filter_map(|p| p.lifted_ms);
        let count = lifted.filter(|at_ms| window.counts(*at_ms, now_ms)).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(crate) fn alone_ms(&self, now_ms: u64) -> u64 {
        self.alone_since_ms
            .map_or(0, |since| now_ms.saturating_sub(since))
    }

    /// What stands in the queue, parked or not.
    pub(crate) fn queue_len(&self) -> usize {
        self.payments.values().filter(|p| p.place.is_some()).count()
    }
}

/// Who stands at the device, if it says so.
pub(crate) fn staff_of(request: &PaymentRequest) -> Option<String> {
    request.terms.as_ref().and_then(|terms| terms.staff.clone())
}

/// Objections that hold whether or not the gateway answers.
pub(crate) fn objection_always(request: &PaymentRequest) -> Option<Reason> {
    if request.terms.as_ref().is_some_and(|terms| terms.training) {
        Some(Reason::TrainingMode)
    } else if request.cryptogram == Cryptogram::Refused {
        Some(Reason::CardRefused)
    } else if request.currency != hub_protocol::Currency::EUR {
        Some(Reason::CurrencyNotAccepted)
    } else {
        None
    }
}
