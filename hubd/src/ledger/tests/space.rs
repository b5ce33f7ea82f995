use std::fs;

use hub_protocol::entry::StorageLevel;
use tempfile::tempdir;

use super::*;

const PART: u64 = 1 << 20;
const PARTS: usize = 8;

/// A reserve on a disk that is anything but full.
fn space(dir: &Path) -> Space {
    let settings = SpaceSettings {
        reserve_bytes: PARTS as u64 * PART,
        low_bytes: 2,
        full_bytes: 1,
    };
    Space::open(&dir.join("reserve"), settings).unwrap()
}

/// From now on the file system has no room for another file.
const NO_ROOM: u8 = 3;
const ALL_WELL: u8 = 0;

#[test]
fn the_reserve_is_whole_and_has_its_blocks_and_is_taken_over_at_the_next_start() {
    let dir = tempdir().unwrap();
    let before = space(dir.path());
    assert_eq!(before.level(), StorageLevel::Enough);
    assert_eq!(before.reserve_bytes(), PARTS as u64 * PART);
    drop(before);
    let names = contents(&dir.path().join("reserve"));
    assert_eq!(names.len(), PARTS);
    assert!(space(dir.path()).is_whole());
    assert_eq!(contents(&dir.path().join("reserve")), names, "the same files");
}

#[test]
fn without_room_the_journal_takes_nothing_and_goes_on_when_there_is_room() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[3; 4], 200);
    journal.disk().fail_from_now(NO_ROOM);
    let mut refused = 0;
    while refused < 3 {
        let head = journal.head();
        match journal.append(&payloads(head, 3, 200)) {
            Ok(_) => {}
            Err(error) => {
                assert!(error.is_no_room(), "{error}");
                assert_eq!(journal.head(), head);
                refused += 1;
            }
        }
    }
    journal.disk().fail_from_now(ALL_WELL);
    append(&mut journal, &[3; 4], 200);
    let head = journal.head();
    drop(journal);
    let (journal, report) = open_with(dir.path(), 4096).unwrap();
    assert_eq!((report.head, report.torn_bytes), (head, 0));
    drop(journal);
    let report = super::verify(dir.path(), &key().verifying_key(), &mut |_| {}).unwrap();
    assert_eq!((report.broken, report.head), (None, head));
}

#[test]
fn segments_and_vault_files_are_made_out_of_the_reserve_until_it_is_used_up() {
    let dir = tempdir().unwrap();
    let space = space(dir.path());
    let ledger = dir.path().join("ledger");
    let (mut journal, _) = open_with(&ledger, 4096).unwrap();
    journal.keep_room(&space);
    append(&mut journal, &[3], 200);
    journal.disk().fail_from_now(NO_ROOM);
    // A part is a megabyte: each of these fills most of one.
    for left in (1..PARTS).rev() {
        while space.reserve_bytes() > left as u64 * PART {
            append(&mut journal, &[100], 5_000);
        }
    }
    let (mut vault, _) = Vault::open(&dir.path().join("vault"), &[1; 32], 4096).unwrap();
    vault.keep_room(&space);
    vault.disk().fail_from_now(NO_ROOM);
    let card = hub_protocol::SealedCard {
        salt: [1; 16],
        blob: vec![2; 300],
    };
    let id = hub_protocol::PaymentId([9; 16]);
    vault.put(&[(id, card.clone())]).unwrap();
    assert_eq!(space.reserve_bytes(), 0);
    let head = journal.head();
    drop((journal, vault));

    let (_, report) = open_with(&ledger, 4096).unwrap();
    assert_eq!((report.head, report.torn_bytes), (head, 0));
    let report = super::verify(&ledger, &key().verifying_key(), &mut |_| {}).unwrap();
    assert_eq!((report.broken, report.head), (None, head));
    let (vault, _) = Vault::open(&dir.path().join("vault"), &[1; 32], 4096).unwrap();
    assert_eq!(vault.reader().get(id).unwrap(), Some(card));
    // There is room after all: the reserve is filled up again.
    assert_eq!(space.look().unwrap(), StorageLevel::Enough);
    assert!(space.is_whole());
}

#[test]
fn a_part_that_was_being_given_away_at_a_crash_is_not_taken_for_empty() {
    let dir = tempdir().unwrap();
    drop(space(dir.path()));
    let (part, _) = contents(&dir.path().join("reserve")).remove(3);
    let mut bytes = fs::read(&part).unwrap();
    bytes[..4].copy_from_slice(b"HUBL");
    fs::write(&part, &bytes).unwrap();
    let again = space(dir.path());
    assert!(again.is_whole());
    for (path, bytes) in contents(&dir.path().join("reserve")) {
        assert!(bytes.iter().all(|byte| *byte == 0), "{}", path.display());
    }
}

#[test]
fn what_may_be_used_ends_where_the_disk_is_called_full() {
    let dir = tempdir().unwrap();
    let of = |full_bytes| {
        let settings = SpaceSettings {
            reserve_bytes: PARTS as u64 * PART,
            low_bytes: 2,
            full_bytes,
        };
        Space::open(&dir.path().join("reserve"), settings).unwrap()
    };
    let roomy = of(1);
    assert_eq!(roomy.spare_bytes(), roomy.free_bytes() - 1);
    let full = of(u64::MAX / 8);
    assert_eq!(
        (full.level(), full.spare_bytes()),
        (StorageLevel::Full, 0),
        "{} bytes are free",
        full.free_bytes()
    );
}
