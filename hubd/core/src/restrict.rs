//! Anomalies act: they are written down, restrict offline approvals at a
//! device or in the store, and restrictions end.

use hub_protocol::entry::{Event, WanState};
use hub_protocol::{AnomalyKind, DeviceId, PaymentRequest, Restriction, RestrictionCause, TransactionType};

use crate::anomaly::{Scene, detect};
use crate::core::Core;
use crate::effect::{Effect, OperatorReply, Reply, Restricted};
use crate::input::Ticket;
use crate::policy::anomaly::AnomalyRules;
use crate::record::{CardKey, DeviceRecord, StaffKey};
use crate::watch::{Watch, keep_last};

/// How often it is looked whether restrictions have ended, in milliseconds.
const LOOK_EVERY_MS: u64 = 1_000;

/// Since when the gateway has answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recovery {
    online_since_ms: Option<u64>,
    look_at_ms: u64,
    /// When something odd was found last, at a device and in the store, on the
    /// monotonic clock. What was found before this process started is older
    /// than `online_since_ms`.
    odd_ms: std::collections::BTreeMap<Option<DeviceId>, u64>,
    /// When requests came that were not signed by the device whose connection
    /// they came over, on the monotonic clock; the last few of each.
    bad_signatures: std::collections::BTreeMap<DeviceId, Vec<u64>>,
    /// The same of requests with a clear card number.
    card_numbers: std::collections::BTreeMap<DeviceId, Vec<u64>>,
}

/// So many requests with a clear card number within [`CARD_NUMBERS_WITHIN_MS`]
/// put a device into quarantine. One is a cashier who typed a number into the
/// wrong field; three are an app that does it each time.
pub(crate) const CARD_NUMBERS: u32 = 3;

/// See [`CARD_NUMBERS`]; milliseconds.
pub(crate) const CARD_NUMBERS_WITHIN_MS: u64 = 60 * 60 * 1000;

impl Core {
    /// Looks at a payment that is new, before it is decided.
    pub(crate) fn watch(&mut self, device: DeviceId, request: &PaymentRequest) {
        let Some(rules) = self.anomaly_rules() else {
            return;
        };
        let Some(asking) = self.state.device(&device) else {
            return;
        };
        let blank = Watch::default();
        let now_ms = self.clock.effective_ms();
        let policy = self.state.policy();
        let hours = policy.and_then(|policy| policy.hours.as_ref());
        let same_staff = rules.refunds.and_then(|rule| {
            let staff = StaffKey::of(Some(request.staff()?));
            (request.transaction_type() == TransactionType::Refund)
                .then(|| self.state.refunds_by(staff, now_ms, rule.within_ms))
        });
        let looks_at_rate = policy.filter(|_| rules.arrival_rate.is_some());
        let found = detect(
            request,
            rules,
            &Scene {
                device,
                watch: asking.watch.as_deref().unwrap_or(&blank),
                card: self.state.card_velocity(&CardKey::of_token(&request.card.token)),
                // Only that detector asks, and it takes as long as a decision.
                ceiling_minor: rules
                    .ceiling_split
                    .and_then(|_| self.most_without_more(asking, request)),
                now_ms,
                open: hours.is_none_or(|hours| hours.open(now_ms)),
                clock_suspect: self.clock.suspect(),
                usual: self.state.profile().zip(policy.and_then(|policy| policy.profile)),
                hour_of_week: looks_at_rate.map_or(0, |policy| policy.hour_of_week(now_ms)),
                rate_is_quiet: looks_at_rate.is_some()
                    && self.state.is_quiet_everywhere(AnomalyKind::ArrivalRate, now_ms),
                refunds_by_staff: same_staff.unwrap_or(0),
                // A box without a clock of its own begins where it was switched
                // off, and every honest device would seem ahead of it.
                knows_time: self.clock.synchronised()
                    || (!self.settings.gateway_tells_time && !self.clock.suspect()),
            },
        );
        if found.is_empty() {
            return;
        }
        for (kind, points) in found {
            let event = Event::AnomalyFound {
                device,
                shown_by: Some(request.payment_id),
                kind,
                points,
            };
            self.append(event, None, None);
        }
        self.act_on_anomalies_at(device);
    }

    /// A request came over the connection of an enrolled device that the
    /// device has not signed. A few in a while are an anomaly; until then they
    /// are counted in memory only, so that nobody can fill the ledger with
    /// them.
    pub(crate) fn bad_signature(&mut self, device: DeviceId) {
        let Some(rule) = self.anomaly_rules().and_then(|rules| rules.bad_signatures) else {
            return;
        };
        let now_ms = self.clock.effective_ms();
        let kind = AnomalyKind::BadSignatures;
        // Nothing is decided for a stranger who waits to be approved, nor for a
        // device that is barred: what they send must not restrict the store.
        let counts = |record: &&DeviceRecord| !record.pending() && !record.barred();
        let known = self.state.device(&device).filter(counts);
        let watch = known.map(|record| record.watch.as_deref());
        let Some(watch) = watch.filter(|_| !self.stopping) else {
            return;
        };
        if watch.is_some_and(|watch| watch.is_quiet(kind, now_ms)) {
            return;
        }
        let came_ms = self.now.monotonic_ms;
        let bad = self.recovery.bad_signatures.entry(device).or_default();
        bad.retain(|at_ms| came_ms.saturating_sub(*at_ms) < rule.within_ms);
        keep_last(bad, came_ms);
        if !usize::try_from(rule.count).is_ok_and(|count| bad.len() >= count) {
            return;
        }
        self.recovery.bad_signatures.remove(&device);
        let event = Event::AnomalyFound {
            device,
            shown_by: None,
            kind,
            points: rule.points,
        };
        self.append(event, None, None);
        self.act_on_anomalies_at(device);
    }

    /// A request of a device held a clear card number. Until there are
    /// [`CARD_NUMBERS`] of them they are counted in memory only, so that nobody
    /// can fill the ledger with them, and a device in quarantine makes no
    /// further entries. No policy is asked: there is none under which this is
    /// right.
    pub(crate) fn card_number(&mut self, device: DeviceId) {
        let known = self.state.device(&device);
        if self.stopping || known.is_none_or(DeviceRecord::quarantined) {
            return;
        }
        let came_ms = self.now.monotonic_ms;
        let sent = self.recovery.card_numbers.entry(device).or_default();
        sent.retain(|at_ms| came_ms.saturating_sub(*at_ms) < CARD_NUMBERS_WITHIN_MS);
        keep_last(sent, came_ms);
        let count = u32::try_from(sent.len()).unwrap_or(u32::MAX);
        if count < CARD_NUMBERS {
            return;
        }
        self.recovery.card_numbers.remove(&device);
        self.out.push(Effect::RestrictionChanged {
            device: Some(device),
            restriction: Restriction::Stopped,
            cause: RestrictionCause::Anomalies,
        });
        self.append(Event::CardNumbersSent { device, count }, None, None);
    }

    fn act_on_anomalies_at(&mut self, device: DeviceId) {
        for place in [Some(device), None] {
            self.recovery.odd_ms.insert(place, self.now.monotonic_ms);
            self.restrict(place);
        }
    }

    /// A crash may have kept anomalies and lost what they led to, which stands
    /// in later entries.
    pub(crate) fn restrict_after_start(&mut self) {
        if self.anomaly_rules().is_none() {
            return;
        }
        let devices = self.state.devices();
        let mut places: Vec<_> = devices.map(|device| Some(device.registration.device)).collect();
        places.sort_unstable();
        places.push(None);
        for place in places {
            self.restrict(place);
        }
    }

    /// The highest amount that this payment could have as it is, without the
    /// card inserted and a PIN entered.
    fn most_without_more(&self, device: &DeviceRecord, request: &PaymentRequest) -> Option<u64> {
        let tap = self
            .state
            .policy()
            .and_then(|policy| policy.offline.contactless_unverified_ceiling)
            .filter(|_| request.is_unverified_tap());
        let ceiling = self.assess(device, request).effective_ceiling_minor?;
        Some(tap.map_or(ceiling, |tap| tap.min(ceiling)))
    }

    /// Restricts a device or the store as its points ask for that it had when
    /// something odd was found last; never less than it is.
    fn restrict(&mut self, device: Option<DeviceId>) {
        let Some(rules) = self.anomaly_rules() else {
            return;
        };
        let thresholds = if device.is_some() {
            rules.device
        } else {
            rules.store
        };
        let alert = match device {
            Some(device) => self
                .state
                .device(&device)
                .map(|record| record.alert())
                .unwrap_or_default(),
            None => self.state.alert(),
        };
        let reached = thresholds.reached(alert.points(alert.at_ms, rules.fade_per_hour));
        if reached > alert.restriction {
            self.set_restriction(device, reached, RestrictionCause::Anomalies, None);
        }
    }

    fn set_restriction(
        &mut self,
        device: Option<DeviceId>,
        restriction: Restriction,
        cause: RestrictionCause,
        operator: Option<String>,
    ) -> u64 {
        self.out.push(Effect::RestrictionChanged {
            device,
            restriction,
            cause,
        });
        let event = Event::RestrictionChanged {
            device,
            restriction,
            cause,
            operator,
        };
        self.append(event, None, None)
    }

    /// Where something is restricted, or points have come together.
    pub(crate) fn all_restricted(&self) -> Vec<Restricted> {
        let fade = self.anomaly_rules().map_or(0, |rules| rules.fade_per_hour);
        let now_ms = self.clock.effective_ms();
        let devices = self.state.devices().map(|device| {
            let id = Some(device.registration.device);
            (id, device.alert(), device.restriction())
        });
        let store = self.state.alert();
        let mut all: Vec<Restricted> = core::iter::once((None, store, store.restriction))
            .chain(devices)
            .map(|(device, alert, restriction)| Restricted {
                device,
                restriction,
                points: alert.points(now_ms, fade),
            })
            .filter(|one| one.restriction != Restriction::None || one.points > 0)
            .collect();
        all.sort_unstable_by_key(|one| one.device);
        all
    }

    /// Ends restrictions once the gateway has answered for long enough.
    pub(crate) fn recover(&mut self) {
        let now_ms = self.now.monotonic_ms;
        if self.wan.state() != WanState::Online {
            self.recovery.online_since_ms = None;
            return;
        }
        let since = *self.recovery.online_since_ms.get_or_insert(now_ms);
        if now_ms < self.recovery.look_at_ms {
            return;
        }
        self.recovery.look_at_ms = now_ms.saturating_add(LOOK_EVERY_MS);
        let wait_ms = self.anomaly_rules().and_then(|rules| rules.recover_online_ms);
        let Some(wait_ms) = wait_ms else {
            return;
        };
        for place in self.restricted() {
            let odd_ms = self.recovery.odd_ms.get(&place).copied().unwrap_or(0);
            if now_ms.saturating_sub(since.max(odd_ms)) >= wait_ms {
                self.set_restriction(place, Restriction::None, RestrictionCause::TimeOnline, None);
            }
        }
    }

    fn restricted(&self) -> Vec<Option<DeviceId>> {
        let mut all: Vec<Option<DeviceId>> = self
            .state
            .devices()
            .filter(|device| device.alert().restriction != Restriction::None)
            .map(|device| Some(device.registration.device))
            .collect();
        all.sort_unstable();
        if self.state.alert().restriction != Restriction::None {
            all.push(None);
        }
        all
    }

    /// A person ends the restriction of a device, or of the store.
    pub(crate) fn lift(&mut self, ticket: Ticket, operator: String, device: Option<DeviceId>) {
        let restriction = match device {
            Some(device) => self.state.device(&device).map(DeviceRecord::restriction),
            None => Some(self.state.alert().restriction),
        };
        match restriction {
            None => self.operator_reply(
                ticket,
                OperatorReply::Refused("no such device is enrolled".to_owned()),
            ),
            Some(Restriction::None) => self.operator_reply(
                ticket,
                OperatorReply::Refused("there is no restriction to lift".to_owned()),
            ),
            Some(_) => {
                let sequence = self.set_restriction(
                    device,
                    Restriction::None,
                    RestrictionCause::Operator,
                    Some(operator),
                );
                self.reply_after(sequence, ticket, Reply::Operator(OperatorReply::Done));
            }
        }
    }

    fn anomaly_rules(&self) -> Option<&AnomalyRules> {
        self.state.policy()?.anomaly.as_ref()
    }
}
