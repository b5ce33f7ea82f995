//! Sealing card data to the gateway's key by HPKE (RFC 9180), bound to the
//! payment: base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
//! ChaCha20-Poly1305.

use std::convert::Infallible;

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, HpkeError, Kem, OpModeS, Serializable, single_shot_seal_with_rng};
use hub_protocol::card_blob::{CARD_INFO, MAX_CARD_DATA, card_key_id};
use hub_protocol::payment::MAX_TEXT;
use hub_protocol::{CardBinding, CardBlob, SealScheme};
use zeroize::Zeroizing;

/// The key that card data are sealed to, and the merchant they are sealed for.
/// A device's app gets both from its payment service provider (PSP), never
/// from a hub: whoever could give a device another key could read the cards.
#[derive(Clone, PartialEq, Eq)]
pub struct CardKey {
    public_key: [u8; 32],
    merchant: String,
}

impl core::fmt::Debug for CardKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "CardKey(for {:?})", self.merchant)
    }
}

/// Why card data cannot be sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key is none that anything can be sealed to.
    #[error("the gateway's card key is no X25519 key, or a weak one; get it from the PSP again")]
    Key,
    /// The merchant's id is empty or longer than 64 bytes.
    #[error("the merchant's id is 1 to 64 bytes; take the store's id at the PSP as it stands")]
    Merchant,
    /// There are no card data, or too many.
    #[error("card data are 1 to {MAX_CARD_DATA} bytes")]
    Length,
}

impl CardKey {
    /// A gateway's X25519 public key, as RFC 7748 encodes it, and the store's
    /// id at that gateway, 1 to 64 bytes.
    ///
    /// # Errors
    ///
    /// When the key is weak or the id too long.
    pub fn new(public_key: [u8; 32], merchant: &str) -> Result<Self, SealError> {
        if merchant.is_empty() || merchant.len() > MAX_TEXT {
            return Err(SealError::Merchant);
        }
        // A key of small order gives the same secret to everybody. That shows
        // with any ephemeral key.
        seal_to(&public_key, &[], &[], Entropy::of([1; 32])).map_err(|_| SealError::Key)?;
        let merchant = merchant.to_owned();
        Ok(Self { public_key, merchant })
    }

    /// The key's id, as an envelope names it.
    pub fn key_id(&self) -> [u8; 16] {
        card_key_id(&self.public_key)
    }

    /// Seals card data for one payment: what [`to_seal`](Self::to_seal) does
    /// once the payment's id has been made, for devices that make their
    /// requests themselves. The merchant is this key's, whatever `binding`
    /// says. `entropy` must be random and used for nothing else: a second
    /// payment sealed with it could be read by whoever knows the first.
    ///
    /// # Errors
    ///
    /// When there are no card data or too many.
    pub fn seal(&self, clear: &[u8], binding: CardBinding, entropy: [u8; 32]) -> Result<Vec<u8>, SealError> {
        self.seal_with(clear, binding, Entropy::of(entropy))
    }

    fn seal_with(
        &self,
        clear: &[u8],
        mut binding: CardBinding,
        entropy: Entropy,
    ) -> Result<Vec<u8>, SealError> {
        if clear.is_empty() || clear.len() > MAX_CARD_DATA {
            return Err(SealError::Length);
        }
        binding.merchant.clone_from(&self.merchant);
        let ciphertext = seal_to(&self.public_key, clear, &binding.aad(), entropy);
        let envelope = CardBlob {
            scheme: SealScheme::Hpke,
            key_id: self.key_id().to_vec(),
            ciphertext: ciphertext.map_err(|_| SealError::Key)?,
        };
        Ok(envelope.to_blob())
    }

    /// Card data that are sealed when the payment's id has been made. What
    /// they look like is between the app and the gateway.
    ///
    /// # Errors
    ///
    /// When there are none or too many.
    pub fn to_seal(&self, clear: &[u8]) -> Result<CardData, SealError> {
        if clear.is_empty() || clear.len() > MAX_CARD_DATA {
            return Err(SealError::Length);
        }
        Ok(CardData(Card::ToSeal {
            key: self.clone(),
            clear: Zeroizing::new(clear.to_vec()),
        }))
    }
}

/// The card data of a sale.
#[derive(Clone)]
pub struct CardData(Card);

#[derive(Clone)]
enum Card {
    Sealed(Vec<u8>),
    ToSeal { key: CardKey, clear: Zeroizing<Vec<u8>> },
}

impl core::fmt::Debug for CardData {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self.0 {
            Card::Sealed(_) => "CardData(sealed)",
            Card::ToSeal { .. } => "CardData(to seal)",
        })
    }
}

impl CardData {
    /// Card data that a certified reader has encrypted under a key of its own
    /// (DUKPT), with the serial number of that key, 1 to 16 bytes. They pass
    /// through as they are.
    pub fn dukpt(key_serial_number: &[u8], ciphertext: &[u8]) -> Self {
        let envelope = CardBlob {
            scheme: SealScheme::Dukpt,
            key_id: key_serial_number.to_vec(),
            ciphertext: ciphertext.to_vec(),
        };
        Self(Card::Sealed(envelope.to_blob()))
    }

    /// A blob as it is, 1 to 1024 bytes: an envelope that somebody else made,
    /// or what app and gateway had agreed on before there were envelopes. The
    /// latter travels on connections of wire version 3.
    pub fn blob(blob: Vec<u8>) -> Self {
        Self(Card::Sealed(blob))
    }

    /// The blob, sealed for this payment. `entropy` is used for nothing else.
    pub(crate) fn into_blob(self, binding: CardBinding, entropy: Zeroizing<[u8; 32]>) -> Vec<u8> {
        match self.0 {
            Card::Sealed(blob) => blob,
            // It cannot fail, since the key was tried and the length is known.
            // If it did, the empty blob would be refused before it is sent.
            Card::ToSeal { key, clear } => key
                .seal_with(&clear, binding, Entropy { bytes: entropy })
                .unwrap_or_default(),
        }
    }
}

impl From<Vec<u8>> for CardData {
    fn from(blob: Vec<u8>) -> Self {
        Self::blob(blob)
    }
}

/// The encapsulated key and the ciphertext behind it.
fn seal_to(
    public_key: &[u8; 32],
    clear: &[u8],
    aad: &[u8],
    mut entropy: Entropy,
) -> Result<Vec<u8>, HpkeError> {
    let recipient = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(public_key)?;
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<
        ChaCha20Poly1305,
        HkdfSha256,
        X25519HkdfSha256,
    >(&OpModeS::Base, &recipient, CARD_INFO, clear, aad, &mut entropy)?;
    let mut sealed = encapsulated.to_bytes().to_vec();
    sealed.extend(ciphertext);
    Ok(sealed)
}

/// The 32 bytes that HPKE derives its ephemeral key from. They come from the
/// caller, who mixes the system's entropy with the device's secret, so that an
/// ephemeral key does not repeat even where the system's entropy fails.
struct Entropy {
    bytes: Zeroizing<[u8; 32]>,
}

impl Entropy {
    fn of(bytes: [u8; 32]) -> Self {
        let bytes = Zeroizing::new(bytes);
        Self { bytes }
    }
}

impl TryRng for Entropy {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut next = [0; 4];
        self.try_fill_bytes(&mut next)?;
        Ok(u32::from_be_bytes(next))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut next = [0; 8];
        self.try_fill_bytes(&mut next)?;
        Ok(u64::from_be_bytes(next))
    }

    /// Should ever more than 32 bytes be asked for, the next are a hash of
    /// those before.
    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        for part in destination.chunks_mut(32) {
            part.copy_from_slice(&self.bytes[..part.len()]);
            *self.bytes = hub_protocol::Digest::of(self.bytes.as_ref()).0;
        }
        Ok(())
    }
}

impl TryCryptoRng for Entropy {}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::HEXLOWER;
    use hpke::{OpModeR, setup_sender_with_rng, single_shot_open};
    use hub_protocol::{Currency, PaymentId};

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    fn open(
        secret: &<X25519HkdfSha256 as Kem>::PrivateKey,
        blob: &[u8],
        aad: &[u8],
    ) -> Result<Vec<u8>, HpkeError> {
        let envelope = CardBlob::from_blob(blob).unwrap();
        let (encapsulated, ciphertext) = envelope.hpke_parts().unwrap();
        single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            secret,
            &<X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated)?,
            CARD_INFO,
            ciphertext,
            aad,
        )
    }

    fn binding() -> CardBinding {
        CardBinding {
            payment_id: PaymentId([9; 16]),
            amount_minor: 1250,
            currency: Currency::EUR,
            merchant: String::new(),
        }
    }

    /// RFC 9180, appendix A.2.1: base mode, DHKEM(X25519, HKDF-SHA256),
    /// HKDF-SHA256, ChaCha20Poly1305, the first encryption.
    #[test]
    fn sealing_agrees_with_rfc_9180_appendix_a_2_1() {
        let ephemeral = hex("909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b");
        let recipient = hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
        let recipient = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&recipient).unwrap();
        let (encapsulated, mut context) =
            setup_sender_with_rng::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                &recipient,
                &hex("4f6465206f6e2061204772656369616e2055726e"),
                &mut Entropy::of(ephemeral.try_into().unwrap()),
            )
            .unwrap();
        assert_eq!(
            encapsulated.to_bytes().to_vec(),
            hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
        );
        let sealed = context
            .seal(
                &hex("4265617574792069732074727574682c20747275746820626561757479"),
                &hex("436f756e742d30"),
            )
            .unwrap();
        assert_eq!(
            sealed,
            hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")
        );
        let secret = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
        let secret = <X25519HkdfSha256 as Kem>::PrivateKey::from_bytes(&secret).unwrap();
        assert!(X25519HkdfSha256::sk_to_pk(&secret) == recipient);
    }

    #[test]
    fn rule_6_card_data_open_with_the_gateways_key_and_for_their_own_payment_only() {
        let (secret, public) = X25519HkdfSha256::derive_keypair(&[3; 32]);
        let key = CardKey::new(public.to_bytes().into(), "shop-1").unwrap();
        let clear = b"what the reader read";
        let blob = key.to_seal(clear).unwrap().into_blob(binding(), [5; 32].into());
        assert!(!blob.windows(clear.len()).any(|part| part == clear));
        assert_eq!(CardBlob::from_blob(&blob).unwrap().key_id, key.key_id());

        let bound = CardBinding {
            merchant: "shop-1".to_owned(),
            ..binding()
        };
        assert_eq!(open(&secret, &blob, &bound.aad()).unwrap(), clear);
        for other in [
            CardBinding {
                payment_id: PaymentId([8; 16]),
                ..bound.clone()
            },
            CardBinding {
                amount_minor: 1251,
                ..bound.clone()
            },
            CardBinding {
                currency: "USD".parse().unwrap(),
                ..bound.clone()
            },
            CardBinding {
                merchant: "shop-2".to_owned(),
                ..bound.clone()
            },
        ] {
            assert!(open(&secret, &blob, &other.aad()).is_err(), "{other:?}");
        }
        let (stranger, _) = X25519HkdfSha256::derive_keypair(&[4; 32]);
        assert!(open(&stranger, &blob, &bound.aad()).is_err());
    }

    /// The example in the document and in the vectors.
    #[test]
    fn the_example_of_the_document_is_what_is_sealed() {
        let (_, public) = X25519HkdfSha256::derive_keypair(&[3; 32]);
        let public: [u8; 32] = public.to_bytes().into();
        let key = CardKey::new(public, "shop-001").unwrap();
        let mut binding = CardBinding {
            payment_id: "0192f3a0-1111-7000-8000-00000000cafe".parse().unwrap(),
            amount_minor: 2590,
            currency: Currency::EUR,
            merchant: "shop-001".to_owned(),
        };
        let aad = binding.aad();
        binding.merchant = String::new();
        let blob = key
            .to_seal(b"what the reader read")
            .unwrap()
            .into_blob(binding, [5; 32].into());
        let document = include_str!("../../../docs/protocol.md");
        for part in [&public[..], &key.key_id(), &aad, &blob] {
            for line in part.chunks(32) {
                let line = HEXLOWER.encode(line);
                assert!(document.contains(&line), "{line}");
            }
        }
        let vectors = include_str!("../../vectors/frames.json");
        assert!(vectors.contains(&HEXLOWER.encode(&blob)));
    }

    #[test]
    fn a_weak_key_and_data_that_do_not_fit_are_refused() {
        assert_eq!(CardKey::new([0; 32], "shop-1"), Err(SealError::Key));
        let (_, public) = X25519HkdfSha256::derive_keypair(&[3; 32]);
        let public: [u8; 32] = public.to_bytes().into();
        assert_eq!(CardKey::new(public, ""), Err(SealError::Merchant));
        assert_eq!(CardKey::new(public, &"x".repeat(65)), Err(SealError::Merchant));
        let key = CardKey::new(public, "shop-1").unwrap();
        assert_eq!(key.to_seal(&[]).unwrap_err(), SealError::Length);
        assert_eq!(
            key.to_seal(&[0; MAX_CARD_DATA + 1]).unwrap_err(),
            SealError::Length
        );
        let largest = key
            .to_seal(&[0; MAX_CARD_DATA])
            .unwrap()
            .into_blob(binding(), [5; 32].into());
        assert_eq!(largest.len(), hub_protocol::payment::MAX_SEALED_CARD);
    }
}
