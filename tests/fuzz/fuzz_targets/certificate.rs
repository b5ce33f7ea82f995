//! Certificates: a device's, as the hub takes its key out of it; the
//! gateway's authority, of which `hubctl doctor` tells the end.
#![no_main]

use hub_protocol::CertificateKeys;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    hubd::fuzzing::certificate_key(bytes);
    hubd::fuzzing::certificate_end(bytes);
    let _ = CertificateKeys::in_certificate(bytes);
});
