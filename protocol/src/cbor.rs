//! Deterministic CBOR in, deterministic CBOR out.

use minicbor::{Decode, Encode};

/// How deep maps and arrays may nest. The deepest message of the protocol, a
/// ledger entry with the gateway's word in its decision, has 5 levels.
pub const MAX_DEPTH: usize = 8;

/// Bytes that are not the one deterministic encoding of the expected type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// The input ends before the value does.
    #[error("the message ends before it is complete")]
    Truncated,
    /// Bytes follow the value.
    #[error("bytes follow the end of the message")]
    Trailing,
    /// A value of another type, out of range, or with a number not assigned.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// A frame or an event with a number that is not assigned: it was made by
    /// a newer version of the protocol.
    #[error("malformed message: number {0} is not known here")]
    UnknownVariant(i64),
    /// Decodes, but is not the shortest form in key order without doubled or
    /// unknown keys.
    #[error("the message is not in deterministic encoding")]
    NotCanonical,
}

/// A name that stands for no variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown name")]
pub struct UnknownName;

/// Encodes a value. Every type of this crate encodes deterministically:
/// integer keys ascending, shortest forms, definite lengths, no floats.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    // Writing into a Vec cannot fail and no Encode of this crate makes its
    // own errors, so the result carries nothing.
    let _ = minicbor::encode(value, &mut out);
    out
}

/// Decodes a value and requires that `bytes` is exactly its encoding: one
/// message has one byte string. Trailing bytes, doubled keys, unknown keys
/// and longer forms than needed are refused here.
///
/// Of several faults the one found first is returned, in this order: the
/// shape of the bytes (cut off, indefinite or longer than needed, nested too
/// deep, trailing), then types and numbers, then the keys.
pub fn decode<T>(bytes: &[u8]) -> Result<T, CborError>
where
    T: Encode<()> + for<'b> Decode<'b, ()>,
{
    scan(bytes)?;
    let mut decoder = minicbor::Decoder::new(bytes);
    let value: T = decoder.decode().map_err(|e| match unknown_variant(&e, bytes) {
        Some(number) => CborError::UnknownVariant(number),
        None => CborError::Malformed(e.to_string()),
    })?;
    // The scan has seen one whole item, so a decoder that stops earlier or
    // skips something shows as another encoding.
    if encode(&value) != bytes {
        return Err(CborError::NotCanonical);
    }
    Ok(value)
}

/// The number that no variant has, if this is what the error is about.
fn unknown_variant(error: &minicbor::decode::Error, bytes: &[u8]) -> Option<i64> {
    if !error.is_unknown_variant() {
        return None;
    }
    let at = bytes.get(error.position()?..)?;
    minicbor::Decoder::new(at).i64().ok()
}

/// Requires that `bytes` is one CBOR item with definite lengths, shortest
/// heads and no more than [`MAX_DEPTH`] levels. Constant memory, one pass: what
/// comes after works on bytes whose declared lengths are true.
pub(crate) fn scan(bytes: &[u8]) -> Result<(), CborError> {
    // Items still to come at each open level; an array or map counts as one
    // item of the level above it.
    let mut open = [0u64; MAX_DEPTH];
    let mut depth = 0;
    let mut rest = bytes;
    loop {
        let (major, argument, after) = head(rest)?;
        rest = after;
        let children = match major {
            2 | 3 => {
                let length = usize::try_from(argument).map_err(|_| CborError::Truncated)?;
                rest = rest.get(length..).ok_or(CborError::Truncated)?;
                0
            }
            4 => argument,
            5 => argument.checked_mul(2).ok_or(CborError::Truncated)?,
            6 => 1,
            _ => 0,
        };
        if children > 0 {
            let level = open
                .get_mut(depth)
                .ok_or_else(|| CborError::Malformed(format!("nested deeper than {MAX_DEPTH} levels")))?;
            *level = children;
            depth += 1;
            continue;
        }
        // This item is whole, and with it every level that it completes.
        while let Some(level) = depth.checked_sub(1).and_then(|last| open.get_mut(last)) {
            *level -= 1;
            if *level > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return if rest.is_empty() {
                Ok(())
            } else {
                Err(CborError::Trailing)
            };
        }
    }
}

/// The head of the next item: its major type, its argument and what follows.
fn head(bytes: &[u8]) -> Result<(u8, u64, &[u8]), CborError> {
    let (first, rest) = bytes.split_first().ok_or(CborError::Truncated)?;
    let (major, short) = (first >> 5, first & 0x1f);
    let width: usize = match short {
        0..=23 => return Ok((major, u64::from(short), rest)),
        24..=27 => 1 << (short - 24),
        31 if (2..=5).contains(&major) => return Err(CborError::NotCanonical),
        _ => return Err(CborError::Malformed("not CBOR (RFC 8949)".into())),
    };
    let (argument, rest) = rest.split_at_checked(width).ok_or(CborError::Truncated)?;
    let value = argument.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    // A float or a simple value in its longer form is no number: the types
    // that are decoded next have neither.
    let shortest = match width {
        _ if major == 7 => true,
        1 => value > 23,
        2 => value > 0xff,
        4 => value > 0xffff,
        _ => value > 0xffff_ffff,
    };
    if shortest {
        Ok((major, value, rest))
    } else {
        Err(CborError::NotCanonical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Result<u64, CborError> {
        decode(bytes)
    }

    #[test]
    fn one_number_has_one_byte_string() {
        assert_eq!(number(&[0x17]), Ok(23));
        assert_eq!(number(&[0x18, 0x18]), Ok(24));
        for long in [
            &[0x18, 0x17][..],
            &[0x19, 0, 0xff],
            &[0x1a, 0, 0, 0xff, 0xff],
            &[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(number(long), Err(CborError::NotCanonical), "{long:x?}");
        }
    }

    #[test]
    fn indefinite_lengths_have_the_same_error_in_every_type() {
        for bytes in [&[0x5f, 0xff][..], &[0x7f, 0xff], &[0x9f, 0xff], &[0xbf, 0xff]] {
            assert_eq!(number(bytes), Err(CborError::NotCanonical), "{bytes:x?}");
        }
    }

    #[test]
    fn declared_lengths_beyond_the_message_are_truncation_and_cost_nothing() {
        for major in [0x40, 0x60, 0x80, 0xa0] {
            let mut bytes = vec![major | 0x1b];
            bytes.extend_from_slice(&u64::MAX.to_be_bytes());
            assert_eq!(number(&bytes), Err(CborError::Truncated), "{major:x}");
        }
        assert_eq!(number(&[]), Err(CborError::Truncated));
        assert_eq!(number(&[0x19, 1]), Err(CborError::Truncated));
    }

    #[test]
    fn nesting_is_bounded_before_anything_is_decoded() {
        for (nest, depth) in [(0x81u8, MAX_DEPTH + 1), (0xc1, MAX_DEPTH + 1), (0x81, 16 * 1024)] {
            let mut bytes = vec![nest; depth];
            bytes.push(0);
            assert!(
                matches!(number(&bytes), Err(CborError::Malformed(_))),
                "{nest:x} {depth}"
            );
        }
        let mut deepest = vec![0x81; MAX_DEPTH];
        deepest.push(0);
        assert_eq!(scan(&deepest), Ok(()));
        deepest.push(0);
        assert_eq!(scan(&deepest), Err(CborError::Trailing));
    }

    #[test]
    fn bytes_that_are_not_cbor_are_malformed() {
        for bytes in [&[0x1c][..], &[0x3f], &[0xff], &[0xdf, 0]] {
            assert!(
                matches!(number(bytes), Err(CborError::Malformed(_))),
                "{bytes:x?}"
            );
        }
        for float in [&[0xf9, 0, 0][..], &[0xfa, 0, 0, 0, 0], &[0xf6], &[0xf5]] {
            assert!(
                matches!(number(float), Err(CborError::Malformed(_))),
                "{float:x?}"
            );
        }
    }
}
