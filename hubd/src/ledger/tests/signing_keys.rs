//! The signing key changes while the ledger is written.

use std::path::Path;

use ed25519_dalek::{SigningKey, VerifyingKey};
use hub_protocol::{HubKeyChange, LedgerCommit, SignedKeyChange};
use tempfile::{TempDir, tempdir};

use super::*;

fn numbered(n: u8) -> SigningKey {
    match n {
        0 => key(),
        n => SigningKey::from_bytes(&[100 + n; 32]),
    }
}

fn public(n: u8) -> VerifyingKey {
    numbered(n).verifying_key()
}

fn statement(number: u8, sequence: u64) -> SignedKeyChange {
    let (old, new) = (numbered(number - 1), numbered(number));
    let change = HubKeyChange {
        hub: HUB,
        number: number.into(),
        old_key: old.verifying_key().to_bytes(),
        new_key: new.verifying_key().to_bytes(),
        sequence,
        changed_ms: 1,
    };
    SignedKeyChange(change.sign(&old, &new))
}

/// The entry that tells of change `number`, as the next of the ledger.
fn entry(head: Head, statement: SignedKeyChange) -> Vec<u8> {
    let mut entry: Entry = hub_protocol::cbor::decode(&payload(head, 1)).unwrap();
    entry.event = Event::HubKeyChanged {
        statement,
        operator: "uid 0".into(),
    };
    entry.encode()
}

/// The entry and its statement, without what follows.
fn append_change(journal: &mut Journal, number: u8) -> SignedKeyChange {
    let statement = statement(number, journal.head().sequence + 1);
    let entry = entry(journal.head(), statement.clone());
    journal.append(&[entry]).unwrap();
    statement
}

fn change(journal: &mut Journal, number: u8) {
    let statement = append_change(journal, number);
    journal.change_key(numbered(number), &statement).unwrap();
}

/// Entries, and a change of the key behind each of the first `changes` parts.
fn written(dir: &Path, changes: u8) -> Journal {
    let (mut journal, _) = open_with(dir, 4096).unwrap();
    append(&mut journal, &[2; 4], 300);
    for number in 1..=changes {
        change(&mut journal, number);
        append(&mut journal, &[1, 3, 2, 2], 300);
    }
    journal
}

fn reopened(dir: &Path, present: u8, next: Option<u8>) -> Result<Journal, LedgerError> {
    let keys = Candidates::new(numbered(present), next.map(numbered));
    Ok(Journal::open(dir, HUB, keys.reading(Some(DATA_KEY)), JournalOptions::default())?.0)
}

fn verified(dir: &Path, n: u8) -> VerifyReport {
    super::super::verify(dir, &public(n), &mut |_| {}).unwrap()
}

fn ledger() -> (TempDir, PathBuf) {
    let dir = tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    (dir, ledger)
}

#[test]
fn a_ledger_verifies_from_its_first_key_and_from_every_later_one() {
    let (_dir, ledger) = ledger();
    let head = written(&ledger, 2).head();
    assert!(
        segments(&ledger).len() > 3,
        "footers are signed by more than one key"
    );
    for n in 0..=2 {
        let report = verified(&ledger, n);
        assert_eq!((report.broken.clone(), report.head), (None, head), "key {n}");
        assert_eq!(report.kinds["hub-key-changed"], 2);
        for sequence in [1, 9, 10, head.sequence] {
            let found = super::super::contains(&ledger, &public(n), sequence, hub_protocol::Digest::ZERO);
            assert!(matches!(found, Ok(ReceiptCheck::Different { .. })), "{sequence}");
        }
    }
    assert!(!verified(&ledger, 3).is_whole(), "a stranger's key");
    let mut out = Vec::new();
    let salvaged = salvage(&ledger, &public(0), Contents::Unread, &mut out).unwrap();
    assert_eq!(
        (salvaged.entries, salvaged.signed),
        (head.sequence, head.sequence)
    );
}

#[test]
fn the_chain_of_keys_is_found_in_the_entries_if_its_file_is_lost() {
    let (_dir, ledger) = ledger();
    drop(written(&ledger, 2));
    let file = ledger.join(SIGNING_KEYS);
    let whole = std::fs::read(&file).unwrap();
    for kept in [None, Some(&b"nothing"[..]), Some(&whole[..whole.len() / 2])] {
        std::fs::remove_file(&file).unwrap();
        if let Some(bytes) = kept {
            std::fs::write(&file, bytes).unwrap();
        }
        assert!(verified(&ledger, 0).is_whole() && verified(&ledger, 2).is_whole());
        drop(reopened(&ledger, 2, None).unwrap());
        assert_eq!(std::fs::read(&file).unwrap(), whole, "written again");
    }
}

#[test]
fn an_old_key_signs_nothing_behind_its_change() {
    let (_dir, ledger) = ledger();
    let mut journal = written(&ledger, 1);
    let before = journal.head();
    append(&mut journal, &[1], 10);
    drop(journal);
    // The last group, signed by the key that gave way.
    let path = segments(&ledger).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let end = super::written(&bytes);
    let commit = |key: &SigningKey| {
        let digest = Entry::digest(&payload(before, 10));
        let (first, last) = (before.sequence + 1, before.sequence + 1);
        let commit = LedgerCommit {
            hub: HUB,
            first,
            last,
            last_digest: digest,
            receipts: None,
        };
        commit.sign(key)
    };
    let (good, forged) = (commit(&numbered(1)), commit(&numbered(0)));
    assert_eq!(good.len(), forged.len());
    let at = (0..end).rev().find(|at| bytes[*at..].starts_with(&good)).unwrap();
    bytes[at..at + good.len()].copy_from_slice(&forged);
    crate::ledger::tests::signing_keys::reseal(&mut bytes, at, good.len(), end);
    std::fs::write(&path, &bytes).unwrap();
    let broken = verified(&ledger, 0).broken.expect("it does not verify");
    let fault = Fault::Signature(hub_protocol::cose::CoseError::UnknownKey);
    assert_eq!((broken.sequence, broken.fault), (before.sequence + 1, fault));
    assert!(matches!(
        reopened(&ledger, 1, None),
        Err(LedgerError::OtherSigningKey { .. })
    ));
}

/// Puts checksums right behind a changed commit: its record's and its mark's.
fn reseal(bytes: &mut [u8], body: usize, len: usize, end: usize) {
    let word = bytes[body - 8..body - 4].to_vec();
    let crc = crc32c::crc32c(&[&word[..], &bytes[body..body + len]].concat());
    bytes[body - 4..body].copy_from_slice(&crc.to_le_bytes());
    let mark = end - super::super::segment::MARK_LEN;
    let field = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (offset, group) = (field(bytes, mark + 8), field(bytes, mark + 12));
    let crc = crc32c::crc32c(&bytes[offset..offset + group]);
    bytes[mark + 20..mark + 24].copy_from_slice(&crc.to_le_bytes());
    let word = bytes[mark..mark + 4].to_vec();
    let crc = crc32c::crc32c(&[&word[..], &bytes[mark + 8..end]].concat());
    bytes[mark + 4..mark + 8].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_cut_between_the_change_and_its_file_leaves_the_new_key_in_force() {
    let (_dir, ledger) = ledger();
    let mut journal = written(&ledger, 1);
    let _ = append_change(&mut journal, 2);
    drop(journal);
    let mut journal = reopened(&ledger, 1, Some(2)).unwrap();
    assert_eq!(journal.keys().signing(), numbered(2));
    append(&mut journal, &[2], 10);
    let head = journal.head();
    drop(journal);
    assert_eq!(verified(&ledger, 0).head, head);
    for (present, next, opens) in [
        (1, None, false),
        (2, None, true),
        (2, Some(3), true),
        (1, Some(2), true),
    ] {
        let opened = reopened(&ledger, present, next);
        assert_eq!(opened.is_ok(), opens, "{present} {next:?}");
        if let Ok(journal) = opened {
            assert_eq!(
                journal.keys().signing(),
                numbered(2),
                "exactly one is the present one"
            );
        }
    }
}

#[test]
fn a_change_that_was_torn_off_leaves_the_old_key_in_force() {
    let (_dir, ledger) = ledger();
    let mut journal = written(&ledger, 1);
    let head = journal.head();
    let _ = append_change(&mut journal, 2);
    drop(journal);
    let path = segments(&ledger).pop().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    for cut in 1..40 {
        // The group without its mark's last bytes.
        let mut torn = bytes.clone();
        let end = super::written(&torn);
        torn[end - cut..].fill(0);
        std::fs::write(&path, &torn).unwrap();
        let journal = reopened(&ledger, 1, Some(2)).unwrap();
        assert_eq!(
            (journal.head(), journal.keys().signing()),
            (head, numbered(1)),
            "{cut}"
        );
    }
}

#[test]
fn a_change_at_another_place_than_it_says_ends_the_writing() {
    let (_dir, ledger) = ledger();
    let mut journal = written(&ledger, 1);
    let early = statement(2, journal.head().sequence);
    journal.append(&[entry(journal.head(), early.clone())]).unwrap();
    assert!(journal.change_key(numbered(2), &early).is_err());
    let next = payloads(journal.head(), 1, 10);
    assert!(matches!(journal.append(&next), Err(LedgerError::Poisoned)));
    drop(journal);
    assert!(!verified(&ledger, 0).is_whole());
}

#[test]
fn archives_of_several_keys_verify_and_open_when_they_are_elsewhere() {
    let dir = tempdir().unwrap();
    let ledger = dir.path().join("ledger");
    let mut journal = written(&ledger, 1);
    let mut index = Index::create(&dir.path().join("index"), &test_seal()).unwrap();
    index.write(Vec::new(), journal.head().into()).unwrap();
    index.look_into(&journal.archives());
    let mut archiver = Archiver::new(journal.reader(), journal.archives(), index.reader(), HUB);
    let mut archive = |number| {
        let next = archiver.next(u64::MAX, &mut |_| Ok(())).unwrap();
        assert!(matches!(next, Next::Written(written) if written.number == number));
    };
    archive(1);
    change(&mut journal, 2);
    append(&mut journal, &[2; 4], 300);
    index.write(Vec::new(), journal.head().into()).unwrap();
    archive(2);
    archive(3);
    archiver.remove_segments(3, &mut |_| Ok(())).unwrap();
    drop((journal, archiver, index));
    let folder = ledger.join("archive");
    let packed = |number: u32| folder.join(format!("{number:08}.seg.gz"));
    for n in 0..=2 {
        let mut before: Option<ArchiveFound> = None;
        for number in 1..=3 {
            let earlier = before.as_ref().map(|found| (&found.manifest, found.digest));
            before = Some(check_archive(&packed(number), &public(n), Contents::Unread, earlier).unwrap());
        }
    }
    let away = dir.path().join("away");
    std::fs::create_dir(&away).unwrap();
    for name in ["seg.gz", "manifest", "ids"] {
        let name = format!("00000001.{name}");
        std::fs::copy(folder.join(&name), away.join(&name)).unwrap();
    }
    copy_signing_keys(&ledger, &away).unwrap();
    check_archive(&away.join("00000001.seg.gz"), &public(2), Contents::Unread, None).unwrap();
    for number in 1..=3 {
        std::fs::remove_file(packed(number)).unwrap();
    }
    let report = verified(&ledger, 0);
    assert_eq!((report.broken, report.away.len()), (None, 3));
    assert_eq!(reopened(&ledger, 2, None).unwrap().keys().signing(), numbered(2));
}
