//! What stands before each message on the line: its length, and often a few
//! fixed bytes (a TPDU).

use super::encoding::{Charset, OddDigit, pack, unpack};

/// The longest message that is sent or read, in bytes, fixed header included.
pub const MAX_MESSAGE: usize = 4096;

/// How the length of a message stands on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LengthHeader {
    /// 2 bytes, big-endian.
    Binary2,
    /// 4 bytes, big-endian.
    Binary4,
    /// 4 decimal digits, one byte each.
    Digits4(Charset),
    /// 4 decimal digits in 2 bytes.
    Bcd2,
}

/// How messages follow each other on the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing {
    /// The length.
    pub length: LengthHeader,
    /// Whether the length counts its own bytes too.
    pub inclusive: bool,
    /// Fixed bytes between length and message, counted by the length. Those
    /// of an answer may differ (a TPDU turns its addresses round), so only
    /// their number is held to.
    pub header: Vec<u8>,
}

/// A length that no message has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// No number.
    #[error("a message's length cannot be read")]
    Unreadable,
    /// Too small to hold anything, or larger than [`MAX_MESSAGE`].
    #[error("a message's length is {0}, which is outside 1 to {MAX_MESSAGE}")]
    Length(u64),
}

impl LengthHeader {
    /// By its name in a dialect file.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "binary2" => Some(Self::Binary2),
            "binary4" => Some(Self::Binary4),
            "ascii4" => Some(Self::Digits4(Charset::Ascii)),
            "ebcdic4" => Some(Self::Digits4(Charset::Cp500)),
            "bcd2" => Some(Self::Bcd2),
            _ => None,
        }
    }

    /// How many bytes the length takes.
    pub fn size(self) -> usize {
        match self {
            Self::Binary2 | Self::Bcd2 => 2,
            Self::Binary4 | Self::Digits4(_) => 4,
        }
    }

    fn encode(self, length: usize) -> Option<Vec<u8>> {
        match self {
            Self::Binary2 => Some(u16::try_from(length).ok()?.to_be_bytes().to_vec()),
            Self::Binary4 => Some(u32::try_from(length).ok()?.to_be_bytes().to_vec()),
            Self::Digits4(charset) => charset.encode(&format!("{length:04}")),
            Self::Bcd2 => pack(&format!("{length:04}"), OddDigit::Left),
        }
    }

    fn decode(self, head: &[u8]) -> Option<u64> {
        let digits = match self {
            Self::Binary2 | Self::Binary4 => {
                return Some(head.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)));
            }
            Self::Digits4(charset) => charset.decode(head)?,
            Self::Bcd2 => unpack(head, 4, OddDigit::Left)?,
        };
        let number = digits.bytes().all(|byte| byte.is_ascii_digit());
        number.then(|| digits.parse().ok()).flatten()
    }
}

impl Framing {
    /// A message as it goes on the line; `None` if it is too long.
    pub fn wrap(&self, message: &[u8]) -> Option<Vec<u8>> {
        let body = self.header.len() + message.len();
        if body > MAX_MESSAGE {
            return None;
        }
        let own = if self.inclusive { self.length.size() } else { 0 };
        let mut frame = self.length.encode(body + own)?;
        frame.extend(&self.header);
        frame.extend(message);
        Some(frame)
    }

    /// How many bytes follow a length of [`LengthHeader::size`] bytes.
    ///
    /// # Errors
    /// [`FrameFault`]: whatever follows cannot be told apart any more.
    pub fn body_size(&self, head: &[u8]) -> Result<usize, FrameFault> {
        let told = self.length.decode(head).ok_or(FrameFault::Unreadable)?;
        let own = if self.inclusive { self.length.size() } else { 0 };
        let body = usize::try_from(told)
            .ok()
            .and_then(|told| told.checked_sub(own))
            .filter(|body| (self.header.len() + 1..=MAX_MESSAGE).contains(body));
        body.ok_or(FrameFault::Length(told))
    }

    /// The message in a body.
    pub fn message<'b>(&self, body: &'b [u8]) -> &'b [u8] {
        body.get(self.header.len()..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(length: LengthHeader, inclusive: bool, header: &[u8]) -> Framing {
        let header = header.to_vec();
        Framing {
            length,
            inclusive,
            header,
        }
    }

    #[test]
    fn a_length_says_what_follows_in_each_of_its_forms() {
        let tpdu = [0x60, 0, 1, 0, 0];
        let cases: [(&str, bool, &[u8], &[u8]); 6] = [
            ("binary2", false, b"", b"\0\x03abc"),
            ("binary2", true, b"", b"\0\x05abc"),
            ("binary4", false, b"", b"\0\0\0\x03abc"),
            ("ascii4", true, b"", b"0007abc"),
            ("bcd2", false, &tpdu, b"\0\x08\x60\0\x01\0\0abc"),
            ("ebcdic4", false, b"", b"\xf0\xf0\xf0\xf3abc"),
        ];
        for (name, inclusive, header, wire) in cases {
            let framing = framing(LengthHeader::named(name).unwrap(), inclusive, header);
            let frame = framing.wrap(b"abc").unwrap();
            assert_eq!(frame, wire, "{name}");
            let (head, body) = frame.split_at(framing.length.size());
            assert_eq!(framing.body_size(head), Ok(body.len()), "{name}");
            assert_eq!(framing.message(body), b"abc");
        }
    }

    #[test]
    fn a_length_that_no_message_has_is_refused_before_a_byte_is_read() {
        let binary = framing(LengthHeader::Binary4, false, b"");
        assert_eq!(
            binary.body_size(&[0xff; 4]),
            Err(FrameFault::Length(u64::from(u32::MAX)))
        );
        assert_eq!(binary.body_size(&[0; 4]), Err(FrameFault::Length(0)));
        let inclusive = framing(LengthHeader::Digits4(Charset::Ascii), true, b"");
        assert_eq!(inclusive.body_size(b"0003"), Err(FrameFault::Length(3)));
        assert_eq!(inclusive.body_size(b"+123"), Err(FrameFault::Unreadable));
        let tpdu = framing(LengthHeader::Binary2, false, &[0; 5]);
        assert_eq!(tpdu.body_size(&[0, 5]), Err(FrameFault::Length(5)));
        assert_eq!(tpdu.wrap(&[0; MAX_MESSAGE]), None);
    }
}
