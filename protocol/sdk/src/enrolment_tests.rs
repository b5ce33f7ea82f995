//! What a device that is enrolled believes of its hub's keys.

use ed25519_dalek::SigningKey;
use hub_protocol::{DeviceId, HubKeyChange, HubTlsKeys};

use super::*;

const HUB: HubId = HubId([7; 32]);
/// The key that the hub is named after.
const FIRST: u8 = 7;
const SECOND: u8 = 8;
const FORGED: u8 = 9;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

/// Enrolled while the hub signed with key 1.
fn enrolled() -> Enrolled {
    let registration = Registration {
        device: DeviceId([3; 32]),
        signing_key: key(30).verifying_key().to_bytes(),
        class: DeviceClass::Mpos,
        name: "Caisse 1".into(),
        model: "Test 1".into(),
        hub: HUB,
        hub_signing_key: key(1).verifying_key().to_bytes(),
        enrolled_ms: 1,
    };
    Enrolled::new(registration, Vec::new())
}

fn stated(by: u8, number: u32, keys: &[u8]) -> SignedTlsKeys {
    let says = HubTlsKeys {
        hub: HUB,
        number,
        keys: keys.iter().map(|byte| Digest([*byte; 32])).collect(),
        sequence: 9,
        changed_ms: 1,
    };
    says.sign(&key(by))
}

/// The signing key goes from `old` to `old` + 1.
fn change(old: u8) -> SignedKeyChange {
    let (before, after) = (key(old), key(old + 1));
    let change = HubKeyChange {
        hub: HUB,
        number: u32::from(old),
        old_key: before.verifying_key().to_bytes(),
        new_key: after.verifying_key().to_bytes(),
        sequence: u64::from(old) * 10,
        changed_ms: 1,
    };
    SignedKeyChange(change.sign(&before, &after))
}

/// As much of a certificate as is looked at.
fn certificate(changes: &[SignedKeyChange], keys: SignedTlsKeys) -> Vec<u8> {
    let changes = changes.to_vec();
    let content = CertificateKeys { changes, keys }.to_der();
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    let oid = [
        0x06, 0x0a, 0x69, 0x9a, 0xd0, 0xe8, 0xf9, 0x87, 0xcf, 0x86, 0xc6, 0x6b, 0x04, 0x82,
    ];
    [&oid[..], &length, &content].concat()
}

/// The keys that it takes for its hub's, now and after a restart.
fn accepted(enrolled: &Enrolled) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    enrolled.save(dir.path()).unwrap();
    let loaded = Enrolled::load(dir.path()).unwrap();
    assert_eq!(&loaded, enrolled, "the same after a restart");
    let is_hub = |byte: &u8| enrolled.is_hub(&Digest([*byte; 32]), &[]);
    (0..=9).filter(is_hub).collect()
}

#[test]
fn rule_2_a_forged_statement_of_tls_keys_does_not_outlive_the_signing_key_that_forged_it() {
    for number in [u32::MAX, 3] {
        let device = enrolled();
        let forged = stated(1, number, &[FORGED]);
        assert!(device.learn_tls(&forged).unwrap());
        assert_eq!(accepted(&device), [FORGED], "its signing key was stolen");
        assert!(device.learn(&[change(1)]).unwrap());
        assert_eq!(accepted(&device), [FIRST], "what is known without it");
        assert!(device.learn_tls(&forged).is_err(), "its key has given way");
        assert!(device.learn_tls(&stated(2, 3, &[SECOND])).unwrap());
        assert_eq!(accepted(&device), [SECOND]);
        assert!(device.learn_tls(&forged).is_err());
        // News of a change that is known already drops nothing.
        assert!(!device.learn(&[change(1)]).unwrap());
        assert_eq!(accepted(&device), [SECOND]);
    }
}

#[test]
fn rule_2_a_device_that_took_a_forged_statement_finds_its_hub_by_what_the_certificate_says() {
    let device = enrolled();
    device.learn_tls(&stated(1, u32::MAX, &[FORGED])).unwrap();
    let hub = certificate(&[change(1), change(2)], stated(3, 3, &[SECOND]));
    assert!(device.is_hub(&Digest([SECOND; 32]), &hub));
    assert_eq!(accepted(&device), [SECOND]);
    // The thief, with all that he can show.
    let forged = stated(1, u32::MAX, &[FORGED]);
    for changes in [&[][..], &[change(1)], &[change(1), change(2)]] {
        let thief = certificate(changes, forged.clone());
        assert!(!device.is_hub(&Digest([FORGED; 32]), &thief));
    }
}

#[test]
fn a_retired_tls_key_is_no_hub_to_whoever_is_shown_a_change_of_the_signing_key_with_it() {
    let device = enrolled();
    device.learn_tls(&stated(1, 2, &[SECOND])).unwrap();
    // Changes are no secret. They come with the next key's word, or not at all.
    for keys in [stated(1, 1, &[SECOND, FIRST]), stated(9, 3, &[FIRST])] {
        let stolen = certificate(&[change(1)], keys);
        assert!(!device.is_hub(&Digest([FIRST; 32]), &stolen));
        assert_eq!(accepted(&device), [SECOND]);
    }
}

#[test]
fn rule_2_a_statement_by_a_key_that_had_given_way_is_dropped_from_what_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let stored = Stored {
        registration: enrolled().registration,
        addresses: Vec::new(),
        key_changes: Some(vec![change(1)]),
        tls_keys: Some(stated(1, u32::MAX, &[FORGED])),
        tls_key: None,
    };
    files::write_private(dir.path(), FILE, &cbor::encode(&stored)).unwrap();
    let loaded = Enrolled::load(dir.path()).unwrap();
    assert_eq!(accepted(&loaded), [FIRST]);
}

#[test]
fn a_device_that_was_enrolled_under_a_later_tls_key_takes_the_retired_first_one_for_no_hub() {
    let device = enrolled().under(Digest([SECOND; 32]));
    assert_eq!(accepted(&device), [SECOND], "the code's key alone");
    device.learn_tls(&stated(1, 3, &[4])).unwrap();
    assert_eq!(accepted(&device), [4]);
    assert_eq!(accepted(&enrolled()), [FIRST], "as from a file from before");
}
