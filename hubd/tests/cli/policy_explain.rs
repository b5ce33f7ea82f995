//! `hubctl policy explain`: what it prints is what the core decides.

use std::fs;

use hub_core::decide::{Situation, assess_offline};
use hub_core::policy::Policy;
use hub_protocol::{CardFacts, Decision, Digest, PaymentId, PaymentRequest};
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
                None => assert!(!approved(&policy, payment, 1, fresh), "{name}: {payment}"),
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
        .find(|line| line.contains("Card inserted, with PIN"))
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
