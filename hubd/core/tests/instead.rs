//! What the cashier is told to do instead: only what can be done at that
//! device, and what would pass.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

#[allow(dead_code)]
#[path = "decisions/cases.rs"]
mod cases;

use cases::{Case, Change, TAPPED, at_risk, lower, scored, signed_for, tapped, typed_in, usual};
use hub_core::decide::{Situation, decide_offline};
use hub_core::policy::ceilings::{Ceiling, Fits};
use hub_protocol::{Decision, DeviceClass, EntryMode, FallbackAction, Reason, Verification};

type Told = (Decision, Reason, Option<FallbackAction>);

const INSERT: Option<FallbackAction> = Some(FallbackAction::InsertCard);
const PIN: Option<FallbackAction> = Some(FallbackAction::InsertCardEnterPin);

fn told(change: impl FnOnce(&mut Case<'_>)) -> Told {
    let mut case = usual();
    change(&mut case);
    let situation = Situation {
        policy: Some(&case.policy),
        ..case.situation
    };
    let record = decide_offline(&case.request, &situation);
    (record.decision, record.reason, record.fallback)
}

fn untold(c: &mut Case<'_>) {
    c.request.verification = Verification::None;
}

fn amount(c: &mut Case<'_>, minor: u64) {
    c.request.amount = minor.into();
}

fn without_chips(c: &mut Case<'_>) {
    c.policy
        .offline
        .entry_modes
        .retain(|mode| *mode != EntryMode::Chip);
}

/// 20,00 for payments verified like this.
fn little(c: &mut Case<'_>, verification: Verification) {
    c.policy.ceilings.push(Ceiling {
        fits: Fits {
            verification: Some(verification),
            ..Fits::default()
        },
        amount_minor: 2_000,
    });
}

fn third_in_a_row(c: &mut Case<'_>) {
    lower(c);
    signed_for(c);
    c.situation.card = at_risk(0, 2);
}

fn risky(c: &mut Case<'_>) {
    scored(c);
    signed_for(c);
    c.situation.card_known = false;
}

fn by_issuer(c: &mut Case<'_>) {
    c.request.verification = Verification::OnlinePin;
}

fn stripe(c: &mut Case<'_>) {
    c.request.entry_mode = EntryMode::MagneticStripe;
}

const fn way(reason: Reason, action: Option<FallbackAction>) -> Told {
    (Decision::Fallback, reason, action)
}

const fn no(reason: Reason) -> Told {
    (Decision::Declined, reason, None)
}

/// At an mPOS: 100,00, and taps up to 50,00.
#[rustfmt::skip]
const TABLE: &[(&str, Change, Told)] = &[
    ("magnetic stripe",                         |c| stripe(c),                                                     way(Reason::EntryModeNotAllowed, INSERT)),
    ("the same, no chip is accepted",           |c| { stripe(c); without_chips(c); },                              no(Reason::EntryModeNotAllowed)),
    ("the same, too much for a chip",           |c| { stripe(c); amount(c, 10_001); },                             no(Reason::EntryModeNotAllowed)),
    ("an inserted chip where none is accepted", |c| { without_chips(c); c.request.entry_mode = EntryMode::Chip; }, no(Reason::EntryModeNotAllowed)),
    ("the issuer's PIN",                        |c| by_issuer(c),                                                  way(Reason::OnlinePinNotPossible, PIN)),
    ("the issuer's PIN: 100,00",                |c| { by_issuer(c); amount(c, 10_000); },                          way(Reason::OnlinePinNotPossible, PIN)),
    ("the issuer's PIN: 100,01",                |c| { by_issuer(c); amount(c, 10_001); },                          no(Reason::TransactionCeiling)),
    ("the issuer's PIN, no chip is accepted",   |c| { by_issuer(c); without_chips(c); },                           no(Reason::OnlinePinNotPossible)),
    ("a tap of 50,01",                          |c| { untold(c); amount(c, 5_001); },                              way(Reason::VerificationRequired, PIN)),
    ("the same, no chip is accepted",           |c| { untold(c); amount(c, 5_001); without_chips(c); },            no(Reason::VerificationRequired)),
    ("the same, 20,00 with the PIN",            |c| { untold(c); amount(c, 5_001); little(c, Verification::OfflinePin); }, no(Reason::VerificationRequired)),
    ("and 20,00 by the customer's device",      |c| { untold(c); amount(c, 5_001); little(c, Verification::OfflinePin); little(c, Verification::Cdcvm); }, no(Reason::TransactionCeiling)),
    ("no chip, 20,00 by the customer's device", |c| { untold(c); amount(c, 5_001); without_chips(c); little(c, Verification::Cdcvm); }, no(Reason::TransactionCeiling)),
    ("50,00 of both: the tap's own ceiling",    |c| { untold(c); amount(c, 5_000); little(c, Verification::OfflinePin); little(c, Verification::Cdcvm); }, (Decision::ApprovedOffline, Reason::None, None)),
    ("20,01 untold, more by the customer's device", |c| { untold(c); little(c, Verification::None); without_chips(c); amount(c, 2_001); }, no(Reason::VerificationRequired)),
    ("the chip's PIN, more by the customer's device", |c| { c.request.entry_mode = EntryMode::Chip; c.request.verification = Verification::OfflinePin; little(c, Verification::OfflinePin); amount(c, 2_001); }, no(Reason::TransactionCeiling)),
    ("clock in doubt, the issuer's PIN: 50,00", |c| { by_issuer(c); c.situation.clock_suspect = true; amount(c, 5_000); }, way(Reason::OnlinePinNotPossible, PIN)),
    ("clock in doubt, the issuer's PIN: 50,01", |c| { by_issuer(c); c.situation.clock_suspect = true; amount(c, 5_001); }, no(Reason::TransactionCeiling)),
    ("one tap too many",                        |c| tapped(c, &TAPPED[3]),                                         way(Reason::CardContactlessLimit, PIN)),
    ("the same, no chip is accepted",           |c| { tapped(c, &TAPPED[3]); without_chips(c); },                  no(Reason::CardContactlessLimit)),
    ("the same, above 100,00",                  |c| { tapped(c, &TAPPED[3]); without_chips(c); c.policy.offline.contactless_unverified_ceiling = None; amount(c, 10_001); }, no(Reason::TransactionCeiling)),
    ("signed for, 3rd in a row",                |c| third_in_a_row(c),                                             way(Reason::CardConsecutiveLowerLimit, PIN)),
    ("the same, no chip is accepted",           |c| { third_in_a_row(c); without_chips(c); },                      no(Reason::CardConsecutiveLowerLimit)),
    ("the same, 20,00 with the PIN",            |c| { third_in_a_row(c); amount(c, 2_001); little(c, Verification::OfflinePin); }, no(Reason::CardConsecutiveLowerLimit)),
    ("typed in, nothing else is accepted",      |c| { third_in_a_row(c); typed_in(c, Verification::None); c.policy.offline.entry_modes = vec![EntryMode::Keyed]; }, no(Reason::TransactionCeiling)),
    ("a risk",                                  |c| risky(c),                                                      way(Reason::ScoreVerification, PIN)),
    ("the same, no chip is accepted",           |c| { risky(c); without_chips(c); },                               no(Reason::ScoreVerification)),
    ("a signed chip, 3rd in a row",             |c| { third_in_a_row(c); c.request.entry_mode = EntryMode::Chip; }, way(Reason::CardConsecutiveLowerLimit, PIN)),
];

#[test]
fn a_fallback_is_given_only_where_it_would_pass() {
    for (what, change, expected) in TABLE {
        assert_eq!(told(change), *expected, "{what}");
    }
}

/// A phone alone has no slot: whoever takes a PIN on its glass is told why,
/// and the others to use the customer's device or another device of the shop.
#[test]
fn nobody_is_told_to_insert_a_card_into_a_phone() {
    let asks: [(&str, Change, Reason); 6] = [
        ("the issuer's PIN", by_issuer, Reason::OnlinePinNotPossible),
        (
            "a large tap",
            |c| {
                untold(c);
                c.policy.offline.contactless_unverified_ceiling = Some(1_000);
            },
            Reason::VerificationRequired,
        ),
        (
            "one tap too many",
            |c| tapped(c, &TAPPED[3]),
            Reason::CardContactlessLimit,
        ),
        ("3rd in a row", third_in_a_row, Reason::CardConsecutiveLowerLimit),
        ("a risk", risky, Reason::ScoreVerification),
        ("magnetic stripe", stripe, Reason::EntryModeNotAllowed),
    ];
    for (what, change, reason) in asks {
        for on_glass in [false, true] {
            let told = told(|c| {
                change(c);
                c.situation.class = DeviceClass::Softpos;
                c.situation.standing.pin_on_glass = on_glass;
            });
            let expected = match on_glass {
                false if reason != Reason::EntryModeNotAllowed => Reason::PinOnGlassNotAllowed,
                _ => reason,
            };
            assert_eq!(told, no(expected), "{what}, PIN on glass: {on_glass}");
        }
    }
}

#[test]
fn at_a_phone_the_pin_is_that_of_a_tap() {
    let at_phone = |minor, modes: &[EntryMode]| {
        told(|c| {
            c.situation.class = DeviceClass::Softpos;
            c.situation.standing.pin_on_glass = true;
            c.policy.offline.entry_modes = modes.to_vec();
            c.policy.ceilings.push(Ceiling {
                fits: Fits {
                    entry_mode: Some(EntryMode::Chip),
                    verification: Some(Verification::OfflinePin),
                    ..Fits::default()
                },
                amount_minor: 20_000,
            });
            untold(c);
            amount(c, minor);
        })
    };
    let modes = [EntryMode::Chip, EntryMode::Contactless];
    assert_eq!(
        at_phone(5_001, &modes),
        no(Reason::TransactionCeiling),
        "no chip is read there"
    );
    assert_eq!(at_phone(5_000, &modes).1, Reason::None);
}

/// What the cashier reads must be true at every device that gets the reason.
#[test]
fn no_text_sends_everybody_to_insert_the_card() {
    for reason in Reason::ALL {
        for (text, insert) in [(reason.text_fr(), "nsérez"), (reason.text_en(), "nsert the card")] {
            assert!(!text.contains(insert), "{reason}: {text}");
        }
    }
}
