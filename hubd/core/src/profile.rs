//! What is usual for this shop: how much its payments are, and how many come
//! in which hour of the week. Folded from the ledger, bounded, and kept only
//! while the policy has `[profile]`.

use hub_protocol::entry::{ClockQuality, EntryTime};
use minicbor::{Decode, Encode};

mod amounts;
mod arrivals;

pub use amounts::{Amounts, HIGHEST_KNOWN_MINOR, MOST_KNOWN};
pub use arrivals::{Arrivals, HOURS_OF_WEEK, Rate, WEEKS_WEIGHED};

/// What is usual for this shop.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Profile {
    /// How much its payments are.
    #[n(1)]
    pub amounts: Amounts,
    /// How many come, by the hour of the week.
    #[n(2)]
    pub arrivals: Arrivals,
}

impl Profile {
    /// A device asked for a payment, in this hour of the shop's week (0 to
    /// 167). What a clock in doubt says of the hour is not believed.
    pub(crate) fn asked(&mut self, hour_of_week: usize, at: EntryTime) {
        if at.quality != ClockQuality::Suspect {
            self.arrivals.came(hour_of_week, at.wall_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use hub_protocol::cbor;

    use super::*;

    /// The index takes values of less than 6 KiB.
    #[test]
    fn the_fullest_profile_is_one_value_of_the_index_and_comes_back_from_it() {
        let mut profile = Profile::default();
        let mut amount = 1;
        while amount < 2 * HIGHEST_KNOWN_MINOR {
            for _ in 0..19 {
                profile.amounts.approved(amount);
            }
            amount += (amount / 17).max(1);
        }
        let at = |wall_ms| EntryTime {
            wall_ms,
            monotonic_ms: 0,
            boot: [0; 16],
            quality: ClockQuality::Synchronised,
        };
        for week in 0..2 {
            for hour in 0..168 {
                for _ in 0..70_000 {
                    profile.asked(hour, at((week * 168 + hour as u64) * 3_600_000));
                }
            }
        }
        let bytes = cbor::encode(&profile);
        assert!((3_000..6_143).contains(&bytes.len()), "{}", bytes.len());
        assert_eq!(cbor::decode::<Profile>(&bytes), Ok(profile));
        let blank = cbor::encode(&Profile::default());
        assert_eq!(cbor::decode::<Profile>(&blank), Ok(Profile::default()));
    }
}
