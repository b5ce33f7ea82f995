//! How many payments come in which hour of the week: an average over the last
//! weeks, in which the newest weigh most.

use minicbor::{Decode, Encode};

/// Hours of a week, from Monday's first.
pub const HOURS_OF_WEEK: usize = 168;

/// An average is that of all weeks up to this many; from then on each new week
/// takes this part of it, and what was before is forgotten.
pub const WEEKS_WEIGHED: u32 = 8;

/// Fewer payments in an hour than this are as good as none, thousandths: one
/// in ten weeks.
const NEXT_TO_NOTHING_MILLI: u32 = 100;

const HOUR_MS: u64 = 3_600_000;
const WEEK_MS: u64 = 168 * HOUR_MS;

/// Payments that devices asked for, by the hour of the shop's week. Its weeks
/// begin with the first payment of all, so that each one is whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Arrivals {
    /// When the first payment came, milliseconds since 1970 UTC.
    #[n(1)]
    pub since_ms: Option<u64>,
    /// Whole weeks that have passed until the newest payment.
    #[n(2)]
    pub weeks: u32,
    /// What came in each hour of the week that is not over.
    #[n(3)]
    pub now: Vec<u32>,
    /// What came in each hour on average of the weeks before, thousandths.
    #[n(4)]
    pub usual_milli: Vec<u32>,
}

/// What came in an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So far, in the hour that is not over.
    pub now: u32,
    /// In the same hour of the weeks before, on average, thousandths.
    pub usual_milli: u32,
}

impl Rate {
    /// Whether the shop usually sells nothing in this hour: less than once in
    /// ten weeks.
    pub fn is_unusual(self) -> bool {
        self.usual_milli < NEXT_TO_NOTHING_MILLI
    }

    /// Whether one payment more is more than so many times what is usual.
    pub fn one_more_is_above(self, times: u64) -> bool {
        let with_this_one = u64::from(self.now).saturating_add(1);
        with_this_one.saturating_mul(1000) > times.saturating_mul(u64::from(self.usual_milli))
    }

    /// After so many weeks in which nothing else came, the first of them after
    /// `weeks` others.
    fn after(self, weeks: u32, passed: u32) -> Self {
        let mut rate = self;
        // Of what was long ago nothing is left.
        for more in 0..passed.min(20 * WEEKS_WEIGHED) {
            let all = u64::from(weeks.saturating_add(more).min(WEEKS_WEIGHED - 1) + 1);
            let sum = u64::from(rate.usual_milli) * (all - 1) + u64::from(rate.now) * 1000;
            rate.usual_milli = u32::try_from(sum / all).unwrap_or(u32::MAX);
            rate.now = 0;
        }
        rate
    }
}

impl Arrivals {
    /// A payment came in this hour of the week, 0 to 167.
    pub fn came(&mut self, hour: usize, at_ms: u64) {
        self.since_ms.get_or_insert(at_ms);
        let passed = self.passed(at_ms);
        self.now.resize(HOURS_OF_WEEK, 0);
        self.usual_milli.resize(HOURS_OF_WEEK, 0);
        if passed > 0 {
            for (now, usual_milli) in self.now.iter_mut().zip(&mut self.usual_milli) {
                let rate = Rate {
                    now: *now,
                    usual_milli: *usual_milli,
                };
                let after = rate.after(self.weeks, passed);
                (*now, *usual_milli) = (after.now, after.usual_milli);
            }
            self.weeks = self.weeks.saturating_add(passed);
        }
        if let Some(now) = self.now.get_mut(hour) {
            *now = now.saturating_add(1);
        }
    }

    /// What came in this hour of the week, and usually comes; nothing as long
    /// as fewer whole weeks are known.
    pub fn rate(&self, hour: usize, at_ms: u64, least_weeks: u32) -> Option<Rate> {
        let passed = self.passed(at_ms);
        if self.weeks.saturating_add(passed) < least_weeks.max(1) {
            return None;
        }
        let rate = Rate {
            now: *self.now.get(hour)?,
            usual_milli: *self.usual_milli.get(hour)?,
        };
        Some(rate.after(self.weeks, passed))
    }

    /// The clock was set back by so much.
    pub(crate) fn set_back(&mut self, by_ms: u64) {
        if let Some(since_ms) = &mut self.since_ms {
            *since_ms = since_ms.saturating_sub(by_ms);
        }
    }

    /// Whole weeks that have passed since the newest payment's.
    fn passed(&self, at_ms: u64) -> u32 {
        let since_ms = self.since_ms.unwrap_or(at_ms);
        let weeks = at_ms.saturating_sub(since_ms) / WEEK_MS;
        u32::try_from(weeks)
            .unwrap_or(u32::MAX)
            .saturating_sub(self.weeks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many payments in the hours 10 and 11 of each week.
    fn weeks(counts: &[(u32, u32)]) -> Arrivals {
        let mut arrivals = Arrivals::default();
        for (week, (ten, eleven)) in counts.iter().enumerate() {
            for (hour, count) in [(10, ten), (11, eleven)] {
                for _ in 0..*count {
                    arrivals.came(hour, week as u64 * WEEK_MS + hour as u64 * HOUR_MS);
                }
            }
        }
        arrivals
    }

    #[test]
    fn nothing_is_known_until_enough_whole_weeks_have_passed() {
        let arrivals = weeks(&[(5, 1), (7, 0)]);
        let first = 10 * HOUR_MS;
        assert_eq!(arrivals.rate(10, first + WEEK_MS, 2), None);
        assert_eq!(arrivals.rate(10, first + 2 * WEEK_MS - 1, 2), None);
        let rate = arrivals.rate(10, first + 2 * WEEK_MS, 2).unwrap();
        assert_eq!((rate.now, rate.usual_milli), (0, 6_000));
        assert_eq!(arrivals.rate(9, first + 2 * WEEK_MS, 2).unwrap().usual_milli, 0);
        assert_eq!(Arrivals::default().rate(10, first, 1), None);
        assert_eq!(arrivals.rate(168, first + 2 * WEEK_MS, 2), None);
    }

    #[test]
    fn what_is_usual_follows_the_shop_and_forgets() {
        let mut counts = vec![(80, 1); 30];
        counts.extend([(0, 1); 30]);
        let at = |week: u64| week * WEEK_MS + 10 * HOUR_MS;
        let arrivals = weeks(&counts);
        assert!(arrivals.rate(10, at(59), 4).unwrap().usual_milli < 3_000);
        let usual = weeks(&counts[..30]).rate(10, at(30), 4).unwrap();
        assert!((79_000..=80_000).contains(&usual.usual_milli), "{usual:?}");
        // Asking in between is the same as asking after a payment.
        let mut later = weeks(&counts[..30]);
        let asked = later.rate(10, at(34), 4).unwrap();
        later.came(11, at(34));
        assert_eq!(later.rate(10, at(34), 4).unwrap(), asked);
        let never_again = later.rate(10, at(500_000), 4).unwrap();
        assert!(never_again.is_unusual(), "{never_again:?}");
    }

    #[test]
    fn an_hour_is_unusual_below_one_payment_in_ten_weeks() {
        let mut counts = vec![(1, 1); 1];
        counts.extend([(0, 1); 12]);
        let arrivals = weeks(&counts);
        let unusual = |week: u64| {
            let at = week * WEEK_MS + 11 * HOUR_MS;
            weeks(&counts[..week as usize])
                .rate(10, at, 1)
                .unwrap()
                .is_unusual()
        };
        assert!((1..=9).all(|week| !unusual(week)), "{arrivals:?}");
        assert!(unusual(12));
    }

    #[test]
    fn one_more_is_above_from_the_first_that_is_more() {
        let rate = |now| Rate {
            now,
            usual_milli: 2_500,
        };
        assert!(!rate(9).one_more_is_above(4), "10 of 10");
        assert!(rate(10).one_more_is_above(4), "11 of 10");
    }

    #[test]
    fn a_clock_that_was_set_back_begins_no_new_week() {
        let mut arrivals = weeks(&[(5, 1), (5, 1), (5, 1)]);
        let before = arrivals.clone();
        arrivals.set_back(HOUR_MS);
        arrivals.came(12, 2 * WEEK_MS + 11 * HOUR_MS);
        assert_eq!((arrivals.weeks, &arrivals.usual_milli), (2, &before.usual_milli));
        assert_eq!(arrivals.now[12], 1);
    }
}
