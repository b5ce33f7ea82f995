//! Where the acquirer is, and who is who there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls_platform_verifier::BuilderVerifierExt;

use super::line::Road;
use crate::iso8583::{Dialect, Identity};
use crate::upstream::settings::{UpstreamError, roots_of};

/// How to reach the acquirer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host name or address. The acquirer's certificate must be for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// PEM certificates that alone are trusted for the acquirer. Without it,
    /// the machine's own roots are.
    pub ca_file: Option<PathBuf>,
    /// The hub's own certificate chain and its key (PEM), if the acquirer
    /// wants to see one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How the acquirer speaks.
    pub dialect: Dialect,
    /// Who the hub is there.
    pub identity: Identity,
    /// The most backlog exchanges at one time. At least 1 is taken.
    pub max_in_flight: usize,
    /// How long a probe may take.
    pub probe_timeout: Duration,
    /// After so long without a message, an echo test.
    pub idle: Duration,
    /// How long writing a message may take, and reading one that has begun.
    pub one_message: Duration,
    /// The first pause between two tries to connect, and the longest.
    pub pauses: (Duration, Duration),
}

impl Settings {
    pub(super) fn road(&self) -> Result<Road, UpstreamError> {
        let name = ServerName::try_from(self.host.clone()).map_err(|error| UpstreamError::Url {
            url: self.host.clone(),
            fault: error.to_string(),
        })?;
        Ok(Road {
            host: self.host.clone(),
            port: self.port,
            name,
            tls: Arc::new(self.tls()?),
            idle: self.idle,
            one_message: self.one_message,
            pauses: self.pauses,
        })
    }

    /// TLS 1.2 and 1.3 with ring.
    fn tls(&self) -> Result<ClientConfig, UpstreamError> {
        let client = |error: rustls::Error| UpstreamError::Client(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(client)?;
        let builder = match self.ca_file.as_deref() {
            Some(path) => builder.with_root_certificates(roots_of(path)?),
            None => builder
                .with_platform_verifier()
                .map_err(|error| UpstreamError::Roots(error.to_string()))?,
        };
        match &self.client_certificate {
            None => Ok(builder.with_no_client_auth()),
            Some((chain, key)) => builder
                .with_client_auth_cert(chain_of(chain)?, key_of(key)?)
                .map_err(client),
        }
    }
}

fn chain_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, UpstreamError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| UpstreamError::Client(format!("{}: {error}", path.display())))
}

fn key_of(path: &Path) -> Result<PrivateKeyDer<'static>, UpstreamError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| UpstreamError::Client(format!("{}: {error}", path.display())))
}
