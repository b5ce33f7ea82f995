//! What the hub remembers of a device.

use super::Subject;
use crate::admission::Admission;
use crate::described::Described;
use crate::device_keys::DeviceKeys;
use crate::reserve::AllowanceRecord;
use crate::risk::{Outcomes, Recent};
use crate::watch::Watch;
use hub_protocol::Registration;
use minicbor::{Decode, Encode};

/// What the hub remembers of a device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceRecord {
    /// As enrolled.
    #[n(1)]
    pub registration: Registration,
    /// Whether it is blocked.
    #[n(2)]
    pub blocked: bool,
    /// What it has at risk.
    #[n(3)]
    pub subject: Subject,
    /// How many of its payments wait to be sent and are not parked.
    #[n(4)]
    pub waiting: u32,
    /// Its payments lately, if its policy counts them.
    #[n(5)]
    pub recent: Option<Recent>,
    /// How its offline approvals ended.
    #[n(6)]
    pub outcomes: Option<Outcomes>,
    /// What detectors remember of it, if the policy looks for something. In a
    /// box: it is large.
    #[n(7)]
    pub watch: Option<Box<Watch>>,
    /// What it has said of itself, and a verifier of it.
    #[n(8)]
    pub described: Option<Box<Described>>,
    /// Its newest allowance, if it ever had one.
    #[n(9)]
    pub allowance: Option<Box<AllowanceRecord>>,
    /// The entry of the last misuse of an allowance, if nobody has lifted what
    /// that leads to.
    #[n(10)]
    pub misused_at: Option<u64>,
    /// How it was admitted, if not by a code of its own alone. In a box: few
    /// have it.
    #[n(30)]
    pub admission: Option<Box<Admission>>,
    /// The entry that says it sent card numbers in clear again and again, if
    /// nobody has lifted what that leads to. Apart from a misuse, which it must
    /// not hide.
    #[n(31)]
    pub card_numbers_at: Option<u64>,
    /// Its keys, if they have changed. In a box: few have it.
    #[n(32)]
    pub keys: Option<Box<DeviceKeys>>,
}
