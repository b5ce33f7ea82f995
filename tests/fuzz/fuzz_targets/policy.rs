//! Policies, as TOML. One that is read is explained and asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use hub_core::policy::Policy;

fuzz_target!(|bytes: &[u8]| {
    match Policy::parse(bytes) {
        Ok(policy) => assert!(policy.not_before_ms < policy.expires_ms),
        Err(faults) => assert!(!faults.is_empty(), "refused without a word"),
    }
});
