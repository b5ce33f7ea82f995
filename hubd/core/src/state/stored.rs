//! The state as the index stores it.
//!
//! | key | value |
//! |---|---|
//! | `p` payment id | the payment's record |
//! | `c` card | the card's record, unless it is blank |
//! | `q` device, place (u64, big-endian) | a payment id: the device's lane |
//! | `x` place | a payment id: parked |
//! | `h` payment id | a payment id: not final and in no lane |
//! | `d` device | the device's record |
//! | `t` member of staff | what they have at risk, unless it is nothing |
//! | `s` | the store's record |
//! | `f` | tokens of fleets and headquarters' list of devices, once there was one |
//! | `u` | what is usual in the shop, if the policy asks for it |
//! | `o` | the day, month and year that are not over |
//!
//! Payments and cards, with the places that payments hold, grow with the
//! ledger; the others do not, and are all that opening reads.

use hub_protocol::cose::Unverified;
use hub_protocol::{DeviceId, PaymentId, cbor};

use super::fold::{parse_policy, parse_root};
use super::{FoldError, Head, State};
use crate::record::{CardKey, DeviceRecord, Place, StaffKey};

/// One key of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Payment(PaymentId),
    Card(CardKey),
    Device(DeviceId),
    Staff(StaffKey),
    Store,
    Profile,
    Fleet,
    OpenPeriods,
}

impl Key {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Payment(id) => [State::PAYMENTS, &id.0].concat(),
            Self::Card(key) => [State::CARDS, &key.0].concat(),
            Self::Device(id) => [&b"d"[..], &id.0].concat(),
            Self::Staff(key) => [&b"t"[..], &key.0].concat(),
            Self::Store => State::STORE.to_vec(),
            Self::Profile => PROFILE.to_vec(),
            Self::Fleet => FLEET.to_vec(),
            Self::OpenPeriods => OPEN_PERIODS.to_vec(),
        }
    }
}

impl Place {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Waiting(device, sequence) => Lane::Device(device).key(sequence),
            Self::Parked(sequence) => Lane::Parked.key(sequence),
            Self::Held(id) => [HELD, &id.0].concat(),
        }
    }
}

/// What [`Place::Held`] keys begin with.
const HELD: &[u8] = b"h";

/// The key of the profile. Beside the store's record, which every entry
/// changes and which is small.
const PROFILE: &[u8] = b"u";

/// The key of what is remembered of fleets: kept small by the bounds of lists.
const FLEET: &[u8] = b"f";

/// The key of the periods that are not over: a few totals of each currency.
const OPEN_PERIODS: &[u8] = b"o";

/// A part of the queue that is loaded by itself, in the order of its places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// What waits of a device.
    Device(DeviceId),
    /// What is parked.
    Parked,
}

impl Lane {
    /// What the index keys of this lane begin with. The key of a place is
    /// this and the place as a big-endian `u64`; its value is a payment id.
    pub fn prefix(&self) -> Vec<u8> {
        match self {
            Self::Device(device) => [&b"q"[..], &device.0].concat(),
            Self::Parked => b"x".to_vec(),
        }
    }

    /// The index key of a place in this lane.
    pub fn key(&self, sequence: u64) -> Vec<u8> {
        [self.prefix(), sequence.to_be_bytes().to_vec()].concat()
    }
}

impl State {
    /// The index keys that changed since the last call, with their new
    /// values; `None` for those to remove.
    pub fn take_dirty(&mut self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let places = core::mem::take(&mut self.dirty_places)
            .into_iter()
            .map(|(place, id)| (place.bytes(), id.map(|id| id.0.to_vec())));
        let mut changes: Vec<_> = places.collect();
        changes.extend(core::mem::take(&mut self.dirty).into_iter().map(|key| {
            let value = match key {
                Key::Payment(id) => self
                    .payments
                    .get(&id)
                    .map(|payment| cbor::encode(payment.as_ref())),
                Key::Card(card) => self.cards.get(&card).and_then(|card| card.value()),
                Key::Device(id) => self.devices.get(&id).map(cbor::encode),
                Key::Staff(key) => self.staff.get(&key).map(cbor::encode),
                Key::Store => Some(cbor::encode(&self.store)),
                Key::Profile => self.profile.as_deref().map(cbor::encode),
                Key::Fleet => Some(cbor::encode(&self.fleet)),
                Key::OpenPeriods => self.open_periods.as_deref().map(cbor::encode),
            };
            (key.bytes(), value)
        }));
        changes
    }

    /// The index key of a payment.
    pub fn payment_key(id: &PaymentId) -> Vec<u8> {
        Key::Payment(*id).bytes()
    }

    /// The index key of a card.
    pub fn card_key(card: &CardKey) -> Vec<u8> {
        Key::Card(*card).bytes()
    }

    /// What the keys of payments begin with; the id follows.
    pub const PAYMENTS: &'static [u8] = b"p";

    /// What the keys of cards begin with.
    pub const CARDS: &'static [u8] = b"c";

    /// The key of the store's record.
    pub const STORE: &'static [u8] = b"s";

    /// What the keys begin with whose values [`restore`](Self::restore)
    /// takes.
    pub const RESTORED: [&'static [u8]; 6] = [b"d", b"s", b"t", PROFILE, FLEET, OPEN_PERIODS];

    /// What the keys begin with whose values are ids of payments to
    /// [`recall`](Self::recall) while opening.
    pub const HELD: &'static [u8] = HELD;

    /// Takes one value of the index in, while opening: of a device, a member of
    /// staff, the store, or what is kept beside its record. Payments and cards
    /// stay in the index until somebody asks.
    pub fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<(), FoldError> {
        let wrong = |_| FoldError::IndexValue;
        match key.split_first() {
            Some((b'd', _)) => {
                let record: DeviceRecord = cbor::decode(value).map_err(wrong)?;
                if record.allowance.is_some() {
                    self.allowed.insert(record.registration.device);
                }
                self.devices.insert(record.registration.device, record);
            }
            Some((b't', key)) => {
                let key = key.try_into().map_err(|_| FoldError::IndexValue)?;
                let subject = cbor::decode(value).map_err(wrong)?;
                self.staff.insert(StaffKey(key), subject);
            }
            Some((b's', [])) => self.store = cbor::decode(value).map_err(wrong)?,
            Some((b'f', [])) => self.fleet = cbor::decode(value).map_err(wrong)?,
            Some((b'o', [])) => self.open_periods = Some(Box::new(cbor::decode(value).map_err(wrong)?)),
            Some((b'u', [])) => self.profile = Some(Box::new(cbor::decode(value).map_err(wrong)?)),
            _ => return Err(FoldError::IndexValue),
        }
        Ok(())
    }

    /// Ends restoring: `head` is the entry up to which the index holds, and
    /// `policy` the signed policy that [`StoreRecord::policy_sequence`](crate::state::StoreRecord::policy_sequence) names.
    pub fn restored(&mut self, head: Head, policy: Option<&[u8]>) {
        self.head = head;
        self.policy = policy.and_then(parse_policy);
        self.policy_key = policy
            .and_then(|signed| Unverified::parse(signed).ok())
            .map(|object| object.kid());
        self.all_cards = head.sequence == 0;
    }

    /// Takes the signed root in, while opening, that
    /// [`StoreRecord::root_sequence`](crate::state::StoreRecord::root_sequence)
    /// names. Without it no policy counts.
    pub fn restore_root(&mut self, root: &[u8]) {
        self.root = parse_root(root);
    }

    /// How many index keys have changed since the last
    /// [`take_dirty`](Self::take_dirty).
    pub fn dirty_len(&self) -> usize {
        self.dirty.len() + self.dirty_places.len()
    }
}
