//! A message: its type, and its fields in the order of their numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::bitmap::{BitmapCode, MAX_FIELD};
use super::encoding::{Charset, OddDigit, pack, unpack};
use super::field::{Field, FieldFault, Value};

/// The message type: version, class, function, origin.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mti([u8; 4]);

/// Text that is not four digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message type is four digits, such as 0100")]
pub struct MtiError;

impl Mti {
    /// Network management request.
    pub const NETWORK: Mti = Mti(*b"0800");

    /// The type of the answer to this one: the function digit is one higher.
    /// A repeat is answered like the first, so the origin is 0 (acquirer).
    pub fn answer(self) -> Self {
        let [version, class, function, _] = self.0;
        Self([version, class, function + 1, b'0'])
    }

    /// Whether this is a request or advice and not an answer: its function
    /// digit is even.
    pub fn asks(self) -> bool {
        (self.0[2] - b'0').is_multiple_of(2)
    }

    /// Without the origin, so that a repeat equals the first.
    pub fn family(self) -> [u8; 3] {
        [self.0[0], self.0[1], self.0[2]]
    }

    /// The four digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("????")
    }
}

impl FromStr for Mti {
    type Err = MtiError;
    fn from_str(text: &str) -> Result<Self, MtiError> {
        let digits: [u8; 4] = text.as_bytes().try_into().map_err(|_| MtiError)?;
        if digits.iter().all(u8::is_ascii_digit) {
            Ok(Self(digits))
        } else {
            Err(MtiError)
        }
    }
}

impl fmt::Display for Mti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Mti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How the message type stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtiCode {
    /// 4 bytes.
    Chars(Charset),
    /// 2 bytes.
    Bcd,
}

/// The layout of messages: what a dialect says of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// Of the message type.
    pub mti: MtiCode,
    /// Of the bitmaps.
    pub bitmap: BitmapCode,
    /// Of each field, 2 to 128.
    pub fields: BTreeMap<u8, Field>,
}

/// A message, off the wire. Its `Debug` shows no contents: fields carry
/// sealed cards, and a stranger's message may hold anything.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// The message type.
    pub mti: Mti,
    fields: BTreeMap<u8, Value>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<&u8> = self.fields.keys().collect();
        write!(f, "{} with fields {fields:?}", self.mti)
    }
}

/// Why a message cannot be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageFault {
    /// The first bytes are no message type.
    #[error("its type cannot be read")]
    Type,
    /// The bitmap is cut off, no hex, or names a tertiary bitmap.
    #[error("its bitmap cannot be read")]
    Bitmap,
    /// A field that the dialect does not have.
    #[error("field {0} is not in the dialect")]
    Unknown(u8),
    /// A field's content.
    #[error("field {number} {fault}")]
    Field {
        /// Which.
        number: u8,
        /// What is wrong with it.
        fault: FieldFault,
    },
    /// Bytes behind the last field.
    #[error("there are bytes behind its last field")]
    Trailing,
}

impl Message {
    /// A message without fields.
    pub fn new(mti: Mti) -> Self {
        Self {
            mti,
            fields: BTreeMap::new(),
        }
    }

    /// Sets a field to a text.
    pub fn set(&mut self, number: u8, text: impl Into<String>) {
        self.fields.insert(number, Value::Text(text.into()));
    }

    /// Sets a field.
    pub fn set_value(&mut self, number: u8, value: Value) {
        self.fields.insert(number, value);
    }

    /// Takes a field away.
    pub fn remove(&mut self, number: u8) {
        self.fields.remove(&number);
    }

    /// A field.
    pub fn get(&self, number: u8) -> Option<&Value> {
        self.fields.get(&number)
    }

    /// A field's text; `None` for bytes too.
    pub fn text(&self, number: u8) -> Option<&str> {
        match self.fields.get(&number)? {
            Value::Text(text) => Some(text),
            Value::Bytes(_) => None,
        }
    }

    /// All fields, by number.
    pub fn fields(&self) -> impl Iterator<Item = (u8, &Value)> {
        self.fields.iter().map(|(number, value)| (*number, value))
    }
}

impl Format {
    /// Writes a message.
    ///
    /// # Errors
    /// [`MessageFault::Unknown`] and [`MessageFault::Field`].
    pub fn encode(&self, message: &Message) -> Result<Vec<u8>, MessageFault> {
        let mut wire = match self.mti {
            MtiCode::Chars(charset) => charset.encode(message.mti.as_str()),
            MtiCode::Bcd => pack(message.mti.as_str(), OddDigit::Left),
        }
        .ok_or(MessageFault::Type)?;
        wire.extend(self.bitmap.encode(message.fields.keys().copied()));
        for (number, value) in &message.fields {
            let number = *number;
            let field = self.fields.get(&number).ok_or(MessageFault::Unknown(number))?;
            field
                .encode(value, &mut wire)
                .map_err(|fault| MessageFault::Field { number, fault })?;
        }
        Ok(wire)
    }

    /// Reads a message; every byte must belong to it.
    ///
    /// # Errors
    /// [`MessageFault`]
    pub fn decode(&self, wire: &[u8]) -> Result<Message, MessageFault> {
        let (mti, rest) = self.read_mti(wire).ok_or(MessageFault::Type)?;
        let (numbers, size) = self.bitmap.decode(rest).ok_or(MessageFault::Bitmap)?;
        let mut rest = rest.get(size..).unwrap_or_default();
        let mut message = Message::new(mti);
        for number in numbers {
            let field = self.fields.get(&number).ok_or(MessageFault::Unknown(number))?;
            let (value, size) = field
                .decode(rest)
                .map_err(|fault| MessageFault::Field { number, fault })?;
            message.set_value(number, value);
            rest = rest.get(size..).unwrap_or_default();
        }
        if rest.is_empty() {
            Ok(message)
        } else {
            Err(MessageFault::Trailing)
        }
    }

    fn read_mti<'w>(&self, wire: &'w [u8]) -> Option<(Mti, &'w [u8])> {
        let (digits, rest) = match self.mti {
            MtiCode::Chars(charset) => {
                let (mti, rest) = wire.split_at_checked(4)?;
                (charset.decode(mti)?, rest)
            }
            MtiCode::Bcd => {
                let (mti, rest) = wire.split_at_checked(2)?;
                (unpack(mti, 4, OddDigit::Left)?, rest)
            }
        };
        Some((digits.parse().ok()?, rest))
    }

    /// Whether a field is in the dialect.
    pub fn has(&self, number: u8) -> bool {
        (2..=MAX_FIELD).contains(&number) && self.fields.contains_key(&number)
    }
}
