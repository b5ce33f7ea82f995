//! Files damaged at random under a hub that is stopped: what the shipped hub
//! makes of them at its next start, and what is lost.
//!
//! One shop is made, with several segments, settled payments and a queue; for
//! each try its folder is put back as it was and damaged in one way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use hub_protocol::{Digest, Receipt};
use hub_sdk::{ClientOptions, DeviceClient, DeviceIdentity, Enrolled, PayError, PreparedPayment};
use sim_devices::binaries::Binaries;
use sim_devices::fleet;
use sim_devices::gateway::{Faults, Gateway, GatewayOptions, RunningGateway};
use sim_devices::limits::Limits;
use sim_devices::rng::Rng;
use sim_devices::shop::{GatewayAccess, Shop, ShopOptions};
use tempfile::TempDir;

use crate::progress::Progress;
use crate::stock::{self, Goods};
use crate::store;

mod books;
mod index;
mod journal;
mod kind;
mod table;
mod vault;

pub(crate) use kind::Kind;
pub(crate) use table::Table;

/// Devices of the shop.
const DEVICES: usize = 8;

/// How long a queue of some thousands may take to drain: on a machine that is
/// starved the pace falls to a few a second.
const DRAIN: Duration = Duration::from_secs(600);

/// Damages each kind of file `each` times in each way.
pub(crate) async fn run(binaries: &Binaries, seed: u64, each: usize, payments: u64) -> Result<Table> {
    let mut rng = Rng::of(seed, "damage");
    let mut ground = Ground::make(binaries, payments).await?;
    let mut table = Table::default();
    let kinds: Vec<Kind> = Kind::all().filter(|kind| kind.possible()).collect();
    let progress = Progress::over("tries", (kinds.len() * each) as u64);
    for kind in kinds {
        for _ in 0..each {
            ground.put_back()?;
            let mut rng = Rng::new(rng.next_u64());
            let row = table.row(kind);
            row.tries += 1;
            let tried = match kind {
                Kind::Journal(kind) => journal::suffer(&mut ground, kind, &mut rng, row).await,
                Kind::Index(kind) => index::suffer(&mut ground, kind, &mut rng, row).await,
                Kind::Vault(kind) => vault::suffer(&mut ground, kind, &mut rng, row).await,
            };
            if let Err(error) = tried.with_context(|| kind.name()) {
                return Err(error.context(format!("the evidence is kept in {}", ground.keep().display())));
            }
            progress.one();
        }
    }
    progress.finish();
    Ok(table)
}

/// A shop whose files are put back before each try.
pub(crate) struct Ground {
    shop: Shop,
    options: ShopOptions,
    clients: Vec<DeviceClient>,
    /// Payments that were answered, and their receipts.
    answered: Vec<(PreparedPayment, Receipt)>,
    /// How the undamaged hub stands.
    standing: Standing,
    /// What its index holds.
    records: Digest,
    /// How many payments the gateway knows before each try.
    booked: u64,
    dir: TempDir,
}

/// What a hub says of itself that no damage of derived files may change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Standing {
    queued: u64,
    parked: u64,
    exposure_minor: u64,
}

impl Ground {
    async fn make(binaries: &Binaries, payments: u64) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hubd-damage-").tempdir()?;
        // Not every try runs as the owner.
        run_to_end(Command::new("chmod").arg("755").arg(dir.path()))?;
        let path = dir.path();
        let small = |hub: &Path| {
            store::small_segments(hub)?;
            store::configure(hub, "reserve_mib", 16)
        };
        stock::set_up(path, binaries, DEVICES, small).await?;
        let hub = stock::hub_of(path);
        let goods = Goods {
            payments,
            devices: DEVICES,
            cards: payments,
        };
        let mut sample = lay(path, goods).await?;
        let options = ShopOptions {
            dir: path.to_owned(),
            binaries: binaries.clone(),
            gateway: nobody(path),
            limits: Limits::load(),
            deadline: Duration::from_secs(1),
            probe_interval: Duration::from_millis(250),
            max_in_flight: 64,
            requests_per_second: Some(1_000_000),
            discovery: false,
        };
        let clients = (0..DEVICES).map(|number| client(path, number));
        let mut ground = Self {
            shop: Shop::reopen(options.clone())?,
            options,
            clients: clients.collect::<Result<_>>()?,
            answered: Vec::new(),
            standing: Standing {
                queued: 0,
                parked: 0,
                exposure_minor: 0,
            },
            records: Digest::ZERO,
            booked: 0,
            dir,
        };
        ground.settle_down_to(payments / 5).await?;
        copy(&hub.join("index"), &ground.path("older-index"))?;
        sample.extend(
            lay(
                ground.dir.path(),
                Goods {
                    payments: payments / 5,
                    ..goods
                },
            )
            .await?,
        );
        ground.shop.start().await?;
        ground.standing = ground.standing_now().await?;
        for payment in sample {
            let receipt = ground.ask(&payment).await?;
            ground.answered.push((payment, receipt));
        }
        ground.shop.stop().await?;
        ensure!(ground.standing.queued > 0, "nothing is queued");
        copy(&hub, &ground.path("right-hub"))?;
        copy(&ground.path("gateway"), &ground.path("right-gateway"))?;
        ground.records = ground.index_records("right-hub")??;
        ground.booked = ground.open_gateway().await?.payments().len() as u64;
        ground.close_gateway()?;
        ground.make_foreign(binaries).await?;
        Ok(ground)
    }

    /// Replays until so many are left.
    async fn settle_down_to(&mut self, left: u64) -> Result<()> {
        let gateway = self.open_gateway().await?;
        self.shop.start().await?;
        let payments = self.shop.unsent().await? + gateway.charges();
        while self.shop.unsent().await? > left {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let out_of_order = Faults {
            unavailable: 1.0,
            ..Faults::default()
        };
        gateway.set_faults(out_of_order).map_err(anyhow::Error::msg)?;
        // Until the hub has heard of all that was booked.
        let until = Instant::now() + DRAIN;
        while gateway.charges() + self.shop.unsent().await? > payments {
            ensure!(Instant::now() < until, "the hub does not hear what was booked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.shop.stop().await?;
        self.close_gateway()
    }

    /// The ledger of another hub.
    async fn make_foreign(&self, binaries: &Binaries) -> Result<()> {
        let other = self.path("other");
        stock::set_up(&other, binaries, 1, |_| Ok(())).await?;
        let goods = Goods {
            payments: 64,
            devices: 1,
            cards: 64,
        };
        lay(&other, goods).await?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn hub(&self) -> PathBuf {
        stock::hub_of(self.dir.path())
    }

    fn keep(self) -> PathBuf {
        drop(self.shop);
        self.dir.keep()
    }

    /// All as it was before any damage.
    fn put_back(&mut self) -> Result<()> {
        for name in ["hub", "gateway"] {
            fs::remove_dir_all(self.path(name))?;
            copy(&self.path(&format!("right-{name}")), &self.path(name))?;
        }
        let _ = fs::remove_file(self.shop.log_file());
        self.close_gateway()
    }

    /// From now on the hub reaches a gateway with a book of its own.
    async fn open_gateway(&mut self) -> Result<RunningGateway> {
        let gateway = Gateway::start(GatewayOptions {
            control: None,
            ..GatewayOptions::new(self.path("gateway"))
        })
        .await?;
        self.options.gateway.url = gateway.url();
        self.shop = Shop::reopen(self.options.clone())?;
        Ok(gateway)
    }

    fn close_gateway(&mut self) -> Result<()> {
        self.options.gateway = nobody(self.dir.path());
        self.shop = Shop::reopen(self.options.clone())?;
        Ok(())
    }

    async fn standing_now(&self) -> Result<Standing> {
        let status = self.shop.status().await?;
        let number = |key: &str| {
            let value = status[key].as_u64();
            value.with_context(|| format!("hubctl status gave no {key}"))
        };
        Ok(Standing {
            queued: number("queued")?,
            parked: number("parked")?,
            exposure_minor: number("exposure_minor")?,
        })
    }

    /// Asks again, with the same bytes.
    async fn ask(&self, payment: &PreparedPayment) -> Result<Receipt, PayError> {
        let device = payment.request().device_sequence.saturating_sub(1) as usize % DEVICES;
        // The number counts the payments; their devices come in turn.
        match self.clients.get(device) {
            Some(client) => client.pay_once(payment).await.map(|held| held.receipt),
            None => Err(PayError::NotAllowed),
        }
    }

    /// How many first answers are not given again.
    async fn answers_lost(&self) -> Result<u64, PayError> {
        let mut lost = 0;
        for (payment, first) in &self.answered {
            lost += u64::from(self.ask(payment).await? != *first);
        }
        Ok(lost)
    }

    async fn hang_up(&self) {
        for client in &self.clients {
            client.close().await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.shop.log_file()).unwrap_or_default()
    }
}

async fn lay(dir: &Path, goods: Goods) -> Result<Vec<PreparedPayment>> {
    let dir = dir.to_owned();
    let laid = tokio::task::spawn_blocking(move || stock::lay(&dir, goods)).await??;
    Ok(laid.sample)
}

fn client(dir: &Path, number: usize) -> Result<DeviceClient> {
    let kept = fleet::kept(&dir.join("devices"), number);
    let (identity, enrolled) = (DeviceIdentity::load(&kept)?, Enrolled::load(&kept)?);
    Ok(DeviceClient::new(identity, enrolled, ClientOptions::default())?)
}

/// No gateway is there: the discard port.
fn nobody(dir: &Path) -> GatewayAccess {
    GatewayAccess {
        url: "https://127.0.0.1:9".to_owned(),
        ca_file: dir.join("gateway").join("gateway-ca.pem"),
        credential: String::new(),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    run_to_end(
        Command::new("cp")
            .args(["-a", "--sparse=always"])
            .arg(from)
            .arg(to),
    )
}

fn run_to_end(command: &mut Command) -> Result<()> {
    let done = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(anyhow!("{command:?}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}

/// The files of a folder whose names end so, in order.
fn files(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in fs::read_dir(dir)? {
        let path = item?.path();
        if path.is_file() && path.to_string_lossy().ends_with(extension) {
            files.push(path);
        }
    }
    files.sort();
    match files.is_empty() {
        true => bail!("{} has no files", dir.display()),
        false => Ok(files),
    }
}

/// Where the zeros begin that end a file.
fn written(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// One of these.
fn one_of<'a, T>(rng: &mut Rng, all: &'a [T]) -> Result<&'a T> {
    let at = usize::try_from(rng.below(all.len() as u64))?;
    all.get(at).context("there is nothing to choose from")
}

/// A number below `end`, which is at least 1.
fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.below(end.max(1) as u64)).unwrap_or(0)
}
