//! The page for the wall says whatever a policy says, but for a short list.

use std::collections::BTreeMap;

use hub_core::policy::Policy;

use super::super::show::Language;
use super::explain::{explained, moving};
use super::wall;
use crate::rehearsal::highest::{self, Stage};

const EVERYTHING: &str = include_str!("../../../../config/policies/everything.toml");
const DOC: &str = include_str!("../../../../docs/policy.md");

/// What is not on the page: keys, or tables whole. docs/policy.md names them.
const NOT_ON_THE_PAGE: [&str; 19] = [
    "format",
    "card.exception.token",
    "card.exception.until",
    "override.supervisor.key",
    "attestation.verifier.key",
    "profile",
    "replay",
    "anomaly.equal_amounts",
    "anomaly.ceiling_split",
    "anomaly.card_at_devices",
    "anomaly.card_testing",
    "anomaly.sequence_reused",
    "anomaly.sequence_gap",
    "anomaly.clock_skew",
    "anomaly.outside_hours",
    "anomaly.arrival_rate",
    "anomaly.unusual_amount",
    "anomaly.bad_signatures",
    "anomaly.refunds",
];

/// Both languages; without the tables that have to be found by asking the
/// core, or with them.
fn page(policy: &Policy, with_tables: bool) -> String {
    let beginning = Stage::beginning(policy);
    let (rows, moved) = match with_tables {
        true => (highest::rows(policy, beginning), moving(policy, beginning)),
        false => (Vec::new(), Vec::new()),
    };
    let explained = explained(policy, beginning, &rows, moved);
    [Language::French, Language::English]
        .map(|language| wall::text(policy, &explained, &rows, language))
        .join("\n")
}

/// Values of the same kind that may stand instead.
fn others(value: &str) -> Vec<String> {
    let texts = [
        "x",
        "chip",
        "contactless",
        "mpos",
        "softpos",
        "terminal",
        "none",
        "signature",
        "offline-pin",
        "credit",
        "debit",
        "domestic",
        "foreign",
        "card-approved",
        "asks-online",
        "pts",
        "mpoc",
        "14.1",
        "CHF",
        "UTC0",
        "BE",
        "08:30-20:00",
        "497011",
    ]
    .map(|text| format!("\"{text}\""));
    if let Ok(number) = value.parse::<u64>() {
        let near = [number / 2, number * 2, number + 1, number.saturating_sub(1), 1, 0];
        return near.map(|number| number.to_string()).to_vec();
    }
    match value {
        "true" => vec!["false".to_owned()],
        "false" => vec!["true".to_owned()],
        text if text.starts_with('"') => texts.to_vec(),
        list if list.starts_with('[') => {
            let inner = list.trim_matches(['[', ']']);
            let shorter = inner.rsplit_once(", ").map(|(rest, _)| format!("[{rest}]"));
            shorter
                .into_iter()
                .chain(texts.iter().map(|text| format!("[{text}]")))
                .collect()
        }
        instant => ["-31T", "-30T", "-01T", "-02T"]
            .map(|day| instant.replacen("-31T", day, 1).replacen("-01T", day, 1))
            .to_vec(),
    }
}

/// Every key of the sample with everything: the lines that it stands on, and
/// what stands there.
fn keys() -> BTreeMap<String, Vec<(usize, String)>> {
    let mut section = String::new();
    let mut found: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
    for (at, line) in EVERYTHING.lines().enumerate() {
        let said = line.split(" #").next().unwrap_or_default().trim();
        if said.starts_with('#') || said.is_empty() {
            continue;
        }
        match said.split_once(" = ") {
            Some((key, value)) => {
                let path = format!("{section}{key}");
                found.entry(path).or_default().push((at, value.trim().to_owned()));
            }
            None => section = format!("{}.", said.trim_matches(['[', ']'])),
        }
    }
    found
}

fn with_line(at: usize, line: &str) -> Option<Policy> {
    let mut lines: Vec<&str> = EVERYTHING.lines().collect();
    lines[at] = line;
    Policy::parse(lines.join("\n").as_bytes()).ok()
}

fn is_left_out(key: &str) -> bool {
    NOT_ON_THE_PAGE
        .iter()
        .any(|name| key == *name || key.starts_with(&format!("{name}.")))
}

#[test]
fn every_key_of_a_policy_changes_the_page_unless_it_is_said_to_be_left_out() {
    let policy = Policy::parse(EVERYTHING.as_bytes()).unwrap();
    let [short, whole] = [false, true].map(|with_tables| page(&policy, with_tables));
    let keys = keys();
    assert!(keys.len() > 150, "{}", keys.len());
    let mut unsaid = Vec::new();
    for (key, places) in &keys {
        if is_left_out(key) {
            continue;
        }
        let last = key.rsplit('.').next().unwrap_or(key);
        let mut policies = places
            .iter()
            .flat_map(|(at, value)| others(value).into_iter().map(move |other| (*at, other)))
            .filter_map(|(at, other)| with_line(at, &format!("{last} = {other}")));
        let says = policies.any(|other| page(&other, false) != short || page(&other, true) != whole);
        if !says {
            unsaid.push(key);
        }
    }
    assert!(
        unsaid.is_empty(),
        "not on the page, and not said to be left out: {unsaid:?}"
    );
}

#[test]
fn what_is_left_out_of_the_page_is_there_and_documented() {
    let keys = keys();
    let (_, said) = DOC.split_once("Not on the page:").unwrap();
    let (said, _) = said.split_once("\n\n").unwrap();
    for name in NOT_ON_THE_PAGE {
        assert!(
            keys.keys()
                .any(|key| *key == name || key.starts_with(&format!("{name}."))),
            "{name} is no key"
        );
        assert!(said.contains(&format!("`{name}`")), "{name} in {said}");
    }
}
