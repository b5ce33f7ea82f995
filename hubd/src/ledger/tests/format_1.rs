//! Segments of format 1, in which each entry has a signature of its own: read
//! and verified for ever, never written.

use hub_protocol::cose::{self, ObjectType};
use tempfile::{TempDir, tempdir};

use super::*;
use crate::ledger::segment::{FOOTER_RESERVE, HEADER_LEN, Header, Mark, SIGNED_ENTRIES};

/// A segment file as format 1 wrote it.
fn segment(number: u32, mut head: Head, groups: &[usize], closed: bool) -> (Vec<u8>, Head) {
    let header = Header {
        format: SIGNED_ENTRIES,
        number,
        hub: HUB,
        first: head.sequence + 1,
        previous: head.digest,
    };
    let mut out = header.encode().to_vec();
    for count in groups {
        let mut group = Vec::new();
        for payload in payloads(head, *count, 120) {
            segment::push_entry(&mut group, &cose::sign(&key(), ObjectType::LedgerEntry, &payload));
            head = Head {
                sequence: head.sequence + 1,
                digest: Entry::digest(&payload),
            };
        }
        let mark = Mark {
            group_offset: out.len() as u32,
            group_len: group.len() as u32,
            count: *count as u32,
            group_crc: crc32c::crc32c(&group),
            last: head.sequence,
        };
        out.extend_from_slice(&group);
        out.extend_from_slice(&mark.encode());
    }
    if closed {
        let footer = Footer {
            first: header.first,
            last: head.sequence,
            last_digest: head.digest,
            count: head.sequence + 1 - header.first,
            file_digest: hub_protocol::Digest::of(&out),
        };
        let offset = out.len() as u32;
        out.extend_from_slice(&footer.encode(&key(), offset));
    } else {
        out.resize(out.len() + FOOTER_RESERVE + 2048, 0);
    }
    (out, head)
}

/// A closed segment and one that was being written, seven entries.
fn store() -> (TempDir, Head) {
    let dir = tempdir().unwrap();
    let (first, head) = segment(1, Head::EMPTY, &[2, 1], true);
    let (second, head) = segment(2, head, &[1, 3], false);
    std::fs::write(dir.path().join("00000001.seg"), first).unwrap();
    std::fs::write(dir.path().join("00000002.seg"), second).unwrap();
    (dir, head)
}

fn check(dir: &Path) -> VerifyReport {
    verify(dir, &key().verifying_key(), &mut |_| {}).unwrap()
}

#[test]
fn rule_2_a_ledger_of_format_1_is_read_verified_and_continued_in_the_present_format() {
    let (dir, head) = store();
    let report = check(dir.path());
    assert_eq!((report.broken, report.entries, report.head), (None, 7, head));
    let before = contents(dir.path());

    let (mut journal, report) = open(dir.path()).unwrap();
    assert_eq!((report.head, report.torn_bytes), (head, 0));
    assert_eq!(contents(dir.path()), before, "opening alone changes nothing");
    append(&mut journal, &[2, 1], 120);
    let end = journal.head();
    let reader = journal.reader();
    let read: Vec<_> = reader.entries_from(1).unwrap().map(Result::unwrap).collect();
    assert_eq!(read.len(), 10);
    for (stored, n) in read.iter().zip(1..) {
        assert_eq!(stored.entry.sequence, n);
        assert_eq!(reader.read(n).unwrap(), stored.payload);
        assert_eq!(reader.digest_at(n).unwrap(), stored.digest);
    }
    drop(journal);

    let report = check(dir.path());
    assert_eq!((report.broken, report.head, report.segments), (None, end, 3));
    let formats: Vec<u8> = contents(dir.path()).iter().map(|(_, bytes)| bytes[8]).collect();
    assert_eq!(formats, [1, 1, 2], "a file keeps the format that it began with");
    let (_, report) = open(dir.path()).unwrap();
    assert_eq!(report.head, end);
    let public = key().verifying_key();
    for stored in read {
        let held = contains(dir.path(), &public, stored.entry.sequence, stored.digest);
        assert_eq!(held.unwrap(), ReceiptCheck::Present);
    }
}

#[test]
fn an_empty_segment_of_format_1_makes_room_for_one_of_the_present_format() {
    for entries in [0, 3] {
        let dir = tempdir().unwrap();
        let mut head = Head::EMPTY;
        let mut number = 1;
        if entries > 0 {
            let (first, after) = segment(1, head, &[entries], true);
            std::fs::write(dir.path().join("00000001.seg"), first).unwrap();
            (head, number) = (after, 2);
        }
        let (empty, _) = segment(number, head, &[], false);
        std::fs::write(dir.path().join(format!("{number:08}.seg")), empty).unwrap();
        let (mut journal, report) = open(dir.path()).unwrap();
        assert_eq!(report.head, head);
        append(&mut journal, &[2], 50);
        drop(journal);
        assert_eq!(segments(dir.path()).len(), number as usize);
        let report = check(dir.path());
        assert_eq!((report.broken, report.entries), (None, entries as u64 + 2));
        let (journal, _) = open(dir.path()).unwrap();
        assert_eq!(journal.reader().entries_from(1).unwrap().count(), entries + 2);
    }
}

#[test]
fn every_changed_byte_of_format_1_is_found_and_refused() {
    let (dir, _) = store();
    for (place, path) in segments(dir.path()).into_iter().enumerate() {
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..written(&bytes) {
            let mut damaged = bytes.clone();
            damaged[at] ^= [0x01, 0x80, 0x40, 0x10][at % 4];
            std::fs::write(&path, &damaged).unwrap();
            assert!(!check(dir.path()).is_whole(), "{}, byte {at}", path.display());
            // Of a closed segment opening reads the two ends only.
            if place == 1 {
                assert!(open(dir.path()).is_err(), "{}, byte {at}", path.display());
                assert_eq!(std::fs::read(&path).unwrap(), damaged);
            }
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    assert!(check(dir.path()).is_whole());
}

#[test]
fn an_entry_of_format_1_that_another_key_signed_is_found() {
    let (dir, _) = store();
    let other = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let broken = verify(dir.path(), &other, &mut |_| {}).unwrap().broken.unwrap();
    assert_eq!(broken.sequence, 1);
    assert!(matches!(broken.fault, Fault::Signature(_)));
}

#[test]
fn a_torn_last_group_of_format_1_is_cut_and_the_ledger_goes_on() {
    let (whole, head) = store();
    let bytes = std::fs::read(whole.path().join("00000002.seg")).unwrap();
    let group = {
        let (one, _) = segment(2, Head { sequence: 3, ..head }, &[1], false);
        written(&one)
    };
    for cut in group..written(&bytes) {
        let (dir, _) = store();
        let mut torn = bytes.clone();
        torn[cut..].fill(0);
        std::fs::write(dir.path().join("00000002.seg"), torn).unwrap();
        let (mut journal, report) = open(dir.path()).unwrap();
        assert_eq!(report.head.sequence, 4, "cut at {cut}");
        append(&mut journal, &[2], 50);
        drop(journal);
        let report = check(dir.path());
        assert_eq!((report.broken, report.entries), (None, 6), "cut at {cut}");
    }
}

#[test]
fn statements_in_a_file_of_format_1_are_damage() {
    let (dir, _) = store();
    let (mut journal, _) = open(dir.path()).unwrap();
    append(&mut journal, &[2], 50);
    drop(journal);
    let path = dir.path().join("00000003.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 1;
    let crc = crc32c::crc32c(&bytes[..HEADER_LEN - 4]);
    bytes[HEADER_LEN - 4..HEADER_LEN].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert!(!check(dir.path()).is_whole());
    assert!(open(dir.path()).is_err());
}

#[test]
fn salvage_reads_both_formats() {
    let (dir, _) = store();
    let (mut journal, _) = open(dir.path()).unwrap();
    append(&mut journal, &[3], 50);
    drop(journal);
    let mut out = Vec::new();
    let report = salvage(dir.path(), &key().verifying_key(), Contents::Unread, &mut out).unwrap();
    assert_eq!((report.entries, report.signed, report.gaps.len()), (10, 10, 0));
    let lines = String::from_utf8(out).unwrap();
    assert_eq!(lines.lines().count(), 10);
    let commits: Vec<bool> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["commit"].is_string())
        .collect();
    let expected: Vec<bool> = (1..=10).map(|n| n == 10).collect();
    assert_eq!(
        commits, expected,
        "a commit stands beside the last entry before it"
    );
}
