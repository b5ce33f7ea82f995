//! Real tickets as payments to try a policy on: the lines that
//! `hubctl policy try` reads.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hub_protocol::DeviceClass;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::json;

use crate::day::Window;
use crate::generate;
use crate::sale::Sale;
use crate::tickets;
use crate::till::fitting;

/// What becomes of a file.
#[derive(Clone, Debug)]
pub struct PaymentOptions {
    /// The file.
    pub tickets: PathBuf,
    /// When the line is down, each day.
    pub outage: Window,
    /// One day of the file instead of all.
    pub day: Option<Date>,
    /// So many of the file's minor units are worth 100 of the policy's.
    pub per_100: u64,
    /// The file's days are moved by whole weeks to this one or later.
    pub from: Date,
    /// How many devices, of all three classes in turn.
    pub devices: usize,
    /// For the cards and gestures that the file does not name.
    pub seed: u64,
}

/// Writes the lines.
pub fn write(options: &PaymentOptions, out: &mut impl Write) -> Result<()> {
    let file = tickets::read_file(&options.tickets)?;
    let sales = generate::from_tickets(options.seed, &file.tickets);
    let wanted = |sale: &&Sale| options.day.is_none_or(|day| sale.at.date() == day);
    let mut sales: Vec<&Sale> = sales.iter().filter(wanted).collect();
    // Not every file is in order.
    sales.sort_by_key(|sale| sale.at);
    let first = sales
        .first()
        .context("the file holds no card payment of that day")?;
    let weeks = (options.from - first.at.date()).get_days().div_euclid(7) + 1;
    let moved = |at: DateTime| at.checked_add(weeks.weeks()).context("a date out of range");

    writeln!(out, r#"{{"event": "wan_up"}}"#)?;
    let mut outage_of: Option<Date> = None;
    for (place, sale) in sales.into_iter().enumerate() {
        let (date, time) = (sale.at.date(), sale.at.time());
        let is_out = options.outage.holds(time);
        if let Some(day) = outage_of.filter(|day| !is_out || *day != date) {
            let back = instant(moved(day.to_datetime(options.outage.to))?)?;
            writeln!(out, "{}", json!({ "event": "wan_up", "at": back }))?;
            writeln!(out, "{}", settled(back))?;
            outage_of = None;
        }
        if is_out && outage_of.is_none() {
            let cut = instant(moved(date.to_datetime(options.outage.from))?)?;
            // What chips have approved meanwhile was sent as it came.
            writeln!(out, "{}", settled(cut))?;
            writeln!(out, "{}", json!({ "event": "wan_down", "at": cut }))?;
            outage_of = Some(date);
        }
        let device = place % options.devices.max(1);
        let class = DeviceClass::ALL[device % DeviceClass::ALL.len()];
        let amount_minor = (sale.amount_minor * 100 / options.per_100.max(1)).max(1);
        let gesture = fitting(class, sale.gesture, amount_minor);
        let line = json!({
            "at": instant(moved(sale.at)?)?,
            "amount_minor": amount_minor,
            "order_id": sale.order_id,
            "device": format!("{class} {}", device + 1),
            "class": class.name(),
            "card": {
                "token": sale.card.token,
                "scheme": sale.card.scheme.name(),
                "funding": sale.card.funding.name(),
                "issuer_country": sale.card.issuer_country,
                "bin": sale.card.bin,
            },
            "entry_mode": gesture.entry_mode.name(),
            "verification": gesture.verification.name(),
            "cryptogram": gesture.cryptogram.name(),
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn settled(at: Timestamp) -> serde_json::Value {
    json!({ "event": "settled", "outcome": "approved", "at": at })
}

/// The shop's time, taken as UTC: the file names no zone.
fn instant(at: DateTime) -> Result<Timestamp> {
    Ok(at.to_zoned(TimeZone::UTC)?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_become_payments_before_during_and_after_an_outage() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tickets.csv");
        std::fs::write(
            &file,
            "timestamp,ticket,amount_minor,payment,card\n\
             2019-03-29T10:59:59,1,430,card,a\n2019-03-29T11:00:00,2,431,card,b\n\
             2019-03-29T12:00:00,3,100,card,a\n2019-03-30T09:00:00,4,100,card,c\n",
        )
        .unwrap();
        let options = PaymentOptions {
            tickets: file,
            outage: "11:00-12:00".parse().unwrap(),
            day: None,
            per_100: 430,
            from: "2026-06-01".parse().unwrap(),
            devices: 2,
            seed: 1,
        };
        let mut out = Vec::new();
        write(&options, &mut out).unwrap();
        let lines: Vec<serde_json::Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let of = |key: &str| -> Vec<String> {
            lines
                .iter()
                .map(|line| line[key].as_str().unwrap_or("-").to_owned())
                .collect()
        };
        assert_eq!(
            of("event"),
            [
                "wan_up", "-", "settled", "wan_down", "-", "wan_up", "settled", "-", "-"
            ]
        );
        // The same days of the week.
        assert_eq!(of("at")[1], "2026-06-05T10:59:59Z");
        assert_eq!(of("at")[8], "2026-06-06T09:00:00Z");
        assert_eq!(
            (&lines[1]["amount_minor"], &lines[4]["amount_minor"]),
            (&100.into(), &100.into())
        );
        assert_eq!(lines[7]["amount_minor"], 23);
    }
}
