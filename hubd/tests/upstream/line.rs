//! The line between hub and gateway: cut, silent, slow, busy.

use std::sync::Arc;
use std::time::Duration;

use hub_core::{GatewayAnswer, Operation};
use sim_devices::gateway::Faults;
use sim_devices::wan::{Wan, WanMode};

use crate::setting::{SHORT_MS, Sale, Setting, client, final_of, is_no_answer, setting, until, with};

async fn behind_a_wan() -> (Setting, Wan) {
    let mut set = setting().await;
    let wan = Wan::start(set.gateway.address()).await.unwrap();
    set.client = client(&set.gateway, wan.url());
    (set, wan)
}

#[tokio::test]
async fn a_cut_wan_is_no_answer_by_the_deadline_and_sales_go_on_afterwards() {
    let (set, wan) = behind_a_wan().await;
    for (number, mode) in [(1, WanMode::Refuse), (3, WanMode::Blackhole)] {
        // An open connection, so that the cut hits it.
        assert!(
            final_of(
                Sale::new(number)
                    .ask(&set.client, Operation::AuthoriseOnline)
                    .await
            )
            .approved
        );
        wan.set(mode);
        let sale = Sale::new(number + 1);
        // Twice: on the open connection, and on a new one.
        for _ in 0..2 {
            let answer = sale
                .ask_within(&set.client, Operation::AuthoriseOnline, SHORT_MS)
                .await;
            assert!(is_no_answer(&answer), "{mode:?}: {answer:?}");
        }
        assert!(!set.client.probe(Duration::from_millis(SHORT_MS)).await.ok);
        wan.set(WanMode::Up);
        let result = sale
            .ask_until_decided(&set.client, Operation::AuthoriseDeferred)
            .await;
        assert!(result.approved, "{mode:?}");
    }
    assert_eq!(set.gateway.charges(), 4);
    let counts = wan.counts();
    assert!(
        counts.reset > 0 && counts.up_bytes > 0 && counts.down_bytes > 0,
        "{counts:?}"
    );
}

#[tokio::test]
async fn rule_3_a_call_that_arrives_after_the_outage_is_the_same_payment() {
    let (set, wan) = behind_a_wan().await;
    assert!(final_of(Sale::new(1).ask(&set.client, Operation::AuthoriseOnline).await).approved);
    wan.set(WanMode::Blackhole);
    // Goes out on the open connection and lies there.
    let sale = Sale::new(2);
    let lost = sale
        .ask_within(&set.client, Operation::AuthoriseOnline, SHORT_MS)
        .await;
    assert!(is_no_answer(&lost), "{lost:?}");
    assert!(set.gateway.payment(sale.id()).is_none());
    wan.set(WanMode::Up);
    until("the late call", || set.gateway.payment(sale.id()).is_some()).await;
    assert_eq!(
        set.gateway.payment(sale.id()).unwrap().operation,
        "authorise-online"
    );
    let again = sale
        .ask_until_decided(&set.client, Operation::AuthoriseDeferred)
        .await;
    assert!(again.approved);
    assert_eq!(set.gateway.charges(), 2);
}

#[tokio::test]
async fn a_call_that_arrives_after_its_reversal_charges_nobody() {
    let (set, wan) = behind_a_wan().await;
    assert!(final_of(Sale::new(1).ask(&set.client, Operation::AuthoriseOnline).await).approved);
    wan.set(WanMode::Blackhole);
    let sale = Sale::new(2);
    assert!(is_no_answer(
        &sale
            .ask_within(&set.client, Operation::AuthoriseOnline, SHORT_MS)
            .await
    ));
    // The reversal takes another way and overtakes it.
    let direct = client(&set.gateway, set.gateway.url());
    assert!(final_of(sale.ask(&direct, Operation::Reverse).await).approved);
    wan.set(WanMode::Up);
    until("the late call", || {
        set.gateway.payment(sale.id()).unwrap().asked == 2
    })
    .await;
    assert_eq!(set.gateway.charges(), 1);
}

#[tokio::test]
async fn rule_8_a_stuck_backlog_never_holds_up_a_live_sale() {
    let set = with(Faults {
        never_answer: 1.0,
        ..Faults::default()
    })
    .await;
    let client = Arc::new(set.client);
    let mut backlog = Vec::new();
    // Twice as many as may be under way.
    for number in 1..=4 {
        let client = Arc::clone(&client);
        backlog.push(tokio::spawn(async move {
            Sale::new(number).ask(&client, Operation::AuthoriseDeferred).await
        }));
    }
    until("two stuck calls", || set.gateway.counts().swallowed == 2).await;
    set.gateway.set_faults(Faults::default()).unwrap();
    let live = Sale::new(9).ask(&client, Operation::AuthoriseOnline).await;
    assert!(final_of(live).approved);
    // No more than the bound were ever under way, and they still are.
    let counts = set.gateway.counts();
    assert_eq!((counts.calls, counts.swallowed), (3, 2));
    assert!(backlog.iter().all(|call| !call.is_finished()));
    set.gateway.cut_connections();
    for call in backlog {
        let answer = call.await.unwrap();
        assert!(is_no_answer(&answer) || final_of(answer).approved);
    }
}

#[tokio::test]
async fn waiting_for_a_free_connection_ends_at_the_deadline_too() {
    let set = with(Faults {
        never_answer: 1.0,
        ..Faults::default()
    })
    .await;
    let sales: Vec<_> = (1..=3).map(Sale::new).collect();
    let [a, b, c] =
        [0, 1, 2].map(|i| sales[i].ask_within(&set.client, Operation::AuthoriseDeferred, SHORT_MS));
    let (a, b, c) = tokio::join!(a, b, c);
    // The third was never sent: that is no failure of the gateway's.
    let answers = [a, b, c];
    assert_eq!(answers.iter().filter(|answer| is_no_answer(answer)).count(), 2);
    let not_sent = |answer: &&GatewayAnswer| matches!(answer, GatewayAnswer::NotSent { .. });
    assert_eq!(answers.iter().filter(not_sent).count(), 1);
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let (set, wan) = behind_a_wan().await;
    for number in 1..=5 {
        final_of(
            Sale::new(number)
                .ask(&set.client, Operation::AuthoriseOnline)
                .await,
        );
        assert!(set.client.probe(crate::setting::PATIENCE).await.ok);
    }
    assert_eq!(wan.counts().connections, 1);
}

#[tokio::test]
async fn a_gateway_that_moved_is_found_by_the_line() {
    let (set, wan) = behind_a_wan().await;
    let before = final_of(Sale::new(1).ask(&set.client, Operation::AuthoriseOnline).await);
    set.gateway.stop().await;
    let options = sim_devices::gateway::GatewayOptions::new(set.dir.path());
    let again = sim_devices::gateway::Gateway::start(options).await.unwrap();
    wan.set_target(again.address());
    wan.set(WanMode::Refuse);
    wan.set(WanMode::Up);
    let after = final_of(Sale::new(1).ask(&set.client, Operation::AuthoriseDeferred).await);
    assert_eq!(before, after);
}
