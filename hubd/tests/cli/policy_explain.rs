//! `hubctl policy explain`: what it prints is what the core decides.

use std::fs;

use hub_core::decide::{Situation, assess_offline};
use hub_core::policy::Policy;
use hub_protocol::{CardFacts, Decision, Digest, EntryMode, PaymentId, PaymentRequest, Verification};
use serde_json::Value;

use super::{HUBCTL, blocks, path, run, sample};

const SAMPLES: [&str; 3] = ["everything", "event", "france-cautious"];

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("a text expected, not {value}"))
}

fn explained(name: &str) -> Value {
    let said = run(HUBCTL, &["policy", "explain", path(&sample(name)), "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    said.json()
}

/// What the core says to a payment like the one in an object of `payments`.
fn approved(policy: &Policy, payment: &Value, amount: u64, situation: Situation<'_>) -> bool {
    let example = &payment["example"];
    let optional = |value: &Value| value.as_str().map(str::to_owned);
    let request = PaymentRequest {
        payment_id: PaymentId([1; 16]),
        device_sequence: 1,
        amount: amount.into(),
        currency: policy.currency,
        order_id: "order".to_owned(),
        card: CardFacts {
            token: "tok-1".to_owned(),
            scheme: text(&example["scheme"]).parse().unwrap(),
            funding: text(&example["funding"]).parse().unwrap(),
            issuer_country: optional(&example["issuer_country"]),
            bin: optional(&example["bin"]),
            last4: None,
        },
        entry_mode: text(&payment["entry_mode"]).parse().unwrap(),
        verification: text(&payment["verification"]).parse().unwrap(),
        cryptogram: text(&example["cryptogram"]).parse().unwrap(),
        sealed_card_digest: Digest::ZERO,
        device_time_ms: 0,
        terms: None,
    };
    assess_offline(&request, &situation).record.decision == Decision::ApprovedOffline
}

/// A phone alone has neither a slot nor a head for the stripe.
fn has_no_slot_for(payment: &Value) -> bool {
    payment["class"] == "softpos" && ["chip", "magnetic-stripe"].contains(&text(&payment["entry_mode"]))
}

/// A file with the cautious policy, changed.
fn changed(changes: &[(&str, &str)], more: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("changed.toml");
    let mut policy = fs::read_to_string(sample("france-cautious")).unwrap();
    for (from, to) in changes {
        assert!(policy.contains(from), "{from}");
        policy = policy.replacen(from, to, 1);
    }
    fs::write(&file, format!("{policy}\n{more}")).unwrap();
    (folder, file)
}

#[test]
fn every_way_of_paying_that_the_core_permits_is_on_the_page() {
    let stripe = "[[ceiling]]\nentry_mode = \"magnetic-stripe\"\nverification = \"none\"\namount = 15000\n\
                  [[ceiling]]\nentry_mode = \"magnetic-stripe\"\nverification = \"signature\"\namount = 100\n";
    let (_folder, file) = changed(
        &[("[\"chip\", \"contactless\"]", "[\"magnetic-stripe\", \"keyed\"]")],
        stripe,
    );
    for file in SAMPLES.map(sample).into_iter().chain([file]) {
        let policy = Policy::parse(&fs::read(&file).unwrap()).unwrap();
        let json = run(HUBCTL, &["policy", "explain", path(&file), "--json"]).json();
        let payments = json["payments"].as_array().unwrap();
        let mut found = 0;
        for class in policy.classes.keys() {
            for (mode, verification) in EntryMode::ALL
                .iter()
                .flat_map(|mode| Verification::ALL.iter().map(move |by| (mode.name(), by.name())))
            {
                let mut asked = payments[0].clone();
                asked["class"] = class.name().into();
                asked["entry_mode"] = mode.into();
                asked["verification"] = verification.into();
                let mut fresh = Situation::fresh(&policy, *class);
                fresh.now_ms = json["at_ms"].as_u64().unwrap();
                if has_no_slot_for(&asked) || !approved(&policy, &asked, 1, fresh) {
                    continue;
                }
                found += 1;
                let listed = payments.iter().any(|payment| {
                    ["class", "entry_mode", "verification"]
                        .iter()
                        .all(|name| payment[*name] == asked[*name])
                        && !payment["highest_minor"].is_null()
                });
                assert!(listed, "{asked} of {}", file.display());
            }
        }
        assert!(found >= 8, "{found} of {}", file.display());
        if file.ends_with("changed.toml") {
            let said = run(HUBCTL, &["policy", "explain", path(&file)]).stdout;
            let row = said
                .lines()
                .find(|line| line.contains("Magnetic stripe, without PIN"))
                .unwrap();
            assert!(row.contains("┆ 150.00 EUR"), "{row}");
        }
    }
}

#[test]
fn ways_with_the_same_amounts_share_a_row_so_that_the_page_stays_readable() {
    for name in SAMPLES.iter().chain(&["france-watchful"]) {
        let said = run(HUBCTL, &["policy", "explain", path(&sample(name))]).stdout;
        let (_, english) = said.split_once("HIGHEST AMOUNT").unwrap();
        let (table, _) = english.split_once('└').unwrap();
        let rows = table.lines().filter(|line| line.starts_with('│')).count() - 1;
        assert!((4..=13).contains(&rows), "{name}: {rows} rows\n{table}");
    }
}

#[test]
fn a_phone_alone_takes_no_card_that_has_to_be_inserted_or_swiped() {
    let everything = explained("everything");
    let slots: Vec<&Value> = everything["payments"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|payment| has_no_slot_for(payment))
        .collect();
    assert!(slots.len() >= 8, "{slots:?}");
    assert!(slots.iter().all(|payment| payment["highest_minor"].is_null()));
}

#[test]
fn the_period_is_by_the_shops_own_clock_where_the_policy_knows_it() {
    let (_folder, file) = changed(
        &[("2027-12-31T00:00:00Z", "2027-07-31T00:00:00Z")],
        "[hours]\ntime_zone = \"CET-1CEST,M3.5.0,M10.5.0/3\"\nmonday = [\"08:00-20:00\"]\n",
    );
    let said = run(HUBCTL, &["policy", "explain", path(&file)]).stdout;
    assert!(
        said.contains("Valable du 01/01/2026 à 01:00 CET au 31/07/2027 à 02:00 CEST (heure du magasin)."),
        "{said}"
    );
    assert!(
        said.contains("from 01 January 2026, 01:00 CET until 31 July 2027, 02:00 CEST (the shop's time)."),
        "{said}"
    );
}

#[test]
fn every_printed_amount_is_approved_and_a_cent_more_is_not() {
    for name in SAMPLES {
        let policy = Policy::parse(&fs::read(sample(name)).unwrap()).unwrap();
        let json = explained(name);
        let payments = json["payments"].as_array().unwrap();
        let mut permitted = 0;
        for payment in payments {
            let mut fresh = Situation::fresh(&policy, text(&payment["class"]).parse().unwrap());
            fresh.now_ms = json["at_ms"].as_u64().unwrap();
            match payment["highest_minor"].as_u64() {
                Some(highest) => {
                    permitted += 1;
                    assert!(approved(&policy, payment, highest, fresh), "{name}: {payment}");
                    assert!(
                        !approved(&policy, payment, highest + 1, fresh),
                        "{name}: {payment}"
                    );
                }
                None => assert!(
                    has_no_slot_for(payment) || !approved(&policy, payment, 1, fresh),
                    "{name}: {payment}"
                ),
            }
        }
        assert!(permitted >= 9, "{name}: {permitted} of {}", payments.len());
    }
}

#[test]
fn every_class_and_way_of_the_samples_has_its_amount_on_both_pages() {
    for name in SAMPLES {
        let said = run(HUBCTL, &["policy", "explain", path(&sample(name))]);
        assert_eq!(said.code, 0, "{said:?}");
        let (french, english) = said.stdout.split_once("PAYMENTS WITHOUT THE NETWORK").unwrap();
        assert!(french.starts_with("PAIEMENTS SANS RÉSEAU"), "{french}");
        for payment in explained(name)["payments"].as_array().unwrap() {
            if let Some(minor) = payment["highest_minor"].as_u64() {
                let amount = |separator| format!(" {}{separator}{:02} EUR ", minor / 100, minor % 100);
                assert!(french.contains(&amount(',')), "{payment} in\n{french}");
                assert!(english.contains(&amount('.')), "{payment} in\n{english}");
            }
        }
    }
}

#[test]
fn what_moves_with_the_outage_is_what_the_core_decides_then() {
    let policy = Policy::parse(&fs::read(sample("everything")).unwrap()).unwrap();
    let json = explained("everything");
    let payments = json["payments"].as_array().unwrap();
    let steps = json["moving"].as_array().unwrap();
    assert_eq!(steps.len(), 3);
    for step in steps {
        for class in step["classes"].as_array().unwrap() {
            let highest = class["with_pin_minor"].as_u64().unwrap();
            let verified = payments.iter().filter(|payment| {
                payment["class"] == class["class"]
                    && ["offline-pin", "cdcvm"].contains(&text(&payment["verification"]))
            });
            let any_approved = |amount| {
                verified.clone().any(|payment| {
                    let mut situation = Situation::fresh(&policy, text(&class["class"]).parse().unwrap());
                    situation.now_ms = json["at_ms"].as_u64().unwrap();
                    situation.offline_ms = step["from_minutes"].as_u64().unwrap_or(0) * 60_000;
                    situation.store.exposure_minor = step["from_store_minor"].as_u64().unwrap_or(0);
                    approved(&policy, payment, amount, situation)
                })
            };
            assert!(any_approved(highest), "{step}");
            assert!(!any_approved(highest + 1), "{step}");
        }
    }
    assert_eq!(
        steps[2]["from_store_minor"], 210_000,
        "70 percent of the store's ceiling"
    );
}

#[test]
fn a_policy_that_allows_nothing_says_so_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("nothing.toml");
    let text = fs::read_to_string(sample("event")).unwrap();
    fs::write(&file, text.replace("enabled = true", "enabled = false")).unwrap();
    let said = run(HUBCTL, &["policy", "explain", path(&file)]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.stdout.contains("Aucun paiement n'est accepté sans réseau.")
            && said
                .stdout
                .contains("No payment is accepted without the network."),
        "{said:?}"
    );
    assert!(!said.stdout.contains("EUR"), "{said:?}");
    let json = run(HUBCTL, &["policy", "explain", path(&file), "--json"]).json();
    assert_eq!(json["offline"], false);
    let amounts = json["payments"].as_array().unwrap().iter();
    assert!(
        amounts
            .map(|payment| &payment["highest_minor"])
            .all(Value::is_null),
        "{json}"
    );
}

#[test]
fn a_class_that_is_not_named_may_not_sell() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("no-softpos.toml");
    let text = fs::read_to_string(sample("event")).unwrap();
    let (before, rest) = text.split_once("[class.softpos]").unwrap();
    let (_, after) = rest.split_once("[class.terminal]").unwrap();
    fs::write(&file, format!("{before}[class.terminal]{after}")).unwrap();
    let said = run(HUBCTL, &["policy", "explain", path(&file)]);
    assert_eq!(said.code, 0, "{said:?}");
    let row = said
        .stdout
        .lines()
        .find(|line| line.contains("│ Card inserted, with or without PIN"))
        .unwrap();
    let cells: Vec<&str> = row.split('┆').map(|cell| cell.trim_matches(['│', ' '])).collect();
    assert_eq!(cells[1..], ["200.00 EUR", "no", "250.00 EUR"], "{row}");
}

#[test]
fn a_policy_with_faults_is_not_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bad.toml");
    fs::write(&file, "format = 1\n").unwrap();
    let said = run(HUBCTL, &["policy", "explain", path(&file)]);
    assert_eq!(said.code, 65, "{said:?}");
    assert!(said.stderr.contains("bad.toml:1: tenant is missing"), "{said:?}");
}

#[test]
fn the_documented_page_is_what_is_printed() {
    let [expected] = blocks("policy.md", "explain").try_into().unwrap();
    let said = run(HUBCTL, &["policy", "explain", path(&sample("france-cautious"))]);
    assert_eq!(said.stdout, expected);
}

#[test]
fn a_class_without_a_certified_model_may_not_sell_and_a_pin_only_where_it_may_be_entered() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.toml");
    let text = fs::read_to_string(sample("france-cautious")).unwrap();
    let model =
        "[[model]]\nclass = \"softpos\"\nvendor = \"Acme\"\nmodel = \"Tap 3\"\ncertification = [\"cpoc\"]\n";
    fs::write(&file, format!("{text}\n{model}")).unwrap();
    let said = run(HUBCTL, &["policy", "explain", path(&file), "--json"]);
    assert_eq!(said.code, 0, "{said:?}");
    let explained = said.json();
    let payments = explained["payments"].as_array().unwrap();
    let highest = |class: &str, verification: &str| {
        let of = payments
            .iter()
            .filter(|payment| payment["class"] == class && payment["verification"] == verification);
        of.filter_map(|payment| payment["highest_minor"].as_u64()).max()
    };
    assert_eq!(highest("mpos", "offline-pin"), None);
    assert_eq!(highest("softpos", "offline-pin"), None);
    assert_eq!(highest("softpos", "cdcvm"), Some(5_000));
}

#[test]
fn a_policy_that_takes_no_card_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("none.toml");
    let text = fs::read_to_string(sample("france-cautious")).unwrap();
    let none = "[card]\nbins_allowed = [\"497010\"]\nbins_denied = [\"497010\"]";
    fs::write(&file, text.replace("[card]", none)).unwrap();
    let said = run(HUBCTL, &["policy", "explain", path(&file)]);
    assert!(said.stdout.contains("Aucune carte n'est acceptée"), "{said:?}");
    assert!(said.stdout.contains("No card is accepted"), "{said:?}");
}
