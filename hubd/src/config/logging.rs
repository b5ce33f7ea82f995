//! Logging: to stderr, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::Log;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// `RUST_LOG` is set and cannot be read.
    #[error("RUST_LOG is not a filter such as \"info\" or \"info,hubd=debug\": {0}")]
    Filter(String),
    /// Something else logs already in this process.
    #[error("logging is already set up: {0}")]
    AlreadySet(String),
}

/// Sets up logging for the process, once. `RUST_LOG` goes before the
/// configured level.
pub fn init(log: &Log) -> Result<(), LoggingError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| LoggingError::Filter(error.to_string()))?
        }
        // Libraries speak at one level less: their info is our debug.
        _ => EnvFilter::new(match log.level {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            tracing::Level::INFO => "warn,hubd=info,hub_core=info",
            tracing::Level::DEBUG => "info,hubd=debug,hub_core=debug",
            tracing::Level::TRACE => "trace",
        }),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| LoggingError::AlreadySet(error.to_string()))
}
