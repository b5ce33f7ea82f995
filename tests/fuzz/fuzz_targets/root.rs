//! Roots with their signatures, judged as a first one and as the next.
#![no_main]

use hub_fuzz::key;
use hub_protocol::cbor::decode;
use hub_protocol::root::{Root, RootKey, SignedRoot};
use libfuzzer_sys::fuzz_target;

/// The content as it comes, but for its keys: signed by some of them.
fn well_signed(content: &[u8]) {
    let Ok(mut root) = decode::<Root>(content) else { return };
    for (seed, own) in root.keys.iter_mut().enumerate() {
        own.key = key(0x20 + seed as u8).verifying_key().to_bytes();
    }
    let Ok(mut signed) = SignedRoot::unsigned(root.clone()) else { return };
    for seed in 0..root.keys.len() {
        assert_eq!(signed.verify_first().is_ok(), seed >= root.threshold as usize);
        signed.sign(&key(0x20 + seed as u8)).unwrap();
    }
    assert!(signed.verify_first().is_ok());
    assert_eq!(SignedRoot::parse(&signed.to_bytes()).as_ref(), Ok(&signed));
    let before = Root { version: root.version.saturating_sub(1), ..root.clone() };
    assert_eq!(signed.verify_next(&before).is_ok(), before.version + 1 == root.version);
    assert!(signed.verify_next(&root).is_err(), "the same version again");
}

fuzz_target!(|bytes: &[u8]| {
    well_signed(bytes);
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
            key: key(0xfe).verifying_key().to_bytes(),
        }],
        ..root.clone()
    };
    assert!(signed.verify_next(&before).is_err());
});
