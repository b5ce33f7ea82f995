//! What all sessions of the hub share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub_core::admission::Access;
use hub_core::{Joining, Reply};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::WanState;
use hub_protocol::frame::HubInfo;
use hub_protocol::{
    ALPN_1, ALPN_2, ALPN_3, ALPN_4, ALPN_5, Answer, CommittedReceipt, HubId, MOST_KEY_CHANGES, Push, Receipt,
    Refusal, RefusalCode, cbor,
};
use quinn::Connection;
use quinn::crypto::rustls::HandshakeData;
use tokio::sync::watch;

use super::bounds::{Counts, Lines};
use super::hub_tls::HubTls;
use super::pace::Pace;
use super::places::Places;
use super::quic_frames::QuicFrames;
use super::registry::Registry;
use super::sessions::{Outgoing, Sessions};
use super::signatures::Signatures;
use crate::clock;
use crate::key_ring::KeyRing;
use crate::port::{Answered, Ask, HubPort, Proof};

/// The longest the hub's core may take for an answer before the device is
/// told to ask again under the same id. Well above any deadline of the core.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// What a device is told of the hub when it says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HubFacts {
    /// The policy in force; 0 for none.
    pub policy_version: u64,
    /// How the hub stands to the gateway.
    pub wan: WanState,
}

/// What a connection speaks, as agreed on in its handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireVersion {
    /// Each receipt is signed alone.
    One,
    /// Receipts rest on the signature of their group.
    Two,
    /// Requests may state terms.
    Three,
    /// Sealed cards come in an envelope, and the hub's signing key may change.
    Four,
    /// The hub's TLS key may change.
    Five,
    /// The device's keys may change.
    Six,
}

impl WireVersion {
    pub(super) fn of(connection: &Connection) -> Self {
        let handshake = connection
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok());
        match handshake.and_then(|data| data.protocol) {
            Some(protocol) if protocol == ALPN_1 => Self::One,
            Some(protocol) if protocol == ALPN_2 => Self::Two,
            Some(protocol) if protocol == ALPN_3 => Self::Three,
            Some(protocol) if protocol == ALPN_4 => Self::Four,
            Some(protocol) if protocol == ALPN_5 => Self::Five,
            _ => Self::Six,
        }
    }

    pub(super) fn number(self) -> u16 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
            Self::Five => 5,
            Self::Six => 6,
        }
    }
}

pub(super) struct Shared {
    pub(super) hub: HubId,
    pub(super) store: String,
    pub(super) keys: KeyRing,
    pub(super) tls: HubTls,
    pub(super) registry: Registry,
    pub(super) sessions: Sessions,
    pub(super) places: Mutex<Places>,
    pub(super) signatures: Arc<Signatures>,
    pub(super) port: HubPort,
    pub(super) pace: Pace,
    pub(super) quic_frames: QuicFrames,
    pub(super) counts: Arc<Counts>,
    /// Refusals in the log.
    refusals: Mutex<Lines>,
    pub(super) facts: Mutex<HubFacts>,
    pub(super) stopping: AtomicBool,
    /// Requests being answered.
    busy: watch::Sender<usize>,
}

/// Counts a request for as long as it is held.
pub(super) struct Busy<'a>(&'a watch::Sender<usize>);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}

impl Shared {
    pub(super) fn new(
        store: String,
        keys: KeyRing,
        tls: HubTls,
        registry: Registry,
        port: HubPort,
        (pace, quic_frames): (Pace, QuicFrames),
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            hub: tls.hub_id(),
            store,
            keys,
            tls,
            registry,
            sessions: Sessions::default(),
            places: Mutex::default(),
            signatures: Arc::default(),
            port,
            refusals: Mutex::new(Lines::new(pace.now_ms())),
            pace,
            quic_frames,
            counts,
            facts: Mutex::new(HubFacts {
                policy_version: 0,
                wan: WanState::Offline,
            }),
            stopping: AtomicBool::new(false),
            busy: watch::Sender::new(0),
        }
    }

    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refusal is written to the log, and then how many were left
    /// out since the last one.
    pub(super) fn next_refusal(&self) -> Option<u64> {
        let mut lines = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        lines.next(self.pace.now_ms())
    }

    pub(super) fn enter(&self) -> Busy<'_> {
        self.busy.send_modify(|n| *n += 1);
        Busy(&self.busy)
    }

    /// Whether there is no other request than the one that asks.
    pub(super) fn is_alone(&self) -> bool {
        *self.busy.borrow() <= 1
    }

    /// Waits until no request is being answered.
    pub(super) async fn idle(&self) {
        // The sender lives in self, so the wait cannot fail.
        let _ = self.busy.subscribe().wait_for(|n| *n == 0).await;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Asks the hub and turns its reply into an answer in the device's wire
    /// version. Dropped when the device goes away: it asks again under the
    /// same id.
    pub(super) async fn ask(&self, ask: Ask, wire: WireVersion) -> Result<Answer, Refusal> {
        let access = match &ask {
            Ask::Join {
                joining: Joining::Fleet(_),
                ..
            } => Access::Pending,
            _ => Access::Granted,
        };
        let Answered { reply, proof } = tokio::time::timeout(ANSWER_TIMEOUT, self.port.ask_for_proof(ask))
            .await
            .map_err(|_| not_in_time())??;
        match reply {
            Reply::Receipt(receipt) => Ok(Answer::Receipt {
                receipt: self.receipt(&receipt, proof.as_ref(), wire)?,
            }),
            Reply::Status { status, receipt } => Ok(Answer::Status {
                status: self.sign(ObjectType::Status, &*status),
                receipt: receipt
                    .map(|receipt| self.receipt(&receipt, proof.as_ref(), wire))
                    .transpose()?,
            }),
            Reply::Described { attested } => Ok(Answer::Described { attested }),
            Reply::Synced(receipt) => Ok(Answer::Synced {
                receipt: self.receipt(&receipt, proof.as_ref(), wire)?,
            }),
            Reply::Allowance { allowance, chain } => Ok(Answer::Allowance {
                allowance: self.sign(ObjectType::Allowance, &*allowance),
                chain,
            }),
            Reply::Returned { number } => Ok(Answer::Returned { number }),
            Reply::KeysChanged { number } => Ok(Answer::KeysChanged { number }),
            Reply::Registered(mut registration) => {
                // As a rule the core has said so already, and that counts.
                self.registry.apply_if_new(&registration, access);
                // A device that enrols again may have missed a change.
                registration.hub_signing_key = self.keys.chain().current().to_bytes();
                Ok(Answer::Enrolled {
                    registration: self.sign(ObjectType::Registration, &*registration),
                })
            }
            Reply::Refused(refusal) => Err(refusal),
            other @ (Reply::PolicyActive { .. } | Reply::Operator(_)) => {
                tracing::error!(
                    ?other,
                    "a device's request got an operator's reply; this is a defect"
                );
                Err(not_in_time())
            }
        }
    }

    /// A receipt as the device gets it. Without the proof that its entry is
    /// on disk, nothing leaves.
    fn receipt(
        &self,
        receipt: &Receipt,
        proof: Option<&Proof>,
        wire: WireVersion,
    ) -> Result<Vec<u8>, Refusal> {
        let committed = match proof {
            Some(Proof::Group(group)) => group.receipt(receipt.sequence),
            Some(Proof::Earlier(head)) if head.sequence >= receipt.sequence => Some(
                self.keys
                    .with(|key| CommittedReceipt::restated(key, receipt, head.sequence, head.digest)),
            ),
            Some(Proof::Earlier(_)) | None => None,
        };
        let Some(committed) = committed else {
            tracing::error!(payment = %receipt.payment_id, "a receipt came without its proof; this is a defect");
            return Err(not_in_time());
        };
        Ok(match wire {
            WireVersion::One => self
                .keys
                .with(|key| cose::sign(key, ObjectType::Receipt, &committed.receipt)),
            _ => cbor::encode(&committed),
        })
    }

    pub(super) fn hello(&self, wire: WireVersion) -> Answer {
        let facts = *self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        Answer::Hello {
            info: HubInfo {
                hub: self.hub,
                wire_version: wire.number(),
                store: self.store.clone(),
                time_ms: clock::wall_ms(),
                policy_version: facts.policy_version,
                wan: facts.wan,
            },
        }
    }

    /// The next changes of the signing key that a device does not know.
    pub(super) fn key_changes(&self, known: u32) -> Answer {
        let mut changes = self.keys.chain().statements(known);
        changes.truncate(MOST_KEY_CHANGES);
        Answer::Keys { changes }
    }

    /// `None` if there is nothing to be said any more.
    pub(super) fn push(&self, what: Outgoing) -> Option<Push> {
        Some(match what {
            Outgoing::Status(status) => Push::Status {
                status: self.sign(ObjectType::Status, &*status),
            },
            Outgoing::Policy(version) => Push::Policy { version },
            Outgoing::KeyChanged(change) => Push::KeyChanged { change },
            Outgoing::TlsKeys => Push::TlsKeys {
                keys: self.tls.signed()?,
            },
        })
    }

    fn sign<T: minicbor::Encode<()>>(&self, object: ObjectType, value: &T) -> Vec<u8> {
        self.keys
            .with(|key| cose::sign(key, object, &cbor::encode(value)))
    }
}

fn not_in_time() -> Refusal {
    Refusal::new(
        RefusalCode::TimedOut,
        "the answer was not found in time; ask again under the same id",
    )
}
