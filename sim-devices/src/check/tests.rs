use super::*;
use crate::sample::{answered, booked, id, told};

fn judge(told: &[Told], book: &[Booked], waiting: &[Waiting]) -> Verdict {
    let limits = Limits::real_days(hub_protocol::Currency::EUR);
    reconcile(&Evidence {
        told,
        book,
        waiting,
        limits: &limits,
        outages: &[],
    })
}

#[test]
fn a_day_in_order_is_clean() {
    let declined = answered(3, Decision::Declined);
    let verdict = judge(
        &[told(1), answered(2, Decision::ApprovedOnline), declined],
        &[booked(1), booked(2)],
        &[],
    );
    assert!(verdict.clean(), "{verdict:?}");
    assert_eq!((verdict.gateway_charges, verdict.gateway_minor), (2, 2000));
}

#[test]
fn a_payment_missing_from_the_book_is_lost() {
    for decision in [Decision::ApprovedOffline, Decision::ApprovedOnline] {
        let verdict = judge(&[answered(1, decision), told(2)], &[booked(2)], &[]);
        assert_eq!(verdict.lost.len(), 1, "{verdict:?}");
        assert_eq!(verdict.lost[0].payment_id, id(1));
        assert!(!verdict.clean());
    }
}

#[test]
fn a_payment_that_the_book_holds_as_pending_is_lost_unless_it_waits() {
    let pending = Booked {
        standing: Standing::Pending,
        charges: 0,
        ..booked(1)
    };
    assert_eq!(
        judge(&[told(1)], std::slice::from_ref(&pending), &[]).lost.len(),
        1
    );
    let waiting = Waiting {
        payment_id: id(1),
        parked: false,
        reversal: false,
    };
    let verdict = judge(&[told(1)], &[pending], &[waiting]);
    assert!(verdict.lost.is_empty() && verdict.still_queued == 1 && !verdict.clean());
}

#[test]
fn a_parked_payment_is_visible_and_so_not_lost() {
    let waiting = Waiting {
        payment_id: id(1),
        parked: true,
        reversal: false,
    };
    let verdict = judge(&[told(1)], &[], &[waiting]);
    assert!(verdict.lost.is_empty());
    assert_eq!(verdict.parked, 1);
}

#[test]
fn offline_and_then_declined_is_the_shops_loss_but_online_and_declined_is_lost() {
    let declined = Booked {
        standing: Standing::Declined,
        charges: 0,
        ..booked(1)
    };
    let verdict = judge(&[told(1)], std::slice::from_ref(&declined), &[]);
    assert_eq!((verdict.merchant_losses, verdict.merchant_loss_minor), (1, 1000));
    assert!(verdict.clean(), "answered, so not lost");
    let online = answered(1, Decision::ApprovedOnline);
    assert_eq!(judge(&[online], &[declined], &[]).lost.len(), 1);
}

#[test]
fn a_payment_charged_twice_is_found() {
    let verdict = judge(
        &[told(1)],
        &[Booked {
            charges: 2,
            ..booked(1)
        }],
        &[],
    );
    assert_eq!(verdict.charged_twice.len(), 1, "{verdict:?}");
    assert_eq!(verdict.gateway_charges, 2);
}

#[test]
fn an_order_charged_under_two_ids_is_found() {
    // A fresh key at each forward: the fault that made 19 charges of 8 orders.
    let again = Told {
        order_id: "order-1".to_owned(),
        ..told(2)
    };
    let second = Booked {
        order_id: "order-1".to_owned(),
        ..booked(2)
    };
    let verdict = judge(&[told(1), again], &[booked(1), second], &[]);
    assert_eq!(verdict.charged_twice.len(), 1, "{verdict:?}");
}

#[test]
fn an_order_that_fell_back_and_was_paid_otherwise_is_charged_once() {
    let paid = Told {
        order_id: "order-1".to_owned(),
        ..told(2)
    };
    let second = Booked {
        order_id: "order-1".to_owned(),
        ..booked(2)
    };
    assert!(
        judge(
            &[answered(1, Decision::Fallback), paid.clone()],
            std::slice::from_ref(&second),
            &[]
        )
        .clean()
    );
    let both = judge(
        &[answered(1, Decision::Fallback), paid],
        &[booked(1), second],
        &[],
    );
    assert_eq!(both.charged_twice.len(), 1);
    assert_eq!(both.charged_twice[0].payment_id, id(1));
}

#[test]
fn a_charge_after_a_no_is_found_unless_it_was_reversed() {
    let no = [answered(1, Decision::Declined)];
    assert_eq!(judge(&no, &[booked(1)], &[]).charged_twice.len(), 1);
    let reversed = Booked {
        standing: Standing::Reversed,
        ..booked(1)
    };
    let verdict = judge(&no, &[reversed], &[]);
    assert!(verdict.clean());
    assert_eq!((verdict.gateway_charges, verdict.gateway_reversed), (0, 1));
    let waiting = Waiting {
        payment_id: id(1),
        parked: false,
        reversal: true,
    };
    let verdict = judge(&no, &[booked(1)], &[waiting]);
    assert!(verdict.charged_twice.is_empty() && verdict.reversals_waiting == 1 && !verdict.clean());
}

#[test]
fn a_reversal_undoes_one_charge_and_not_a_second_one() {
    let twice = Booked {
        standing: Standing::Reversed,
        charges: 2,
        ..booked(1)
    };
    assert_eq!(
        judge(&[answered(1, Decision::Declined)], &[twice], &[])
            .charged_twice
            .len(),
        1
    );
}

#[test]
fn a_charge_that_nobody_was_told_of_is_found() {
    let silent = Told {
        answer: Answer::None("gave up".to_owned()),
        ..told(1)
    };
    assert_eq!(judge(&[silent], &[booked(1)], &[]).charged_untold.len(), 1);
    assert_eq!(judge(&[], &[booked(1)], &[]).unasked.len(), 1);
}

#[test]
fn another_amount_than_told_is_found() {
    let verdict = judge(
        &[told(1)],
        &[Booked {
            amount_minor: 1001,
            ..booked(1)
        }],
        &[],
    );
    assert_eq!(verdict.wrong_amount.len(), 1);
    assert!(!verdict.clean());
}

#[test]
fn a_ceiling_breach_spoils_the_verdict() {
    let big = Told {
        amount_minor: 60_001,
        ..told(1)
    };
    let verdict = judge(
        &[big],
        &[Booked {
            amount_minor: 60_001,
            ..booked(1)
        }],
        &[],
    );
    assert!(!verdict.ceiling_breaches.is_empty() && !verdict.clean());
}
