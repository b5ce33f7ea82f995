//! Allowances, folded.

use hub_protocol::cose::Unverified;
use hub_protocol::{Allowance, DeviceId, DeviceReceipt, cbor};

use super::stored::Key;
use super::{FoldError, State};
use crate::policy::Policy;
use crate::record::{CardKey, Subject};
use crate::reserve::{AllowanceRecord, Closed, Reserved};

impl State {
    /// The most that one card can have at risk by the allowances of all devices
    /// together, minor units.
    pub(crate) fn allowed_card_minor(&self) -> u64 {
        let devices = self.allowed.iter().filter_map(|id| self.devices.get(id));
        devices.fold(0, |sum, device| sum.saturating_add(device.allowed_card_minor()))
    }

    /// The highest sum that the hub itself may have let one card have at risk,
    /// minor units.
    pub(crate) fn hub_card_minor(&self) -> u64 {
        match &self.policy {
            Some(policy) if self.store.subject.exposure_minor == 0 => policy.hub_card_minor(),
            _ => self.store.hub_card_minor.unwrap_or(u64::MAX),
        }
    }

    /// Before the first payment that is at risk: none is from an earlier policy.
    pub(super) fn hub_part_begins(&mut self) {
        if self.store.subject.exposure_minor == 0 {
            let policy = self.policy.as_ref();
            let allows = policy.filter(|policy| policy.allowance.is_some());
            self.store.hub_card_minor = allows.map(Policy::hub_card_minor);
        }
    }

    /// What is at risk may be so by what the policy before let the hub approve.
    pub(super) fn hub_part_changed(&mut self) {
        let now = self.policy.as_ref().map(Policy::hub_card_minor);
        let before = self.store.hub_card_minor;
        self.store.hub_card_minor = before.zip(now).map(|(before, now)| before.max(now));
    }

    /// The most that any member of staff has at risk, and the most in a row.
    pub(crate) fn staff_most(&self) -> Subject {
        let all = self.staff.values();
        all.fold(Subject::default(), |most, one| Subject {
            exposure_minor: most.exposure_minor.max(one.exposure_minor),
            consecutive: most.consecutive.max(one.consecutive),
            ..most
        })
    }

    /// All of it is at risk from here on.
    pub(super) fn allowance_given(&mut self, allowance: &Allowance) {
        let Some(record) = self.devices.get_mut(&allowance.device) else {
            return;
        };
        let mut given = AllowanceRecord::new(allowance.clone());
        self.store.keep_back(given.reserved);
        given.withheld = record.allowance.as_ref().and_then(|before| before.withheld);
        given.before_card_minor = Some(record.allowed_card_minor()).filter(|minor| *minor > 0);
        self.allowed.insert(allowance.device);
        record.allowance = Some(Box::new(given));
        self.dirty.insert(Key::Device(allowance.device));
    }

    /// What is kept back becomes less by what the payment itself now has at
    /// risk. It was decided before this entry: between the two it counts twice,
    /// and never not at all.
    pub(super) fn allowance_spent(
        &mut self,
        device: DeviceId,
        receipt: &[u8],
        card: CardKey,
        sequence: u64,
    ) -> Result<(), FoldError> {
        let receipt = read(receipt, sequence)?;
        let held = self
            .devices
            .get_mut(&device)
            .and_then(|record| record.allowance.as_mut());
        if let Some(held) = held
            && held.allowance.number == receipt.number
            && held.chain.is_next(&receipt)
        {
            self.store.free(held.spend(&receipt, card));
            self.dirty.insert(Key::Device(device));
        }
        Ok(())
    }

    /// The chain goes on, and what the payment was for is withheld: no payment
    /// will ever be at risk for it.
    pub(super) fn allowance_payment_refused(
        &mut self,
        device: DeviceId,
        receipt: &[u8],
        sequence: u64,
    ) -> Result<(), FoldError> {
        let receipt = read(receipt, sequence)?;
        let held = self
            .devices
            .get_mut(&device)
            .and_then(|record| record.allowance.as_mut());
        if let Some(held) = held
            && held.allowance.number == receipt.number
            && held.chain.is_next(&receipt)
        {
            // Nobody can tell which card it was.
            self.store.free(held.spend(&receipt, CardKey([0; 16])));
            let withheld = Reserved {
                minor: receipt.amount_minor,
                count: 1,
            };
            held.withhold(withheld);
            self.store.keep_back(withheld);
        }
        self.quarantined(device, sequence);
        Ok(())
    }

    /// It is closed, if it was not before, and what is withheld takes the place
    /// of what was kept back.
    pub(super) fn allowance_forked(
        &mut self,
        device: DeviceId,
        number: u64,
        withheld: Reserved,
        sequence: u64,
    ) {
        let held = self
            .devices
            .get_mut(&device)
            .and_then(|record| record.allowance.as_mut());
        if let Some(held) = held
            && held.allowance.number == number
        {
            held.closed.get_or_insert(Closed {
                sequence,
                lost: false,
            });
            self.store.free(core::mem::take(&mut held.reserved));
            held.withhold(withheld);
            self.store.keep_back(withheld);
        }
        self.quarantined(device, sequence);
    }

    /// Nothing is kept back for it any more. If its device is lost, nothing is
    /// withheld either: a person answers for it.
    pub(super) fn allowance_closed(&mut self, device: DeviceId, number: u64, sequence: u64, lost: bool) {
        let held = self
            .devices
            .get_mut(&device)
            .and_then(|record| record.allowance.as_mut());
        if let Some(held) = held
            && held.allowance.number == number
        {
            if held.closed.is_none() {
                held.closed = Some(Closed { sequence, lost });
                self.store.free(core::mem::take(&mut held.reserved));
            }
            if lost {
                self.store.free(held.withheld.take().unwrap_or_default());
            }
            self.dirty.insert(Key::Device(device));
        }
    }

    /// A person has looked at the device and answers for it.
    pub(super) fn quarantine_lifted(&mut self, device: DeviceId) {
        self.looked_at(device);
        if let Some(record) = self.devices.get_mut(&device) {
            record.misused_at = None;
            record.card_numbers_at = None;
            let withheld = record.allowance.as_mut().and_then(|held| held.withheld.take());
            self.store.free(withheld.unwrap_or_default());
            self.dirty.insert(Key::Device(device));
        }
    }

    /// It sent card numbers in clear: as [`quarantined`](Self::quarantined).
    pub(super) fn card_numbers_sent(&mut self, device: DeviceId, sequence: u64) {
        if let Some(record) = self.devices.get_mut(&device) {
            record.card_numbers_at = Some(sequence);
            self.dirty.insert(Key::Device(device));
        }
    }

    /// Nothing is approved offline for it until a person lifts that.
    pub(super) fn quarantined(&mut self, device: DeviceId, sequence: u64) {
        if let Some(record) = self.devices.get_mut(&device) {
            record.misused_at = Some(sequence);
            self.dirty.insert(Key::Device(device));
        }
    }
}

fn read(receipt: &[u8], sequence: u64) -> Result<DeviceReceipt, FoldError> {
    let unreadable = |what: String| FoldError::Unreadable { sequence, what };
    let object = Unverified::parse(receipt).map_err(|e| unreadable(e.to_string()))?;
    cbor::decode(object.payload_unverified()).map_err(|e| unreadable(e.to_string()))
}
