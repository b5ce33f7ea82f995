//! A payment on its way to be asked for.
#![allow(clippy::disallowed_methods)] // a device has a clock and makes ids

use std::time::{SystemTime, UNIX_EPOCH};

use hub_protocol::cose::Unverified;
use hub_protocol::{
    CardBinding, CardBlob, CardFacts, Cryptogram, Currency, Digest, EntryMode, Override, PaymentId,
    PaymentRequest, Refusal, Request, SealedCard, Terms, TransactionType, Verification, cbor,
};
use minicbor::{Decode, Encode};
use zeroize::Zeroizing;

use crate::client::Needs;
use crate::error::VerifyError;
use crate::identity::DeviceIdentity;
use crate::seal::CardData;

/// What is to be charged, and how the card was read.
#[derive(Clone, Debug)]
pub struct Sale {
    /// In minor units (cents), from 1.
    pub amount_minor: u64,
    /// ISO 4217.
    pub currency: Currency,
    /// The till's order, 1 to 64 bytes.
    pub order_id: String,
    /// What is known of the card.
    pub card: CardFacts,
    /// How the card was read.
    pub entry_mode: EntryMode,
    /// How the cardholder was verified.
    pub verification: Verification,
    /// What the card itself decided.
    pub cryptogram: Cryptogram,
    /// The card data, sealed or to be sealed.
    pub sealed_card: CardData,
    /// What wire version 3 says beside it: refunds, cash-back, staff,
    /// training, the card's expiry. `None`: a sale, for older hubs too.
    pub terms: Option<Terms>,
}

/// A payment with its id, signed once: always the same bytes. Keep it (see
/// [`to_bytes`](Self::to_bytes)) until there is an answer.
#[derive(Clone, Debug)]
pub struct PreparedPayment {
    request: PaymentRequest,
    signed: Vec<u8>,
    sealed_card: SealedCard,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Stored {
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    signed: Vec<u8>,
    #[n(2)]
    sealed_card: SealedCard,
}

impl PreparedPayment {
    /// Makes the payment's id and signs it.
    pub fn new(identity: &DeviceIdentity, device_sequence: u64, sale: Sale) -> Self {
        Self::made(identity, device_sequence, sale, |_| None)
    }

    /// The same with a supervisor's override, which `sign` signs.
    pub fn overridden(
        identity: &DeviceIdentity,
        device_sequence: u64,
        sale: Sale,
        sign: impl FnOnce(&Override) -> Vec<u8>,
    ) -> Self {
        let terms = sale.terms.unwrap_or(Terms::of(TransactionType::Sale));
        let sale = Sale {
            terms: Some(terms),
            ..sale
        };
        Self::made(identity, device_sequence, sale, |asked| Some(sign(asked)))
    }

    fn made(
        identity: &DeviceIdentity,
        device_sequence: u64,
        sale: Sale,
        supervisor: impl FnOnce(&Override) -> Option<Vec<u8>>,
    ) -> Self {
        let now_ms = unix_ms();
        let Unique { id, salt, ephemeral } = unique(identity, device_sequence, now_ms);
        let payment_id = uuid_v7(now_ms, id);
        let binding = CardBinding {
            payment_id,
            amount_minor: sale.amount_minor,
            currency: sale.currency,
            merchant: String::new(),
        };
        let sealed_card = SealedCard {
            salt,
            blob: sale.sealed_card.into_blob(binding, ephemeral),
        };
        let signed_override = supervisor(&Override {
            payment_id,
            device: identity.device_id(),
            amount_minor: sale.amount_minor,
            currency: sale.currency,
            time_ms: now_ms,
        });
        let terms = sale.terms.map(|terms| Terms {
            supervisor: signed_override.or(terms.supervisor),
            ..terms
        });
        let request = PaymentRequest {
            payment_id,
            device_sequence,
            amount: sale.amount_minor.into(),
            currency: sale.currency,
            order_id: sale.order_id,
            card: sale.card,
            entry_mode: sale.entry_mode,
            verification: sale.verification,
            cryptogram: sale.cryptogram,
            sealed_card_digest: sealed_card.digest(),
            device_time_ms: now_ms,
            terms: terms.map(Box::new),
        };
        Self {
            signed: identity.sign_request(&request),
            request,
            sealed_card,
        }
    }

    /// The payment's id for life.
    pub fn payment_id(&self) -> PaymentId {
        self.request.payment_id
    }

    /// What was signed.
    pub fn request(&self) -> &PaymentRequest {
        &self.request
    }

    /// What the connection must speak that can carry it.
    pub(crate) fn needs(&self) -> Needs {
        Needs {
            wire: if self.request.terms.is_some() { 3 } else { 2 },
            bare_card: CardBlob::from_blob(&self.sealed_card.blob).is_err(),
        }
    }

    /// The signed request.
    pub fn signed(&self) -> &[u8] {
        &self.signed
    }

    /// SHA-256 over the signed request: what a receipt refers to.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.signed)
    }

    /// The sealed card that travels beside the request.
    pub fn sealed_card(&self) -> &SealedCard {
        &self.sealed_card
    }

    /// Holds the payment to the ranges that the protocol states, as the hub
    /// will.
    ///
    /// # Errors
    ///
    /// The refusal that the hub would give.
    pub fn check(&self) -> Result<(), Refusal> {
        self.request.check()?;
        self.sealed_card.check(&self.request.sealed_card_digest)
    }

    /// The payment as bytes that can be stored. They hold the sealed card:
    /// destroy them once there is an answer.
    pub fn to_bytes(&self) -> Vec<u8> {
        cbor::encode(&Stored {
            signed: self.signed.clone(),
            sealed_card: self.sealed_card.clone(),
        })
    }

    /// The payment that [`to_bytes`](Self::to_bytes) gave.
    ///
    /// # Errors
    ///
    /// When the bytes are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VerifyError> {
        let stored: Stored = cbor::decode(bytes)?;
        let request = cbor::decode(Unverified::parse(&stored.signed)?.payload_unverified())?;
        Ok(Self {
            request,
            signed: stored.signed,
            sealed_card: stored.sealed_card,
        })
    }

    /// The frame that asks for the payment.
    pub fn frame(&self) -> Request {
        Request::Pay {
            request: self.signed.clone(),
            sealed_card: self.sealed_card.clone(),
        }
    }
}

/// Milliseconds since 1970 UTC, by the device's clock.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Bytes that nobody else makes or guesses.
struct Unique {
    id: [u8; 16],
    salt: [u8; 16],
    /// What the ephemeral key is derived from that seals the card.
    ephemeral: Zeroizing<[u8; 32]>,
}

/// Fresh entropy, hashed with the device's secret, its count and its clock, so
/// that an id does not repeat even on a system whose entropy fails.
fn unique(identity: &DeviceIdentity, device_sequence: u64, now_ms: u64) -> Unique {
    let mut input = Zeroizing::new([0; 81]);
    let (seed, rest) = input.split_at_mut(32);
    let (fresh, rest) = rest.split_at_mut(32);
    let (sequence, rest) = rest.split_at_mut(8);
    let (time, purpose) = rest.split_at_mut(8);
    seed.copy_from_slice(&identity.signing_key().to_bytes());
    let _ = getrandom::fill(fresh);
    sequence.copy_from_slice(&device_sequence.to_be_bytes());
    time.copy_from_slice(&now_ms.to_be_bytes());
    // Ids and salts are seen by others; the rest must not follow from them.
    purpose.copy_from_slice(&[1]);
    let ephemeral = Zeroizing::new(Digest::of(input.as_ref()).0);
    let digest = Digest::of(&input[..80]).0;
    let (mut id, mut salt) = ([0; 16], [0; 16]);
    id.copy_from_slice(&digest[..16]);
    salt.copy_from_slice(&digest[16..]);
    Unique { id, salt, ephemeral }
}

/// A UUID version 7 (RFC 9562 §5.7): 48 bits of time, 74 of `random`.
fn uuid_v7(now_ms: u64, random: [u8; 16]) -> PaymentId {
    let mut id = random;
    id[..6].copy_from_slice(&now_ms.to_be_bytes()[2..]);
    id[6] = 0x70 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    PaymentId(id)
}

/// A random share of `full`, for backoff with full jitter.
pub(crate) fn jitter(full: std::time::Duration) -> std::time::Duration {
    let mut bytes = [0; 4];
    // Without randomness all devices come back together, and no worse.
    let share = match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_be_bytes(bytes)) / f64::from(u32::MAX),
        Err(_) => 1.0,
    };
    full.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hub_protocol::{CardScheme, Funding};

    fn sale() -> Sale {
        Sale {
            amount_minor: 1250,
            currency: Currency::EUR,
            order_id: "T-1".into(),
            card: CardFacts {
                token: "tok_1".into(),
                scheme: CardScheme::Cb,
                funding: Funding::Debit,
                issuer_country: Some("FR".into()),
                bin: None,
                last4: Some("1234".into()),
            },
            entry_mode: EntryMode::Chip,
            verification: Verification::OfflinePin,
            cryptogram: Cryptogram::AsksOnline,
            sealed_card: vec![7; 64].into(),
            terms: None,
        }
    }

    #[test]
    fn rule_3_a_stored_payment_comes_back_as_the_same_bytes() {
        let identity = DeviceIdentity::generate().unwrap();
        let payment = PreparedPayment::new(&identity, 1, sale());
        payment.check().unwrap();
        let again = PreparedPayment::from_bytes(&payment.to_bytes()).unwrap();
        assert_eq!(again.signed(), payment.signed());
        assert_eq!(again.payment_id(), payment.payment_id());
        assert_eq!(again.sealed_card(), payment.sealed_card());
    }

    #[test]
    fn a_payment_id_is_a_uuid_of_version_7() {
        let text = uuid_v7(0x0190_0000_0000, [0xff; 16]).to_string();
        assert!(text.starts_with("01900000-0000-7"), "{text}");
        assert!(matches!(text.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{text}");
    }
}
