//! Card numbers in EMV's data elements (EMV Book 3, annex A): packed digits,
//! two a byte, behind a tag and a length.

use super::{LONGEST, SHORTEST, begins_with_expiry, is_card_number};

/// Tag of the application primary account number: `cn`, filled up with F.
const NUMBER: u8 = 0x5a;

/// Tag of track 2 equivalent data: the number, D, an expiry date, and more.
const TRACK_2: u8 = 0x57;

/// A tag, a length and the shortest number, in hexadecimal digits.
pub(super) const SHORTEST_IN_HEX: usize = 4 + SHORTEST + 1;

/// The separator and the filler among packed digits.
const SEPARATOR: u8 = 0xd;
const FILLER: u8 = 0xf;

/// Whether a tag with a card number stands anywhere in these bytes.
pub(super) fn tagged(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|at| match bytes[at..] {
        [tag @ (NUMBER | TRACK_2), length, ref rest @ ..] => {
            rest.get(..usize::from(length)).is_some_and(|value| {
                let value = nibbles(value);
                match tag {
                    NUMBER => is_number(&value),
                    _ => is_track_2(&value),
                }
            })
        }
        _ => false,
    })
}

/// Whether all these bytes are one card number, filled up in front or behind.
pub(super) fn packed_whole(bytes: &[u8]) -> bool {
    // Nothing longer is filled up by mistake, and a digest is no number.
    if bytes.len() > 16 {
        return false;
    }
    let digits = nibbles(bytes);
    let begin = digits
        .iter()
        .position(|digit| *digit != 0)
        .unwrap_or(digits.len());
    let fillers = digits.iter().rev().take_while(|digit| **digit == FILLER).count();
    let number = digits.get(begin..digits.len() - fillers).unwrap_or_default();
    // A number may end with zeros: some of those behind are its own.
    let zeros = number.iter().rev().take_while(|digit| **digit == 0).count();
    (number.len() - zeros..=number.len()).any(|end| is_number(&number[..end]))
}

fn nibbles(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).collect()
}

/// Digits that are a card number, with at most one filler behind.
fn is_number(digits: &[u8]) -> bool {
    let digits = digits.strip_suffix(&[FILLER]).unwrap_or(digits);
    (SHORTEST..=LONGEST).contains(&digits.len())
        && digits.iter().all(|digit| *digit <= 9)
        && is_card_number(digits)
}

fn is_track_2(digits: &[u8]) -> bool {
    let separator = digits.iter().position(|digit| *digit == SEPARATOR);
    separator.is_some_and(|at| is_number(&digits[..at]) && begins_with_expiry(&digits[at + 1..]))
}
