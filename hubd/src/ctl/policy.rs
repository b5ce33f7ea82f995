//! `hubctl policy`.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use hub_core::policy::{MAX_POLICY, Policy};
use hub_protocol::cose::{self, ObjectType, Unverified};
use hub_protocol::root::Delegated;
use hub_protocol::{KeyId, SignedRoot};
use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, table};
use super::show::{Language, amount, instant, span};
use crate::admin::protocol::{Answer, Request};
use crate::clock;
use crate::config::{self, Config};

mod explain;
mod further;
#[cfg(test)]
mod page_tests;
mod rehearse;
mod rehearsed;
mod try_out;
mod wall;
mod words;

pub(super) use explain::explain;
pub(super) use rehearse::{Since, rehearse, since};
pub(super) use try_out::try_out;

/// What a checked policy says.
#[derive(Serialize)]
struct Checked {
    tenant: String,
    stores: Vec<String>,
    version: u64,
    not_before_ms: u64,
    expires_ms: u64,
    in_force: bool,
    currency: String,
    /// `None` for a policy as written.
    signed_by: Option<String>,
}

#[derive(Serialize)]
struct Signed<'a> {
    file: &'a Path,
    version: u64,
    signed_by: String,
    public_key: String,
}

pub(super) fn sign(output: &Output, key: &Path, policy: &Path, out: &Path) -> Result<(), Failure> {
    let text = read(policy)?;
    let parsed = parse(policy, &text)?;
    let key = config::read_signing_key(key).map_err(|error| Failure::Refused(error.to_string()))?;
    let signed = cose::sign(&key, ObjectType::Policy, &text);
    fs::write(out, signed).map_err(|error| Failure::file(out, "write", error))?;
    let public = key.verifying_key();
    let report = Signed {
        file: out,
        version: parsed.version,
        signed_by: KeyId::of_key(public.as_bytes()).to_string(),
        public_key: data_encoding::HEXLOWER.encode(public.as_bytes()),
    };
    output.print(&report, || {
        format!(
            "{} holds version {}, signed by {}.\nHubs obey it whose root delegates {}, or that name it in [policy] trusted_keys.\n\
             Next: hubctl policy install {}",
            out.display(),
            report.version,
            report.signed_by,
            report.public_key,
            out.display()
        )
    })
}

pub(super) fn check(output: &Output, file: &Path, keys: &[String], dir: &Path) -> Result<(), Failure> {
    let Loaded {
        policy, signed_by, ..
    } = load(file, keys, dir)?;
    let now = clock::wall_ms();
    let checked = Checked {
        tenant: policy.tenant.clone(),
        stores: policy.stores.clone(),
        version: policy.version,
        not_before_ms: policy.not_before_ms,
        expires_ms: policy.expires_ms,
        in_force: (policy.not_before_ms..policy.expires_ms).contains(&now),
        currency: policy.currency.to_string(),
        signed_by,
    };
    output.print(&checked, || {
        described(&policy, &checked, Language::of_environment())
    })
}

/// A policy from a file, as written or signed.
pub(super) struct Loaded {
    pub(super) policy: Policy,
    /// As written.
    pub(super) text: Vec<u8>,
    /// `None` for a policy as written.
    pub(super) signed_by: Option<String>,
}

/// A signed policy must be by one of these keys, or of those in hubd.toml.
pub(super) fn load(file: &Path, keys: &[String], dir: &Path) -> Result<Loaded, Failure> {
    let bytes = read(file)?;
    if !is_signed(&bytes) {
        return Ok(Loaded {
            policy: parse(file, &bytes)?,
            text: bytes,
            signed_by: None,
        });
    }
    let trusted = if keys.is_empty() {
        Config::trusted_keys(dir, Delegated::Policies).map_err(|fault| {
            Failure::Config(format!("{fault}; name the hub's folder by --dir, or a --key"))
        })?
    } else {
        keys.iter().map(|key| public_key(key)).collect::<Result<_, _>>()?
    };
    let unverified = |error: String| Failure::Unverified(format!("{}: {error}", file.display()));
    let found = config::verify_policy(&bytes, &trusted).map_err(|error| unverified(error.to_string()))?;
    // Its signature has just been checked.
    let object = Unverified::parse(&bytes).map_err(|error| unverified(error.to_string()))?;
    Ok(Loaded {
        policy: found.policy,
        text: object.payload_unverified().to_vec(),
        signed_by: Some(found.key.to_string()),
    })
}

/// A root is signed by others, and goes another way.
pub(super) fn refuse_root(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    match SignedRoot::parse(bytes) {
        Ok(_) => Err(Failure::Usage(format!(
            "{} is a root: `hubctl root apply` brings it in",
            file.display()
        ))),
        Err(_) => Ok(()),
    }
}

pub(super) fn install(client: &Client, output: &Output, file: &Path) -> Result<(), Failure> {
    let bytes = read(file)?;
    refuse_root(file, &bytes)?;
    if !is_signed(&bytes) {
        return Err(Failure::Unverified(format!(
            "{} is not signed; `hubctl policy sign` does that",
            file.display()
        )));
    }
    let request = Request::PolicyInstall {
        policy: STANDARD.encode(bytes),
    };
    match client.ask(&request)? {
        Answer::Policy(report) => output.print(&report, || {
            let until = report
                .expires_ms
                .map_or_else(String::new, |ms| format!(", until {}", instant(ms)));
            format!("Policy version {} is in force{until}", report.version)
        }),
        other => Err(Client::unexpected(&other)),
    }
}

/// A public key, given as 64 hex digits or as a file that holds them.
pub(super) fn public_key(text: &str) -> Result<VerifyingKey, Failure> {
    if let Some(key) = config::parse_public_key(text) {
        return Ok(key);
    }
    let path = PathBuf::from(text);
    let content = read(&path).map_err(|_| {
        Failure::Usage(format!(
            "{text} is neither a public key (64 hex digits) nor a file that holds one"
        ))
    })?;
    std::str::from_utf8(&content)
        .ok()
        .and_then(config::parse_public_key)
        .ok_or_else(|| Failure::Usage(format!("{text} holds no public key: 64 hex digits expected")))
}

/// A signed policy begins with CBOR tag 18; no TOML text begins so.
fn is_signed(bytes: &[u8]) -> bool {
    Unverified::parse(bytes).is_ok() || bytes.first() == Some(&0xd2)
}

fn parse(file: &Path, text: &[u8]) -> Result<Policy, Failure> {
    Policy::parse(text).map_err(|faults| {
        let lines: Vec<String> = faults
            .iter()
            .map(|fault| format!("{}:{}: {}", file.display(), fault.line, fault.message))
            .collect();
        Failure::Unverified(format!("not a policy\n{}", lines.join("\n")))
    })
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_at_most(path, MAX_POLICY as u64 + 1024)
}

/// A whole file, unless it is longer than anything that is expected there.
pub(super) fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| Failure::file(path, "read", error);
    let mut bytes = Vec::new();
    fs::File::open(path)
        .map_err(failed)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(Failure::Unverified(format!(
            "{} is longer than the {limit} bytes it may have",
            path.display()
        )));
    }
    Ok(bytes)
}

fn described(policy: &Policy, checked: &Checked, language: Language) -> String {
    let money = |minor| amount(minor, &checked.currency, language);
    let mut table = table(["Of", "One payment", "In all", "In a row"]);
    for (class, limits) in &policy.classes {
        table.add_row([
            format!("one {class}"),
            money(limits.transaction_ceiling),
            money(limits.device.exposure_ceiling),
            limits.device.consecutive_limit.to_string(),
        ]);
    }
    for (name, limits) in [("one card", policy.card), ("the store", policy.store)] {
        table.add_row([
            name.to_owned(),
            "-".to_owned(),
            money(limits.exposure_ceiling),
            limits.consecutive_limit.to_string(),
        ]);
    }
    let names = |names: Vec<&str>| names.join(", ");
    let offline = if policy.offline.enabled {
        format!(
            "for up to {} at a time: {}; {}; {}",
            span(policy.offline.longest_ms / 1000),
            names(
                policy
                    .offline
                    .schemes
                    .iter()
                    .map(|scheme| scheme.name())
                    .collect()
            ),
            names(
                policy
                    .offline
                    .funding
                    .iter()
                    .map(|funding| funding.name())
                    .collect()
            ),
            names(
                policy
                    .offline
                    .entry_modes
                    .iter()
                    .map(|mode| mode.name())
                    .collect()
            ),
        )
    } else {
        "nothing".to_owned()
    };
    let signed = match &checked.signed_by {
        Some(key) => format!("signed by {key}"),
        None => "not signed".to_owned(),
    };
    let force = if checked.in_force {
        "in force"
    } else {
        "NOT in force now"
    };
    format!(
        "{} version {} for {}, {signed}, {force}: from {} until {}\nApproved offline {offline}\n{table}",
        policy.tenant,
        policy.version,
        policy.stores.join(", "),
        instant(policy.not_before_ms),
        instant(policy.expires_ms),
    )
}
