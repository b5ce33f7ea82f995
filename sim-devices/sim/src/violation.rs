//! What a checker says when a rule does not hold.

use std::fmt;

/// The rules that are checked. Numbers as in the project's design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Rule 1: no reply leaves before its entry is flushed.
    DurableBeforeAnswered,
    /// Rule 2: an approved payment is never lost, and ends somewhere.
    NothingLost,
    /// Rule 3: one id, one decision, at most one charge.
    OneCharge,
    /// Rule 4: no ceiling is passed, and none is invented.
    NoCeilingPassed,
    /// Rule 5: in doubt the answer is no.
    SilenceMeansNo,
    /// Rule 8: live sales before backlog.
    LiveBeforeBacklog,
    /// Rule 10: replay keeps the ledger's order for each card and device.
    Order,
    /// The gateway is not asked before it wants to be.
    RetryAfter,
    /// The same inputs give the same outputs, and a restart the same state.
    SameAgain,
    /// A closure says what was done, before anything of the next period.
    Closures,
    /// The core panicked, or could not open its own ledger.
    Broken,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::DurableBeforeAnswered => "1 durable before answered",
            Self::NothingLost => "2 nothing lost",
            Self::OneCharge => "3 one charge",
            Self::NoCeilingPassed => "4 no ceiling passed",
            Self::SilenceMeansNo => "5 silence means no",
            Self::LiveBeforeBacklog => "8 live sales before backlog",
            Self::Order => "10 order of replay",
            Self::RetryAfter => "retry-after kept",
            Self::SameAgain => "9 the same again",
            Self::Closures => "closures say what was done",
            Self::Broken => "runs at all",
        })
    }
}

/// A rule that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// What was seen.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule {}: {}", self.rule, self.text)
    }
}

/// What every check gives.
pub(crate) type Checked = Result<(), Violation>;

/// Holds a rule to a condition.
pub(crate) fn hold(condition: bool, rule: Rule, text: impl FnOnce() -> String) -> Checked {
    if condition {
        Ok(())
    } else {
        Err(Violation { rule, text: text() })
    }
}
