//! How much the shop's payments are: a histogram of logarithmic buckets, 16
//! for each doubling, so that an amount is known to 1 part in 16.
//!
//! The library counts and finds buckets, in whole numbers; its own ways of
//! writing itself down compress, so each bucket is written as its lowest amount
//! and its count.

use hdrhistogram::Histogram;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

/// Amounts beyond this one are known as this one, minor units.
pub const HIGHEST_KNOWN_MINOR: u64 = 1_000_000_000;

/// At so many payments every count is halved: what was usual long ago weighs
/// less and less.
pub const MOST_KNOWN: u64 = 8_192;

/// The amounts of payments that were approved, on- or offline.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Amounts {
    /// Nothing as long as nothing is known.
    known: Option<Histogram<u32>>,
}

impl Amounts {
    /// A payment of so much was approved.
    pub fn approved(&mut self, amount_minor: u64) {
        self.add(amount_minor, 1);
        if self.count() >= MOST_KNOWN {
            self.halve();
        }
    }

    fn add(&mut self, amount_minor: u64, count: u32) {
        if self.known.is_none() {
            // These bounds are good: that they are is a test.
            self.known = Histogram::new_with_bounds(1, HIGHEST_KNOWN_MINOR, 1).ok();
        }
        if let Some(known) = &mut self.known {
            known.saturating_record_n(amount_minor.min(HIGHEST_KNOWN_MINOR), count);
        }
    }

    fn halve(&mut self) {
        let before = core::mem::take(self);
        for (lowest, count) in before.buckets() {
            if count > 1 {
                self.add(lowest, count / 2);
            }
        }
    }

    /// How many payments are known, the old ones by what they still weigh.
    pub fn count(&self) -> u64 {
        self.known.as_ref().map_or(0, Histogram::len)
    }

    /// Whether at least so many percent of the payments known were smaller
    /// than this one, by more than buckets tell apart. Nothing as long as
    /// fewer than `least` are known.
    pub fn is_above(&self, amount_minor: u64, percent: u64, least: u64) -> Option<bool> {
        let known = self.known.as_ref().filter(|known| known.len() >= least.max(1))?;
        let lowest = known.lowest_equivalent(amount_minor.min(HIGHEST_KNOWN_MINOR));
        let smaller = match lowest.checked_sub(1) {
            Some(below) => known.count_between(0, below),
            None => 0,
        };
        Some(u128::from(smaller) * 100 >= u128::from(known.len()) * u128::from(percent))
    }

    /// The lowest amount of each bucket that is not empty, with its count.
    fn buckets(&self) -> impl Iterator<Item = (u64, u32)> {
        self.known.iter().flat_map(|known| {
            known.iter_recorded().map(|bucket| {
                (
                    known.lowest_equivalent(bucket.value_iterated_to()),
                    bucket.count_at_value(),
                )
            })
        })
    }
}

impl<C> Encode<C> for Amounts {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(2 * self.buckets().count() as u64)?;
        for (lowest, count) in self.buckets() {
            e.u64(lowest)?.u32(count)?;
        }
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for Amounts {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let wrong = |what| minicbor::decode::Error::message(what);
        let numbers = d.array()?.ok_or_else(|| wrong("an array of known length"))?;
        let mut amounts = Self::default();
        for _ in 0..numbers / 2 {
            let (lowest, count) = (d.u64()?, d.u32()?);
            amounts.add(lowest, count);
        }
        Ok(amounts)
    }
}

#[cfg(test)]
mod tests {
    use hub_protocol::cbor;

    use super::*;

    fn of(amounts: impl IntoIterator<Item = u64>) -> Amounts {
        let mut all = Amounts::default();
        amounts.into_iter().for_each(|amount| all.approved(amount));
        all
    }

    #[test]
    fn an_amount_is_above_what_is_usual_from_the_next_bucket_on() {
        // 95 of 100 are at most 20,00: that is the bucket of 1984 to 2047.
        let usual = of((0..95).map(|at| 1_000 + at * 1_000 / 94).chain([9_000; 5]));
        assert_eq!(usual.count(), 100);
        for (amount, percent, expected) in [
            (2_047, 95, false),
            (2_048, 95, true),
            (9_000, 95, true),
            (9_000, 96, false),
            (9_217, 96, true),
            (999_999_999_999, 99, true),
            (0, 1, false),
        ] {
            assert_eq!(
                usual.is_above(amount, percent, 100),
                Some(expected),
                "{amount} {percent}"
            );
        }
        assert_eq!(usual.is_above(9_000, 95, 101), None, "too few are known");
        assert_eq!(Amounts::default().is_above(1, 50, 0), None);
    }

    #[test]
    fn it_says_what_a_sorted_list_says() {
        let mut draw = 1_u64;
        let mut amounts = Vec::new();
        for _ in 0..2_000 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            amounts.push((draw >> 33) % (1 << (4 + (draw >> 60))));
        }
        let known = of(amounts.iter().copied());
        for amount in amounts.iter().step_by(7) {
            for percent in [50, 90, 95, 99] {
                let above = known.is_above(*amount, percent, 1).unwrap();
                // A sixteenth less is in a lower bucket.
                let surely = amounts.iter().filter(|a| **a + **a / 15 < *amount).count() as u64;
                let perhaps = amounts.iter().filter(|a| **a < *amount).count() as u64;
                assert!(above || surely * 100 < percent * 2_000, "{amount} {percent}");
                assert!(!above || perhaps * 100 >= percent * 2_000, "{amount} {percent}");
            }
        }
    }

    #[test]
    fn what_was_usual_is_forgotten_when_the_shop_changes() {
        let mut shop = of([1_000; 20_000]);
        assert!(shop.count() < MOST_KNOWN);
        assert_eq!(shop.is_above(5_000, 95, 1), Some(true));
        for _ in 0..MOST_KNOWN {
            shop.approved(5_000);
        }
        assert_eq!(shop.is_above(5_000, 95, 1), Some(false));
        for _ in 0..8 * MOST_KNOWN {
            shop.approved(5_000);
        }
        assert_eq!(
            shop.is_above(5_000, 1, 1),
            Some(false),
            "nothing is left of 10,00"
        );
    }

    #[test]
    fn the_same_payments_are_the_same_bytes_and_other_bytes_are_refused() {
        let known = of([0, 1, 31, 32, 33, 500, 500, 123_456, u64::MAX]);
        let bytes = cbor::encode(&known);
        assert_eq!(cbor::decode::<Amounts>(&bytes), Ok(known));
        // 33 is no bucket's lowest amount; out of order; without its count.
        for numbers in [&[33_u64, 1][..], &[500, 1, 32, 1], &[500], &[32, 0]] {
            assert!(
                cbor::decode::<Amounts>(&cbor::encode(&numbers.to_vec())).is_err(),
                "{numbers:?}"
            );
        }
    }
}
