//! What one decision takes: every key of the policy, 200 devices, 100,000
//! cards with something at risk, offline.
//!
//!     cargo bench -p hub-core --bench decision
#![allow(missing_docs, clippy::expect_used)]

mod shop;

use std::cell::RefCell;
use std::hint::black_box;

use divan::Bencher;
use hub_core::Moment;
use hub_core::decide::{Assessment, Situation, assess_offline};
use hub_core::state::State;
use hub_protocol::{Currency, DeviceId, PaymentRequest};
use shop::Shop;

const CARDS: u64 = 100_000;

fn main() {
    divan::main();
}

fn busy() -> Shop {
    let mut shop = Shop::offline(200_000);
    shop.sell(CARDS);
    assert_eq!(shop.approved, CARDS, "every card has something at risk");
    shop
}

/// What `Core` does to decide: find the card, the device and the store, and
/// ask the rules.
fn assess(state: &State, device: &DeviceId, request: &PaymentRequest, now_ms: u64) -> Assessment {
    let asking = state.device(device).expect("enrolled");
    let moment = Moment {
        now_ms,
        // As old as the outage, so that the rule is asked.
        oldest_unsent_ms: state
            .store()
            .offline_since_ms
            .map_or(0, |since| now_ms.saturating_sub(since)),
        clock_suspect: false,
        queue_has_room: true,
        storage_full: false,
        policy_term: hub_protocol::root::Term::ALWAYS,
    };
    assess_offline(
        request,
        &Situation::of(state, Currency::EUR, asking, request, moment),
    )
}

/// One sample a call, so that the median is that of single decisions.
#[divan::bench(sample_count = 100_000, sample_size = 1)]
fn decide(bencher: Bencher<'_, '_>) {
    let shop = busy();
    let mut number = CARDS;
    bencher
        .with_inputs(|| {
            number += 1;
            // Spread over all cards: none of them in the cache.
            shop::request(number, number * 7_919 % CARDS, shop.now.wall_ms)
        })
        .bench_local_refs(|(device, request)| {
            black_box(assess(shop.core.state(), device, request, shop.now.wall_ms))
        });
}

/// Detectors, decision, chain, receipt and folding; not the disk, and not the
/// signatures, which are checked and made elsewhere.
#[divan::bench(sample_count = 100_000, sample_size = 1)]
fn handle_pay(bencher: Bencher<'_, '_>) {
    let shop = RefCell::new(busy());
    let mut number = 0;
    bencher
        .with_inputs(|| {
            let mut shop = shop.borrow_mut();
            number += 1;
            let head = shop.core.state().head().sequence;
            let now = shop.now;
            shop.core
                .handle(hub_core::Input::Appended { sequence: head }, now);
            if number % 256 == 0 {
                shop.hand_over();
            }
            let pay = shop.next_pay(number * 7_919 % CARDS);
            (pay, shop.now)
        })
        .bench_local_values(|(pay, now)| shop.borrow_mut().core.handle(pay, now));
    let (shop, before) = (shop.into_inner(), CARDS);
    let approved = shop.core.state().store().subject.unsettled;
    eprintln!(
        "{} of the {} payments measured were approved",
        u64::from(approved) - before,
        shop.payments - before
    );
}
