//! Characters and digits on the wire: ASCII, EBCDIC, BCD and hex.

/// How characters stand on the wire. Only printable ASCII (0x20 to 0x7e) is
/// ever carried; everything else is refused both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// US-ASCII.
    Ascii,
    /// EBCDIC code page 037 (US, Canada).
    Cp037,
    /// EBCDIC code page 500 (international).
    Cp500,
}

/// Which nibble fills up an odd number of BCD digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddDigit {
    /// A zero before the first digit.
    Left,
    /// An F behind the last digit.
    Right,
}

const FIRST: u8 = 0x20;
const PRINTABLE: usize = 95;

/// Printable ASCII, from the blank on, as code page 037 has it.
#[rustfmt::skip]
const CP037: [u8; PRINTABLE] = [
    0x40, 0x5a, 0x7f, 0x7b, 0x5b, 0x6c, 0x50, 0x7d, 0x4d, 0x5d, 0x5c, 0x4e, 0x6b, 0x60, 0x4b, 0x61,
    0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0x7a, 0x5e, 0x4c, 0x7e, 0x6e, 0x6f,
    0x7c, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6,
    0xd7, 0xd8, 0xd9, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xba, 0xe0, 0xbb, 0xb0, 0x6d,
    0x79, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xc0, 0x4f, 0xd0, 0xa1,
];

/// The same in code page 500.
#[rustfmt::skip]
const CP500: [u8; PRINTABLE] = [
    0x40, 0x4f, 0x7f, 0x7b, 0x5b, 0x6c, 0x50, 0x7d, 0x4d, 0x5d, 0x5c, 0x4e, 0x6b, 0x60, 0x4b, 0x61,
    0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0x7a, 0x5e, 0x4c, 0x7e, 0x6e, 0x6f,
    0x7c, 0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6,
    0xd7, 0xd8, 0xd9, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0x4a, 0xe0, 0x5a, 0x5f, 0x6d,
    0x79, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96,
    0x97, 0x98, 0x99, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xc0, 0xbb, 0xd0, 0xa1,
];

impl Charset {
    /// By its name in a dialect file.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "ascii" => Some(Self::Ascii),
            "cp037" => Some(Self::Cp037),
            "cp500" => Some(Self::Cp500),
            _ => None,
        }
    }

    /// The bytes of `text`; `None` if it holds anything but printable ASCII.
    pub fn encode(self, text: &str) -> Option<Vec<u8>> {
        text.bytes().map(|byte| self.to_wire(byte)).collect()
    }

    /// The text of `bytes`; `None` if any is no printable character.
    pub fn decode(self, bytes: &[u8]) -> Option<String> {
        bytes
            .iter()
            .map(|byte| self.of_wire(*byte).map(char::from))
            .collect()
    }

    fn table(self) -> Option<&'static [u8; PRINTABLE]> {
        match self {
            Self::Ascii => None,
            Self::Cp037 => Some(&CP037),
            Self::Cp500 => Some(&CP500),
        }
    }

    fn to_wire(self, byte: u8) -> Option<u8> {
        let at = usize::from(byte.checked_sub(FIRST)?);
        match self.table() {
            None => (at < PRINTABLE).then_some(byte),
            Some(table) => table.get(at).copied(),
        }
    }

    fn of_wire(self, byte: u8) -> Option<u8> {
        match self.table() {
            None => (FIRST..=b'~').contains(&byte).then_some(byte),
            Some(table) => {
                let at = table.iter().position(|known| *known == byte)?;
                u8::try_from(at).ok()?.checked_add(FIRST)
            }
        }
    }
}

/// Packs digits two to a byte. `D` (or `=`, which is read back as `D`) is the
/// separator of track data. `None` if anything else stands there.
pub fn pack(digits: &str, odd: OddDigit) -> Option<Vec<u8>> {
    let mut nibbles: Vec<u8> = digits.bytes().map(nibble).collect::<Option<_>>()?;
    if nibbles.len() % 2 == 1 {
        match odd {
            OddDigit::Left => nibbles.insert(0, 0),
            OddDigit::Right => nibbles.push(0xf),
        }
    }
    Some(nibbles.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Unpacks `count` digits out of exactly `count / 2`, rounded up, bytes.
/// `None` if a nibble is no digit or the filling is not as it should be.
pub fn unpack(bytes: &[u8], count: usize, odd: OddDigit) -> Option<String> {
    if bytes.len() != count.div_ceil(2) {
        return None;
    }
    let mut nibbles: Vec<u8> = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]).collect();
    if count % 2 == 1 {
        let filling = match odd {
            OddDigit::Left => (nibbles.remove(0), 0),
            OddDigit::Right => (nibbles.pop()?, 0xf),
        };
        if filling.0 != filling.1 {
            return None;
        }
    }
    nibbles.into_iter().map(digit).collect()
}

fn nibble(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'D' | b'=' => Some(0xd),
        _ => None,
    }
}

fn digit(nibble: u8) -> Option<char> {
    match nibble {
        0..=9 => Some(char::from(b'0' + nibble)),
        0xd => Some('D'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_comes_back_and_no_other_is_taken() {
        let all: String = (FIRST..=b'~').map(char::from).collect();
        for charset in [Charset::Ascii, Charset::Cp037, Charset::Cp500] {
            let wire = charset.encode(&all).unwrap();
            assert_eq!(charset.decode(&wire).as_ref(), Some(&all), "{charset:?}");
            let readable = (0..=255)
                .filter(|byte| charset.decode(&[*byte]).is_some())
                .count();
            assert_eq!(readable, PRINTABLE, "{charset:?}: no byte is read twice");
            assert_eq!(charset.encode("é"), None);
            assert_eq!(charset.encode("a\nb"), None);
        }
        assert_eq!(Charset::Cp500.encode("A[1]").unwrap(), [0xc1, 0x4a, 0xf1, 0x5a]);
        assert_eq!(Charset::Cp037.encode("A[1]").unwrap(), [0xc1, 0xba, 0xf1, 0xbb]);
    }

    #[test]
    fn an_odd_number_of_digits_is_filled_up_and_the_filling_is_checked() {
        assert_eq!(pack("123", OddDigit::Left).unwrap(), [0x01, 0x23]);
        assert_eq!(pack("123", OddDigit::Right).unwrap(), [0x12, 0x3f]);
        assert_eq!(unpack(&[0x01, 0x23], 3, OddDigit::Left).unwrap(), "123");
        assert_eq!(unpack(&[0x12, 0x3f], 3, OddDigit::Right).unwrap(), "123");
        assert_eq!(unpack(&[0x11, 0x23], 3, OddDigit::Left), None);
        assert_eq!(unpack(&[0x12, 0x30], 3, OddDigit::Right), None);
        assert_eq!(unpack(&[0x1a], 2, OddDigit::Left), None);
        assert_eq!(unpack(&[0x12], 3, OddDigit::Left), None);
        assert_eq!(pack("12a", OddDigit::Left), None);
        assert_eq!(pack("12D4", OddDigit::Left).unwrap(), [0x12, 0xd4]);
    }
}
