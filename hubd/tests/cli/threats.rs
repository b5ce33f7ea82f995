//! `docs/threats.md` against the sources.

use std::path::Path;

/// Every name in backquotes in the third column of the table of threats.
fn named(document: &str) -> Vec<String> {
    let (_, section) = document.split_once("## Who wants what").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    rows.flat_map(|row| {
        let cell = row.split(" | ").nth(2).unwrap_or_else(|| panic!("{row}"));
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(
            !names.is_empty() || cell.contains("](#"),
            "a threat without a test: {row}"
        );
        names
    })
    .collect()
}

fn tests_in(dir: &Path, found: &mut String) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                tests_in(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Whether there is a test of this name: a function behind an attribute that
/// makes it one.
fn is_test(name: &str, sources: &str) -> bool {
    let function = format!("fn {name}(");
    sources.match_indices(&function).any(|(at, _)| {
        let before = &sources[at.saturating_sub(120)..at];
        let attribute = before.rsplit("#[").next().unwrap_or_default();
        attribute.starts_with("test]")
            || attribute.starts_with("tokio::test")
            || before.contains("proptest! {")
    })
}

#[test]
fn every_test_that_the_table_of_threats_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(root.join("docs/threats.md")).unwrap();
    let mut sources = String::new();
    tests_in(&root, &mut sources);
    let named = named(&document);
    assert!(named.len() >= 30, "{}", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !is_test(name, &sources)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_fuzz_target_is_in_the_document() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let document = std::fs::read_to_string(root.join("docs/threats.md")).unwrap();
    let (_, table) = document.split_once("<!-- begin fuzz-targets -->").unwrap();
    let (table, _) = table.split_once("<!-- end fuzz-targets -->").unwrap();
    let mut told: Vec<_> = table.lines().filter_map(|row| row.split('`').nth(1)).collect();
    told.sort_unstable();
    let files = std::fs::read_dir(root.join("tests/fuzz/fuzz_targets")).unwrap();
    let names = files.map(|file| {
        file.unwrap()
            .path()
            .file_stem()
            .unwrap()
            .to_string_lossy()
            .into_owned()
    });
    let mut targets: Vec<_> = names.collect();
    targets.sort_unstable();
    assert_eq!(told, targets);
}
