//! Damage to the journal: refused, named, left as it is, and salvaged.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sim_devices::rng::Rng;

use super::kind::Journal;
use super::table::Row;
use super::{Ground, below, files, one_of, written};

/// Near the end of the last segment a zeroed sector cannot be told from a torn
/// write.
const LAST_WRITES: usize = 4096;

/// What a record has before an entry's bytes.
const RECORD_HEAD: usize = 8;

/// What was done.
struct Done {
    /// The files that may be named for it.
    names: Vec<String>,
    /// What is gone: in this file, these bytes.
    gone: Option<(String, Range<usize>)>,
}

pub(super) async fn suffer(ground: &mut Ground, kind: Journal, rng: &mut Rng, row: &mut Row) -> Result<()> {
    let ledger = ground.hub().join("ledger");
    let right = entries(ground, "right-hub", "right.jsonl")?;
    let done = damage(ground, kind, rng)?;
    let before = snapshot(&ground.hub())?;
    salvage(ground, &right, &done, row)?;
    let started = ground.shop.start().await;
    if kind == Journal::TornTail {
        started?;
        let cut = u64::from(ground.log().contains("cut an unfinished write"));
        row.found += cut;
        row.rebuilt += cut;
        let standing = ground.standing_now().await?;
        row.lost += u64::from(standing != ground.standing);
        ground.shop.stop().await?;
        ground.send_all(row).await?;
        return Ok(());
    }
    match started {
        Err(refused) => {
            let unchanged = before == snapshot(&ground.hub())?;
            ensure!(unchanged, "refused, and yet files were changed: {refused:#}");
            row.refused += 1;
            // By the hub, and by whoever has the files and the public key.
            let refused = format!("{refused:#}");
            let said = ground.shop.verify_ledger(&[]).await?.fault;
            row.found += u64::from(refused.contains("ledger") && said.is_some());
            row.named += u64::from(names(&refused, &done));
        }
        // A closed segment is read when somebody wants something out of it.
        Ok(()) => {
            ground.shop.stop().await?;
            // What cannot be read is parked, never sent wrong.
            row.parked += ground.send_all(row).await?.parked;
            ground.close_gateway()?;
            let said = ground.shop.verify_ledger(&[]).await?.fault.unwrap_or_default();
            fs::remove_dir_all(ground.hub().join("index"))?;
            let refused = ground.shop.start().await;
            let again = refused.as_ref().err().map(|refused| format!("{refused:#}"));
            let named = names(&said, &done);
            // A signature between entries that is damaged costs no entry, and
            // only whoever checks signatures sees it.
            let again = again.is_none_or(|text| names(&text, &done));
            if named && again {
                row.found += 1;
                row.named += 1;
            } else {
                let place = done.gone.as_ref().map_or(0, |(_, gone)| gone.start);
                row.missed.push(format!(
                    "{:?} byte {place}: verify says {said:?}; the log:\n{}",
                    done.names,
                    ground.log()
                ));
            }
            if refused.is_ok() {
                ground.shop.stop().await?;
            }
            for name in &done.names {
                let path = ledger.join(name);
                let same = before
                    .get(&path)
                    .is_none_or(|old| fs::read(&path).is_ok_and(|new| new == *old));
                ensure!(same, "the damaged file {name} was changed");
            }
        }
    }
    Ok(())
}

fn names(text: &str, done: &Done) -> bool {
    done.names.iter().any(|name| text.contains(name.as_str()))
}

fn damage(ground: &Ground, kind: Journal, rng: &mut Rng) -> Result<Done> {
    let ledger = ground.hub().join("ledger");
    let all = files(&ledger, ".seg")?;
    ensure!(all.len() >= 3, "only {} segments", all.len());
    let (last, closed) = all.split_last().context("no segments")?;
    let target = match kind {
        Journal::TornTail => last,
        Journal::FlippedBit | Journal::ZeroedSector => one_of(rng, &all)?,
        _ => one_of(rng, closed)?,
    };
    let mut bytes = fs::read(target)?;
    let end = written(&bytes);
    let limit = if target == last { end - LAST_WRITES } else { end };
    let name = |path: &Path| {
        path.file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let mut done = Done {
        names: vec![name(target)],
        gone: None,
    };
    let gone = match kind {
        Journal::FlippedBit => {
            let at = below(rng, limit);
            bytes[at] ^= 1 << rng.below(8);
            at..at + 1
        }
        Journal::ZeroedSector => {
            let at = below(rng, limit / 512) * 512;
            bytes[at..at + 512].fill(0);
            at..at + 512
        }
        Journal::Truncated => {
            let at = below(rng, end);
            bytes.truncate(at);
            at..usize::MAX
        }
        Journal::TornTail => {
            // The last group is the entry of the hub's stop.
            let at = end - 1 - below(rng, 150);
            bytes[at..].fill(0);
            end.saturating_sub(700)..usize::MAX
        }
        Journal::Missing => {
            fs::remove_file(target)?;
            done.gone = Some((name(target), 0..usize::MAX));
            return Ok(done);
        }
        Journal::Foreign => {
            let other = files(&ground.path("other").join("hub").join("ledger"), ".seg")?;
            fs::copy(one_of(rng, &other)?, target)?;
            done.gone = Some((name(target), 0..usize::MAX));
            return Ok(done);
        }
        Journal::Swapped => {
            let others: Vec<PathBuf> = all.iter().filter(|path| *path != target).cloned().collect();
            let other = one_of(rng, &others)?;
            fs::write(target, fs::read(other)?)?;
            fs::write(other, bytes)?;
            done.names.push(name(other));
            return Ok(done);
        }
    };
    fs::write(target, bytes)?;
    done.gone = Some((name(target), gone));
    Ok(done)
}

/// An entry that was salvaged, and where it stood.
struct Salvaged {
    digest: String,
    file: String,
    bytes: Range<usize>,
}

/// Every entry of a ledger that the shipped program can salvage.
fn entries(ground: &Ground, hub: &str, out: &str) -> Result<Vec<Salvaged>> {
    let out = ground.path(out);
    let _ = fs::remove_file(&out);
    let hubctl = &ground.options.binaries.hubctl;
    super::run_to_end(
        std::process::Command::new(hubctl)
            .arg("--dir")
            .arg(ground.path(hub))
            .args(["ledger", "salvage"])
            .arg(&out),
    )?;
    let mut entries = Vec::new();
    for line in fs::read_to_string(&out)?.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let at = usize::try_from(line["offset"].as_u64().context("an entry without offset")?)?;
        let len = STANDARD.decode(text("entry"))?.len();
        let salvaged = Salvaged {
            digest: text("digest"),
            file: text("file"),
            bytes: at..at + RECORD_HEAD + len,
        };
        entries.push(salvaged);
    }
    Ok(entries)
}

/// Everything outside the damage can be salvaged.
fn salvage(ground: &Ground, right: &[Salvaged], done: &Done, row: &mut Row) -> Result<()> {
    let found = entries(ground, "hub", "found.jsonl")?;
    // A digest is of the whole entry, its sequence included.
    let found: HashSet<String> = found.into_iter().map(|entry| entry.digest).collect();
    let outside = right.iter().filter(|entry| {
        done.gone.as_ref().is_none_or(|(file, gone)| {
            entry.file != *file || entry.bytes.end <= gone.start || entry.bytes.start >= gone.end
        })
    });
    let missing = outside.filter(|entry| !found.contains(&entry.digest)).count() as u64;
    row.lost += missing;
    row.salvaged += u64::from(missing == 0);
    Ok(())
}

/// All files that cannot be made again, byte by byte.
fn snapshot(hub: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![hub.join("ledger"), hub.join("vault")];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder)? {
            let item = item?;
            match item.file_type()?.is_dir() {
                true => folders.push(item.path()),
                false => drop(all.insert(item.path(), fs::read(item.path())?)),
            }
        }
    }
    Ok(all)
}
