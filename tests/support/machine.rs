//! What a suite needs of the machine: root, programs, devices.

use std::path::Path;
use std::process::{Command, Stdio};

/// What is missing to mount file systems and cut their power, if anything.
pub fn missing_for_power() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, to mount file systems".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices".to_owned());
    }
    missing_programs(&[
        ("mkfs.ext4", "e2fsprogs"),
        ("mkfs.xfs", "xfsprogs"),
        ("xfs_io", "xfsprogs"),
        ("mount", "mount"),
        ("unshare", "util-linux"),
    ])
}

/// What is missing to make a disk fail, if anything.
pub fn missing_for_failing_disk() -> Option<String> {
    missing_programs(&[("cc", "gcc")])
}

/// The first program that is not there, and the Debian package that has it.
pub fn missing_programs(programs: &[(&str, &str)]) -> Option<String> {
    programs
        .iter()
        .find(|(program, _)| !is_there(program))
        .map(|(program, package)| format!("needs {program}, from Debian's {package}"))
}

/// Whether a program can be started. What it says to `-V` does not matter.
fn is_there(program: &str) -> bool {
    Command::new(program)
        .arg("-V")
        .stdin(Stdio::null())
        .output()
        .is_ok()
}

/// Prints the one line and says whether to skip. In CI nothing is skipped.
#[allow(clippy::print_stdout, clippy::panic)] // the line is for whoever runs the tests
pub fn skip(suite: &str, missing: Option<String>) -> bool {
    let Some(why) = missing else { return false };
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "{suite}: {why}, and in CI nothing is skipped");
    println!("skipped: {suite}: {why}");
    true
}
