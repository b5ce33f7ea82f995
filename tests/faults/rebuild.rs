//! How long the shipped hub takes to open a ledger with a long queue, and how
//! much memory it has then: with its index, after kill -9, with an index that
//! is behind, and without one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use rustix::fs::Advice;
use serde::Serialize;
use sim_devices::binaries::Binaries;
use sim_devices::limits::Limits;
use sim_devices::shop::{GatewayAccess, Shop, ShopOptions};

use crate::stock::{self, Goods};

/// The longest that a start is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is asked of a hub with 1,000,000 unsent payments.
const OPENED_IN: f64 = 2.0;
const REBUILT_IN: f64 = 20.0;
const RESIDENT_MIB: f64 = 64.0;

/// More payments than a hub that is killed leaves without their place in the
/// index: it writes a table as soon as it has gathered some 11,000 of them.
const BEHIND: u64 = 15_000;

/// One start of the hub.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Start {
    /// What was found on disk.
    pub(crate) after: &'static str,
    /// From the start of the process until it answers.
    pub(crate) seconds: f64,
    /// The most that it should be, at 1,000,000 payments.
    pub(crate) bound_seconds: f64,
    /// Memory at that moment (`VmRSS`), MiB.
    pub(crate) resident_mib: f64,
    /// The most until then (`VmHWM`), MiB.
    pub(crate) most_mib: f64,
    /// Payments that wait to be sent, by the hub's word.
    pub(crate) queued: u64,
    /// Exposure of the store in minor units, by the hub's word.
    pub(crate) exposure_minor: u64,
}

/// Everything measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// Payments laid.
    pub(crate) payments: u64,
    /// Devices.
    pub(crate) devices: usize,
    /// Cards.
    pub(crate) cards: u64,
    /// Entries in the ledger.
    pub(crate) entries: u64,
    /// What it took to write them, seconds.
    pub(crate) written_in: f64,
    /// Bytes on disk: journal, vault, index.
    pub(crate) bytes: [u64; 3],
    /// The starts, in order.
    pub(crate) starts: Vec<Start>,
}

/// Lays a stock in `dir`, or in a folder that goes away, and opens it.
pub(crate) async fn run(dir: Option<PathBuf>, binaries: &Binaries, goods: Goods) -> Result<Report> {
    let folder = tempfile::Builder::new().prefix("hubd-rebuild-").tempdir()?;
    let dir = dir.unwrap_or_else(|| folder.path().to_owned());
    stock::set_up(&dir, binaries, goods.devices, |_| Ok(())).await?;
    let behind = BEHIND.min(goods.payments / 2);
    let first = Goods {
        payments: goods.payments - behind,
        ..goods
    };
    let mut laid = lay(&dir, first).await?;
    let mut shop = shop(&dir, binaries)?;
    let index = stock::hub_of(&dir).join("index");
    let mut report = Report {
        payments: goods.payments,
        devices: goods.devices,
        cards: goods.cards,
        entries: 0,
        written_in: 0.0,
        bytes: [0; 3],
        starts: Vec::new(),
    };
    // So that the index knows all but the last.
    shop.start_within(PATIENCE).await?;
    shop.stop().await?;
    let rest = Goods {
        payments: behind,
        ..goods
    };
    let more = lay(&dir, rest).await?;
    laid.took += more.took;
    report.written_in = laid.took.as_secs_f64();

    let mut start = async |after, bound, shop: &mut Shop| -> Result<()> {
        forget_pages(&stock::hub_of(&dir))?;
        report.starts.push(measure(after, bound, shop).await?);
        Ok(())
    };
    start("kill -9, the index behind", OPENED_IN, &mut shop).await?;
    shop.stop().await?;
    start("stop", OPENED_IN, &mut shop).await?;
    shop.kill().await?;
    start("kill -9", OPENED_IN, &mut shop).await?;
    shop.stop().await?;
    fs::remove_dir_all(&index).with_context(|| format!("cannot remove {}", index.display()))?;
    start("index removed", REBUILT_IN, &mut shop).await?;
    shop.stop().await?;
    start("stop, index just built", OPENED_IN, &mut shop).await?;
    report.entries = shop.status().await?["ledger_entries"].as_u64().unwrap_or(0);
    shop.stop().await?;
    let hub = stock::hub_of(&dir);
    report.bytes = [
        size(&hub.join("ledger"))?,
        size(&hub.join("vault"))?,
        size(&index)?,
    ];
    for start in &report.starts {
        ensure!(
            start.queued == goods.payments,
            "after {}: {} payments are queued instead of {}",
            start.after,
            start.queued,
            goods.payments
        );
        ensure!(
            report
                .starts
                .iter()
                .all(|other| other.exposure_minor == start.exposure_minor),
            "exposure differs from start to start: {:?}",
            report.starts
        );
    }
    Ok(report)
}

async fn lay(dir: &Path, goods: Goods) -> Result<stock::Laid> {
    let dir = dir.to_owned();
    tokio::task::spawn_blocking(move || stock::lay(&dir, goods)).await?
}

/// The shop with no gateway to be reached.
fn shop(dir: &Path, binaries: &Binaries) -> Result<Shop> {
    let gateway = dir.join("gateway");
    Shop::reopen(ShopOptions {
        dir: dir.to_owned(),
        binaries: binaries.clone(),
        gateway: GatewayAccess {
            // The discard port: nobody listens there.
            url: "https://127.0.0.1:9".to_owned(),
            ca_file: gateway.join("gateway-ca.pem"),
            credential: String::new(),
        },
        limits: Limits::load(),
        deadline: Duration::from_secs(1),
        probe_interval: Duration::from_secs(1),
        max_in_flight: 64,
        requests_per_second: Some(1_000_000),
        discovery: false,
    })
}

async fn measure(after: &'static str, bound_seconds: f64, shop: &mut Shop) -> Result<Start> {
    let began = Instant::now();
    shop.start_within(PATIENCE).await?;
    let seconds = began.elapsed().as_secs_f64();
    let pid = shop.pid().context("the hub is not running")?;
    let [resident_mib, most_mib] = memory(pid)?;
    let status = shop.status().await?;
    let number = |key: &str| {
        let value = status[key].as_u64();
        value.with_context(|| format!("hubctl status gave no {key}"))
    };
    Ok(Start {
        after,
        seconds,
        bound_seconds,
        resident_mib,
        most_mib,
        queued: number("queued")?,
        exposure_minor: number("exposure_minor")?,
    })
}

/// `VmRSS` and `VmHWM` of a process, MiB.
fn memory(pid: u32) -> Result<[f64; 2]> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let kib = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<f64>().ok());
        kib.map(|kib| kib / 1024.0)
            .with_context(|| format!("/proc/{pid}/status has no {key}"))
    };
    Ok([mib("VmRSS:")?, mib("VmHWM:")?])
}

/// As after a power cut, nothing of the files is in memory.
fn forget_pages(dir: &Path) -> Result<()> {
    for item in fs::read_dir(dir)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            forget_pages(&item.path())?;
        } else if item.file_type()?.is_file() {
            let file = File::open(item.path())?;
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for item in fs::read_dir(dir)? {
        let item = item?;
        bytes += match item.file_type()?.is_dir() {
            true => size(&item.path())?,
            false => item.metadata()?.len(),
        };
    }
    Ok(bytes)
}

impl Report {
    /// The starts that took longer than their bound, or more memory.
    fn beyond(&self) -> Vec<&str> {
        let beyond = self.starts.iter().filter(|start| {
            start.seconds > start.bound_seconds
                || (start.bound_seconds < REBUILT_IN && start.most_mib > RESIDENT_MIB)
        });
        beyond.map(|start| start.after).collect()
    }

    /// Whether all is within its bounds, which are for 1,000,000 payments.
    pub(crate) fn within(&self) -> bool {
        self.payments < 1_000_000 || self.beyond().is_empty()
    }

    pub(crate) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "opening after",
            "seconds",
            "bound",
            "RSS MiB",
            "HWM MiB",
            "queued",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for start in &self.starts {
            table.add_row([
                start.after.to_owned(),
                format!("{:.2}", start.seconds),
                format!("{:.0}", start.bound_seconds),
                format!("{:.0}", start.resident_mib),
                format!("{:.0}", start.most_mib),
                start.queued.to_string(),
            ]);
        }
        let [journal, vault, index] = self.bytes.map(|bytes| bytes >> 20);
        let beyond = self.beyond();
        let verdict = match (self.payments >= 1_000_000, beyond.is_empty()) {
            (false, _) => "The bounds are for 1,000,000 payments.".to_owned(),
            (true, true) => format!("All within their bounds, and {RESIDENT_MIB} MiB."),
            (true, false) => format!("Beyond its bound, or {RESIDENT_MIB} MiB: {}.", beyond.join("; ")),
        };
        format!(
            "{} payments of {} devices with {} cards, {} entries, written in {:.0} s;\n\
             on disk: journal {journal} MiB, sealed cards {vault} MiB, index {index} MiB.\n\
             Before each start the files' pages are dropped from memory.\n\n{table}\n\n{verdict}\n",
            self.payments, self.devices, self.cards, self.entries, self.written_in
        )
    }
}
