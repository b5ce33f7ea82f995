use std::fs;

use zeroize::Zeroizing;

use super::*;
use crate::data_key::{DATA_KEY, VaultKey, read};

const HUB: HubId = HubId([7; 32]);

fn vault_key(byte: u8) -> VaultKey {
    Zeroizing::new([byte; 32])
}

fn secret(byte: u8) -> RecoverySecret {
    RecoverySecret::from_seed(&[byte; 32])
}

fn store() -> (tempfile::TempDir, Layout, StoreKey) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    fs::create_dir(&layout.ledger).unwrap();
    let store = StoreKey::create(&layout, &[5; 32], &vault_key(1)).unwrap();
    (dir, layout, store)
}

fn wrapped_for(byte: u8) -> (tempfile::TempDir, Layout, StoreKey) {
    let (dir, layout, mut store) = store();
    assert!(
        store
            .wrap_for_recovery(HUB, Some(&secret(byte).public()))
            .unwrap()
    );
    (dir, layout, store)
}

#[test]
fn a_recovery_key_opens_the_store_from_either_copy_and_no_other_key_does() {
    let (_dir, layout, made) = wrapped_for(1);
    let recovered = |byte| StoreKey::recover(&layout, HUB, &secret(byte));
    assert_eq!(recovered(1).unwrap().key(), made.key());
    let refused = recovered(2).unwrap_err();
    assert!(
        matches!(refused, DataKeyError::OtherRecoveryKey { .. }),
        "{refused}"
    );
    assert!(StoreKey::recover(&layout, HubId([8; 32]), &secret(1)).is_err());
    for place in places(&layout) {
        let whole = fs::read(&place).unwrap();
        fs::remove_file(&place).unwrap();
        assert_eq!(recovered(1).unwrap().key(), made.key(), "{}", place.display());
        assert!(!place.exists(), "nothing is written");
        fs::write(&place, whole).unwrap();
    }
    // The vault key is what the hub goes on opening it with.
    assert_eq!(
        StoreKey::open(&layout, &[&vault_key(1)]).unwrap().key(),
        made.key()
    );
}

#[test]
fn the_wrap_for_recovery_outlives_a_change_of_the_vault_key() {
    let (_dir, layout, mut store) = wrapped_for(1);
    store.add(&vault_key(2)).unwrap();
    store.keep_only(&vault_key(2)).unwrap();
    assert_eq!(store.recovery(), Some(secret(1).public().id()));
    let recovered = StoreKey::recover(&layout, HUB, &secret(1)).unwrap();
    assert_eq!(recovered.key(), store.key());
}

#[test]
fn another_recovery_key_takes_the_place_of_the_one_before_and_none_takes_it_away() {
    let (_dir, layout, mut store) = wrapped_for(1);
    assert!(!store.wrap_for_recovery(HUB, Some(&secret(1).public())).unwrap());
    assert!(store.wrap_for_recovery(HUB, Some(&secret(2).public())).unwrap());
    assert_eq!(recovery_key_of(&layout), Some(secret(2).public().id()));
    let said = StoreKey::recover(&layout, HUB, &secret(1))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains(&super::super::hex(&secret(2).public().id())),
        "{said}"
    );
    assert!(StoreKey::recover(&layout, HUB, &secret(2)).is_ok());
    assert!(store.wrap_for_recovery(HUB, None).unwrap());
    assert_eq!((store.recovery(), recovery_key_of(&layout)), (None, None));
    let said = StoreKey::recover(&layout, HUB, &secret(2))
        .unwrap_err()
        .to_string();
    assert!(said.contains("wrapped for no recovery key"), "{said}");
    assert!(!store.wrap_for_recovery(HUB, None).unwrap());
    assert!(StoreKey::open(&layout, &[&vault_key(1)]).is_ok());
}

#[test]
fn a_wrap_for_recovery_that_is_not_the_hubs_own_is_made_again() {
    let (_dir, layout, mut store) = wrapped_for(1);
    let whole = fs::read(layout.dir.join(DATA_KEY)).unwrap();
    // A bit of it has turned, under a checksum that is right.
    let mut wraps = store.stored.wraps.clone();
    wraps.last_mut().unwrap().wrapped[40] ^= 1;
    store.rewrite(wraps).unwrap();
    assert!(StoreKey::recover(&layout, HUB, &secret(1)).is_err());
    let mut opened = StoreKey::open(&layout, &[&vault_key(1)]).unwrap();
    assert!(opened.wrap_for_recovery(HUB, Some(&secret(1).public())).unwrap());
    assert!(StoreKey::recover(&layout, HUB, &secret(1)).is_ok());
    assert_eq!(fs::read(layout.dir.join(DATA_KEY)).unwrap().len(), whole.len());
}

#[test]
fn what_a_recovery_wrap_says_in_memory_is_what_both_copies_say_durably() {
    let (_dir, layout, mut store) = wrapped_for(1);
    for place in places(&layout) {
        let in_the_way = place.with_extension("new");
        fs::create_dir(&in_the_way).unwrap();
        let key = secret(2).public();
        assert!(store.wrap_for_recovery(HUB, Some(&key)).is_err());
        assert_eq!(store.recovery(), Some(secret(1).public().id()));
        fs::remove_dir(&in_the_way).unwrap();
        // A copy that was written already is written anew.
        store.wrap_for_recovery(HUB, Some(&secret(1).public())).unwrap();
        let copies = places(&layout).map(|place| read(&place).unwrap());
        assert!(copies.iter().all(|copy| *copy == store.stored), "{place:?}");
    }
}
