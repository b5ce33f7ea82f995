//! How a device becomes known to a hub.
//!
//! A technician reads a one-time code off the hub. The device presents the
//! code's token on the enrolment endpoint, over a TLS connection made with
//! the key it will use for life, in a message signed with the Ed25519 key it
//! will sign payments with.

use core::fmt;
use core::str::FromStr;

use data_encoding::BASE32_NOPAD;
use minicbor::{Decode, Encode};

use crate::cbor;
use crate::cose::{self, ObjectType};
use crate::id::{DeviceId, Digest, HubId, KeyId};
use crate::payment::{DeviceClass, check_text};
use crate::refusal::{Refusal, RefusalCode};

/// How long an enrolment code is good for, in seconds.
pub const CODE_LIFETIME_SECONDS: u64 = 600;

/// The longest enrolment code in text, in bytes, without white space: room
/// for some fifty addresses, and still a QR code.
pub const MAX_CODE_TEXT: usize = 4096;

/// The prefix of an enrolment code in text.
const PREFIX: &str = "HUB1-";

/// What a technician carries from the hub to the device, as text or QR code.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EnrolmentCode {
    /// The hub's identity: the device accepts no other.
    #[n(1)]
    pub hub: HubId,
    /// 128 random bits, good once.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub token: [u8; 16],
    /// Where the enrolment endpoint listens, `address:port`, best first.
    #[n(3)]
    pub enrol_addresses: Vec<String>,
    /// Where the hub listens for payments, `address:port`, best first: the
    /// static addresses that serve where multicast is blocked.
    #[n(4)]
    pub addresses: Vec<String>,
    /// SHA-256 over the SubjectPublicKeyInfo of the TLS key by which the hub is
    /// reached, if that is not the one it is named after.
    #[n(5)]
    pub tls_key: Option<Digest>,
}

impl EnrolmentCode {
    /// SHA-256 over the SubjectPublicKeyInfo of the TLS key by which the hub
    /// proves itself.
    pub fn pin(&self) -> Digest {
        self.tls_key.unwrap_or(Digest(self.hub.0))
    }
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentCode(hub {}, token hidden)", self.hub.short())
    }
}

/// Text that is not an enrolment code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an enrolment code: expected the text beginning with HUB1- that `hubctl enrol` shows")]
pub struct EnrolmentCodeError;

impl fmt::Display for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE32_NOPAD.encode(&cbor::encode(self)))
    }
}

impl FromStr for EnrolmentCode {
    type Err = EnrolmentCodeError;
    fn from_str(text: &str) -> Result<Self, EnrolmentCodeError> {
        let letters = text.chars().filter(|letter| !letter.is_whitespace());
        let text: String = letters.take(MAX_CODE_TEXT + 1).collect();
        if text.len() > MAX_CODE_TEXT {
            return Err(EnrolmentCodeError);
        }
        let text = text.to_ascii_uppercase();
        let body = text.strip_prefix(PREFIX).ok_or(EnrolmentCodeError)?;
        let bytes = BASE32_NOPAD
            .decode(body.as_bytes())
            .map_err(|_| EnrolmentCodeError)?;
        cbor::decode(&bytes).map_err(|_| EnrolmentCodeError)
    }
}

/// A device asks to be enrolled; signed by the key it names
/// ([`ObjectType::Enrolment`](crate::cose::ObjectType)).
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct EnrolmentRequest {
    /// The token of the code.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub token: [u8; 16],
    /// The hub it wants to be enrolled with.
    #[n(2)]
    pub hub: HubId,
    /// The device's identity: must be that of the TLS key of this connection.
    #[n(3)]
    pub device: DeviceId,
    /// The Ed25519 public key it will sign with.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub signing_key: [u8; 32],
    /// What kind of device it is.
    #[n(5)]
    pub class: DeviceClass,
    /// What people call it, 1 to 64 bytes, such as "Caisse 3".
    #[n(6)]
    pub name: String,
    /// Vendor and model, 1 to 64 bytes.
    #[n(7)]
    pub model: String,
}

impl fmt::Debug for EnrolmentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "EnrolmentRequest({} {}, token hidden)",
            self.class,
            self.device.short()
        )
    }
}

impl EnrolmentRequest {
    /// Opens a signed request: takes the signing key from the request itself,
    /// refuses a weak one, and checks the signature with it, which proves that
    /// the device holds it. That the device's identity is the one of the
    /// connection, and that the token is good, is for the caller to check.
    pub fn open(signed: &[u8]) -> Result<Self, Refusal> {
        let object = cose::Unverified::parse(signed)?;
        let request: Self = cbor::decode(object.payload_unverified())?;
        let key = cose::verifying_key(&request.signing_key).ok_or_else(|| {
            Refusal::new(
                RefusalCode::EnrolmentKey,
                "signing_key: a strong Ed25519 key expected",
            )
        })?;
        object.verify(ObjectType::Enrolment, &key)?;
        request.check()?;
        Ok(request)
    }

    /// Holds the request to the ranges that the protocol states.
    pub fn check(&self) -> Result<(), Refusal> {
        check_text("name", &self.name)?;
        check_text("model", &self.model)
    }
}

/// An enrolled device, as the ledger records it and as the hub confirms it,
/// signed ([`ObjectType::Registration`](crate::cose::ObjectType)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Registration {
    /// The device's identity.
    #[n(1)]
    pub device: DeviceId,
    /// The Ed25519 public key it signs with.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub signing_key: [u8; 32],
    /// What kind of device it is.
    #[n(3)]
    pub class: DeviceClass,
    /// What people call it.
    #[n(4)]
    pub name: String,
    /// Vendor and model.
    #[n(5)]
    pub model: String,
    /// The hub that enrolled it.
    #[n(6)]
    pub hub: HubId,
    /// The Ed25519 public key that the hub signs receipts with.
    #[n(7)]
    #[cbor(with = "minicbor::bytes")]
    pub hub_signing_key: [u8; 32],
    /// When, milliseconds since 1970 UTC.
    #[n(8)]
    pub enrolled_ms: u64,
}

impl Registration {
    /// The id of the device's signing key.
    pub fn key_id(&self) -> KeyId {
        KeyId::of_key(&self.signing_key)
    }
}
