//! `ledger.json`: a ledger with every event, chained and signed.

use std::collections::BTreeSet;

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;
use serde::{Deserialize, Serialize};

use crate::files::{committed, hex, hold, unhex};
use crate::fixtures::*;
use crate::tree::diagnostic;

#[derive(Serialize, Deserialize)]
struct EntryVector {
    sequence: u64,
    event: String,
    number: u16,
    diagnostic: String,
    payload: String,
    digest: String,
    signed: String,
}

fn entries() -> Vec<EntryVector> {
    let mut previous = Digest::ZERO;
    let mut entries = Vec::new();
    for (place, event) in events().into_iter().enumerate() {
        let place = place as u64;
        let policy_version = if place > 1 { 7 } else { 0 };
        let (event_name, number) = (event.name().to_owned(), event.number());
        let entry = Entry {
            sequence: place + 1,
            previous,
            time: time(place * 1000),
            policy_version,
            event,
        };
        let payload = entry.encode();
        previous = Entry::digest(&payload);
        entries.push(EntryVector {
            sequence: entry.sequence,
            event: event_name,
            number,
            diagnostic: diagnostic(&payload),
            digest: previous.to_string(),
            signed: hex(&cose::sign(&hub_key(), ObjectType::LedgerEntry, &payload)),
            payload: hex(&payload),
        });
    }
    entries
}

#[test]
fn the_committed_ledger_is_what_the_code_makes() {
    hold("ledger.json", &entries());
}

#[test]
fn the_committed_ledger_verifies_with_the_public_key_alone_and_holds_every_event() {
    let mut previous = Digest::ZERO;
    let mut numbers = BTreeSet::new();
    let mut events = Vec::new();
    let key = hub_key().verifying_key();
    for (vector, sequence) in committed::<Vec<EntryVector>>("ledger.json").iter().zip(1..) {
        let payload = cose::verify(&unhex(&vector.signed), ObjectType::LedgerEntry, &key).unwrap();
        assert_eq!(hex(&payload), vector.payload);
        let entry: Entry = cbor::decode(&payload).unwrap();
        assert_eq!((entry.sequence, entry.previous), (sequence, previous));
        assert_eq!(
            (entry.event.number(), entry.event.name()),
            (vector.number, vector.event.as_str())
        );
        previous = Entry::digest(&payload);
        assert_eq!(previous.to_string(), vector.digest);
        numbers.insert(vector.number);
        events.push(entry.event);
    }
    assert_eq!(events, crate::fixtures::events());
    // A number that is assigned is decoded as an event, if a broken one.
    let known = |number: u16| {
        let body = crate::tree::Tree::Array(vec![
            crate::tree::int(number.into()),
            crate::tree::Tree::Map(vec![]),
        ]);
        let entry = crate::tree::Tree::parse(&entries_first()).with(&[5], body);
        !matches!(cbor::decode::<Entry>(&entry.encode()), Err(cbor::CborError::UnknownVariant(n)) if n == i64::from(number))
    };
    let assigned: BTreeSet<u16> = (0..=1000).filter(|number| known(*number)).collect();
    assert_eq!(numbers, assigned);
}

fn entries_first() -> Vec<u8> {
    unhex(&entries()[0].payload)
}
