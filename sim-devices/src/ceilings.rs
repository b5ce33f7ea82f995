//! The ceilings, worked out a second time from the receipts alone.
//!
//! A payment weighs on its card, its device and the store from the entry
//! that approved it, in the order of the ledger's sequence, until the
//! earliest moment at which it can have been settled: when the gateway's own
//! book has it, and never inside an outage, where nothing reaches the
//! gateway. So inside an outage the sums are exact, and outside they are
//! never too high: whatever is found here is a breach.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use hub_protocol::{Cryptogram, DeviceClass, DeviceId, EntryMode, PaymentId, Verification};

use crate::limits::{Limits, SubjectLimits};
use crate::told::{Booked, Slip, Standing, Told};

/// A time without the gateway, milliseconds since 1970 UTC: from when the
/// line had been cut until before it was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// The first millisecond all of which the line was down.
    pub from_ms: u64,
    /// The last millisecond that began with the line down.
    pub to_ms: u64,
}

impl Outage {
    /// Between two moments at which nothing passed. What the gateway answered
    /// in the millisecond of the cut can have passed before it.
    pub fn between(cut: SystemTime, mended: SystemTime) -> Self {
        let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let ms = |millis: u128| u64::try_from(millis).unwrap_or(u64::MAX);
        Self {
            from_ms: ms(since(cut).as_nanos().div_ceil(1_000_000)),
            to_ms: ms(since(mended).as_millis()),
        }
    }
}

/// One approval that the policy did not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The payment that went past.
    pub payment_id: PaymentId,
    /// Past what, in words.
    pub what: String,
}

/// A card, a device or the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Store,
    Device(DeviceId),
    Card(String),
}

#[derive(Clone, Copy, Debug, Default)]
struct Weight {
    exposure: u64,
    unsettled: u32,
    consecutive: u32,
}

struct Approval<'a> {
    told: &'a Told,
    slip: &'a Slip,
}

/// Every breach of `limits` by what customers were told.
pub fn breaches(limits: &Limits, told: &[Told], book: &[Booked], outages: &[Outage]) -> Vec<Breach> {
    let book: HashMap<PaymentId, &Booked> = book.iter().map(|b| (b.payment_id, b)).collect();
    let mut approvals: Vec<Approval<'_>> = told
        .iter()
        .filter(|t| t.approved_offline())
        .filter_map(|told| told.slip().map(|slip| Approval { told, slip }))
        .collect();
    approvals.sort_by_key(|a| a.slip.sequence);

    let mut found = Vec::new();
    let mut weights: HashMap<Subject, Weight> = HashMap::new();
    // What is to be released, by time.
    let mut releases: BTreeMap<(u64, u64), &Told> = BTreeMap::new();
    for Approval { told, slip } in approvals {
        while let Some(entry) = releases.first_entry() {
            if entry.key().0 > slip.decided_ms {
                break;
            }
            release(&mut weights, entry.remove());
        }
        for what in single(limits, told) {
            found.push(Breach {
                payment_id: told.payment_id,
                what,
            });
        }
        for (subject, limits) in subjects(limits, told) {
            let weight = weights.entry(subject.clone()).or_default();
            weight.exposure = weight.exposure.saturating_add(told.amount_minor);
            weight.unsettled += 1;
            weight.consecutive += 1;
            for what in past(&subject, *weight, limits) {
                found.push(Breach {
                    payment_id: told.payment_id,
                    what,
                });
            }
        }
        if let Some(at) = book
            .get(&told.payment_id)
            .and_then(|b| earliest_settled(b, slip, outages))
        {
            releases.insert((at, slip.sequence), told);
        }
    }
    found
}

/// The earliest moment at which this payment can have been settled.
fn earliest_settled(booked: &Booked, slip: &Slip, outages: &[Outage]) -> Option<u64> {
    if booked.standing == Standing::Pending {
        return None;
    }
    // The book may have it before the hub decided: asked online, and the
    // answer lost on the way.
    let at = booked.answered_ms.max(slip.decided_ms);
    let outage = outages.iter().find(|o| (o.from_ms..=o.to_ms).contains(&at));
    Some(outage.map_or(at, |o| o.to_ms))
}

fn release(weights: &mut HashMap<Subject, Weight>, told: &Told) {
    for subject in [
        Subject::Store,
        Subject::Device(told.device),
        Subject::Card(told.card.token.clone()),
    ] {
        let Some(weight) = weights.get_mut(&subject) else {
            continue;
        };
        weight.exposure = weight.exposure.saturating_sub(told.amount_minor);
        weight.unsettled = weight.unsettled.saturating_sub(1);
        if weight.unsettled == 0 {
            weight.consecutive = 0;
        }
    }
}

fn subjects(limits: &Limits, told: &Told) -> [(Subject, SubjectLimits); 3] {
    [
        (Subject::Card(told.card.token.clone()), limits.card),
        (Subject::Device(told.device), limits.class(told.class).device),
        (Subject::Store, limits.store),
    ]
}

fn past(subject: &Subject, weight: Weight, limits: SubjectLimits) -> Vec<String> {
    let who = match subject {
        Subject::Store => "the store".to_owned(),
        Subject::Device(device) => format!("device {}", device.short()),
        Subject::Card(token) => format!("card {token}"),
    };
    let mut found = Vec::new();
    if weight.exposure > limits.exposure {
        found.push(format!(
            "{who}: {} unsettled, ceiling {}",
            weight.exposure, limits.exposure
        ));
    }
    if weight.consecutive > limits.consecutive {
        found.push(format!(
            "{who}: {} offline in a row, limit {}",
            weight.consecutive, limits.consecutive
        ));
    }
    found
}

/// What can be told from the one payment.
fn single(limits: &Limits, told: &Told) -> Vec<String> {
    let mut found = Vec::new();
    let class: DeviceClass = told.class;
    let ceiling = limits.class(class).transaction;
    if told.amount_minor > ceiling {
        found.push(format!(
            "{} in one payment on {class}, ceiling {ceiling}",
            told.amount_minor
        ));
    }
    if told.gesture.cryptogram == Cryptogram::Refused {
        found.push("the card itself had refused".to_owned());
    }
    if !limits.schemes.contains(&told.card.scheme) {
        found.push(format!("scheme {} is not taken offline", told.card.scheme));
    }
    if !limits.funding.contains(&told.card.funding) {
        found.push(format!("funding {} is not taken offline", told.card.funding));
    }
    let mode = told.gesture.entry_mode;
    if !limits.entry_modes.contains(&mode) {
        found.push(format!("entry mode {mode} is not taken offline"));
    }
    if told.gesture.verification == Verification::OnlinePin {
        found.push("a PIN that only the bank can check".to_owned());
    }
    if mode == EntryMode::Contactless
        && matches!(
            told.gesture.verification,
            Verification::None | Verification::Signature
        )
        && told.amount_minor > limits.unverified
    {
        found.push(format!("{} contactless without verification", told.amount_minor));
    }
    found
}

#[cfg(test)]
mod tests;
