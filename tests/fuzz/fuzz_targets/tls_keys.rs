//! What a hub's certificate says of its keys, as a device takes it: changes of
//! the signing key and the statement of TLS keys, each signed anew.
#![no_main]

use ed25519_dalek::SigningKey;
use hub_fuzz::{Parts, key};
use hub_protocol::cbor::decode;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{
    CertificateKeys, DeviceClass, DeviceId, Digest, HubId, HubKeyChange, HubTlsKeys, Registration, SignedKeyChange,
    SignedTlsKeys,
};
use libfuzzer_sys::fuzz_target;

const HUB: HubId = HubId([7; 32]);
/// In the certificate's extension: object identifier in DER.
const OID: [u8; 12] = [0x06, 0x0a, 0x69, 0x9a, 0xd0, 0xe8, 0xf9, 0x87, 0xcf, 0x86, 0xc6, 0x6b];

/// Bytes around the extension, as much of them as the search looks at.
fn certificate(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0x30, 0x82][..], &OID, &[0x04, 0x82], &length, content].concat()
}

/// The keys of the hub are 2, 3 and 4, in this order; 5 is a stranger's.
fn of(bits: u8) -> SigningKey {
    key(2 + bits % 4)
}

fuzz_target!(|bytes: &[u8]| {
    let enrolled = hub_sdk::fuzzing::Knowing::enrolled(Registration {
        device: DeviceId([1; 32]),
        signing_key: [0; 32],
        class: DeviceClass::Softpos,
        name: String::new(),
        model: String::new(),
        hub: HUB,
        hub_signing_key: key(2).verifying_key().to_bytes(),
        enrolled_ms: 0,
    });
    let own = Digest(HUB.0);
    if let Some(says) = CertificateKeys::in_certificate(bytes) {
        let again = certificate(&says.to_der());
        assert_eq!(CertificateKeys::in_certificate(&again), Some(says));
    }
    // Nothing that is not signed makes a key known.
    assert!(enrolled.is_hub(&own, bytes));
    assert_eq!(enrolled.keys(), vec![key(2).verifying_key()]);

    let (mut changes, mut stated) = (Vec::new(), Vec::new());
    // Which signing key has handed over to which.
    let mut handed = vec![key(2).verifying_key()];
    let mut told = Vec::new();
    for (kind, part) in Parts(bytes).take(24) {
        let signer = of(kind >> 2);
        match kind & 3 {
            0 | 1 => {
                let Ok(mut change) = decode::<HubKeyChange>(part) else { continue };
                let next = of(kind >> 4);
                change.old_key = signer.verifying_key().to_bytes();
                change.new_key = next.verifying_key().to_bytes();
                if kind & 1 == 1 {
                    change.hub = HUB;
                }
                handed.push(next.verifying_key());
                changes.push(SignedKeyChange(change.sign(&signer, &next)));
            }
            2 => {
                // The payload as it is, signed.
                let signed = cose::sign(&signer, ObjectType::HubTlsKeys, part);
                if let Ok(says) = decode::<HubTlsKeys>(part) {
                    stated.extend(says.keys);
                }
                told.push(SignedTlsKeys(signed));
            }
            _ => {
                let Some(keys) = told.last().cloned() else { continue };
                let says = CertificateKeys { changes: core::mem::take(&mut changes), keys };
                let before = enrolled.keys();
                enrolled.is_hub(&own, &certificate(&says.to_der()));
                let after = enrolled.keys();
                assert!(after.starts_with(&before), "a chain only grows");
                assert!(after.iter().all(|key| handed.contains(key)), "nobody handed over");
            }
        }
    }
    // A stranger's TLS key is the hub's only if a statement has it.
    let stranger = Digest([0xee; 32]);
    if !stated.contains(&stranger) {
        assert!(!enrolled.is_hub(&stranger, &[]));
    }
});
