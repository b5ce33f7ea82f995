use super::*;
use crate::entry::{ClockQuality, StorageLevel};
use crate::id::PaymentId;

fn entry(sequence: u64, event: Event) -> Entry {
    Entry {
        sequence,
        previous: Digest([7; 32]),
        time: EntryTime {
            wall_ms: 1_790_000_000_000,
            monotonic_ms: 5,
            boot: [3; 16],
            quality: ClockQuality::Synchronised,
        },
        policy_version: 4,
        event,
    }
}

fn released(id: u8) -> Event {
    Event::PaymentReleased {
        payment_id: PaymentId([id; 16]),
        operator: "Camille Dupont".to_owned(),
        finding: None,
    }
}

fn seal() -> EntrySeal {
    EntrySeal::new(&DataKey::new([9; 32]))
}

fn sealed(entry: &Entry) -> SealedEntry {
    match StoredPayload::decode(&seal().encode(entry)).unwrap() {
        StoredPayload::Sealed(sealed) => sealed,
        StoredPayload::Clear(entry) => panic!("{entry:?} in clear"),
    }
}

#[test]
fn a_sealed_entry_shows_its_place_and_not_what_happened() {
    let entry = entry(12, released(1));
    let payload = seal().encode(&entry);
    let holds = |text: &[u8]| payload.windows(text.len()).any(|bytes| bytes == text);
    assert!(!holds(b"Camille") && !holds(&[1; 16]));
    let decoded = sealed(&entry);
    assert_eq!((decoded.sequence, decoded.previous), (12, entry.previous));
    assert_eq!(seal().open(&decoded).unwrap(), entry);
    // The control: in clear it is there.
    let clear = entry.encode();
    assert!(clear.windows(7).any(|bytes| bytes == b"Camille"));
}

#[test]
fn what_needs_no_key_is_in_clear_and_everything_that_names_somebody_is_not() {
    let stopped = entry(1, Event::HubStopped);
    assert_eq!(seal().encode(&stopped), stopped.encode());
    let storage = entry(
        2,
        Event::StorageChanged {
            level: StorageLevel::Low,
            free_bytes: 1,
        },
    );
    assert_ne!(seal().encode(&storage), storage.encode());
    assert!(!released(1).is_in_clear());
}

#[test]
fn a_sealed_entry_opens_at_its_own_place_and_under_its_own_key_only() {
    let good = sealed(&entry(12, released(1)));
    for moved in [
        SealedEntry {
            sequence: 13,
            ..good.clone()
        },
        SealedEntry {
            previous: Digest::ZERO,
            ..good.clone()
        },
        SealedEntry {
            policy_version: 5,
            ..good.clone()
        },
        SealedEntry {
            time: EntryTime {
                wall_ms: 0,
                ..good.time
            },
            ..good.clone()
        },
    ] {
        assert_eq!(seal().open(&moved), Err(OpenError::Key));
    }
    for at in 0..good.sealed.len() {
        let mut changed = good.clone();
        changed.sealed[at] ^= 1;
        assert_eq!(seal().open(&changed), Err(OpenError::Key), "byte {at}");
    }
    for short in [0, 15, 23, 24, 39] {
        let mut cut = good.clone();
        cut.sealed.truncate(short);
        assert_eq!(seal().open(&cut), Err(OpenError::Key));
    }
    let other = EntrySeal::new(&DataKey::new([8; 32]));
    assert_eq!(other.open(&good), Err(OpenError::Key));
}

#[test]
fn a_sequence_used_again_with_another_event_meets_another_nonce() {
    let (one, other) = (sealed(&entry(12, released(1))), sealed(&entry(12, released(2))));
    assert_ne!(one.sealed[..NONCE], other.sealed[..NONCE]);
    // And the same inputs give the same bytes: the core stays deterministic.
    assert_eq!(one, sealed(&entry(12, released(1))));
}

#[test]
fn a_disclosed_key_opens_its_entry_and_no_other() {
    let (one, other) = (entry(12, released(1)), entry(13, released(1)));
    let key = seal().disclose(&sealed(&one)).unwrap();
    assert_eq!(sealed(&one).open_by(&key), Ok(one));
    assert_eq!(sealed(&other).open_by(&key), Err(OpenError::Key));
}

#[test]
fn an_event_that_is_read_without_a_key_is_refused_when_it_is_sealed() {
    let mut hidden = sealed(&entry(12, released(1)));
    let place = hidden.place();
    let payload = Payload {
        msg: &cbor::encode(&Event::HubStopped),
        aad: &place,
    };
    let nonce = [1; NONCE];
    hidden.sealed = nonce.to_vec();
    hidden
        .sealed
        .extend(seal().cipher.encrypt(&XNonce::from(nonce), payload).unwrap());
    assert_eq!(seal().open(&hidden), Err(OpenError::Hidden));
}
