//! The Python with the peers that are not by our hand.

use std::process::{Command, Stdio};

/// A Python with these modules, or the one line that says to whoever runs
/// `test` that there is none. In CI nothing is skipped.
#[allow(clippy::print_stdout)] // the line is for whoever runs the tests
pub fn python(test: &str, modules: &str) -> Option<String> {
    let python = std::env::var("HUB_PEER_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut probe = Command::new(&python);
    probe
        .args(["-c", &format!("import {modules}")])
        .stderr(Stdio::null());
    if probe.status().is_ok_and(|status| status.success()) {
        return Some(python);
    }
    let why = format!("{python} has not all of {modules}; `.ci/run peers` makes one that has");
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "{test}: {why}, and in CI nothing is skipped");
    println!("skipped: {test}: {why}");
    None
}
