//! Closed segments, read from their two ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use hub_protocol::cose::Unverified;
use hub_protocol::{KeyChain, cbor};

use super::error::{Fault, LedgerError};
use super::scan::Expect;
use super::segment::{
    FOOTER_RESERVE, Footer, HEAD_LEN, HEADER_LEN, Header, SEAL_LEN, Word, footer_head, seal_at,
};

/// Header and footer of a closed segment.
pub(crate) struct Closed {
    pub(crate) header: Header,
    pub(crate) footer: Footer,
    /// Where the footer begins.
    pub(crate) footer_at: u64,
}

/// A segment is closed when the next entry is about to be written, by the key
/// that will sign for that one.
fn footer(signed: &[u8], keys: &KeyChain) -> Result<Footer, Fault> {
    let claimed = Unverified::payload_of(signed).map_err(Fault::Signature)?;
    let claimed: Footer = cbor::decode(claimed).map_err(|_| Fault::Footer)?;
    Footer::verify(signed, keys.at(claimed.last.saturating_add(1)))
}

/// Checks a closed segment by header, footer and footer's signature, without
/// reading what is between.
pub(crate) fn read_closed(file: &File, path: &Path, expect: Expect<'_>) -> Result<Closed, LedgerError> {
    let len = file.metadata().map_err(LedgerError::io("examine", path))?.len();
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at)
            .map(|()| bytes)
            .map_err(LedgerError::io("read", path))
    };
    let start = super::disk::read_start(file, path, HEADER_LEN)?;
    let header = expect
        .header(&start)
        .map_err(|b| LedgerError::of_broken(path, b))?;
    let tail_len = usize::try_from(len).unwrap_or(FOOTER_RESERVE).min(FOOTER_RESERVE);
    let tail = read(len - tail_len as u64, tail_len)?;
    let near_end = usize::try_from(len)
        .unwrap_or(usize::MAX)
        .saturating_sub(SEAL_LEN);
    let fail = |fault| LedgerError::Damaged(expect.broken(near_end, header.first, fault));
    let footer_at = tail_len
        .checked_sub(SEAL_LEN)
        .and_then(|at| seal_at(&tail, at))
        .and_then(|offset| u64::from(offset).checked_sub(len - tail_len as u64))
        .and_then(|at| usize::try_from(at).ok())
        .ok_or_else(|| fail(Fault::MissingFooter))?;
    // The seal names the footer's place in the file, this is its place in the
    // tail that was read: so the record is taken apart here.
    let Word::Footer(body_len) = Word::at(&tail, footer_at) else {
        return Err(fail(Fault::Footer));
    };
    let signed = tail
        .get(footer_at + HEAD_LEN..footer_at + HEAD_LEN + body_len)
        .filter(|_| footer_at + HEAD_LEN + body_len + SEAL_LEN == tail_len)
        .ok_or_else(|| fail(Fault::Footer))?;
    if !tail[footer_at..].starts_with(&footer_head(signed)) {
        return Err(fail(Fault::Footer));
    }
    let footer = footer(signed, expect.keys).map_err(fail)?;
    let counted = footer.last.checked_sub(header.first).map(|n| n + 1);
    if footer.first != header.first || counted != Some(footer.count) {
        return Err(fail(Fault::Footer));
    }
    Ok(Closed {
        header,
        footer,
        footer_at: len - tail_len as u64 + footer_at as u64,
    })
}
