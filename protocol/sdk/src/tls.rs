//! TLS on the device's side: one hub is trusted, by the SHA-256 of its key, or
//! by what it has stated of its later ones.

use std::sync::Arc;
use std::time::Duration;

use hub_protocol::Digest;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, PeerIncompatible, SignatureScheme};

use crate::enrolment::Enrolled;
use crate::error::SdkError;
use crate::identity::DeviceIdentity;

/// Sent as server name and checked by nobody: the pin decides.
pub(crate) const SERVER_NAME: &str = "store-hub";

/// How a connection learns that its path is dead while nobody asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Liveness {
    /// How often a silent connection is tried.
    keep_alive: Duration,
    /// So long after such a try, without a packet from the hub, the connection
    /// is given up; in milliseconds.
    idle_timeout_ms: u32,
}

impl Liveness {
    /// For payments. Each try costs the hub some 130 µs, so that a shop full
    /// of devices which tried every second would keep it awake; while a
    /// request waits its link is [watched](crate::link) more closely.
    pub(crate) const PAYMENTS: Self = Self {
        keep_alive: Duration::from_secs(10),
        idle_timeout_ms: 14_000,
    };

    /// For the one exchange of an enrolment, which nobody else watches.
    pub(crate) const ENROLMENT: Self = Self {
        keep_alive: Duration::from_secs(1),
        idle_timeout_ms: 3_000,
    };
}

/// A QUIC client for one hub: TLS 1.3, mutual, no resumption, no early data.
/// `alpn` is what it speaks, best first.
pub(crate) fn client_config(
    identity: &DeviceIdentity,
    hub: HubPin,
    alpn: &[&[u8]],
    liveness: Liveness,
) -> Result<quinn::ClientConfig, SdkError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let pin = PinnedHub {
        pin: hub,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(pin))
        .with_client_auth_cert(
            vec![identity.certificate()],
            PrivateKeyDer::Pkcs8(identity.tls_key()),
        )?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;

    // A request by itself needs no packet in return: the answer brings the
    // acknowledgement, or 25 ms (draft-ietf-quic-ack-frequency).
    let mut ack_frequency = AckFrequencyConfig::default();
    ack_frequency.ack_eliciting_threshold(VarInt::from_u32(9));
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(
            liveness.idle_timeout_ms,
        ))))
        .keep_alive_interval(Some(liveness.keep_alive))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(16))
        .stream_receive_window(VarInt::from_u32(20 * 1024))
        .receive_window(VarInt::from_u32(256 * 1024))
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(ack_frequency))
        // On a shop's network the first answer comes within milliseconds;
        // the standard's 333 ms would be the wait for each lost first packet.
        .initial_rtt(Duration::from_millis(100));
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// How the hub is known.
#[derive(Clone, Debug)]
pub(crate) enum HubPin {
    /// By a key's SHA-256 over its SubjectPublicKeyInfo and nothing else.
    Key(Digest),
    /// By that, and by what the hub states of its keys.
    Enrolled(Box<Enrolled>),
}

#[derive(Debug)]
struct PinnedHub {
    pin: HubPin,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedHub {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let spki = ParsedCertificate::try_from(end_entity)?.subject_public_key_info();
        let key = Digest::of(&spki);
        let known = match &self.pin {
            HubPin::Key(pinned) => key == *pinned,
            HubPin::Enrolled(enrolled) => enrolled.is_hub(&key, end_entity),
        };
        if known {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
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
