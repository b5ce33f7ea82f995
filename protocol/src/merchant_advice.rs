//! What an issuer advises a merchant to do after a decline.

use core::fmt;
use core::str::FromStr;
use minicbor::{Decode, Encode};

/// A merchant advice code: two digits that come with a decline, beside the
/// response code, and say whether and when the payment may be presented again
/// (Mastercard, data element 48, subelement 84). What each means is the
/// scheme's, and policy data here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MerchantAdvice(u8);

/// Text that is not two digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a merchant advice code: expected two digits, such as 03")]
pub struct MerchantAdviceError;

/// The largest code.
const LARGEST: u8 = 99;

impl FromStr for MerchantAdvice {
    type Err = MerchantAdviceError;
    fn from_str(text: &str) -> Result<Self, MerchantAdviceError> {
        match text.as_bytes() {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Ok(Self((a - b'0') * 10 + (b - b'0'))),
            _ => Err(MerchantAdviceError),
        }
    }
}

impl fmt::Display for MerchantAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}", self.0)
    }
}

impl fmt::Debug for MerchantAdvice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<C> Encode<C> for MerchantAdvice {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(self.0)?;
        Ok(())
    }
}

impl<'b, C> Decode<'b, C> for MerchantAdvice {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        match d.u8()? {
            code @ 0..=LARGEST => Ok(Self(code)),
            _ => Err(minicbor::decode::Error::message("a merchant advice code has two digits").at(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor;

    #[test]
    fn a_merchant_advice_code_is_two_digits_and_nothing_else() {
        for good in ["00", "03", "21", "30", "99"] {
            let code: MerchantAdvice = good.parse().unwrap();
            assert_eq!(code.to_string(), good);
            assert_eq!(cbor::decode::<MerchantAdvice>(&cbor::encode(&code)), Ok(code));
        }
        for bad in ["", "3", "003", "0x", "+3", " 3", "3 ", "٠٣", "R0"] {
            assert_eq!(bad.parse::<MerchantAdvice>(), Err(MerchantAdviceError), "{bad:?}");
        }
        for bad in [100_u8, 255] {
            assert!(
                cbor::decode::<MerchantAdvice>(&cbor::encode(&bad)).is_err(),
                "{bad}"
            );
        }
    }
}
