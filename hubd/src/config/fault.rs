//! Faults with file and line.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

use hub_core::toml_reader::Fault;
use serde::Serialize;

/// The exit code of a program whose configuration is wrong (sysexits.h).
pub const EX_CONFIG: u8 = 78;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigFault {
    /// Which file.
    pub file: PathBuf,
    /// Which line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ConfigFault {
    /// A fault at a line.
    pub(crate) fn at(file: &Path, line: usize, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line: Some(line),
            message,
        }
    }

    /// A fault of a whole file.
    pub(crate) fn whole(file: &Path, message: String) -> Self {
        Self {
            file: file.to_owned(),
            line: None,
            message,
        }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.message),
            None => write!(f, "{}: {}", self.file.display(), self.message),
        }
    }
}

/// Collects faults and warnings from everywhere.
#[derive(Debug, Default)]
pub(super) struct Faults {
    faults: RefCell<Vec<ConfigFault>>,
    warnings: RefCell<Vec<ConfigFault>>,
}

impl Faults {
    pub(super) fn add(&self, fault: ConfigFault) {
        self.faults.borrow_mut().push(fault);
    }

    pub(super) fn whole(&self, file: &Path, message: impl Into<String>) {
        self.add(ConfigFault::whole(file, message.into()));
    }

    pub(super) fn lines(&self, file: &Path, found: Vec<Fault>) {
        self.faults.borrow_mut().extend(
            found
                .into_iter()
                .map(|fault| ConfigFault::at(file, fault.line, fault.message)),
        );
    }

    pub(super) fn warn(&self, file: &Path, line: Option<usize>, message: impl Into<String>) {
        self.warnings.borrow_mut().push(ConfigFault {
            file: file.to_owned(),
            line,
            message: message.into(),
        });
    }

    /// Faults and warnings; those of one file stand together, by line.
    pub(super) fn into_parts(self) -> (Vec<ConfigFault>, Vec<ConfigFault>) {
        let sorted = |mut list: Vec<ConfigFault>| {
            list.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
            list.dedup();
            list
        };
        (
            sorted(self.faults.into_inner()),
            sorted(self.warnings.into_inner()),
        )
    }
}
