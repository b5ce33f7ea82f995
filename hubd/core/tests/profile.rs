//! What is usual in a shop: learnt from payments on- and offline, through
//! restarts and policies, and only if the policy asks for it.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::profile::Profile;
use hub_core::state::State;
use hub_protocol::entry::{Entry, Event};
use hub_protocol::{Cryptogram, PaymentRequest, cbor};
use support::{MPOS, POLICY, SOFTPOS, Shop, approved, declined, request};

const HOUR: u64 = 3_600_000;
const WEEK: u64 = 168 * HOUR;

/// [`support::NOON_MS`] is a Wednesday, 4:26 by UTC.
const NOON_HOUR: usize = 2 * 24 + 4;

fn policy(version: u64, rest: &str) -> String {
    let text = POLICY
        .replace("version = 1 ", &format!("version = {version} "))
        .replace("longest_minutes = 240", "longest_minutes = 43200");
    format!("{text}\n{rest}\n")
}

const LEARNS: &str = "[profile]\nleast_payments = 20\nleast_weeks = 1";

fn profile(shop: &Shop) -> Profile {
    shop.core.state().profile().cloned().unwrap_or_default()
}

fn counts(shop: &Shop) -> (u64, u32) {
    let profile = profile(shop);
    (profile.amounts.count(), profile.arrivals.now.iter().sum())
}

#[test]
fn approvals_on_and_offline_make_amounts_and_every_request_is_an_arrival() {
    let mut shop = Shop::offline_under(&policy(1, LEARNS));
    assert!(shop.pay(MPOS, &request(1, 2_000, "a")).decision.approved());
    let refused = PaymentRequest {
        cryptogram: Cryptogram::Refused,
        ..request(2, 9_000, "b")
    };
    assert!(!shop.pay(SOFTPOS, &refused).decision.approved());
    assert_eq!(counts(&shop), (1, 2));
    // The same bytes again are no new request.
    shop.pay(MPOS, &request(1, 2_000, "a"));
    shop.come_back();
    for (number, answer) in [(3, approved()), (4, declined())] {
        shop.forwards.clear();
        shop.send(MPOS, &request(number, 2_000, "c"));
        let forward = shop.forwards.remove(0);
        shop.answer(forward.attempt, answer);
    }
    assert_eq!(counts(&shop), (2, 4));
    assert_eq!(profile(&shop).arrivals.now[NOON_HOUR], 4);
    let before = profile(&shop);
    shop.crash();
    assert_eq!(profile(&shop), before, "folded anew");
}

#[test]
fn what_is_usual_comes_back_from_the_index() {
    let mut shop = Shop::offline_under(&policy(1, LEARNS));
    shop.pay(MPOS, &request(1, 2_000, "a"));
    let changes = shop.core.state_mut().take_dirty();
    let mut state = State::default();
    for (key, value) in &changes {
        let restored = State::RESTORED.iter().any(|prefix| key.starts_with(prefix));
        if let Some(value) = value.as_ref().filter(|_| restored) {
            state.restore(key, value).unwrap();
        }
    }
    assert_eq!(state.profile(), shop.core.state().profile());
    assert!(state.restore(b"u", b"\x01").is_err());
}

#[test]
fn a_policy_goes_on_with_what_is_known_or_ends_it() {
    let mut shop = Shop::offline_under(&policy(1, ""));
    shop.pay(MPOS, &request(1, 2_000, "a"));
    assert_eq!(shop.core.state().profile(), None, "nobody asks");
    shop.install(&policy(2, LEARNS)).unwrap();
    shop.pay(MPOS, &request(2, 2_000, "a"));
    shop.install(&policy(3, LEARNS)).unwrap();
    shop.pay(MPOS, &request(3, 2_000, "b"));
    assert_eq!(counts(&shop), (2, 2));
    shop.core.state_mut().take_dirty();
    shop.install(&policy(4, "")).unwrap();
    assert_eq!(shop.core.state().profile(), None);
    let changes = shop.core.state_mut().take_dirty();
    assert!(
        changes.contains(&(b"u".to_vec(), None)),
        "nor is anything left in the index"
    );
}

#[test]
fn weeks_pass_and_a_clock_in_doubt_says_no_hour() {
    let mut shop = Shop::offline_under(&policy(1, LEARNS));
    for number in 1..=3 {
        shop.pay(MPOS, &request(number, 100, &format!("card {number}")));
        shop.pass(WEEK);
    }
    let rate = |shop: &Shop| profile(shop).arrivals.rate(NOON_HOUR, shop.now.wall_ms, 3);
    assert_eq!(rate(&shop).unwrap().usual_milli, 1_000);
    // Two days at once, and nobody says that it is right.
    shop.now.wall_ms += 48 * HOUR;
    shop.pay(MPOS, &request(4, 100, "d"));
    let suspect = shop.disk.iter().any(|payload| {
        let event = cbor::decode::<Entry>(payload).unwrap().event;
        matches!(event, Event::ClockChanged { .. })
    });
    assert!(suspect);
    assert_eq!(counts(&shop), (4, 1), "the third week's");
    let before = profile(&shop);
    shop.crash();
    assert_eq!(profile(&shop), before);
}
