//! Entries as a ledger keeps them: in clear or encrypted, and what is in the
//! encrypted ones, for whoever has the store's key or one entry's.
#![no_main]

use hub_fuzz::{TIME, data_key, sealed};
use hub_protocol::cbor::{decode, encode};
use hub_protocol::seal::OpenError;
use hub_protocol::{Digest, EntrySeal, Event, SealedEntry, StoredPayload};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let key = data_key();
    let seal = EntrySeal::new(&key);
    match StoredPayload::decode(bytes) {
        Ok(StoredPayload::Clear(entry)) => {
            assert_eq!(entry.encode(), bytes);
            // What is in clear goes through the seal and comes back.
            let stored = StoredPayload::decode(&seal.encode(&entry)).unwrap();
            assert_eq!(stored.open(Some(&seal)), Ok(Some(entry)));
        }
        Ok(StoredPayload::Sealed(entry)) => {
            assert_eq!(encode(&entry), bytes);
            let opened = seal.open(&entry);
            if let Some(disclosed) = seal.disclose(&entry) {
                assert_eq!(entry.open_by(&disclosed), opened);
            }
        }
        Err(_) => {}
    }
    // The same bytes as what was encrypted.
    let mut entry = SealedEntry {
        sequence: 7,
        previous: Digest([1; 32]),
        time: TIME,
        policy_version: 3,
        sealed: Vec::new(),
    };
    entry.sealed = sealed(&key.derive("hub-store/1 entries"), &entry.place(), bytes);
    let opened = seal.open(&entry);
    assert_eq!(entry.open_by(&seal.disclose(&entry).unwrap()), opened);
    let expected = match decode::<Event>(bytes) {
        Ok(event) if event.is_in_clear() => Err(OpenError::Hidden),
        Ok(event) => Ok(event),
        Err(error) => Err(OpenError::Cbor(error)),
    };
    assert_eq!(opened.map(|entry| entry.event), expected);
});
