//! docs/policy.md names every key that a policy can have, and no other.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

const SAMPLE: &str = include_str!("../../../config/policies/everything.toml");
const DOC: &str = include_str!("../../../docs/policy.md");

fn keys(table: &toml::Table, prefix: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        match value {
            toml::Value::Table(inner) => keys(inner, &path, found),
            toml::Value::Array(items) if items.iter().all(toml::Value::is_table) => {
                for item in items.iter().filter_map(toml::Value::as_table) {
                    keys(item, &path, found);
                }
            }
            _ => {
                found.insert(path);
            }
        }
    }
}

#[test]
fn the_policy_reference_names_every_key_and_no_other() {
    let mut in_sample = BTreeSet::new();
    keys(&SAMPLE.parse().unwrap(), "", &mut in_sample);
    let documented: BTreeSet<String> = DOC
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(key, _)| key.to_owned())
        .flat_map(|key| match key.strip_prefix("replay.scheme.visa.") {
            // The page says so of the schemes; the sample has two. What only one of
            // them is known to use stands under its own name.
            Some(rest) => ["visa", "mastercard"]
                .map(|scheme| format!("replay.scheme.{scheme}.{rest}"))
                .to_vec(),
            None => vec![key],
        })
        .flat_map(|key| match key.strip_prefix("class.mpos.") {
            // The page says that the other classes have the same keys.
            Some(rest) => ["mpos", "softpos", "terminal"]
                .map(|class| format!("class.{class}.{rest}"))
                .to_vec(),
            None => vec![key],
        })
        .collect();
    assert_eq!(documented, in_sample);
}

#[test]
fn every_documented_key_is_read_by_the_parser() {
    // A key that the parser does not read would be a fault of the sample; a
    // key that it reads and the sample lacks shows in the list of known keys.
    let broken = SAMPLE
        .replace("[offline]\n", "[offline]\nx = 1\n")
        .replace("[store]\n", "[store]\nx = 1\n")
        .replace("[class.mpos]", "[class.x]\n[class.mpos]\nx = 1 #")
        .replace("[card]\n", "[card]\nx = 1\n")
        .replace("[staff] ", "[staff]\nx = 1 #")
        .replace("[override] ", "[override]\nx = 1 #")
        .replace("[[override.supervisor]]\n", "[[override.supervisor]]\nx = 1\n")
        .replacen("[[card.exception]]", "[[card.exception]]\nx = 1 #", 1)
        .replacen("[[model]]\n", "[[model]]\nx = 1\n", 1)
        .replace("[attestation] ", "[attestation]\nx = 1 #")
        .replace("[[attestation.verifier]]\n", "[[attestation.verifier]]\nx = 1\n")
        .replacen("[[ceiling]]\n", "[[ceiling]]\nx = 1\n", 1)
        .replace("[moving]\n", "[moving]\nx = 1\n")
        .replacen("[[moving.outage]]\n", "[[moving.outage]]\nx = 1\n", 1)
        .replacen("[[moving.store_used]]\n", "[[moving.store_used]]\nx = 1\n", 1)
        .replace("[hours] ", "[hours]\nx = 1 #")
        .replace("[anomaly.outside_hours] ", "[anomaly.outside_hours]\nx = 1 #")
        .replace("[profile]\n", "[profile]\nx = 1\n")
        .replace("[anomaly]\n", "[anomaly]\nx = 1\n")
        .replace("[anomaly.device] ", "[anomaly.device]\nx = 1 #")
        .replace("[anomaly.equal_amounts] ", "[anomaly.equal_amounts]\nx = 1 #")
        .replace("[anomaly.ceiling_split] ", "[anomaly.ceiling_split]\nx = 1 #")
        .replace("[anomaly.card_at_devices] ", "[anomaly.card_at_devices]\nx = 1 #")
        .replace("[anomaly.card_testing] ", "[anomaly.card_testing]\nx = 1 #")
        .replace("[anomaly.sequence_reused] ", "[anomaly.sequence_reused]\nx = 1 #")
        .replace("[anomaly.sequence_gap] ", "[anomaly.sequence_gap]\nx = 1 #")
        .replace("[anomaly.clock_skew] ", "[anomaly.clock_skew]\nx = 1 #")
        .replace("[anomaly.arrival_rate] ", "[anomaly.arrival_rate]\nx = 1 #")
        .replace("[anomaly.unusual_amount] ", "[anomaly.unusual_amount]\nx = 1 #")
        .replace("[anomaly.bad_signatures] ", "[anomaly.bad_signatures]\nx = 1 #")
        .replace("[anomaly.refunds] ", "[anomaly.refunds]\nx = 1 #")
        .replace("[score]\n", "[score]\nx = 1\n")
        .replace(
            "[score.amount_above_usual] ",
            "[score.amount_above_usual]\nx = 1 #",
        )
        .replace("[score.new_card] ", "[score.new_card]\nx = 1 #")
        .replace("[score.foreign_card] ", "[score.foreign_card]\nx = 1 #")
        .replace("[score.no_chip] ", "[score.no_chip]\nx = 1 #")
        .replace("[score.card_lately] ", "[score.card_lately]\nx = 1 #")
        .replace("[score.unusual_hour] ", "[score.unusual_hour]\nx = 1 #")
        .replace("[score.device_odd] ", "[score.device_odd]\nx = 1 #")
        .replace("[allowance] ", "[allowance]\nx = 1 #")
        .replace("[replay]", "[replay]\nx = 1 #")
        .replace(
            "[replay.scheme.mastercard]\n",
            "[replay.scheme.mastercard]\nx = 1\n",
        )
        .replace("code = \"02\"\n", "x = 1\ncode = \"02\"\n")
        .replace("format = 1\n", "format = 1\nx = 1\n");
    let faults = hub_core::policy::Policy::parse(broken.as_bytes()).unwrap_err();
    assert_eq!(faults.len(), 45, "{faults:?}");
    let mut in_sample = BTreeSet::new();
    keys(&SAMPLE.parse().unwrap(), "", &mut in_sample);
    for fault in &faults {
        let (unknown, known) = fault
            .message
            .split_once(" is not a known key; known here: ")
            .unwrap();
        let prefix = unknown.strip_suffix('x').unwrap();
        for key in known.split(", ") {
            let path = format!("{prefix}{key}");
            assert!(
                in_sample
                    .iter()
                    .any(|k| *k == path || k.starts_with(&format!("{path}."))),
                "{path}"
            );
        }
    }
}

#[test]
fn every_sample_policy_is_good() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/policies");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let found = hub_core::policy::Policy::parse(&std::fs::read(&path).unwrap());
        assert!(found.is_ok(), "{}: {found:?}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 4);
}
