//! Which keys a hub has and trusts, and how old they are.

use std::path::Path;
use std::time::UNIX_EPOCH;

use hub_protocol::root::Delegated;
use hub_protocol::{Authority, HubTlsKeys, KeyChain, KeyId};

use crate::admin::protocol::KeyReport;
use crate::config::{self, Config};
use crate::data_key::vault_key_id;
use crate::devices::RegisteredDevice;

/// All of them, the hub's first, and of headquarters those that count.
pub(crate) fn all(
    config: &Config,
    chain: &KeyChain,
    tls: Option<HubTlsKeys>,
    authority: &Authority,
    devices: Vec<RegisteredDevice>,
) -> Vec<KeyReport> {
    let mut keys = of_hub(config, chain, tls);
    keys.extend(of_headquarters(authority));
    let mut devices = devices;
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    keys.extend(devices.into_iter().map(|device| KeyReport {
        purpose: "device".to_owned(),
        id: Some(KeyId::of_key(device.verifying_key.as_bytes()).to_string()),
        public: Some(data_encoding::HEXLOWER.encode(device.verifying_key.as_bytes())),
        // When it changed its keys last, the ledger tells.
        since_ms: (device.key_changes == 0).then_some(device.enrolled_ms),
        holder: device.name,
        changes: Some(device.key_changes).filter(|changes| *changes > 0),
    }));
    keys
}

/// The keys of headquarters: those of the root in force and what it delegates
/// to, or else those in the configuration.
fn of_headquarters(authority: &Authority) -> Vec<KeyReport> {
    let report = |purpose: &str, holder: &str, key: &[u8; 32], since_ms| KeyReport {
        purpose: purpose.to_owned(),
        holder: holder.to_owned(),
        public: Some(data_encoding::HEXLOWER.encode(key)),
        id: Some(KeyId::of_key(key).to_string()),
        since_ms,
        changes: None,
    };
    match authority {
        Authority::Keys(keys) => {
            let keys = keys.iter();
            keys.map(|key| report("policy", "headquarters", key.as_bytes(), None))
                .collect()
        }
        Authority::Root(root) => {
            let keys = root.keys.iter();
            let keys = keys.map(|key| report("root", &key.name, &key.key, None));
            let delegated = root.delegations.iter().flat_map(|to| {
                let since = Some(to.not_before_ms);
                let purposes = to.signs.iter().map(|signs| match signs {
                    Delegated::Policies => "policy",
                    Delegated::DeviceLists => "device-list",
                });
                purposes.map(move |purpose| report(purpose, &to.name, &to.key, since))
            });
            keys.chain(delegated).collect()
        }
    }
}

/// The hub's own keys.
///
/// Of the TLS keys, what the ledger says if that is known.
pub(crate) fn of_hub(config: &Config, chain: &KeyChain, tls: Option<HubTlsKeys>) -> Vec<KeyReport> {
    let (layout, holder) = (&config.layout, config.keys.hub_id.short());
    let ed25519 = |purpose: &str, key: &ed25519_dalek::VerifyingKey, since_ms, changes| KeyReport {
        purpose: purpose.to_owned(),
        holder: holder.clone(),
        id: Some(KeyId::of_key(key.as_bytes()).to_string()),
        public: Some(data_encoding::HEXLOWER.encode(key.as_bytes())),
        since_ms,
        changes,
    };
    let file = |purpose: &str, path: &Path, id| KeyReport {
        purpose: purpose.to_owned(),
        holder: holder.clone(),
        id,
        since_ms: modified(path),
        ..KeyReport::default()
    };
    let since = chain.since_ms().or_else(|| modified(&layout.signing_key));
    let mut keys = vec![ed25519("signing", chain.current(), since, Some(chain.changes()))];
    if let Ok(Some(next)) = config::next_signing_key(layout)
        && next.verifying_key() != *chain.current()
    {
        keys.push(ed25519("signing-next", &next.verifying_key(), None, None));
    }
    let changes = tls.as_ref().map(|tls| tls.number);
    let in_use = tls.as_ref().map(|tls| tls.keys.clone()).unwrap_or_default();
    match in_use.as_slice() {
        [new, old] => {
            keys.push(KeyReport {
                changes,
                ..file("tls", &layout.tls_key, Some(old.to_string()))
            });
            let since_ms = tls.map(|tls| tls.changed_ms);
            keys.push(KeyReport {
                since_ms,
                ..file("tls-next", &layout.next_tls_key, Some(new.to_string()))
            });
        }
        one => {
            let key = one.first().copied().unwrap_or(config.keys.tls.digest);
            keys.push(KeyReport {
                changes,
                ..file("tls", &layout.tls_key, Some(key.to_string()))
            });
        }
    }
    // Of two, the present one comes first but for the moment of a change.
    let vault = config::vault_keys(layout).into_iter().next();
    let vault = vault.map(|key| data_encoding::HEXLOWER.encode(&vault_key_id(&key)));
    keys.push(file("vault", &layout.vault_key, vault));
    keys.extend(config.ledger.recovery_key.map(|key| KeyReport {
        purpose: "recovery".to_owned(),
        holder: "headquarters".to_owned(),
        id: Some(data_encoding::HEXLOWER.encode(&key.id())),
        public: Some(key.to_string()),
        ..KeyReport::default()
    }));
    keys
}

/// When a file was last written: of a key that has not changed, when it was
/// made.
fn modified(path: &Path) -> Option<u64> {
    let modified = path.metadata().ok()?.modified().ok()?;
    u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;
    use hub_protocol::root::{Delegation, Root, RootKey};

    fn public(seed: u8) -> [u8; 32] {
        SigningKey::from_bytes(&[seed; 32]).verifying_key().to_bytes()
    }

    #[test]
    fn the_keys_of_headquarters_are_those_of_the_root_in_force() {
        let delegation = |name: &str, seed, signs| Delegation {
            name: name.to_owned(),
            key: public(seed),
            stores: vec!["*".to_owned()],
            signs,
            not_before_ms: 7,
            expires_ms: 9,
            least_version: None,
        };
        let root = Root {
            tenant: "demo".to_owned(),
            version: 1,
            expires_ms: 9,
            threshold: 1,
            keys: vec![RootKey {
                name: "Ada".to_owned(),
                key: public(1),
            }],
            delegations: vec![
                delegation("risk", 2, vec![Delegated::Policies]),
                delegation("fleet", 3, vec![Delegated::Policies, Delegated::DeviceLists]),
            ],
        };
        let shown = |authority: &Authority| -> Vec<(String, String, Option<String>, Option<u64>)> {
            let keys = of_headquarters(authority).into_iter();
            keys.map(|key| (key.purpose, key.holder, key.public, key.since_ms))
                .collect()
        };
        let row = |purpose: &str, holder: &str, seed, since| {
            let public = Some(data_encoding::HEXLOWER.encode(&public(seed)));
            (purpose.to_owned(), holder.to_owned(), public, since)
        };
        assert_eq!(
            shown(&Authority::Root(Box::new(root))),
            [
                row("root", "Ada", 1, None),
                row("policy", "risk", 2, Some(7)),
                row("policy", "fleet", 3, Some(7)),
                row("device-list", "fleet", 3, Some(7)),
            ]
        );
        let configured = Authority::Keys(vec![SigningKey::from_bytes(&[4; 32]).verifying_key()]);
        assert_eq!(shown(&configured), [row("policy", "headquarters", 4, None)]);
    }
}
