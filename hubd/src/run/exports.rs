//! What was brought out of a hub's folder while the hub did not run.
//!
//! Only the hub signs entries. So `hubctl` leaves a note, durable before
//! anybody gets anything, and the hub writes down at its next start what it
//! says, in the name of whoever did it. A note goes when the ledger has it: if
//! the power fails in between the ledger is told once more, which is better
//! than never.

use std::io;
use std::path::PathBuf;

use hub_core::{OperatorCommand, OperatorReply, Reply};
use serde::{Deserialize, Serialize};

use super::key_files::{forget, sync_folder, write_secret};
use crate::config::Layout;
use crate::ledger::DataLock;
use crate::port::{Ask, HubPort};

/// The most notes that wait for a start, in bytes: some 500.
const MAX_NOTES: usize = 256 * 1024;

#[derive(Serialize, Deserialize)]
struct Note {
    /// Who, as the ledger names people.
    operator: String,
    /// What, as the ledger is to say it.
    action: String,
}

/// Leaves a note of what `operator` is about to bring out. No hub runs: the
/// lock is held.
///
/// # Errors
/// The system's refusal, or too many notes: nothing may be brought out then.
pub(crate) fn note(layout: &Layout, _lock: &DataLock, operator: &str, action: &str) -> io::Result<()> {
    let mut text = read(layout)?;
    text += &serde_json::to_string(&Note {
        operator: operator.to_owned(),
        action: action.to_owned(),
    })?;
    text.push('\n');
    if text.len() > MAX_NOTES {
        return Err(io::Error::other(
            "too many exports wait to be written down: start hubd, which does so, and give this command again",
        ));
    }
    write_secret(&file(layout), &text, &layout.dir)
}

/// Has the hub write down what the notes say, and removes them then.
pub(super) async fn tell(layout: Layout, port: HubPort) {
    match told(&layout, &port).await {
        Ok(0) => {}
        Ok(count) => {
            tracing::warn!(
                count,
                "exports while the hub did not run were written down in the ledger"
            );
        }
        Err(error) => tracing::warn!(
            %error, file = %file(&layout).display(),
            "exports while the hub did not run could not be written down; the next start tries again"
        ),
    }
}

async fn told(layout: &Layout, port: &HubPort) -> io::Result<usize> {
    let text = read(layout)?;
    if text.is_empty() {
        return Ok(0);
    }
    let notes = text.lines().map(said);
    let mut count = 0;
    for Note { operator, action } in notes {
        let command = OperatorCommand::Noted(action);
        match port.ask(Ask::Operator { operator, command }).await {
            Ok(Reply::Operator(OperatorReply::Done)) => count += 1,
            _ => return Err(io::Error::other("the hub is stopping")),
        }
    }
    forget(&file(layout)).and_then(|()| sync_folder(&file(layout)))?;
    Ok(count)
}

/// A note that cannot be read still says that there was something.
fn said(line: &str) -> Note {
    serde_json::from_str(line).unwrap_or_else(|_| Note {
        operator: "unknown".to_owned(),
        action: "an export while the hub did not run: its note cannot be read".to_owned(),
    })
}

fn read(layout: &Layout) -> io::Result<String> {
    match std::fs::read(file(layout)) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn file(layout: &Layout) -> PathBuf {
    layout.dir.join("exports.noted")
}
