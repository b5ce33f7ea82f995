//! The device's two keys: P-256 for TLS (what phones' secure
//! hardware can hold), Ed25519 for what it signs.
#![allow(clippy::disallowed_methods)] // entropy: keys are made here

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType, P256_SPKI_LEN};
use hub_protocol::{DeviceDescription, DeviceId, Digest, PaymentRequest, VoidRequest, cbor};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::SdkError;
use crate::{files, rotation};

pub(crate) const TLS_FILE: &str = "device-tls.key";
pub(crate) const SIGNING_FILE: &str = "device-signing.key";

/// The device's name and how often its keys have changed, once they have.
pub(crate) const NAME_FILE: &str = "device-id";

/// Who a device is. Clones share the keys.
#[derive(Clone)]
pub struct DeviceIdentity {
    keys: Arc<Keys>,
}

struct Keys {
    tls: KeyPair,
    certificate: CertificateDer<'static>,
    signing: SigningKey,
    device: DeviceId,
    changes: u32,
}

impl fmt::Debug for DeviceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceIdentity({})", self.keys.device)
    }
}

impl DeviceIdentity {
    /// Makes new keys. Takes well under a millisecond.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, SdkError> {
        let tls = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut())?;
        Self::from_keys(tls, &seed, None)
    }

    /// New keys for the same device.
    pub(crate) fn successor(&self) -> Result<Self, SdkError> {
        let new = Self::generate()?;
        let named = (self.keys.device, self.keys.changes.saturating_add(1));
        let tls = KeyPair::from_pkcs8_der_and_sign_algo(&new.tls_key(), &PKCS_ECDSA_P256_SHA256)?;
        Self::from_keys(tls, new.keys.signing.as_bytes(), Some(named))
    }

    /// Reads the keys that [`save`](Self::save) wrote, and ends a change of
    /// them that the hub has taken.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, SdkError> {
        rotation::finish(dir)?;
        Self::load_plain(dir)
    }

    pub(crate) fn load_plain(dir: &Path) -> Result<Self, SdkError> {
        let (path, pem) = files::read(dir, TLS_FILE)?;
        let pem = Zeroizing::new(pem);
        let tls = std::str::from_utf8(&pem)
            .ok()
            .and_then(|pem| KeyPair::from_pkcs8_pem_and_sign_algo(pem, &PKCS_ECDSA_P256_SHA256).ok())
            .ok_or(SdkError::Damaged { path })?;
        let (path, hex) = files::read(dir, SIGNING_FILE)?;
        let hex = Zeroizing::new(hex);
        let seed = HEXLOWER
            .decode(hex.trim_ascii())
            .ok()
            .map(Zeroizing::new)
            .and_then(|seed| <[u8; 32]>::try_from(seed.as_slice()).ok())
            .map(Zeroizing::new)
            .ok_or(SdkError::Damaged { path })?;
        let named = match files::read(dir, NAME_FILE) {
            Ok((path, text)) => Some(named(&text).ok_or(SdkError::Damaged { path })?),
            Err(SdkError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Self::from_keys(tls, &seed, named)
    }

    /// Writes the keys into `dir`, readable by their owner only (0600).
    ///
    /// # Errors
    ///
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), SdkError> {
        let pem = Zeroizing::new(self.keys.tls.serialize_pem());
        files::write_private(dir, TLS_FILE, pem.as_bytes())?;
        let seed = Zeroizing::new(self.keys.signing.to_bytes());
        let hex = Zeroizing::new(HEXLOWER.encode(seed.as_ref()));
        files::write_private(dir, SIGNING_FILE, hex.as_bytes())?;
        if self.keys.changes > 0 {
            let text = format!("{} {}\n", self.keys.device, self.keys.changes);
            files::write_private(dir, NAME_FILE, text.as_bytes())?;
        }
        Ok(())
    }

    fn from_keys(tls: KeyPair, seed: &[u8; 32], named: Option<(DeviceId, u32)>) -> Result<Self, SdkError> {
        let certificate = CertificateParams::new(vec!["pos-device".to_owned()])?
            .self_signed(&tls)?
            .into();
        let first = (DeviceId::of_spki(&tls.subject_public_key_info()), 0);
        let (device, changes) = named.unwrap_or(first);
        Ok(Self {
            keys: Arc::new(Keys {
                tls,
                certificate,
                signing: SigningKey::from_bytes(seed),
                device,
                changes,
            }),
        })
    }

    /// How often the keys have changed.
    pub fn key_changes(&self) -> u32 {
        self.keys.changes
    }

    /// SHA-256 over the TLS key's SubjectPublicKeyInfo.
    pub fn tls_digest(&self) -> Digest {
        Digest::of(&self.keys.tls.subject_public_key_info())
    }

    /// The device's name for life: SHA-256 over the SubjectPublicKeyInfo of its
    /// first TLS key.
    pub fn device_id(&self) -> DeviceId {
        self.keys.device
    }

    /// The Ed25519 key.
    pub fn signing_key(&self) -> &SigningKey {
        &self.keys.signing
    }

    /// Signs a payment request as it stands, without checking it.
    pub fn sign_request(&self, request: &PaymentRequest) -> Vec<u8> {
        cose::sign(&self.keys.signing, request.object_type(), &cbor::encode(request))
    }

    /// Signs what the device says of itself.
    pub fn sign_description(&self, description: &DeviceDescription) -> Vec<u8> {
        cose::sign(
            &self.keys.signing,
            ObjectType::DeviceDescription,
            &cbor::encode(description),
        )
    }

    /// Signs a request to void a payment.
    pub fn sign_void(&self, request: &VoidRequest) -> Vec<u8> {
        cose::sign(
            &self.keys.signing,
            ObjectType::VoidRequest,
            &cbor::encode(request),
        )
    }

    /// The TLS key's SubjectPublicKeyInfo, if it has the protocol's form.
    pub(crate) fn tls_key_info(&self) -> Option<[u8; P256_SPKI_LEN]> {
        self.keys.tls.subject_public_key_info().try_into().ok()
    }

    /// Signs with the TLS key: r and s of ECDSA over SHA-256, 32 bytes each.
    pub(crate) fn sign_with_tls(&self, message: &[u8]) -> Result<[u8; 64], SdkError> {
        let random = SystemRandom::new();
        let key = Zeroizing::new(self.keys.tls.serialize_der());
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &random);
        let signature = key.ok().and_then(|key| key.sign(&random, message).ok());
        let signature = signature.and_then(|signature| signature.as_ref().try_into().ok());
        signature.ok_or(SdkError::Signing)
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.keys.certificate.clone()
    }

    pub(crate) fn tls_key(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.keys.tls.serialize_der())
    }
}

fn named(text: &[u8]) -> Option<(DeviceId, u32)> {
    let (name, changes) = std::str::from_utf8(text).ok()?.trim().split_once(' ')?;
    Some((name.parse().ok()?, changes.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_identity_is_the_same_when_loaded_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let identity = DeviceIdentity::generate().unwrap();
        identity.save(dir.path()).unwrap();
        let loaded = DeviceIdentity::load(dir.path()).unwrap();
        assert_eq!(identity.device_id(), loaded.device_id());
        assert_eq!(identity.signing_key(), loaded.signing_key());
        #[cfg(unix)]
        for name in [TLS_FILE, SIGNING_FILE] {
            let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        }
    }

    #[test]
    fn damaged_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        DeviceIdentity::generate().unwrap().save(dir.path()).unwrap();
        std::fs::write(dir.path().join(SIGNING_FILE), "zz").unwrap();
        assert!(matches!(
            DeviceIdentity::load(dir.path()),
            Err(SdkError::Damaged { path }) if path.ends_with(SIGNING_FILE)
        ));
    }
}
