//! A device's change of its keys: statements as they come, and their payload
//! under all three signatures.
#![no_main]

use std::convert::Infallible;

use hub_fuzz::key;
use hub_protocol::DeviceKeyChange;
use hub_protocol::cbor::{decode, encode};
use hub_protocol::cose::{self, ObjectType};
use libfuzzer_sys::fuzz_target;

/// What the new TLS key signs is checked by a library, and not looked at here.
fn holds(_: &[u8; 65], _: &[u8], _: &[u8; 64]) -> bool {
    true
}

fn fails(_: &[u8; 65], _: &[u8], _: &[u8; 64]) -> bool {
    false
}

/// The payload as the TLS key `spki` and two other keys sign it.
fn signed(old: u8, new: u8, spki: &[u8], payload: &[u8]) -> Vec<u8> {
    let signer = |_: &[u8]| Ok::<_, Infallible>([7; 64]);
    let Ok(by_tls) = cose::sign_p256(spki, ObjectType::DeviceTlsKey, payload, signer);
    let by_new = cose::sign(&key(new), ObjectType::DeviceKeyChange2, &by_tls);
    cose::sign(&key(old), ObjectType::DeviceKeyChange2, &by_new)
}

fuzz_target!(|bytes: &[u8]| {
    let _ = DeviceKeyChange::open(bytes, holds);
    let Some((signers, payload)) = bytes.split_first() else { return };
    // Whatever is in it: the signatures hold.
    let (old, new) = (1 + (signers & 3), 1 + (signers >> 2 & 3));
    let Ok(mut change) = decode::<DeviceKeyChange>(payload) else {
        assert!(DeviceKeyChange::open(&signed(old, new, &[], payload), holds).is_err());
        return;
    };
    let of = |seed: u8| key(seed).verifying_key().to_bytes();
    let spki = change.new_tls_key;
    let is_key = cose::p256_point(&spki).is_some();
    let named = is_key && change.old_key == of(old) && change.new_key == of(new);
    let opened = DeviceKeyChange::open(&signed(old, new, &spki, payload), holds);
    assert_eq!(opened.is_ok(), named);
    (change.old_key, change.new_key) = (of(old), of(new));
    let payload = encode(&change);
    let right = signed(old, new, &spki, &payload);
    assert_eq!(DeviceKeyChange::open(&right, holds).ok(), is_key.then_some(change));
    assert!(DeviceKeyChange::open(&right, fails).is_err());
    // Another key than the one named signs for nobody.
    for (by_old, by_new) in [(9, new), (old, 9)] {
        let wrong = signed(by_old, by_new, &spki, &payload);
        assert!(DeviceKeyChange::open(&wrong, holds).is_err());
    }
    let mut other = spki;
    if let Some(last) = other.last_mut() {
        *last ^= 1;
    }
    assert!(DeviceKeyChange::open(&signed(old, new, &other, &payload), holds).is_err());
});
