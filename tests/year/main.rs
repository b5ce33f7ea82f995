//! `year`: lets a year pass over a real store, in virtual time, and shows what
//! it takes on disk.
#![allow(clippy::print_stdout)] // printing is what this is for
#![allow(clippy::disallowed_methods)] // how long a real store takes to open

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use hub_core::state::State;
use hub_tests::shop::{self, Shop, payment_id};
use hub_tests::year::{Plan, Row, pass};
use serde::Serialize;

/// Lets a year of a busy shop pass over a real store, and shows what it takes
/// on disk.
#[derive(Parser)]
struct Cli {
    /// How many days
    #[arg(long, default_value_t = 365)]
    days: u64,
    /// Payments a day, a tenth of them while the line is cut
    #[arg(long, default_value_t = 1_500)]
    payments: u64,
    /// The size of a segment, in MiB
    #[arg(long, default_value_t = 64)]
    segment_mib: u64,
    /// After how many days a segment is archived
    #[arg(long, default_value_t = 90)]
    retention_days: u64,
    /// What archives may take, in MiB, before those that were copied away are
    /// removed
    #[arg(long, default_value_t = 4_096)]
    archive_mib: u64,
    /// Copy archives away every so many days; 0: never
    #[arg(long, default_value_t = 0)]
    export_every: u64,
    /// Where; a folder in memory makes flushes cost nothing
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let plan = Plan {
        days: cli.days,
        payments_a_day: cli.payments.max(10),
        segment_mib: cli.segment_mib,
        retention_days: cli.retention_days,
        archive_mib: cli.archive_mib,
        export_every: cli.export_every,
        days_a_row: (cli.days / 12).max(1),
    };
    let here = if cli.dir.is_dir() {
        cli.dir
    } else {
        std::env::temp_dir()
    };
    let dir = tempfile::tempdir_in(&here).with_context(|| format!("in {}", here.display()))?;
    let rows = run(dir.path(), plan)?;
    let after = after(dir.path(), plan)?;
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&Report { rows, after })?);
    } else {
        println!("{}\n{}", shown(&rows), after.shown());
    }
    Ok(())
}

#[derive(Serialize)]
struct Report {
    rows: Vec<Row>,
    after: After,
}

/// What the store is like to work with after all that.
#[derive(Serialize)]
struct After {
    open_ms: u128,
    open_from_base_ms: u128,
    unknown_id_ns: u128,
    archived_id_ns: u128,
}

/// How many ids are looked up.
const LOOKS: u64 = 100_000;

fn after(dir: &Path, plan: Plan) -> Result<After> {
    let config = shop::load(&dir.join("hub"))?;
    let wall_ms = shop::OPENING_MS + plan.days * shop::DAY_MS;
    let began = Instant::now();
    let (mut shop, _) = Shop::open(&config, wall_ms)?;
    let open_ms = began.elapsed().as_millis();
    let unknown = look(&mut shop, plan.days * plan.payments_a_day)?;
    // The first payments are in the oldest archive.
    let archived = look(&mut shop, 0)?;
    drop(shop);
    std::fs::remove_dir_all(&config.layout.index)?;
    let began = Instant::now();
    drop(Shop::open(&config, wall_ms)?);
    Ok(After {
        open_ms,
        open_from_base_ms: began.elapsed().as_millis(),
        unknown_id_ns: unknown.as_nanos() / u128::from(LOOKS),
        archived_id_ns: archived.as_nanos() / u128::from(LOOKS),
    })
}

fn look(shop: &mut Shop, first: u64) -> Result<Duration> {
    let reader = shop.index().reader();
    let began = Instant::now();
    for number in first..first + LOOKS {
        std::hint::black_box(reader.get(&State::payment_key(&payment_id(number)))?);
    }
    Ok(began.elapsed())
}

impl After {
    fn shown(&self) -> String {
        format!(
            "Opening: {} ms, with the index lost {} ms. Looking up an unknown id: {} ns, one of the first: {} ns",
            self.open_ms, self.open_from_base_ms, self.unknown_id_ns, self.archived_id_ns
        )
    }
}

fn run(dir: &Path, plan: Plan) -> Result<Vec<Row>> {
    let bar = indicatif::ProgressBar::new(plan.days);
    let rows = pass(dir, plan, &mut |row| bar.set_position(row.days))?;
    bar.finish_and_clear();
    Ok(rows)
}

fn shown(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header([
        "day", "payments", "written", "journal", "archives", "ids", "base", "index", "vault", "total",
        "removed",
    ]);
    let mib = |bytes: u64| format!("{}.{}", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20);
    for row in rows {
        table.add_row([
            row.days.to_string(),
            row.payments.to_string(),
            mib(row.written),
            mib(row.journal),
            mib(row.archives),
            mib(row.ids),
            mib(row.base),
            mib(row.index),
            mib(row.vault),
            mib(row.total()),
            row.removed.to_string(),
        ]);
    }
    let last = rows.last().copied().unwrap_or_default();
    let each = |bytes: u64, payments: u64| bytes / payments.max(1);
    format!(
        "{table}\nMiB of disk blocks. A payment: {} bytes of journal, {} of what is kept of it for life",
        each(last.written, last.payments),
        each(last.ids, last.archived_payments)
    )
}
