//! What limits remember beside exposure and counts, folded.

use hub_protocol::entry::DecisionRecord;
use hub_protocol::{CardScheme, Decision, DeviceId, PaymentId};

use super::State;
use super::stored::Key;
use crate::policy::Policy;
use crate::policy::velocity::Window;
use crate::record::{CardKey, Day, DeviceRecord, StaffKey, Subject, Velocity};
use crate::risk::{Declined, Held, Holder, Outcomes, Taps};

const DAY_MS: u64 = 86_400_000;

impl State {
    /// The share of the ceilings under which a payment was decided.
    pub(super) fn share_held(&mut self, record: &DecisionRecord, at_ms: u64) {
        let caused = record.moved_percent.is_none();
        match (record.percent, record.decision) {
            (Some(percent), _) => self.store.held = Held::after(self.store.held, percent, caused, at_ms),
            (None, Decision::ApprovedOffline) => self.store.held = None,
            // Says nothing of ceilings.
            (None, _) => {}
        }
    }

    /// A payment was approved offline.
    pub(super) fn approved_offline(&mut self, payment_id: PaymentId, at_ms: u64) {
        let Some(payment) = self.payments.get(&payment_id) else {
            return;
        };
        let (card, device, amount, holder) =
            (payment.card, payment.device, payment.amount_minor, payment.holder);
        let by_card = self.policy.as_ref().is_some_and(Policy::counts_payments_of_cards);
        let by_device = self.window_of(device);
        if holder.is_some() || by_card {
            self.change_card(card, |record| {
                let velocity = &mut record.velocity;
                match holder {
                    Some(Holder::Tap) => velocity.taps.approved(amount),
                    Some(Holder::Verified) => velocity.taps = Taps::default(),
                    Some(Holder::Other) | None => {}
                }
                if by_card {
                    velocity.recent.approved(at_ms);
                }
            });
        }
        if let (Some(_), Some(record)) = (by_device, self.devices.get_mut(&device)) {
            record.recent.get_or_insert_default().approved(at_ms);
            self.dirty.insert(Key::Device(device));
        }
    }

    /// A payment was approved, on- or offline: from now on its card is known,
    /// if the policy asks for it.
    pub(super) fn card_known(&mut self, payment_id: PaymentId, at_ms: u64) {
        let asks = self.policy.as_ref().is_some_and(Policy::knows_cards);
        let card = self.payments.get(&payment_id).map(|payment| payment.card);
        let Some(card) = card.filter(|_| asks) else {
            return;
        };
        let known = self.cards.get(&card).is_some_and(|card| card.record.is_known());
        if !known {
            let day = u32::try_from(at_ms / DAY_MS).unwrap_or(u32::MAX);
            self.change_card(card, |record| record.known_since_day = Some(Day::of(day)));
        }
    }

    /// Whether an approved payment of the card is known, as far as a policy has
    /// asked for that.
    pub(crate) fn card_is_known(&self, key: &CardKey) -> bool {
        self.cards.get(key).is_some_and(|card| card.record.is_known())
    }

    /// The gateway approved a payment: runs may end with it, and what a window
    /// has no use for is dropped.
    pub(super) fn approved_by_gateway(&mut self, payment_id: PaymentId, at_ms: u64) {
        self.each_subject(payment_id, Subject::approved_by_gateway);
        let Some(card) = self.payments.get(&payment_id).map(|payment| payment.card) else {
            return;
        };
        if !self.remembers_velocity(&card) {
            return;
        }
        self.change_card(card, |record| {
            let run_ended = record.subject.consecutive == 0;
            if run_ended {
                record.velocity.taps = Taps::default();
            }
            record.velocity.forget(at_ms);
        });
    }

    /// A payment that the gateway approved online: if the holder was verified,
    /// taps are counted anew.
    pub(super) fn holder_verified(&mut self, payment_id: PaymentId) {
        let Some(payment) = self.payments.get(&payment_id) else {
            return;
        };
        let card = payment.card;
        if payment.holder == Some(Holder::Verified) && self.remembers_velocity(&card) {
            self.change_card(card, |record| record.velocity.taps = Taps::default());
        }
    }

    /// An offline approval ended, or its first presentation did.
    pub(super) fn outcome(&mut self, payment_id: &PaymentId, approved: bool, at_ms: u64) {
        let Some(payment) = self.payments.get(payment_id) else {
            return;
        };
        let again = payment.retry.is_some();
        if !payment.exposed || again {
            return;
        }
        let (scheme, device) = (payment.scheme, payment.device);
        self.store
            .outcomes
            .get_or_insert_default()
            .ended(scheme, approved, at_ms);
        if let Some(record) = self.devices.get_mut(&device) {
            record.outcomes.get_or_insert_default().ended(approved, at_ms);
            self.dirty.insert(Key::Device(device));
        }
    }

    /// Changes what a member of staff has at risk. Whoever has nothing is not
    /// remembered.
    pub(super) fn change_staff(&mut self, key: StaffKey, change: &impl Fn(&mut Subject)) {
        let before = self.staff(key);
        let mut subject = before;
        change(&mut subject);
        if subject == before {
            return;
        }
        if subject == Subject::default() {
            self.staff.remove(&key);
        } else {
            self.staff.insert(key, subject);
        }
        self.dirty.insert(Key::Staff(key));
    }

    /// Puts another policy into force that no entry names, for whoever tries
    /// it out: what windows and detectors remember follows it from here on.
    pub fn rehearse_under(&mut self, policy: Policy) {
        self.policy = Some(policy);
    }

    /// What is remembered of a card beside what it has at risk.
    pub fn card_velocity(&self, key: &CardKey) -> Option<&Velocity> {
        Some(&self.cards.get(key)?.record.velocity)
    }

    fn remembers_velocity(&self, key: &CardKey) -> bool {
        self.card_velocity(key)
            .is_some_and(|velocity| !velocity.is_blank())
    }

    /// The share of declines at replay, of those that enough is known of: in
    /// the store, and the higher of the scheme's and the device's.
    pub fn percent_declined(&self, scheme: CardScheme, device: &DeviceRecord, now_ms: u64) -> Declined {
        let Some(policy) = &self.policy else {
            return Declined::default();
        };
        let least = policy.moving.declined_least();
        let percent = |outcomes: Option<Outcomes>| {
            outcomes.map_or(0, |outcomes| outcomes.percent_declined(least, now_ms))
        };
        let store = self.store.outcomes.as_ref();
        Declined {
            store_percent: percent(store.map(|outcomes| outcomes.all)),
            own_percent: percent(store.map(|outcomes| outcomes.of(scheme))).max(percent(device.outcomes)),
        }
    }

    fn window_of(&self, device: DeviceId) -> Option<Window> {
        let class = self.devices.get(&device)?.registration.class;
        self.policy.as_ref()?.classes.get(&class)?.window
    }
}
