//! `hubctl ledger disclose`: the keys of single entries, for somebody who has
//! a copy of the ledger and is to read these entries and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use data_encoding::HEXLOWER;
use hub_protocol::{EntryKey, PaymentId, StoredPayload};
use serde::{Deserialize, Serialize};

use super::cli::DiscloseArgs;
use super::client::Client;
use super::failure::Failure;
use super::ledger::{contents, place, progress, seal, unreadable};
use super::output::Output;
use super::policy::read_at_most;
use crate::admin::protocol::{Answer, Request};
use crate::ledger::{self, Fault};

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
}

/// `connect`: to the hub of this folder, which writes down that it was done.
pub(super) fn disclose(
    output: &Output,
    dir: &Path,
    order: &DiscloseArgs,
    connect: impl FnOnce() -> Result<Client, Failure>,
) -> Result<(), Failure> {
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
    let failed = |error: std::io::Error| Failure::file(&order.out, "write", error);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&order.out)
        .map(BufWriter::new)
        .map_err(failed)?;
    let (mut entries, mut written) = (0, Ok(()));
    let bar = progress(output);
    let report = ledger::read_each(
        &place.ledger,
        &place.key,
        contents(Some(&seal)),
        &mut |verified| {
            let about = verified.entry.and_then(|entry| entry.event.payment_id());
            let wanted = range.contains(&verified.head.sequence)
                && (payments.is_empty() || about.is_some_and(|id| payments.contains(&id)));
            let key = match StoredPayload::decode(verified.payload) {
                Ok(StoredPayload::Sealed(sealed)) if wanted => seal.disclose(&sealed),
                _ => None,
            };
            if let (Some(key), Ok(())) = (key, &written) {
                let line = Line {
                    sequence: verified.head.sequence,
                    key: HEXLOWER.encode(&key.0),
                };
                entries += 1;
                written = serde_json::to_writer(&mut file, &line)
                    .map_err(std::io::Error::from)
                    .and_then(|()| file.write_all(b"\n"));
            }
        },
        &mut |progress| {
            bar.set_length(progress.of_segments as u64);
            bar.set_position(progress.segments as u64);
        },
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
    written
        .and_then(|()| file.flush())
        .and_then(|()| file.get_ref().sync_all())
        .map_err(failed)?;
    let recorded = record(entries, connect).inspect_err(|_| {
        // Nobody has seen it yet. What is left of it is as private as the key.
        let _ = std::fs::remove_file(&order.out);
    })?;
    let disclosed = Disclosed {
        out: &order.out,
        entries,
        recorded,
    };
    output.print(&disclosed, || {
        let recorded = match recorded {
            true => "the hub has written down that this was done",
            false => "no hub is running here: nothing was written down of it",
        };
        format!(
            "the keys of {entries} entries are in {}: whoever has them and a copy of the ledger reads these entries (`hubctl ledger verify --disclosed`), and no other\n{recorded}\n",
            order.out.display()
        )
    })
}

/// Has the hub write it down, if one is running. Gives whether it did.
fn record(entries: u64, connect: impl FnOnce() -> Result<Client, Failure>) -> Result<bool, Failure> {
    let client = match connect() {
        Ok(client) => client,
        // A copy of a ledger, or a hub that is stopped.
        Err(Failure::Unreachable(_) | Failure::Config(_)) => return Ok(false),
        Err(failure) => return Err(failure),
    };
    match client.ask(&Request::Disclosed { entries })? {
        Answer::Done => Ok(true),
        other => Err(Client::unexpected(&other)),
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
