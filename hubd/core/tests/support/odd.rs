//! Shops that look for anomalies, and what they have found.

use hub_core::{Input, Probe};
use hub_protocol::entry::Event;
use hub_protocol::{
    AnomalyKind, DeviceId, Entry, PaymentRequest, Receipt, Restriction, RestrictionCause, cbor,
};

use super::{POLICY, Shop, request};

pub const MINUTE: u64 = 60_000;

/// Each number that comes again: 15 points, 10 an hour fade.
pub const AGAIN: &str = "[anomaly.sequence_reused]\npoints = 15";

/// The sample policy with `[anomaly]` of these keys and tables.
pub fn policy(rest: &str) -> String {
    format!(
        "{POLICY}\n[anomaly]\ntighten_percent = 50\nfade_points_per_hour = 10\n{rest}\n\
         [anomaly.device]\nwarn = 10\ntighten = 20\nstop = 40\n"
    )
}

/// A payment as the device's own clock has it.
pub fn asked(shop: &Shop, number: u64, amount: u64, card: &str) -> PaymentRequest {
    PaymentRequest {
        device_time_ms: shop.now.wall_ms,
        ..request(number, amount, card)
    }
}

pub fn pay(shop: &mut Shop, device: DeviceId, number: u64, amount: u64, card: &str) -> Receipt {
    let request = asked(shop, number, amount, card);
    shop.pay(device, &request)
}

pub fn events(shop: &Shop) -> Vec<Event> {
    let entries = shop.disk.iter();
    entries
        .map(|payload| cbor::decode::<Entry>(payload).unwrap().event)
        .collect()
}

/// What was found, and at which payment.
pub fn found(shop: &Shop) -> Vec<(AnomalyKind, u64)> {
    let number = |id: hub_protocol::PaymentId| u64::from_be_bytes(id.0[8..].try_into().unwrap());
    let one = |event| match event {
        Event::AnomalyFound { kind, shown_by, .. } => Some((kind, shown_by.map_or(0, number))),
        _ => None,
    };
    events(shop).into_iter().filter_map(one).collect()
}

pub fn restrictions(shop: &Shop) -> Vec<(Option<DeviceId>, Restriction, RestrictionCause)> {
    let one = |event| match event {
        Event::RestrictionChanged {
            device,
            restriction,
            cause,
            ..
        } => Some((device, restriction, cause)),
        _ => None,
    };
    events(shop).into_iter().filter_map(one).collect()
}

pub fn gateway_says(shop: &mut Shop, gateway_ms: u64) {
    shop.input(Input::Probe(Probe {
        ok: true,
        latency_ms: 20,
        gateway_time_ms: Some(gateway_ms),
    }));
}
