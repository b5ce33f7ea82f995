//! Allowances, folded.

use hub_protocol::cose::Unverified;
use hub_protocol::{Allowance, DeviceId, DeviceReceipt, cbor};

use super::stored::Key;
use super::{FoldError, State};
use crate::record::CardKey;
use crate::reserve::{AllowanceRecord, Closed, Reserved};

impl State {
    /// All of it is at risk from here on.
    pub(super) fn allowance_given(&mut self, allowance: &Allowance) {
        let Some(record) = self.devices.get_mut(&allowance.device) else {
            return;
        };
        let mut given = AllowanceRecord::new(allowance.clone());
        self.store.keep_back(given.reserved);
        given.withheld = record.allowance.as_ref().and_then(|before| before.withheld);
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
        self.allowance_misused(device, sequence);
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
        self.allowance_misused(device, sequence);
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
        if let Some(record) = self.devices.get_mut(&device) {
            record.misused_at = None;
            let withheld = record.allowance.as_mut().and_then(|held| held.withheld.take());
            self.store.free(withheld.unwrap_or_default());
            self.dirty.insert(Key::Device(device));
        }
    }

    /// Nothing is approved offline for it until a person lifts that.
    pub(super) fn allowance_misused(&mut self, device: DeviceId, sequence: u64) {
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
