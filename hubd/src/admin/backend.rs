//! What the composition does for an operator.

use std::fmt;
use std::future::Future;

use hub_core::Disclosed;
use hub_protocol::entry::Finding;
use hub_protocol::{DeviceClass, DeviceId, Digest, PaymentId};

use super::protocol::{
    DeviceReport, EnrolReport, ErrorCode, FleetOrder, FleetReport, KeyReport, ListReport, PolicyReport,
    QueueReport, RootReport, RotationReport, StatusReport, TlsStep,
};

/// Who asks, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// The user id of the process at the other end of the socket.
    pub uid: u32,
}

impl fmt::Display for Operator {
    /// As it stands in the ledger.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)
    }
}

/// What kind of enrolment code is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrolOrder {
    /// For one device of this class.
    One(DeviceClass),
    /// For several devices of this class, how many and for how many seconds.
    Fleet(DeviceClass, FleetOrder),
    /// For one device in another's place.
    Replacing {
        /// The other's class, which is its own.
        class: DeviceClass,
        /// The other.
        device: DeviceId,
        /// Whether that is lost.
        lost: bool,
    },
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// What kind of refusal.
    pub code: ErrorCode,
    /// What is wrong and what to do.
    pub message: String,
}

impl Refused {
    /// The hub says no.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Refused,
            message: message.into(),
        }
    }

    /// The hub is stopping or cannot answer now.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            code: ErrorCode::Unavailable,
            message: message.into(),
        }
    }
}

/// The hub as operators see it. Every method that changes something takes
/// the operator, because the ledger names him.
pub trait Backend: Send + Sync + 'static {
    /// How the hub stands.
    fn status(&self) -> impl Future<Output = Result<StatusReport, Refused>> + Send;

    /// Every enrolled device, and those that were only seen on the network.
    fn devices(&self) -> impl Future<Output = Result<Vec<DeviceReport>, Refused>> + Send;

    /// Makes an enrolment code, and opens the enrolment endpoint.
    fn enrol(
        &self,
        operator: Operator,
        order: EnrolOrder,
    ) -> impl Future<Output = Result<EnrolReport, Refused>> + Send;

    /// The tokens for several devices, and headquarters' list.
    fn fleet(&self) -> impl Future<Output = Result<FleetReport, Refused>> + Send;

    /// Withdraws a token for several devices, named by SHA-256 over it.
    fn withdraw(&self, operator: Operator, token: Digest)
    -> impl Future<Output = Result<(), Refused>> + Send;

    /// Checks headquarters' signed list of devices against the trusted keys
    /// and takes it.
    fn take_list(
        &self,
        operator: Operator,
        signed: Vec<u8>,
    ) -> impl Future<Output = Result<ListReport, Refused>> + Send;

    /// Approves a device that is pending.
    fn approve(
        &self,
        operator: Operator,
        device: DeviceId,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Blocks a device: its connections end and it cannot come back.
    fn block(&self, operator: Operator, device: DeviceId)
    -> impl Future<Output = Result<(), Refused>> + Send;

    /// Takes a device's block away.
    fn unblock(
        &self,
        operator: Operator,
        device: DeviceId,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// What waits to be sent, oldest first, at most `limit` items (1 to
    /// [`MAX_QUEUE_LIMIT`](super::protocol::MAX_QUEUE_LIMIT)); or of that only
    /// what is parked.
    fn queue(
        &self,
        limit: usize,
        parked_only: bool,
    ) -> impl Future<Output = Result<QueueReport, Refused>> + Send;

    /// Tries to send the queue now, whatever the backoff says. Returns at
    /// once; progress shows in [`Backend::queue`].
    fn drain(&self, operator: Operator) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Puts a parked payment back into the queue; `not_there`: the gateway was
    /// asked by a person and does not have it.
    fn release(
        &self,
        operator: Operator,
        payment: PaymentId,
        not_there: bool,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Ends a parked payment by what a person found out elsewhere, and from
    /// whom.
    fn close(
        &self,
        operator: Operator,
        payment: PaymentId,
        finding: Finding,
        note: String,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Parks what waits to be sent.
    fn park(
        &self,
        operator: Operator,
        payment: PaymentId,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Keeps nothing back any more for the allowance of a device that is lost.
    fn lost(&self, operator: Operator, device: DeviceId) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Ends what anomalies have led to at a device, or in the store.
    fn lift(
        &self,
        operator: Operator,
        device: Option<DeviceId>,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Trusts a clock in doubt again, if its time agrees with what a person
    /// says (milliseconds since 1970 UTC).
    fn confirm_clock(
        &self,
        operator: Operator,
        told_ms: u64,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Writes down that an archive was copied away; `digest` is SHA-256 of the
    /// copy as it was read back.
    fn archive_exported(
        &self,
        operator: Operator,
        number: u32,
        digest: Digest,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Writes down that keys of entries are given to somebody.
    fn disclosed(
        &self,
        operator: Operator,
        disclosed: Disclosed,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Removes the compressed files of archives that were copied away, up to
    /// this one.
    fn remove_archives(
        &self,
        operator: Operator,
        through: u32,
    ) -> impl Future<Output = Result<(), Refused>> + Send;

    /// Every key that the hub has or trusts.
    fn keys(&self) -> impl Future<Output = Result<Vec<KeyReport>, Refused>> + Send;

    /// Has the store's data key wrapped under another vault key, and destroys
    /// the old one once the ledger tells of it.
    fn rotate_vault_key(
        &self,
        operator: Operator,
    ) -> impl Future<Output = Result<Vec<KeyReport>, Refused>> + Send;

    /// Has the hub sign with another key, and destroys the old one once the
    /// ledger tells of it. Unless it is `confirmed`, nothing is done if that
    /// leaves devices behind.
    fn rotate_signing_key(
        &self,
        operator: Operator,
        confirmed: bool,
    ) -> impl Future<Output = Result<RotationReport, Refused>> + Send;

    /// Has the hub be reached under another TLS key. Unless it is
    /// `confirmed`, nothing is done if that leaves devices behind.
    fn rotate_tls_key(
        &self,
        operator: Operator,
        step: TlsStep,
        confirmed: bool,
    ) -> impl Future<Output = Result<RotationReport, Refused>> + Send;

    /// Puts a signed root in force that follows the one in force.
    fn apply_root(
        &self,
        operator: Operator,
        signed: Vec<u8>,
    ) -> impl Future<Output = Result<RootReport, Refused>> + Send;

    /// Checks a signed policy against the trusted keys, puts it in force and
    /// keeps it for the next start.
    fn install_policy(
        &self,
        operator: Operator,
        signed: Vec<u8>,
    ) -> impl Future<Output = Result<PolicyReport, Refused>> + Send;
}
