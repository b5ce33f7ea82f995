//! What a person does with payments that wait for one, and what nobody has to
//! be asked about because it never left the hub.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, Input, Operation, OperatorCommand, OperatorReply, Probe};
use hub_protocol::PaymentState;
use hub_protocol::entry::{Entry, Event, Finding, ParkReason, TraceRule};
use support::{MPOS, SOFTPOS, Shop, approved, no_answer, payment_id, request};

const HOUR_MS: u64 = 60 * 60 * 1000;

/// An acquirer cannot be asked what it has.
fn acquirer() -> Shop {
    Shop::offline_with(support::POLICY, |settings| {
        settings.looks_up = false;
        settings.presents_again = false;
    })
}

fn unsendable() -> GatewayAnswer {
    GatewayAnswer::Unsendable {
        detail: "ask its desk".to_owned(),
    }
}

/// Sent, not answered, and then older than the acquirer's memory.
fn past_retention(shop: &mut Shop) {
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    shop.gateway(no_answer());
    shop.go_offline();
    shop.pass(24 * HOUR_MS);
    shop.come_back();
    assert_eq!(shop.gateway(unsendable()).operation, Operation::LookUp);
    assert_eq!(shop.state_of(1), PaymentState::Parked);
}

fn release(shop: &mut Shop, number: u64, not_there: bool) -> OperatorReply {
    shop.operate(OperatorCommand::Release {
        payment_id: payment_id(number),
        not_there,
    })
}

fn close(shop: &mut Shop, number: u64, finding: Finding, note: &str) -> OperatorReply {
    shop.operate(OperatorCommand::Close {
        payment_id: payment_id(number),
        finding,
        note: note.to_owned(),
    })
}

fn refused(reply: OperatorReply) -> String {
    match reply {
        OperatorReply::Refused(text) => text,
        other => panic!("a refusal expected, not {other:?}"),
    }
}

fn exposure(shop: &Shop) -> u64 {
    shop.core.state().store().subject.exposure_minor
}

fn events(shop: &Shop) -> Vec<Event> {
    let entry = |payload: &Vec<u8>| hub_protocol::cbor::decode::<Entry>(payload).unwrap().event;
    shop.disk.iter().map(entry).collect()
}

#[test]
fn rule_3_what_the_desk_does_not_have_is_sent_as_a_repeat_and_only_then() {
    for restart in [false, true] {
        let mut shop = acquirer();
        past_retention(&mut shop);
        // Released without having asked, it comes back.
        assert_eq!(release(&mut shop, 1, false), OperatorReply::Done);
        shop.pass(1_000);
        assert_eq!(shop.gateway(unsendable()).operation, Operation::LookUp);
        assert_eq!(shop.state_of(1), PaymentState::Parked);
        // A desk may answer while the line is down, and long before it is back.
        shop.go_offline();
        assert_eq!(release(&mut shop, 1, true), OperatorReply::Done);
        if restart {
            shop.crash();
        }
        shop.pass(5 * HOUR_MS);
        shop.come_back();
        let sent = shop.gateway(approved());
        assert_eq!(
            (sent.operation, sent.maybe_sent),
            (Operation::AuthoriseDeferred, true),
            "restart {restart}: if the desk was wrong, a repeat is its last chance"
        );
        assert_eq!(shop.state_of(1), PaymentState::Settled);
        assert_eq!(exposure(&shop), 0);
    }
}

#[test]
fn rule_3_a_persons_word_holds_for_what_was_sent_before_it_only() {
    let mut shop = acquirer();
    past_retention(&mut shop);
    assert_eq!(release(&mut shop, 1, true), OperatorReply::Done);
    assert_eq!(shop.gateway(no_answer()).operation, Operation::AuthoriseDeferred);
    shop.go_offline();
    shop.pass(24 * HOUR_MS);
    shop.crash();
    shop.come_back();
    assert_eq!(
        shop.gateway(unsendable()).operation,
        Operation::LookUp,
        "it was sent since"
    );
    assert_eq!(shop.state_of(1), PaymentState::Parked);
}

#[test]
fn rule_2_a_payment_ends_by_what_a_person_found_out_and_the_ledger_says_who() {
    let table = [
        (Finding::Taken, PaymentState::Settled),
        (Finding::NotThere, PaymentState::SettledDeclined),
        (Finding::Undone, PaymentState::Reversed),
    ];
    for (finding, state) in table {
        let mut shop = acquirer();
        past_retention(&mut shop);
        assert_eq!(exposure(&shop), 2_000);
        let before = shop.core.state().store().subject.consecutive;
        assert_eq!(close(&mut shop, 1, finding, "desk, ref 77"), OperatorReply::Done);
        assert_eq!((shop.state_of(1), exposure(&shop)), (state, 0), "{finding}");
        assert_eq!(
            shop.core.state().store().subject.consecutive,
            before,
            "a person is not the gateway: no run of approvals ends"
        );
        assert!(shop.erased.contains(&payment_id(1)));
        assert_eq!(shop.pushed.last().map(|status| status.state), Some(state));
        let closed = Event::PaymentClosed {
            payment_id: payment_id(1),
            finding,
            note: "desk, ref 77".to_owned(),
            operator: "anna".to_owned(),
        };
        assert!(events(&shop).contains(&closed));
        shop.crash();
        shop.come_back();
        shop.pass(HOUR_MS);
        assert!(shop.forwards.is_empty(), "nothing more is sent");
        assert_eq!((shop.state_of(1), exposure(&shop)), (state, 0), "{finding}");
        assert!(shop.queue().is_empty());
        refused(close(&mut shop, 1, finding, "again"));
        refused(release(&mut shop, 1, true));
    }
}

#[test]
fn rule_5_a_parked_reversal_ends_with_nothing_taken() {
    let table = [
        (Finding::NotThere, PaymentState::Reversed),
        (Finding::Undone, PaymentState::Reversed),
    ];
    for (finding, state) in table {
        let mut shop = acquirer();
        past_retention(&mut shop);
        shop.void(MPOS, payment_id(1));
        let refuses = GatewayAnswer::RefusesMessage {
            detail: "30".to_owned(),
        };
        assert_eq!(shop.gateway(refuses).operation, Operation::Reverse);
        assert_eq!(shop.state_of(1), PaymentState::ReversalParked);
        let text = refused(release(&mut shop, 1, true));
        assert!(text.contains("close it as not there"), "{text}");
        let text = refused(close(&mut shop, 1, Finding::Taken, "desk"));
        assert!(text.contains("have it undone there"), "{text}");
        assert_eq!(close(&mut shop, 1, finding, "desk"), OperatorReply::Done);
        assert_eq!((shop.state_of(1), exposure(&shop)), (state, 0), "{finding}");
    }
}

#[test]
fn what_was_closed_as_taken_can_still_be_voided() {
    let mut shop = acquirer();
    past_retention(&mut shop);
    close(&mut shop, 1, Finding::Taken, "desk");
    let voids = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
    assert_eq!(shop.gateway(approved()).operation, Operation::Reverse);
    assert_eq!(shop.state_of(1), PaymentState::Reversed);
}

#[test]
fn a_note_says_something_and_no_card_number() {
    let mut shop = acquirer();
    past_retention(&mut shop);
    let too_long = "x".repeat(hub_core::MAX_NOTE + 1);
    for note in ["", "  ", too_long.as_str()] {
        let text = refused(close(&mut shop, 1, Finding::Taken, note));
        assert!(text.contains("1 to 200 bytes"), "{text}");
    }
    let text = refused(close(
        &mut shop,
        1,
        Finding::Taken,
        "desk asked for 4111 1111 1111 1111",
    ));
    assert!(text.contains("card number") && !text.contains("4111"), "{text}");
    assert_eq!(shop.state_of(1), PaymentState::Parked);
}

#[test]
fn what_a_person_keeps_back_is_not_sent_and_holds_up_nobody() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 1_000, "card"));
    assert_eq!(
        shop.operate(OperatorCommand::Park(payment_id(1))),
        OperatorReply::Done
    );
    let item = shop
        .queue()
        .into_iter()
        .find(|item| item.payment_id == payment_id(1));
    let item = item.unwrap();
    assert_eq!(item.parked, Some(ParkReason::KeptBack));
    assert_eq!(item.last_error.as_deref(), Some("anna"), "by whom");
    shop.go_online();
    assert_eq!(shop.gateway(approved()).payment_id, payment_id(2));
    assert_eq!(exposure(&shop), 2_000);
    assert!(shop.forwards.is_empty());
    refused(shop.operate(OperatorCommand::Park(payment_id(1))));
    // Nobody can have taken what has never left.
    for finding in [Finding::Taken, Finding::Undone] {
        let text = refused(close(&mut shop, 1, finding, "desk"));
        assert!(text.contains("never left the hub"), "{text}");
    }
    release(&mut shop, 1, false);
    assert_eq!(shop.forwards.len(), 1);
    let text = refused(shop.operate(OperatorCommand::Park(payment_id(1))));
    assert!(text.contains("under way"), "{text}");
    shop.gateway(approved());
    refused(shop.operate(OperatorCommand::Park(payment_id(1))));
}

#[test]
fn only_what_is_parked_is_listed_where_that_is_asked_for() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 1_000, "card"));
    shop.operate(OperatorCommand::Park(payment_id(2)));
    let parked = OperatorCommand::Queue {
        limit: 10,
        parked_only: true,
    };
    let OperatorReply::Queue { items, total, parked } = shop.operate(parked) else {
        unreachable!("a queue was asked for")
    };
    assert_eq!((items.len(), total, parked), (1, 2, 1));
    assert_eq!(items[0].payment_id, payment_id(2));
}

/// The line is gone for days, and the program is started again and again.
#[test]
fn rule_3_what_was_queued_in_an_outage_never_left_whatever_restarts_there_were() {
    let mut shop = acquirer();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    shop.pay(MPOS, &request(2, 1_000, "other"));
    shop.pay(SOFTPOS, &request(3, 1_000, "third"));
    shop.crash();
    let voids = shop.void(MPOS, payment_id(2));
    assert_eq!(
        shop.status_of(voids).state,
        PaymentState::Voided,
        "nothing is to be reversed"
    );
    // Older than the acquirer's memory, and all the same not to be looked up.
    shop.pass(3 * 24 * HOUR_MS);
    shop.come_back();
    for id in [payment_id(1), payment_id(3)] {
        let sent = shop.gateway(approved());
        assert_eq!(
            (sent.payment_id, sent.operation, sent.maybe_sent),
            (id, Operation::AuthoriseDeferred, false)
        );
    }
    assert_eq!(exposure(&shop), 0);
}

#[test]
fn rule_3_what_waited_when_the_outage_began_may_have_left() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    assert_eq!(shop.forwards.len(), 1);
    shop.gateway(no_answer());
    shop.go_offline();
    shop.crash();
    let voids = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
}

#[test]
fn rule_3_what_was_queued_in_an_outage_may_have_left_once_that_has_ended() {
    for drained in [false, true] {
        let mut shop = Shop::offline();
        shop.pay(MPOS, &request(1, 2_000, "card"));
        if drained {
            // By a person, although the gateway is thought to be gone.
            shop.operate(OperatorCommand::Drain);
        } else {
            shop.go_online();
        }
        assert_eq!(shop.forwards.len(), 1, "drained {drained}");
        shop.crash();
        let voids = shop.void(MPOS, payment_id(1));
        assert_eq!(
            shop.status_of(voids).state,
            PaymentState::ReversalQueued,
            "drained {drained}"
        );
    }
}

#[test]
fn rule_3_nothing_leaves_the_queue_before_the_end_of_the_outage_is_on_disk() {
    for drained in [false, true] {
        let mut shop = Shop::offline();
        shop.pay(MPOS, &request(1, 2_000, "card"));
        shop.flush_at_once = false;
        if drained {
            let ticket = shop.ticket();
            shop.input(Input::Operator {
                ticket,
                operator: "anna".to_owned(),
                command: OperatorCommand::Drain,
            });
        } else {
            shop.input(Input::Probe(Probe {
                ok: true,
                latency_ms: 20,
                gateway_time_ms: None,
            }));
            shop.go_online();
        }
        assert!(
            shop.forwards.is_empty(),
            "drained {drained}: a crash would forget it"
        );
        shop.flush();
        assert_eq!(shop.forwards.len(), 1, "drained {drained}");
    }
}

#[test]
fn rule_3_a_ledger_that_was_away_or_has_a_torn_end_proves_nothing() {
    for (away, torn_bytes) in [(true, 0), (false, 100)] {
        let mut shop = Shop::offline();
        shop.pay(MPOS, &request(1, 2_000, "card"));
        shop.pay(MPOS, &request(2, 2_000, "other"));
        (shop.settings.away, shop.torn_bytes) = (away, torn_bytes);
        shop.crash();
        let voids = shop.void(MPOS, payment_id(1));
        assert_eq!(
            shop.status_of(voids).state,
            PaymentState::ReversalQueued,
            "away {away}"
        );
        // Nor after another start, until there is another outage.
        (shop.settings.away, shop.torn_bytes) = (false, 0);
        shop.crash();
        let voids = shop.void(MPOS, payment_id(2));
        assert_eq!(
            shop.status_of(voids).state,
            PaymentState::ReversalQueued,
            "away {away}"
        );
    }
}

#[test]
fn the_first_reversal_is_no_repeat_of_the_payment_and_the_next_is_of_it() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.go_online();
    let refuses = GatewayAnswer::Conflict {
        detail: "422".to_owned(),
    };
    assert!(!shop.gateway(refuses).maybe_sent);
    assert_eq!(shop.state_of(1), PaymentState::Parked);
    shop.void(MPOS, payment_id(1));
    let first = shop.gateway(no_answer());
    assert_eq!(
        (first.operation, first.number, first.maybe_sent),
        (Operation::Reverse, 1, false)
    );
    shop.pass(60_000);
    let second = shop.gateway(no_answer());
    assert_eq!((second.number, second.maybe_sent), (2, true));
    shop.crash();
    shop.pass(60_000);
    let third = shop.gateway(GatewayAnswer::Conflict {
        detail: "422".to_owned(),
    });
    assert!(third.maybe_sent, "by the process before");
    assert_eq!(shop.state_of(1), PaymentState::ReversalParked);
    release(&mut shop, 1, false);
    assert!(shop.gateway(approved()).maybe_sent, "it was parked");
    assert_eq!(shop.state_of(1), PaymentState::Reversed);
}

#[test]
fn rule_3_an_order_to_drain_does_not_outlive_the_beginning_of_an_outage() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.pay(MPOS, &request(2, 1_000, "card"));
    shop.go_online();
    assert_eq!(shop.forwards.len(), 1, "the other waits behind it");
    shop.operate(OperatorCommand::Drain);
    shop.go_offline();
    shop.gateway(approved());
    assert!(shop.forwards.is_empty(), "in an outage nothing leaves");
    shop.pass(60_000);
    assert!(shop.forwards.is_empty());
    shop.operate(OperatorCommand::Drain);
    assert_eq!(shop.forwards.len(), 1, "but on a new order");
}

#[test]
fn what_has_left_is_never_said_not_to_have_however_many_are_parked() {
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 100, "card 1"));
    shop.go_online();
    shop.gateway(no_answer());
    assert_eq!(
        shop.operate(OperatorCommand::Park(payment_id(1))),
        OperatorReply::Done
    );
    assert_eq!(close(&mut shop, 1, Finding::Taken, "desk"), OperatorReply::Done);
}

#[test]
fn rule_3_an_older_hubs_outage_proves_nothing() {
    // It sent before its ledger said that the gateway was back.
    let mut shop = Shop::offline();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    let mut digest = hub_protocol::Digest::ZERO;
    for payload in &mut shop.disk {
        let mut entry: Entry = hub_protocol::cbor::decode(payload).unwrap();
        if let Event::HubStarted { traces, .. } = &mut entry.event {
            *traces = None;
        }
        entry.previous = digest;
        *payload = entry.encode();
        digest = Entry::digest(payload);
    }
    shop.crash();
    let voids = shop.void(MPOS, payment_id(1));
    assert_eq!(shop.status_of(voids).state, PaymentState::ReversalQueued);
}

#[test]
fn rule_3_a_payment_keeps_the_name_that_the_acquirer_knows_it_by() {
    let mut shop = acquirer();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    shop.settings.traces = TraceRule::PaymentAndDevice;
    shop.crash();
    shop.pay(SOFTPOS, &request(2, 1_000, "other"));
    shop.settings.traces = TraceRule::Payment;
    shop.crash();
    shop.pay(MPOS, &request(3, 1_000, "third"));
    shop.crash();
    shop.come_back();
    let mut rules = Vec::new();
    while !shop.forwards.is_empty() {
        let sent = shop.gateway(approved());
        rules.push((sent.payment_id, sent.traces));
    }
    rules.sort();
    assert_eq!(
        rules,
        [
            (payment_id(1), TraceRule::Entry),
            (payment_id(2), TraceRule::PaymentAndDevice),
            (payment_id(3), TraceRule::Payment)
        ]
    );
    assert_eq!(
        shop.core.state().store().traces.len(),
        2,
        "a start changes nothing by itself"
    );
}

#[test]
fn changes_of_the_trace_rule_are_bounded() {
    let mut shop = acquirer();
    shop.pay(MPOS, &request(1, 2_000, "card"));
    for change in 0..400 {
        shop.settings.traces = if change % 2 == 0 {
            TraceRule::Payment
        } else {
            TraceRule::Entry
        };
        shop.crash();
    }
    let traces = &shop.core.state().store().traces;
    assert_eq!(traces.len(), hub_core::state::MOST_TRACE_RULES);
    assert_eq!(traces.last().map(|since| since.rule), Some(TraceRule::Entry));
    let first = shop
        .core
        .state()
        .payment(&payment_id(1))
        .unwrap()
        .request_sequence;
    assert_eq!(
        shop.core.state().store().traces_at(first),
        TraceRule::Entry,
        "it keeps its name"
    );
}

#[test]
fn rule_3_at_the_counter_what_can_neither_be_repeated_nor_looked_up_is_declined_and_reversed() {
    for offline in [false, true] {
        let mut shop = acquirer();
        shop.go_online();
        shop.send(MPOS, &request(1, 2_000, "card"));
        shop.crash();
        shop.now.wall_ms += 23 * HOUR_MS;
        if offline {
            shop.go_offline();
        }
        let receipt = shop.pay(MPOS, &request(1, 2_000, "card"));
        assert!(!receipt.decision.approved(), "offline {offline}: {receipt:?}");
        assert_eq!(shop.state_of(1), PaymentState::ReversalQueued);
    }
    // In time it is simply asked again.
    let mut shop = acquirer();
    shop.go_online();
    shop.send(MPOS, &request(1, 2_000, "card"));
    shop.crash();
    shop.send(MPOS, &request(1, 2_000, "card"));
    let asked = shop.gateway(approved());
    assert_eq!(
        (asked.operation, asked.maybe_sent),
        (Operation::AuthoriseOnline, true)
    );
}
