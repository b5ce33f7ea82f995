//! What wire version 6 has added: a device's next TLS key signs that it is the
//! device's.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;

use super::build::*;
use crate::fixtures::*;
use crate::tree::{Tree, bytes, int};

fn asked(change: Vec<u8>) -> Vec<u8> {
    frame::to_wire(&Request::ChangeKeys { change })
}

/// [`device_key_change`] with one field changed, signed by the Ed25519 keys as
/// it should be, with the TLS key's signature over the unchanged one.
fn changed(change: impl FnOnce(Tree) -> Tree) -> Vec<u8> {
    let by_tls = Tree::parse(&good_key_change_by_tls());
    let Tree::Tag(18, parts) = by_tls else {
        panic!("tagged")
    };
    let payload = change(Tree::parse(&cbor::encode(&device_key_change()))).encode();
    asked(change_over(&tagged(parts.with(&[2], bytes(&payload)))))
}

/// The TLS key's object with another protected header.
fn headed(header: Vec<(Tree, Tree)>) -> Vec<u8> {
    let Tree::Tag(18, parts) = Tree::parse(&good_key_change_by_tls()) else {
        panic!("tagged")
    };
    let header = bytes(&Tree::Map(header).encode());
    asked(change_over(&tagged(parts.with(&[0], header))))
}

pub(super) fn bad_key_changes() -> Vec<(RefusalCode, Vec<Case>)> {
    let statement = cbor::encode(&device_key_change());
    let own_kid = || bytes(&device_id().0[..16]);
    let new_kid = || bytes(&device_key_change().new_tls().0[..16]);
    let by_ed25519 = cose::sign(&next_device_key(), ObjectType::DeviceTlsKey, &statement);
    let by_old_alone = cose::sign(
        &device_key(),
        ObjectType::DeviceKeyChange2,
        &good_key_change_by_tls(),
    );
    vec![
        (
            RefusalCode::SignatureMalformed,
            vec![
                case(
                    "a change of keys that the new TLS key has not signed",
                    asked(change_over(&statement)),
                ),
                case("a change of keys as in wire version 5", {
                    let former = former_key_change();
                    let by_new = cose::sign(&next_device_key(), ObjectType::DeviceKeyChange, &former);
                    asked(cose::sign(&device_key(), ObjectType::DeviceKeyChange, &by_new))
                }),
                case(
                    "a change of keys whose new TLS key has no key id",
                    headed(vec![(int(1), int(-9))]),
                ),
            ],
        ),
        (
            RefusalCode::SignatureAlgorithm,
            vec![
                case(
                    "a change of keys that the new Ed25519 key has signed in the TLS key's place",
                    asked(change_over(&by_ed25519)),
                ),
                case(
                    "a change of keys whose new TLS key has signed by ES256 (-7)",
                    headed(vec![(int(1), int(-7)), (int(4), new_kid())]),
                ),
                case(
                    "a change of keys that the new Ed25519 key has not signed",
                    asked(by_old_alone),
                ),
            ],
        ),
        (
            RefusalCode::SignatureUnknownKey,
            vec![case(
                "a change of keys signed by another TLS key, which says so",
                headed(vec![(int(1), int(-9)), (int(4), own_kid())]),
            )],
        ),
        (
            RefusalCode::SignatureBad,
            vec![
                case(
                    "a change of keys signed by another TLS key, which says that it is the new one",
                    asked(change_over(&key_change_by_tls(PROOF_BY_PRESENT_KEY))),
                ),
                case(
                    "a change of keys with the TLS key's signature over another change",
                    asked(change_over(&key_change_by_tls(PROOF_OF_ANOTHER_CHANGE))),
                ),
                case(
                    "a change of keys with the TLS key's signature over another device's",
                    changed(|change| change.with(&[2], bytes(&hub_id().0))),
                ),
                case(
                    "a change of keys with a TLS key's signature of zeros",
                    asked(change_over(&key_change_by_tls(&"00".repeat(64)))),
                ),
            ],
        ),
        (
            RefusalCode::EnrolmentKey,
            vec![case(
                "a change to a TLS key whose point is compressed",
                changed(|change| {
                    let mut key = device_key_change().new_tls_key;
                    key[26] = 2;
                    change.with(&[8], bytes(&key))
                }),
            )],
        ),
        (
            RefusalCode::NotCanonical,
            vec![case(
                "a change of keys with the hash of the TLS key beside it",
                changed(|change| {
                    let last = change.clone().without(7).without(8);
                    let key = bytes(&device_key_change().new_tls_key);
                    last.and(int(6), bytes(&device_key_change().new_tls().0))
                        .and(int(7), int(42))
                        .and(int(8), key)
                }),
            )],
        ),
        (
            RefusalCode::Malformed,
            vec![
                case(
                    "a change of keys without the new TLS key",
                    changed(|change| change.without(8)),
                ),
                case(
                    "a change to a TLS key of 90 bytes",
                    changed(|change| change.with(&[8], bytes(&[0; 90]))),
                ),
            ],
        ),
    ]
}
