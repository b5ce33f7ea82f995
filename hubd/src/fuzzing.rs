//! Decoders that nobody outside calls, for `tests/fuzz` alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // to end is what a fuzzer looks for

use std::path::Path;

pub use crate::devices::fuzz as device_seen;
pub use crate::upstream::fuzz as gateway_answer;

/// A line on the operator's socket.
pub fn admin_request(bytes: &[u8]) {
    let _ = serde_json::from_slice::<crate::admin::protocol::Request>(bytes);
}

/// A table of payments or records, written to `path` and read through.
pub fn table(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap();
    crate::ledger::fuzz_table(path);
}
