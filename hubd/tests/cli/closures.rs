//! `hubctl ledger closures`: what a ledger says of its days is held against
//! the rest of it.

use hub_protocol::entry::{Entry, Event};
use hub_protocol::{Closure, EntrySeal, cbor};
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{Journal, JournalOptions};

use super::core_shop::{MPOS, POLICY, Shop, request};
use super::running::Running;
use super::{Hub, path};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// A shop that sells on two days, each of which is closed: 2,000 and 700.
fn two_days() -> Vec<Entry> {
    let policy = POLICY.replace("longest_minutes = 240", "longest_minutes = 20000");
    let mut shop = Shop::offline_under(&policy);
    for (number, amount) in [(1, 2_000), (2, 700)] {
        shop.pay(MPOS, &request(number, amount, &format!("card-{number}")));
        shop.pass(DAY_MS - shop.now.wall_ms % DAY_MS);
    }
    let entry = |payload: &Vec<u8>| cbor::decode(payload).unwrap();
    shop.disk.iter().map(entry).collect()
}

/// The last closure of a ledger.
fn last_closure(entries: &mut [Entry]) -> &mut Closure {
    let closures = entries.iter_mut().filter_map(|entry| match &mut entry.event {
        Event::PeriodClosed { closure } => Some(closure),
        _ => None,
    });
    closures.last().unwrap()
}

/// A hub whose ledger says this, encrypted and signed by its key.
fn hub_that_says(entries: &[Entry]) -> Hub {
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
    for entry in entries {
        let before = journal.head();
        let entry = Entry {
            sequence: before.sequence + 1,
            previous: before.digest,
            ..entry.clone()
        };
        journal.append(&[seal.encode(&entry)]).unwrap();
    }
    hub
}

#[test]
fn whatever_closures_say_is_held_against_the_entries() {
    let entries = two_days();
    let right = hub_that_says(&entries);
    let said = right.hubctl(&["ledger", "closures", "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let list = said.json();
    let days = list["closures"].as_array().unwrap();
    assert_eq!(days.len(), 2);
    for (day, (minor, running)) in days.iter().zip([(2_000, 2_000), (700, 2_700)]) {
        assert_eq!(day["held"], "right");
        assert_eq!(day["totals"][0]["approved_offline"]["minor"], minor);
        assert_eq!(day["running"][0]["approved_offline"]["minor"], running);
    }
    let verified = right.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["closures"]["right"], 2);
    let months = right.hubctl(&["ledger", "closures", "--period", "month"]);
    assert_eq!(months.code, 0);
    assert!(months.stdout.contains("no month is closed"), "{months:?}");

    // Whoever has the signing key can write these, and cannot make them follow.
    type Change = fn(&mut Closure);
    let forged: [(&str, Change); 3] = [
        ("less was sold", |day| day.totals[0].approved_offline.minor = 600),
        ("less was ever sold", |day| {
            day.running[0].approved_offline.minor = 2_600
        }),
        ("on another day", |day| day.name = "2026-12-31".to_owned()),
    ];
    for (what, change) in forged {
        let mut entries = entries.clone();
        change(last_closure(&mut entries));
        let hub = hub_that_says(&entries);
        let entry = entries.len();
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
    let entries = two_days();
    let hub = hub_that_says(&entries);
    let (keys, last) = (hub.file("days.jsonl"), entries.len().to_string());
    let said = hub.hubctl(&["ledger", "disclose", "--from", &last, path(&keys)]);
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
    assert!(said.stdout.contains("not known"), "{said:?}");
    assert!(said.stdout.contains("--vault-key"), "{said:?}");
    let said = hub.hubctl(&["ledger", "closures", "--json"]).json();
    assert_ne!(said["unread"], 0, "{said}");
    // Where the ledger does not verify nothing is said of what is behind.
    let segment = hub.file("ledger/00000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let said = hub.hubctl(&["ledger", "closures"]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stdout.contains("not known"), "{said:?}");
}

#[test]
fn a_running_hub_writes_down_that_entries_were_disclosed() {
    let hub = Hub::init(&[]);
    let running = Running::start(&hub);
    let out = hub.file("disclosed.jsonl");
    let said = hub.hubctl(&["ledger", "disclose", "--all", "--json", path(&out)]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["recorded"], true);
    // It is not passed by for want of its socket.
    let hidden = hub.file("hidden.jsonl");
    let nowhere = hub.file("nowhere.sock");
    let said = hub.hubctl(&[
        "--socket",
        path(&nowhere),
        "ledger",
        "disclose",
        "--all",
        path(&hidden),
    ]);
    assert_eq!(said.code, 69, "{said:?}");
    assert!(said.stderr.contains("name its --socket"), "{said:?}");
    assert!(!hidden.exists());
    running.terminate();
    let acted = || hub.hubctl(&["ledger", "verify", "--json"]).json()["kinds"]["operator-acted"].clone();
    assert_eq!(acted(), 1);
    // Nobody is there to write it down: the next start does.
    let again = hub.file("again.jsonl");
    let said = hub.hubctl(&["ledger", "disclose", "--all", "--json", path(&again)]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(
        (&said.json()["recorded"], &said.json()["noted"]),
        (&false.into(), &true.into())
    );
    assert_eq!(acted(), 1);
    let notes = hub.file("exports.notes");
    assert!(notes.exists());
    for _ in 0..2 {
        let running = Running::start(&hub);
        for _ in 0..3_000 {
            if !notes.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        running.terminate();
        assert_eq!(acted(), 2, "once");
    }
    assert!(!notes.exists());
}
