//! To stdout: for people, or one JSON object.
#![allow(clippy::print_stdout)] // printing is what this file is for

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use serde::Serialize;

use super::failure::Failure;

pub(super) struct Output {
    json: bool,
    /// There is one object on stdout, never two.
    printed: Cell<bool>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            printed: Cell::new(false),
        }
    }

    /// The object with `--json`, the text without.
    pub(super) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(value)
                .map_err(|error| Failure::Refused(format!("cannot write JSON: {error}")))?
        } else {
            text()
        };
        self.printed.set(true);
        match writeln!(io::stdout(), "{}", text.trim_end()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Refused(format!("cannot write: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// The failure on stderr; with `--json` also as an object, unless the
    /// command's own object has told already.
    pub(super) fn failure(&self, failure: &Failure) {
        let _ = writeln!(io::stderr(), "hubctl: {failure}");
        if self.json && !self.printed.get() {
            let error =
                serde_json::json!({ "error": { "code": failure.code(), "message": failure.to_string() } });
            let _ = writeln!(io::stdout(), "{error:#}");
        }
    }

    /// Whether somebody watches: progress is drawn on stderr then.
    pub(super) fn watched(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }
}

/// A table in the style of all tables here.
pub(super) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_header(header);
    table
}
