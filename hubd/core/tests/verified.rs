//! Who counts as verified: by a PIN that was entered where it may be, or on
//! the customer's own device.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_protocol::{EntryMode, PaymentRequest, Reason, Terms, TransactionType, Verification};
use support::{MPOS, POLICY, SOFTPOS, Shop, request};

fn pay(
    shop: &mut Shop,
    number: u64,
    amount: u64,
    entry_mode: EntryMode,
    verification: Verification,
) -> Reason {
    let asked = PaymentRequest {
        entry_mode,
        verification,
        // So that receipts give the ledger's reason.
        terms: Some(Box::new(Terms::of(TransactionType::Sale))),
        ..request(number, amount, "card")
    };
    shop.pay(MPOS, &asked).reason
}

/// Taps up to 50,00, 100,00 in all, or 3 in a row.
fn policy() -> String {
    let text = POLICY
        .replace(
            "[card]\n",
            "[card]\ncontactless_cumulative_ceiling = 10000\ncontactless_consecutive_limit = 3\n",
        )
        .replace(
            "entry_modes = [\"chip\", \"contactless\"]",
            "entry_modes = [\"chip\", \"contactless\", \"keyed\"]",
        );
    assert!(text.contains("keyed") && text.contains("consecutive_limit = 3"));
    text
}

/// RTS (EU) 2018/389, article 11: a signature is no strong authentication.
#[test]
fn a_signature_on_a_tap_counts_as_a_tap() {
    use EntryMode::Contactless as Tap;
    use Verification::{None as Untold, Signature as Signed};
    let mut shop = Shop::offline_under(&policy());
    assert_eq!(
        pay(&mut shop, 1, 5_001, Tap, Signed),
        Reason::VerificationRequired
    );
    assert_eq!(pay(&mut shop, 2, 4_000, Tap, Signed), Reason::None);
    assert_eq!(pay(&mut shop, 3, 4_000, Tap, Untold), Reason::None);
    assert_eq!(
        pay(&mut shop, 4, 2_001, Tap, Signed),
        Reason::CardContactlessLimit
    );
    assert_eq!(pay(&mut shop, 5, 2_000, Tap, Signed), Reason::None);
    assert_eq!(pay(&mut shop, 6, 1, Tap, Untold), Reason::CardContactlessLimit);
    assert_eq!(pay(&mut shop, 7, 1, EntryMode::Chip, Signed), Reason::None);
}

/// No reader makes a payment that was typed in and verified by a PIN.
#[test]
fn a_number_typed_in_is_never_verified() {
    for said in [Verification::OfflinePin, Verification::Cdcvm] {
        let mut shop = Shop::offline_under(&policy());
        for number in 1..=3 {
            let tapped = pay(&mut shop, number, 100, EntryMode::Contactless, Verification::None);
            assert_eq!(tapped, Reason::None);
        }
        assert_eq!(pay(&mut shop, 4, 100, EntryMode::Keyed, said), Reason::None);
        let tapped = pay(&mut shop, 5, 100, EntryMode::Contactless, Verification::None);
        assert_eq!(
            tapped,
            Reason::CardContactlessLimit,
            "{said}: the taps are not forgotten"
        );
    }
}

#[test]
fn rule_5_without_a_model_that_says_so_no_pin_is_taken_on_glass() {
    let mut shop = Shop::offline();
    let pin = |number| PaymentRequest {
        verification: Verification::OfflinePin,
        terms: Some(Box::new(Terms::of(TransactionType::Sale))),
        ..request(number, 1_000, "card")
    };
    assert_eq!(shop.pay(SOFTPOS, &pin(1)).reason, Reason::PinOnGlassNotAllowed);
    assert_eq!(shop.pay(MPOS, &pin(2)).reason, Reason::None, "it has a reader");
}
