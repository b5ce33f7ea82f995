//! One data element: its format, and its value on the wire and off it.

use data_encoding::{HEXUPPER, HEXUPPER_PERMISSIVE};

use super::encoding::{Charset, OddDigit, pack, unpack};

/// What may stand in a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `n`: digits.
    Numeric,
    /// `a`: letters and blanks.
    Alpha,
    /// `an`: letters, digits and blanks.
    AlphaNumeric,
    /// `ans`: printable characters.
    Text,
    /// `z`: track data: digits and the separator, always held as `D`.
    Track,
    /// `b`: bytes.
    Binary,
}

/// How long a field is, counted in what stands on the wire: characters,
/// digits, bytes, or hex digits of a binary field that is written in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// Always this long.
    Fixed(u16),
    /// At most `max`, behind a length of so many decimal digits (LLVAR,
    /// LLLVAR …).
    Variable {
        /// 1 to 4.
        digits: u8,
        /// The longest.
        max: u16,
    },
}

impl Length {
    /// The longest.
    pub fn max(self) -> u16 {
        match self {
            Self::Fixed(length) => length,
            Self::Variable { max, .. } => max,
        }
    }
}

/// How a field's content stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataCode {
    /// One byte a character.
    Chars(Charset),
    /// Two digits a byte.
    Bcd(OddDigit),
    /// As it is.
    Bytes,
    /// Two hex digits a byte.
    Hex(Charset),
}

/// How the length before a variable field stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthCode {
    /// One byte a digit.
    Chars(Charset),
    /// Two digits a byte.
    Bcd,
    /// An unsigned number, big-endian: 1 byte for up to 2 digits, 2 for more.
    Binary,
}

/// The format of one field. [`Field::new`] holds the parts to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    kind: Kind,
    length: Length,
    data: DataCode,
    length_code: LengthCode,
}

/// The content of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of all kinds but `b`.
    Text(String),
    /// Of kind `b`.
    Bytes(Vec<u8>),
}

/// What is wrong with a value, or with the bytes that should hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldFault {
    /// Characters that the kind does not have, or bytes for text.
    #[error("holds what its format does not allow")]
    Content,
    /// Too long, or not as long as it must be.
    #[error("is not as long as its format says")]
    Length,
    /// The message ends inside it.
    #[error("is cut off")]
    CutOff,
}

impl Field {
    /// A format; `None` if its parts contradict each other: letters in BCD,
    /// bytes in EBCDIC, a longest length that its prefix cannot express.
    pub fn new(kind: Kind, length: Length, data: DataCode, length_code: LengthCode) -> Option<Self> {
        let fits = match (kind, data) {
            (Kind::Binary, DataCode::Bytes) => true,
            (Kind::Binary, DataCode::Hex(_)) => length.max().is_multiple_of(2),
            (Kind::Numeric | Kind::Track, DataCode::Bcd(_)) => true,
            (Kind::Binary, _) => false,
            (_, DataCode::Chars(_)) => true,
            _ => false,
        };
        let expressible = match length {
            Length::Fixed(length) => length > 0,
            Length::Variable { digits, max } => {
                (1..=4).contains(&digits) && max > 0 && u32::from(max) < 10_u32.pow(u32::from(digits))
            }
        };
        (fits && expressible).then_some(Self {
            kind,
            length,
            data,
            length_code,
        })
    }

    /// What may stand in it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How long it is on the wire.
    pub fn length(&self) -> Length {
        self.length
    }

    /// How many bytes (kind `b`) or characters of content fit.
    pub fn capacity(&self) -> usize {
        let max = usize::from(self.length.max());
        match self.data {
            DataCode::Hex(_) => max / 2,
            _ => max,
        }
    }

    /// Appends the value to `wire`. A value of a fixed field must have its
    /// length: nothing is padded or cut here.
    ///
    /// # Errors
    /// [`FieldFault::Content`] and [`FieldFault::Length`].
    pub fn encode(&self, value: &Value, wire: &mut Vec<u8>) -> Result<(), FieldFault> {
        let (count, content) = self.content(value)?;
        match self.length {
            Length::Fixed(length) if count != usize::from(length) => return Err(FieldFault::Length),
            Length::Fixed(_) => {}
            Length::Variable { digits, max } => {
                if count > usize::from(max) {
                    return Err(FieldFault::Length);
                }
                let prefix = self.length_code.encode(count, digits);
                wire.extend(prefix.ok_or(FieldFault::Length)?);
            }
        }
        wire.extend(content);
        Ok(())
    }

    /// How long the value counts, and its bytes.
    fn content(&self, value: &Value) -> Result<(usize, Vec<u8>), FieldFault> {
        match (value, self.data) {
            (Value::Bytes(bytes), DataCode::Bytes) => Ok((bytes.len(), bytes.clone())),
            (Value::Bytes(bytes), DataCode::Hex(charset)) => {
                let hex = charset.encode(&HEXUPPER.encode(bytes)).unwrap_or_default();
                Ok((hex.len(), hex))
            }
            (Value::Text(text), DataCode::Chars(charset)) if self.allows(text) => {
                let bytes = charset.encode(text).ok_or(FieldFault::Content)?;
                Ok((bytes.len(), bytes))
            }
            (Value::Text(text), DataCode::Bcd(odd)) if self.allows(text) => {
                let bytes = pack(text, odd).ok_or(FieldFault::Content)?;
                Ok((text.len(), bytes))
            }
            _ => Err(FieldFault::Content),
        }
    }

    fn allows(&self, text: &str) -> bool {
        let fits: fn(u8) -> bool = match self.kind {
            Kind::Numeric => |byte| byte.is_ascii_digit(),
            Kind::Alpha => |byte| byte.is_ascii_alphabetic() || byte == b' ',
            Kind::AlphaNumeric => |byte| byte.is_ascii_alphanumeric() || byte == b' ',
            Kind::Text => |byte| byte == b' ' || byte.is_ascii_graphic(),
            Kind::Track => |byte| byte.is_ascii_digit() || byte == b'D',
            Kind::Binary => |_| false,
        };
        text.bytes().all(fits)
    }

    /// Reads a value at the beginning of `wire`; says how many bytes it took.
    ///
    /// # Errors
    /// [`FieldFault`]
    pub fn decode(&self, wire: &[u8]) -> Result<(Value, usize), FieldFault> {
        let (count, prefix) = match self.length {
            Length::Fixed(length) => (usize::from(length), 0),
            Length::Variable { digits, max } => {
                let (count, size) = self.length_code.decode(wire, digits)?;
                if count > usize::from(max) {
                    return Err(FieldFault::Length);
                }
                (count, size)
            }
        };
        let size = match self.data {
            DataCode::Bcd(_) => count.div_ceil(2),
            DataCode::Chars(_) | DataCode::Bytes | DataCode::Hex(_) => count,
        };
        let content = wire.get(prefix..prefix + size).ok_or(FieldFault::CutOff)?;
        let value = match self.data {
            DataCode::Bytes => Value::Bytes(content.to_vec()),
            DataCode::Hex(charset) => {
                let hex = charset.decode(content).ok_or(FieldFault::Content)?;
                let bytes = HEXUPPER_PERMISSIVE.decode(hex.as_bytes());
                Value::Bytes(bytes.map_err(|_| FieldFault::Content)?)
            }
            DataCode::Chars(charset) => {
                let text = charset.decode(content).ok_or(FieldFault::Content)?;
                self.checked(text)?
            }
            DataCode::Bcd(odd) => {
                let text = unpack(content, count, odd).ok_or(FieldFault::Content)?;
                self.checked(text)?
            }
        };
        Ok((value, prefix + size))
    }

    fn checked(&self, text: String) -> Result<Value, FieldFault> {
        // Two ways to write the separator of track data, one way to hold it.
        let text = match self.kind {
            Kind::Track => text.replace('=', "D"),
            _ => text,
        };
        if self.allows(&text) {
            Ok(Value::Text(text))
        } else {
            Err(FieldFault::Content)
        }
    }
}

impl LengthCode {
    fn size(self, digits: u8) -> usize {
        match self {
            Self::Chars(_) => usize::from(digits),
            Self::Bcd | Self::Binary => usize::from(digits.div_ceil(2)),
        }
    }

    fn encode(self, count: usize, digits: u8) -> Option<Vec<u8>> {
        let width = usize::from(digits);
        match self {
            Self::Chars(charset) => charset.encode(&format!("{count:0width$}")),
            Self::Bcd => pack(&format!("{count:0width$}"), OddDigit::Left),
            Self::Binary => {
                let bytes = u16::try_from(count).ok()?.to_be_bytes();
                bytes.get(2 - self.size(digits)..).map(<[u8]>::to_vec)
            }
        }
    }

    fn decode(self, wire: &[u8], digits: u8) -> Result<(usize, usize), FieldFault> {
        let size = self.size(digits);
        let prefix = wire.get(..size).ok_or(FieldFault::CutOff)?;
        let count = match self {
            Self::Chars(charset) => charset.decode(prefix).and_then(|text| number(&text)),
            Self::Bcd => unpack(prefix, usize::from(digits), OddDigit::Left).and_then(|text| number(&text)),
            Self::Binary => Some(
                prefix
                    .iter()
                    .fold(0, |count, byte| count << 8 | usize::from(*byte)),
            ),
        };
        Ok((count.ok_or(FieldFault::Content)?, size))
    }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCII: DataCode = DataCode::Chars(Charset::Ascii);

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    fn wire(field: &Field, value: &Value) -> Vec<u8> {
        let mut wire = Vec::new();
        field.encode(value, &mut wire).unwrap();
        assert_eq!(field.decode(&wire), Ok((value.clone(), wire.len())));
        wire
    }

    #[test]
    fn lengths_and_contents_stand_on_the_wire_as_the_format_says() {
        let ll = Length::Variable { digits: 2, max: 19 };
        let lll = Length::Variable { digits: 3, max: 255 };
        let odd = OddDigit::Left;
        let field = |kind, length, data, code: LengthCode| {
            Field::new(kind, length, data, code).expect("a good format")
        };
        let bcd = field(Kind::Numeric, ll, DataCode::Bcd(odd), LengthCode::Bcd);
        assert_eq!(wire(&bcd, &text("12345")), [0x05, 0x01, 0x23, 0x45]);
        let ascii = field(Kind::Numeric, ll, ASCII, LengthCode::Chars(Charset::Ascii));
        assert_eq!(wire(&ascii, &text("12345")), b"0512345");
        let ebcdic = Charset::Cp500;
        let ebcdic = field(
            Kind::Text,
            lll,
            DataCode::Chars(ebcdic),
            LengthCode::Chars(ebcdic),
        );
        assert_eq!(wire(&ebcdic, &text("A1")), [0xf0, 0xf0, 0xf2, 0xc1, 0xf1]);
        let binary = field(Kind::Binary, lll, DataCode::Bytes, LengthCode::Binary);
        assert_eq!(wire(&binary, &Value::Bytes(vec![1, 2])), [0, 2, 1, 2]);
        let hex = Length::Variable { digits: 3, max: 254 };
        let hex = field(Kind::Binary, hex, DataCode::Hex(Charset::Ascii), LengthCode::Bcd);
        assert_eq!(wire(&hex, &Value::Bytes(vec![0xab])), [0, 2, b'A', b'B']);
        let track = field(
            Kind::Track,
            ll,
            DataCode::Bcd(OddDigit::Right),
            LengthCode::Binary,
        );
        assert_eq!(wire(&track, &text("12D34")), [5, 0x12, 0xd3, 0x4f]);
    }

    #[test]
    fn a_length_beyond_the_longest_is_refused_before_anything_is_taken() {
        let length = Length::Variable { digits: 2, max: 11 };
        let field = Field::new(Kind::Numeric, length, ASCII, LengthCode::Chars(Charset::Ascii)).unwrap();
        assert_eq!(field.decode(b"12123456789012"), Err(FieldFault::Length));
        assert_eq!(field.decode(b"1112345"), Err(FieldFault::CutOff));
        assert_eq!(field.decode(b"+1"), Err(FieldFault::Content));
        assert_eq!(field.decode(b"0"), Err(FieldFault::CutOff));
        assert_eq!(
            field.encode(&text("123456789012"), &mut Vec::new()),
            Err(FieldFault::Length)
        );
    }

    #[test]
    fn a_format_whose_parts_contradict_each_other_is_none() {
        let fixed = Length::Fixed(8);
        let code = LengthCode::Binary;
        assert_eq!(
            Field::new(Kind::Text, fixed, DataCode::Bcd(OddDigit::Left), code),
            None
        );
        assert_eq!(Field::new(Kind::Binary, fixed, ASCII, code), None);
        assert_eq!(Field::new(Kind::Numeric, fixed, DataCode::Bytes, code), None);
        let too_long = Length::Variable { digits: 2, max: 100 };
        assert_eq!(Field::new(Kind::Text, too_long, ASCII, code), None);
        assert_eq!(Field::new(Kind::Text, Length::Fixed(0), ASCII, code), None);
    }
}
