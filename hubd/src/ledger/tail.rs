//! Is the end of the last segment a write that a power cut tore, or is it
//! damage? Only the first may be cut.
//!
//! What is known of a torn group:
//!
//! - It is the last: the next group is written only after the flush of this
//!   one has returned. A later commit mark or footer that is whole means that
//!   the bad place was once acknowledged: damage.
//! - It was written into zeros, by one write. A disk writes a sector whole or
//!   not at all, in any order; a write may also have been cut short. So each
//!   piece of the group that lies in one sector is either as written or zero,
//!   or everything from some byte on is zero. A bad place that no zero piece
//!   and no missing end explains was changed, not torn: damage.
//!
//! What is left: a last group that lost a whole sector after it was
//! acknowledged (a disk that lies about flushes, or an overwritten sector)
//! looks exactly like one that was torn. The file alone cannot tell; a
//! device's receipt can, because it names sequence and digest.
//! `hubctl ledger verify` reports every torn tail and never passes over one.

use super::error::Fault;
use super::segment::{HEAD_LEN, MARK_END, MARK_LEN, Mark, Record, SEAL_END, SEAL_LEN, Word, record, seal_at};

/// The smallest piece that disks write whole or not at all, in bytes. Larger
/// sectors are made of these.
const SECTOR: usize = 512;

/// Where the walk through the last segment came to a stop.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The end of the last whole commit.
    pub(crate) committed: usize,
    /// Where the first record is that is not whole.
    pub(crate) bad: usize,
    /// How many whole entries stand between the two.
    pub(crate) count: u32,
    /// The sequence that the last of them would have.
    pub(crate) last: u64,
}

/// What the bytes after the last whole commit are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Torn,
    Damaged(Fault),
}

/// `written` is where the file's last zeros begin; `place.committed` lies
/// before it.
pub(crate) fn classify(bytes: &[u8], written: usize, place: Place) -> Tail {
    let torn = |yes: bool, fault: Fault| if yes { Tail::Torn } else { Tail::Damaged(fault) };
    let bad = place.bad;
    // Where the mark or seal stands that belongs to the bad place.
    let mut own_end = None;
    for at in bad..written {
        if bytes[at..].starts_with(MARK_END)
            && let Some(start) = (at + MARK_END.len()).checked_sub(MARK_LEN)
            && let Some(mark) = Mark::at(bytes, start)
        {
            if mark.group_offset as usize > place.committed {
                return Tail::Damaged(Fault::Checksum);
            }
            own_end = Some(start);
        }
        if bytes[at..].starts_with(SEAL_END)
            && let Some(start) = (at + SEAL_END.len()).checked_sub(SEAL_LEN)
            && let Some(footer) = seal_at(bytes, start).map(|offset| offset as usize)
        {
            let whole =
                matches!(record(bytes, footer), Some((Record::Footer(_), next)) if next == start + SEAL_LEN);
            if footer > place.committed && whole {
                return Tail::Damaged(Fault::Checksum);
            }
            if footer == place.committed {
                own_end = Some(start);
            }
        }
    }
    if bad >= written {
        // Whole entries, and nothing where their mark belongs.
        return Tail::Torn;
    }
    let end = own_end.unwrap_or(written);
    let breaks_off = |next: usize| own_end.is_none() && next > written;
    match Word::at(bytes, bad) {
        Word::Entry(len) | Word::Statement(len) => {
            let next = bad + HEAD_LEN + len;
            let yes = breaks_off(next) || has_zero_piece(bytes, bad, next.min(end));
            torn(yes, Fault::Checksum)
        }
        Word::Mark => {
            let mark = Mark {
                group_offset: place.committed as u32,
                group_len: (bad - place.committed) as u32,
                count: place.count,
                group_crc: crc32c::crc32c(&bytes[place.committed..bad]),
                last: place.last,
            };
            let yes = own_end.is_none() && is_torn_from(bytes, written, bad, &mark.encode());
            torn(yes, Fault::Mark)
        }
        Word::Footer(len) if bad == place.committed => {
            let next = bad + HEAD_LEN + len + SEAL_LEN;
            let yes = breaks_off(next) || has_zero_piece(bytes, bad, next.min(end));
            torn(yes, Fault::Footer)
        }
        Word::End => torn(is_zero_piece(bytes, bad, end), Fault::Record),
        Word::Footer(_) | Word::Unknown => torn(has_zero_piece(bytes, bad, bad + 4), Fault::Record),
    }
}

/// The end of the piece that `at` lies in, at most `to`.
fn piece_end(at: usize, to: usize) -> usize {
    ((at / SECTOR + 1) * SECTOR).min(to)
}

/// Whether the sector was lost from `at` on, if `at` is before `to`: all of it
/// is zero then, and not only the little of a record that lies in it.
fn is_zero_piece(bytes: &[u8], at: usize, to: usize) -> bool {
    let end = piece_end(at, usize::MAX).min(bytes.len());
    at < to && at < end && bytes[at..end].iter().all(|b| *b == 0)
}

/// Whether any piece of the range is all zero.
fn has_zero_piece(bytes: &[u8], from: usize, to: usize) -> bool {
    let mut at = from;
    while at < to {
        if is_zero_piece(bytes, at, to) {
            return true;
        }
        at = piece_end(at, to);
    }
    false
}

/// Whether the bytes at `at` are `right` but for lost pieces and a lost end.
fn is_torn_from(bytes: &[u8], written: usize, at: usize, right: &[u8]) -> bool {
    let to = at + right.len();
    let mut from = at;
    while from < to {
        let end = piece_end(from, to);
        for place in from..end {
            let found = bytes.get(place).copied().unwrap_or(0);
            if place < written && found != right[place - at] && !is_zero_piece(bytes, from, to) {
                return false;
            }
        }
        from = end;
    }
    true
}
