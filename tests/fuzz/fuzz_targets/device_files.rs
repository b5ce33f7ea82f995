//! What a device keeps of its hub, its allowance and its payments on a disk of
//! its own.
#![no_main]

use hub_fuzz::folder;
use hub_sdk::{Enrolled, PreparedPayment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(payment) = PreparedPayment::from_bytes(bytes) {
        assert_eq!(payment.to_bytes(), bytes);
        let _ = payment.check();
    }
    hub_sdk::fuzzing::allowance(bytes);
    let dir = folder();
    std::fs::write(dir.path().join("enrolled.cbor"), bytes).unwrap();
    if let Ok(enrolled) = Enrolled::load(dir.path()) {
        // What was kept is what is kept again.
        enrolled.save(dir.path()).unwrap();
        let again = Enrolled::load(dir.path()).unwrap();
        assert_eq!(again.registration, enrolled.registration);
        assert_eq!(again.addresses, enrolled.addresses);
    }
});
