//! Roots with their signatures, judged as a first one and as the next.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ed25519_dalek::SigningKey;
use hub_protocol::root::{Root, RootKey, SignedRoot};

fuzz_target!(|bytes: &[u8]| {
    let Ok(signed) = SignedRoot::parse(bytes) else { return };
    // Deterministic: one root with its signatures, one form.
    assert_eq!(signed.to_bytes(), bytes);
    let root = signed.root();
    assert_eq!(root.check(), Ok(()));
    let enough = signed.signers(&root.keys).is_ok_and(|by| by.len() >= root.threshold as usize);
    assert_eq!(signed.verify_first().is_ok(), enough);
    // Whatever it is, it does not follow a root whose only key is not its own.
    let before = Root {
        version: root.version.saturating_sub(1),
        threshold: 1,
        keys: vec![RootKey {
            name: "nobody".to_owned(),
            key: SigningKey::from_bytes(&[0xfe; 32]).verifying_key().to_bytes(),
        }],
        ..root.clone()
    };
    assert!(signed.verify_next(&before).is_err());
});
