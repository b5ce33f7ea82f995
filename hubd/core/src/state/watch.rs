//! Detectors' memory, folded. Nothing is remembered while the policy looks
//! for nothing.

use hub_protocol::entry::{DecisionRecord, EntryTime};
use hub_protocol::{
    AnomalyKind, Decision, DeviceId, PaymentId, PaymentRequest, Reason, Restriction, RestrictionCause,
};

use super::State;
use super::stored::Key;
use crate::policy::anomaly::{AnomalyRules, LOOKS_BACK};
use crate::record::{DeviceRecord, StaffKey, Velocity};
use crate::watch::{Alert, Seen, Watch};

/// The longest time that a detector looks back, in milliseconds.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;

impl State {
    /// A device asked for a payment.
    pub(super) fn asked(&mut self, device: DeviceId, request: &PaymentRequest, at: EntryTime) {
        if request.terms.as_ref().is_some_and(|terms| terms.training) {
            return;
        }
        self.watch_device(device, |watch, rules| watch.asked(request, at, rules));
        self.usual_hour(at);
    }

    /// A payment was decided.
    pub(super) fn watch_decision(&mut self, payment_id: PaymentId, record: &DecisionRecord, at_ms: u64) {
        let Some(payment) = self.payments.get(&payment_id) else {
            return;
        };
        let (card, device, amount_minor) = (payment.card, payment.device, payment.amount_minor);
        let speaks_against_card = match (record.reason, &record.gateway) {
            (Reason::CardRefused | Reason::CardOnExceptionList, _) => true,
            // Not a gateway that refuses the message, nor an issuer that is
            // out of order.
            (Reason::GatewayDeclined, Some(gateway)) => self
                .rules()
                .and_then(|rules| rules.card_testing.as_ref())
                .is_some_and(|rule| rule.response_codes.contains(&gateway.response_code)),
            _ => false,
        };
        match record.decision {
            Decision::Declined if speaks_against_card => {
                self.watch_device(device, |watch, _| watch.declined(card, at_ms));
            }
            Decision::ApprovedOffline if self.looks_at_cards() => {
                let seen = Seen {
                    at_ms,
                    device: Seen::short(&device),
                    amount_minor,
                };
                self.change_card(card, |record| {
                    record.velocity.forget(at_ms);
                    record.velocity.seen.push(seen);
                    record.velocity.seen.keep_last(LOOKS_BACK);
                });
            }
            _ => {}
        }
    }

    pub(super) fn anomaly(&mut self, device: DeviceId, kind: AnomalyKind, points: u16, at_ms: u64) {
        let Some(fade) = self.rules().map(|rules| rules.fade_per_hour) else {
            return;
        };
        let stopped = self
            .devices
            .get(&device)
            .is_some_and(|record| record.alert().restriction == Restriction::Stopped);
        self.watch_device(device, |watch, _| {
            watch.found(kind, at_ms);
            watch.alert.add(points, at_ms, fade);
        });
        // A device that is stopped does the store no more harm.
        if !stopped {
            self.store.alert.get_or_insert_default().add(points, at_ms, fade);
        }
    }

    /// Another policy came into force: restrictions end with it, what detectors
    /// remember too if it looks for nothing, and outcomes begin anew.
    pub(super) fn policy_changed(&mut self) {
        self.profile_follows_policy();
        let looks = self.rules().is_some();
        self.store.alert = None;
        self.store.outcomes = None;
        for (id, record) in &mut self.devices {
            record.outcomes = None;
            match &mut record.watch {
                Some(watch) if looks => watch.alert = Alert::default(),
                watch => *watch = None,
            }
            self.dirty.insert(Key::Device(*id));
        }
    }

    pub(super) fn restricted(
        &mut self,
        device: Option<DeviceId>,
        restriction: Restriction,
        cause: RestrictionCause,
    ) {
        let Some(device) = device else {
            self.store.alert.get_or_insert_default().set(restriction);
            return;
        };
        if let Some(record) = self.devices.get_mut(&device) {
            record.watch.get_or_insert_default().alert.set(restriction);
            self.dirty.insert(Key::Device(device));
        }
        // Time does not heal a quarantine; a person looks at the device.
        if cause == RestrictionCause::Operator {
            self.quarantine_lifted(device);
        }
    }

    /// The clock was set back: what is remembered of devices and the store goes
    /// back with it, or windows would be full, shares held and detectors quiet
    /// until it has caught up.
    pub(super) fn set_back(&mut self, by_ms: u64) {
        let back = |at_ms: &mut u64| *at_ms = at_ms.saturating_sub(by_ms);
        if let Some(held) = &mut self.store.held {
            back(&mut held.since_ms);
        }
        if let Some(alert) = &mut self.store.alert {
            back(&mut alert.at_ms);
        }
        if let Some(overrides) = &mut self.store.overrides {
            overrides.approved_ms.iter_mut().for_each(back);
        }
        self.profile_set_back(by_ms);
        for (id, record) in &mut self.devices {
            if let Some(recent) = &mut record.recent {
                recent.approved_ms.iter_mut().for_each(back);
            }
            if let Some(watch) = &mut record.watch {
                back(&mut watch.alert.at_ms);
                watch.found.iter_mut().for_each(|found| back(&mut found.at_ms));
                watch
                    .declined
                    .iter_mut()
                    .for_each(|declined| back(&mut declined.at_ms));
                watch
                    .refunds
                    .iter_mut()
                    .for_each(|refund| back(&mut refund.at_ms));
            }
            self.dirty.insert(Key::Device(*id));
        }
    }

    /// How things stand in the store.
    pub fn alert(&self) -> Alert {
        self.store.alert.unwrap_or_default()
    }

    /// Whether this anomaly has been counted a moment ago, at any device.
    pub(crate) fn is_quiet_everywhere(&self, kind: AnomalyKind, now_ms: u64) -> bool {
        let watches = self.devices.values().filter_map(|device| device.watch.as_ref());
        watches.into_iter().any(|watch| watch.is_quiet(kind, now_ms))
    }

    /// The refunds that this member of staff has asked for lately, at all
    /// devices together.
    pub(crate) fn refunds_by(&self, staff: StaffKey, now_ms: u64, within_ms: u64) -> usize {
        let watches = self.devices.values().filter_map(|device| device.watch.as_ref());
        watches
            .map(|watch| watch.refunds_lately(now_ms, within_ms, |refund| refund.staff == Some(staff)))
            .sum()
    }

    /// The points that anomalies have come to at a device, as of now.
    pub(crate) fn points_at(&self, device: &DeviceRecord, now_ms: u64) -> u64 {
        let fade = self.rules().map_or(0, |rules| rules.fade_per_hour);
        device.alert().points(now_ms, fade)
    }

    fn rules(&self) -> Option<&AnomalyRules> {
        self.policy.as_ref()?.anomaly.as_ref()
    }

    fn looks_at_cards(&self) -> bool {
        self.rules()
            .is_some_and(|rules| rules.ceiling_split.is_some() || rules.card_at_devices.is_some())
    }

    fn watch_device(&mut self, device: DeviceId, change: impl FnOnce(&mut Watch, &AnomalyRules)) {
        let rules = self.policy.as_ref().and_then(|policy| policy.anomaly.as_ref());
        if let (Some(rules), Some(record)) = (rules, self.devices.get_mut(&device)) {
            change(record.watch.get_or_insert_default(), rules);
            self.dirty.insert(Key::Device(device));
        }
    }
}

impl DeviceRecord {
    /// How things stand at this device.
    pub fn alert(&self) -> Alert {
        self.watch
            .as_ref()
            .map_or_else(Alert::default, |watch| watch.alert)
    }
}

impl Velocity {
    /// Drops what no window counts and no detector looks back on at this time.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.recent.forget(now_ms);
        self.seen
            .retain(|seen| now_ms.saturating_sub(seen.at_ms) < LONGEST_MS);
    }
}
