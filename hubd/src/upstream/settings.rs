//! Where the gateway is, and whom to trust there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;

/// How to reach the gateway.
#[derive(Clone)]
pub struct Settings {
    /// The gateway's base address, `https` only; a path is kept as a prefix.
    pub url: String,
    /// PEM certificates that alone are trusted for the gateway. Without it,
    /// the machine's own roots are.
    pub ca_file: Option<PathBuf>,
    /// The bearer token that the gateway gave the store.
    pub credential: Option<String>,
    /// The store's id at the gateway.
    pub store_id: String,
    /// The most backlog calls (deferred authorisations, advices, reversals)
    /// at one time. At least 1 is taken.
    pub max_in_flight: usize,
    /// How long a probe may take.
    pub probe_timeout: Duration,
}

// By hand, so that the credential never reaches a log.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("url", &self.url)
            .field("ca_file", &self.ca_file)
            .field("credential", &self.credential.as_ref().map(|_| "(withheld)"))
            .field("store_id", &self.store_id)
            .field("max_in_flight", &self.max_in_flight)
            .field("probe_timeout", &self.probe_timeout)
            .finish()
    }
}

/// Why the gateway cannot be spoken to with these settings.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The address is no address, or not one that payments may be sent to.
    #[error("gateway.url {url:?}: {fault}; expected something like https://gateway.example:443")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        fault: String,
    },
    /// The CA file cannot be read.
    #[error("gateway.ca_file {}: {fault}; expected a readable PEM file with at least one certificate", path.display())]
    CaFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The machine has no usable root certificates.
    #[error("no certificate roots on this machine ({0}); install ca-certificates or set gateway.ca_file")]
    Roots(String),
    /// The credential holds bytes that no header can carry.
    #[error(
        "the gateway credential holds characters that cannot be sent; expected one line of printable ASCII"
    )]
    Credential,
    /// The client could not be set up.
    #[error("the gateway client could not be set up: {0}")]
    Client(String),
}

/// Holds the address to what payments may be sent to.
pub(super) fn base_url(text: &str) -> Result<Url, UpstreamError> {
    let wrong = |fault: &str| UpstreamError::Url {
        url: text.to_owned(),
        fault: fault.to_owned(),
    };
    let mut url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if url.scheme() != "https" {
        return Err(wrong("payments are sent over https only"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not echoed: whatever stands there may be a secret.
        return Err(UpstreamError::Url {
            url: "(withheld)".to_owned(),
            fault: "holds a user name or password; use gateway.credential_file".to_owned(),
        });
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("holds a query or a fragment"));
    }
    // A trailing slash makes `join` keep the prefix.
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    Ok(url)
}

/// The `Authorization` header, marked so that it is not logged.
pub(super) fn authorization(credential: &str) -> Result<HeaderValue, UpstreamError> {
    let credential = credential.trim();
    if credential.is_empty() || !credential.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(UpstreamError::Credential);
    }
    let mut value =
        HeaderValue::from_str(&format!("Bearer {credential}")).map_err(|_| UpstreamError::Credential)?;
    value.set_sensitive(true);
    Ok(value)
}

/// TLS 1.2 and 1.3 with ring. A CA file replaces the machine's roots instead
/// of adding to them: whoever names one wants that one.
pub(super) fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, UpstreamError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| UpstreamError::Client(error.to_string()))?;
    let mut config = match ca_file {
        Some(path) => builder
            .with_root_certificates(roots_of(path)?)
            .with_no_client_auth(),
        None => builder
            .with_platform_verifier()
            .map_err(|error| UpstreamError::Roots(error.to_string()))?
            .with_no_client_auth(),
    };
    // One request a connection at a time: a lost segment or a slow answer
    // holds up one payment and not all of them.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

pub(super) fn roots_of(path: &Path) -> Result<rustls::RootCertStore, UpstreamError> {
    let wrong = |fault: String| UpstreamError::CaFile {
        path: path.to_owned(),
        fault,
    };
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("holds no certificate".to_owned()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_without_secrets_in_it_is_an_address_for_payments() {
        for good in [
            "https://gw.example",
            "https://127.0.0.1:8443/",
            "https://gw.example/psp/v9",
        ] {
            assert!(
                base_url(good).is_ok_and(|url| url.path().ends_with('/')),
                "{good}"
            );
        }
        for bad in [
            "http://gw.example",
            "gw.example",
            "https://",
            "https://gw.example/?a=b",
            "https://gw.example/#x",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
        let told = base_url("https://user:hunter2@gw.example")
            .unwrap_err()
            .to_string();
        assert!(!told.contains("hunter2"), "{told}");
    }

    #[test]
    fn the_credential_is_sent_but_never_shown() {
        let settings = Settings {
            url: "https://gw.example".into(),
            ca_file: None,
            credential: Some("s3cret".into()),
            store_id: "shop-001".into(),
            max_in_flight: 8,
            probe_timeout: Duration::from_secs(3),
        };
        assert!(!format!("{settings:?}").contains("s3cret"));
        let header = authorization("s3cret\n").unwrap();
        assert_eq!(header.as_bytes(), b"Bearer s3cret");
        assert!(!format!("{header:?}").contains("s3cret"));
        for bad in ["", "two words", "umläut", "line\nbreak"] {
            assert!(authorization(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty.pem");
        std::fs::write(&empty, "nothing here").unwrap();
        for path in [empty, dir.path().join("missing.pem")] {
            let told = tls(Some(&path)).unwrap_err().to_string();
            assert!(told.contains(&path.display().to_string()), "{told}");
        }
    }
}
