//! How devices came to be enrolled, who answers for them, and what the hub
//! remembers of fleets: tokens that several devices enrol by, and
//! headquarters' list.
//!
//! What always holds:
//!
//! 1. The registry is headquarters' list, plus what was enrolled at the hub,
//!    minus what is blocked at the hub. A block wins over everything.
//! 2. A device that enrolled by a fleet's token is pending. Nothing is decided
//!    for it until a person at the hub, or the list, approves it.
//! 3. A device that the list has named once is headquarters' to answer for: a
//!    later list that leaves it out shuts it out.
//! 4. A device never takes another's place by what it says of itself.

use hub_protocol::{DeviceClass, DeviceId, Digest, KeyId, ListedDevice};
use minicbor::{Decode, Encode};

use crate::record::{DeviceRecord, KeyRatchet};

/// The most keys whose list versions are remembered. More than headquarters
/// uses up in a hub's life, and few enough for one value of the index.
pub const MAX_LIST_KEYS: usize = 16;

/// How a device was admitted, beyond a code of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Admission {
    /// Whether it waits to be approved.
    #[n(1)]
    pub pending: bool,
    /// The token that it enrolled by, if that was a fleet's.
    #[n(2)]
    pub token: Option<Digest>,
    /// The version of headquarters' list that named it first, while it is on
    /// the list.
    #[n(3)]
    pub listed: Option<u64>,
    /// That headquarters shut it out.
    #[n(4)]
    pub shut_out: Option<ShutOut>,
    /// The device whose place it took.
    #[n(5)]
    pub replaces: Option<DeviceId>,
    /// What took its place.
    #[n(6)]
    pub replaced: Option<Replaced>,
    /// That its keys were seen in two places.
    #[n(7)]
    pub two_places: Option<TwoPlaces>,
}

/// Headquarters shut a device out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ShutOut {
    /// By this version of its list.
    #[n(1)]
    pub list: u64,
    /// Whether the list names it as revoked, or only leaves it out.
    #[n(2)]
    pub revoked: bool,
}

/// Another device has a device's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Replaced {
    /// Which.
    #[n(1)]
    pub by: DeviceId,
    /// Whether the old one is lost.
    #[n(2)]
    pub lost: bool,
}

/// One device's requests came in turns from two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TwoPlaces {
    /// When that was noticed last, milliseconds since 1970 UTC.
    #[n(1)]
    pub at_ms: u64,
    /// How often it went back to an address that it had left.
    #[n(2)]
    pub returns: u32,
}

/// How far a device may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may pay.
    Granted,
    /// It may connect, and waits to be approved.
    Pending,
    /// It may not connect: blocked at the hub, or shut out by headquarters.
    Barred,
}

impl DeviceRecord {
    /// How far it may come in.
    pub fn access(&self) -> Access {
        match (self.barred(), self.pending()) {
            (true, _) => Access::Barred,
            (false, true) => Access::Pending,
            (false, false) => Access::Granted,
        }
    }

    /// Whether it may not connect: blocked at the hub, or shut out by
    /// headquarters.
    pub fn barred(&self) -> bool {
        self.blocked || self.shut_out().is_some()
    }

    /// Whether it waits to be approved.
    pub fn pending(&self) -> bool {
        self.admission.as_deref().is_some_and(|one| one.pending)
    }

    /// Whether this line of a list says of it what people see already.
    pub(crate) fn says_what(&self, listed: &ListedDevice) -> bool {
        let own = &self.registration;
        own.class == listed.class && own.name == listed.name && own.model == listed.model
    }

    /// Whether this line of the list in force has nothing to change in it.
    pub(crate) fn settled_by(&self, listed: &ListedDevice) -> bool {
        let admission = self.admission.as_deref();
        let is_in =
            admission.is_some_and(|one| one.listed.is_some() && one.shut_out.is_none() && !one.pending);
        is_in && self.says_what(listed)
    }

    /// What has its place.
    pub(crate) fn replaced(&self) -> Option<Replaced> {
        self.admission.as_deref().and_then(|one| one.replaced)
    }

    /// That headquarters shut it out.
    pub(crate) fn shut_out(&self) -> Option<ShutOut> {
        self.admission.as_deref().and_then(|one| one.shut_out)
    }
}

/// What the hub remembers of fleets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FleetRecord {
    /// Tokens that have not been withdrawn, oldest first; expired ones until
    /// the next is made.
    #[n(1)]
    pub tokens: Vec<FleetToken>,
    /// Headquarters' list, if one was taken.
    #[n(2)]
    pub list: Option<ListMark>,
    /// The devices that the list names as revoked.
    #[n(3)]
    pub revoked: Vec<DeviceId>,
    /// How many of the list's changes have not been made: a power failure cut
    /// it off, and it is to be applied again. Nothing once it is carried out.
    #[n(4)]
    pub list_left: Option<u32>,
    /// The highest version of a list by each key, of the
    /// [`MAX_LIST_KEYS`] keys that came last: the ratchet.
    #[n(5)]
    #[cbor(default)]
    pub ratchets: Vec<KeyRatchet>,
}

/// A token by which several devices may enrol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FleetToken {
    /// SHA-256 over the token.
    #[n(1)]
    pub token: Digest,
    /// What kind of devices.
    #[n(2)]
    pub class: DeviceClass,
    /// How many devices.
    #[n(3)]
    pub most: u32,
    /// How many have enrolled.
    #[n(4)]
    pub used: u32,
    /// From when on it is not good, milliseconds since 1970 UTC.
    #[n(5)]
    pub expires_ms: u64,
}

impl FleetToken {
    /// Whether devices may still present it. One that is used up lets no other
    /// device in, but those that it let in, and those on headquarters' list,
    /// fetch their registrations by it.
    pub fn is_open(&self, now_ms: u64) -> bool {
        now_ms < self.expires_ms
    }
}

/// The list that is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ListMark {
    /// Its version.
    #[n(1)]
    pub version: u64,
    /// Who signed it.
    #[n(2)]
    pub key: KeyId,
    /// SHA-256 over the signed list.
    #[n(3)]
    pub digest: Digest,
    /// When it was taken, milliseconds since 1970 UTC.
    #[n(4)]
    pub taken_ms: u64,
}
