//! The programs as shipped, and a year.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use hub_tests::hub::free_address;
use hub_tests::peer::python;
use hub_tests::process::{Process, Programs, output, until};
use hub_tests::year::{Plan, pass};

use crate::*;

#[test]
fn an_operator_lists_copies_removes_and_checks_archives_of_a_running_hub() -> Result<()> {
    let programs = Programs::find()?;
    // By the clock of the machine, which the programs go by.
    let today_ms = std::time::UNIX_EPOCH.elapsed()?.as_millis() as u64;
    let Made { dir, receipts } = make(today_ms - 101 * DAY_MS)?;
    let config = load(&dir.path().join("hub"))?;
    let hub = &config.layout.dir;
    let text = fs::read_to_string(&config.layout.config)?;
    let text = text
        .replace("0.0.0.0:7411", &free_address()?)
        .replace("0.0.0.0:7412", &free_address()?)
        .replace("https://gateway.example.com/", "https://127.0.0.1:9/")
        .replace("\nenabled = true", "\nenabled = false");
    fs::write(&config.layout.config, text)?;
    let away = dir.path().join("away");
    fs::create_dir(&away)?;
    let mut run = Command::new(&programs.hubd);
    let process = Process::start("hubd", run.args(["run", "--dir"]).arg(hub))?;
    let hubctl = |args: &[&str]| -> Result<serde_json::Value> {
        let mut command = Command::new(&programs.hubctl);
        let said = output(command.arg("--json").arg("--dir").arg(hub).args(args))?;
        Ok(serde_json::from_str(&said)?)
    };
    let count = until("the old segments to be archived", || {
        let status = hubctl(&["status"]).ok()?;
        let archives = status["archives"].as_u64().filter(|count| *count >= 3)?;
        (status["archive_trouble"].is_null() && files(&config.layout.ledger, "seg").ok()?.len() == 1)
            .then_some(archives)
    })?;
    let listed = hubctl(&["ledger", "archive", "list"])?;
    assert_eq!(listed["archives"].as_array().map(Vec::len), Some(count as usize));
    let to = away.display().to_string();
    let own = hub.join("ledger/archive").display().to_string();
    let refused = hubctl(&["ledger", "archive", "export", "--to", &own]).unwrap_err();
    assert!(refused.to_string().contains("own folder"), "{refused}");
    let exported = hubctl(&["ledger", "archive", "export", "--to", &to])?;
    assert_eq!(
        exported["exported"].as_array().map(Vec::len),
        Some(count as usize)
    );
    let again = hubctl(&["ledger", "archive", "export", "--to", &to])?;
    assert_eq!(again["exported"].as_array().map(Vec::len), Some(0));
    until("the archives to be removable", || {
        hubctl(&["ledger", "archive", "remove"]).ok()
    })?;
    let status = hubctl(&["status"])?;
    assert_eq!(
        (&status["archives_exported"], &status["archives_removed"]),
        (&count.into(), &count.into())
    );
    assert_eq!(status["archive_bytes"], 0);
    assert!(archives(&config)?.is_empty());
    drop(process);

    // The copies, with nothing but the public key.
    let key = config.layout.signing_public.display().to_string();
    let mut verify = vec!["ledger", "archive", "verify", "--key", &key];
    let copies: Vec<String> = files(&away.join(config.keys.hub_id.to_string()), "gz")?
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    verify.extend(copies.iter().map(String::as_str));
    assert_eq!(hubctl(&verify)?["verified"], true);
    let ledger = hubctl(&["ledger", "verify"])?;
    assert_eq!(ledger["verified"], true);
    assert_eq!(ledger["away"].as_array().map(Vec::len), Some(count as usize));
    a_stranger_verifies(&config, &away, &ledger["last_entry"])?;
    let byte = fs::read(&copies[1])?.len() / 2;
    let mut bytes = fs::read(&copies[1])?;
    bytes[byte] ^= 1;
    fs::write(&copies[1], bytes)?;
    let refused = hubctl(&verify).unwrap_err().to_string();
    assert!(refused.contains("00000002.seg.gz"), "{refused}");
    let (mut shop, _) = Shop::open(&load(hub)?, today_ms + DAY_MS / 24)?;
    assert_known(&mut shop, &receipts, 31)
}

/// What was exported and what is still at the hub make one ledger, for a
/// program that is not by our hand and has the public key alone.
fn a_stranger_verifies(config: &Config, away: &Path, last: &serde_json::Value) -> Result<()> {
    let Some(python) = python("archive", "cbor2, cryptography") else {
        return Ok(());
    };
    let together = away.join("together");
    fs::create_dir(&together)?;
    let exported = away.join(config.keys.hub_id.to_string());
    for file in files(&exported, "gz")?
        .into_iter()
        .chain(files(&config.layout.ledger, "seg")?)
    {
        let name = file.file_name().context("a name")?;
        fs::copy(&file, together.join(name))?;
    }
    let verifier = concat!(env!("CARGO_MANIFEST_DIR"), "/python_device/ledger_verify.py");
    let mut run = Command::new(python);
    let said = output(
        run.args(["-B", verifier])
            .args([&config.layout.signing_public, &together]),
    )?;
    assert_eq!(said.trim(), format!("{last} entries hold"));
    Ok(())
}

#[test]
fn disk_use_is_bounded_by_retention_archives_and_what_is_known_for_life() -> Result<()> {
    let plan = Plan {
        days: 60,
        payments_a_day: 110,
        segment_mib: 1,
        retention_days: 10,
        archive_mib: 1,
        export_every: 5,
        days_a_row: 5,
    };
    // In memory flushes cost nothing.
    let here = Path::new("/dev/shm");
    let dir = match here.is_dir() {
        true => tempfile::tempdir_in(here)?,
        false => tempfile::tempdir()?,
    };
    let rows = pass(dir.path(), plan, &mut |_| ())?;
    let last = rows.last().context("a row")?;
    assert!(last.archived >= 3 && last.removed >= 2, "{last:?}");
    let segment = plan.segment_mib << 20;
    let a_day = last.written / plan.days;
    let open = (plan.retention_days + 1) * plan.payments_a_day + 2 * segment / (a_day / plan.payments_a_day);
    for row in &rows {
        // Those that are too young, the one that is being filled, and the one
        // that is being archived.
        assert!(
            row.journal <= (plan.retention_days + 1) * a_day + 3 * segment,
            "{row:?}"
        );
        assert!(row.archives <= (plan.archive_mib << 20) + segment, "{row:?}");
        // Some kilobytes for each file's end.
        assert!(
            row.ids <= 400 * row.archived_payments + u64::from(row.archived) * 24_576,
            "{row:?}"
        );
        assert!(row.base <= 1_000 * open + 65_536, "{row:?}");
        assert!(row.vault <= 2 * (16 << 20), "{row:?}");
        // Half as much again between two merges, and sled's file.
        let in_index = row.payments - row.archived_payments;
        assert!(row.index <= 500 * in_index + 65_536, "{row:?}");
    }
    // Without any of it the journal alone would have grown on.
    assert!(last.written > 2 * last.journal);
    Ok(())
}
