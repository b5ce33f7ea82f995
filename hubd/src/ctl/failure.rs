//! How a command fails, and with which exit code (sysexits.h).

use std::process::ExitCode;

use crate::admin::protocol::ErrorCode;
use crate::config::EX_CONFIG;

/// What was checked does not verify (`EX_DATAERR`).
pub const EX_DATAERR: u8 = 65;

/// The hub cannot be reached (`EX_UNAVAILABLE`).
pub const EX_UNAVAILABLE: u8 = 69;

/// Why a command did not do what it was told. The texts say what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The hub, or this machine, says no. Exit code 1.
    #[error("{0}")]
    Refused(String),
    /// The arguments make no sense together. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// A ledger, policy or receipt does not verify. Exit code 65.
    #[error("{0}")]
    Unverified(String),
    /// The hub cannot be reached. Exit code 69.
    #[error("{0}")]
    Unreachable(String),
    /// `hubd.toml` has faults. Exit code 78.
    #[error("{0}")]
    Config(String),
}

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unverified(_) => EX_DATAERR,
            Self::Unreachable(_) => EX_UNAVAILABLE,
            Self::Config(_) => EX_CONFIG,
        })
    }

    /// The name in `--json` output.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Usage(_) => "usage",
            Self::Unverified(_) => "unverified",
            Self::Unreachable(_) => "unreachable",
            Self::Config(_) => "config",
        }
    }

    /// What the hub's own refusal comes to.
    pub(super) fn from_hub(code: ErrorCode, message: String) -> Self {
        match code {
            ErrorCode::Unavailable => Self::Unreachable(message),
            ErrorCode::Malformed | ErrorCode::Refused | ErrorCode::Forbidden => Self::Refused(message),
        }
    }

    /// A file that cannot be read or written.
    pub(super) fn file(path: &std::path::Path, doing: &str, error: impl std::fmt::Display) -> Self {
        Self::Refused(format!("cannot {doing} {}: {error}", path.display()))
    }

    /// A file that was to be a new one.
    pub(super) fn new_file(path: &std::path::Path, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Self::Refused(format!(
                "{} is there already, and nothing is written over it: give another name",
                path.display()
            )),
            _ => Self::file(path, "write", error),
        }
    }
}
