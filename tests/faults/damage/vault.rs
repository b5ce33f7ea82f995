//! Damage to sealed cards: their payments are parked and said, the others are
//! charged once and rightly.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use sim_devices::rng::Rng;

use super::kind::Vault;
use super::table::Row;
use super::{DRAIN, Ground, below, files, one_of, written};

/// What every payment of the stock is for, in minor units.
const AMOUNT: u64 = 100;

pub(super) async fn suffer(ground: &mut Ground, kind: Vault, rng: &mut Rng, row: &mut Row) -> Result<()> {
    damage(ground, kind, rng)?;
    let gateway = ground.open_gateway().await?;
    let booked = gateway.payments().len();
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
    let left = ground.shop.drain(DRAIN, |_| ()).await?;
    let standing = ground.standing_now().await?;
    let parked = standing.parked;
    let waiting = ground.shop.ctl(&["queue", "list", "--limit", "1000"]).await?;
    ground.shop.stop().await?;
    ensure!(left == 0, "{left} payments are still to be sent");
    let mut charges: BTreeMap<&str, u64> = BTreeMap::new();
    let payments = gateway.payments();
    for payment in &payments {
        let charged = u64::from(payment.charged) + payment.charged_again;
        *charges.entry(&payment.payment_id).or_default() += charged;
        row.wrong += u64::from(charged > 1 || payment.amount_minor != AMOUNT);
    }
    let items = waiting["items"]
        .as_array()
        .context("hubctl queue gave no items")?;
    for item in items {
        let id = item["payment_id"].as_str().unwrap_or_default();
        row.wrong += charges.get(id).copied().unwrap_or(0);
    }
    let sent = (charges.len() - booked) as u64;
    row.lost += ground.standing.queued.abs_diff(sent + parked);
    row.parked += parked;
    row.found += 1;
    let why = |item: &serde_json::Value| item["parked"] == "sealed-card-missing";
    row.named += u64::from(waiting["total"] == parked && items.iter().all(why));
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
