//! What people see while a run goes on: on stderr, so that standard output
//! is the report's alone.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The lines of one run.
#[derive(Clone, Debug)]
pub struct Progress {
    lines: MultiProgress,
    plain: bool,
}

impl Progress {
    /// Bars on a terminal; where stderr is a file or a pipe, one line a step.
    pub fn new() -> Self {
        let plain = !std::io::IsTerminal::is_terminal(&std::io::stderr());
        let target = if plain {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr_with_hz(8)
        };
        Self {
            lines: MultiProgress::with_draw_target(target),
            plain,
        }
    }

    /// Says that a step begins.
    pub fn step(&self, text: &str) {
        if self.plain {
            // A stderr that is closed is no reason to stop.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("· {text}\n").as_bytes());
        } else {
            let _ = self.lines.println(format!("· {text}"));
        }
    }

    /// A bar over `length` customers or payments.
    pub fn bar(&self, text: &str, length: u64) -> ProgressBar {
        // A template of our own that does not parse would be seen at once;
        // indicatif's default serves until then.
        let style = ProgressStyle::with_template("  {msg:<46} [{bar:30}] {pos:>5}/{len:<5}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("█▉ ");
        if self.plain {
            self.step(text);
        }
        let bar = self.lines.add(ProgressBar::new(length));
        bar.set_style(style);
        bar.set_message(text.to_owned());
        bar.tick();
        bar
    }

    /// Leaves a finished bar where it is.
    pub fn finish(&self, bar: &ProgressBar) {
        bar.finish();
        if self.plain {
            self.step(&format!(
                "  {}/{}",
                bar.position(),
                bar.length().unwrap_or_default()
            ));
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
