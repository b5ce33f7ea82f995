use std::sync::mpsc::channel;
use std::time::Duration;

use hub_protocol::Digest;
use tempfile::tempdir;

use super::*;

fn stamp(sequence: u64) -> Stamp {
    Stamp {
        sequence,
        digest: Digest([sequence as u8; 32]),
        format: INDEX_FORMAT,
    }
}

fn key(n: u64) -> Vec<u8> {
    format!("payment/{n:06}").into_bytes()
}

/// The record that batch `n` writes; every batch also replaces record 0.
fn batch(n: u64) -> Batch {
    vec![
        (key(n), Some(vec![n as u8; 300])),
        (key(0), Some(n.to_be_bytes().to_vec())),
    ]
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

fn records(index: &Index) -> Result<Records, Damage> {
    let mut all = Vec::new();
    index.for_each(&mut |key, value| all.push((key.to_vec(), value.to_vec())))?;
    Ok(all)
}

/// What must be there once batches 1 to `n` are in.
fn expected(n: u64) -> Records {
    if n == 0 {
        return Vec::new();
    }
    std::iter::once((key(0), n.to_be_bytes().to_vec()))
        .chain((1..=n).map(|i| (key(i), vec![i as u8; 300])))
        .collect()
}

#[test]
fn records_and_stamp_come_back_after_a_checkpoint() {
    let dir = tempdir().unwrap();
    let dir = dir.path().join("index");
    let mut index = Index::create(&dir, &test_seal()).unwrap();
    assert_eq!(index.stamp(), Head::EMPTY.into());
    for n in 1..=100 {
        index.write(batch(n), stamp(n)).unwrap();
    }
    index.write(vec![(key(50), None)], stamp(101)).unwrap();
    let health = index.checkpoint().unwrap();
    assert_eq!(health.blob_files, 0);
    let reader = index.reader();
    assert_eq!(reader.get(&key(7)).unwrap(), Some(vec![7; 300]));
    drop((index, reader));

    let index = Index::open(&dir, &test_seal()).unwrap();
    assert_eq!(index.stamp(), stamp(101));
    let mut right = expected(100);
    right.retain(|(k, _)| *k != key(50));
    assert_eq!(records(&index).unwrap(), right);
    assert_eq!(index.reader().get(&key(50)).unwrap(), None);
}

#[test]
fn what_sled_would_put_into_blobs_is_refused() {
    let dir = tempdir().unwrap();
    let mut index = Index::create(&dir.path().join("index"), &test_seal()).unwrap();
    for (key, len) in [
        (b"k".to_vec(), MAX_VALUE + 1),
        (vec![1; MAX_KEY + 1], 1),
        (b"\0k".to_vec(), 1),
        (vec![], 1),
    ] {
        let refused = index.write(vec![(key, Some(vec![1; len]))], stamp(1));
        assert!(matches!(refused, Err(Damage::TooLarge { .. })));
    }
    assert_eq!(index.stamp(), Head::EMPTY.into());
    let large = (0..200).map(|n| (key(n), Some(vec![1; MAX_VALUE]))).collect();
    index.write(large, stamp(1)).unwrap();
    assert_eq!(index.checkpoint().unwrap().blob_files, 0);
}

#[test]
fn a_missing_or_emptied_index_is_damage() {
    let dir = tempdir().unwrap();
    let dir = dir.path().join("index");
    assert_eq!(Index::open(&dir, &test_seal()).unwrap_err(), Damage::Missing);
    drop(Index::create(&dir, &test_seal()).unwrap());
    assert!(Index::create(&dir, &test_seal()).is_err());
    for name in ["conf", "db"] {
        let kept = std::fs::read(dir.join(name)).unwrap();
        std::fs::remove_file(dir.join(name)).unwrap();
        assert_eq!(Index::open(&dir, &test_seal()).unwrap_err(), Damage::Missing);
        std::fs::write(dir.join(name), b"").unwrap();
        assert_eq!(Index::open(&dir, &test_seal()).unwrap_err(), Damage::Missing);
        std::fs::write(dir.join(name), kept).unwrap();
    }
}

/// A record that sled keeps, and one that goes into a table.
fn small_and_growing(n: u64) -> Batch {
    let value = Some(n.to_be_bytes().to_vec());
    vec![(format!("d{n}").into_bytes(), value.clone()), (key(n), value)]
}

#[test]
fn a_record_that_sled_lost_is_noticed_although_the_stamp_is_there() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::create(&path, &test_seal()).unwrap();
    for n in 1..=20 {
        index.write(small_and_growing(n), stamp(n)).unwrap();
    }
    index.checkpoint().unwrap();
    drop(index);
    let mut index = Index::open(&path, &test_seal()).unwrap();
    assert_eq!(index.stamp(), stamp(20));
    index.lose(b"d7");
    index.checkpoint().unwrap();
    drop(index);
    assert_eq!(Index::open(&path, &test_seal()).unwrap_err(), Damage::Contents);
}

#[test]
fn what_was_written_after_the_checkpoint_is_not_there_after_a_kill() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::create(&path, &test_seal()).unwrap();
    index.write(small_and_growing(1), stamp(1)).unwrap();
    index.checkpoint().unwrap();
    index.write(small_and_growing(2), stamp(2)).unwrap();
    assert!(
        index.reader().get(&key(2)).unwrap().is_some(),
        "but readers saw it"
    );
    assert_eq!(index.reader().written(), 2);
    drop(index);
    let index = Index::open(&path, &test_seal()).unwrap();
    assert_eq!(index.stamp(), stamp(1));
    let found: Vec<_> = records(&index).unwrap().into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, [b"d1".to_vec(), key(1)]);
}

fn tables(path: &std::path::Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(path)
        .unwrap()
        .map(|item| item.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == "tbl"))
        .collect()
}

#[test]
fn many_tables_become_few_and_the_newest_record_of_a_key_counts() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::create(&path, &test_seal()).unwrap();
    for n in 1..=30 {
        index.write(batch(n), stamp(n)).unwrap();
        index.checkpoint().unwrap();
    }
    index.write(vec![(key(3), None)], stamp(31)).unwrap();
    index.checkpoint().unwrap();
    assert!(tables(&path).len() < 16);
    let mut right = expected(30);
    right.retain(|(found, _)| *found != key(3));
    assert_eq!(records(&index).unwrap(), right);
    assert_eq!(index.reader().get(&key(3)).unwrap(), None);
    let found = index.reader().range(b"payment/", &key(2), 3).unwrap();
    let found: Vec<_> = found.into_iter().map(|(key, _)| key).collect();
    assert_eq!(found, [key(2), key(4), key(5)]);
    std::fs::write(path.join("00009999.tbl"), b"half a table").unwrap();
    drop(index);
    assert_eq!(
        records(&Index::open(&path, &test_seal()).unwrap()).unwrap(),
        right
    );
    assert!(
        !path.join("00009999.tbl").exists(),
        "what no catalogue names is removed"
    );
}

#[test]
fn a_merge_that_finds_no_room_changes_nothing_and_is_tried_again() {
    let dir = tempdir().unwrap();
    let dir = dir.path().join("index");
    let mut index = Index::create(&dir, &test_seal()).unwrap();
    let mut n = 0;
    let mut checkpoint = |index: &mut Index| {
        n += 1;
        index.write(batch(n), stamp(n)).unwrap();
        index.checkpoint().unwrap();
        n
    };
    for _ in 0..7 {
        checkpoint(&mut index);
    }
    // The eighth table is number 8; the one that eight become has no room.
    let merged = dir.join("00000009.tbl");
    std::os::unix::fs::symlink("/dev/full", &merged).unwrap();
    let last = checkpoint(&mut index);
    assert_eq!(tables(&dir).len(), 8, "as before");
    assert!(!merged.exists());
    assert_eq!(records(&index).unwrap(), expected(last));
    for _ in 0..9 {
        checkpoint(&mut index);
    }
    assert!(tables(&dir).len() < 8, "{:?}", tables(&dir));
    assert_eq!(records(&index).unwrap(), expected(17));
}

#[test]
fn a_lost_sector_of_a_table_is_an_error_when_read_and_never_a_missing_record() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::create(&path, &test_seal()).unwrap();
    for n in 1..=500 {
        index.write(batch(n), stamp(n)).unwrap();
    }
    index.checkpoint().unwrap();
    drop(index);
    let file = tables(&path).remove(0);
    let whole = std::fs::read(&file).unwrap();
    let mut seen = 0;
    for at in (0..whole.len()).step_by(512) {
        let mut damaged = whole.clone();
        let to = (at + 512).min(whole.len());
        if damaged[at..to].iter().all(|byte| *byte == 0) {
            continue;
        }
        damaged[at..to].fill(0);
        std::fs::write(&file, &damaged).unwrap();
        let Ok(index) = Index::open(&path, &test_seal()) else {
            seen += 1;
            continue;
        };
        let mut errors = 0;
        for n in 1..=500 {
            match index.reader().get(&key(n)) {
                Ok(found) => assert_eq!(found, Some(vec![n as u8; 300]), "record {n}, sector at {at}"),
                Err(_) => errors += 1,
            }
        }
        assert!(errors > 0, "the sector at {at} was read");
        drop(index);
        assert_eq!(
            Index::open(&path, &test_seal()).unwrap_err(),
            Damage::Contents,
            "to be built anew"
        );
        std::fs::remove_file(path.join("damaged")).unwrap();
        seen += 1;
    }
    assert!(seen > 100);
}

/// An index with 2000 batches, some checkpoints among them, as files.
fn sample() -> Vec<(String, Vec<u8>)> {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::create(&path, &test_seal()).unwrap();
    for n in 1..=200 {
        index.write(batch(n), stamp(n)).unwrap();
        if n % 50 == 0 {
            index.checkpoint().unwrap();
        }
    }
    drop(index);
    std::fs::read_dir(&path)
        .unwrap()
        .map(|item| item.unwrap())
        .filter(|item| item.file_type().unwrap().is_file())
        .map(|item| {
            (
                item.file_name().into_string().unwrap(),
                std::fs::read(item.path()).unwrap(),
            )
        })
        .collect()
}

/// Opens the files with one of them changed. Either it is damage, or what is
/// there is exactly what the stamp says.
fn open_damaged(files: &[(String, Vec<u8>)], what: &str) -> bool {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    std::fs::create_dir(&path).unwrap();
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes).unwrap();
    }
    let opened = Index::open(&path, &test_seal()).and_then(|index| Ok((index.stamp(), records(&index)?)));
    match opened {
        Ok((stamp, found)) => {
            assert_eq!(
                found,
                expected(stamp.sequence),
                "{what}: not what stamp {stamp:?} says"
            );
            false
        }
        Err(_) => true,
    }
}

#[test]
fn a_truncated_or_overwritten_index_is_damage_and_never_a_panic() {
    let files = sample();
    assert!(!open_damaged(&files, "whole"));
    let mut damaged = 0;
    for (n, (name, bytes)) in files.iter().enumerate() {
        let last = bytes.iter().rposition(|b| *b != 0).unwrap_or(0);
        for step in 0..24 {
            let at = last * step / 24;
            let mut cut = files.clone();
            cut[n].1.truncate(at);
            damaged += u32::from(open_damaged(&cut, &format!("{name} cut at {at}")));
            let mut zeroed = files.clone();
            let to = (at + 512).min(bytes.len());
            zeroed[n].1[at..to].fill(0);
            damaged += u32::from(open_damaged(&zeroed, &format!("{name} zeroed at {at}")));
            let mut garbage = files.clone();
            for (i, byte) in garbage[n].1[at..to].iter_mut().enumerate() {
                *byte = (i * 37 + at) as u8;
            }
            damaged += u32::from(open_damaged(&garbage, &format!("{name} garbage at {at}")));
        }
    }
    assert!(damaged > 0);
}

/// None of the damage above makes sled panic; stores that lost writes to a
/// power cut did.
#[test]
fn a_store_that_panics_is_damage_like_any_other() {
    let panics = crate::ledger::index::guarded::<()>(|| panic!("slot {} is not there", 7));
    assert_eq!(panics, Err(Damage::Panicked("slot 7 is not there".into())));
    let panics = crate::ledger::index::guarded::<()>(|| panic!("short"));
    assert_eq!(panics, Err(Damage::Panicked("short".into())));
}

#[test]
fn a_damaged_index_is_set_aside_and_at_most_two_are_kept() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    assert_eq!(set_aside(&path).unwrap(), None);
    for n in 1..=4 {
        drop(Index::create(&path, &test_seal()).unwrap());
        let aside = set_aside(&path).unwrap().unwrap();
        assert_eq!(aside, dir.path().join(format!("index.damaged-{n}")));
        assert!(!path.exists());
    }
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 2);
    Index::open(&dir.path().join("index.damaged-4"), &test_seal()).unwrap();
}

#[test]
fn rule_6_what_an_index_in_clear_left_is_removed_and_a_damaged_encrypted_one_is_kept() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    drop(Index::create(&path, &test_seal()).unwrap());
    let encrypted = set_aside(&path).unwrap().unwrap();
    drop(Index::create(&path, &test_seal()).unwrap());
    // As a version made it that knew no mark: once opened it has one.
    std::fs::remove_file(path.join("encrypted")).unwrap();
    drop(Index::open(&path, &test_seal()).unwrap());
    let also = set_aside(&path).unwrap().unwrap();
    drop(Index::create(&path, &test_seal()).unwrap());
    let in_clear = ["index.damaged-7", "index.before-migration", "index.new"];
    for name in in_clear {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("db"), b"tok_in_clear").unwrap();
    }
    for _ in 0..2 {
        remove_left_in_clear(&path, &["before-migration", "new"]).unwrap();
        for name in in_clear {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
        assert!(encrypted.is_dir() && also.is_dir());
        drop(Index::open(&path, &test_seal()).unwrap());
    }
}

#[test]
fn rule_2_files_in_the_place_of_an_index_keep_no_hub_from_starting() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    for number in 1..=4 {
        std::fs::write(&path, b"no index").unwrap();
        let aside = set_aside(&path).unwrap().unwrap();
        assert!(aside.ends_with(format!("index.damaged-{number}")));
    }
    remove_left_in_clear(&path, &[]).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_index_of_another_format_is_to_be_rebuilt() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let mut index = Index::create(&path, &test_seal()).unwrap();
    let other = Stamp {
        format: INDEX_FORMAT + 1,
        ..stamp(1)
    };
    index.write(Vec::new(), other).unwrap();
    index.checkpoint().unwrap();
    drop(index);
    let found = INDEX_FORMAT + 1;
    assert_eq!(
        Index::open(&path, &test_seal()).unwrap_err(),
        Damage::Format { found }
    );
}

#[test]
fn the_index_thread_merges_what_waits_and_leaves_it_durable() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let index = Index::create(&path, &test_seal()).unwrap();
    let (health_in, health) = channel();
    let settings = CheckpointSettings {
        every_ms: 60_000,
        every_batches: 1_000_000,
    };
    let handle = IndexWriterHandle::start(
        index,
        settings,
        move |h| health_in.send(h).unwrap(),
        |damage| panic!("{damage}"),
    )
    .unwrap();
    for n in 1..=500 {
        handle.submit(batch(n), stamp(n)).unwrap();
    }
    handle.flush_and_stop().unwrap();
    assert_eq!(health.iter().count(), 1, "one checkpoint, at the end");
    let index = Index::open(&path, &test_seal()).unwrap();
    assert_eq!(index.stamp(), stamp(500));
    assert_eq!(records(&index).unwrap(), expected(500));
}

#[test]
fn the_index_thread_checkpoints_after_so_many_batches_or_so_much_time() {
    for settings in [
        CheckpointSettings {
            every_ms: 600_000,
            every_batches: 1,
        },
        CheckpointSettings {
            every_ms: 1,
            every_batches: 1_000_000,
        },
    ] {
        let dir = tempdir().unwrap();
        let index = Index::create(&dir.path().join("index"), &test_seal()).unwrap();
        let (health_in, health) = channel();
        let handle =
            IndexWriterHandle::start(index, settings, move |h| health_in.send(h).unwrap(), |_| {}).unwrap();
        handle.submit(batch(1), stamp(1)).unwrap();
        health.recv_timeout(Duration::from_secs(30)).unwrap();
        handle.flush_and_stop().unwrap();
    }
}

#[test]
fn a_record_too_large_ends_the_index_thread_with_a_word() {
    let dir = tempdir().unwrap();
    let index = Index::create(&dir.path().join("index"), &test_seal()).unwrap();
    let (failed_in, failed) = channel();
    let handle = IndexWriterHandle::start(
        index,
        CheckpointSettings::default(),
        |_| {},
        move |d| failed_in.send(d).unwrap_or_default(),
    )
    .unwrap();
    handle
        .submit(vec![(key(1), Some(vec![0; 9000]))], stamp(1))
        .unwrap();
    let damage = failed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(damage, Damage::TooLarge { value: 9000, .. }));
    assert!(matches!(handle.flush_and_stop(), Err(Damage::TooLarge { .. })));
}

#[test]
fn a_base_that_cannot_be_written_does_not_end_the_index_thread() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("index");
    let index = Index::create(&path, &test_seal()).unwrap();
    let handle = IndexWriterHandle::start(
        index,
        CheckpointSettings::default(),
        |_| {},
        |damage| panic!("{damage}"),
    )
    .unwrap();
    handle.submit(batch(1), stamp(1)).unwrap();
    let keeper = handle.keeper();
    let nowhere = dir.path().join("nowhere/00000001.base");
    let refused = keeper.forget(Box::new(|_, _| true), nowhere, 1);
    assert!(matches!(refused, Err(NotForgotten::Failed(_))), "{refused:?}");
    handle.submit(batch(2), stamp(2)).unwrap();
    let base = dir.path().join("00000001.base");
    let written = keeper.forget(Box::new(|_, _| true), base.clone(), 1);
    assert_eq!(written, Ok(stamp(2)));
    assert!(base.exists());
    handle.flush_and_stop().unwrap();
    assert_eq!(
        records(&Index::open(&path, &test_seal()).unwrap()).unwrap(),
        expected(2)
    );
}

#[test]
fn many_records_at_once_are_what_they_would_be_one_after_another() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (mut one, mut other) = (
        Index::create(&path("1"), &test_seal()).unwrap(),
        Index::create(&path("2"), &test_seal()).unwrap(),
    );
    let mut first = 0;
    // So many that they become tables and are merged, and a few beside them.
    for (n, many) in [20_000, 20_000, 3, 9_000, 5, 20_000, 20_000]
        .into_iter()
        .enumerate()
    {
        // Half of them again, some of them removed, and one that is small.
        let from = first / 2;
        first += many;
        let mut batch: Batch = (from..first)
            .map(|i| (key(i), (i % 7 > 0).then(|| vec![n as u8; 20])))
            .collect();
        batch.push((b"s".to_vec(), Some(vec![n as u8; 50])));
        batch.sort_unstable();
        let borrowed: Vec<_> = batch
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect();
        let stamp = stamp(n as u64 + 1);
        one.write_sorted(&borrowed, stamp).unwrap();
        other.write(batch.clone(), stamp).unwrap();
        assert_eq!(one.reader().written(), other.reader().written());
        assert_eq!(
            one.reader().get(&key(from + 1)).unwrap(),
            other.reader().get(&key(from + 1)).unwrap()
        );
    }
    one.checkpoint().unwrap();
    other.checkpoint().unwrap();
    assert_eq!(records(&one).unwrap(), records(&other).unwrap());
    drop(one);
    let opened = Index::open(&path("1"), &test_seal()).unwrap();
    assert_eq!(opened.stamp(), stamp(7));
    assert_eq!(records(&opened).unwrap(), records(&other).unwrap());
}

#[test]
fn of_many_records_at_once_none_is_written_if_one_does_not_fit() {
    let dir = tempdir().unwrap();
    let mut index = Index::create(&dir.path().join("index"), &test_seal()).unwrap();
    let large = vec![0; 1 << 16];
    let fit = key(1);
    let beyond = key(2);
    let error = index.write_sorted(&[(&fit, Some(&[1])), (&beyond, Some(&large))], stamp(1));
    assert!(matches!(error, Err(Damage::TooLarge { .. })), "{error:?}");
    assert_eq!(records(&index).unwrap(), []);
    assert_eq!(index.stamp(), Head::EMPTY.into());
}
