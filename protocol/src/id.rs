//! Identities: of payments, devices, keys and hubs.

use core::fmt;
use core::str::FromStr;
use data_encoding::HEXLOWER;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

/// Text that is not the identity it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: expected {expected}")]
pub struct IdError {
    what: &'static str,
    expected: &'static str,
}

macro_rules! byte_id {
    ($(#[$meta:meta])* $name:ident, $len:literal, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
        #[cbor(transparent)]
        pub struct $name(#[cbor(with = "minicbor::bytes")] pub [u8; $len]);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{self}") }
        }
    };
}

macro_rules! hex_text {
    ($name:ident, $what:literal, $expected:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&HEXLOWER.encode(&self.0))
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                HEXLOWER
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|b| b.try_into().ok())
                    .map(Self)
                    .ok_or(IdError {
                        what: $what,
                        expected: $expected,
                    })
            }
        }
    };
}

byte_id!(
    /// The identity of one payment for life, made by the device before the
    /// first send, and the only idempotency key on every hop. 16 bytes that
    /// never repeat (a UUID version 7 serves), written as a UUID.
    PaymentId, 16, "payment id"
);
byte_id!(
    /// A device's name for life: SHA-256 over the SubjectPublicKeyInfo (DER) of
    /// its first TLS key. It may change its keys
    /// ([`DeviceKeyChange`](crate::DeviceKeyChange)).
    DeviceId, 32, "device id"
);
byte_id!(
    /// A hub's name for life: SHA-256 over the SubjectPublicKeyInfo (DER) of its
    /// first TLS key. By which keys it is reached later, it states
    /// ([`HubTlsKeys`](crate::HubTlsKeys)).
    HubId, 32, "hub id"
);
byte_id!(
    /// A signing key: the first 16 bytes of SHA-256 over the 32 bytes of the
    /// Ed25519 public key. Stands as `kid` in COSE headers.
    KeyId, 16, "key id"
);
byte_id!(
    /// A SHA-256 value.
    Digest, 32, "SHA-256 value"
);

hex_text!(DeviceId, "device id", "64 lower-case hex digits");
hex_text!(HubId, "hub id", "64 lower-case hex digits");
hex_text!(KeyId, "key id", "32 lower-case hex digits");
hex_text!(Digest, "SHA-256 value", "64 lower-case hex digits");

impl Digest {
    /// All zero: the "previous hash" of the first ledger entry.
    pub const ZERO: Digest = Digest([0; 32]);

    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl DeviceId {
    /// The identity of the device whose TLS key has this
    /// SubjectPublicKeyInfo in DER.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(Digest::of(spki_der).0)
    }

    /// The first 8 bytes in hex: `k` in the device's mDNS TXT record, and the
    /// short form shown to people.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..8])
    }
}

impl HubId {
    /// The identity of the hub whose TLS key has this SubjectPublicKeyInfo.
    pub fn of_spki(spki_der: &[u8]) -> Self {
        Self(Digest::of(spki_der).0)
    }

    /// The first 8 bytes in hex, as shown to people and in mDNS.
    pub fn short(&self) -> String {
        HEXLOWER.encode(&self.0[..8])
    }
}

impl KeyId {
    /// The identity of an Ed25519 public key.
    pub fn of_key(public_key: &[u8; 32]) -> Self {
        let digest = Digest::of(public_key).0;
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        Self(id)
    }
}

impl fmt::Display for PaymentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = HEXLOWER.encode(&self.0);
        let text = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        f.pad(&text)
    }
}

impl FromStr for PaymentId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = IdError {
            what: "payment id",
            expected: "a UUID in lower case",
        };
        if text.len() != 36 {
            return Err(wrong);
        }
        let hex: String = text.split('-').collect();
        let id = HEXLOWER
            .decode(hex.as_bytes())
            .ok()
            .and_then(|b| b.try_into().ok())
            .map(Self)
            .ok_or(wrong)?;
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(wrong)
        }
    }
}
