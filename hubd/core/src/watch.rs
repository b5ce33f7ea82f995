//! What detectors remember of devices and cards, and the points that
//! anomalies have come to.

use hub_protocol::entry::{ClockQuality, EntryTime};
use hub_protocol::{AnomalyKind, DeviceId, PaymentRequest, Restriction, TransactionType};
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::clock::difference;
use crate::counter::Counter;
use crate::policy::anomaly::{AnomalyRules, EqualAmounts, LOOKS_BACK};
use crate::record::{CardKey, StaffKey};

/// The same anomaly at the same device counts once in this time, in
/// milliseconds.
pub const QUIET_MS: u64 = 10 * 60 * 1000;

const HOUR_MS: u64 = 3_600_000;

/// How things stand at a device, or in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Alert {
    /// Thousandths of points, as of `at_ms`.
    #[n(1)]
    pub points_milli: u64,
    /// When points were added last, milliseconds since 1970 UTC.
    #[n(2)]
    pub at_ms: u64,
    /// What they have led to.
    #[n(3)]
    pub restriction: Restriction,
}

impl Default for Alert {
    fn default() -> Self {
        Self {
            points_milli: 0,
            at_ms: 0,
            restriction: Restriction::None,
        }
    }
}

impl Alert {
    /// Points left at this time, in thousandths.
    fn left_milli(&self, now_ms: u64, fade_per_hour: u64) -> u64 {
        let passed = u128::from(now_ms.saturating_sub(self.at_ms));
        let faded = passed * u128::from(fade_per_hour) * 1000 / u128::from(HOUR_MS);
        self.points_milli
            .saturating_sub(u64::try_from(faded).unwrap_or(u64::MAX))
    }

    /// Points left at this time, rounded down.
    pub(crate) fn points(&self, now_ms: u64, fade_per_hour: u64) -> u64 {
        self.left_milli(now_ms, fade_per_hour) / 1000
    }

    pub(crate) fn add(&mut self, points: u16, now_ms: u64, fade_per_hour: u64) {
        let left = self.left_milli(now_ms, fade_per_hour);
        self.points_milli = left.saturating_add(u64::from(points) * 1000);
        self.at_ms = self.at_ms.max(now_ms);
    }

    /// A restriction that was lifted begins with no points.
    pub(crate) fn set(&mut self, restriction: Restriction) {
        self.restriction = restriction;
        if restriction == Restriction::None {
            self.points_milli = 0;
        }
    }
}

/// What detectors remember of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Watch {
    /// How things stand.
    #[n(1)]
    pub alert: Alert,
    // 2 and 3 were the last numbers of its counter, and are not used again.
    /// Its counter.
    #[n(8)]
    #[cbor(default)]
    pub counter: Counter,
    /// How far its clock was ahead of the hub's at its last payment,
    /// milliseconds; nothing while the hub's was in doubt.
    #[n(9)]
    pub clock_ahead_ms: Option<i64>,
    /// Its clock at the highest number, milliseconds since 1970 UTC.
    #[n(10)]
    #[cbor(default)]
    pub device_time_ms: u64,
    /// Its last amount that counts as equal or not, minor units.
    #[n(4)]
    pub amount_minor: u64,
    /// How often it came in a row.
    #[n(5)]
    pub run: u32,
    /// Cards declined lately, oldest first.
    #[n(6)]
    pub declined: Vec<DeclinedCard>,
    /// When which anomaly was found last.
    #[n(7)]
    pub found: Vec<Found>,
    /// Refunds asked for lately, oldest first.
    #[n(11)]
    #[cbor(default)]
    pub refunds: Vec<Refund>,
}

/// A refund that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refund {
    /// When, milliseconds since 1970 UTC.
    #[n(1)]
    pub at_ms: u64,
    /// By whom, if the device said so.
    #[n(2)]
    pub staff: Option<StaffKey>,
}

/// A card that was declined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeclinedCard {
    /// When, milliseconds since 1970 UTC.
    #[n(1)]
    pub at_ms: u64,
    /// Which.
    #[n(2)]
    pub card: CardKey,
}

/// An anomaly that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Found {
    /// Which.
    #[n(1)]
    pub kind: AnomalyKind,
    /// When, milliseconds since 1970 UTC.
    #[n(2)]
    pub at_ms: u64,
}

impl Watch {
    /// A request for a payment came.
    pub(crate) fn asked(&mut self, request: &PaymentRequest, at: EntryTime, rules: &AnomalyRules) {
        let (sequence, amount) = (request.device_sequence, request.amount_minor());
        if self.counter.highest.is_none_or(|highest| sequence > highest) {
            self.device_time_ms = request.device_time_ms;
            if at.quality != ClockQuality::Suspect {
                self.clock_ahead_ms = Some(difference(request.device_time_ms, at.wall_ms));
            }
        }
        self.counter.count(sequence);
        if let Some(equal) = rules.equal_amounts
            && amount >= equal.from_amount
        {
            self.run = self.run_with(amount, equal);
            self.amount_minor = amount;
        }
        if rules.refunds.is_some() && request.transaction_type() == TransactionType::Refund {
            let refund = Refund {
                at_ms: at.wall_ms,
                staff: request.staff().map(|staff| StaffKey::of(Some(staff))),
            };
            keep_last(&mut self.refunds, refund);
        }
    }

    /// How many of the refunds lately are such.
    pub(crate) fn refunds_lately(
        &self,
        now_ms: u64,
        within_ms: u64,
        such: impl Fn(&Refund) -> bool,
    ) -> usize {
        let lately = |refund: &&Refund| now_ms.saturating_sub(refund.at_ms) < within_ms;
        self.refunds
            .iter()
            .filter(|refund| lately(refund) && such(refund))
            .count()
    }

    /// How long the run of equal amounts is with this one.
    pub(crate) fn run_with(&self, amount: u64, equal: EqualAmounts) -> u32 {
        match amount {
            _ if amount < equal.from_amount => 0,
            _ if amount == self.amount_minor => self.run.saturating_add(1),
            _ => 1,
        }
    }

    pub(crate) fn declined(&mut self, card: CardKey, at_ms: u64) {
        self.declined.retain(|known| known.card != card);
        keep_last(&mut self.declined, DeclinedCard { at_ms, card });
    }

    pub(crate) fn found(&mut self, kind: AnomalyKind, at_ms: u64) {
        self.found.retain(|known| known.kind != kind);
        self.found.push(Found { kind, at_ms });
    }

    /// Whether this anomaly has been counted a moment ago.
    pub(crate) fn is_quiet(&self, kind: AnomalyKind, now_ms: u64) -> bool {
        let recent = |found: &&Found| found.kind == kind && now_ms.saturating_sub(found.at_ms) < QUIET_MS;
        self.found.iter().any(|found| recent(&found))
    }
}

/// An offline approval of a card, as detectors see it. Packed: each card that
/// is in memory has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Seen {
    /// When, milliseconds since 1970 UTC.
    pub at_ms: u64,
    /// At which device: the first bytes of its id.
    pub device: u32,
    /// Minor units.
    pub amount_minor: u64,
}

/// [`Seen`], as it is stored.
#[derive(Encode, Decode)]
#[cbor(map)]
struct StoredSeen {
    #[n(1)]
    at_ms: u64,
    #[n(2)]
    device: u32,
    #[n(3)]
    amount_minor: u64,
}

impl<C> Encode<C> for Seen {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        let Self {
            at_ms,
            device,
            amount_minor,
        } = *self;
        let stored = StoredSeen {
            at_ms,
            device,
            amount_minor,
        };
        stored.encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Seen {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let StoredSeen {
            at_ms,
            device,
            amount_minor,
        } = StoredSeen::decode(d, ctx)?;
        Ok(Self {
            at_ms,
            device,
            amount_minor,
        })
    }
}

impl Seen {
    /// Enough of a device's id to tell the shop's devices apart.
    pub(crate) fn short(device: &DeviceId) -> u32 {
        let [a, b, c, d, ..] = device.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

/// Appends, and drops the oldest beyond [`LOOKS_BACK`].
pub(crate) fn keep_last<T>(all: &mut Vec<T>, one: T) {
    if all.len() >= LOOKS_BACK {
        all.drain(..=all.len() - LOOKS_BACK);
    }
    all.push(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_fade_evenly_and_never_below_nothing() {
        let mut alert = Alert::default();
        alert.add(40, 1_000, 10);
        assert_eq!(alert.points(1_000, 10), 40);
        assert_eq!(alert.points(1_000 + HOUR_MS / 2, 10), 35);
        alert.add(10, 1_000 + HOUR_MS, 10);
        assert_eq!(alert.points(1_000 + HOUR_MS, 10), 40);
        assert_eq!(alert.points(1_000 + 9 * HOUR_MS, 10), 0);
        assert_eq!(alert.points(0, 10), 40, "a clock that was set back");
    }

    #[test]
    fn no_more_is_kept_than_detectors_look_back_on() {
        let mut all = Vec::new();
        for number in 0..100 {
            keep_last(&mut all, number);
        }
        assert_eq!(all, (100 - LOOKS_BACK..100).collect::<Vec<_>>());
    }
}
