//! How many attempts of the backlog may be under way: as many as the gateway
//! takes without keeping them waiting, found out by trying.
//!
//! In rounds. A round ends when as many attempts that were sent in it have
//! been answered as may be under way, and at least [`ROUND`] unless the number
//! is still doubling. Their average latency, held against the latency of a
//! gateway that is not loaded, says what follows:
//!
//! | average | the number |
//! | --- | --- |
//! | up to 9/8 of the base, and all places were taken | doubles until the first congestion, then grows by an eighth, at least by 1 |
//! | up to 5/4 of the base | stays |
//! | above | shrinks by an eighth, at least by 1 |
//!
//! A failure (no answer, out of order, too many requests) halves it, once for
//! all that was sent before the cut: additive increase, multiplicative
//! decrease, and the latency keeps it from getting there. The averages, not
//! the single latencies, are compared, so that a jittery line does not look
//! like a full gateway. The base is the smallest average seen, measured anew
//! every [`MEASURE_EVERY_MS`] with half the number, because lines change, and
//! with half of that again for as long as it makes answers come sooner.

use std::collections::HashMap;

use crate::input::AttemptId;

/// Under way at most at the start, and after an outage.
pub(crate) const START: usize = 8;

/// How often the base is measured anew, in milliseconds.
const MEASURE_EVERY_MS: u64 = 30_000;

/// How long after a start it is measured first, in milliseconds.
const FIRST_MEASURE_MS: u64 = 2_000;

/// The fewest answers whose average is worth something on a jittery line.
const ROUND: usize = 32;

/// Differences of latency below this are noise, in milliseconds.
const NOISE_MS: u64 = 5;

/// The adaptive number in flight.
#[derive(Debug)]
pub(crate) struct Pace {
    ceiling: usize,
    limit: usize,
    /// No congestion has been seen since the start.
    doubling: bool,
    base_ms: Option<u64>,
    measure_at_ms: u64,
    /// The number to go back to once the base has been measured.
    measuring: Option<usize>,
    round: Round,
    /// Attempts sent before this round say nothing about the present number.
    cut: u64,
    sent: HashMap<AttemptId, u64>,
}

#[derive(Debug, Default)]
struct Round {
    number: u64,
    answers: usize,
    sum_ms: u64,
    full: bool,
}

impl Pace {
    /// `ceiling` is never passed; at least 1 is taken.
    pub(crate) fn new(ceiling: usize, now_ms: u64) -> Self {
        let ceiling = ceiling.max(1);
        Self {
            ceiling,
            limit: START.min(ceiling),
            doubling: true,
            base_ms: None,
            measure_at_ms: now_ms.saturating_add(FIRST_MEASURE_MS),
            measuring: None,
            round: Round::default(),
            cut: 0,
            sent: HashMap::new(),
        }
    }

    /// How many may be under way.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Begins again from `limit`, as after an outage.
    pub(crate) fn restart(&mut self, limit: usize, now_ms: u64) {
        self.limit = limit.clamp(1, self.ceiling);
        self.doubling = true;
        self.base_ms = None;
        self.measure_at_ms = now_ms.saturating_add(FIRST_MEASURE_MS);
        self.measuring = None;
        self.next_round();
        self.cut = self.round.number;
    }

    /// An attempt leaves; with it, `under_way` are.
    pub(crate) fn sent(&mut self, attempt: AttemptId, under_way: usize) {
        self.sent.insert(attempt, self.round.number);
        self.round.full |= under_way >= self.limit;
    }

    /// An attempt has been answered.
    pub(crate) fn answered(&mut self, attempt: AttemptId, latency_ms: u64, now_ms: u64) {
        if self.sent.remove(&attempt) != Some(self.round.number) {
            return;
        }
        self.round.answers += 1;
        self.round.sum_ms = self.round.sum_ms.saturating_add(latency_ms);
        let enough = if self.doubling { 1 } else { ROUND };
        if self.round.answers >= self.limit.max(enough) {
            self.end_round(now_ms);
        }
    }

    /// An attempt has failed.
    pub(crate) fn failed(&mut self, attempt: AttemptId) {
        if self.sent.remove(&attempt).is_some_and(|round| round >= self.cut) {
            let limit = self.measuring.take().unwrap_or(self.limit);
            self.limit = (limit / 2).max(1);
            self.doubling = false;
            self.next_round();
            self.cut = self.round.number;
        }
    }

    /// An attempt ended before it was sent: nothing is learned.
    pub(crate) fn forget(&mut self, attempt: AttemptId) {
        self.sent.remove(&attempt);
    }

    fn end_round(&mut self, now_ms: u64) {
        let answers = u64::try_from(self.round.answers).unwrap_or(u64::MAX).max(1);
        let average = self.round.sum_ms / answers;
        let full = self.round.full;
        if let Some(before) = self.measuring.take() {
            let sooner = self.base_ms.is_some_and(|base| average * 4 < base * 3);
            self.base_ms = Some(average);
            if sooner && self.limit > 1 {
                self.measuring = Some(before);
                self.limit /= 2;
            } else {
                self.measure_at_ms = now_ms.saturating_add(MEASURE_EVERY_MS);
                self.limit = before;
            }
        } else {
            let base = match self.base_ms {
                Some(base) if self.round.answers < ROUND => base,
                Some(base) => base.min(average),
                None => average,
            };
            self.base_ms = Some(base);
            self.adapt(average, base, full);
            if full && now_ms >= self.measure_at_ms {
                self.measuring = Some(self.limit);
                self.limit = (self.limit / 2).max(1);
            }
        }
        self.next_round();
    }

    fn adapt(&mut self, average: u64, base: u64, full: bool) {
        let step = (self.limit / 8).max(1);
        if average <= (base + base / 8).max(base + NOISE_MS) {
            if full {
                let grown = self.limit + if self.doubling { self.limit } else { step };
                self.limit = grown.min(self.ceiling);
            }
        } else {
            self.doubling = false;
            if average > (base + base / 4).max(base + 2 * NOISE_MS) {
                self.limit = self.limit.saturating_sub(step).max(1);
            }
        }
    }

    fn next_round(&mut self) {
        self.round = Round {
            number: self.round.number + 1,
            ..Round::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const ROUND_TRIP_MS: u64 = 50;

    /// A gateway that works on `servers` attempts at a time, 50 ms each, and
    /// lets the others wait. Returns answers a second over the last half of
    /// `seconds`, and the worst latency there.
    fn drain(pace: &mut Pace, servers: usize, seconds: u64) -> (u64, u64) {
        let mut free_at = vec![0_u64; servers];
        let mut under_way: VecDeque<(u64, AttemptId, u64)> = VecDeque::new();
        let (mut number, mut answers, mut worst) = (0, 0, 0);
        for now in 0..seconds * 1000 {
            while let Some((done, attempt, sent)) = under_way.front().copied()
                && done <= now
            {
                under_way.pop_front();
                pace.answered(attempt, done - sent, now);
                if now >= seconds * 500 {
                    answers += 1;
                    worst = worst.max(done - sent);
                }
            }
            while under_way.len() < pace.limit() {
                number += 1;
                let attempt = AttemptId(number);
                pace.sent(attempt, under_way.len() + 1);
                let server = free_at.iter_mut().min().unwrap();
                *server = (*server).max(now) + ROUND_TRIP_MS;
                under_way.push_back((*server, attempt, now));
            }
        }
        (answers * 2 / seconds, worst)
    }

    #[test]
    fn the_number_in_flight_reaches_what_the_gateway_takes_and_keeps_little_waiting() {
        for servers in [1, 3, 8, 16, 40, 64] {
            let mut pace = Pace::new(64, 0);
            let (rate, worst) = drain(&mut pace, servers, 100);
            let takes = u64::try_from(servers).unwrap() * 1000 / ROUND_TRIP_MS;
            assert!(rate * 10 >= takes * 9, "{servers} at a time: {rate} of {takes}/s");
            // With one place there is either nothing or a whole call waiting.
            let most = if servers == 1 { 3 } else { 2 } * ROUND_TRIP_MS;
            assert!(worst <= most, "{servers} at a time: {worst} ms");
        }
    }

    #[test]
    fn a_line_that_becomes_slower_for_good_becomes_the_new_base() {
        let mut pace = Pace::new(64, 0);
        drain(&mut pace, 64, 10);
        assert_eq!(pace.limit(), 64);
        let mut number = 1_000_000;
        for round in 0..400 {
            let now = 10_000 + round * 200;
            let sent: Vec<_> = (0..pace.limit())
                .map(|place| {
                    number += 1;
                    pace.sent(AttemptId(number), place + 1);
                    AttemptId(number)
                })
                .collect();
            for attempt in sent {
                pace.answered(attempt, 200, now);
            }
        }
        assert_eq!(pace.limit(), 64, "200 ms is what this line takes now");
    }

    #[test]
    fn a_failure_halves_the_number_once_for_all_that_was_under_way() {
        let mut pace = Pace::new(64, 0);
        let sent: Vec<_> = (1..=8).map(AttemptId).collect();
        for (place, attempt) in sent.iter().enumerate() {
            pace.sent(*attempt, place + 1);
        }
        for attempt in sent {
            pace.failed(attempt);
        }
        assert_eq!(pace.limit(), 4);
        for number in 10..20 {
            pace.sent(AttemptId(number), 1);
            pace.failed(AttemptId(number));
        }
        assert_eq!(pace.limit(), 1, "never below one");
    }

    #[test]
    fn what_does_not_fill_its_places_proves_nothing_about_more() {
        let mut pace = Pace::new(64, 0);
        for number in 1..=100 {
            pace.sent(AttemptId(number), 1);
            pace.answered(AttemptId(number), 10, number);
        }
        assert_eq!(pace.limit(), START);
    }

    #[test]
    fn a_jittery_line_that_cut_the_number_down_gets_it_back() {
        let mut pace = Pace::new(64, 0);
        let mut random = crate::random::Random::new(5);
        for number in 1..=20 {
            pace.sent(AttemptId(number), 8);
            pace.failed(AttemptId(number));
        }
        assert_eq!(pace.limit(), 1);
        let mut number = 100;
        let mut now = 0;
        while now < 60_000 {
            let sent: Vec<_> = (0..pace.limit())
                .map(|place| {
                    number += 1;
                    pace.sent(AttemptId(number), place + 1);
                    AttemptId(number)
                })
                .collect();
            now += 70;
            for attempt in sent {
                pace.answered(attempt, 40 + random.up_to(30), now);
            }
        }
        assert!(pace.limit() >= 48, "{}", pace.limit());
    }

    #[test]
    fn jitter_on_a_short_line_is_not_taken_for_congestion() {
        let mut pace = Pace::new(64, 0);
        let mut random = crate::random::Random::new(3);
        let mut number = 0;
        for round in 0..200 {
            let sent: Vec<_> = (0..pace.limit())
                .map(|place| {
                    number += 1;
                    pace.sent(AttemptId(number), place + 1);
                    AttemptId(number)
                })
                .collect();
            for attempt in sent {
                pace.answered(attempt, 1 + random.up_to(6), round * 10);
            }
        }
        assert_eq!(pace.limit(), 64);
    }
}
