//! Somebody on the shop's network who means no good: strangers, and
//! enrolled devices in the wrong hands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hub_protocol::{DeviceClass, EnrolmentCode};
use hub_sdk::{DeviceIdentity, Enrolled};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, IdleTimeout, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use serde_json::Value;

use super::kinds::{Kind, Running};
use crate::shop::Shop;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(1);

/// Who floods.
#[derive(Clone)]
pub(super) struct Intruder {
    /// Addresses that floods come from.
    pub(super) addresses: u8,
    /// An enrolled device for each flood that takes one: whoever is shut out
    /// for one flood would sit the next one out.
    pub(super) devices: [Arc<Who>; 4],
    /// A device that is not.
    pub(super) stranger: Arc<Who>,
    /// Where devices connect and where they enrol.
    pub(super) to: SocketAddr,
    pub(super) enrol_to: SocketAddr,
    /// The hub, as its enrolment codes name it.
    pub(super) hub: hub_protocol::HubId,
}

/// Keys, and their PEM.
pub(super) struct Who {
    pub(super) identity: DeviceIdentity,
    pem: String,
}

impl Who {
    fn new() -> Result<Self> {
        let identity = DeviceIdentity::generate()?;
        let dir = tempfile::tempdir()?;
        identity.save(dir.path())?;
        let pem = std::fs::read_to_string(dir.path().join("device-tls.key"))?;
        Ok(Self { identity, pem })
    }

    /// Its side of a handshake that takes any hub.
    pub(super) fn crypto(&self, alpn: &[u8]) -> Result<Arc<QuicClientConfig>> {
        let pair = rcgen::KeyPair::from_pem(&self.pem)?;
        let certificate = rcgen::CertificateParams::default().self_signed(&pair)?;
        let key = PrivateKeyDer::from_pem_slice(self.pem.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyHub))
            .with_client_auth_cert(vec![certificate.into()], key)?;
        config.alpn_protocols = vec![alpn.to_vec()];
        Ok(Arc::new(QuicClientConfig::try_from(config)?))
    }

    /// The same for a connection whose packets are all of full length.
    pub(super) fn config(&self, alpn: &[u8]) -> Result<quinn::ClientConfig> {
        let mut config = quinn::ClientConfig::new(self.crypto(alpn)?);
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(3_000))))
            // However little is in a packet, it is as long as they come.
            .pad_to_mtu(true);
        config.transport_config(Arc::new(transport));
        Ok(config)
    }
}

impl Intruder {
    /// Gets hold of devices that the shop enrolled.
    pub(super) async fn join(shop: &Shop, addresses: u8) -> Result<Self> {
        let devices = [
            enrolled(shop).await?,
            enrolled(shop).await?,
            enrolled(shop).await?,
            enrolled(shop).await?,
        ];
        let [(_, code, enrolled), ..] = &devices;
        let to = enrolled.addresses.first().context("the code names no address")?;
        let enrol_to = code
            .enrol_addresses
            .first()
            .context("the code names no address")?;
        Ok(Self {
            addresses,
            to: *to,
            enrol_to: enrol_to.parse()?,
            hub: enrolled.hub,
            devices: devices.map(|(who, ..)| who),
            stranger: Arc::new(Who::new()?),
        })
    }

    /// Who floods in this way.
    pub(super) fn who(&self, kind: Kind) -> &Arc<Who> {
        let [slow, padding, huge, mad] = &self.devices;
        match kind {
            Kind::SlowStreams => slow,
            Kind::Padding => padding,
            Kind::HugeFrames => huge,
            Kind::MadDevice => mad,
            _ => &self.stranger,
        }
    }

    /// Begins a flood. `status` is the hub's.
    pub(super) fn start(&self, kind: Kind, status: &Value) -> Result<Running> {
        let mut intruder = self.clone();
        if let Some(address) = status["enrol_listen"].as_str() {
            intruder.enrol_to = address.parse()?;
        }
        Running::start(kind, intruder)
    }

    /// An address of this machine that a flood comes from.
    pub(super) fn source(&self, number: u8) -> SocketAddr {
        ([127, 0, 66, 1 + number % self.addresses], 0).into()
    }
}

async fn enrolled(shop: &Shop) -> Result<(Arc<Who>, EnrolmentCode, Enrolled)> {
    let code: EnrolmentCode = shop
        .enrolment_code(DeviceClass::Terminal)
        .await?
        .parse()
        .context("hubctl enrol gave something that is no code")?;
    let device = Who::new()?;
    let enrolled = hub_sdk::enrol(&device.identity, &code, DeviceClass::Terminal, "Folle", "sim").await?;
    Ok((Arc::new(device), code, enrolled))
}

/// Connects, or is turned away.
pub(super) async fn connect(
    endpoint: &Endpoint,
    config: &quinn::ClientConfig,
    to: SocketAddr,
) -> Option<Connection> {
    let connecting = endpoint.connect_with(config.clone(), to, "store-hub").ok()?;
    tokio::time::timeout(CONNECT, connecting).await.ok()?.ok()
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
