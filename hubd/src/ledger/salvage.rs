//! Reading what can be read out of a damaged ledger.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use hub_protocol::{Digest, Entry, Event, KeyChain, StoredPayload, cbor};
use serde::Serialize;

use super::archive;
use super::contents::{Contents, UNREAD};
use super::disk::{self, Numbered};
use super::error::{Head, LedgerError};
use super::journal::{EXTENSION, file_name};
use super::scan::{signed_entry, statement, written_len};
use super::segment::{HEADER_LEN, Header, Record, Word, peek, record};
use super::signing_keys;

/// Entries that are not there, or bytes that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The file in which it showed.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes were passed over; 0 when entries are missing without a
    /// trace.
    pub bytes: u64,
    /// The last entry before it, 0 for none.
    pub after_sequence: u64,
    /// The first entry behind it, if there is one.
    pub before_sequence: Option<u64>,
}

/// What a salvage found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SalvageReport {
    /// Entries written out.
    pub entries: u64,
    /// Those of them that a good signature covers.
    pub signed: u64,
    /// Those of them whose contents are encrypted and were not opened.
    pub unread: u64,
    /// What is missing, in order.
    pub gaps: Vec<Gap>,
}

/// One line of a salvage.
#[derive(Serialize)]
struct Line {
    sequence: u64,
    event: &'static str,
    payment_id: Option<String>,
    wall_ms: u64,
    previous: String,
    digest: String,
    /// Whether a signature of the hub covers the entry: its own, or that of
    /// its group's commit, over the chain from the commit back to here.
    signature_verifies: bool,
    file: String,
    offset: u64,
    /// Base64: the encoded entry; in format 1 the signed one.
    entry: String,
    /// Base64: the event, decrypted, where the entry has it encrypted and it
    /// was opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_opened: Option<String>,
    /// Base64: the signed commit, beside the last entry that stands before it.
    commit: Option<String>,
}

/// Reads every entry that can be read from the archives and segment files in
/// `dir`, in their order, and writes each as a line of JSON to `out`: its facts,
/// whether a signature covers it, and the bytes themselves, so that nothing
/// is lost in translation. Past a damaged place it goes on at the next whole
/// record. The files are only read.
///
/// # Errors
/// The system's refusal to read or write, or a folder without a ledger.
pub fn salvage(
    dir: &Path,
    key: &VerifyingKey,
    contents: Contents<'_>,
    out: &mut dyn Write,
) -> Result<SalvageReport, LedgerError> {
    let files = Numbered::list(dir, EXTENSION)?.files;
    if files.is_empty() {
        return Err(LedgerError::Missing { path: dir.into() });
    }
    let keys = &signing_keys::signing_keys(dir, key)?;
    let mut salvage = Salvage {
        keys,
        contents,
        out,
        report: SalvageReport::default(),
        last: 0,
        uncommitted: Vec::new(),
    };
    let archives = dir.join(archive::FOLDER);
    let packed = match archives.is_dir() {
        true => Numbered::list(&archives, archive::PACKED)?.files,
        false => Vec::new(),
    };
    for (number, path) in &packed {
        // The segment itself may still be there.
        if files.iter().all(|(plain, _)| plain != number) {
            let bytes = archive::unpacked_as_far_as_it_goes(path)?;
            salvage
                .file(&file_name(path), &bytes)
                .map_err(LedgerError::io("write what was salvaged from", path))?;
        }
    }
    for (_, path) in &files {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        let bytes = disk::read_whole(&file, path)?;
        salvage
            .file(&file_name(path), &bytes)
            .map_err(LedgerError::io("write what was salvaged from", path))?;
    }
    Ok(salvage.report)
}

struct Salvage<'a> {
    keys: &'a KeyChain,
    contents: Contents<'a>,
    out: &'a mut dyn Write,
    report: SalvageReport,
    /// The last entry read.
    last: u64,
    /// Entries whose commit has not been seen yet.
    uncommitted: Vec<(Head, Digest, Line)>,
}

impl Salvage<'_> {
    fn file(&mut self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        let written = written_len(bytes);
        let mut at = if Header::decode(bytes).is_ok() {
            HEADER_LEN
        } else {
            0
        };
        let mut lost_from = (at == 0).then_some(0);
        while at < written {
            let Some((found, next)) = plausible(bytes, at) else {
                lost_from = lost_from.or(Some(at));
                at += 1;
                continue;
            };
            let entry = match found {
                Record::Entry(body) => self.entry(name, at, body),
                Record::Statement(_) | Record::Mark(_) | Record::Footer(_) => None,
            };
            let sequence = entry.as_ref().map(|(head, ..)| head.sequence);
            let missing = sequence.is_some_and(|s| s.checked_sub(1) != Some(self.last));
            if missing || lost_from.is_some() {
                self.report.gaps.push(Gap {
                    file: name.to_owned(),
                    offset: lost_from.unwrap_or(at) as u64,
                    bytes: lost_from.map_or(0, |from| (at - from) as u64),
                    after_sequence: self.last,
                    before_sequence: sequence,
                });
                lost_from = None;
            }
            if let Some(entry) = entry {
                self.last = entry.0.sequence;
                self.uncommitted.push(entry);
            }
            if let Record::Statement(signed) = found {
                self.commit(signed);
            }
            if !matches!(found, Record::Entry(_)) || self.uncommitted.len() >= MOST_UNCOMMITTED {
                self.write()?;
            }
            at = next;
        }
        if let Some(from) = lost_from {
            self.report.gaps.push(Gap {
                file: name.to_owned(),
                offset: from as u64,
                bytes: (written - from) as u64,
                after_sequence: self.last,
                before_sequence: None,
            });
        }
        self.write()
    }

    /// An entry of either format; which one shows in its first byte.
    fn entry(&self, name: &str, at: usize, body: &[u8]) -> Option<(Head, Digest, Line)> {
        let signed = body.starts_with(&SIGNED_ENTRY);
        let payload = if signed {
            signed_entry(body, None).ok()?
        } else {
            body
        };
        let stored = StoredPayload::decode(payload).ok()?;
        let (sequence, previous) = peek(payload)?;
        // One that does not open is written out all the same, unread.
        let entry = self.contents.read(payload).ok().flatten();
        let event = entry.as_ref().map(|entry| &entry.event);
        let sealed = matches!(stored, StoredPayload::Sealed(_));
        let head = Head {
            sequence,
            digest: Entry::digest(payload),
        };
        let line = Line {
            sequence,
            event: event.map_or(UNREAD, Event::name),
            payment_id: event.and_then(Event::payment_id).map(|id| id.to_string()),
            wall_ms: stored.time().wall_ms,
            previous: previous.to_string(),
            digest: head.digest.to_string(),
            signature_verifies: signed && signed_entry(body, Some(self.keys.at(sequence))).is_ok(),
            file: name.to_owned(),
            offset: at as u64,
            entry: STANDARD.encode(body),
            event_opened: event
                .filter(|_| sealed)
                .map(|event| STANDARD.encode(cbor::encode(event))),
            commit: None,
        };
        Some((head, previous, line))
    }

    /// A commit covers the entries before it as far back as their chain
    /// holds.
    fn commit(&mut self, signed: &[u8]) {
        if let Some((_, _, line)) = self.uncommitted.last_mut() {
            line.commit = Some(STANDARD.encode(signed));
        }
        let signer = statement(signed, None).map(|claimed| self.keys.at(claimed.last));
        let Ok(commit) = signer.and_then(|key| statement(signed, Some(key))) else {
            return;
        };
        let mut covered = Head {
            sequence: commit.last,
            digest: commit.last_digest,
        };
        for (head, previous, line) in self.uncommitted.iter_mut().rev() {
            if *head != covered {
                break;
            }
            line.signature_verifies = true;
            covered = Head {
                sequence: head.sequence.saturating_sub(1),
                digest: *previous,
            };
        }
    }

    fn write(&mut self) -> std::io::Result<()> {
        for (_, _, line) in self.uncommitted.drain(..) {
            serde_json::to_writer(&mut *self.out, &line)?;
            self.out.write_all(b"\n")?;
            self.report.entries += 1;
            self.report.signed += u64::from(line.signature_verifies);
            self.report.unread += u64::from(line.event == UNREAD);
        }
        Ok(())
    }
}

/// How entries of format 1 and statements begin: tag 18, an array of four.
const SIGNED_ENTRY: [u8; 2] = [0xd2, 0x84];

/// How entries begin: a map of five, whose first key is 1.
const ENTRY: [u8; 2] = [0xa5, 0x01];

/// Entries that are kept while their commit is looked for; more than a group
/// has.
const MOST_UNCOMMITTED: usize = 4096;

/// A whole record at `at`. What claims to be an entry or a statement must look
/// like one before its checksum is worked out, so that the search from byte to
/// byte stays quick.
fn plausible(bytes: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let body = bytes.get(at + 8..at + 10)?;
    let looks_right = match Word::at(bytes, at) {
        Word::Entry(_) => body == SIGNED_ENTRY || body == ENTRY,
        Word::Statement(_) => body == SIGNED_ENTRY,
        _ => true,
    };
    looks_right.then(|| record(bytes, at)).flatten()
}
