use super::*;
use crate::payment::{CardFacts, SealedCard};

pub(crate) fn allowance() -> Allowance {
    Allowance {
        hub: HubId([7; 32]),
        device: DeviceId([1; 32]),
        number: 3,
        amount_minor: 10_000,
        count: 3,
        transaction_ceiling_minor: 5_000,
        card_ceiling_minor: 8_000,
        currency: Currency::EUR,
        schemes: vec![CardScheme::Cb, CardScheme::Visa],
        funding: vec![Funding::Debit],
        entry_modes: vec![EntryMode::Chip, EntryMode::Contactless],
        unverified_tap_ceiling_minor: Some(2_000),
        issued_ms: 1_000_000,
        expires_ms: 2_000_000,
        policy_version: 7,
    }
}

fn request(amount: u64) -> PaymentRequest {
    PaymentRequest {
        payment_id: PaymentId([9; 16]),
        device_sequence: 1,
        amount: amount.into(),
        currency: Currency::EUR,
        order_id: "1".into(),
        card: CardFacts {
            token: "t".into(),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: None,
            bin: None,
            last4: None,
        },
        entry_mode: EntryMode::Chip,
        verification: Verification::OfflinePin,
        cryptogram: Cryptogram::AsksOnline,
        sealed_card_digest: SealedCard {
            salt: [0; 16],
            blob: vec![1],
        }
        .digest(),
        device_time_ms: 1_500_000,
        terms: None,
    }
}

/// One line a case: what is asked, after what, and the reasons against it.
#[test]
fn what_an_allowance_permits_is_a_table() {
    let given = allowance();
    let start = AllowanceChain::new(&given);
    let spent = |index, total_minor| AllowanceChain {
        index,
        total_minor,
        ..start
    };
    let with = |amount, change: fn(&mut PaymentRequest)| {
        let mut request = request(amount);
        change(&mut request);
        request
    };
    let at = 1_500_000;
    let none: fn(&mut PaymentRequest) = |_| {};
    let signed_tap: fn(&mut PaymentRequest) = |r| {
        r.entry_mode = EntryMode::Contactless;
        r.verification = Verification::Signature;
    };
    let tap: fn(&mut PaymentRequest) = |r| {
        r.entry_mode = EntryMode::Contactless;
        r.verification = Verification::None;
    };
    for (name, request, chain, card, at_ms, expected) in [
        ("as large as may be", with(5_000, none), start, 0, at, vec![]),
        (
            "one cent more",
            with(5_001, none),
            start,
            0,
            at,
            vec![Reason::TransactionCeiling],
        ),
        ("all of it", with(5_000, none), spent(2, 5_000), 3_000, at, vec![]),
        (
            "more than all of it",
            with(5_000, none),
            spent(2, 5_001),
            0,
            at,
            vec![Reason::DeviceCeiling],
        ),
        (
            "one payment too many",
            with(1, none),
            spent(3, 3),
            0,
            at,
            vec![Reason::DeviceConsecutiveLimit],
        ),
        (
            "too much of one card",
            with(5_000, none),
            start,
            3_001,
            at,
            vec![Reason::CardCeiling],
        ),
        ("the first instant", with(1, none), start, 0, 1_000_000, vec![]),
        (
            "before it was given",
            with(1, none),
            start,
            0,
            999_999,
            vec![Reason::OfflineTooLong],
        ),
        ("the last instant", with(1, none), start, 0, 1_999_999, vec![]),
        (
            "expired",
            with(1, none),
            start,
            0,
            2_000_000,
            vec![Reason::OfflineTooLong],
        ),
        (
            "before the receipt before it",
            with(1, none),
            AllowanceChain {
                last_ms: at + 1,
                ..start
            },
            0,
            at,
            vec![Reason::OfflineTooLong],
        ),
        ("a tap", with(2_000, tap), start, 0, at, vec![]),
        ("a tap, signed for", with(2_000, signed_tap), start, 0, at, vec![]),
        (
            "a large tap, signed for",
            with(2_001, signed_tap),
            start,
            0,
            at,
            vec![Reason::VerificationRequired],
        ),
        (
            "a large tap",
            with(2_001, tap),
            start,
            0,
            at,
            vec![Reason::VerificationRequired],
        ),
        (
            "the card refused",
            with(1, |r| r.cryptogram = Cryptogram::Refused),
            start,
            0,
            at,
            vec![Reason::CardRefused],
        ),
        (
            "another currency",
            with(1, |r| r.currency = "CHF".parse().unwrap_or(Currency::EUR)),
            start,
            0,
            at,
            vec![Reason::CurrencyNotAccepted],
        ),
        (
            "another scheme",
            with(1, |r| r.card.scheme = CardScheme::Amex),
            start,
            0,
            at,
            vec![Reason::SchemeNotAllowed],
        ),
        (
            "another funding",
            with(1, |r| r.card.funding = Funding::Prepaid),
            start,
            0,
            at,
            vec![Reason::FundingNotAllowed],
        ),
        (
            "typed in",
            with(1, |r| r.entry_mode = EntryMode::Keyed),
            start,
            0,
            at,
            vec![Reason::EntryModeNotAllowed],
        ),
        (
            "a PIN that the bank checks",
            with(1, |r| r.verification = Verification::OnlinePin),
            start,
            0,
            at,
            vec![Reason::OnlinePinNotPossible],
        ),
        (
            "all at once",
            with(9_000, |r| r.entry_mode = EntryMode::Keyed),
            spent(3, 9_999),
            1,
            0,
            vec![
                Reason::OfflineTooLong,
                Reason::EntryModeNotAllowed,
                Reason::TransactionCeiling,
                Reason::CardCeiling,
                Reason::DeviceCeiling,
                Reason::DeviceConsecutiveLimit,
            ],
        ),
    ] {
        assert_eq!(
            given.objections(&request, &chain, card, at_ms),
            expected,
            "{name}"
        );
        assert!(expected.is_sorted(), "{name}: in the order of precedence");
    }
}

#[test]
fn only_sales_by_cards_that_are_still_good_are_approved() {
    use crate::payment::{CardExpiry, Terms};
    let given = allowance();
    let start = AllowanceChain::new(&given);
    let against = |change: fn(&mut Terms)| {
        let mut request = request(1);
        let mut terms = Terms::of(TransactionType::Sale);
        change(&mut terms);
        request.terms = Some(Box::new(terms));
        given.objections(&request, &start, 0, 1_500_000)
    };
    assert_eq!(against(|_| {}), []);
    assert_eq!(against(|t| t.training = true), [Reason::TrainingMode]);
    let type_of: fn(&mut Terms) = |t| t.transaction_type = TransactionType::Refund;
    assert_eq!(against(type_of), [Reason::TransactionTypeNotAllowed]);
    assert_eq!(against(|t| t.card_expiry = Some(CardExpiry(7001))), []);
    // The year 2000 is after 1970; the months themselves are held below.
    for (at_ms, month) in [
        (0, 1970 * 12),
        (1_772_323_199_999, 2026 * 12 + 1),
        (1_772_323_200_000, 2026 * 12 + 2),
        (951_782_400_000, 2000 * 12 + 1),
        (951_868_800_000, 2000 * 12 + 2),
        (1_798_761_599_999, 2026 * 12 + 11),
        (1_798_761_600_000, 2027 * 12),
    ] {
        assert_eq!(month_of(at_ms), month, "{at_ms}");
    }
    let mut late = request(1);
    let mut terms = Terms::of(TransactionType::Sale);
    terms.card_expiry = Some(CardExpiry(2611));
    late.terms = Some(Box::new(terms));
    assert!(!has_expired(&late, 1_796_083_199_999), "30 November 2026");
    assert!(has_expired(&late, 1_796_083_200_000));
}

#[test]
fn amounts_near_the_end_of_their_type_are_refused_and_do_not_wrap() {
    let given = allowance();
    let chain = AllowanceChain {
        total_minor: u64::MAX,
        ..AllowanceChain::new(&given)
    };
    let against = given.objections(&request(1), &chain, u64::MAX, 1_500_000);
    assert_eq!(against, [Reason::CardCeiling, Reason::DeviceCeiling]);
    let receipt = DeviceReceipt {
        amount_minor: 1,
        ..chain.receipt(3, &request(1), b"signed", 1)
    };
    assert!(!chain.is_next(&receipt));
}

#[test]
fn a_chain_takes_its_next_receipt_and_no_other() {
    let given = allowance();
    let start = AllowanceChain::new(&given);
    let first = start.receipt(3, &request(100), b"signed", 1_200_000);
    assert!(first.is_for(&request(100), b"signed"));
    assert!(!first.is_for(&request(101), b"signed") && !first.is_for(&request(100), b"other"));
    assert!(start.is_next(&first));
    let chain = start.after(&first);
    assert_eq!(
        (chain.index, chain.total_minor, chain.last_ms),
        (1, 100, 1_200_000)
    );
    assert!(!chain.is_next(&first), "not twice");
    let second = chain.receipt(3, &request(50), b"signed", 1_300_000);
    assert!(chain.is_next(&second) && !start.is_next(&second));
    for wrong in [
        DeviceReceipt {
            index: 3,
            ..second.clone()
        },
        DeviceReceipt {
            previous: start.head,
            ..second.clone()
        },
        DeviceReceipt {
            total_minor: 151,
            ..second.clone()
        },
    ] {
        assert!(!chain.is_next(&wrong), "{wrong:?}");
    }
    let other = Allowance { number: 4, ..given };
    assert!(
        !AllowanceChain::new(&other).is_next(&first),
        "the chain begins at its own allowance"
    );
    assert!(AllowanceReturn::new(3, &chain).agrees_with(&chain));
    assert!(!AllowanceReturn::new(3, &start).agrees_with(&chain));
}

#[test]
fn what_an_allowance_refuses_is_a_misuse_to_approve() {
    for (reason, kind) in [
        (Reason::OfflineTooLong, AllowanceMisuse::Expired),
        (Reason::TransactionCeiling, AllowanceMisuse::Overspent),
        (Reason::CardCeiling, AllowanceMisuse::Overspent),
        (Reason::DeviceCeiling, AllowanceMisuse::Overspent),
        (Reason::DeviceConsecutiveLimit, AllowanceMisuse::Overspent),
        (Reason::SchemeNotAllowed, AllowanceMisuse::ForeignCardRules),
        (Reason::VerificationRequired, AllowanceMisuse::ForeignCardRules),
        (Reason::CardRefused, AllowanceMisuse::ForeignCardRules),
    ] {
        assert_eq!(AllowanceMisuse::of(reason), kind, "{reason}");
    }
}
