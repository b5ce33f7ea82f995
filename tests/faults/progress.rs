//! How far a run is: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressStyle};

/// Clones show the same.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
    what: Arc<str>,
    /// Every how many a line is written; `None` on a terminal.
    line_every: Option<u64>,
}

impl Progress {
    /// Over so many.
    pub(crate) fn over(what: &str, length: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = if terminal {
            ProgressBar::new(length)
        } else {
            ProgressBar::hidden()
        };
        bar.set_length(length);
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len}, {eta} left") {
            bar.set_style(style);
        }
        bar.set_message(what.to_owned());
        Self {
            bar,
            what: what.into(),
            line_every: (!terminal).then_some((length / 10).max(1)),
        }
    }

    /// One more is done.
    pub(crate) fn one(&self) {
        self.more(1);
    }

    /// So many more are done.
    pub(crate) fn more(&self, count: u64) {
        let before = self.bar.position();
        self.bar.inc(count);
        if let Some(every) = self.line_every
            && (before + count) / every > before / every
        {
            let length = self.bar.length().unwrap_or_default();
            // A closed stderr is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{} of {length} {}", before + count, self.what);
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
