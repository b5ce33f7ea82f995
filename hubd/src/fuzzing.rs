//! Decoders that nobody outside calls, for `tests/fuzz` alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // to end is what a fuzzer looks for

use std::collections::BTreeMap;
use std::path::Path;

use hub_protocol::{DataKey, DeviceList, EntryKey};

use crate::ctl::decoders;
pub use crate::devices::fuzz as device_seen;
pub use crate::devices::fuzz_certificate as certificate_key;
pub use crate::ledger::fuzz_restore as restore;
pub use crate::upstream::fuzz as gateway_answer;
pub use crate::upstream::iso8583::Reader as AcquirerAnswers;

/// A line on the operator's socket.
pub fn admin_request(bytes: &[u8]) {
    let _ = serde_json::from_slice::<crate::admin::protocol::Request>(bytes);
}

/// A table of payments or records, in clear or under this key, written to
/// `path` and read through.
pub fn table(path: &Path, bytes: &[u8], key: Option<&DataKey>) {
    std::fs::write(path, bytes).unwrap();
    crate::ledger::fuzz_table(path, key);
}

/// The end of a certificate, as `hubctl doctor` tells it.
pub fn certificate_end(bytes: &[u8]) {
    decoders::fuzz_certificate(bytes);
}

/// A list of devices as headquarters writes it.
pub fn device_list(text: &[u8]) -> Option<DeviceList> {
    decoders::written(text).ok()
}

/// What `hubctl ledger disclose` has written, by sequence.
pub fn disclosed(bytes: &[u8]) -> Option<BTreeMap<u64, EntryKey>> {
    decoders::keys_in(bytes)
}
