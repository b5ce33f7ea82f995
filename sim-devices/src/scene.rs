//! Everything a run needs: a gateway with its book, a line that can be cut,
//! a real hub, devices, and the witness.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use hub_protocol::{Decision, PaymentState};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::binaries::Binaries;
use crate::ceilings::Outage;
use crate::check::{self, Evidence, Verdict};
use crate::fleet::Fleet;
use crate::gateway::{BookPayment, BookStatus, Faults, Gateway, GatewayOptions, RunningGateway};
use crate::limits::Limits;
use crate::shop::{GatewayAccess, Shop, ShopOptions};
use crate::told::{Booked, Standing, Told};
use crate::wan::{Wan, WanMode};
use crate::witness::Witness;

/// What a scene is made of.
#[derive(Clone, Debug)]
pub struct SceneOptions {
    /// Where everything is kept; `None` for a folder that goes away.
    pub keep: Option<PathBuf>,
    /// Go on with hub and devices of the scene that was kept there.
    pub reopen: bool,
    /// Where `hubd` and `hubctl` are; `None` to find or build them.
    pub bin_dir: Option<PathBuf>,
    /// The policy.
    pub limits: Limits,
    /// How many devices.
    pub devices: usize,
    /// Whether devices find the hub over mDNS.
    pub discovery: bool,
    /// For the gateway's faults.
    pub seed: u64,
    /// How long a customer waits for the gateway.
    pub deadline: Duration,
    /// How often the hub probes the gateway.
    pub probe_interval: Duration,
    /// The most payments under way at replay.
    pub max_in_flight: u32,
    /// How many requests a second one device may send; `None`: as configured.
    pub requests_per_second: Option<u32>,
}

/// A shop at work.
pub struct Scene {
    /// The shop.
    pub shop: Shop,
    /// Its devices.
    pub fleet: Fleet,
    /// What customers were told.
    pub witness: Arc<Witness>,
    gateway: RunningGateway,
    wan: Wan,
    outages: Vec<Outage>,
    cut_at: Option<SystemTime>,
    folder: Folder,
}

enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }
}

/// Everything after the last customer has gone.
#[derive(Debug)]
pub struct Closing {
    /// What customers were told.
    pub told: Vec<Told>,
    /// The comparison.
    pub verdict: Verdict,
    /// Of the payments approved offline, those that the hub has told their
    /// device to be answered by the gateway.
    pub replayed: u64,
    /// Those that the hub has told their device to be parked.
    pub parked: u64,
    /// What the verification of the ledger says, and every receipt in it.
    pub ledger: LedgerCheck,
    /// How often the line was cut.
    pub outages: usize,
    /// How often the hub was killed and started again.
    pub restarts: u32,
    /// What the gateway would pay out.
    pub settlement: PathBuf,
}

/// What came of verifying the ledger from its files and its public key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerCheck {
    /// Whether all of it verifies and holds every receipt.
    pub verified: bool,
    /// Its entries.
    pub entries: u64,
    /// Receipts held against it.
    pub receipts: u64,
    /// What is wrong, if anything.
    pub fault: Option<String>,
}

impl Scene {
    /// Sets the scene: when it returns, the hub is online and all devices are
    /// enrolled; one that was kept is offline. `note` hears what is being done.
    pub async fn open(options: &SceneOptions, note: &dyn Fn(&str)) -> Result<Self> {
        let binaries = Binaries::find(options.bin_dir.as_deref())?;
        let folder = match &options.keep {
            Some(dir) => Folder::Kept(std::path::absolute(dir)?),
            None => Folder::Temporary(tempfile::Builder::new().prefix("hubd-sim-").tempdir()?),
        };
        let dir = folder.path();
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        note("gateway");
        let gateway = Gateway::start(GatewayOptions {
            seed: options.seed,
            control: None,
            ..GatewayOptions::new(dir.join("gateway"))
        })
        .await
        .context("the simulated gateway does not start")?;
        let wan = Wan::start(gateway.address())
            .await
            .context("the simulated line does not start")?;
        note("hub");
        let shop_options = ShopOptions {
            dir: dir.to_owned(),
            binaries,
            gateway: GatewayAccess {
                url: wan.url(),
                ca_file: gateway.ca_pem_path(),
                credential: gateway.credential().to_owned(),
            },
            limits: options.limits.clone(),
            deadline: options.deadline,
            probe_interval: options.probe_interval,
            max_in_flight: options.max_in_flight,
            requests_per_second: options.requests_per_second,
            discovery: options.discovery,
        };
        let (mut shop, mode, wan_state) = match options.reopen {
            // What was decided earlier waits with the hub for the line.
            true => (Shop::reopen(shop_options)?, WanMode::Refuse, "offline"),
            false => (Shop::open(shop_options).await?, WanMode::Up, "online"),
        };
        wan.set(mode);
        shop.start().await?;
        shop.wait_wan(wan_state).await?;
        note("devices");
        let witness = Arc::new(Witness::create(&new_list(dir))?);
        let kept = dir.join("devices");
        let fleet = if options.reopen {
            Fleet::reopen(&shop, options.devices, &witness, &kept)?
        } else {
            let keep = options.keep.is_some().then_some(kept.as_path());
            Fleet::open(&shop, options.devices, options.discovery, &witness, keep).await?
        };
        Ok(Self {
            shop,
            fleet,
            witness,
            gateway,
            wan,
            outages: Vec::new(),
            cut_at: None,
            folder,
        })
    }

    /// Where everything is.
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder when the scene is over, and says where it is.
    pub fn keep(self) -> PathBuf {
        match self.folder {
            Folder::Temporary(dir) => dir.keep(),
            Folder::Kept(dir) => dir,
        }
    }

    /// Changes what goes wrong at the gateway.
    pub fn set_faults(&self, faults: Faults) -> Result<()> {
        self.gateway
            .set_faults(faults)
            .map_err(|fault| anyhow!("{fault}"))
    }

    /// Cuts the line.
    pub fn cut(&mut self, how: WanMode) {
        self.wan.set(how);
        self.cut_at = Some(SystemTime::now());
    }

    /// Mends the line.
    pub fn mend(&mut self) {
        if let Some(cut) = self.cut_at.take() {
            self.outages.push(Outage::between(cut, SystemTime::now()));
        }
        self.wan.set(WanMode::Up);
    }

    /// The gateway.
    pub fn gateway(&self) -> &RunningGateway {
        &self.gateway
    }

    /// Closes the shop and compares the books: asks every device how its
    /// offline payments stand, stops the hub as a service manager does,
    /// verifies the ledger from its files, and reads the gateway's book.
    pub async fn close(&mut self) -> Result<Closing> {
        self.mend();
        let told = self.witness.all();
        let states = self.states_of_offline(&told).await?;
        let waiting = self.shop.queue().await?;
        self.fleet.close().await;
        self.shop.stop().await?;
        let ledger = self.shop.verify_ledger(&self.witness.receipts()).await?;
        let book = self
            .gateway
            .payments()
            .iter()
            .map(booked)
            .collect::<Result<Vec<_>>>()?;
        let verdict = check::reconcile(&Evidence {
            told: &told,
            book: &book,
            waiting: &waiting,
            limits: self.shop.limits(),
            outages: &self.outages,
        });
        let counted = |wanted: &[PaymentState]| states.iter().filter(|s| wanted.contains(s)).count() as u64;
        let settlement = self.gateway.write_settlement().context("no settlement file")?;
        Ok(Closing {
            verdict,
            replayed: counted(&[PaymentState::Settled, PaymentState::SettledDeclined]),
            parked: counted(&[PaymentState::Parked]),
            ledger,
            outages: self.outages.len(),
            restarts: self.shop.restarts(),
            settlement: settlement.path,
            told,
        })
    }

    /// How the hub says that the payments it approved by itself stand now.
    async fn states_of_offline(&self, told: &[Told]) -> Result<Vec<PaymentState>> {
        let mut asking = JoinSet::new();
        for till in &self.fleet.tills {
            let till = Arc::clone(till);
            let ids: Vec<_> = told
                .iter()
                .filter(|t| t.device == till.device())
                .filter(|t| t.slip().is_some_and(|s| s.decision == Decision::ApprovedOffline))
                .map(|t| t.payment_id)
                .collect();
            asking.spawn(async move {
                let mut states = Vec::with_capacity(ids.len());
                for id in ids {
                    states.push(till.state_of(id).await?);
                }
                Ok::<_, anyhow::Error>(states)
            });
        }
        let mut states = Vec::new();
        while let Some(till) = asking.join_next().await {
            states.extend(till.context("a till came to grief")??);
        }
        Ok(states)
    }
}

/// A payment of the gateway's book, as the reconciliation reads it. Whether
/// money was taken is the gateway's own flag, not worked out from its status.
///
/// # Errors
/// An id that is none.
pub fn booked(payment: &BookPayment) -> Result<Booked> {
    Ok(Booked {
        payment_id: payment
            .payment_id
            .parse()
            .context("the gateway's book holds an id that is none")?,
        order_id: payment.order_id.clone(),
        amount_minor: payment.amount_minor,
        standing: match payment.status {
            BookStatus::Approved => Standing::Approved,
            BookStatus::Declined => Standing::Declined,
            BookStatus::Pending => Standing::Pending,
            BookStatus::Reversed => Standing::Reversed,
        },
        charges: u32::from(payment.charged)
            .saturating_add(u32::try_from(payment.charged_again).unwrap_or(u32::MAX)),
        answered_ms: payment.answered_ms,
    })
}

/// A name for a witness list that no other has.
fn new_list(dir: &Path) -> PathBuf {
    let mut path = dir.join("witness.jsonl");
    let mut number = 1;
    while path.exists() {
        number += 1;
        path = dir.join(format!("witness-{number}.jsonl"));
    }
    path
}
