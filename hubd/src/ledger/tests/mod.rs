//! What the ledger promises, held against real files.

use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use hub_protocol::entry::{ClockQuality, EntryTime};
use hub_protocol::{DataKey, Entry, Event, HubId};

use super::*;

mod archive;
mod committer;
mod format_1;
mod index;
mod journal;
mod signing_keys;
mod space;
mod torn;
mod vault;
mod verify;

pub(super) const HUB: HubId = HubId([7; 32]);

/// What index and tables are encrypted under here.
pub(super) const DATA_KEY: DataKey = DataKey::new([0xda; 32]);

pub(super) fn test_seal() -> RestSeal {
    RestSeal::index(&DATA_KEY)
}

pub(super) fn key() -> SigningKey {
    SigningKey::from_bytes(&[9; 32])
}

/// The payload of the entry after `head`, with a body of about `size` bytes.
pub(super) fn payload(head: Head, size: usize) -> Vec<u8> {
    let text = format!("{:0>size$}", head.sequence);
    let event = Event::OperatorActed {
        operator: "test".into(),
        action: text,
    };
    Entry {
        sequence: head.sequence + 1,
        previous: head.digest,
        time: EntryTime {
            wall_ms: 1_760_000_000_000,
            monotonic_ms: 1,
            boot: [3; 16],
            quality: ClockQuality::Synchronised,
        },
        policy_version: 0,
        event,
    }
    .encode()
}

/// `n` payloads that follow `head`.
pub(super) fn payloads(mut head: Head, n: usize, size: usize) -> Vec<Vec<u8>> {
    (0..n)
        .map(|_| {
            let payload = payload(head, size);
            head = Head {
                sequence: head.sequence + 1,
                digest: Entry::digest(&payload),
            };
            payload
        })
        .collect()
}

pub(super) fn open_with(dir: &Path, segment_bytes: u64) -> Result<(Journal, OpenReport), LedgerError> {
    let options = JournalOptions {
        segment_bytes,
        create: true,
    };
    Journal::open(dir, HUB, Candidates::from(key()).reading(Some(DATA_KEY)), options)
}

pub(super) fn open(dir: &Path) -> Result<(Journal, OpenReport), LedgerError> {
    open_with(dir, 64 * 1024)
}

/// Appends groups of the given sizes, each entry of about `size` bytes.
pub(super) fn append(journal: &mut Journal, groups: &[usize], size: usize) {
    for n in groups {
        let batch = payloads(journal.head(), *n, size);
        journal.append(&batch).unwrap();
    }
}

pub(super) fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "seg"))
        .collect();
    paths.sort();
    paths
}

/// Everything in a folder, by name: to see that nothing was changed.
pub(super) fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|item| item.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(&path).unwrap()))
        .collect();
    all.sort();
    all
}

pub(super) fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1)
}
