//! Walking a segment commit by commit.

use ed25519_dalek::VerifyingKey;
use hub_protocol::cose::{self, ObjectType, Unverified};
use hub_protocol::{Digest, Entry, HubId};
use sha2::{Digest as _, Sha256};

use super::error::{Broken, Fault, Head};
use super::segment::{Footer, HEADER_LEN, Header, Mark, Record, peek, record};
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
    pub(crate) key: &'a VerifyingKey,
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

/// An entry as it stands in the file; its chain has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) signed: &'a [u8],
    pub(crate) payload: &'a [u8],
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

/// Walks a whole segment file: header, commits, footer, and what follows.
/// Checks every checksum and the chain, and the footer's signature; entries'
/// signatures are `visit`'s affair.
///
/// A torn tail is reported, never an error: the caller knows whether the
/// segment is the last. Everything else that is not as it was written is.
pub(crate) fn scan(
    bytes: &[u8],
    expect: Expect<'_>,
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
    let mut group: Vec<(usize, &[u8])> = Vec::new();
    let mut at = HEADER_LEN;
    while at < written {
        let sequence = scan.head.sequence + 1 + group.len() as u64;
        match record(bytes, at) {
            Some((Record::Entry(signed), next)) => {
                group.push((at, signed));
                at = next;
            }
            Some((Record::Mark(mark), next)) => {
                let right = Mark {
                    group_offset: scan.end as u32,
                    group_len: (at - scan.end) as u32,
                    count: group.len() as u32,
                    group_crc: crc32c::crc32c(&bytes[scan.end..at]),
                    last: sequence - 1,
                };
                if mark != right || group.is_empty() {
                    return Err(expect.broken(at, sequence, Fault::Mark));
                }
                for (offset, signed) in group.drain(..) {
                    take(&mut scan, offset, signed, visit)
                        .map_err(|fault| expect.broken(offset, scan.head.sequence + 1, fault))?;
                }
                scan.end = next;
                at = next;
            }
            Some((Record::Footer(signed), next)) if group.is_empty() => {
                check_footer(&scan, &bytes[..at], signed, expect.key)
                    .map_err(|fault| expect.broken(at, sequence, fault))?;
                if next < written {
                    return Err(expect.broken(next, sequence, Fault::Stray));
                }
                scan.closed = true;
                scan.end = next;
                return Ok(scan);
            }
            Some((Record::Footer(_), _)) => return Err(expect.broken(at, sequence, Fault::Mark)),
            None => break,
        }
    }
    if scan.end < written {
        let sequence = scan.head.sequence + 1 + group.len() as u64;
        let place = tail::Place {
            committed: scan.end,
            bad: at,
            count: group.len() as u32,
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

fn take(
    scan: &mut Scan,
    offset: usize,
    signed: &[u8],
    visit: &mut dyn FnMut(Seen<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let object = Unverified::parse(signed).map_err(Fault::Signature)?;
    let payload = object.payload_unverified();
    let (sequence, previous) =
        peek(payload).ok_or_else(|| Fault::Entry("it has no sequence and no chain".into()))?;
    let expected = scan.head.sequence + 1;
    if sequence != expected {
        return Err(Fault::Sequence {
            expected,
            found: sequence,
        });
    }
    if previous != scan.head.digest {
        return Err(Fault::Chain);
    }
    visit(Seen { signed, payload })?;
    if scan.count.is_multiple_of(STRIDE) {
        scan.offsets.push(offset as u32);
    }
    scan.count += 1;
    scan.head = Head {
        sequence,
        digest: Entry::digest(payload),
    };
    Ok(())
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

/// Checks an entry's signature alone.
pub(crate) fn check_signature(signed: &[u8], key: &VerifyingKey) -> Result<(), Fault> {
    cose::verify(signed, ObjectType::LedgerEntry, key)
        .map(|_| ())
        .map_err(Fault::Signature)
}
