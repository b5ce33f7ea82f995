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
    /// Or one a line, for a command that goes through many things.
    lines: Cell<bool>,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            printed: Cell::new(false),
            lines: Cell::new(false),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// From now on an object is a line (JSON Lines), and so is a failure.
    pub(super) fn lines(&self) {
        self.lines.set(true);
    }

    /// One object, on one line.
    pub(super) fn line<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::Refused(format!("cannot write JSON: {error}")))?;
        self.text(&text)
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
        self.text(&text)
    }

    /// A text, whole.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
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
            let _ = match self.lines.get() {
                true => writeln!(io::stdout(), "{error}"),
                false => writeln!(io::stdout(), "{error:#}"),
            };
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
