use tempfile::{TempDir, tempdir};

use super::*;

fn check(dir: &Path) -> VerifyReport {
    verify(dir, &key().verifying_key(), &mut |_| {}).unwrap()
}

/// Three segments, the last one open.
fn journal() -> (TempDir, Head) {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 4096).unwrap();
    append(&mut journal, &[2; 9], 300);
    let head = journal.head();
    drop(journal);
    assert_eq!(segments(dir.path()).len(), 3);
    (dir, head)
}

#[test]
fn a_whole_ledger_verifies_with_the_public_key_alone() {
    let (dir, head) = journal();
    let mut steps = Vec::new();
    let report = verify(dir.path(), &key().verifying_key(), &mut |p| steps.push(p)).unwrap();
    assert_eq!(report.broken, None);
    assert_eq!((report.entries, report.head, report.hub), (18, head, Some(HUB)));
    assert_eq!(report.kinds, [("operator-acted", 18)].into());
    assert_eq!(
        steps.last().map(|p| (p.segments, p.of_segments, p.entries)),
        Some((3, 3, 18))
    );
    let other = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let report = verify(dir.path(), &other, &mut |_| {}).unwrap();
    assert!(matches!(report.broken.unwrap().fault, Fault::Signature(_)));
}

#[test]
fn every_changed_byte_of_the_written_part_is_found_and_named() {
    let (dir, _) = journal();
    for (n, path) in segments(dir.path()).into_iter().enumerate() {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let to = written(&bytes);
        for at in 0..to {
            let mut damaged = bytes.clone();
            damaged[at] ^= [0x01, 0x80, 0xff, 0x10][at % 4];
            std::fs::write(&path, &damaged).unwrap();
            let broken = check(dir.path())
                .broken
                .unwrap_or_else(|| panic!("{name}, byte {at}: passed"));
            assert_eq!(broken.file, name);
            assert!(broken.offset <= at as u64 + 1024, "{broken}, changed {at}");
            assert!(broken.sequence > n as u64, "{broken}");
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(check(dir.path()).is_whole());
}

#[test]
fn bytes_changed_by_somebody_who_mends_the_checksums_are_found() {
    // One segment that somebody without the key writes anew, with right
    // checksums and marks, around entries that he took out or turned round.
    let (dir, _) = journal();
    let path = segments(dir.path()).remove(0);
    let bytes = std::fs::read(&path).unwrap();
    let mut entries = Vec::new();
    let mut at = segment::HEADER_LEN;
    while let Some((found, next)) = segment::record(&bytes, at) {
        if let segment::Record::Entry(signed) = found {
            entries.push(signed.to_vec());
        }
        at = next;
    }
    let rebuild = |entries: &[Vec<u8>], last: u64| {
        let mut group = Vec::new();
        for signed in entries {
            segment::push_entry(&mut group, signed);
        }
        let mark = segment::Mark {
            group_offset: segment::HEADER_LEN as u32,
            group_len: group.len() as u32,
            count: entries.len() as u32,
            group_crc: crc32c::crc32c(&group),
            last,
        };
        let mut out = bytes[..segment::HEADER_LEN].to_vec();
        out.extend_from_slice(&group);
        out.extend_from_slice(&mark.encode());
        out.resize(8192, 0);
        out
    };
    let fault_of = |entries: &[Vec<u8>], last: u64| {
        let dir = tempdir().unwrap();
        std::fs::write(dir.path().join("00000001.seg"), rebuild(entries, last)).unwrap();
        check(dir.path()).broken.map(|b| (b.sequence, b.fault))
    };
    assert_eq!(
        fault_of(&entries, entries.len() as u64),
        None,
        "the tool itself is right"
    );

    let mut missing = entries.clone();
    missing.remove(2);
    let gap = Fault::Sequence {
        expected: 3,
        found: 4,
    };
    assert_eq!(fault_of(&missing, missing.len() as u64), Some((3, gap)));

    let mut swapped = entries.clone();
    swapped.swap(1, 2);
    let order = Fault::Sequence {
        expected: 2,
        found: 3,
    };
    assert_eq!(fault_of(&swapped, swapped.len() as u64), Some((2, order)));

    let mut changed = entries.clone();
    let byte = changed[3].len() - 100;
    changed[3][byte] ^= 1;
    let (sequence, fault) = fault_of(&changed, changed.len() as u64).unwrap();
    assert_eq!(sequence, 4);
    assert!(matches!(fault, Fault::Signature(_)), "{fault}");

    // An entry that the hub itself signed, of another past.
    let mut forked = entries.clone();
    let other = Head {
        sequence: 1,
        digest: hub_protocol::Digest([5; 32]),
    };
    forked[1] = hub_protocol::cose::sign(
        &key(),
        hub_protocol::cose::ObjectType::LedgerEntry,
        &payload(other, 10),
    );
    assert_eq!(fault_of(&forked, forked.len() as u64), Some((2, Fault::Chain)));
}

#[test]
fn a_missing_segment_is_named() {
    let (dir, _) = journal();
    let paths = segments(dir.path());
    for (n, path) in paths.iter().take(2).enumerate() {
        let kept = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        let broken = check(dir.path()).broken.unwrap();
        assert_eq!(broken.fault, Fault::MissingSegment);
        assert_eq!(broken.file, format!("{:08}.seg", n + 1));
        std::fs::write(path, kept).unwrap();
    }
}

#[test]
fn a_footer_taken_off_shows_as_soon_as_another_segment_follows() {
    let (dir, _) = journal();
    let path = &segments(dir.path())[1];
    let bytes = std::fs::read(path).unwrap();
    let footer = segment::seal_at(&bytes, bytes.len() - segment::SEAL_LEN).unwrap();
    std::fs::write(path, &bytes[..footer as usize]).unwrap();
    let broken = check(dir.path()).broken.unwrap();
    assert_eq!(broken.fault, Fault::MissingFooter);
}

#[test]
fn a_torn_tail_is_reported_and_never_passed_over() {
    let (dir, head) = journal();
    let path = segments(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let to = written(&bytes);
    bytes[to - 200..].fill(0);
    std::fs::write(&path, &bytes).unwrap();
    let report = check(dir.path());
    assert!(matches!(report.broken.unwrap().fault, Fault::TornTail { .. }));
    assert_eq!(report.head.sequence, head.sequence - 2);
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "verifying only reads");
}

#[test]
fn a_receipt_shows_that_the_tail_was_cut() {
    let (dir, head) = journal();
    let public = key().verifying_key();
    let held = |sequence, digest| contains(dir.path(), &public, sequence, digest).unwrap();
    assert_eq!(held(head.sequence, head.digest), ReceiptCheck::Present);
    let other = hub_protocol::Digest([1; 32]);
    assert_eq!(
        held(head.sequence, other),
        ReceiptCheck::Different { found: head.digest }
    );

    // The whole last segment goes, and the footer before it: what is left
    // verifies, and only the receipt knows better.
    let (journal, _) = open_with(dir.path(), 4096).unwrap();
    let early = journal.reader().entry(3).unwrap();
    drop(journal);
    std::fs::remove_file(segments(dir.path()).pop().unwrap()).unwrap();
    let report = check(dir.path());
    assert!(report.is_whole());
    let last = report.head.sequence;
    assert!(last < head.sequence);
    assert_eq!(held(head.sequence, head.digest), ReceiptCheck::CutOff { last });
    assert_eq!(held(3, early.digest), ReceiptCheck::Present);
}

#[test]
fn a_receipt_for_a_missing_segment_or_a_damaged_entry_is_no_cut_tail() {
    let (dir, head) = journal();
    let public = key().verifying_key();
    let (journal, _) = open_with(dir.path(), 4096).unwrap();
    let digests: Vec<_> = (1..=head.sequence)
        .map(|n| journal.reader().digest_at(n).unwrap())
        .collect();
    drop(journal);
    let held = |n: u64| contains(dir.path(), &public, n, digests[n as usize - 1]).unwrap();
    let paths = segments(dir.path());
    let kept = std::fs::read(&paths[1]).unwrap();
    std::fs::remove_file(&paths[1]).unwrap();
    let answers: Vec<_> = (1..=head.sequence).map(held).collect();
    let missing = answers
        .iter()
        .filter(|a| matches!(a, ReceiptCheck::Unreadable(_)))
        .count();
    assert!(missing > 0);
    assert!(answers.iter().all(|a| !matches!(a, ReceiptCheck::CutOff { .. })));
    std::fs::write(&paths[1], kept).unwrap();

    let mut bytes = std::fs::read(&paths[0]).unwrap();
    bytes[segment::HEADER_LEN + 50] ^= 1;
    std::fs::write(&paths[0], bytes).unwrap();
    assert!(matches!(held(1), ReceiptCheck::Unreadable(_)));
    assert_eq!(held(head.sequence), ReceiptCheck::Present);
}

#[test]
fn a_ledger_that_ends_in_an_empty_segment_names_its_last_entry_rightly() {
    let dir = tempdir().unwrap();
    let public = key().verifying_key();
    drop(open_with(dir.path(), 4096).unwrap());
    let other = hub_protocol::Digest([1; 32]);
    let answer = contains(dir.path(), &public, 1, other).unwrap();
    assert_eq!(answer, ReceiptCheck::CutOff { last: 0 });
    let report = check(dir.path());
    assert_eq!(
        (report.broken, report.entries, report.head),
        (None, 0, Head::EMPTY)
    );
}

#[test]
fn salvage_reads_around_damage_and_names_the_gaps() {
    let (dir, _) = journal();
    let public = key().verifying_key();
    let run = || {
        let mut out = Vec::new();
        let report = salvage(dir.path(), &public, &mut out).unwrap();
        let sequences: Vec<u64> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["sequence"]
                    .as_u64()
                    .unwrap()
            })
            .collect();
        (report, sequences)
    };
    let (report, sequences) = run();
    assert_eq!((report.entries, report.signed, report.gaps.len()), (18, 18, 0));
    assert_eq!(sequences, (1..=18).collect::<Vec<_>>());

    let path = segments(dir.path()).remove(0);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[segment::HEADER_LEN + 20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let (report, sequences) = run();
    assert_eq!(sequences, (2..=18).collect::<Vec<_>>());
    assert_eq!(report.gaps.len(), 1);
    assert_eq!(
        (report.gaps[0].after_sequence, report.gaps[0].before_sequence),
        (0, Some(2))
    );
    assert_eq!(report.gaps[0].offset, segment::HEADER_LEN as u64);

    std::fs::remove_file(&segments(dir.path())[1]).unwrap();
    let (report, sequences) = run();
    assert_eq!(report.entries, sequences.len() as u64);
    assert_eq!(report.gaps.len(), 2, "{:?}", report.gaps);
    assert_eq!(report.gaps[1].bytes, 0);
}
