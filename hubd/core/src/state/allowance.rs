//! Allowances, folded.

use hub_protocol::cose::Unverified;
use hub_protocol::{Allowance, DeviceId, DeviceReceipt, cbor};

use super::stored::Key;
use super::{FoldError, State};
use crate::record::CardKey;
use crate::reserve::{AllowanceRecord, Closed};

impl State {
    /// All of it is at risk from here on.
    pub(super) fn allowance_given(&mut self, allowance: &Allowance) {
        let Some(record) = self.devices.get_mut(&allowance.device) else {
            return;
        };
        let given = AllowanceRecord::new(allowance.clone());
        self.store.keep_back(given.reserved);
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
        let unreadable = |what: String| FoldError::Unreadable { sequence, what };
        let object = Unverified::parse(receipt).map_err(|e| unreadable(e.to_string()))?;
        let receipt: DeviceReceipt =
            cbor::decode(object.payload_unverified()).map_err(|e| unreadable(e.to_string()))?;
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

    /// Nothing is kept back for it any more.
    pub(super) fn allowance_closed(&mut self, device: DeviceId, number: u64, sequence: u64, lost: bool) {
        let held = self
            .devices
            .get_mut(&device)
            .and_then(|record| record.allowance.as_mut());
        if let Some(held) = held
            && held.allowance.number == number
            && held.closed.is_none()
        {
            held.closed = Some(Closed { sequence, lost });
            self.store.free(core::mem::take(&mut held.reserved));
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
