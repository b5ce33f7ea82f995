//! Closing days, months and years: before anything of the next one is written
//! down, an entry says what was done in the one that is over, and since the
//! hub began to count.
//!
//! A period begins with the first payment that counts, so that one in which
//! nothing was done is not closed. It is over as soon as the ledger's time is
//! in another one, also in an earlier one, which the clock's being set right
//! can bring about: a day can then be closed twice, and both say which entries
//! they cover. While the clock is in doubt nothing is over, and nothing begins:
//! what is done meanwhile counts for what was open, or for the day on which the
//! clock is trusted again.

use core::ops::Range;

use hub_protocol::entry::{ClockQuality, Entry, Event};
use hub_protocol::{Closure, LedgerTotals, Period};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use minicbor::{Decode, Encode};

use crate::core::Core;
use crate::policy::Policy;
use crate::totals::{Told, count};

/// The periods that are not over, and what is counted since the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OpenPeriods {
    /// The entry from which payments count.
    #[n(1)]
    pub since: u64,
    /// All since then, a currency each.
    #[n(2)]
    pub running: Vec<LedgerTotals>,
    /// The day.
    #[n(3)]
    pub day: OpenPeriod,
    /// The month.
    #[n(4)]
    pub month: OpenPeriod,
    /// The year.
    #[n(5)]
    pub year: OpenPeriod,
}

/// A period that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OpenPeriod {
    /// The first entry that it covers.
    #[n(1)]
    pub first: u64,
    /// How many of its kind were closed before.
    #[n(2)]
    pub closed: u32,
    /// When the first payment was counted, or, of one by a clock in doubt, when
    /// the clock was trusted again; milliseconds since 1970 UTC. `None`: it has
    /// not begun.
    #[n(3)]
    pub opened_ms: Option<u64>,
    /// What was done in it, a currency each.
    #[n(4)]
    pub totals: Vec<LedgerTotals>,
}

impl OpenPeriod {
    const fn from(first: u64, closed: u32) -> Self {
        Self {
            first,
            closed,
            opened_ms: None,
            totals: Vec::new(),
        }
    }
}

impl OpenPeriods {
    /// Payments count from this entry on.
    pub(crate) const fn since(sequence: u64) -> Self {
        Self {
            since: sequence,
            running: Vec::new(),
            day: OpenPeriod::from(sequence, 0),
            month: OpenPeriod::from(sequence, 0),
            year: OpenPeriod::from(sequence, 0),
        }
    }

    /// The one of this kind.
    pub const fn of(&self, period: Period) -> &OpenPeriod {
        match period {
            Period::Day => &self.day,
            Period::Month => &self.month,
            Period::Year => &self.year,
        }
    }

    const fn of_mut(&mut self, period: Period) -> &mut OpenPeriod {
        match period {
            Period::Day => &mut self.day,
            Period::Month => &mut self.month,
            Period::Year => &mut self.year,
        }
    }

    /// Counts what an entry says of a payment. Gives whether it counts.
    pub(crate) fn count(&mut self, entry: &Entry, told: &Told) -> bool {
        let counts = count(&mut self.running, &entry.event, told);
        if counts {
            for period in Period::ALL {
                let open = self.of_mut(*period);
                if entry.time.quality != ClockQuality::Suspect {
                    open.opened_ms.get_or_insert(entry.time.wall_ms);
                }
                count(&mut open.totals, &entry.event, told);
            }
        }
        counts
    }

    /// The clock is trusted again: what was counted while it was in doubt is of
    /// this time. Gives whether there is something.
    pub(crate) fn trusted(&mut self, wall_ms: u64) -> bool {
        let mut began = false;
        for period in Period::ALL {
            let open = self.of_mut(*period);
            if open.opened_ms.is_none() && !open.totals.is_empty() {
                open.opened_ms = Some(wall_ms);
                began = true;
            }
        }
        began
    }

    /// A period is over, as its entry says.
    pub(crate) fn closed(&mut self, closure: &Closure) {
        *self.of_mut(closure.period) = OpenPeriod::from(closure.last.saturating_add(1), closure.number);
    }

    /// The closure of the period of this kind, if it has begun and the ledger's
    /// time is in another one.
    pub(crate) fn due(&self, period: Period, now: Date, zone: &TimeZone, head: u64) -> Option<Closure> {
        let open = self.of(period);
        let opened = local(open.opened_ms?, zone)?.date();
        let over = name(period, opened) != name(period, now);
        over.then(|| Closure {
            period,
            name: name(period, opened),
            number: open.closed.saturating_add(1),
            first: open.first,
            last: head,
            totals: open.totals.clone(),
            running: self.running.clone(),
            since: self.since,
        })
    }
}

/// The shop's day in which periods were last looked through: as long as it
/// lasts, none ends.
#[derive(Clone, Debug)]
pub(crate) struct Today {
    /// Milliseconds since 1970 UTC.
    lasts: Range<u64>,
    /// By the time zone of this policy.
    policy_sequence: Option<u64>,
}

impl Core {
    /// Closes what is over, unless the clock is in doubt.
    pub(crate) fn close_periods(&mut self) {
        if self.clock.suspect() || self.stopped {
            return;
        }
        let now_ms = self.clock.entry_time().wall_ms;
        let policy_sequence = self.state.store().policy_sequence;
        let still = self
            .today
            .as_ref()
            .is_some_and(|today| today.policy_sequence == policy_sequence && today.lasts.contains(&now_ms));
        if still {
            return;
        }
        let zone = self.state.policy().map_or(TimeZone::UTC, Policy::time_zone);
        let Some(now) = local(now_ms, &zone) else {
            return;
        };
        self.today = lasts(&now).map(|lasts| Today {
            lasts,
            policy_sequence,
        });
        for period in Period::ALL {
            let head = self.state.head().sequence;
            let due = self
                .state
                .open_periods()
                .and_then(|open| open.due(*period, now.date(), &zone, head));
            if let Some(closure) = due {
                self.append(Event::PeriodClosed { closure }, None, None);
            }
        }
    }
}

pub(crate) fn local(at_ms: u64, zone: &TimeZone) -> Option<Zoned> {
    let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
    Some(at.to_zoned(zone.clone()))
}

/// Whether both times are in the same period. Those that cannot be told are.
pub(crate) fn is_of(period: Period, one_ms: u64, other_ms: u64, zone: &TimeZone) -> bool {
    match (local(one_ms, zone), local(other_ms, zone)) {
        (Some(one), Some(other)) => name(period, one.date()) == name(period, other.date()),
        _ => true,
    }
}

/// From midnight to midnight.
fn lasts(now: &Zoned) -> Option<Range<u64>> {
    let begins = now.start_of_day().ok()?;
    let ends = begins.tomorrow().ok()?.start_of_day().ok()?;
    let ms = |at: Zoned| u64::try_from(at.timestamp().as_millisecond()).ok();
    Some(ms(begins)?..ms(ends)?)
}

fn name(period: Period, date: Date) -> String {
    match period {
        Period::Day => date.to_string(),
        Period::Month => format!("{:04}-{:02}", date.year(), date.month()),
        Period::Year => format!("{:04}", date.year()),
    }
}
