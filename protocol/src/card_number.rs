//! Finding clear card numbers where none may be.
//!
//! This stops mistakes: an integrator who puts the card number where the
//! order id or the token belongs. It does not stop somebody who hides one on
//! purpose; no search of text can. Two faults weigh against each other: a
//! number that is missed is stored for years, and a till whose order ids look
//! like card numbers cannot sell. One number in ten passes the Luhn check by
//! chance, so the check alone, at every place of a long number, would refuse
//! a good part of ordinary order ids. What is looked for is therefore what a
//! card number looks like as a whole: its first digits and length as schemes
//! assign them, Luhn, and the ways in which people and programs write it.

mod emv;

/// The shortest card number that is looked for, in digits.
const SHORTEST: usize = 13;

/// The longest card number, in digits (ISO/IEC 7812-1).
const LONGEST: usize = 19;

/// Whether `text` holds a clear card number. Digits count as one when they
///
/// 1. begin and are as long as a scheme's card numbers (the table in `assigned`), and
///    pass the Luhn check (ISO/IEC 7812-1), and
/// 2. stand together as a whole run of digits, zeros in front or an expiry
///    date behind allowed; or in groups as cards are printed or people type
///    them (4-4-4-4, 4-4-4-4-3, 4-6-5, 4-6-4, 4-3-3-3, 6-13 if they begin with
///    62, or equal groups of which the last may be shorter), with one to three
///    other characters, or any number of spaces and dashes, in between; and
/// 3. are not part of a word, that is a stretch of ASCII letters and digits,
///    with three or more separate stretches of letters, of which one is
///    shorter than three: a hash, a UUID or a random token.
///
/// Other groups are not looked for: a shop whose order ids are its number, a
/// date and a counter (`4012-20261127-0042`) could not sell at every tenth try.
///
/// A token of digits alone that passes the first two is refused, because
/// nobody can tell it from a card number.
///
/// Beside that, text that is hexadecimal is looked at as the bytes that it
/// stands for, as in [`bytes_hold_card_number`] for EMV's tags.
pub fn holds_card_number(text: &str) -> bool {
    let text = text.as_bytes();
    written_out(text) || in_hexadecimal(text)
}

/// Whether bytes hold a clear card number: as text (see
/// [`holds_card_number`]); as EMV's tags 5A (the number) or 57 (track 2) with
/// their length and packed digits; or packed, two digits a byte, as the whole
/// field, padded with zeros or F in front or behind.
pub fn bytes_hold_card_number(bytes: &[u8]) -> bool {
    written_out(bytes) || emv::tagged(bytes) || emv::packed_whole(bytes)
}

/// Whether bytes hold a clear card number as text. Random bytes hold none, not
/// even by chance.
pub fn written_out(text: &[u8]) -> bool {
    // Most texts are shorter, and nothing more has to be looked at.
    if text.iter().filter(|byte| byte.is_ascii_digit()).count() < SHORTEST {
        return false;
    }
    let runs = digit_runs(text);
    runs.iter().any(|run| run_is_card_number(&run.digits)) || grouped_card_number(&runs)
}

/// EMV's tags in hexadecimal, in one word. Letters that stand before them may be
/// hexadecimal too, so both ways of pairing the digits are tried.
fn in_hexadecimal(text: &[u8]) -> bool {
    let word = |byte: &u8| !byte.is_ascii_hexdigit();
    text.split(word)
        .filter(|word| word.len() >= emv::SHORTEST_IN_HEX)
        .any(|word| {
            [word, &word[1..]].into_iter().any(|word| {
                let pairs = word.chunks_exact(2);
                let bytes: Option<Vec<u8>> = pairs
                    .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok())
                    .collect();
                bytes.is_some_and(|bytes| emv::tagged(&bytes))
            })
        })
}

/// A run of digits and how it follows the run before.
struct Run {
    digits: Vec<u8>,
    /// Only one to three characters that are no letters, or spaces and dashes,
    /// lie between.
    joins: bool,
}

/// All runs of digits outside of opaque words. Bytes of other scripts count
/// as separators.
fn digit_runs(text: &[u8]) -> Vec<Run> {
    let mut runs = Vec::new();
    let mut separates = true;
    for part in text.chunk_by(|a, b| a.is_ascii_alphanumeric() == b.is_ascii_alphanumeric()) {
        if !part[0].is_ascii_alphanumeric() {
            separates = part.len() > 3 && !part.iter().all(|byte| matches!(byte, b' ' | b'-'));
            continue;
        }
        let stretches = || part.chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit());
        if is_opaque(stretches().filter(|s| !s[0].is_ascii_digit()).map(<[u8]>::len)) {
            separates = true;
            continue;
        }
        for stretch in stretches() {
            if stretch[0].is_ascii_digit() {
                let digits = stretch.iter().map(|byte| byte - b'0').collect();
                let joins = !separates;
                runs.push(Run { digits, joins });
            }
            separates = true;
        }
    }
    runs
}

/// Whether a word with letters in stretches of these lengths is a random one.
/// Words that somebody has put together (`VISA…EXP…CVV…`) have longer ones.
fn is_opaque(letters: impl Iterator<Item = usize>) -> bool {
    let (count, shortest) = letters.fold((0, usize::MAX), |(count, shortest), length| {
        (count + 1, shortest.min(length))
    });
    count >= 3 && shortest < 3
}

/// A whole run that is a card number, padded with zeros in front or with an
/// expiry date (and what comes after one on a magnetic stripe) behind.
fn run_is_card_number(run: &[u8]) -> bool {
    let padding = run.iter().take_while(|digit| **digit == 0).count();
    let run = &run[padding..];
    (SHORTEST..=LONGEST).any(|length| {
        run.split_at_checked(length).is_some_and(|(number, rest)| {
            (rest.is_empty() || begins_with_expiry(rest)) && is_card_number(number)
        })
    })
}

/// YYMM or MMYY, of the years 2020 to 2049.
fn begins_with_expiry(digits: &[u8]) -> bool {
    let [a, b, c, d, ..] = digits else { return false };
    let month = |tens: u8, ones: u8| (1..=12).contains(&(tens * 10 + ones));
    let year = |tens: u8| (2..=4).contains(&tens);
    (year(*a) && month(*c, *d)) || (month(*a, *b) && year(*c))
}

/// A card number in groups.
fn grouped_card_number(runs: &[Run]) -> bool {
    (0..runs.len()).any(|first| {
        let mut digits: Vec<u8> = Vec::with_capacity(LONGEST);
        let mut lengths: Vec<usize> = Vec::with_capacity(LONGEST);
        for (place, run) in runs[first..].iter().enumerate() {
            if (place > 0 && !run.joins) || digits.len() + run.digits.len() > LONGEST {
                return false;
            }
            digits.extend_from_slice(&run.digits);
            lengths.push(run.digits.len());
            if place > 0 && written_in_groups(&lengths, &digits) && is_card_number(&digits) {
                return true;
            }
        }
        false
    })
}

fn written_in_groups(lengths: &[usize], digits: &[u8]) -> bool {
    let equal = lengths
        .split_last()
        .is_some_and(|(last, before)| before.iter().all(|length| *length == before[0]) && *last <= before[0]);
    equal
        || match lengths {
            [4, 6, 5 | 4] | [4, 3, 3, 3] => true,
            // UnionPay's; others' would be a shop's number and a time in
            // milliseconds.
            [6, 13] => digits.starts_with(&[6, 2]),
            _ => false,
        }
}

fn is_card_number(digits: &[u8]) -> bool {
    assigned(digits) && passes_luhn(digits)
}

/// Whether cards with these first digits have numbers of this length, by the
/// ranges that the schemes publish. Wider than the ranges in use, but for
/// Maestro's numbers of 12 to 15 digits, which are not issued any more.
fn assigned(digits: &[u8]) -> bool {
    let Some(first) = digits.first_chunk::<4>() else {
        return false;
    };
    let first = first.iter().fold(0u32, |sum, digit| sum * 10 + u32::from(*digit));
    let length = digits.len();
    match first {
        // Visa.
        4000..=4999 => matches!(length, 13 | 16 | 18 | 19),
        // Mastercard.
        2221..=2720 | 5100..=5599 => length == 16,
        // American Express.
        3400..=3499 | 3700..=3799 => length == 15,
        // Diners Club.
        3000..=3059 | 3095 | 3600..=3699 | 3800..=3999 => (14..=LONGEST).contains(&length),
        // Mir; JCB; Maestro and cards of one country or one shop; Discover;
        // UnionPay and RuPay.
        2200..=2204 | 3528..=3589 | 5000..=5099 | 5600..=6999 | 8100..=8299 => {
            (16..=LONGEST).contains(&length)
        }
        // Troy.
        9792 => length == 16,
        _ => false,
    }
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let value = u32::from(*digit) * if place % 2 == 1 { 2 } else { 1 };
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests;
