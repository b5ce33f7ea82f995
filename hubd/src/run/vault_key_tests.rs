use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::*;

fn key(byte: u8) -> VaultKey {
    Zeroizing::new([byte; 32])
}

fn write(path: &Path, key: &VaultKey) {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all((HEXLOWER.encode(key.as_slice()) + "\n").as_bytes())
        .unwrap();
}

/// A hub's folder with a store under vault key 1.
fn hub() -> (tempfile::TempDir, Layout, StoreKey) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    fs::create_dir(&layout.ledger).unwrap();
    fs::create_dir(&layout.keys).unwrap();
    write(&layout.vault_key, &key(1));
    let store = StoreKey::create(&layout, &[7; 32], &key(1)).unwrap();
    (dir, layout, store)
}

fn opens(layout: &Layout) -> StoreKey {
    let keys = config::vault_keys(layout);
    StoreKey::open(layout, &keys.iter().collect::<Vec<_>>()).unwrap()
}

#[test]
fn rule_2_a_crash_at_any_step_of_a_change_leaves_a_store_that_opens_under_one_key() {
    let steps = [
        VaultKeyStep::OldWrapGone,
        VaultKeyStep::OldDestroyed,
        VaultKeyStep::NewInPlace,
    ];
    for stop_at in steps {
        let (_dir, layout, mut store) = hub();
        let next = prepare(&layout, &mut store, &key(1)).unwrap();
        // The entry is in the ledger.
        let named = Some(vault_key_id(&next));
        let stopped = settle(&layout, &mut store, &next, &mut |step| match step == stop_at {
            true => Err(io::Error::other("the power fails")),
            false => Ok(()),
        });
        assert!(stopped.is_err());
        let mut opened = opens(&layout);
        assert_eq!(opened.key(), store.key());
        put_in_order(&layout, &mut opened, named).unwrap();
        let present = current(&layout, named).unwrap();
        assert_eq!(present, next);
        assert_eq!(config::vault_keys(&layout), [next]);
        assert!(opens(&layout).opens_with(&present) && !opens(&layout).opens_with(&key(1)));
        assert!(!layout.next_vault_key.exists() && !made_file(&layout).exists());
    }
}

#[test]
fn a_change_that_the_ledger_does_not_tell_of_is_taken_back_and_its_key_destroyed() {
    let (_dir, layout, mut store) = hub();
    let next = prepare(&layout, &mut store, &key(1)).unwrap();
    assert!(opens(&layout).opens_with(&next), "both open meanwhile");
    let mut opened = opens(&layout);
    put_in_order(&layout, &mut opened, None).unwrap();
    assert_eq!(config::vault_keys(&layout), [key(1)]);
    assert!(opened.opens_with(&key(1)) && !opened.opens_with(&next));
    assert!(!opens(&layout).opens_with(&next));
}

#[test]
fn a_next_vault_key_that_was_supplied_is_used_and_kept_if_nothing_comes_of_it() {
    let (_dir, layout, mut store) = hub();
    write(&layout.next_vault_key, &key(2));
    assert_eq!(prepare(&layout, &mut store, &key(1)).unwrap(), key(2));
    take_back(&layout, &mut store, &key(1)).unwrap();
    assert!(layout.next_vault_key.exists());
    write(&layout.next_vault_key, &key(1));
    assert!(matches!(
        prepare(&layout, &mut store, &key(1)),
        Err(NotChanged::Same)
    ));
}

/// Files that cannot be written: a folder stands where each is made.
fn obstacles(layout: &Layout) -> [PathBuf; 3] {
    [
        layout.next_vault_key.with_extension("new"),
        layout.dir.join("data-key.new"),
        layout.ledger.join("data-key.new"),
    ]
}

#[test]
fn rule_2_another_change_after_a_failed_one_never_ends_the_only_vault_key() {
    // Where the files of the first change fail after its entry, and where
    // what the next change writes.
    let steps = [
        None,
        Some(VaultKeyStep::OldWrapGone),
        Some(VaultKeyStep::OldDestroyed),
        Some(VaultKeyStep::NewInPlace),
    ];
    for stop_at in steps {
        for obstacle in 0..3 {
            let (_dir, layout, mut store) = hub();
            let data_key = store.key().clone();
            let (_, next) = begin(&layout, &mut store).unwrap();
            store.set_named(Some(vault_key_id(&next)));
            let in_the_way = obstacles(&layout);
            let stopped = match stop_at {
                Some(stop_at) => settle(&layout, &mut store, &next, &mut |step| match step == stop_at {
                    true => Err(io::Error::other("the disk fails")),
                    false => Ok(()),
                }),
                // The old wrap stays in the second copy.
                None => {
                    fs::create_dir(&in_the_way[2]).unwrap();
                    let stopped = settle(&layout, &mut store, &next, &mut |_| Ok(()));
                    fs::remove_dir(&in_the_way[2]).unwrap();
                    stopped
                }
            };
            assert!(stopped.is_err(), "{stop_at:?}");
            assert_eq!(opens(&layout).key(), &data_key, "{stop_at:?}");

            fs::create_dir(&in_the_way[obstacle]).unwrap();
            assert!(begin(&layout, &mut store).is_err(), "{stop_at:?} {obstacle}");
            fs::remove_dir(&in_the_way[obstacle]).unwrap();
            // A power cut here: what is on disk opens.
            let mut opened = opens(&layout);
            assert_eq!(opened.key(), &data_key, "{stop_at:?} {obstacle}");
            assert!(opened.opens_with(&next), "{stop_at:?} {obstacle}");
            put_in_order(&layout, &mut opened, Some(vault_key_id(&next))).unwrap();
            assert_eq!(config::vault_keys(&layout), [next], "{stop_at:?} {obstacle}");
        }
    }
}

#[test]
fn rule_2_another_change_after_a_failed_one_settles_that_first() {
    let (_dir, layout, mut store) = hub();
    let (_, next) = begin(&layout, &mut store).unwrap();
    store.set_named(Some(vault_key_id(&next)));
    let stopped = settle(&layout, &mut store, &next, &mut |_| {
        Err(io::Error::other("the disk fails"))
    });
    assert!(stopped.is_err());
    // Without the settling nothing is written over it.
    assert!(prepare(&layout, &mut store, &next).is_err());
    assert!(config::vault_keys(&layout).contains(&next));
    let (present, third) = begin(&layout, &mut store).unwrap();
    assert_eq!(present, next);
    assert_ne!(third, next);
    assert_eq!(config::vault_keys(&layout), [next.clone(), third.clone()]);
    for either in [&next, &third] {
        assert!(opens(&layout).opens_with(either));
    }
    assert!(!opens(&layout).opens_with(&key(1)));
}

#[test]
fn rule_2_a_next_vault_key_that_a_wrap_names_is_not_replaced() {
    let (_dir, layout, mut store) = hub();
    let next = prepare(&layout, &mut store, &key(1)).unwrap();
    assert!(matches!(
        prepare(&layout, &mut store, &key(1)),
        Err(NotChanged::InUse)
    ));
    assert!(config::vault_keys(&layout).contains(&next));
}
