use tempfile::{TempDir, tempdir};

use super::*;

/// Three closed segments and an open one, with their index.
struct Kept {
    dir: TempDir,
    journal: Journal,
    _index: Index,
    archiver: Archiver,
}

impl Kept {
    fn new() -> Self {
        let dir = tempdir().unwrap();
        let (mut journal, _) = open_with(&dir.path().join("ledger"), 4096).unwrap();
        append(&mut journal, &[2; 12], 300);
        let mut index = Index::create(&dir.path().join("index"), &test_seal()).unwrap();
        index.write(Vec::new(), journal.head().into()).unwrap();
        index.look_into(&journal.archives());
        let archiver = Archiver::new(journal.reader(), journal.archives(), index.reader(), HUB);
        let kept = Self {
            dir,
            journal,
            _index: index,
            archiver,
        };
        assert_eq!(segments(&kept.ledger()).len(), 4);
        kept
    }

    fn ledger(&self) -> PathBuf {
        self.dir.path().join("ledger")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.ledger().join("archive").join(name)
    }

    /// Archives so many segments and removes them.
    fn archive(&mut self, segments: u32) {
        for number in 1..=segments {
            let next = self.archiver.next(u64::MAX, &mut |_| Ok(())).unwrap();
            assert!(matches!(next, Next::Written(written) if written.number == number));
        }
        self.archiver.remove_segments(segments, &mut |_| Ok(())).unwrap();
    }

    fn entries(&self) -> Vec<StoredEntry> {
        let entries = self.journal.reader().entries_from(1).unwrap();
        entries.map(Result::unwrap).collect()
    }
}

fn public() -> ed25519_dalek::VerifyingKey {
    key().verifying_key()
}

#[test]
fn entries_are_read_through_archives_as_before() {
    let mut kept = Kept::new();
    let before = kept.entries();
    // Whoever reads while a segment is put away goes on.
    let mut reading = kept.journal.reader().entries_from(1).unwrap();
    let first = reading.next().unwrap().unwrap();
    kept.archive(3);
    assert_eq!(segments(&kept.ledger()).len(), 1);
    let rest = reading.map(Result::unwrap);
    assert_eq!(std::iter::once(first).chain(rest).collect::<Vec<_>>(), before);
    assert_eq!(kept.entries(), before);
    let reader = kept.journal.reader();
    for stored in before.iter().rev() {
        assert_eq!(reader.entry(stored.entry.sequence).unwrap(), *stored);
    }
    assert_eq!(reader.first_plain(), 1 + kept.archiver.archives().head().sequence);
    // Nothing but the archives' own files is left behind.
    let names = contents(&kept.ledger().join("archive"));
    assert_eq!(names.len(), 3 * 4, "{names:?}");

    drop(kept.archiver);
    drop(kept.journal);
    let (journal, report) = open_with(&kept.dir.path().join("ledger"), 4096).unwrap();
    assert_eq!(report.head.sequence, before.len() as u64);
    let again = journal.reader().entries_from(1).unwrap();
    assert_eq!(again.map(Result::unwrap).collect::<Vec<_>>(), before);
}

#[test]
fn every_changed_byte_of_an_archive_or_manifest_is_found_and_named() {
    let mut kept = Kept::new();
    kept.archive(2);
    let packed = kept.file("00000001.seg.gz");
    let before = check_archive(&packed, &public(), Contents::Unread, None).unwrap();
    let second = kept.file("00000002.seg.gz");
    check_archive(
        &second,
        &public(),
        Contents::Unread,
        Some((&before.manifest, before.digest)),
    )
    .unwrap();
    for name in ["00000001.seg.gz", "00000001.manifest", "00000001.ids"] {
        let path = kept.file(name);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= [0x01, 0x80, 0xff, 0x10][at % 4];
            std::fs::write(&path, &bad).unwrap();
            let Err(LedgerError::Damaged(broken)) = check_archive(&packed, &public(), Contents::Unread, None)
            else {
                panic!("{name}, byte {at}: passed");
            };
            assert_eq!(broken.file, name, "byte {at}");
            if name != "00000001.ids" {
                let report = verify(&kept.ledger(), &public(), &mut |_| {}).unwrap();
                assert_eq!(report.broken.unwrap().file, name, "byte {at}");
            }
        }
        for bad in [&good[..good.len() - 1], &[&good[..], &[0]].concat()] {
            std::fs::write(&path, bad).unwrap();
            assert!(
                check_archive(&packed, &public(), Contents::Unread, None).is_err(),
                "{name}"
            );
        }
        std::fs::write(&path, &good).unwrap();
    }
    check_archive(&packed, &public(), Contents::Unread, None).unwrap();
    let stranger = SigningKey::from_bytes(&[1; 32]).verifying_key();
    assert!(check_archive(&packed, &stranger, Contents::Unread, None).is_err());
}

#[test]
fn an_archive_in_anothers_place_is_found() {
    let mut kept = Kept::new();
    kept.archive(3);
    let first = check_archive(&kept.file("00000001.seg.gz"), &public(), Contents::Unread, None).unwrap();
    // Whole, and not the next one.
    let skipped = check_archive(
        &kept.file("00000002.seg.gz"),
        &public(),
        Contents::Unread,
        Some((&first.manifest, hub_protocol::Digest::ZERO)),
    );
    assert!(matches!(skipped, Err(LedgerError::Damaged(broken)) if broken.fault == Fault::Manifest));
    for extension in ["seg.gz", "manifest", "ids"] {
        let from = kept.file(&format!("00000002.{extension}"));
        std::fs::copy(from, kept.file(&format!("00000003.{extension}"))).unwrap();
    }
    let moved = check_archive(&kept.file("00000003.seg.gz"), &public(), Contents::Unread, None);
    assert!(
        matches!(moved, Err(LedgerError::Damaged(broken)) if broken.fault == Fault::WrongSegment { found: 2 })
    );
    let report = verify(&kept.ledger(), &public(), &mut |_| {}).unwrap();
    assert_eq!(report.broken.unwrap().file, "00000003.manifest");
    assert!(
        check_archive(
            &kept.ledger().join("00000004.seg"),
            &public(),
            Contents::Unread,
            None
        )
        .is_err()
    );
}

#[test]
fn a_damaged_segment_is_not_archived_and_not_removed() {
    let mut kept = Kept::new();
    let path = segments(&kept.ledger()).remove(0);
    let good = std::fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(41) {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        std::fs::write(&path, &bad).unwrap();
        let next = kept.archiver.next(u64::MAX, &mut |_| Ok(()));
        let refused = next.expect_err(&format!("byte {at}"));
        assert!(
            matches!(&refused, ArchiveError::Ledger(LedgerError::Damaged(broken)) if broken.file == "00000001.seg"),
            "byte {at}: {refused}"
        );
        kept.archiver.remove_segments(1, &mut |_| Ok(())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), bad);
    }
    std::fs::write(&path, &good).unwrap();
    kept.archive(1);
    check_archive(&kept.file("00000001.seg.gz"), &public(), Contents::Unread, None).unwrap();
}

#[test]
fn a_segment_whose_archive_is_elsewhere_is_not_removed() {
    let mut kept = Kept::new();
    assert!(matches!(
        kept.archiver.next(u64::MAX, &mut |_| Ok(())),
        Ok(Next::Written(_))
    ));
    let packed = kept.file("00000001.seg.gz");
    std::fs::remove_file(&packed).unwrap();
    let refused = kept.archiver.remove_segments(1, &mut |_| Ok(())).unwrap_err();
    assert!(refused.to_string().contains("put"), "{refused}");
    assert_eq!(segments(&kept.ledger()).len(), 4);
}

#[test]
fn the_segment_that_is_written_to_and_young_ones_stay() {
    let mut kept = Kept::new();
    // All entries here were made at one moment.
    let made = kept.entries()[0].entry.time.wall_ms;
    assert_eq!(kept.archiver.due(made).unwrap(), None);
    assert_eq!(kept.archiver.next(made, &mut |_| Ok(())).unwrap(), Next::Nothing);
    kept.archive(3);
    assert_eq!(
        kept.archiver.next(u64::MAX, &mut |_| Ok(())).unwrap(),
        Next::Nothing
    );
}

#[test]
fn a_receipt_is_held_against_an_archive_too() {
    let mut kept = Kept::new();
    let all = kept.entries();
    kept.archive(2);
    let ledger = kept.ledger();
    let held = |sequence: usize, digest| contains(&ledger, &public(), sequence as u64, digest).unwrap();
    let other = hub_protocol::Digest([1; 32]);
    assert_eq!(held(2, all[1].digest), ReceiptCheck::Present);
    let found = all[1].digest;
    assert_eq!(held(2, other), ReceiptCheck::Different { found });
    std::fs::remove_file(kept.file("00000001.seg.gz")).unwrap();
    assert!(matches!(held(2, found), ReceiptCheck::Away(away) if away.number == 1));
    let last = all.last().unwrap();
    assert_eq!(held(all.len(), last.digest), ReceiptCheck::Present);
}

#[test]
fn what_is_left_of_a_damaged_archive_is_salvaged() {
    let mut kept = Kept::new();
    let all = kept.entries().len() as u64;
    kept.archive(2);
    let mut out = Vec::new();
    let report = salvage(&kept.ledger(), &public(), Contents::Unread, &mut out).unwrap();
    assert_eq!((report.entries, report.signed, report.gaps.len()), (all, all, 0));
    let path = kept.file("00000001.seg.gz");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let report = salvage(&kept.ledger(), &public(), Contents::Unread, &mut Vec::new()).unwrap();
    assert!(report.entries < all && report.entries >= all / 2, "{report:?}");
    assert!(!report.gaps.is_empty());
}

#[test]
fn a_copy_has_its_name_only_if_it_is_what_the_hub_signed_for() {
    let mut kept = Kept::new();
    kept.archive(2);
    let away = tempdir().unwrap();
    let list = kept.archiver.archives().list();
    let digest = list[0].manifest.archive_digest;
    let copy = away.path().join("00000001.seg.gz");
    // The original is another's, or damaged.
    let good = std::fs::read(kept.file("00000001.seg.gz")).unwrap();
    std::fs::write(kept.file("00000001.seg.gz"), &good[1..]).unwrap();
    let refused = copy_archive(&list[0].path, away.path(), digest).unwrap_err();
    assert!(matches!(refused, LedgerError::BadCopy { .. }), "{refused}");
    assert!(contents(away.path()).is_empty());
    std::fs::write(kept.file("00000001.seg.gz"), &good).unwrap();
    copy_archive(&list[0].path, away.path(), digest).unwrap();
    assert_eq!(std::fs::read(&copy).unwrap(), good);
    // Again is no harm, and another file of that name is not written over.
    copy_archive(&list[0].path, away.path(), digest).unwrap();
    std::fs::write(&copy, b"of another hub").unwrap();
    let refused = copy_archive(&list[0].path, away.path(), digest).unwrap_err();
    assert!(matches!(refused, LedgerError::OtherFile { .. }), "{refused}");
    assert_eq!(contents(away.path()), [(copy, b"of another hub".to_vec())]);
}

#[test]
fn copies_are_never_in_the_hubs_own_folder_and_each_hubs_apart() {
    let kept = Kept::new();
    let own = kept.ledger();
    let inside = own.join("archive");
    std::fs::create_dir_all(&inside).unwrap();
    let away = tempdir().unwrap();
    let link = away.path().join("link");
    std::os::unix::fs::symlink(&inside, &link).unwrap();
    for to in [&own, &inside, &own.join("../ledger"), &link] {
        let refused = folder_for_copies(&[&own], to, HUB).unwrap_err();
        assert!(
            matches!(refused, LedgerError::OwnFolder { .. }),
            "{}: {refused}",
            to.display()
        );
    }
    assert!(contents(&inside).is_empty());
    let first = folder_for_copies(&[&own], away.path(), HUB).unwrap();
    let second = folder_for_copies(&[&own], away.path(), HubId([8; 32])).unwrap();
    assert!(first.is_dir() && second.is_dir() && first != second);
    // The folder above is not the hub's.
    folder_for_copies(&[&own], kept.dir.path(), HUB).unwrap();
}
