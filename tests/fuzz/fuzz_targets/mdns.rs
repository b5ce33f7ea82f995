//! What devices and hubs say of themselves over mDNS.
#![no_main]

use libfuzzer_sys::fuzz_target;
fuzz_target!(|bytes: &[u8]| {
    hubd::fuzzing::device_seen(bytes);
    hub_sdk::fuzzing::hub_seen(bytes);
});
