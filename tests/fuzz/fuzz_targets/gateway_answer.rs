//! The gateway's answers over HTTPS: status, headers, body.
#![no_main]

use libfuzzer_sys::fuzz_target;
fuzz_target!(|bytes: &[u8]| {
    hubd::fuzzing::gateway_answer(bytes);
});
