//! Reading what can be read out of a damaged ledger.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use hub_protocol::cose::Unverified;
use hub_protocol::{Entry, cbor};
use serde::Serialize;

use super::disk::{self, Numbered};
use super::error::LedgerError;
use super::journal::{EXTENSION, file_name};
use super::scan::{check_signature, written_len};
use super::segment::{HEADER_LEN, Header, Record, record};

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
    /// Those of them whose signature verifies.
    pub signed: u64,
    /// What is missing, in order.
    pub gaps: Vec<Gap>,
}

/// One line of a salvage.
#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    event: &'a str,
    payment_id: Option<String>,
    wall_ms: u64,
    previous: String,
    digest: String,
    signature_verifies: bool,
    file: &'a str,
    offset: u64,
    entry: String,
}

/// Reads every entry that can be read from the segment files in `dir`, in
/// the files' order, and writes each as a line of JSON to `out`: its facts,
/// whether its signature verifies, and the signed bytes (`entry`, base64), so
/// that nothing is lost in translation. Past a damaged place it goes on at
/// the next whole record. The files are only read.
///
/// # Errors
/// The system's refusal to read or write, or a folder without a ledger.
pub fn salvage(dir: &Path, key: &VerifyingKey, out: &mut dyn Write) -> Result<SalvageReport, LedgerError> {
    let files = Numbered::list(dir, EXTENSION)?.files;
    if files.is_empty() {
        return Err(LedgerError::Missing { path: dir.into() });
    }
    let mut report = SalvageReport::default();
    let mut last = 0;
    for (_, path) in &files {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        let bytes = disk::read_whole(&file, path)?;
        let written = written_len(&bytes);
        let name = file_name(path);
        let mut at = if Header::decode(&bytes).is_ok() {
            HEADER_LEN
        } else {
            0
        };
        let mut lost_from = (at == 0).then_some(0);
        while at < written {
            let Some((found, next)) = plausible(&bytes, at) else {
                lost_from = lost_from.or(Some(at));
                at += 1;
                continue;
            };
            let entry = match found {
                Record::Entry(signed) => Some((signed, read_entry(signed))),
                Record::Mark(_) | Record::Footer(_) => None,
            };
            let sequence = entry.as_ref().and_then(|(_, e)| e.as_ref()).map(|e| e.0.sequence);
            let missing = sequence.is_some_and(|s| s != last + 1);
            if missing || lost_from.is_some() {
                report.gaps.push(Gap {
                    file: name.clone(),
                    offset: lost_from.unwrap_or(at) as u64,
                    bytes: lost_from.map_or(0, |from| (at - from) as u64),
                    after_sequence: last,
                    before_sequence: sequence,
                });
                lost_from = None;
            }
            if let Some((signed, Some((entry, digest)))) = entry {
                let signature_verifies = check_signature(signed, key).is_ok();
                let line = Line {
                    sequence: entry.sequence,
                    event: entry.event.name(),
                    payment_id: entry.event.payment_id().map(|id| id.to_string()),
                    wall_ms: entry.time.wall_ms,
                    previous: entry.previous.to_string(),
                    digest,
                    signature_verifies,
                    file: &name,
                    offset: at as u64,
                    entry: STANDARD.encode(signed),
                };
                write_line(out, &line).map_err(LedgerError::io("write what was salvaged from", path))?;
                report.entries += 1;
                report.signed += u64::from(signature_verifies);
                last = entry.sequence;
            }
            at = next;
        }
        if let Some(from) = lost_from {
            report.gaps.push(Gap {
                file: name,
                offset: from as u64,
                bytes: (written - from) as u64,
                after_sequence: last,
                before_sequence: None,
            });
        }
    }
    Ok(report)
}

/// A whole record at `at`. What claims to be an entry must look like a
/// COSE_Sign1 before its checksum is worked out, so that the search from byte
/// to byte stays quick.
fn plausible(bytes: &[u8], at: usize) -> Option<(Record<'_>, usize)> {
    let body = bytes.get(at + 8..at + 10)?;
    if let super::segment::Word::Entry(_) = super::segment::Word::at(bytes, at)
        && body != [0xd2, 0x84]
    {
        return None;
    }
    record(bytes, at)
}

fn read_entry(signed: &[u8]) -> Option<(Entry, String)> {
    let object = Unverified::parse(signed).ok()?;
    let payload = object.payload_unverified();
    let entry = cbor::decode(payload).ok()?;
    Some((entry, Entry::digest(payload).to_string()))
}

fn write_line(out: &mut dyn Write, line: &Line<'_>) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")
}
