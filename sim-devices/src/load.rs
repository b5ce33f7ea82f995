//! How many payments a second: durable, signed, approved offline, seen from
//! the devices over real QUIC. Hub and load are two processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use hub_protocol::{Currency, Decision};
use hub_sdk::{DeviceClient, PreparedPayment};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::limits::Limits;
use crate::progress::Progress;
use crate::sale::{self, Gesture};
use crate::scene::{Scene, SceneOptions};
use crate::till::sealed;
use crate::wan::WanMode;

mod machine;
use machine::{ProcessTime, Rates};

/// Before each measurement, unmeasured: connections open, files grow warm,
/// and the rate is estimated for what is signed beforehand.
const WARM_UP: Duration = Duration::from_millis(700);

/// The most payments signed beforehand (about 1 KiB of memory each).
const MOST_SIGNED: u64 = 400_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// How many devices, one measurement each; every device has one payment
    /// under way at a time.
    pub devices: Vec<usize>,
    /// How long each measurement takes.
    pub seconds: u64,
    /// Whether requests are signed before the clock starts. On real devices
    /// each has its own processor; here they share the hub's.
    pub presigned: bool,
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
    /// Answered in the time measured.
    pub answered: u64,
    /// Answers a second.
    pub per_second: f64,
    /// Median of the answer times, microseconds.
    pub p50_us: u64,
    /// 99th percentile of the answer times, microseconds.
    pub p99_us: u64,
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
    /// What this machine can do at most, measured in the same run.
    pub rates: Rates,
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
    let mut scene = Scene::open(
        &SceneOptions {
            keep: options.keep.clone(),
            bin_dir: options.bin_dir.clone(),
            limits: Limits::load(),
            devices: most,
            discovery: false,
            seed: 1,
            deadline: Duration::from_secs(1),
            probe_interval: Duration::from_secs(1),
        },
        &|_| {},
    )
    .await?;
    scene.cut(WanMode::Refuse);
    scene.shop.wait_wan("offline").await?;
    progress.step("what this machine can do: signatures, flushes");
    let before = machine::rates(scene.dir())?;
    let mut rows = Vec::new();
    for count in &options.devices {
        progress.step(&format!("{count} device(s), {} s", options.seconds));
        rows.push(measure(&scene, *count, options).await?);
    }
    let rates = before.or_better(machine::rates(scene.dir())?);
    scene.fleet.close().await;
    scene.shop.stop().await?;
    Ok(LoadReport {
        rows,
        rates,
        presigned: options.presigned,
        seconds: options.seconds,
    })
}

async fn measure(scene: &Scene, count: usize, options: &LoadOptions) -> Result<Row> {
    let clients: Vec<DeviceClient> = scene
        .fleet
        .tills
        .iter()
        .take(count)
        .map(|till| till.client().clone())
        .collect();
    let warm = drive(&clients, WARM_UP, None).await?;
    let signed = options.presigned.then(|| {
        let expected = warm.latencies.len() * 1000 / u64::try_from(WARM_UP.as_millis()).unwrap_or(1);
        // Room for a measurement that is twice as fast as the warm-up.
        (expected * options.seconds * 2).min(MOST_SIGNED) / count as u64 + 100
    });
    let pid = scene.shop.pid().context("the hub is not running")?;
    let signed = match signed {
        Some(each) => Some(sign(&clients, each).await?),
        None => None,
    };
    let status = scene.shop.status().await?;
    let (hub, own) = (ProcessTime::of(pid)?, ProcessTime::of(std::process::id())?);
    let began = Instant::now();
    let driven = drive(&clients, Duration::from_secs(options.seconds), signed).await?;
    let elapsed = began.elapsed().as_secs_f64();
    let (hub_after, own_after) = (ProcessTime::of(pid)?, ProcessTime::of(std::process::id())?);
    let status_after = scene.shop.status().await?;
    let answered = driven.latencies.len();
    Ok(Row {
        devices: count,
        answered,
        per_second: to_f64(answered) / elapsed,
        p50_us: driven.latencies.value_at_quantile(0.5),
        p99_us: driven.latencies.value_at_quantile(0.99),
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

struct Driven {
    latencies: Histogram<u64>,
}

type Signed = Vec<Vec<PreparedPayment>>;

/// Each device pays one payment after the other until the time is over.
async fn drive(clients: &[DeviceClient], time: Duration, signed: Option<Signed>) -> Result<Driven> {
    let until = Instant::now() + time;
    let mut running = JoinSet::new();
    let mut signed: Vec<Option<Vec<PreparedPayment>>> = match signed {
        Some(signed) => signed.into_iter().map(Some).collect(),
        None => clients.iter().map(|_| None).collect(),
    };
    for (number, client) in clients.iter().enumerate() {
        let ready = signed.get_mut(number).and_then(Option::take);
        running.spawn(one_device(client.clone(), number, until, ready));
    }
    let mut latencies = histogram()?;
    while let Some(device) = running.join_next().await {
        latencies.add(device.context("a device came to grief")??)?;
    }
    Ok(Driven { latencies })
}

async fn one_device(
    client: DeviceClient,
    number: usize,
    until: Instant,
    ready: Option<Vec<PreparedPayment>>,
) -> Result<Histogram<u64>> {
    let mut latencies = histogram()?;
    let mut ready = ready.map(Vec::into_iter);
    while Instant::now() < until {
        let payment = match &mut ready {
            Some(ready) => match ready.next() {
                Some(payment) => payment,
                None => bail!("the payments signed beforehand ran out; measure for fewer seconds"),
            },
            None => prepare(&client, number),
        };
        let began = Instant::now();
        let answer = client.pay(&payment).await.context("a device got no answer")?;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        if answer.receipt.decision != Decision::ApprovedOffline {
            bail!(
                "not approved offline but {}: {}",
                answer.receipt.decision,
                answer.receipt.reason
            );
        }
        latencies.saturating_record(took);
    }
    Ok(latencies)
}

async fn sign(clients: &[DeviceClient], each: u64) -> Result<Signed> {
    let mut running = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let client = client.clone();
        running.spawn_blocking(move || {
            (
                number,
                (0..each).map(|_| prepare(&client, number)).collect::<Vec<_>>(),
            )
        });
    }
    let mut signed = running.join_all().await;
    signed.sort_by_key(|(number, _)| *number);
    Ok(signed.into_iter().map(|(_, payments)| payments).collect())
}

/// Every payment with a card of its own, so that no ceiling is near.
fn prepare(client: &DeviceClient, number: usize) -> PreparedPayment {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let order_id = format!("L{number}x{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    client.next_payment(hub_sdk::Sale {
        amount_minor: 100,
        currency: Currency::EUR,
        card: hub_protocol::CardFacts {
            scheme: hub_protocol::CardScheme::Cb,
            funding: hub_protocol::Funding::Debit,
            ..sale::card(1, format!("c{order_id}"))
        },
        sealed_card: sealed(&order_id),
        order_id,
        entry_mode: Gesture::inserted(hub_protocol::Cryptogram::AsksOnline).entry_mode,
        verification: hub_protocol::Verification::OfflinePin,
        cryptogram: hub_protocol::Cryptogram::AsksOnline,
    })
}

fn histogram() -> Result<Histogram<u64>> {
    // 1 µs to 60 s, three digits.
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn to_f64(count: u64) -> f64 {
    count as f64
}

impl Row {
    /// How many payments share one commit of the ledger.
    fn payments_a_group(&self) -> Option<f64> {
        let groups = self.ledger.get("groups").filter(|groups| **groups > 0)?;
        Some(to_f64(self.answered) / to_f64(*groups))
    }

    fn flushes_a_second(&self) -> Option<f64> {
        let seconds = to_f64(self.answered) / self.per_second;
        Some(to_f64(*self.ledger.get("flushes")?) / seconds)
    }
}

impl LoadReport {
    /// One object for machines.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "devices": row.devices,
                    "answered": row.answered,
                    "per_second": row.per_second.round(),
                    "p50_us": row.p50_us,
                    "p99_us": row.p99_us,
                    "ratio_to_first": self.ratio(row),
                    "hub_processors": row.hub_processors,
                    "load_processors": row.load_processors,
                    "hub_microseconds_each": 1e6 * row.hub_processors / row.per_second,
                    "written_bytes_each": row.written_each.round(),
                    "ledger": row.ledger,
                })
            })
            .collect();
        json!({
            "presigned": self.presigned,
            "seconds": self.seconds,
            "rows": rows,
            "machine": self.rates.to_json(),
        })
    }

    fn ratio(&self, row: &Row) -> f64 {
        self.rows.first().map_or(1.0, |first| {
            row.per_second / first.per_second.max(f64::MIN_POSITIVE)
        })
    }

    /// The table for people.
    pub fn print(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header([
            "devices",
            "a second",
            "ratio",
            "p50 ms",
            "p99 ms",
            "a group",
            "flushes/s",
            "hub CPUs",
            "own CPUs",
            "hub µs",
            "bytes",
        ]);
        for column in table.column_iter_mut() {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        let millis = |us: u64| format!("{:.2}", to_f64(us) / 1000.0);
        for row in &self.rows {
            table.add_row([
                row.devices.to_string(),
                format!("{:.0}", row.per_second),
                format!("{:.1}", self.ratio(row)),
                millis(row.p50_us),
                millis(row.p99_us),
                row.payments_a_group()
                    .map_or_else(String::new, |n| format!("{n:.1}")),
                row.flushes_a_second()
                    .map_or_else(String::new, |n| format!("{n:.0}")),
                format!("{:.2}", row.hub_processors),
                format!("{:.2}", row.load_processors),
                format!("{:.0}", 1e6 * row.hub_processors / row.per_second),
                format!("{:.0}", row.written_each),
            ]);
        }
        let signing = if self.presigned {
            "signed beforehand"
        } else {
            "signed while measured"
        };
        writeln!(
            out,
            "Durable, signed, offline authorisations over QUIC; hub and devices in two processes;"
        )?;
        writeln!(
            out,
            "one payment under way a device; requests {signing}; {} s each.\n",
            self.seconds
        )?;
        writeln!(out, "{table}\n")?;
        writeln!(
            out,
            "a group: payments that share one commit of the ledger; CPUs: processors kept busy by the hub\n\
             and by the devices' process; hub µs and bytes: processor time and bytes to disk a payment.\n"
        )?;
        self.rates.print(out, &self.rows)
    }
}
