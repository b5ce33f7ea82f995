//! When the shop is open, by its own clock.

use core::fmt;
use core::str::FromStr;

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

use super::cards::Malformed;
use crate::toml_reader::{At, Section, boolean, list, text};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// From a minute of a day up to another, exclusive; an end before the
/// beginning lies on the next day. Both the same is refused: nobody could say
/// whether that is a whole day or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    from: u16,
    to: u16,
}

impl FromStr for Span {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (from, to) = text.split_once('-').ok_or(Malformed)?;
        let span = Self {
            from: minute(from)?,
            to: minute(to)?,
        };
        if span.from == DAY || span.from == span.to {
            return Err(Malformed);
        }
        Ok(span)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

impl Span {
    /// Whether it has begun on the same day and is not over.
    fn holds_today(self, at: u16) -> bool {
        self.from <= at && (at < self.to || self.to <= self.from)
    }

    /// Whether it began the day before and is not over.
    fn holds_from_yesterday(self, at: u16) -> bool {
        self.to <= self.from && at < self.to
    }
}

/// Minutes of a week.
const WEEK: u32 = 7 * DAY as u32;

impl Span {
    /// From a minute of the week up to another, exclusive, which may lie in the
    /// next week.
    fn in_week(self, day: u32) -> (u32, u32) {
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        let over_midnight = if self.to <= self.from { u32::from(DAY) } else { 0 };
        let begins = day * u32::from(DAY);
        (begins + from, begins + to + over_midnight)
    }
}

/// Two spans that are open at the same time are surely not meant: one of them
/// has a wrong end.
fn note_overlaps(section: &Section<'_, '_>, week: &[(&'static str, Option<At<Vec<Span>>>); 7]) {
    let mut before: Vec<(&str, Span, (u32, u32))> = Vec::new();
    for (day, (name, spans)) in (0..).zip(week) {
        for (span, line) in spans
            .iter()
            .flat_map(|at| at.value.iter().map(|span| (*span, at.line)))
        {
            let own = span.in_week(day);
            let meets = |(_, _, other): &&(&str, Span, (u32, u32))| {
                // Sunday night goes on in Monday's first hours.
                [0, WEEK].iter().any(|shift| {
                    let (from, to) = (own.0 + shift, own.1 + shift);
                    (from < other.1 && other.0 < to) || (other.0 + shift < own.1 && own.0 < other.1 + shift)
                })
            };
            // The same span twice is told as such.
            let other = before
                .iter()
                .find(meets)
                .filter(|other| (other.0, other.1) != (*name, span));
            if let Some((other_day, other, _)) = other {
                section.slip(
                    line,
                    format!("hours.{name}: {span} begins before {other} of {other_day} ends; spans that do not overlap expected"),
                );
            }
            before.push((name, span, own));
        }
    }
}

/// "08:30", up to "24:00".
fn minute(text: &str) -> Result<u16, Malformed> {
    let (hour, minute) = text.split_once(':').ok_or(Malformed)?;
    let two = |text: &str| match text.as_bytes() {
        [a, b] if a.is_ascii_digit() && b.is_ascii_digit() => {
            Ok(u16::from(a - b'0') * 10 + u16::from(b - b'0'))
        }
        _ => Err(Malformed),
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    if minute > 59 || hour * 60 + minute > DAY {
        return Err(Malformed);
    }
    Ok(hour * 60 + minute)
}

/// The shop's opening hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hours {
    zone: TimeZone,
    /// Monday first.
    week: [Vec<Span>; 7],
    /// Whether payments outside of them may be approved offline.
    pub approve_outside: bool,
}

impl Hours {
    /// Whether the shop is open at this time, milliseconds since 1970 UTC.
    pub fn open(&self, at_ms: u64) -> bool {
        let Some(at) = i64::try_from(at_ms)
            .ok()
            .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        else {
            return false;
        };
        let local = at.to_zoned(self.zone.clone()).datetime();
        let minute = u16::try_from(i32::from(local.hour()) * 60 + i32::from(local.minute())).unwrap_or(0);
        let spans = |day: Weekday| {
            let place = usize::try_from(day.to_monday_zero_offset()).unwrap_or(0);
            self.week.get(place).map_or(&[][..], Vec::as_slice)
        };
        let today = local.weekday();
        spans(today).iter().any(|span| span.holds_today(minute))
            || spans(today.previous())
                .iter()
                .any(|span| span.holds_from_yesterday(minute))
    }

    /// The hour of the shop's week at this time, 0 to 167.
    pub(super) fn hour_of_week(&self, at_ms: u64) -> usize {
        hour_of_week(&self.zone, at_ms)
    }

    /// The shop's time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The spans of each day, Monday first.
    pub fn week(&self) -> &[Vec<Span>; 7] {
        &self.week
    }
}

/// The hour of the week, from Monday's first: 0 to 167.
pub(super) fn hour_of_week(zone: &TimeZone, at_ms: u64) -> usize {
    let at = i64::try_from(at_ms).ok().map(Timestamp::from_millisecond);
    let Some(Ok(at)) = at else {
        return 0;
    };
    let local = at.to_zoned(zone.clone()).datetime();
    let day = i32::from(local.weekday().to_monday_zero_offset());
    usize::try_from(day * 24 + i32::from(local.hour())).unwrap_or(0)
}

/// Reads `[hours]`. All of it may be missing: then the shop is always open.
pub(super) fn read(section: Section<'_, '_>) -> Option<Hours> {
    const SPANS: &str =
        "a list of at most 4 spans such as \"08:30-12:30\" (up to \"24:00\", or into the next day)";
    const DAYS: [&str; 7] = [
        "monday",
        "tuesday",
        "wednesday",
        "thursday",
        "friday",
        "saturday",
        "sunday",
    ];
    if !section.present() {
        section.finish();
        return None;
    }
    // By its rule and not by its name: a name would have to be looked up in
    // files that differ from machine to machine.
    let zone = section.required(
        "time_zone",
        "a POSIX time zone (IEEE Std 1003.1, TZ) such as \"CET-1CEST,M3.5.0,M10.5.0/3\"",
        |value| text::<String>(value).and_then(|rule| TimeZone::posix(&rule).ok()),
    );
    let outside = section.optional("approve_outside", "true or false", boolean);
    let week = DAYS.map(|day| {
        let spans = section.optional(day, SPANS, |value| {
            list::<Span>(value).filter(|spans| spans.len() <= 4)
        });
        (day, spans)
    });
    note_overlaps(&section, &week);
    let week = week.map(|(_, spans)| spans.map(|at| at.value).unwrap_or_default());
    section.finish();
    Some(Hours {
        zone: zone?.value,
        week,
        approve_outside: outside.is_some_and(|at| at.value),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml_reader::Document;

    fn hours(text: &str) -> Hours {
        let document = Document::parse(text).unwrap();
        let hours = read(document.root().section("hours")).unwrap();
        assert_eq!(document.into_faults(), []);
        hours
    }

    const SHOP: &str = "[hours]\ntime_zone = \"CET-1CEST,M3.5.0,M10.5.0/3\"\n\
        monday = [\"08:30-12:30\", \"14:00-19:30\"]\nfriday = [\"18:00-02:00\"]\nsunday = [\"00:00-24:00\"]\n";

    fn ms(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    #[test]
    fn a_shop_is_open_from_the_first_instant_of_a_span_up_to_its_end() {
        let hours = hours(SHOP);
        // Winter: an hour ahead of UTC. 2026-11-23 is a Monday.
        for (at, open) in [
            ("2026-11-23T07:29:59.999Z", false),
            ("2026-11-23T07:30:00Z", true),
            ("2026-11-23T11:29:59.999Z", true),
            ("2026-11-23T11:30:00Z", false),
            ("2026-11-23T13:00:00Z", true),
            ("2026-11-24T09:00:00Z", false),
            // Summer: two hours ahead.
            ("2026-07-27T06:30:00Z", true),
            ("2026-07-27T06:29:59Z", false),
            // Friday night, into Saturday.
            ("2026-11-27T16:59:59Z", false),
            ("2026-11-27T17:00:00Z", true),
            ("2026-11-28T00:59:59Z", true),
            ("2026-11-28T01:00:00Z", false),
            // All of Sunday, by the shop's clock.
            ("2026-11-28T22:59:59Z", false),
            ("2026-11-28T23:00:00Z", true),
            ("2026-11-29T22:59:59Z", true),
            ("2026-11-29T23:00:00Z", false),
        ] {
            assert_eq!(hours.open(ms(at)), open, "{at}");
        }
    }

    #[test]
    fn the_week_begins_with_the_first_hour_of_monday_in_the_shop() {
        let hours = hours(SHOP);
        for (at, hour) in [
            ("2026-11-22T22:59:59.999Z", 167),
            ("2026-11-22T23:00:00Z", 0),
            ("2026-07-26T22:00:00Z", 0),
            ("2026-11-25T12:30:00Z", 2 * 24 + 13),
        ] {
            assert_eq!(hours.hour_of_week(ms(at)), hour, "{at}");
        }
        assert_eq!(hour_of_week(&TimeZone::UTC, ms("2026-11-25T12:30:00Z")), 60);
        assert_eq!(hour_of_week(&TimeZone::UTC, u64::MAX), 0);
    }

    #[test]
    fn what_is_no_span_or_no_zone_is_a_fault() {
        for (key, value) in [
            ("monday", "[\"8:30-12:30\"]"),
            ("monday", "[\"08:30\"]"),
            ("monday", "[\"08:60-12:30\"]"),
            ("monday", "[\"08:30-24:01\"]"),
            ("monday", "[\"24:00-02:00\"]"),
            ("monday", "[\"08:30-08:30\"]"),
            ("monday", "\"08:30-12:30\""),
            ("time_zone", "\"Europe/Paris\""),
        ] {
            let text = match key {
                "time_zone" => format!("[hours]\ntime_zone = {value}\n"),
                _ => format!("[hours]\ntime_zone = \"UTC0\"\n{key} = {value}\n"),
            };
            let document = Document::parse(&text).unwrap();
            read(document.root().section("hours"));
            let faults = document.into_faults();
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        }
    }
}
