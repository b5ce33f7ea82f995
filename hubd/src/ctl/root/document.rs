//! A root as people write it: TOML.

use std::fmt::Write as _;

use hub_core::toml_reader::{Document, Fault, Section, integer, list, text};
use hub_protocol::root::{Delegated, Delegation, Root, RootKey, SignedRoot};
use jiff::Timestamp;
use toml::de::DeValue;

use crate::config;
use crate::ctl::show::instant;

const INSTANT: &str = "an instant with its offset, such as 2027-12-01T00:00:00Z,";
const KEY: &str = "an Ed25519 public key of 64 hex digits, as `hubctl keygen` prints it,";
const NAME: &str = "a name of 1 to 64 bytes";

/// Reads a root. All faults are returned at once, by line; what hangs
/// together, such as a key that stands in it twice, only once the rest is
/// sound.
pub(super) fn read(file: &str) -> Result<SignedRoot, Vec<Fault>> {
    let document = Document::parse(file)?;
    let root = fields(&document);
    let faults = document.into_faults();
    match root {
        Some(root) if faults.is_empty() => SignedRoot::unsigned(root).map_err(|error| {
            let message = error.to_string();
            vec![Fault { line: 1, message }]
        }),
        _ => Err(faults),
    }
}

fn fields(document: &Document<'_>) -> Option<Root> {
    let root = document.root();
    let number = "a whole number from 1";
    let tenant = root.required("tenant", NAME, text::<String>);
    let version = root.required("version", number, integer(1..=u64::from(u32::MAX)));
    let expires = root.required("expires", INSTANT, moment);
    let threshold = root.required("threshold", number, integer(1..=u64::from(u32::MAX)));
    let keys: Vec<Option<RootKey>> = root.sections("key").into_iter().map(key).collect();
    let delegations: Vec<Option<Delegation>> =
        root.sections("delegate").into_iter().map(delegation).collect();
    root.finish();
    Some(Root {
        tenant: tenant?.value,
        version: u32::try_from(version?.value).ok()?,
        expires_ms: expires?.value,
        threshold: u32::try_from(threshold?.value).ok()?,
        keys: keys.into_iter().collect::<Option<_>>()?,
        delegations: delegations.into_iter().collect::<Option<_>>()?,
    })
}

fn key(section: Section<'_, '_>) -> Option<RootKey> {
    let name = section.required("name", NAME, text::<String>);
    let key = section.required("key", KEY, public_key);
    section.finish();
    Some(RootKey {
        name: name?.value,
        key: key?.value,
    })
}

fn delegation(section: Section<'_, '_>) -> Option<Delegation> {
    let name = section.required("name", NAME, text::<String>);
    let key = section.required("key", KEY, public_key);
    let stores = section.required("stores", "a list of store ids, or [\"*\"],", list::<String>);
    let signs = section.required(
        "signs",
        "a list of \"policies\" and \"device-lists\"",
        list::<Delegated>,
    );
    let not_before = section.required("not_before", INSTANT, moment);
    let expires = section.required("expires", INSTANT, moment);
    let least = section.optional(
        "least_version",
        "a whole number from 1",
        integer(1..=u64::from(u32::MAX)),
    );
    section.finish();
    // In any order and doubled, it says the same.
    let sorted = |mut stores: Vec<String>| {
        stores.sort();
        stores.dedup();
        stores
    };
    let mut signs = signs?.value;
    signs.sort();
    signs.dedup();
    Some(Delegation {
        name: name?.value,
        key: key?.value,
        stores: sorted(stores?.value),
        signs,
        not_before_ms: not_before?.value,
        expires_ms: expires?.value,
        least_version: least.and_then(|at| u32::try_from(at.value).ok()),
    })
}

fn public_key(value: &DeValue<'_>) -> Option<[u8; 32]> {
    Some(config::parse_public_key(value.as_str()?)?.to_bytes())
}

fn moment(value: &DeValue<'_>) -> Option<u64> {
    let instant: Timestamp = value.as_datetime()?.to_string().parse().ok()?;
    u64::try_from(instant.as_millisecond()).ok()
}

/// The same root as TOML: what the next one is written from.
pub(super) fn write(root: &Root) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let hex = |key: &[u8; 32]| data_encoding::HEXLOWER.encode(key);
    let mut out = format!(
        "tenant = {}\nversion = {}\nexpires = {}\nthreshold = {}\n",
        quoted(&root.tenant),
        root.version,
        instant(root.expires_ms),
        root.threshold
    );
    for key in &root.keys {
        // Writing into a String cannot fail.
        let _ = write!(
            out,
            "\n[[key]]\nname = {}\nkey = \"{}\"\n",
            quoted(&key.name),
            hex(&key.key)
        );
    }
    for one in &root.delegations {
        let stores: Vec<String> = one.stores.iter().map(|store| quoted(store)).collect();
        let signs: Vec<String> = one.signs.iter().map(|what| quoted(what.name())).collect();
        let _ = write!(
            out,
            "\n[[delegate]]\nname = {}\nkey = \"{}\"\nstores = [{}]\nsigns = [{}]\nnot_before = {}\nexpires = {}\n",
            quoted(&one.name),
            hex(&one.key),
            stores.join(", "),
            signs.join(", "),
            instant(one.not_before_ms),
            instant(one.expires_ms),
        );
        if let Some(least) = one.least_version {
            let _ = writeln!(out, "least_version = {least}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../../../../config/root.toml");

    #[test]
    fn the_sample_is_read_and_written_again_as_the_same_root() {
        let root = read(SAMPLE).unwrap().root().clone();
        assert_eq!(
            (root.keys.len(), root.threshold, root.delegations.len()),
            (3, 2, 1)
        );
        assert_eq!(read(&write(&root)).unwrap().root(), &root);
        let least = SAMPLE.replace("# least_version", "least_version");
        let root = read(&least).unwrap().root().clone();
        assert_eq!(root.delegations[0].least_version, Some(12));
        assert_eq!(read(&write(&root)).unwrap().root(), &root);
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let cases = [
            ("version = 1\n", "version = 0\n", "a whole number from 1"),
            ("threshold = 2", "threshold = 4", "threshold"),
            ("key = \"7293695c", "key = \"zz", "64 hex digits"),
            (
                "signs = [\"policies\"]",
                "signs = [\"everything\"]",
                "device-lists",
            ),
            (
                "expires = 2027-12-01T00:00:00Z\n# How",
                "expires = \"soon\"\n# How",
                "an instant",
            ),
            ("tenant =", "tennant =", "tenant"),
            ("stores = [\"*\"]", "stores = [\"*\", \"0042\"]", "alone"),
        ];
        for (old, new, expected) in cases {
            assert!(SAMPLE.contains(old), "{old}");
            let faults = read(&SAMPLE.replacen(old, new, 1)).unwrap_err();
            assert!(
                faults.iter().any(|fault| fault.message.contains(expected)),
                "{new}: {faults:?}"
            );
        }
    }
}
