//! A device's change of its keys: statements as they come, and their payload
//! under both signatures.
#![no_main]

use hub_fuzz::key;
use hub_protocol::DeviceKeyChange;
use hub_protocol::cbor::{decode, encode};
use hub_protocol::cose::{self, ObjectType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = DeviceKeyChange::open(bytes);
    let Some((signers, payload)) = bytes.split_first() else { return };
    // Whatever is in it: the signatures hold.
    let twice = |old: u8, new: u8, payload: &[u8]| {
        let by_new = cose::sign(&key(new), ObjectType::DeviceKeyChange, payload);
        cose::sign(&key(old), ObjectType::DeviceKeyChange, &by_new)
    };
    let (old, new) = (1 + (signers & 3), 1 + (signers >> 2 & 3));
    let signed = twice(old, new, payload);
    let Ok(mut change) = decode::<DeviceKeyChange>(payload) else {
        assert!(DeviceKeyChange::open(&signed).is_err());
        return;
    };
    let of = |seed: u8| key(seed).verifying_key().to_bytes();
    let named = change.old_key == of(old) && change.new_key == of(new);
    assert_eq!(DeviceKeyChange::open(&signed).is_ok(), named);
    (change.old_key, change.new_key) = (of(old), of(new));
    let payload = encode(&change);
    assert_eq!(DeviceKeyChange::open(&twice(old, new, &payload)), Ok(change));
    // Another key than the one named signs for nobody.
    for (by_old, by_new) in [(9, new), (old, 9)] {
        assert!(DeviceKeyChange::open(&twice(by_old, by_new, &payload)).is_err());
    }
});
