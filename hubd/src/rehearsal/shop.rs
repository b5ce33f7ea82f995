//! A hub without edges: the real core, a disk that never fails, and a gateway
//! that says what it is told to. In memory, gone with the process.

use std::collections::{HashMap, VecDeque};

use ed25519_dalek::SigningKey;
use hub_core::decide::Assessment;
use hub_core::policy::Policy;
use hub_core::state::State;
use hub_core::{
    AttemptId, Core, Effect, GatewayAnswer, Input, Now, OperatorCommand, OperatorReply, Probe, Reply,
    Settings, Ticket,
};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::{DecisionRecord, StorageLevel, WanState};
use hub_protocol::{
    Decision, DeviceClass, DeviceId, Digest, GatewayResult, HubId, KeyId, PaymentId, RefusalCode,
    Registration, VoidRequest, cbor,
};

use super::describe::{overridden, with_own_keys};
use super::gateway::not_sent;
use super::lines::{GatewaySays, Pay, Step};

/// After so many steps what changed is forgotten, which nobody stores.
const FORGET_EVERY: u32 = 1024;

/// How far the clock of a trial jumps back: more than a hub takes for nothing.
const JUMP_BACK_MS: u64 = 60 * 60 * 1000;

/// Why a step cannot be done. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// What came of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was decided, now or on an earlier line.
    Decided(Box<Decided>),
    /// Nothing was decided: the id was used before with other content, or the
    /// device is blocked.
    Refused(RefusalCode),
}

/// A decision, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The decision, with the reason that the ledger has.
    pub record: DecisionRecord,
    /// What was assessed before it; `None` if the gateway decided.
    pub assessed: Option<Assessment>,
    /// Whether this is the answer to an earlier line, given again.
    pub again: bool,
}

/// A shop whose hub is tried out.
#[derive(Debug)]
pub struct Shop {
    pub(super) core: Core,
    settings: Settings,
    pub(super) now: Now,
    devices: HashMap<String, DeviceId>,
    /// Attempts of the backlog that the gateway has not answered.
    pub(super) under_way: HashMap<PaymentId, AttemptId>,
    /// What the gateway says to the customer who waits.
    pub(super) says: GatewaySays,
    replies: HashMap<Ticket, Reply>,
    assessed: HashMap<PaymentId, Option<Assessment>>,
    last_ticket: u64,
    steps: u32,
    disk: StorageLevel,
}

impl Shop {
    /// A shop with this policy in force since its `not_before`, online.
    ///
    /// # Errors
    /// The core refuses the policy.
    pub fn new(text: &[u8], policy: Policy) -> Result<Self, Refused> {
        let (text, policy) = with_own_keys(text, policy);
        let store = policy.stores.iter().find(|store| *store != "*");
        let mut settings = Settings::new(
            HubId([1; 32]),
            store.map_or("try", String::as_str),
            policy.currency,
        );
        // The simulated gateway has no clock, and nothing is left to an index.
        settings.gateway_tells_time = false;
        settings.queue_window = usize::MAX;
        settings.max_queue = usize::MAX;
        settings.max_devices = usize::MAX;
        let now = Now {
            wall_ms: policy.not_before_ms,
            monotonic_ms: 0,
        };
        let (core, effects) = Core::start(settings.clone(), State::default(), 0, "try", now);
        let mut shop = Self {
            core,
            settings,
            now,
            devices: HashMap::new(),
            under_way: HashMap::new(),
            says: GatewaySays::default(),
            replies: HashMap::new(),
            assessed: HashMap::new(),
            last_ticket: 0,
            steps: 0,
            disk: StorageLevel::Enough,
        };
        shop.carry_out(effects);
        shop.go(true);
        // The core reads the policy back out of its entry, so it must be a
        // signed object; by whom does not matter here.
        let key = SigningKey::from_bytes(&[1; 32]);
        let ticket = shop.ticket();
        shop.input(Input::Activate {
            ticket: Some(ticket),
            policy: Box::new(policy),
            signed: cose::sign(&key, ObjectType::Policy, &text),
            key: KeyId::of_key(key.verifying_key().as_bytes()),
        });
        match shop.replies.remove(&ticket) {
            Some(Reply::Operator(OperatorReply::Refused(why))) => Err(Refused(why)),
            _ => Ok(shop),
        }
    }

    /// The store's exposure, in minor units.
    pub fn exposure_minor(&self) -> u64 {
        self.core.state().store().subject.exposure_minor
    }

    /// The time in the shop, milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> u64 {
        self.now.wall_ms
    }

    /// Lets time pass up to an instant.
    pub fn until(&mut self, at_ms: u64) {
        let ms = at_ms.saturating_sub(self.now.wall_ms);
        if ms > 0 {
            self.pass(ms);
        }
    }

    /// Cuts the line to the gateway, or mends it: as many probes as the hub
    /// needs to see it.
    pub fn go(&mut self, up: bool) {
        let wanted = if up { WanState::Online } else { WanState::Offline };
        let wan = self.settings.wan;
        let most = wan
            .offline_after
            .max(wan.online_after)
            .max(wan.online_after_payment_failure);
        for _ in 0..most {
            if self.core.state().store().wan != wanted {
                self.input(Input::Probe(Probe {
                    ok: up,
                    latency_ms: 20,
                    gateway_time_ms: None,
                }));
            }
        }
        if !up {
            // Their answers are lost with the line.
            self.free_places();
        }
    }

    /// Does what a line says, except for a payment.
    ///
    /// # Errors
    /// The hub would not do that now.
    pub fn step(&mut self, step: &Step) -> Result<(), Refused> {
        match step {
            Step::Pay(_) => {}
            Step::WanUp => self.go(true),
            Step::WanDown => self.go(false),
            Step::Restart => self.restart(),
            Step::Describe(describe) => {
                let device = self.device(&describe.device, describe.class);
                let ticket = self.ticket();
                self.input(describe.input(ticket, device, self.now.wall_ms));
                self.replies.remove(&ticket);
            }
            Step::Block {
                device,
                class,
                blocked,
            } => {
                let device = self.device(device, *class);
                let command = if *blocked {
                    OperatorCommand::Block(device)
                } else {
                    OperatorCommand::Unblock(device)
                };
                self.operate(command)?;
            }
            Step::Clock { doubtful: true } => {
                // It goes back, and comes back; what is trusted is gone.
                let jumped = Now {
                    wall_ms: self.now.wall_ms.saturating_sub(JUMP_BACK_MS),
                    ..self.now
                };
                let effects = self.core.handle(Input::Tick, jumped);
                self.carry_out(effects);
            }
            Step::Clock { doubtful: false } => {
                let told_ms = self.now.wall_ms;
                self.operate(OperatorCommand::ConfirmClock { told_ms })?;
            }
            Step::Disk { full } => {
                self.disk = if *full {
                    StorageLevel::Full
                } else {
                    StorageLevel::Enough
                };
                self.disk_has();
            }
            Step::Void {
                payment_id,
                device_sequence,
            } => self.void(*payment_id, *device_sequence)?,
            Step::Settled {
                payment_id,
                approved,
                response_code,
            } => {
                let answer = GatewayAnswer::Final(GatewayResult {
                    approved: *approved,
                    response_code: response_code.clone(),
                    authorisation_code: None,
                    reference: None,
                });
                match payment_id {
                    Some(id) => self.settle(*id, answer)?,
                    None => self.settle_all(&answer)?,
                }
            }
        }
        Ok(())
    }

    /// A device asks for a payment.
    pub fn pay(&mut self, pay: &Pay) -> Answer {
        let device = self.device(&pay.device, pay.class);
        let id = pay.request.payment_id;
        let request = if pay.overridden {
            overridden(&pay.request, device)
        } else {
            pay.request.clone()
        };
        let again = self.core.knows(&id);
        if !again {
            let assessed = self.core.assess_for(device, &request);
            self.assessed.insert(id, assessed);
        }
        self.says = pay.gateway;
        let ticket = self.ticket();
        let request_kept = request.clone();
        self.input(Input::Pay {
            ticket,
            device,
            // The core keeps and compares these bytes and never reads them.
            signed: cbor::encode(&request),
            request: Box::new(request),
            sealed_card: pay.sealed_card.clone(),
            recalled: None,
        });
        if let Some(Reply::Refused(refusal)) = self.replies.remove(&ticket) {
            return Answer::Refused(refusal.code);
        }
        let payment = self.core.state().payment(&id);
        let decided = payment.and_then(|payment| payment.decided.as_ref());
        let Some(record) = decided.map(|decided| decided.record.clone()) else {
            return Answer::Refused(RefusalCode::PaymentIdConflict);
        };
        let online = record.gateway.is_some() || record.decision == Decision::ApprovedOnline;
        let mut assessed = self.assessed.get(&id).cloned().flatten().filter(|_| !online);
        if !again
            && assessed
                .as_ref()
                .is_some_and(|assessed| assessed.record.reason != record.reason)
        {
            // The payment itself was odd, and limits are smaller since.
            assessed = self.core.assess_for(device, &request_kept);
            self.assessed.insert(id, assessed.clone());
        }
        Answer::Decided(Box::new(Decided {
            record,
            assessed,
            again,
        }))
    }

    fn device(&mut self, name: &str, class: DeviceClass) -> DeviceId {
        if let Some(device) = self.devices.get(name) {
            return *device;
        }
        let device = DeviceId(Digest::of(name.as_bytes()).0);
        let ticket = self.ticket();
        self.input(Input::Enrol {
            ticket,
            registration: Box::new(Registration {
                device,
                signing_key: device.0,
                class,
                name: name.to_owned(),
                model: "simulated".to_owned(),
                hub: self.settings.hub,
                hub_signing_key: [0; 32],
                enrolled_ms: self.now.wall_ms,
            }),
        });
        self.replies.remove(&ticket);
        self.devices.insert(name.to_owned(), device);
        device
    }

    /// A person at the hub.
    fn operate(&mut self, command: OperatorCommand) -> Result<(), Refused> {
        let ticket = self.ticket();
        self.input(Input::Operator {
            ticket,
            operator: "try".to_owned(),
            command,
        });
        match self.replies.remove(&ticket) {
            Some(Reply::Operator(OperatorReply::Refused(why))) => Err(Refused(why)),
            _ => Ok(()),
        }
    }

    /// The hub is told how much room the disk has.
    fn disk_has(&mut self) {
        let free_bytes = match self.disk {
            StorageLevel::Full => 0,
            _ => u64::MAX,
        };
        self.input(Input::Storage {
            level: self.disk,
            free_bytes,
        });
    }

    fn void(&mut self, id: PaymentId, device_sequence: u64) -> Result<(), Refused> {
        // What is under way has to end first, or its reversal waits for it.
        if let Some(attempt) = self.under_way.remove(&id) {
            self.answer(attempt, not_sent());
        }
        let Some(device) = self.core.state().payment(&id).map(|payment| payment.device) else {
            return Err(Refused("void: no payment has this id".to_owned()));
        };
        let request = VoidRequest {
            payment_id: id,
            device_sequence,
            device_time_ms: self.now.wall_ms,
        };
        let ticket = self.ticket();
        self.input(Input::Void {
            ticket,
            device,
            signed: cbor::encode(&request),
            request,
            recalled: None,
        });
        match self.replies.remove(&ticket) {
            Some(Reply::Refused(refusal)) if refusal.code == RefusalCode::NothingToVoid => {
                Err(Refused("void: the payment was not approved".to_owned()))
            }
            Some(Reply::Refused(refusal)) => Err(Refused(format!("void: {}", refusal.text))),
            _ => Ok(()),
        }
    }

    /// Stops and starts the hub: the state is what the ledger says.
    fn restart(&mut self) {
        self.under_way.clear();
        self.now.monotonic_ms = 0;
        let state = self.core.state().clone();
        let (core, effects) = Core::start(self.settings.clone(), state, 0, "try", self.now);
        self.core = core;
        self.carry_out(effects);
        // Nothing of that is in the ledger.
        if self.disk != StorageLevel::Enough {
            self.disk_has();
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.wall_ms = self.now.wall_ms.saturating_add(ms);
        self.now.monotonic_ms = self.now.monotonic_ms.saturating_add(ms);
        self.input(Input::Tick);
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    pub(super) fn answer(&mut self, attempt: AttemptId, answer: GatewayAnswer) {
        self.input(Input::Gateway {
            attempt,
            answer,
            latency_ms: 40,
        });
    }

    fn input(&mut self, input: Input) {
        let effects = self.core.handle(input, self.now);
        self.carry_out(effects);
        self.steps += 1;
        if self.steps.is_multiple_of(FORGET_EVERY) {
            drop(self.core.state_mut().take_dirty());
        }
    }

    /// Every entry is durable at once, and whatever that releases follows.
    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut waiting = VecDeque::from(effects);
        while let Some(effect) = waiting.pop_front() {
            let next = match effect {
                Effect::Append { sequence, .. } => Some(Input::Appended { sequence }),
                Effect::Forward(forward) => self.forward(&forward),
                Effect::Reply { ticket, reply } => {
                    self.replies.insert(ticket, reply);
                    None
                }
                // Nothing was left to an index, so that nothing is loaded.
                Effect::LoadQueue { lane, .. } => Some(Input::QueueLoaded {
                    lane,
                    found: Vec::new(),
                    end: true,
                }),
                // No device is connected, and nothing is kept.
                _ => None,
            };
            if let Some(input) = next {
                waiting.extend(self.core.handle(input, self.now));
            }
        }
    }
}
