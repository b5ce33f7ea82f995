//! A hub without edges: the core, a disk that keeps what was flushed, and
//! what came out, for tests to look at.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub
)]
// Each test file is a crate of its own and uses a part of this.

pub mod odd;
pub mod wallet;

use std::collections::HashMap;

use ed25519_dalek::SigningKey;
use hub_core::policy::Policy;
use hub_core::state::{Lane, State};
use hub_core::{
    AttemptId, Core, Effect, Forward, GatewayAnswer, Input, Now, OperatorCommand, OperatorReply, Probe,
    Reply, Settings, Ticket,
};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{
    AllowanceMisuse, CardFacts, CardScheme, Cryptogram, Currency, DeviceClass, DeviceId, Entry, EntryMode,
    Funding, GatewayResult, HubId, KeyId, PaymentId, PaymentRequest, PaymentStatus, Receipt, Refusal,
    Registration, SealedCard, Verification, VoidRequest, cbor,
};

pub const POLICY: &str = include_str!("../../../../config/policies/france-cautious.toml");

/// Noon on a day inside the sample policy's period.
pub const NOON_MS: u64 = 1_798_000_000_000;

pub const MPOS: DeviceId = DeviceId([1; 32]);
pub const SOFTPOS: DeviceId = DeviceId([2; 32]);
pub const STRANGER: DeviceId = DeviceId([99; 32]);

pub fn sealed_card(id: PaymentId) -> SealedCard {
    SealedCard {
        salt: [3; 16],
        blob: id.0.to_vec(),
    }
}

pub fn payment_id(number: u64) -> PaymentId {
    let mut id = [0xaa; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    PaymentId(id)
}

/// A contactless payment, verified on the phone, that asks to go online.
pub fn request(number: u64, amount: u64, card: &str) -> PaymentRequest {
    let id = payment_id(number);
    PaymentRequest {
        payment_id: id,
        device_sequence: number,
        amount: amount.into(),
        currency: Currency::EUR,
        order_id: format!("order-{number}"),
        card: CardFacts {
            token: card.to_owned(),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: Some("FR".to_owned()),
            bin: None,
            last4: None,
        },
        entry_mode: EntryMode::Contactless,
        verification: Verification::Cdcvm,
        cryptogram: Cryptogram::AsksOnline,
        sealed_card_digest: sealed_card(id).digest(),
        device_time_ms: NOON_MS,
        terms: None,
    }
}

pub fn device_key(device: DeviceId) -> SigningKey {
    SigningKey::from_bytes(&device.0)
}

pub fn sign(device: DeviceId, request: &PaymentRequest) -> Vec<u8> {
    cose::sign(&device_key(device), request.object_type(), &cbor::encode(request))
}

pub fn registration(device: DeviceId, class: DeviceClass) -> Registration {
    Registration {
        device,
        signing_key: device_key(device).verifying_key().to_bytes(),
        class,
        name: "Caisse".to_owned(),
        model: "test".to_owned(),
        hub: HubId([7; 32]),
        hub_signing_key: [8; 32],
        enrolled_ms: NOON_MS,
    }
}

pub fn approved() -> GatewayAnswer {
    GatewayAnswer::Final(GatewayResult {
        approved: true,
        response_code: "00".to_owned(),
        authorisation_code: Some("A12345".to_owned()),
        reference: Some("ref".to_owned()),
    })
}

pub fn declined() -> GatewayAnswer {
    GatewayAnswer::Final(GatewayResult {
        approved: false,
        response_code: "51".to_owned(),
        authorisation_code: None,
        reference: None,
    })
}

pub fn no_answer() -> GatewayAnswer {
    GatewayAnswer::NoAnswer {
        detail: "timed out".to_owned(),
    }
}

pub struct Shop {
    pub core: Core,
    pub settings: Settings,
    pub now: Now,
    /// Flushed entries.
    pub disk: Vec<Vec<u8>>,
    /// Written, not flushed.
    pub written: Vec<(u64, Vec<u8>)>,
    /// Flush at once, as most tests want it.
    pub flush_at_once: bool,
    /// Cut off at the next start.
    pub torn_bytes: u64,
    pub replies: HashMap<Ticket, Reply>,
    pub forwards: Vec<Forward>,
    pub pushed: Vec<PaymentStatus>,
    pub erased: Vec<PaymentId>,
    pub loads: Vec<(Lane, u64, usize)>,
    pub misused: Vec<(DeviceId, AllowanceMisuse)>,
    last_ticket: u64,
}

impl Shop {
    /// An empty hub: no devices, no policy.
    pub fn empty() -> Self {
        Self::empty_with(|_| {})
    }

    pub fn empty_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(HubId([7; 32]), "shop-001", Currency::EUR);
        // What `probe` answers has no time in it.
        settings.gateway_tells_time = false;
        change(&mut settings);
        let now = Now {
            wall_ms: NOON_MS,
            monotonic_ms: 1_000,
        };
        let (core, effects) = Core::start(settings.clone(), State::default(), 0, "test", now);
        let mut shop = Self {
            core,
            settings,
            now,
            disk: Vec::new(),
            written: Vec::new(),
            flush_at_once: true,
            torn_bytes: 0,
            replies: HashMap::new(),
            forwards: Vec::new(),
            pushed: Vec::new(),
            erased: Vec::new(),
            loads: Vec::new(),
            misused: Vec::new(),
            last_ticket: 0,
        };
        shop.carry_out(effects);
        shop
    }

    /// Two devices, the sample policy, offline.
    pub fn offline() -> Self {
        Self::offline_under(POLICY)
    }

    pub fn offline_under(policy: &str) -> Self {
        Self::offline_with(policy, |_| {})
    }

    /// The same with other settings.
    pub fn offline_with(policy: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut shop = Self::empty_with(change);
        shop.enrol(MPOS, DeviceClass::Mpos);
        shop.enrol(SOFTPOS, DeviceClass::Softpos);
        shop.install(policy);
        shop.go_offline();
        shop.replies.clear();
        shop
    }

    /// Two devices, the sample policy, online.
    pub fn online() -> Self {
        let mut shop = Self::offline();
        shop.go_online();
        shop
    }

    pub fn enrol(&mut self, device: DeviceId, class: DeviceClass) {
        let ticket = self.ticket();
        self.input(Input::Enrol {
            ticket,
            registration: Box::new(registration(device, class)),
        });
    }

    pub fn install(&mut self, text: &str) -> Option<u64> {
        let key = SigningKey::from_bytes(&[50; 32]);
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let signed = cose::sign(&key, ObjectType::Policy, text.as_bytes());
        let ticket = self.ticket();
        let key = KeyId::of_key(key.verifying_key().as_bytes());
        self.input(Input::Activate {
            ticket: Some(ticket),
            policy: Box::new(policy),
            signed,
            key,
        });
        match self.replies.remove(&ticket) {
            Some(Reply::PolicyActive { version }) => Some(version),
            _ => None,
        }
    }

    pub fn probe(&mut self, ok: bool) {
        self.input(Input::Probe(Probe {
            ok,
            latency_ms: 20,
            gateway_time_ms: None,
        }));
    }

    pub fn go_offline(&mut self) {
        for _ in 0..self.settings.wan.offline_after {
            self.probe(false);
        }
    }

    pub fn go_online(&mut self) {
        for _ in 0..self.settings.wan.online_after {
            self.probe(true);
        }
    }

    /// Online again, whatever failed before.
    pub fn come_back(&mut self) {
        for _ in 0..self.settings.wan.online_after_payment_failure {
            self.probe(true);
        }
    }

    pub fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    pub fn pass(&mut self, ms: u64) {
        self.now.wall_ms += ms;
        self.now.monotonic_ms += ms;
        self.input(Input::Tick);
    }

    pub fn input(&mut self, input: Input) {
        let effects = self.core.handle(input, self.now);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append {
                    sequence, payload, ..
                } => self.written.push((sequence, payload)),
                Effect::Reply { ticket, reply } => {
                    assert!(self.replies.insert(ticket, reply).is_none(), "one reply a ticket");
                }
                Effect::Forward(forward) => self.forwards.push(forward),
                Effect::Push { status, .. } => self.pushed.push(status),
                Effect::EraseCard { payment_id } => self.erased.push(payment_id),
                Effect::LoadQueue { lane, after, limit } => self.loads.push((lane, after, limit)),
                Effect::PushPolicy { .. }
                | Effect::ChangeHubKey { .. }
                | Effect::Outage { .. }
                | Effect::HubKeyChanged { .. }
                | Effect::HubTlsKeys { .. }
                | Effect::DeviceKeys { .. }
                | Effect::DeviceChanged { .. }
                | Effect::WanChanged { .. }
                | Effect::FleetTokens { .. }
                | Effect::RestrictionChanged { .. } => {}
                Effect::AllowanceMisused { device, kind, .. } => self.misused.push((device, kind)),
            }
        }
        if self.flush_at_once {
            self.flush();
        }
    }

    pub fn flush(&mut self) {
        let Some((sequence, _)) = self.written.last() else {
            return;
        };
        let sequence = *sequence;
        self.disk
            .extend(self.written.drain(..).map(|(_, payload)| payload));
        let effects = self.core.handle(Input::Appended { sequence }, self.now);
        self.carry_out(effects);
    }

    /// Kill -9 and start again: what was not flushed is gone.
    pub fn crash(&mut self) {
        self.written.clear();
        let mut state = State::default();
        for payload in &self.disk {
            let entry: Entry = cbor::decode(payload).unwrap();
            state.apply(&entry, Entry::digest(payload)).unwrap();
        }
        self.restart(state);
    }

    /// Starts again with a state that was opened.
    pub fn restart(&mut self, state: State) {
        self.written.clear();
        self.loads.clear();
        self.now.monotonic_ms = 0;
        self.now.wall_ms += 5_000;
        self.replies.clear();
        self.forwards.clear();
        let (core, effects) = Core::start(self.settings.clone(), state, self.torn_bytes, "test", self.now);
        self.core = core;
        self.carry_out(effects);
    }

    pub fn send(&mut self, device: DeviceId, request: &PaymentRequest) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Pay {
            ticket,
            device,
            request: Box::new(request.clone()),
            signed: sign(device, request),
            sealed_card: sealed_card(request.payment_id),
            recalled: None,
        });
        ticket
    }

    /// Pays and expects the receipt at once.
    pub fn pay(&mut self, device: DeviceId, request: &PaymentRequest) -> Receipt {
        let ticket = self.send(device, request);
        self.receipt(ticket)
    }

    pub fn receipt(&mut self, ticket: Ticket) -> Receipt {
        match self.replies.remove(&ticket) {
            Some(Reply::Receipt(receipt)) => *receipt,
            other => panic!("a receipt expected, not {other:?}"),
        }
    }

    pub fn refusal(&mut self, ticket: Ticket) -> Refusal {
        match self.replies.remove(&ticket) {
            Some(Reply::Refused(refusal)) => refusal,
            other => panic!("a refusal expected, not {other:?}"),
        }
    }

    pub fn status_of(&mut self, ticket: Ticket) -> PaymentStatus {
        match self.replies.remove(&ticket) {
            Some(Reply::Status { status, .. }) => *status,
            other => panic!("a status expected, not {other:?}"),
        }
    }

    pub fn void(&mut self, device: DeviceId, id: PaymentId) -> Ticket {
        let ticket = self.ticket();
        let request = VoidRequest {
            payment_id: id,
            device_sequence: 1,
            device_time_ms: NOON_MS,
        };
        let signed = cose::sign(
            &device_key(device),
            ObjectType::VoidRequest,
            &cbor::encode(&request),
        );
        self.input(Input::Void {
            ticket,
            device,
            request,
            signed,
            recalled: None,
        });
        ticket
    }

    pub fn status(&mut self, device: DeviceId, id: PaymentId) -> Ticket {
        let ticket = self.ticket();
        self.input(Input::Status {
            ticket,
            device,
            payment_id: id,
            recalled: None,
        });
        ticket
    }

    pub fn state_of(&self, number: u64) -> hub_protocol::PaymentState {
        self.core.state().payment(&payment_id(number)).unwrap().state
    }

    /// What waits, as an operator sees it.
    pub fn queue(&mut self) -> Vec<hub_core::QueueItem> {
        match self.operate(OperatorCommand::Queue {
            limit: 1000,
            parked_only: false,
        }) {
            OperatorReply::Queue { items, .. } => items,
            other => panic!("a queue expected, not {other:?}"),
        }
    }

    pub fn operate(&mut self, command: OperatorCommand) -> OperatorReply {
        let ticket = self.ticket();
        self.input(Input::Operator {
            ticket,
            operator: "anna".to_owned(),
            command,
        });
        match self.replies.remove(&ticket) {
            Some(Reply::Operator(reply)) => reply,
            other => panic!("an operator's reply expected, not {other:?}"),
        }
    }

    /// Answers the oldest attempt that is under way.
    pub fn gateway(&mut self, answer: GatewayAnswer) -> Forward {
        let forward = self.forwards.remove(0);
        self.answer(forward.attempt, answer);
        forward
    }

    pub fn answer(&mut self, attempt: AttemptId, answer: GatewayAnswer) {
        self.input(Input::Gateway {
            attempt,
            answer,
            latency_ms: 40,
        });
    }
}
