use std::fs;

use super::*;

fn layout() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    fs::create_dir(&layout.ledger).unwrap();
    (dir, layout)
}

fn vault_key(byte: u8) -> VaultKey {
    Zeroizing::new([byte; 32])
}

#[test]
fn one_lost_or_damaged_copy_of_the_data_key_is_mended_from_the_other() {
    let (_dir, layout) = layout();
    let made = StoreKey::create(&layout, &[5; 32], &vault_key(1)).unwrap();
    let whole = fs::read(layout.dir.join(DATA_KEY)).unwrap();
    for place in places(&layout) {
        for damage in [None, Some(Vec::new()), Some(whole[..whole.len() - 1].to_vec())] {
            match damage {
                Some(bytes) => fs::write(&place, bytes).unwrap(),
                None => fs::remove_file(&place).unwrap(),
            }
            let opened = StoreKey::open(&layout, &[&vault_key(1)]).unwrap();
            assert_eq!(opened.key(), made.key());
            assert_eq!(fs::read(&place).unwrap(), whole);
        }
    }
}

#[test]
fn both_copies_lost_is_refused_and_says_what_to_do() {
    let (_dir, layout) = layout();
    StoreKey::create(&layout, &[5; 32], &vault_key(1)).unwrap();
    let [one, other] = places(&layout);
    fs::remove_file(one).unwrap();
    fs::write(&other, b"nothing").unwrap();
    let error = StoreKey::open(&layout, &[&vault_key(1)]).unwrap_err().to_string();
    assert!(error.contains("Put either back from a copy"), "{error}");
    assert_eq!(fs::read(&other).unwrap(), b"nothing");
}

#[test]
fn the_data_key_opens_under_its_vault_key_only_and_no_file_holds_it() {
    let (_dir, layout) = layout();
    StoreKey::create(&layout, &[5; 32], &vault_key(1)).unwrap();
    let other = StoreKey::open(&layout, &[&vault_key(2)]);
    assert!(matches!(other, Err(DataKeyError::OtherVaultKey { .. })));
    let bytes = fs::read(layout.dir.join(DATA_KEY)).unwrap();
    assert!(bytes.windows(8).all(|part| part != [5; 8] && part != [1; 8]));
    // The key itself decides, and not the id that the file has of it.
    let mut renamed = read(&layout.dir.join(DATA_KEY)).unwrap();
    renamed.wraps[0].key = vault_key_id(&vault_key(2));
    write_all(&places(&layout), &renamed).unwrap();
    let other = StoreKey::open(&layout, &[&vault_key(2)]);
    assert!(matches!(other, Err(DataKeyError::OtherVaultKey { .. })));
}

#[test]
fn while_the_vault_key_changes_both_open_and_afterwards_only_the_new_one() {
    let (_dir, layout) = layout();
    let (old, new) = (vault_key(1), vault_key(2));
    let mut key = StoreKey::create(&layout, &[5; 32], &old).unwrap();
    key.add(&new).unwrap();
    for either in [&old, &new] {
        assert_eq!(StoreKey::open(&layout, &[either]).unwrap().key(), key.key());
    }
    // The power fails between the two copies: the newer one counts.
    let [one, other] = places(&layout);
    let behind = fs::read(&other).unwrap();
    key.keep_only(&new).unwrap();
    fs::write(&other, behind).unwrap();
    let opened = StoreKey::open(&layout, &[&new, &old]).unwrap();
    assert_eq!(opened.key(), key.key());
    assert_eq!(fs::read(one).unwrap(), fs::read(other).unwrap());
    assert!(StoreKey::open(&layout, &[&old]).is_err());
}

#[test]
fn what_a_wrap_says_in_memory_is_what_both_copies_say_durably() {
    let (_dir, layout) = layout();
    let (old, new) = (vault_key(1), vault_key(2));
    let mut key = StoreKey::create(&layout, &[5; 32], &old).unwrap();
    for place in places(&layout) {
        let in_the_way = place.with_extension("new");
        fs::create_dir(&in_the_way).unwrap();
        assert!(key.add(&new).is_err() && !key.opens_with(&new));
        fs::remove_dir(&in_the_way).unwrap();
        // A copy that was written already is written anew.
        key.keep_only(&old).unwrap();
        let copies = places(&layout).map(|place| read(&place).unwrap());
        assert!(copies.iter().all(|copy| *copy == key.stored), "{place:?}");
        key.add(&new).unwrap();
        fs::create_dir(&in_the_way).unwrap();
        assert!(key.keep_only(&new).is_err() && key.opens_with(&old));
        fs::remove_dir(&in_the_way).unwrap();
        key.keep_only(&old).unwrap();
    }
    // A key without a wrap takes nothing away.
    assert!(key.keep_only(&new).is_err() && key.opens_with(&old));
}

#[test]
fn rule_2_keys_and_data_key_of_one_backup_open_beside_a_later_copy() {
    let (old, new) = (vault_key(1), vault_key(2));
    for put_back in 0..2 {
        let (_dir, layout) = layout();
        let mut key = StoreKey::create(&layout, &[5; 32], &old).unwrap();
        let places = places(&layout);
        let backup = fs::read(&places[put_back]).unwrap();
        key.add(&new).unwrap();
        key.keep_only(&new).unwrap();
        let later = read(&places[1 - put_back]).unwrap();
        assert!(StoreKey::open(&layout, &[&old]).is_err());
        fs::write(&places[put_back], backup).unwrap();
        assert!(
            seal_of_copy(&layout.ledger, std::slice::from_ref(&old))
                .unwrap()
                .is_some()
        );
        assert!(StoreKey::open(&layout, &[&vault_key(3)]).is_err());
        let opened = StoreKey::open(&layout, &[&old]).unwrap();
        assert_eq!(opened.key(), key.key());
        assert!(opened.is_last_wrapped_under(&old));
        for place in &places {
            let copy = read(place).unwrap();
            assert_eq!(copy, opened.stored);
            assert!(copy.written > later.written);
        }
        // The later key is found again.
        let found = StoreKey::open(&layout, &[&new]).unwrap();
        assert_eq!(found.key(), key.key());
    }
}

#[test]
fn rule_2_copies_of_two_stores_are_refused_and_neither_is_written() {
    let (_dir, layout) = layout();
    let (_other_dir, other) = self::layout();
    StoreKey::create(&layout, &[5; 32], &vault_key(1)).unwrap();
    StoreKey::create(&other, &[6; 32], &vault_key(1)).unwrap();
    let ours = places(&layout);
    fs::copy(other.dir.join(DATA_KEY), &ours[1]).unwrap();
    let before = ours.clone().map(|place| fs::read(place).unwrap());
    let refused = StoreKey::open(&layout, &[&vault_key(1)]);
    assert!(matches!(refused, Err(DataKeyError::Differ { .. })));
    assert_eq!(ours.map(|place| fs::read(place).unwrap()), before);
}

#[test]
fn rule_2_a_data_key_file_that_could_not_be_read_again_is_not_written() {
    let of = |edit: &dyn Fn(&mut Stored)| {
        let (dir, layout) = layout();
        let mut stored = StoreKey::create(&layout, &[5; 32], &vault_key(1)).unwrap().stored;
        edit(&mut stored);
        for place in places(&layout) {
            fs::write(place, bytes_of(&stored)).unwrap();
        }
        (dir, layout)
    };
    // Right checksums, and what no hub has written.
    let count = of(&|stored| stored.written = u64::MAX);
    let nearly = of(&|stored| stored.written = u64::MAX - 1);
    let size = of(&|stored| {
        let left = MOST_BYTES as usize - bytes_of(stored).len();
        let wrap = Wrap {
            kind: 2,
            key: [8; 8],
            wrapped: vec![0; left - 40],
        };
        stored.wraps.push(wrap);
    });
    for (_dir, layout) in [count, nearly, size] {
        let before = places(&layout).map(|place| fs::read(place).unwrap());
        assert!(before[0].len() as u64 <= MOST_BYTES);
        let mut key = StoreKey::open(&layout, &[&vault_key(1)]).unwrap();
        let refused = key.add(&vault_key(2)).unwrap_err().to_string();
        assert!(refused.contains("Nothing was changed"), "{refused}");
        assert_eq!(places(&layout).map(|place| fs::read(place).unwrap()), before);
        assert!(!key.opens_with(&vault_key(2)));
        assert_eq!(
            StoreKey::open(&layout, &[&vault_key(1)]).unwrap().key(),
            key.key()
        );
    }
}
