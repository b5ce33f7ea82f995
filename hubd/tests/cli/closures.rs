//! `hubctl ledger closures`: what a ledger says of its days is held against
//! the rest of it.

use hub_protocol::entry::{ClockQuality, EntryTime};
use hub_protocol::{Closure, Currency, Entry, EntrySeal, Event, LedgerTotals, Period, Total};
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{Journal, JournalOptions};

use super::running::Running;
use super::{Hub, path};

const TIME: EntryTime = EntryTime {
    wall_ms: 1_767_225_600_000,
    monotonic_ms: 1,
    boot: [3; 16],
    quality: ClockQuality::Synchronised,
};

/// A hub whose ledger says this, encrypted and signed by its key.
fn hub_that_says(events: Vec<Event>) -> Hub {
    let hub = Hub::init(&[]);
    let config = Config::load(&hub.dir).unwrap();
    let options = JournalOptions {
        segment_bytes: 64 * 1024,
        create: true,
    };
    let signing = config.keys.signing.clone();
    let (mut journal, _) =
        Journal::open(&config.layout.ledger, config.keys.hub_id, signing, options).unwrap();
    let store_key = StoreKey::create(&config.layout, &[7; 32], &config.keys.vault).unwrap();
    let seal = EntrySeal::new(store_key.key());
    for event in events {
        let before = journal.head();
        let entry = Entry {
            sequence: before.sequence + 1,
            previous: before.digest,
            time: TIME,
            policy_version: 0,
            event,
        };
        journal.append(&[seal.encode(&entry)]).unwrap();
    }
    hub
}

fn started() -> Event {
    Event::HubStarted {
        version: "0.1.0".to_owned(),
        torn_bytes: 0,
        traces: None,
        away: None,
        closes: Some(true),
    }
}

fn day(number: u32, first: u64, last: u64, totals: Vec<LedgerTotals>) -> Event {
    Event::PeriodClosed {
        closure: Closure {
            period: Period::Day,
            name: format!("2026-01-{number:02}"),
            number,
            first,
            last,
            running: totals.clone(),
            totals,
            since: 1,
        },
    }
}

fn ten_euros() -> Vec<LedgerTotals> {
    let mut totals = LedgerTotals::none(Currency::EUR);
    totals.approved_online = Total {
        count: 1,
        minor: 1_000,
    };
    vec![totals]
}

#[test]
fn whatever_closures_say_is_held_against_the_entries() {
    let right = hub_that_says(vec![started(), day(1, 1, 1, vec![]), day(2, 2, 2, vec![])]);
    let said = right.hubctl(&["ledger", "closures", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let list = said.json();
    let held: Vec<_> = list["closures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|day| &day["held"])
        .collect();
    assert_eq!(held, ["right", "right"]);
    let verified = right.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["closures"]["right"], 2);
    assert_eq!(right.hubctl(&["ledger", "closures", "--period", "month"]).code, 0);

    // A payment that no entry tells of, and a day that is left out: whoever has
    // the signing key can write that, and cannot make it follow.
    let forged: [(&str, Vec<Event>); 2] = [
        ("a payment", vec![started(), day(1, 1, 1, ten_euros())]),
        (
            "a day",
            vec![started(), day(1, 1, 1, vec![]), day(3, 2, 2, vec![])],
        ),
    ];
    for (what, events) in forged {
        let entry = events.len();
        let hub = hub_that_says(events);
        for command in ["closures", "verify"] {
            let said = hub.hubctl(&["ledger", command, "--json"]);
            assert_eq!(said.code, 65, "{what}, {command}: {said:?}");
            assert_eq!(said.json()["verified"], false, "{what}, {command}");
            let named = format!("the closure in entry {entry} ");
            assert!(said.stderr.contains(&named), "{what}, {command}: {said:?}");
        }
        let table = hub.hubctl(&["ledger", "closures"]);
        assert!(table.stdout.contains("WRONG"), "{table:?}");
    }
}

#[test]
fn closures_are_read_with_the_vault_key_or_the_keys_of_their_entries() {
    let hub = hub_that_says(vec![started(), day(1, 1, 1, vec![]), day(2, 2, 2, vec![])]);
    let keys = hub.file("days.jsonl");
    let said = hub.hubctl(&["ledger", "disclose", "--from", "3", path(&keys)]);
    assert_eq!(said.code, 0, "{said:?}");
    let disclosed = ["ledger", "closures", "--json", "--disclosed", path(&keys)];
    let list = hub.hubctl(&disclosed).json();
    assert_eq!(list["closures"].as_array().unwrap().len(), 1);
    assert_eq!(
        list["closures"][0]["held"], "hubs-word",
        "the day before was not read"
    );
    std::fs::remove_file(hub.file("keys/hub-vault.key")).unwrap();
    let said = hub.hubctl(&["ledger", "closures"]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("--vault-key"), "{said:?}");
}

#[test]
fn a_running_hub_writes_down_that_entries_were_disclosed() {
    let hub = Hub::init(&[]);
    let running = Running::start(&hub);
    let out = hub.file("disclosed.jsonl");
    let said = hub.hubctl(&["ledger", "disclose", "--json", path(&out)]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["recorded"], true);
    running.terminate();
    let verified = hub.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["kinds"]["operator-acted"], 1, "{verified}");
    // Nobody is there to write it down.
    let again = hub.file("again.jsonl");
    let said = hub.hubctl(&["ledger", "disclose", "--json", path(&again)]);
    assert_eq!(said.json()["recorded"], false);
}
