//! The time that decisions are made by.
//!
//! Effective time = max(wall clock, high-water mark + elapsed monotonic time).
//! Trust rises only with time from the gateway. A jump back of more than
//! 2 minutes, or forward of more than 24 hours without the gateway's word,
//! makes the clock suspect: limits are reduced, nothing stops hard. A person
//! who confirms the time takes that suspicion away, and moves nothing.

use hub_protocol::entry::{ClockQuality, EntryTime};

use crate::input::Now;

/// A jump back of more than this makes the clock suspect.
pub const LARGEST_JUMP_BACK_MS: u64 = 2 * 60 * 1000;

/// A jump forward of more than this, without the gateway's word, makes the
/// clock suspect.
pub const LARGEST_JUMP_FORWARD_MS: u64 = 24 * 60 * 60 * 1000;

/// The hub's idea of the time.
#[derive(Clone, Debug)]
pub struct Clock {
    boot: [u8; 16],
    quality: ClockQuality,
    /// Effective time at `monotonic_ms`; never goes back except on the
    /// gateway's word.
    effective_ms: u64,
    monotonic_ms: u64,
    /// What the gateway's time adds to the wall clock.
    correction_ms: i64,
}

/// Whether a change set the effective time back, so far that times written
/// before it cannot be compared with those after it.
pub(crate) fn is_set_back(quality: ClockQuality, jump_ms: i64) -> bool {
    quality == ClockQuality::Synchronised && jump_ms < 0 && jump_ms.unsigned_abs() > LARGEST_JUMP_BACK_MS
}

/// A change of trust, to be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockChange {
    /// From now on.
    pub quality: ClockQuality,
    /// By how much the wall clock differs from what was expected.
    pub jump_ms: i64,
}

impl Clock {
    /// A clock for this boot. `high_water_ms` is the newest time in the
    /// ledger (0 for an empty one), `quality` the trust written down last.
    pub fn new(boot: [u8; 16], high_water_ms: u64, quality: ClockQuality, now: Now) -> Self {
        let quality = match quality {
            ClockQuality::Suspect => ClockQuality::Suspect,
            _ => ClockQuality::Unsynchronised,
        };
        let effective_ms = if high_water_ms == 0 {
            now.wall_ms
        } else {
            high_water_ms
        };
        Self {
            boot,
            quality,
            effective_ms,
            monotonic_ms: now.monotonic_ms,
            correction_ms: 0,
        }
    }

    /// Takes note of the time. Returns a change of trust if there is one.
    pub fn observe(&mut self, now: Now) -> Option<ClockChange> {
        let elapsed = now.monotonic_ms.saturating_sub(self.monotonic_ms);
        let expected = self.effective_ms.saturating_add(elapsed);
        let wall = now.wall_ms.saturating_add_signed(self.correction_ms);
        self.effective_ms = wall.max(expected);
        self.monotonic_ms = self.monotonic_ms.max(now.monotonic_ms);
        let jumped = wall.saturating_add(LARGEST_JUMP_BACK_MS) < expected
            || wall > expected.saturating_add(LARGEST_JUMP_FORWARD_MS);
        if jumped && self.quality != ClockQuality::Suspect {
            self.quality = ClockQuality::Suspect;
            return Some(ClockChange {
                quality: self.quality,
                jump_ms: difference(wall, expected),
            });
        }
        None
    }

    /// Takes the gateway's time. Returns a change of trust if there is one, or
    /// that time was set back.
    pub fn synchronise(&mut self, gateway_ms: u64, now: Now) -> Option<ClockChange> {
        let wall = now.wall_ms.saturating_add_signed(self.correction_ms);
        let off = difference(gateway_ms, self.effective_ms);
        if off.unsigned_abs() > LARGEST_JUMP_BACK_MS || wall.abs_diff(gateway_ms) > LARGEST_JUMP_BACK_MS {
            self.correction_ms = difference(gateway_ms, now.wall_ms);
            self.effective_ms = gateway_ms;
            self.monotonic_ms = now.monotonic_ms;
        }
        if self.quality == ClockQuality::Synchronised && !is_set_back(self.quality, off) {
            return None;
        }
        self.quality = ClockQuality::Synchronised;
        Some(ClockChange {
            quality: self.quality,
            jump_ms: off,
        })
    }

    /// A person says what time it is. If the effective time agrees, a clock in
    /// doubt is trusted as one that nobody has set is, and the change is
    /// returned. The time is not moved: else whoever may speak for the hub
    /// could bring an expired policy back.
    ///
    /// # Errors
    ///
    /// By how much the effective time is ahead, in milliseconds (negative:
    /// behind), if that is more than 2 minutes.
    pub fn confirm(&mut self, told_ms: u64) -> Result<Option<ClockChange>, i64> {
        let off = difference(self.effective_ms, told_ms);
        if off.unsigned_abs() > LARGEST_JUMP_BACK_MS {
            return Err(off);
        }
        Ok(self.suspect().then(|| {
            self.quality = ClockQuality::Unsynchronised;
            ClockChange {
                quality: self.quality,
                jump_ms: 0,
            }
        }))
    }

    /// The effective time, milliseconds since 1970 UTC.
    pub fn effective_ms(&self) -> u64 {
        self.effective_ms
    }

    /// Whether the gateway has given the time since the start.
    pub fn synchronised(&self) -> bool {
        self.quality == ClockQuality::Synchronised
    }

    /// Whether limits are to be reduced.
    pub fn suspect(&self) -> bool {
        self.quality == ClockQuality::Suspect
    }

    /// The time for a ledger entry.
    pub fn entry_time(&self) -> EntryTime {
        EntryTime {
            wall_ms: self.effective_ms,
            monotonic_ms: self.monotonic_ms,
            boot: self.boot,
            quality: self.quality,
        }
    }
}

/// How much later the first is.
pub(crate) fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const START: u64 = 1_800_000_000_000;

    fn at(wall_ms: u64, monotonic_ms: u64) -> Now {
        Now {
            wall_ms,
            monotonic_ms,
        }
    }

    fn clock() -> Clock {
        Clock::new([7; 16], START, ClockQuality::Synchronised, at(START, 0))
    }

    #[test]
    fn effective_time_never_goes_back_with_the_wall_clock() {
        let mut clock = clock();
        assert_eq!(clock.observe(at(START + 1000, 1000)), None);
        let change = clock.observe(at(START - 48 * HOUR, 2000)).unwrap();
        assert_eq!(change.quality, ClockQuality::Suspect);
        assert_eq!(clock.effective_ms(), START + 2000);
        assert!(clock.suspect());
    }

    #[test]
    fn a_jump_back_of_two_minutes_is_not_yet_suspect_and_one_above_is() {
        let mut clock = clock();
        assert_eq!(clock.observe(at(START - LARGEST_JUMP_BACK_MS, 0)), None);
        assert!(clock.observe(at(START - LARGEST_JUMP_BACK_MS - 1, 0)).is_some());
    }

    #[test]
    fn a_jump_forward_of_a_day_is_not_yet_suspect_and_one_above_is() {
        let mut clock = clock();
        assert_eq!(clock.observe(at(START + 24 * HOUR, 0)), None);
        let mut clock = self::clock();
        assert!(clock.observe(at(START + 24 * HOUR + 1, 0)).is_some());
    }

    #[test]
    fn trust_rises_only_with_the_gateways_time() {
        let mut clock = clock();
        clock.observe(at(START - 48 * HOUR, 1000));
        assert_eq!(clock.observe(at(START + 2000, 2000)), None);
        assert!(
            clock.suspect(),
            "a clock that jumps back again is not trusted for that"
        );
        let change = clock
            .synchronise(START + 60_000, at(START - 48 * HOUR, 3000))
            .unwrap();
        assert_eq!(change.quality, ClockQuality::Synchronised);
        assert_eq!(
            clock.observe(at(START - 48 * HOUR + 1000, 4000)),
            None,
            "the correction holds"
        );
        assert!(clock.effective_ms() >= START + 4000);
    }

    #[test]
    fn time_that_the_gateway_sets_back_is_written_down_although_trust_stays() {
        let mut clock = clock();
        clock.synchronise(START, at(START, 0));
        // Ten hours forward are not suspect.
        assert_eq!(clock.observe(at(START + 10 * HOUR, 1000)), None);
        let change = clock
            .synchronise(START + 1000, at(START + 10 * HOUR, 1000))
            .unwrap();
        assert!(is_set_back(change.quality, change.jump_ms));
        assert_eq!(clock.effective_ms(), START + 1000);
        assert_eq!(
            clock.synchronise(START + 2000, at(START + 10 * HOUR + 1000, 2000)),
            None
        );
    }

    #[test]
    fn a_person_who_confirms_the_time_takes_the_suspicion_away_and_moves_nothing() {
        let mut clock = clock();
        // Switched off from Saturday to Tuesday.
        let tuesday = START + 60 * HOUR;
        clock.observe(at(tuesday, 1000)).unwrap();
        for off in [LARGEST_JUMP_BACK_MS + 1, 48 * HOUR] {
            let ahead = i64::try_from(off).unwrap();
            assert_eq!(clock.confirm(tuesday - off), Err(ahead));
            assert_eq!(clock.confirm(tuesday + off), Err(-ahead));
        }
        assert!(clock.suspect());
        let change = clock.confirm(tuesday - LARGEST_JUMP_BACK_MS).unwrap().unwrap();
        assert_eq!(
            (change.quality, change.jump_ms),
            (ClockQuality::Unsynchronised, 0)
        );
        assert!(!clock.suspect() && !clock.synchronised());
        assert_eq!(clock.effective_ms(), tuesday);
        assert_eq!(clock.confirm(tuesday), Ok(None), "there is no doubt any more");
        assert_eq!(clock.observe(at(tuesday + 1000, 2000)), None);
        assert!(
            clock.observe(at(tuesday + 30 * HOUR, 3000)).is_some(),
            "doubted anew"
        );
    }

    #[test]
    fn suspicion_outlives_a_restart() {
        let clock = Clock::new([7; 16], START, ClockQuality::Suspect, at(START, 0));
        assert!(clock.suspect());
    }
}
