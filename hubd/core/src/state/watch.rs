//! Detectors' memory, folded. Nothing is remembered while the policy looks
//! for nothing.

use hub_protocol::entry::EntryTime;
use hub_protocol::{AnomalyKind, Decision, DeviceId, PaymentId, PaymentRequest, Reason, Restriction};

use super::State;
use super::stored::Key;
use crate::policy::anomaly::AnomalyRules;
use crate::record::{DeviceRecord, Velocity};
use crate::watch::{Alert, Seen, Watch, keep_last};

/// The longest time that a detector looks back, in milliseconds.
const LONGEST_MS: u64 = 24 * 60 * 60 * 1000;

impl State {
    /// A device asked for a payment.
    pub(super) fn asked(&mut self, device: DeviceId, request: &PaymentRequest, at: EntryTime) {
        self.watch_device(device, |watch, rules| watch.asked(request, at, rules));
    }

    /// A payment was decided.
    pub(super) fn watch_decision(
        &mut self,
        payment_id: PaymentId,
        decision: Decision,
        reason: Reason,
        at_ms: u64,
    ) {
        let Some(payment) = self.payments.get(&payment_id) else {
            return;
        };
        let (card, device, amount_minor) = (payment.card, payment.device, payment.amount_minor);
        let speaks_against_card = matches!(
            reason,
            Reason::CardRefused | Reason::GatewayDeclined | Reason::CardOnExceptionList
        );
        match decision {
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
                    let velocity = record.velocity.get_or_insert_default();
                    velocity.forget(at_ms);
                    keep_last(&mut velocity.seen, seen);
                });
            }
            _ => {}
        }
    }

    pub(super) fn anomaly(&mut self, device: DeviceId, kind: AnomalyKind, points: u16, at_ms: u64) {
        let Some(fade) = self.rules().map(|rules| rules.fade_per_hour) else {
            return;
        };
        self.watch_device(device, |watch, _| {
            watch.found(kind, at_ms);
            watch.alert.add(points, at_ms, fade);
        });
        self.store.alert.get_or_insert_default().add(points, at_ms, fade);
    }

    pub(super) fn restricted(&mut self, device: Option<DeviceId>, restriction: Restriction) {
        let Some(device) = device else {
            self.store.alert.get_or_insert_default().set(restriction);
            return;
        };
        if let Some(record) = self.devices.get_mut(&device) {
            record.watch.get_or_insert_default().alert.set(restriction);
            self.dirty.insert(Key::Device(device));
        }
    }

    /// How things stand in the store.
    pub fn alert(&self) -> Alert {
        self.store.alert.unwrap_or_default()
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
    /// Drops what no detector looks back on at this time.
    pub(super) fn forget(&mut self, now_ms: u64) {
        self.seen
            .retain(|seen| now_ms.saturating_sub(seen.at_ms) < LONGEST_MS);
    }
}
