//! `docs/dependencies.md` against `Cargo.toml`.

use std::collections::{BTreeMap, BTreeSet};

fn root(name: &str) -> String {
    let path = format!("{}/../{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Name → the line's cells, of every line `| name | licence | reason |`.
fn listed() -> BTreeMap<String, (String, String)> {
    root("docs/dependencies.md")
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            let name = cells.next()?.trim_end_matches('`').to_owned();
            let licence = cells.next()?.to_owned();
            let reason = cells.next()?.trim_end_matches(" |").to_owned();
            Some((name, (licence, reason)))
        })
        .collect()
}

#[test]
fn every_direct_dependency_has_its_reason_and_licence_and_no_other_is_listed() {
    let manifest: toml::Table = root("Cargo.toml").parse().unwrap();
    let declared: BTreeSet<String> = manifest["workspace"]["dependencies"]
        .as_table()
        .unwrap()
        .iter()
        .filter(|(_, value)| value.get("path").is_none())
        .map(|(name, _)| name.clone())
        .collect();
    let listed = listed();
    assert_eq!(listed.keys().cloned().collect::<BTreeSet<_>>(), declared);
    for (name, (licence, reason)) in listed {
        assert!(
            !licence.trim().is_empty() && reason.len() > 20,
            "{name}: {licence}: {reason}"
        );
    }
}
