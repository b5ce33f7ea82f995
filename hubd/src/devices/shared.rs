//! What all sessions of the hub share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use hub_core::Reply;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::WanState;
use hub_protocol::frame::HubInfo;
use hub_protocol::{Answer, HubId, Push, Refusal, RefusalCode, WIRE_VERSION, cbor};
use tokio::sync::watch;

use super::registry::Registry;
use super::sessions::{Outgoing, Sessions};
use crate::clock;
use crate::port::{Ask, HubPort};

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

pub(super) struct Shared {
    pub(super) hub: HubId,
    pub(super) store: String,
    pub(super) signing: Arc<SigningKey>,
    pub(super) registry: Registry,
    pub(super) sessions: Sessions,
    pub(super) port: HubPort,
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
        hub: HubId,
        store: String,
        signing: Arc<SigningKey>,
        registry: Registry,
        port: HubPort,
    ) -> Self {
        Self {
            hub,
            store,
            signing,
            registry,
            sessions: Sessions::default(),
            port,
            facts: Mutex::new(HubFacts {
                policy_version: 0,
                wan: WanState::Offline,
            }),
            stopping: AtomicBool::new(false),
            busy: watch::Sender::new(0),
        }
    }

    pub(super) fn enter(&self) -> Busy<'_> {
        self.busy.send_modify(|n| *n += 1);
        Busy(&self.busy)
    }

    /// Waits until no request is being answered.
    pub(super) async fn idle(&self) {
        // The sender lives in self, so the wait cannot fail.
        let _ = self.busy.subscribe().wait_for(|n| *n == 0).await;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Asks the hub and turns its reply into a signed answer. Dropped when
    /// the device goes away: it asks again under the same id.
    pub(super) async fn ask(&self, ask: Ask) -> Result<Answer, Refusal> {
        let reply = tokio::time::timeout(ANSWER_TIMEOUT, self.port.ask(ask))
            .await
            .map_err(|_| not_in_time())??;
        match reply {
            Reply::Receipt(receipt) => Ok(Answer::Receipt {
                receipt: self.sign(ObjectType::Receipt, &*receipt),
            }),
            Reply::Status { status, receipt } => Ok(Answer::Status {
                status: self.sign(ObjectType::Status, &*status),
                receipt: receipt.map(|receipt| self.sign(ObjectType::Receipt, &*receipt)),
            }),
            Reply::Registered(registration) => {
                self.registry.apply_if_new(&registration);
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

    pub(super) fn hello(&self) -> Answer {
        let facts = *self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        Answer::Hello {
            info: HubInfo {
                hub: self.hub,
                wire_version: WIRE_VERSION,
                store: self.store.clone(),
                time_ms: clock::wall_ms(),
                policy_version: facts.policy_version,
                wan: facts.wan,
            },
        }
    }

    pub(super) fn push(&self, what: Outgoing) -> Push {
        match what {
            Outgoing::Status(status) => Push::Status {
                status: self.sign(ObjectType::Status, &*status),
            },
            Outgoing::Policy(version) => Push::Policy { version },
        }
    }

    /// Ed25519 is deterministic (RFC 8032): the same receipt is the same
    /// bytes, each time it is asked for.
    fn sign<T: minicbor::Encode<()>>(&self, object: ObjectType, value: &T) -> Vec<u8> {
        cose::sign(&self.signing, object, &cbor::encode(value))
    }
}

fn not_in_time() -> Refusal {
    Refusal::new(
        RefusalCode::TimedOut,
        "the answer was not found in time; ask again under the same id",
    )
}
