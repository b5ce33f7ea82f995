//! Days, months and years, counted a second time: by the states that payments
//! come into, not by entries, with a calendar of its own.

use std::collections::BTreeMap;

use hub_protocol::entry::{ClockQuality, Entry};
use hub_protocol::{Closure, Currency, Decision, LedgerTotals, PaymentState, Period, TransactionType};

use crate::ledger::Payment;
use crate::violation::{Checked, Rule, hold};

/// Approved online and offline, settled, declined at replay, voided, refunded,
/// refunds voided: how many and how much.
type Sums = BTreeMap<Currency, [(u64, u64); 7]>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Closed {
    /// The entry from which payments count.
    since: Option<u64>,
    all: Sums,
    /// Of a day, a month and a year.
    open: [Open; 3],
}

#[derive(Debug, Default)]
struct Open {
    first: u64,
    closed: u32,
    /// The time of the first payment. Which day that is, the policy says that
    /// is in force when somebody asks.
    began_ms: Option<u64>,
    sums: Sums,
}

impl Closed {
    /// The hub started, and says that payments count.
    pub(crate) fn counts(&mut self, sequence: u64) {
        if self.since.is_none() {
            self.since = Some(sequence);
            for open in &mut self.open {
                open.first = sequence;
            }
        }
    }

    /// An entry brought a payment from one state to another. The shop's clocks
    /// are `ahead` of UTC by so many minutes.
    pub(crate) fn moved(
        &mut self,
        before: Option<PaymentState>,
        payment: &Payment,
        entry: &Entry,
        ahead: i64,
    ) -> Checked {
        let Some(column) = column(before, payment) else {
            return Ok(());
        };
        let day = day_of(entry.time.wall_ms, ahead);
        let currency = payment.asked.request.currency;
        let add = |sums: &mut Sums| {
            if let Some((count, minor)) = sums.entry(currency).or_default().get_mut(column) {
                (*count, *minor) = (*count + 1, *minor + payment.amount);
            }
        };
        add(&mut self.all);
        for (open, period) in self.open.iter_mut().zip(Period::ALL) {
            add(&mut open.sums);
            // By a clock in doubt no day begins, and none ends.
            if entry.time.quality == ClockQuality::Suspect {
                continue;
            }
            let began = day_of(*open.began_ms.get_or_insert(entry.time.wall_ms), ahead);
            hold(name(*period, began) == name(*period, day), Rule::Closures, || {
                format!(
                    "entry {} is of another {period} than {}, which is not closed",
                    entry.sequence,
                    name(*period, began)
                )
            })?;
        }
        Ok(())
    }

    /// The clock is trusted, again perhaps: what was counted in doubt is of now.
    pub(crate) fn trusted(&mut self, entry: &Entry) {
        for open in &mut self.open {
            if open.began_ms.is_none() && !open.sums.is_empty() {
                open.began_ms = Some(entry.time.wall_ms);
            }
        }
    }

    /// A period is over.
    pub(crate) fn closed(&mut self, entry: &Entry, closure: &Closure, ahead: i64) -> Checked {
        let place = usize::from(closure.period.number()) - 1;
        let Some(open) = self.open.get_mut(place) else {
            return Ok(());
        };
        let wanted = open.began_ms.map(|began_ms| Closure {
            period: closure.period,
            name: name(closure.period, day_of(began_ms, ahead)),
            number: open.closed + 1,
            first: open.first,
            last: entry.sequence - 1,
            totals: totals(&open.sums),
            running: totals(&self.all),
            since: self.since.unwrap_or_default(),
        });
        hold(wanted.as_ref() == Some(closure), Rule::Closures, || {
            format!("entry {} says {closure:?}, and not {wanted:?}", entry.sequence)
        })?;
        let doubt = entry.time.quality == ClockQuality::Suspect;
        hold(!doubt, Rule::Closures, || {
            format!("{} is closed by a clock in doubt", closure.name)
        })?;
        let now = name(closure.period, day_of(entry.time.wall_ms, ahead));
        hold(now != closure.name, Rule::Closures, || {
            format!("{now} is closed before it is over")
        })?;
        *open = Open {
            first: entry.sequence,
            closed: closure.number,
            ..Open::default()
        };
        Ok(())
    }
}

fn column(before: Option<PaymentState>, payment: &Payment) -> Option<usize> {
    use PaymentState::{Open, Queued, Reversed, Settled, SettledDeclined, Voided};
    let refund = payment.asked.request.transaction_type() == TransactionType::Refund;
    let approved = matches!(
        payment.decision(),
        Some(Decision::ApprovedOnline | Decision::ApprovedOffline)
    );
    match (before?, payment.state) {
        (before, after) if before == after => None,
        (Open, Settled | Queued) if refund => Some(5),
        (Open, Settled) => Some(0),
        (Open, Queued) => Some(1),
        (_, Settled) if refund => None,
        (_, Settled) => Some(2),
        (_, SettledDeclined) if refund => Some(6),
        (_, SettledDeclined) => Some(3),
        (_, Voided | Reversed) if approved => Some(if refund { 6 } else { 4 }),
        _ => None,
    }
}

fn totals(sums: &Sums) -> Vec<LedgerTotals> {
    let of = |(currency, sums): (&Currency, &[(u64, u64); 7])| {
        let total = |place: usize| {
            let (count, minor) = sums.get(place).copied().unwrap_or_default();
            hub_protocol::Total { count, minor }
        };
        LedgerTotals {
            currency: *currency,
            approved_online: total(0),
            approved_offline: total(1),
            settled: total(2),
            declined_at_replay: total(3),
            voided: total(4),
            refunded: Some(total(5)),
            refunds_voided: Some(total(6)),
        }
    };
    sums.iter().map(of).collect()
}

/// Year, month and day of the Gregorian calendar, from the number of days
/// since 1970, counted year by year and month by month.
fn day_of(at_ms: u64, ahead: i64) -> (i64, i64, i64) {
    let minutes = i64::try_from(at_ms / 60_000).unwrap_or_default() + ahead;
    let mut days = minutes.div_euclid(24 * 60);
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut year = 1970;
    while days >= 365 + i64::from(leap(year)) {
        days -= 365 + i64::from(leap(year));
        year += 1;
    }
    let february = 28 + i64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in months {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn name(period: Period, (year, month, day): (i64, i64, i64)) -> String {
    match period {
        Period::Day => format!("{year:04}-{month:02}-{day:02}"),
        Period::Month => format!("{year:04}-{month:02}"),
        Period::Year => format!("{year:04}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calendar_knows_its_days() {
        for (ms, ahead, day) in [
            (0, 0, (1970, 1, 1)),
            (951_782_400_000, 0, (2000, 2, 29)),
            (951_868_799_999, 0, (2000, 2, 29)),
            (951_868_799_999, 1, (2000, 3, 1)),
            (1_767_225_600_000, -1, (2025, 12, 31)),
        ] {
            assert_eq!(day_of(ms, ahead), day);
        }
    }
}
