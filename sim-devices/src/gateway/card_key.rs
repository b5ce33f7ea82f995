//! The gateway's card key: what devices seal card data to, and what opens them
//! here and nowhere else. It is kept in the gateway's folder; `card-key.json`
//! beside it is the public half for devices.
#![allow(clippy::disallowed_methods)] // makes the key, once per gateway

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use data_encoding::HEXLOWER;
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, Serializable, single_shot_open};
use hub_protocol::card_blob::{CARD_INFO, card_key_id};
use hub_protocol::{CardBinding, CardBlob, PaymentRequest, SealScheme};
use hub_sdk::CardKey;
use serde_json::json;

/// The public half, for devices.
pub(super) const PUBLIC_FILE: &str = "card-key.json";
const SECRET_FILE: &str = "card.key";

type Suite = X25519HkdfSha256;

/// Opens sealed cards.
pub(super) struct CardOpener {
    secret: <Suite as Kem>::PrivateKey,
    public: [u8; 32],
}

impl CardOpener {
    /// The key kept in `dir`, or a new one.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join(SECRET_FILE);
        if !path.exists() {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(io::Error::other)?;
            fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?
                .write_all(HEXLOWER.encode(&seed).as_bytes())?;
        }
        let damaged = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is no key", path.display()),
            )
        };
        let seed = fs::read_to_string(&path)?;
        let seed = HEXLOWER.decode(seed.trim().as_bytes()).map_err(|_| damaged())?;
        if seed.len() != 32 {
            return Err(damaged());
        }
        let (secret, public) = Suite::derive_keypair(&seed);
        let public: [u8; 32] = public.to_bytes().into();
        let shown = json!({
            "key_id": HEXLOWER.encode(&card_key_id(&public)),
            "public_key": HEXLOWER.encode(&public),
        });
        fs::write(dir.join(PUBLIC_FILE), format!("{shown}\n"))?;
        Ok(Self { secret, public })
    }

    /// What devices of a merchant seal to.
    pub(super) fn key_for(&self, merchant: &str) -> Result<CardKey, hub_sdk::SealError> {
        CardKey::new(self.public, merchant)
    }

    /// Opens the card of a payment. What is not sealed to this gateway's key
    /// by HPKE cannot be opened here: card data of readers (DUKPT), and those
    /// of devices that make no envelope. They pass.
    ///
    /// # Errors
    /// What is wrong, without anything of the content.
    pub(super) fn check(
        &self,
        blob: &[u8],
        request: &PaymentRequest,
        merchant: &str,
    ) -> Result<(), &'static str> {
        let Ok(envelope) = CardBlob::from_blob(blob) else {
            return Ok(());
        };
        if envelope.scheme != SealScheme::Hpke {
            return Ok(());
        }
        if envelope.key_id != card_key_id(&self.public) {
            return Err("the sealed card names another key than the gateway's");
        }
        let aad = CardBinding {
            payment_id: request.payment_id,
            amount_minor: request.amount_minor(),
            currency: request.currency,
            merchant: merchant.to_owned(),
        }
        .aad();
        let opened = envelope.hpke_parts().and_then(|(encapsulated, ciphertext)| {
            let encapsulated = <Suite as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
            single_shot_open::<ChaCha20Poly1305, HkdfSha256, Suite>(
                &OpModeR::Base,
                &self.secret,
                &encapsulated,
                CARD_INFO,
                ciphertext,
                &aad,
            )
            .ok()
        });
        match opened {
            Some(_) => Ok(()),
            None => Err("the sealed card does not open for this payment and this store"),
        }
    }
}
