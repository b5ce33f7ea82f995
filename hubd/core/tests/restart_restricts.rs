//! A crash between an anomaly and what it led to.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

mod support;

use hub_protocol::entry::Event;
use hub_protocol::{Entry, PaymentRequest, Reason, Restriction, RestrictionCause, cbor};
use support::{MPOS, Shop, request};

/// A number that comes again stops the device, and the store.
const POLICY: &str = "[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 10\n\
                      [anomaly.device]\nstop = 15\n[anomaly.store]\nstop = 15\n\
                      [anomaly.sequence_reused]\npoints = 15\n";

fn event(payload: &[u8]) -> Event {
    cbor::decode::<Entry>(payload).unwrap().event
}

#[test]
fn rule_5_an_anomaly_on_disk_restricts_although_the_power_failed_before_the_restriction_was() {
    let mut shop = Shop::offline_under(&format!("{}\n{POLICY}", support::POLICY));
    let asked = |number: u64| PaymentRequest {
        device_sequence: 1,
        ..request(number, 100, &format!("card {number}"))
    };
    assert!(shop.pay(MPOS, &asked(1)).decision.approved());
    shop.flush_at_once = false;
    shop.send(MPOS, &asked(2));
    let (_, first) = shop.written.first().unwrap().clone();
    assert!(matches!(event(&first), Event::AnomalyFound { .. }));
    // The group under way ended there.
    shop.disk.push(first);
    shop.flush_at_once = true;
    let before = shop.disk.len();
    shop.crash();
    let restricted: Vec<_> = shop.disk[before..]
        .iter()
        .filter_map(|payload| match event(payload) {
            Event::RestrictionChanged {
                device,
                restriction,
                cause,
                ..
            } => Some((device, restriction, cause)),
            _ => None,
        })
        .collect();
    let stopped = |place| (place, Restriction::Stopped, RestrictionCause::Anomalies);
    assert_eq!(restricted, [stopped(Some(MPOS)), stopped(None)]);
    let receipt = shop.pay(MPOS, &request(3, 100, "card 3"));
    assert!(!receipt.decision.approved());
    let record = shop.core.state().payment(&support::payment_id(3)).unwrap();
    assert_eq!(
        record.decided.as_ref().unwrap().record.reason,
        Reason::StoreSuspended
    );
    // Once is enough.
    let before = shop.disk.len();
    shop.crash();
    assert_eq!(shop.disk.len(), before + 1, "only the start");
}
