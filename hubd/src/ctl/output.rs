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

    /// What a file or a device says goes to a terminal: no byte of it moves
    /// the cursor or colours anything.
    fn harmless(text: &str) -> String {
        let harmful = |c: char| c.is_control() && c != '\n';
        text.chars()
            .map(|c| if harmful(c) { '\u{fffd}' } else { c })
            .collect()
    }

    /// A text, whole.
    pub(super) fn text(&self, text: &str) -> Result<(), Failure> {
        match writeln!(io::stdout(), "{}", Self::harmless(text.trim_end())) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Refused(format!("cannot write: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// A drawing of our own, with its escape sequences. Never what a file or a
    /// device says: nothing in it is made harmless.
    pub(super) fn drawing(&self, drawn: &str) -> Result<(), Failure> {
        match writeln!(io::stdout(), "{drawn}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::Refused(format!("cannot write: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Something beside the answer, on stderr.
    pub(super) fn note(&self, text: &str) {
        let _ = writeln!(io::stderr(), "hubctl: {}", Self::harmless(text));
    }

    /// Whether what is printed is seen at once.
    pub(super) fn is_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }

    /// How wide the terminal is, if it says so.
    pub(super) fn columns(&self) -> Option<usize> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
        (size.ws_col > 0).then_some(usize::from(size.ws_col))
    }

    /// The failure on stderr; with `--json` also as an object, unless the
    /// command's own object has told already.
    pub(super) fn failure(&self, failure: &Failure) {
        let text = Self::harmless(&failure.to_string());
        let _ = writeln!(io::stderr(), "hubctl: {text}");
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

#[cfg(test)]
mod tests {
    use super::Output;

    #[test]
    fn nothing_that_a_file_says_moves_the_cursor() {
        let said = "tenant \u{1b}[31mRED\u{9b}2J\r\nnext\tline é";
        assert_eq!(
            Output::harmless(said),
            "tenant \u{fffd}[31mRED\u{fffd}2J\u{fffd}\nnext\u{fffd}line é"
        );
    }
}
