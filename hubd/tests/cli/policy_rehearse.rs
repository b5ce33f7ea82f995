//! `hubctl policy rehearse` on ledgers that the real core made.

use std::fs;
use std::path::{Path, PathBuf};

use hub_core::policy::Policy;
use hub_core::{Input, OperatorCommand};
use hub_protocol::{Entry, Event, cbor};
use hubd::config::Config;
use hubd::ledger::{Journal, JournalOptions};
use hubd::rehearsal::Rehearsal;
use serde_json::Value;

use super::core_shop::{MPOS, POLICY, SOFTPOS, Shop, approved, declined, no_answer, payment_id, request};
use super::running::{Running, loopback};
use super::{HUBCTL, Hub, Said, blocks, path, run, sample};

/// Before everything that happens here.
const SINCE: &str = "2026-01-01T00:00:00Z";

/// A hub's folder whose ledger is what a shop has on its disk.
struct Past {
    hub: Hub,
}

impl Past {
    fn of(shop: &Shop) -> Self {
        Self::at(Hub::init(&[]), shop)
    }

    fn at(hub: Hub, shop: &Shop) -> Self {
        let config = Config::load(&hub.dir).unwrap();
        let options = JournalOptions {
            segment_bytes: 64 * 1024,
            create: true,
        };
        let (keys, ledger) = (&config.keys, &config.layout.ledger);
        let (mut journal, _) = Journal::open(ledger, keys.hub_id, keys.signing.clone(), options).unwrap();
        for entry in &shop.disk {
            journal.append(std::slice::from_ref(entry)).unwrap();
        }
        Self { hub }
    }

    fn rehearse(&self, policy: &Path, more: &[&str]) -> Said {
        let mut args = vec!["policy", "rehearse", "--policy", path(policy)];
        if !more.contains(&"--since") {
            args.extend(["--since", SINCE]);
        }
        args.extend(more);
        self.hub.hubctl(&args)
    }

    fn report(&self, policy: &Path) -> Value {
        let said = self.rehearse(policy, &["--json"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.json()
    }

    /// The cautious policy with one thing changed.
    fn policy(&self, from: &str, to: &str) -> PathBuf {
        assert!(POLICY.contains(from), "{from}");
        let file = self.hub.file("other.toml");
        fs::write(&file, POLICY.replace(from, to)).unwrap();
        file
    }

    fn newest_segment(&self) -> PathBuf {
        let files = fs::read_dir(self.hub.file("ledger")).unwrap();
        let segments = files.map(|file| file.unwrap().path());
        let segments = segments.filter(|file| file.extension().is_some_and(|ending| ending == "seg"));
        segments.max().unwrap()
    }
}

/// The gateway answers all that is sent, every fifth with a decline.
fn settle(shop: &mut Shop, answered: &mut u64) {
    for _ in 0..200 {
        shop.pass(1_000);
        while !shop.forwards.is_empty() {
            *answered += 1;
            let answer = if answered.is_multiple_of(5) {
                declined()
            } else {
                approved()
            };
            shop.gateway(answer);
        }
    }
}

/// Three outages with limits that bite, voids, declines at replay, payments
/// online, a restart and a clock that jumps.
fn eventful() -> Shop {
    let mut shop = Shop::offline();
    let mut answered = 0;
    let mut number = 0;
    for outage in 0..3 {
        shop.go_offline();
        for at in 0..40_u64 {
            number += 1;
            shop.pass(20_000);
            let device = if at % 3 == 0 { SOFTPOS } else { MPOS };
            let amount = 700 * (at % 16 + 1);
            shop.send(device, &request(number, amount, &format!("card-{}", at % 7)));
            if at == 20 {
                shop.void(MPOS, payment_id(number));
                shop.void(SOFTPOS, payment_id(number - 2));
            }
        }
        if outage == 1 {
            shop.crash();
            // The wall clock alone: the clock is in doubt from now on.
            shop.now.wall_ms += 30 * 60 * 60 * 1000;
            shop.pass(1_000);
        }
        shop.come_back();
        settle(&mut shop, &mut answered);
        for _ in 0..5 {
            number += 1;
            shop.pass(5_000);
            shop.send(MPOS, &request(number, 2_000, "card-online"));
            let answer = if number % 2 == 0 { no_answer() } else { approved() };
            shop.gateway(answer);
        }
        shop.come_back();
        settle(&mut shop, &mut answered);
    }
    shop
}

#[test]
fn the_policy_that_was_in_force_changes_nothing() {
    let shop = eventful();
    let report = Past::of(&shop).report(&sample("france-cautious"));
    assert!(report["decided_offline"].as_u64().unwrap() > 100, "{report}");
    assert!(report["as_they_were"].as_u64().unwrap() > 4, "{report}");
    assert!(report["before"]["declined"].as_u64().unwrap() > 10, "{report}");
    assert!(
        report["before"]["declined_at_replay"].as_u64().unwrap() > 3,
        "{report}"
    );
    assert_eq!(
        (&report["otherwise"], &report["other_reason"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    assert_eq!(report["before"], report["under_policy"]);
}

/// Six payments in one outage; the fourth and the sixth are declined.
fn short_outage() -> Shop {
    let mut shop = Shop::offline();
    for (number, (amount, card)) in [
        (9_000, "a"),
        (3_000, "b"),
        (6_000, "a"),
        (4_000, "a"),
        (8_000, "c"),
        (20_000, "c"),
    ]
    .into_iter()
    .enumerate()
    {
        shop.pass(60_000);
        shop.send(MPOS, &request(number as u64 + 1, amount, card));
    }
    shop.come_back();
    shop.pass(1_000);
    for answer in [approved(), approved(), declined(), approved()] {
        shop.gateway(answer);
        shop.pass(1_000);
    }
    shop
}

#[test]
fn a_stricter_policy_is_counted_payment_by_payment() {
    let past = Past::of(&short_outage());
    let policy = past.policy("transaction_ceiling = 10000", "transaction_ceiling = 7000");
    let report = past.report(&policy);
    // Without the payment of 90,00 there is room for the fourth.
    let before = serde_json::json!({
        "approved_offline": 4, "approved_offline_minor": 26_000, "declined": 2, "fallback": 0,
        "highest_exposure_minor": 26_000, "declined_at_replay": 1, "declined_at_replay_minor": 6_000,
    });
    let under_policy = serde_json::json!({
        "approved_offline": 3, "approved_offline_minor": 13_000, "declined": 3, "fallback": 0,
        "highest_exposure_minor": 13_000, "declined_at_replay": 1, "declined_at_replay_minor": 6_000,
    });
    assert_eq!(report["before"], before);
    assert_eq!(report["under_policy"], under_policy);
    assert_eq!(
        (&report["otherwise"], &report["decided_offline"]),
        (&3.into(), &6.into())
    );
    let reasons = serde_json::json!([
        {"reason": "transaction-ceiling", "before": 1, "under_policy": 3},
        {"reason": "card-ceiling", "before": 1, "under_policy": 0},
    ]);
    assert_eq!(report["reasons"], reasons);
    let first = &report["first_changed"][0];
    assert_eq!(first["payment_id"], payment_id(1).to_string());
    assert_eq!(
        (&first["amount_minor"], &first["class"]),
        (&9_000.into(), &"mpos".into())
    );
    assert_eq!(
        first["before"],
        serde_json::json!({"decision": "approved-offline", "reason": "none"})
    );
    assert_eq!(
        first["under_policy"],
        serde_json::json!({
            "decision": "declined",
            "reason": "transaction-ceiling",
            "rule": "class.mpos.transaction_ceiling",
        })
    );
}

#[test]
fn what_only_the_new_policy_approves_counts_until_the_backlog_is_answered() {
    let mut shop = short_outage();
    // A second outage.
    shop.go_offline();
    shop.pass(60_000);
    shop.send(MPOS, &request(7, 9_900, "d"));
    let past = Past::of(&shop);
    let policy = past.policy("exposure_ceiling = 15000", "exposure_ceiling = 40000");
    let report = past.report(&policy);
    assert_eq!(report["otherwise"], 1, "the fourth: {report}");
    assert_eq!(report["under_policy"]["approved_offline_minor"], 39_900);
    assert_eq!(report["before"]["highest_exposure_minor"], 26_000);
    assert_eq!(
        report["under_policy"]["highest_exposure_minor"], 30_000,
        "not 39 900: {report}"
    );
}

#[test]
fn only_what_happened_since_is_decided_again_and_what_was_at_risk_then_counts() {
    let mut shop = Shop::offline();
    shop.pass(60_000);
    shop.send(MPOS, &request(1, 9_000, "a"));
    shop.pass(60_000);
    let since = jiff::Timestamp::from_millisecond(shop.now.wall_ms.try_into().unwrap()).unwrap();
    shop.send(MPOS, &request(2, 6_000, "a"));
    let past = Past::of(&shop);
    let policy = past.policy("exposure_ceiling = 15000", "exposure_ceiling = 14999");
    let said = past.rehearse(&policy, &["--json", "--since", &since.to_string()]);
    let report = said.json();
    assert_eq!(
        (&report["decided_offline"], &report["otherwise"]),
        (&1.into(), &1.into()),
        "{report}"
    );
    assert_eq!(report["reasons"][0]["reason"], "card-ceiling");
    assert_eq!(report["under_policy"]["highest_exposure_minor"], 9_000);
    let said = past.rehearse(&policy, &["--since", "2027-06-01T00:00:00Z"]);
    assert!(
        said.stdout.contains("the ledger has no entries since 2027-06-01"),
        "{said:?}"
    );
}

#[test]
fn a_policy_is_rehearsed_whatever_it_says_of_its_own_time() {
    let past = Past::of(&short_outage());
    let policy = past.policy(
        "not_before = 2026-01-01T00:00:00Z",
        "not_before = 2027-12-30T00:00:00Z",
    );
    assert_eq!(past.report(&policy)["otherwise"], 0);
}

#[test]
fn a_copied_ledger_is_rehearsed_with_the_hubs_public_key() {
    let past = Past::of(&short_outage());
    let args = |more: &[&str]| {
        let ledger = past.hub.file("ledger");
        let policy = sample("france-cautious");
        let mut args = vec!["policy", "rehearse", "--since", SINCE];
        args.extend(["--dir", path(&ledger), "--policy", path(&policy)]);
        args.extend(more);
        run(HUBCTL, &args)
    };
    let key = past.hub.file("hub-signing.pub");
    assert_eq!(args(&["--hub-key", path(&key)]).code, 0);
    let said = args(&[]);
    assert_eq!(said.code, 2, "{said:?}");
}

#[test]
fn the_last_write_of_a_running_hub_may_be_unfinished_and_nothing_else_be_damaged() {
    let past = Past::of(&short_outage());
    let segment = past.newest_segment();
    let whole = fs::read(&segment).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let mut torn = whole.clone();
    torn[end - 4..].fill(0);
    fs::write(&segment, torn).unwrap();
    let report = past.report(&sample("france-cautious"));
    assert_eq!(report["decided_offline"], 6, "{report}");
    let mut damaged = whole;
    let middle = damaged
        .windows(7)
        .position(|window| window == b"order-3")
        .unwrap();
    damaged[middle] ^= 1;
    fs::write(&segment, damaged).unwrap();
    let said = past.rehearse(&sample("france-cautious"), &["--json"]);
    assert_eq!(said.code, 65, "{said:?}");
    assert_eq!(said.json()["error"]["code"], "unverified");
    assert!(said.stderr.contains("the ledger does not verify"), "{said:?}");
}

#[test]
fn a_hub_that_runs_is_rehearsed_and_goes_on() {
    let past = Past::at(loopback(), &short_outage());
    let running = Running::start(&past.hub);
    for _ in 0..3 {
        let report = past.report(&sample("event"));
        assert_eq!(report["decided_offline"], 6, "{report}");
    }
    assert_eq!(past.hub.hubctl(&["status"]).code, 0);
    running.terminate();
    let entries = past.hub.hubctl(&["ledger", "verify", "--json"]).json();
    assert_eq!(entries["kinds"]["hub-stopped"], 1, "{entries}");
}

#[test]
fn faults_of_the_policy_and_of_the_command_line_are_told() {
    let past = Past::of(&Shop::empty());
    let bad = past.hub.file("bad.toml");
    fs::write(&bad, "format = 1\n").unwrap();
    let said = past.rehearse(&bad, &[]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("bad.toml:1: tenant is missing"), "{said:?}");
    let said = past.rehearse(&sample("event"), &["--since", "lately"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("a time such as \"30d\""), "{said:?}");
}

#[test]
fn payments_of_a_device_whose_enrolment_was_not_seen_stay_as_they_were() {
    let mut shop = short_outage();
    shop.operate(OperatorCommand::Drain);
    shop.input(Input::Tick);
    let policy = POLICY.replace("transaction_ceiling = 10000", "transaction_ceiling = 100");
    let mut rehearsal = Rehearsal::new(Policy::parse(policy.as_bytes()).unwrap(), 0, 10);
    for payload in &shop.disk {
        let entry: Entry = cbor::decode(payload).unwrap();
        if !matches!(entry.event, Event::DeviceEnrolled { .. }) {
            rehearsal.entry(&entry).unwrap();
        }
    }
    let findings = rehearsal.finish();
    assert_eq!((findings.unknown_device, findings.otherwise), (6, 0));
    assert_eq!(findings.before, findings.after);
}

#[test]
fn the_documented_rehearsal_is_what_is_printed() {
    let [expected] = blocks("policy.md", "rehearse").try_into().unwrap();
    let past = Past::of(&short_outage());
    let policy = past.policy("transaction_ceiling = 10000", "transaction_ceiling = 7000");
    let said = past.rehearse(&policy, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(said.stdout, expected, "{}", said.stdout);
}

#[test]
fn a_policy_in_another_currency_or_for_another_shop_is_not_taken_for_this_ones() {
    let past = Past::of(&short_outage());
    let francs = past.policy("currency = \"EUR\"", "currency = \"CHF\"");
    let said = past.rehearse(&francs, &[]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("the policy is in CHF"), "{said:?}");
    let elsewhere = past.policy("stores = [\"*\"]", "stores = [\"paris-2\"]");
    let said = past.rehearse(&elsewhere, &[]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.stdout.contains("the policy is for paris-2"), "{said:?}");
}
