//! Watching the room on the disk, and saying so when it changes.

use std::time::Duration;

use hub_protocol::entry::StorageLevel;

use crate::config::Config;
use crate::ledger::{LedgerError, Space, SpaceSettings, VAULT_FILE_BYTES};
use crate::port::{HubPort, Tell};

/// How often the file system is asked.
const EVERY: Duration = Duration::from_secs(1);

/// What the index may grow by before it is looked at again, in bytes.
const INDEX_ROOM: u64 = 16 << 20;

/// Takes over or makes the reserve.
pub(super) fn open(config: &Config) -> Result<Space, LedgerError> {
    let ledger = &config.ledger;
    let full_bytes = ledger.segment_bytes + VAULT_FILE_BYTES as u64 + INDEX_ROOM;
    let settings = SpaceSettings {
        reserve_bytes: ledger.reserve_bytes,
        // A warning that comes with the refusal comes too late.
        low_bytes: ledger.low_space_bytes.max(full_bytes * 2),
        full_bytes,
    };
    let space = Space::open(&config.layout.reserve, settings)?;
    tell(space.level(), &space);
    Ok(space)
}

/// Tells the hub of every change, until the hub is gone.
pub(super) async fn watch(space: Space, port: HubPort) {
    let mut told = space.level();
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let looking = space.clone();
        let level = match tokio::task::spawn_blocking(move || looking.look()).await {
            Ok(Ok(level)) => level,
            Ok(Err(error)) => {
                tracing::error!(%error, "cannot tell how much room the disk has");
                continue;
            }
            Err(_) => return,
        };
        if level == told {
            continue;
        }
        told = level;
        tell(level, &space);
        let free_bytes = space.free_bytes();
        if !port.tell(Tell::Storage { level, free_bytes }).await {
            return;
        }
    }
}

fn tell(level: StorageLevel, space: &Space) {
    let (free_mib, reserve_mib) = (space.free_bytes() >> 20, space.reserve_bytes() >> 20);
    match level {
        StorageLevel::Enough => {
            tracing::info!(free_mib, reserve_mib, "the disk has enough room");
        }
        StorageLevel::Low => {
            tracing::warn!(free_mib, reserve_mib, "the disk is getting full: make room");
        }
        StorageLevel::Full => tracing::error!(
            free_mib,
            reserve_mib,
            "the disk is full: nothing is approved offline until there is room; \
             what was accepted is still sent and recorded"
        ),
    }
}
