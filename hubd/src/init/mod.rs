//! `hubd init`: keys, configuration, a first policy.
//!
//! Makes a folder that `hubd validate` accepts at once. Nothing that exists
//! is ever overwritten. `hubd.toml` is written last: a folder without it was
//! not finished.
#![allow(clippy::disallowed_methods)] // keys are made here, of the system's entropy

mod template;
mod write;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use hub_core::policy::Policy;
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::{Currency, HubId};
use jiff::{Timestamp, ToSpan, Unit};
use rcgen::{KeyPair, PublicKeyData};
use serde::Serialize;
use zeroize::Zeroizing;

use crate::config::{self, ConfigFault, Layout};
use template::{Template, Value};
use write::Writer;

/// The sample policy: `config/policies/france-cautious.toml`, and a look-out
/// for copied devices, which every shop needs and no tuning bears on.
pub const SAMPLE_POLICY: &str = concat!(
    include_str!("../../../config/policies/france-cautious.toml"),
    "
# A device whose counter comes twice has been copied, or an old backup was put
# onto it: nothing is approved offline at it until somebody has looked. Further
# detectors stand in france-watchful.toml.
[anomaly]
tighten_percent = 20                # ceilings while tightened; nothing here tightens
fade_points_per_hour = 10

[anomaly.device]
stop = 60                           # ends by `hubctl restrictions lift` or a new policy

[anomaly.sequence_reused]
points = 60
"
);

/// How long the sample policy is in force, in days.
pub const SAMPLE_POLICY_DAYS: i64 = 90;

/// What a new hub is to be. Whatever is `None` or empty stays as in the
/// sample configuration.
#[derive(Clone, Debug, Default)]
pub struct InitOptions {
    /// What people call the shop.
    pub store: Option<String>,
    /// The shop's id.
    pub store_id: Option<String>,
    /// The shop's currency.
    pub currency: Option<Currency>,
    /// The gateway's address.
    pub gateway: Option<String>,
    /// PEM certificates of the gateway's authority.
    pub gateway_ca: Option<PathBuf>,
    /// A file with the gateway's credential.
    pub gateway_credential: Option<PathBuf>,
    /// Where devices reach the hub.
    pub listen: Option<SocketAddr>,
    /// Where devices with an enrolment code reach the hub.
    pub enrol_listen: Option<SocketAddr>,
    /// Addresses for enrolment codes.
    pub advertise: Vec<IpAddr>,
    /// Interfaces for mDNS.
    pub interfaces: Vec<String>,
    /// Headquarters' policy keys, 64 hex digits each, beside the local one.
    pub trusted_keys: Vec<String>,
    /// A policy (TOML) to sign instead of the sample.
    pub policy: Option<PathBuf>,
}

/// What was made.
#[derive(Clone, Debug, Serialize)]
pub struct InitReport {
    /// The folder.
    pub dir: PathBuf,
    /// The hub's identity, 64 hex digits.
    pub hub_id: String,
    /// Its short form, as in mDNS.
    pub hub_short: String,
    /// The public key that verifies receipts and ledger, 64 hex digits.
    pub signing_public_key: String,
    /// The local policy key's public half, 64 hex digits.
    pub policy_public_key: String,
    /// The first policy's version.
    pub policy_version: u64,
    /// When the first policy expires, RFC 3339.
    pub policy_expires: String,
    /// Every file that was made.
    pub files: Vec<PathBuf>,
    /// What to do next, in order.
    pub next_steps: Vec<String>,
}

/// Why no hub was made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is something already.
    #[error("{0} exists already; nothing was changed. Choose another folder, or move this one away")]
    Exists(PathBuf),
    /// A file or folder could not be made.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that was named could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The policy that was named is none.
    #[error("{path} is not a policy:\n{}", .faults.join("\n"))]
    Policy {
        /// Which file.
        path: PathBuf,
        /// Its faults, by line.
        faults: Vec<String>,
    },
    /// The values given make no valid configuration. Nothing was written.
    #[error("these values make no valid configuration; nothing was written:\n{}", join(.0))]
    Config(Vec<ConfigFault>),
    /// The system gave no entropy or no key.
    #[error("the system could not make a key: {0}")]
    Key(String),
    /// The sample has no such key: a defect of this program.
    #[error("the sample configuration has no {0}")]
    Template(String),
}

fn join(faults: &[ConfigFault]) -> String {
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    texts.join("\n")
}

/// Makes a new hub in `dir`.
pub fn init(dir: &Path, options: &InitOptions) -> Result<InitReport, InitError> {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let layout = Layout::new(&dir);
    refuse_existing(&layout)?;
    let signing = signing_key()?;
    let policy_key = signing_key()?;
    let tls = KeyPair::generate().map_err(|error| InitError::Key(error.to_string()))?;
    let vault = entropy()?;
    let policy_text = policy_text(options)?;
    let policy = read_policy(&policy_text, options)?;
    let policy_public = HEXLOWER.encode(policy_key.verifying_key().as_bytes());
    let config = config_text(options, &policy_public)?;
    let faults = config::check_text(&config, &dir);
    if !faults.is_empty() {
        return Err(InitError::Config(faults));
    }
    let signed = cose::sign(&policy_key, ObjectType::Policy, policy_text.as_bytes());
    let public = HEXLOWER.encode(signing.verifying_key().as_bytes());

    let mut writer = Writer::open(&layout)?;
    writer.secret(&layout.signing_key, &hex_line(signing.as_bytes()))?;
    writer.secret(&layout.tls_key, &Zeroizing::new(tls.serialize_pem()))?;
    writer.secret(&layout.vault_key, &hex_line(&vault))?;
    writer.secret(&layout.policy_key, &hex_line(policy_key.as_bytes()))?;
    writer.plain(&layout.signing_public, format!("{public}\n").as_bytes())?;
    writer.plain(&layout.policy_text, policy_text.as_bytes())?;
    writer.plain(&layout.dir.join("policy.cose"), &signed)?;
    writer.plain(&layout.config, config.as_bytes())?;
    let files = writer.finish()?;

    let hub_id = HubId::of_spki(&tls.subject_public_key_info());
    let expires = i64::try_from(policy.expires_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    Ok(InitReport {
        hub_id: hub_id.to_string(),
        hub_short: hub_id.short(),
        signing_public_key: public,
        policy_public_key: policy_public,
        policy_version: policy.version,
        policy_expires: expires.map_or_else(String::new, |expires| expires.to_string()),
        files,
        next_steps: next_steps(&dir, options),
        dir,
    })
}

fn refuse_existing(layout: &Layout) -> Result<(), InitError> {
    let mine = [
        &layout.config,
        &layout.keys,
        &layout.signing_public,
        &layout.policy_text,
        &layout.ledger,
        &layout.index,
        &layout.vault,
    ];
    match mine.into_iter().find(|path| path.symlink_metadata().is_ok()) {
        Some(path) => Err(InitError::Exists(path.clone())),
        None => Ok(()),
    }
}

fn entropy() -> Result<Zeroizing<[u8; 32]>, InitError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|error| InitError::Key(error.to_string()))?;
    Ok(bytes)
}

fn signing_key() -> Result<SigningKey, InitError> {
    Ok(SigningKey::from_bytes(&*entropy()?))
}

fn hex_line(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut line = HEXLOWER.encode(bytes);
    line.push('\n');
    Zeroizing::new(line)
}

fn policy_text(options: &InitOptions) -> Result<String, InitError> {
    if let Some(path) = &options.policy {
        return std::fs::read_to_string(path).map_err(|source| InitError::Read {
            path: path.clone(),
            source,
        });
    }
    let now = i64::try_from(crate::clock::wall_ms()).unwrap_or_default();
    let today = Timestamp::from_millisecond(now)
        .and_then(|now| now.round(Unit::Hour))
        .and_then(|now| now.checked_sub(24.hours()));
    let end = today
        .clone()
        .and_then(|today| today.checked_add((24 * (SAMPLE_POLICY_DAYS + 1)).hours()));
    let (Ok(today), Ok(end)) = (today, end) else {
        return Err(InitError::Key("its clock is out of range".to_owned()));
    };
    let mut template = Template::new(SAMPLE_POLICY);
    template.set("", "not_before", Value::Bare(today.to_string()))?;
    template.set("", "expires", Value::Bare(end.to_string()))?;
    if let Some(currency) = options.currency {
        template.set("", "currency", Value::Text(currency.to_string()))?;
    }
    Ok(template.into_text())
}

fn read_policy(text: &str, options: &InitOptions) -> Result<Policy, InitError> {
    Policy::parse(text.as_bytes()).map_err(|faults| InitError::Policy {
        path: options
            .policy
            .clone()
            .unwrap_or_else(|| PathBuf::from("the sample")),
        faults: faults.iter().map(ToString::to_string).collect(),
    })
}

fn config_text(options: &InitOptions, policy_public: &str) -> Result<String, InitError> {
    let mut template = Template::new(config::SAMPLE);
    let path = |path: &PathBuf| {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Value::Text(absolute.display().to_string())
    };
    let settings = [
        ("hub", "store", options.store.clone().map(Value::Text)),
        ("hub", "store_id", options.store_id.clone().map(Value::Text)),
        (
            "hub",
            "currency",
            options.currency.map(|currency| Value::Text(currency.to_string())),
        ),
        ("gateway", "url", options.gateway.clone().map(Value::Text)),
        ("gateway", "ca_file", options.gateway_ca.as_ref().map(path)),
        (
            "gateway",
            "credential_file",
            options.gateway_credential.as_ref().map(path),
        ),
        (
            "devices",
            "listen",
            options.listen.map(|at| Value::Text(at.to_string())),
        ),
        (
            "devices",
            "enrol_listen",
            options.enrol_listen.map(|at| Value::Text(at.to_string())),
        ),
        ("devices", "advertise", Value::list(&options.advertise)),
        ("discovery", "interfaces", Value::list(&options.interfaces)),
    ];
    for (section, key, value) in settings {
        if let Some(value) = value {
            template.set(section, key, value)?;
        }
    }
    let mut keys = options.trusted_keys.clone();
    keys.push(policy_public.to_owned());
    if let Some(keys) = Value::list(&keys) {
        template.set("policy", "trusted_keys", keys)?;
    }
    Ok(template.into_text())
}

fn next_steps(dir: &Path, options: &InitOptions) -> Vec<String> {
    let dir = dir.display();
    let mut steps = Vec::new();
    if options.gateway.is_none() {
        steps.push(format!(
            "put your payment service provider's address into [gateway] url of {dir}/hubd.toml"
        ));
    }
    steps.push(format!(
        "look through {dir}/hubd.toml; every key is explained there"
    ));
    steps.push(format!(
        "back up {dir}/keys on a medium that you can lock away: without them the ledger cannot go on"
    ));
    steps.push(format!("check it: hubd validate --dir {dir}"));
    steps.push(format!("start it: hubd run --dir {dir}"));
    steps.push(format!(
        "enrol a device: hubctl --dir {dir} enrol --class terminal"
    ));
    steps.push(format!(
        "before the shop opens, replace the sample policy by headquarters' own: name their root as [policy] \
         root_file and take trusted_keys out (or, without a root, put their key into trusted_keys), delete \
         {dir}/keys/policy-local.key, and hubctl policy install"
    ));
    steps
}

#[cfg(test)]
mod tests;
