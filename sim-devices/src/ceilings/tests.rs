use std::time::Duration;

use super::*;
use crate::limits::ClassLimits;
use crate::sample::{booked, told};

/// Card 25.00 and 3 in a row, device 40.00 and 5, store 60.00 and 6, one
/// payment 20.00.
fn limits() -> Limits {
    let subject = |exposure, consecutive| SubjectLimits {
        exposure,
        consecutive,
    };
    Limits {
        card: subject(2500, 3),
        store: subject(6000, 6),
        classes: [ClassLimits {
            transaction: 2000,
            device: subject(4000, 5),
        }; 3],
        ..Limits::demo()
    }
}

/// A payment of `amount` by card `card` on device `device`.
fn paid(number: u8, amount: u64, card: &str, device: u8) -> Told {
    let mut told = told(number);
    told.amount_minor = amount;
    told.card.token = card.to_owned();
    told.device = DeviceId([device; 32]);
    told
}

fn words(told: &[Told], book: &[Booked], outages: &[Outage]) -> Vec<String> {
    breaches(&limits(), told, book, outages)
        .into_iter()
        .map(|b| b.what)
        .collect()
}

#[test]
fn rule_4_an_exposure_equal_to_its_ceiling_passes_and_one_cent_more_is_a_breach() {
    assert!(words(&[paid(1, 1500, "a", 1), paid(2, 1000, "a", 1)], &[], &[]).is_empty());
    let found = words(&[paid(1, 1500, "a", 1), paid(2, 1001, "a", 2)], &[], &[]);
    assert_eq!(found, ["card a: 2501 unsettled, ceiling 2500"]);
}

#[test]
fn rule_4_device_and_store_ceilings_are_held_across_cards() {
    let device: Vec<Told> = (1..=3).map(|n| paid(n, 1400, &format!("c{n}"), 1)).collect();
    assert_eq!(words(&device, &[], &[]).len(), 1);
    assert!(words(&device, &[], &[])[0].starts_with("device"));
    let store: Vec<Told> = (1..=5).map(|n| paid(n, 1300, &format!("c{n}"), n)).collect();
    assert_eq!(
        words(&store, &[], &[]),
        ["the store: 6500 unsettled, ceiling 6000"]
    );
}

#[test]
fn rule_4_counts_in_a_row_are_held() {
    let card: Vec<Told> = (1..=4).map(|n| paid(n, 1, "a", n)).collect();
    assert_eq!(words(&card, &[], &[]), ["card a: 4 offline in a row, limit 3"]);
    let device: Vec<Told> = (1..=6).map(|n| paid(n, 1, &format!("c{n}"), 1)).collect();
    assert!(words(&device, &[], &[])[0].contains("6 offline in a row, limit 5"));
    let store: Vec<Told> = (1..=7).map(|n| paid(n, 1, &format!("c{n}"), n)).collect();
    assert_eq!(
        words(&store, &[], &[]),
        ["the store: 7 offline in a row, limit 6"]
    );
}

#[test]
fn one_payment_above_the_ceiling_of_its_class_is_a_breach() {
    assert_eq!(
        words(&[paid(1, 2001, "a", 1)], &[], &[]),
        ["2001 in one payment on terminal, ceiling 2000"]
    );
}

#[test]
fn what_the_policy_does_not_take_offline_is_a_breach() {
    use hub_protocol::{CardScheme, Funding};
    let mut wrong = paid(1, 10, "a", 1);
    wrong.card.scheme = CardScheme::Amex;
    wrong.card.funding = Funding::Prepaid;
    wrong.gesture.cryptogram = Cryptogram::Refused;
    wrong.gesture.verification = Verification::OnlinePin;
    wrong.gesture.entry_mode = EntryMode::MagneticStripe;
    assert_eq!(words(&[wrong], &[], &[]).len(), 5);
}

#[test]
fn the_order_is_the_ledgers_sequence_and_only_offline_approvals_weigh() {
    use crate::sample::answered;
    use hub_protocol::Decision;
    let mut online = answered(2, Decision::ApprovedOnline);
    online.amount_minor = 90_000;
    let listed = [paid(3, 1001, "a", 1), online, paid(1, 1500, "a", 2)];
    let found = breaches(&limits(), &listed, &[], &[]);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].payment_id, listed[0].payment_id,
        "the later in sequence went past"
    );
}

#[test]
fn what_the_book_has_settled_weighs_no_more_and_resets_the_count() {
    let settled = |number: u8, at: u64| Booked {
        answered_ms: at,
        ..booked(number)
    };
    let told: Vec<Told> = (1..=4).map(|n| paid(n, 1000, "a", n)).collect();
    // 1 and 2 are settled between the decisions of 2 (2 s) and 3 (3 s).
    assert!(words(&told, &[settled(1, 2500), settled(2, 2500)], &[]).is_empty());
    // Settled too late for the third, the ceiling of 25.00 is passed.
    assert!(!words(&told, &[settled(1, 3500), settled(2, 3500)], &[]).is_empty());
}

#[test]
fn nothing_is_settled_during_an_outage_whatever_the_book_says() {
    let told: Vec<Told> = (1..=3).map(|n| paid(n, 1000, "a", n)).collect();
    // Asked online, committed, the answer lost, then decided offline.
    let early = |number: u8| Booked {
        answered_ms: 500,
        ..booked(number)
    };
    let book = [early(1), early(2)];
    assert!(words(&told, &book, &[]).is_empty());
    let outage = Outage {
        from_ms: 900,
        to_ms: 9000,
    };
    assert_eq!(
        words(&told, &book, &[outage]),
        ["card a: 3000 unsettled, ceiling 2500"]
    );
}

#[test]
fn what_was_answered_in_the_millisecond_of_the_cut_may_have_passed_before_it() {
    let told: Vec<Told> = (1..=3).map(|n| paid(n, 1000, "a", n)).collect();
    let decided = |number: usize| told[number].slip().unwrap().decided_ms;
    // The second is answered as it is decided, and the line is cut then.
    let at = |ms: u64, micros: u64| UNIX_EPOCH + Duration::from_millis(ms) + Duration::from_micros(micros);
    let answered = |number: u8, answered_ms: u64| Booked {
        answered_ms,
        ..booked(number)
    };
    let book = [answered(1, decided(0)), answered(2, decided(1))];
    let within = Outage::between(at(decided(1), 400), at(decided(2) + 7000, 900));
    assert_eq!(
        (within.from_ms, within.to_ms),
        (decided(1) + 1, decided(2) + 7000)
    );
    assert!(words(&told, &book, &[within]).is_empty());
    // Cut on the stroke, nothing of that millisecond passed.
    let whole = Outage::between(at(decided(1), 0), at(decided(2) + 7000, 0));
    assert_eq!(whole.from_ms, decided(1));
    let book = [answered(2, decided(1))];
    assert_eq!(
        words(&told, &book, &[whole]),
        ["card a: 3000 unsettled, ceiling 2500"]
    );
}
