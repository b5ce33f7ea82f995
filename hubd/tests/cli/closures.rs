//! `hubctl ledger closures`: what a ledger says of its days is held against
//! the rest of it.

use std::path::Path;
use std::time::Duration;

use hub_protocol::entry::{Entry, Event};
use hub_protocol::{Closure, EntrySeal, cbor};
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{Journal, JournalOptions};

use super::core_shop::{MPOS, POLICY, Shop, request};
use super::running::{Running, loopback};
use super::{HUBCTL, Hub, path, run};

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

/// Starts a hub, and waits until it has written down more than that.
fn at_work(hub: &Hub) -> Running {
    let running = Running::start(hub);
    let written = || hub.hubctl(&["ledger", "verify", "--json"]).json()["last_entry"].as_u64();
    while written() < Some(2) {
        std::thread::sleep(Duration::from_millis(50));
    }
    running
}

#[test]
fn a_running_hub_writes_down_that_entries_were_disclosed() {
    let hub = loopback();
    let running = at_work(&hub);
    let out = hub.file("disclosed.jsonl");
    let said = hub.hubctl(&["ledger", "disclose", "--all", "--json", path(&out)]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["recorded"], true);
    running.terminate();
    let verified = hub.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["kinds"]["operator-acted"], 1, "{verified}");
    // Nobody is there to write it down: the next start does.
    let again = hub.file("again.jsonl");
    let said = hub.hubctl(&["ledger", "disclose", "--all", "--json", path(&again)]);
    assert_eq!(said.code, 0, "{said:?}");
    let said = said.json();
    assert_eq!((&said["recorded"], &said["noted"]), (&false.into(), &true.into()));
    let notes = hub.file("exports.noted");
    let noted = std::fs::read_to_string(&notes).unwrap();
    let text = "ledger disclose: the keys of ";
    assert!(noted.contains(text) && noted.contains("uid "), "{noted}");
    let running = Running::start(&hub);
    gone(&notes);
    running.terminate();
    // And once.
    Running::start(&hub).terminate();
    let verified = hub.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["kinds"]["operator-acted"], 2, "{verified}");
}

/// Until the hub has written down what was noted.
fn gone(notes: &Path) {
    for _ in 0..600 {
        if !notes.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the notes are not written down");
}

#[test]
fn nothing_is_disclosed_beside_a_running_hub_that_cannot_be_told() {
    let hub = loopback();
    let other = loopback();
    let running = (at_work(&hub), at_work(&other));
    let (out, nowhere) = (hub.file("disclosed.jsonl"), hub.file("none.sock"));
    let ledger = hub.file("ledger");
    let (public, vault) = (hub.file("hub-signing.pub"), hub.file("keys/hub-vault.key"));
    let disclose = ["ledger", "disclose", "--all", path(&out)];
    let tries = [
        hub.hubctl(&[&["--socket", path(&nowhere)], &disclose[..]].concat()),
        // Its ledger alone, as if it were a copy.
        run(
            HUBCTL,
            &[
                &["--dir", path(&ledger)],
                &disclose[..],
                &["--key", path(&public), "--vault-key", path(&vault)],
            ]
            .concat(),
        ),
    ];
    for said in tries {
        assert_eq!(said.code, 69, "{said:?}");
        assert!(
            said.stderr.contains("--socket") && said.stderr.contains("stop hubd"),
            "{said:?}"
        );
    }
    let socket = Config::admin_socket(&other.dir).unwrap();
    let said = hub.hubctl(&[&["--socket", path(&socket)], &disclose[..]].concat());
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("--socket"), "{said:?}");
    let left = std::fs::read_dir(&hub.dir).unwrap().filter(|item| {
        let name = item.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("disclosed") || name == "exports.noted"
    });
    assert_eq!(left.count(), 0, "neither keys nor a note");
    running.0.terminate();
    running.1.terminate();
    let verified = hub.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(
        verified["kinds"]["operator-acted"],
        serde_json::Value::Null,
        "{verified}"
    );
}

#[test]
fn nothing_is_brought_out_of_which_no_note_can_be_left() {
    let hub = loopback();
    at_work(&hub).terminate();
    std::fs::create_dir(hub.file("exports.noted")).unwrap();
    let out = hub.file("out.jsonl");
    for command in [&["disclose", "--all"][..], &["unsent"]] {
        let said = hub.hubctl(&[&["ledger"], command, &[path(&out)]].concat());
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.stderr.contains("no note"), "{said:?}");
        assert!(!out.exists(), "{command:?}");
    }
}

#[test]
fn what_was_not_sent_is_brought_out_with_an_entry_at_the_next_start() {
    let hub = loopback();
    Running::start(&hub).terminate();
    let out = hub.file("unsent.jsonl");
    let said = hub.hubctl(&["ledger", "unsent", "--json", path(&out)]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.json()["noted"], true);
    let notes = hub.file("exports.noted");
    assert!(std::fs::read_to_string(&notes).unwrap().contains("ledger unsent"));
    let running = Running::start(&hub);
    gone(&notes);
    running.terminate();
    let verified = hub.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(verified["kinds"]["operator-acted"], 1, "{verified}");
}

#[test]
fn a_copy_of_a_ledger_is_read_without_a_trace_also_while_its_hub_runs() {
    let hub = loopback();
    let running = at_work(&hub);
    let elsewhere = tempfile::tempdir().unwrap();
    let copied = elsewhere.path().join("ledger");
    std::fs::create_dir(&copied).unwrap();
    for item in std::fs::read_dir(hub.file("ledger")).unwrap() {
        let item = item.unwrap();
        if item.path().is_file() {
            std::fs::copy(item.path(), copied.join(item.file_name())).unwrap();
        }
    }
    let (public, vault) = (hub.file("hub-signing.pub"), hub.file("keys/hub-vault.key"));
    let out = elsewhere.path().join("keys.jsonl");
    let said = run(
        HUBCTL,
        &[
            "--dir",
            path(&copied),
            "ledger",
            "disclose",
            "--all",
            "--json",
            "--key",
            path(&public),
            "--vault-key",
            path(&vault),
            path(&out),
        ],
    );
    assert_eq!(said.code, 0, "{said:?}");
    let said = said.json();
    assert_eq!(
        (&said["recorded"], &said["noted"]),
        (&false.into(), &false.into())
    );
    running.terminate();
}
