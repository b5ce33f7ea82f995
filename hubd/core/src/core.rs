//! The machine itself: takes inputs, keeps the order, releases what depends
//! on the disk only when the disk has it.

use std::collections::BTreeMap;

use hub_protocol::entry::{Entry, Event, StorageLevel, WanState};
use hub_protocol::{PaymentId, PaymentRequest, Refusal, RefusalCode, SealedCard, cbor};

use crate::allowance::Synced;
use crate::clock::{Clock, ClockChange, is_set_back};
use crate::closure::Today;
use crate::contact::Contacts;
use crate::effect::{Effect, Reply};
use crate::input::{AttemptId, Input, Now, Probe, Ticket};
use crate::online::OnlineFlights;
use crate::pacing::Pacing;
use crate::queue::{Load, Queue};
use crate::random::Random;
use crate::restrict::Recovery;
use crate::retry::Retries;
use crate::settings::Settings;
use crate::state::{CardKey, Lane, Place, Recalled, State};
use crate::wan::{Evidence, Wan, WanChange};

/// The machine that decides. See the crate's documentation.
#[derive(Debug)]
pub struct Core {
    pub(crate) settings: Settings,
    pub(crate) state: State,
    pub(crate) clock: Clock,
    pub(crate) wan: Wan,
    pub(crate) random: Random,
    pub(crate) now: Now,
    pub(crate) stopping: bool,
    /// The last entry has been made.
    pub(crate) stopped: bool,
    /// Since when periods were looked through; `None`: not yet.
    pub(crate) today: Option<Today>,
    /// Newest entry known to be on disk.
    pub(crate) durable: u64,
    /// Newest entry that the index answers for.
    indexed: u64,
    /// What waits for an entry to be on disk.
    pub(crate) held: BTreeMap<u64, Vec<Effect>>,
    pub(crate) online: OnlineFlights,
    pub(crate) queue: Queue,
    pub(crate) pacing: Pacing,
    pub(crate) contacts: Contacts,
    pub(crate) retries: Retries,
    /// When restrictions end.
    pub(crate) recovery: Recovery,
    /// How much room the disk has.
    pub(crate) storage: StorageLevel,
    /// The last entry of what is being archived; 0 when nothing is.
    pub(crate) archiving: u64,
    /// Nothing is sent out of the queue before this entry is on disk.
    pub(crate) sends_after: u64,
    /// The last entry that changed the hub's signing key; 0 for none.
    pub(crate) hub_key_changes: u64,
    /// Payments in memory that are not about to be sent, oldest first, for
    /// eviction.
    pub(crate) remembered: std::collections::VecDeque<PaymentId>,
    last_attempt: u64,
    pub(crate) out: Vec<Effect>,
}

impl Core {
    /// A core over a folded state, all of whose entries are on disk. The
    /// first effects record the start.
    pub fn start(
        settings: Settings,
        state: State,
        torn_bytes: u64,
        version: &str,
        now: Now,
    ) -> (Self, Vec<Effect>) {
        let store = state.store();
        let clock = Clock::new(settings.boot, store.high_water_ms, store.clock_quality, now);
        let wan = Wan::new(settings.wan, store.wan, store.wan_reason);
        let mut core = Self {
            durable: state.head().sequence,
            indexed: state.head().sequence,
            queue: Queue::restored(&state, &settings, torn_bytes),
            pacing: Pacing::new(settings.max_in_flight, now.monotonic_ms),
            contacts: Contacts::default(),
            retries: Retries::restored(&state),
            online: OnlineFlights::default(),
            recovery: Recovery::default(),
            storage: StorageLevel::Enough,
            archiving: settings.archives_through,
            sends_after: 0,
            hub_key_changes: 0,
            random: Random::new(settings.seed),
            held: BTreeMap::new(),
            remembered: std::collections::VecDeque::new(),
            last_attempt: 0,
            stopping: false,
            stopped: false,
            today: None,
            out: Vec::new(),
            settings,
            state,
            clock,
            wan,
            now,
        };
        core.observe_clock(now);
        core.append(
            Event::HubStarted {
                version: version.to_owned(),
                torn_bytes,
                traces: Some(core.settings.traces),
                away: core.settings.away.then_some(true),
                closes: Some(true),
            },
            None,
            None,
        );
        core.pin_root();
        core.tell_of_recovery();
        core.restrict_after_start();
        core.find_interrupted();
        core.spread_after_start();
        core.load_queue();
        let effects = core.finish();
        (core, effects)
    }

    /// Handles one input and returns what is to be done, in order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        self.observe_clock(now);
        match input {
            Input::Pay {
                ticket,
                device,
                request,
                signed,
                sealed_card,
                recalled,
            } => {
                self.recall(request.payment_id, recalled);
                self.pay(ticket, device, &request, signed, sealed_card);
            }
            Input::Void {
                ticket,
                device,
                request,
                signed,
                recalled,
            } => {
                self.recall(request.payment_id, recalled);
                self.void(ticket, device, &request, signed);
            }
            Input::Status {
                ticket,
                device,
                payment_id,
                recalled,
            } => {
                self.recall(payment_id, recalled);
                self.status(ticket, device, payment_id);
            }
            Input::Describe {
                ticket,
                device,
                description,
                signed,
                attestation,
            } => self.describe(ticket, device, &description, signed, attestation),
            Input::Allowance {
                ticket,
                device,
                closed,
            } => self.give_allowance(ticket, device, closed),
            Input::Sync {
                ticket,
                device,
                request,
                signed,
                sealed_card,
                receipt,
                signed_receipt,
                recalled,
            } => {
                self.recall(request.payment_id, recalled);
                self.sync(
                    ticket,
                    device,
                    Synced {
                        request: &request,
                        signed,
                        sealed_card,
                        receipt: &receipt,
                        signed_receipt,
                    },
                );
            }
            Input::SyncRefused {
                ticket,
                device,
                receipt,
                signed_receipt,
                refusal,
            } => self.sync_refused(ticket, device, &receipt, signed_receipt, refusal),
            Input::Return {
                ticket,
                device,
                statement,
                signed,
            } => self.return_allowance(ticket, device, &statement, signed),
            Input::Enrol { ticket, registration } => self.enrol(ticket, *registration),
            Input::Join {
                ticket,
                registration,
                joining,
            } => self.join(ticket, *registration, joining),
            Input::TwoPlaces { device, returns } => self.two_places(device, returns),
            Input::ChangeDeviceKeys {
                ticket,
                device,
                change,
                signed,
            } => self.change_device_keys(ticket, device, &change, signed),
            Input::DeviceKeysUsed { device, old: false } => self.device_keys_used(device),
            Input::DeviceKeysUsed { device, old: true } => self.device_old_keys_used(device),
            Input::Activate {
                ticket,
                policy,
                signed,
                key,
            } => self.activate(ticket, &policy, signed, key),
            Input::Archive { ticket, change } => self.archive(ticket, change),
            Input::ChangeHubKey {
                ticket,
                statement,
                operator,
            } => self.change_hub_key(ticket, statement, operator),
            Input::Operator {
                ticket,
                operator,
                command,
            } => self.operate(ticket, operator, command),
            Input::Recalled { payments, cards } => {
                for payment in payments {
                    self.recall(payment.payment_id, Some(Box::new(payment)));
                }
                for (key, record) in cards {
                    self.state.recall_card(key, record);
                }
            }
            Input::QueueLoaded { lane, found, end } => self.queue_loaded(lane, found, end),
            Input::Appended { sequence } => self.appended(sequence),
            Input::Gateway {
                attempt,
                answer,
                latency_ms,
            } => self.gateway_answered(attempt, answer, latency_ms),
            Input::Probe(probe) => self.probed(probe),
            Input::SpreadAsked { window_ms } => self.pacing.asked_spread_ms = window_ms,
            Input::BadSignature { device } => self.bad_signature(device),
            Input::CardNumber { device } => self.card_number(device),
            Input::Storage { level, free_bytes } => self.storage_changed(level, free_bytes),
            Input::Tick => {}
            Input::Stop => self.stopping = true,
        }
        self.expire_online();
        self.decide_interrupted();
        self.recover();
        self.load_queue();
        self.replay();
        self.stop_when_answered();
        self.finish()
    }

    /// When the core wants [`Input::Tick`] at the latest, on the monotonic
    /// clock, in milliseconds.
    pub fn next_wake_ms(&self) -> Option<u64> {
        [
            self.online.next_deadline_ms(),
            self.queue_wake_ms(),
            self.retry_wake_ms(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether the core has this payment and its card in memory. If not, the
    /// shell looks into the index and hands over what it finds.
    pub fn knows(&self, id: &PaymentId) -> bool {
        self.state.payment(id).is_some()
    }

    /// Whether the core knows what this card has at risk. If not, the shell
    /// looks into the index and hands over what it finds, by
    /// [`Input::Recalled`], before any payment of the card.
    pub fn knows_card(&self, card: &CardKey) -> bool {
        self.state.knows_card(card)
    }

    /// The folded state, for the index.
    pub fn state_mut(&mut self) -> &mut State {
        &mut self.state
    }

    /// The folded state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Takes note that the index answers for everything up to this entry:
    /// what is not about to be used may leave the memory.
    pub fn indexed(&mut self, sequence: u64) {
        if sequence > self.indexed {
            self.indexed = sequence;
            self.queue.index_grew();
        }
        while self.remembered.len() > self.settings.max_remembered {
            let Some(oldest) = self.remembered.front().copied() else {
                break;
            };
            let place = self.state.payment(&oldest).map(|payment| payment.place(oldest));
            let needed = match place {
                Some(Some(Place::Held(_))) => true,
                Some(Some(_)) => self.queue.holds(&oldest),
                _ => false,
            };
            if !needed && place.is_some() {
                if !self.state.evict(&oldest, sequence) {
                    break;
                }
                if let Some(Some(place)) = place {
                    self.queue.evicted(place);
                }
            }
            self.remembered.pop_front();
        }
        self.state.evict_cards(self.settings.max_cards, sequence);
    }

    /// Whether the hub was told to stop, nobody waits any more, and
    /// everything is on disk.
    pub fn has_stopped(&self) -> bool {
        self.stopped && self.durable == self.state.head().sequence
    }

    fn finish(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.out)
    }

    fn recall(&mut self, id: PaymentId, recalled: Option<Box<Recalled>>) {
        if let Some(recalled) = recalled.filter(|recalled| recalled.payment_id == id && !self.knows(&id)) {
            self.remembered.push_back(id);
            self.state.recall(*recalled);
        }
    }

    /// Keeps the window of the queue full.
    fn load_queue(&mut self) {
        if let Some(Load { lane, after, limit }) = self.queue.fill(&self.state) {
            self.out.push(Effect::LoadQueue { lane, after, limit });
        }
    }

    fn queue_loaded(&mut self, lane: Lane, found: Vec<(u64, Recalled)>, end: bool) {
        let places: Vec<(u64, PaymentId)> = found.iter().map(|(at, found)| (*at, found.payment_id)).collect();
        for (_, recalled) in found {
            self.recall(recalled.payment_id, Some(Box::new(recalled)));
        }
        self.queue.loaded(lane, &places, end, &self.state);
    }

    fn observe_clock(&mut self, now: Now) {
        self.now = now;
        let change = self.clock.observe(now);
        self.clock_changed(change);
    }

    pub(crate) fn clock_changed(&mut self, change: Option<ClockChange>) {
        if let Some(ClockChange { quality, jump_ms }) = change {
            if is_set_back(quality, jump_ms) {
                self.contacts.clock_set_back(jump_ms.unsigned_abs());
            }
            self.append(Event::ClockChanged { quality, jump_ms }, None, None);
        }
        // Also where trust stays as it was, the time may have moved.
        self.close_periods();
    }

    /// Makes the next entry, folds it, and asks for it to be written. Whoever
    /// is told of it waits for the returned sequence. `request` saves folding
    /// from parsing the signed request that the event holds.
    pub(crate) fn append(
        &mut self,
        event: Event,
        request: Option<&PaymentRequest>,
        sealed_card: Option<(PaymentId, SealedCard)>,
    ) -> u64 {
        let head = self.state.head();
        let entry = Entry {
            sequence: head.sequence + 1,
            previous: head.digest,
            time: self.clock.entry_time(),
            policy_version: self.state.store().policy_version,
            event,
        };
        let payload = match &self.settings.seal {
            Some(seal) => seal.encode(&entry),
            None => entry.encode(),
        };
        let payment_id = entry.event.payment_id();
        let before = payment_id.and_then(|id| self.state.payment(&id)?.place(id));
        // The core makes only entries that fit its own state. One that does
        // not is not written, and whatever waits for it waits for ever.
        let folded = self.state.apply_known(&entry, Entry::digest(&payload), request);
        debug_assert!(folded.is_ok(), "{folded:?}");
        if folded.is_err() {
            return u64::MAX;
        }
        self.out.push(Effect::Append {
            sequence: entry.sequence,
            payload,
            sealed_card,
            receipt: self.receipt_of(&entry.event),
        });
        if let Some(id) = payment_id {
            self.queue.follow(id, before, &self.state);
            self.payment_changed(id, entry.sequence);
        }
        let enrols = matches!(
            entry.event,
            Event::DeviceEnrolled { .. }
                | Event::FleetDeviceEnrolled { .. }
                | Event::DeviceListed { .. }
                | Event::DeviceReplaced { .. }
        );
        if matches!(entry.event, Event::PolicyActivated { .. }) {
            self.queue.follow_policy(&self.state);
        }
        if enrols {
            self.queue.share_out(&self.state, &self.settings);
        }
        entry.sequence
    }

    fn receipt_of(&self, event: &Event) -> Option<Vec<u8>> {
        let Event::PaymentDecided { payment_id, .. } = event else {
            return None;
        };
        let receipt = self
            .state
            .payment(payment_id)?
            .receipt(self.settings.hub, *payment_id)?;
        Some(cbor::encode(&receipt))
    }

    fn payment_changed(&mut self, id: PaymentId, sequence: u64) {
        let Some(payment) = self.state.payment(&id) else {
            return;
        };
        if !payment.needs_card() {
            self.after(sequence, Effect::EraseCard { payment_id: id });
        }
        if !self.queue.holds(&id) {
            self.remembered.push_back(id);
        }
    }

    /// Lets an effect out once the entry is on disk.
    pub(crate) fn after(&mut self, sequence: u64, effect: Effect) {
        if sequence <= self.durable {
            self.out.push(effect);
        } else {
            self.held.entry(sequence).or_default().push(effect);
        }
    }

    pub(crate) fn reply_after(&mut self, sequence: u64, ticket: Ticket, reply: Reply) {
        self.after(sequence, Effect::Reply { ticket, reply });
    }

    pub(crate) fn refuse(&mut self, ticket: Ticket, code: RefusalCode, text: &str) {
        let reply = Reply::Refused(Refusal::new(code, text));
        self.out.push(Effect::Reply { ticket, reply });
    }

    fn appended(&mut self, sequence: u64) {
        self.durable = self.durable.max(sequence);
        let still_held = self.held.split_off(&(self.durable + 1));
        let released = core::mem::replace(&mut self.held, still_held);
        self.out.extend(released.into_values().flatten());
    }

    pub(crate) fn next_attempt(&mut self) -> AttemptId {
        self.last_attempt += 1;
        AttemptId(self.last_attempt)
    }

    pub(crate) fn observe_wan(&mut self, evidence: Evidence) {
        if let Some(WanChange { from, to, reason }) = self.wan.observe(evidence) {
            if from == WanState::Offline || to == WanState::Offline {
                self.outage(to == WanState::Offline);
            }
            let sequence = self.append(Event::WanChanged { from, to, reason }, None, None);
            self.after(sequence, Effect::WanChanged { state: to, reason });
            if to == WanState::Offline {
                // What a person wanted sent before that goes when all does.
                self.queue.unforce();
            }
            if from == WanState::Offline {
                self.sends_after = sequence;
                self.outage_ended();
            }
            if to == WanState::Online {
                self.queue.gateway_is_back(self.now.monotonic_ms);
            }
        }
    }

    /// The next entry begins or ends an outage.
    pub(crate) fn outage(&mut self, begins: bool) {
        let sequence = self.state.head().sequence + 1;
        self.out.push(Effect::Outage { sequence, begins });
    }

    /// The entry is one of those that the reserve is kept for.
    fn storage_changed(&mut self, level: StorageLevel, free_bytes: u64) {
        if level != self.storage {
            self.storage = level;
            self.append(Event::StorageChanged { level, free_bytes }, None, None);
        }
    }

    fn probed(&mut self, probe: Probe) {
        let evidence = if probe.ok {
            Evidence::ProbeAnswered {
                latency_ms: probe.latency_ms,
            }
        } else {
            Evidence::ProbeFailed
        };
        self.observe_wan(evidence);
        if let Some(gateway_ms) = probe.gateway_time_ms.filter(|_| probe.ok) {
            let change = self.clock.synchronise(gateway_ms, self.now);
            self.clock_changed(change);
        }
    }

    /// A hub that is told to stop first answers the customers who wait.
    fn stop_when_answered(&mut self) {
        if self.stopping && !self.stopped && self.online.count() == 0 {
            self.stopped = true;
            self.append(Event::HubStopped, None, None);
        }
    }

    pub(crate) fn refuse_if_stopping(&mut self, ticket: Ticket) -> bool {
        if self.stopping {
            self.refuse(
                ticket,
                RefusalCode::Stopping,
                "the hub is stopping; try again shortly",
            );
        }
        self.stopping
    }
}
