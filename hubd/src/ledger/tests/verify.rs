use hub_protocol::LedgerCommit;
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

/// The entries of a group, and the statement that the hub signed over them.
type Group = (Vec<Vec<u8>>, Vec<u8>);

fn groups_of(bytes: &[u8]) -> Vec<Group> {
    let mut groups = Vec::new();
    let mut entries = Vec::new();
    let mut at = segment::HEADER_LEN;
    while let Some((found, next)) = segment::record(bytes, at) {
        match found {
            segment::Record::Entry(entry) => entries.push(entry.to_vec()),
            segment::Record::Statement(signed) => {
                groups.push((std::mem::take(&mut entries), signed.to_vec()));
            }
            segment::Record::Mark(_) | segment::Record::Footer(_) => {}
        }
        at = next;
    }
    groups
}

/// A segment with right checksums and marks around these groups, as somebody
/// without the key can write it.
fn rebuilt(header: &[u8], groups: &[Group]) -> Vec<u8> {
    let mut out = header[..segment::HEADER_LEN].to_vec();
    let mut last = 0;
    for (entries, statement) in groups {
        let mut group = Vec::new();
        for entry in entries {
            segment::push_entry(&mut group, entry);
        }
        segment::push_statement(&mut group, statement);
        last += entries.len() as u64;
        let mark = segment::Mark {
            group_offset: out.len() as u32,
            group_len: group.len() as u32,
            count: entries.len() as u32,
            group_crc: crc32c::crc32c(&group),
            last,
        };
        out.extend_from_slice(&group);
        out.extend_from_slice(&mark.encode());
    }
    out.resize(16384, 0);
    out
}

#[test]
fn bytes_changed_by_somebody_who_mends_the_checksums_are_found() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 16384).unwrap();
    append(&mut journal, &[3, 3, 2], 300);
    drop(journal);
    let bytes = std::fs::read(&segments(dir.path())[0]).unwrap();
    let groups = groups_of(&bytes);
    assert_eq!(groups.iter().map(|(e, _)| e.len()).collect::<Vec<_>>(), [3, 3, 2]);
    let fault_of = |change: &dyn Fn(&mut Vec<Group>)| {
        let mut groups = groups.clone();
        change(&mut groups);
        let dir = tempdir().unwrap();
        std::fs::write(dir.path().join("00000001.seg"), rebuilt(&bytes, &groups)).unwrap();
        let report = check(dir.path());
        let verified = report.entries;
        report.broken.map(|b| (b.sequence, verified, b.fault))
    };
    assert_eq!(fault_of(&|_| {}), None, "the tool itself is right");

    let gap = |expected, found| Fault::Sequence { expected, found };
    let missing = fault_of(&|g| drop(g[1].0.remove(1)));
    assert_eq!(missing, Some((5, 3, gap(5, 6))));
    let swapped = fault_of(&|g| g[0].0.swap(1, 2));
    assert_eq!(swapped, Some((2, 0, gap(2, 3))));
    let dropped = fault_of(&|g| drop(g.remove(1)));
    assert_eq!(dropped, Some((4, 3, gap(4, 7))));

    // A changed entry breaks the chain behind it, or at the end of a group
    // what the hub has signed. Nothing of its group counts as verified.
    let change = |g: &mut Vec<Group>, group: usize, entry: usize| {
        let entry = &mut g[group].0[entry];
        let byte = entry.len() - 100;
        entry[byte] ^= 1;
    };
    assert_eq!(fault_of(&|g| change(g, 1, 0)), Some((5, 3, Fault::Chain)));
    assert_eq!(fault_of(&|g| change(g, 1, 2)), Some((4, 3, Fault::Statement)));

    // Statements that the hub made elsewhere, and one that was changed.
    let other_place = fault_of(&|g| g[1].1 = g[0].1.clone());
    assert_eq!(other_place, Some((4, 3, Fault::Statement)));
    let restated = |hub, first, last: u64, digest| LedgerCommit {
        hub,
        first,
        last,
        last_digest: digest,
        receipts: None,
    };
    let digest = Entry::digest(&groups[1].0[2]);
    let signed = |commit: LedgerCommit| fault_of(&move |g: &mut Vec<Group>| g[1].1 = commit.sign(&key()));
    assert_eq!(signed(restated(HUB, 4, 6, digest)), None);
    for wrong in [
        restated(HubId([8; 32]), 4, 6, digest),
        restated(HUB, 3, 6, digest),
        restated(HUB, 4, 7, digest),
        restated(HUB, 4, 6, hub_protocol::Digest([5; 32])),
    ] {
        assert_eq!(signed(wrong), Some((4, 3, Fault::Statement)));
    }
    for byte in 0..groups[1].1.len() {
        let found = fault_of(&|g| g[1].1[byte] ^= 1);
        let (sequence, verified, fault) = found.unwrap();
        assert_eq!((sequence, verified), (4, 3));
        assert!(matches!(fault, Fault::Signature(_)), "byte {byte}: {fault}");
    }
    let stranger = SigningKey::from_bytes(&[1; 32]);
    let forged = fault_of(&|g| g[1].1 = restated(HUB, 4, 6, digest).sign(&stranger));
    assert!(matches!(forged, Some((4, 3, Fault::Signature(_)))));

    // Entries of another past under a statement of this one.
    let other = Head {
        sequence: 3,
        digest: hub_protocol::Digest([5; 32]),
    };
    let forked = fault_of(&|g| g[1].0[0] = payload(other, 10));
    assert_eq!(forked, Some((4, 3, Fault::Chain)));
}

#[test]
fn a_group_without_its_statement_is_damage_and_no_torn_write() {
    let dir = tempdir().unwrap();
    let (mut journal, _) = open_with(dir.path(), 16384).unwrap();
    append(&mut journal, &[3], 100);
    drop(journal);
    let path = segments(dir.path()).remove(0);
    let bytes = std::fs::read(&path).unwrap();
    let mut group = Vec::new();
    for entry in &groups_of(&bytes)[0].0 {
        segment::push_entry(&mut group, entry);
    }
    let mark = segment::Mark {
        group_offset: segment::HEADER_LEN as u32,
        group_len: group.len() as u32,
        count: 3,
        group_crc: crc32c::crc32c(&group),
        last: 3,
    };
    let mut unsigned = bytes[..segment::HEADER_LEN].to_vec();
    unsigned.extend_from_slice(&group);
    unsigned.extend_from_slice(&mark.encode());
    unsigned.resize(16384, 0);
    std::fs::write(&path, &unsigned).unwrap();
    assert_eq!(check(dir.path()).broken.unwrap().fault, Fault::Mark);
    assert!(matches!(
        open_with(dir.path(), 16384),
        Err(LedgerError::Damaged(_))
    ));
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
        let report = salvage(dir.path(), &public, Contents::Unread, &mut out).unwrap();
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
    assert_eq!(report.signed, 17, "the rest of the group is still covered");
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

#[test]
fn salvage_goes_on_behind_an_entry_of_the_highest_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    for sequence in [u64::MAX - 1, 0] {
        let before = Head {
            sequence,
            digest: Head::EMPTY.digest,
        };
        segment::push_entry(&mut bytes, &payload(before, 10));
    }
    std::fs::write(dir.path().join("00000001.seg"), &bytes).unwrap();
    let mut out = Vec::new();
    let report = salvage(dir.path(), &key().verifying_key(), Contents::Unread, &mut out).unwrap();
    assert_eq!((report.entries, report.signed), (2, 0));
    let gaps = report
        .gaps
        .iter()
        .map(|gap| (gap.after_sequence, gap.before_sequence));
    let gaps: Vec<_> = gaps.collect();
    assert_eq!(gaps, [(0, Some(u64::MAX)), (u64::MAX, Some(1))]);
}
