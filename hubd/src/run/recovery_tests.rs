use super::*;
use crate::config::Config;
use crate::init::{InitOptions, init};
use crate::run::opening;
use zeroize::Zeroizing;

const STEPS: [RecoveryStep; 6] = [
    RecoveryStep::OtherAside,
    RecoveryStep::Made,
    RecoveryStep::Noted,
    RecoveryStep::Wrapped,
    RecoveryStep::OldWrapGone,
    RecoveryStep::InPlace,
];

fn secret(byte: u8) -> RecoverySecret {
    RecoverySecret::from_seed(&[byte; 32])
}

fn configure(dir: &Path, key: Option<&RecoverySecret>) -> Config {
    let file = dir.join("hubd.toml");
    let text = fs::read_to_string(&file).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("recovery_key"));
    let mut text: String = lines.flat_map(|line| [line, "\n"]).collect();
    if let Some(key) = key {
        let line = format!("[ledger]\nrecovery_key = \"{}\"\n", key.public());
        text = text.replace("[ledger]\n", &line);
    }
    fs::write(&file, text).unwrap();
    Config::load(dir).unwrap_or_else(|faults| panic!("{faults:?}"))
}

/// A hub that has run with a recovery key in its configuration.
fn hub(key: u8) -> (tempfile::TempDir, Config, StoreKey) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("hub");
    init(&folder, &InitOptions::default()).unwrap();
    let config = configure(&folder, Some(&secret(key)));
    let store = opening::open(&config).unwrap().store_key;
    (dir, config, store)
}

fn recovered(config: &Config, key: u8, at: AtStep<'_>) -> Result<WrapId, NotRecovered> {
    recover(&config.layout, config.keys.hub_id, &secret(key), "uid 0", at)
}

fn files(layout: &Layout) -> Vec<(PathBuf, Vec<u8>)> {
    let folders = [&layout.dir, &layout.keys, &layout.ledger];
    let list = folders.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
    let files = list
        .map(|item| item.unwrap().path())
        .filter(|path| path.is_file());
    let mut files: Vec<_> = files
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn rule_2_a_recovery_cut_off_at_any_step_is_ended_by_the_next_and_opens_the_same_store() {
    for cut in STEPS {
        for other in [false, true] {
            let (_dir, config, store) = hub(1);
            let layout = &config.layout;
            let alien = fs::read(&layout.signing_key).unwrap();
            match other {
                // What is put back from another store's backup.
                true => fs::write(&layout.vault_key, &alien).unwrap(),
                false => fs::remove_file(&layout.vault_key).unwrap(),
            }
            let stopped = recovered(&config, 1, &mut |step| match step == cut {
                true => Err(io::Error::other("the power fails")),
                false => Ok(()),
            });
            assert!(stopped.is_err(), "{cut:?}");
            recovered(&config, 1, &mut |_| Ok(())).unwrap();
            // Once more changes nothing.
            let before = files(layout);
            recovered(&config, 1, &mut |_| Ok(())).unwrap();
            assert!(files(layout) == before, "{cut:?}");
            assert!(!layout.next_vault_key.exists(), "{cut:?}");
            let aside = layout.vault_key.with_extension("other.key");
            assert_eq!(fs::read(aside).ok(), other.then_some(alien), "kept as it was");
            let opened = opening::open(&Config::load(&layout.dir).unwrap()).unwrap();
            assert_eq!(opened.store_key.key(), store.key(), "{cut:?}");
            assert_eq!(opened.store_key.recovery(), Some(secret(1).public().id()));
        }
    }
}

#[test]
fn rule_2_a_hub_starts_wherever_a_recovery_was_cut_off_once_the_new_key_opens_it() {
    for cut in [
        RecoveryStep::Wrapped,
        RecoveryStep::OldWrapGone,
        RecoveryStep::InPlace,
    ] {
        let (_dir, config, store) = hub(1);
        let layout = &config.layout;
        fs::remove_file(&layout.vault_key).unwrap();
        let stopped = recovered(&config, 1, &mut |step| match step == cut {
            true => Err(io::Error::other("the power fails")),
            false => Ok(()),
        });
        assert!(stopped.is_err());
        let opened = opening::open(&Config::load(&layout.dir).unwrap()).unwrap();
        assert_eq!(opened.store_key.key(), store.key());
        let told = opened.recovered.expect("the ledger is to be told");
        assert_eq!(told.recovery_key, secret(1).public().id());
        assert_eq!(told.operator, "uid 0");
    }
}

#[test]
fn what_the_ledger_is_told_of_a_recovery_is_told_until_it_has_it() {
    let (_dir, config, store) = hub(1);
    let layout = &config.layout;
    fs::remove_file(&layout.vault_key).unwrap();
    let id = recovered(&config, 1, &mut |_| Ok(())).unwrap();
    let key = config::vault_keys(layout);
    let store = StoreKey::open(layout, &key.iter().collect::<Vec<_>>()).unwrap_or(store);
    for named in [None, Some([9; 8])] {
        assert!(to_tell(layout, &store, named).is_some_and(|told| told.vault_key == id));
    }
    assert_eq!(to_tell(layout, &store, Some(id)), None);
    assert!(!note_file(layout).exists());
    // And one about a key that opens nothing is none.
    let stale = Recovered {
        vault_key: [3; 8],
        recovery_key: [4; 8],
        operator: "uid 0".to_owned(),
    };
    note(layout, &stale).unwrap();
    assert_eq!(to_tell(layout, &store, None), None);
    assert!(!note_file(layout).exists());
}

#[test]
fn a_wrong_recovery_key_or_a_store_that_opens_changes_nothing() {
    let (_dir, config, _store) = hub(1);
    let layout = &config.layout;
    let before = files(layout);
    let refused = recovered(&config, 1, &mut |_| Ok(()));
    assert!(
        matches!(refused, Err(NotRecovered::NotNeeded { .. })),
        "{refused:?}"
    );
    fs::remove_file(&layout.vault_key).unwrap();
    let refused = recovered(&config, 2, &mut |_| Ok(()));
    assert!(
        matches!(
            refused,
            Err(NotRecovered::DataKey(DataKeyError::OtherRecoveryKey { .. }))
        ),
        "{refused:?}"
    );
    let mut after = files(layout);
    after.extend(
        before
            .iter()
            .filter(|(path, _)| *path == layout.vault_key)
            .cloned(),
    );
    after.sort();
    assert!(after == before, "nothing is written");
}

#[test]
fn a_store_that_a_hub_runs_on_is_not_recovered() {
    let (_dir, config, _store) = hub(1);
    let _lock = DataLock::acquire(&config.layout.dir).unwrap();
    let refused = recovered(&config, 1, &mut |_| Ok(()));
    assert!(
        matches!(refused, Err(NotRecovered::Ledger(LedgerError::Locked { .. }))),
        "{refused:?}"
    );
}

#[test]
fn a_start_wraps_the_store_for_the_recovery_key_of_its_configuration_and_for_no_other() {
    let (_dir, config, _store) = hub(1);
    let dir = &config.layout.dir;
    let opens = |key: u8| StoreKey::recover(&config.layout, config.keys.hub_id, &secret(key)).is_ok();
    assert!(opens(1) && !opens(2));
    drop(opening::open(&configure(dir, Some(&secret(2)))).unwrap());
    assert!(opens(2) && !opens(1), "another key");
    drop(opening::open(&configure(dir, None)).unwrap());
    assert!(!opens(2), "none");
}

#[test]
fn a_supplied_vault_key_is_what_a_recovered_store_gets() {
    let (_dir, config, _store) = hub(1);
    let layout = &config.layout;
    fs::rename(&layout.vault_key, layout.dir.join("lost")).unwrap();
    let supplied: VaultKey = Zeroizing::new([8; 32]);
    write_secret(
        &layout.next_vault_key,
        &HEXLOWER.encode(supplied.as_slice()),
        &layout.keys,
    )
    .unwrap();
    assert_eq!(
        recovered(&config, 1, &mut |_| Ok(())).unwrap(),
        vault_key_id(&supplied)
    );
    assert_eq!(config::vault_keys(layout), [supplied]);
}

#[test]
fn what_root_recovers_belongs_to_whom_the_hubs_folder_belongs_to() {
    // Only root can give files away; anybody else owns what he makes.
    let user = match rustix::process::geteuid().is_root() {
        true => 65_534,
        false => rustix::process::geteuid().as_raw(),
    };
    let (_dir, config, _store) = hub(1);
    let layout = &config.layout;
    fs::remove_dir_all(&layout.keys).unwrap();
    for folder in [&layout.dir, &layout.ledger] {
        chown(folder, Some(user), None).unwrap();
    }
    recovered(&config, 1, &mut |_| Ok(())).unwrap();
    let places = [layout.dir.join("data-key"), layout.ledger.join("data-key")];
    for made in [&layout.keys, &layout.vault_key, &note_file(layout)]
        .into_iter()
        .chain(&places)
    {
        assert_eq!(made.metadata().unwrap().uid(), user, "{}", made.display());
    }
}
