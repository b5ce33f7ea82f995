//! Which fields a message holds: 64 bits, or 128 with the secondary bitmap.

use data_encoding::{HEXUPPER, HEXUPPER_PERMISSIVE};

use super::encoding::Charset;

/// The highest field number. Tertiary bitmaps are not spoken.
pub const MAX_FIELD: u8 = 128;

/// The field that says there is a secondary bitmap.
const SECONDARY: u8 = 1;

/// The field that would say there is a tertiary one.
const TERTIARY: u8 = 65;

/// How bitmaps stand on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitmapCode {
    /// 8 bytes each.
    Binary,
    /// 16 hex digits each.
    Hex(Charset),
}

impl BitmapCode {
    /// Bytes on the wire of one bitmap.
    fn size(self) -> usize {
        match self {
            Self::Binary => 8,
            Self::Hex(_) => 16,
        }
    }

    /// The bitmap or bitmaps of these fields (2 to 128).
    pub fn encode(self, fields: impl Iterator<Item = u8>) -> Vec<u8> {
        let mut bits = fields
            .filter(|field| (2..=MAX_FIELD).contains(field) && *field != TERTIARY)
            .fold(0, |bits, field| bits | bit(field));
        let secondary = bits & u128::from(u64::MAX) != 0;
        if secondary {
            bits |= bit(SECONDARY);
        }
        let bytes = bits.to_be_bytes();
        let bytes = if secondary { &bytes[..] } else { &bytes[..8] };
        match self {
            Self::Binary => bytes.to_vec(),
            // Hex digits are printable in every character set.
            Self::Hex(charset) => charset.encode(&HEXUPPER.encode(bytes)).unwrap_or_default(),
        }
    }

    /// The fields named at the beginning of `wire`, in order and without the
    /// secondary bitmap itself, and how many bytes the bitmaps took. `None` if
    /// they are cut off, no hex, or name a tertiary bitmap.
    pub fn decode(self, wire: &[u8]) -> Option<(Vec<u8>, usize)> {
        let (first, rest) = wire.split_at_checked(self.size())?;
        let mut bits = u128::from(self.bits(first)?) << 64;
        let mut taken = self.size();
        if bits & bit(SECONDARY) != 0 {
            bits |= u128::from(self.bits(rest.get(..self.size())?)?);
            taken += self.size();
        }
        if bits & bit(TERTIARY) != 0 {
            return None;
        }
        let fields = (2..=MAX_FIELD).filter(|field| bits & bit(*field) != 0).collect();
        Some((fields, taken))
    }

    fn bits(self, wire: &[u8]) -> Option<u64> {
        let bytes = match self {
            Self::Binary => wire.to_vec(),
            Self::Hex(charset) => {
                let text = charset.decode(wire)?;
                HEXUPPER_PERMISSIVE.decode(text.as_bytes()).ok()?
            }
        };
        Some(u64::from_be_bytes(bytes.try_into().ok()?))
    }
}

/// Field 1 is the leftmost bit.
fn bit(field: u8) -> u128 {
    1 << (u32::from(MAX_FIELD) - u32::from(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: [BitmapCode; 3] = [
        BitmapCode::Binary,
        BitmapCode::Hex(Charset::Ascii),
        BitmapCode::Hex(Charset::Cp500),
    ];

    #[test]
    fn the_fields_that_went_in_come_out() {
        for fields in [vec![], vec![2], vec![3, 4, 11, 64], vec![2, 66, 70, 90, 128]] {
            for code in CODES {
                let wire = code.encode(fields.iter().copied());
                assert_eq!(code.decode(&wire), Some((fields.clone(), wire.len())));
                assert_eq!(code.decode(&wire[..wire.len() - 1]), None, "cut off");
            }
        }
    }

    #[test]
    fn field_one_is_the_leftmost_bit() {
        let wire = BitmapCode::Binary.encode([3, 4, 70].into_iter());
        assert_eq!(wire, [0xb0, 0, 0, 0, 0, 0, 0, 0, 0x04, 0, 0, 0, 0, 0, 0, 0]);
        let wire = BitmapCode::Hex(Charset::Ascii).encode([2, 64].into_iter());
        assert_eq!(wire, b"4000000000000001");
    }

    #[test]
    fn a_tertiary_bitmap_and_what_is_no_hex_are_refused() {
        let mut tertiary = [0; 16];
        tertiary[0] = 0x80;
        tertiary[8] = 0x80;
        assert_eq!(BitmapCode::Binary.decode(&tertiary), None);
        assert_eq!(BitmapCode::Hex(Charset::Ascii).decode(b"400000000000000g"), None);
    }
}
