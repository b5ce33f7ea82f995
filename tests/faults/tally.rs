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
    /// The disk fails.
    Disk(Failure),
}

impl Way {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PowerCut { log_flushed: false } => "power cut",
            Self::PowerCut { log_flushed: true } => "power cut, log flushed",
            Self::Kill => "kill -9",
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
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header([
            "place",
            "way",
            "tries",
            "starting",
            "by itself",
            "receipts",
            "found",
            "charges",
            "lost",
            "twice",
        ]);
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in self.rows.values() {
            let counts = [
                row.tries,
                row.while_starting,
                row.ended_itself,
                row.receipts,
                row.found,
                row.charges,
                row.lost,
                row.twice,
            ];
            let cells = [row.place.clone(), row.way.clone()];
            table.add_row(cells.into_iter().chain(counts.map(|count| count.to_string())));
        }
        let tries: u64 = self.rows.values().map(|row| row.tries).sum();
        let mut text = format!(
            "{table}\n\n{tries} tries in {:.0} s, seed {seed}\n\
             starting: while the hub was still opening its ledger; by itself: the hub ended with exit code 74;\n\
             receipts: that devices got before it; found: of those, in the reopened ledger; charges: of those\n\
             payments, in the gateway's book.\n",
            self.seconds
        );
        for fault in &self.faults {
            text += &format!("FAULT {fault}\n");
        }
        text
    }
}
