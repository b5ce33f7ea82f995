//! Committed files: compared with what the code makes, or written anew.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn updating() -> bool {
    std::env::var_os("UPDATE_VECTORS").is_some_and(|value| value == "1")
}

fn vectors(name: &str) -> PathBuf {
    repository().join("protocol/vectors").join(name)
}

/// Holds the committed file `protocol/vectors/{name}` to `made`.
pub(crate) fn hold<T: Serialize>(name: &str, made: &T) {
    let text = serde_json::to_string_pretty(made).unwrap() + "\n";
    hold_text(&vectors(name), &text);
}

/// Holds a committed file to `made`.
pub(crate) fn hold_text(path: &std::path::Path, made: &str) {
    if updating() {
        std::fs::write(path, made).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    if committed != made {
        let line = committed.lines().zip(made.lines()).position(|(a, b)| a != b);
        panic!(
            "{} differs from what the code makes, first at line {}. If the change is meant, it is a \
             change of the protocol: run with UPDATE_VECTORS=1 and say so in docs/protocol.md",
            path.display(),
            line.map_or("the end".into(), |n| (n + 1).to_string()),
        );
    }
}

/// Reads the committed file `protocol/vectors/{name}`.
pub(crate) fn committed<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(vectors(name)).unwrap()).unwrap()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}
