//! Frames that are none.

use crate::files::unhex;
use crate::judge::wire;
use hub_protocol::*;

use super::build::*;
use crate::fixtures::*;
use crate::tree::{Tree, bytes, int, text};

pub(super) fn bad_frames() -> Vec<(RefusalCode, Vec<Case>)> {
    let good = wire(&hello().encode());
    let mut cut = good.clone();
    cut.pop();
    let body = |tree: Tree| wire(&tree.encode());
    let raw = |text: &str| wire(&unhex(text));
    let name = |app: &str| body(frame_of(1, vec![(int(1), text(app))]));
    let status = |id: Tree| body(frame_of(4, vec![(int(1), id)]));
    let nested = (0..cbor::MAX_DEPTH).fold(int(0), |inner, _| Tree::Array(vec![inner]));
    vec![
        (
            RefusalCode::Truncated,
            vec![
                case("nothing at all", vec![]),
                case("the length is cut", vec![0, 0]),
                case("the frame is shorter than its length", cut),
                case("the frame is empty", wire(&[])),
                case("the message ends before it is complete", raw("8201a101")),
                case(
                    "a text is declared longer than the message",
                    raw("8201a1017b7fffffffffffffff61"),
                ),
                case(
                    "an array is declared longer than the message",
                    raw("9bffffffffffffffff01"),
                ),
            ],
        ),
        (
            RefusalCode::Oversized,
            vec![
                case("the length is one above the bound", vec![0, 0, 0x40, 1]),
                case("the length is the largest there is", vec![0xff; 4]),
            ],
        ),
        (
            RefusalCode::Trailing,
            vec![
                case("a byte follows the frame", [&good[..], &[0]].concat()),
                case("a second frame follows", [&good[..], &good[..]].concat()),
                case(
                    "a byte follows the message inside the frame",
                    wire(&[&hello().encode()[..], &[0]].concat()),
                ),
            ],
        ),
        (
            RefusalCode::NotCanonical,
            vec![
                case(
                    "a key is doubled",
                    body(frame_of(1, vec![(int(1), text("a")), (int(1), text("b"))])),
                ),
                case(
                    "a key is unknown",
                    body(frame_of(1, vec![(int(1), text("a")), (int(9), int(0))])),
                ),
                case(
                    "keys are not in order",
                    body(frame_of(
                        2,
                        vec![
                            (int(2), Tree::parse(&cbor::encode(&sealed_card()))),
                            (int(1), bytes(&signed_payment())),
                        ],
                    )),
                ),
                case("an integer is longer than needed", raw("821801a1016161")),
                case("a length is longer than needed", raw("8201a101780161")),
                case("an array of indefinite length", raw("9f01a1016161ff")),
                case("a map of indefinite length", raw("8201bf016161ff")),
                case("a text of indefinite length", raw("8201a1017f6161ff")),
            ],
        ),
        (
            RefusalCode::Malformed,
            vec![
                case(
                    "a number where a text belongs",
                    body(frame_of(1, vec![(int(1), int(7))])),
                ),
                case(
                    "bytes where a text belongs",
                    body(frame_of(1, vec![(int(1), bytes(b"a"))])),
                ),
                case("a text that is not UTF-8", raw("8201a10161ff")),
                case("a float for the frame number", raw("82f93c00a1016161")),
                case("a field is missing", body(frame_of(1, vec![]))),
                case(
                    "a map instead of an array",
                    body(Tree::Map(vec![(int(1), text("a"))])),
                ),
                case(
                    "an array of three",
                    body(Tree::Array(vec![int(1), empty(), int(0)])),
                ),
                case(
                    "fields as an array",
                    body(Tree::Array(vec![int(1), Tree::Array(vec![text("a")])])),
                ),
                case(
                    "a tag that does not belong",
                    body(Tree::Tag(24, Box::new(hello()))),
                ),
                case("nested too deep", body(Tree::Array(vec![int(1), nested]))),
                case("not CBOR", raw("8201a1011c")),
                case("a break without a beginning", raw("8201a101ff")),
                case("a payment id of 15 bytes", status(bytes(&[1; 15]))),
                case("a payment id of 17 bytes", status(bytes(&[1; 17]))),
                case("a payment id as text", status(text(&payment_id().to_string()))),
                case(
                    "a salt of 15 bytes",
                    body(frame_of(
                        2,
                        vec![
                            (int(1), bytes(&signed_payment())),
                            (
                                int(2),
                                Tree::Map(vec![(int(1), bytes(&[0; 15])), (int(2), bytes(b"x"))]),
                            ),
                        ],
                    )),
                ),
            ],
        ),
        (
            RefusalCode::UnknownFrame,
            vec![
                case(
                    "a frame of a later version",
                    body(frame_of(60, vec![(int(1), int(0))])),
                ),
                case("frame number zero", body(frame_of(0, vec![]))),
                case("a negative frame number", body(frame_of(-1, vec![]))),
                case("a frame that only hubs send", body(frame_of(101, vec![]))),
                case("a push", body(frame_of(202, vec![(int(1), int(8))]))),
            ],
        ),
        (
            RefusalCode::FieldMalformed,
            vec![
                case("the app's name is empty", name("")),
                case("the app's name is too long", name(&"a".repeat(65))),
                case("the app's name has a line feed", name("acme\nhub: all is well")),
            ],
        ),
        (
            RefusalCode::ClearCardNumber,
            vec![case("the app's name is a card number", name("4111111111111111"))],
        ),
    ]
}
