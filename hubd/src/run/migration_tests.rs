//! The migration, cut off at every step.

use std::path::Path;
use std::process::Command;

use super::super::opening::{self, OpenError};
use super::*;
use crate::ledger::{Journal, JournalOptions, add_to_older_index};

const STEPS: [Step; 5] = [
    Step::Verified,
    Step::Built,
    Step::OldAside,
    Step::NewInPlace,
    Step::Stamped,
];

/// A copy of the store that the first version wrote.
fn store(dir: &Path) -> Config {
    store_of(1, dir)
}

fn store_of(format: u16, dir: &Path) -> Config {
    let name = format!("tests/fixtures/store-v{format}.tar.gz");
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .arg("--no-same-owner")
        .status()
        .unwrap();
    assert!(unpacked.success());
    Config::load(&dir.join("hub")).unwrap()
}

fn open(config: &Config, at: AtStep<'_>) -> Result<Open, OpenError> {
    let opened = opening::open_at(config, at)?;
    Open::of(&opened.state, &opened.index.reader())
}

fn test_seal() -> crate::ledger::RestSeal {
    crate::ledger::RestSeal::index(&hub_protocol::DataKey::new([5; 32]))
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let list = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    // The key is new to a store of an older format.
    list.filter(|path| !path.ends_with(crate::data_key::DATA_KEY))
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

#[test]
fn a_store_of_the_first_version_is_migrated_and_nothing_in_it_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let config = store(dir.path());
    let files_now = || (files(&config.layout.ledger), files(&config.layout.vault));
    let before = files_now();
    let mut steps = Vec::new();
    let state = open(&config, &mut |step| {
        assert!(files_now() == before, "{step:?}: what was there is touched");
        steps.push(step);
        Ok(())
    })
    .unwrap();
    assert_eq!(steps, STEPS);
    assert_eq!((state.store.exposure_minor, state.payments.len()), (9522, 5));
    // Behind the last step cards are encrypted anew, under the store's key.
    assert!(files(&config.layout.ledger) == before.0);
    assert_eq!(
        crate::ledger::read_store_format(&config.layout.format).unwrap(),
        Some(STORE_FORMAT)
    );
    // The second opening migrates nothing.
    let again = open(&config, &mut |step| panic!("{step:?}")).unwrap();
    assert_eq!(state, again);
}

#[test]
fn rule_6_a_start_leaves_no_index_that_names_cards_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let config = store(dir.path());
    let damaged = beside(&config.layout.index, "damaged-1");
    fs::create_dir(&damaged).unwrap();
    fs::write(damaged.join("db"), b"tok_in_clear").unwrap();
    // Nothing goes as long as the new index is not in use.
    let ended = open(&config, &mut |step| match step {
        Step::NewInPlace => Err(OpenError::Migration("power cut".into())),
        _ => Ok(()),
    });
    assert!(ended.is_err());
    let before = beside(&config.layout.index, BEFORE);
    assert!(before.is_dir() && damaged.is_dir());
    open(&config, &mut |_| Ok(())).unwrap();
    assert!(!before.exists() && !damaged.exists());
    // Leftovers of an older start go at the next one.
    for left in [&before, &damaged] {
        fs::create_dir(left).unwrap();
        fs::write(left.join("db"), b"tok_in_clear").unwrap();
    }
    open(&config, &mut |_| Ok(())).unwrap();
    assert!(!before.exists() && !damaged.exists());
}

#[test]
fn rule_2_an_older_index_is_held_against_the_new_one() {
    for format in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let config = store_of(format, dir.path());
        let (journal, _) = Journal::open(
            &config.layout.ledger,
            config.keys.hub_id,
            config.keys.signing.clone(),
            JournalOptions::default(),
        )
        .unwrap();
        let reader = journal.reader();
        let before = Open::in_older_index(&config.layout.index, &reader).unwrap();
        assert!(before.payments.len() > 1 && before.devices.len() == 3 && before.policy_version > 0);
        let build = |before: &Open| {
            let fresh = dir.path().join("fresh");
            remove(&fresh).unwrap();
            build_index(
                (&fresh, &test_seal()),
                &reader,
                Some(before.head.sequence),
                &mut |state, index| compare(before, &Open::of(state, index)?),
            )
            .map(drop)
        };
        build(&before).unwrap();
        // One open payment that the new index does not have, as if folding it
        // had lost it, and one of another amount.
        let mut more = before.clone();
        more.payments
            .insert(PaymentId([7; 16]), (PaymentState::Queued, 100, Some(3)));
        assert!(build(&more).is_err());
        let mut other = before.clone();
        other.payments.values_mut().next().unwrap().1 += 1;
        assert!(build(&other).is_err());
        let mut exposed = before.clone();
        exposed.store.exposure_minor += 1;
        assert!(build(&exposed).is_err());
    }
}

/// The third of twelve failures of other systems, through the whole migration.
#[test]
fn failure_3_a_migration_that_would_drop_a_payment_fails_and_leaves_the_store() {
    for format in [1, 2] {
        let dir = tempfile::tempdir().unwrap();
        let config = store_of(format, dir.path());
        let index = &config.layout.index;
        // The old index holds an open payment that the new one will not have,
        // as if folding the journal dropped it.
        let mut waits = None;
        read_older_index(index, &mut |key, value| {
            let decoded = minicbor::decode::<AnyPayment>(value);
            if key[0] == b'p' && decoded.is_ok_and(|payment| payment.queue_sequence.is_some()) {
                waits = Some(value.to_vec());
            }
        })
        .unwrap();
        let key = State::payment_key(&PaymentId([7; 16]));
        add_to_older_index(index, &key, &waits.unwrap()).unwrap();
        let stored = || {
            let mut stored = files(&config.layout.ledger);
            stored.extend(files(&config.layout.vault));
            stored
        };
        let before = stored();
        for _ in 0..2 {
            let failed = open(&config, &mut |_| Ok(())).unwrap_err();
            assert!(matches!(failed, OpenError::Migration(_)), "{failed}");
            assert_eq!(stored(), before);
            let mut kept = 0;
            read_older_index(index, &mut |found, _| kept += u32::from(found == key)).unwrap();
            assert_eq!(kept, 1, "the old index is where it was");
            let stamp = crate::ledger::read_store_format(&config.layout.format).unwrap();
            assert_ne!(stamp, Some(STORE_FORMAT), "not stamped");
        }
    }
}

#[test]
fn rule_2_a_migration_cut_off_at_any_step_leaves_a_store_that_opens() {
    for cut in STEPS {
        let dir = tempfile::tempdir().unwrap();
        let config = store(dir.path());
        let whole = {
            let dir = tempfile::tempdir().unwrap();
            open(&store(dir.path()), &mut |_| Ok(())).unwrap()
        };
        // The power fails at one step, and at the next start at it again.
        for _ in 0..2 {
            let ended = open(&config, &mut |step| match step {
                step if step == cut => Err(OpenError::Migration("power cut".into())),
                _ => Ok(()),
            });
            // Once stamped there is no step any more.
            assert!(ended.is_err() || cut == Step::Stamped, "{cut:?}");
        }
        let opened = open(&config, &mut |_| Ok(())).unwrap();
        assert_eq!(opened, whole, "{cut:?}");
    }
}

#[test]
fn a_newer_store_is_refused_with_the_version_that_is_needed_and_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let config = store(dir.path());
    let stamp = "format = 99\nwritten_by = \"9.1.0\"\n";
    fs::write(&config.layout.format, stamp).unwrap();
    let before = files(&config.layout.ledger);
    let refused = open(&config, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(
        refused.contains("format 99") && refused.contains("hubd 9.1.0"),
        "{refused}"
    );
    assert_eq!(before, files(&config.layout.ledger));
    assert_eq!(fs::read_to_string(&config.layout.format).unwrap(), stamp);
}
