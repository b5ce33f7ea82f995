//! What the hub says unasked.

use std::sync::Arc;

use hub_protocol::frame::{self, MAX_FRAME};
use hub_protocol::{PaymentStatus, Push};
use quinn::Connection;
use tokio::sync::broadcast;

use crate::enrolment::Enrolled;
use crate::error::VerifyError;
use crate::verify::Verifier;

/// How many pushes are kept for a listener that lags behind.
pub(crate) const PUSHES: usize = 64;

/// What the hub said unasked; signatures have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushEvent {
    /// A payment of this device moved on.
    Status(PaymentStatus),
    /// The policy with this version is in force.
    Policy(u64),
    /// The hub signs with another key; counts its changes from 1.
    HubKey(u32),
    /// The hub is reached under other TLS keys; counts the statements of them
    /// from 1.
    HubTlsKeys(u32),
}

/// One frame a unidirectional stream that the hub opens. What does not verify
/// is dropped: a push decides nothing.
pub(crate) async fn read_pushes(
    connection: Connection,
    verifier: Arc<Verifier>,
    enrolled: Enrolled,
    pushes: broadcast::Sender<PushEvent>,
    missed_keys: impl Fn() + Send,
) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let Ok(bytes) = stream.read_to_end(4 + MAX_FRAME).await else {
            continue;
        };
        let event = match frame::from_wire(&bytes) {
            Ok(Push::Status { status }) => verifier
                .status(status, None)
                .map(|verified| PushEvent::Status(verified.status)),
            Ok(Push::Policy { version }) => Ok(PushEvent::Policy(version)),
            // One that does not follow what is known: others were missed.
            Ok(Push::KeyChanged { change }) => enrolled
                .learn(&[change])
                .inspect_err(|_| missed_keys())
                .map(|_| PushEvent::HubKey(verifier.keys.chain().changes())),
            // Signed by a key that is not known yet: that is asked for, and the
            // next certificate says the same.
            Ok(Push::TlsKeys { keys }) => enrolled
                .learn_tls(&keys)
                .inspect_err(|_| missed_keys())
                .and_then(|_| Ok(PushEvent::HubTlsKeys(enrolled.hub_keys()?.tls().number()))),
            Err(refusal) => Err(VerifyError::Frame(refusal.code)),
        };
        match event {
            // Nobody listens: fine.
            Ok(event) => _ = pushes.send(event),
            Err(error) => tracing::warn!(%error, "a push from the hub was dropped"),
        }
    }
}
