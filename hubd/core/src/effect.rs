//! What comes out of the core, for the shell to carry out, in order.

use hub_protocol::entry::{ParkReason, StorageLevel, TraceRule, WanReason, WanState};
use hub_protocol::{
    Allowance, AllowanceChain, AllowanceMisuse, Currency, DeviceId, Digest, HubTlsKeys, PaymentId,
    PaymentState, PaymentStatus, Receipt, Refusal, Registration, Restriction, RestrictionCause, Root,
    SealedCard, SignedKeyChange,
};

use crate::admission::{Access, FleetToken, ListMark};
use crate::described::Described;
use crate::device_keys::DeviceKeys;
use crate::fleet::{ListChanges, Standing};
use crate::input::{AttemptId, Ticket};
use crate::state::{ArchiveMarks, Lane, Reserved};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this entry durable, under the hub's signature and together with
    /// the sealed card, then say [`Input::Appended`](crate::Input::Appended).
    Append {
        /// The entry's sequence; no gaps.
        sequence: u64,
        /// The entry's payload, encoded.
        payload: Vec<u8>,
        /// The sealed card that must be durable with the entry.
        sealed_card: Option<(PaymentId, SealedCard)>,
        /// The receipt, encoded, if the entry decides a payment: one signature
        /// stands for all the receipts that become durable together.
        receipt: Option<Vec<u8>>,
    },
    /// The entry that is appended next ends its group, and whatever follows it
    /// is signed with the key that it names.
    ChangeHubKey {
        /// The entry's sequence.
        sequence: u64,
    },
    /// The entry that is appended next begins an outage, in which nothing
    /// leaves the queue, or ends one. Whatever says outside of the ledger that
    /// nothing has left must be gone before the end is told to be durable.
    Outage {
        /// The entry's sequence.
        sequence: u64,
        /// Whether it begins.
        begins: bool,
    },
    /// Tell all connected devices that the hub signs with another key.
    HubKeyChanged {
        /// The signed [`HubKeyChange`](hub_protocol::HubKeyChange).
        statement: SignedKeyChange,
    },
    /// A device's keys have changed, or its old TLS key counts no more.
    DeviceKeys {
        /// Which.
        device: DeviceId,
        /// Its keys now.
        keys: Box<DeviceKeys>,
    },
    /// Be reached under these TLS keys from now on, and tell all connected
    /// devices.
    HubTlsKeys {
        /// What they are told.
        keys: HubTlsKeys,
    },
    /// Answer somebody. Receipts are still to be proved, statuses to be
    /// signed.
    Reply {
        /// Who.
        ticket: Ticket,
        /// What.
        reply: Reply,
    },
    /// Send something to the gateway and say what came of it.
    Forward(Forward),
    /// Tell a device, if it is connected, where its payment stands.
    Push {
        /// Which device.
        device: DeviceId,
        /// What.
        status: PaymentStatus,
    },
    /// Tell all connected devices that another policy is in force.
    PushPolicy {
        /// Its version.
        version: u64,
    },
    /// Look into the index for what waits in a lane behind a place, and say
    /// [`Input::QueueLoaded`](crate::Input::QueueLoaded). Only asked once
    /// something has been left to the index: after
    /// [`Core::indexed`](crate::Core::indexed), or after opening from the
    /// index. Not asked again before it is answered.
    LoadQueue {
        /// Which lane.
        lane: Lane,
        /// Behind which place.
        after: u64,
        /// The most payments wanted.
        limit: usize,
    },
    /// A device may (or may no longer) connect.
    DeviceChanged {
        /// The device.
        registration: Box<Registration>,
        /// How far it may come in.
        access: Access,
    },
    /// The tokens of fleets are these from now on; expired ones may be among
    /// them.
    FleetTokens {
        /// All of them.
        tokens: Vec<FleetToken>,
    },
    /// The gateway's final answer is durable: destroy the sealed card.
    EraseCard {
        /// Of which payment.
        payment_id: PaymentId,
    },
    /// The connectivity changed.
    WanChanged {
        /// To what.
        state: WanState,
        /// Why.
        reason: WanReason,
    },
    /// A device misused an allowance: nothing is approved offline for it until
    /// a person lifts that.
    AllowanceMisused {
        /// Which device.
        device: DeviceId,
        /// The allowance's number.
        number: u64,
        /// What it did.
        kind: AllowanceMisuse,
    },
    /// Offline approvals became restricted, or free again.
    RestrictionChanged {
        /// At which device; `None`: in the whole store.
        device: Option<DeviceId>,
        /// From now on.
        restriction: Restriction,
        /// Why.
        cause: RestrictionCause,
    },
}

/// What anomalies have led to, at a device or in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restricted {
    /// Which device; `None`: the store.
    pub device: Option<DeviceId>,
    /// How far.
    pub restriction: Restriction,
    /// Points now.
    pub points: u64,
}

/// An allowance that a device holds, or may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenAllowance {
    /// Which device.
    pub device: DeviceId,
    /// Its number.
    pub number: u64,
    /// What is still kept back for it.
    pub reserved: Reserved,
    /// From when on the device approves nothing under it, milliseconds since
    /// 1970 UTC. It is kept back beyond that.
    pub expires_ms: u64,
}

/// What is asked of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Authorise while the customer waits.
    AuthoriseOnline,
    /// Authorise what was accepted offline at the merchant's risk.
    AuthoriseDeferred,
    /// Take note of what the chip approved.
    Advice,
    /// Undo whatever was or may have been taken under this id.
    Reverse,
    /// Find the payment by its merchant reference, the payment id, and take
    /// nothing: it may have been sent so long ago that the gateway no longer
    /// knows its idempotency key. Answered with
    /// [`NotFound`](crate::GatewayAnswer::NotFound), or with what a payment
    /// would be answered.
    LookUp,
}

/// One attempt to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// To be named in the answer.
    pub attempt: AttemptId,
    /// Which payment; the idempotency key.
    pub payment_id: PaymentId,
    /// What to ask.
    pub operation: Operation,
    /// The ledger entry that holds the signed request.
    pub request_sequence: u64,
    /// The device that made the request.
    pub device: DeviceId,
    /// When the decision was made, milliseconds since 1970 UTC.
    pub decided_ms: u64,
    /// Counts the attempts of this process from 1: those that ask for a
    /// reversal, or all that do not.
    pub number: u32,
    /// Counts the presentations to the issuer, from 1. Above 1 the gateway
    /// itself declined the one before and the scheme allows another; the
    /// sealed card is destroyed by then. A look-up with it asks for this
    /// presentation: a decline of an earlier one is "not found".
    pub presentation: u32,
    /// Whether the payment may have reached the gateway before, or its reversal
    /// if this asks for one: by an attempt of this process or an earlier one.
    pub maybe_sent: bool,
    /// How an acquirer knows it.
    pub traces: TraceRule,
    /// How long to wait for the answer, in milliseconds.
    pub deadline_ms: u64,
}

/// An answer, not yet signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The decision.
    Receipt(Box<Receipt>),
    /// Where the payment stands, and the decision if there is one.
    Status {
        /// Where it stands.
        status: Box<PaymentStatus>,
        /// The decision.
        receipt: Option<Box<Receipt>>,
    },
    /// The device's description is known.
    Described {
        /// Whether the attestation result beside it counts.
        attested: bool,
    },
    /// What the device may approve by itself; still to be signed.
    Allowance {
        /// The allowance.
        allowance: Box<Allowance>,
        /// How far its receipts are known.
        chain: AllowanceChain,
    },
    /// The decision on a payment that the device approved.
    Synced(Box<Receipt>),
    /// The allowance of this number is closed.
    Returned {
        /// Which.
        number: u64,
    },
    /// The new keys are the device's.
    KeysChanged {
        /// The number of the change.
        number: u32,
    },
    /// The device is enrolled.
    Registered(Box<Registration>),
    /// The policy with this version is in force.
    PolicyActive {
        /// Its version.
        version: u64,
    },
    /// To an operator.
    Operator(OperatorReply),
    /// A numbered error.
    Refused(Refusal),
}

/// An answer to an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorReply {
    /// Done, and written down.
    Done,
    /// What waits to be sent.
    Queue {
        /// The items, oldest first, up to the limit asked for.
        items: Vec<QueueItem>,
        /// How many there are in all.
        total: usize,
        /// How many of them are parked.
        parked: usize,
    },
    /// What devices have said of themselves, those that have.
    Described(Vec<(DeviceId, Described)>),
    /// The tokens that are outstanding, and the list in force.
    Fleet {
        /// Not expired and not withdrawn, oldest first; used up ones too.
        tokens: Vec<FleetToken>,
        /// The list, if one was taken.
        list: Option<ListMark>,
        /// How many of its changes are left to make, because it was cut off;
        /// 0 once it is carried out.
        list_left: u32,
    },
    /// Who each device is, by device.
    Standings(Vec<Standing>),
    /// A list was taken.
    ListTaken(ListChanges),
    /// How the hub stands.
    Overview(Box<Overview>),
    /// A root is in force.
    RootInForce(RootStanding),
    /// The root in force, if there is one.
    Root(Option<Box<Root>>),
    /// No, and why.
    Refused(String),
}

/// Something that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueItem {
    /// Which payment.
    pub payment_id: PaymentId,
    /// Where it stands: queued, parked, reversal queued or reversal parked.
    pub state: PaymentState,
    /// What would be asked of the gateway.
    pub operation: Operation,
    /// In minor units.
    pub amount_minor: u64,
    /// ISO 4217.
    pub currency: Currency,
    /// Which device.
    pub device: DeviceId,
    /// When it was decided, milliseconds since 1970 UTC.
    pub decided_ms: u64,
    /// How often it has been tried since the hub started.
    pub attempts: u32,
    /// What came of the last try, if there was one.
    pub last_error: Option<String>,
    /// Why it is parked, if it is.
    pub parked: Option<ParkReason>,
    /// Milliseconds until the next try; `None` while one is under way or the
    /// item is parked.
    pub next_try_ms: Option<u64>,
}

/// The root in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootStanding {
    /// Its version.
    pub version: u32,
    /// SHA-256 over its content, without signatures.
    pub digest: Digest,
    /// Nothing that it delegates counts from here on, milliseconds since 1970
    /// UTC.
    pub expires_ms: u64,
    /// Why it does not let the policy in force count, if it does not.
    pub policy_objection: Option<String>,
}

/// How the hub stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// How it stands to the gateway.
    pub wan: WanState,
    /// Why.
    pub wan_reason: WanReason,
    /// The policy in force; 0 for none.
    pub policy_version: u64,
    /// When the policy ends, or the root or the delegation that it hangs on,
    /// if that is earlier; milliseconds since 1970 UTC.
    pub policy_expires_ms: Option<u64>,
    /// The root in force, if there is one.
    pub root: Option<RootStanding>,
    /// A root was in force and cannot be read.
    pub root_unreadable: bool,
    /// Entries in the ledger.
    pub sequence: u64,
    /// Payments waiting to be sent.
    pub queued: usize,
    /// Payments and reversals parked.
    pub parked: usize,
    /// Reversals waiting to be sent.
    pub reversals_queued: usize,
    /// The store's exposure, with what is kept back for allowances, in minor
    /// units.
    pub exposure_minor: u64,
    /// The store's consecutive offline approvals, counted likewise.
    pub consecutive: u32,
    /// Age of the oldest unsent payment, in seconds.
    pub oldest_unsent_seconds: Option<u64>,
    /// Whether the clock is in doubt.
    pub clock_suspect: bool,
    /// The time that the ledger goes by, milliseconds since 1970 UTC.
    pub time_ms: u64,
    /// Enrolled devices.
    pub devices: usize,
    /// How much room the disk has.
    pub storage: StorageLevel,
    /// How far the ledger is archived.
    pub archives: ArchiveMarks,
    /// The share of the signed ceilings that holds in the store by moving
    /// limits, percent.
    pub ceilings_percent: u64,
    /// Where offline approvals are restricted, or points have come together;
    /// the store first.
    pub restricted: Vec<Restricted>,
    /// What devices may approve by themselves, by device.
    pub allowances: Vec<OpenAllowance>,
}
