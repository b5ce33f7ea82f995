//! Field formats as the standard writes them: `n6`, `n..11`, `ans...255`.

use super::super::encoding::{Charset, OddDigit};
use super::super::field::{DataCode, Field, Kind, Length, LengthCode};

/// What a field's format leaves out.
#[derive(Clone, Copy)]
pub(super) struct Defaults {
    /// Of `n` and `z`.
    pub(super) numbers: Numbers,
    /// Of `a`, `an` and `ans`.
    pub(super) texts: Charset,
    /// Of `b`.
    pub(super) bytes: DataCode,
    /// Of lengths.
    pub(super) lengths: LengthCode,
    /// Of an odd number of BCD digits.
    pub(super) odd: OddDigit,
}

#[derive(Clone, Copy)]
pub(super) enum Numbers {
    Chars(Charset),
    Bcd,
}

pub(super) fn numbers_named(name: &str) -> Option<Numbers> {
    match name {
        "bcd" => Some(Numbers::Bcd),
        _ => Charset::named(name).map(Numbers::Chars),
    }
}

pub(super) fn odd_named(name: &str) -> Option<OddDigit> {
    match name {
        "left" => Some(OddDigit::Left),
        "right" => Some(OddDigit::Right),
        _ => None,
    }
}

pub(super) fn lengths_named(name: &str) -> Option<LengthCode> {
    match name {
        "bcd" => Some(LengthCode::Bcd),
        "binary" => Some(LengthCode::Binary),
        _ => Charset::named(name).map(LengthCode::Chars),
    }
}

/// The kind, the dots and the longest length, and then overrides such as
/// `data=bcd`, `length=binary`, `odd=right`.
pub(super) fn field(text: &str, defaults: &Defaults) -> Option<Field> {
    let mut words = text.split_ascii_whitespace();
    let format = words.next()?;
    let (mut odd, mut lengths, mut data) = (defaults.odd, defaults.lengths, None);
    for word in words {
        match word.split_once('=')? {
            ("odd", name) => odd = odd_named(name)?,
            ("length", name) => lengths = lengths_named(name)?,
            ("data", name) => data = Some(name),
            _ => return None,
        }
    }
    let letters = format.find(|c: char| !c.is_ascii_alphabetic())?;
    let (kind, rest) = format.split_at(letters);
    let kind = match kind {
        "n" => Kind::Numeric,
        "a" => Kind::Alpha,
        "an" => Kind::AlphaNumeric,
        "ans" => Kind::Text,
        "z" => Kind::Track,
        "b" => Kind::Binary,
        _ => return None,
    };
    let digits = rest.trim_start_matches('.');
    let dots = u8::try_from(rest.len() - digits.len()).ok()?;
    let max = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())??;
    let length = match dots {
        0 => Length::Fixed(max),
        digits => Length::Variable { digits, max },
    };
    Field::new(kind, length, data_code(kind, data, odd, defaults)?, lengths)
}

fn data_code(kind: Kind, named: Option<&str>, odd: OddDigit, defaults: &Defaults) -> Option<DataCode> {
    let numbers = |numbers| match numbers {
        Numbers::Bcd => DataCode::Bcd(odd),
        Numbers::Chars(charset) => DataCode::Chars(charset),
    };
    match (kind, named) {
        (Kind::Binary, None) => Some(defaults.bytes),
        (Kind::Binary, Some(name)) => bytes_named(name, defaults.texts),
        (Kind::Numeric | Kind::Track, None) => Some(numbers(defaults.numbers)),
        (Kind::Numeric | Kind::Track, Some(name)) => numbers_named(name).map(numbers),
        (_, None) => Some(DataCode::Chars(defaults.texts)),
        (_, Some(name)) => Charset::named(name).map(DataCode::Chars),
    }
}

/// Hex digits are written in the dialect's own texts.
pub(super) fn bytes_named(name: &str, texts: Charset) -> Option<DataCode> {
    match name {
        "binary" => Some(DataCode::Bytes),
        "hex" => Some(DataCode::Hex(texts)),
        _ => None,
    }
}
