//! What wire version 3 has added: terms, overrides, descriptions of devices,
//! and the fields of receipts that answer to them.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;

use super::build::*;
use crate::fixtures::*;
use crate::tree::{Tree, bytes, int, text};

fn signed_as(object: ObjectType, payload: &[u8]) -> Vec<u8> {
    pay_with(&cose::sign(&device_key(), object, payload))
}

fn on_terms(payment: &Tree) -> Vec<u8> {
    signed_as(ObjectType::PaymentRequest2, &payment.encode())
}

fn payment_on_terms() -> Tree {
    Tree::parse(&cbor::encode(&payment_with_terms()))
}

/// What a payment states, by itself.
fn terms() -> Tree {
    Tree::parse(&cbor::encode(payment_with_terms().terms.as_deref().unwrap()))
}

/// A payment with these terms, signed as it should be.
fn stating(terms: Tree) -> Vec<u8> {
    on_terms(&payment_on_terms().with(&[12], terms))
}

/// With one field of the terms changed.
fn changed(change: impl FnOnce(&mut Terms)) -> Vec<u8> {
    let mut payment = payment_with_terms();
    change(payment.terms.as_mut().unwrap());
    signed_as(ObjectType::PaymentRequest2, &cbor::encode(&payment))
}

pub(super) fn bad_terms() -> Vec<(RefusalCode, Vec<Case>)> {
    let field = |key: i128, value: Tree| on_terms(&payment_on_terms().with(&[12, key], value));
    vec![
        (
            RefusalCode::SignatureBad,
            vec![
                case(
                    "terms signed as a payment without",
                    signed_as(ObjectType::PaymentRequest, &cbor::encode(&payment_with_terms())),
                ),
                case(
                    "a payment without terms signed as one with",
                    signed_as(ObjectType::PaymentRequest2, &cbor::encode(&payment_full())),
                ),
            ],
        ),
        (
            RefusalCode::NotCanonical,
            vec![
                case(
                    "a key of the terms is unknown",
                    stating(terms().and(int(7), int(0))),
                ),
                case(
                    "a key of the terms is doubled",
                    stating(terms().and(int(6), bytes(&[0]))),
                ),
                case("nobody named as null", field(3, Tree::Null)),
                case("no terms as null", on_terms(&payment().and(int(12), Tree::Null))),
            ],
        ),
        (
            RefusalCode::Malformed,
            vec![
                case("a transaction type that is not assigned", field(1, int(4))),
                case("the transaction type by name", field(1, text("sale"))),
                case("terms without a mandatory field", stating(terms().without(4))),
                case("training as a number", field(4, int(0))),
                case("the member of staff as a number", field(3, int(1))),
                case("a last month of 17 bits", field(5, int(65_536))),
                case("an override as text", field(6, text("yes"))),
                case("the terms as an array", stating(Tree::Array(vec![int(1)]))),
            ],
        ),
        (
            RefusalCode::FieldMalformed,
            vec![
                case(
                    "cash handed out with a sale",
                    changed(|terms| terms.transaction_type = TransactionType::Sale),
                ),
                case(
                    "cash-back without cash",
                    changed(|terms| terms.cash_back_minor = None),
                ),
                case("no cash at all", changed(|terms| terms.cash_back_minor = Some(0))),
                case(
                    "as much cash as the amount",
                    changed(|terms| terms.cash_back_minor = Some(payment_with_terms().amount_minor())),
                ),
                case(
                    "the member of staff empty",
                    changed(|terms| terms.staff = Some(String::new())),
                ),
                case(
                    "the member of staff of 65 bytes",
                    changed(|terms| terms.staff = Some("a".repeat(65))),
                ),
                case(
                    "the member of staff not ASCII",
                    changed(|terms| terms.staff = Some("Zoé".into())),
                ),
                case("a last month of number 13", field(5, int(2713))),
                case("a last month of number 0", field(5, int(2700))),
                case(
                    "an override that is empty",
                    changed(|terms| terms.supervisor = Some(Vec::new())),
                ),
                case(
                    "an override of 513 bytes",
                    changed(|terms| terms.supervisor = Some(vec![0; 513])),
                ),
            ],
        ),
        (
            RefusalCode::ClearCardNumber,
            vec![case(
                "the member of staff is a card number",
                changed(|terms| terms.staff = Some("4111 1111 1111 1111".into())),
            )],
        ),
    ]
}

pub(super) fn bad_descriptions() -> Vec<(RefusalCode, Vec<Case>)> {
    let describe = |description: Vec<u8>| {
        frame::to_wire(&Request::Describe {
            description,
            attestation: None,
        })
    };
    let signed = |payload: &[u8]| describe(cose::sign(&device_key(), ObjectType::DeviceDescription, payload));
    let payload = cbor::encode(&device_description());
    let said = |change: &dyn Fn(&mut DeviceDescription)| {
        let mut description = device_description();
        change(&mut description);
        signed(&cbor::encode(&description))
    };
    let field = |key: i128, value: Tree| signed(&Tree::parse(&payload).with(&[key], value).encode());
    vec![
        (
            RefusalCode::SignatureMalformed,
            vec![case(
                "a description that is not signed",
                describe(payload.clone()),
            )],
        ),
        (
            RefusalCode::SignatureUnknownKey,
            vec![case(
                "a description signed by another key",
                describe(cose::sign(
                    &stranger_key(),
                    ObjectType::DeviceDescription,
                    &payload,
                )),
            )],
        ),
        (
            RefusalCode::SignatureBad,
            vec![case(
                "a description signed as an attestation result",
                describe(cose::sign(&device_key(), ObjectType::AttestationResult, &payload)),
            )],
        ),
        (
            RefusalCode::NotCanonical,
            vec![case(
                "a key of the description is unknown",
                signed(&Tree::parse(&payload).and(int(9), int(0)).encode()),
            )],
        ),
        (
            RefusalCode::Malformed,
            vec![
                case("a certification that is not assigned", field(8, int(6))),
                case("a version as text", field(6, text("14"))),
                case(
                    "a version of three numbers",
                    field(6, Tree::Array(vec![int(1); 3])),
                ),
                case(
                    "a version with a number of 33 bits",
                    field(7, Tree::Array(vec![int(1 << 32), int(0), int(0), int(0)])),
                ),
                case(
                    "a description without a mandatory field",
                    signed(&Tree::parse(&payload).without(5).encode()),
                ),
            ],
        ),
        (
            RefusalCode::FieldMalformed,
            vec![
                case("the vendor is empty", said(&|said| said.vendor.clear())),
                case(
                    "the described model is too long",
                    said(&|said| said.model = "m".repeat(65)),
                ),
                case(
                    "the operating system turns the direction of writing",
                    said(&|said| said.os = "Andr\u{202e}oid".into()),
                ),
                case(
                    "a description of another device",
                    said(&|said| said.device = DeviceId([0xcf; 32])),
                ),
            ],
        ),
        (
            RefusalCode::ClearCardNumber,
            vec![case(
                "the described model is a card number",
                said(&|said| said.model = "5500-0000-0000-0004".into()),
            )],
        ),
    ]
}

/// Receipts that a hub signed, but whose newer fields are not as they must be.
pub(super) fn bad_receipts() -> Vec<(RefusalCode, Vec<Case>)> {
    let (_, receipt) = &receipts()[1];
    let with = |fields: &[(i128, Tree)]| {
        let fields = fields.iter().cloned();
        let receipt = fields.fold(Tree::parse(&cbor::encode(receipt)), |receipt, (key, value)| {
            receipt.and(int(key), value)
        });
        let group = ReceiptGroup::new(vec![(1017, receipt.encode())]).unwrap();
        let signed = ledger_commit(Some(group.root())).sign(&hub_key());
        frame::to_wire(&Answer::Receipt {
            receipt: cbor::encode(&group.committed(signed).receipt(1017).unwrap()),
        })
    };
    let part = |factor: i128| Tree::Map(vec![(int(1), int(factor)), (int(2), int(10))]);
    let score = |fields: Vec<(Tree, Tree)>| with(&[(16, int(1)), (17, Tree::Map(fields))]);
    vec![
        (
            RefusalCode::Malformed,
            vec![
                case(
                    "a receipt with a transaction type that is not assigned",
                    with(&[(16, int(4))]),
                ),
                case(
                    "a receipt with its transaction type by name",
                    with(&[(16, text("sale"))]),
                ),
                case(
                    "a receipt with a score without parts",
                    score(vec![(int(1), int(10))]),
                ),
                case(
                    "a receipt with a score's factor that is not assigned",
                    score(vec![(int(1), int(10)), (int(2), Tree::Array(vec![part(8)]))]),
                ),
            ],
        ),
        (
            RefusalCode::NotCanonical,
            vec![
                case(
                    "a receipt with no score as null",
                    with(&[(16, int(1)), (17, Tree::Null)]),
                ),
                case(
                    "a receipt with its score before its transaction type",
                    with(&[
                        (
                            17,
                            Tree::Map(vec![(int(1), int(0)), (int(2), Tree::Array(vec![]))]),
                        ),
                        (16, int(1)),
                    ]),
                ),
            ],
        ),
    ]
}
