//! How risky a payment looks: as drawn, and what it means, by
//! `docs/policy.md`. What is usual in the shop and what is odd at a device is
//! not modelled.

use std::fmt::Write as _;

use hub_protocol::{EntryMode, PaymentRequest};

use super::often::Window;
use crate::profile::pick;
use crate::rng::Rng;

/// What counts how much. The same in all policies of a run: what counts after
/// a policy without a rule is not said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    verify_from: Option<u64>,
    decline_from: Option<u64>,
    pub(crate) new_card: Option<u64>,
    foreign_card: Option<u64>,
    no_chip: Option<u64>,
    pub(crate) card_lately: Option<(Window, u64)>,
    unusual_hour: Option<u64>,
}

/// What is known of a payment.
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a PaymentRequest,
    pub(crate) domestic: bool,
    /// An approved payment of the card is known.
    pub(crate) known: bool,
    /// Its offline approvals within the time of `card_lately`.
    pub(crate) lately: u32,
    pub(crate) open: bool,
    pub(crate) doubt: bool,
}

impl Score {
    pub(crate) fn draw(rng: &mut Rng, pace_ms: u64) -> Self {
        let mut points = || rng.chance(650).then(|| 10 * (1 + rng.below(4)));
        let [new_card, foreign_card, no_chip, unusual_hour] = [(); 4].map(|()| points());
        let lately = points();
        let card_lately = lately.map(|points| {
            let window = Window {
                count: u32::try_from(2 + rng.below(3)).unwrap_or(2),
                minutes: 1 + rng.below(2 + pace_ms * 60 / 60_000),
            };
            (window, points)
        });
        let thresholds = [(20, 40), (10, 50), (30, 31), (1, 60), (40, 80)];
        let (verify, decline) = thresholds
            .get(usize::try_from(rng.below(5)).unwrap_or_default())
            .copied()
            .unwrap_or((20, 40));
        Self {
            verify_from: (!rng.chance(200)).then_some(verify),
            decline_from: (!rng.chance(200)).then_some(decline),
            new_card,
            foreign_card,
            no_chip,
            card_lately,
            unusual_hour,
        }
    }

    /// As far as a policy can have it that knows what is domestic, or when the
    /// shop is open. `None` if nothing counts.
    pub(super) fn within(mut self, domestic: bool, hours: bool) -> Option<Self> {
        self.foreign_card = self.foreign_card.filter(|_| domestic);
        self.unusual_hour = self.unusual_hour.filter(|_| hours);
        let most = self.parts().iter().flatten().sum::<u64>() + self.card_lately.map_or(0, |(_, p)| p);
        // Never left out where another policy of the run has it: what was not
        // counted under one would be missing under the next.
        let reachable = |from: Option<u64>| from.map(|from| from.min(most)).filter(|from| *from > 0);
        self.decline_from = reachable(self.decline_from);
        self.verify_from = reachable(self.verify_from)
            .filter(|verify| self.decline_from.is_none_or(|decline| *verify < decline));
        (self.verify_from.is_some() || self.decline_from.is_some()).then_some(self)
    }

    fn parts(&self) -> [Option<u64>; 4] {
        [self.new_card, self.foreign_card, self.no_chip, self.unusual_hour]
    }

    pub(super) fn text(&self) -> String {
        let mut text = "[score]\n".to_owned();
        // Writing to a String cannot fail.
        for (key, from) in [
            ("verify_from", self.verify_from),
            ("decline_from", self.decline_from),
        ] {
            if let Some(from) = from {
                let _ = writeln!(text, "{key} = {from}");
            }
        }
        let names = ["new_card", "foreign_card", "no_chip", "unusual_hour"];
        for (name, points) in names.iter().zip(self.parts()) {
            if let Some(points) = points {
                let _ = writeln!(text, "[score.{name}]\npoints = {points}");
            }
        }
        if let Some((Window { count, minutes }, points)) = self.card_lately {
            let _ = writeln!(
                text,
                "[score.card_lately]\ncount = {count}\nwithin_minutes = {minutes}\npoints = {points}"
            );
        }
        text
    }

    pub(crate) fn points(&self, facts: &Facts<'_>) -> u64 {
        let by_number = matches!(
            facts.request.entry_mode,
            EntryMode::Keyed | EntryMode::MagneticStripe
        );
        let counts = [
            !facts.known,
            !facts.domestic,
            by_number,
            !facts.open || facts.doubt,
        ];
        let parts = self.parts().into_iter().zip(counts);
        let mut points = parts
            .filter_map(|(points, counts)| points.filter(|_| counts))
            .sum();
        if let Some((window, more)) = self.card_lately {
            let before = (window.count - 1) / if facts.doubt { 2 } else { 1 };
            if facts.lately >= before {
                points += more;
            }
        }
        points
    }

    pub(crate) fn is_too_much(&self, points: u64) -> bool {
        self.decline_from.is_some_and(|from| points >= from)
    }

    pub(crate) fn asks_for_pin(&self, points: u64) -> bool {
        self.verify_from.is_some_and(|from| points >= from)
    }
}

/// In a quarter of the runs. By draws of its own: the others stay as they
/// were.
pub(crate) fn draw_some(rng: &Rng, pace_ms: u64) -> Option<Score> {
    let seed = rng.clone().next_u64();
    let mut own = Rng::of(seed, "score");
    let drawn = pick(&mut own, &[0, 0, 0, 1]) == 1;
    drawn.then(|| Score::draw(&mut own, pace_ms))
}
