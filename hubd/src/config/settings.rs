//! The sections of `hubd.toml`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use hub_core::toml_reader::{At, Document, Section, boolean, integer, text};
use hub_protocol::Currency;
use hub_protocol::root::Delegated;
use jiff::SignedDuration;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::fault::{ConfigFault, Faults};
use super::files::{self, Layout};
use super::logging::LogFormat;
use super::{
    Admin, Devices, Discovery, Gateway, Hub, Ledger, Log, MAX_SOCKET_PATH, Peer, PolicySource, iso8583, keys,
    policy_file, root_file,
};
use crate::recovery_key::RecoveryKey;

pub(super) const DEFAULT_SOCKET: &str = "hubd.sock";

/// The longest path or URL, in bytes.
const MAX_TEXT: usize = 2048;

/// The largest file of certificates, in bytes.
const MAX_CA_FILE: u64 = 1024 * 1024;

pub(super) struct Settings {
    pub(super) hub: Hub,
    pub(super) devices: Devices,
    pub(super) discovery: Discovery,
    pub(super) gateway: Gateway,
    pub(super) policy: PolicySource,
    pub(super) ledger: Ledger,
    pub(super) admin: Admin,
    pub(super) log: Log,
}

pub(super) struct Reader<'f> {
    pub(super) layout: &'f Layout,
    pub(super) faults: &'f Faults,
}

/// Reads every section before giving up, so that all faults are found.
pub(super) fn read(document: &Document<'_>, layout: &Layout, faults: &Faults) -> Option<Settings> {
    let reader = Reader { layout, faults };
    let root = document.root();
    let hub = read_hub(root.section("hub"));
    let devices = reader.devices(root.section("devices"));
    let discovery = reader.discovery(root.section("discovery"));
    let gateway = reader.gateway(root.section("gateway"), hub.as_ref());
    let policy = reader.policy(root.section("policy"), hub.as_ref());
    let ledger = read_ledger(root.section("ledger"), gateway.as_ref());
    let admin = reader.admin(root.section("admin"));
    let log = read_log(root.section("log"));
    root.finish();
    Some(Settings {
        hub: hub?,
        devices,
        discovery,
        gateway: gateway?,
        policy,
        ledger,
        admin,
        log,
    })
}

fn read_hub(section: Section<'_, '_>) -> Option<Hub> {
    let store = section.required("store", "the shop's name in 1 to 64 bytes", |value| {
        text::<String>(value).filter(|name| (1..=64).contains(&name.len()))
    });
    let store_id = section.required("store_id", "1 to 64 letters, digits, '.', '_' or '-'", |value| {
        text::<String>(value).filter(|id| {
            (1..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        })
    });
    let currency = section.required(
        "currency",
        "three capital letters (ISO 4217), such as \"EUR\",",
        text::<Currency>,
    );
    section.finish();
    Some(Hub {
        store: store?.value,
        store_id: store_id?.value,
        currency: currency?.value,
    })
}

fn read_ledger(section: Section<'_, '_>, gateway: Option<&Gateway>) -> Ledger {
    let mib = section.optional("segment_mib", "MiB from 1 to 1024", integer(1..=1024));
    let reserve = section.optional("reserve_mib", "MiB from 16 to 4096", integer(16..=4096));
    let low = section.optional("low_space_mib", "MiB from 64 to 1048576", integer(64..=1_048_576));
    let days = section.optional("retention_days", "days from 2 to 3660", integer(2..=3660));
    let archive = section.optional("archive_mib", "MiB from 64 to 1048576", integer(64..=1_048_576));
    let recovery_key = section.optional(
        "recovery_key",
        "the line that `hubctl keygen --recovery` printed, as it stands (hubrec1-..., 81 characters),",
        text::<RecoveryKey>,
    );
    let retention_ms = days.as_ref().map_or(90, |at| at.value) * 24 * 60 * 60 * 1000;
    if let (Some(at), Some(gateway)) = (&days, gateway)
        && u128::from(retention_ms) <= gateway.idempotency_retention.as_millis()
    {
        section.fault(
            at.line,
            "ledger.retention_days: longer than gateway.idempotency_retention_h expected",
        );
    }
    section.finish();
    Ledger {
        segment_bytes: mib.map_or(16, |at| at.value) * 1024 * 1024,
        reserve_bytes: reserve.map_or(64, |at| at.value) * 1024 * 1024,
        low_space_bytes: low.map_or(1024, |at| at.value) * 1024 * 1024,
        retention_ms,
        archive_bytes: archive.map_or(4096, |at| at.value) * 1024 * 1024,
        recovery_key: recovery_key.map(|at| at.value),
    }
}

fn read_log(section: Section<'_, '_>) -> Log {
    let level = section.optional("level", "one of error, warn, info, debug, trace", |value| {
        let name: String = text(value)?;
        ["error", "warn", "info", "debug", "trace"]
            .contains(&name.as_str())
            .then(|| name.parse().ok())
            .flatten()
    });
    let format = section.optional("format", "\"text\" or \"json\"", |value| {
        match value.as_str()? {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        }
    });
    section.finish();
    Log {
        level: level.map_or(tracing::Level::INFO, |at| at.value),
        format: format.map_or(LogFormat::Text, |at| at.value),
    }
}

impl Reader<'_> {
    fn warn(&self, line: usize, message: impl Into<String>) {
        self.faults.warn(&self.layout.config, Some(line), message);
    }

    fn devices(&self, section: Section<'_, '_>) -> Devices {
        let expected = "an address and port, such as \"0.0.0.0:7411\",";
        let listen = section.optional("listen", expected, text::<SocketAddr>);
        let enrol = section.optional("enrol_listen", expected, text::<SocketAddr>);
        let advertise = section.optional(
            "advertise",
            "a list of at most 8 addresses without port, such as [\"192.0.2.10\"],",
            bounded_list(8, |value| {
                text::<std::net::IpAddr>(value).filter(|address| !address.is_unspecified())
            }),
        );
        let rate = section.optional(
            "requests_per_second",
            "a whole number from 1 to 1000000",
            integer(1..=1_000_000),
        );
        if let (Some(listen), Some(enrol)) = (&listen, &enrol)
            && listen.value == enrol.value
            && listen.value.port() != 0
        {
            section.fault(
                enrol.line,
                "devices.enrol_listen: another port than that of devices.listen expected",
            );
        }
        for at in [&listen, &enrol].into_iter().flatten() {
            if at.value.port() == 0 {
                self.warn(
                    at.line,
                    "port 0 takes another port at every start: devices find the hub again only by mDNS",
                );
            }
        }
        section.finish();
        Devices {
            listen: listen.map_or_else(|| any(7411), |at| at.value),
            enrol_listen: enrol.map_or_else(|| any(7412), |at| at.value),
            advertise: advertise.map(|at| at.value).unwrap_or_default(),
            requests_per_second: rate.map_or(100, |at| u32::try_from(at.value).unwrap_or(100)),
        }
    }

    fn discovery(&self, section: Section<'_, '_>) -> Discovery {
        let enabled = section.optional("enabled", "true or false", boolean);
        let interfaces = section.optional(
            "interfaces",
            "a list of at most 16 network interfaces, such as [\"eth0\"],",
            bounded_list(16, |value| {
                // The kernel's own rule (dev_valid_name): 15 bytes, no slash,
                // no space.
                text::<String>(value).filter(|name| {
                    (1..=15).contains(&name.len())
                        && !name
                            .bytes()
                            .any(|byte| byte == b'/' || byte.is_ascii_whitespace())
                })
            }),
        );
        if let Some(at) = &interfaces {
            for name in &at.value {
                if !Path::new("/sys/class/net").join(name).exists() {
                    self.warn(
                        at.line,
                        format!("this machine has no network interface {name} now"),
                    );
                }
            }
        }
        section.finish();
        Discovery {
            enabled: enabled.is_none_or(|at| at.value),
            interfaces: interfaces.map(|at| at.value).unwrap_or_default(),
        }
    }

    fn gateway(&self, section: Section<'_, '_>, hub: Option<&Hub>) -> Option<Gateway> {
        let iso8583 = section.optional("protocol", "\"https\" or \"iso8583\"", |value| {
            match value.as_str()? {
                "https" => Some(false),
                "iso8583" => Some(true),
                _ => None,
            }
        });
        let peer = if iso8583.is_some_and(|at| at.value) {
            let acquirer = iso8583::read(self, &section, hub.map(|hub| hub.currency));
            acquirer.map(|acquirer| Peer::Iso8583(Box::new(acquirer)))
        } else {
            self.https(&section)
        };
        let ca = self.path(&section, "ca_file");
        let ca_file = ca.and_then(|at| self.pointed_to(at, check_ca));
        let deadline = section.optional(
            "deadline",
            "a duration from 100ms to 8s, such as \"3s\",",
            duration(100, 8_000),
        );
        let probe = section.optional(
            "probe_interval",
            "a duration from 100ms to 10m, such as \"5s\",",
            duration(100, 600_000),
        );
        let in_flight = section.optional("max_in_flight", "a whole number from 1 to 64", integer(1..=64));
        let retention = section.optional(
            "idempotency_retention_h",
            "hours from 1 to 744 (31 days)",
            integer(1..=744),
        );
        let undecided = section.optional(
            "undecided_after",
            "a duration from 10m to 168h, such as \"4h\",",
            duration(600_000, 604_800_000),
        );
        let spread = section.optional(
            "spread",
            "a duration from 0s to 1h, such as \"60s\",",
            duration(0, 3_600_000),
        );
        section.finish();
        Some(Gateway {
            peer: peer?,
            ca_file,
            deadline: deadline.map_or(Duration::from_secs(3), |at| at.value),
            probe_interval: probe.map_or(Duration::from_secs(5), |at| at.value),
            max_in_flight: in_flight.map_or(64, |at| usize::try_from(at.value).unwrap_or(64)),
            idempotency_retention: Duration::from_secs(retention.map_or(24, |at| at.value) * 60 * 60),
            undecided_after: undecided.map_or(Duration::from_secs(4 * 60 * 60), |at| at.value),
            spread: spread.map_or(Duration::ZERO, |at| at.value),
        })
    }

    fn https(&self, section: &Section<'_, '_>) -> Option<Peer> {
        let url = section.required(
            "url",
            "an https address without user, query or fragment, such as \"https://gateway.example.com/\",",
            gateway_url,
        );
        if let Some(at) = &url
            && at
                .value
                .host_str()
                .is_some_and(|host| host.ends_with(".example.com"))
        {
            self.warn(
                at.line,
                "gateway.url is the sample's: put your payment service provider's address here",
            );
        }
        let credential = self.path(section, "credential_file");
        let credential =
            credential.and_then(|at| self.pointed_to(at, |path| read_credential(self.layout, path)));
        Some(Peer::Https {
            url: url?.value,
            credential,
        })
    }

    fn policy(&self, section: Section<'_, '_>, hub: Option<&Hub>) -> PolicySource {
        let keys = trusted_keys(&section);
        // With a fault in the keys, the signature cannot be judged.
        let keys_read = keys.is_some() || !section.holds("trusted_keys");
        let trusted_keys: Vec<VerifyingKey> = keys.map(|at| at.value).unwrap_or_default();
        let pinned = self.path(&section, "root_file");
        let file = self.path(&section, "file");
        let line = section.line();
        if let Some(pinned) = &pinned
            && !trusted_keys.is_empty()
        {
            section.fault(
                pinned.line,
                "policy.root_file: take it or policy.trusted_keys out. With a root, it alone says whose \
                 policies count; a shop without a headquarters has trusted_keys",
            );
        }
        section.finish();
        let file = file.map_or_else(|| self.layout.dir.join("policy.cose"), |at| at.value);
        if keys_read && trusted_keys.is_empty() && pinned.is_none() {
            self.warn(
                line,
                "policy.trusted_keys is empty and there is no policy.root_file: no policy is accepted and nothing \
                 is approved offline",
            );
        }
        let has_root = pinned.is_some();
        let root = pinned.and_then(|at| root_file::load(&at.value, self.faults));
        // With a fault in keys or root, the signature cannot be judged.
        let present = match (&root, has_root) {
            (Some(pinned), _) => {
                let keys = root_file::delegated_keys(pinned, self.layout, Delegated::Policies);
                policy_file::load(&file, &keys, true, hub, self.faults)
            }
            (None, true) => None,
            (None, false) if keys_read => policy_file::load(&file, &trusted_keys, false, hub, self.faults),
            (None, false) => None,
        };
        PolicySource {
            trusted_keys,
            root,
            file,
            present,
        }
    }

    fn admin(&self, section: Section<'_, '_>) -> Admin {
        let socket = self.path(&section, "socket");
        let line = socket.as_ref().map_or(section.line(), |at| at.line);
        let socket = socket.map_or_else(|| self.layout.dir.join(DEFAULT_SOCKET), |at| at.value);
        if socket.as_os_str().len() > MAX_SOCKET_PATH {
            section.fault(
                line,
                format!(
                    "admin.socket: a path of at most {MAX_SOCKET_PATH} bytes expected; {} has {}",
                    socket.display(),
                    socket.as_os_str().len()
                ),
            );
        }
        section.finish();
        Admin { socket }
    }

    pub(super) fn path(&self, section: &Section<'_, '_>, key: &'static str) -> Option<At<PathBuf>> {
        let at = section.optional(key, "the path of a file", |value| {
            text::<String>(value).filter(|path| (1..=MAX_TEXT).contains(&path.len()) && !path.contains('\0'))
        })?;
        Some(At {
            value: self.layout.dir.join(at.value),
            line: at.line,
        })
    }

    /// Reads a file that the configuration points to; the fault stands at
    /// the line that points.
    pub(super) fn pointed_to<T>(
        &self,
        at: At<PathBuf>,
        read: impl Fn(&Path) -> Result<T, String>,
    ) -> Option<T> {
        read(&at.value)
            .map_err(|message| {
                let message = format!("{} {message}", at.value.display());
                self.faults
                    .add(ConfigFault::at(&self.layout.config, at.line, message));
            })
            .ok()
    }
}

pub(super) fn trusted_keys(section: &Section<'_, '_>) -> Option<At<Vec<VerifyingKey>>> {
    section.optional(
        "trusted_keys",
        "a list of at most 8 Ed25519 public keys, 64 hex digits each,",
        bounded_list(8, |value| value.as_str().and_then(keys::parse_public_key)),
    )
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn bounded_list<T>(
    most: usize,
    item: impl Fn(&DeValue<'_>) -> Option<T>,
) -> impl Fn(&DeValue<'_>) -> Option<Vec<T>> {
    move |value| {
        let array = value.as_array().filter(|array| array.len() <= most)?;
        array.iter().map(|value| item(value.get_ref())).collect()
    }
}

fn duration(least_ms: i128, most_ms: i128) -> impl Fn(&DeValue<'_>) -> Option<Duration> {
    move |value| {
        let duration: SignedDuration = text(value)?;
        (least_ms..=most_ms)
            .contains(&duration.as_millis())
            .then_some(())?;
        Duration::try_from(duration).ok()
    }
}

fn gateway_url(value: &DeValue<'_>) -> Option<reqwest::Url> {
    let mut url: reqwest::Url = value.as_str().filter(|url| url.len() <= MAX_TEXT)?.parse().ok()?;
    let plain = url.scheme() == "https"
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !url.path().ends_with('/') {
        // So that `join("v1/payments")` adds to the path and replaces nothing.
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    plain.then_some(url)
}

fn check_ca(path: &Path) -> Result<PathBuf, String> {
    let pem = files::read(path, MAX_CA_FILE)?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| "is not PEM".to_owned())?;
        roots
            .add(certificate)
            .map_err(|_| "holds something that is no X.509 certificate".to_owned())?;
    }
    match roots.len() {
        0 => Err("holds no certificate: PEM (BEGIN CERTIFICATE) expected".to_owned()),
        _ => Ok(path.to_owned()),
    }
}

fn read_credential(layout: &Layout, path: &Path) -> Result<Zeroizing<String>, String> {
    let text = files::read_secret_for(Some(&layout.dir), path, 4096)?;
    let credential = text.trim();
    if credential.is_empty() || !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("holds no credential: one line of visible ASCII expected".to_owned());
    }
    Ok(Zeroizing::new(credential.to_owned()))
}
