//! What was measured, for people and for machines.

use serde_json::{Value, json};

use super::{LoadReport, Row, to_f64};

impl Row {
    /// How many payments share one commit of the ledger.
    pub(super) fn payments_a_group(&self) -> Option<f64> {
        let groups = self.ledger.get("groups").filter(|groups| **groups > 0)?;
        Some(to_f64(self.answered) / to_f64(*groups))
    }

    pub(super) fn flushes_a_second(&self) -> Option<f64> {
        let seconds = to_f64(self.answered) / self.per_second;
        Some(to_f64(*self.ledger.get("flushes")?) / seconds)
    }
}

impl LoadReport {
    /// One object for machines.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "devices": row.devices,
                    "answered": row.answered,
                    "per_second": row.per_second.round(),
                    "p50_us": row.p50_us,
                    "p99_us": row.p99_us,
                    "max_us": row.max_us,
                    "queued": row.queued,
                    "receipts_checked": row.checked,
                    "ratio_to_first": self.ratio(row),
                    "hub_processors": row.hub_processors,
                    "load_processors": row.load_processors,
                    "hub_microseconds_each": 1e6 * row.hub_processors / row.per_second,
                    "written_bytes_each": row.written_each.round(),
                    "ledger": row.ledger,
                })
            })
            .collect();
        json!({
            "presigned": self.presigned,
            "seconds": self.seconds,
            "idle_processors": self.idle,
            "rows": rows,
            "machine": self.rates.to_json(),
            "bare_quic_per_second": self.echo.per_second.round(),
            "bare_quic_both_sides_us": self.echo.both_sides_us,
            "bound_per_second": self.bound().round(),
            "share_of_bound": self.best().map(|row| row.per_second / self.bound()),
        })
    }

    /// What the processors can do at most, if all they did were to check the
    /// request, sign once, and carry request and answer over QUIC, on both
    /// sides: a second.
    pub fn bound(&self) -> f64 {
        let each = 1e6 / self.rates.signs + 1e6 / self.rates.verifies + self.echo.both_sides_us;
        1e6 * to_f64(self.rates.processors as u64) / each
    }

    fn best(&self) -> Option<&Row> {
        self.rows
            .iter()
            .max_by(|a, b| a.per_second.total_cmp(&b.per_second))
    }

    fn ratio(&self, row: &Row) -> f64 {
        self.rows.first().map_or(1.0, |first| {
            row.per_second / first.per_second.max(f64::MIN_POSITIVE)
        })
    }

    /// The table for people.
    pub fn print(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header([
            "devices",
            "queued",
            "a second",
            "ratio",
            "p50 ms",
            "p99 ms",
            "max ms",
            "a group",
            "flushes/s",
            "hub CPUs",
            "own CPUs",
            "hub µs",
            "bytes",
        ]);
        for column in table.column_iter_mut() {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
        let millis = |us: u64| format!("{:.2}", to_f64(us) / 1000.0);
        for row in &self.rows {
            table.add_row([
                row.devices.to_string(),
                row.queued.to_string(),
                format!("{:.0}", row.per_second),
                format!("{:.1}", self.ratio(row)),
                millis(row.p50_us),
                millis(row.p99_us),
                millis(row.max_us),
                row.payments_a_group()
                    .map_or_else(String::new, |n| format!("{n:.1}")),
                row.flushes_a_second()
                    .map_or_else(String::new, |n| format!("{n:.0}")),
                format!("{:.2}", row.hub_processors),
                format!("{:.2}", row.load_processors),
                format!("{:.0}", 1e6 * row.hub_processors / row.per_second),
                format!("{:.0}", row.written_each),
            ]);
        }
        let signing = if self.presigned {
            "signed beforehand, all receipts checked afterwards"
        } else {
            "signed while measured"
        };
        writeln!(
            out,
            "Durable, signed, offline authorisations over QUIC; hub and devices in two processes;"
        )?;
        writeln!(
            out,
            "one payment under way a device; requests {signing}; {} s each.\n",
            self.seconds
        )?;
        writeln!(out, "{table}\n")?;
        writeln!(
            out,
            "a group: payments that share one commit of the ledger; CPUs: processors kept busy by the hub\n\
             and by the devices' process; hub µs and bytes: processor time and bytes to disk a payment.\n"
        )?;
        if let Some([alone, connected]) = self.idle {
            writeln!(
                out,
                "The idle hub keeps busy {:.2} % of a processor without devices, {:.2} % with all connected.\n",
                100.0 * alone,
                100.0 * connected
            )?;
        }
        self.rates.print(out, self.best())?;
        writeln!(
            out,
            "\nBare QUIC between as many devices: {:.0} requests a second, {:.0} µs of processor on both sides\n\
             together. Bound, from checking one signature, making one, and bare QUIC: {:.0} a second;\n\
             reached: {:.0} %.",
            self.echo.per_second,
            self.echo.both_sides_us,
            self.bound(),
            100.0 * self.best().map_or(0.0, |row| row.per_second) / self.bound()
        )
    }
}
