//! hubd.toml.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

use hubd::config::Config;

static HUB: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir_in("/dev/shm").unwrap());

fuzz_target!(|text: &str| {
    let file: PathBuf = HUB.path().join("hubd.toml");
    std::fs::write(&file, text).unwrap();
    if let Err(faults) = Config::load(HUB.path()) {
        assert!(!faults.is_empty(), "refused without a word");
    }
});
