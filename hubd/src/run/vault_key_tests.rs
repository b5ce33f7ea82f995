use std::io;
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
