//! The migration, cut off at every step.

use std::path::Path;
use std::process::Command;

use super::super::opening::{self, OpenError};
use super::*;

const STEPS: [Step; 5] = [
    Step::Verified,
    Step::Built,
    Step::OldAside,
    Step::NewInPlace,
    Step::Stamped,
];

/// A copy of the store that the first version wrote.
fn store(dir: &Path) -> Config {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store-v1.tar.gz");
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
    opening::open_at(config, at).map(|opened| Open::of(&opened.state))
}

fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let list = fs::read_dir(dir).unwrap().map(|item| item.unwrap().path());
    list.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[test]
fn a_store_of_the_first_version_is_migrated_and_nothing_in_it_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let config = store(dir.path());
    let before = (files(&config.layout.ledger), files(&config.layout.vault));
    let mut steps = Vec::new();
    let state = open(&config, &mut |step| {
        steps.push(step);
        Ok(())
    })
    .unwrap();
    assert_eq!(steps, STEPS);
    assert_eq!((state.store.exposure_minor, state.payments.len()), (9522, 5));
    assert_eq!(
        before,
        (files(&config.layout.ledger), files(&config.layout.vault))
    );
    assert_eq!(
        crate::ledger::read_store_format(&config.layout.format).unwrap(),
        Some(STORE_FORMAT)
    );
    // The second opening migrates nothing.
    let again = open(&config, &mut |step| panic!("{step:?}")).unwrap();
    assert_eq!(state, again);
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
    let stamp = "format = 3\nwritten_by = \"9.1.0\"\n";
    fs::write(&config.layout.format, stamp).unwrap();
    let before = files(&config.layout.ledger);
    let refused = open(&config, &mut |_| Ok(())).unwrap_err().to_string();
    assert!(
        refused.contains("format 3") && refused.contains("hubd 9.1.0"),
        "{refused}"
    );
    assert_eq!(before, files(&config.layout.ledger));
    assert_eq!(fs::read_to_string(&config.layout.format).unwrap(), stamp);
}
