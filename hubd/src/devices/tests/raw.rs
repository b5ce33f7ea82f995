//! A device without hub-sdk's manners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hub_protocol::{Answer, Digest, RefusalCode, frame};
use hub_sdk::DeviceIdentity;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::{FakeHub, within};

/// Connects with the device's key, or with none. `None` if the hub turns it
/// away, which with TLS 1.3 may show only after the client's side is done.
pub(super) async fn connect(
    hub: &FakeHub,
    identity: Option<&DeviceIdentity>,
    alpn: &[u8],
) -> Option<Connection> {
    connect_from([127, 0, 0, 1], hub.devices.local_addr(), identity, alpn).await
}

/// SHA-256 over the SubjectPublicKeyInfo of the key that the hub shows to
/// whoever offers this.
pub(super) async fn shown_key(to: SocketAddr, identity: &DeviceIdentity, alpn: &[u8]) -> Digest {
    let connection = connect_from([127, 0, 0, 1], to, Some(identity), alpn)
        .await
        .unwrap();
    let shown = connection.peer_identity().unwrap();
    let shown = shown.downcast::<Vec<CertificateDer<'static>>>().unwrap();
    let certificate = rustls::server::ParsedCertificate::try_from(&shown[0]).unwrap();
    Digest::of(&certificate.subject_public_key_info())
}

/// The same from this address, to an endpoint of the hub.
pub(super) async fn connect_from(
    from: [u8; 4],
    to: SocketAddr,
    identity: Option<&DeviceIdentity>,
    alpn: &[u8],
) -> Option<Connection> {
    let connection = dial(from, to, identity, alpn).await?;
    // An answer, of whatever kind, shows that the hub let it in.
    ask(&connection, &[]).await.map(|_| connection)
}

/// The same without waiting for the hub to let it in.
pub(super) async fn dial(
    from: [u8; 4],
    to: SocketAddr,
    identity: Option<&DeviceIdentity>,
    alpn: &[u8],
) -> Option<Connection> {
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyHub));
    let mut config = match identity {
        Some(identity) => {
            let dir = tempfile::tempdir().unwrap();
            identity.save(dir.path()).unwrap();
            let pem = std::fs::read_to_string(dir.path().join("device-tls.key")).unwrap();
            let pair = rcgen::KeyPair::from_pem(&pem).unwrap();
            let certificate = rcgen::CertificateParams::default().self_signed(&pair).unwrap();
            let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
            config
                .with_client_auth_cert(vec![certificate.into()], key)
                .unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
    let endpoint = Endpoint::client((from, 0).into()).unwrap();
    let connecting = endpoint.connect_with(config, to, "store-hub").unwrap();
    within(connecting).await.ok()
}

/// Connects anew and gives the refusal's number that the first request gets.
pub(super) async fn first_answer(
    hub: &FakeHub,
    identity: &DeviceIdentity,
    alpn: &[u8],
    bytes: &[u8],
) -> Option<RefusalCode> {
    let to = hub.devices.local_addr();
    let connection = dial([127, 0, 0, 1], to, Some(identity), alpn).await?;
    ask(&connection, bytes).await
}

/// Sends bytes on a stream and gives the refusal's number.
pub(super) async fn ask(connection: &Connection, bytes: &[u8]) -> Option<RefusalCode> {
    match answer(connection, bytes).await? {
        Answer::Refused { refusal } => Some(refusal.code),
        other => panic!("{other:?}"),
    }
}

/// Sends bytes on a stream and gives the answer, unless the hub is gone.
pub(super) async fn answer(connection: &Connection, bytes: &[u8]) -> Option<Answer> {
    let exchange = async {
        let (mut send, mut recv) = connection.open_bi().await.ok()?;
        // The hub may stop reading early.
        let _ = send.write_all(bytes).await;
        let _ = send.finish();
        recv.read_to_end(64 * 1024).await.ok()
    };
    Some(frame::from_wire(&within(exchange).await?).unwrap())
}

/// Sends a byte at a time on so many streams, until the hub closes the
/// connection. Gives its code and its reason.
pub(super) async fn trickle(connection: &Connection, streams: usize) -> (u64, String) {
    let mut open = Vec::new();
    for _ in 0..streams {
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&16_000_u32.to_be_bytes()).await.unwrap();
        open.push((send, recv));
    }
    while connection.close_reason().is_none() {
        for (send, _) in &mut open {
            let _ = send.write_all(&[0]).await;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    match connection.close_reason() {
        Some(quinn::ConnectionError::ApplicationClosed(close)) => (
            close.error_code.into_inner(),
            String::from_utf8_lossy(&close.reason).into_owned(),
        ),
        other => panic!("{other:?}"),
    }
}

#[derive(Debug)]
struct AnyHub;

impl ServerCertVerifier for AnyHub {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
