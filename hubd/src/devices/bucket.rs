//! Token buckets, in whole numbers and with the time as an argument.
//!
//! A library such as `governor` brings a clock of its own, a concurrent map
//! and a dozen crates; what is needed here is twenty lines.

/// So many a second in the long run, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// In the long run.
    pub(super) per_second: u32,
    /// At once, when nothing came for a while; at least 1.
    pub(super) burst: u32,
}

/// What one thing is worth, in the bucket's unit: a bucket gains
/// `per_second` units a millisecond.
const ONE: u64 = 1000;

/// A token bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// Thousandths that are missing to a full bucket. More than it holds
    /// where somebody was told to wait.
    missing: u64,
    at_ms: u64,
}

impl Bucket {
    /// A full one.
    pub(super) fn full(rate: Rate, now_ms: u64) -> Self {
        Self {
            rate,
            missing: 0,
            at_ms: now_ms,
        }
    }

    /// Takes one, if there is one.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        self.gain(now_ms);
        let fits = self.missing + ONE <= self.holds();
        if fits {
            self.missing += ONE;
        }
        fits
    }

    /// Takes so many in any case. Whether they were there: if not, the bucket
    /// is empty.
    pub(super) fn take_all(&mut self, many: u64, now_ms: u64) -> bool {
        self.gain(now_ms);
        let missing = self.missing.saturating_add(many.saturating_mul(ONE));
        self.missing = missing.min(self.holds());
        missing <= self.holds()
    }

    /// Takes one in any case, and says after how many milliseconds it is
    /// there. Never above a second: what is owed beyond that is let off.
    pub(super) fn reserve(&mut self, now_ms: u64) -> u64 {
        self.gain(now_ms);
        let a_second = u64::from(self.rate.per_second) * 1000;
        self.missing = (self.missing + ONE).min(self.holds() + a_second);
        let owed = self.missing.saturating_sub(self.holds());
        owed.div_ceil(u64::from(self.rate.per_second.max(1)))
    }

    /// Whether nothing has been taken for so long that a new one is as good.
    pub(super) fn is_full(&mut self, now_ms: u64) -> bool {
        self.gain(now_ms);
        self.missing == 0
    }

    fn holds(&self) -> u64 {
        u64::from(self.rate.burst) * ONE
    }

    fn gain(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.at_ms);
        let gained = passed.saturating_mul(u64::from(self.rate.per_second));
        self.missing = self.missing.saturating_sub(gained);
        self.at_ms = self.at_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_second: 10,
        burst: 3,
    };

    #[test]
    fn a_burst_goes_through_and_then_only_the_rate() {
        let mut bucket = Bucket::full(RATE, 0);
        let taken = (0..10).filter(|_| bucket.take(0)).count();
        assert_eq!(taken, 3);
        assert!(!bucket.take(99));
        assert!(bucket.take(100) && !bucket.take(100));
        let in_ten_seconds = (100..10_100).filter(|now| bucket.take(*now)).count();
        assert_eq!(in_ten_seconds, 99, "the last tenth of a second is not over");
    }

    #[test]
    fn a_pause_fills_it_and_no_further() {
        let mut bucket = Bucket::full(RATE, 0);
        assert!(bucket.take(0) && !bucket.is_full(99));
        assert!(bucket.is_full(100));
        let taken = (0..10).filter(|_| bucket.take(1_000_000)).count();
        assert_eq!(taken, 3);
    }

    #[test]
    fn whoever_waits_as_told_keeps_to_the_rate() {
        let mut bucket = Bucket::full(RATE, 0);
        let mut now = 0;
        for _ in 0..103 {
            now += bucket.reserve(now);
        }
        assert_eq!(now, 10_000, "three at once and a hundred at ten a second");
    }

    #[test]
    fn nobody_waits_longer_than_a_second() {
        let mut bucket = Bucket::full(RATE, 0);
        let longest = (0..1000).map(|_| bucket.reserve(0)).max();
        assert_eq!(longest, Some(1000));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_gives_nothing() {
        let mut bucket = Bucket::full(RATE, 5_000);
        let taken = (0..10).filter(|_| bucket.take(0)).count();
        assert_eq!(taken, 3);
        assert!(!bucket.take(5_099) && bucket.take(5_100));
    }
}
