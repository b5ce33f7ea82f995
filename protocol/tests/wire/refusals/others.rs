//! Enrolments, voids and answers.

use crate::judge::wire;
use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;

use super::build::*;
use crate::fixtures::*;
use crate::tree::{Tree, bytes, int, text};

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
    // A field of the device's receipt is not that of the payment beside it.
    let synced = |change: fn(&mut DeviceReceipt)| {
        let mut receipt = device_receipt();
        change(&mut receipt);
        frame::to_wire(&Request::Sync {
            number: 3,
            request: signed_payment(),
            sealed_card: sealed_card(),
            receipt: cose::sign(&device_key(), ObjectType::DeviceReceipt, &cbor::encode(&receipt)),
        })
    };
    vec![
        (
            RefusalCode::DeviceReceiptMismatch,
            vec![
                case(
                    "a device's receipt under another allowance",
                    synced(|r| r.number = 4),
                ),
                case(
                    "a device's receipt for another payment",
                    synced(|r| r.payment_id = PaymentId([0xcf; 16])),
                ),
                case(
                    "a device's receipt for another request",
                    synced(|r| r.request_digest = Digest([0xcf; 32])),
                ),
                case(
                    "a device's receipt for another amount",
                    synced(|r| r.amount_minor += 1),
                ),
            ],
        ),
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
    let wire_of = |held: &CommittedReceipt| {
        frame::to_wire(&Answer::Receipt {
            receipt: cbor::encode(held),
        })
    };
    // A field of what holds the receipt is not as it was.
    let held = |change: &dyn Fn(&mut CommittedReceipt)| {
        let mut held = committed_receipt();
        change(&mut held);
        wire_of(&held)
    };
    // The hub signed, but this.
    let stated = |change: &dyn Fn(&mut LedgerCommit)| {
        held(&|held| {
            let mut commit = ledger_commit(Some(group(5).root()));
            change(&mut commit);
            held.commit = commit.sign(&hub_key());
        })
    };
    // The only receipt of its commit, with these bytes.
    let alone = |payload: &[u8]| {
        let group = ReceiptGroup::new(vec![(1017, payload.to_vec())]).unwrap();
        let signed = ledger_commit(Some(group.root())).sign(&hub_key());
        wire_of(&group.committed(signed).receipt(1017).unwrap())
    };
    let payload = cbor::encode(&receipts()[1].1);
    let changed = |path: &[i128], value: Tree| alone(&Tree::parse(&payload).with(path, value).encode());
    let signed_as = |key: &SigningKey, object: ObjectType| {
        held(&|held| {
            let commit = cbor::encode(&ledger_commit(Some(group(5).root())));
            held.commit = cose::sign(key, object, &commit);
        })
    };
    let commit = cbor::encode(&ledger_commit(Some(group(5).root())));
    let signed_commit = |payload: &[u8]| {
        held(&|held| held.commit = cose::sign(&hub_key(), ObjectType::LedgerCommit, payload))
    };
    vec![
        (
            RefusalCode::UnknownFrame,
            vec![case(
                "an answer of a later version",
                wire(&frame_of(160, vec![]).encode()),
            )],
        ),
        (
            RefusalCode::SignatureMalformed,
            vec![
                case(
                    "a receipt whose commit is not signed",
                    held(&|held| held.commit = cbor::encode(&ledger_commit(None))),
                ),
                case(
                    "a receipt whose commit is empty",
                    held(&|held| held.commit.clear()),
                ),
            ],
        ),
        (
            RefusalCode::SignatureUnknownKey,
            vec![case(
                "a receipt by another hub",
                signed_as(&stranger_key(), ObjectType::LedgerCommit),
            )],
        ),
        (
            RefusalCode::SignatureBad,
            vec![
                case(
                    "a ledger commit signed as a status",
                    signed_as(&hub_key(), ObjectType::Status),
                ),
                case(
                    "a receipt that was changed",
                    held(&|held| {
                        let more = Tree::parse(&payload).with(&[5], int(2591));
                        held.receipt = more.encode();
                    }),
                ),
                case("a receipt with another's index", held(&|held| held.index = 2)),
                case(
                    "a receipt with an index past the last",
                    held(&|held| held.index = 5),
                ),
                case("a receipt with a step too few", held(&|held| _ = held.path.pop())),
                case(
                    "a receipt with a step too many",
                    held(&|held| held.path.push(Digest::ZERO)),
                ),
                case(
                    "a receipt with another step",
                    held(&|held| held.path[1].0[31] ^= 1),
                ),
                case(
                    "a commit with another root",
                    stated(&|commit| {
                        commit.receipts = Some(group(4).root());
                    }),
                ),
                case(
                    "a commit of more receipts than there are",
                    stated(&|commit| {
                        commit.receipts = Some(ReceiptsRoot {
                            count: 9,
                            ..group(5).root()
                        });
                    }),
                ),
                case(
                    "a commit of no receipts at all",
                    stated(&|commit| {
                        commit.receipts = Some(ReceiptsRoot {
                            count: 0,
                            ..group(5).root()
                        });
                    }),
                ),
                case(
                    "a commit that speaks of no receipts",
                    stated(&|commit| commit.receipts = None),
                ),
                case(
                    "a commit of another hub",
                    stated(&|commit| {
                        commit.hub = HubId([9; 32]);
                    }),
                ),
                case(
                    "a commit that ends before the receipt's entry",
                    stated(&|commit| {
                        commit.last = 1016;
                    }),
                ),
                case(
                    "a commit that begins after the receipt's entry",
                    stated(&|commit| {
                        commit.first = 1018;
                    }),
                ),
                case(
                    "a commit that ends with another entry than the receipt's",
                    stated(&|commit| {
                        commit.last = 1017;
                    }),
                ),
            ],
        ),
        (
            RefusalCode::Malformed,
            vec![
                case(
                    "a receipt with a path of seventeen steps",
                    held(&|held| held.path = vec![Digest::ZERO; merkle::MAX_PATH + 1]),
                ),
                case(
                    "a receipt with an index that is no number of 32 bits",
                    frame::to_wire(&Answer::Receipt {
                        receipt: Tree::parse(&cbor::encode(&committed_receipt()))
                            .with(&[2], int(1 << 32))
                            .encode(),
                    }),
                ),
                case(
                    "a receipt with a decision that is not assigned",
                    changed(&[7], int(5)),
                ),
                case(
                    "a receipt with a reason that is not assigned",
                    changed(&[8], int(999)),
                ),
                case(
                    "a commit whose digest is too short",
                    signed_commit(&Tree::parse(&commit).with(&[4], bytes(&[0; 31])).encode()),
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
            vec![
                case(
                    "a receipt with an unknown key",
                    alone(&Tree::parse(&payload).and(int(99), int(0)).encode()),
                ),
                case(
                    "a commit with an unknown key",
                    signed_commit(&Tree::parse(&commit).and(int(6), int(0)).encode()),
                ),
            ],
        ),
    ]
}
