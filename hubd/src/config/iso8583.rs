//! `[gateway]` of a hub that speaks ISO 8583.

use std::path::{Path, PathBuf};

use hub_core::toml_reader::{At, Section, text};
use hub_protocol::Currency;
use jiff::tz::TimeZone;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use toml::de::DeValue;

use super::Acquirer;
use super::fault::ConfigFault;
use super::files::{self, Layout};
use super::settings::Reader;
use crate::iso8583::{Dialect, Identity};

/// The largest dialect file, in bytes.
const MAX_DIALECT: u64 = 256 * 1024;

/// The largest file of certificates or of a key, in bytes.
const MAX_PEM: u64 = 64 * 1024;

pub(super) fn read(
    reader: &Reader<'_>,
    section: &Section<'_, '_>,
    currency: Option<Currency>,
) -> Option<Acquirer> {
    let address = section.required(
        "address",
        "the acquirer's host and port, such as \"acquirer.example.com:5000\",",
        host_and_port,
    );
    let dialect_path = reader.path(section, "dialect");
    if !section.holds("dialect") {
        section.fault(
            section.line(),
            "gateway.dialect is missing: the path of a dialect file expected",
        );
    }
    let dialect = dialect_path.and_then(|at| read_dialect(reader, at));
    let client_certificate = read_client_certificate(reader, section);
    let short = |value: &DeValue<'_>| text::<String>(value);
    let merchant = section.required("merchant_id", "the merchant's id, field 42,", short);
    let terminal = section.required("terminal_id", "the terminal's id, field 41,", short);
    let acquirer = section.optional("acquirer_id", "the acquiring institution's id, field 32,", short);
    let zone = section.optional(
        "time_zone",
        "a time zone that this machine knows, such as \"Europe/Paris\",",
        |value| TimeZone::get(value.as_str()?).ok(),
    );
    let line = |key: &str| match key {
        "merchant_id" => merchant.as_ref().map(|at| at.line),
        "terminal_id" => terminal.as_ref().map(|at| at.line),
        _ => acquirer.as_ref().map(|at| at.line),
    };
    let lines: Vec<(&str, Option<usize>)> = ["merchant_id", "terminal_id", "acquirer_id"]
        .map(|key| (key, line(key)))
        .to_vec();
    let identity = Identity {
        merchant_id: merchant?.value,
        terminal_id: terminal?.value,
        acquirer_id: acquirer.map(|at| at.value),
        time_zone: zone.map_or(TimeZone::UTC, |at| at.value),
    };
    let dialect = dialect?;
    for (key, expected) in identity.faults(&dialect) {
        let line = lines
            .iter()
            .find(|(name, _)| *name == key)
            .and_then(|(_, line)| *line);
        section.fault(
            line.unwrap_or(section.line()),
            format!("gateway.{key}: {expected} expected"),
        );
    }
    if let Some(currency) = currency
        && dialect.currency(currency.as_str()).is_none()
    {
        section.fault(
            section.line(),
            format!(
                "gateway.dialect: no ISO 4217 number is known for {currency}; give field 49 the format a3"
            ),
        );
    }
    let (host, port) = address?.value;
    Some(Acquirer {
        host,
        port,
        client_certificate: client_certificate?,
        dialect,
        identity,
    })
}

fn host_and_port(value: &DeValue<'_>) -> Option<(String, u16)> {
    let (host, port) = value.as_str()?.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .map_or(Some(host), |rest| rest.strip_suffix(']'))?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    ServerName::try_from(host).ok()?;
    Some((host.to_owned(), port))
}

fn read_dialect(reader: &Reader<'_>, at: At<PathBuf>) -> Option<Dialect> {
    let text = reader.pointed_to(
        At {
            value: at.value.clone(),
            line: at.line,
        },
        |path| files::read_text(path, MAX_DIALECT),
    )?;
    Dialect::parse(&text)
        .map_err(|found| {
            for fault in found {
                reader
                    .faults
                    .add(ConfigFault::at(&at.value, fault.line, fault.message));
            }
        })
        .ok()
}

/// Certificate and key, both or neither; `None` after a fault.
fn read_client_certificate(
    reader: &Reader<'_>,
    section: &Section<'_, '_>,
) -> Option<Option<(PathBuf, PathBuf)>> {
    let chain = reader.path(section, "client_certificate_file");
    let key = reader.path(section, "client_key_file");
    match (chain, key) {
        (None, None) => Some(None),
        (Some(chain), Some(key)) => {
            let (chain_path, key_path) = (chain.value.clone(), key.value.clone());
            let certificates = reader.pointed_to(chain, read_chain);
            let line = key.line;
            let key = reader.pointed_to(key, |path| read_key(reader.layout, path));
            let pair = CertifiedKey::from_der(certificates?, key?, &rustls::crypto::ring::default_provider());
            if pair.is_err() {
                section.fault(
                    line,
                    "gateway.client_key_file: the key of the certificate in client_certificate_file expected",
                );
                return None;
            }
            Some(Some((chain_path, key_path)))
        }
        (Some(at), None) | (None, Some(at)) => {
            section.fault(
                at.line,
                "gateway.client_certificate_file and gateway.client_key_file: both expected, or neither",
            );
            None
        }
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = files::read(path, MAX_PEM)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.map_err(|_| "is not PEM".to_owned())?;
    match chain.len() {
        0 => Err("holds no certificate: PEM (BEGIN CERTIFICATE) expected".to_owned()),
        _ => Ok(chain),
    }
}

fn read_key(layout: &Layout, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let pem = files::read_secret_for(Some(&layout.dir), path, MAX_PEM)?;
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|_| "holds no private key: PEM (BEGIN PRIVATE KEY) expected".to_owned())
}
