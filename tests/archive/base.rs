//! The base: what a lost index is filled from, and what the hub opens by.

use std::fs;

use anyhow::{Context, Result};
use hub_protocol::LedgerBase;

use crate::*;

#[test]
fn a_base_that_does_not_read_whole_is_made_anew_and_serves() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let away = dir.path().join("away");
    fs::create_dir(&away)?;
    let folder = config.layout.ledger.join("archive");
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    export(&mut shop, &archiver, &away)?;
    drop((shop, archiver));
    let flip = |path: &Path| -> Result<()> {
        let mut bytes = fs::read(path)?;
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        Ok(fs::write(path, bytes)?)
    };
    let records = || -> Result<PathBuf> {
        let all = files(&folder, "base")?;
        all.into_iter()
            .find(|path| !path.ends_with("base"))
            .context("records")
    };
    for spoil in [
        "statement changed",
        "records changed",
        "records gone",
        "both gone",
    ] {
        match spoil {
            "statement changed" => flip(&folder.join("base"))?,
            "records changed" => flip(&records()?)?,
            "records gone" => fs::remove_file(records()?)?,
            _ => {
                fs::remove_file(folder.join("base"))?;
                fs::remove_file(records()?)?;
            }
        }
        let (mut shop, mut archiver) = open(&config)?;
        let refused = archiver.remove(&mut shop, 1, None, &mut |_| Ok(()));
        let said = refused.err().context(spoil)?.to_string();
        assert!(said.contains("there is no base yet"), "{spoil}: {said}");
        assert_eq!(archive(&mut shop, &mut archiver)?.trouble, None, "{spoil}");
        drop((shop, archiver));
        // It serves: without index and archives.
        let kept = dir.path().join("kept");
        fs::create_dir(&kept)?;
        for archive in archives(&config)? {
            fs::rename(&archive, kept.join(archive.file_name().context("a name")?))?;
        }
        fs::remove_dir_all(&config.layout.index)?;
        let (mut shop, _) = open(&config).context(spoil)?;
        assert!(shop.state().root().is_some(), "{spoil}");
        assert_known(&mut shop, receipts, 211)?;
        drop(shop);
        for archive in files(&kept, "gz")? {
            fs::rename(&archive, folder.join(archive.file_name().context("a name")?))?;
        }
        fs::remove_dir(&kept)?;
    }
    let (mut shop, mut archiver) = open(&config)?;
    archiver.remove(&mut shop, 1, None, &mut |_| Ok(()))?;
    Ok(())
}

#[test]
fn rule_5_without_the_policys_and_the_roots_entries_the_index_stays_and_nothing_is_approved_offline()
-> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    assert!(shop.state().policy().is_some() && shop.state().root().is_some());
    shop.close()?;
    let folder = config.layout.ledger.join("archive");
    // Policy and root are in the first archive, and in the base.
    let kept = fs::read(folder.join("00000001.seg.gz"))?;
    fs::remove_file(folder.join("00000001.seg.gz"))?;
    let base = fs::read(folder.join("base"))?;
    fs::write(folder.join("base"), b"not a base")?;
    for _ in 0..3 {
        let (mut shop, _) = open(&config)?;
        assert_eq!(shop.state().policy(), None);
        assert!(shop.state().has_root() && shop.state().root().is_none());
        assert_known(&mut shop, receipts, 211)?;
        shop.line(false)?;
        let decided = receipt(shop.pay(PAYMENTS + 1, 100)?)?;
        assert_ne!(decided.decision, Decision::ApprovedOffline);
        shop.close()?;
        assert_eq!(set_aside(&config)?, 0);
    }
    fs::write(folder.join("00000001.seg.gz"), kept)?;
    let (shop, _) = open(&config)?;
    assert!(shop.state().policy().is_some() && shop.state().root().is_some());
    drop(shop);
    fs::remove_file(folder.join("00000001.seg.gz"))?;
    fs::write(folder.join("base"), base)?;
    let (shop, _) = open(&config)?;
    assert!(shop.state().policy().is_some() && shop.state().root().is_some());
    Ok(())
}

#[test]
fn an_older_index_waits_untouched_for_an_archive_that_is_away() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    shop.close()?;
    // One that holds nothing yet.
    fs::remove_dir_all(&config.layout.index)?;
    drop(hubd::ledger::Index::create(
        &config.layout.index,
        &seal(&config)?,
    )?);
    let folder = config.layout.ledger.join("archive");
    let base = fs::read(folder.join("base"))?;
    let kept = fs::read(folder.join("00000001.seg.gz"))?;
    fs::remove_file(folder.join("base"))?;
    fs::remove_file(folder.join("00000001.seg.gz"))?;
    for _ in 0..3 {
        let said = format!("{:#}", open(&config).err().context("it opened")?);
        assert!(said.contains("00000001.seg.gz back"), "{said}");
        assert_eq!(set_aside(&config)?, 0);
        assert!(config.layout.index.exists());
    }
    fs::write(folder.join("00000001.seg.gz"), kept)?;
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 211)?;
    drop(shop);
    // With the base nothing has to be put back.
    fs::remove_dir_all(&config.layout.index)?;
    drop(hubd::ledger::Index::create(
        &config.layout.index,
        &seal(&config)?,
    )?);
    fs::write(folder.join("base"), base)?;
    fs::remove_file(folder.join("00000001.seg.gz"))?;
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 211)?;
    assert_eq!(set_aside(&config)?, 1);
    Ok(())
}

#[test]
fn a_rebuild_that_fails_pushes_out_no_index_that_was_set_aside() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    shop.close()?;
    let folder = config.layout.ledger.join("archive");
    let hidden = dir.path().join("hidden");
    fs::rename(folder.join("00000001.seg.gz"), &hidden)?;
    fs::write(folder.join("base"), b"not a base")?;
    fs::write(config.layout.index.join("damaged"), b"")?;
    for _ in 0..4 {
        assert!(open(&config).is_err());
        assert_eq!(set_aside(&config)?, 1);
    }
    fs::rename(&hidden, folder.join("00000001.seg.gz"))?;
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 211)
}

/// How many indexes lie beside the one in use.
fn set_aside(config: &Config) -> Result<usize> {
    let beside = config.layout.index.parent().context("a folder")?;
    let mut count = 0;
    for item in fs::read_dir(beside)? {
        count += usize::from(item?.file_name().to_string_lossy().contains(".damaged-"));
    }
    Ok(count)
}

/// What came new into records since is not in a base of an earlier version.
#[test]
fn a_base_of_an_earlier_version_serves_only_where_an_archive_is_away_and_is_made_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let away = dir.path().join("away");
    fs::create_dir(&away)?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    export(&mut shop, &archiver, &away)?;
    drop((shop, archiver));
    let folder = config.layout.ledger.join("archive");
    let (statement, first) = (folder.join("base"), folder.join("00000001.seg.gz"));
    let key = &config.keys.signing;
    let mut older = LedgerBase::open(&fs::read(&statement)?, &key.verifying_key())?;
    assert!(older.records_format.is_some());
    older.records_format = None;
    fs::write(&statement, older.sign(key))?;
    fs::remove_dir_all(&config.layout.index)?;
    let (mut shop, mut archiver) = open(&config)?;
    assert_known(&mut shop, receipts, 211)?;
    let refused = archiver.remove(&mut shop, 1, None, &mut |_| Ok(()));
    let said = refused.err().context("it was removed")?.to_string();
    assert!(said.contains("there is no base yet"), "{said}");
    drop((shop, archiver));
    // Without the archive there is nothing else.
    let kept = fs::read(&first)?;
    fs::remove_file(&first)?;
    fs::remove_dir_all(&config.layout.index)?;
    let (mut shop, _) = open(&config)?;
    assert_known(&mut shop, receipts, 211)?;
    drop(shop);
    fs::write(&first, kept)?;
    let (mut shop, mut archiver) = open(&config)?;
    assert_eq!(archive(&mut shop, &mut archiver)?.trouble, None);
    drop(shop);
    let made = LedgerBase::open(&fs::read(&statement)?, &key.verifying_key())?;
    assert!(made.records_format.is_some(), "made anew");
    Ok(())
}

fn seal(config: &Config) -> Result<hubd::ledger::RestSeal> {
    let key = hubd::data_key::StoreKey::open(&config.layout, &[&config.keys.vault])?;
    Ok(hubd::ledger::RestSeal::index(key.key()))
}
