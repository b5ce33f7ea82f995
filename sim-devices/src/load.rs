//! How many payments a second: durable, signed, approved offline, seen from
//! the devices over real QUIC. Hub and load are two processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hub_sdk::DeviceClient;
use serde_json::Value;

use crate::limits::Limits;
use crate::progress::Progress;
use crate::scene::{Scene, SceneOptions};
use crate::wan::WanMode;

pub(crate) mod drive;
mod echo;
mod machine;
mod report;

pub use echo::Echo;
use machine::ProcessTime;
pub use machine::Rates;

/// Before each measurement, unmeasured: connections open, files grow warm,
/// and the rate is estimated for what is signed beforehand.
const WARM_UP: Duration = Duration::from_millis(700);

/// The most payments signed beforehand (some 3 KiB of memory each, with their
/// receipts).
const MOST_SIGNED: u64 = 400_000;

/// The most that a hub queues; above it nothing is approved offline.
const MOST_QUEUED: u64 = 1_000_000;

/// How many connections the bare echo has at the most: as many as devices,
/// but a hub at 256 does not need another measure than at 64.
const MOST_ECHOING: usize = 64;

/// What is measured.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many devices, one measurement each; every device has one payment
    /// under way at a time.
    pub devices: Vec<usize>,
    /// How long each measurement takes.
    pub seconds: u64,
    /// Whether requests are signed before the clock starts and receipts
    /// checked after it has stopped. On real devices each has its own
    /// processor; here they share the hub's.
    pub presigned: bool,
    /// Measure all again with so many payments queued, or as many below that
    /// as leave room in the queue for what is measured.
    pub queue: Option<u64>,
    /// Measure all again with the hub in this folder, which has a long queue
    /// already.
    pub stocked: Option<PathBuf>,
    /// How long to measure what the hub does while nobody wants anything,
    /// first without devices, then with all of them connected; 0 for not.
    pub idle_seconds: u64,
    /// Where everything is kept; `None` for a folder that goes away.
    pub keep: Option<PathBuf>,
    /// Where `hubd` and `hubctl` are; `None` to find or build them.
    pub bin_dir: Option<PathBuf>,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Row {
    /// Devices, and so payments under way.
    pub devices: usize,
    /// Payments in the hub's queue when it began.
    pub queued: u64,
    /// Answered in the time measured.
    pub answered: u64,
    /// Answers a second.
    pub per_second: f64,
    /// Median of the answer times, microseconds.
    pub p50_us: u64,
    /// 99th percentile of the answer times, microseconds.
    pub p99_us: u64,
    /// The longest answer time, microseconds.
    pub max_us: u64,
    /// Receipts checked after the measurement: all, if requests were signed
    /// beforehand; else each was checked when it came.
    pub checked: u64,
    /// Processors that the hub kept busy.
    pub hub_processors: f64,
    /// Processors that the devices' side kept busy.
    pub load_processors: f64,
    /// Bytes that the hub wrote to disk for each answer.
    pub written_each: f64,
    /// What the hub counts of itself, the difference over the measurement.
    pub ledger: BTreeMap<String, u64>,
}

/// Everything measured.
#[derive(Clone, Debug)]
pub struct LoadReport {
    /// One a number of devices.
    pub rows: Vec<Row>,
    /// Processors that the idle hub kept busy: without devices, and with all
    /// of them connected.
    pub idle: Option<[f64; 2]>,
    /// What this machine can do at most, measured in the same run.
    pub rates: Rates,
    /// Bare QUIC, measured in the same run.
    pub echo: Echo,
    /// Whether requests were signed beforehand.
    pub presigned: bool,
    /// Seconds of each measurement.
    pub seconds: u64,
}

/// Measures.
pub async fn run(options: &LoadOptions, progress: &Progress) -> Result<LoadReport> {
    let most = options.devices.iter().copied().max().unwrap_or(0);
    if most == 0 || options.seconds == 0 {
        bail!("at least one device and one second are needed");
    }
    progress.step("hub, gateway and devices");
    let mut scene = Scene::open(&scene_of(options, options.keep.clone(), false), &|_| {}).await?;
    let idle = match options.idle_seconds {
        0 => None,
        seconds => Some(idle(&scene, Duration::from_secs(seconds), progress).await?),
    };
    scene.cut(WanMode::Refuse);
    scene.shop.wait_wan("offline").await?;
    progress.step("what this machine can do: signatures, flushes");
    let before = machine::rates(scene.dir())?;
    let echo = echo::measure(most.min(MOST_ECHOING)).await?;
    let mut rows = Vec::new();
    for count in &options.devices {
        progress.step(&format!("{count} device(s), {} s", options.seconds));
        rows.push(measure(&scene, *count, options).await?);
    }
    if let Some(queue) = options.queue {
        fill(&scene, queue, options, &rows, progress).await?;
        for count in &options.devices {
            progress.step(&format!("{count} device(s), {} s, long queue", options.seconds));
            rows.push(measure(&scene, *count, options).await?);
        }
    }
    if let Some(dir) = &options.stocked {
        scene.fleet.close().await;
        scene.shop.stop().await?;
        progress.step("the hub with a long queue");
        scene = Scene::open(&scene_of(options, Some(dir.clone()), true), &|_| {}).await?;
        for count in &options.devices {
            progress.step(&format!("{count} device(s), {} s, long queue", options.seconds));
            rows.push(measure(&scene, *count, options).await?);
        }
    }
    let rates = before.or_better(machine::rates(scene.dir())?);
    scene.fleet.close().await;
    scene.shop.stop().await?;
    Ok(LoadReport {
        rows,
        idle,
        rates,
        echo,
        presigned: options.presigned,
        seconds: options.seconds,
    })
}

/// What the hub does while nobody wants anything.
async fn idle(scene: &Scene, time: Duration, progress: &Progress) -> Result<[f64; 2]> {
    progress.step("no device connected, nobody wants anything");
    let alone = busy_while_idle(scene, time).await?;
    for till in &scene.fleet.tills {
        till.client().hello().await.context("a device is not heard")?;
    }
    progress.step("all devices connected, nobody wants anything");
    let connected = busy_while_idle(scene, time).await?;
    let status = scene.shop.status().await?;
    let count = status["devices_connected"].as_u64();
    if count != Some(scene.fleet.tills.len() as u64) {
        bail!(
            "{count:?} devices are connected instead of {}",
            scene.fleet.tills.len()
        );
    }
    Ok([alone, connected])
}

async fn busy_while_idle(scene: &Scene, time: Duration) -> Result<f64> {
    tokio::time::sleep(WARM_UP).await;
    let pid = scene.shop.pid().context("the hub is not running")?;
    let before = ProcessTime::of(pid)?;
    tokio::time::sleep(time).await;
    Ok(ProcessTime::of(pid)?.busy_since(&before) / time.as_secs_f64())
}

fn scene_of(options: &LoadOptions, keep: Option<PathBuf>, reopen: bool) -> SceneOptions {
    SceneOptions {
        keep,
        reopen,
        bin_dir: options.bin_dir.clone(),
        limits: Limits::load(),
        devices: options.devices.iter().copied().max().unwrap_or(1),
        discovery: false,
        seed: 1,
        deadline: Duration::from_secs(1),
        probe_interval: Duration::from_secs(1),
        max_in_flight: 8,
        requests_per_second: Some(drive::ANY_RATE),
    }
}

/// Queues payments until there are `queue` of them, less what is going to be
/// measured where that would not go in.
async fn fill(
    scene: &Scene,
    queue: u64,
    options: &LoadOptions,
    rows: &[Row],
    progress: &Progress,
) -> Result<()> {
    let measured: u64 = rows.iter().map(|row| row.answered).sum();
    let room = MOST_QUEUED.saturating_sub(measured * 3 / 2 + 20_000);
    let now = queued(&scene.shop.status().await?)?;
    let missing = queue.min(room).saturating_sub(now);
    progress.step(&format!("queueing {missing} payments"));
    let most = options.devices.iter().copied().max().unwrap_or(1);
    drive::fill(&clients(scene, most), missing).await
}

fn queued(status: &Value) -> Result<u64> {
    status["queued"]
        .as_u64()
        .context("the hub does not say how many payments are queued")
}

fn clients(scene: &Scene, count: usize) -> Vec<DeviceClient> {
    let tills = scene.fleet.tills.iter().take(count);
    tills.map(|till| till.client().clone()).collect()
}

async fn measure(scene: &Scene, count: usize, options: &LoadOptions) -> Result<Row> {
    let clients = clients(scene, count);
    let warm = drive::until_over(&clients, WARM_UP, None).await?;
    let signed = if options.presigned {
        let expected = warm.latencies.len() * 1000 / u64::try_from(WARM_UP.as_millis()).unwrap_or(1);
        // Room for a measurement that is four times as fast as the warm-up,
        // in which the devices sign and check too.
        let each = (expected * options.seconds * 4).min(MOST_SIGNED) / count as u64 + 100;
        Some(drive::sign(&clients, each).await?)
    } else {
        None
    };
    let pid = scene.shop.pid().context("the hub is not running")?;
    let status = scene.shop.status().await?;
    let (hub, own) = (ProcessTime::of(pid)?, ProcessTime::of(std::process::id())?);
    let mut driven = drive::until_over(&clients, Duration::from_secs(options.seconds), signed).await?;
    let elapsed = driven.elapsed.as_secs_f64();
    let (hub_after, own_after) = (ProcessTime::of(pid)?, ProcessTime::of(std::process::id())?);
    let status_after = scene.shop.status().await?;
    let answered = driven.latencies.len();
    let checked = driven.check().await?;
    if options.presigned && checked != answered {
        bail!("{answered} answers and {checked} receipts");
    }
    Ok(Row {
        devices: count,
        queued: queued(&status)?,
        answered,
        per_second: to_f64(answered) / elapsed,
        p50_us: driven.latencies.value_at_quantile(0.5),
        p99_us: driven.latencies.value_at_quantile(0.99),
        max_us: driven.latencies.max(),
        checked,
        hub_processors: hub_after.busy_since(&hub) / elapsed,
        load_processors: own_after.busy_since(&own) / elapsed,
        written_each: to_f64(hub_after.written_since(&hub)) / to_f64(answered.max(1)),
        ledger: counted(&status, &status_after),
    })
}

/// What the hub counts of its ledger: entries, groups (commits) and flushes
/// over the measurement. Empty for a hub that does not count.
fn counted(before: &Value, after: &Value) -> BTreeMap<String, u64> {
    let Some(after) = after.as_object() else {
        return BTreeMap::new();
    };
    after
        .iter()
        .filter_map(|(key, value)| {
            let key = key.strip_prefix("ledger_")?;
            let before = before[format!("ledger_{key}")].as_u64()?;
            Some((key.to_owned(), value.as_u64()?.checked_sub(before)?))
        })
        .collect()
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn to_f64(count: u64) -> f64 {
    count as f64
}
