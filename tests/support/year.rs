//! A year of a shop: what its hub takes on disk, month by month.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use hub_core::ArchiveChange;
use hubd::ledger::{ArchiveHub as _, ArchiveSettings, Archiver, copy_archive};
use serde::Serialize;

use crate::shop::{DAY_MS, OPENING_MS, Shop, make_store};

/// What the shop does, and what its hub is told to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How long.
    pub days: u64,
    /// Payments a day. A tenth of them come while the line is cut.
    pub payments_a_day: u64,
    /// `[ledger] segment_mib`
    pub segment_mib: u64,
    /// `[ledger] retention_days`
    pub retention_days: u64,
    /// `[ledger] archive_mib`
    pub archive_mib: u64,
    /// Archives are copied away every so many days; 0: never.
    pub export_every: u64,
    /// So many days are a row.
    pub days_a_row: u64,
}

/// What the store takes at the end of a month, in bytes of disk blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Days so far.
    pub days: u64,
    /// Payments so far.
    pub payments: u64,
    /// Entries of the ledger.
    pub entries: u64,
    /// Bytes that the journal was given so far, archived or not.
    pub written: u64,
    /// Segments.
    pub journal: u64,
    /// Compressed archives, and what is kept twice until they are copied away.
    pub archives: u64,
    /// What is kept of every archive: table of payments, manifest.
    pub ids: u64,
    /// The base.
    pub base: u64,
    /// The index.
    pub index: u64,
    /// The vault.
    pub vault: u64,
    /// Archives written so far.
    pub archived: u32,
    /// Archives removed so far.
    pub removed: u32,
    /// Payments in archives so far.
    pub archived_payments: u64,
}

impl Row {
    /// All of it; the reserve, which never changes, is not counted.
    pub fn total(&self) -> u64 {
        self.journal + self.archives + self.ids + self.base + self.index + self.vault
    }
}

/// Lets the time pass over a new store in `dir`.
///
/// # Errors
/// The disk refuses, or the hub does not do what it should.
pub fn pass(dir: &Path, plan: Plan, on_row: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
    let config = make_store(&dir.join("hub"), plan.segment_mib)?;
    let away = dir.join("away");
    fs::create_dir(&away)?;
    let settings = ArchiveSettings {
        retention_ms: plan.retention_days * DAY_MS,
        most_bytes: plan.archive_mib << 20,
    };
    let (mut shop, mut archiver) = Shop::open(&config, OPENING_MS)?;
    shop.declines_every = 40;
    let mut rows = Vec::new();
    for day in 0..plan.days {
        sell(&mut shop, day, plan.payments_a_day)?;
        if plan.export_every > 0 && day % plan.export_every == plan.export_every - 1 {
            export(&mut shop, &archiver, &away)?;
        }
        let round = shop.archive(&mut archiver, settings, &mut |_| Ok(()))?;
        let waits = round.trouble.filter(|trouble| !trouble.contains("archive_mib"));
        ensure!(waits.is_none(), "day {day}: {waits:?}");
        if (day + 1) % plan.days_a_row == 0 || day + 1 == plan.days {
            let row = measure(&config.layout, &shop, &archiver, (day + 1, plan.payments_a_day))?;
            on_row(&row);
            rows.push(row);
        }
    }
    shop.close()?;
    Ok(rows)
}

/// Ten hours of selling, one of them without the line.
fn sell(shop: &mut Shop, day: u64, payments: u64) -> Result<()> {
    let opens = OPENING_MS + day * DAY_MS;
    shop.pass(opens.saturating_sub(shop.now_ms()));
    shop.line(true)?;
    let pause = 10 * 60 * 60 * 1000 / payments;
    let (cut, back) = (payments * 6 / 10, payments * 7 / 10);
    for nth in 0..payments {
        if nth == cut {
            shop.line(false)?;
        }
        if nth == back {
            shop.line(true)?;
        }
        shop.pass(pause);
        let number = day * payments + nth;
        // Each is flushed by itself: in a shop nobody pays at the same moment.
        shop.pay(number, 350 + number % 9_000)?;
    }
    shop.settle()
}

/// Copies away what was not copied yet.
fn export(shop: &mut Shop, archiver: &Archiver, away: &Path) -> Result<()> {
    let exported = shop.state().archives().exported;
    for archive in archiver.archives().list() {
        let number = archive.manifest.number;
        if number > exported {
            let digest = archive.manifest.archive_digest;
            copy_archive(&archive.path, away, digest)?;
            shop.record(ArchiveChange::Exported {
                number,
                digest,
                operator: "anna".to_owned(),
            })?;
        }
    }
    Ok(())
}

fn measure(
    layout: &hubd::config::Layout,
    shop: &Shop,
    archiver: &Archiver,
    (days, payments_a_day): (u64, u64),
) -> Result<Row> {
    let mut row = Row {
        days,
        payments: days * payments_a_day,
        entries: shop.state().head().sequence,
        written: shop.journal().counts().bytes,
        vault: sum(&layout.vault, &mut |_| true)?,
        index: sum(&layout.index, &mut |_| true)?,
        journal: sum(&layout.ledger, &mut |_| true)?,
        archived: shop.state().archives().written,
        removed: shop.state().archives().removed,
        ..Row::default()
    };
    let last = archiver.archives().last();
    for totals in last.iter().flat_map(|archive| &archive.manifest.running) {
        row.archived_payments += totals.approved_online.count + totals.approved_offline.count;
    }
    let folder = archiver.archives().dir();
    if folder.is_dir() {
        let of = |extension: &'static str| {
            move |path: &PathBuf| path.extension().is_some_and(|found| found == extension)
        };
        row.archives = sum(folder, &mut of("gz"))? + sum(folder, &mut of("copy"))?;
        row.ids = sum(folder, &mut of("ids"))? + sum(folder, &mut of("manifest"))?;
        row.base = sum(folder, &mut of("base"))? + sum(folder, &mut |path| path.ends_with("base"))?;
    }
    Ok(row)
}

/// What the files of a folder take on disk.
fn sum(dir: &Path, wanted: &mut dyn FnMut(&PathBuf) -> bool) -> Result<u64> {
    let mut bytes = 0;
    for item in fs::read_dir(dir)? {
        let item = item?;
        let found = item.metadata()?;
        if found.is_file() && wanted(&item.path()) {
            bytes += found.blocks() * 512;
        }
    }
    Ok(bytes)
}
