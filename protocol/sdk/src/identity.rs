//! The device's two keys, for life: P-256 for TLS (what phones' secure
//! hardware can hold), Ed25519 for what it signs.
#![allow(clippy::disallowed_methods)] // entropy: keys are made here

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{DeviceDescription, DeviceId, PaymentRequest, VoidRequest, cbor};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::error::SdkError;
use crate::files;

const TLS_FILE: &str = "device-tls.key";
const SIGNING_FILE: &str = "device-signing.key";

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
        Self::from_keys(tls, &seed)
    }

    /// Reads the keys that [`save`](Self::save) wrote.
    ///
    /// # Errors
    ///
    /// When a file is missing or damaged.
    pub fn load(dir: &Path) -> Result<Self, SdkError> {
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
        Self::from_keys(tls, &seed)
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
        files::write_private(dir, SIGNING_FILE, hex.as_bytes())
    }

    fn from_keys(tls: KeyPair, seed: &[u8; 32]) -> Result<Self, SdkError> {
        let certificate = CertificateParams::new(vec!["pos-device".to_owned()])?
            .self_signed(&tls)?
            .into();
        let device = DeviceId::of_spki(&tls.subject_public_key_info());
        Ok(Self {
            keys: Arc::new(Keys {
                tls,
                certificate,
                signing: SigningKey::from_bytes(seed),
                device,
            }),
        })
    }

    /// SHA-256 over the TLS key's SubjectPublicKeyInfo.
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

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.keys.certificate.clone()
    }

    pub(crate) fn tls_key(&self) -> PrivatePkcs8KeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.keys.tls.serialize_der())
    }
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
