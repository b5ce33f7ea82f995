//! The TLS key's files at every cut of a change.

use std::fs;
use std::io;
use std::path::Path;

use hub_protocol::entry::{ClockQuality, EntryTime};
use hub_protocol::{Digest, Entry, Event};

use super::tls_files::{TlsStep, discard_made, next_key, settle};
use super::{opening, tls_change};
use crate::config::Config;
use crate::init::{InitOptions, init};
use crate::ledger::{Journal, JournalOptions};

fn load(dir: &Path) -> Config {
    Config::load(dir).unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn hub(dir: &Path) -> Config {
    init(dir, &InitOptions::default()).unwrap();
    drop(opening::open(&load(dir)).unwrap());
    load(dir)
}

/// These entries and nothing more: the power fails behind them.
pub(super) fn record(config: &Config, events: &[Event]) {
    let keys = &config.keys;
    let options = JournalOptions::default();
    let (mut journal, _) =
        Journal::open(&config.layout.ledger, keys.hub_id, keys.signing.clone(), options).unwrap();
    for event in events {
        let head = journal.head();
        let entry = Entry {
            sequence: head.sequence + 1,
            previous: head.digest,
            time: EntryTime {
                wall_ms: 1,
                monotonic_ms: 1,
                boot: [0; 16],
                quality: ClockQuality::Synchronised,
            },
            policy_version: 0,
            event: event.clone(),
        };
        journal.append(&[entry.encode()]).unwrap();
    }
}

fn added(key: Digest, beside: Digest) -> Event {
    Event::HubTlsKeyAdded {
        number: 1,
        key,
        beside,
        operator: "uid 0".to_owned(),
    }
}

fn dropped(key: Digest, dropped: Digest) -> Event {
    Event::HubTlsKeyDropped {
        number: 2,
        key,
        dropped,
        operator: "uid 0".to_owned(),
    }
}

/// The hub's name, and the keys under which it is reached from what lies there
/// now, each of which it has.
fn opens_with(dir: &Path) -> (hub_protocol::HubId, Vec<Digest>) {
    let config = load(dir);
    let opened = opening::open(&config).unwrap();
    let stated = opened.state.tls_keys();
    let stated = stated.map(|record| record.statement(config.keys.hub_id));
    let in_use = stated
        .as_ref()
        .map_or_else(|| vec![config.keys.tls.digest], |stated| stated.keys.clone());
    let tls = tls_change::open(&config, &opened.journal.keys(), stated).unwrap();
    assert!(in_use.iter().all(|key| tls.holds(key)), "{in_use:?}");
    (tls.hub_id(), in_use)
}

#[test]
fn a_cut_at_any_step_of_a_change_of_the_tls_key_leaves_the_keys_that_the_ledger_names() {
    for cut in [None, Some(TlsStep::OldDestroyed), Some(TlsStep::NewInPlace)] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("hub");
        let config = hub(&dir);
        let (name, old, layout) = (config.keys.hub_id, config.keys.tls.digest, &config.layout);
        let made = next_key(layout, name, &[old]).unwrap().digest;
        assert_eq!(
            opens_with(&dir),
            (name, vec![old]),
            "a key that was only made changes nothing"
        );
        assert!(!layout.next_tls_key.exists(), "and is destroyed");
        let new = next_key(layout, name, &[old]).unwrap().digest;
        assert_ne!(new, made);
        record(&config, &[added(new, old)]);
        for _ in 0..2 {
            assert_eq!(opens_with(&dir), (name, vec![new, old]), "two overlap");
        }
        record(&config, &[dropped(new, old)]);
        let settled = settle(layout, &[new], &mut |step| match Some(step) == cut {
            true => Err(io::Error::other("cut")),
            false => Ok(()),
        });
        assert_eq!(settled.is_err(), cut.is_some());
        for _ in 0..2 {
            assert_eq!(opens_with(&dir), (name, vec![new]), "{cut:?}");
        }
        assert!(!layout.next_tls_key.exists(), "{cut:?}");
        assert_eq!(load(&dir).keys.hub_id, name, "the name outlives the key");
    }
}

#[test]
fn the_tls_key_that_counts_no_more_is_overwritten_where_it_lay() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hub");
    let config = hub(&dir);
    let (name, old, layout) = (config.keys.hub_id, config.keys.tls.digest, &config.layout);
    let gone = |kept: &Path| fs::read(kept).unwrap().iter().all(|byte| *byte == 0);
    // Given up: the new one.
    next_key(layout, name, &[old]).unwrap();
    let kept = dir.join("new");
    fs::hard_link(&layout.next_tls_key, &kept).unwrap();
    settle(layout, &[old], &mut |_| Ok(())).unwrap();
    assert!(!gone(&kept));
    discard_made(layout, &[old]).unwrap();
    assert!(gone(&kept) && !layout.next_tls_key.exists());
    // Finished: the old one.
    let new = next_key(layout, name, &[old]).unwrap().digest;
    let kept = dir.join("old");
    fs::hard_link(&layout.tls_key, &kept).unwrap();
    settle(layout, &[new, old], &mut |_| Ok(())).unwrap();
    assert!(!gone(&kept), "while they overlap both stay");
    settle(layout, &[new], &mut |_| Ok(())).unwrap();
    assert!(gone(&kept));
}

#[test]
fn a_hub_without_the_tls_key_that_the_ledger_names_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hub");
    let config = hub(&dir);
    let (name, old, layout) = (config.keys.hub_id, config.keys.tls.digest, &config.layout);
    let new = next_key(layout, name, &[old]).unwrap().digest;
    record(&config, &[added(new, old), dropped(new, old)]);
    // A backup of keys/ from before is put back.
    fs::remove_file(&layout.next_tls_key).unwrap();
    let config = load(&dir);
    let opened = opening::open(&config).unwrap();
    let stated = opened.state.tls_keys().map(|record| record.statement(name));
    let refused = tls_change::open(&config, &opened.journal.keys(), stated).unwrap_err();
    assert!(
        refused.to_string().contains("put back the newest copy of keys/"),
        "{refused}"
    );
}
