//! `hubd.toml`: read once, completely, all errors at once.
//!
//! [`Config::load`] reads the file and everything it points to (keys,
//! certificates, credential, policy) and hands the composition values that
//! need no further check. It never stops at the first fault.

mod device_list;
mod fault;
mod files;
mod iso8583;
mod keys;
pub mod logging;
mod owner;
mod policy_file;
mod root_file;
mod settings;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ed25519_dalek::VerifyingKey;
use hub_core::toml_reader::{At, Document, Fault, text};
use hub_protocol::root::Delegated;
use hub_protocol::{Authority, Currency, Root};
use zeroize::Zeroizing;

use crate::iso8583::{Dialect, Identity};
use crate::recovery_key::RecoveryKey;
pub use device_list::{DeviceListFileError, SignedList, verify_device_list};
use fault::Faults;
pub use fault::{ConfigFault, EX_CONFIG};
pub use files::Layout;
pub use keys::{
    HubKeys, KeyError, TlsKey, has_tls_key, is_credential, is_overwritten, next_signing_key, next_tls_key,
    next_vault_key, parse_public_key, read_recovery_secret, read_signing_key, read_vault_key,
    tls_key_is_there, vault_keys,
};
pub use logging::LogFormat;
pub use policy_file::{PolicyFileError, SignedPolicy, verify_policy};
pub use root_file::{NEAR_END_OF_ROOT_MS, PinnedRoot, RootFileError, read_root};

/// The commented sample, which `hubd init` fills in.
pub const SAMPLE: &str = include_str!("../../../config/hubd.toml");

/// Everything the daemon needs to know, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything lies; absolute paths.
    pub layout: Layout,
    /// `[hub]`: the shop.
    pub hub: Hub,
    /// `[devices]`: where devices reach the hub.
    pub devices: Devices,
    /// `[discovery]`: mDNS.
    pub discovery: Discovery,
    /// `[gateway]`: the payment service provider.
    pub gateway: Gateway,
    /// `[policy]`: whose policies are obeyed, and the present one.
    pub policy: PolicySource,
    /// `[ledger]`: the journal.
    pub ledger: Ledger,
    /// `[admin]`: the socket of hubctl.
    pub admin: Admin,
    /// `[log]`: what is logged and how.
    pub log: Log,
    /// The hub's own keys.
    pub keys: HubKeys,
    /// What is allowed and yet worth a person's attention.
    pub warnings: Vec<ConfigFault>,
}

/// `[hub]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// What people call the shop, 1 to 64 bytes.
    pub store: String,
    /// The shop's id at the gateway and in policies: 1 to 64 of letters,
    /// digits, `.`, `_` and `-`.
    pub store_id: String,
    /// The one currency that the shop takes.
    pub currency: Currency,
}

/// `[devices]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Where devices reach the hub (UDP). Port 0: any free one.
    pub listen: SocketAddr,
    /// Where devices with an enrolment code reach the hub (UDP).
    pub enrol_listen: SocketAddr,
    /// Addresses for enrolment codes, best first, at most 8. Empty: those of
    /// the machine's interfaces.
    pub advertise: Vec<IpAddr>,
    /// How many requests a second one device may send: 1 to 1,000,000. More
    /// wait for their turn.
    pub requests_per_second: u32,
}

/// `[discovery]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Whether mDNS is used at all.
    pub enabled: bool,
    /// Interface names, at most 16. Empty: all but loopback, container and
    /// virtual ones.
    pub interfaces: Vec<String>,
}

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Who is spoken to, and how.
    pub peer: Peer,
    /// PEM file of the authority to trust instead of the public ones; absolute,
    /// and known to hold certificates.
    pub ca_file: Option<PathBuf>,
    /// How long a customer waits for the gateway; 100 ms to 8 s.
    pub deadline: Duration,
    /// How often the gateway is probed; 100 ms to 10 min.
    pub probe_interval: Duration,
    /// Most replayed payments under way at one time; 1 to 64.
    pub max_in_flight: usize,
    /// For how long the gateway knows an idempotency key; 1 h to 31 days.
    pub idempotency_retention: Duration,
    /// For how long the gateway may leave a payment undecided before it is
    /// parked; 10 min to 7 days.
    pub undecided_after: Duration,
    /// Window of first contact after an outage; up to 1 h, zero for none.
    pub spread: Duration,
}

/// `protocol` in `[gateway]`.
#[derive(Clone)]
pub enum Peer {
    /// A payment service provider.
    Https {
        /// https, its path ending in `/`, no user, query or fragment.
        url: reqwest::Url,
        /// Sent as `Authorization: Bearer`; visible ASCII, 1 to 4096 bytes.
        credential: Option<Zeroizing<String>>,
    },
    /// An acquirer.
    Iso8583(Box<Acquirer>),
}

/// An acquirer that is spoken to in ISO 8583.
#[derive(Clone, Debug)]
pub struct Acquirer {
    /// Host name or address.
    pub host: String,
    /// TCP port; not 0.
    pub port: u16,
    /// PEM files of the hub's own certificate chain and key; absolute, and
    /// known to belong together.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// How it speaks.
    pub dialect: Dialect,
    /// Who the hub is there; known to fit the dialect.
    pub identity: Identity,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Https { url, credential } => f
                .debug_struct("Https")
                .field("url", &url.as_str())
                .field("credential", &credential.as_ref().map(|_| "hidden"))
                .finish(),
            Self::Iso8583(acquirer) => f.debug_tuple("Iso8583").field(acquirer).finish(),
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Https { url, .. } => url.fmt(f),
            Self::Iso8583(acquirer) => write!(
                f,
                "{}:{} (ISO 8583, {})",
                acquirer.host, acquirer.port, acquirer.dialect.name
            ),
        }
    }
}

/// `[policy]`
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// Whose policies are obeyed, at most 8, where there is no root. Weak keys
    /// have been refused.
    pub trusted_keys: Vec<VerifyingKey>,
    /// The root that the hub is installed with, instead of such keys.
    pub root: Option<PinnedRoot>,
    /// Where the signed policy lies and where a newly installed one goes;
    /// absolute.
    pub file: PathBuf,
    /// The policy in that file, its signature checked; `None` if there is no
    /// such file: then nothing is approved offline.
    pub present: Option<SignedPolicy>,
}

impl PolicySource {
    /// Whom the hub obeys: the root in force (`in_force`, by its ledger), or
    /// the keys of the configuration as long as it has never had one.
    pub fn authority(&self, in_force: Option<Box<Root>>) -> Authority {
        in_force.map_or_else(|| Authority::Keys(self.trusted_keys.clone()), Authority::Root)
    }
}

/// `[ledger]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The size of one journal file, 1 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// What is kept aside on the disk for what was accepted, 16 MiB to 4 GiB.
    pub reserve_bytes: u64,
    /// Below so many free bytes a person is warned, 64 MiB to 1 TiB.
    pub low_space_bytes: u64,
    /// How old a segment is before it is archived, in milliseconds: 2 days to
    /// 10 years, and longer than the gateway knows a key.
    pub retention_ms: u64,
    /// What archives may take before those that were copied away are removed,
    /// 64 MiB to 1 TiB.
    pub archive_bytes: u64,
    /// Headquarters' recovery key, for which the store's data key is wrapped
    /// beside the vault key.
    pub recovery_key: Option<RecoveryKey>,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket; absolute, at most [`MAX_SOCKET_PATH`] bytes.
    pub socket: PathBuf,
}

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is logged.
    pub level: tracing::Level,
    /// For people or for machines.
    pub format: LogFormat,
}

/// The longest path of the admin socket, in bytes: `sun_path` holds 108 with
/// its closing zero, and the socket is made under a longer name first.
pub const MAX_SOCKET_PATH: usize = 100;

/// The largest `hubd.toml`, in bytes.
const MAX_FILE: u64 = 256 * 1024;

impl Config {
    /// Reads `hubd.toml` in `dir` and everything it points to. All faults are
    /// returned at once, in the order of files and lines.
    ///
    /// The hub's keys are looked for among the credentials that the service
    /// manager gives this process (`CREDENTIALS_DIRECTORY`), and then in
    /// `keys/`.
    pub fn load(dir: &Path) -> Result<Self, Vec<ConfigFault>> {
        Self::load_with(dir, keys::credentials().as_deref())
    }

    /// [`load`](Self::load) with credentials from this folder, whatever this
    /// process was given.
    pub fn load_with(dir: &Path, credentials: Option<&Path>) -> Result<Self, Vec<ConfigFault>> {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let layout = Layout::new(&dir);
        let faults = Faults::default();
        let text = match files::read_text(&layout.config, MAX_FILE) {
            Ok(text) => text,
            Err(message) => {
                let message = format!("{message}; `hubd init --dir {}` makes a new hub", dir.display());
                return Err(vec![ConfigFault::whole(&layout.config, message)]);
            }
        };
        // A file that is no TOML hides its other faults, but not those of the
        // keys beside it.
        let read = match Document::parse(&text) {
            Ok(document) => {
                let read = settings::read(&document, &layout, &faults);
                faults.lines(&layout.config, document.into_faults());
                read
            }
            Err(found) => {
                faults.lines(&layout.config, found);
                None
            }
        };
        files::check_folders(&layout, &faults);
        let keys = keys::load(&layout, credentials, &faults);
        let (found, warnings) = faults.into_parts();
        match (read, keys) {
            (Some(read), Some(keys)) if found.is_empty() => Ok(Self {
                layout,
                hub: read.hub,
                devices: read.devices,
                discovery: read.discovery,
                gateway: read.gateway,
                policy: read.policy,
                ledger: read.ledger,
                admin: read.admin,
                log: read.log,
                keys,
                warnings,
            }),
            _ => Err(found),
        }
    }

    /// Only where the admin socket is, for `hubctl`: a configuration with
    /// faults elsewhere must not keep a person from asking the hub.
    pub fn admin_socket(dir: &Path) -> Result<PathBuf, ConfigFault> {
        let read = |document: &Document<'_>| {
            let section = document.root().section("admin");
            section.optional("socket", "a path", text::<String>)
        };
        let socket = peek(dir, read)?.unwrap_or_else(|| settings::DEFAULT_SOCKET.to_owned());
        Ok(std::path::absolute(dir)
            .unwrap_or_else(|_| dir.to_owned())
            .join(socket))
    }

    /// Only the keys whose policies or lists the hub obeys, for `hubctl`: those
    /// in hubd.toml, or those that the root delegates, the pinned one and the one
    /// in force as far as its copy tells.
    ///
    /// # Errors
    /// hubd.toml or the root cannot be read.
    pub fn trusted_keys(dir: &Path, what: Delegated) -> Result<Vec<VerifyingKey>, ConfigFault> {
        let layout = Layout::new(dir);
        let pinned = peek(dir, |document| {
            let section = document.root().section("policy");
            section.optional("root_file", "a path", text::<String>)
        })?;
        let Some(pinned) = pinned else {
            let keys = peek(dir, |document| {
                settings::trusted_keys(&document.root().section("policy"))
            })?;
            return Ok(keys.unwrap_or_default());
        };
        let file = layout.dir.join(pinned);
        let pinned = read_root(&file).map_err(|error| ConfigFault::whole(&file, error.to_string()))?;
        Ok(root_file::delegated_keys(&pinned, &layout, what))
    }

    /// The store's id in the `hubd.toml` of this folder, whatever else is
    /// wrong there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn store_id(dir: &Path) -> Result<Option<String>, ConfigFault> {
        peek(dir, |document| {
            document
                .root()
                .section("hub")
                .optional("store_id", "a text", text::<String>)
        })
    }
}

/// Reads one value and passes over faults elsewhere.
fn peek<T>(dir: &Path, read: impl FnOnce(&Document<'_>) -> Option<At<T>>) -> Result<Option<T>, ConfigFault> {
    let file = Layout::new(dir).config;
    let first = |mut found: Vec<Fault>| match found.is_empty() {
        true => ConfigFault::whole(&file, "cannot be read".to_owned()),
        false => {
            let fault = found.swap_remove(0);
            ConfigFault::at(&file, fault.line, fault.message)
        }
    };
    let text = files::read_text(&file, MAX_FILE).map_err(|message| ConfigFault::whole(&file, message))?;
    let document = Document::parse(&text).map_err(first)?;
    let value = read(&document);
    let found = document.into_faults();
    match found.is_empty() {
        true => Ok(value.map(|at| at.value)),
        false => Err(first(found)),
    }
}

/// The faults of a configuration that has not been written yet. Files beside
/// it are not looked at; files that it names elsewhere are.
pub(crate) fn check_text(text: &str, dir: &Path) -> Vec<ConfigFault> {
    let layout = Layout::new(dir);
    let faults = Faults::default();
    match Document::parse(text) {
        Ok(document) => {
            settings::read(&document, &layout, &faults);
            faults.lines(&layout.config, document.into_faults());
        }
        Err(found) => faults.lines(&layout.config, found),
    }
    faults.into_parts().0
}

#[cfg(test)]
mod tests;
