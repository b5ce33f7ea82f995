//! `refusals.json`: bad input, and the number that it gets.

mod build;
mod frames;
mod others;
mod payments;
mod signatures;
mod version_3;
mod version_6;

use std::collections::BTreeSet;

use hub_protocol::*;
use serde::{Deserialize, Serialize};

use crate::files::{committed, hex, hold, unhex};
use crate::judge::{judge_device, judge_hub_4};

#[derive(Serialize, Deserialize)]
struct Bad {
    name: String,
    sent_by: String,
    refusal: u16,
    refusal_name: String,
    wire: String,
}

/// What only a hub with its state can say; the whole-system tests hold these.
const HUB_ONLY: [RefusalCode; 19] = [
    RefusalCode::PaymentIdConflict,
    RefusalCode::PaymentUnknown,
    RefusalCode::PaymentOfOtherDevice,
    RefusalCode::NothingToVoid,
    RefusalCode::VoidBeforeAnswer,
    RefusalCode::PaymentArchived,
    RefusalCode::Busy,
    RefusalCode::Stopping,
    RefusalCode::LedgerUnavailable,
    RefusalCode::TimedOut,
    RefusalCode::EnrolmentUnknown,
    RefusalCode::EnrolmentExpired,
    RefusalCode::EnrolledAlready,
    RefusalCode::DeviceNotAllowed,
    RefusalCode::DevicePending,
    RefusalCode::KeysReplaced,
    RefusalCode::AllowanceNotGiven,
    RefusalCode::AllowanceUnknown,
    RefusalCode::AllowanceNotSynced,
];

fn bad() -> Vec<Bad> {
    let from_device = [
        frames::bad_frames(),
        signatures::bad_signatures(),
        payments::bad_payments(),
        others::bad_enrolments(),
        version_3::bad_terms(),
        version_3::bad_descriptions(),
        version_6::bad_key_changes(),
    ]
    .concat();
    let from_device = from_device.into_iter().map(|group| ("device", group));
    let from_hub = [others::bad_answers(), version_3::bad_receipts()].concat();
    let from_hub = from_hub.into_iter().map(|group| ("hub", group));
    from_device
        .chain(from_hub)
        .flat_map(|(sent_by, (code, cases))| {
            cases.into_iter().map(move |(name, wire)| Bad {
                name,
                sent_by: sent_by.into(),
                refusal: code.number(),
                refusal_name: code.name().into(),
                wire: hex(&wire),
            })
        })
        .collect()
}

#[test]
fn the_committed_bad_input_is_what_the_code_makes() {
    hold("refusals.json", &bad());
}

#[test]
fn every_committed_bad_input_gets_its_own_number() {
    let mut seen = BTreeSet::new();
    let mut names = BTreeSet::new();
    for vector in committed::<Vec<Bad>>("refusals.json") {
        let wire = unhex(&vector.wire);
        let judged = match vector.sent_by.as_str() {
            "device" => judge_hub_4(&wire).map(drop),
            _ => judge_device(&wire).map(drop),
        };
        let code = judged.expect_err(&vector.name).code;
        assert_eq!(
            (code.number(), code.name()),
            (vector.refusal, vector.refusal_name.as_str()),
            "{}",
            vector.name
        );
        seen.insert(code);
        assert!(
            names.insert(vector.name.clone()),
            "two cases are called {}",
            vector.name
        );
    }
    let hub_only = BTreeSet::from(HUB_ONLY);
    assert!(
        seen.is_disjoint(&hub_only),
        "a code of the hub's own has a vector: take it off the list"
    );
    let all: BTreeSet<_> = RefusalCode::ALL.iter().copied().collect();
    assert_eq!(
        &seen | &hub_only,
        all,
        "every refusal has a vector or is the hub's own"
    );
}
