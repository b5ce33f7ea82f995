//! `hubctl ledger disclose`: the keys of single entries, for somebody who has
//! a copy of the ledger and is to read these entries and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use hub_protocol::{EntryKey, PaymentId, StoredPayload};
use serde::{Deserialize, Serialize};

use super::cli::DiscloseArgs;
use super::client::Client;
use super::failure::Failure;
use super::ledger::{contents, place, progress, seal, shown_progress, unreadable};
use super::output::Output;
use super::policy::read_at_most;
use crate::admin::Operator;
use crate::admin::protocol::{Answer, Request};
use crate::config::Layout;
use crate::ledger::{self, DataLock, Fault, LedgerError};
use crate::run;

/// The largest file of disclosed keys, in bytes: a million entries have 100 MB.
const MAX_DISCLOSED: u64 = 1 << 30;

/// One line of the file.
#[derive(Serialize, Deserialize)]
struct Line {
    /// Which entry.
    sequence: u64,
    /// Its key, 64 hex digits.
    key: String,
}

#[derive(Serialize)]
struct Disclosed<'a> {
    out: &'a Path,
    entries: u64,
    /// The hub has written it down.
    recorded: bool,
    /// The hub, which does not run, will write it down at its next start.
    noted: bool,
}

/// `connect`: to the hub of this folder, if one is running; it writes down that
/// this was done.
pub(super) fn disclose(
    output: &Output,
    dir: &Path,
    order: &DiscloseArgs,
    connect: impl FnOnce() -> Result<Option<Client>, Failure>,
) -> Result<(), Failure> {
    if !order.all && order.payment.is_empty() && order.from.is_none() && order.to.is_none() {
        return Err(Failure::Usage(
            "say which entries: --payment, --from and --to, or --all".to_owned(),
        ));
    }
    let place = place(dir, order.key.as_deref())?;
    let Some(seal) = seal(dir, &place.ledger, order.vault_key.as_deref())? else {
        return Err(Failure::Usage(
            "the hub's vault key cannot be read, or there is no data-key beside this ledger: give the key by --vault-key, and run this where the hub's files are"
                .to_owned(),
        ));
    };
    let payments = order
        .payment
        .iter()
        .map(|id| id.parse::<PaymentId>())
        .collect::<Result<BTreeSet<_>, _>>()
        .map_err(|error| Failure::Usage(format!("--payment: {error}")))?;
    let range = order.from.unwrap_or(1)..=order.to.unwrap_or(u64::MAX);
    // The file gets its name once the hub has written down what is in it.
    let mut unnamed = Unnamed::create(&order.out)?;
    let (mut first, mut last, mut entries, mut written) = (None, 0, 0, Ok(()));
    let bar = progress(output);
    let report = ledger::read_each(
        &place.ledger,
        &place.key,
        contents(Some(&seal)),
        &mut |verified| {
            let about = verified.entry.and_then(|entry| entry.event.payment_id());
            let sequence = verified.head.sequence;
            let wanted = range.contains(&sequence)
                && (payments.is_empty() || about.is_some_and(|id| payments.contains(&id)));
            let key = match StoredPayload::decode(verified.payload) {
                Ok(StoredPayload::Sealed(sealed)) if wanted => seal.disclose(&sealed),
                _ => None,
            };
            if let (Some(key), Ok(())) = (key, &written) {
                let line = Line {
                    sequence,
                    key: HEXLOWER.encode(&key.0),
                };
                written = unnamed.line(&line);
                first.get_or_insert(sequence);
                (last, entries) = (sequence, entries + 1);
            }
        },
        &mut |done| shown_progress(&bar, done),
    )
    .map_err(unreadable)?;
    bar.finish_and_clear();
    // A hub that is running writes at the end; what is whole before it counts.
    if let Some(broken) = report
        .broken
        .filter(|broken| !matches!(broken.fault, Fault::TornTail { .. }))
    {
        return Err(Failure::Unverified(broken.to_string()));
    }
    let Some(first) = first else {
        return Err(Failure::Refused(
            "no encrypted entry is among those: `hubctl ledger verify` says how many there are".to_owned(),
        ));
    };
    written
        .and_then(|()| unnamed.flush())
        .map_err(|error| Failure::file(&order.out, "write", error))?;
    let which = hub_core::Disclosed {
        entries,
        first,
        last,
        payments: payments.into_iter().collect(),
    };
    // Held until the file has its name: no hub starts before it can read of it.
    let mut note = None;
    let recorded = match connect()? {
        None => {
            note = leave_note(dir, &which.action())?;
            false
        }
        Some(client) => {
            let which = Request::Disclosed {
                entries,
                first,
                last,
                payments: order.payment.clone(),
            };
            match client.ask(&which)? {
                Answer::Done => true,
                other => return Err(Client::unexpected(&other)),
            }
        }
    };
    unnamed.name(&order.out)?;
    let disclosed = Disclosed {
        out: &order.out,
        entries,
        recorded,
        noted: note.is_some(),
    };
    output.print(&disclosed, || {
        let recorded = match (recorded, note.is_some()) {
            (true, _) => "the hub has written down that this was done",
            (false, true) => "the hub does not run: its next start writes down that this was done",
            (false, false) => "this is a copy, without a hub: nothing was written down of it",
        };
        format!(
            "the keys of {entries} entries are in {}: whoever has them and a copy of the ledger reads these entries (`hubctl ledger verify --disclosed`), and no other\n{recorded}\n",
            order.out.display()
        )
    })
}

/// Has the next start of a hub that does not run write down what was exported.
/// `None`: there is no hub in this folder, only a copy of a ledger. The folder
/// is the caller's until the lock is dropped.
pub(super) fn leave_note(dir: &Path, action: &str) -> Result<Option<DataLock>, Failure> {
    let layout = Layout::new(dir);
    if !layout.config.exists() {
        return Ok(None);
    }
    let lock = DataLock::acquire(dir).map_err(|error| match error {
        LedgerError::Locked { path } => Failure::Unreachable(format!(
            "a hub runs in {}, and has to write down that this is done, but is not reached: name its --socket, or stop it",
            path.display()
        )),
        other => unreadable(other),
    })?;
    let operator = Operator {
        uid: rustix::process::getuid().as_raw(),
    };
    let action = format!("{action}, while the hub did not run");
    run::note_export(&layout, &operator.to_string(), &action)
        .map_err(|error| Failure::file(dir, "leave a note for the ledger in", error))?;
    Ok(Some(lock))
}

/// A file beside the name that it is to have, and removed unless it gets that.
struct Unnamed {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Unnamed {
    fn create(out: &Path) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new_file(out, error);
        if out.exists() {
            return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
        }
        let mut name = out.as_os_str().to_owned();
        name.push(format!(".{}.unfinished", std::process::id()));
        let path = PathBuf::from(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        Ok(Self {
            path,
            file: BufWriter::new(file),
        })
    }

    fn line(&mut self, line: &Line) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.file.write_all(b"\n")
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }

    /// A name that somebody took meanwhile is not taken away.
    fn name(&self, out: &Path) -> Result<(), Failure> {
        std::fs::hard_link(&self.path, out).map_err(|error| Failure::new_file(out, error))
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        // What is left of it is as private as the key.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Reads what [`disclose`] wrote.
pub(super) fn read(path: &Path) -> Result<BTreeMap<u64, EntryKey>, Failure> {
    let bytes = read_at_most(path, MAX_DISCLOSED)?;
    keys_in(&bytes).ok_or_else(|| {
        Failure::Usage(format!(
            "{} is not a file that `hubctl ledger disclose` wrote",
            path.display()
        ))
    })
}

/// The keys by sequence; `None` if a line is anything else.
pub(crate) fn keys_in(bytes: &[u8]) -> Option<BTreeMap<u64, EntryKey>> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let read = lines.map(|line| {
        let line: Line = serde_json::from_slice(line).ok()?;
        let key = HEXLOWER.decode(line.key.as_bytes()).ok()?;
        Some((line.sequence, EntryKey(key.try_into().ok()?)))
    });
    read.collect()
}
