//! Power cuts, and an index that is lost.

use std::fs;

use anyhow::{Context, Result, bail};
use hub_protocol::RefusalCode;
use hubd::ledger::{ArchiveError, ArchiveSettings, Step};

use crate::*;

const STEPS: [Step; 9] = [
    Step::Surveyed,
    Step::Ids,
    Step::Compressed,
    Step::Manifest,
    Step::Recorded,
    Step::Removed,
    Step::Based,
    Step::RemovalRecorded,
    Step::ArchiveRemoved,
];

#[test]
fn rule_2_archiving_cut_off_at_any_step_leaves_a_store_that_opens() -> Result<()> {
    let whole = {
        let dir = tempfile::tempdir()?;
        let (config, _) = store(dir.path())?;
        let (mut shop, mut archiver) = open(&config)?;
        archive(&mut shop, &mut archiver)?
    };
    for cut in STEPS {
        let dir = tempfile::tempdir()?;
        let (config, receipts) = store(dir.path())?;
        let away = dir.path().join("away");
        fs::create_dir(&away)?;
        // Without room for any archive, what was copied away is removed.
        let settings = ArchiveSettings {
            most_bytes: 0,
            ..SETTINGS
        };
        let (mut written, mut cuts) = (0, 0);
        for times in 0..3 {
            let (mut shop, mut archiver) = open(&config)?;
            export(&mut shop, &archiver, &away)?;
            let ended = shop.archive(&mut archiver, settings, &mut |step| match step {
                step if step == cut && times < 2 => {
                    Err(ArchiveError::NotRecorded("the power is cut".to_owned()))
                }
                _ => Ok(()),
            });
            cuts += u32::from(ended.is_err());
            // What a kill leaves: nothing is closed in good order.
            drop((shop, archiver));
            let report = verified(&config)?;
            assert_eq!(report.broken, None, "{cut:?}");
            written = report.archives + report.away.len();
            let (mut shop, _) = open(&config)?;
            assert_known(&mut shop, receipts, 37)?;
        }
        assert!(cuts > 0, "{cut:?}");
        assert_eq!(written as u32, whole.written, "{cut:?}");
        // The index too: from base and archives' tables alone.
        fs::remove_dir_all(&config.layout.index)?;
        for archive in archives(&config)? {
            fs::remove_file(archive)?;
        }
        let (mut shop, _) = open(&config)?;
        assert_known(&mut shop, receipts, 37)?;
    }
    Ok(())
}

#[test]
fn an_index_deleted_after_archiving_is_built_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (config, receipts) = store(dir.path())?;
    let (mut shop, mut archiver) = open(&config)?;
    archive(&mut shop, &mut archiver)?;
    let before = (
        shop.state().head(),
        shop.state().store().clone(),
        shop.state().policy().cloned(),
    );
    drop((shop, archiver));
    let folder = config.layout.ledger.join("archive");
    let rebuild = |archives_here: bool, base_here: bool| -> Result<()> {
        // One that could not be built leaves nothing.
        if config.layout.index.exists() {
            fs::remove_dir_all(&config.layout.index)?;
        }
        let elsewhere = dir.path().join("elsewhere");
        fs::create_dir_all(&elsewhere)?;
        let mut hidden = Vec::new();
        if !archives_here {
            hidden.extend(archives(&config)?);
        }
        if !base_here {
            hidden.push(folder.join("base"));
        }
        for path in &hidden {
            fs::rename(path, elsewhere.join(path.file_name().context("a name")?))?;
        }
        let opened = open(&config);
        for path in &hidden {
            fs::rename(elsewhere.join(path.file_name().context("a name")?), path)?;
        }
        let (mut shop, _) = opened?;
        assert_eq!(shop.state().policy(), before.2.as_ref());
        assert_eq!(shop.state().archives(), before.1.archives.context("archived")?);
        assert_known(&mut shop, receipts, 23)?;
        assert_eq!(refusal(shop.void(0)?)?, RefusalCode::PaymentArchived);
        Ok(())
    };
    rebuild(true, true)?;
    rebuild(false, true)?;
    rebuild(true, false)?;
    let Err(refused) = rebuild(false, false) else {
        bail!("neither base nor archives, and it opened");
    };
    let said = format!("{refused:#}");
    assert!(said.contains("00000001.seg.gz back"), "{said}");
    rebuild(true, true)
}
