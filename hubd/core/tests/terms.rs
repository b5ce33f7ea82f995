//! What wire version 3 states beside a payment: who stands at the device, what
//! it is, a supervisor's word.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use ed25519_dalek::SigningKey;
use hub_core::state::StaffKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::entry::{Event, Lifted};
use hub_protocol::{
    Cryptogram, Decision, DeviceId, Entry, KeyId, Override, PaymentRequest, Reason, Terms, TransactionType,
    Verification, cbor,
};
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, request};

fn supervisor() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

/// The cautious policy; a member of staff may have 50,00 and 3 in a row.
fn with_staff() -> String {
    format!("{POLICY}\n[staff]\nexposure_ceiling = 5000\nconsecutive_limit = 3\n")
}

/// The cautious policy; a card's 2nd in a row needs the PIN or a supervisor,
/// who may be asked twice an hour.
fn with_overrides() -> String {
    let key: String = supervisor()
        .verifying_key()
        .to_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let lower = POLICY.replace(
        "[card]\nexposure_ceiling = 15000",
        "[card]\nconsecutive_lower_limit = 1\nexposure_ceiling = 15000",
    );
    assert_ne!(lower, POLICY);
    format!(
        "{lower}\n[override]\nwindow_count = 2\nwindow_minutes = 60\n\
         [[override.supervisor]]\nname = \"Claire\"\nkey = \"{key}\"\n"
    )
}

fn by(staff: Option<&str>, number: u64, amount: u64) -> PaymentRequest {
    PaymentRequest {
        terms: Some(Box::new(Terms {
            staff: staff.map(str::to_owned),
            ..Terms::of(TransactionType::Sale)
        })),
        ..request(number, amount, &format!("card {number}"))
    }
}

/// Signed for, with an override for this device by this key.
fn overridden(device: DeviceId, number: u64, key: &SigningKey, change: fn(&mut Override)) -> PaymentRequest {
    let asked = request(number, 1_000, "card");
    let mut said = Override {
        payment_id: asked.payment_id,
        device,
        amount_minor: 1_000,
        currency: asked.currency,
        time_ms: 0,
    };
    change(&mut said);
    PaymentRequest {
        verification: Verification::Signature,
        terms: Some(Box::new(Terms {
            supervisor: Some(cose::sign(key, ObjectType::Override, &cbor::encode(&said))),
            ..Terms::of(TransactionType::Sale)
        })),
        ..asked
    }
}

fn plain(number: u64) -> PaymentRequest {
    PaymentRequest {
        verification: Verification::Signature,
        ..request(number, 1_000, "card")
    }
}

#[test]
fn rule_4_a_member_of_staff_has_one_ceiling_at_all_devices() {
    let mut shop = Shop::offline_under(&with_staff());
    assert_eq!(shop.pay(MPOS, &by(Some("anna"), 1, 3_000)).reason, Reason::None);
    assert_eq!(
        shop.pay(SOFTPOS, &by(Some("anna"), 2, 2_001)).reason,
        Reason::StaffCeiling
    );
    assert_eq!(
        shop.pay(SOFTPOS, &by(Some("anna"), 3, 2_000)).reason,
        Reason::None
    );
    assert_eq!(shop.pay(MPOS, &by(Some("bob"), 4, 5_000)).reason, Reason::None);
    let anna = shop.core.state().staff(StaffKey::of(Some("anna")));
    assert_eq!((anna.exposure_minor, anna.consecutive), (5_000, 2));
    shop.crash();
    assert_eq!(
        shop.core.state().staff(StaffKey::of(Some("anna"))),
        anna,
        "a restart changes nothing"
    );
}

#[test]
fn rule_5_payments_that_name_nobody_count_as_one_persons() {
    let mut shop = Shop::offline_under(&with_staff());
    assert_eq!(shop.pay(MPOS, &by(None, 1, 3_000)).reason, Reason::None);
    let older = shop.pay(SOFTPOS, &request(2, 2_001, "card 2"));
    assert_eq!(
        older.reason,
        Reason::StoreCeiling,
        "as receipts of version 2 say it"
    );
    assert_eq!(
        shop.pay(SOFTPOS, &request(3, 2_000, "card 3")).reason,
        Reason::None
    );
    assert_eq!(shop.core.state().staff(StaffKey::NOBODY).exposure_minor, 5_000);
}

#[test]
fn who_has_nothing_at_risk_is_not_remembered() {
    let mut shop = Shop::offline_under(&with_staff());
    shop.pay(MPOS, &by(Some("anna"), 1, 3_000));
    shop.go_online();
    shop.gateway(approved());
    assert_eq!(shop.core.state().staff(StaffKey::of(Some("anna"))).consecutive, 0);
    shop.core.state_mut().take_dirty();
    let online = shop.send(MPOS, &by(Some("anna"), 2, 9_000));
    shop.gateway(approved());
    assert_eq!(shop.receipt(online).decision, Decision::ApprovedOnline);
    let changed = shop.core.state_mut().take_dirty();
    assert!(
        changed.iter().all(|(key, _)| key.first() != Some(&b't')),
        "{changed:?}"
    );
}

#[test]
fn a_receipt_for_stated_terms_says_what_it_was_and_gives_the_ledgers_reason() {
    let mut shop = Shop::offline();
    let mut refund = by(None, 1, 1_000);
    refund.terms.as_mut().unwrap().transaction_type = TransactionType::Refund;
    let receipt = shop.pay(MPOS, &refund);
    assert_eq!(receipt.reason, Reason::TransactionTypeNotAllowed);
    assert_eq!(receipt.transaction_type, Some(TransactionType::Refund));
    shop.crash();
    assert_eq!(shop.pay(MPOS, &refund), receipt);
    assert_eq!(shop.pay(MPOS, &request(2, 1_000, "card")).transaction_type, None);
}

#[test]
fn training_is_never_charged_nor_counted() {
    for mut shop in [Shop::offline(), Shop::online()] {
        for cryptogram in [Cryptogram::AsksOnline, Cryptogram::CardApproved] {
            let number = 1 + u64::from(cryptogram.number());
            let mut practice = by(Some("anna"), number, 1_000);
            practice.cryptogram = cryptogram;
            practice.terms.as_mut().unwrap().training = true;
            let receipt = shop.pay(MPOS, &practice);
            assert_eq!(
                (receipt.decision, receipt.reason),
                (Decision::Declined, Reason::TrainingMode)
            );
        }
        assert!(shop.forwards.is_empty(), "the gateway is not asked");
        assert_eq!(shop.core.state().store().subject.exposure_minor, 0);
    }
}

#[test]
fn an_override_lets_a_lower_limit_pass_and_is_counted() {
    let mut shop = Shop::offline_under(&with_overrides());
    let key = supervisor();
    assert_eq!(shop.pay(MPOS, &plain(1)).reason, Reason::None);
    assert_eq!(shop.pay(MPOS, &plain(2)).decision, Decision::Fallback);
    for number in [3, 4] {
        let receipt = shop.pay(MPOS, &overridden(MPOS, number, &key, |_| {}));
        assert_eq!(receipt.decision, Decision::ApprovedOffline, "{number}");
    }
    let lifted = Lifted {
        reason: Reason::CardConsecutiveLowerLimit,
        supervisor: KeyId::of_key(key.verifying_key().as_bytes()),
    };
    let entries = shop
        .disk
        .iter()
        .map(|entry| cbor::decode::<Entry>(entry).unwrap());
    let all: Vec<Lifted> = entries
        .filter_map(|entry| match entry.event {
            Event::PaymentDecided { record, .. } => record.lifted,
            _ => None,
        })
        .collect();
    assert_eq!(all, [lifted, lifted], "whose word it was stands in the ledger");
    shop.crash();
    let third = shop.pay(MPOS, &overridden(MPOS, 5, &key, |_| {}));
    assert_eq!(third.reason, Reason::CardConsecutiveLowerLimit, "twice an hour");
    shop.pass(3_600_000);
    let later = shop.pay(MPOS, &overridden(MPOS, 6, &key, |_| {}));
    assert_eq!(later.decision, Decision::ApprovedOffline);
}

#[test]
fn rule_5_an_override_of_something_else_or_of_somebody_else_lifts_nothing() {
    let mut shop = Shop::offline_under(&with_overrides());
    shop.pay(MPOS, &plain(1));
    let (key, other) = (supervisor(), SigningKey::from_bytes(&[78; 32]));
    let cases = [
        ("another key", overridden(MPOS, 2, &other, |_| {})),
        ("another device", overridden(SOFTPOS, 3, &key, |_| {})),
        (
            "another amount",
            overridden(MPOS, 4, &key, |said| said.amount_minor = 999),
        ),
        (
            "another payment",
            overridden(MPOS, 5, &key, |said| said.payment_id.0[0] ^= 1),
        ),
        (
            "another currency",
            overridden(MPOS, 6, &key, |said| said.currency = "CHF".parse().unwrap()),
        ),
    ];
    for (what, asked) in cases {
        assert_eq!(
            shop.pay(MPOS, &asked).reason,
            Reason::CardConsecutiveLowerLimit,
            "{what}"
        );
    }
    let mut garbage = overridden(MPOS, 7, &key, |_| {});
    garbage.terms.as_mut().unwrap().supervisor = Some(vec![0xd2, 0x84]);
    assert_eq!(shop.pay(MPOS, &garbage).reason, Reason::CardConsecutiveLowerLimit);
}
