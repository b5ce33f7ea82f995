//! The shell around the core: what `hubd/src/hub.rs` and `run/opening.rs` do,
//! over a simulated disk. The only file that speaks the core's own types.

use hub_core::policy::Policy;
use hub_core::state::{CardKey, CardRecord, Head, Lane, PaymentRecord, Recalled, State};
use hub_core::{
    AttemptId, Core, Effect, GatewayAnswer, Input, Now, Operation, OperatorCommand, OperatorReply, Overview,
    Probe, Reply, Settings, Ticket,
};
use hub_protocol::entry::{Event, Finding, StorageLevel};
use hub_protocol::{
    Allowance, AllowanceChain, Currency, DeviceClass, DeviceId, GatewayResult, PaymentId, PaymentStatus,
    Receipt, RefusalCode, Restriction, cbor,
};

use crate::attested::Described;
use crate::disk::{Disk, Index};
use crate::gateway::{Said, What};
use crate::limits::{Limits, POLICY_KEY};
use crate::profile::Profile;
use crate::wallet::{Approval, Return};
use crate::wire::{self, PayMessage};

/// What is asked of the hub.
#[derive(Clone, Debug)]
pub(crate) enum Ask<'a> {
    Pay(&'a PayMessage),
    Void(DeviceId, PaymentId),
    Status(DeviceId, PaymentId),
    Enrol(DeviceId, DeviceClass),
    Activate(&'a Limits),
    Block(DeviceId, bool),
    Drain,
    Release(PaymentId, bool),
    Close(PaymentId, Finding),
    Overview,
    Allowance(DeviceId, Option<u64>),
    Sync(&'a Approval),
    Return(DeviceId, &'a Return),
    Forfeit(DeviceId),
    Lift(Option<DeviceId>),
    Describe(&'a Described),
}

/// The most that may be loaded from the index in a row. No run of the seeds 1
/// to 120,000 comes to it.
const MOST_LOADS: u32 = 10_000;

/// What the hub wants done.
#[derive(Clone, Debug)]
pub(crate) enum Out {
    Append {
        payload: Vec<u8>,
        card: Option<PaymentId>,
    },
    Reply {
        ticket: u64,
        answer: Answer,
    },
    Forward(Forward),
    Push(DeviceId, PaymentStatus),
    EraseCard(PaymentId),
    /// The core does what it never may, whatever it is told: why.
    Broken(String),
}

/// An attempt to make at the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward {
    pub(crate) attempt: u64,
    pub(crate) id: PaymentId,
    pub(crate) what: What,
    pub(crate) request_sequence: u64,
    pub(crate) deadline_ms: u64,
    pub(crate) maybe_sent: bool,
}

/// What somebody is told.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Receipt(Box<Receipt>),
    Status(Box<PaymentStatus>, Option<Box<Receipt>>),
    Refused(RefusalCode),
    Registered,
    PolicyActive,
    Done,
    /// What a device may approve by itself, and how far it has come.
    Allowance(Box<Allowance>, AllowanceChain),
    /// The decision on a payment that the device approved.
    Synced(Box<Receipt>),
    /// The allowance of this number is closed.
    Returned(u64),
    Standing(Box<Standing>),
    Other,
}

/// How the hub stands, as a person is told.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// The newest entry.
    pub(crate) newest: u64,
    /// Of the store: its exposure, and how many in a row.
    pub(crate) at_risk: (u64, u32),
    /// Payments to be sent, to be reversed, and parked.
    pub(crate) waiting: (usize, usize, usize),
    /// Open allowances by device: number, and what is kept back.
    pub(crate) allowances: Vec<(DeviceId, u64, (u64, u32))>,
    /// Where offline approvals are restricted, the store first.
    pub(crate) restricted: Vec<(Option<DeviceId>, Restriction)>,
}

/// One life of the hub's process.
#[derive(Debug)]
pub(crate) struct Shell {
    core: Core,
    /// What the core wants of the index.
    loads: Vec<(Lane, u64, usize)>,
}

/// A disk that cannot be opened: what the core said.
pub(crate) struct NotOpened(pub(crate) String);

impl Shell {
    /// Opens the disk and starts.
    pub(crate) fn start(
        disk: &mut Disk,
        profile: &Profile,
        boot: u64,
        seed: u64,
        (torn_bytes, away): (u64, bool),
        now: Now,
    ) -> Result<(Self, Vec<Out>), NotOpened> {
        let state = open(disk)?;
        let mut settings = Settings::new(wire::HUB, wire::STORE, Currency::EUR);
        settings.seal = Some(wire::SEAL.clone());
        settings.max_remembered = profile.max_remembered;
        settings.max_cards = profile.max_remembered;
        settings.queue_window = profile.max_remembered;
        settings.max_queue = profile.max_queue;
        settings.max_in_flight = profile.max_in_flight;
        settings.abandoned_after_ms = profile.abandoned_after_ms;
        settings.boot[..8].copy_from_slice(&boot.to_be_bytes());
        settings.seed = seed;
        settings.away = away;
        if profile.acquirer {
            settings.looks_up = false;
            settings.presents_again = false;
        }
        if profile.retention_ms > 0 {
            settings.idempotency_retention_ms = profile.retention_ms;
        }
        if profile.undecided_ms > 0 {
            settings.undecided_after_ms = profile.undecided_ms;
        }
        let (core, effects) = Core::start(settings, state, torn_bytes, "sim", now);
        let mut shell = Self {
            core,
            loads: Vec::new(),
        };
        let mut outs = shell.translate(effects);
        outs.extend(shell.load(&disk.index, now));
        Ok((shell, outs))
    }

    /// Serves what the core wants of the index.
    pub(crate) fn load(&mut self, index: &Index, now: Now) -> Vec<Out> {
        let mut outs = Vec::new();
        let mut loads = 0;
        while let Some((lane, after, limit)) = self.loads.pop() {
            loads += 1;
            if loads > MOST_LOADS {
                let text = format!("it asks for {lane:?} after {after} again and again");
                outs.push(Out::Broken(text));
                break;
            }
            let prefix = lane.prefix();
            let behind = index.values().range(lane.key(after + 1)..);
            let behind = behind.take_while(|(key, _)| key.starts_with(&prefix));
            let found: Vec<_> = behind
                .filter_map(|(key, id)| {
                    let place = key.get(prefix.len()..)?.try_into().ok()?;
                    let id = PaymentId(id.as_slice().try_into().ok()?);
                    Some((u64::from_be_bytes(place), recalled(index, id)?))
                })
                .take(limit)
                .collect();
            let end = found.len() < limit;
            outs.extend(self.handle(Input::QueueLoaded { lane, found, end }, now));
        }
        outs
    }

    /// Hands over what the core has let go of a payment, and of a card.
    fn recall(&mut self, id: PaymentId, card: Option<CardKey>, index: &Index, now: Now) -> Vec<Out> {
        let unknown = Some(id).filter(|id| !self.core.knows(id));
        let payments = unknown.and_then(|id| recalled(index, id)).into_iter().collect();
        let card = card.filter(|card| !self.core.knows_card(card));
        let cards = card
            .map(|card| (card, card_in(index, &card)))
            .into_iter()
            .collect();
        self.handle(Input::Recalled { payments, cards }, now)
    }

    pub(crate) fn ask(&mut self, ask: &Ask<'_>, ticket: u64, index: &Index, now: Now) -> Vec<Out> {
        let ticket = Ticket(ticket);
        let operator = |command| Input::Operator {
            ticket,
            operator: "anna".to_owned(),
            command,
        };
        let mut outs = match *ask {
            Ask::Pay(message) => {
                let card = CardKey::of_token(&message.request.card.token);
                self.recall(message.request.payment_id, Some(card), index, now)
            }
            Ask::Sync(approval) => {
                let request = &approval.message.request;
                let card = CardKey::of_token(&request.card.token);
                self.recall(request.payment_id, Some(card), index, now)
            }
            Ask::Void(_, id) | Ask::Status(_, id) | Ask::Release(id, _) | Ask::Close(id, _) => {
                self.recall(id, None, index, now)
            }
            _ => Vec::new(),
        };
        let input = match *ask {
            Ask::Pay(message) => Input::Pay {
                ticket,
                device: message.device,
                recalled: None,
                request: Box::new(message.request.clone()),
                signed: message.signed.clone(),
                sealed_card: message.sealed_card.clone(),
            },
            Ask::Void(device, id) => {
                let (request, signed) = wire::void(id);
                Input::Void {
                    ticket,
                    device,
                    request,
                    signed,
                    recalled: None,
                }
            }
            Ask::Status(device, payment_id) => Input::Status {
                ticket,
                device,
                payment_id,
                recalled: None,
            },
            Ask::Enrol(device, class) => Input::Enrol {
                ticket,
                registration: Box::new(wire::registration(device, class)),
            },
            // Drawn ones have spans that overlap and lists of nothing, as a policy of
            // an older program may.
            Ask::Activate(limits) => match Policy::parse_taken(limits.text().as_bytes()) {
                Ok(policy) => Input::Activate {
                    ticket: Some(ticket),
                    policy: Box::new(policy),
                    signed: limits.signed(),
                    key: POLICY_KEY,
                },
                Err(faults) => return vec![Out::Broken(format!("the policy is not read: {faults:?}"))],
            },
            Ask::Block(device, true) => operator(OperatorCommand::Block(device)),
            Ask::Block(device, false) => operator(OperatorCommand::Unblock(device)),
            Ask::Drain => operator(OperatorCommand::Drain),
            Ask::Release(payment_id, not_there) => operator(OperatorCommand::Release {
                payment_id,
                not_there,
            }),
            Ask::Close(payment_id, finding) => operator(OperatorCommand::Close {
                payment_id,
                finding,
                note: "the desk".to_owned(),
            }),
            Ask::Overview => operator(OperatorCommand::Overview),
            Ask::Allowance(device, closed) => Input::Allowance {
                ticket,
                device,
                closed,
            },
            Ask::Sync(approval) => Input::Sync {
                ticket,
                device: approval.device,
                request: Box::new(approval.message.request.clone()),
                signed: approval.message.signed.clone(),
                sealed_card: approval.message.sealed_card.clone(),
                receipt: Box::new(approval.receipt.clone()),
                signed_receipt: approval.signed.clone(),
                recalled: None,
            },
            Ask::Return(device, said) => Input::Return {
                ticket,
                device,
                statement: said.statement,
                signed: said.signed.clone(),
            },
            Ask::Forfeit(device) => operator(OperatorCommand::ForfeitAllowance(device)),
            Ask::Describe(said) => Input::Describe {
                ticket,
                device: said.device,
                description: Box::new(said.description.clone()),
                signed: said.signed.clone(),
                attestation: said.attestation.clone(),
            },
            Ask::Lift(device) => operator(OperatorCommand::Lift(device)),
        };
        outs.extend(self.handle(input, now));
        outs
    }

    pub(crate) fn appended(&mut self, durable: usize, now: Now) -> Vec<Out> {
        let sequence = u64::try_from(durable).unwrap_or_default();
        self.handle(Input::Appended { sequence }, now)
    }

    pub(crate) fn gateway(&mut self, attempt: u64, said: &Said, latency_ms: u64, now: Now) -> Vec<Out> {
        let attempt = AttemptId(attempt);
        let answer = answer(said);
        self.handle(
            Input::Gateway {
                attempt,
                answer,
                latency_ms,
            },
            now,
        )
    }

    pub(crate) fn probe(&mut self, ok: bool, gateway_time_ms: Option<u64>, now: Now) -> Vec<Out> {
        let probe = Probe {
            ok,
            latency_ms: 20,
            gateway_time_ms,
        };
        self.handle(Input::Probe(probe), now)
    }

    /// A request came that its device has not signed.
    pub(crate) fn bad_signature(&mut self, device: DeviceId, now: Now) -> Vec<Out> {
        self.handle(Input::BadSignature { device }, now)
    }

    pub(crate) fn storage(&mut self, level: StorageLevel, free_bytes: u64, now: Now) -> Vec<Out> {
        self.handle(Input::Storage { level, free_bytes }, now)
    }

    pub(crate) fn tick(&mut self, now: Now) -> Vec<Out> {
        self.handle(Input::Tick, now)
    }

    pub(crate) fn stop(&mut self, now: Now) -> Vec<Out> {
        self.handle(Input::Stop, now)
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.core.has_stopped()
    }

    pub(crate) fn wake_ms(&self) -> Option<u64> {
        self.core.next_wake_ms()
    }

    /// Hands over what changed since the last time.
    pub(crate) fn collect_changes(&mut self, index: &mut Index) {
        let state = self.core.state_mut();
        if state.dirty_len() > 0 {
            let head = state.head().sequence;
            index.waiting.push((state.take_dirty(), head));
        }
    }

    pub(crate) fn indexed(&mut self, sequence: u64) {
        self.core.indexed(sequence);
    }

    /// The most attempts of the backlog under way.
    pub(crate) fn most_in_flight(profile: &Profile) -> usize {
        profile.max_in_flight
    }

    /// The same while a customer waits or the gateway struggles.
    pub(crate) fn most_in_flight_beside_live(profile: &Profile) -> usize {
        (profile.max_in_flight / 4).max(1)
    }

    fn handle(&mut self, input: Input, now: Now) -> Vec<Out> {
        let effects = self.core.handle(input, now);
        self.translate(effects)
    }

    fn translate(&mut self, effects: Vec<Effect>) -> Vec<Out> {
        effects
            .into_iter()
            .filter_map(|effect| {
                Some(match effect {
                    Effect::Append {
                        payload, sealed_card, ..
                    } => Out::Append {
                        payload,
                        card: sealed_card.map(|(id, _)| id),
                    },
                    Effect::Reply { ticket, reply } => Out::Reply {
                        ticket: ticket.0,
                        answer: match reply {
                            Reply::Receipt(receipt) => Answer::Receipt(receipt),
                            Reply::Status { status, receipt } => Answer::Status(status, receipt),
                            Reply::Refused(refusal) => Answer::Refused(refusal.code),
                            Reply::Registered(_) => Answer::Registered,
                            Reply::Described { .. } | Reply::KeysChanged { .. } => Answer::Done,
                            Reply::PolicyActive { .. } => Answer::PolicyActive,
                            Reply::Operator(OperatorReply::Done) => Answer::Done,
                            Reply::Operator(OperatorReply::Overview(told)) => {
                                Answer::Standing(Box::new(standing(&told)))
                            }
                            Reply::Allowance { allowance, chain } => Answer::Allowance(allowance, chain),
                            Reply::Synced(receipt) => Answer::Synced(receipt),
                            Reply::Returned { number } => Answer::Returned(number),
                            Reply::Operator(_) => Answer::Other,
                        },
                    },
                    Effect::Forward(forward) => Out::Forward(Forward {
                        attempt: forward.attempt.0,
                        maybe_sent: forward.maybe_sent,
                        id: forward.payment_id,
                        what: match forward.operation {
                            Operation::AuthoriseOnline => What::Online,
                            Operation::AuthoriseDeferred => What::Deferred,
                            Operation::Advice => What::Advice,
                            Operation::Reverse => What::Reverse,
                            Operation::LookUp => What::LookUp,
                        },
                        request_sequence: forward.request_sequence,
                        deadline_ms: forward.deadline_ms,
                    }),
                    Effect::Push { device, status } => Out::Push(device, status),
                    Effect::EraseCard { payment_id } => Out::EraseCard(payment_id),
                    Effect::LoadQueue { lane, after, limit } => {
                        self.loads.push((lane, after, limit));
                        return None;
                    }
                    Effect::PushPolicy { .. }
                    | Effect::ChangeHubKey { .. }
                    | Effect::Outage { .. }
                    | Effect::HubKeyChanged { .. }
                    | Effect::HubTlsKeys { .. }
                    | Effect::DeviceKeys { .. }
                    | Effect::DeviceChanged { .. }
                    | Effect::WanChanged { .. }
                    | Effect::FleetTokens { .. }
                    | Effect::RestrictionChanged { .. }
                    | Effect::AllowanceMisused { .. } => {
                        return None;
                    }
                })
            })
            .collect()
    }
}

fn standing(told: &Overview) -> Standing {
    let open = told.allowances.iter();
    let restricted = told
        .restricted
        .iter()
        .map(|one| (one.device, one.restriction))
        .filter(|(_, restriction)| *restriction != Restriction::None);
    Standing {
        restricted: restricted.collect(),
        newest: told.sequence,
        at_risk: (told.exposure_minor, told.consecutive),
        waiting: (told.queued, told.reversals_queued, told.parked),
        allowances: open
            .map(|open| {
                (
                    open.device,
                    open.number,
                    (open.reserved.minor, open.reserved.count),
                )
            })
            .collect(),
    }
}

fn recalled(index: &Index, payment_id: PaymentId) -> Option<Recalled> {
    let record: PaymentRecord = cbor::decode(index.get(&State::payment_key(&payment_id))?).ok()?;
    let card = card_in(index, &record.card);
    Some(Recalled {
        payment_id,
        record,
        card,
    })
}

fn card_in(index: &Index, card: &CardKey) -> CardRecord {
    let value = index.get(&State::card_key(card));
    value
        .and_then(|value| cbor::decode(value).ok())
        .unwrap_or_default()
}

fn answer(said: &Said) -> GatewayAnswer {
    let last = |approved: bool, code: &str| {
        GatewayAnswer::Final(GatewayResult {
            approved,
            response_code: code.to_owned(),
            authorisation_code: None,
            reference: Some("gw".to_owned()),
        })
    };
    let detail = String::new;
    match said {
        Said::Approved | Said::Reversed => last(true, "00"),
        Said::Declined => last(false, "51"),
        Said::ReversalRefused => last(false, "21"),
        Said::Pending { retry_after_ms } => GatewayAnswer::Pending {
            retry_after_ms: *retry_after_ms,
        },
        Said::OtherBytes => GatewayAnswer::Conflict { detail: detail() },
        Said::Throttled { retry_after_ms } => GatewayAnswer::Throttled {
            retry_after_ms: *retry_after_ms,
        },
        Said::RefusesMessage => GatewayAnswer::RefusesMessage { detail: detail() },
        Said::RefusesHub => GatewayAnswer::RefusesHub { detail: detail() },
        Said::Broken { retry_after_ms } => GatewayAnswer::Broken {
            retry_after_ms: *retry_after_ms,
            detail: detail(),
        },
        Said::Wrong | Said::Silence => GatewayAnswer::NoAnswer { detail: detail() },
        Said::NotFound => GatewayAnswer::NotFound,
        Said::CardMissing => GatewayAnswer::CardMissing,
        Said::CannotBeAsked => GatewayAnswer::Unsendable {
            detail: "ask its desk".to_owned(),
        },
    }
}

/// From the disk to the folded state: the index and the journal's tail, or
/// the journal alone. Cards that no payment needs any more are destroyed.
fn open(disk: &mut Disk) -> Result<State, NotOpened> {
    let mut state = match disk.index.batches() {
        0 => State::default(),
        _ => restore(disk)?,
    };
    let from = usize::try_from(state.head().sequence).unwrap_or_default();
    for record in disk.records.get(from..disk.durable).unwrap_or_default() {
        let request = State::request_in(&record.entry).map_err(|e| NotOpened(e.to_string()))?;
        if let Some(request) = request {
            let card = CardKey::of_token(&request.card.token);
            state.recall_card(card, card_in(&disk.index, &card));
        } else if let Some(id) = record.entry.event.payment_id()
            && let Some(found) = recalled(&disk.index, id)
        {
            state.recall(found);
        }
        state
            .apply(&record.entry, record.digest)
            .map_err(|e| NotOpened(e.to_string()))?;
    }
    let head = state.head().sequence;
    let changes = state.take_dirty();
    if head > 0 {
        disk.index.waiting.push((changes, head));
        disk.index.write(disk.durable);
    }
    state.evict_all();
    let index = &disk.index;
    let needed = |id: &PaymentId| recalled(index, *id).is_some_and(|found| found.record.needs_card());
    disk.cards.retain(needed);
    let held = index.values().range(State::HELD.to_vec()..);
    for (_, id) in held.take_while(|(key, _)| key.starts_with(State::HELD)) {
        let id = id.as_slice().try_into().map(PaymentId);
        if let Some(found) = id.ok().and_then(|id| recalled(index, id)) {
            state.recall(found);
        }
    }
    Ok(state)
}

fn restore(disk: &Disk) -> Result<State, NotOpened> {
    let wrong = |what: &str| NotOpened(format!("the index: {what}"));
    let sequence = disk.index.head();
    let digest = disk
        .read(sequence)
        .ok_or_else(|| wrong("ahead of the journal"))?
        .digest;
    let mut state = State::default();
    let small = |key: &[u8]| State::RESTORED.iter().any(|prefix| key.starts_with(prefix));
    for (key, value) in disk.index.values().iter().filter(|(key, _)| small(key)) {
        state.restore(key, value).map_err(|e| wrong(&e.to_string()))?;
    }
    let policy = match state.store().policy_sequence.map(|sequence| disk.read(sequence)) {
        None => None,
        Some(Some(record)) => match &record.entry.event {
            Event::PolicyActivated { policy, .. } => Some(policy.clone()),
            _ => return Err(wrong("names an entry that holds no policy")),
        },
        Some(None) => return Err(wrong("names an entry that is not there")),
    };
    state.restored(Head { sequence, digest }, policy.as_deref());
    Ok(state)
}

/// A record of the index.
pub(crate) type KeyAndValue = (Vec<u8>, Vec<u8>);

/// The index as it would be, had it been built from the journal alone.
pub(crate) fn index_from_scratch(disk: &Disk) -> Result<Vec<KeyAndValue>, NotOpened> {
    let mut state = State::default();
    for record in disk.records.get(..disk.durable).unwrap_or_default() {
        state
            .apply(&record.entry, record.digest)
            .map_err(|e| NotOpened(e.to_string()))?;
    }
    let mut all: Vec<_> = state
        .take_dirty()
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    all.sort();
    Ok(all)
}
