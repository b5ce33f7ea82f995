//! When a shop is open: as drawn, and what it means, by `docs/policy.md`.

use std::fmt::Write as _;

use crate::rng::Rng;

const DAY: i64 = 24 * 60;

const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// Clocks that never change, and by how many minutes they are ahead of UTC.
const ZONES: [(&str, i64); 5] = [
    ("UTC0", 0),
    ("CET-1", 60),
    ("<+0530>-5:30", 330),
    ("PST8", -480),
    ("<+13>-13", 780),
];

/// From a minute of the day up to another; an end that is not after the
/// beginning lies on the next day.
type Span = (i64, i64);

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct Hours {
    zone: (&'static str, i64),
    pub(crate) approve_outside: bool,
    /// Monday first.
    week: [Vec<Span>; 7],
}

impl Hours {
    /// Opens and closes within the time of a run, as often as not.
    pub(super) fn draw(rng: &mut Rng, wall_ms: u64, pace_ms: u64) -> Self {
        let place = usize::try_from(rng.below(5)).unwrap_or_default();
        let zone = ZONES.get(place).copied().unwrap_or(("UTC0", 0));
        let near = (minutes(wall_ms) + zone.1).rem_euclid(DAY);
        let reach = 2 + pace_ms * 150 / 60_000;
        let spans = |rng: &mut Rng, most: u64| -> Vec<Span> {
            let count = rng.below(most);
            (0..=count).map(|_| span(rng, near, reach)).collect()
        };
        let usual = spans(rng, 2);
        let week = DAYS.map(|_| match rng.below(10) {
            0 => Vec::new(),
            1 => spans(rng, 4),
            _ => usual.clone(),
        });
        Self {
            zone,
            approve_outside: rng.chance(200),
            week,
        }
    }

    /// By how many minutes the shop's clocks are ahead of UTC.
    pub(crate) fn ahead(&self) -> i64 {
        self.zone.1
    }

    pub(super) fn text(&self) -> String {
        let Self {
            zone: (zone, _),
            approve_outside,
            week,
        } = self;
        let mut text = format!("[hours]\ntime_zone = \"{zone}\"\napprove_outside = {approve_outside}\n");
        let clock = |minute: &i64| format!("{:02}:{:02}", minute / 60, minute % 60);
        for (day, spans) in DAYS.iter().zip(week) {
            let spans: Vec<_> = spans
                .iter()
                .map(|(from, to)| format!("\"{}-{}\"", clock(from), clock(to)))
                .collect();
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{day} = [{}]", spans.join(", "));
        }
        text
    }

    pub(crate) fn is_open(&self, now_ms: u64) -> bool {
        let at = minutes(now_ms) + self.zone.1;
        let today = at.div_euclid(DAY);
        [today - 1, today].iter().any(|day| {
            // 1970 began on a Thursday.
            let weekday = usize::try_from((day + 3).rem_euclid(7)).unwrap_or_default();
            let spans = self.week.get(weekday).map_or(&[][..], Vec::as_slice);
            spans.iter().any(|(from, to)| {
                let nights = i64::from(to <= from);
                (day * DAY + from..(day + nights) * DAY + to).contains(&at)
            })
        })
    }
}

/// Since 1970, UTC.
fn minutes(ms: u64) -> i64 {
    i64::try_from(ms / 60_000).unwrap_or_default()
}

fn span(rng: &mut Rng, near: i64, reach: u64) -> Span {
    let mut below = |most: u64| i64::try_from(rng.below(most)).unwrap_or_default();
    let (from, to) = match below(3) {
        // It closes soon.
        0 => (near - below(700), near + below(reach)),
        // It opens soon.
        1 => {
            let from = near + below(reach);
            (from, from + 1 + below(900))
        }
        _ => {
            let from = below(1_440);
            (from, from + 1 + below(1_438))
        }
    };
    match (from.rem_euclid(DAY), to.rem_euclid(DAY)) {
        (from, 0) if from > 0 => (from, DAY),
        (from, to) if from == to => (from, if from < 720 { DAY } else { 0 }),
        span => span,
    }
}
