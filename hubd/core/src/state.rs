//! Everything the core knows for good: a fold over ledger entries.
//!
//! [`State::apply`] is the only way to change it, when deciding as well as
//! when opening, so that a restart arrives at the same state by construction.
//! What changed since the last [`State::take_dirty`] goes into the index.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use hub_protocol::entry::Entry;
use hub_protocol::{DeviceId, Digest, KeyId, PaymentId, PaymentRequest, Root};

use crate::admission::FleetRecord;
use crate::closure::OpenPeriods;
use crate::policy::Policy;
use crate::profile::Profile;
use crate::totals::Told;
mod allowance;
mod fleet;
mod fold;
mod limits;
mod memory;
mod profile;
mod stored;
mod watch;

use stored::Key;

pub(crate) use crate::record::Place;
pub use crate::record::{
    ArchiveMarks, CardKey, CardRecord, Day, Decided, DeviceRecord, KeyRatchet, MOST_PLACES, MOST_TRACE_RULES,
    NotThere, PaymentRecord, QueueCounts, RetryRecord, SchemeOutcomes, StaffKey, StatedTerms, StoreOutcomes,
    StoreRecord, Subject, TlsKeysRecord, TracesSince, Velocity,
};
pub use crate::reserve::{AllowanceRecord, Closed, Reserved, Spent};
pub(crate) use fold::{SENDS_NOW, parse_policy};
pub use memory::{Evicted, Recalled};
pub use stored::Lane;

/// An entry, or an index value, that does not fit what came before. The
/// ledger was written by another program or is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The entry's sequence or previous digest is not the next one.
    #[error("entry {found} does not follow entry {head}")]
    NotNext {
        /// The newest entry folded.
        head: u64,
        /// The entry offered.
        found: u64,
    },
    /// The entry speaks of a payment that no entry before it has opened.
    #[error("entry {sequence} speaks of payment {payment_id}, which is not known")]
    UnknownPayment {
        /// The entry.
        sequence: u64,
        /// The payment.
        payment_id: PaymentId,
    },
    /// The entry holds a signed object that cannot be read.
    #[error("entry {sequence} holds an object that cannot be read: {what}")]
    Unreadable {
        /// The entry.
        sequence: u64,
        /// Which object.
        what: String,
    },
    /// The entry speaks of a payment whose card is in the index and was not
    /// recalled: a fault of the program.
    #[error("entry {sequence} is about a card that was not recalled from the index")]
    CardNotRecalled {
        /// The entry.
        sequence: u64,
    },
    /// An index value cannot be read.
    #[error("the index holds a value that cannot be read")]
    IndexValue,
}

/// The newest entry of a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its sequence; 0 for an empty ledger.
    pub sequence: u64,
    /// Its digest.
    pub digest: Digest,
}

impl Head {
    /// Of an empty ledger.
    pub const EMPTY: Head = Head {
        sequence: 0,
        digest: Digest::ZERO,
    };
}

/// The folded state.
#[derive(Clone, Debug)]
pub struct State {
    head: Head,
    /// Each in a box: a map that grows keeps nearly twice its room, and a
    /// record takes half a kilobyte.
    payments: HashMap<PaymentId, Box<PaymentRecord>>,
    cards: memory::Cards,
    /// Cards in memory, the longest there first, for eviction.
    card_order: memory::Order,
    /// No card has ever been left to the index: one that is not in memory has
    /// nothing at risk.
    all_cards: bool,
    devices: HashMap<DeviceId, DeviceRecord>,
    /// Devices that have had an allowance: a few of them.
    allowed: BTreeSet<DeviceId>,
    /// Members of staff with something at risk: never more than payments in
    /// the queue, and in a shop a handful.
    staff: BTreeMap<StaffKey, Subject>,
    store: StoreRecord,
    policy: Option<Policy>,
    /// Tokens of fleets, and headquarters' list of devices.
    fleet: FleetRecord,
    /// Who signed it.
    policy_key: Option<KeyId>,
    /// The root in force, and the digest of its content.
    root: Option<(Box<Root>, Digest)>,
    /// What is usual in the shop, if the policy asks for it.
    profile: Option<Box<Profile>>,
    /// What closures will say, once there are some. In a box: few look.
    open_periods: Option<Box<OpenPeriods>>,
    dirty: BTreeSet<Key>,
    /// Places that were taken (`Some`) or left.
    dirty_places: BTreeMap<Place, Option<PaymentId>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            head: Head::EMPTY,
            payments: HashMap::new(),
            cards: memory::Cards::default(),
            card_order: memory::Order::default(),
            all_cards: true,
            devices: HashMap::new(),
            allowed: BTreeSet::new(),
            staff: BTreeMap::new(),
            store: StoreRecord::default(),
            policy: None,
            fleet: FleetRecord::default(),
            policy_key: None,
            root: None,
            profile: None,
            open_periods: None,
            dirty: BTreeSet::new(),
            dirty_places: BTreeMap::new(),
        }
    }
}

impl State {
    /// The newest entry folded.
    pub fn head(&self) -> Head {
        self.head
    }

    /// What is remembered of a payment.
    pub fn payment(&self, id: &PaymentId) -> Option<&PaymentRecord> {
        self.payments.get(id).map(AsRef::as_ref)
    }

    /// All payments in memory, in no particular order.
    pub fn payments(&self) -> impl Iterator<Item = (&PaymentId, &PaymentRecord)> {
        self.payments.iter().map(|(id, payment)| (id, payment.as_ref()))
    }

    /// What a card has at risk. Only to be believed of a card that
    /// [`knows_card`](Self::knows_card) knows.
    pub fn card(&self, key: &CardKey) -> Subject {
        self.cards
            .get(key)
            .map_or_else(Subject::default, |card| card.record.subject)
    }

    /// What is remembered of a device.
    pub fn device(&self, id: &DeviceId) -> Option<&DeviceRecord> {
        self.devices.get(id)
    }

    /// All devices, in no particular order.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceRecord> {
        self.devices.values()
    }

    /// What a member of staff has at risk.
    pub fn staff(&self, key: StaffKey) -> Subject {
        self.staff.get(&key).copied().unwrap_or_default()
    }

    /// What is remembered of the store.
    pub fn store(&self) -> &StoreRecord {
        &self.store
    }

    /// How far the ledger is archived.
    pub fn archives(&self) -> ArchiveMarks {
        self.store.archives.unwrap_or_default()
    }

    /// The periods that are not over; `None` before the first start of a hub
    /// that closes them.
    pub fn open_periods(&self) -> Option<&OpenPeriods> {
        self.open_periods.as_deref()
    }

    fn counted(&mut self, id: PaymentId, entry: &Entry) {
        let (Some(open), Some(payment)) = (&mut self.open_periods, self.payments.get(&id)) else {
            return;
        };
        if open.count(entry, &Told::of_record(payment)) {
            self.dirty.insert(Key::OpenPeriods);
        }
    }

    /// The policy in force.
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// Who signed the policy in force.
    pub fn policy_key(&self) -> Option<KeyId> {
        self.policy_key
    }

    /// The root in force, unless there is none or it cannot be read.
    pub fn root(&self) -> Option<&Root> {
        self.root.as_ref().map(|(root, _)| root.as_ref())
    }

    /// SHA-256 over the content of the root in force.
    pub fn root_digest(&self) -> Option<Digest> {
        self.root.as_ref().map(|(_, digest)| *digest)
    }

    /// The TLS keys under which the hub is reached; `None`: the one that it is
    /// named after.
    pub fn tls_keys(&self) -> Option<&TlsKeysRecord> {
        self.store.tls_keys.as_ref()
    }

    pub(crate) fn set_tls_keys(&mut self, keys: TlsKeysRecord) {
        self.store.tls_keys = Some(keys);
        self.dirty.insert(Key::Store);
    }

    /// Folds one entry. `digest` is [`Entry::digest`] of its payload.
    ///
    /// The payment of which it speaks and its card must be in memory, if the
    /// index has them; see [`request_in`](Self::request_in).
    pub fn apply(&mut self, entry: &Entry, digest: Digest) -> Result<(), FoldError> {
        self.apply_known(entry, digest, None)
    }

    /// [`apply`](Self::apply) for whoever has the `request` at hand already that
    /// the event holds in its signed form.
    pub fn apply_known(
        &mut self,
        entry: &Entry,
        digest: Digest,
        request: Option<&PaymentRequest>,
    ) -> Result<(), FoldError> {
        if entry.sequence != self.head.sequence + 1 || entry.previous != self.head.digest {
            return Err(FoldError::NotNext {
                head: self.head.sequence,
                found: entry.sequence,
            });
        }
        let before = entry
            .event
            .payment_id()
            .and_then(|id| Some((self.payments.get(&id)?.place(id)?, self.payments.get(&id)?.state)));
        self.apply_event(entry, digest, request)?;
        if let Some(id) = entry.event.payment_id() {
            self.moved(id, before, entry.sequence);
            self.counted(id, entry);
        }
        self.head = Head {
            sequence: entry.sequence,
            digest,
        };
        self.store.high_water_ms = self.store.high_water_ms.max(entry.time.wall_ms);
        self.store.clock_quality = entry.time.quality;
        self.dirty.insert(Key::Store);
        Ok(())
    }
}
