//! A call that a hub sent before it fell may reach the gateway after a look-up
//! has found nothing.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use hub_core::{GatewayAnswer, Operation};
use hub_protocol::{Decision, PaymentState, Reason};
use support::{MPOS, Shop, request};

const HOUR_MS: u64 = 3_600_000;

/// Asked online, the hub falls, and the next one looks the payment up and does
/// not find it. The second call is refused; the first may still arrive.
#[test]
fn a_no_after_a_look_up_that_found_nothing_is_reversed() {
    let refusals = [
        (GatewayAnswer::CardMissing, Reason::Abandoned),
        (
            GatewayAnswer::RefusesMessage {
                detail: "no".to_owned(),
            },
            Reason::GatewayDeclined,
        ),
        (
            GatewayAnswer::RefusesHub {
                detail: "no".to_owned(),
            },
            Reason::TransactionCeiling,
        ),
    ];
    for (refusal, reason) in refusals {
        let mut shop = Shop::online();
        shop.send(MPOS, &request(1, 10_001, "card"));
        assert_eq!(shop.forwards.remove(0).operation, Operation::AuthoriseOnline);
        shop.crash();
        shop.now.wall_ms += 23 * HOUR_MS;
        let ticket = shop.send(MPOS, &request(1, 10_001, "card"));
        assert_eq!(shop.gateway(GatewayAnswer::NotFound).operation, Operation::LookUp);
        assert_eq!(shop.gateway(refusal).operation, Operation::AuthoriseOnline);
        let receipt = shop.receipt(ticket);
        assert_eq!((receipt.decision, receipt.reason), (Decision::Declined, reason));
        assert_eq!(shop.state_of(1), PaymentState::ReversalQueued);
    }
}
