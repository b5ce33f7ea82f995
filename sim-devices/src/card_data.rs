//! The card data of simulated devices: sealed to the gateway's key, or as a
//! reader would have encrypted them under a key of its own.

use std::path::Path;

use anyhow::{Context, Result};
use data_encoding::HEXLOWER_PERMISSIVE;
use hub_sdk::{CardData, CardKey};
use serde::Deserialize;

use crate::rng::Rng;

/// The public half of a gateway's card key, as it is handed to devices. What
/// the key is called follows from it.
#[derive(Deserialize)]
struct PublicFile {
    public_key: String,
}

/// The card key in a file such as the gateway's `card-key.json`, for devices
/// of this merchant.
///
/// # Errors
/// No such file, or no key in it.
pub fn card_key(path: &Path, merchant: &str) -> Result<CardKey> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let key = serde_json::from_str::<PublicFile>(&text)
        .ok()
        .and_then(|file| HEXLOWER_PERMISSIVE.decode(file.public_key.as_bytes()).ok())
        .and_then(|key| <[u8; 32]>::try_from(key).ok())
        .with_context(|| format!("{} is no card key of a gateway", path.display()))?;
    Ok(CardKey::new(key, merchant)?)
}

/// Made-up card data of an order: sealed to the key, or without one as a
/// reader's.
pub(crate) fn of(order_id: &str, key: Option<&CardKey>) -> Result<CardData> {
    let read: Vec<u8> = bytes(order_id, 12);
    match key {
        Some(key) => Ok(key.to_seal(&read)?),
        None => Ok(as_by_a_reader(order_id)),
    }
}

/// Stands for what a certified reader encrypts under a key of its own, with a
/// key serial number of DUKPT: nobody here can open it.
pub(crate) fn as_by_a_reader(order_id: &str) -> CardData {
    let bytes = bytes(order_id, 12);
    CardData::dukpt(&bytes[..12], &bytes[12..])
}

fn bytes(order_id: &str, words: usize) -> Vec<u8> {
    let mut rng = Rng::of(0x5ea1, order_id);
    (0..words).flat_map(|_| rng.next_u64().to_be_bytes()).collect()
}
