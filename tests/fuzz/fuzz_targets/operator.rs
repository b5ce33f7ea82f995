//! Lines on hubctl's socket, and payments to be tried out.
#![no_main]

use libfuzzer_sys::fuzz_target;
use hub_protocol::Currency;
use hubd::rehearsal::Reader;

fuzz_target!(|bytes: &[u8]| {
    hubd::fuzzing::admin_request(bytes);
    let mut reader = Reader::new(bytes, Currency::EUR, 0);
    while let Ok(Some(line)) = reader.read() {
        if let Err(faults) = line {
            assert!(!faults.is_empty(), "refused without a word");
        }
    }
});
