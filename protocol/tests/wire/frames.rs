//! `frames.json`: every frame as it is on the wire.

use hub_protocol::cose::{self, ObjectType};
use hub_protocol::*;
use serde::{Deserialize, Serialize};

use crate::files::{committed, hex, hold, unhex};
use crate::fixtures::*;
use crate::judge::{judge_device, judge_hub};
use crate::tree::diagnostic;

#[derive(Serialize, Deserialize)]
struct Frame {
    name: String,
    number: i128,
    sent_by: String,
    diagnostic: String,
    wire: String,
}

pub(crate) fn pay() -> Request {
    Request::Pay {
        request: signed_payment(),
        sealed_card: sealed_card(),
    }
}

fn signed<T: minicbor::Encode<()>>(object: ObjectType, value: &T) -> Vec<u8> {
    cose::sign(&hub_key(), object, &cbor::encode(value))
}

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    vec![
        (
            "hello",
            Request::Hello {
                app: "acme-pos 3.2".into(),
            },
        ),
        ("pay", pay()),
        (
            "pay, the card in its envelope",
            Request::Pay {
                request: cose::sign(
                    &device_key(),
                    ObjectType::PaymentRequest,
                    &cbor::encode(&PaymentRequest {
                        sealed_card_digest: enveloped_card().digest(),
                        ..payment_full()
                    }),
                ),
                sealed_card: enveloped_card(),
            },
        ),
        (
            "void",
            Request::Void {
                request: signed_void(),
            },
        ),
        (
            "status",
            Request::Status {
                payment_id: payment_id(),
            },
        ),
        (
            "enrol",
            Request::Enrol {
                request: cose::sign(
                    &device_key(),
                    ObjectType::Enrolment,
                    &cbor::encode(&enrolment_request()),
                ),
            },
        ),
        (
            "describe",
            Request::Describe {
                description: signed_description(),
                attestation: Some(signed_attestation()),
            },
        ),
        (
            "describe without an attestation result",
            Request::Describe {
                description: signed_description(),
                attestation: None,
            },
        ),
        ("allowance, the first", Request::Allowance { closed: None }),
        ("allowance, another", Request::Allowance { closed: Some(2) }),
        (
            "sync",
            Request::Sync {
                number: 3,
                request: signed_payment(),
                sealed_card: sealed_card(),
                receipt: signed_device_receipt(),
            },
        ),
        (
            "return",
            Request::Return {
                statement: signed_return(),
            },
        ),
        ("keys", Request::Keys { known: 0 }),
        (
            "change keys",
            Request::ChangeKeys {
                change: signed_device_key_change(),
            },
        ),
    ]
}

pub(crate) fn answers() -> Vec<(&'static str, Answer)> {
    let receipt = || cbor::encode(&committed_receipt());
    let restated = || {
        let receipt = &receipts()[1].1;
        cbor::encode(&CommittedReceipt::restated(
            &hub_key(),
            receipt,
            2000,
            Digest([0xef; 32]),
        ))
    };
    let status = |state| {
        let found = statuses().into_iter().find(|status| status.state == state);
        signed(ObjectType::Status, &found.unwrap())
    };
    vec![
        ("hello", Answer::Hello { info: hub_info() }),
        ("receipt", Answer::Receipt { receipt: receipt() }),
        (
            "status with a receipt",
            Answer::Status {
                status: status(PaymentState::Queued),
                receipt: Some(restated()),
            },
        ),
        (
            "status before the decision",
            Answer::Status {
                status: status(PaymentState::Open),
                receipt: None,
            },
        ),
        (
            "enrolled",
            Answer::Enrolled {
                registration: signed(ObjectType::Registration, &registration()),
            },
        ),
        ("described", Answer::Described { attested: true }),
        (
            "allowance",
            Answer::Allowance {
                allowance: signed(ObjectType::Allowance, &allowance()),
                chain: AllowanceChain::new(&allowance()),
            },
        ),
        ("synced", Answer::Synced { receipt: receipt() }),
        ("returned", Answer::Returned { number: 3 }),
        (
            "keys",
            Answer::Keys {
                changes: vec![signed_hub_key_change()],
            },
        ),
        ("keys, none new", Answer::Keys { changes: vec![] }),
        ("keys changed", Answer::KeysChanged { number: 1 }),
        (
            "refused",
            Answer::Refused {
                refusal: Refusal::new(RefusalCode::Busy, "try again in a second"),
            },
        ),
    ]
}

pub(crate) fn pushes() -> Vec<(&'static str, Push)> {
    let settled = statuses()
        .into_iter()
        .find(|status| status.state == PaymentState::Settled);
    vec![
        (
            "status",
            Push::Status {
                status: signed(ObjectType::Status, &settled.unwrap()),
            },
        ),
        ("policy", Push::Policy { version: 8 }),
        (
            "key changed",
            Push::KeyChanged {
                change: signed_hub_key_change(),
            },
        ),
        (
            "TLS keys",
            Push::TlsKeys {
                keys: hub_tls_keys().sign(&next_hub_key()),
            },
        ),
    ]
}

fn frame<T: minicbor::Encode<()>>(kind: &str, name: &str, sent_by: &str, value: &T) -> Frame {
    let wire = frame::to_wire(value);
    let number = match crate::tree::Tree::parse(&wire[4..]) {
        crate::tree::Tree::Array(parts) => match parts[..] {
            [crate::tree::Tree::Int(number), crate::tree::Tree::Map(_)] => number,
            _ => panic!("a frame is a number and a map"),
        },
        _ => panic!("a frame is an array"),
    };
    Frame {
        name: format!("{kind}: {name}"),
        number,
        sent_by: sent_by.into(),
        diagnostic: diagnostic(&wire[4..]),
        wire: hex(&wire),
    }
}

fn frames() -> Vec<Frame> {
    let requests = requests();
    let (answers, pushes) = (answers(), pushes());
    let requests = requests
        .iter()
        .map(|(name, value)| frame("request", name, "device", value));
    let answers = answers
        .iter()
        .map(|(name, value)| frame("answer", name, "hub", value));
    let pushes = pushes
        .iter()
        .map(|(name, value)| frame("push", name, "hub, on a stream it opens", value));
    requests.chain(answers).chain(pushes).collect()
}

#[test]
fn the_committed_frames_are_what_the_code_makes() {
    hold("frames.json", &frames());
}

#[test]
fn every_committed_frame_is_accepted_by_whom_it_is_sent_to_and_nobody_else() {
    let mut seen = Vec::new();
    for vector in committed::<Vec<Frame>>("frames.json") {
        let wire = unhex(&vector.wire);
        let push = frame::from_wire::<Push>(&wire).map(drop);
        let results = [judge_hub(&wire).map(drop), judge_device(&wire).map(drop), push];
        let own = match vector.number {
            1..=99 => 0,
            100..=199 => 1,
            _ => 2,
        };
        for (place, result) in results.into_iter().enumerate() {
            let expected = if place == own {
                Ok(())
            } else {
                Err(RefusalCode::UnknownFrame)
            };
            assert_eq!(
                result.map_err(|refusal| refusal.code),
                expected,
                "{}",
                vector.name
            );
        }
        seen.push(vector.number);
    }
    // Every frame of the protocol is there: a new one has no vector yet.
    seen.dedup();
    assert_eq!(
        seen,
        [
            1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 101, 102, 103, 105, 106, 107, 108, 109, 110, 111, 199, 201,
            202, 203, 204
        ]
    );
    let known = |number: i128| {
        let body = crate::tree::Tree::Array(vec![crate::tree::int(number), crate::tree::Tree::Map(vec![])]);
        let wire = crate::judge::wire(&body.encode());
        let unknown = |result: Result<(), Refusal>| {
            result.is_err_and(|refusal| refusal.code == RefusalCode::UnknownFrame)
        };
        !(unknown(frame::from_wire::<Request>(&wire).map(drop))
            && unknown(frame::from_wire::<Answer>(&wire).map(drop))
            && unknown(frame::from_wire::<Push>(&wire).map(drop)))
    };
    let all: Vec<i128> = (0..=1000).filter(|number| known(*number)).collect();
    assert_eq!(all, seen);
}

#[test]
fn every_frame_that_the_protocol_allows_fits_into_its_bound() {
    let mut request = payment_full();
    request.device_sequence = u64::MAX;
    request.device_time_ms = u64::MAX;
    request.amount = MAX_AMOUNT_MINOR.into();
    request.order_id = "o".repeat(64);
    request.card.token = "t".repeat(64);
    let card = SealedCard {
        salt: [0; 16],
        blob: vec![0; payment::MAX_SEALED_CARD],
    };
    request.sealed_card_digest = card.digest();
    let signed = cose::sign(&device_key(), ObjectType::PaymentRequest, &cbor::encode(&request));
    let wire = frame::to_wire(&Request::Pay {
        request: signed,
        sealed_card: card,
    });
    assert!(judge_hub(&wire).is_ok());
    // Room for what later versions add; the document states the size.
    assert_eq!(wire.len(), 1407);
}
