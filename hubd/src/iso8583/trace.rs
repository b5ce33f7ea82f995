//! STAN and RRN: by what the acquirer knows a payment again.
//!
//! Both come from the ledger entry that holds the signed request, so they are
//! the same for every message about a payment, before and after a restart.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Trace numbers run from 1 to this; 000000 is never used.
const STANS: u64 = 999_999;

/// What names a payment in every message about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Trace {
    /// System trace audit number, field 11: 6 digits out of the entry's
    /// sequence. Two payments of one hub share it only if 999,999 or a
    /// multiple of it entries lie between them.
    pub stan: String,
    /// Retrieval reference number, field 37: 12 digits, `YDDDHH` of the
    /// entry's time (UTC) and the trace number. Two payments of one hub share
    /// it only if they also fall into the same hour of two years ten years
    /// apart, or 999,999 entries were written within that hour.
    pub rrn: String,
}

impl Trace {
    /// Of the payment whose request stands in the ledger entry `sequence`,
    /// made at `requested_ms` (milliseconds since 1970 UTC).
    pub fn new(sequence: u64, requested_ms: u64) -> Self {
        let stan = format!("{:06}", stan_of(sequence));
        let time = utc(requested_ms);
        let rrn = format!(
            "{}{:03}{:02}{stan}",
            time.year() % 10,
            time.day_of_year(),
            time.hour()
        );
        Self { stan, rrn }
    }
}

/// Of 1, 2, 3 …: 1 to 999,999, and again.
pub fn stan_of(count: u64) -> u64 {
    count.saturating_sub(1) % STANS + 1
}

/// Transmission date and time, field 7: `MMDDhhmmss`, UTC.
pub fn transmission_time(at_ms: u64) -> String {
    utc(at_ms).strftime("%m%d%H%M%S").to_string()
}

/// Local time and date, fields 12 and 13: `hhmmss` and `MMDD`.
pub fn local_time(at_ms: u64, zone: &TimeZone) -> (String, String) {
    let local = timestamp(at_ms).to_zoned(zone.clone());
    (
        local.strftime("%H%M%S").to_string(),
        local.strftime("%m%d").to_string(),
    )
}

fn utc(at_ms: u64) -> jiff::civil::DateTime {
    timestamp(at_ms).to_zoned(TimeZone::UTC).datetime()
}

fn timestamp(at_ms: u64) -> Timestamp {
    let at = i64::try_from(at_ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-09-21T14:13:20Z, the 264th day.
    const AT: u64 = 1_790_000_000_000;

    #[test]
    fn a_payment_has_one_trace_for_life_and_no_neighbour_shares_it() {
        let trace = Trace::new(41, AT);
        assert_eq!(trace.stan, "000041");
        assert_eq!(trace.rrn, "626414000041");
        assert_eq!(Trace::new(41, AT), trace, "nothing but the ledger's entry counts");
        let mut seen = std::collections::BTreeSet::new();
        for sequence in (1..50_000).chain(999_000..1_000_500) {
            assert!(
                seen.insert(Trace::new(sequence, AT + sequence * 4)),
                "entry {sequence} has another's trace"
            );
        }
    }

    #[test]
    fn the_trace_number_is_never_zero() {
        assert_eq!(stan_of(999_999), 999_999);
        assert_eq!(stan_of(1_000_000), 1);
        assert_eq!(stan_of(0), 1);
        assert_eq!(Trace::new(999_999 * 2, AT).stan, "999999");
    }

    #[test]
    fn times_are_written_as_the_standard_has_them() {
        assert_eq!(transmission_time(AT), "0921141320");
        assert_eq!(
            local_time(AT, &TimeZone::UTC),
            ("141320".to_owned(), "0921".to_owned())
        );
        // Any time at all can be written.
        assert_eq!(transmission_time(u64::MAX).len(), 10);
    }
}
