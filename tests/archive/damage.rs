//! What was changed, and what is elsewhere.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hubd::ledger::{Contents, check_archive};

use crate::*;

#[test]
fn a_damaged_base_or_table_of_payments_is_found_named_and_refused() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, _) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    let key = config.keys.signing.verifying_key();
    let list = archiver.archives().list();
    drop((shop, archiver));
    let folder = config.layout.ledger.join("archive");
    for path in archives(&config)? {
        fs::remove_file(&path)?;
    }
    fs::remove_dir_all(&config.layout.index)?;
    let records = files(&folder, "base")?.pop().context("a base")?;
    let flip = |path: &Path, at: usize| -> Result<Vec<u8>> {
        let good = fs::read(path)?;
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(path, bad)?;
        Ok(good)
    };
    // Without archives nothing else can serve.
    let statement = folder.join("base");
    for (path, step) in [(&statement, 13), (&records, 9_973)] {
        let len = fs::metadata(path)?.len() as usize;
        for at in (0..len).step_by(step) {
            let good = flip(path, at)?;
            let opened = open(&config);
            fs::write(path, good)?;
            anyhow::ensure!(opened.is_err(), "{} byte {at}", path.display());
        }
    }
    drop(open(&config)?);
    // A table is held against its manifest at the start, and each block again
    // when it is needed.
    let ids = folder.join("00000001.ids");
    let len = fs::metadata(&ids)?.len() as usize;
    fs::remove_file(folder.join("00000001.ids.copy"))?;
    for at in (0..len).step_by(4_999).chain(len - 24..len) {
        let good = flip(&ids, at)?;
        let Err(refused) = open(&config) else {
            bail!("byte {at} passed");
        };
        fs::write(&ids, good)?;
        let said = format!("{refused:#}");
        assert!(
            said.contains("00000001.ids") && said.contains("copy it back"),
            "{said}"
        );
    }
    let (mut shop, _) = open(&config)?;
    let good = flip(&ids, 100)?;
    let asked: Vec<bool> = (0..PAYMENTS)
        .map(|number| shop.pay(number, 100 + number).is_err())
        .collect();
    assert!(asked.iter().any(|refused| *refused) && asked.iter().any(|refused| !*refused));
    drop(shop);
    // Alone, with the archive.
    let one = &list[0];
    fs::write(&ids, &good)?;
    assert!(
        check_archive(&one.path, &key, Contents::Unread, None).is_err(),
        "it is not here"
    );
    Ok(())
}

#[test]
fn verifying_goes_through_archives_and_names_those_that_are_elsewhere() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    let list = archiver.archives().list();
    drop((shop, archiver));
    assert!(list.len() >= 3);
    let whole = verified(&config)?;
    assert_eq!(
        (whole.broken, whole.archives, whole.segments),
        (None, list.len(), list.len() + 1)
    );

    // One in the middle is elsewhere.
    let middle = &list[1];
    let kept = fs::read(&middle.path)?;
    fs::remove_file(&middle.path)?;
    let report = verified(&config)?;
    assert_eq!(report.broken, None);
    let away: Vec<_> = report
        .away
        .iter()
        .map(|away| (away.number, away.first, away.last))
        .collect();
    assert_eq!(away, [(2, middle.manifest.first, middle.manifest.last)]);
    assert_eq!(report.head, whole.head);
    assert_eq!(
        report.entries + middle.manifest.last - middle.manifest.first + 1,
        whole.entries
    );
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 29)?;
    drop(shop);

    // Its manifest is not: nobody can take an archive out of the row.
    let manifest = middle.path.with_extension("").with_extension("manifest");
    let signed = fs::read(&manifest)?;
    fs::remove_file(&manifest)?;
    let broken = verified(&config)?.broken.context("broken")?;
    assert_eq!(broken.file, "00000002.manifest");
    assert!(open(&config).is_err());
    fs::write(&manifest, signed)?;

    // All but manifests and tables are elsewhere.
    fs::write(&middle.path, kept)?;
    for path in archives(&config)? {
        fs::remove_file(path)?;
    }
    let report = verified(&config)?;
    assert_eq!(
        (report.broken, report.away.len(), report.segments),
        (None, list.len(), 1)
    );
    assert!(report.head.sequence > whole.head.sequence);
    Ok(())
}

#[test]
fn rule_3_another_hubs_table_of_payments_is_not_taken_for_this_ones() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    drop((shop, archiver));
    // Whole, of the same number, and without these payments.
    let other = make_store(&dir.path().join("other"), 1)?;
    let (mut shop, mut archiver) = Shop::open(&other, OPENING_MS)?;
    shop.line(true)?;
    for first in (10_000..12_000).step_by(TOGETHER) {
        for number in first..first + TOGETHER as u64 {
            shop.send(number, 100)?;
        }
        shop.settle()?;
    }
    shop.pass(100 * DAY_MS);
    shop.pay(9_999, 100)?;
    assert!(archive(&mut shop, &mut archiver)?.written >= 1);
    drop((shop, archiver));
    let folder = config.layout.ledger.join("archive");
    let ids = folder.join("00000001.ids");
    let good = fs::read(&ids)?;
    let copy = folder.join("00000001.ids.copy");
    assert_eq!(fs::read(&copy)?, good, "there twice until it was copied away");
    fs::copy(other.layout.ledger.join("archive/00000001.ids"), &ids)?;
    // The second copy takes its place, and is made again.
    let (mut shop, mut archiver) = open(&config)?;
    assert_eq!(fs::read(&ids)?, good);
    assert_known(&mut shop, receipts, 19)?;
    archive(&mut shop, &mut archiver)?;
    assert_eq!(fs::read(&copy)?, good);
    drop((shop, archiver));
    fs::remove_file(&copy)?;
    fs::copy(other.layout.ledger.join("archive/00000001.ids"), &ids)?;
    let Err(refused) = open(&config) else {
        bail!("another hub's table passed");
    };
    let said = format!("{refused:#}");
    assert!(
        said.contains("00000001.ids") && said.contains("copy it back"),
        "{said}"
    );
    fs::write(&ids, good)?;
    let (mut shop, mut archiver) = open(&config)?;
    // Copied away, it is there once.
    archive(&mut shop, &mut archiver)?;
    let away = dir.path().join("away");
    fs::create_dir(&away)?;
    export(&mut shop, &archiver, &away)?;
    archive(&mut shop, &mut archiver)?;
    assert_eq!(files(&folder, "copy")?, Vec::<PathBuf>::new());
    assert_known(&mut shop, receipts, 19)
}
