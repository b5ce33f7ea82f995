//! Keys and certificates on the wire.
//!
//! A certificate here is a container for a P-256 key, self-signed, with
//! nothing in it that anybody checks: who a peer is, is the SHA-256 of its
//! SubjectPublicKeyInfo. Whether it may connect is the registry's word.

use std::fmt;
use std::sync::Arc;

use hub_protocol::cose::p256_point;
use hub_protocol::{CertificateKeys, Digest, HubId, TLS_KEYS_OID};
use quinn::crypto::rustls::QuicServerConfig;
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme,
};
use zeroize::Zeroizing;

use super::registry::Registry;

/// Why the hub's TLS key could not be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The key file does not hold what it should.
    #[error("the hub's TLS key is not a P-256 key in PKCS#8 PEM; restore keys/hub-tls.key from its backup")]
    Key(#[source] rcgen::Error),
    /// The container could not be made from the key.
    #[error("the hub's certificate could not be made from its TLS key")]
    Certificate(#[source] rcgen::Error),
    /// The private half of no key under which the hub is reached is here.
    #[error(
        "the ledger says that the hub is reached under another TLS key than keys/hub-tls.key; put back the newest \
         copy of keys/"
    )]
    NoKey,
    /// rustls would not take key and certificate.
    #[error("the hub's TLS configuration was refused")]
    Config(#[from] Error),
    /// The TLS library lacks the cipher suite that QUIC begins with.
    #[error("the TLS library lacks TLS13_AES_128_GCM_SHA256, which QUIC needs")]
    Suite(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// What QUIC makes ids of connections and stateless resets (RFC 9000 §10.3)
/// with. They are derived from a TLS key, and so outlive the process: a device
/// that sends on a connection of the hub's former life is told at once, and
/// does not wait for its idle timeout with a customer at the counter.
#[derive(Clone)]
pub(super) struct QuicSecrets {
    /// Of the tokens by which a device knows a reset: whoever has it can end
    /// the connections that he hears.
    pub(super) reset: ring::hmac::Key,
    /// By which the hub knows the ids that it has made.
    pub(super) ids: u64,
}

/// The hub's TLS key in its container, and the identity it gives.
#[derive(Clone)]
pub struct HubIdentity {
    certificate: CertificateDer<'static>,
    key: Arc<Zeroizing<Vec<u8>>>,
    hub: HubId,
}

impl fmt::Debug for HubIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubIdentity({})", self.hub)
    }
}

impl HubIdentity {
    /// From the P-256 private key in PKCS#8 PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError::Key`] if the text is anything else.
    pub fn from_pem(pem: &str) -> Result<Self, TlsError> {
        let pair = rcgen::KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(TlsError::Key)?;
        let certificate = container(&pair, None)?;
        let spki = p256_spki(&certificate)?;
        Ok(Self {
            certificate,
            key: Arc::new(Zeroizing::new(pair.serialize_der())),
            hub: HubId::of_spki(&spki),
        })
    }

    /// SHA-256 over the key's SubjectPublicKeyInfo, as the name of a hub
    /// that has had no other key.
    pub fn hub_id(&self) -> HubId {
        self.hub
    }

    /// SHA-256 over the key's SubjectPublicKeyInfo.
    pub fn digest(&self) -> Digest {
        Digest(self.hub.0)
    }

    /// The same key in a container that tells of the hub's keys.
    pub(super) fn certified(&self, says: Option<&CertificateKeys>) -> Result<CertifiedKey, TlsError> {
        let certificate = match says {
            None => self.certificate.clone(),
            Some(says) => {
                let key = PrivatePkcs8KeyDer::from(self.key.as_slice());
                let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256)
                    .map_err(TlsError::Key)?;
                container(&pair, Some(says))?
            }
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.to_vec()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        Ok(CertifiedKey::new(vec![certificate], key))
    }

    /// A secret that stays the same over restarts, for one purpose.
    fn derived(&self, purpose: &str) -> [u8; 32] {
        let mut input = Zeroizing::new(Vec::with_capacity(self.key.len() + purpose.len()));
        input.extend_from_slice(purpose.as_bytes());
        input.extend_from_slice(&self.key);
        Digest::of(&input).0
    }

    /// The secrets that QUIC makes ids and stateless resets with.
    pub(super) fn quic_secrets(&self) -> QuicSecrets {
        let reset = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.derived("hub-quic-reset/1"));
        let mut ids = [0; 8];
        ids.copy_from_slice(&self.derived("hub-quic-connection-id/1")[..8]);
        let ids = u64::from_be_bytes(ids);
        QuicSecrets { reset, ids }
    }

    /// TLS 1.3 only, mutual, no tickets, no early data.
    pub(super) fn crypto(
        presented: Arc<dyn ResolvesServerCert>,
        admit: Admit,
        alpn: &[&[u8]],
    ) -> Result<QuicServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = DeviceVerifier {
            admit,
            algorithms: provider.signature_verification_algorithms,
        };
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(presented);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        Ok(QuicServerConfig::try_from(config)?)
    }
}

fn container(
    pair: &rcgen::KeyPair,
    says: Option<&CertificateKeys>,
) -> Result<CertificateDer<'static>, TlsError> {
    let mut params =
        rcgen::CertificateParams::new(vec!["store-hub".to_owned()]).map_err(TlsError::Certificate)?;
    let says = says.map(|says| rcgen::CustomExtension::from_oid_content(&TLS_KEYS_OID, says.to_der()));
    params.custom_extensions.extend(says);
    let certificate = params.self_signed(pair).map_err(TlsError::Certificate)?;
    Ok(certificate.into())
}

/// The SubjectPublicKeyInfo of a certificate with a P-256 key.
///
/// Read with the same parser that rustls checks the handshake signature with,
/// so that the key that signed is the key that is looked up.
fn p256_spki(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    let spki = ParsedCertificate::try_from(certificate)?.subject_public_key_info();
    match p256_point(&spki) {
        Some(_) => Ok(spki.to_vec()),
        None => Err(CertificateError::BadEncoding.into()),
    }
}

/// Checks ECDSA over SHA-256 on P-256: what a device's TLS key signs beside
/// handshakes ([`hub_protocol::cose::CheckP256`]).
pub(super) fn check_p256(point: &[u8; 65], message: &[u8], signature: &[u8; 64]) -> bool {
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(message, signature).is_ok()
}

/// What a device is named after, from any bytes as its certificate.
#[cfg(fuzzing)]
pub fn fuzz_certificate(bytes: &[u8]) {
    if let Ok(spki) = p256_spki(&CertificateDer::from(bytes)) {
        assert!(
            spki.len() == hub_protocol::cose::P256_SPKI_LEN
                && bytes.windows(spki.len()).any(|part| part == spki)
        );
    }
}

/// SHA-256 over the SubjectPublicKeyInfo of the key in the certificates of an
/// established connection's other end: the name of a device that has had no other.
pub(super) fn key_of(chain: &[CertificateDer<'_>]) -> Option<Digest> {
    let spki = p256_spki(chain.first()?).ok()?;
    Some(Digest::of(&spki))
}

/// Whose handshake may succeed.
#[derive(Debug)]
pub(super) enum Admit {
    /// Enrolled devices that are not blocked; with a key that they had before,
    /// to be told so.
    Enrolled(Registry),
    /// Whoever holds a P-256 key: on the enrolment endpoint the code decides.
    AnyKey,
}

#[derive(Debug)]
struct DeviceVerifier {
    admit: Admit,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for DeviceVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if !intermediates.is_empty() {
            return Err(CertificateError::BadEncoding.into());
        }
        let key = Digest::of(&p256_spki(end_entity)?);
        match &self.admit {
            Admit::Enrolled(registry) if registry.owner(&key).is_none() => {
                // Becomes the TLS alert access_denied (49).
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            Admit::Enrolled(_) | Admit::AnyKey => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if dss.scheme != SignatureScheme::ECDSA_NISTP256_SHA256 {
            return Err(CertificateError::BadSignature.into());
        }
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hub_id_is_sha_256_over_the_spki_of_its_key_and_stays() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let one = HubIdentity::from_pem(&pair.serialize_pem()).unwrap();
        let two = HubIdentity::from_pem(&pair.serialize_pem()).unwrap();
        assert_eq!(one.hub_id(), two.hub_id());
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        assert_eq!(one.hub_id(), HubId::of_spki(&spki));
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let error = HubIdentity::from_pem(&pair.serialize_pem()).unwrap_err();
        assert!(matches!(error, TlsError::Key(_)));
    }
}
