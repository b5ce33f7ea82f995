//! A shop with a long queue, made in minutes instead of hours: devices that
//! are really enrolled with the shipped hub, and then payments that the core
//! decides and journal and vault write in this process, without the network
//! between them. Every signature, digest and sealed card is right.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hub_core::state::State;
use hub_core::{Core, Effect, Input, Now, Probe, Reply, Settings, Ticket};
use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Currency, Decision, DeviceId, EntryMode, EntrySeal, Funding,
    ReceiptGroup, Verification,
};
use hub_sdk::{DeviceIdentity, PreparedPayment};
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{DataLock, Journal, JournalOptions, VAULT_FILE_BYTES, Vault};
use sim_devices::binaries::Binaries;
use sim_devices::fleet::{self, Fleet};
use sim_devices::gateway::{Gateway, GatewayOptions};
use sim_devices::limits::Limits;
use sim_devices::sale;
use sim_devices::shop::{GatewayAccess, Shop, ShopOptions};
use sim_devices::witness::Witness;

use crate::progress::Progress;

/// Payments that share one flush: what a hub at 64 devices does.
const GROUP: usize = 64;

/// Payments that are signed ahead of the core.
const AHEAD: usize = 4096;

/// How long a sealed card is, in bytes: a cryptogram with its data, sealed.
const SEALED_BYTES: usize = 256;

/// What is laid.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goods {
    /// How many payments.
    pub(crate) payments: u64,
    /// Of how many devices.
    pub(crate) devices: usize,
    /// With how many cards; each has a payment in turn.
    pub(crate) cards: u64,
}

/// What was laid.
#[derive(Clone, Debug)]
pub(crate) struct Laid {
    /// The last entry.
    pub(crate) sequence: u64,
    /// How long it took.
    pub(crate) took: Duration,
    /// Some of the payments, from the first to the last.
    pub(crate) sample: Vec<PreparedPayment>,
}

/// About how many payments the sample has.
const SAMPLE: u64 = 24;

/// The folder of the hub in a shop's folder.
pub(crate) fn hub_of(dir: &Path) -> PathBuf {
    dir.join("hub")
}

/// Sets a shop up in `dir`, enrols its devices, and stops its hub. `configure`
/// may change the hub's configuration before its first start.
pub(crate) async fn set_up(
    dir: &Path,
    binaries: &Binaries,
    devices: usize,
    configure: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let gateway = Gateway::start(GatewayOptions {
        control: None,
        ..GatewayOptions::new(dir.join("gateway"))
    })
    .await?;
    let mut shop = Shop::open(ShopOptions {
        dir: dir.to_owned(),
        binaries: binaries.clone(),
        gateway: GatewayAccess {
            url: gateway.url(),
            ca_file: gateway.ca_pem_path(),
            credential: gateway.credential().to_owned(),
        },
        limits: Limits::load(),
        deadline: Duration::from_secs(1),
        probe_interval: Duration::from_secs(1),
        max_in_flight: 64,
        requests_per_second: Some(1_000_000),
        discovery: false,
    })
    .await?;
    configure(&shop.hub_dir())?;
    shop.start().await?;
    let witness = Arc::new(Witness::create(&dir.join("witness.jsonl"))?);
    let fleet = Fleet::open(&shop, devices, false, &witness, Some(&dir.join("devices"))).await?;
    fleet.close().await;
    shop.stop().await
}

/// The devices that [`set_up`] enrolled.
pub(crate) fn devices(dir: &Path, count: usize) -> Result<Vec<DeviceIdentity>> {
    let load = |number| Ok(DeviceIdentity::load(&fleet::kept(&dir.join("devices"), number))?);
    (0..count).map(load).collect()
}

/// Lays payments into the ledger of a shop whose hub is stopped. Its index
/// knows nothing of them, as if it had been left behind.
pub(crate) fn lay(dir: &Path, goods: Goods) -> Result<Laid> {
    ensure!(goods.devices > 0 && goods.cards > 0, "no devices or no cards");
    let began = Instant::now();
    let identities = devices(dir, goods.devices)?;
    let progress = Progress::over("payments laid", goods.payments);
    let mut shelf = Shelf::open(&hub_of(dir))?;
    let (sender, prepared) = sync_channel(AHEAD);
    let sample = std::thread::scope(|scope| {
        scope.spawn(move || prepare(&identities, goods, &sender));
        // Gone at an error, so that nobody waits to hand over more.
        let prepared = prepared;
        shelf.take_all(&prepared, goods.payments, &progress)
    })?;
    shelf.close()?;
    progress.finish();
    Ok(Laid {
        sequence: shelf.journal.head().sequence,
        took: began.elapsed(),
        sample,
    })
}

/// Signs payments, devices and cards in turn, until nobody takes them.
fn prepare(devices: &[DeviceIdentity], goods: Goods, to: &SyncSender<(DeviceId, PreparedPayment)>) {
    let run = unix_ms();
    for (number, device) in (0..goods.payments).zip(devices.iter().cycle()) {
        let order_id = format!("S{run}-{number}");
        let payment = PreparedPayment::new(
            device,
            number + 1,
            hub_sdk::Sale {
                amount_minor: 100,
                currency: Currency::EUR,
                card: CardFacts {
                    scheme: CardScheme::Cb,
                    funding: Funding::Debit,
                    ..sale::card(1, format!("stock-{}", number % goods.cards))
                },
                sealed_card: order_id
                    .bytes()
                    .cycle()
                    .take(SEALED_BYTES)
                    .collect::<Vec<_>>()
                    .into(),
                order_id,
                // Possible at every class of device.
                entry_mode: EntryMode::Contactless,
                verification: Verification::Cdcvm,
                cryptogram: Cryptogram::AsksOnline,
                terms: None,
            },
        );
        if to.send((device.device_id(), payment)).is_err() {
            return;
        }
    }
}

/// A hub without edges: the core, and its ledger on disk.
struct Shelf {
    core: Core,
    journal: Journal,
    vault: Vault,
    began: Instant,
    tickets: u64,
    approved: u64,
    written: Vec<(u64, Vec<u8>)>,
    receipts: Vec<(u64, Vec<u8>)>,
    cards: Vec<(hub_protocol::PaymentId, hub_protocol::SealedCard)>,
    _lock: DataLock,
}

impl Shelf {
    fn open(hub: &Path) -> Result<Self> {
        let config = Config::load(hub).map_err(|faults| anyhow!("{faults:?}"))?;
        let layout = &config.layout;
        let lock = DataLock::acquire(&layout.dir)?;
        let options = JournalOptions {
            segment_bytes: config.ledger.segment_bytes,
            create: false,
        };
        let (journal, _) = Journal::open(
            &layout.ledger,
            config.keys.hub_id,
            config.keys.signing.clone(),
            options,
        )?;
        let key = StoreKey::open(layout, &[&config.keys.vault])?;
        journal.unseal(key.key());
        let (vault, _) = Vault::open(&layout.vault, &key.vault_cards(), VAULT_FILE_BYTES)?;
        let mut state = State::default();
        for stored in journal.reader().entries_from(1)? {
            let stored = stored?;
            state.apply(&stored.entry, stored.digest)?;
        }
        let began = Instant::now();
        let mut settings = Settings::new(config.keys.hub_id, &config.hub.store_id, config.hub.currency);
        settings.seal = Some(EntrySeal::new(key.key()));
        let failures = settings.wan.offline_after;
        let (core, effects) = Core::start(settings, state, 0, "stock", now(began));
        let mut shelf = Self {
            core,
            journal,
            vault,
            began,
            tickets: 0,
            approved: 0,
            written: Vec::new(),
            receipts: Vec::new(),
            cards: Vec::new(),
            _lock: lock,
        };
        shelf.carry_out(effects)?;
        for _ in 0..failures {
            shelf.input(Input::Probe(Probe {
                ok: false,
                latency_ms: 0,
                gateway_time_ms: None,
            }))?;
        }
        shelf.flush()?;
        Ok(shelf)
    }

    fn take_all(
        &mut self,
        prepared: &Receiver<(DeviceId, PreparedPayment)>,
        payments: u64,
        progress: &Progress,
    ) -> Result<Vec<PreparedPayment>> {
        let mut asked = 0;
        let mut sample = Vec::new();
        for (device, payment) in prepared {
            if asked % (payments / SAMPLE).max(1) == 0 {
                sample.push(payment.clone());
            }
            self.tickets += 1;
            asked += 1;
            self.input(Input::Pay {
                ticket: Ticket(self.tickets),
                device,
                request: Box::new(payment.request().clone()),
                signed: payment.signed().to_vec(),
                sealed_card: payment.sealed_card().clone(),
                recalled: None,
            })?;
            if self.written.len() >= GROUP {
                self.flush()?;
                progress.more(GROUP as u64);
            }
        }
        self.flush()?;
        ensure!(
            self.approved == asked,
            "only {} of {asked} payments were approved offline",
            self.approved
        );
        Ok(sample)
    }

    fn close(&mut self) -> Result<()> {
        self.input(Input::Stop)?;
        self.flush()
    }

    fn input(&mut self, input: Input) -> Result<()> {
        let effects = self.core.handle(input, now(self.began));
        self.carry_out(effects)
    }

    fn carry_out(&mut self, effects: Vec<Effect>) -> Result<()> {
        for effect in effects {
            match effect {
                Effect::Append {
                    sequence,
                    payload,
                    sealed_card,
                    receipt,
                } => {
                    self.written.push((sequence, payload));
                    self.cards.extend(sealed_card);
                    self.receipts.extend(receipt.map(|receipt| (sequence, receipt)));
                }
                Effect::Reply { reply, .. } => match reply {
                    Reply::Receipt(receipt) if receipt.decision == Decision::ApprovedOffline => {
                        self.approved += 1;
                    }
                    other => bail!("not approved offline: {other:?}"),
                },
                // Nobody listens.
                _ => {}
            }
        }
        Ok(())
    }

    /// The card before its entry, as the hub writes them.
    fn flush(&mut self) -> Result<()> {
        let Some((sequence, _)) = self.written.last() else {
            return Ok(());
        };
        let sequence = *sequence;
        if !self.cards.is_empty() {
            self.vault.put(&self.cards)?;
            self.cards.clear();
        }
        let receipts = ReceiptGroup::new(std::mem::take(&mut self.receipts));
        let payloads: Vec<Vec<u8>> = self.written.drain(..).map(|(_, payload)| payload).collect();
        self.journal
            .append_with_receipts(&payloads, receipts.as_ref().map(ReceiptGroup::root))
            .context("the ledger cannot be written")?;
        self.input(Input::Appended { sequence })
    }
}

fn now(began: Instant) -> Now {
    Now {
        wall_ms: unix_ms(),
        monotonic_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
