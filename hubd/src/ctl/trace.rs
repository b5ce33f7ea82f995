//! Who writes down that something was brought out of a ledger.

use std::path::Path;

use super::client::Client;
use super::failure::Failure;
use super::ledger::{Place, unreadable};
use crate::admin::Operator;
use crate::admin::protocol::{Answer, Request};
use crate::config::Layout;
use crate::ledger::{self, DataLock, LedgerError};
use crate::run;

/// Connects to the hub, if one answers.
pub(super) type Connect<'a> = &'a dyn Fn() -> Result<Option<Client>, Failure>;

/// Who writes an export down.
pub(super) enum Trace {
    /// The hub whose ledger this is; it runs.
    Hub(Client),
    /// The hub, at its next start: it cannot start before this is dropped.
    Note(Box<Layout>, DataLock),
    /// Nobody: this is a copy, beside which there is no hub.
    Nobody,
}

impl Trace {
    /// Refuses while a hub runs on the folder and cannot be told.
    pub(super) fn of(dir: &Path, place: &Place, connect: Connect<'_>) -> Result<Self, Failure> {
        if let Some(client) = connect()? {
            is_of(&client, place)?;
            // One that has answered may be turned away for the next question.
            return connect()?.map(Self::Hub).ok_or_else(|| untold(dir));
        }
        let Some(layout) = hubs_folder(dir) else {
            return Ok(Self::Nobody);
        };
        match DataLock::acquire(&layout.dir) {
            Ok(lock) => Ok(Self::Note(Box::new(layout), lock)),
            Err(LedgerError::Locked { path }) => Err(untold(&path)),
            Err(error) => Err(unreadable(error)),
        }
    }

    /// Durably, before anything is given away.
    pub(super) fn record(&self, asked: &Request, action: &str) -> Result<(), Failure> {
        match self {
            Self::Hub(client) => match client.ask(asked)? {
                Answer::Done => Ok(()),
                other => Err(Client::unexpected(&other)),
            },
            Self::Note(layout, lock) => note(layout, lock, action),
            Self::Nobody => Ok(()),
        }
    }

    /// What people are told of it.
    pub(super) fn said(&self) -> &'static str {
        match self {
            Self::Hub(_) => "the hub has written down that this was done",
            Self::Note(..) => "this was noted, and the hub writes it down when it next starts",
            Self::Nobody => "this is a copy, and no hub's own folder: nothing was written down of it",
        }
    }
}

/// Leaves a note for the hub's next start.
pub(super) fn note(layout: &Layout, lock: &DataLock, action: &str) -> Result<(), Failure> {
    let operator = Operator {
        uid: rustix::process::getuid().as_raw(),
    };
    run::note_export(layout, lock, &operator.to_string(), action).map_err(|error| {
        Failure::Refused(format!(
            "no note of this can be left for the ledger in {}: {error}. Nothing was brought out; mend the disk or the \
             folder's owner, and give the command again",
            layout.dir.display()
        ))
    })
}

/// The hub's own folder, also if its ledger alone was named; `None` for a copy
/// of a ledger.
pub(super) fn hubs_folder(dir: &Path) -> Option<Layout> {
    let whole = |layout: &Layout| layout.ledger.is_dir() && (layout.config.exists() || layout.keys.is_dir());
    let named = Layout::new(dir);
    if whole(&named) {
        return Some(named);
    }
    let ledger = dir.canonicalize().ok()?;
    let above = Layout::new(ledger.parent()?);
    let is_its_ledger = above.ledger.canonicalize().ok()? == ledger;
    (is_its_ledger && whole(&above)).then_some(above)
}

/// Another hub's ledger is no place to write this down.
fn is_of(client: &Client, place: &Place) -> Result<(), Failure> {
    let running = match client.ask(&Request::Status)? {
        Answer::Status(status) => status.hub_id,
        other => return Err(Client::unexpected(&other)),
    };
    let hub = ledger::hub_of(&place.ledger).map_err(unreadable)?;
    match hub.map(|hub| hub.to_string()) {
        Some(hub) if hub != running => Err(Failure::Refused(format!(
            "the hub that answers is {running}, and this is the ledger of {hub}, which could not write this down: give \
             the --socket of that one"
        ))),
        _ => Ok(()),
    }
}

fn untold(dir: &Path) -> Failure {
    Failure::Unreachable(format!(
        "a hub, or another command, is at work on {}, and does not answer at the socket, so that nobody would write \
         down what is brought out. Name the hub's folder by --dir, and its --socket if hubd.toml does not name the one \
         that it listens on; or stop hubd and give the command again",
        dir.display()
    ))
}
