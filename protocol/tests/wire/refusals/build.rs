//! The pieces that bad input is made of.

use ed25519_dalek::{Signer, SigningKey};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;

use crate::fixtures::*;
use crate::tree::{Tree, bytes, int, text};

/// What a case is called, and its bytes as they come over the wire.
pub(super) type Case = (String, Vec<u8>);

pub(super) fn case(name: &str, wire: Vec<u8>) -> Case {
    (name.into(), wire)
}

pub(super) fn frame_of(number: i128, fields: Vec<(Tree, Tree)>) -> Tree {
    Tree::Array(vec![int(number), Tree::Map(fields)])
}

pub(super) fn hello() -> Tree {
    frame_of(1, vec![(int(1), text("acme-pos 3.2"))])
}

pub(super) fn pay_with(signed: &[u8]) -> Vec<u8> {
    frame::to_wire(&Request::Pay {
        request: signed.to_vec(),
        sealed_card: sealed_card(),
    })
}

pub(super) fn signed_by(key: &SigningKey, payload: &[u8]) -> Vec<u8> {
    cose::sign(key, ObjectType::PaymentRequest, payload)
}

/// A payment with this payload, signed as it should be.
pub(super) fn pay_payload(payload: &Tree) -> Vec<u8> {
    pay_with(&signed_by(&device_key(), &payload.encode()))
}

pub(super) fn payment() -> Tree {
    Tree::parse(&cbor::encode(&payment_full()))
}

/// An array with the parts of a COSE_Sign1, to be put together wrongly. Signed
/// over what stands in `protected` and the payload, so that nothing but the
/// fault is wrong.
pub(super) fn sign1(protected: &Tree, unprotected: Tree, key: &SigningKey) -> Tree {
    let protected = match protected {
        Tree::Raw(raw) => raw.clone(),
        map => map.encode(),
    };
    let payload = cbor::encode(&payment_full());
    let signed = Tree::Array(vec![
        text("Signature1"),
        bytes(&protected),
        bytes(ObjectType::PaymentRequest.aad().as_bytes()),
        bytes(&payload),
    ]);
    let signature = key.sign(&signed.encode()).to_bytes();
    Tree::Array(vec![
        bytes(&protected),
        unprotected,
        bytes(&payload),
        bytes(&signature),
    ])
}

pub(super) fn tagged(sign1: Tree) -> Vec<u8> {
    Tree::Tag(18, Box::new(sign1)).encode()
}

pub(super) fn kid(key: &SigningKey) -> Vec<u8> {
    KeyId::of_key(key.verifying_key().as_bytes()).0.to_vec()
}

pub(super) fn protected(algorithm: Tree) -> Tree {
    Tree::Map(vec![(int(1), algorithm), (int(4), bytes(&kid(&device_key())))])
}

pub(super) fn empty() -> Tree {
    Tree::Map(vec![])
}
