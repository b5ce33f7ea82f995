use hub_protocol::{PaymentId, SealedCard};
use tempfile::tempdir;

use super::*;

const KEY: [u8; 32] = [0x42; 32];
const FILE: usize = 16384;

fn id(n: u16) -> PaymentId {
    let mut id = [0x30; 16];
    id[14..].copy_from_slice(&n.to_be_bytes());
    PaymentId(id)
}

fn card(n: u16, len: usize) -> SealedCard {
    let mut blob = format!("the sealed card of payment {n:05}, never to be seen in clear ").into_bytes();
    blob.resize(len, b'.');
    SealedCard {
        salt: [n as u8; 16],
        blob,
    }
}

fn cards(numbers: std::ops::Range<u16>) -> Vec<(PaymentId, SealedCard)> {
    numbers.map(|n| (id(n), card(n, 300))).collect()
}

fn open(dir: &Path) -> (Vault, VaultReport) {
    Vault::open(dir, &KEY, FILE).unwrap()
}

/// All bytes of all files, one after another.
fn raw(dir: &Path) -> Vec<u8> {
    contents(dir).into_iter().flat_map(|(_, bytes)| bytes).collect()
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// The ciphertexts in a folder, by what is on the disk.
fn ciphertexts(dir: &Path) -> Vec<Vec<u8>> {
    contents(dir)
        .into_iter()
        .flat_map(|(path, bytes)| {
            let number = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
            let (found, _) = vault_file::walk(&bytes, number);
            found.into_iter().map(move |f| bytes[f.body].to_vec())
        })
        .collect()
}

#[test]
fn a_card_comes_back_until_it_is_erased_and_survives_reopening() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..5)).unwrap();
    let reader = vault.reader();
    assert_eq!(reader.get(id(3)).unwrap(), Some(card(3, 300)));
    assert_eq!(vault.erase(&[id(3), id(9)]).unwrap(), 1);
    assert_eq!(reader.get(id(3)).unwrap(), None);
    drop((vault, reader));

    let (vault, report) = open(dir.path());
    assert_eq!((report.files, report.cards, report.damaged), (1, 4, 0));
    let reader = vault.reader();
    for n in [0, 1, 2, 4] {
        assert_eq!(reader.get(id(n)).unwrap(), Some(card(n, 300)));
    }
    assert_eq!(reader.get(id(3)).unwrap(), None);
    let mut ids = reader.ids();
    ids.sort();
    assert_eq!(ids, [id(0), id(1), id(2), id(4)]);
}

#[test]
fn after_a_crash_the_newer_holds_also_when_the_older_lies_in_a_full_file() {
    let dir = tempdir().unwrap();
    let first = dir.path().join("00000001.vlt");
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..60)).unwrap();
    assert_eq!(contents(dir.path()).len(), 2, "the first file is full");
    let old = std::fs::read(&first).unwrap();
    vault.put(&[(id(3), card(200, 250))]).unwrap();
    drop(vault);
    std::fs::write(&first, &old).unwrap();

    let (vault, report) = open(dir.path());
    assert_eq!(report.cards, 60);
    let reader = vault.reader();
    assert_eq!(reader.get(id(3)).unwrap(), Some(card(200, 250)));
    assert_eq!(reader.get(id(4)).unwrap(), Some(card(4, 300)));
    assert_eq!(ciphertexts(dir.path()).len(), 60, "the older is erased");
}

#[test]
fn rule_2_a_first_card_is_found_and_gives_way_like_any_other() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put_first(&cards(0..60)).unwrap();
    assert_eq!(contents(dir.path()).len(), 2, "the first file is full");
    // What had no room at first is put again, in another file perhaps.
    vault.put(&cards(0..60)).unwrap();
    let reader = vault.reader();
    for (id, card) in cards(0..60) {
        assert_eq!(reader.get(id).unwrap(), Some(card));
    }
    assert_eq!(ciphertexts(dir.path()).len(), 60, "each once");
    let ids: Vec<_> = cards(0..60).into_iter().map(|(id, _)| id).collect();
    assert_eq!(vault.erase(&ids).unwrap(), 60);
    assert!(ciphertexts(dir.path()).is_empty(), "none is left anywhere");
}

#[test]
fn a_batch_is_one_write_and_one_flush() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..1)).unwrap();
    let before = vault.counts();
    vault.put(&cards(1..30)).unwrap();
    let after = vault.counts();
    assert_eq!(
        (after.writes - before.writes, after.flushes - before.flushes),
        (1, 1)
    );
}

#[test]
fn no_clear_byte_reaches_the_disk_and_no_ciphertext_survives_erasing() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..20)).unwrap();
    assert!(!holds(&raw(dir.path()), b"never to be seen"));
    let before = ciphertexts(dir.path());
    assert_eq!(before.len(), 20);
    assert!(
        before.iter().all(|c| holds(&raw(dir.path()), c)),
        "the search itself works"
    );

    let erased: Vec<_> = (0..20).filter(|n| n % 3 != 0).map(id).collect();
    vault.erase(&erased).unwrap();
    let after = raw(dir.path());
    for (n, cipher) in (0..).zip(&before) {
        let pieces = cipher.chunks(16).filter(|piece| piece.len() == 16);
        let left = pieces.filter(|piece| holds(&after, piece)).count();
        assert_eq!(left > 0, n % 3 == 0, "card {n}");
    }
    assert!(erased.iter().all(|id| !holds(&after, &id.0)));
}

#[test]
fn a_payment_put_twice_keeps_the_newest_and_erases_the_older() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&[(id(1), card(1, 200))]).unwrap();
    let older = ciphertexts(dir.path()).remove(0);
    vault
        .put(&[(id(1), card(2, 250)), (id(1), card(3, 260))])
        .unwrap();
    assert_eq!(vault.reader().get(id(1)).unwrap(), Some(card(3, 260)));
    assert!(!holds(&raw(dir.path()), &older[..]));
    assert_eq!(ciphertexts(dir.path()).len(), 1);
    drop(vault);
    let (vault, report) = open(dir.path());
    assert_eq!(report.cards, 1);
    assert_eq!(vault.reader().get(id(1)).unwrap(), Some(card(3, 260)));
}

#[test]
fn after_a_crash_between_the_newer_and_the_erasing_of_the_older_the_newer_holds() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("00000001.vlt");
    let (mut vault, _) = open(dir.path());
    vault.put(&[(id(1), card(1, 200))]).unwrap();
    let old = std::fs::read(&path).unwrap();
    let end = written(&old);
    vault.put(&[(id(1), card(2, 250))]).unwrap();
    drop(vault);
    let mut both = std::fs::read(&path).unwrap();
    both[..end].copy_from_slice(&old[..end]);
    std::fs::write(&path, &both).unwrap();
    let (vault, _) = open(dir.path());
    assert_eq!(vault.reader().get(id(1)).unwrap(), Some(card(2, 250)));
    assert_eq!(ciphertexts(dir.path()).len(), 1);
    drop(vault);

    // The newer was torn: the older holds.
    let last = written(&both) - 30;
    both[last..].fill(0);
    std::fs::write(&path, &both).unwrap();
    let (vault, _) = open(dir.path());
    assert_eq!(vault.reader().get(id(1)).unwrap(), Some(card(1, 200)));
}

#[test]
fn full_files_whose_cards_are_all_erased_are_deleted() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    for n in 0..10 {
        vault.put(&cards(n * 20..n * 20 + 20)).unwrap();
    }
    let files = contents(dir.path()).len();
    assert!(files > 3, "{files}");
    let all: Vec<_> = (0..199).map(id).collect();
    vault.erase(&all).unwrap();
    assert_eq!(contents(dir.path()).len(), 1);
    assert_eq!(vault.reader().get(id(199)).unwrap(), Some(card(199, 300)));
    drop(vault);
    let (mut vault, report) = open(dir.path());
    assert_eq!((report.files, report.cards), (1, 1));
    vault.put(&cards(300..400)).unwrap();
    assert_eq!(vault.reader().get(id(350)).unwrap(), Some(card(350, 300)));
}

#[test]
fn a_torn_write_at_any_byte_costs_no_earlier_card_and_can_be_erased() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("00000001.vlt");
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..2)).unwrap();
    // Where the record begins: a tag before it may end in zeros, and a piece
    // from there on would be the same for the next card at this place.
    let start = vault_file::walk(&std::fs::read(&path).unwrap(), 1).1;
    vault.put(&cards(2..4)).unwrap();
    drop(vault);
    let whole = std::fs::read(&path).unwrap();
    let end = written(&whole);
    for cut in start..end {
        let mut bytes = whole.clone();
        if cut % 2 == 0 {
            bytes[cut..].fill(0);
        } else {
            bytes[start..cut].fill(0);
        }
        std::fs::write(&path, &bytes).unwrap();
        let (mut vault, _) = open(dir.path());
        let reader = vault.reader();
        for n in 0..2 {
            assert_eq!(reader.get(id(n)).unwrap(), Some(card(n, 300)), "cut {cut}");
        }
        let orphans: Vec<_> = reader
            .ids()
            .into_iter()
            .filter(|i| ![id(0), id(1)].contains(i))
            .collect();
        vault.erase(&orphans).unwrap();
        vault.put(&cards(10..12)).unwrap();
        assert_eq!(reader.get(id(10)).unwrap(), Some(card(10, 300)), "cut {cut}");
        drop(vault);
        let (vault, report) = open(dir.path());
        assert_eq!(report.cards, 4, "cut {cut}");
        let left = raw(dir.path());
        assert!(
            !whole[start..end]
                .chunks(24)
                .any(|piece| piece.len() == 24 && holds(&left, piece)),
            "cut {cut}"
        );
        assert_eq!(vault.reader().get(id(11)).unwrap(), Some(card(11, 300)));
    }
}

#[test]
fn a_damaged_byte_costs_at_most_one_card_and_never_gives_a_wrong_one() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("00000001.vlt");
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..4)).unwrap();
    drop(vault);
    let whole = std::fs::read(&path).unwrap();
    let end = written(&whole);
    for at in vault_file::HEADER_LEN..end {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        std::fs::write(&path, &bytes).unwrap();
        let (vault, _) = open(dir.path());
        let reader = vault.reader();
        let lost = (0..4)
            .filter(|n| match reader.get(id(*n)) {
                Ok(Some(found)) => {
                    assert_eq!(found, card(*n, 300));
                    false
                }
                Ok(None) | Err(LedgerError::CardUnreadable { .. }) => true,
                Err(error) => panic!("{error}"),
            })
            .count();
        assert!(lost <= 1, "byte {at} cost {lost} cards");
    }
}

#[test]
fn another_key_a_newer_format_and_a_second_vault_are_refused() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..1)).unwrap();
    assert!(matches!(
        Vault::open(dir.path(), &KEY, FILE),
        Err(LedgerError::Locked { .. })
    ));
    drop(vault);
    let before = contents(dir.path());
    let other = Vault::open(dir.path(), &[1; 32], FILE);
    assert!(matches!(other, Err(LedgerError::OtherVaultKey { .. })));
    assert_eq!(contents(dir.path()), before);
    let path = dir.path().join("00000001.vlt");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    std::fs::write(&path, bytes).unwrap();
    let newer = Vault::open(dir.path(), &KEY, FILE);
    assert!(matches!(newer, Err(LedgerError::NewerFormat { found: 9, .. })));
}

#[test]
fn after_a_failure_the_vault_takes_nothing_more() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..1)).unwrap();
    vault.disk().fail_from_now(2);
    assert!(matches!(vault.put(&cards(1..2)), Err(LedgerError::Io { .. })));
    vault.disk().fail_from_now(0);
    assert!(matches!(vault.put(&cards(1..2)), Err(LedgerError::Poisoned)));
    assert!(matches!(vault.erase(&[id(0)]), Err(LedgerError::Poisoned)));
    assert_eq!(
        vault.reader().get(id(1)).unwrap(),
        None,
        "what was not flushed is not there"
    );
}

#[test]
fn one_card_that_waits_for_weeks_does_not_keep_a_file_and_is_moved_not_copied() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..200)).unwrap();
    let files = contents(dir.path()).len();
    assert!(files >= 4);
    // The first card waits; everything after it is settled, file by file.
    let settled: Vec<_> = (1..190).map(id).collect();
    for ids in settled.chunks(7) {
        assert_eq!(vault.erase(ids).unwrap(), ids.len());
        assert_eq!(vault.reader().get(id(0)).unwrap(), Some(card(0, 300)));
    }
    assert!(contents(dir.path()).len() <= 2, "{files} files before");
    assert_eq!(ciphertexts(dir.path()).len(), 11, "none twice");
    drop(vault);
    let (vault, report) = open(dir.path());
    assert_eq!((report.cards, report.damaged), (11, 0));
    let reader = vault.reader();
    for n in std::iter::once(0).chain(190..200) {
        assert_eq!(reader.get(id(n)).unwrap(), Some(card(n, 300)));
    }
}

#[test]
fn cards_under_the_vault_key_itself_are_moved_under_the_derived_one_at_the_next_opening() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    vault.put(&cards(0..40)).unwrap();
    vault.erase(&[id(7)]).unwrap();
    drop(vault);
    let before = ciphertexts(dir.path());
    let new = [0x77; 32];
    // Without the older key nothing is touched.
    assert!(Vault::open(dir.path(), &new, FILE).is_err());
    assert_eq!(ciphertexts(dir.path()), before);
    let (vault, report) = Vault::open_older(dir.path(), &new, &[&KEY], FILE).unwrap();
    assert_eq!((report.cards, vault.reader().holds_older()), (39, false));
    drop(vault);
    // From here on the older key is not needed any more, and opens nothing.
    assert!(Vault::open(dir.path(), &KEY, FILE).is_err());
    let (vault, _) = Vault::open(dir.path(), &new, FILE).unwrap();
    for n in 0..40 {
        let right = (n != 7).then(|| card(n, 300));
        assert_eq!(vault.reader().get(id(n)).unwrap(), right);
    }
    let all = raw(dir.path());
    assert!(before.iter().all(|cipher| !holds(&all, cipher)));
}

#[test]
fn rule_2_a_damaged_card_of_an_earlier_version_holds_up_no_other_card_and_no_change_of_the_vault_key() {
    let dir = tempdir().unwrap();
    let (mut vault, _) = open(dir.path());
    // Several files, the last of them not full.
    vault.put(&cards(0..120)).unwrap();
    drop(vault);
    // A bit of a ciphertext; a record's header and its tag.
    let path = dir.path().join("00000001.vlt");
    let mut bytes = std::fs::read(&path).unwrap();
    let (found, _) = vault_file::walk(&bytes, 1);
    let body = |n: usize| {
        found
            .iter()
            .find(|body| body.id == id(n as u16))
            .unwrap()
            .body
            .clone()
    };
    bytes[body(3).end - 20] ^= 1;
    bytes[body(5).start - 5] ^= 1;
    bytes[body(5).end - 1] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let new = [0x77; 32];
    let (mut vault, report) = Vault::open_older(dir.path(), &new, &[&KEY], FILE).unwrap();
    assert_eq!((report.cards, report.unreadable), (120, 2));
    assert!(!vault.reader().holds_older(), "nothing is under the older key");
    let told = |vault: &Vault| {
        for n in 0..120 {
            let held = vault.reader().get(id(n));
            match n {
                3 | 5 => assert!(
                    matches!(held, Err(LedgerError::CardUnreadable { .. })),
                    "{n}: {held:?}"
                ),
                _ => assert_eq!(held.unwrap(), Some(card(n, 300)), "{n}"),
            }
        }
    };
    told(&vault);
    drop(vault);
    // The older key is not needed any more, and what is damaged is moved once.
    let (reopened, report) = Vault::open(dir.path(), &new, FILE).unwrap();
    assert_eq!((report.cards, report.unreadable), (120, 0));
    told(&reopened);
    vault = reopened;
    // At its payment's end it goes like any other.
    assert_eq!(vault.erase(&[id(3), id(5)]).unwrap(), 2);
    assert_eq!(vault.reader().get(id(3)).unwrap(), None);
}

#[test]
fn a_damaged_card_of_an_earlier_version_never_replaces_a_whole_one_of_the_same_payment() {
    let (older, newer) = (tempdir().unwrap(), tempdir().unwrap());
    let new = [0x77; 32];
    let (mut vault, _) = open(older.path());
    vault.put(&cards(0..10)).unwrap();
    drop(vault);
    // A whole card in the second of so many files that opening does not look
    // for others of its payment.
    let (mut vault, _) = Vault::open(newer.path(), &new, FILE).unwrap();
    vault.put(&cards(100..145)).unwrap();
    vault.put(&cards(3..4)).unwrap();
    vault.put(&cards(200..3200)).unwrap();
    drop(vault);
    let path = older.path().join("00000001.vlt");
    let mut bytes = std::fs::read(&path).unwrap();
    let (found, _) = vault_file::walk(&bytes, 1);
    let body = found.iter().find(|body| body.id == id(3)).unwrap().body.clone();
    bytes[body.end - 1] ^= 1;
    std::fs::write(newer.path().join("00000001.vlt"), bytes).unwrap();
    let (vault, report) = Vault::open_older(newer.path(), &new, &[&KEY], FILE).unwrap();
    assert_eq!((report.unreadable, vault.reader().holds_older()), (1, false));
    for n in (0..10).chain(200..210) {
        assert_eq!(vault.reader().get(id(n)).unwrap(), Some(card(n, 300)), "{n}");
    }
}

#[test]
fn rule_6_a_record_that_is_too_short_for_a_card_is_erased_with_the_others() {
    let dir = tempdir().unwrap();
    let header = vault_file::header(vault_file::key_check(&KEY));
    let mut bytes = header.to_vec();
    for (len, byte) in [(4_u16, 9), (60, 7)] {
        let head = vault_file::record_head(1, bytes.len() as u32, len);
        bytes.extend_from_slice(&head);
        bytes.resize(bytes.len() + usize::from(len), byte);
    }
    bytes.resize(FILE, 0);
    std::fs::write(dir.path().join("00000001.vlt"), bytes).unwrap();
    let mut next = header.to_vec();
    next.resize(FILE, 0);
    std::fs::write(dir.path().join("00000002.vlt"), next).unwrap();
    let (mut vault, report) = open(dir.path());
    assert_eq!(report.cards, 2);
    let ids = vault.reader().newest(usize::MAX).unwrap();
    assert_eq!(vault.erase(&ids).unwrap(), 2);
    drop(vault);
    assert_eq!(open(dir.path()).1.cards, 0);
}
