//! Rule 3, one charge: whatever is lost on the way, the book has each payment
//! once.

use hub_core::{GatewayAnswer, Operation};
use hub_protocol::Cryptogram;
use hub_protocol::card_number::holds_card_number;
use sim_devices::gateway::{BookStatus, Faults, Gateway as Simulated, GatewayOptions};

use crate::setting::{
    ENOUGH_MS, PATIENCE, SHORT_MS, Sale, client, final_of, is_no_answer, setting, until, with,
};

#[tokio::test]
async fn rule_3_an_answer_lost_after_the_booking_and_a_retry_give_one_charge() {
    let set = with(Faults {
        commit_then_drop: 1.0,
        ..Faults::default()
    })
    .await;
    let sale = Sale::new(1);
    let lost = sale.ask(&set.client, Operation::AuthoriseOnline).await;
    assert!(is_no_answer(&lost), "{lost:?}");
    assert_eq!(set.gateway.charges(), 1);
    set.gateway.set_faults(Faults::default()).unwrap();
    let result = final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await);
    let booked = set.gateway.payment(sale.id()).unwrap();
    assert!(result.approved);
    assert_eq!(result.reference.as_deref(), Some(booked.reference.as_str()));
    assert_eq!((set.gateway.charges(), booked.asked), (1, 2));
}

#[tokio::test]
async fn rule_6_a_sealed_card_under_another_payment_is_refused_and_books_nothing() {
    let set = setting().await;
    let key = set.gateway.card_key("shop-001").unwrap();
    let (first, second) = (Sale::new(1).sealed_to(&key), Sale::new(2).sealed_to(&key));
    let refused = async |sale: &Sale| match sale.ask(&set.client, Operation::AuthoriseDeferred).await {
        GatewayAnswer::RefusesMessage { detail } => detail,
        other => panic!("{other:?}"),
    };
    // The digest that the device signs says which blob; the seal says for what.
    let swapped = second.clone().with_card(first.card.clone());
    assert!(refused(&swapped).await.contains("does not open"));
    let elsewhere = set.gateway.card_key("shop-002").unwrap();
    assert!(
        refused(&Sale::new(3).sealed_to(&elsewhere))
            .await
            .contains("does not open")
    );
    let mut changed = second.card.clone();
    *changed.blob.last_mut().unwrap() ^= 1;
    assert!(
        refused(&second.clone().with_card(changed))
            .await
            .contains("does not open")
    );
    assert!(set.gateway.payments().is_empty());
    for sale in [&first, &second] {
        assert!(final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await).approved);
    }
    assert_eq!(set.gateway.charges(), 2);
}

#[tokio::test]
async fn rule_3_asked_online_then_deferred_is_one_charge_and_one_answer() {
    let set = setting().await;
    let sale = Sale::new(1);
    let online = final_of(sale.ask(&set.client, Operation::AuthoriseOnline).await);
    let deferred = final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await);
    assert_eq!(online, deferred);
    assert_eq!(online.response_code, "00");
    assert!(online.authorisation_code.is_some());
    assert_eq!((set.gateway.charges(), set.gateway.payments().len()), (1, 1));
    assert_eq!(
        set.gateway.payment(sale.id()).unwrap().operation,
        "authorise-online"
    );
}

#[tokio::test]
async fn rule_3_the_same_id_with_other_bytes_is_a_conflict_and_books_nothing() {
    let set = setting().await;
    let first = Sale::new(1);
    let other = Sale::of(1, 9_999, "tok_abc", Cryptogram::AsksOnline);
    assert!(final_of(first.ask(&set.client, Operation::AuthoriseOnline).await).approved);
    for operation in [
        Operation::AuthoriseOnline,
        Operation::AuthoriseDeferred,
        Operation::Reverse,
    ] {
        let answer = other.ask(&set.client, operation).await;
        assert!(matches!(answer, GatewayAnswer::Conflict { .. }), "{answer:?}");
    }
    assert_eq!(set.gateway.payment(first.id()).unwrap().amount_minor, 1001);
    assert_eq!((set.gateway.charges(), set.gateway.counts().conflicts), (1, 3));
}

#[tokio::test]
async fn an_advice_is_booked_even_where_issuers_decline() {
    let set = with(Faults {
        decline: 1.0,
        ..Faults::default()
    })
    .await;
    let advice = Sale::of(1, 500, "tok_abc", Cryptogram::CardApproved);
    assert!(final_of(advice.ask(&set.client, Operation::Advice).await).approved);
    let deferred = final_of(Sale::new(2).ask(&set.client, Operation::AuthoriseDeferred).await);
    assert_eq!(
        (deferred.approved, deferred.response_code.as_str()),
        (false, "51")
    );
    assert_eq!(deferred.authorisation_code, None);
    assert_eq!(set.gateway.charges(), 1);
}

#[tokio::test]
async fn what_the_chip_promised_is_never_sent_as_something_else() {
    let set = setting().await;
    let promised = Sale::of(1, 500, "tok_abc", Cryptogram::CardApproved);
    let asks = Sale::of(2, 500, "tok_abc", Cryptogram::AsksOnline);
    let refused = Sale::of(3, 500, "tok_abc", Cryptogram::Refused);
    for (sale, operation) in [
        (&promised, Operation::AuthoriseDeferred),
        (&asks, Operation::Advice),
        (&refused, Operation::AuthoriseOnline),
    ] {
        let answer = sale.ask(&set.client, operation).await;
        assert!(
            matches!(answer, GatewayAnswer::RefusesMessage { .. }),
            "{answer:?}"
        );
    }
    assert_eq!((set.gateway.charges(), set.gateway.counts().refused), (0, 3));
}

#[tokio::test]
async fn a_reversal_is_answered_the_same_however_often_it_is_asked() {
    let set = setting().await;
    let sale = Sale::new(1);
    assert!(final_of(sale.ask(&set.client, Operation::AuthoriseOnline).await).approved);
    let first = final_of(sale.ask(&set.client, Operation::Reverse).await);
    let second = final_of(sale.ask(&set.client, Operation::Reverse).await);
    assert_eq!(first, second);
    assert!(first.approved);
    let booked = set.gateway.payment(sale.id()).unwrap();
    assert_eq!(
        (booked.charged, booked.reversed, set.gateway.charges()),
        (true, true, 0)
    );
}

#[tokio::test]
async fn an_authorisation_later_than_its_reversal_is_declined() {
    let set = setting().await;
    let sale = Sale::new(1);
    assert!(final_of(sale.ask(&set.client, Operation::Reverse).await).approved);
    for operation in [Operation::AuthoriseOnline, Operation::AuthoriseDeferred] {
        let late = final_of(sale.ask(&set.client, operation).await);
        assert_eq!((late.approved, late.response_code.as_str()), (false, "R1"));
    }
    assert_eq!(set.gateway.charges(), 0);
    assert_eq!(
        set.gateway.payment(sale.id()).unwrap().status,
        BookStatus::Reversed
    );
}

#[tokio::test]
async fn a_gateway_that_was_started_again_keeps_its_book() {
    let set = setting().await;
    let (sale, reversed) = (Sale::new(1), Sale::new(2));
    let before = final_of(sale.ask(&set.client, Operation::AuthoriseOnline).await);
    final_of(reversed.ask(&set.client, Operation::Reverse).await);
    let book = set.gateway.payments();
    let (address, credential) = (set.gateway.address(), set.gateway.credential().to_owned());
    set.gateway.stop().await;
    assert!(is_no_answer(
        &sale.ask(&set.client, Operation::AuthoriseOnline).await
    ));

    let options = GatewayOptions {
        listen: address,
        seed: 99,
        ..GatewayOptions::new(set.dir.path())
    };
    let again = Simulated::start(options).await.unwrap();
    assert_eq!(again.payments(), book);
    assert_eq!(again.credential(), credential);
    // The same client: same address, same certificate, same credential.
    assert_eq!(
        final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await),
        before
    );
    let late = final_of(reversed.ask(&set.client, Operation::AuthoriseDeferred).await);
    assert_eq!(late.response_code, "R1");
    assert_eq!(again.charges(), 1);
}

#[tokio::test]
async fn a_gateway_that_was_dropped_keeps_its_book_too() {
    let set = setting().await;
    let sale = Sale::new(1);
    let before = final_of(sale.ask(&set.client, Operation::AuthoriseOnline).await);
    drop(set.gateway);
    let again = Simulated::start(GatewayOptions::new(set.dir.path()))
        .await
        .unwrap();
    let client = client(&again, again.url());
    assert_eq!(
        final_of(sale.ask(&client, Operation::AuthoriseOnline).await),
        before
    );
    assert_eq!(again.charges(), 1);
}

#[tokio::test]
async fn a_slow_gateway_books_although_the_hub_has_gone_and_says_so_later() {
    let set = with(Faults {
        slow: 1.0,
        delay_ms: 3 * SHORT_MS,
        ..Faults::default()
    })
    .await;
    let sale = Sale::new(1);
    assert!(is_no_answer(
        &sale
            .ask_within(&set.client, Operation::AuthoriseOnline, SHORT_MS)
            .await
    ));
    until("the booking", || set.gateway.charges() == 1).await;
    set.gateway.set_faults(Faults::default()).unwrap();
    let later = sale
        .ask_until_decided(&set.client, Operation::AuthoriseDeferred)
        .await;
    assert!(later.approved);
    assert_eq!(set.gateway.charges(), 1);
}

#[tokio::test]
async fn two_calls_about_one_payment_at_a_time_are_one_charge() {
    let set = with(Faults {
        slow: 1.0,
        delay_ms: SHORT_MS,
        ..Faults::default()
    })
    .await;
    let sale = Sale::new(1);
    let (a, b) = tokio::join!(
        sale.ask(&set.client, Operation::AuthoriseOnline),
        sale.ask(&set.client, Operation::AuthoriseDeferred)
    );
    let finals = [&a, &b]
        .iter()
        .filter(|x| matches!(x, GatewayAnswer::Final(_)))
        .count();
    let pending = [&a, &b]
        .iter()
        .filter(|x| matches!(x, GatewayAnswer::Pending { .. }))
        .count();
    assert_eq!((finals, pending), (1, 1), "{a:?} {b:?}");
    assert_eq!((set.gateway.charges(), set.gateway.counts().overlapped), (1, 1));
}

#[tokio::test]
async fn pending_is_answered_as_often_as_set_and_then_decided() {
    let set = with(Faults {
        pending: 1.0,
        pending_times: 2,
        ..Faults::default()
    })
    .await;
    let sale = Sale::new(1);
    for _ in 0..2 {
        let answer = sale.ask(&set.client, Operation::AuthoriseDeferred).await;
        assert_eq!(
            answer,
            GatewayAnswer::Pending {
                retry_after_ms: Some(1000)
            }
        );
        assert_eq!(set.gateway.charges(), 0);
    }
    assert!(final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await).approved);
    assert_eq!(set.gateway.charges(), 1);
}

#[tokio::test]
async fn declines_follow_their_rules() {
    let set = with(Faults {
        decline_token_prefix: Some("stolen".to_owned()),
        decline_amount_ending: Some(13),
        ..Faults::default()
    })
    .await;
    for (number, amount, token, approved) in [
        (1, 1000, "tok_a", true),
        (2, 1000, "stolen_b", false),
        (3, 1013, "tok_a", false),
        (4, 1301, "tok_a", true),
    ] {
        let sale = Sale::of(number, amount, token, Cryptogram::AsksOnline);
        let result = final_of(sale.ask(&set.client, Operation::AuthoriseOnline).await);
        assert_eq!(result.approved, approved, "{token} {amount}");
    }
    assert_eq!(set.gateway.charges(), 2);
}

/// Asks until the gateway has decided, as the core would.
async fn ask_until_final(client: &hubd::upstream::Gateway, sale: &Sale) -> bool {
    loop {
        let forward = sale.forward(Operation::AuthoriseDeferred, 1, ENOUGH_MS);
        match client.submit(&forward, &sale.signed, Some(&sale.card)).await.0 {
            GatewayAnswer::Final(result) => return result.approved,
            GatewayAnswer::Pending { .. }
            | GatewayAnswer::Throttled { .. }
            | GatewayAnswer::Broken { .. }
            | GatewayAnswer::NoAnswer { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn rule_3_under_all_faults_at_once_each_payment_is_charged_once() {
    for seed in 1..=3 {
        let dir = tempfile::tempdir().unwrap();
        let options = GatewayOptions {
            seed,
            faults: Faults {
                commit_then_drop: 0.3,
                throttle: 0.2,
                unavailable: 0.2,
                pending: 0.3,
                pending_times: 2,
                decline: 0.3,
                ..Faults::default()
            },
            ..GatewayOptions::new(dir.path())
        };
        let gateway = Simulated::start(options).await.unwrap();
        let client = client(&gateway, gateway.url());
        let sales: Vec<_> = (1..=24).map(Sale::new).collect();
        let mut approved = 0;
        for sale in &sales {
            let asking = tokio::time::timeout(PATIENCE, ask_until_final(&client, sale));
            approved += u64::from(asking.await.unwrap());
        }
        assert_eq!(gateway.charges(), approved, "seed {seed}");
        assert_eq!(gateway.payments().len(), sales.len(), "seed {seed}");
        assert_eq!(gateway.charged_twice(), 0, "seed {seed}");
        assert!(approved > 0 && approved < 24, "seed {seed}: {approved}");
        assert!(gateway.counts().dropped > 0, "seed {seed}");
        for payment in gateway.payments() {
            assert!(!holds_card_number(&payment.reference), "{}", payment.reference);
        }
    }
}

/// A gateway that forgets its keys at once, and charges again what is sent
/// blind.
fn forgetful() -> Faults {
    Faults {
        forget_keys_after_ms: Some(0),
        ..Faults::default()
    }
}

#[tokio::test]
async fn past_retention_a_payment_is_looked_up_and_charged_once() {
    let set = with(forgetful()).await;
    let sale = Sale::new(1);
    assert_eq!(
        sale.ask(&set.client, Operation::LookUp).await,
        GatewayAnswer::NotFound
    );
    let first = final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await);
    let found = final_of(sale.ask(&set.client, Operation::LookUp).await);
    assert_eq!(found, first);
    assert_eq!((set.gateway.charges(), set.gateway.counts().look_ups), (1, 2));
    // That the look-up is needed: sent blind, the customer pays twice.
    final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await);
    assert_eq!((set.gateway.charges(), set.gateway.charged_twice()), (2, 1));
    // A reversal is one by the merchant reference, and takes all of it back.
    for _ in 0..2 {
        assert!(final_of(sale.ask(&set.client, Operation::Reverse).await).approved);
        assert_eq!(set.gateway.charges(), 0);
    }
    let late = final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await);
    assert_eq!((late.approved, set.gateway.charges()), (false, 0));
    let looked = final_of(sale.ask(&set.client, Operation::LookUp).await);
    assert!(!looked.approved, "what was reversed is not sent again");
}

#[tokio::test]
async fn a_declined_payment_is_presented_again_without_its_card_and_charged_once() {
    let set = with(Faults {
        decline_token_prefix: Some("tok".to_owned()),
        decline_code: Some("51".to_owned()),
        decline_presentations: Some(2),
        ..Faults::default()
    })
    .await;
    let sale = Sale::new(1);
    let present = async |presentation: u32, operation: Operation| {
        let mut forward = sale.forward(operation, 1, ENOUGH_MS);
        forward.presentation = presentation;
        let card = (presentation == 1).then_some(&sale.card);
        set.client.submit(&forward, &sale.signed, card).await.0
    };
    let early = present(2, Operation::AuthoriseDeferred).await;
    assert!(
        matches!(early, GatewayAnswer::RefusesMessage { .. }),
        "nothing was declined: {early:?}"
    );
    for presentation in [1, 2] {
        let look_up = present(presentation, Operation::LookUp).await;
        assert_eq!(look_up, GatewayAnswer::NotFound, "presentation {presentation}");
        for _ in 0..2 {
            let result = final_of(present(presentation, Operation::AuthoriseDeferred).await);
            assert_eq!((result.approved, result.response_code.as_str()), (false, "51"));
        }
        let found = final_of(present(presentation, Operation::LookUp).await);
        assert!(!found.approved);
    }
    for presentation in [3, 3, 4, 2] {
        assert!(final_of(present(presentation, Operation::AuthoriseDeferred).await).approved);
    }
    assert_eq!((set.gateway.charges(), set.gateway.charged_twice()), (1, 0));
}

#[tokio::test]
async fn what_the_issuer_advises_comes_with_every_repeat_of_its_decline_and_with_nothing_else() {
    let set = with(Faults {
        decline_token_prefix: Some("tok".to_owned()),
        decline_code: Some("51".to_owned()),
        decline_advice: Some("24".to_owned()),
        decline_presentations: Some(1),
        ..Faults::default()
    })
    .await;
    let sale = Sale::new(1);
    for operation in [
        Operation::AuthoriseDeferred,
        Operation::AuthoriseDeferred,
        Operation::LookUp,
    ] {
        let answer = sale.ask(&set.client, operation).await;
        assert!(
            matches!(&answer, GatewayAnswer::Advised { result, advice }
                if result.response_code == "51" && advice.to_string() == "24"),
            "{answer:?}"
        );
    }
    let mut again = sale.forward(Operation::AuthoriseDeferred, 1, ENOUGH_MS);
    again.presentation = 2;
    assert!(final_of(set.client.submit(&again, &sale.signed, None).await.0).approved);
    assert!(final_of(sale.ask(&set.client, Operation::Reverse).await).approved);
    let late = final_of(sale.ask(&set.client, Operation::AuthoriseDeferred).await);
    assert_eq!((late.approved, late.response_code.as_str()), (false, "R1"));
}

#[tokio::test]
async fn a_live_call_without_a_free_connection_is_not_sent_and_says_so() {
    let set = with(Faults {
        never_answer: 1.0,
        ..Faults::default()
    })
    .await;
    let client = std::sync::Arc::new(client(&set.gateway, set.gateway.url()));
    let asking: Vec<_> = (1..=64)
        .map(|number| {
            let client = std::sync::Arc::clone(&client);
            tokio::spawn(async move {
                let sale = Sale::new(number);
                sale.ask(&client, Operation::AuthoriseOnline).await
            })
        })
        .collect();
    until("all connections to be taken", || {
        set.gateway.counts().swallowed == 64
    })
    .await;
    let one_more = Sale::new(65);
    let answer = one_more
        .ask_within(&client, Operation::AuthoriseOnline, SHORT_MS)
        .await;
    assert!(matches!(answer, GatewayAnswer::NotSent { .. }), "{answer:?}");
    assert!(set.gateway.payment(one_more.id()).is_none());
    for ask in asking {
        ask.abort();
    }
}
