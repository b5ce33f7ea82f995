//! docs/in-doubt.md and the twelve failures name only tests that exist.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const DOC: &str = include_str!("../../../docs/in-doubt.md");
const FAILURES: &str = include_str!("twelve_failures.rs");

/// Every test function under these folders.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    for folder in ["hubd/core/tests", "hubd/src", "hubd/tests", "tests"] {
        collect(&root.join(folder), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut lines = text.lines().map(str::trim);
            while let Some(line) = lines.next() {
                if !(line.starts_with("#[test]") || line.starts_with("#[tokio::test")) {
                    continue;
                }
                let name = lines
                    .next()
                    .and_then(|line| line.trim_start_matches("async ").strip_prefix("fn "));
                found.extend(name.and_then(|name| name.split('(').next()).map(str::to_owned));
            }
        }
    }
}

#[test]
fn every_case_in_doubt_has_a_diagram_and_tests_that_exist() {
    let tests = tests();
    let cases: Vec<_> = DOC.split("\n## ").skip(1).collect();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let title = case.lines().next().unwrap();
        assert_eq!(case.matches("sequenceDiagram").count(), 1, "{title}");
        let named: Vec<_> = case
            .lines()
            .filter_map(|line| line.strip_prefix("- Test: `")?.strip_suffix('`'))
            .collect();
        assert!(!named.is_empty(), "{title}");
        for test in named {
            assert!(tests.contains(test), "{title}: no test {test}");
        }
    }
}

#[test]
fn each_of_the_twelve_failures_has_a_test_and_names_only_tests_that_exist() {
    let tests = tests();
    for number in 1..=12 {
        let prefix = format!("failure_{number}_");
        assert!(tests.iter().any(|test| test.starts_with(&prefix)), "{prefix}");
    }
    let named = FAILURES
        .lines()
        .filter_map(|line| line.strip_prefix("/// ")?.split('`').nth(1));
    let mut count = 0;
    for test in named {
        assert!(tests.contains(test), "no test {test}");
        count += 1;
    }
    assert!(count >= 5, "{count}");
}
