//! Which keys a hub has and trusts, and how old they are.

use std::path::Path;
use std::time::UNIX_EPOCH;

use hub_protocol::{KeyChain, KeyId};

use crate::admin::protocol::KeyReport;
use crate::config::{self, Config};
use crate::devices::RegisteredDevice;

/// All of them, the hub's first.
pub(crate) fn all(config: &Config, chain: &KeyChain, devices: Vec<RegisteredDevice>) -> Vec<KeyReport> {
    let mut keys = of_hub(config, chain);
    let hub = config.policy.trusted_keys.iter().map(|key| KeyReport {
        purpose: "policy".to_owned(),
        holder: "headquarters".to_owned(),
        public: Some(data_encoding::HEXLOWER.encode(key.as_bytes())),
        id: Some(KeyId::of_key(key.as_bytes()).to_string()),
        ..KeyReport::default()
    });
    keys.extend(hub);
    let mut devices = devices;
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    keys.extend(devices.into_iter().map(|device| KeyReport {
        purpose: "device".to_owned(),
        id: Some(KeyId::of_key(device.verifying_key.as_bytes()).to_string()),
        public: Some(data_encoding::HEXLOWER.encode(device.verifying_key.as_bytes())),
        since_ms: Some(device.enrolled_ms),
        holder: device.name,
        changes: None,
    }));
    keys
}

/// The hub's own keys.
pub(crate) fn of_hub(config: &Config, chain: &KeyChain) -> Vec<KeyReport> {
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
    keys.push(file("tls", &layout.tls_key, Some(config.keys.hub_id.to_string())));
    keys.push(file("vault", &layout.vault_key, None));
    keys
}

/// When a file was last written: of a key that has not changed, when it was
/// made.
fn modified(path: &Path) -> Option<u64> {
    let modified = path.metadata().ok()?.modified().ok()?;
    u64::try_from(modified.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}
