//! Signed objects that are none.

use curve25519_dalek::Scalar;
use ed25519_dalek::Verifier;
use sha2::{Digest as _, Sha512};

use crate::files::unhex;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;

use super::build::*;
use crate::fixtures::*;
use crate::tree::{Tree, bytes, int, text};

pub(super) fn bad_signatures() -> Vec<(RefusalCode, Vec<Case>)> {
    let good = sign1(&protected(int(-19)), empty(), &device_key());
    assert_eq!(tagged(good.clone()), signed_payment());
    let with =
        |header: Tree, unprotected: Tree| pay_with(&tagged(sign1(&header, unprotected, &device_key())));
    let part = |place: i128, value: Tree| pay_with(&tagged(good.clone().with(&[place], value)));
    let flipped = |place: usize| {
        let mut signed = signed_payment();
        signed[place] ^= 1;
        pay_with(&signed)
    };
    let last = signed_payment().len() - 1;
    let id = || bytes(&kid(&device_key()));
    let long_form = [&[0xd8, 18][..], &good.encode()].concat();
    let stranger = Tree::Map(vec![(int(1), int(-19)), (int(4), bytes(&kid(&stranger_key())))]);
    let other_payload = bytes(&cbor::encode(&payment_least()));
    let as_void = cose::sign(
        &device_key(),
        ObjectType::VoidRequest,
        &cbor::encode(&payment_full()),
    );
    vec![
        (
            RefusalCode::SignatureMalformed,
            vec![
                case("no object at all", pay_with(&[])),
                case("untagged", pay_with(&good.encode())),
                case(
                    "tagged as another kind of object",
                    pay_with(&Tree::Tag(98, Box::new(good.clone())).encode()),
                ),
                case("the tag is longer than needed", pay_with(&long_form)),
                case(
                    "a byte follows the object",
                    pay_with(&[&signed_payment()[..], &[0]].concat()),
                ),
                case("the object is cut", pay_with(&signed_payment()[..last])),
                case("no algorithm", with(Tree::Map(vec![(int(4), id())]), empty())),
                case("no key id", with(Tree::Map(vec![(int(1), int(-19))]), empty())),
                case(
                    "a key id of 15 bytes",
                    with(protected(int(-19)).with(&[4], bytes(&[0; 15])), empty()),
                ),
                case(
                    "a further protected header",
                    with(
                        Tree::Map(vec![(int(1), int(-19)), (int(3), int(0)), (int(4), id())]),
                        empty(),
                    ),
                ),
                case(
                    "a protected header of one's own",
                    with(protected(int(-19)).and(int(-70_000), int(0)), empty()),
                ),
                case(
                    "protected headers not in order",
                    with(Tree::Map(vec![(int(4), id()), (int(1), int(-19))]), empty()),
                ),
                case(
                    "protected headers longer than needed",
                    with(
                        Tree::Raw([&[0xb8, 2][..], &protected(int(-19)).encode()[1..]].concat()),
                        empty(),
                    ),
                ),
                case(
                    "an unprotected header",
                    with(protected(int(-19)), Tree::Map(vec![(int(5), bytes(&[0]))])),
                ),
                case(
                    "the key id unprotected",
                    with(
                        Tree::Map(vec![(int(1), int(-19))]),
                        Tree::Map(vec![(int(4), id())]),
                    ),
                ),
                case("no payload", part(2, Tree::Null)),
                case("a signature of 63 bytes", part(3, bytes(&[0; 63]))),
                case("no signature", part(3, bytes(&[]))),
                case("an array of five", {
                    let Tree::Array(mut parts) = good.clone() else {
                        panic!()
                    };
                    parts.push(int(0));
                    pay_with(&tagged(Tree::Array(parts)))
                }),
            ],
        ),
        (
            RefusalCode::SignatureAlgorithm,
            vec![
                case("algorithm EdDSA (-8)", with(protected(int(-8)), empty())),
                case("algorithm ES256 (-7)", with(protected(int(-7)), empty())),
                case("an algorithm by name", with(protected(text("Ed25519")), empty())),
            ],
        ),
        (
            RefusalCode::SignatureUnknownKey,
            vec![
                case(
                    "signed by another key, which says so",
                    pay_with(&signed_by(&stranger_key(), &cbor::encode(&payment_full()))),
                ),
                case(
                    "signed by this key, which says that it is another",
                    with(stranger, empty()),
                ),
            ],
        ),
        (
            RefusalCode::SignatureBad,
            vec![
                case(
                    "signed by another key, which says that it is this",
                    pay_with(&tagged(sign1(&protected(int(-19)), empty(), &stranger_key()))),
                ),
                case("another payload", part(2, other_payload)),
                case("one bit of the payload", flipped(100)),
                case("one bit of the signature", flipped(last)),
                case("a signature of zeros", part(3, bytes(&[0; 64]))),
                case(
                    "a signature whose R is of small order",
                    part(3, bytes(&of_small_order())),
                ),
                case(
                    "the signature's S plus the group order",
                    part(3, bytes(&plus_group_order(&signed_payment()))),
                ),
                case("signed as another type of object", pay_with(&as_void)),
                case("a void request sent as a payment", pay_with(&signed_void())),
            ],
        ),
    ]
}

/// A signature by the device whose R is the neutral element: the equation
/// holds, and strict verification refuses it for R's order (RFC 8032 leaves
/// that open).
fn of_small_order() -> Vec<u8> {
    let payload = cbor::encode(&payment_full());
    let message = Tree::Array(vec![
        text("Signature1"),
        bytes(&protected(int(-19)).encode()),
        bytes(ObjectType::PaymentRequest.aad().as_bytes()),
        bytes(&payload),
    ])
    .encode();
    let key = device_key();
    let r: [u8; 32] = core::array::from_fn(|place| u8::from(place == 0));
    let mut hash = Sha512::new();
    hash.update(r);
    hash.update(key.verifying_key().as_bytes());
    hash.update(&message);
    let k = Scalar::from_bytes_mod_order_wide(&hash.finalize().into());
    let signature = [r, (k * key.to_scalar()).to_bytes()].concat();
    let lax = ed25519_dalek::Signature::from_slice(&signature).unwrap();
    assert!(
        key.verifying_key().verify(&message, &lax).is_ok(),
        "good for a lax verifier"
    );
    signature
}

/// The signature at the end of `signed` with S + L for S: the same point for
/// a lax verifier (RFC 8032 §8.4).
fn plus_group_order(signed: &[u8]) -> Vec<u8> {
    let mut signature = signed[signed.len() - 64..].to_vec();
    let order = unhex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut carry = 0u16;
    for (byte, more) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(more) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    assert_eq!(carry, 0);
    signature
}
