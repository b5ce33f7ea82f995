//! Archived is final: what a void, a clock or a person does in between.

use std::path::PathBuf;

use anyhow::{Context, Result};
use hub_core::ArchiveChange;
use hubd::ledger::{ArchiveError, ArchiveHub, Keep, Stamp, Standing, Step};

use crate::*;

/// The hub, and what happens to it before it is told something.
struct Meddled<'a> {
    shop: &'a mut Shop,
    before: &'a mut dyn FnMut(&mut Shop, &ArchiveChange),
    /// The stamp of the base is so many entries older.
    behind: u64,
}

impl ArchiveHub for Meddled<'_> {
    fn standing(&mut self) -> Result<Standing, ArchiveError> {
        self.shop.standing()
    }

    fn record(&mut self, change: ArchiveChange) -> Result<(), ArchiveError> {
        (self.before)(self.shop, &change);
        self.shop.record(change)
    }

    fn forget(&mut self, keep: Keep, path: PathBuf, number: u32) -> Result<Stamp, ArchiveError> {
        let mut stamp = self.shop.forget(keep, path, number)?;
        stamp.sequence -= self.behind;
        Ok(stamp)
    }

    fn room(&self) -> (u64, bool) {
        self.shop.room()
    }
}

fn state_of(shop: &mut Shop, number: u64) -> Result<PaymentState> {
    match shop.status(number)? {
        Reply::Status { status, .. } => Ok(status.state),
        other => bail!("a status expected, not {other:?}"),
    }
}

#[test]
fn archived_is_final_although_a_void_comes_while_the_archive_is_made() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    let mut told = Vec::new();
    let mut before = |shop: &mut Shop, change: &ArchiveChange| {
        if matches!(change, ArchiveChange::Written { number: 1, .. }) {
            // The index was asked about it; the ledger tells of nothing yet.
            told.push(shop.void(0).and_then(refusal));
            told.push(shop.void(PAYMENTS).and_then(refusal));
        }
    };
    let mut hub = Meddled {
        shop: &mut shop,
        before: &mut before,
        behind: 0,
    };
    let round = archiver.round(&mut hub, SETTINGS, &mut |_| Ok(()))?;
    assert!(round.written >= 2 && round.trouble.is_none(), "{round:?}");
    let [archived, young] = told.as_slice() else {
        bail!("{told:?}");
    };
    let code = archived.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    assert!(*code == RefusalCode::Busy && code.transient(), "{code:?}");
    assert!(young.is_err(), "one that is not archived is voided");
    // Asked again, it is told for good.
    assert_eq!(refusal(shop.void(0)?)?, RefusalCode::PaymentArchived);
    assert_eq!(state_of(&mut shop, 0)?, PaymentState::Settled);
    assert_eq!(shop.state().store().queue.all(), 0);
    shop.close()?;
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 29)
}

#[test]
fn archived_is_final_although_the_power_fails_before_the_ledger_tells_of_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, _) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    let ended = shop.archive(&mut archiver, SETTINGS, &mut |step| match step {
        Step::Manifest => Err(ArchiveError::NotRecorded("the power is cut".to_owned())),
        _ => Ok(()),
    });
    assert!(ended.is_err());
    assert_eq!(refusal(shop.void(0)?)?, RefusalCode::Busy, "the archive counts");
    drop((shop, archiver));
    let (mut shop, mut archiver) = open(&config)?;
    // A device is quicker than the first round.
    assert_eq!(refusal(shop.void(0)?)?, RefusalCode::Busy);
    archive(&mut shop, &mut archiver)?;
    assert_eq!(refusal(shop.void(0)?)?, RefusalCode::PaymentArchived);
    assert_eq!(state_of(&mut shop, 0)?, PaymentState::Settled);
    Ok(())
}

#[test]
fn what_could_not_be_archived_may_be_voided_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, _) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    let ended = shop.archive(&mut archiver, SETTINGS, &mut |step| match step {
        Step::Compressed => Err(ArchiveError::NotRecorded("no room".to_owned())),
        _ => Ok(()),
    });
    assert!(ended.is_err());
    assert!(matches!(shop.void(0)?, Reply::Status { .. }));
    let round = archive(&mut shop, &mut archiver)?;
    assert!(round.written >= 1 && round.trouble.is_none(), "{round:?}");
    // What happened since went with the later segment.
    assert_eq!(state_of(&mut shop, 0)?, PaymentState::Reversed);
    Ok(())
}

#[test]
fn rule_5_nothing_is_archived_while_the_clock_is_in_doubt() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, _) = store(dir.path())?;
    let (mut shop, mut archiver) = Shop::open(&config, OPENING_MS + 400 * DAY_MS)?;
    let round = archive(&mut shop, &mut archiver)?;
    assert_eq!((round.written, round.removed), (0, 0));
    let trouble = round.trouble.context("it says why")?;
    assert!(trouble.contains("clock is in doubt"), "{trouble}");
    assert!(archives_or_none(&config)?.is_empty());
    // The gateway says that it is three hundred days less; by that nothing is
    // old enough, whatever the clock on the wall says.
    shop.gateway_behind_ms = 300 * DAY_MS;
    shop.line(true)?;
    let settings = ArchiveSettings {
        retention_ms: 110 * DAY_MS,
        ..SETTINGS
    };
    let round = shop.archive(&mut archiver, settings, &mut |_| Ok(()))?;
    assert_eq!(round, Round::default());
    assert!(archive(&mut shop, &mut archiver)?.written >= 2);
    Ok(())
}

#[test]
fn a_segment_from_the_future_is_told_of() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let config = make_store(&dir.path().join("hub"), 1)?;
    // A clock that was ahead for a day's payments, until the gateway was asked.
    let (mut shop, mut archiver) = Shop::open(&config, OPENING_MS + 900 * DAY_MS)?;
    for first in (0..1_400).step_by(TOGETHER) {
        for number in first..first + TOGETHER as u64 {
            shop.send(number, 100)?;
        }
        shop.settle()?;
    }
    shop.set_clock(OPENING_MS);
    shop.line(true)?;
    let round = archive(&mut shop, &mut archiver)?;
    assert_eq!(round.written, 0);
    let trouble = round.trouble.context("it says why")?;
    assert!(trouble.contains("later than the clock says"), "{trouble}");
    Ok(())
}

#[test]
fn an_archive_that_was_brought_back_stays() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, _) = store(dir.path())?;
    let away = dir.path().join("away");
    fs::create_dir(&away)?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    export(&mut shop, &archiver, &away)?;
    for number in [1, 2] {
        archiver.remove(&mut shop, number, Some("anna"), &mut |_| Ok(()))?;
    }
    shop.close()?;
    let folder = config.layout.ledger.join("archive");
    for name in ["00000001.seg.gz", "00000002.seg.gz"] {
        fs::copy(away.join(name), folder.join(name))?;
    }
    let count = archives(&config)?.len();
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    assert_eq!(archives(&config)?.len(), count);
    // Nor is it what there is too much of.
    let others: u64 = archiver
        .archives()
        .list()
        .iter()
        .skip(2)
        .filter_map(|a| a.bytes())
        .sum();
    let settings = ArchiveSettings {
        most_bytes: others,
        ..SETTINGS
    };
    let round = shop.archive(&mut archiver, settings, &mut |_| Ok(()))?;
    assert_eq!((round.removed, round.trouble), (0, None));
    assert_eq!(archives(&config)?.len(), count);
    Ok(())
}

#[test]
fn a_base_is_never_older_than_its_archives() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, _) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    let behind = shop.state().head().sequence;
    let mut hub = Meddled {
        shop: &mut shop,
        before: &mut |_, _| (),
        behind,
    };
    let round = archiver.round(&mut hub, SETTINGS, &mut |_| Ok(()))?;
    assert!(round.written >= 2, "{round:?}");
    let trouble = round.trouble.context("it says why")?;
    assert!(trouble.contains("a new base waits"), "{trouble}");
    let folder = config.layout.ledger.join("archive");
    assert_eq!(files(&folder, "base")?, Vec::<PathBuf>::new());
    assert!(!folder.join("base").exists());
    let round = archive(&mut shop, &mut archiver)?;
    assert_eq!(round.trouble, None);
    assert!(folder.join("base").exists());
    Ok(())
}

fn archives_or_none(config: &Config) -> Result<Vec<PathBuf>> {
    match config.layout.ledger.join("archive").is_dir() {
        true => archives(config),
        false => Ok(Vec::new()),
    }
}
