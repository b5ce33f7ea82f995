//! Which numbers of its counter a device has used: a window that slides with
//! the highest, as anti-replay windows do (RFC 4303, 3.4.3).

use minicbor::{Decode, Encode};

/// The most requests of a device that can be on their way at a time, and so
/// overtake one another. A number further below the highest is from before.
pub const MOST_UNDER_WAY: u64 = 64;

/// A device's counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Counter {
    /// The highest number that came; nothing if nothing came.
    #[n(1)]
    pub highest: Option<u64>,
    /// Which of the numbers from the highest downwards came: a bit each, the
    /// lowest bit for the highest.
    #[n(2)]
    pub came: u64,
    /// The number that came last.
    #[n(3)]
    pub last: Option<u64>,
}

impl Counter {
    /// A number came.
    pub(crate) fn count(&mut self, number: u64) {
        let highest = self.highest.unwrap_or(number);
        self.last = Some(number);
        if let Some(above) = number.checked_sub(highest) {
            self.came = if above < MOST_UNDER_WAY {
                self.came << above | 1
            } else {
                1
            };
            self.highest = Some(number);
        } else if highest - number < MOST_UNDER_WAY {
            self.came |= 1 << (highest - number);
        }
    }

    /// Whether a number came before, or is from so long ago that its payment
    /// is not on its way any more.
    pub(crate) fn has_had(&self, number: u64) -> bool {
        match self.highest.and_then(|highest| highest.checked_sub(number)) {
            Some(below) if below < MOST_UNDER_WAY => self.came >> below & 1 == 1,
            Some(_) => true,
            None => false,
        }
    }

    /// Whether the device goes back to a number that it has had. One that was
    /// restored does so once and counts on from there; of two copies at work
    /// the one behind does so whenever it follows the other.
    pub(crate) fn goes_back_to(&self, number: u64) -> bool {
        self.last.is_some_and(|last| number <= last) && self.has_had(number)
    }

    /// How many numbers between the highest and this one were left out.
    pub(crate) fn left_out_before(&self, number: u64) -> u64 {
        let above = self.highest.and_then(|highest| number.checked_sub(highest));
        above.unwrap_or(0).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_what_a_set_of_all_numbers_says() {
        let mut draw = 12_345_u64;
        let (mut counter, mut all) = (Counter::default(), std::collections::BTreeSet::new());
        let mut at = 1_000_000_u64;
        assert!(!counter.has_had(at), "nothing came");
        for _ in 0..5_000 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            at = match draw >> 61 {
                0 => at + 300,
                1 => at + 63 + (draw >> 40) % 3,
                2 | 3 => at - (draw >> 40) % 70,
                _ => at + (draw >> 40) % 9,
            };
            counter.count(at);
            all.insert(at);
            let highest = *all.last().unwrap();
            for number in highest - 80..highest + 3 {
                let expected = all.contains(&number) || highest.saturating_sub(number) >= MOST_UNDER_WAY;
                assert_eq!(counter.has_had(number), expected, "{number} of {highest}");
            }
        }
    }

    #[test]
    fn a_restored_device_goes_back_once_and_two_copies_again_and_again() {
        let backs = |numbers: &[u64]| {
            let mut counter = Counter::default();
            let mut back = |number: &u64| {
                let back = counter.goes_back_to(*number);
                counter.count(*number);
                back
            };
            numbers.iter().filter(|number| back(number)).count()
        };
        assert_eq!(backs(&[10, 11, 12, 13, 11, 12, 13, 14]), 1);
        assert_eq!(backs(&[500, 501, 502, 100, 101, 102]), 1);
        assert_eq!(backs(&[10, 11, 12, 11, 13, 12, 14, 13]), 3);
        assert_eq!(backs(&[10, 13, 12, 11, 14]), 0, "overtaken on the way");
    }

    #[test]
    fn numbers_left_out_are_those_between() {
        let mut counter = Counter::default();
        assert_eq!(counter.left_out_before(9), 0, "nothing is known");
        counter.count(10);
        assert_eq!(
            [9, 10, 11, 12, 20].map(|number| counter.left_out_before(number)),
            [0, 0, 0, 1, 9]
        );
    }
}
