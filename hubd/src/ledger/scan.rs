//! Walking a segment commit by commit.

use ed25519_dalek::VerifyingKey;
use hub_protocol::cose::{self, CoseError, ObjectType, Unverified};
use hub_protocol::{Digest, Entry, HubId, KeyChain, LedgerCommit, ProofError, cbor};
use sha2::{Digest as _, Sha256};

use super::error::{Broken, Fault, Head};
use super::segment::{Footer, HEADER_LEN, Header, Mark, Record, SIGNED_ENTRIES, peek, record};
use super::tail::{self, Tail};

/// Every how many entries an offset is kept in memory: a million entries
/// cost 125 KB.
pub(crate) const STRIDE: u64 = 32;

/// What must be true of a segment before its entries are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect<'a> {
    pub(crate) file: &'a str,
    pub(crate) number: u32,
    pub(crate) hub: Option<HubId>,
    /// The last entry before this segment.
    pub(crate) before: Head,
    pub(crate) keys: &'a KeyChain,
}

impl Expect<'_> {
    pub(crate) fn broken(&self, offset: usize, sequence: u64, fault: Fault) -> Broken {
        Broken {
            file: self.file.to_owned(),
            offset: offset as u64,
            sequence,
            fault,
        }
    }

    /// The segment's header, if it is the one that belongs here.
    pub(crate) fn header(&self, bytes: &[u8]) -> Result<Header, Broken> {
        let sequence = self.before.sequence + 1;
        let fail = |fault| self.broken(0, sequence, fault);
        let header = Header::decode(bytes).map_err(fail)?;
        if header.number != self.number {
            let found = header.number;
            return Err(fail(Fault::WrongSegment { found }));
        }
        if self.hub.is_some_and(|hub| hub != header.hub) {
            let found = header.hub;
            return Err(fail(Fault::OtherHub { found }));
        }
        if header.first != sequence {
            let found = header.first;
            return Err(fail(Fault::Sequence {
                expected: sequence,
                found,
            }));
        }
        if header.previous != self.before.digest {
            return Err(fail(Fault::Chain));
        }
        Ok(header)
    }
}

/// Whose signatures a scan checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signatures {
    /// None but the footer's.
    Skip,
    /// Those that the entry of this sequence rests on.
    Of(u64),
    /// All.
    All,
}

impl Signatures {
    fn wanted(self, first: u64, last: u64) -> bool {
        match self {
            Self::Skip => false,
            Self::Of(sequence) => (first..=last).contains(&sequence),
            Self::All => true,
        }
    }
}

/// An entry as it stands in the file. Its chain has been checked, and its
/// signature as far as that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) head: Head,
}

/// What a segment holds.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) header: Header,
    /// The end of the last whole commit, or of the footer.
    pub(crate) end: usize,
    pub(crate) head: Head,
    pub(crate) count: u64,
    /// Offsets of every [`STRIDE`]th entry.
    pub(crate) offsets: Vec<u32>,
    /// Where an incomplete last write ends; it begins at `end`.
    pub(crate) torn_to: Option<usize>,
    pub(crate) closed: bool,
}

/// The records since the last commit.
#[derive(Debug, Default)]
struct Group<'a> {
    entries: Vec<(usize, &'a [u8])>,
    statement: Option<(usize, &'a [u8])>,
}

/// Walks a whole segment file: header, commits, footer, and what follows.
/// Checks every checksum and the chain, that each commit says what it ends,
/// and the footer's signature; other signatures as `signatures` has it.
/// `visit` hears of each entry once its whole group is good.
///
/// A torn tail is reported, never an error: the caller knows whether the
/// segment is the last. Everything else that is not as it was written is.
pub(crate) fn scan(
    bytes: &[u8],
    expect: Expect<'_>,
    signatures: Signatures,
    visit: &mut dyn FnMut(Seen<'_>) -> Result<(), Fault>,
) -> Result<Scan, Broken> {
    let header = expect.header(bytes)?;
    let mut scan = Scan {
        header,
        end: HEADER_LEN,
        head: expect.before,
        count: 0,
        offsets: Vec::new(),
        torn_to: None,
        closed: false,
    };
    let written = written_len(bytes);
    let mut group = Group::default();
    let mut at = HEADER_LEN;
    while at < written {
        let sequence = scan.head.sequence + 1 + group.entries.len() as u64;
        match record(bytes, at) {
            Some((Record::Entry(entry), next)) if group.statement.is_none() => {
                group.entries.push((at, entry));
                at = next;
            }
            Some((Record::Statement(signed), next))
                if group.statement.is_none()
                    && !group.entries.is_empty()
                    && header.format > SIGNED_ENTRIES =>
            {
                group.statement = Some((at, signed));
                at = next;
            }
            Some((Record::Mark(mark), next)) => {
                let right = Mark {
                    group_offset: scan.end as u32,
                    group_len: (at - scan.end) as u32,
                    count: group.entries.len() as u32,
                    group_crc: crc32c::crc32c(&bytes[scan.end..at]),
                    last: sequence - 1,
                };
                let stated = group.statement.is_some() || header.format == SIGNED_ENTRIES;
                if mark != right || group.entries.is_empty() || !stated {
                    return Err(expect.broken(at, sequence, Fault::Mark));
                }
                take(&mut scan, &group, expect, signatures, visit)?;
                group = Group::default();
                scan.end = next;
                at = next;
            }
            Some((Record::Footer(signed), next)) if group.entries.is_empty() => {
                check_footer(&scan, &bytes[..at], signed, expect.keys.at(sequence))
                    .map_err(|fault| expect.broken(at, sequence, fault))?;
                if next < written {
                    return Err(expect.broken(next, sequence, Fault::Stray));
                }
                scan.closed = true;
                scan.end = next;
                return Ok(scan);
            }
            // A whole record where none of its kind is ever written.
            Some(_) => return Err(expect.broken(at, sequence, Fault::Mark)),
            None => break,
        }
    }
    if scan.end < written {
        let sequence = scan.head.sequence + 1 + group.entries.len() as u64;
        let place = tail::Place {
            committed: scan.end,
            bad: at,
            count: group.entries.len() as u32,
            last: sequence - 1,
        };
        match tail::classify(bytes, written, place) {
            Tail::Torn => scan.torn_to = Some(written),
            Tail::Damaged(fault) => return Err(expect.broken(at, sequence, fault)),
        }
    }
    Ok(scan)
}

/// Where the zeros begin that end the file.
pub(crate) fn written_len(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1)
}

/// Checks a whole group, and only then lets it be seen.
fn take(
    scan: &mut Scan,
    group: &Group<'_>,
    expect: Expect<'_>,
    signatures: Signatures,
    visit: &mut dyn FnMut(Seen<'_>) -> Result<(), Fault>,
) -> Result<(), Broken> {
    let first = scan.head.sequence + 1;
    let mut head = scan.head;
    let mut seen = Vec::with_capacity(group.entries.len());
    for (offset, body) in &group.entries {
        let fail = |fault| expect.broken(*offset, head.sequence + 1, fault);
        let sequence = head.sequence + 1;
        let payload = if scan.header.format == SIGNED_ENTRIES {
            let key = signatures
                .wanted(sequence, sequence)
                .then(|| expect.keys.at(sequence));
            signed_entry(body, key).map_err(fail)?
        } else {
            body
        };
        head = follow(head, payload).map_err(fail)?;
        seen.push((*offset, Seen { payload, head }));
    }
    if let Some((offset, signed)) = group.statement {
        // A group with a change of the key ends with it, and the old key signs.
        let key = signatures
            .wanted(first, head.sequence)
            .then(|| expect.keys.at(head.sequence));
        statement(signed, key)
            .and_then(|commit| {
                let right = commit.hub == scan.header.hub
                    && commit.first == first
                    && (commit.last, commit.last_digest) == (head.sequence, head.digest);
                right.then_some(()).ok_or(Fault::Statement)
            })
            .map_err(|fault| expect.broken(offset, first, fault))?;
    }
    for (offset, seen) in seen {
        visit(seen).map_err(|fault| expect.broken(offset, seen.head.sequence, fault))?;
        if scan.count.is_multiple_of(STRIDE) {
            scan.offsets.push(offset as u32);
        }
        scan.count += 1;
        scan.head = seen.head;
    }
    Ok(())
}

/// The payload of an entry of format 1; its signature is checked if there is
/// a key.
pub(crate) fn signed_entry<'a>(signed: &'a [u8], key: Option<&VerifyingKey>) -> Result<&'a [u8], Fault> {
    if let Some(key) = key {
        cose::verify(signed, ObjectType::LedgerEntry, key).map_err(Fault::Signature)?;
    }
    Unverified::payload_of(signed).map_err(Fault::Signature)
}

/// What a signed commit says; its signature is checked if there is a key.
pub(crate) fn statement(signed: &[u8], key: Option<&VerifyingKey>) -> Result<LedgerCommit, Fault> {
    let decoded = match key {
        Some(key) => LedgerCommit::open(signed, key),
        None => Unverified::payload_of(signed)
            .map_err(ProofError::from)
            .and_then(|payload| Ok(cbor::decode(payload)?)),
    };
    decoded.map_err(|error| match error {
        ProofError::Commit(error) => Fault::Signature(error),
        // Signed, and yet no commit.
        _ => Fault::Signature(CoseError::Malformed),
    })
}

/// The head after an entry, if the entry follows the one before.
pub(crate) fn follow(before: Head, payload: &[u8]) -> Result<Head, Fault> {
    let (sequence, previous) =
        peek(payload).ok_or_else(|| Fault::Entry("it has no sequence and no chain".into()))?;
    let expected = before.sequence + 1;
    if sequence != expected {
        return Err(Fault::Sequence {
            expected,
            found: sequence,
        });
    }
    if previous != before.digest {
        return Err(Fault::Chain);
    }
    Ok(Head {
        sequence,
        digest: Entry::digest(payload),
    })
}

fn check_footer(scan: &Scan, before: &[u8], signed: &[u8], key: &VerifyingKey) -> Result<(), Fault> {
    let footer = Footer::verify(signed, key)?;
    let right = Footer {
        first: scan.header.first,
        last: scan.head.sequence,
        last_digest: scan.head.digest,
        count: scan.count,
        file_digest: Digest(Sha256::digest(before).into()),
    };
    if footer == right {
        Ok(())
    } else {
        Err(Fault::Footer)
    }
}
