//! The hub: one thread that selects the next input, calls the core, and
//! carries out the effects. The only place that sees the core and all edges.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ed25519_dalek::SigningKey;
use hub_core::admission::{Access, FleetToken};
use hub_core::device_keys::DeviceKeys;
use hub_core::state::{CardKey, CardRecord, Head, Lane, PaymentRecord, Recalled, State};
use hub_core::{Core, Effect, Forward, Input, OperatorCommand, Reply, Ticket};
use hub_protocol::entry::{WanReason, WanState};
use hub_protocol::{
    AllowanceMisuse, CommittedGroup, DeviceId, HubTlsKeys, PaymentId, PaymentStatus, Refusal, RefusalCode,
    Registration, Restriction, RestrictionCause, SealedCard, SignedKeyChange, cbor,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;

use crate::clock;
use crate::port::{Answered, Ask, Message, Proof, Tell};

/// The most messages handled before the index is looked after.
const BATCH: usize = 256;

/// Changes go to the index when so many keys have changed, or after
/// [`INDEX_EVERY_MS`].
const INDEX_KEYS: usize = 2048;

/// The most batches that wait for the index here.
const MOST_FOR_INDEX: usize = 16;

/// How long changes wait for the index, in milliseconds.
const INDEX_EVERY_MS: u64 = 200;

/// The longest the hub sleeps without looking at the clock.
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// A batch of index changes and the entry up to which they hold.
pub type IndexBatch = (Vec<(Vec<u8>, Option<Vec<u8>>)>, Head);

/// Keys and values of the index, in the order of the keys.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What the hub asks of its edges. Implemented once, in `run.rs`, over the
/// real ones. No call may block for long.
pub trait Edges: Send {
    /// Make the entry durable with the sealed card, under a signature that
    /// stands for the receipt too. False once the ledger has failed.
    fn append(
        &mut self,
        sequence: u64,
        payload: Vec<u8>,
        card: Option<(PaymentId, SealedCard)>,
        receipt: Option<Vec<u8>>,
    ) -> bool;
    /// The entry that is appended next begins an outage or ends one.
    fn outage(&mut self, sequence: u64, begins: bool);
    /// The last entry on disk.
    fn durable_head(&self) -> Head;
    /// Both keys' signatures on a change of the hub's signing key at an entry.
    fn sign_key_change(&mut self, sequence: u64, next: SigningKey, now_ms: u64) -> SignedKeyChange;
    /// The change that was signed last is at this entry, which is appended
    /// next. False once the ledger has failed.
    fn change_key(&mut self, sequence: u64) -> bool;
    /// The change is on disk: tell devices.
    fn push_key_change(&mut self, statement: SignedKeyChange);
    /// Be reached under these TLS keys; the entry is on disk.
    fn push_tls_keys(&mut self, keys: HubTlsKeys);
    /// A device has other keys, or its old TLS key counts no more; the entry is
    /// on disk.
    fn device_keys(&mut self, device: DeviceId, keys: DeviceKeys);
    /// Destroy a sealed card.
    fn erase_card(&mut self, payment_id: PaymentId);
    /// Send something to the gateway.
    fn forward(&mut self, forward: Forward);
    /// Tell a device where its payment stands.
    fn push_status(&mut self, device: DeviceId, status: PaymentStatus);
    /// Tell all devices that another policy is in force.
    fn push_policy(&mut self, version: u64);
    /// A device may, or may no longer, connect.
    fn device_changed(&mut self, registration: &Registration, access: Access);
    /// The tokens of fleets are these from now on.
    fn fleet_tokens(&mut self, tokens: Vec<FleetToken>);
    /// The connectivity changed.
    fn wan_changed(&mut self, state: WanState, reason: WanReason);
    /// Offline approvals became restricted, or free again.
    fn restriction_changed(
        &mut self,
        device: Option<DeviceId>,
        restriction: Restriction,
        cause: RestrictionCause,
    );
    /// A device misused an allowance: nothing is approved offline for it until
    /// a person lifts that.
    fn allowance_misused(&mut self, device: DeviceId, number: u64, kind: AllowanceMisuse);
    /// Write changes to the index. Gives them back if it has too much to do.
    fn index(&mut self, batch: IndexBatch) -> Option<IndexBatch>;
    /// Finish what was handed over, with `last` for the index, and end. False
    /// if it could not be finished.
    fn finish(self, last: VecDeque<IndexBatch>) -> bool;
    /// Look into the index.
    ///
    /// # Errors
    /// The index cannot be read; nobody knows then whether it has the key.
    fn recall(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;
    /// The first records of the index at or behind the key `from` whose keys
    /// begin with `prefix`, at most `limit`.
    ///
    /// # Errors
    /// As [`recall`](Self::recall).
    fn recall_range(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Records, String>;
    /// What the index says makes no sense: the next start is to build it anew.
    fn distrust_index(&self);
    /// The newest entry whose changes the index answers for.
    fn indexed(&self) -> u64;
}

/// How far the ledger's threads have come. They never wait for the hub, which
/// waits for them when they have too much to do.
#[derive(Debug, Default)]
pub struct Marks {
    /// The newest entry on disk.
    pub durable: AtomicU64,
    /// The receipts of groups that are on disk, in order, until the hub
    /// fetches them.
    receipts: Mutex<Vec<Arc<CommittedGroup>>>,
}

impl Marks {
    /// Takes note of a group that is on disk. Its receipts are there before
    /// the mark says so.
    pub fn committed(&self, sequence: u64, receipts: Option<CommittedGroup>) {
        if let Some(group) = receipts {
            self.receipts().push(Arc::new(group));
        }
        self.durable.store(sequence, Ordering::Release);
    }

    fn receipts(&self) -> MutexGuard<'_, Vec<Arc<CommittedGroup>>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The core, who waits for it, and its edges.
pub struct Hub<E> {
    core: Core,
    edges: E,
    messages: mpsc::Receiver<Message>,
    waiting: HashMap<Ticket, oneshot::Sender<Answered>>,
    next_ticket: u64,
    /// Groups on disk whose receipts have not been given out.
    groups: VecDeque<Arc<CommittedGroup>>,
    /// Index changes whose entries are not on disk yet: the index is never
    /// ahead of the journal.
    for_index: VecDeque<IndexBatch>,
    /// What the core wants of the index.
    loads: VecDeque<(Lane, u64, usize)>,
    indexed_at_ms: u64,
    marks: Arc<Marks>,
    durable: u64,
}

impl<E: Edges> Hub<E> {
    /// A hub over a core that has just started; `effects` are its first.
    /// `None` if the ledger failed at once.
    pub fn new(
        core: Core,
        effects: Vec<Effect>,
        edges: E,
        messages: mpsc::Receiver<Message>,
        marks: Arc<Marks>,
    ) -> Option<Self> {
        let mut hub = Self {
            core,
            edges,
            messages,
            waiting: HashMap::new(),
            next_ticket: 0,
            groups: VecDeque::new(),
            for_index: VecDeque::new(),
            loads: VecDeque::new(),
            indexed_at_ms: clock::monotonic_ms(),
            marks,
            durable: 0,
        };
        hub.carry_out(effects).then_some(hub)
    }

    /// Runs until the hub is told to stop and everything is on disk, or the
    /// ledger fails. Returns whether it stopped in good order.
    pub fn run(mut self, runtime: &tokio::runtime::Handle) -> bool {
        loop {
            let alive = match self.next_message(runtime) {
                Some(Ok(message)) => self.take(message) && self.take_more(),
                Some(Err(_)) => self.handle(Input::Tick),
                None => return false,
            };
            if !alive || !self.read_marks() || !self.load() {
                return false;
            }
            self.look_after_index();
            if self.core.has_stopped() {
                self.collect_changes();
                return self.edges.finish(self.for_index);
            }
        }
    }

    /// The next message, or that it is time to look at the clock; `None` once
    /// nobody can ask any more.
    fn next_message(&mut self, runtime: &tokio::runtime::Handle) -> Option<Result<Message, Elapsed>> {
        // Under load there is one, and no timer needs to be set.
        if let Ok(message) = self.messages.try_recv() {
            return Some(Ok(message));
        }
        let sleep = self.sleep();
        runtime
            .block_on(async { tokio::time::timeout(sleep, self.messages.recv()).await })
            .transpose()
    }

    fn sleep(&self) -> Duration {
        if !self.loads.is_empty() {
            return Duration::ZERO;
        }
        let until = self.core.next_wake_ms();
        until.map_or(LONGEST_SLEEP, |at| {
            Duration::from_millis(at.saturating_sub(clock::monotonic_ms())).min(LONGEST_SLEEP)
        })
    }

    fn take_more(&mut self) -> bool {
        for _ in 1..BATCH {
            match self.messages.try_recv() {
                Ok(message) => {
                    if !self.take(message) {
                        return false;
                    }
                }
                Err(_) => break,
            }
        }
        true
    }

    fn take(&mut self, message: Message) -> bool {
        match message {
            Message::Ask(ask, sender) => {
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                match self.input(*ask, ticket) {
                    Ok(input) => {
                        self.waiting.insert(ticket, sender);
                        self.handle(input)
                    }
                    Err(refusal) => {
                        let _ = sender.send(Reply::Refused(refusal).into());
                        true
                    }
                }
            }
            Message::Tell(Tell::Wake) => self.read_marks(),
            Message::Tell(tell) => {
                let input = match tell {
                    Tell::Gateway {
                        attempt,
                        answer,
                        latency_ms,
                    } => Input::Gateway {
                        attempt,
                        answer,
                        latency_ms,
                    },
                    Tell::SpreadAsked { window_ms } => Input::SpreadAsked { window_ms },
                    Tell::Probe(probe) => Input::Probe(probe),
                    Tell::BadSignature { device } => Input::BadSignature { device },
                    Tell::TwoPlaces { device, returns } => Input::TwoPlaces { device, returns },
                    Tell::KeysUsed { device, old } => Input::DeviceKeysUsed { device, old },
                    Tell::CardNumber { device } => Input::CardNumber { device },
                    Tell::Storage { level, free_bytes } => Input::Storage { level, free_bytes },
                    Tell::Stop => Input::Stop,
                    Tell::Wake => Input::Tick,
                };
                self.handle(input)
            }
        }
    }

    /// Takes note of how far the ledger's threads have come.
    fn read_marks(&mut self) -> bool {
        self.core.indexed(self.edges.indexed());
        let durable = self.marks.durable.load(Ordering::Acquire);
        if durable <= self.durable {
            return true;
        }
        self.durable = durable;
        self.groups.extend(self.marks.receipts().drain(..));
        let alive = self.handle(Input::Appended { sequence: durable });
        // Whoever asks again for these gets a statement of his own.
        while self.groups.front().is_some_and(|group| group.last() <= durable) {
            self.groups.pop_front();
        }
        alive
    }

    fn input(&mut self, ask: Ask, ticket: Ticket) -> Result<Input, Refusal> {
        Ok(match ask {
            Ask::Pay {
                device,
                request,
                signed,
                sealed_card,
            } => {
                let card = CardKey::of_token(&request.card.token);
                self.recall(Some(&request.payment_id), Some(card))?;
                Input::Pay {
                    ticket,
                    device,
                    request,
                    signed,
                    sealed_card,
                    recalled: None,
                }
            }
            Ask::Void {
                device,
                request,
                signed,
            } => {
                self.recall(Some(&request.payment_id), None)?;
                Input::Void {
                    ticket,
                    device,
                    request,
                    signed,
                    recalled: None,
                }
            }
            Ask::Status { device, payment_id } => {
                self.recall(Some(&payment_id), None)?;
                Input::Status {
                    ticket,
                    device,
                    payment_id,
                    recalled: None,
                }
            }
            Ask::Describe {
                device,
                description,
                signed,
                attestation,
            } => Input::Describe {
                ticket,
                device,
                description,
                signed,
                attestation,
            },
            Ask::ChangeDeviceKeys {
                device,
                change,
                signed,
            } => Input::ChangeDeviceKeys {
                ticket,
                device,
                change,
                signed,
            },
            Ask::Allowance { device, closed } => Input::Allowance {
                ticket,
                device,
                closed,
            },
            Ask::Sync {
                device,
                request,
                signed,
                sealed_card,
                receipt,
                signed_receipt,
            } => {
                let card = CardKey::of_token(&request.card.token);
                self.recall(Some(&request.payment_id), Some(card))?;
                Input::Sync {
                    ticket,
                    device,
                    request,
                    signed,
                    sealed_card,
                    receipt,
                    signed_receipt,
                    recalled: None,
                }
            }
            Ask::SyncRefused {
                device,
                receipt,
                signed_receipt,
                refusal,
            } => Input::SyncRefused {
                ticket,
                device,
                receipt,
                signed_receipt,
                refusal,
            },
            Ask::Return {
                device,
                statement,
                signed,
            } => Input::Return {
                ticket,
                device,
                statement,
                signed,
            },
            Ask::Enrol { registration } => Input::Enrol { ticket, registration },
            Ask::Join {
                registration,
                joining,
            } => Input::Join {
                ticket,
                registration,
                joining,
            },
            Ask::Activate { policy, signed, key } => Input::Activate {
                ticket: Some(ticket),
                policy,
                signed,
                key,
            },
            Ask::Archive(change) => Input::Archive { ticket, change },
            Ask::ChangeHubKey { operator, next } => {
                // What the clock has to say comes before the entry that the
                // statement is for.
                let now = clock::now();
                let effects = self.core.handle(Input::Tick, now);
                self.carry_out(effects);
                let sequence = self.core.state().head().sequence + 1;
                Input::ChangeHubKey {
                    ticket,
                    statement: self.edges.sign_key_change(sequence, next, now.wall_ms),
                    operator,
                }
            }
            Ask::Operator { operator, command } => {
                if let OperatorCommand::Release { payment_id, .. }
                | OperatorCommand::Close { payment_id, .. }
                | OperatorCommand::Park(payment_id) = &command
                {
                    self.recall(Some(payment_id), None)?;
                }
                Input::Operator {
                    ticket,
                    operator,
                    command,
                }
            }
        })
    }

    /// Hands over what an input needs that the core has let go: of a payment
    /// the card too. If nobody can tell what is known, nothing is decided.
    fn recall(&mut self, id: Option<&PaymentId>, card: Option<CardKey>) -> Result<(), Refusal> {
        let recalled = id
            .filter(|id| !self.core.knows(id))
            .map(|id| self.recall_payment(*id))
            .transpose();
        let card = card
            .filter(|card| !self.core.knows_card(card))
            .map(|card| self.recall_card(&card).map(|record| (card, record)))
            .transpose();
        let found = recalled.and_then(|recalled| Ok((recalled.flatten(), card?)));
        let (payment, card) = found.map_err(|error| {
            tracing::error!(
                error,
                "the index cannot be read; stop the hub and start it again to build it anew"
            );
            Refusal::new(
                RefusalCode::LedgerUnavailable,
                "the ledger's index cannot be read; tell the manager",
            )
        })?;
        if payment.is_some() || card.is_some() {
            // Nothing comes between this and the input that it is for.
            let effects = self.core.handle(
                Input::Recalled {
                    payments: payment.into_iter().collect(),
                    cards: card.into_iter().collect(),
                },
                clock::now(),
            );
            self.carry_out(effects);
        }
        Ok(())
    }

    fn recall_payment(&self, payment_id: PaymentId) -> Result<Option<Recalled>, String> {
        let Some(value) = self.edges.recall(&State::payment_key(&payment_id))? else {
            return Ok(None);
        };
        let record: PaymentRecord = cbor::decode(&value).map_err(|error| error.to_string())?;
        let card = self.recall_card(&record.card)?;
        Ok(Some(Recalled {
            payment_id,
            record,
            card,
        }))
    }

    fn recall_card(&self, card: &CardKey) -> Result<CardRecord, String> {
        let value = self.edges.recall(&State::card_key(card))?;
        let record = value.map(|value| cbor::decode(&value)).transpose();
        record
            .map(Option::unwrap_or_default)
            .map_err(|error| error.to_string())
    }

    /// Loads one part of the queue, of those that the core wants. A queue
    /// that cannot be read would stand still: the next start builds the index
    /// anew.
    fn load(&mut self) -> bool {
        let Some((lane, after, limit)) = self.loads.pop_front() else {
            return true;
        };
        match self.read_lane(lane, after, limit) {
            Ok((found, end)) => self.handle(Input::QueueLoaded { lane, found, end }),
            Err(error) => {
                tracing::error!(error, "the queue cannot be read from the index");
                self.edges.distrust_index();
                false
            }
        }
    }

    fn read_lane(
        &self,
        lane: Lane,
        after: u64,
        limit: usize,
    ) -> Result<(Vec<(u64, Recalled)>, bool), String> {
        let prefix = lane.prefix();
        let records = self
            .edges
            .recall_range(&prefix, &lane.key(after.saturating_add(1)), limit)?;
        let end = records.len() < limit;
        let mut found = Vec::with_capacity(records.len());
        for (key, id) in records {
            let place = key.get(prefix.len()..).and_then(|at| at.try_into().ok());
            let (Some(place), Ok(id)) = (place.map(u64::from_be_bytes), id.try_into()) else {
                return Err("a place in the queue is not one".to_owned());
            };
            let recalled = self.recall_payment(PaymentId(id))?;
            found.push((
                place,
                recalled.ok_or("the queue names a payment that is not there")?,
            ));
        }
        Ok((found, end))
    }

    fn handle(&mut self, input: Input) -> bool {
        let effects = self.core.handle(input, clock::now());
        self.carry_out(effects)
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> bool {
        for effect in effects {
            match effect {
                Effect::Append {
                    sequence,
                    payload,
                    sealed_card,
                    receipt,
                } => {
                    if !self.edges.append(sequence, payload, sealed_card, receipt) {
                        return false;
                    }
                }
                Effect::ChangeHubKey { sequence } => {
                    if !self.edges.change_key(sequence) {
                        return false;
                    }
                }
                Effect::Outage { sequence, begins } => self.edges.outage(sequence, begins),
                Effect::HubKeyChanged { statement } => self.edges.push_key_change(statement),
                Effect::HubTlsKeys { keys } => self.edges.push_tls_keys(keys),
                Effect::DeviceKeys { device, keys } => self.edges.device_keys(device, *keys),
                Effect::Reply { ticket, reply } => {
                    if let Some(sender) = self.waiting.remove(&ticket) {
                        // Whoever asked may be gone; he asks again under the
                        // same id.
                        let _ = sender.send(self.prove(reply));
                    }
                }
                Effect::Forward(forward) => self.edges.forward(forward),
                Effect::LoadQueue { lane, after, limit } => self.loads.push_back((lane, after, limit)),
                Effect::Push { device, status } => self.edges.push_status(device, status),
                Effect::PushPolicy { version } => self.edges.push_policy(version),
                Effect::DeviceChanged { registration, access } => {
                    self.edges.device_changed(&registration, access)
                }
                Effect::FleetTokens { tokens } => self.edges.fleet_tokens(tokens),
                Effect::EraseCard { payment_id } => self.edges.erase_card(payment_id),
                Effect::WanChanged { state, reason } => self.edges.wan_changed(state, reason),
                Effect::RestrictionChanged {
                    device,
                    restriction,
                    cause,
                } => self.edges.restriction_changed(device, restriction, cause),
                Effect::AllowanceMisused { device, number, kind } => {
                    self.edges.allowance_misused(device, number, kind)
                }
            }
        }
        true
    }

    /// Puts to a reply what its receipt rests on: the group that was flushed
    /// with its entry, or for an earlier one the ledger's durable end.
    fn prove(&self, reply: Reply) -> Answered {
        let sequence = match &reply {
            Reply::Receipt(receipt)
            | Reply::Synced(receipt)
            | Reply::Status {
                receipt: Some(receipt),
                ..
            } => receipt.sequence,
            _ => return reply.into(),
        };
        let group = self.groups.iter().find(|group| group.holds(sequence));
        let proof = match group {
            Some(group) => Proof::Group(Arc::clone(group)),
            None => Proof::Earlier(self.edges.durable_head()),
        };
        Answered {
            reply,
            proof: Some(proof),
        }
    }

    fn look_after_index(&mut self) {
        let keys = self.core.state().dirty_len();
        let waited = clock::monotonic_ms().saturating_sub(self.indexed_at_ms);
        // An index that does not keep up gets fewer, larger batches.
        let room = self.for_index.len() < MOST_FOR_INDEX;
        if room && (keys >= INDEX_KEYS || (keys > 0 && waited >= INDEX_EVERY_MS)) {
            self.collect_changes();
        }
        self.release_changes();
    }

    fn collect_changes(&mut self) {
        let state = self.core.state_mut();
        let head = state.head();
        let changes = state.take_dirty();
        self.for_index.push_back((changes, head));
        self.indexed_at_ms = clock::monotonic_ms();
    }

    fn release_changes(&mut self) {
        while self
            .for_index
            .front()
            .is_some_and(|(_, head)| head.sequence <= self.durable)
        {
            let refused = self
                .for_index
                .pop_front()
                .and_then(|batch| self.edges.index(batch));
            if let Some(batch) = refused {
                self.for_index.push_front(batch);
                return;
            }
        }
    }
}
