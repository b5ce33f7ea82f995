//! A device's keys, once they are not those that it was enrolled with.
//!
//! What always holds:
//!
//! 1. A device is its name. Limits, counters, quarantines, blocks and
//!    allowances are kept by that, and no change of keys touches them.
//! 2. What a key signed before it gave way counts, what it signs afterwards
//!    does not: the device says which number was the last.
//! 3. A TLS key that gave way lets its device in to ask for the change once
//!    more, until the new one has been used, and to nothing else.
//! 4. No key is ever two devices', and none is a device's that has not signed
//!    with it: the statement is signed by both new keys before it comes here.

use hub_protocol::{DeviceId, DeviceKeyChange, Digest, Event, RefusalCode};
use minicbor::{Decode, Encode};

use crate::core::Core;
use crate::effect::{Effect, Reply};
use crate::input::Ticket;
use crate::record::DeviceRecord;

/// The most keys before the present one that are remembered, beside the first.
pub const MOST_KEYS_BEFORE: usize = 8;

/// The shortest time between two entries that say of one device that its old
/// keys were used, in milliseconds.
const OLD_KEYS_QUIET_MS: u64 = 60 * 60 * 1000;

/// A device's keys after a change.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceKeys {
    /// How often they have changed.
    #[n(1)]
    pub number: u32,
    /// SHA-256 over the present TLS key's SubjectPublicKeyInfo.
    #[n(2)]
    pub tls: Digest,
    /// Those before, the first ones first, the last ones last.
    #[n(3)]
    pub before: Vec<KeysBefore>,
    /// Whether the device has connected with the present TLS key.
    #[n(4)]
    pub settled: bool,
    /// When somebody came with a TLS key from before, last; milliseconds since
    /// 1970 UTC.
    #[n(5)]
    pub old_used_ms: Option<u64>,
}

/// Keys that a device had.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeysBefore {
    /// SHA-256 over the TLS key's SubjectPublicKeyInfo.
    #[n(1)]
    pub tls: Digest,
    /// The Ed25519 public key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub signing_key: [u8; 32],
    /// The highest number of a request that it has signed.
    #[n(3)]
    pub last_sequence: u64,
}

impl DeviceRecord {
    /// SHA-256 over the SubjectPublicKeyInfo of the TLS key that it connects
    /// with.
    pub fn tls_key(&self) -> Digest {
        let keys = self.keys.as_deref();
        keys.map_or(Digest(self.registration.device.0), |keys| keys.tls)
    }

    /// Whether this TLS key is its own, or was.
    pub(crate) fn has_had_tls(&self, key: &Digest) -> bool {
        let before = self.keys.as_deref().into_iter().flat_map(|keys| &keys.before);
        self.registration.device.0 == key.0
            || self.tls_key() == *key
            || before.into_iter().any(|keys| keys.tls == *key)
    }

    /// Whether this Ed25519 key is its own, or was.
    pub(crate) fn has_had_key(&self, key: &[u8; 32]) -> bool {
        let before = self.keys.as_deref().into_iter().flat_map(|keys| &keys.before);
        self.registration.signing_key == *key || before.into_iter().any(|keys| keys.signing_key == *key)
    }

    /// Its keys give way to these.
    pub(crate) fn change_keys(
        &mut self,
        number: u32,
        signing_key: [u8; 32],
        tls: Digest,
        last_sequence: u64,
    ) {
        if let Some(keys) = self.keys.as_deref_mut().filter(|keys| keys.number == number) {
            // The same keys: what the old one signed since counts too.
            if let Some(old) = keys.before.last_mut() {
                old.last_sequence = old.last_sequence.max(last_sequence);
            }
            return;
        }
        let old_tls = self.tls_key();
        let mut before = self.keys.take().map_or_else(Vec::new, |keys| keys.before);
        let old = KeysBefore {
            tls: old_tls,
            signing_key: self.registration.signing_key,
            last_sequence,
        };
        before.push(old);
        if before.len() > MOST_KEYS_BEFORE {
            before.remove(1);
        }
        self.registration.signing_key = signing_key;
        self.keys = Some(Box::new(DeviceKeys {
            number,
            tls,
            before,
            settled: false,
            old_used_ms: None,
        }));
    }
}

impl Core {
    /// A device wants other keys. Its statement is signed by both and by the
    /// old Ed25519 key; that is checked before.
    pub(crate) fn change_device_keys(
        &mut self,
        ticket: Ticket,
        device: DeviceId,
        change: &DeviceKeyChange,
        signed: Vec<u8>,
    ) {
        if self.refuse_if_stopping(ticket) || self.refuse_if_not_enrolled(ticket, device) {
            return;
        }
        let Some(known) = self.state.device(&device) else {
            return;
        };
        let keys = known.keys.as_deref();
        let number = keys.map_or(0, |keys| keys.number);
        let new_tls = change.new_tls();
        let again = change.number == number
            && known.registration.signing_key == change.new_key
            && known.tls_key() == new_tls;
        let is_taken = |one: &DeviceRecord| one.has_had_key(&change.new_key) || one.has_had_tls(&new_tls);
        let taken = change.new_key == change.old_key || self.state.devices().any(is_taken);
        let refusal = if change.device != device || change.hub != self.settings.hub {
            Some((
                RefusalCode::FieldMalformed,
                "device, hub: the device of this connection and this hub expected",
            ))
        } else if again {
            None
        } else if change.old_key != known.registration.signing_key
            || change.number != number.saturating_add(1)
        {
            Some((
                RefusalCode::KeysReplaced,
                "this does not follow the device's present keys; whoever has those goes on with them",
            ))
        } else if taken {
            Some((
                RefusalCode::EnrolledAlready,
                "one of the new keys is a device's already, or was; make new keys",
            ))
        } else {
            None
        };
        if let Some((code, text)) = refusal {
            self.refuse(ticket, code, text);
            return;
        }
        // Asked for again, because its answer was lost: meanwhile the device may
        // have gone on with its old key. Not once it has come with the new one.
        let last = keys
            .filter(|keys| !keys.settled)
            .and_then(|keys| keys.before.last());
        let signed_more = last.is_some_and(|last| change.last_sequence > last.last_sequence);
        let sequence = if again && !signed_more {
            self.state.head().sequence
        } else {
            let event = Event::DeviceKeysChanged {
                device,
                number: change.number,
                signing_key: change.new_key,
                tls_key: new_tls,
                last_sequence: change.last_sequence,
                statement: signed,
            };
            let sequence = self.append(event, None, None);
            self.device_keys(sequence, device);
            sequence
        };
        let number = change.number;
        self.reply_after(sequence, ticket, Reply::KeysChanged { number });
    }

    /// A device has connected with its present TLS key.
    pub(crate) fn device_keys_used(&mut self, device: DeviceId) {
        let keys = self.state.device(&device).and_then(|known| known.keys.as_deref());
        if let Some(number) = keys.filter(|keys| !keys.settled).map(|keys| keys.number) {
            let sequence = self.append(Event::DeviceKeysSettled { device, number }, None, None);
            self.device_keys(sequence, device);
        }
    }

    /// Somebody has connected with a TLS key that a device had before. Said
    /// once an hour at most.
    pub(crate) fn device_old_keys_used(&mut self, device: DeviceId) {
        let now_ms = self.clock.effective_ms();
        let keys = self.state.device(&device).and_then(|known| known.keys.as_deref());
        let loud = keys.is_some_and(|keys| {
            let quiet = |then| now_ms.saturating_sub(then) < OLD_KEYS_QUIET_MS;
            keys.settled && !keys.old_used_ms.is_some_and(quiet)
        });
        if loud {
            self.append(Event::DeviceOldKeysUsed { device }, None, None);
        }
    }

    fn device_keys(&mut self, sequence: u64, device: DeviceId) {
        let keys = self.state.device(&device).and_then(|known| known.keys.clone());
        if let Some(keys) = keys {
            self.after(sequence, Effect::DeviceKeys { device, keys });
        }
        self.device_changed(sequence, device);
    }
}
