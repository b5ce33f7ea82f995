//! Live sales beside a backlog that drains: how long customers wait for the
//! gateway with a long queue and without one, and how much of what the gateway
//! takes the backlog gets.
//!
//! Every call takes the gateway the same time and it works on so many at a
//! time: what it takes at most is known. Hub and gateway are real, in two
//! processes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use hub_protocol::Decision;
use hub_sdk::DeviceClient;
use serde::Serialize;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::gateway::Faults;
use crate::limits::Limits;
use crate::load::drive;
use crate::progress::Progress;
use crate::scene::{Scene, SceneOptions};
use crate::wan::WanMode;

/// How long the number in flight has to find the gateway's measure before
/// anything is measured, at most.
const SETTLE: Duration = Duration::from_secs(10);

/// How many devices have made the queue, at least: of each device one payment
/// is under way at a time, so that this bounds how fast it drains.
const QUEUED_BY: usize = 64;

/// How many payments the hub may have under way at replay; a quarter of that
/// while a customer waits.
const MAX_IN_FLIGHT: u32 = 64;

/// The longest that a queue may take to drain to its end.
const TO_THE_END: Duration = Duration::from_secs(600);

/// What is measured.
#[derive(Clone, Debug)]
pub struct DrainOptions {
    /// Devices that sell.
    pub devices: usize,
    /// How often each of them does.
    pub every: Duration,
    /// Payments that are queued first; not with `stocked`.
    pub queue: u64,
    /// The folder of a hub that has a long queue already.
    pub stocked: Option<PathBuf>,
    /// How long the gateway works on a call.
    pub delay: Duration,
    /// How many it works on at a time.
    pub places: u32,
    /// How long each measurement takes.
    pub seconds: u64,
    /// Let everything drain in the end, and compare the gateway's book.
    pub to_the_end: bool,
    /// Where everything is kept; `None` for a folder that goes away.
    pub keep: Option<PathBuf>,
    /// Where `hubd` and `hubctl` are; `None` to find or build them.
    pub bin_dir: Option<PathBuf>,
}

/// Live sales for a while.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Live {
    /// Sales, every one approved online.
    pub sales: u64,
    /// Median of what a customer waited, microseconds.
    pub p50_us: u64,
    /// 99th percentile, microseconds.
    pub p99_us: u64,
    /// The longest, microseconds.
    pub max_us: u64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct DrainReport {
    /// Payments that waited when the line came back.
    pub queued: u64,
    /// What the gateway takes at most, a second.
    pub gateway_takes: f64,
    /// What the backlog alone got, a second.
    pub alone_per_second: f64,
    /// What it got beside live sales, a second.
    pub beside_per_second: f64,
    /// Live sales with an empty queue.
    pub idle: Live,
    /// Live sales while the backlog drained.
    pub draining: Live,
    /// Live sales at the gateway while the backlog drained, by its own record.
    pub live_calls: u64,
    /// Of those, how many began while calls of the backlog were under way.
    pub live_beside_backlog: u64,
    /// Calls of the backlog that began while a live sale was under way.
    pub backlog_beside_live: u64,
    /// Of those, how many began with more of the backlog under way than a
    /// quarter of what the hub may have under way.
    pub backlog_above_its_share: u64,
    /// What was left when the measurements were over.
    pub left: u64,
    /// In the end, if it was waited for: payments that the gateway did not
    /// charge although they were approved.
    pub lost: Option<u64>,
    /// Charged more than once.
    pub charged_twice: u64,
    /// Approved payments in all, offline and live; not known of a stock.
    pub approved: Option<u64>,
}

/// Measures.
pub async fn run(options: &DrainOptions, progress: &Progress) -> Result<DrainReport> {
    if options.devices == 0 || options.places == 0 || options.seconds == 0 || options.delay.is_zero() {
        bail!("devices, places, seconds and delay have to be above 0");
    }
    progress.step("hub, gateway and devices");
    let mut scene = Scene::open(&scene_of(options, options.keep.clone(), false), &|_| {}).await?;
    slow_down(&scene, options)?;
    let time = Duration::from_secs(options.seconds);
    progress.step("live sales, the queue empty");
    sell(&sellers(&scene, options), options.every, Duration::from_secs(2)).await?;
    let idle = sell(&sellers(&scene, options), options.every, time).await?;
    if let Some(dir) = &options.stocked {
        scene.fleet.close().await;
        scene.shop.stop().await?;
        progress.step("the hub with a long queue");
        scene = Scene::open(&scene_of(options, Some(dir.clone()), true), &|_| {}).await?;
        slow_down(&scene, options)?;
    } else {
        scene.cut(WanMode::Refuse);
        scene.shop.wait_wan("offline").await?;
        progress.step(&format!("queueing {} payments", options.queue));
        drive::fill(&clients(&scene), options.queue).await?;
    }
    let queued = number(&scene.shop.status().await?, "queued")?;
    let online_before = scene.gateway().charges();
    scene.mend();
    scene.shop.wait_wan("online").await?;

    progress.step("the backlog alone");
    sleep(SETTLE.min(time)).await;
    let alone_per_second = drained_a_second(&scene, time).await;
    progress.step("the backlog beside live sales");
    let (before, began) = (scene.gateway().charges(), Instant::now());
    drop(scene.gateway().take_beside());
    let draining = sell(&sellers(&scene, options), options.every, time).await?;
    let charged = scene.gateway().charges() - before;
    let beside_per_second = to_f64(charged.saturating_sub(draining.sales)) / began.elapsed().as_secs_f64();
    let beside = scene.gateway().take_beside();
    let left = scene.shop.unsent().await?;
    ensure!(
        left > 0,
        "the queue was empty before the measurements were over: queue more"
    );

    let mut report = DrainReport {
        queued,
        gateway_takes: f64::from(options.places) / options.delay.as_secs_f64(),
        alone_per_second,
        beside_per_second,
        idle,
        draining,
        live_calls: beside.live,
        live_beside_backlog: beside.live_beside_backlog,
        backlog_beside_live: beside.backlog(),
        backlog_above_its_share: beside.backlog_above(u64::from(MAX_IN_FLIGHT / 4)),
        left,
        lost: None,
        charged_twice: 0,
        approved: None,
    };
    if options.to_the_end {
        progress.step("to the end");
        let unsent = wait_for_the_end(&scene).await?;
        let approved = online_before + queued + draining.sales;
        report.approved = Some(approved);
        report.lost = Some(approved.saturating_sub(scene.gateway().charges()).max(unsent));
    }
    report.charged_twice = scene.gateway().charged_twice();
    scene.fleet.close().await;
    scene.shop.stop().await?;
    Ok(report)
}

fn scene_of(options: &DrainOptions, keep: Option<PathBuf>, reopen: bool) -> SceneOptions {
    SceneOptions {
        keep,
        reopen,
        bin_dir: options.bin_dir.clone(),
        limits: Limits::load(),
        devices: options.devices.max(QUEUED_BY),
        discovery: false,
        seed: 1,
        deadline: Duration::from_secs(3),
        probe_interval: Duration::from_secs(1),
        max_in_flight: MAX_IN_FLIGHT,
        requests_per_second: Some(drive::ANY_RATE),
    }
}

/// Every call takes the gateway so long, and it works on so many at a time.
fn slow_down(scene: &Scene, options: &DrainOptions) -> Result<()> {
    scene.set_faults(Faults {
        slow: 1.0,
        delay_ms: u64::try_from(options.delay.as_millis())?,
        places: Some(options.places),
        ..Faults::default()
    })
}

fn clients(scene: &Scene) -> Vec<DeviceClient> {
    scene
        .fleet
        .tills
        .iter()
        .map(|till| till.client().clone())
        .collect()
}

fn sellers(scene: &Scene, options: &DrainOptions) -> Vec<DeviceClient> {
    let mut clients = clients(scene);
    clients.truncate(options.devices);
    clients
}

/// Each device sells one payment every so often.
async fn sell(clients: &[DeviceClient], every: Duration, time: Duration) -> Result<Live> {
    let over = Arc::new(AtomicBool::new(false));
    let mut selling = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let (client, over) = (client.clone(), Arc::clone(&over));
        // One after the other, as customers come.
        let first = every * u32::try_from(number)? / u32::try_from(clients.len())?;
        selling.spawn(async move {
            let mut waited = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
            sleep(first).await;
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !over.load(Ordering::Relaxed) {
                ticks.tick().await;
                let payment = drive::prepare(&client, number);
                let began = Instant::now();
                let held = client.pay(&payment).await.context("a device got no answer")?;
                waited.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
                let receipt = held.receipt;
                ensure!(
                    receipt.decision == Decision::ApprovedOnline,
                    "not approved online but {}: {}",
                    receipt.decision,
                    receipt.reason
                );
            }
            anyhow::Ok(waited)
        });
    }
    sleep(time).await;
    over.store(true, Ordering::Relaxed);
    let mut waited = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    while let Some(device) = selling.join_next().await {
        waited.add(device.context("a device came to grief")??)?;
    }
    Ok(Live {
        sales: waited.len(),
        p50_us: waited.value_at_quantile(0.5),
        p99_us: waited.value_at_quantile(0.99),
        max_us: waited.max(),
    })
}

async fn drained_a_second(scene: &Scene, time: Duration) -> f64 {
    let (before, began) = (scene.gateway().charges(), Instant::now());
    sleep(time).await;
    to_f64(scene.gateway().charges() - before) / began.elapsed().as_secs_f64()
}

/// Gives what is left unsent.
async fn wait_for_the_end(scene: &Scene) -> Result<u64> {
    let until = Instant::now() + TO_THE_END;
    loop {
        let left = scene.shop.unsent().await?;
        if left == 0 || Instant::now() > until {
            return Ok(left);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn number(status: &Value, key: &str) -> Result<u64> {
    status[key]
        .as_u64()
        .with_context(|| format!("hubctl status gave no {key}"))
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn to_f64(count: u64) -> f64 {
    count as f64
}

impl DrainReport {
    /// Whether nothing was lost or charged twice.
    pub fn clean(&self) -> bool {
        self.lost.unwrap_or(0) == 0 && self.charged_twice == 0
    }

    /// The table for people.
    pub fn print(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header([
            "live sales",
            "sales",
            "p50 ms",
            "p99 ms",
            "max ms",
            "backlog a second",
            "% of the gateway's",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        let millis = |us: u64| format!("{:.1}", to_f64(us) / 1000.0);
        let share = |rate: f64| format!("{:.0}", 100.0 * rate / self.gateway_takes);
        let row = |what: &str, live: Option<Live>, rate: Option<f64>| {
            let of = |value: fn(Live) -> u64| live.map_or_else(String::new, |live| millis(value(live)));
            [
                what.to_owned(),
                live.map_or_else(String::new, |live| live.sales.to_string()),
                of(|live| live.p50_us),
                of(|live| live.p99_us),
                of(|live| live.max_us),
                rate.map_or_else(String::new, |rate| format!("{rate:.0}")),
                rate.map_or_else(String::new, share),
            ]
        };
        table.add_row(row("the queue empty", Some(self.idle), None));
        table.add_row(row("none, the backlog alone", None, Some(self.alone_per_second)));
        table.add_row(row(
            "beside the backlog",
            Some(self.draining),
            Some(self.beside_per_second),
        ));
        writeln!(
            out,
            "{} payments waited when the line came back; {} when the measurements were over.\n\
             The gateway takes {:.0} calls a second at the most.\n\n{table}\n",
            self.queued, self.left, self.gateway_takes
        )?;
        writeln!(
            out,
            "By the gateway's record: of {} live calls {} began beside the backlog's; of {} calls of the backlog\n\
             that began beside a live one, {} when more than its share ({}) were under way.\n",
            self.live_calls,
            self.live_beside_backlog,
            self.backlog_beside_live,
            self.backlog_above_its_share,
            MAX_IN_FLIGHT / 4
        )?;
        if let (Some(lost), Some(approved)) = (self.lost, self.approved) {
            writeln!(out, "In the end: {approved} payments approved, {lost} lost.")?;
        }
        writeln!(out, "Charged twice: {}.", self.charged_twice)
    }
}
