//! Damage to the index: it is derived, so nothing is lost.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use hub_protocol::RefusalCode;
use hub_sdk::PayError;
use sim_devices::rng::Rng;

use super::kind::Index;
use super::table::Row;
use super::{Ground, below, copy, one_of};
use crate::store::SET_ASIDE;

/// What it says when the part of the queue that it reads next is not there.
const FOUND_LATE: &str = "the queue cannot be read from the index";

pub(super) async fn suffer(ground: &mut Ground, kind: Index, rng: &mut Rng, row: &mut Row) -> Result<()> {
    damage(ground, kind, rng)?;
    ground.shop.start().await?;
    if !serves_as_before(ground, row).await? {
        // Damage that shows when it is read: it is said, nothing is decided,
        // and the next start builds the index anew.
        ground.shop.start().await?;
        ensure!(
            serves_as_before(ground, row).await?,
            "a hub that has built its index anew finds it damaged"
        );
    }
    // Noticed by the hub, or by whoever reads what is there; or there was
    // nothing to be noticed: the index holds what it did.
    let noticed = ground.log().contains(SET_ASIDE);
    match ground.index_records("hub")? {
        Ok(records) if !noticed && records != ground.records => row.missed.push(format!(
            "nothing is said, and the index holds other records; the log:\n{}",
            ground.log()
        )),
        Err(damage) if noticed => row.missed.push(format!("built anew, and yet: {damage}")),
        _ => row.found += 1,
    }
    // The line comes back. What of the damage was not read yet may show now.
    match ground.send_all(row).await {
        Err(_) if ground.log().contains(FOUND_LATE) => {
            // It may have ended by itself.
            let _ = ground.shop.kill().await;
            ground.send_all(row).await?;
        }
        sent => drop(sent?),
    }
    let log = ground.log();
    let aside: Vec<&str> = log.lines().filter(|line| line.contains(SET_ASIDE)).collect();
    row.aside += aside.len() as u64;
    row.rebuilt += u64::from(!aside.is_empty());
    // Why, in the words behind it.
    let why = |line: &&str| line.split_once("trouble=").is_some_and(|(_, why)| why.len() > 2);
    row.named += u64::from(!aside.is_empty() && aside.iter().all(why));
    Ok(())
}

/// Asks the hub for all that it has answered, compares how it stands, and
/// stops it. `false` if it found its index damaged meanwhile, be it while it
/// stopped: then it is down all the same.
async fn serves_as_before(ground: &mut Ground, row: &mut Row) -> Result<bool> {
    let answers = ground.answers_lost().await;
    let standing = ground.standing_now().await;
    ground.hang_up().await;
    let stopped = ground.shop.stop().await;
    let lost = match answers {
        Ok(lost) => lost,
        Err(error) if says_so(&error) => {
            if stopped.is_err() {
                // It had ended by itself.
                let _ = ground.shop.kill().await;
            }
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    };
    if stopped.is_err() && ground.log().contains(FOUND_LATE) {
        let _ = ground.shop.kill().await;
        return Ok(false);
    }
    row.lost += lost + u64::from(standing? != ground.standing);
    stopped?;
    Ok(true)
}

fn says_so(error: &PayError) -> bool {
    // Or the hub is ending, or has ended.
    error.refusal_code() == Some(RefusalCode::LedgerUnavailable) || error.transient()
}

fn damage(ground: &Ground, kind: Index, rng: &mut Rng) -> Result<()> {
    let index = ground.hub().join("index");
    match kind {
        Index::Deleted => fs::remove_dir_all(&index)?,
        Index::OlderCopy => {
            fs::remove_dir_all(&index)?;
            copy(&ground.path("older-index"), &index)?;
        }
        Index::FileInstead => {
            fs::remove_dir_all(&index)?;
            fs::write(&index, "no folder")?;
        }
        Index::NoPermission => {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&index, fs::Permissions::from_mode(0o000))?;
        }
        Index::FileDeleted => fs::remove_file(any_file(&index, rng)?)?,
        Index::Truncated => {
            let path = any_file(&index, rng)?;
            let len = usize::try_from(path.metadata()?.len())?;
            fs::OpenOptions::new()
                .write(true)
                .open(path)?
                .set_len(below(rng, len) as u64)?;
        }
        Index::FlippedBit => {
            let path = any_file(&index, rng)?;
            let mut bytes = fs::read(&path)?;
            let at = below(rng, bytes.len());
            *bytes.get_mut(at).context("an empty file")? ^= 1 << rng.below(8);
            fs::write(path, bytes)?;
        }
        Index::ZeroedSector => {
            let path = any_file(&index, rng)?;
            let mut bytes = fs::read(&path)?;
            let at = below(rng, bytes.len() / 512) * 512;
            let end = (at + 512).min(bytes.len());
            bytes[at..end].fill(0);
            fs::write(path, bytes)?;
        }
    }
    Ok(())
}

/// sled's own, or a table.
fn any_file(index: &std::path::Path, rng: &mut Rng) -> Result<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for item in fs::read_dir(index)? {
        let item = item?;
        if item.file_type()?.is_file() && item.metadata()?.len() > 0 {
            files.push(item.path());
        }
    }
    files.sort();
    Ok(one_of(rng, &files)?.clone())
}
