//! The narrow way from the edges to the hub.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use hub_core::policy::Policy;
use hub_core::state::Head;
use hub_core::{ArchiveChange, AttemptId, GatewayAnswer, Joining, OperatorCommand, Probe, Reply};
use hub_protocol::entry::StorageLevel;
use hub_protocol::{
    AllowanceReturn, CommittedGroup, DeviceDescription, DeviceId, DeviceKeyChange, DeviceReceipt, KeyId,
    PaymentId, PaymentRequest, Refusal, RefusalCode, Registration, SealedCard, VoidRequest,
};
use tokio::sync::{mpsc, oneshot};

/// How many messages may wait for the hub. Above it, askers are told
/// [`RefusalCode::Busy`].
pub const QUEUE: usize = 4096;

/// What an edge asks of the hub and waits for.
#[derive(Debug)]
pub enum Ask {
    /// A payment; signature and ranges have been checked.
    Pay {
        /// The device.
        device: DeviceId,
        /// The request.
        request: Box<PaymentRequest>,
        /// The signed request as received.
        signed: Vec<u8>,
        /// The sealed card beside it.
        sealed_card: SealedCard,
    },
    /// The voiding of a payment; signature checked.
    Void {
        /// The device.
        device: DeviceId,
        /// The request.
        request: VoidRequest,
        /// The signed request as received.
        signed: Vec<u8>,
    },
    /// Where does a payment stand?
    Status {
        /// The device.
        device: DeviceId,
        /// Which payment.
        payment_id: PaymentId,
    },
    /// A device says what it is; its signature checked.
    Describe {
        /// The device.
        device: DeviceId,
        /// What it says.
        description: Box<DeviceDescription>,
        /// The same, signed, as received.
        signed: Vec<u8>,
        /// A verifier's word on it, not checked yet.
        attestation: Option<Vec<u8>>,
    },
    /// A device wants other keys; the signatures of its statement are checked.
    ChangeDeviceKeys {
        /// The device of the connection.
        device: DeviceId,
        /// What it states.
        change: Box<DeviceKeyChange>,
        /// The same, signed, as received.
        signed: Vec<u8>,
    },
    /// A device wants an allowance.
    Allowance {
        /// The device.
        device: DeviceId,
        /// The highest number of those that it has closed.
        closed: Option<u64>,
    },
    /// A payment that a device approved; signatures and ranges have been
    /// checked, and that the receipt is for it.
    Sync {
        /// The device.
        device: DeviceId,
        /// The request.
        request: Box<PaymentRequest>,
        /// The signed request as received.
        signed: Vec<u8>,
        /// The sealed card beside it.
        sealed_card: SealedCard,
        /// The device's own receipt.
        receipt: Box<DeviceReceipt>,
        /// The same, signed, as received.
        signed_receipt: Vec<u8>,
    },
    /// A payment that a device approved and that cannot be taken; the
    /// receipt's signature has been checked.
    SyncRefused {
        /// The device.
        device: DeviceId,
        /// The device's own receipt.
        receipt: Box<DeviceReceipt>,
        /// The same, signed, as received.
        signed_receipt: Vec<u8>,
        /// What is wrong with the payment.
        refusal: Refusal,
    },
    /// A device closes its allowance; signature checked.
    Return {
        /// The device.
        device: DeviceId,
        /// How far it came.
        statement: AllowanceReturn,
        /// The same, signed, as received.
        signed: Vec<u8>,
    },
    /// Enrol a device whose code was good.
    Enrol {
        /// The device.
        registration: Box<Registration>,
    },
    /// Enrol a device by a token that is more than a code of its own.
    Join {
        /// The device.
        registration: Box<Registration>,
        /// By what.
        joining: Joining,
    },
    /// Activate a policy whose signature was checked.
    Activate {
        /// The policy.
        policy: Box<Policy>,
        /// As received.
        signed: Vec<u8>,
        /// Who signed it.
        key: KeyId,
    },
    /// Write down what is done with an archive.
    Archive(ArchiveChange),
    /// Sign with another key from now on.
    ChangeHubKey {
        /// Who wants it.
        operator: String,
        /// The new key.
        next: SigningKey,
    },
    /// A person asks.
    Operator {
        /// Who.
        operator: String,
        /// What.
        command: OperatorCommand,
    },
}

/// What an edge tells the hub without waiting.
#[derive(Debug)]
pub enum Tell {
    /// One of [`Marks`](crate::hub::Marks) has moved.
    Wake,
    /// The gateway answered, or did not.
    Gateway {
        /// Which attempt.
        attempt: AttemptId,
        /// What came of it.
        answer: GatewayAnswer,
        /// How long it took.
        latency_ms: u64,
    },
    /// The gateway asks that first contact after an outage be spread.
    SpreadAsked {
        /// Over this window, in milliseconds.
        window_ms: u64,
    },
    /// A probe came back.
    Probe(Probe),
    /// A request over a device's connection was not signed by the device.
    BadSignature {
        /// Which device.
        device: DeviceId,
    },
    /// One device's requests come in turns over connections from different
    /// addresses.
    TwoPlaces {
        /// Which device.
        device: DeviceId,
        /// How often it went back to an address that it had left.
        returns: u32,
    },
    /// A device has connected with its present TLS key, or somebody with one
    /// that it had before.
    KeysUsed {
        /// Which device.
        device: DeviceId,
        /// Whether it is one from before.
        old: bool,
    },
    /// A request of a device held a clear card number, and was refused.
    CardNumber {
        /// Which device.
        device: DeviceId,
    },
    /// The room on the disk changed.
    Storage {
        /// How much there is.
        level: StorageLevel,
        /// What the file system has free, in bytes.
        free_bytes: u64,
    },
    /// Stop accepting, finish, and end.
    Stop,
}

/// A reply, and what shows that the entry of its receipt is on disk.
#[derive(Debug)]
pub struct Answered {
    /// The reply.
    pub reply: Reply,
    /// The proof of the receipt in it, if there is one.
    pub proof: Option<Proof>,
}

impl From<Reply> for Answered {
    fn from(reply: Reply) -> Self {
        Self { reply, proof: None }
    }
}

/// What a receipt rests on. There is none before the flush.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The group that was flushed with the receipt's entry.
    Group(Arc<CommittedGroup>),
    /// The ledger's durable end, beyond an entry flushed earlier.
    Earlier(Head),
}

/// A message to the hub.
#[derive(Debug)]
pub enum Message {
    /// Wants a reply.
    Ask(Box<Ask>, oneshot::Sender<Answered>),
    /// Wants none.
    Tell(Tell),
}

/// Handed to each edge.
#[derive(Clone, Debug)]
pub struct HubPort {
    sender: mpsc::Sender<Message>,
}

impl HubPort {
    /// A port and the end that the hub reads.
    pub fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { sender }, receiver)
    }

    /// Asks and waits for what needs no proof. A full queue refuses at once,
    /// so that overload shows at the device and not as a growing delay.
    pub async fn ask(&self, ask: Ask) -> Result<Reply, Refusal> {
        Ok(self.ask_for_proof(ask).await?.reply)
    }

    /// [`ask`](Self::ask), for a reply that may hold a receipt.
    pub async fn ask_for_proof(&self, ask: Ask) -> Result<Answered, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.sender
            .try_send(Message::Ask(Box::new(ask), sender))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Refusal::new(
                    RefusalCode::Busy,
                    "the hub has more to do than it can take; try again in a second",
                ),
                mpsc::error::TrySendError::Closed(_) => stopping(),
            })?;
        receiver.await.map_err(|_| stopping())
    }

    /// Tells, waiting for room if need be. Returns false once the hub is gone.
    pub async fn tell(&self, tell: Tell) -> bool {
        self.sender.send(Message::Tell(tell)).await.is_ok()
    }

    /// Tells what may be lost while the hub has more to do. Never waits.
    pub fn hint(&self, tell: Tell) {
        let _ = self.sender.try_send(Message::Tell(tell));
    }

    /// Wakes the hub, if it is not awake anyway. Never waits.
    pub fn wake(&self) {
        // A full queue means that the hub is awake.
        let _ = self.sender.try_send(Message::Tell(Tell::Wake));
    }
}

fn stopping() -> Refusal {
    Refusal::new(RefusalCode::Stopping, "the hub is stopping; try again shortly")
}
