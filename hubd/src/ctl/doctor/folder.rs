//! The hub's folder: configuration, keys, policy, formats.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use hub_protocol::root::Delegated;

use super::Finding;
use crate::clock;
use crate::config::{Config, ConfigFault, Layout, Peer, read_signing_key};
use crate::ctl::show::{instant, span};
use crate::data_key;
use crate::ledger::{STORE_FORMAT, read_store_format, signing_keys};
use crate::run::of_hub;

/// From how long before its end on a policy is to be looked after.
const NEAR_END_MS: u64 = 14 * 24 * 60 * 60 * 1000;

/// Faults and warnings of the configuration, one finding each.
pub(super) fn configuration(
    loaded: Result<Config, Vec<ConfigFault>>,
    findings: &mut Vec<Finding>,
) -> Option<Config> {
    const CHECK: &str = "configuration";
    match loaded {
        Ok(config) => {
            let warnings = config.warnings.iter();
            let before = findings.len();
            findings.extend(warnings.map(|warning| Finding::warning(CHECK, warning.to_string())));
            if findings.len() == before {
                findings.push(Finding::good(CHECK, "hubd.toml has no faults"));
            }
            Some(config)
        }
        Err(faults) => {
            findings.extend(faults.iter().map(|fault| Finding::bad(CHECK, fault.to_string())));
            None
        }
    }
}

/// The modes of the key files. Whether they can be read is the
/// configuration's to say.
pub(super) fn key_files(layout: &Layout) -> Finding {
    const CHECK: &str = "key files";
    let open = |path: &Path, mask: u32| {
        let mode = path.metadata().ok()?.mode() & 0o7777;
        (mode & mask != 0).then(|| format!("{} (mode {mode:04o})", path.display()))
    };
    let files = [
        &layout.signing_key,
        &layout.next_signing_key,
        &layout.tls_key,
        &layout.next_tls_key,
        &layout.vault_key,
        &layout.next_vault_key,
        &layout.policy_key,
    ];
    let folders = [&layout.dir, &layout.keys];
    let files = files.into_iter().filter_map(|file| open(file, 0o077));
    let folders = folders.into_iter().filter_map(|folder| open(folder, 0o022));
    let open: Vec<String> = files.chain(folders).collect();
    if open.is_empty() {
        return Finding::good(CHECK, "only the hub's user can read and replace them");
    }
    Finding::bad(
        CHECK,
        format!(
            "open to others, and hubd does not start: {}; chmod 600 files, 700 folders",
            open.join(", ")
        ),
    )
}

/// Whether the keys lie on the disk in clear.
pub(super) fn keys_at_rest(layout: &Layout, credentials: &Path) -> Finding {
    const CHECK: &str = "keys at rest";
    let clear = [&layout.signing_key, &layout.tls_key, &layout.vault_key].map(PathBuf::as_path);
    let clear: Vec<&str> = clear
        .into_iter()
        .chain(layout.next_keys())
        .filter(|file| file.exists())
        .filter_map(|file| file.file_name()?.to_str())
        .collect();
    if !clear.is_empty() {
        return Finding::warning(
            CHECK,
            format!(
                "{} in clear on the disk: whoever takes the disk has them; systemd/hubd.service says how to encrypt them",
                clear.join(", ")
            ),
        );
    }
    if credentials.is_dir() {
        return Finding::good(CHECK, "encrypted, given by the service manager at start");
    }
    Finding::warning(
        CHECK,
        "not in keys/, and the unit with its credentials does not run now",
    )
}

/// A policy key that lies beside the hub which obeys it.
pub(super) fn policy_key(config: &Config) -> Option<Finding> {
    const CHECK: &str = "policy key";
    let file = &config.layout.policy_key;
    let key = read_signing_key(file).ok()?.verifying_key();
    let obeyed = [Delegated::Policies, Delegated::DeviceLists]
        .into_iter()
        .any(|what| {
            let keys = Config::trusted_keys(&config.layout.dir, what);
            keys.is_ok_and(|keys| keys.contains(&key))
        });
    let file = file.display();
    obeyed.then(|| {
        Finding::warning(
            CHECK,
            format!(
                "{file} lies beside the hub, which obeys what it signs: whoever has this machine or its disk decides \
                 what is approved offline, and who is enrolled. Once policies come from headquarters, take its public \
                 half out of [policy] trusted_keys, and destroy it with `shred -u {file}`; until then keep it on a \
                 medium that is locked away, and not here"
            ),
        )
    })
}

/// From how old on a key is to be changed.
const OLD_KEY_MS: u64 = 365 * 24 * 60 * 60 * 1000;

/// How old the hub's keys are.
pub(super) fn key_ages(config: &Config) -> Finding {
    const CHECK: &str = "key ages";
    let chain = match signing_keys(&config.layout.ledger, &config.keys.signing.verifying_key()) {
        Ok(chain) => chain,
        Err(error) => return Finding::warning(CHECK, error.to_string()),
    };
    let now = clock::wall_ms();
    let aged = of_hub(config, &chain, None).into_iter().filter_map(|key| {
        let age = now.saturating_sub(key.since_ms?);
        (age > OLD_KEY_MS).then(|| format!("{} ({})", key.purpose, span(age / 1000)))
    });
    let aged: Vec<String> = aged.collect();
    if aged.is_empty() {
        return Finding::good(CHECK, "none is older than a year, as far as is known");
    }
    Finding::warning(
        CHECK,
        format!(
            "older than a year: {}; `hubctl keys rotate` changes each of them while the shop is open",
            aged.join(", ")
        ),
    )
}

/// A signing key that lies there and is not in use.
pub(super) fn next_key(config: &Config) -> Option<Finding> {
    const CHECK: &str = "next signing key";
    let own = config.keys.signing.verifying_key();
    let next = config.keys.next_signing.as_ref()?.verifying_key();
    // Of a chain that cannot be read, another check tells.
    let current = signing_keys(&config.layout.ledger, &own).map_or(own, |chain| *chain.current());
    (next != current).then(|| {
        Finding::warning(
            CHECK,
            "hub-signing.next.key is there and not in use; if you have just supplied it, give `hubctl keys rotate \
             signing` now, and if not, destroy it with `shred -u`, because somebody may have copied it",
        )
    })
}

/// A vault key that lies there and opens nothing.
pub(super) fn next_vault_key(config: &Config) -> Option<Finding> {
    const CHECK: &str = "next vault key";
    let next = config.keys.next_vault.clone()?;
    let opens = data_key::seal_of_copy(&config.layout.ledger, &[next]);
    (!matches!(opens, Ok(Some(_)))).then(|| {
        Finding::warning(
            CHECK,
            "hub-vault.next.key is there and not in use; if you have just supplied it, give `hubctl keys rotate \
             vault` now, and if not, destroy it with `shred -u`, because somebody may have copied it",
        )
    })
}

/// Whether headquarters can read the store when this machine is lost.
pub(super) fn recovery_key(config: &Config) -> Finding {
    const CHECK: &str = "recovery key";
    let Some(key) = &config.ledger.recovery_key else {
        return Finding::warning(
            CHECK,
            "none: with this machine, or its vault key, everything that was not sent is lost. Make one at headquarters \
             with `hubctl keygen --recovery`, and name it in [ledger] recovery_key of hubd.toml",
        );
    };
    match data_key::recovery_key_of(&config.layout) {
        Some(wrapped) if wrapped == key.id() => Finding::good(
            CHECK,
            "the store's data key is wrapped for it: keep copies of this folder elsewhere",
        ),
        _ => Finding::warning(
            CHECK,
            "hubd.toml names one for which the store's data key is not wrapped yet: restart hubd, and see its log",
        ),
    }
}

/// The store's format.
pub(super) fn format(layout: &Layout) -> Finding {
    const CHECK: &str = "store";
    match read_store_format(&layout.format) {
        Ok(Some(STORE_FORMAT)) => Finding::good(CHECK, format!("format {STORE_FORMAT}, the newest")),
        Ok(Some(older)) => Finding::warning(
            CHECK,
            format!("format {older}; the next start of this hubd makes it {STORE_FORMAT}"),
        ),
        Ok(None) if layout.ledger.exists() => Finding::warning(
            CHECK,
            format!("format 1; the next start of this hubd makes it {STORE_FORMAT}"),
        ),
        Ok(None) => Finding::warning(CHECK, "there is none yet; the first start makes it"),
        Err(error) => Finding::bad(CHECK, error.to_string()),
    }
}

/// The policy in its file, and how long it holds.
pub(super) fn policy(config: &Config) -> Finding {
    const CHECK: &str = "policy";
    let Some(present) = &config.policy.present else {
        if config.policy.root.is_some() {
            return Finding::warning(
                CHECK,
                "the file holds none by a key that the root delegates: hubctl status says what is in force",
            );
        }
        return Finding::warning(CHECK, "none: nothing is approved offline");
    };
    let (version, now) = (present.policy.version, clock::wall_ms());
    let expires = present.policy.expires_ms;
    let until = instant(expires);
    match expires.checked_sub(now) {
        None => Finding::bad(
            CHECK,
            format!("version {version} expired at {until}: nothing is approved offline; install a newer one"),
        ),
        Some(left) if left < NEAR_END_MS => Finding::warning(
            CHECK,
            format!(
                "version {version} ends in {}; ask headquarters for the next",
                span(left / 1000)
            ),
        ),
        Some(_) => Finding::good(CHECK, format!("version {version}, until {until}")),
    }
}

/// What the hub knows the gateway by, and the gateway the hub.
pub(super) fn gateway(config: &Config) -> Finding {
    const CHECK: &str = "gateway";
    let gateway = &config.gateway;
    let authority = gateway.ca_file.as_ref().map_or_else(
        || "the public authorities".to_owned(),
        |file| file.display().to_string(),
    );
    let known = match &gateway.peer {
        Peer::Https { credential, .. } => credential.is_some(),
        Peer::Iso8583(acquirer) => acquirer.client_certificate.is_some(),
    };
    if known {
        return Finding::good(CHECK, format!("{}, checked by {authority}", gateway.peer));
    }
    Finding::warning(
        CHECK,
        format!(
            "{}, checked by {authority}; it is called without a credential",
            gateway.peer
        ),
    )
}
