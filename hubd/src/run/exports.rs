//! Exports that were made while the hub did not run.
//!
//! Only the hub can sign an entry, so whoever exports without it leaves a note
//! beside the store before what is exported gets its name. The next start
//! writes each note into the ledger, and removes the file once all are there:
//! a crash in between writes one twice, and loses none.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use hub_core::{MAX_ACTION, OperatorCommand, OperatorReply, Reply};

use super::key_files::forget;
use crate::config::Layout;
use crate::port::{Ask, HubPort};

/// The most bytes of notes. Nobody exports a hundred times without a hub.
const MOST_BYTES: u64 = 64 * 1024;

fn file(dir: &Path) -> PathBuf {
    dir.join("exports.notes")
}

/// Notes that this operator did this. Durable when it returns.
///
/// # Errors
/// It cannot be written, or there are too many notes.
pub(crate) fn note(layout: &Layout, operator: &str, action: &str) -> io::Result<()> {
    let path = file(&layout.dir);
    let mut notes = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)?;
    if notes.metadata()?.len() > MOST_BYTES {
        return Err(io::Error::other(
            "there are too many notes of exports that the ledger has not been told of: start hubd once",
        ));
    }
    let plain = |text: &str| -> String { text.chars().filter(|c| !c.is_control()).collect() };
    notes.write_all(format!("{}\t{}\n", plain(operator), plain(action)).as_bytes())?;
    notes.sync_all()?;
    // The hub's own user reads and removes it.
    if let Ok(owner) = fs::metadata(&layout.dir) {
        let _ = chown(&path, Some(owner.uid()), Some(owner.gid()));
    }
    File::open(&layout.dir)?.sync_all()
}

/// What the notes say: who, and what. A line that a crash cut off is left out:
/// what it was about has no name yet.
fn noted(dir: &Path) -> io::Result<Vec<(String, String)>> {
    let text = match fs::read(file(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => String::from_utf8_lossy(&read?).into_owned(),
    };
    let whole = text
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    let notes = whole.filter_map(|line| line.split_once('\t'));
    Ok(notes
        .map(|(operator, action)| (operator.to_owned(), shortened(action)))
        .collect())
}

fn shortened(text: &str) -> String {
    let end = (0..=MAX_ACTION.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default().to_owned()
}

/// Has the hub write the notes into its ledger.
pub(super) async fn tell(dir: PathBuf, port: HubPort) {
    let notes = match noted(&dir) {
        Ok(notes) => notes,
        Err(error) => {
            tracing::warn!(%error, "the notes of exports cannot be read; the next start tries again");
            return;
        }
    };
    for (operator, action) in notes {
        tracing::warn!(
            operator,
            action,
            "the ledger is told of an export that was made without the hub"
        );
        let command = OperatorCommand::Acted(action);
        let told = port.ask(Ask::Operator { operator, command }).await;
        if !matches!(told, Ok(Reply::Operator(OperatorReply::Done))) {
            tracing::warn!("the ledger was not told of an export; the next start tries again");
            return;
        }
    }
    if let Err(error) = forget(&file(&dir)) {
        tracing::warn!(%error, "the notes of exports stay, which the ledger has; the next start writes them again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_whole_and_what_a_crash_cut_off_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert_eq!(noted(dir.path()).unwrap(), []);
        note(&layout, "uid 0\tx", "one\nthing").unwrap();
        note(&layout, "anna", &"é".repeat(MAX_ACTION)).unwrap();
        let mut notes = OpenOptions::new().append(true).open(file(dir.path())).unwrap();
        notes.write_all(b"berta\thalf").unwrap();
        let found = noted(dir.path()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], ("uid 0x".to_owned(), "onething".to_owned()));
        assert!(found[1].1.len() <= MAX_ACTION && found[1].1.len() > MAX_ACTION - 2);
        assert_eq!(file(dir.path()).metadata().unwrap().mode() & 0o777, 0o600);
        notes.write_all(&vec![b'x'; 70_000]).unwrap();
        assert!(note(&layout, "anna", "more").is_err());
    }
}
