//! What came of a run, counted by place and by way of suffering.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::disk::Failure;

/// How a hub is made to suffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// The power goes.
    PowerCut {
        /// Whether the file system's log still gets out.
        log_flushed: bool,
    },
    /// SIGKILL.
    Kill,
    /// The power goes while segments move to archives.
    Archiving {
        /// Whether the file system's log still gets out.
        log_flushed: bool,
    },
    /// The power goes while a store of this format is taken over.
    TakingOver {
        /// The store's format.
        format: u16,
        /// Whether it was paid into before.
        enlarged: bool,
    },
    /// The disk fails.
    Disk(Failure),
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PowerCut { log_flushed: false } => "power cut",
            Self::PowerCut { log_flushed: true } => "power cut, log flushed",
            Self::Kill => "kill -9",
            Self::Archiving { log_flushed: false } => "power cut amid archiving",
            Self::Archiving { log_flushed: true } => "power cut amid archiving, log flushed",
            Self::TakingOver { format, enlarged } => match (format, enlarged) {
                (1, false) => "power cut amid migration of format 1",
                (1, true) => "power cut amid migration of format 1, enlarged",
                (2, false) => "power cut amid migration of format 2",
                (2, true) => "power cut amid migration of format 2, enlarged",
                (3, false) => "power cut amid taking over format 3",
                (3, true) => "power cut amid taking over format 3, enlarged",
                (4, false) => "power cut amid taking over format 4",
                (4, true) => "power cut amid taking over format 4, enlarged",
                (5, false) => "power cut amid taking over format 5",
                (5, true) => "power cut amid taking over format 5, enlarged",
                (_, false) => "power cut amid taking over format 6",
                (_, true) => "power cut amid taking over format 6, enlarged",
            },
            Self::Disk(Failure::FlushKeepingData) => "flush fails once, data kept",
            Self::Disk(Failure::FlushDroppingData) => "flush fails once, data dropped",
            Self::Disk(Failure::Write) => "write fails once (EIO)",
            Self::Disk(Failure::Full) => "write fails once (ENOSPC)",
            Self::Disk(Failure::Lie) => "flushes lie, then power cut",
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// The file system, or the folder's disk.
    pub(crate) place: String,
    /// What was done to the hub.
    pub(crate) way: String,
    /// How often.
    pub(crate) tries: u64,
    /// Of those, while the hub was still starting.
    pub(crate) while_starting: u64,
    /// Of those, how often the hub ended by itself, with exit code 74.
    pub(crate) ended_itself: u64,
    /// Of those, how often the power went inside of the work that it was to
    /// hit: begun, and not yet done.
    pub(crate) inside: u64,
    /// At which of its steps that was.
    pub(crate) steps: BTreeMap<&'static str, u64>,
    /// How often the index was set aside at the start after it.
    pub(crate) index_aside: u64,
    /// Receipts from before, looked up after each try.
    pub(crate) earlier: u64,
    /// Receipts that devices got before it.
    pub(crate) receipts: u64,
    /// Of those, in the reopened ledger.
    pub(crate) found: u64,
    /// Of the payments answered before it, charged in the gateway's book.
    pub(crate) charges: u64,
    /// Answers missing in the ledger, or approvals that never reached the
    /// gateway.
    pub(crate) lost: u64,
    /// Charged more than once, or against what the customer was told.
    pub(crate) twice: u64,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    rows: BTreeMap<(String, Way), Row>,
    /// Everything that must not be, in words.
    pub(crate) faults: Vec<String>,
    /// Seconds.
    pub(crate) seconds: f64,
}

impl Tally {
    pub(crate) fn row(&mut self, place: &str, way: Way) -> &mut Row {
        self.rows.entry((place.to_owned(), way)).or_insert_with(|| Row {
            place: place.to_owned(),
            way: way.name().to_owned(),
            ..Row::default()
        })
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.rows.extend(other.rows);
        self.faults.extend(other.faults);
    }

    /// Whether nothing is wrong.
    pub(crate) fn clean(&self) -> bool {
        self.faults.is_empty()
            && self
                .rows
                .values()
                .all(|row| row.lost == 0 && row.twice == 0 && row.found == row.receipts)
    }

    pub(crate) fn json(&self, seed: u64) -> serde_json::Value {
        serde_json::json!({
            "seed": seed,
            "seconds": self.seconds.round(),
            "clean": self.clean(),
            "rows": self.rows.values().collect::<Vec<_>>(),
            "faults": self.faults,
        })
    }

    pub(crate) fn text(&self, seed: u64) -> String {
        let columns: Vec<&Column> = COLUMNS
            .iter()
            .filter(|column| {
                let used = || self.rows.values().any(|row| (column.count)(row) > 0);
                column.always || used()
            })
            .collect();
        let mut table = Table::new();
        let names = columns.iter().map(|column| column.name);
        table
            .load_style(presets::NOTHING)
            .set_header(["place", "way"].into_iter().chain(names));
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in self.rows.values() {
            let cells = [row.place.clone(), row.way.clone()];
            let counts = columns.iter().map(|column| (column.count)(row).to_string());
            table.add_row(cells.into_iter().chain(counts));
        }
        let tries: u64 = self.rows.values().map(|row| row.tries).sum();
        let mut text = format!("{table}\n\n{tries} tries in {:.0} s, seed {seed}\n", self.seconds);
        for column in columns {
            text += &format!("{}: {}\n", column.name, column.is);
        }
        let mut steps: BTreeMap<&str, u64> = BTreeMap::new();
        for (step, count) in self.rows.values().flat_map(|row| &row.steps) {
            *steps.entry(step).or_default() += count;
        }
        for (step, count) in steps {
            text += &format!("inside, at the step \"{step}\": {count}\n");
        }
        for fault in &self.faults {
            text += &format!("FAULT {fault}\n");
        }
        text
    }
}

/// A column of the table.
struct Column {
    name: &'static str,
    is: &'static str,
    /// Shown even if there is nothing in it.
    always: bool,
    count: fn(&Row) -> u64,
}

const COLUMNS: &[Column] = &[
    Column {
        name: "tries",
        is: "how often",
        always: true,
        count: |row| row.tries,
    },
    Column {
        name: "inside",
        is: "of those, when the work that was to be hit had begun and was not done",
        always: false,
        count: |row| row.inside,
    },
    Column {
        name: "starting",
        is: "of those, while the hub was still opening its ledger",
        always: false,
        count: |row| row.while_starting,
    },
    Column {
        name: "by itself",
        is: "how often the hub ended with exit code 74",
        always: false,
        count: |row| row.ended_itself,
    },
    Column {
        name: "index aside",
        is: "how often the index was set aside and built again at the start after it",
        always: true,
        count: |row| row.index_aside,
    },
    Column {
        name: "receipts",
        is: "that devices got before it",
        always: true,
        count: |row| row.receipts,
    },
    Column {
        name: "found",
        is: "of those, in the reopened ledger",
        always: true,
        count: |row| row.found,
    },
    Column {
        name: "earlier",
        is: "receipts from before, looked up after each try",
        always: false,
        count: |row| row.earlier,
    },
    Column {
        name: "charges",
        is: "of those payments, in the gateway's book",
        always: true,
        count: |row| row.charges,
    },
    Column {
        name: "lost",
        is: "answers or earlier receipts that are not in the ledger, approvals not in the gateway's book",
        always: true,
        count: |row| row.lost,
    },
    Column {
        name: "twice",
        is: "charged more than once, or against what the customer was told",
        always: true,
        count: |row| row.twice,
    },
];
