//! Tables and amounts for people.

use std::io::{self, Write};

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets};
use hub_protocol::Currency;

/// Columns: French, English, count, amount.
const WIDTHS: [u16; 4] = [48, 48, 11, 17];

/// One table of the report: a line in two languages, a count, an amount.
pub(super) struct Sheet {
    title: String,
    table: Table,
}

impl Sheet {
    pub(super) fn new(french: &str, english: &str) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(WIDTHS.iter().sum());
        Self {
            title: format!("{} · {english}", french.to_uppercase()),
            table,
        }
    }

    pub(super) fn row(&mut self, french: &str, english: &str, count: &str, amount: &str) {
        let right = |text: &str| Cell::new(text).set_alignment(CellAlignment::Right);
        self.table
            .add_row([Cell::new(french), Cell::new(english), right(count), right(amount)]);
    }

    pub(super) fn count(&mut self, french: &str, english: &str, count: u64) {
        self.row(french, english, &count.to_string(), "");
    }

    pub(super) fn amount(&mut self, french: &str, english: &str, count: u64, minor: u64, currency: Currency) {
        self.row(french, english, &count.to_string(), &money(minor, currency));
    }

    pub(super) fn print(mut self, out: &mut dyn Write) -> io::Result<()> {
        if self.table.is_empty() {
            return Ok(());
        }
        // Columns exist only once there are rows.
        self.table
            .set_constraints(WIDTHS.map(|width| ColumnConstraint::Absolute(Width::Fixed(width))));
        let rule: usize = WIDTHS.iter().copied().map(usize::from).sum();
        writeln!(
            out,
            "{}\n{}\n{}\n",
            self.title,
            "─".repeat(rule),
            self.table.trim_fmt()
        )
    }
}

/// French: spaces between thousands, a comma before the cents.
pub(super) fn money(minor: u64, currency: Currency) -> String {
    let digits = (minor / 100).to_string();
    let mut whole = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            whole.push('\u{a0}');
        }
        whole.push(digit);
    }
    format!("{whole},{:02}\u{a0}{currency}", minor % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_in_a_french_shop() {
        let plain = |minor| money(minor, Currency::EUR).replace('\u{a0}', " ");
        assert_eq!(plain(5), "0,05 EUR");
        assert_eq!(plain(123_456_789), "1 234 567,89 EUR");
        assert_eq!(plain(100_000), "1 000,00 EUR");
    }
}
