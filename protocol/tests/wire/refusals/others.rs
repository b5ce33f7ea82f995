//! Enrolments, voids and answers.

use crate::judge::wire;
use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;

use super::build::*;
use crate::fixtures::*;
use crate::tree::{Tree, int, text};

pub(super) fn bad_enrolments() -> Vec<(RefusalCode, Vec<Case>)> {
    let sign = |key: &SigningKey, payload: &[u8]| {
        frame::to_wire(&Request::Enrol {
            request: cose::sign(key, ObjectType::Enrolment, payload),
        })
    };
    let request = |change: fn(&mut EnrolmentRequest)| {
        let mut request = enrolment_request();
        change(&mut request);
        cbor::encode(&request)
    };
    let own = |change| sign(&device_key(), &request(change));
    let weak = request(|r| r.signing_key = core::array::from_fn(|place| u8::from(place == 0)));
    let class = Tree::parse(&request(|_| {})).with(&[5], int(4)).encode();
    let void = |payload: &[u8]| {
        frame::to_wire(&Request::Void {
            request: cose::sign(&device_key(), ObjectType::VoidRequest, payload),
        })
    };
    vec![
        (
            RefusalCode::EnrolmentKey,
            vec![
                case("a signing key of small order", sign(&device_key(), &weak)),
                case("a signing key that is no point", own(|r| r.signing_key = [2; 32])),
            ],
        ),
        (
            RefusalCode::SignatureUnknownKey,
            vec![case(
                "signed by another key than the request names",
                sign(&stranger_key(), &request(|_| {})),
            )],
        ),
        (
            RefusalCode::SignatureBad,
            vec![case(
                "an enrolment signed as a registration",
                frame::to_wire(&Request::Enrol {
                    request: cose::sign(&device_key(), ObjectType::Registration, &request(|_| {})),
                }),
            )],
        ),
        (
            RefusalCode::FieldMalformed,
            vec![
                case("the device's name is empty", own(|r| r.name.clear())),
                case(
                    "the device's name turns the direction of writing",
                    own(|r| r.name = "Caisse \u{202e}3".into()),
                ),
                case(
                    "the device's model is too long",
                    own(|r| r.model = "m".repeat(65)),
                ),
            ],
        ),
        (
            RefusalCode::ClearCardNumber,
            vec![case(
                "the device's model is a card number",
                own(|r| r.model = "5500-0000-0000-0004".into()),
            )],
        ),
        (
            RefusalCode::Malformed,
            vec![case(
                "a class of device that is not assigned",
                sign(&device_key(), &class),
            )],
        ),
        (
            RefusalCode::NotCanonical,
            vec![
                case(
                    "the content of a payment signed as a void request",
                    void(&cbor::encode(&payment_full())),
                ),
                case(
                    "a key of the void request is unknown",
                    void(
                        &Tree::parse(&cbor::encode(&void_request()))
                            .and(int(4), int(0))
                            .encode(),
                    ),
                ),
            ],
        ),
    ]
}

/// What a device must refuse to believe.
pub(super) fn bad_answers() -> Vec<(RefusalCode, Vec<Case>)> {
    let payload = cbor::encode(&receipts()[1].1);
    let receipt = |receipt: Vec<u8>| frame::to_wire(&Answer::Receipt { receipt });
    let signed = |payload: &[u8]| receipt(cose::sign(&hub_key(), ObjectType::Receipt, payload));
    let changed = |path: &[i128], value: Tree| signed(&Tree::parse(&payload).with(path, value).encode());
    vec![
        (
            RefusalCode::UnknownFrame,
            vec![case(
                "an answer of a later version",
                wire(&frame_of(106, vec![]).encode()),
            )],
        ),
        (
            RefusalCode::SignatureUnknownKey,
            vec![case(
                "a receipt by another hub",
                receipt(cose::sign(&stranger_key(), ObjectType::Receipt, &payload)),
            )],
        ),
        (
            RefusalCode::SignatureBad,
            vec![case(
                "a receipt signed as a status",
                receipt(cose::sign(&hub_key(), ObjectType::Status, &payload)),
            )],
        ),
        (
            RefusalCode::Malformed,
            vec![
                case(
                    "a receipt with a decision that is not assigned",
                    changed(&[7], int(5)),
                ),
                case(
                    "a receipt with a reason that is not assigned",
                    changed(&[8], int(999)),
                ),
                case(
                    "a refusal with a number that is not assigned",
                    wire(
                        &frame_of(
                            199,
                            vec![(int(1), Tree::Map(vec![(int(1), int(9999)), (int(2), text("x"))]))],
                        )
                        .encode(),
                    ),
                ),
            ],
        ),
        (
            RefusalCode::NotCanonical,
            vec![case(
                "a receipt with an unknown key",
                signed(&Tree::parse(&payload).and(int(16), int(0)).encode()),
            )],
        ),
    ]
}
