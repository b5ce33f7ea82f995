//! `hubctl clock`.

use jiff::{Timestamp, civil, tz::TimeZone};
use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::Output;
use super::show::instant;
use crate::admin::protocol::{Answer, Request, StatusReport};

#[derive(Serialize)]
struct Shown {
    time_ms: u64,
    suspect: bool,
}

#[derive(Serialize)]
struct Confirmed {
    confirmed_ms: u64,
}

/// Shows the hub's time and whether it is in doubt.
pub(super) fn show(client: &Client, output: &Output) -> Result<(), Failure> {
    match client.ask(&Request::Status)? {
        Answer::Status(report) => {
            let shown = Shown {
                time_ms: report.time_ms,
                suspect: report.clock_suspect,
            };
            output.print(&shown, || {
                format!(
                    "{} by the hub's clock, which is {}",
                    instant(report.time_ms),
                    trust(&report)
                )
            })
        }
        other => Err(Client::unexpected(&other)),
    }
}

/// Tells the hub what time it is.
pub(super) fn confirm(client: &Client, output: &Output, told_ms: u64) -> Result<(), Failure> {
    match client.ask(&Request::ClockConfirm { told_ms })? {
        Answer::Done => output.print(
            &Confirmed {
                confirmed_ms: told_ms,
            },
            || "the hub's clock agrees and is not in doubt".to_owned(),
        ),
        other => Err(Client::unexpected(&other)),
    }
}

/// What `hubctl status` says of the clock.
pub(super) fn trust(report: &StatusReport) -> &'static str {
    if report.clock_suspect {
        "in doubt: limits are halved (hubctl clock confirm)"
    } else {
        "good"
    }
}

/// A time as people write it, as milliseconds since 1970 UTC.
pub(super) fn told(text: &str) -> Result<u64, String> {
    read(text, &TimeZone::system())
        .ok_or_else(|| "a date and time such as 2026-11-26T10:15 expected".to_owned())
}

fn read(text: &str, zone: &TimeZone) -> Option<u64> {
    let instant = match text.parse::<Timestamp>() {
        Ok(instant) => instant,
        // A date alone would be midnight, which nobody means.
        Err(_) if text.contains([':', 'T', 't']) => {
            let local: civil::DateTime = text.parse().ok()?;
            zone.to_ambiguous_timestamp(local).unambiguous().ok()?
        }
        Err(_) => return None,
    };
    u64::try_from(instant.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_in_the_machines_zone_or_with_its_own_offset() {
        let paris = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let expected = Some(1_795_684_500_000);
        for text in [
            "2026-11-26T09:15:00Z",
            "2026-11-26T10:15+01:00",
            "2026-11-26T10:15",
            "2026-11-26 10:15:00",
        ] {
            assert_eq!(read(text, &paris), expected, "{text}");
        }
    }

    #[test]
    fn half_a_time_or_one_that_comes_twice_is_none() {
        let paris = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for text in [
            "",
            "2026-11-26",
            "10:15",
            "noon",
            "2026-10-25T02:30",
            "1969-12-31T00:00Z",
        ] {
            assert_eq!(read(text, &paris), None, "{text}");
        }
        assert!(read("2026-10-25T02:30+01:00", &paris).is_some());
    }
}
