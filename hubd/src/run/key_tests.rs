//! The key's files at every cut of a change.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::key_files::{KeyStep, discard_made, next_key, settle};
use super::{opening, vault_key};
use crate::config::Config;
use crate::data_key::vault_key_id;
use crate::init::{InitOptions, init};
use crate::ledger::{Journal, JournalOptions};
use ed25519_dalek::SigningKey;
use hub_protocol::entry::{ClockQuality, EntryTime};
use hub_protocol::{Entry, Event, HubKeyChange, SignedKeyChange};

fn hub(dir: &Path) -> Config {
    init(dir, &InitOptions::default()).unwrap();
    drop(opening::open(&Config::load(dir).unwrap()).unwrap());
    Config::load(dir).unwrap()
}

/// The entry of the change and nothing more: the power fails behind it.
fn record(config: &Config, next: &SigningKey) {
    let keys = &config.keys;
    let options = JournalOptions::default();
    let (mut journal, _) =
        Journal::open(&config.layout.ledger, keys.hub_id, keys.signing.clone(), options).unwrap();
    let head = journal.head();
    let change = HubKeyChange {
        hub: keys.hub_id,
        number: 1,
        old_key: keys.signing.verifying_key().to_bytes(),
        new_key: next.verifying_key().to_bytes(),
        sequence: head.sequence + 1,
        changed_ms: 1,
    };
    let entry = Entry {
        sequence: head.sequence + 1,
        previous: head.digest,
        time: EntryTime {
            wall_ms: 1,
            monotonic_ms: 1,
            boot: [0; 16],
            quality: ClockQuality::Synchronised,
        },
        policy_version: 0,
        event: Event::HubKeyChanged {
            statement: SignedKeyChange(change.sign(&keys.signing, next)),
            operator: "uid 0".to_owned(),
        },
    };
    journal.append(&[entry.encode()]).unwrap();
}

/// With which key the hub opens from what lies there now.
fn opens_with(dir: &Path) -> SigningKey {
    let config = Config::load(dir).unwrap_or_else(|faults| panic!("{faults:?}"));
    let opened = opening::open(&config).unwrap();
    opened.journal.keys().signing()
}

#[test]
fn a_cut_at_any_step_of_a_change_leaves_exactly_one_present_key() {
    for cut in [
        None,
        Some(KeyStep::PublicWritten),
        Some(KeyStep::OldDestroyed),
        Some(KeyStep::NewInPlace),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("hub");
        let config = hub(&dir);
        let (old, layout) = (config.keys.signing.clone(), &config.layout);
        let current = old.verifying_key();
        next_key(layout, &current).unwrap();
        assert_eq!(opens_with(&dir), old, "a key that was only made changes nothing");
        let next = next_key(layout, &current).unwrap();
        record(&config, &next);
        let settled = settle(
            layout,
            &next.verifying_key(),
            &mut |step| match Some(step) == cut {
                true => Err(io::Error::other("cut")),
                false => Ok(()),
            },
        );
        assert_eq!(settled.is_err(), cut.is_some());
        // The opening ends what was begun, and the next finds nothing to do.
        for _ in 0..2 {
            assert_eq!(opens_with(&dir), next, "{cut:?}");
        }
        assert!(!layout.next_signing_key.exists(), "{cut:?}");
        let public = fs::read_to_string(&layout.signing_public).unwrap();
        assert_eq!(
            crate::config::parse_public_key(&public),
            Some(next.verifying_key())
        );
        assert_eq!(Config::load(&dir).unwrap().keys.signing, next);
    }
}

#[test]
fn the_old_key_is_overwritten_where_it_lay() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hub");
    let config = hub(&dir);
    let next = next_key(&config.layout, &config.keys.signing.verifying_key()).unwrap();
    record(&config, &next);
    // The same file under another name shows what becomes of its blocks.
    let kept = dir.join("kept");
    fs::hard_link(&config.layout.signing_key, &kept).unwrap();
    settle(&config.layout, &next.verifying_key(), &mut |_| Ok(())).unwrap();
    assert!(fs::read(&kept).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn a_key_that_the_ledger_does_not_tell_of_is_not_settled() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hub");
    let config = hub(&dir);
    let old = fs::read(&config.layout.signing_key).unwrap();
    let _ = next_key(&config.layout, &config.keys.signing.verifying_key()).unwrap();
    let current = config.keys.signing.verifying_key();
    settle(&config.layout, &current, &mut |_| Ok(())).unwrap();
    assert_eq!(fs::read(&config.layout.signing_key).unwrap(), old);
}

#[test]
fn a_next_key_that_hubd_made_is_good_for_one_try_and_one_that_was_supplied_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hub");
    let config = hub(&dir);
    let (layout, current) = (&config.layout, config.keys.signing.verifying_key());
    let made = |kept: &str| {
        let key = next_key(layout, &current).unwrap();
        let kept = dir.join(kept);
        fs::hard_link(&layout.next_signing_key, &kept).unwrap();
        (key, kept)
    };
    let gone = |kept: &Path| fs::read(kept).unwrap().iter().all(|byte| *byte == 0);
    // The core refused, the next command came, and the hub was started again.
    let (first, kept) = made("first");
    discard_made(layout, &current).unwrap();
    assert!(!layout.next_signing_key.exists() && gone(&kept), "a refusal");
    let (second, kept) = made("second");
    let third = next_key(layout, &current).unwrap();
    assert!(
        gone(&kept) && first != second && second != third,
        "another command"
    );
    let kept = dir.join("third");
    fs::hard_link(&layout.next_signing_key, &kept).unwrap();
    assert_eq!(opens_with(&dir), config.keys.signing);
    assert!(!layout.next_signing_key.exists() && gone(&kept), "a start");

    // What the operator supplies is his, also where a made one lay before.
    next_key(layout, &current).unwrap();
    let supplied = SigningKey::from_bytes(&[7; 32]);
    let text = data_encoding::HEXLOWER.encode(supplied.as_bytes());
    fs::write(&layout.next_signing_key, text).unwrap();
    discard_made(layout, &current).unwrap();
    assert_eq!(opens_with(&dir), config.keys.signing);
    assert_eq!(next_key(layout, &current).unwrap(), supplied);

    // And the key that the ledger goes on with is never destroyed.
    fs::remove_file(&layout.next_signing_key).unwrap();
    let next = next_key(layout, &current).unwrap();
    discard_made(layout, &next.verifying_key()).unwrap();
    record(&config, &next);
    assert_eq!(opens_with(&dir), next);
}

/// A power cut between the zeros over a next key and its removal.
fn starts_with_zeros_in_place_of(next: impl Fn(&Config) -> &Path) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hub");
    let config = hub(&dir);
    let file = next(&config);
    // What a change writes, as long as a line or as a PEM.
    for len in [65, 241] {
        let mut options = fs::OpenOptions::new();
        let mut zeros = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(file)
            .unwrap();
        zeros.write_all(&vec![0; len]).unwrap();
        let config = Config::load(&dir).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert!(
            config.warnings.iter().any(|warning| warning.file == file),
            "{:?}",
            config.warnings
        );
        let opened = opening::open(&config).unwrap();
        super::tls_change::open(&config, &opened.journal.keys(), None).unwrap();
        assert!(!file.exists());
    }
    // What is no key and no zeros goes on being a fault.
    fs::write(file, [b'0'; 65]).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(file, mode).unwrap();
    assert!(Config::load(&dir).is_err());
}

#[test]
fn rule_2_a_next_signing_key_cut_off_in_its_destruction_keeps_no_hub_from_starting() {
    starts_with_zeros_in_place_of(|config| &config.layout.next_signing_key);
}

#[test]
fn rule_2_a_next_tls_key_cut_off_in_its_destruction_keeps_no_hub_from_starting() {
    starts_with_zeros_in_place_of(|config| &config.layout.next_tls_key);
}

#[test]
fn rule_2_a_next_vault_key_cut_off_in_its_destruction_keeps_no_hub_from_starting() {
    starts_with_zeros_in_place_of(|config| &config.layout.next_vault_key);
}

#[test]
fn rule_2_a_hub_whose_keys_and_data_key_were_put_back_from_one_backup_starts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("hub");
    let config = hub(&dir);
    let layout = &config.layout;
    let data_key = layout.dir.join(crate::data_key::DATA_KEY);
    let backup = [&layout.vault_key, &data_key].map(|file| fs::read(file).unwrap());
    let mut store = opening::open(&config).unwrap().store_key;
    let (old, next) = vault_key::begin(layout, &mut store).unwrap();
    let changed = Event::VaultKeyChanged {
        key: vault_key_id(&next),
        old_key: vault_key_id(&old),
        operator: "uid 0".to_owned(),
    };
    super::tls_tests::record(&config, &[changed]);
    vault_key::settle(layout, &mut store, &next, &mut |_| Ok(())).unwrap();
    drop(opening::open(&Config::load(&dir).unwrap()).unwrap());

    // The later key is lost, and the backup put back: keys/ and data-key.
    for (file, bytes) in [&layout.vault_key, &data_key].into_iter().zip(&backup) {
        fs::write(file, bytes).unwrap();
    }
    for _ in 0..2 {
        let mut opened = opening::open(&Config::load(&dir).unwrap()).unwrap();
        assert_eq!(opened.store_key.key(), store.key());
        assert_eq!(opened.state.store().vault_key, Some(vault_key_id(&next)));
        let reader = opened.journal.reader();
        assert!(reader.entries_from(1).unwrap().all(|entry| entry.is_ok()));
        // And the key can be changed from there.
        let (present, _) = vault_key::begin(layout, &mut opened.store_key).unwrap();
        assert_eq!(present, old);
        vault_key::take_back(layout, &mut opened.store_key, &old).unwrap();
    }
}
