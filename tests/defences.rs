//! The list of defences against the table of threats and the sources. What
//! comes of taking them away, the program of the same name finds out.

use std::path::Path;

use hub_tests::defences;

#[test]
fn every_defence_finds_its_text_once_and_every_row_has_one_or_says_why_not() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let wrong = defences::faults(&project).unwrap();
    assert!(wrong.is_empty(), "tests/defences/defences.toml: {wrong:#?}");
}
