//! COSE_Sign1 objects: signatures, headers, and receipts with their proofs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ed25519_dalek::SigningKey;
use hub_protocol::{CommittedReceipt, HubKeyChange};
use hub_protocol::cose::{ObjectType, Unverified, verify, verifying_key};

fuzz_target!(|bytes: &[u8]| {
    let key = SigningKey::from_bytes(&[2; 32]).verifying_key();
    for object in [ObjectType::PaymentRequest, ObjectType::LedgerEntry, ObjectType::Policy] {
        let _ = verify(bytes, object, &key);
    }
    if let Ok(object) = Unverified::parse(bytes) {
        let _ = (object.kid(), object.payload_unverified().len());
        assert!(Unverified::payload_of(bytes).is_ok());
    }
    let _ = CommittedReceipt::open(bytes, &key);
    let _ = HubKeyChange::open(bytes);
    if let Some(start) = bytes.first_chunk::<32>() {
        let _ = verifying_key(start);
    }
});
