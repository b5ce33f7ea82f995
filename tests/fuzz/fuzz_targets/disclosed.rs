//! Keys of single entries, as `hubctl ledger disclose` hands them on.
#![no_main]

use hub_protocol::{SealedEntry, StoredPayload};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// Encrypted entries of the protocol's vectors.
static ENTRIES: LazyLock<Vec<SealedEntry>> = LazyLock::new(|| {
    let vectors = include_str!("../../../protocol/vectors/sealed.json");
    let payloads = vectors.split("\"payload\": \"").skip(1).filter_map(|rest| rest.split('"').next());
    let decoded = payloads.map(|hex| {
        let digit = |byte: u8| (byte as char).to_digit(16).unwrap() as u8;
        let bytes: Vec<u8> = hex.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect();
        StoredPayload::decode(&bytes).unwrap()
    });
    let sealed = decoded.filter_map(|stored| match stored {
        StoredPayload::Sealed(entry) => Some(entry),
        StoredPayload::Clear(_) => None,
    });
    sealed.collect()
});

fuzz_target!(|bytes: &[u8]| {
    assert!(ENTRIES.len() > 40);
    let Some(keys) = hubd::fuzzing::disclosed(bytes) else { return };
    for entry in ENTRIES.iter() {
        if let Some(key) = keys.get(&entry.sequence)
            && let Ok(opened) = entry.open_by(key)
        {
            assert_eq!(opened.sequence, entry.sequence);
            assert!(!opened.event.is_in_clear());
        }
    }
});
