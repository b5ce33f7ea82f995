//! `hubctl ledger`: on the hub's own folder or on copied files.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use hub_protocol::cose::ObjectType;
use hub_protocol::{CommittedReceipt, Digest, EntryKey, EntrySeal, KeyChain, Receipt};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::cli::Reading;
use super::closures::{Checking, Tally, wrong};
use super::disclose;
use super::failure::Failure;
use super::output::Output;
use super::policy::{public_key, read_at_most};
use crate::config::{self, Layout};
use crate::data_key;
use crate::ledger::{self, Contents, Fault, Gap, LedgerError, Progress, UNREAD, VerifyReport};

/// The largest receipt file, in bytes: a frame, in base64.
const MAX_RECEIPT: u64 = 24 * 1024;

/// Where the journal and the key to check it with are.
pub(super) struct Place {
    pub(super) ledger: PathBuf,
    pub(super) key: VerifyingKey,
}

/// What a verification found.
#[derive(Serialize)]
struct Verified {
    verified: bool,
    ledger: PathBuf,
    hub_id: Option<String>,
    segments: usize,
    /// How many of them are archives.
    archives: usize,
    /// Archives that are elsewhere; the entries in them were not checked.
    away: Vec<Away>,
    entries: u64,
    last_entry: u64,
    /// SHA-256 over the last entry; to be compared with what is known from
    /// elsewhere.
    last_digest: String,
    /// How many entries of each kind.
    kinds: BTreeMap<&'static str, u64>,
    /// How many entries are encrypted and were not read. Everything else about
    /// them was checked.
    unread: u64,
    broken: Option<BrokenPlace>,
    receipts: Vec<ReceiptFound>,
    /// Closures of days, months and years.
    closures: Tally,
}

/// Entries that are in an archive elsewhere.
#[derive(Serialize)]
struct Away {
    archive: u32,
    first: u64,
    last: u64,
}

/// The first place that does not verify.
#[derive(Serialize)]
struct BrokenPlace {
    file: String,
    offset: u64,
    sequence: u64,
    fault: String,
}

#[derive(Serialize)]
struct ReceiptFound {
    file: PathBuf,
    sequence: Option<u64>,
    present: bool,
    finding: String,
}

#[derive(Serialize)]
struct Salvaged<'a> {
    out: &'a Path,
    entries: u64,
    signed: u64,
    /// How many of them are encrypted and were not opened.
    unread: u64,
    gaps: Vec<Gap>,
}

pub(super) fn verify(
    output: &Output,
    dir: &Path,
    key: Option<&str>,
    reading: &Reading,
    receipts: &[PathBuf],
) -> Result<(), Failure> {
    let place = place(dir, key)?;
    let opened = Opened::with(reading, dir, &place.ledger)?;
    let mut held = Held::read_all(&place, receipts)?;
    let mut by_sequence: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (number, held) in held.iter().enumerate() {
        if let Some(receipt) = &held.receipt {
            by_sequence.entry(receipt.sequence).or_default().push(number);
        }
    }
    let mut closures = Checking::default();
    let bar = progress(output);
    // One pass for the ledger and all receipts.
    let report = ledger::read_each(
        &place.ledger,
        &place.key,
        opened.contents(),
        &mut |verified| {
            let head = verified.head;
            for number in by_sequence.get(&head.sequence).into_iter().flatten() {
                held[*number].found = Some(head.digest);
            }
            if let Some(entry) = verified.entry {
                closures.take(entry);
            }
        },
        &mut |done| shown_progress(&bar, done),
    )
    .map_err(unreadable)?;
    bar.finish_and_clear();
    let receipts: Vec<ReceiptFound> = held.into_iter().map(|held| held.finding(&report)).collect();
    let torn = report
        .broken
        .as_ref()
        .is_some_and(|broken| matches!(broken.fault, Fault::TornTail { .. }));
    let verified = Verified {
        verified: report.broken.is_none()
            && closures.first_wrong.is_none()
            && receipts.iter().all(|receipt| receipt.present),
        ledger: place.ledger,
        hub_id: report.hub.map(|hub| hub.to_string()),
        segments: report.segments,
        archives: report.archives,
        away: report
            .away
            .iter()
            .map(|away| Away {
                archive: away.number,
                first: away.first,
                last: away.last,
            })
            .collect(),
        entries: report.entries,
        last_entry: report.head.sequence,
        last_digest: report.head.digest.to_string(),
        unread: report.unread(),
        kinds: report.kinds,
        broken: report.broken.map(|broken| BrokenPlace {
            file: broken.file,
            offset: broken.offset,
            sequence: broken.sequence,
            fault: broken.fault.to_string(),
        }),
        receipts,
        closures: closures.tally,
    };
    output.print(&verified, || described(&verified))?;
    match &verified.broken {
        _ if verified.verified => Ok(()),
        Some(broken) => Err(Failure::Unverified(format!(
            "the first entry that does not verify is {} ({}, byte {}: {}){}",
            broken.sequence,
            broken.file,
            broken.offset,
            broken.fault,
            if torn {
                "; a hub that is running writes there: verify a copy, or stop it first"
            } else {
                ""
            }
        ))),
        None if closures.first_wrong.is_some() => Err(wrong(closures.first_wrong.unwrap_or_default())),
        None => Err(Failure::Unverified(
            "the ledger does not hold every receipt: a file is no receipt of this hub, the ledger's end was cut off, it was rewritten, or an archive is elsewhere"
                .to_owned(),
        )),
    }
}

/// Writes what can be read as lines of JSON to a new file.
pub(super) fn salvage(
    output: &Output,
    dir: &Path,
    key: Option<&str>,
    vault_key: Option<&Path>,
    out: &Path,
) -> Result<(), Failure> {
    let place = place(dir, key)?;
    let seal = seal(dir, &place.ledger, vault_key)?;
    let failed = |error: std::io::Error| Failure::new_file(out, error);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(out)
        .map(BufWriter::new)
        .map_err(failed)?;
    let report =
        ledger::salvage(&place.ledger, &place.key, contents(seal.as_ref()), &mut file).map_err(unreadable)?;
    file.flush()
        .and_then(|()| file.get_ref().sync_all())
        .map_err(failed)?;
    let salvaged = Salvaged {
        out,
        entries: report.entries,
        signed: report.signed,
        unread: report.unread,
        gaps: report.gaps,
    };
    output.print(&salvaged, || {
        let mut text = format!(
            "{} entries in {}, {} of them with a good signature\n",
            salvaged.entries,
            out.display(),
            salvaged.signed
        );
        text += &unread(salvaged.unread);
        for gap in &salvaged.gaps {
            let until = gap
                .before_sequence
                .map_or_else(|| "the end".to_owned(), |next| format!("entry {next}"));
            text += &format!(
                "gap between entry {} and {until} ({}, byte {}, {} bytes)\n",
                gap.after_sequence, gap.file, gap.offset, gap.bytes
            );
        }
        text
    })
}

/// What opens entries: keys of single ones, or that of the store, or nothing.
pub(super) struct Opened {
    disclosed: Option<BTreeMap<u64, EntryKey>>,
    seal: Option<EntrySeal>,
}

impl Opened {
    pub(super) fn with(reading: &Reading, dir: &Path, ledger: &Path) -> Result<Self, Failure> {
        let disclosed = reading.disclosed.as_deref().map(disclose::read).transpose()?;
        let seal = match &disclosed {
            Some(_) => None,
            None => seal(dir, ledger, reading.vault_key.as_deref())?,
        };
        Ok(Self { disclosed, seal })
    }

    pub(super) fn contents(&self) -> Contents<'_> {
        self.disclosed
            .as_ref()
            .map_or_else(|| contents(self.seal.as_ref()), Contents::Disclosed)
    }
}

/// `dir` is a hub's folder, or a ledger folder copied from one.
pub(super) fn place(dir: &Path, key: Option<&str>) -> Result<Place, Failure> {
    let layout = Layout::new(dir);
    let key = match key {
        Some(key) => public_key(key)?,
        None if layout.signing_public.is_file() => public_key(&layout.signing_public.display().to_string())?,
        None => {
            return Err(Failure::Usage(format!(
                "{} does not exist; give the hub's public key by --key (`policy rehearse`: by --hub-key)",
                layout.signing_public.display()
            )));
        }
    };
    let ledger = if layout.ledger.is_dir() {
        layout.ledger
    } else {
        dir.to_owned()
    };
    Ok(Place { ledger, key })
}

/// What opens the entries of a ledger: by the vault key that is given, or else
/// by the hub's own, if whoever asks can read that.
pub(super) fn seal(
    dir: &Path,
    ledger: &Path,
    vault_key: Option<&Path>,
) -> Result<Option<EntrySeal>, Failure> {
    let refused = |error: data_key::DataKeyError| Failure::Refused(error.to_string());
    if let Some(path) = vault_key {
        let key = config::read_vault_key(path).map_err(|error| Failure::Usage(error.to_string()))?;
        return match data_key::seal_of_copy(ledger, &[key]) {
            Ok(Some(seal)) => Ok(Some(seal)),
            Ok(None) => Err(Failure::Usage(format!(
                "there is no file {} beside {}: copy it from the hub's folder, or from the ledger's there; the vault key opens nothing without it",
                data_key::DATA_KEY,
                ledger.display()
            ))),
            Err(data_key::DataKeyError::OtherVaultKey { path: wrapped }) => Err(Failure::Refused(format!(
                "{} does not open {}, which is wrapped under another vault key: it is another hub's, or older",
                path.display(),
                wrapped.display()
            ))),
            Err(error) => Err(refused(error)),
        };
    }
    // Nobody asked for it: what verifies without a key does so whatever has
    // become of that.
    let keys = config::vault_keys(&Layout::new(dir));
    Ok(data_key::seal_of_copy(ledger, &keys).ok().flatten())
}

pub(super) fn contents(seal: Option<&EntrySeal>) -> Contents<'_> {
    seal.map_or(Contents::Unread, Contents::Sealed)
}

fn unread(count: u64) -> String {
    match count {
        0 => String::new(),
        _ => format!(
            "what {count} entries say is encrypted and was not read: that takes the hub's vault key (--vault-key, which also says why a key is of no use), or keys of single entries\n"
        ),
    }
}

pub(super) fn unreadable(error: LedgerError) -> Failure {
    match error {
        LedgerError::Damaged(broken) => Failure::Unverified(broken.to_string()),
        error => Failure::Refused(error.to_string()),
    }
}

/// A receipt that somebody holds against the ledger.
struct Held {
    file: PathBuf,
    /// `None`: not signed by this hub.
    receipt: Option<Receipt>,
    /// The digest of the entry that stands at its place.
    found: Option<Digest>,
}

impl Held {
    fn read_all(place: &Place, files: &[PathBuf]) -> Result<Vec<Self>, Failure> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        // Once for all: that reads the ledger's newest segment.
        let keys = ledger::signing_keys(&place.ledger, &place.key).map_err(unreadable)?;
        files.iter().map(|file| Self::read(&keys, file)).collect()
    }

    fn read(keys: &KeyChain, file: &Path) -> Result<Self, Failure> {
        let receipt = read_receipt(&read_at_most(file, MAX_RECEIPT)?, keys);
        Ok(Self {
            file: file.to_owned(),
            receipt,
            found: None,
        })
    }

    /// What the verified entries say to it.
    fn finding(self, report: &VerifyReport) -> ReceiptFound {
        let last = report.head.sequence;
        let away = |sequence: u64| {
            let mut away = report.away.iter();
            away.find(|away| (away.first..=away.last).contains(&sequence))
        };
        let sequence = self.receipt.as_ref().map(|receipt| receipt.sequence);
        let present = self
            .receipt
            .as_ref()
            .is_some_and(|receipt| self.found == Some(receipt.entry_digest));
        let finding = match (sequence, self.found) {
            (None, _) => "is not a receipt that this hub signed: give what `pay` prints as `receipt`, in base64 or as bytes"
                .to_owned(),
            (Some(sequence), None) if away(sequence).is_some() => format!(
                "is entry {sequence}, which is in archive {}: bring it here to check",
                away(sequence).map_or(0, |away| away.number)
            ),
            (Some(sequence), None) => {
                format!(
                    "is entry {sequence}, and what verifies ends at {last}: the end was cut off or is damaged"
                )
            }
            (Some(sequence), Some(_)) if present => format!("is entry {sequence}"),
            (Some(sequence), Some(_)) => {
                format!("is entry {sequence}, and another entry stands there: the ledger was rewritten")
            }
        };
        ReceiptFound {
            file: self.file,
            sequence,
            present,
            finding,
        }
    }
}

/// A receipt with its proof as it came over the wire, or that in base64. In
/// wire version 1 it is a signed object of its own.
fn read_receipt(bytes: &[u8], keys: &KeyChain) -> Option<Receipt> {
    let decoded = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| STANDARD.decode(text.trim()).ok());
    let held = decoded.as_deref().unwrap_or(bytes);
    CommittedReceipt::open_by(held, keys).ok().or_else(|| {
        keys.open(held, ObjectType::Receipt, |receipt: &Receipt| receipt.sequence)
            .ok()
    })
}

pub(super) fn progress(output: &Output) -> ProgressBar {
    if !output.watched() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    match ProgressStyle::with_template("{pos} of {len} files [{wide_bar}] {msg} entries") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// Moves it on.
pub(super) fn shown_progress(bar: &ProgressBar, done: Progress) {
    bar.set_length(done.of_segments as u64);
    bar.set_position(done.segments as u64);
    bar.set_message(done.entries.to_string());
}

fn described(report: &Verified) -> String {
    let mut text = format!(
        "{}: {} entries in {} files, {}\n",
        report.ledger.display(),
        report.entries,
        report.segments,
        match &report.broken {
            None => "every signature and link is good",
            Some(_) => "good up to there",
        }
    );
    if let Some(hub) = &report.hub_id {
        text += &format!(
            "hub {hub}\nlast entry {} {}\n",
            report.last_entry, report.last_digest
        );
    }
    for away in &report.away {
        text += &format!(
            "entries {} to {} are in archive {}, which is elsewhere: its manifest is good\n",
            away.first, away.last, away.archive
        );
    }
    text += &unread(report.unread);
    for (kind, count) in report.kinds.iter().filter(|(kind, _)| **kind != UNREAD) {
        text += &format!("  {count:>9} {kind}\n");
    }
    text += &report.closures.told();
    for receipt in &report.receipts {
        text += &format!("receipt {} {}\n", receipt.file.display(), receipt.finding);
    }
    text
}
