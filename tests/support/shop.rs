//! A shop in virtual time over a real store: the core, the journal, the index,
//! the vault and the archives as a hub has them, without devices, network and
//! threads. A year passes in a minute.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ed25519_dalek::SigningKey;
use hub_core::policy::Policy;
use hub_core::state::{ArchiveMarks, CardKey, CardRecord, PaymentRecord, Recalled, State};
use hub_core::{
    ArchiveChange, Core, Effect, Forward, GatewayAnswer, Input, Now, Operation, Probe, Reply, Settings,
    Ticket,
};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::root::{Delegated, Delegation, Root, RootKey, SignedRoot};
use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, DeviceClass, DeviceId, EntryMode, EntrySeal, Funding, GatewayResult,
    KeyId, PaymentId, PaymentRequest, ReceiptGroup, Registration, SealedCard, Verification, VoidRequest,
    cbor,
};
use hubd::config::Config;
use hubd::init::{InitOptions, init};
use hubd::ledger::{
    ArchiveError, ArchiveHub, ArchiveSettings, Archiver, AtStep, INDEX_FORMAT, Index, Journal, Keep, Round,
    Stamp, Standing, Vault,
};
use hubd::run::open_store;

/// 2024-01-05, a Friday, 08:00 UTC.
pub const OPENING_MS: u64 = 1_704_441_600_000;
/// A day, in milliseconds.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// What a customer may do offline here: what the year needs, not what a shop
/// should allow.
const POLICY: &str = r#"format = 1
tenant = "year"
stores = ["*"]
version = 1
not_before = 2024-01-01T00:00:00Z
expires = 2036-01-01T00:00:00Z
currency = "EUR"

[offline]
enabled = true
longest_minutes = 1440
schemes = ["cb"]
funding = ["debit"]
entry_modes = ["contactless"]
contactless_unverified_ceiling = 100000000

[store]
exposure_ceiling = 100000000
consecutive_limit = 100000

[card]
exposure_ceiling = 100000000
consecutive_limit = 100000

[class.terminal]
transaction_ceiling = 100000000
device_exposure_ceiling = 100000000
device_consecutive_limit = 100000
"#;

/// Where payments, the store and its time are.
pub struct Shop {
    core: Core,
    journal: Journal,
    vault: Vault,
    index: Index,
    now: Now,
    device: (DeviceId, SigningKey),
    pending: Pending,
    forwards: VecDeque<Forward>,
    loads: VecDeque<Effect>,
    replies: HashMap<Ticket, Reply>,
    tickets: u64,
    /// The gateway takes no payment that is replayed: it parks.
    refuses: bool,
    /// Every so many replayed payments one is declined; 0: none.
    pub declines_every: u64,
    replayed: u64,
    /// By how much the gateway's clock is behind this one.
    pub gateway_behind_ms: u64,
    _store: (hubd::ledger::DataLock, hubd::ledger::Space),
}

/// What waits for the next flush.
#[derive(Default)]
struct Pending {
    payloads: Vec<Vec<u8>>,
    receipts: Vec<(u64, Vec<u8>)>,
    cards: Vec<(PaymentId, SealedCard)>,
    erasures: Vec<PaymentId>,
    last: u64,
}

/// Makes a hub's folder with small segments.
///
/// # Errors
/// The folder exists, or the disk refuses.
pub fn make_store(dir: &Path, segment_mib: u64) -> Result<Config> {
    init(dir, &InitOptions::default()).map_err(|error| anyhow::anyhow!("{error}"))?;
    let file = dir.join("hubd.toml");
    let text = std::fs::read_to_string(&file)?;
    let text = text.replace("segment_mib = 16", &format!("segment_mib = {segment_mib}"));
    std::fs::write(&file, text.replace("reserve_mib = 64", "reserve_mib = 16"))?;
    load(dir)
}

/// Has the hub in this folder begin with a root, which delegates the key that
/// signs the policies here, instead of with keys of its own.
///
/// # Errors
/// The disk refuses.
pub fn install_root(dir: &Path) -> Result<Config> {
    let holder = SigningKey::from_bytes(&[60; 32]);
    let mut root = SignedRoot::unsigned(Root {
        tenant: "year".to_owned(),
        version: 1,
        expires_ms: OPENING_MS + 3_650 * DAY_MS,
        threshold: 1,
        keys: vec![RootKey {
            name: "holder".to_owned(),
            key: holder.verifying_key().to_bytes(),
        }],
        delegations: vec![Delegation {
            name: "policies".to_owned(),
            key: SigningKey::from_bytes(&[50; 32]).verifying_key().to_bytes(),
            stores: vec!["*".to_owned()],
            signs: vec![Delegated::Policies],
            not_before_ms: OPENING_MS - DAY_MS,
            expires_ms: OPENING_MS + 3_650 * DAY_MS,
            least_version: None,
        }],
    })?;
    root.sign(&holder)?;
    std::fs::write(dir.join("root-1.cose"), root.to_bytes())?;
    let file = dir.join("hubd.toml");
    let text = std::fs::read_to_string(&file)?;
    let keys = text.lines().find(|line| line.starts_with("trusted_keys = "));
    let keys = keys.context("no trusted keys")?;
    std::fs::write(&file, text.replace(keys, "root_file = \"root-1.cose\""))?;
    load(dir)
}

/// The configuration in a hub's folder.
///
/// # Errors
/// It has faults.
pub fn load(dir: &Path) -> Result<Config> {
    Config::load(dir).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

/// The payment with this number, the same at every call.
pub fn request(number: u64, amount: u64) -> PaymentRequest {
    let id = payment_id(number);
    PaymentRequest {
        payment_id: id,
        device_sequence: number,
        amount: amount.into(),
        currency: hub_protocol::Currency::EUR,
        order_id: format!("{number:08}"),
        card: CardFacts {
            token: format!("tok_{:012x}", spread(number) % 20_000),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: Some("FR".to_owned()),
            bin: Some("49700000".to_owned()),
            last4: Some("1234".to_owned()),
        },
        entry_mode: EntryMode::Contactless,
        verification: Verification::Cdcvm,
        cryptogram: Cryptogram::AsksOnline,
        sealed_card_digest: sealed_card(id).digest(),
        device_time_ms: OPENING_MS,
        terms: None,
    }
}

/// Ids as devices make them: nothing about them repeats.
pub fn payment_id(number: u64) -> PaymentId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&spread(number).to_be_bytes());
    id[8..].copy_from_slice(&spread(!number).to_be_bytes());
    PaymentId(id)
}

/// A card blob of the length that readers make.
fn sealed_card(id: PaymentId) -> SealedCard {
    SealedCard {
        salt: id.0,
        blob: id.0.repeat(24),
    }
}

/// SplitMix64.
fn spread(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Shop {
    /// Opens the store as a hub does, at this time.
    ///
    /// # Errors
    /// What the hub would say.
    pub fn open(config: &Config, wall_ms: u64) -> Result<(Self, Archiver)> {
        let opened = open_store(config)?;
        let archiver = Archiver::new(
            opened.journal.reader(),
            opened.journal.archives(),
            opened.index.reader(),
            config.keys.hub_id,
        );
        let now = Now {
            wall_ms,
            monotonic_ms: 1_000,
        };
        let mut settings = Settings::new(config.keys.hub_id, &config.hub.store_id, config.hub.currency);
        settings.pinned_root = config.policy.root.as_ref().map(|root| root.signed.clone());
        settings.seal = Some(EntrySeal::new(opened.store_key.key()));
        settings.archives_through = archiver.archives().head().sequence;
        let (core, effects) = Core::start(settings, opened.state, opened.torn_bytes, "year", now);
        let mut shop = Self {
            core,
            journal: opened.journal,
            vault: opened.vault,
            index: opened.index,
            now,
            device: (DeviceId([1; 32]), SigningKey::from_bytes(&[1; 32])),
            pending: Pending::default(),
            forwards: VecDeque::new(),
            loads: VecDeque::new(),
            replies: HashMap::new(),
            tickets: 0,
            refuses: false,
            declines_every: 0,
            replayed: 0,
            gateway_behind_ms: 0,
            _store: (opened.lock, opened.space),
        };
        shop.take(effects);
        shop.settle()?;
        if shop.core.state().device(&shop.device.0).is_none() {
            shop.enrol(config)?;
        }
        Ok((shop, archiver))
    }

    fn enrol(&mut self, config: &Config) -> Result<()> {
        let registration = Registration {
            device: self.device.0,
            signing_key: self.device.1.verifying_key().to_bytes(),
            class: DeviceClass::Terminal,
            name: "Caisse 1".to_owned(),
            model: "year".to_owned(),
            hub: config.keys.hub_id,
            hub_signing_key: config.keys.signing.verifying_key().to_bytes(),
            enrolled_ms: self.now.wall_ms,
        };
        let ticket = self.ticket();
        self.input(Input::Enrol {
            ticket,
            registration: Box::new(registration),
        });
        let key = SigningKey::from_bytes(&[50; 32]);
        let policy = Policy::parse(POLICY.as_bytes()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
        let ticket = self.ticket();
        self.input(Input::Activate {
            ticket: Some(ticket),
            policy: Box::new(policy),
            signed: cose::sign(&key, ObjectType::Policy, POLICY.as_bytes()),
            key: KeyId::of_key(key.verifying_key().as_bytes()),
        });
        self.settle()?;
        match self.replies.remove(&ticket) {
            Some(Reply::PolicyActive { .. }) => Ok(()),
            other => bail!("the policy is not in force: {other:?}"),
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, ms: u64) {
        self.now.wall_ms += ms;
        self.now.monotonic_ms += ms;
        self.input(Input::Tick);
    }

    /// Sets the wall clock, and nothing else.
    pub fn set_clock(&mut self, wall_ms: u64) {
        self.now.wall_ms = wall_ms;
        self.input(Input::Tick);
    }

    /// The time, milliseconds since 1970 UTC.
    pub fn now_ms(&self) -> u64 {
        self.now.wall_ms
    }

    /// The line to the gateway is cut, or back.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn line(&mut self, up: bool) -> Result<()> {
        for _ in 0..10 {
            self.pass(1_000);
            self.input(Input::Probe(Probe {
                ok: up,
                latency_ms: 20,
                gateway_time_ms: Some(self.now.wall_ms - self.gateway_behind_ms),
            }));
        }
        self.settle()
    }

    /// The gateway refuses what is replayed, so that it is parked.
    pub fn refuse_replays(&mut self, refuses: bool) {
        self.refuses = refuses;
    }

    /// Pays, and gives what the device is told once it is on disk.
    ///
    /// # Errors
    /// The disk refuses, or the hub gave no answer.
    pub fn pay(&mut self, number: u64, amount: u64) -> Result<Reply> {
        let ticket = self.send(number, amount)?;
        self.settle()?;
        self.replies.remove(&ticket).context("no answer")
    }

    /// Sends a payment; its answer comes after the next [`settle`](Self::settle).
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn send(&mut self, number: u64, amount: u64) -> Result<Ticket> {
        let request = request(number, amount);
        let signed = cose::sign(
            &self.device.1,
            ObjectType::PaymentRequest,
            &cbor::encode(&request),
        );
        self.recall(
            Some(request.payment_id),
            Some(CardKey::of_token(&request.card.token)),
        )?;
        let ticket = self.ticket();
        self.input(Input::Pay {
            ticket,
            device: self.device.0,
            sealed_card: sealed_card(request.payment_id),
            request: Box::new(request),
            signed,
            recalled: None,
        });
        Ok(ticket)
    }

    /// What was answered, once it is on disk.
    ///
    /// # Errors
    /// Nothing yet.
    pub fn answer(&mut self, ticket: Ticket) -> Result<Reply> {
        self.replies.remove(&ticket).context("no answer")
    }

    /// Voids, and gives what the device is told.
    ///
    /// # Errors
    /// The disk refuses, or the hub gave no answer.
    pub fn void(&mut self, number: u64) -> Result<Reply> {
        let payment_id = payment_id(number);
        self.recall(Some(payment_id), None)?;
        let request = VoidRequest {
            payment_id,
            device_sequence: number,
            device_time_ms: self.now.wall_ms,
        };
        let ticket = self.ticket();
        self.input(Input::Void {
            ticket,
            device: self.device.0,
            signed: cose::sign(&self.device.1, ObjectType::VoidRequest, &cbor::encode(&request)),
            request,
            recalled: None,
        });
        self.settle()?;
        self.replies.remove(&ticket).context("no answer")
    }

    /// Where a payment stands.
    ///
    /// # Errors
    /// The disk refuses, or the hub gave no answer.
    pub fn status(&mut self, number: u64) -> Result<Reply> {
        let payment_id = payment_id(number);
        self.recall(Some(payment_id), None)?;
        let ticket = self.ticket();
        self.input(Input::Status {
            ticket,
            device: self.device.0,
            payment_id,
            recalled: None,
        });
        self.settle()?;
        self.replies.remove(&ticket).context("no answer")
    }

    /// Puts a parked payment back into the queue.
    ///
    /// # Errors
    /// The disk refuses, or the hub does.
    pub fn release(&mut self, number: u64) -> Result<()> {
        let payment = payment_id(number);
        self.recall(Some(payment), None)?;
        let ticket = self.ticket();
        self.input(Input::Operator {
            ticket,
            operator: "anna".to_owned(),
            command: hub_core::OperatorCommand::Release {
                payment_id: payment,
                not_there: false,
            },
        });
        self.settle()?;
        match self.replies.remove(&ticket) {
            Some(Reply::Operator(hub_core::OperatorReply::Done)) => Ok(()),
            other => bail!("{other:?}"),
        }
    }

    /// How far the ledger is archived, by the ledger.
    pub fn marks(&self) -> ArchiveMarks {
        self.core.state().archives()
    }

    /// The state.
    pub fn state(&self) -> &State {
        self.core.state()
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The index.
    pub fn index(&mut self) -> &mut Index {
        &mut self.index
    }

    /// Makes the index durable and ends.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(mut self) -> Result<()> {
        self.settle()?;
        self.index.checkpoint()?;
        Ok(())
    }

    /// One round of archiving, at the shop's time.
    ///
    /// # Errors
    /// What the hub would say, or the error of `at`.
    pub fn archive(
        &mut self,
        archiver: &mut Archiver,
        settings: ArchiveSettings,
        at: AtStep<'_>,
    ) -> Result<Round, ArchiveError> {
        archiver.round(self, settings, at)
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn recall(&mut self, id: Option<PaymentId>, card: Option<CardKey>) -> Result<()> {
        let unknown = id.filter(|id| !self.core.knows(id));
        let payment = unknown.map(|id| self.recall_payment(id)).transpose()?.flatten();
        let card = card.filter(|card| !self.core.knows_card(card));
        let card = card.map(|card| self.card(&card).map(|record| (card, record)));
        let card = card.transpose()?;
        if payment.is_some() || card.is_some() {
            self.input(Input::Recalled {
                payments: payment.into_iter().collect(),
                cards: card.into_iter().collect(),
            });
        }
        Ok(())
    }

    fn recall_payment(&self, payment_id: PaymentId) -> Result<Option<Recalled>> {
        let Some(value) = self.index.reader().get(&State::payment_key(&payment_id))? else {
            return Ok(None);
        };
        let record: PaymentRecord = cbor::decode(&value)?;
        let card = self.card(&record.card)?;
        Ok(Some(Recalled {
            payment_id,
            record,
            card,
        }))
    }

    fn card(&self, card: &CardKey) -> Result<CardRecord> {
        let value = self.index.reader().get(&State::card_key(card))?;
        Ok(value
            .map(|value| cbor::decode(&value))
            .transpose()?
            .unwrap_or_default())
    }

    fn input(&mut self, input: Input) {
        let effects = self.core.handle(input, self.now);
        self.take(effects);
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append {
                    sequence,
                    payload,
                    sealed_card,
                    receipt,
                } => {
                    self.pending.payloads.push(payload);
                    self.pending
                        .receipts
                        .extend(receipt.map(|receipt| (sequence, receipt)));
                    self.pending.cards.extend(sealed_card);
                    self.pending.last = sequence;
                }
                Effect::Reply { ticket, reply } => drop(self.replies.insert(ticket, reply)),
                Effect::Forward(forward) => self.forwards.push_back(forward),
                Effect::EraseCard { payment_id } => self.pending.erasures.push(payment_id),
                load @ Effect::LoadQueue { .. } => self.loads.push_back(load),
                Effect::Push { .. }
                | Effect::PushPolicy { .. }
                | Effect::ChangeHubKey { .. }
                | Effect::Outage { .. }
                | Effect::HubKeyChanged { .. }
                | Effect::HubTlsKeys { .. }
                | Effect::DeviceKeys { .. }
                | Effect::DeviceChanged { .. }
                | Effect::WanChanged { .. }
                | Effect::FleetTokens { .. }
                | Effect::RestrictionChanged { .. }
                | Effect::AllowanceMisused { .. } => {}
            }
        }
    }

    /// Everything that was begun is done: written, answered, sent, indexed.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn settle(&mut self) -> Result<()> {
        loop {
            self.flush()?;
            if let Some(load) = self.loads.pop_front() {
                self.load(load)?;
            } else if let Some(forward) = self.forwards.pop_front() {
                let answer = self.gateway(&forward);
                self.input(Input::Gateway {
                    attempt: forward.attempt,
                    answer,
                    latency_ms: 40,
                });
            } else if self.pending.payloads.is_empty() {
                return Ok(());
            }
        }
    }

    fn gateway(&mut self, forward: &Forward) -> GatewayAnswer {
        let replay = forward.operation == Operation::AuthoriseDeferred;
        if replay && self.refuses {
            return GatewayAnswer::RefusesMessage {
                detail: "not today".to_owned(),
            };
        }
        self.replayed += u64::from(replay);
        let declined = replay && self.declines_every > 0 && self.replayed.is_multiple_of(self.declines_every);
        GatewayAnswer::Final(GatewayResult {
            approved: !declined,
            response_code: if declined { "05" } else { "00" }.to_owned(),
            authorisation_code: (!declined).then(|| "A12345".to_owned()),
            reference: Some(format!("gw-{:010}", forward.request_sequence)),
        })
    }

    fn flush(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if !pending.cards.is_empty() {
            self.vault.put(&pending.cards)?;
        }
        if !pending.payloads.is_empty() {
            let receipts = ReceiptGroup::new(pending.receipts);
            let root = receipts.as_ref().map(ReceiptGroup::root);
            self.journal.append_with_receipts(&pending.payloads, root)?;
            self.input(Input::Appended {
                sequence: pending.last,
            });
        }
        if !pending.erasures.is_empty() {
            self.vault.erase(&pending.erasures)?;
        }
        if self.pending.payloads.is_empty() && self.core.state().dirty_len() > 0 {
            let head = self.core.state().head();
            let changes = self.core.state_mut().take_dirty();
            self.index.write(
                changes,
                Stamp {
                    sequence: head.sequence,
                    digest: head.digest,
                    format: INDEX_FORMAT,
                },
            )?;
            self.core.indexed(head.sequence);
        }
        Ok(())
    }

    fn load(&mut self, load: Effect) -> Result<()> {
        let Effect::LoadQueue { lane, after, limit } = load else {
            return Ok(());
        };
        let prefix = lane.prefix();
        let records = self
            .index
            .reader()
            .range(&prefix, &lane.key(after.saturating_add(1)), limit)?;
        let end = records.len() < limit;
        let mut found = Vec::new();
        for (key, id) in records {
            let place = key.get(prefix.len()..).and_then(|at| at.try_into().ok());
            let place = u64::from_be_bytes(place.context("a place")?);
            let id: [u8; 16] = id.as_slice().try_into()?;
            let recalled = self.recall_payment(PaymentId(id))?;
            found.push((place, recalled.context("a queued payment")?));
        }
        self.input(Input::QueueLoaded { lane, found, end });
        Ok(())
    }
}

impl ArchiveHub for Shop {
    fn standing(&mut self) -> Result<Standing, ArchiveError> {
        let ticket = self.ticket();
        self.input(Input::Operator {
            ticket,
            operator: "archive".to_owned(),
            command: hub_core::OperatorCommand::Overview,
        });
        self.settle()
            .map_err(|error| ArchiveError::NotRecorded(error.to_string()))?;
        match self.replies.remove(&ticket) {
            Some(Reply::Operator(hub_core::OperatorReply::Overview(overview))) => Ok(Standing {
                marks: overview.archives,
                now_ms: (!overview.clock_suspect).then_some(overview.time_ms),
                sequence: overview.sequence,
            }),
            other => Err(ArchiveError::NotRecorded(format!("{other:?}"))),
        }
    }

    fn record(&mut self, change: ArchiveChange) -> Result<(), ArchiveError> {
        let ticket = self.ticket();
        self.input(Input::Archive { ticket, change });
        self.settle()
            .map_err(|error| ArchiveError::NotRecorded(error.to_string()))?;
        match self.replies.remove(&ticket) {
            Some(Reply::Operator(hub_core::OperatorReply::Done)) => Ok(()),
            Some(Reply::Operator(hub_core::OperatorReply::Refused(text))) => {
                Err(ArchiveError::NotRecorded(text))
            }
            other => Err(ArchiveError::NotRecorded(format!("{other:?}"))),
        }
    }

    fn forget(&mut self, keep: Keep, path: PathBuf, number: u32) -> Result<Stamp, ArchiveError> {
        self.index.forget(&keep)?;
        Ok(self.index.write_all_to(path, number)?)
    }

    fn room(&self) -> (u64, bool) {
        (u64::MAX, true)
    }
}
