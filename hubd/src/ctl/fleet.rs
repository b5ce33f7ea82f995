//! `hubctl fleet`: codes for several devices, and headquarters' signed list.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_protocol::cose::{self, ObjectType, Unverified};
use hub_protocol::device_list::MAX_DEVICE_LIST;
use hub_protocol::root::Delegated;
use hub_protocol::{DeviceClass, DeviceId, DeviceList, KeyId, ListedDevice, cbor};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, table};
use super::policy;
use super::show::{instant, short};
use crate::admin::protocol::{Answer, ContradictionReport, FleetReport, Request};
use crate::config::{self, Config};

/// A list as headquarters writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    tenant: String,
    stores: Vec<String>,
    version: u64,
    not_before: toml::value::Datetime,
    expires: toml::value::Datetime,
    #[serde(default)]
    revoked: Vec<String>,
    #[serde(default, rename = "device")]
    devices: Vec<WrittenDevice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDevice {
    id: String,
    key: String,
    class: String,
    name: String,
    model: String,
}

#[derive(Serialize)]
struct Signed<'a> {
    file: &'a Path,
    version: u64,
    devices: usize,
    revoked: usize,
    signed_by: String,
    public_key: String,
}

#[derive(Serialize)]
struct Checked {
    tenant: String,
    stores: Vec<String>,
    version: u64,
    not_before_ms: u64,
    expires_ms: u64,
    signed_by: String,
    devices: Vec<CheckedDevice>,
    revoked: Vec<String>,
}

#[derive(Serialize)]
struct CheckedDevice {
    id: String,
    class: String,
    name: String,
    model: String,
}

#[derive(Serialize)]
struct Withdrawn<'a> {
    withdrawn: &'a str,
}

pub(super) fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let fleet = ask(client)?;
    output.print(&fleet, || listed(&fleet))
}

pub(super) fn withdraw(client: &Client, output: &Output, prefix: &str) -> Result<(), Failure> {
    let fleet = ask(client)?;
    let prefix = prefix.to_ascii_lowercase();
    let mut found = fleet
        .tokens
        .iter()
        .filter(|token| !prefix.is_empty() && token.token.starts_with(&prefix));
    let (Some(one), None) = (found.next(), found.next()) else {
        return Err(Failure::Refused(format!(
            "there is not exactly one code whose id begins with {prefix:?}; `hubctl fleet` lists them"
        )));
    };
    let token = one.token.clone();
    match client.ask(&Request::FleetWithdraw { token })? {
        Answer::Done => output.print(
            &Withdrawn {
                withdrawn: &one.token,
            },
            || format!("code {} lets nobody in any more", short(&one.token)),
        ),
        other => Err(Client::unexpected(&other)),
    }
}

pub(super) fn sign(output: &Output, key: &Path, list: &Path, out: &Path) -> Result<(), Failure> {
    let text = policy::read_at_most(list, 4 * MAX_DEVICE_LIST as u64)?;
    let parsed = written(&text).map_err(|fault| {
        Failure::Unverified(format!("{}: not a list of devices: {fault}", list.display()))
    })?;
    let key = config::read_signing_key(key).map_err(|error| Failure::Refused(error.to_string()))?;
    let signed = cose::sign(&key, ObjectType::DeviceList, &cbor::encode(&parsed));
    let public = key.verifying_key();
    // As a hub will look at it.
    config::verify_device_list(&signed, &[public])
        .map_err(|error| Failure::Unverified(format!("{}: {error}", list.display())))?;
    fs::write(out, signed).map_err(|error| Failure::file(out, "write", error))?;
    let report = Signed {
        file: out,
        version: parsed.version,
        devices: parsed.devices.len(),
        revoked: parsed.revoked.len(),
        signed_by: KeyId::of_key(public.as_bytes()).to_string(),
        public_key: data_encoding::HEXLOWER.encode(public.as_bytes()),
    };
    output.print(&report, || {
        format!(
            "{} holds version {}: {} devices, {} revoked, signed by {}.\nHubs obey it that name {} in [policy] \
             trusted_keys.\nNext: hubctl fleet apply {}",
            out.display(),
            report.version,
            report.devices,
            report.revoked,
            report.signed_by,
            report.public_key,
            out.display()
        )
    })
}

pub(super) fn check(output: &Output, file: &Path, keys: &[String], dir: &Path) -> Result<(), Failure> {
    let bytes = policy::read_at_most(file, MAX_DEVICE_LIST as u64)?;
    let trusted = if keys.is_empty() {
        Config::trusted_keys(dir, Delegated::DeviceLists).map_err(|fault| {
            Failure::Config(format!("{fault}; name the hub's folder by --dir, or a --key"))
        })?
    } else {
        keys.iter()
            .map(|key| policy::public_key(key))
            .collect::<Result<_, _>>()?
    };
    let found = config::verify_device_list(&bytes, &trusted)
        .map_err(|error| Failure::Unverified(format!("{}: {error}", file.display())))?;
    let list = found.list;
    let checked = Checked {
        tenant: list.tenant,
        stores: list.stores,
        version: list.version,
        not_before_ms: list.not_before_ms,
        expires_ms: list.expires_ms,
        signed_by: found.key.to_string(),
        devices: list
            .devices
            .into_iter()
            .map(|one| CheckedDevice {
                id: one.device.to_string(),
                class: one.class.to_string(),
                name: one.name,
                model: one.model,
            })
            .collect(),
        revoked: list.revoked.iter().map(ToString::to_string).collect(),
    };
    output.print(&checked, || described(&checked))
}

pub(super) fn apply(client: &Client, output: &Output, file: &Path) -> Result<(), Failure> {
    let bytes = policy::read_at_most(file, MAX_DEVICE_LIST as u64)?;
    policy::refuse_root(file, &bytes)?;
    if Unverified::parse(&bytes).is_err() {
        return Err(Failure::Unverified(format!(
            "{} is not signed; `hubctl fleet sign` does that",
            file.display()
        )));
    }
    let list = STANDARD.encode(bytes);
    match client.ask(&Request::FleetApply { list })? {
        Answer::List(report) => output.print(&report, || {
            let mut text = format!(
                "Headquarters' list, version {}, is in force: {} enrolled, {} approved, {} shut out",
                report.version, report.enrolled, report.approved, report.shut_out
            );
            if report.changed > 0 {
                text.push_str(&format!("; {} have another name, model or class", report.changed));
            }
            if report.blocked > 0 {
                text.push_str(&format!("; {} on it stay blocked at this hub", report.blocked));
            }
            text + &passed_over(&report.contradicted)
        }),
        other => Err(Client::unexpected(&other)),
    }
}

/// Whoever made the list is to know: the rest of it holds without these.
fn passed_over(lines: &[ContradictionReport]) -> String {
    let mut text = String::new();
    for line in lines {
        let (listed, known) = (short(&line.listed), short(&line.known));
        let which = if line.listed == line.known {
            format!("{listed} ({})", line.name)
        } else {
            format!("{listed} (a key of it is one of {known}, {})", line.name)
        };
        text.push_str(&format!(
            "\nPassed over: {which}. This hub knows other keys for it than the list has, so the list lets nobody in \
             by this line. Whoever made the list is to look at that."
        ));
    }
    text
}

fn ask(client: &Client) -> Result<FleetReport, Failure> {
    match client.ask(&Request::Fleet)? {
        Answer::Fleet(fleet) => Ok(fleet),
        other => Err(Client::unexpected(&other)),
    }
}

pub(crate) fn written(text: &[u8]) -> Result<DeviceList, String> {
    let text = std::str::from_utf8(text).map_err(|_| "not UTF-8".to_owned())?;
    let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
    let devices = written.devices.iter().map(|one| {
        let at = |what: &str| format!("device {}: {what}", one.name);
        let id: DeviceId = one.id.parse().map_err(|_| at("id: 64 hex digits expected"))?;
        let key = config::parse_public_key(&one.key)
            .ok_or_else(|| at("key: an Ed25519 public key of 64 hex digits expected"))?;
        let class: DeviceClass = one
            .class
            .parse()
            .map_err(|_| at("class: mpos, softpos or terminal expected"))?;
        Ok::<_, String>(ListedDevice {
            device: id,
            signing_key: key.to_bytes(),
            class,
            name: one.name.clone(),
            model: one.model.clone(),
        })
    });
    let revoked = written.revoked.iter().map(|id| {
        id.parse()
            .map_err(|_| "revoked: ids of 64 hex digits expected".to_owned())
    });
    Ok(DeviceList {
        tenant: written.tenant,
        stores: written.stores,
        version: written.version,
        not_before_ms: time(&written.not_before, "not_before")?,
        expires_ms: time(&written.expires, "expires")?,
        devices: devices.collect::<Result<_, _>>()?,
        revoked: revoked.collect::<Result<_, _>>()?,
    })
}

fn time(written: &toml::value::Datetime, what: &str) -> Result<u64, String> {
    let instant: Option<Timestamp> = written.to_string().parse().ok();
    instant
        .and_then(|instant| u64::try_from(instant.as_millisecond()).ok())
        .ok_or_else(|| format!("{what}: a time with its offset expected, such as 2026-11-26T00:00:00Z"))
}

fn listed(fleet: &FleetReport) -> String {
    let mut text = match (fleet.list_version, fleet.list_taken_ms) {
        (Some(version), taken) => format!(
            "Headquarters' list: version {version}, signed by {}, taken {}",
            fleet.list_key.as_deref().unwrap_or("-"),
            taken.map_or_else(|| "-".to_owned(), instant)
        ),
        (None, _) => "Headquarters has sent no list of devices.".to_owned(),
    };
    text.push('\n');
    if fleet.list_left > 0 {
        text.push_str(&format!(
            "It was cut off, by a power failure for example: {} of its changes are left. Apply the same file \
             again with `hubctl fleet apply`.\n",
            fleet.list_left
        ));
    }
    if fleet.tokens.is_empty() {
        text.push_str("No code for several devices is outstanding. `hubctl enrol --fleet` makes one.");
        return text;
    }
    let mut table = table(["Code", "Class", "Used", "Until"]);
    for token in &fleet.tokens {
        table.add_row([
            short(&token.token),
            &token.class,
            &format!("{} of {}", token.used, token.most),
            &instant(token.expires_ms),
        ]);
    }
    text.push_str(&table.to_string());
    text
}

fn described(list: &Checked) -> String {
    let mut table = table(["Id", "Name", "Class", "Model"]);
    for device in &list.devices {
        table.add_row([short(&device.id), &device.name, &device.class, &device.model]);
    }
    format!(
        "{} version {} for {}, signed by {}: taken from {} until {}\n{} devices, {} revoked\n{table}",
        list.tenant,
        list.version,
        list.stores.join(", "),
        list.signed_by,
        instant(list.not_before_ms),
        instant(list.expires_ms),
        list.devices.len(),
        list.revoked.len()
    )
}
