//! What was measured, for people and for machines.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::{FloodReport, Row};

/// What honest devices may wait longer than without a flood, at the most.
const WANTED: f64 = 3.0;

impl FloodReport {
    /// The 99th percentile without a flood, microseconds: the worse of the
    /// measurements before and after the floods.
    pub fn idle_p99_us(&self) -> u64 {
        let idle = self.rows.iter().filter(|row| row.flood.is_none());
        idle.map(|row| row.p99_us).max().unwrap_or(0)
    }

    /// How many times longer than without a flood, at the 99th percentile.
    pub fn ratio(&self, row: &Row) -> f64 {
        to_f64(row.p99_us) / to_f64(self.idle_p99_us().max(1))
    }

    /// Whether no flood made honest sales more than so many times slower.
    pub fn is_within(&self, most: Option<f64>) -> bool {
        most.is_none_or(|most| self.rows.iter().all(|row| self.ratio(row) <= most))
    }

    /// One object for machines.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let mut value = serde_json::to_value(row)?;
                value["ratio"] = json!(self.ratio(row));
                Ok(value)
            })
            .collect::<serde_json::Result<_>>()?;
        Ok(json!({
            "rows": rows,
            "memory_bytes": self.rows.iter().map(|row| row.memory_bytes).max(),
            "ledger_verified": self.ledger.verified,
            "receipts": self.ledger.receipts,
            "ledger_fault": self.ledger.fault,
            "clean": self.clean(),
        }))
    }

    /// The table for people.
    ///
    /// # Errors
    /// Nobody reads it.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header([
            "flood", "sent", "sales", "p50 ms", "p99 ms", "max ms", "ratio", "lost", "MiB", "log KiB",
        ]);
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        let millis = |us: u64| format!("{:.2}", to_f64(us) / 1000.0);
        for row in &self.rows {
            table.add_row([
                row.flood.map_or("none", super::Kind::name).to_owned(),
                row.sent.to_string(),
                row.sales.to_string(),
                millis(row.p50_us),
                millis(row.p99_us),
                millis(row.max_us),
                format!("{:.1}", self.ratio(row)),
                (row.unanswered + row.not_approved).to_string(),
                format!("{:.0}", to_f64(row.memory_bytes) / 1_048_576.0),
                format!("{:.0}", to_f64(row.log_bytes) / 1024.0),
            ]);
        }
        writeln!(out, "{table}\n\nWhat the floods got:")?;
        for row in &self.rows {
            if let Some(kind) = row.flood {
                let (answers, bounds) = (listed(&row.answers), listed(&row.turned_away));
                writeln!(out, "  {kind}: {answers}; the hub counted: {bounds}")?;
            }
        }
        let worst = self.rows.iter().map(|row| self.ratio(row)).fold(0.0, f64::max);
        let wanted = if worst <= WANTED {
            "as wanted"
        } else {
            "more than wanted"
        };
        writeln!(
            out,
            "\nHonest devices wait at most {worst:.1} times as long at the 99th percentile ({wanted}: {WANTED:.0}).\n\
             Ledger: {}, {} honest receipts held against it.",
            self.ledger.fault.as_deref().unwrap_or("verified"),
            self.ledger.receipts
        )
    }
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let all: Vec<_> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    if all.is_empty() {
        return "nothing".to_owned();
    }
    all.join(", ")
}

#[allow(clippy::cast_precision_loss)] // counts far below 2^52
fn to_f64(count: u64) -> f64 {
    count as f64
}
