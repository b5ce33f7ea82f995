//! `hubctl ledger closures`: the days, months and years that are over, each
//! held against the entries that it covers.

use std::path::Path;

use hub_core::closure_audit::{ClosureAudit, Held};
use hub_protocol::{Closure, Entry, LedgerTotals, Period, Total};
use serde::Serialize;

use super::cli::Reading;
use super::failure::Failure;
use super::ledger::{Opened, place, progress, shown_progress, unreadable};
use super::output::{Output, table};
use super::show::{Language, amount, count};
use super::totals::ShownTotals;
use crate::ledger::{self, Fault};

/// One closure, as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    period: &'static str,
    name: String,
    number: u32,
    /// The entry that says so.
    entry: u64,
    first_entry: u64,
    last_entry: u64,
    totals: Vec<ShownTotals>,
    /// Since `since_entry`: the perpetual totals.
    running: Vec<ShownTotals>,
    since_entry: u64,
    /// `right`, `hubs-word` or `wrong`.
    held: &'static str,
    #[serde(skip)]
    closure: Closure,
}

#[derive(Debug, Serialize)]
struct List {
    verified: bool,
    /// How many entries are encrypted and were not read.
    unread: u64,
    closures: Vec<Shown>,
}

/// What came of holding a ledger's closures against its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    /// The entries say the same.
    right: u64,
    /// Entries or payments that they cover are not here.
    hubs_word: u64,
    /// The entries say something else.
    wrong: u64,
}

/// Goes through a ledger, entry by entry.
#[derive(Debug, Default)]
pub(super) struct Checking {
    audit: ClosureAudit,
    pub(super) tally: Tally,
    /// The first that is wrong.
    pub(super) first_wrong: Option<u64>,
}

impl Tally {
    fn of(closures: &[Shown]) -> Self {
        let count = |held: &str| closures.iter().filter(|shown| shown.held == held).count() as u64;
        Self {
            right: count("right"),
            hubs_word: count("hubs-word"),
            wrong: count("wrong"),
        }
    }

    /// What people are told of it.
    pub(super) fn told(self) -> String {
        let mut text = String::new();
        for (number, what) in [
            (self.right, "as the entries say"),
            (
                self.hubs_word,
                "by the hub's word: not all that they rest on could be read",
            ),
            (self.wrong, "WRONG: the entries say something else"),
        ] {
            if number > 0 {
                text += &format!("{} {what}\n", count(number, "closure", "closures"));
            }
        }
        text
    }
}

impl Checking {
    /// The next entry that could be read.
    pub(super) fn take<'a>(&mut self, entry: &'a Entry) -> Option<(&'a Closure, Held)> {
        // One whose request this program cannot read counts as not there.
        let (closure, held) = self.audit.take(entry).ok()??;
        match held {
            Held::Right => self.tally.right += 1,
            Held::HubsWord => self.tally.hubs_word += 1,
            Held::Wrong => {
                self.tally.wrong += 1;
                self.first_wrong.get_or_insert(entry.sequence);
            }
        }
        Some((closure, held))
    }
}

/// Lists them, oldest first: of days, or of another period.
pub(super) fn closures(
    output: &Output,
    dir: &Path,
    key: Option<&str>,
    reading: &Reading,
    period: Period,
) -> Result<(), Failure> {
    let place = place(dir, key)?;
    let opened = Opened::with(reading, dir, &place.ledger)?;
    let mut checking = Checking::default();
    let mut closures = Vec::new();
    let bar = progress(output);
    let report = ledger::read_each(
        &place.ledger,
        &place.key,
        opened.contents(),
        &mut |verified| {
            let found = verified.entry.and_then(|entry| checking.take(entry));
            if let Some((closure, held)) = found
                && closure.period == period
            {
                closures.push(Shown::new(closure, held, verified.head.sequence));
            }
        },
        &mut |done| shown_progress(&bar, done),
    )
    .map_err(unreadable)?;
    bar.finish_and_clear();
    let unread = report.unread();
    // Where a running hub is writing is no closure that has been made.
    let broken = report
        .broken
        .filter(|broken| !matches!(broken.fault, Fault::TornTail { .. }));
    let list = List {
        verified: broken.is_none() && checking.first_wrong.is_none(),
        unread,
        closures,
    };
    output.print(&list, || as_table(&list, period, broken.is_some()))?;
    match (broken, checking.first_wrong) {
        (Some(broken), _) => Err(Failure::Unverified(broken.to_string())),
        (None, Some(entry)) => Err(wrong(entry)),
        (None, None) => Ok(()),
    }
}

/// A closure does not say what the entries say.
pub(super) fn wrong(entry: u64) -> Failure {
    Failure::Unverified(format!(
        "the closure in entry {entry} does not say what the entries that it covers say: whoever signed it had the hub's key, or the program miscounted"
    ))
}

impl Shown {
    fn new(closure: &Closure, held: Held, entry: u64) -> Self {
        Self {
            period: closure.period.name(),
            name: closure.name.clone(),
            number: closure.number,
            entry,
            first_entry: closure.first,
            last_entry: closure.last,
            totals: closure.totals.iter().map(Into::into).collect(),
            running: closure.running.iter().map(Into::into).collect(),
            since_entry: closure.since,
            held: match held {
                Held::Right => "right",
                Held::HubsWord => "hubs-word",
                Held::Wrong => "wrong",
            },
            closure: closure.clone(),
        }
    }
}

fn as_table(list: &List, period: Period, broken: bool) -> String {
    let (closures, period) = (&list.closures, period.name());
    if closures.is_empty() {
        return match list.unread {
            _ if broken => format!("whether a {period} is closed is not known: the ledger does not verify"),
            0 => format!("no {period} is closed: none is over in which a payment was counted"),
            unread => format!(
                "whether a {period} is closed is not known: what {unread} entries say is encrypted and was not \
                 read, which takes the hub's vault key (--vault-key) and the data-key beside the ledger"
            ),
        };
    }
    let language = Language::of_environment();
    let mut table = table([
        period,
        "entries",
        "online",
        "offline",
        "settled",
        "declined later",
        "voided",
        "refunded",
        "perpetual",
        "",
    ]);
    for shown in closures {
        let each = |column: fn(&LedgerTotals) -> Option<Total>, of: &[LedgerTotals]| {
            let cells: Vec<String> = of
                .iter()
                .filter_map(|totals| Some((totals.currency, column(totals)?)))
                .map(|(currency, total)| match total.count {
                    0 => "-".to_owned(),
                    count => format!("{count} x {}", amount(total.minor, currency.as_str(), language)),
                })
                .collect();
            cells.join("\n")
        };
        let closure = &shown.closure;
        let totals = |column| each(column, &closure.totals);
        table.add_row([
            shown.name.clone(),
            format!("{} to {}", shown.first_entry, shown.last_entry),
            totals(|totals| Some(totals.approved_online)),
            totals(|totals| Some(totals.approved_offline)),
            totals(|totals| Some(totals.settled)),
            totals(|totals| Some(totals.declined_at_replay)),
            totals(|totals| Some(totals.voided)),
            totals(|totals| totals.refunded),
            each(|totals| Some(approved(totals)), &closure.running),
            match shown.held {
                "right" => String::new(),
                "wrong" => "WRONG".to_owned(),
                _ => "hub's word".to_owned(),
            },
        ]);
    }
    let since = closures.last().map_or(0, |shown| shown.since_entry);
    format!(
        "{table}\nperpetual: all that was approved, online and offline, since entry {since}; the other perpetual totals: --json\n{}",
        Tally::of(closures).told()
    )
}

/// What was approved, by whomever.
fn approved(totals: &LedgerTotals) -> Total {
    let (online, offline) = (totals.approved_online, totals.approved_offline);
    Total {
        count: online.count.saturating_add(offline.count),
        minor: online.minor.saturating_add(offline.minor),
    }
}
