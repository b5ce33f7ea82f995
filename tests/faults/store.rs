//! One shop with its hub on a disk that can be made to suffer, and what is
//! held against its ledger and its gateway's book.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ed25519_dalek::VerifyingKey;
use hub_protocol::Digest;
use hubd::config::{Config, HubKeys, Layout};
use hubd::data_key::StoreKey;
use hubd::ledger::{self, Broken, Fault, Vault};
use sim_devices::binaries::Binaries;
use sim_devices::check::{self, Evidence};
use sim_devices::gateway::{Faults, Gateway, GatewayOptions, RunningGateway};
use sim_devices::limits::Limits;
use sim_devices::rng::Rng;
use sim_devices::scene;
use sim_devices::shop::{GatewayAccess, Shop, ShopOptions};
use sim_devices::told::Told;
use sim_devices::wan::{Wan, WanMode};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::customers::{Customers, Paying};
use crate::disk::{FailingDisk, Failure, FileSystem, Image};
use crate::frozen::freeze;
use crate::tally::{Tally, Way};

mod archiving;

use archiving::Past;

/// Devices of a shop.
const DEVICES: usize = 8;

/// How long the first answer may take, and the end of a hub whose disk failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a disk lies before the power goes.
const LYING: Duration = Duration::from_millis(300);

/// How long the queue may take to drain when all is over.
const DRAIN: Duration = Duration::from_secs(90);

/// What the hub says when it builds its index anew.
pub(crate) const SET_ASIDE: &str = "the index is set aside and built again";

/// What hubd ends with when its ledger fails (sysexits `EX_IOERR`).
const EXIT_FAILED: i32 = 74;

/// A disk for a shop.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// A file system that loses power.
    Image(FileSystem),
    /// A disk whose calls fail on order, on a file system that loses power if
    /// there is one.
    Failing(Option<FileSystem>),
}

impl Place {
    fn name(self) -> &'static str {
        match self {
            Self::Image(fs) | Self::Failing(Some(fs)) => fs.name(),
            Self::Failing(None) => "folder",
        }
    }
}

/// The shop. Its fields go in this order: the hub ends before its disk is
/// taken away.
pub(crate) struct Store {
    shop: Shop,
    customers: Option<Customers>,
    gateway: RunningGateway,
    wan: Wan,
    image: Option<Image>,
    failing: Option<FailingDisk>,
    keys: HubKeys,
    place: &'static str,
    rng: Rng,
    /// How many answers have been held against the ledger.
    checked: usize,
    /// What the shop has had before, and how it is archived.
    past: Past,
    /// What the hub suffered last, and how long its log was then.
    suffered: Option<(Way, usize)>,
    dir: TempDir,
}

impl Store {
    /// Opens a shop with enrolled devices, its hub stopped.
    pub(crate) async fn open(place: Place, binaries: &Binaries, rng: Rng) -> Result<Self> {
        Self::open_with(place, binaries, rng, |_| Ok(Past::default())).await
    }

    /// [`open`](Self::open), and `prepare` is given the hub's folder before
    /// its first start.
    async fn open_with(
        place: Place,
        binaries: &Binaries,
        mut rng: Rng,
        prepare: impl FnOnce(&Path) -> Result<Past>,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hubd-faults-").tempdir()?;
        let mut binaries = binaries.clone();
        let (image, failing) = match place {
            Place::Image(fs) => (Some(Image::make(dir.path(), fs)?), None),
            Place::Failing(fs) => {
                let (failing, program) = FailingDisk::make(dir.path(), &binaries.hubd)?;
                binaries.hubd = program;
                let image = fs.map(|fs| Image::make(dir.path(), fs)).transpose()?;
                (image, Some(failing))
            }
        };
        let gateway = Gateway::start(GatewayOptions {
            seed: rng.next_u64(),
            control: None,
            faults: Faults {
                commit_then_drop: 0.01,
                decline: 0.02,
                ..Faults::default()
            },
            ..GatewayOptions::new(dir.path().join("gateway"))
        })
        .await?;
        let wan = Wan::start(gateway.address()).await?;
        let mut shop = Shop::open(ShopOptions {
            dir: dir.path().to_owned(),
            binaries,
            gateway: GatewayAccess {
                url: wan.url(),
                ca_file: gateway.ca_pem_path(),
                credential: gateway.credential().to_owned(),
            },
            limits: Limits::load(),
            deadline: Duration::from_millis(500),
            probe_interval: Duration::from_millis(100),
            max_in_flight: 16,
            requests_per_second: Some(1_000_000),
            discovery: false,
        })
        .await?;
        small_segments(&shop.hub_dir())?;
        let past = tokio::task::block_in_place(|| prepare(&shop.hub_dir()))?;
        if let Some(image) = &image {
            move_onto(&shop.hub_dir(), image.path())?;
        }
        let config = Config::load(&shop.hub_dir()).map_err(|faults| anyhow!("{faults:?}"))?;
        shop.start().await?;
        shop.wait_wan("online").await?;
        let customers = Customers::enrol(&shop, DEVICES, &mut rng).await?;
        shop.stop().await?;
        Ok(Self {
            shop,
            customers: Some(customers),
            gateway,
            wan,
            image,
            failing,
            keys: config.keys,
            place: place.name(),
            rng,
            checked: 0,
            past,
            suffered: None,
            dir,
        })
    }

    /// Keeps the folder when the shop is gone, and says where it is.
    pub(crate) fn keep(self) -> PathBuf {
        drop((self.shop, self.image));
        self.dir.keep()
    }

    /// Starts the hub, lets its devices pay, makes it suffer at some moment,
    /// and holds every answer so far against what is then on its disk. The
    /// hub is stopped afterwards.
    pub(crate) async fn suffer(&mut self, way: Way, tally: &mut Tally) -> Result<()> {
        let customers = self.customers.take().context("the devices are gone")?;
        let before = customers.book().held().len();
        tally.row(self.place, way).tries += 1;
        // A hub that starts has answered nobody: nothing for a lie to lose.
        let starting = self.rng.chance(150) && way != Way::Disk(Failure::Lie);
        if starting {
            tally.row(self.place, way).while_starting += 1;
        }
        let paying = match way {
            Way::Disk(failure) => self.fail(failure, starting, customers, before).await,
            Way::PowerCut { .. } | Way::Kill if starting => self.start_in_vain(way, customers).await,
            Way::PowerCut { .. } | Way::Kill => self.under_load(way, customers, before).await,
            Way::Archiving { .. } | Way::TakingOver { .. } => bail!("{}: not under load", way.name()),
        }?;
        let mut itself = false;
        match way {
            Way::PowerCut { log_flushed } => self.cut(log_flushed).await?,
            Way::Disk(Failure::Lie) => self.cut(false).await?,
            Way::Disk(_) => itself = self.ended(PATIENCE).await?,
            _ => self.shop.kill().await?,
        }
        self.note_index(Some(way), tally)?;
        tally.row(self.place, way).ended_itself += u64::from(itself);
        self.customers = Some(paying.stop().await?);
        if let Some(failing) = &self.failing {
            failing.mend()?;
        }
        if matches!(way, Way::Disk(failure) if failure != Failure::Lie) && !itself {
            bail!("the hub went on although its disk had failed ({})", way.name());
        }
        if !matches!(way, Way::Kill)
            && let Some(image) = &mut self.image
        {
            image.restore()?;
        }
        self.check(tally).await
    }

    /// The hub is left alone with its ledger for less time than it may need
    /// to open it.
    async fn start_in_vain(&mut self, way: Way, customers: Customers) -> Result<Paying> {
        let paying = customers.start(way);
        let moment = Duration::from_micros(self.rng.below(80_000));
        // Otherwise it is struck while it starts.
        if let Ok(started) = timeout(moment, self.shop.start()).await {
            started?;
        }
        Ok(paying)
    }

    /// The devices are in the middle of paying, and now and then the line
    /// comes or goes.
    async fn under_load(&mut self, way: Way, customers: Customers, before: usize) -> Result<Paying> {
        self.shop.start().await?;
        let paying = self.answered(way, customers, before).await?;
        sleep(Duration::from_micros(self.rng.below(120_000))).await;
        if self.rng.chance(250) {
            let mode = match self.wan.mode() {
                WanMode::Up if self.rng.chance(500) => WanMode::Refuse,
                WanMode::Up => WanMode::Blackhole,
                _ => WanMode::Up,
            };
            self.wan.set(mode);
        }
        sleep(Duration::from_micros(self.rng.below(120_000))).await;
        Ok(paying)
    }

    /// Lets the devices pay, and waits for the first answer.
    async fn answered(&self, way: Way, customers: Customers, before: usize) -> Result<Paying> {
        let book = Arc::clone(customers.book());
        let paying = customers.start(way);
        timeout(PATIENCE, book.grows_past(before)).await.map_err(|_| {
            anyhow!(
                "no device gets an answer; the hub's log says:\n{}",
                self.shop.log_tail()
            )
        })?;
        Ok(paying)
    }

    /// Gives the order that the disk fails: while the hub starts, or under
    /// load.
    async fn fail(
        &mut self,
        failure: Failure,
        starting: bool,
        customers: Customers,
        before: usize,
    ) -> Result<Paying> {
        let count = 1 + self.rng.below(if starting { 4 } else { 30 });
        let order = |failing: &Option<FailingDisk>| match failing {
            Some(failing) => failing.fail(failure, count),
            None => bail!("this shop's disk does not fail"),
        };
        let way = Way::Disk(failure);
        if starting {
            order(&self.failing)?;
            let paying = customers.start(way);
            // Whether it gets through its start, and ends only later, is
            // chance.
            let _ = self.shop.start().await;
            return Ok(paying);
        }
        let paying = self.under_load(way, customers, before).await?;
        order(&self.failing)?;
        if failure == Failure::Lie {
            sleep(LYING).await;
        }
        Ok(paying)
    }

    async fn cut(&mut self, log_flushed: bool) -> Result<()> {
        self.freeze()?;
        let image = self.image.as_ref().context("no power to cut")?;
        image.cut(log_flushed)?;
        self.shop.kill().await
    }

    fn freeze(&self) -> Result<()> {
        freeze(self.shop.pid().context("the hub is not running")?)
    }

    /// Whether the hub ends by itself, and as it should.
    async fn ended(&mut self, patience: Duration) -> Result<bool> {
        match self.shop.ended(patience).await? {
            None => Ok(false),
            Some(status) if status.code() == Some(EXIT_FAILED) => Ok(true),
            Some(status) => bail!(
                "the hub ended with {status} instead of exit code {EXIT_FAILED}; its log says:\n{}",
                self.shop.log_tail()
            ),
        }
    }

    /// Looks up every receipt that a device of this shop has ever got in the
    /// ledger as it is on the disk.
    async fn check(&mut self, tally: &mut Tally) -> Result<()> {
        let digests = self.verified().await?;
        self.find_receipts(&digests, tally)
    }

    async fn verified(&self) -> Result<Vec<Digest>> {
        let dir = self.shop.hub_dir().join("ledger");
        verified(dir, self.keys.signing.verifying_key()).await
    }

    fn find_receipts(&mut self, digests: &[Digest], tally: &mut Tally) -> Result<()> {
        let customers = self.customers.as_ref().context("the devices are gone")?;
        let mut held = customers.book().held();
        let checked = std::mem::replace(&mut self.checked, held.len());
        for (number, held) in held.iter_mut().enumerate() {
            let Some(slip) = held.told.slip() else { continue };
            let place = usize::try_from(slip.sequence).ok().and_then(|n| n.checked_sub(1));
            let found = place.and_then(|n| digests.get(n)) == Some(&slip.entry_digest);
            let row = tally.row(self.place, held.way);
            if number >= checked {
                row.receipts += 1;
                row.found += u64::from(found);
            }
            if !found && !held.lost {
                held.lost = true;
                row.lost += 1;
                tally.faults.push(format!(
                    "{}, {}: payment {} was answered as entry {}, which the ledger of {} entries does not hold",
                    self.place,
                    held.way.name(),
                    held.told.payment_id,
                    slip.sequence,
                    digests.len()
                ));
            }
        }
        Ok(())
    }

    /// Counts whether the hub set its index aside at its start after what it
    /// suffered last, and remembers what it has suffered now.
    fn note_index(&mut self, now: Option<Way>, tally: &mut Tally) -> Result<()> {
        if let Some((way, said)) = self.suffered.take() {
            let aside = self.log_since(said)?.contains(SET_ASIDE);
            tally.row(self.place, way).index_aside += u64::from(aside);
        }
        self.suffered = now.map(|way| (way, self.log_len()));
        Ok(())
    }

    fn log_len(&self) -> usize {
        fs::metadata(self.shop.log_file()).map_or(0, |log| log.len() as usize)
    }

    /// What the hub has said from there on.
    fn log_since(&self, from: usize) -> Result<String> {
        let log = fs::read(self.shop.log_file())?;
        Ok(String::from_utf8_lossy(log.get(from..).unwrap_or_default()).into_owned())
    }

    /// The line comes back for good, everything is sent, and the books are
    /// compared.
    pub(crate) async fn close(&mut self, tally: &mut Tally) -> Result<()> {
        self.wan.set(WanMode::Up);
        self.shop.start().await?;
        self.shop.wait_wan("online").await?;
        let mut customers = self.customers.take().context("the devices are gone")?;
        customers.settle(Way::Kill).await?;
        let book = Arc::clone(customers.book());
        self.customers = Some(customers);
        self.shop.drain(DRAIN, |_| ()).await?;
        let waiting = self.shop.queue().await?;
        self.shop.stop().await?;
        self.note_index(None, tally)?;
        self.check(tally).await?;

        let mut complain = |text: String| tally.faults.push(format!("{}: {text}", self.place));
        book.changed().into_iter().for_each(&mut complain);
        for item in &waiting {
            complain(format!("payment {} is left unsent: {item:?}", item.payment_id));
        }
        // As anybody would: the shipped program, the public key, the files.
        let receipts: Vec<Vec<u8>> = book
            .held()
            .iter()
            .filter_map(|held| held.receipt.clone())
            .collect();
        if let Some(fault) = self.shop.verify_ledger(&receipts).await?.fault {
            // The rest lists every receipt.
            complain(fault.lines().next().unwrap_or_default().to_owned());
        }
        let layout = Layout::new(&self.shop.hub_dir());
        let key = StoreKey::open(&layout, &[&self.keys.vault])?;
        let (_, cards) = Vault::open(&layout.vault, &key.vault_cards(), ledger::VAULT_FILE_BYTES)?;
        if cards.cards > 0 {
            complain(format!("{} sealed cards are kept that nobody needs", cards.cards));
        }
        let told: Vec<Told> = book.held().iter().map(|held| held.told.clone()).collect();
        self.reconcile(&told, &waiting, tally)
    }

    fn reconcile(
        &self,
        told: &[Told],
        waiting: &[sim_devices::told::Waiting],
        tally: &mut Tally,
    ) -> Result<()> {
        let customers = self.customers.as_ref().context("the devices are gone")?;
        let payments = self.gateway.payments();
        let book = payments.iter().map(scene::booked).collect::<Result<Vec<_>>>()?;
        let verdict = check::reconcile(&Evidence {
            told,
            book: &book,
            waiting,
            limits: self.shop.limits(),
            outages: &[],
        });
        let charged: std::collections::HashMap<_, _> = book
            .iter()
            .map(|b| (b.payment_id, u64::from(b.net_charges())))
            .collect();
        let held = customers.book().held();
        for held in held.iter() {
            let id = held.told.payment_id;
            let row = tally.row(self.place, held.way);
            row.charges += charged.get(&id).copied().unwrap_or(0);
            row.lost += verdict.lost.iter().filter(|fault| fault.payment_id == id).count() as u64;
            row.twice += verdict
                .charged_twice
                .iter()
                .filter(|fault| fault.payment_id == id)
                .count() as u64;
        }
        for fault in verdict.faults() {
            let text = format!("{}: payment {}: {}", self.place, fault.payment_id, fault.what);
            tally.faults.push(text);
        }
        Ok(())
    }
}

/// Verifies a ledger as it is on the disk, every signature of it. Gives the
/// digest of each entry.
pub(crate) async fn verified(dir: PathBuf, key: VerifyingKey) -> Result<Vec<Digest>> {
    let (digests, broken) = tokio::task::spawn_blocking(move || {
        let mut digests = Vec::new();
        ledger::verify_each(&dir, &key, &mut |head| digests.push(head.digest), &mut |_| ())
            .map(|report| (digests, report.broken))
    })
    .await??;
    match broken {
        // What a cut leaves of a write that nobody was answered for.
        None
        | Some(Broken {
            fault: Fault::TornTail { .. },
            ..
        }) => Ok(digests),
        Some(broken) => bail!("the ledger does not verify: {broken}"),
    }
}

/// Journal files of 1 MiB: closing one and beginning the next happens often.
pub(crate) fn small_segments(hub: &Path) -> Result<()> {
    configure(hub, "segment_mib", 1)
}

/// Changes a number in the hub's configuration, which has to be there.
pub(crate) fn configure(hub: &Path, key: &str, value: u32) -> Result<()> {
    let path = hub.join("hubd.toml");
    let text = fs::read_to_string(&path)?;
    let is_it = |line: &&str| line.split('=').next().is_some_and(|name| name.trim() == key);
    if !text.lines().any(|line| is_it(&line)) {
        bail!("{} has no {key}", path.display());
    }
    let new = format!("{key} = {value}");
    let lines = text
        .lines()
        .map(|line| if is_it(&line) { new.as_str() } else { line });
    Ok(fs::write(path, lines.collect::<Vec<_>>().join("\n") + "\n")?)
}

/// The hub's folder moves onto another disk, durably.
fn move_onto(hub: &Path, disk: &Path) -> Result<()> {
    let run = |command: &mut Command| match command.output() {
        Ok(done) if done.status.success() => Ok(()),
        Ok(done) => Err(anyhow!("{command:?}: {}", String::from_utf8_lossy(&done.stderr))),
        Err(error) => Err(anyhow!("{command:?}: {error}")),
    };
    let there = disk.join("hub");
    run(Command::new("cp").arg("-a").arg(hub).arg(&there))?;
    fs::remove_dir_all(hub)?;
    symlink(&there, hub)?;
    run(Command::new("sync").arg("-f").arg(&there))
}
