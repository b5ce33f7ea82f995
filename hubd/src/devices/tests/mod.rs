//! The devices' edge against hub-sdk, over real QUIC on loopback, with a
//! stand-in for the core that answers from a small map.

mod allowances;
mod bad_input;
mod bounds;
mod device_keys;
pub(super) mod discovery;
mod enrolment;
mod fleet;
mod hub_tls;
mod paths;
mod payments;
mod raw;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use hub_core::Reply;
use hub_core::admission::Access;
use hub_core::state::Head;
use hub_protocol::entry::{ClockQuality, EntryTime};
use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Currency, Decision, DeviceClass, DeviceId, Digest, EntryMode, Funding,
    HubId, PaymentId, PaymentState, PaymentStatus, Reason, Receipt, Refusal, RefusalCode, Registration,
    Submission, Verification,
};
use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, Enrolled, Sale};
use tokio::sync::{mpsc, watch};

use super::{Devices, HubIdentity, HubTls, Keys, Registry, Settings};
use crate::key_ring::KeyRing;
use crate::port::{Answered, Ask, HubPort, Message, Proof, Tell};

/// Waits for what must happen; far longer than it ever takes.
async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), what)
        .await
        .expect("did not happen in time")
}

/// Waits until so many failed handshakes are counted: whoever is turned away may
/// hear of it a moment earlier.
async fn failed_handshakes(hub: &FakeHub, count: u64) {
    within(async {
        while hub.devices.bounds_reached().get("failed-handshakes") != Some(&count) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(super) fn keys() -> Keys {
    keys_of(&pem())
}

fn pem() -> String {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    pair.serialize_pem()
}

fn keys_of(pem: &str) -> Keys {
    let identity = HubIdentity::from_pem(pem).unwrap();
    let hub = identity.hub_id();
    let signing = KeyRing::first(hub, SigningKey::from_bytes(&[42; 32]));
    Keys {
        tls: HubTls::new(hub, signing.clone(), vec![identity], None).unwrap(),
        signing,
    }
}

fn settings() -> Settings {
    Settings {
        store: "Épicerie du Port".into(),
        store_id: "shop-001".into(),
        listen: ([127, 0, 0, 1], 0).into(),
        enrol_listen: ([127, 0, 0, 1], 0).into(),
        discovery: None,
        ..Settings::default()
    }
}

/// What the stand-in knows and was asked.
#[derive(Default)]
struct Book {
    hub: Option<HubId>,
    /// The last entry on the disk that there is not.
    durable: u64,
    payments: HashMap<PaymentId, (Vec<u8>, Receipt)>,
    registrations: HashMap<DeviceId, Registration>,
    refuse_enrolments: Option<RefusalCode>,
    /// Payments that are asked for and never answered.
    swallow: usize,
    /// Nobody may ask where a payment stands.
    pending: bool,
    /// Devices that were told to be in two places.
    two_places: Vec<DeviceId>,
    /// Whose TLS keys were used, and whether they were from before.
    keys_used: Vec<(DeviceId, bool)>,
}

/// A hub whose core is a map.
struct FakeHub {
    devices: Devices,
    book: Arc<Mutex<Book>>,
    asked: watch::Receiver<usize>,
}

impl FakeHub {
    fn start() -> Self {
        Self::start_with(settings(), keys(), Registry::default())
    }

    fn start_with(settings: Settings, keys: Keys, registry: Registry) -> Self {
        let (port, receiver) = HubPort::new();
        let book = Arc::new(Mutex::new(Book {
            hub: Some(keys.tls.hub_id()),
            durable: u64::MAX,
            ..Book::default()
        }));
        let (asked_sender, asked) = watch::channel(0);
        tokio::spawn(answer(Arc::clone(&book), receiver, asked_sender));
        let devices = Devices::start(settings, keys, port, registry).unwrap();
        Self { devices, book, asked }
    }

    /// How often the core was asked anything.
    fn asked(&self) -> usize {
        *self.asked.borrow()
    }

    async fn wait_asked(&self, count: usize) {
        let mut asked = self.asked.clone();
        within(asked.wait_for(|n| *n >= count)).await.unwrap();
    }

    async fn enrol(&self, identity: &DeviceIdentity) -> Enrolled {
        let code = self.devices.issue_code(hub_protocol::DeviceClass::Mpos).unwrap();
        within(hub_sdk::enrol(
            identity,
            &code,
            DeviceClass::Mpos,
            "Caisse 1",
            "Test 1",
        ))
        .await
        .unwrap()
    }

    /// An enrolled device, ready to pay.
    async fn device(&self) -> DeviceClient {
        let identity = DeviceIdentity::generate().unwrap();
        let enrolled = self.enrol(&identity).await;
        DeviceClient::new(identity, enrolled, options()).unwrap()
    }

    /// A device that knows the hub but was never enrolled.
    fn stranger(&self) -> DeviceClient {
        let identity = DeviceIdentity::generate().unwrap();
        let registration = self.registration(&identity);
        let enrolled = Enrolled::new(registration, vec![self.devices.local_addr()]);
        DeviceClient::new(identity, enrolled, options()).unwrap()
    }

    /// A device that the hub knows from before.
    fn known(&self) -> DeviceClient {
        let device = self.stranger();
        self.devices
            .apply(&device.enrolled().registration, Access::Granted);
        device
    }

    fn registration(&self, identity: &DeviceIdentity) -> Registration {
        Registration {
            device: identity.device_id(),
            signing_key: identity.signing_key().verifying_key().to_bytes(),
            class: DeviceClass::Mpos,
            name: "Caisse 9".into(),
            model: "Test 1".into(),
            hub: self.devices.hub_id(),
            hub_signing_key: SigningKey::from_bytes(&[42; 32]).verifying_key().to_bytes(),
            enrolled_ms: 1,
        }
    }
}

fn options() -> ClientOptions {
    ClientOptions {
        give_up_after: Duration::from_secs(25),
        ..ClientOptions::default()
    }
}

fn sale(amount_minor: u64) -> Sale {
    Sale {
        amount_minor,
        currency: Currency::EUR,
        order_id: "T-1".into(),
        card: CardFacts {
            token: "tok_1".into(),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: None,
            bin: None,
            last4: None,
        },
        entry_mode: EntryMode::Contactless,
        verification: Verification::None,
        cryptogram: Cryptogram::AsksOnline,
        sealed_card: hub_sdk::CardData::dukpt(&[9; 10], &[7; 100]),
        terms: None,
    }
}

async fn answer(book: Arc<Mutex<Book>>, mut messages: mpsc::Receiver<Message>, asked: watch::Sender<usize>) {
    let mut swallowed = Vec::new();
    while let Some(message) = messages.recv().await {
        let (ask, reply) = match message {
            Message::Ask(ask, reply) => (ask, reply),
            Message::Tell(Tell::TwoPlaces { device, .. }) => {
                book.lock().unwrap().two_places.push(device);
                continue;
            }
            Message::Tell(Tell::KeysUsed { device, old }) => {
                book.lock().unwrap().keys_used.push((device, old));
                continue;
            }
            Message::Tell(_) => continue,
        };
        let mut book = book.lock().unwrap();
        match reply_to(&mut book, *ask) {
            Some(answer) => _ = reply.send(proved(answer, book.durable)),
            None => swallowed.push(reply),
        }
        asked.send_modify(|n| *n += 1);
    }
}

fn proved(reply: Reply, durable: u64) -> Answered {
    let end = Head {
        sequence: durable,
        digest: Digest::ZERO,
    };
    Answered {
        reply,
        proof: Some(Proof::Earlier(end)),
    }
}

fn reply_to(book: &mut Book, ask: Ask) -> Option<Reply> {
    let refused = |code: RefusalCode| Reply::Refused(Refusal::new(code, "as the test has it"));
    Some(match ask {
        Ask::Pay {
            device,
            request,
            signed,
            ..
        } => {
            let hub = book.hub.unwrap();
            let sequence = book.payments.len() as u64 + 1;
            let (first, receipt) = book
                .payments
                .entry(request.payment_id)
                .or_insert_with(|| (signed.clone(), receipt(hub, device, sequence, &request, &signed)));
            if *first != signed {
                return Some(refused(RefusalCode::PaymentIdConflict));
            }
            let receipt = receipt.clone();
            if book.swallow > 0 {
                book.swallow -= 1;
                return None;
            }
            Reply::Receipt(Box::new(receipt))
        }
        Ask::Status { .. } if book.pending => refused(RefusalCode::DevicePending),
        Ask::Status { payment_id, .. } => match book.payments.get(&payment_id) {
            Some((_, receipt)) => Reply::Status {
                status: Box::new(status(receipt.hub, payment_id, PaymentState::Queued)),
                receipt: Some(Box::new(receipt.clone())),
            },
            None => refused(RefusalCode::PaymentUnknown),
        },
        Ask::Void { request, .. } => match book.payments.get(&request.payment_id) {
            Some((_, receipt)) => Reply::Status {
                status: Box::new(status(receipt.hub, request.payment_id, PaymentState::Voided)),
                receipt: Some(Box::new(receipt.clone())),
            },
            None => refused(RefusalCode::PaymentUnknown),
        },
        Ask::Enrol { registration } | Ask::Join { registration, .. } => {
            if let Some(code) = book.refuse_enrolments {
                return Some(refused(code));
            }
            let known = book
                .registrations
                .entry(registration.device)
                .or_insert_with(|| (*registration).clone());
            if known.signing_key == registration.signing_key {
                Reply::Registered(Box::new(known.clone()))
            } else {
                refused(RefusalCode::EnrolledAlready)
            }
        }
        Ask::Describe { attestation, .. } => Reply::Described {
            attested: attestation.is_some(),
        },
        Ask::ChangeDeviceKeys { change, .. } => Reply::KeysChanged {
            number: change.number,
        },
        Ask::Allowance { .. } | Ask::Sync { .. } | Ask::SyncRefused { .. } | Ask::Return { .. } => {
            refused(RefusalCode::AllowanceNotGiven)
        }
        Ask::Activate { .. } | Ask::Operator { .. } | Ask::Archive(_) | Ask::ChangeHubKey { .. } => {
            unreachable!("devices do not ask this")
        }
    })
}

fn receipt(
    hub: HubId,
    device: DeviceId,
    sequence: u64,
    request: &hub_protocol::PaymentRequest,
    signed: &[u8],
) -> Receipt {
    Receipt {
        hub,
        device,
        payment_id: request.payment_id,
        request_digest: Digest::of(signed),
        amount_minor: request.amount_minor(),
        currency: request.currency,
        decision: Decision::ApprovedOffline,
        reason: Reason::None,
        fallback: None,
        submission: Some(Submission::Deferred),
        gateway: None,
        sequence,
        entry_digest: Digest::ZERO,
        time: EntryTime {
            wall_ms: 1,
            monotonic_ms: 1,
            boot: [0; 16],
            quality: ClockQuality::Synchronised,
        },
        policy_version: 1,
        transaction_type: request.terms.as_ref().map(|terms| terms.transaction_type),
        score: None,
    }
}

fn status(hub: HubId, payment_id: PaymentId, state: PaymentState) -> PaymentStatus {
    PaymentStatus {
        hub,
        payment_id,
        state,
        gateway: None,
        sequence: 1,
    }
}
