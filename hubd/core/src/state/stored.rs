//! The state as the index stores it: one value a payment, card and device,
//! and one for the store.

use hub_protocol::{DeviceId, PaymentId, cbor};

use super::{FoldError, Head, State, parse_policy};
use crate::record::{CardKey, DeviceRecord, PaymentRecord};

/// One key of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Payment(PaymentId),
    Card(CardKey),
    Device(DeviceId),
    Store,
}

impl Key {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Payment(id) => [&b"p"[..], &id.0].concat(),
            Self::Card(key) => [&b"c"[..], &key.0].concat(),
            Self::Device(id) => [&b"d"[..], &id.0].concat(),
            Self::Store => b"s".to_vec(),
        }
    }
}

impl State {
    /// The index keys that changed since the last call, with their new
    /// values; `None` for those to remove.
    pub fn take_dirty(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        core::mem::take(&mut self.dirty)
            .into_iter()
            .map(|key| {
                let value = match key {
                    Key::Payment(id) => self.payments.get(&id).map(cbor::encode),
                    Key::Card(card) => self.cards.get(&card).map(cbor::encode),
                    Key::Device(id) => self.devices.get(&id).map(cbor::encode),
                    Key::Store => Some(cbor::encode(&self.store)),
                };
                (key.bytes(), value)
            })
            .collect()
    }

    /// The index key of a payment.
    pub fn payment_key(id: &PaymentId) -> Vec<u8> {
        Key::Payment(*id).bytes()
    }

    /// Takes one value of the index in, while opening. Payments on which
    /// nothing more will happen stay in the index.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), FoldError> {
        let wrong = |_| FoldError::IndexValue;
        match key.split_first() {
            Some((b'p', id)) => {
                let record: PaymentRecord = cbor::decode(value).map_err(wrong)?;
                if !record.is_final() {
                    let id = PaymentId(id.try_into().map_err(|_| FoldError::IndexValue)?);
                    self.payments.insert(id, record);
                }
            }
            Some((b'c', card)) => {
                let card = CardKey(card.try_into().map_err(|_| FoldError::IndexValue)?);
                self.cards.insert(card, cbor::decode(value).map_err(wrong)?);
            }
            Some((b'd', _)) => {
                let record: DeviceRecord = cbor::decode(value).map_err(wrong)?;
                self.devices.insert(record.registration.device, record);
            }
            Some((b's', [])) => self.store = cbor::decode(value).map_err(wrong)?,
            _ => return Err(FoldError::IndexValue),
        }
        Ok(())
    }

    /// Ends restoring: `head` is the entry up to which the index holds, and
    /// `policy` the signed policy that [`StoreRecord::policy_sequence`](crate::state::StoreRecord::policy_sequence) names.
    pub fn restored(&mut self, head: Head, policy: Option<&[u8]>) {
        self.head = head;
        self.policy = policy.and_then(parse_policy);
    }

    /// Takes a payment back in that was left in the index.
    pub fn recall(&mut self, id: PaymentId, record: PaymentRecord) {
        self.payments.entry(id).or_insert(record);
    }

    /// Drops all payments on which nothing more will happen by themselves,
    /// while opening: the index holds them.
    pub fn evict_finals(&mut self) {
        self.payments.retain(|_, payment| !payment.is_final());
    }

    /// How many index keys have changed since the last
    /// [`take_dirty`](Self::take_dirty).
    pub fn dirty_len(&self) -> usize {
        self.dirty.len()
    }

    /// Drops a payment from memory, if nothing more will happen to it by
    /// itself and its newest entry is in the index.
    pub(crate) fn evict(&mut self, id: &PaymentId, indexed: u64) -> bool {
        let evict = self
            .payments
            .get(id)
            .is_some_and(|p| p.is_final() && p.latest <= indexed)
            && !self.dirty.contains(&Key::Payment(*id));
        if evict {
            self.payments.remove(id);
        }
        evict
    }
}
