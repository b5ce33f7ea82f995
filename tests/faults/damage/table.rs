//! What came of it, by way of damage.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, presets};
use serde::Serialize;

use super::kind::Kind;

/// One line of the table.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Row {
    /// What was done.
    pub(crate) damage: &'static str,
    /// How often.
    pub(crate) tries: u64,
    /// Of those, how often the hub or `hubctl ledger verify` noticed, or
    /// nothing needed to be.
    pub(crate) found: u64,
    /// How often file and place (payment, for cards) were named.
    pub(crate) named: u64,
    /// How often the hub refused to start at once, every file left as it was.
    pub(crate) refused: u64,
    /// How often salvage gave back every entry outside the damage.
    pub(crate) salvaged: u64,
    /// How often the index was built anew, or the torn tail cut.
    pub(crate) rebuilt: u64,
    /// How often an index was set aside.
    pub(crate) aside: u64,
    /// Charges in the gateway's book when all was sent; 0 where the hub
    /// refused to start.
    pub(crate) charges: u64,
    /// Payments parked for a person, for want of their card.
    pub(crate) parked: u64,
    /// Payments, entries and answers that were not there afterwards and are
    /// outside the damage.
    pub(crate) lost: u64,
    /// Charged more than once, or another amount.
    pub(crate) wrong: u64,
    /// What was not found, in words.
    pub(crate) missed: Vec<String>,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table(BTreeMap<Kind, Row>);

impl Table {
    pub(crate) fn row(&mut self, kind: Kind) -> &mut Row {
        self.0.entry(kind).or_insert_with(|| Row {
            damage: kind.name(),
            ..Row::default()
        })
    }

    /// Whether nothing is wrong.
    pub(crate) fn clean(&self) -> bool {
        self.0.iter().all(|(kind, row)| {
            let salvaged = !matches!(kind, Kind::Journal(_)) || row.salvaged == row.tries;
            row.found == row.tries && salvaged && row.lost == 0 && row.wrong == 0
        })
    }

    pub(crate) fn json(&self, seed: u64) -> serde_json::Value {
        let rows: Vec<&Row> = self.0.values().collect();
        serde_json::json!({ "seed": seed, "clean": self.clean(), "rows": rows })
    }

    pub(crate) fn text(&self, seed: u64) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_header([
            "damage", "tries", "found", "named", "refused", "salvaged", "rebuilt", "aside", "charges",
            "parked", "lost", "wrong",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for row in self.0.values() {
            let counts = [
                row.tries,
                row.found,
                row.named,
                row.refused,
                row.salvaged,
                row.rebuilt,
                row.aside,
                row.charges,
                row.parked,
                row.lost,
                row.wrong,
            ];
            let cells = std::iter::once(row.damage.to_owned());
            table.add_row(cells.chain(counts.map(|count| count.to_string())));
        }
        let tries: u64 = self.0.values().map(|row| row.tries).sum();
        let verdict = match self.clean() {
            true => "Nothing outside the damage is lost.",
            false => "SOMETHING IS LOST, WRONG OR NOT FOUND.",
        };
        let missed: String = self
            .0
            .values()
            .flat_map(|row| &row.missed)
            .map(|text| format!("{text}\n"))
            .collect();
        format!("{table}\n\n{missed}{tries} tries, seed {seed}. {verdict}\n")
    }
}
