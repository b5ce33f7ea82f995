//! `hubctl ledger disclose`: the keys of single entries, for somebody who has
//! a copy of the ledger and is to read these entries and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use hub_protocol::{EntryKey, EntrySeal, PaymentId, StoredPayload};
use serde::{Deserialize, Serialize};

use super::cli::DiscloseArgs;
use super::failure::Failure;
use super::ledger::{Place, contents, place, progress, seal, shown_progress, unreadable};
use super::output::Output;
use super::policy::read_at_most;
use super::trace::{Connect, Trace};
use crate::admin::protocol::Request;
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
    /// The hub writes it down at its next start.
    noted: bool,
}

/// What is to be disclosed.
struct Wanted {
    place: Place,
    seal: EntrySeal,
    range: RangeInclusive<u64>,
    /// Of these payments only; empty: of all kinds.
    payments: BTreeSet<PaymentId>,
}

impl Wanted {
    /// Verifies the ledger and gives the keys of these entries, up to one.
    fn each(
        &self,
        output: &Output,
        through: u64,
        give: &mut dyn FnMut(u64, EntryKey),
    ) -> Result<(), Failure> {
        let bar = progress(output);
        let report = ledger::read_each(
            &self.place.ledger,
            &self.place.key,
            contents(Some(&self.seal)),
            &mut |verified| {
                let about = verified.entry.and_then(|entry| entry.event.payment_id());
                let sequence = verified.head.sequence;
                let wanted = sequence <= through
                    && self.range.contains(&sequence)
                    && (self.payments.is_empty() || about.is_some_and(|id| self.payments.contains(&id)));
                let key = match StoredPayload::decode(verified.payload) {
                    Ok(StoredPayload::Sealed(sealed)) if wanted => self.seal.disclose(&sealed),
                    _ => None,
                };
                if let Some(key) = key {
                    give(sequence, key);
                }
            },
            &mut |done| shown_progress(&bar, done),
        )
        .map_err(unreadable)?;
        bar.finish_and_clear();
        // A hub that is running writes at the end; what is whole before it counts.
        match report.broken {
            Some(broken) if !matches!(broken.fault, Fault::TornTail { .. }) => {
                Err(Failure::Unverified(broken.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// `connect`: to the hub of this folder, if one is running; it writes down that
/// this was done. Without one that is noted for its next start.
pub(super) fn disclose(
    output: &Output,
    dir: &Path,
    order: &DiscloseArgs,
    connect: Connect<'_>,
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
    let wanted = Wanted {
        place,
        seal,
        range: order.from.unwrap_or(1)..=order.to.unwrap_or(u64::MAX),
        payments,
    };
    let mut unnamed = Unnamed::create(&order.out)?;
    // Once to know what it is, and again when that is written down: until then
    // no key is in any file.
    let (mut first, mut last, mut entries) = (None, 0, 0);
    wanted.each(output, u64::MAX, &mut |sequence, _| {
        first.get_or_insert(sequence);
        (last, entries) = (sequence, entries + 1);
    })?;
    let Some(first) = first else {
        return Err(Failure::Refused(
            "no encrypted entry is among those: `hubctl ledger verify` says how many there are".to_owned(),
        ));
    };
    let which = hub_core::Disclosed {
        entries,
        first,
        last,
        payments: wanted.payments.iter().copied().collect(),
    };
    let asked = Request::Disclosed {
        entries,
        first,
        last,
        payments: order.payment.clone(),
    };
    let trace = Trace::of(dir, &wanted.place, connect)?;
    trace.record(&asked, &which.action())?;
    let mut written = Ok(());
    wanted.each(output, last, &mut |sequence, key| {
        if written.is_ok() {
            let key = HEXLOWER.encode(&key.0);
            written = unnamed.line(&Line { sequence, key });
        }
    })?;
    written
        .and_then(|()| unnamed.flush())
        .map_err(|error| Failure::file(&order.out, "write", error))?;
    unnamed.name(&order.out)?;
    let disclosed = Disclosed {
        out: &order.out,
        entries,
        recorded: matches!(trace, Trace::Hub(_)),
        noted: matches!(trace, Trace::Note(..)),
    };
    output.print(&disclosed, || {
        format!(
            "the keys of {entries} entries are in {}: whoever has them and a copy of the ledger reads these entries (`hubctl ledger verify --disclosed`), and no other\n{}\n",
            order.out.display(),
            trace.said()
        )
    })
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
