use tempfile::tempdir;

use super::*;

#[test]
fn entries_come_back_as_they_were_appended() {
    let dir = tempdir().unwrap();
    let (mut journal, report) = open(dir.path()).unwrap();
    assert_eq!(report.head, Head::EMPTY);
    let batch = payloads(Head::EMPTY, 3, 100);
    let head = journal.append(&batch).unwrap();
    assert_eq!(head.sequence, 3);
    assert_eq!(head.digest, Entry::digest(&batch[2]));
    drop(journal);

    let (journal, report) = open(dir.path()).unwrap();
    assert_eq!((report.head, report.torn_bytes), (head, 0));
    let reader = journal.reader();
    for (n, payload) in batch.iter().enumerate() {
        assert_eq!(reader.read(n as u64 + 1).unwrap(), *payload);
    }
    let report = super::verify(dir.path(), &key().verifying_key(), &mut |_| {}).unwrap();
    assert_eq!((report.broken, report.head), (None, head));
    for missing in [0, 4, u64::MAX] {
        assert!(matches!(
            reader.read(missing),
            Err(LedgerError::NoSuchEntry { last: 3, .. })
        ));
    }
}

#[test]
fn a_group_is_one_write_and_one_flush() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 1 << 20).unwrap();
    append(&mut journal, &[1], 100);
    let before = journal.counts();
    append(&mut journal, &[200], 100);
    let after = journal.counts();
    assert_eq!(after.writes - before.writes, 1);
    assert_eq!(after.flushes - before.flushes, 1);
}

#[test]
fn full_segments_are_closed_and_the_chain_goes_on() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[3; 40], 200);
    let head = journal.head();
    assert!(segments(dir.path()).len() > 10);
    drop(journal);

    let (mut journal, report) = open_with(dir.path(), 4096).unwrap();
    assert_eq!(report.head, head);
    append(&mut journal, &[2; 5], 200);
    drop(journal);
    let (journal, _) = open_with(dir.path(), 4096).unwrap();
    let reader = journal.reader();
    let read: Vec<_> = reader.entries_from(1).unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 130);
    assert!(read.iter().zip(1..).all(|(stored, n)| stored.entry.sequence == n));
    for start in [1, 2, 31, 32, 33, 34, 100, 130] {
        let first = reader.entries_from(start).unwrap().next().unwrap().unwrap();
        assert_eq!(first, read[start as usize - 1]);
        assert_eq!(reader.read(start).unwrap(), first.payload);
        assert_eq!(reader.digest_at(start).unwrap(), first.digest);
    }
    assert!(reader.entries_from(131).unwrap().next().is_none());
    assert!(reader.entries_from(132).is_err());
}

#[test]
fn a_group_larger_than_a_segment_gets_a_segment_of_its_own() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[1, 60, 1], 500);
    let head = journal.head();
    drop(journal);
    let (journal, report) = open_with(dir.path(), 4096).unwrap();
    assert_eq!((report.head, head.sequence), (head, 62));
    assert_eq!(journal.reader().entries_from(1).unwrap().count(), 62);
}

#[test]
fn a_first_group_larger_than_the_first_segment_goes_into_it() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[40, 1, 60], 500);
    drop(journal);
    assert_eq!(segments(dir.path()).len(), 3);
    let (journal, report) = open_with(dir.path(), 4096).unwrap();
    assert_eq!(report.head.sequence, 101);
    assert_eq!(journal.reader().entries_from(1).unwrap().count(), 101);
}

#[test]
fn a_segment_that_was_closed_just_before_a_crash_is_continued_in_the_next() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[3; 10], 200);
    drop(journal);
    let paths = segments(dir.path());
    let (journal, report) = {
        // The newest segment never came to be, only its unfinished file.
        let last = paths.last().unwrap();
        std::fs::rename(last, format!("{}.tmp", last.display())).unwrap();
        open_with(dir.path(), 4096).unwrap()
    };
    assert!(report.head.sequence < 30 && report.head.sequence > 20);
    assert_eq!(
        contents(dir.path()).len(),
        paths.len() - 1,
        "the unfinished file is gone"
    );
    drop(journal);

    // The crash came before what was kept free was given back.
    let last = segments(dir.path()).pop().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
    let closed_len = file.metadata().unwrap().len();
    file.set_len(closed_len + 1000).unwrap();
    let (mut journal, again) = open_with(dir.path(), 4096).unwrap();
    assert_eq!(again, report);
    assert_eq!(file.metadata().unwrap().len(), closed_len);
    append(&mut journal, &[3; 3], 200);
    assert_eq!(journal.head().sequence, report.head.sequence + 9);
    drop(journal);
    assert_eq!(
        open_with(dir.path(), 4096).unwrap().1.head.sequence,
        report.head.sequence + 9
    );
}

#[test]
fn what_does_not_follow_is_not_written() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open(dir.path()).unwrap();
    append(&mut journal, &[2], 50);
    let before = contents(dir.path());
    let skipped = Head {
        sequence: 5,
        ..journal.head()
    };
    let forked = Head {
        sequence: 2,
        digest: hub_protocol::Digest([1; 32]),
    };
    for wrong in [skipped, forked, Head::EMPTY] {
        let error = journal.append(&payloads(wrong, 1, 50)).unwrap_err();
        assert!(
            matches!(error, LedgerError::DoesNotFollow { last: 2, .. }),
            "{error}"
        );
    }
    assert_eq!(contents(dir.path()), before);
    append(&mut journal, &[1], 50);
}

#[test]
fn after_a_failed_write_or_flush_nothing_more_is_accepted() {
    for what in [1, 2] {
        let dir = tempdir().unwrap();
        let (mut journal, _) = open(dir.path()).unwrap();
        append(&mut journal, &[1], 50);
        let head = journal.head();
        journal.disk().fail_from_now(what);
        let batch = payloads(head, 1, 50);
        assert!(matches!(journal.append(&batch), Err(LedgerError::Io { .. })));
        assert_eq!(journal.head(), head, "a failed append is never acknowledged");
        assert_eq!(journal.reader().head(), head);
        journal.disk().fail_from_now(0);
        assert!(matches!(journal.append(&batch), Err(LedgerError::Poisoned)));
    }
}

#[test]
fn a_second_writer_is_refused() {
    let dir = tempdir().unwrap();
    let (journal, _) = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(LedgerError::Locked { .. })));
    let other_process = || {
        std::process::Command::new("flock")
            .args(["--nonblock", dir.path().to_str().unwrap(), "true"])
            .status()
            .unwrap()
            .success()
    };
    assert!(!other_process());
    drop(journal);
    assert!(other_process());
    open(dir.path()).unwrap();
}

#[test]
fn a_folder_is_free_at_once_although_another_program_is_just_being_started() {
    let dir = tempdir().unwrap();
    let lock = DataLock::acquire(dir.path()).unwrap();
    // What a child has between its beginning and its program's.
    let inherited = lock.dir.try_clone().unwrap();
    drop(lock);
    DataLock::acquire(dir.path()).unwrap();
    drop(inherited);
}

#[test]
fn an_emptied_folder_does_not_become_a_new_ledger_by_itself() {
    let dir = tempdir().unwrap();
    let options = JournalOptions::default();
    let error = Journal::open(dir.path(), HUB, key(), options).unwrap_err();
    assert!(matches!(error, LedgerError::Missing { .. }));
    let nowhere = dir.path().join("nowhere");
    assert!(matches!(
        Journal::open(&nowhere, HUB, key(), options),
        Err(LedgerError::Missing { .. })
    ));
    assert!(!nowhere.exists());
}

#[test]
fn a_newer_format_and_another_hubs_ledger_are_refused_by_name() {
    let dir = tempdir().unwrap();
    drop(open(dir.path()).unwrap());
    let other = HubId([8; 32]);
    assert!(matches!(
        Journal::open(dir.path(), other, key(), JournalOptions::default()),
        Err(LedgerError::OtherHub { found: HUB, .. })
    ));
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 3;
    std::fs::write(&path, &bytes).unwrap();
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(
        error,
        LedgerError::NewerFormat {
            found: 3,
            known: 2,
            ..
        }
    ));
    assert!(error.to_string().contains("format 3"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[3; 20], 200);
    drop(journal);
    let paths = segments(dir.path());
    for missing in &paths[..paths.len() - 1] {
        let kept = std::fs::read(missing).unwrap();
        std::fs::remove_file(missing).unwrap();
        let before = contents(dir.path());
        let error = open_with(dir.path(), 4096).unwrap_err();
        let named = missing.file_name().unwrap().to_str().unwrap();
        assert!(error.to_string().contains(named), "{error}");
        assert_eq!(contents(dir.path()), before);
        std::fs::write(missing, kept).unwrap();
    }
    open_with(dir.path(), 4096).unwrap();
}

#[test]
fn a_reader_follows_the_journal_from_another_thread() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 8192).unwrap();
    let reader = journal.reader();
    std::thread::scope(|scope| {
        let following = scope.spawn(|| {
            let mut next = 1;
            while next <= 200 {
                for stored in reader.entries_from(next).unwrap() {
                    assert_eq!(stored.unwrap().entry.sequence, next);
                    next += 1;
                }
                let head = reader.head().sequence;
                if head > 0 {
                    reader.read(head).unwrap();
                }
                std::thread::yield_now();
            }
        });
        append(&mut journal, &[4; 50], 150);
        following.join().unwrap();
    });
}
