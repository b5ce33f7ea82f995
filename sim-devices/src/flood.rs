//! Floods: what honest devices notice while somebody on the shop's network
//! sends as much as it can.
//!
//! Hub and floods are two processes. On a real network whoever floods has a
//! processor of its own; here its thread takes what hub and honest devices
//! leave, with the scheduling class for idle work where there is `chrt`. The
//! line to the gateway is cut, so that every answer is the hub's own.

mod half_open;
mod honest;
mod intruder;
mod kinds;
mod padding;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hub_protocol::DeviceClass;
use hub_sdk::DeviceClient;
use serde::Serialize;
use serde_json::Value;

use crate::limits::Limits;
use crate::progress::Progress;
use crate::scene::{LedgerCheck, Scene, SceneOptions};
use crate::wan::WanMode;
use honest::{Honest, sell};
use intruder::Intruder;
pub use kinds::Kind;

/// Before the first measurement, unmeasured.
const WARM_UP: Duration = Duration::from_secs(1);

/// After a flood, before the next one: what it left behind ends.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a technician takes an enrolment code while tokens are guessed.
const CODES_EVERY: Duration = Duration::from_millis(500);

/// What is measured.
#[derive(Clone, Debug)]
pub struct FloodOptions {
    /// The floods, one measurement each.
    pub kinds: Vec<Kind>,
    /// Honest devices.
    pub devices: usize,
    /// How often each of them sells.
    pub every: Duration,
    /// How long each flood lasts; honest sales alone are measured for as long
    /// before them and behind them.
    pub seconds: u64,
    /// From how many addresses of this machine floods come (127.0.66.1 and
    /// up).
    pub addresses: u8,
    /// What the hub lets one device ask a second; `None`: what it has by
    /// itself.
    pub requests_per_second: Option<u32>,
    /// Where everything is kept; `None` for a folder that goes away.
    pub keep: Option<PathBuf>,
    /// Where `hubd` and `hubctl` are; `None` to find or build them.
    pub bin_dir: Option<PathBuf>,
}

/// Honest sales, alone or under a flood.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `None`: alone.
    pub flood: Option<Kind>,
    /// What the flood sent: packets, handshakes, streams, frames or requests.
    pub sent: u64,
    /// What the flood was answered: the decisions, and the refusals by name.
    pub answers: BTreeMap<String, u64>,
    /// What the hub counted as turned away or slowed down meanwhile, by bound.
    pub turned_away: BTreeMap<String, u64>,
    /// Honest sales, each approved offline.
    pub sales: u64,
    /// Honest sales that got no answer.
    pub unanswered: u64,
    /// Honest sales that got another answer than an approval.
    pub not_approved: u64,
    /// Median of what a customer waited, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// The longest, microseconds.
    pub max_us: u64,
    /// The hub's resident memory at the most, bytes.
    pub memory_bytes: u64,
    /// What the hub wrote to its log, bytes.
    pub log_bytes: u64,
}

/// Everything measured.
#[derive(Clone, Debug)]
pub struct FloodReport {
    /// Alone before, each flood, alone again.
    pub rows: Vec<Row>,
    /// Whether the ledger verifies and holds every honest receipt.
    pub ledger: LedgerCheck,
}

impl FloodReport {
    /// Whether every honest sale was answered, approved, and is in the ledger.
    pub fn clean(&self) -> bool {
        let each = |row: &Row| row.unanswered == 0 && row.not_approved == 0 && row.sales > 0;
        self.ledger.verified && self.rows.iter().all(each)
    }
}

/// Measures.
///
/// # Errors
/// The scene cannot be set, or the hub is gone.
pub async fn run(options: &FloodOptions, progress: &Progress) -> Result<FloodReport> {
    if options.devices == 0 || options.seconds == 0 || options.addresses == 0 || options.kinds.is_empty() {
        bail!("at least one flood, device, address and second are needed");
    }
    progress.step("hub, gateway and devices");
    let mut scene = Scene::open(&scene_of(options), &|_| {}).await?;
    let intruder = Intruder::join(&scene.shop, options.addresses).await?;
    scene.cut(WanMode::Refuse);
    scene.shop.wait_wan("offline").await?;
    let mut measuring = Measuring {
        clients: scene
            .fleet
            .tills
            .iter()
            .map(|till| till.client().clone())
            .collect(),
        scene: &scene,
        intruder: &intruder,
        options,
        receipts: Vec::new(),
    };
    sell(&measuring.clients, options.every, WARM_UP).await?;
    progress.step("honest sales alone");
    let mut rows = vec![measuring.row(None).await?];
    for kind in &options.kinds {
        progress.step(&format!("{kind}, {} s", options.seconds));
        rows.push(measuring.row(Some(*kind)).await?);
    }
    progress.step("honest sales alone, once more");
    rows.push(measuring.row(None).await?);
    let receipts = measuring.receipts;
    scene.fleet.close().await;
    scene.shop.stop().await?;
    progress.step("the ledger");
    let ledger = scene.shop.verify_ledger(&receipts).await?;
    Ok(FloodReport { rows, ledger })
}

fn scene_of(options: &FloodOptions) -> SceneOptions {
    SceneOptions {
        keep: options.keep.clone(),
        reopen: false,
        bin_dir: options.bin_dir.clone(),
        limits: Limits::load(),
        devices: options.devices,
        discovery: false,
        seed: 1,
        deadline: Duration::from_secs(1),
        probe_interval: Duration::from_secs(1),
        max_in_flight: 8,
        requests_per_second: options.requests_per_second,
    }
}

struct Measuring<'a> {
    scene: &'a Scene,
    clients: Vec<DeviceClient>,
    intruder: &'a Intruder,
    options: &'a FloodOptions,
    receipts: Vec<Vec<u8>>,
}

impl Measuring<'_> {
    async fn row(&mut self, flood: Option<Kind>) -> Result<Row> {
        let shop = &self.scene.shop;
        let pid = shop.pid().context("the hub is not running")?;
        let before = turned_away(&shop.status().await?);
        let logged = log_bytes(&self.scene.shop);
        if flood == Some(Kind::Enrolment) {
            // The endpoint is open only while a code is outstanding.
            shop.enrolment_code(DeviceClass::Softpos).await?;
        }
        let status = shop.status().await?;
        let running = flood.map(|kind| self.intruder.start(kind, &status)).transpose()?;
        let time = Duration::from_secs(self.options.seconds);
        let selling = async {
            tokio::select! {
                honest = sell(&self.clients, self.options.every, time) => honest,
                () = self.technician(flood) => bail!("a technician never ends"),
            }
        };
        let (honest, memory_bytes) = honest::with_memory(pid, selling).await?;
        let Honest {
            waited,
            unanswered,
            not_approved,
            receipts,
        } = honest;
        let (sent, answers) = running.map(kinds::Running::stop).unwrap_or_default();
        self.receipts.extend(receipts);
        tokio::time::sleep(PAUSE).await;
        let mut turned_away = turned_away(&shop.status().await?);
        for (bound, count) in before {
            turned_away.entry(bound).and_modify(|now| *now -= count);
        }
        turned_away.retain(|_, count| *count > 0);
        Ok(Row {
            flood,
            sent,
            answers,
            turned_away,
            sales: waited.len(),
            unanswered,
            not_approved,
            p50_us: waited.value_at_quantile(0.5),
            p99_us: waited.value_at_quantile(0.99),
            max_us: waited.max(),
            memory_bytes,
            log_bytes: log_bytes(shop).saturating_sub(logged),
        })
    }

    /// Whoever takes codes for new devices, again and again: guesses void
    /// them. Never ends.
    async fn technician(&self, flood: Option<Kind>) {
        while flood == Some(Kind::Enrolment) {
            tokio::time::sleep(CODES_EVERY).await;
            // Sixteen outstanding is as good.
            let _ = self.scene.shop.enrolment_code(DeviceClass::Softpos).await;
        }
        std::future::pending().await
    }
}

fn turned_away(status: &Value) -> BTreeMap<String, u64> {
    let counts = status["turned_away"].as_object().into_iter().flatten();
    counts
        .filter_map(|(bound, count)| Some((bound.clone(), count.as_u64()?)))
        .collect()
}

fn log_bytes(shop: &crate::shop::Shop) -> u64 {
    std::fs::metadata(shop.log_file()).map_or(0, |file| file.len())
}
