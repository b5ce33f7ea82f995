//! Damage to sealed cards: their payments are parked and said, the others are
//! charged once and rightly.

use std::fs;

use anyhow::{Context, Result, ensure};
use sim_devices::rng::Rng;

use super::books::Sent;
use super::kind::Vault;
use super::table::Row;
use super::{Ground, below, files, one_of, written};

pub(super) async fn suffer(ground: &mut Ground, kind: Vault, rng: &mut Rng, row: &mut Row) -> Result<()> {
    damage(ground, kind, rng)?;
    let gateway = ground.open_gateway().await?;
    if let Err(refused) = ground.shop.start().await {
        // A file that is none: nothing is charged, nothing changed, and it
        // is said which.
        let text = format!("{refused:#}");
        ensure!(text.contains(".vlt"), "refused, and no file named: {text}");
        row.found += 1;
        row.named += 1;
        row.refused += 1;
        return Ok(());
    }
    let Sent { sent, parked, items } = ground.sent(&gateway, row).await?;
    row.parked += parked;
    // Nothing is to be noticed if no card was hit that is needed.
    row.found += u64::from(parked > 0 || sent == ground.standing.queued);
    let why = |item: &serde_json::Value| item["parked"] == "sealed-card-missing";
    row.named += u64::from(!items.is_empty() && items.iter().all(why));
    Ok(())
}

fn damage(ground: &Ground, kind: Vault, rng: &mut Rng) -> Result<()> {
    let all = files(&ground.hub().join("vault"), ".vlt")?;
    let path = one_of(rng, &all)?;
    if kind == Vault::Removed {
        return Ok(fs::remove_file(path)?);
    }
    let mut bytes = fs::read(path)?;
    // Where cards are: most of the file is erased.
    let used: Vec<usize> = (0..written(&bytes) / 512)
        .filter(|sector| {
            bytes[sector * 512..(sector + 1) * 512]
                .iter()
                .filter(|b| **b != 0)
                .count()
                > 100
        })
        .collect();
    let at = one_of(rng, &used).context("no cards are kept")? * 512;
    match kind {
        Vault::ZeroedSector => bytes[at..at + 512].fill(0),
        _ => bytes[at + below(rng, 512)] ^= 1 << rng.below(8),
    }
    Ok(fs::write(path, bytes)?)
}
