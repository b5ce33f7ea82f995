//! Verifying a ledger's folder with nothing but the hub's public key, the
//! first or any later one: no hub, no index, no secret.
//!
//! What it proves: every entry is covered by a signature of the hub, over
//! itself or over the end of its group, and stands in the one order in which the hub wrote it, without gaps, from the first to the head
//! that the report names. What the files alone cannot show is entries cut off
//! at the end, whole commits with nothing after them: for that the report's
//! head is compared with a receipt ([`contains`]), an index or an earlier
//! report.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use ed25519_dalek::VerifyingKey;
use hub_protocol::{Digest, HubId, KeyChain};

use super::archive::{self, ListedArchive};
use super::contents::{Contents, UNREAD, VerifiedEntry};
use super::disk::{self, Numbered};
use super::error::{Broken, Fault, Head, LedgerError};
use super::journal::{EXTENSION, file_name};
use super::scan::{Expect, Seen, Signatures, scan};
use super::segment::HEADER_LEN;
use super::signing_keys;

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Segments done.
    pub segments: usize,
    /// Segments in all.
    pub of_segments: usize,
    /// Entries verified so far.
    pub entries: u64,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// The hub that the first segment names.
    pub hub: Option<HubId>,
    /// Entries verified: from the first on without a gap, but for archives
    /// that are elsewhere.
    pub entries: u64,
    /// The last entry verified.
    pub head: Head,
    /// Segments verified, archived ones included.
    pub segments: usize,
    /// Archives verified.
    pub archives: usize,
    /// Archives that are elsewhere: their manifests verify, and say where the
    /// entries after them go on.
    pub away: Vec<AwayArchive>,
    /// How many entries of each kind, by the event's name. [`UNREAD`] counts
    /// those whose contents are encrypted and were not read; everything else
    /// about them was verified.
    pub kinds: BTreeMap<&'static str, u64>,
    /// The first place that does not verify. A torn tail counts: it is what a
    /// power cut leaves, but also what is left of a last commit whose sector
    /// was lost later.
    pub broken: Option<Broken>,
}

/// An archive that is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwayArchive {
    /// Its number.
    pub number: u32,
    /// The first entry in it.
    pub first: u64,
    /// The last entry in it.
    pub last: u64,
}

impl VerifyReport {
    /// How many entries are encrypted and were not read.
    pub fn unread(&self) -> u64 {
        self.kinds.get(UNREAD).copied().unwrap_or(0)
    }

    /// Whether everything verified.
    pub fn is_whole(&self) -> bool {
        self.broken.is_none()
    }
}

/// Verifies the ledger in `dir`: every checksum, signature, chain link,
/// commit mark, header and footer. Stops at the first place that does not
/// verify and names it. One segment is in memory at a time.
///
/// Meant for a copy or a stopped hub: a ledger that is written to meanwhile
/// can show an incomplete last write.
///
/// # Errors
/// Only the system's refusal to read, or a folder without a ledger.
pub fn verify(
    dir: &Path,
    key: &VerifyingKey,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, LedgerError> {
    verify_each(dir, key, &mut |_| (), on_progress)
}

/// [`verify()`], and `on_entry` hears of every entry that verified, in order:
/// to hold many receipts against a ledger in one pass.
///
/// # Errors
/// As [`verify()`].
pub fn verify_each(
    dir: &Path,
    key: &VerifyingKey,
    on_entry: &mut dyn FnMut(Head),
    on_progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, LedgerError> {
    let mut on_entry = |verified: VerifiedEntry<'_>| on_entry(verified.head);
    read_each(dir, key, Contents::Unread, &mut on_entry, on_progress)
}

/// [`verify_each()`], and `on_entry` is given the entries themselves, as far as
/// `contents` opens them. With the store's key the totals in manifests are held
/// against the entries too.
///
/// # Errors
/// As [`verify()`].
pub fn read_each(
    dir: &Path,
    key: &VerifyingKey,
    contents: Contents<'_>,
    on_entry: &mut dyn FnMut(VerifiedEntry<'_>),
    on_progress: &mut dyn FnMut(Progress),
) -> Result<VerifyReport, LedgerError> {
    let visit = &mut Visit { contents, on_entry };
    let files = Numbered::list(dir, EXTENSION)?.files;
    let mut report = VerifyReport {
        hub: None,
        entries: 0,
        head: Head::EMPTY,
        segments: 0,
        archives: 0,
        away: Vec::new(),
        kinds: BTreeMap::new(),
        broken: None,
    };
    let keys = &signing_keys::signing_keys(dir, key)?;
    report.hub = keys.hub();
    let (manifests, bad_manifest) = archive::manifests(&dir.join(archive::FOLDER), keys, report.hub)?;
    let archived = manifests.last().map_or(0, |listed| listed.manifest.number);
    let Some(last) = files.last().map(|(number, _)| (*number).max(archived + 1)) else {
        return Err(LedgerError::Missing { path: dir.into() });
    };
    for listed in &manifests {
        let packed = if disk::numbered(dir, listed.manifest.number, EXTENSION).exists() {
            // Both are there, because the power failed in between; the
            // segment comes first, and must be what the manifest says.
            verify_plain(dir, listed.manifest.number, keys, false, &mut report, visit)?
        } else {
            verify_archive(listed, keys, &mut report, visit)?
        };
        report.broken = packed.or_else(|| {
            let manifest = &listed.manifest;
            (report.head != archive::head_of(manifest))
                .then(|| archive::broken(&listed.path, manifest.first, Fault::Manifest))
        });
        if report.broken.is_some() {
            return Ok(report);
        }
        on_progress(progress(&report, last));
    }
    if bad_manifest.is_some() {
        report.broken = bad_manifest;
        return Ok(report);
    }
    for number in archived + 1..=last {
        report.broken = verify_plain(dir, number, keys, number == last, &mut report, visit)?;
        if report.broken.is_some() {
            return Ok(report);
        }
        on_progress(progress(&report, last));
    }
    Ok(report)
}

/// What is done with each entry.
struct Visit<'a> {
    contents: Contents<'a>,
    on_entry: &'a mut dyn FnMut(VerifiedEntry<'_>),
}

impl Visit<'_> {
    fn count(&mut self, report: &mut VerifyReport, verified: VerifiedEntry<'_>) {
        *report.kinds.entry(verified.kind()).or_default() += 1;
        report.entries += 1;
        report.head = verified.head;
        (self.on_entry)(verified);
    }
}

fn progress(report: &VerifyReport, last: u32) -> Progress {
    Progress {
        segments: report.segments + report.away.len(),
        of_segments: last as usize,
        entries: report.entries,
    }
}

/// An archive, or if it is elsewhere, what its manifest says of it.
fn verify_archive(
    listed: &ListedArchive,
    keys: &KeyChain,
    report: &mut VerifyReport,
    visit: &mut Visit<'_>,
) -> Result<Option<Broken>, LedgerError> {
    let manifest = &listed.manifest;
    report.hub = Some(manifest.hub);
    if !listed.packed.exists() {
        report.away.push(AwayArchive {
            number: manifest.number,
            first: manifest.first,
            last: manifest.last,
        });
        report.head = archive::head_of(manifest);
        return Ok(None);
    }
    let checked = archive::check_bytes(&listed.packed, manifest, keys, visit.contents, &mut |verified| {
        visit.count(report, verified);
    });
    match checked {
        Ok(()) => {
            report.segments += 1;
            report.archives += 1;
            Ok(None)
        }
        Err(LedgerError::Damaged(broken)) => Ok(Some(broken)),
        Err(error) => Err(error),
    }
}

fn verify_plain(
    dir: &Path,
    number: u32,
    keys: &KeyChain,
    is_last: bool,
    report: &mut VerifyReport,
    visit: &mut Visit<'_>,
) -> Result<Option<Broken>, LedgerError> {
    let path = disk::numbered(dir, number, EXTENSION);
    let name = file_name(&path);
    let expect = Expect {
        file: &name,
        number,
        hub: report.hub,
        before: report.head,
        keys,
    };
    let bytes = match File::open(&path) {
        Ok(file) => disk::read_whole(&file, &path)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let sequence = report.head.sequence + 1;
            return Ok(Some(expect.broken(0, sequence, Fault::MissingSegment)));
        }
        Err(error) => return Err(LedgerError::io("open", &path)(error)),
    };
    let broken = verify_segment(&bytes, expect, is_last, report, visit).err();
    report.segments += usize::from(broken.is_none());
    Ok(broken)
}

fn verify_segment(
    bytes: &[u8],
    expect: Expect<'_>,
    is_last: bool,
    report: &mut VerifyReport,
    visit: &mut Visit<'_>,
) -> Result<(), Broken> {
    let scan = scan(bytes, expect, Signatures::All, &mut |seen: Seen<'_>| {
        // The scan has checked sequence, chain and signature: here, that the
        // payload is an entry in its one encoding.
        let entry = visit.contents.read(seen.payload)?;
        if let Some(entry) = &entry {
            signing_keys::check(entry, expect.keys)?;
        }
        let verified = VerifiedEntry {
            entry: entry.as_ref(),
            payload: seen.payload,
            head: seen.head,
        };
        visit.count(report, verified);
        Ok(())
    })?;
    report.hub = Some(scan.header.hub);
    let next = scan.head.sequence + 1;
    if let Some(torn_to) = scan.torn_to {
        let bytes = (torn_to - scan.end) as u64;
        return Err(expect.broken(scan.end, next, Fault::TornTail { bytes }));
    }
    if !scan.closed && !is_last {
        return Err(expect.broken(scan.end, next, Fault::MissingFooter));
    }
    Ok(())
}

/// What a receipt says about a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReceiptCheck {
    /// The entry is there, signed, and the one that the receipt names.
    Present,
    /// The ledger ends before the receipt: its tail was cut off.
    CutOff {
        /// The last entry there is.
        last: u64,
    },
    /// Another entry stands at that place: the ledger was rewritten.
    Different {
        /// The digest of the entry that is there.
        found: Digest,
    },
    /// The place cannot be read.
    Unreadable(Broken),
    /// The place is in an archive that is elsewhere.
    Away(AwayArchive),
}

/// Checks a receipt (its `sequence` and `entry_digest`) against the ledger in
/// `dir`. A device's receipt is what shows that a ledger has lost its end.
///
/// Reads only the segment concerned; [`verify()`] holds the rest together.
///
/// # Errors
/// Only the system's refusal to read, or a folder without a ledger.
pub fn contains(
    dir: &Path,
    key: &VerifyingKey,
    sequence: u64,
    digest: Digest,
) -> Result<ReceiptCheck, LedgerError> {
    let files = Numbered::list(dir, EXTENSION)?.files;
    if files.is_empty() {
        return Err(LedgerError::Missing { path: dir.into() });
    }
    let keys = &signing_keys::signing_keys(dir, key)?;
    let mut last = 0;
    // From the end: the first segment whose header does not lie beyond.
    for (number, path) in files.iter().rev() {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        let name = file_name(path);
        let header = match super::segment::Header::decode(&disk::read_start(&file, path, HEADER_LEN)?) {
            Ok(header) => header,
            Err(fault) => {
                return Ok(ReceiptCheck::Unreadable(Broken {
                    file: name,
                    offset: 0,
                    sequence,
                    fault,
                }));
            }
        };
        if header.first > sequence {
            last = last.max(header.first - 1);
            continue;
        }
        last = last.max(header.first.saturating_sub(1));
        let bytes = disk::read_whole(&file, path)?;
        let expect = Expect {
            file: &name,
            number: *number,
            hub: None,
            before: Head {
                sequence: header.first.saturating_sub(1),
                digest: header.previous,
            },
            keys,
        };
        let mut found = None;
        let scanned = scan(&bytes, expect, Signatures::Of(sequence), &mut |seen| {
            last = last.max(seen.head.sequence);
            if seen.head.sequence == sequence {
                found = Some(seen.head.digest);
            }
            Ok(())
        });
        return Ok(match (found, scanned) {
            (Some(found), _) if found == digest => ReceiptCheck::Present,
            (Some(found), _) => ReceiptCheck::Different { found },
            (None, Err(broken)) => ReceiptCheck::Unreadable(broken),
            (None, Ok(scan)) if sequence <= last => {
                // Later segments are there: what held it is not.
                ReceiptCheck::Unreadable(expect.broken(scan.end, sequence, Fault::MissingSegment))
            }
            (None, Ok(_)) => ReceiptCheck::CutOff { last },
        });
    }
    contains_archived(dir, keys, sequence, digest)
}

/// [`contains`], for an entry before all segments.
fn contains_archived(
    dir: &Path,
    keys: &KeyChain,
    sequence: u64,
    digest: Digest,
) -> Result<ReceiptCheck, LedgerError> {
    let (manifests, _) = archive::manifests(&dir.join(archive::FOLDER), keys, None)?;
    let holds = |listed: &&ListedArchive| (listed.manifest.first..=listed.manifest.last).contains(&sequence);
    let Some(listed) = manifests.iter().find(holds) else {
        let last = manifests.last().map_or(0, |listed| listed.manifest.last);
        return Ok(ReceiptCheck::CutOff { last });
    };
    let manifest = &listed.manifest;
    if !listed.packed.exists() {
        return Ok(ReceiptCheck::Away(AwayArchive {
            number: manifest.number,
            first: manifest.first,
            last: manifest.last,
        }));
    }
    let mut found = None;
    let checked = archive::check_bytes(
        &listed.packed,
        manifest,
        keys,
        Contents::Unread,
        &mut |verified| {
            let head = verified.head;
            if head.sequence == sequence {
                found = Some(head.digest);
            }
        },
    );
    match (checked, found) {
        (Err(LedgerError::Damaged(broken)), _) => Ok(ReceiptCheck::Unreadable(broken)),
        (Err(error), _) => Err(error),
        (Ok(()), Some(found)) if found == digest => Ok(ReceiptCheck::Present),
        (Ok(()), Some(found)) => Ok(ReceiptCheck::Different { found }),
        (Ok(()), None) => Ok(ReceiptCheck::CutOff { last: manifest.last }),
    }
}
