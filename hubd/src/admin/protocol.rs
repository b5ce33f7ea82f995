//! The lines between `hubctl` and the hub.
//!
//! A request is `{"command": "...", ...}`; its answer is `{"answer": "...",
//! ...}` or `{"answer": "error", "code": "...", "message": "..."}`. Instants
//! are milliseconds since 1970 UTC, amounts are in minor units, ids are in
//! hex or, for payments, UUIDs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest request line, in bytes: a policy or root of 64 KiB in base64,
/// and room.
pub const MAX_REQUEST: usize = 128 * 1024;

/// The longest answer line, in bytes.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// The most queue items in one answer.
pub const MAX_QUEUE_LIMIT: usize = 1000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How does the hub stand?
    Status,
    /// Which devices are there?
    Devices,
    /// Make an enrolment code.
    Enrol {
        /// What the device is: mpos, softpos or terminal. In the place of
        /// another it is what that was.
        class: String,
        /// For several devices, if so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fleet: Option<FleetOrder>,
        /// In whose place, 64 hex digits, if in another's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<String>,
        /// Whether that one is lost.
        #[serde(default)]
        lost: bool,
    },
    /// Which tokens for several devices are outstanding, and which list of
    /// headquarters is in force?
    Fleet,
    /// Withdraw a token for several devices.
    FleetWithdraw {
        /// SHA-256 over the token, 64 hex digits.
        token: String,
    },
    /// Take headquarters' list of devices.
    FleetApply {
        /// The signed list, base64 (RFC 4648 §4).
        list: String,
    },
    /// Approve a device that is pending.
    Approve {
        /// Its id, 64 hex digits.
        device: String,
    },
    /// Block a device.
    Block {
        /// Its id, 64 hex digits.
        device: String,
    },
    /// A device is lost: keep nothing back for its allowance.
    Lost {
        /// Its id, 64 hex digits.
        device: String,
    },
    /// Unblock a device.
    Unblock {
        /// Its id, 64 hex digits.
        device: String,
    },
    /// What waits to be sent?
    Queue {
        /// The most items to list, 1 to [`MAX_QUEUE_LIMIT`].
        limit: usize,
        /// Only what is parked.
        #[serde(default)]
        parked: bool,
    },
    /// Send what waits, now.
    Drain,
    /// Put a parked payment back.
    Release {
        /// Its id.
        payment_id: String,
        /// The gateway does not have it, by the word of somebody there.
        #[serde(default)]
        not_there: bool,
    },
    /// End a parked payment by what was found out elsewhere.
    Close {
        /// Its id.
        payment_id: String,
        /// What was found out.
        finding: Found,
        /// From whom, 1 to 200 bytes.
        note: String,
    },
    /// Park what waits to be sent.
    Park {
        /// Its id.
        payment_id: String,
    },
    /// End what anomalies have led to.
    Lift {
        /// At which device, 64 hex digits; without it: in the store.
        #[serde(default)]
        device: Option<String>,
    },
    /// Say what time it is, so that a clock in doubt is trusted again.
    ClockConfirm {
        /// Milliseconds since 1970 UTC.
        told_ms: u64,
    },
    /// An archive was copied away.
    ArchiveExported {
        /// Its number.
        number: u32,
        /// SHA-256 of the copy, 64 hex digits.
        digest: String,
    },
    /// The keys of single entries are given to somebody.
    Disclosed {
        /// How many.
        entries: u64,
        /// The first of them.
        first: u64,
        /// The last.
        last: u64,
        /// Only those of these payments, if any are named.
        #[serde(default)]
        payments: Vec<String>,
    },
    /// Remove the compressed files of archives that were copied away.
    ArchiveRemove {
        /// Up to this one.
        through: u32,
    },
    /// Which keys are there?
    Keys,
    /// Sign with another key from now on.
    KeysRotateSigning {
        /// Although devices are left behind.
        #[serde(default)]
        confirmed: bool,
    },
    /// Be reached under another TLS key.
    KeysRotateTls {
        /// Which part of it.
        step: TlsStep,
        /// Although devices are left behind.
        #[serde(default)]
        confirmed: bool,
    },
    /// Wrap the store's data key under another vault key.
    KeysRotateVault,
    /// Put a policy in force.
    PolicyInstall {
        /// The signed policy, base64 (RFC 4648 §4).
        policy: String,
    },
    /// Put the next root in force.
    RootApply {
        /// The signed root, base64 (RFC 4648 §4).
        root: String,
    },
}

/// How many devices a code is for, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FleetOrder {
    /// How many devices.
    pub most: u32,
    /// For how long, in seconds.
    pub valid_seconds: u64,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// To [`Request::Status`].
    Status(Box<StatusReport>),
    /// To [`Request::Devices`].
    Devices {
        /// Enrolled ones first, by name.
        devices: Vec<DeviceReport>,
    },
    /// To [`Request::Enrol`].
    Enrol(Box<EnrolReport>),
    /// To [`Request::Fleet`].
    Fleet(FleetReport),
    /// To [`Request::FleetApply`].
    List(ListReport),
    /// To [`Request::Queue`].
    Queue(QueueReport),
    /// To [`Request::PolicyInstall`].
    Policy(PolicyReport),
    /// To [`Request::Keys`].
    Keys {
        /// The hub's first.
        keys: Vec<KeyReport>,
    },
    /// To a change of one of the hub's keys.
    Rotation(Box<RotationReport>),
    /// To [`Request::RootApply`].
    Root(RootReport),
    /// Done, and written down.
    Done,
    /// Not done.
    Error {
        /// What kind of refusal.
        code: ErrorCode,
        /// What is wrong and what to do.
        message: String,
    },
}

/// What a person found out about a parked payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// The gateway does not have it.
    NotThere,
    /// It has it: the customer is charged.
    Taken,
    /// It had it and has undone it.
    Undone,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The line is no request that this hub knows.
    Malformed,
    /// The hub says no.
    Refused,
    /// Too many ask, or the hub is stopping: try again.
    Unavailable,
    /// Whoever asks may not.
    Forbidden,
}

/// How the hub stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The hub's identity, 64 hex digits.
    pub hub_id: String,
    /// What people call the shop.
    pub store: String,
    /// The shop's id.
    pub store_id: String,
    /// The daemon's version.
    pub version: String,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// Where devices reach it.
    pub listen: String,
    /// Where devices with an enrolment code reach it.
    pub enrol_listen: String,
    /// How it stands to the gateway: online, degraded or offline.
    pub wan: String,
    /// Why.
    pub wan_reason: String,
    /// The policy in force; `None`: nothing is approved offline.
    pub policy: Option<PolicyReport>,
    /// The root in force; `None`: the hub obeys the keys in hubd.toml.
    #[serde(default)]
    pub root: Option<RootReport>,
    /// Entries in the ledger.
    pub ledger_entries: u64,
    /// Groups of entries written since the start, one flush of the journal
    /// each.
    pub ledger_groups: u64,
    /// Flushes of journal and vault since the start.
    pub ledger_flushes: u64,
    /// Payments waiting to be sent.
    pub queued: usize,
    /// Payments and reversals that wait for a person.
    pub parked: usize,
    /// Reversals waiting to be sent.
    pub reversals_queued: usize,
    /// Age of the oldest unsent payment, in seconds.
    pub oldest_unsent_seconds: Option<u64>,
    /// Approved offline and not yet settled, in minor units.
    pub exposure_minor: u64,
    /// Offline approvals in a row.
    pub consecutive: u32,
    /// The shop's currency.
    pub currency: String,
    /// Whether the clock is in doubt.
    pub clock_suspect: bool,
    /// The time that the hub goes by, milliseconds since 1970 UTC.
    #[serde(default)]
    pub time_ms: u64,
    /// The room on the disk: enough, low, or full (nothing is approved
    /// offline).
    #[serde(default)]
    pub storage: String,
    /// What the file system has free, in bytes.
    #[serde(default)]
    pub storage_free_bytes: u64,
    /// What is kept aside for what was accepted, in bytes.
    #[serde(default)]
    pub storage_reserve_bytes: u64,
    /// Archives of the ledger, removed ones too.
    #[serde(default)]
    pub archives: u32,
    /// How many of them were copied away, the oldest.
    #[serde(default)]
    pub archives_exported: u32,
    /// How many of them are no longer on the hub's disk, the oldest.
    #[serde(default)]
    pub archives_removed: u32,
    /// What archives take, in bytes.
    #[serde(default)]
    pub archive_bytes: u64,
    /// Why what is old enough is not archived or removed.
    #[serde(default)]
    pub archive_trouble: Option<String>,
    /// The share of the signed ceilings that holds in the store by moving
    /// limits, percent.
    #[serde(default = "all")]
    pub ceilings_percent: u64,
    /// Where anomalies restrict offline approvals, or points have come
    /// together.
    #[serde(default)]
    pub restrictions: Vec<RestrictionReport>,
    /// What devices may approve by themselves; all of it is in the exposure.
    #[serde(default)]
    pub allowances: Vec<AllowanceReport>,
    /// Enrolled devices.
    pub devices_enrolled: usize,
    /// Devices connected now.
    pub devices_connected: usize,
    /// What was turned away or slowed down at the devices' endpoints since
    /// the start, by the bound that was reached.
    #[serde(default)]
    pub turned_away: BTreeMap<String, u64>,
}

fn all() -> u64 {
    100
}

fn one() -> u32 {
    1
}

/// An allowance that a device holds, or may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowanceReport {
    /// Which device, 64 hex digits.
    pub device: String,
    /// Its number.
    pub number: u64,
    /// What is still kept back for it, in minor units.
    pub kept_back_minor: u64,
    /// The same as a number of payments.
    pub kept_back_count: u32,
    /// From when on the device approves nothing under it, milliseconds since
    /// 1970 UTC. It is kept back beyond that.
    pub expires_ms: u64,
}

/// What anomalies have led to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestrictionReport {
    /// At which device, 64 hex digits; `None`: in the store.
    pub device: Option<String>,
    /// none, warned, tightened or stopped.
    pub restriction: String,
    /// Points now.
    pub points: u64,
}

/// A key of the hub's, of headquarters' or of a device's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// What it is for: signing, signing-next, tls, tls-next, vault, root, policy,
    /// device-list or device.
    pub purpose: String,
    /// Whose: the hub's short id, whom the root names, or a device's name.
    pub holder: String,
    /// Its id, in hex; `None` of a key that has none.
    pub id: Option<String>,
    /// The public key, 64 hex digits, of an Ed25519 key.
    pub public: Option<String>,
    /// Since when it is in use, milliseconds since 1970 UTC, as far as is
    /// known.
    pub since_ms: Option<u64>,
    /// How often it has changed, of a key that can.
    pub changes: Option<u32>,
}

/// A part of a change of the hub's TLS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsStep {
    /// Be reached under another key too; if that is so already, tell how far
    /// devices have followed.
    Begin,
    /// Be reached under the other key only.
    Finish,
    /// Be reached under the old key only.
    Abandon,
}

/// What came of an order to change one of the hub's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotationReport {
    /// Which key: signing or tls.
    pub which: String,
    /// Whether anything was changed.
    pub changed: bool,
    /// Whether the hub is reached under two TLS keys now.
    pub overlap: bool,
    /// Nothing was done, because devices would be left behind and nobody has
    /// said that this is meant.
    pub unconfirmed: bool,
    /// How many devices may connect.
    pub enrolled: usize,
    /// Those of them, by name, that speak too old a wire version to follow.
    pub too_old: Vec<String>,
    /// Those that have not connected since the hub started; while two TLS
    /// keys overlap, those that have not been told of the new one.
    pub unheard: Vec<String>,
    /// The keys now.
    pub keys: Vec<KeyReport>,
}

/// A root in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootReport {
    /// Its version; 0 for one that cannot be read.
    pub version: u32,
    /// SHA-256 over its content, 64 hex digits.
    pub digest: String,
    /// When what it delegates ends.
    pub expires_ms: u64,
    /// Why it does not let the policy in force count, if it does not.
    pub policy_objection: Option<String>,
}

impl RootReport {
    /// One that cannot be read.
    pub fn unreadable() -> Self {
        Self {
            policy_objection: Some(
                "the root in force cannot be read: bring back the archive that holds it and start hubd again"
                    .to_owned(),
            ),
            ..Self::default()
        }
    }
}

impl From<hub_core::RootStanding> for RootReport {
    fn from(standing: hub_core::RootStanding) -> Self {
        Self {
            version: standing.version,
            digest: standing.digest.to_string(),
            expires_ms: standing.expires_ms,
            policy_objection: standing.policy_objection,
        }
    }
}

/// A policy in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyReport {
    /// Its version.
    pub version: u64,
    /// When it ends.
    pub expires_ms: Option<u64>,
}

/// A device that is enrolled, or was seen on the network, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Its id, 64 hex digits; of a device that was only seen, what mDNS says
    /// of it: the first 16 digits, unproven.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// mpos, softpos or terminal.
    pub class: String,
    /// Vendor and model, of an enrolled device.
    pub model: Option<String>,
    /// The Ed25519 public key that it signs with, 64 hex digits, of an enrolled
    /// device: what headquarters' list names it by, beside the id.
    #[serde(default)]
    pub key: Option<String>,
    /// Whether it is enrolled.
    pub enrolled: bool,
    /// Whether it is blocked.
    pub blocked: bool,
    /// Whether it is connected now.
    pub connected: bool,
    /// When it was enrolled.
    pub enrolled_ms: Option<u64>,
    /// When mDNS last heard of it.
    pub seen_ms: Option<u64>,
    /// Where mDNS says it is.
    pub addresses: Vec<String>,
    /// What it has said of itself, if it has.
    pub described: Option<DescribedReport>,
    /// Who it is, of an enrolled device.
    #[serde(default)]
    pub standing: Option<StandingReport>,
}

/// Who a device is, as far as the hub can tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingReport {
    /// Whether it is blocked here.
    pub blocked_here: bool,
    /// Whether it waits to be approved.
    pub pending: bool,
    /// The token that it enrolled by, if that was for several devices: SHA-256
    /// over it.
    pub token: Option<String>,
    /// The version of headquarters' list that named it first, while it is on
    /// the list.
    pub listed: Option<u64>,
    /// How far its offline approvals are restricted: none, warned, tightened or
    /// stopped.
    #[serde(default)]
    pub restriction: String,
    /// Whether because it misused an allowance, or sent card numbers.
    #[serde(default)]
    pub quarantined: bool,
    /// The version of headquarters' list that shuts it out.
    pub shut_out: Option<u64>,
    /// Whether that names it as revoked, or only leaves it out.
    pub revoked: bool,
    /// Whose place it has.
    pub replaces: Option<String>,
    /// What has its place.
    pub replaced_by: Option<String>,
    /// Whether it was lost then.
    pub lost: bool,
    /// Signs that it was copied.
    pub signs: Vec<SignReport>,
    /// Devices enrolled before it under the same name and model.
    pub like_older: Vec<String>,
    /// The same of those enrolled after it.
    pub like_newer: Vec<String>,
}

/// A sign that a device was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignReport {
    /// number-again, two-ends, two-places or old-keys.
    pub sign: String,
    /// When it was seen last, if that is known.
    pub at_ms: Option<u64>,
}

/// Enrolling in number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetReport {
    /// Tokens that are outstanding, oldest first.
    pub tokens: Vec<TokenReport>,
    /// The version of headquarters' list that is in force, if one is.
    pub list_version: Option<u64>,
    /// Who signed it.
    pub list_key: Option<String>,
    /// When it was taken.
    pub list_taken_ms: Option<u64>,
    /// How many of its changes are left to make: a power failure cut it off,
    /// and it is to be applied again. 0 once it is carried out.
    #[serde(default)]
    pub list_left: u32,
}

/// A token for several devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenReport {
    /// SHA-256 over it, 64 hex digits.
    pub token: String,
    /// mpos, softpos or terminal.
    pub class: String,
    /// How many devices it is for.
    pub most: u32,
    /// How many have enrolled.
    pub used: u32,
    /// Until when it is good.
    pub expires_ms: u64,
}

/// What a list has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListReport {
    /// Its version.
    pub version: u64,
    /// Devices that it enrolled.
    pub enrolled: usize,
    /// Devices that were in, and have another name, model or class by it.
    #[serde(default)]
    pub changed: usize,
    /// Known devices that it approved.
    pub approved: usize,
    /// Devices that it shut out.
    pub shut_out: usize,
    /// Devices on it that are blocked here, and stay so.
    pub blocked: usize,
    /// Lines that were passed over.
    #[serde(default)]
    pub contradicted: Vec<ContradictionReport>,
}

/// A line of a list that has other keys for a device than the hub knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContradictionReport {
    /// The device that the line names, 64 hex digits.
    pub listed: String,
    /// The device that the hub knows, 64 hex digits.
    pub known: String,
    /// What people call that one.
    pub name: String,
}

/// What a device has said of itself, and a verifier of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedReport {
    /// Who makes it.
    pub vendor: String,
    /// Its model.
    pub model: String,
    /// Its operating system.
    pub os: String,
    /// And that one's version.
    pub os_version: String,
    /// The version of its payment app.
    pub app_version: String,
    /// What it is certified as.
    pub certification: String,
    /// The verifier's newest word: none, affirming, warning, contraindicated.
    pub attestation: Option<String>,
    /// When the verifier gave it.
    pub attested_ms: Option<u64>,
}

/// A fresh enrolment code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolReport {
    /// What the device will be: mpos, softpos or terminal.
    pub class: String,
    /// What the device is given, as text or QR code. Good once, unless it is
    /// for several devices.
    pub code: String,
    /// How many devices it is for.
    #[serde(default = "one")]
    pub most: u32,
    /// SHA-256 over the token of a code for several devices, to withdraw it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// In whose place the device will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<String>,
    /// Until when.
    pub expires_ms: u64,
    /// How long that is from now.
    pub valid_seconds: u64,
    /// The hub's identity, which the code holds.
    pub hub_id: String,
    /// Where the device will enrol, best first.
    pub enrol_addresses: Vec<String>,
    /// Where it will send payments, best first.
    pub addresses: Vec<String>,
}

/// What waits to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueReport {
    /// Oldest first, at most as many as were asked for.
    pub items: Vec<QueueItem>,
    /// How many there are in all.
    pub total: usize,
    /// How many of them wait for a person.
    pub parked: usize,
}

/// Something that waits to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueItem {
    /// Which payment.
    pub payment_id: String,
    /// queued, parked, reversal-queued or reversal-parked.
    pub state: String,
    /// What would be asked: authorise-online, authorise-deferred, advice or
    /// reverse.
    pub operation: String,
    /// In minor units.
    pub amount_minor: u64,
    /// ISO 4217.
    pub currency: String,
    /// Which device.
    pub device: String,
    /// When it was decided.
    pub decided_ms: u64,
    /// How often it has been tried since the hub started.
    pub attempts: u32,
    /// What came of the last try.
    pub last_error: Option<String>,
    /// Why it is parked.
    pub parked: Option<String>,
    /// Until the next try.
    pub next_try_ms: Option<u64>,
}

impl From<hub_core::QueueItem> for QueueItem {
    fn from(item: hub_core::QueueItem) -> Self {
        Self {
            payment_id: item.payment_id.to_string(),
            state: item.state.to_string(),
            operation: operation_name(item.operation).to_owned(),
            amount_minor: item.amount_minor,
            currency: item.currency.to_string(),
            device: item.device.to_string(),
            decided_ms: item.decided_ms,
            attempts: item.attempts,
            last_error: item.last_error,
            parked: item.parked.map(|reason| reason.to_string()),
            next_try_ms: item.next_try_ms,
        }
    }
}

/// An operation by the name that the gateway knows.
pub const fn operation_name(operation: hub_core::Operation) -> &'static str {
    match operation {
        hub_core::Operation::AuthoriseOnline => "authorise-online",
        hub_core::Operation::AuthoriseDeferred => "authorise-deferred",
        hub_core::Operation::Advice => "advice",
        hub_core::Operation::Reverse => "reverse",
        hub_core::Operation::LookUp => "look-up",
    }
}
