//! A segment of the journal: verified, opened, salvaged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ed25519_dalek::SigningKey;
use hub_protocol::HubId;
use hubd::ledger::{Contents, Journal, JournalOptions, salvage, verify};

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(dir.path().join("00000001.seg"), bytes).unwrap();
    let key = SigningKey::from_bytes(&[2; 32]);
    let _ = verify(dir.path(), &key.verifying_key(), &mut |_| {});
    let _ = salvage(dir.path(), &key.verifying_key(), Contents::Unread, &mut std::io::sink());
    let hub = bytes.get(16..48).and_then(|hub| hub.try_into().ok()).map_or(HubId([0; 32]), HubId);
    let options = JournalOptions { segment_bytes: 64 * 1024, create: false };
    let _ = Journal::open(dir.path(), hub, key, options);
});
