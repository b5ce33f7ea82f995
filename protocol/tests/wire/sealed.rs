//! `sealed.json`: the ledger with every event as a hub's disk has it, and the
//! keys that open single entries of it.

use hub_protocol::*;
use serde::{Deserialize, Serialize};

use crate::files::{committed, hex, hold, unhex};
use crate::fixtures::{events, time};

#[derive(Serialize, Deserialize)]
struct SealedLedger {
    data_key: String,
    entries: Vec<SealedVector>,
}

#[derive(Serialize, Deserialize)]
struct SealedVector {
    sequence: u64,
    event: String,
    payload: String,
    digest: String,
    /// What is authenticated with the event; `None`: it is in clear.
    place: Option<String>,
    /// The key of this entry alone; `None`: it is in clear.
    entry_key: Option<String>,
}

const DATA_KEY: DataKey = DataKey::new([0x42; 32]);

fn ledger() -> SealedLedger {
    let seal = EntrySeal::new(&DATA_KEY);
    let mut previous = Digest::ZERO;
    let mut entries = Vec::new();
    for (place, event) in events().into_iter().enumerate() {
        let place = place as u64;
        let name = event.name().to_owned();
        let entry = Entry {
            sequence: place + 1,
            previous,
            time: time(place * 1000),
            policy_version: if place > 1 { 7 } else { 0 },
            event,
        };
        let payload = seal.encode(&entry);
        previous = Entry::digest(&payload);
        let sealed = match StoredPayload::decode(&payload).unwrap() {
            StoredPayload::Clear(_) => None,
            StoredPayload::Sealed(sealed) => Some(sealed),
        };
        let key = sealed.as_ref().and_then(|sealed| seal.disclose(sealed));
        entries.push(SealedVector {
            sequence: entry.sequence,
            event: name,
            payload: hex(&payload),
            digest: previous.to_string(),
            place: sealed.map(|sealed| hex(&sealed.place())),
            entry_key: key.map(|key| hex(&key.0)),
        });
    }
    SealedLedger {
        data_key: hex(DATA_KEY.as_bytes()),
        entries,
    }
}

#[test]
fn the_committed_sealed_ledger_is_what_the_code_makes() {
    hold("sealed.json", &ledger());
}

#[test]
fn the_committed_sealed_ledger_opens_by_the_data_key_and_entry_by_entry() {
    let ledger: SealedLedger = committed("sealed.json");
    let seal = EntrySeal::new(&DataKey::new(unhex(&ledger.data_key).try_into().unwrap()));
    let mut previous = Digest::ZERO;
    let mut clear = Vec::new();
    for (vector, event) in ledger.entries.iter().zip(events()) {
        let payload = unhex(&vector.payload);
        let stored = StoredPayload::decode(&payload).unwrap();
        let opened = stored.clone().open(Some(&seal)).unwrap().unwrap();
        assert_eq!((&opened.event, opened.previous), (&event, previous));
        previous = Entry::digest(&payload);
        assert_eq!(previous.to_string(), vector.digest);
        match (stored, &vector.entry_key) {
            (StoredPayload::Sealed(sealed), Some(key)) => {
                let key = EntryKey(unhex(key).try_into().unwrap());
                assert_eq!(sealed.open_by(&key), Ok(opened));
            }
            (StoredPayload::Clear(_), None) => clear.push(vector.event.as_str()),
            (_, key) => panic!("{}: {key:?}", vector.event),
        }
    }
    assert_eq!(ledger.entries.len(), events().len());
    // What docs/protocol.md lists, and nothing more.
    let document = include_str!("../../../docs/protocol.md");
    clear.sort_unstable();
    clear.dedup();
    let clear: Vec<String> = clear.iter().map(|name| format!("`{name}`")).collect();
    let said = format!("In clear stay: {}.", clear.join(", "));
    assert!(document.contains(&said), "docs/protocol.md does not say: {said}");
}

#[test]
fn the_data_key_is_wiped_from_memory_when_it_is_dropped() {
    // What a drop leaves behind cannot be read without unsafe code: that there
    // is something to do for one of plain bytes can be told.
    assert!(std::mem::needs_drop::<DataKey>());
    assert!(std::mem::needs_drop::<EntrySeal>());
}
