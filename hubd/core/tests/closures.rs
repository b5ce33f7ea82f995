//! The closures of days, months and years.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use hub_core::closure_audit::{ClosureAudit, Held};
use hub_core::state::State;
use hub_core::{Effect, Input, OperatorCommand, OperatorReply, Probe, Reply};
use hub_protocol::cbor;
use hub_protocol::entry::{Entry, Event, Finding};
use hub_protocol::{
    Closure, Currency, Decision, LedgerTotals, Period, Receipt, Terms, Total, TransactionType,
};
use support::{MPOS, NOON_MS, Shop, approved, declined, no_answer, payment_id, request};

const HOUR_MS: u64 = 60 * 60 * 1000;
const DAY_MS: u64 = 24 * HOUR_MS;

/// 23 December 2026, 04:26:40 UTC: when a shop of these tests begins.
const BEGIN: u64 = NOON_MS;

/// Two devices, without the gateway for as long as it takes.
fn alone() -> Shop {
    Shop::offline_under(&support::POLICY.replace("longest_minutes = 240", "longest_minutes = 20000"))
}

fn entries(shop: &Shop) -> Vec<Entry> {
    shop.disk
        .iter()
        .map(|payload| cbor::decode(payload).unwrap())
        .collect()
}

fn closures(shop: &Shop) -> Vec<(u64, Closure)> {
    let closure = |entry: Entry| match entry.event {
        Event::PeriodClosed { closure } => Some((entry.sequence, closure)),
        _ => None,
    };
    entries(shop).into_iter().filter_map(closure).collect()
}

fn names(shop: &Shop) -> Vec<String> {
    closures(shop)
        .into_iter()
        .map(|(_, closure)| closure.name)
        .collect()
}

fn total(count: u64, minor: u64) -> Total {
    Total { count, minor }
}

fn euros(change: impl FnOnce(&mut LedgerTotals)) -> Vec<LedgerTotals> {
    let mut totals = LedgerTotals::none(Currency::EUR);
    change(&mut totals);
    vec![totals]
}

/// What each closure comes to by the entries alone.
fn audited(entries: &[Entry]) -> Vec<Held> {
    let mut audit = ClosureAudit::default();
    let held = |entry| audit.take(entry).unwrap().map(|(_, held)| held);
    entries.iter().filter_map(held).collect()
}

fn is_approval(receipt: &Receipt) -> bool {
    matches!(
        receipt.decision,
        Decision::ApprovedOnline | Decision::ApprovedOffline
    )
}

fn to_midnight(shop: &mut Shop) {
    let rest = DAY_MS - shop.now.wall_ms % DAY_MS;
    shop.pass(rest);
}

fn online(shop: &mut Shop, number: u64, amount: u64, kind: TransactionType) {
    let mut asked = request(number, amount, "card");
    asked.terms = Some(Box::new(Terms::of(kind)));
    let ticket = shop.send(MPOS, &asked);
    shop.gateway(approved());
    assert!(is_approval(&shop.receipt(ticket)));
}

#[test]
fn a_day_is_closed_before_anything_of_the_next_one_with_what_was_done_in_it() {
    let mut shop = alone();
    shop.pay(MPOS, &request(1, 2_000, "card-1"));
    shop.pay(MPOS, &request(2, 1_500, "card-2"));
    let rest = DAY_MS - shop.now.wall_ms % DAY_MS;
    shop.pass(rest - 1);
    assert!(closures(&shop).is_empty(), "a millisecond is left");
    shop.now.wall_ms += 1;
    shop.now.monotonic_ms += 1;
    shop.pay(MPOS, &request(3, 700, "card-3"));
    let closed = closures(&shop);
    let (at, day) = closed.first().unwrap();
    let totals = euros(|totals| totals.approved_offline = total(2, 3_500));
    assert_eq!(
        *day,
        Closure {
            period: Period::Day,
            name: "2026-12-23".into(),
            number: 1,
            first: 1,
            last: at - 1,
            totals: totals.clone(),
            running: totals,
            since: 1,
        }
    );
    assert_eq!(closed.len(), 1, "the month and the year go on");
    let after = entries(&shop)
        .into_iter()
        .nth(usize::try_from(*at).unwrap())
        .unwrap();
    assert!(
        after.event.payment_id() == Some(payment_id(3)),
        "before the first payment of the next day"
    );
    to_midnight(&mut shop);
    let (_, next) = closures(&shop).pop().unwrap();
    assert_eq!((next.number, next.first), (2, *at), "no entry is left out");
    assert_eq!(
        next.totals,
        euros(|totals| totals.approved_offline = total(1, 700))
    );
    assert_eq!(
        next.running,
        euros(|totals| totals.approved_offline = total(3, 4_200))
    );
    assert_eq!(audited(&entries(&shop)), [Held::Right, Held::Right]);
}

#[test]
fn months_and_years_are_closed_after_their_last_day_and_empty_days_are_not() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card-1"));
    shop.pass(5 * DAY_MS);
    assert_eq!(names(&shop), ["2026-12-23"], "nobody paid on the days after");
    shop.go_online();
    shop.gateway(approved());
    shop.pass(4 * DAY_MS);
    assert_eq!(names(&shop), ["2026-12-23", "2026-12-28", "2026-12", "2026"]);
    let closed = closures(&shop);
    let both = euros(|totals| {
        totals.approved_offline = total(1, 2_000);
        totals.settled = total(1, 2_000);
    });
    for (_, closure) in closed.iter().filter(|(_, closure)| closure.period != Period::Day) {
        assert_eq!((closure.number, closure.first), (1, 1));
        assert_eq!((&closure.totals, &closure.running), (&both, &both));
    }
    online(&mut shop, 2, 900, TransactionType::Sale);
    to_midnight(&mut shop);
    let (_, day) = closures(&shop).pop().unwrap();
    assert_eq!(day.totals, euros(|totals| totals.approved_online = total(1, 900)));
    let running = day.running.first().unwrap();
    assert_eq!(
        (running.approved_online, running.settled),
        (total(1, 900), total(1, 2_000))
    );
    assert_eq!(audited(&entries(&shop)), [Held::Right; 5]);
}

#[test]
fn the_shops_day_is_that_of_its_time_zone() {
    // It begins on 23 December at 05:26:40 by the shop's clocks.
    let zone = "\n[hours]\ntime_zone = \"CET-1CEST,M3.5.0,M10.5.0/3\"\napprove_outside = true\n";
    let mut shop = Shop::offline_under(&format!("{}{zone}", support::POLICY));
    shop.pay(MPOS, &request(1, 2_000, "card-1"));
    let midnight = DAY_MS - (BEGIN + HOUR_MS) % DAY_MS;
    shop.pass(BEGIN + midnight - shop.now.wall_ms - 1);
    assert!(closures(&shop).is_empty());
    shop.pass(1);
    assert_eq!(names(&shop), ["2026-12-23"]);
}

#[test]
fn rule_1_a_policy_is_told_as_active_after_the_day_that_its_time_zone_ends_is_on_disk() {
    let mut shop = alone();
    shop.pay(MPOS, &request(1, 2_000, "card-1"));
    shop.pass(2 * HOUR_MS);
    assert!(closures(&shop).is_empty());

    // By it the payment was made on 22 December, and now is 01:26 on the 23rd.
    let zone = "\n[hours]\ntime_zone = \"EST5\"\napprove_outside = true\n";
    let policy = support::POLICY.replace("version = 1", "version = 2");
    shop.flush_at_once = false;
    assert_eq!(shop.install(&format!("{policy}{zone}")), None);
    let [(activated, _), (closed, _)] = shop.written.as_slice() else {
        panic!("an activation and a closure expected, not {:?}", shop.written);
    };
    let (activated, closed) = (*activated, *closed);
    let mut told = |sequence| {
        let effects = shop.core.handle(Input::Appended { sequence }, shop.now);
        let active = |effect: &Effect| {
            matches!(
                effect,
                Effect::Reply {
                    reply: Reply::PolicyActive { version: 2 },
                    ..
                }
            )
        };
        effects.iter().any(active)
    };
    assert!(!told(activated));
    assert!(told(closed));
    shop.flush();
    assert_eq!(names(&shop), ["2026-12-22"]);
}

#[test]
fn what_was_asked_before_midnight_and_answered_after_it_is_of_the_new_day() {
    let mut shop = Shop::online();
    online(&mut shop, 1, 1_000, TransactionType::Sale);
    let rest = DAY_MS - shop.now.wall_ms % DAY_MS;
    shop.pass(rest - 1);
    let ticket = shop.send(MPOS, &request(2, 500, "card-2"));
    shop.pass(1);
    shop.gateway(approved());
    assert!(is_approval(&shop.receipt(ticket)));
    to_midnight(&mut shop);
    let amounts: Vec<u64> = closures(&shop)
        .iter()
        .map(|(_, closure)| closure.totals.first().unwrap().approved_online.minor)
        .collect();
    assert_eq!(amounts, [1_000, 500]);
}

#[test]
fn every_way_that_a_payment_ends_counts_once_and_refunds_apart() {
    let mut shop = Shop::online();
    every_way(&mut shop);
    to_midnight(&mut shop);
    let (_, day) = closures(&shop).pop().unwrap();
    let wanted = euros(|totals| {
        totals.approved_online = total(1, 1_000);
        totals.approved_offline = total(4, 400 + 500 + 600 + 700);
        totals.settled = total(2, 500 + 700);
        totals.declined_at_replay = total(1, 600);
        totals.voided = total(2, 1_000 + 400);
        totals.refunded = Some(total(1, 300));
        totals.refunds_voided = Some(total(1, 300));
    });
    assert_eq!(day.totals, wanted);
    assert_eq!(audited(&entries(&shop)), [Held::Right]);
    // What a person found taken can be voided afterwards, and then is both.
    shop.void(MPOS, payment_id(7));
    shop.pass(1_000);
    shop.gateway(approved());
    to_midnight(&mut shop);
    let (_, day) = closures(&shop).pop().unwrap();
    assert_eq!(day.totals, euros(|totals| totals.voided = total(1, 700)));
    assert_eq!(day.running.first().unwrap().settled, total(2, 1_200));
    assert_eq!(audited(&entries(&shop)), [Held::Right; 2]);
}

/// Whatever can become of a payment, on one day.
fn every_way(shop: &mut Shop) {
    online(shop, 1, 1_000, TransactionType::Sale);
    online(shop, 2, 300, TransactionType::Refund);
    // Voided at the counter: a reversal, once it is through.
    shop.void(MPOS, payment_id(1));
    shop.pass(1_000);
    shop.gateway(approved());
    shop.void(MPOS, payment_id(2));
    shop.pass(1_000);
    shop.gateway(approved());
    // Never approved: its precaution takes nothing off.
    let ticket = shop.send(MPOS, &request(3, 40_000, "card-3"));
    shop.gateway(no_answer());
    shop.pass(60_000);
    assert!(!is_approval(&shop.receipt(ticket)));
    shop.come_back();
    shop.pass(60_000);
    shop.gateway(approved());
    assert_eq!(shop.state_of(3), hub_protocol::PaymentState::Reversed);
    // Approved here, and then each in its own way.
    shop.go_offline();
    for number in 4..=7 {
        shop.pay(MPOS, &request(number, number * 100, &format!("card-{number}")));
    }
    shop.void(MPOS, payment_id(4));
    shop.come_back();
    shop.gateway(approved());
    shop.pass(1_000);
    shop.gateway(declined());
    shop.pass(1_000);
    shop.gateway(no_answer());
    let parked = shop.operate(OperatorCommand::Park(payment_id(7)));
    assert_eq!(parked, OperatorReply::Done);
    let closed = shop.operate(OperatorCommand::Close {
        payment_id: payment_id(7),
        finding: Finding::Taken,
        note: "desk".to_owned(),
    });
    assert_eq!(closed, OperatorReply::Done);
}

#[test]
fn rule_2_a_restart_goes_on_counting_by_the_ledger_and_by_the_index() {
    for by_index in [false, true] {
        let mut shop = Shop::offline();
        shop.pay(MPOS, &request(1, 2_000, "card-1"));
        if by_index {
            let head = shop.core.state().head();
            let values = shop.core.state_mut().take_dirty();
            let mut state = State::default();
            for (key, value) in values {
                if State::RESTORED.iter().any(|prefix| key.starts_with(prefix)) {
                    state.restore(&key, &value.unwrap()).unwrap();
                }
            }
            state.restored(head, None);
            shop.restart(state);
        } else {
            shop.crash();
        }
        // Over midnight while it is off.
        shop.now.wall_ms += DAY_MS;
        shop.input(Input::Tick);
        let (_, day) = closures(&shop).pop().unwrap();
        assert_eq!(
            (day.name.as_str(), day.first, day.since),
            ("2026-12-23", 1, 1),
            "by the index: {by_index}"
        );
        assert_eq!(
            day.totals,
            euros(|totals| totals.approved_offline = total(1, 2_000))
        );
        assert_eq!(audited(&entries(&shop)), [Held::Right]);
    }
}

#[test]
fn a_ledger_of_before_counts_from_where_closures_begin() {
    let mut shop = alone();
    shop.pay(MPOS, &request(1, 2_000, "card-1"));
    let mut previous = hub_protocol::Digest::ZERO;
    for payload in &mut shop.disk {
        let mut entry: Entry = cbor::decode(payload).unwrap();
        if let Event::HubStarted { closes, .. } = &mut entry.event {
            *closes = None;
        }
        entry.previous = previous;
        *payload = entry.encode();
        previous = Entry::digest(payload);
    }
    let began = shop.disk.len() as u64 + 1;
    shop.crash();
    shop.pay(MPOS, &request(2, 700, "card-2"));
    to_midnight(&mut shop);
    shop.pay(MPOS, &request(3, 100, "card-3"));
    to_midnight(&mut shop);
    let closed = closures(&shop);
    let (_, day) = closed.first().unwrap();
    assert_eq!((day.since, day.first), (began, began));
    assert_eq!(
        day.running,
        euros(|totals| totals.approved_offline = total(1, 700))
    );
    assert_eq!(audited(&entries(&shop)), [Held::Right, Held::Right]);
}

fn gateway_says(shop: &mut Shop, gateway_ms: u64) {
    shop.input(Input::Probe(Probe {
        ok: true,
        latency_ms: 20,
        gateway_time_ms: Some(gateway_ms),
    }));
}

#[test]
fn a_clock_in_doubt_closes_nothing() {
    let mut shop = Shop::online();
    online(&mut shop, 1, 1_000, TransactionType::Sale);
    // It starts with a clock that is 40 days ahead: over a year's end.
    shop.now.wall_ms += 40 * DAY_MS;
    shop.crash();
    shop.come_back();
    online(&mut shop, 2, 500, TransactionType::Sale);
    shop.pass(3 * DAY_MS);
    online(&mut shop, 3, 200, TransactionType::Sale);
    assert!(names(&shop).is_empty(), "{:?}", names(&shop));
    shop.now.wall_ms -= 43 * DAY_MS;
    let right = shop.now.wall_ms;
    gateway_says(&mut shop, right);
    online(&mut shop, 4, 100, TransactionType::Sale);
    assert!(names(&shop).is_empty(), "it is the same day still");
    to_midnight(&mut shop);
    assert_eq!(names(&shop), ["2026-12-23"]);
    let (_, day) = closures(&shop).pop().unwrap();
    assert_eq!(
        day.totals,
        euros(|totals| totals.approved_online = total(4, 1_800))
    );
    assert_eq!(audited(&entries(&shop)), [Held::Right]);
}

#[test]
fn what_is_done_in_doubt_on_no_open_day_is_of_the_day_of_trust() {
    for restart in [false, true] {
        let mut shop = Shop::online();
        shop.now.wall_ms += 40 * DAY_MS;
        shop.crash();
        shop.come_back();
        online(&mut shop, 1, 500, TransactionType::Sale);
        shop.now.wall_ms -= 39 * DAY_MS;
        let right = shop.now.wall_ms;
        gateway_says(&mut shop, right);
        if restart {
            shop.crash();
        }
        to_midnight(&mut shop);
        assert_eq!(names(&shop), ["2026-12-24"], "restart {restart}");
        assert_eq!(audited(&entries(&shop)), [Held::Right]);
    }
}

#[test]
fn a_clock_that_is_set_right_closes_the_day_that_never_was() {
    let mut shop = Shop::online();
    online(&mut shop, 1, 1_000, TransactionType::Sale);
    // Not far enough ahead for anybody to doubt it.
    shop.now.wall_ms += 23 * HOUR_MS;
    shop.crash();
    shop.come_back();
    online(&mut shop, 2, 500, TransactionType::Sale);
    assert_eq!(names(&shop), ["2026-12-23"]);
    shop.now.wall_ms -= 23 * HOUR_MS;
    let right = shop.now.wall_ms;
    gateway_says(&mut shop, right);
    assert_eq!(names(&shop), ["2026-12-23", "2026-12-24"]);
    online(&mut shop, 3, 100, TransactionType::Sale);
    to_midnight(&mut shop);
    let parts = ["2026-12-23", "2026-12-24", "2026-12-23"];
    assert_eq!(names(&shop), parts, "the rest of it");
    assert_eq!(audited(&entries(&shop)), [Held::Right; 3]);
}

#[test]
fn a_closure_that_says_something_else_than_the_entries_is_found() {
    let mut shop = alone();
    shop.pay(MPOS, &request(1, 2_000, "card-1"));
    to_midnight(&mut shop);
    shop.pay(MPOS, &request(2, 700, "card-2"));
    to_midnight(&mut shop);
    let entries = entries(&shop);
    assert_eq!(audited(&entries), [Held::Right, Held::Right]);
    type Change = fn(&mut Closure);
    let changes: [(&str, Change); 7] = [
        ("its name", |closure| closure.name = "2026-12-25".to_owned()),
        ("since when", |closure| closure.since = 2),
        ("its totals", |closure| {
            closure.totals = euros(|totals| totals.approved_offline = total(1, 1_000));
        }),
        ("the perpetual totals", |closure| {
            closure.running = euros(|totals| totals.approved_offline = total(1, 1_000));
        }),
        ("where it begins", |closure| closure.first += 1),
        ("where it ends", |closure| closure.last -= 1),
        ("which it is", |closure| closure.number += 1),
    ];
    for (what, change) in changes {
        let mut forged = entries.clone();
        let last = forged.iter_mut().rev().find_map(|entry| match &mut entry.event {
            Event::PeriodClosed { closure } => Some(closure),
            _ => None,
        });
        change(last.unwrap());
        assert_eq!(audited(&forged), [Held::Right, Held::Wrong], "{what}");
    }
    // A day that is left out, so that two are told as one.
    let mut forged = entries.clone();
    forged.retain(|entry| !matches!(&entry.event, Event::PeriodClosed { closure } if closure.number == 1));
    for (at, entry) in (1..).zip(&mut forged) {
        entry.sequence = at;
        if let Event::PeriodClosed { closure } = &mut entry.event {
            (closure.number, closure.first, closure.last) = (1, 1, at - 1);
            closure.totals.clone_from(&closure.running);
        }
    }
    assert_eq!(audited(&forged), [Held::Wrong]);
    // A day that is closed before it is over.
    let mut forged = entries.clone();
    for entry in &mut forged {
        if matches!(entry.event, Event::PeriodClosed { .. }) {
            entry.time.wall_ms -= DAY_MS / 2;
        }
    }
    assert_eq!(audited(&forged), [Held::Wrong, Held::Wrong]);
    // The highest numbers there are, and something after them.
    let mut forged = entries.clone();
    let first = forged.iter_mut().find_map(|entry| match &mut entry.event {
        Event::PeriodClosed { closure } => Some(closure),
        _ => None,
    });
    let first = first.unwrap();
    (first.number, first.last) = (u32::MAX, u64::MAX);
    assert_eq!(audited(&forged), [Held::Wrong, Held::Wrong]);
    // Without the first entries, the rest is held as far as it is there.
    assert_eq!(audited(entries.get(3..).unwrap()), [Held::HubsWord, Held::Right]);
}

#[test]
fn a_ledger_that_lacks_entries_is_never_called_wrong() {
    let mut shop = Shop::online();
    every_way(&mut shop);
    to_midnight(&mut shop);
    for day in 0..3 {
        shop.go_offline();
        shop.pay(MPOS, &request(20 + day, 300, "card-20"));
        shop.void(MPOS, payment_id(20 + day));
        shop.come_back();
        online(&mut shop, 30 + day, 250, TransactionType::Sale);
        if day == 1 {
            shop.void(MPOS, payment_id(7));
            shop.void(MPOS, payment_id(30));
            shop.pass(1_000);
            shop.gateway(approved());
            shop.pass(1_000);
            shop.gateway(approved());
        }
        to_midnight(&mut shop);
    }
    let all = entries(&shop);
    assert_eq!(audited(&all), [Held::Right; 4]);
    for from in 0..all.len() {
        for to in from + 1..=all.len() {
            let left: Vec<Entry> = [all.get(..from).unwrap(), all.get(to..).unwrap()].concat();
            let held = audited(&left);
            assert!(
                !held.contains(&Held::Wrong),
                "without entries {} to {to}: {held:?}",
                from + 1
            );
        }
    }
}
