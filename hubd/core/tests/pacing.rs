//! How fast the backlog goes, and when it begins: the breaker, the spread of
//! first contact over many shops, the gap between payments of one card.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::collections::BTreeMap;

use hub_core::{GatewayAnswer, Input, Operation, OperatorCommand, OperatorReply};
use hub_protocol::{DeviceClass, DeviceId};
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, no_answer, payment_id, request};

/// So many payments of as many devices and cards, decided offline.
fn backlog(shop: &mut Shop, count: u64) {
    for number in 1..=count {
        let device = DeviceId([100 + u8::try_from(number).unwrap(); 32]);
        shop.enrol(device, DeviceClass::Mpos);
        let receipt = shop.pay(device, &request(number, 100, &format!("card {number}")));
        assert!(receipt.decision.approved());
    }
}

/// When each of a thousand shops sends first after the line came back to all
/// of them at once: how many in the busiest second, and in how many seconds.
fn first_contacts(spread_s: u64) -> (usize, usize) {
    let mut by_second: BTreeMap<u64, usize> = BTreeMap::new();
    for seed in 0..1_000 {
        let mut shop = Shop::offline_with(POLICY, |settings| {
            settings.seed = seed;
            settings.spread_ms = spread_s * 1000;
        });
        shop.pay(MPOS, &request(1, 100, "card"));
        shop.go_online();
        let back = shop.now.monotonic_ms;
        while shop.forwards.is_empty() {
            let wake = shop.core.next_wake_ms().unwrap();
            shop.pass(wake - shop.now.monotonic_ms);
        }
        *by_second
            .entry((shop.now.monotonic_ms - back) / 1000)
            .or_default() += 1;
    }
    (by_second.values().copied().max().unwrap(), by_second.len())
}

#[test]
fn a_thousand_shops_do_not_return_at_once_if_a_window_is_given() {
    let (peak, seconds) = first_contacts(0);
    assert_eq!(
        (peak, seconds),
        (1_000, 1),
        "without a window, all come in the first second"
    );
    let (peak, seconds) = first_contacts(60);
    // 1,000 over 60 s are 16.7 a second.
    assert!((17..=34).contains(&peak), "{peak} in the busiest second");
    assert!(seconds >= 59, "over {seconds} seconds");
}

#[test]
fn live_sales_do_not_wait_for_the_spread_and_drain_ends_it() {
    let mut shop = Shop::offline_with(POLICY, |settings| settings.spread_ms = 3_600_000);
    shop.pay(MPOS, &request(1, 100, "card"));
    shop.go_online();
    assert!(shop.forwards.is_empty());
    let ticket = shop.send(SOFTPOS, &request(2, 100, "other"));
    assert_eq!(shop.gateway(approved()).operation, Operation::AuthoriseOnline);
    assert!(shop.receipt(ticket).decision.approved());
    assert!(shop.forwards.is_empty(), "the backlog still waits");
    assert_eq!(shop.operate(OperatorCommand::Drain), OperatorReply::Done);
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(1));
}

#[test]
fn the_longest_window_of_configuration_policy_and_gateway_holds() {
    let with_policy = POLICY.replace("spread_s = 0", "spread_s = 600");
    assert_ne!(with_policy, POLICY);
    let first = |policy: &str, configured_ms: u64, asked_ms: Option<u64>| {
        let mut longest = 0;
        for seed in 0..50 {
            let mut shop = Shop::offline_with(policy, |settings| {
                settings.seed = seed;
                settings.spread_ms = configured_ms;
            });
            shop.pay(MPOS, &request(1, 100, "card"));
            if let Some(window_ms) = asked_ms {
                shop.input(Input::SpreadAsked { window_ms });
            }
            shop.go_online();
            let back = shop.now.monotonic_ms;
            longest = longest.max(shop.core.next_wake_ms().map_or(0, |wake| wake - back));
        }
        longest
    };
    assert_eq!(first(POLICY, 0, None), 0);
    assert!((30_001..=60_000).contains(&first(POLICY, 60_000, None)));
    assert!((300_000..=600_000).contains(&first(&with_policy, 60_000, None)));
    assert!((900_000..=1_800_000).contains(&first(&with_policy, 60_000, Some(1_800_000))));
    let cut = first(POLICY, 0, Some(u64::MAX));
    assert!((1_800_000..=3_600_000).contains(&cut), "an hour at most: {cut}");
}

#[test]
fn a_start_with_a_backlog_is_spread_as_well() {
    let mut shop = Shop::offline_with(POLICY, |settings| settings.spread_ms = 600_000);
    shop.pay(MPOS, &request(1, 100, "card"));
    shop.go_online();
    shop.crash();
    assert!(
        shop.forwards.is_empty(),
        "power comes back to a whole town at once"
    );
    shop.pass(600_000);
    assert_eq!(shop.forwards.len(), 1);
}

#[test]
fn after_failures_in_a_row_one_is_tried_and_its_answer_lets_the_others_go() {
    let mut shop = Shop::offline();
    backlog(&mut shop, 20);
    shop.go_online();
    for _ in 0..8 {
        shop.gateway(no_answer());
    }
    for _ in 0..10 {
        shop.pass(60_000);
        assert_eq!(shop.forwards.len(), 1, "one trial at a time");
        shop.gateway(no_answer());
        shop.probe(true);
    }
    shop.pass(60_000);
    shop.gateway(approved());
    assert_eq!(shop.forwards.len(), 1, "slowly at first");
    let mut done = 1;
    let mut most = 1;
    while !shop.forwards.is_empty() {
        for _ in 0..shop.forwards.len() {
            shop.gateway(approved());
            done += 1;
        }
        shop.pass(1);
        most = most.max(shop.forwards.len());
        if shop.forwards.is_empty() {
            shop.pass(60_000);
        }
    }
    assert_eq!(done, 20, "everything is sent in the end");
    assert!(most > 1, "and it gathers pace");
}

#[test]
fn a_gateway_that_stumbles_over_one_payment_gets_another_one_as_the_trial() {
    let mut shop = Shop::offline();
    backlog(&mut shop, 6);
    shop.go_online();
    let broken = || GatewayAnswer::Broken {
        retry_after_ms: None,
        detail: "500".to_owned(),
    };
    for _ in 0..6 {
        shop.gateway(broken());
    }
    shop.pass(60_000);
    let first = shop.gateway(broken()).payment_id;
    shop.pass(60_000);
    let second = shop.gateway(approved()).payment_id;
    assert_ne!(first, second);
}

#[test]
fn payments_of_one_card_keep_the_gap_of_the_policy_and_hold_up_no_other_card() {
    let policy = POLICY.replace("same_card_gap_s = 0", "same_card_gap_s = 30");
    assert_ne!(policy, POLICY);
    let mut shop = Shop::offline_under(&policy);
    shop.pay(MPOS, &request(1, 700, "card"));
    shop.pay(MPOS, &request(2, 700, "card"));
    shop.pay(SOFTPOS, &request(3, 700, "other"));
    shop.go_online();
    let sent: Vec<_> = shop.forwards.iter().map(|forward| forward.payment_id).collect();
    assert_eq!(sent, [payment_id(1), payment_id(3)]);
    shop.gateway(approved());
    shop.gateway(approved());
    shop.pass(29_999);
    assert!(shop.forwards.is_empty());
    assert_eq!(shop.core.next_wake_ms(), Some(shop.now.monotonic_ms + 1));
    shop.pass(1);
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(2));
}

#[test]
fn a_call_that_found_no_free_connection_says_nothing_about_the_gateway() {
    let not_sent = || GatewayAnswer::NotSent {
        detail: "no free connection".to_owned(),
    };
    let mut shop = Shop::online();
    for number in 1..=5 {
        let ticket = shop.send(MPOS, &request(number, 10_001, &format!("card {number}")));
        shop.gateway(not_sent());
        assert!(!shop.receipt(ticket).decision.approved());
    }
    assert_eq!(
        shop.core.state().store().wan,
        hub_protocol::entry::WanState::Online
    );
    assert!(
        shop.queue().is_empty(),
        "nothing was taken, so nothing is reversed"
    );
}

/// A gateway that works on so many calls at a time, 50 ms each, in the order
/// in which they come, and a shop with a backlog, in virtual time.
struct Draining {
    shop: Shop,
    free_at: Vec<u64>,
    /// Done when, which attempt, sent when.
    under_way: Vec<(u64, hub_core::AttemptId, u64)>,
    settled: usize,
}

const ROUND_TRIP_MS: u64 = 50;

impl Draining {
    fn new(places: usize, devices: u8, each: u64) -> Self {
        let policy = POLICY
            .replace("exposure_ceiling = 300000", "exposure_ceiling = 999999999")
            .replace("consecutive_limit = 300", "consecutive_limit = 1000000")
            .replace(
                "device_consecutive_limit = 60",
                "device_consecutive_limit = 1000000",
            );
        let mut shop = Shop::offline_under(&policy);
        for device in 0..devices {
            let id = DeviceId([100 + device; 32]);
            shop.enrol(id, DeviceClass::Mpos);
            for number in 0..each {
                let number = u64::from(device) * 1_000 + number;
                let receipt = shop.pay(id, &request(number, 100, &format!("card {number}")));
                assert!(receipt.decision.approved(), "{receipt:?}");
            }
        }
        shop.go_online();
        Self {
            shop,
            free_at: vec![0; places],
            under_way: Vec::new(),
            settled: 0,
        }
    }

    /// One millisecond. Returns the latencies of live sales that ended.
    fn step(&mut self) -> Vec<u64> {
        let now = self.shop.now.monotonic_ms;
        let (done, rest) = self.under_way.drain(..).partition(|(done, ..)| *done <= now);
        self.under_way = rest;
        let done: Vec<(u64, hub_core::AttemptId, u64)> = done;
        let mut live = Vec::new();
        for (ended, attempt, sent) in done {
            let receipts = self.shop.replies.len();
            self.shop.input(Input::Gateway {
                attempt,
                answer: approved(),
                latency_ms: ended - sent,
            });
            if self.shop.replies.len() > receipts {
                live.push(ended - sent);
            } else {
                self.settled += 1;
            }
        }
        self.take_up();
        self.shop.pass(1);
        self.take_up();
        live
    }

    fn take_up(&mut self) {
        let now = self.shop.now.monotonic_ms;
        for forward in core::mem::take(&mut self.shop.forwards) {
            let place = self.free_at.iter_mut().min().unwrap();
            *place = (*place).max(now) + ROUND_TRIP_MS;
            self.under_way.push((*place, forward.attempt, now));
        }
    }
}

#[test]
fn the_backlog_drains_at_nine_tenths_of_what_the_gateway_takes() {
    for places in [4, 16, 40] {
        let mut draining = Draining::new(places, 100, 60);
        for _ in 0..2_000 {
            draining.step();
        }
        let before = draining.settled;
        for _ in 0..3_000 {
            draining.step();
        }
        let (rate, takes) = (draining.settled - before, places * 3_000 / 50);
        assert!(
            rate * 10 >= takes * 9,
            "{places} at a time: {rate} of {takes} in 3 s"
        );
    }
}

#[test]
fn rule_8_live_sales_take_at_most_twice_as_long_while_the_backlog_drains() {
    let mut draining = Draining::new(16, 100, 60);
    for _ in 0..2_000 {
        draining.step();
    }
    let mut latencies = Vec::new();
    for number in 0..100 {
        draining.shop.send(
            SOFTPOS,
            &request(900_000 + number, 100, &format!("live {number}")),
        );
        for _ in 0..97 {
            latencies.extend(draining.step());
        }
    }
    assert!(latencies.len() >= 99, "{}", latencies.len());
    assert!(draining.settled < 6_000, "the backlog was there all the while");
    latencies.sort_unstable();
    let p99 = latencies[latencies.len() * 99 / 100];
    assert!(p99 <= 2 * ROUND_TRIP_MS, "p99 {p99} ms, idle {ROUND_TRIP_MS} ms");
}
