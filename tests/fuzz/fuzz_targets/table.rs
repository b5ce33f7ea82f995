//! Tables of the index and of archives: blocks of any content with the right
//! checksums, in clear and behind their encryption.
#![no_main]

use hub_fuzz::{data_key, folder, table::table};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = folder();
    let path = dir.path().join("table");
    let key = data_key();
    hubd::fuzzing::table(&path, bytes, Some(&key));
    hubd::fuzzing::table(&path, &table(1, bytes, None), None);
    hubd::fuzzing::table(&path, &table(1, bytes, Some(&key)), Some(&key));
});
