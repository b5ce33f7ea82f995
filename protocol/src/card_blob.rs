//! The envelope around sealed card data: who can open it, and how it was
//! sealed. It is what the blob of a [`SealedCard`](crate::SealedCard) holds
//! from wire version 4 on. The hub looks at its form and at nothing else; it
//! has no key that opens it.
//!
//! Sealing follows RFC 9180 (HPKE) in base mode with one suite:
//! DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305; 0x0020,
//! 0x0001, 0x0003 in its registries. The sealing itself is in hub-sdk.

use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::cbor;
use crate::codes::codes;
use crate::id::PaymentId;
use crate::money::Currency;
use crate::payment::MAX_SEALED_CARD;
use crate::refusal::{Refusal, RefusalCode};

/// `info` of HPKE: what is sealed, so that a text for another purpose cannot
/// pass for card data.
pub const CARD_INFO: &[u8] = b"hub-card/1";

/// The length of an encapsulated X25519 key (`Nenc`), in bytes. It stands in
/// front of the ciphertext.
pub const ENCAPSULATED_KEY: usize = 32;

/// The length of the tag at the end of the ciphertext (`Nt`), in bytes.
const TAG: usize = 16;

/// The length of the id of an HPKE key, in bytes.
pub const CARD_KEY_ID: usize = 16;

/// The longest key id of all, in bytes. A key serial number of DUKPT has 10
/// bytes (ANSI X9.24-1) or 12 (X9.24-3).
const MAX_KEY_ID: usize = 16;

/// The longest card data that fit into an envelope sealed by HPKE, in bytes.
pub const MAX_CARD_DATA: usize = MAX_SEALED_CARD - HPKE_AROUND;

/// What HPKE and the envelope put around: map, three keys, scheme, key id with
/// its head, and the head of the ciphertext.
const HPKE_AROUND: usize = 1 + 3 + 1 + (1 + CARD_KEY_ID) + 3 + ENCAPSULATED_KEY + TAG;

codes! {
    /// How card data are sealed.
    pub enum SealScheme {
        /// HPKE (RFC 9180) to the gateway's X25519 key.
        Hpke = 1, "hpke";
        /// By a reader under a key of its own (DUKPT, ANSI X9.24), as it came.
        Dukpt = 2, "dukpt";
    }
}

/// Sealed card data with what the gateway needs to open them.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CardBlob {
    /// How they are sealed.
    #[n(1)]
    pub scheme: SealScheme,
    /// By which key: [`card_key_id`] of the gateway's key, 16 bytes; for
    /// DUKPT the key serial number, 1 to 16 bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub key_id: Vec<u8>,
    /// For HPKE the encapsulated key, 32 bytes, and then the ciphertext with
    /// its tag. For DUKPT whatever the reader gave, at least 1 byte.
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
}

impl core::fmt::Debug for CardBlob {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CardBlob({}, {} bytes)", self.scheme, self.ciphertext.len())
    }
}

impl CardBlob {
    /// The envelope as a blob.
    pub fn to_blob(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    /// Reads a blob.
    ///
    /// # Errors
    ///
    /// [`RefusalCode::CardEnvelope`] if it is no envelope in its one encoding,
    /// of a scheme that has a number and with lengths that the scheme has.
    pub fn from_blob(blob: &[u8]) -> Result<Self, Refusal> {
        let envelope: Self = cbor::decode(blob).map_err(|_| malformed())?;
        let fits = match envelope.scheme {
            SealScheme::Hpke => {
                envelope.key_id.len() == CARD_KEY_ID && envelope.ciphertext.len() > ENCAPSULATED_KEY + TAG
            }
            SealScheme::Dukpt => {
                (1..=MAX_KEY_ID).contains(&envelope.key_id.len()) && !envelope.ciphertext.is_empty()
            }
        };
        if fits { Ok(envelope) } else { Err(malformed()) }
    }

    /// The encapsulated key and the ciphertext behind it, of an envelope that
    /// was sealed by HPKE.
    pub fn hpke_parts(&self) -> Option<(&[u8], &[u8])> {
        (self.scheme == SealScheme::Hpke)
            .then(|| self.ciphertext.split_at_checked(ENCAPSULATED_KEY))
            .flatten()
    }
}

fn malformed() -> Refusal {
    Refusal::new(
        RefusalCode::CardEnvelope,
        "the sealed card is not in its envelope of scheme, key id and ciphertext",
    )
}

/// The id of a gateway's key: the first 16 bytes of SHA-256 over the 32 bytes
/// of the X25519 public key.
pub fn card_key_id(public_key: &[u8; 32]) -> [u8; CARD_KEY_ID] {
    let digest: [u8; 32] = Sha256::digest(public_key).into();
    let mut id = [0; CARD_KEY_ID];
    id.copy_from_slice(&digest[..CARD_KEY_ID]);
    id
}

/// What sealed card data are bound to: they open for this payment only.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CardBinding {
    /// The payment.
    #[n(1)]
    pub payment_id: PaymentId,
    /// Its amount, minor units.
    #[n(2)]
    pub amount_minor: u64,
    /// ISO 4217.
    #[n(3)]
    pub currency: Currency,
    /// The merchant: the store's id at the gateway, 1 to 64 bytes.
    #[n(4)]
    pub merchant: String,
}

impl CardBinding {
    /// `aad` of HPKE: the binding in deterministic CBOR.
    pub fn aad(&self) -> Vec<u8> {
        cbor::encode(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(scheme: SealScheme, key_id: usize, ciphertext: usize) -> CardBlob {
        CardBlob {
            scheme,
            key_id: vec![0x11; key_id],
            ciphertext: vec![0x22; ciphertext],
        }
    }

    #[test]
    fn an_envelope_has_one_form() {
        for good in [
            sealed(SealScheme::Hpke, 16, 49),
            sealed(SealScheme::Dukpt, 10, 1),
            sealed(SealScheme::Dukpt, 12, 300),
        ] {
            assert_eq!(CardBlob::from_blob(&good.to_blob()).unwrap(), good);
        }
        let good = sealed(SealScheme::Hpke, 16, 49).to_blob();
        let mut longer = good.clone();
        longer.push(0);
        let mut other_scheme = good.clone();
        assert_eq!(other_scheme[..3], [0xa3, 0x01, 0x01]);
        other_scheme[2] = 3;
        let mut long_form = good.clone();
        long_form.splice(2..3, [0x18, 0x01]);
        for bad in [
            Vec::new(),
            vec![0; 64],
            good[..good.len() - 1].to_vec(),
            longer,
            other_scheme,
            long_form,
            sealed(SealScheme::Hpke, 15, 49).to_blob(),
            sealed(SealScheme::Hpke, 16, 48).to_blob(),
            sealed(SealScheme::Dukpt, 0, 49).to_blob(),
            sealed(SealScheme::Dukpt, 17, 49).to_blob(),
            sealed(SealScheme::Dukpt, 10, 0).to_blob(),
        ] {
            let refused = CardBlob::from_blob(&bad).unwrap_err();
            assert_eq!(refused.code, RefusalCode::CardEnvelope, "{bad:?}");
        }
    }

    #[test]
    fn the_largest_card_data_fill_the_largest_blob() {
        let sealed = sealed(
            SealScheme::Hpke,
            CARD_KEY_ID,
            ENCAPSULATED_KEY + MAX_CARD_DATA + TAG,
        );
        assert_eq!(sealed.to_blob().len(), MAX_SEALED_CARD);
    }

    #[test]
    fn a_binding_is_deterministic_cbor() {
        let binding = CardBinding {
            payment_id: PaymentId([7; 16]),
            amount_minor: 1250,
            currency: Currency::EUR,
            merchant: "shop-1".to_owned(),
        };
        let mut expected = vec![0xa4, 0x01, 0x50];
        expected.extend([7; 16]);
        expected.extend([0x02, 0x19, 0x04, 0xe2, 0x03, 0x63]);
        expected.extend(b"EUR");
        expected.extend([0x04, 0x66]);
        expected.extend(b"shop-1");
        assert_eq!(binding.aad(), expected);
    }
}
