//! What goes into the core.

use hub_protocol::entry::{Finding, StorageLevel};
use hub_protocol::{
    AllowanceReturn, DeviceClass, DeviceDescription, DeviceId, DeviceKeyChange, DeviceReceipt, Digest,
    GatewayResult, KeyId, MerchantAdvice, PaymentId, PaymentRequest, Refusal, Registration, SealedCard,
    SignedKeyChange, VoidRequest,
};

use crate::fleet::{Joining, ListToTake};
use crate::policy::Policy;
use crate::state::{CardKey, CardRecord, Lane, Recalled};

/// The time at which an input is handled. Both clocks are arguments; the core
/// never reads one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, milliseconds since 1970 UTC.
    pub wall_ms: u64,
    /// Monotonic clock, milliseconds since an arbitrary point of this boot.
    pub monotonic_ms: u64,
}

/// Stands for somebody who waits for a reply. Made by the shell, unique for
/// the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One attempt at sending something to the gateway. Made by the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(pub u64);

/// Everything that can happen to a hub. Signatures have been checked before
/// an input is made; ranges too ([`PaymentRequest::check`],
/// [`SealedCard::check`]).
#[derive(Clone, Debug)]
pub enum Input {
    /// A device asks for a payment.
    Pay {
        /// Who waits.
        ticket: Ticket,
        /// The device whose key the connection and the signature have.
        device: DeviceId,
        /// The request.
        request: Box<PaymentRequest>,
        /// The signed request as received.
        signed: Vec<u8>,
        /// The sealed card beside it.
        sealed_card: SealedCard,
        /// What the index holds under this payment id, if the core does not
        /// know it any more ([`Core::knows`](crate::Core::knows)).
        recalled: Option<Box<Recalled>>,
    },
    /// A device asks to void a payment.
    Void {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// The request.
        request: VoidRequest,
        /// The signed request as received.
        signed: Vec<u8>,
        /// As with `Pay`.
        recalled: Option<Box<Recalled>>,
    },
    /// A device asks for an allowance.
    Allowance {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// The highest number of an allowance that it has closed, as it says.
        closed: Option<u64>,
    },
    /// A device tells of a payment that it approved under its allowance.
    Sync {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// The request.
        request: Box<PaymentRequest>,
        /// The signed request as received.
        signed: Vec<u8>,
        /// The sealed card beside it.
        sealed_card: SealedCard,
        /// The device's own receipt, for this request
        /// ([`DeviceReceipt::check`]).
        receipt: Box<DeviceReceipt>,
        /// The same, signed, as received.
        signed_receipt: Vec<u8>,
        /// As with `Pay`; the card has to be known too.
        recalled: Option<Box<Recalled>>,
    },
    /// A device tells of a payment that it approved under its allowance, and
    /// the payment cannot be taken for good.
    SyncRefused {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// The device's own receipt.
        receipt: Box<DeviceReceipt>,
        /// The same, signed, as received.
        signed_receipt: Vec<u8>,
        /// What is wrong with the payment.
        refusal: Refusal,
    },
    /// A device closes its allowance.
    Return {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// How far it came.
        statement: AllowanceReturn,
        /// The same, signed, as received.
        signed: Vec<u8>,
    },
    /// A device asks where a payment stands.
    Status {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// Which payment.
        payment_id: PaymentId,
        /// As with `Pay`.
        recalled: Option<Box<Recalled>>,
    },
    /// A device says what it is.
    Describe {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        device: DeviceId,
        /// What it says.
        description: Box<DeviceDescription>,
        /// The same, signed, as received.
        signed: Vec<u8>,
        /// A verifier's signed word on it, as received; not checked yet.
        attestation: Option<Vec<u8>>,
    },
    /// A device presented a good enrolment code.
    Enrol {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        registration: Box<Registration>,
    },
    /// A device presented a good token that is more than a code of its own.
    Join {
        /// Who waits.
        ticket: Ticket,
        /// The device.
        registration: Box<Registration>,
        /// By what.
        joining: Joining,
    },
    /// One device's requests come in turns over connections from different
    /// addresses.
    TwoPlaces {
        /// Whose.
        device: DeviceId,
        /// How often it went back to an address that it had left.
        returns: u32,
    },
    /// A device wants other keys; the signatures of its statement are checked.
    ChangeDeviceKeys {
        /// Who waits.
        ticket: Ticket,
        /// The device of the connection.
        device: DeviceId,
        /// What it states.
        change: Box<DeviceKeyChange>,
        /// The same, signed, as received.
        signed: Vec<u8>,
    },
    /// A device has connected with its present TLS key, or somebody with one
    /// that it had before.
    DeviceKeysUsed {
        /// Whose.
        device: DeviceId,
        /// Whether it is one from before.
        old: bool,
    },
    /// A policy whose signature has been checked is to be activated.
    Activate {
        /// Who waits, if anybody does.
        ticket: Option<Ticket>,
        /// The policy.
        policy: Box<Policy>,
        /// The signed policy as received.
        signed: Vec<u8>,
        /// The key that signed it.
        key: KeyId,
    },
    /// The hub is to sign with another key. Both keys' signatures are checked
    /// here, and that the statement is for the next entry.
    ChangeHubKey {
        /// Who waits.
        ticket: Ticket,
        /// The signed [`HubKeyChange`](hub_protocol::HubKeyChange).
        statement: SignedKeyChange,
        /// Who wants it.
        operator: String,
    },
    /// Something was done with an archive of the ledger, or is about to be.
    Archive {
        /// Who waits.
        ticket: Ticket,
        /// What.
        change: ArchiveChange,
    },
    /// A person asks something of the hub.
    Operator {
        /// Who waits.
        ticket: Ticket,
        /// Who asks.
        operator: String,
        /// What.
        command: OperatorCommand,
    },
    /// What the index holds of payments and cards that are not in memory
    /// ([`Core::knows`](crate::Core::knows),
    /// [`Core::knows_card`](crate::Core::knows_card)). Comes before the input
    /// that is about them: before `Pay` the card if it is not known, before
    /// an operator's release the payment. What is in memory stays as it is.
    Recalled {
        /// The payments, each with its card.
        payments: Vec<Recalled>,
        /// Cards; the default record for one that the index does not hold.
        cards: Vec<(CardKey, CardRecord)>,
    },
    /// What [`Effect::LoadQueue`](crate::Effect::LoadQueue) asked for.
    QueueLoaded {
        /// The lane that was asked for.
        lane: Lane,
        /// Places and payments, ascending by place, the first ones after the
        /// place that was asked for. Those that the core knows already may be
        /// older than what it knows.
        found: Vec<(u64, Recalled)>,
        /// Whether the index holds nothing of the lane behind them.
        end: bool,
    },
    /// All entries up to this one are on disk.
    Appended {
        /// The sequence of the newest durable entry.
        sequence: u64,
    },
    /// The gateway answered an attempt, or did not.
    Gateway {
        /// Which attempt.
        attempt: AttemptId,
        /// The answer.
        answer: GatewayAnswer,
        /// How long it took.
        latency_ms: u64,
    },
    /// The probe came back.
    Probe(Probe),
    /// The gateway asks stores to spread their first contact after an outage
    /// over a window. Holds until it says otherwise. Comes before the probe
    /// or answer with which the gateway said so.
    SpreadAsked {
        /// The window, in milliseconds; 0 for none.
        window_ms: u64,
    },
    /// A request came over a device's connection with a signature that is not
    /// the device's. It was refused; the hub only takes note.
    BadSignature {
        /// Whose connection.
        device: DeviceId,
    },
    /// A request of a device held a clear card number. It was refused, and
    /// nothing of it is kept; the hub only takes note that there was one.
    CardNumber {
        /// Which device.
        device: DeviceId,
    },
    /// How much room the disk has. Told at the start and at every change.
    Storage {
        /// How much.
        level: StorageLevel,
        /// What the file system has free, in bytes.
        free_bytes: u64,
    },
    /// Time has passed.
    Tick,
    /// The hub is told to stop: nothing new is accepted.
    Stop,
}

/// What the ledger is told of its archives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArchiveChange {
    /// Entries are about to be archived. No payment requested in them is voided
    /// from now on, so that what is archived of it stays true. Answered when
    /// all entries so far are on disk; makes none itself.
    Begun {
        /// The last of them.
        last: u64,
    },
    /// They are not archived after all. Makes no entry.
    GivenUp,
    /// An archive is durable: one that was begun, or that was there when the
    /// hub started. The payments in it are changed no more.
    Written {
        /// Its number: the next one.
        number: u32,
        /// The last entry in it.
        last: u64,
        /// SHA-256 over the compressed file.
        digest: Digest,
    },
    /// A person copied it away.
    Exported {
        /// Its number.
        number: u32,
        /// SHA-256 over the copy.
        digest: Digest,
        /// Who.
        operator: String,
    },
    /// It is going to be removed from the disk. Only what was copied away, and
    /// in order.
    Removed {
        /// Its number: the next one.
        number: u32,
        /// SHA-256 over the compressed file.
        digest: Digest,
        /// Who wants it, if it is a person.
        operator: Option<String>,
    },
}

/// The longest note on why a payment was closed, in bytes.
pub const MAX_NOTE: usize = 200;

/// Keys of single entries that were given to somebody, each of which opens its
/// own entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disclosed {
    /// How many entries.
    pub entries: u64,
    /// The first of them.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// Only those of these payments; empty: of all kinds.
    pub payments: Vec<PaymentId>,
}

/// How many payments [`Disclosed`] names in the ledger.
const MOST_NAMED: usize = 8;

impl Disclosed {
    /// What the ledger says of it.
    pub fn action(&self) -> String {
        let Self {
            entries,
            first,
            last,
            payments,
        } = self;
        let mut text = format!("ledger disclose: the keys of {entries} entries, {first} to {last}");
        if !payments.is_empty() {
            let named: Vec<String> = payments
                .iter()
                .take(MOST_NAMED)
                .map(ToString::to_string)
                .collect();
            text += &format!(", of the payments {}", named.join(", "));
        }
        if let Some(more) = payments.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
            text += &format!(" and {more} more");
        }
        text
    }
}

/// What a person can ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorCommand {
    /// Block a device.
    Block(DeviceId),
    /// Unblock a device.
    Unblock(DeviceId),
    /// Make a token by which several devices may enrol.
    MakeFleetToken {
        /// SHA-256 over the token.
        token: Digest,
        /// What kind of devices.
        class: DeviceClass,
        /// How many, 1 to [`MAX_FLEET_SIZE`](crate::MAX_FLEET_SIZE).
        most: u32,
        /// For how long, in milliseconds: a minute to
        /// [`MAX_FLEET_MS`](crate::MAX_FLEET_MS).
        valid_ms: u64,
    },
    /// Withdraw such a token.
    WithdrawFleetToken(Digest),
    /// Approve a device that is pending.
    Approve(DeviceId),
    /// Take headquarters' list of devices.
    TakeList(Box<ListToTake>),
    /// Which tokens are outstanding, and which list is in force?
    Fleet,
    /// Who is each device?
    Standings,
    /// What have devices said of themselves?
    Described,
    /// Try to send the queue now, whatever the backoff says.
    Drain,
    /// Put a parked payment back into the queue.
    Release {
        /// Which.
        payment_id: PaymentId,
        /// The gateway does not have it, by the word of somebody who was
        /// asked there: it counts as never sent.
        not_there: bool,
    },
    /// End a parked payment by what was found out elsewhere.
    Close {
        /// Which.
        payment_id: PaymentId,
        /// What was found out.
        finding: Finding,
        /// From whom, 1 to [`MAX_NOTE`] bytes.
        note: String,
    },
    /// Keep back a payment, or its reversal, that waits to be sent: park it.
    Park(PaymentId),
    /// Write down that keys of entries were given to somebody.
    Disclosed(Disclosed),
    /// Write down what somebody did while the hub did not run.
    Noted(String),
    /// Nothing is kept back any more for the allowance of a device that is
    /// lost, and cannot return it.
    ForfeitAllowance(DeviceId),
    /// End what anomalies have led to, at a device or (`None`) in the store;
    /// at a device, what a misused allowance has led to as well.
    Lift(Option<DeviceId>),
    /// Say what time it is, so that a clock in doubt is trusted again.
    ConfirmClock {
        /// By the person's own watch, milliseconds since 1970 UTC.
        told_ms: u64,
    },
    /// Put the next root in force.
    ApplyRoot {
        /// The signed root as received.
        signed: Vec<u8>,
    },
    /// Write down that the store's key is wrapped under another vault key.
    ChangeVaultKey {
        /// The new key's id.
        key: [u8; 8],
        /// The old one's.
        old_key: [u8; 8],
    },
    /// Which root is in force?
    Root,
    /// Be reached under other TLS keys.
    ChangeTlsKey(TlsKeyChange),
    /// List what waits to be sent, at most this many.
    Queue {
        /// The most items to list.
        limit: usize,
        /// Only what is parked.
        parked_only: bool,
    },
    /// How does the hub stand?
    Overview,
}

/// What becomes of the hub's TLS key. Keys are named by SHA-256 over their
/// SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsKeyChange {
    /// Be reached under this key too.
    Add(Digest),
    /// Be reached under the added key only.
    Finish,
    /// Be reached under the key only to which another was added.
    Abandon,
}

/// What came of one attempt at the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAnswer {
    /// The final answer: approved or declined (of a reversal: confirmed).
    Final(GatewayResult),
    /// The same of a decline with which the issuer advises what to do next.
    Advised {
        /// The final answer.
        result: GatewayResult,
        /// The advice, which the policy may heed.
        advice: MerchantAdvice,
    },
    /// The gateway has it and does not know yet; ask again under the same id.
    Pending {
        /// When to ask again, if the gateway says so.
        retry_after_ms: Option<u64>,
    },
    /// The id was used with other content.
    Conflict {
        /// The gateway's words.
        detail: String,
    },
    /// Too many requests.
    Throttled {
        /// When to come again, if the gateway says so.
        retry_after_ms: Option<u64>,
    },
    /// The gateway refuses the message itself; the same bytes never pass.
    RefusesMessage {
        /// The gateway's words.
        detail: String,
    },
    /// The gateway refuses the hub's credentials.
    RefusesHub {
        /// The gateway's words.
        detail: String,
    },
    /// The gateway answered that it is out of order (5xx).
    Broken {
        /// When to come again, if the gateway says so.
        retry_after_ms: Option<u64>,
        /// What it said.
        detail: String,
    },
    /// No answer: not reached, timed out or cut off. The gateway may have
    /// taken the payment.
    NoAnswer {
        /// What happened.
        detail: String,
    },
    /// The sealed card could not be read from the vault; nothing was sent.
    CardMissing,
    /// The hub cannot make a message of it, now or ever: the protocol has none
    /// or the stored request cannot be read. Nothing was sent, and the gateway
    /// knows nothing of it.
    Unsendable {
        /// Why, and what a person can do.
        detail: String,
    },
    /// To a look-up: the gateway has no payment under this merchant
    /// reference. Only if it said so in so many words; anything else that
    /// looks like it is [`NoAnswer`](Self::NoAnswer).
    NotFound,
    /// Nothing was sent, for want of a free connection: the hub's own bound,
    /// which says nothing about the gateway.
    NotSent {
        /// What was lacking.
        detail: String,
    },
}

impl GatewayAnswer {
    /// A final answer of whichever kind as [`Final`](Self::Final), and what was
    /// advised with it.
    pub(crate) fn split_advice(self) -> (Self, Option<MerchantAdvice>) {
        match self {
            Self::Advised { result, advice } => (Self::Final(result), Some(advice)),
            other => (other, None),
        }
    }
}

/// What came of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Whether the gateway answered in time.
    pub ok: bool,
    /// How long it took.
    pub latency_ms: u64,
    /// The gateway's time, if it gave one: milliseconds since 1970 UTC.
    pub gateway_time_ms: Option<u64>,
}
