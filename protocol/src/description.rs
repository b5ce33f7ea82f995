//! What a device says of itself, and what a verifier says of it.

use core::fmt;
use core::str::FromStr;

use minicbor::{Decode, Encode};

use crate::cbor::UnknownName;
use crate::codes::codes;
use crate::cose::ObjectType;
use crate::id::{DeviceId, KeyId};
use crate::payment::check_text;
use crate::refusal::Refusal;

codes! {
    /// What a device is certified as, by the standards of the PCI Security
    /// Standards Council.
    pub enum Certification {
        /// None that it knows of.
        None = 0, "none";
        /// PIN Transaction Security, for terminals and readers.
        Pts = 1, "pts";
        /// Contactless Payments on COTS.
        Cpoc = 2, "cpoc";
        /// Contactless Payments on COTS with the PIN on its glass.
        CpocPin = 3, "cpoc-pin";
        /// Software-based PIN Entry on COTS, beside a reader.
        Spoc = 4, "spoc";
        /// Mobile Payments on COTS.
        Mpoc = 5, "mpoc";
    }
}

codes! {
    /// A verifier's word on a device: the tiers of EAT Attestation Results
    /// (draft-ietf-rats-ear).
    pub enum AttestationStatus {
        /// Nothing can be said.
        None = 0, "none";
        /// It is as it should be.
        Affirming = 2, "affirming";
        /// Something is not as it should be.
        Warning = 32, "warning";
        /// It is not to be trusted.
        Contraindicated = 96, "contraindicated";
    }
}

/// A version of up to four numbers, such as 14.2.1. Numbers that are not
/// written are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Version(#[n(0)] pub [u32; 4]);

impl FromStr for Version {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let mut version = Self::default();
        let mut parts = text.split('.');
        for place in &mut version.0 {
            let Some(part) = parts.next() else {
                return Ok(version);
            };
            let digits = !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
            *place = part.parse().ok().filter(|_| digits).ok_or(UnknownName)?;
        }
        parts.next().map_or(Ok(version), |_| Err(UnknownName))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.0.iter().rposition(|part| *part > 0).unwrap_or(0);
        for (place, part) in self.0.iter().enumerate().take(last + 1) {
            let point = if place == 0 { "" } else { "." };
            write!(f, "{point}{part}")?;
        }
        Ok(())
    }
}

/// What a device says of itself, signed by it
/// ([`ObjectType::DeviceDescription`](crate::cose::ObjectType)).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceDescription {
    /// Who.
    #[n(1)]
    pub device: DeviceId,
    /// The device's clock, milliseconds since 1970 UTC. Never trusted.
    #[n(2)]
    pub device_time_ms: u64,
    /// Who makes it, 1 to 64 bytes.
    #[n(3)]
    pub vendor: String,
    /// Its model, 1 to 64 bytes.
    #[n(4)]
    pub model: String,
    /// Its operating system, 1 to 64 bytes.
    #[n(5)]
    pub os: String,
    /// And that one's version.
    #[n(6)]
    pub os_version: Version,
    /// The version of its payment app.
    #[n(7)]
    pub app_version: Version,
    /// What it is certified as.
    #[n(8)]
    pub certification: Certification,
}

impl DeviceDescription {
    /// Holds the description to the ranges that the protocol states.
    ///
    /// # Errors
    /// The first fault, in the order of the fields.
    pub fn check(&self) -> Result<(), Refusal> {
        check_text("vendor", &self.vendor)?;
        check_text("model", &self.model)?;
        check_text("os", &self.os)
    }
}

/// What a verifier says of a device, signed by the verifier
/// ([`object_type`](Self::object_type)): the passport of the RATS architecture
/// (RFC 9334), with the claims of an Entity Attestation Token (RFC 9711) under
/// their registered numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AttestationResult {
    /// `iat`: when, seconds since 1970 UTC.
    #[n(6)]
    pub issued_s: u64,
    /// `cnf` (RFC 8747): the key that the device signs with. Without it the
    /// word is on the keys that the device was enrolled with, and ends with
    /// them.
    #[n(8)]
    pub confirmed: Option<Confirmed>,
    /// `ueid`: which device, type byte 1 and its identity.
    #[n(256)]
    #[cbor(with = "minicbor::bytes")]
    pub ueid: [u8; 33],
    /// `ear.status`: the verifier's word.
    #[n(1000)]
    pub status: AttestationStatus,
}

/// A key that somebody is shown to have: the `cnf` claim of RFC 8747.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Confirmed {
    /// `kid`: the first 16 bytes of SHA-256 over the 32 bytes of the device's
    /// Ed25519 key.
    #[n(3)]
    pub key: KeyId,
}

/// The type of a `ueid` that is a number nobody else has (RFC 9711, 4.2.1).
const RAND: u8 = 1;

impl AttestationResult {
    /// A word on this device, while it has the keys that it was enrolled with.
    pub fn new(device: DeviceId, issued_s: u64, status: AttestationStatus) -> Self {
        let mut ueid = [RAND; 33];
        ueid[1..].copy_from_slice(&device.0);
        Self {
            issued_s,
            confirmed: None,
            ueid,
            status,
        }
    }

    /// The same word on the device while it signs with this key.
    #[must_use]
    pub fn signing_with(self, key: KeyId) -> Self {
        let confirmed = Some(Confirmed { key });
        Self { confirmed, ..self }
    }

    /// What it is signed as: one that names a key as another type than one
    /// that does not.
    pub fn object_type(&self) -> ObjectType {
        match self.confirmed {
            None => ObjectType::AttestationResult,
            Some(_) => ObjectType::AttestationResult2,
        }
    }

    /// Whether it is on this device.
    pub fn is_of(&self, device: &DeviceId) -> bool {
        self.ueid[0] == RAND && self.ueid[1..] == device.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        let version = |text: &str| text.parse::<Version>();
        assert!(version("14.10").unwrap() > version("14.9.9.9").unwrap());
        assert_eq!(version("14").unwrap(), version("14.0.0").unwrap());
        assert_eq!(version("14.2").unwrap().to_string(), "14.2");
        assert_eq!(version("0.0").unwrap().to_string(), "0");
        for bad in ["", ".", "1.", "1..2", "+1", "1.2.3.4.5", "1a", "9999999999"] {
            assert!(version(bad).is_err(), "{bad}");
        }
    }
}
