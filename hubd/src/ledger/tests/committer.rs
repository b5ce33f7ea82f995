use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use hub_protocol::{
    CommittedReceipt, Currency, Decision, DeviceId, Digest, LedgerCommit, PaymentId, Reason, Receipt,
    SealedCard, cbor,
};
use tempfile::{TempDir, tempdir};

use super::*;

struct Running {
    dir: TempDir,
    handle: CommitterHandle,
    durable: Receiver<Durable>,
    failed: Receiver<LedgerError>,
    reader: JournalReader,
    vault: VaultReader,
    disk: disk::Disk,
    vault_disk: disk::Disk,
}

fn start() -> Running {
    let dir = tempdir().unwrap();
    let (journal, _) = open_with(&dir.path().join("ledger"), 1 << 20).unwrap();
    let (vault, _) = Vault::open(&dir.path().join("vault"), &[4; 32], 1 << 20).unwrap();
    let (durable_in, durable) = channel();
    let (failed_in, failed) = channel();
    let (reader, vault_reader) = (journal.reader(), vault.reader());
    let (disk, vault_disk) = (journal.disk(), vault.disk());
    let handle = CommitterHandle::start(
        journal,
        vault,
        move |durable| durable_in.send(durable).unwrap_or_default(),
        move |error| failed_in.send(error).unwrap_or_default(),
    )
    .unwrap();
    Running {
        dir,
        handle,
        durable,
        failed,
        reader,
        vault: vault_reader,
        disk,
        vault_disk,
    }
}

impl Running {
    fn next_durable(&self) -> Durable {
        self.durable.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    fn wait_for(&self, sequence: u64) {
        while self.next_durable().sequence < sequence {}
    }
}

fn commits(n: usize) -> Vec<Commit> {
    payloads(Head::EMPTY, n, 100)
        .into_iter()
        .zip(1..)
        .map(|(payload, sequence)| Commit {
            sequence,
            payload,
            sealed_card: None,
            receipt: None,
        })
        .collect()
}

fn id(n: u8) -> PaymentId {
    PaymentId([n; 16])
}

fn card(n: u8) -> SealedCard {
    SealedCard {
        salt: [n; 16],
        blob: vec![n; 200],
    }
}

#[test]
fn what_waits_together_is_flushed_together() {
    let running = start();
    let mut all = commits(401).into_iter();
    running.handle.commit(all.next().unwrap()).unwrap();
    running.wait_for(1);
    let before = running.disk.counts().flushes;
    for commit in all {
        running.handle.commit(commit).unwrap();
    }
    running.wait_for(401);
    let flushes = running.disk.counts().flushes - before;
    assert!((1..400).contains(&flushes), "{flushes} flushes for 400 commits");
    running.handle.flush_and_stop().unwrap();
    assert_eq!(running.reader.head().sequence, 401);
    assert!(running.failed.try_recv().is_err());
}

#[test]
fn nothing_is_called_durable_before_it_can_be_read_back() {
    let running = start();
    for commit in commits(50) {
        running.handle.commit(commit).unwrap();
    }
    let mut seen = 0;
    while seen < 50 {
        let sequence = running.next_durable().sequence;
        assert!(sequence > seen, "durable only grows");
        seen = sequence;
        running.reader.read(sequence).unwrap();
    }
}

/// The receipt for a commit, as the core makes it.
fn receipt(commit: &Commit) -> Receipt {
    Receipt {
        hub: HUB,
        device: DeviceId([1; 32]),
        payment_id: PaymentId([2; 16]),
        request_digest: Digest([3; 32]),
        amount_minor: 1250,
        currency: Currency::EUR,
        decision: Decision::ApprovedOffline,
        reason: Reason::None,
        fallback: None,
        submission: None,
        gateway: None,
        sequence: commit.sequence,
        entry_digest: Entry::digest(&commit.payload),
        time: EntryTime {
            wall_ms: 1,
            monotonic_ms: 1,
            boot: [3; 16],
            quality: ClockQuality::Synchronised,
        },
        policy_version: 1,
        transaction_type: None,
        score: None,
    }
}

#[test]
fn every_receipt_of_a_flushed_group_is_proved_by_the_groups_one_signature() {
    let running = start();
    let mut all = commits(60);
    let mut expected = std::collections::BTreeMap::new();
    // Not every entry decides a payment.
    for commit in all.iter_mut().filter(|commit| commit.sequence % 3 > 0) {
        let receipt = receipt(commit);
        commit.receipt = Some(cbor::encode(&receipt));
        expected.insert(commit.sequence, receipt);
    }
    for commit in all {
        running.handle.commit(commit).unwrap();
    }
    let public = key().verifying_key();
    let mut proved = std::collections::BTreeMap::new();
    let mut last = 0;
    while last < 60 {
        let durable = running.next_durable();
        for sequence in last + 1..=durable.sequence {
            let found = durable
                .receipts
                .as_ref()
                .and_then(|group| group.receipt(sequence));
            if let Some(found) = found {
                let receipt = CommittedReceipt::open(&cbor::encode(&found), &public).unwrap();
                let commit = LedgerCommit::open(&found.commit, &public).unwrap();
                assert_eq!((commit.first, commit.last), (last + 1, durable.sequence));
                proved.insert(sequence, receipt);
            }
        }
        last = durable.sequence;
    }
    assert_eq!(proved, expected);
}

#[test]
fn rule_1_no_receipt_can_be_taken_from_a_group_whose_flush_failed() {
    let running = start();
    running.disk.fail_from_now(2);
    let mut commit = commits(1).remove(0);
    commit.receipt = Some(cbor::encode(&receipt(&commit)));
    running.handle.commit(commit).unwrap();
    running.failed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(running.durable.recv().is_err(), "nothing was ever called durable");
}

#[test]
fn a_card_is_durable_before_its_entry_and_gone_after_erasing() {
    let running = start();
    for (mut commit, n) in commits(20).into_iter().zip(1..) {
        commit.sealed_card = Some((id(n), card(n)));
        running.handle.commit(commit).unwrap();
    }
    running.wait_for(20);
    assert_eq!(running.vault.get(id(20)).unwrap(), Some(card(20)));
    for n in 1..20 {
        running.handle.erase(id(n)).unwrap();
    }
    running.handle.flush_and_stop().unwrap();
    assert_eq!(running.vault.ids(), [id(20)]);

    drop(running.vault);
    let (vault, report) = Vault::open(&running.dir.path().join("vault"), &[4; 32], 1 << 20).unwrap();
    assert_eq!(report.cards, 1);
    assert_eq!(vault.reader().get(id(20)).unwrap(), Some(card(20)));
}

#[test]
fn erasures_and_cards_keep_their_order_also_within_one_group() {
    let running = start();
    let mut all = commits(40).into_iter();
    for n in 1..=20 {
        let mut stored = all.next().unwrap();
        stored.sealed_card = Some((id(n), card(n)));
        running.handle.commit(stored).unwrap();
        running.handle.erase(id(n)).unwrap();
        if n % 2 == 0 {
            let mut again = all.next().unwrap();
            again.sealed_card = Some((id(n), card(n + 100)));
            running.handle.commit(again).unwrap();
        }
    }
    running.handle.flush_and_stop().unwrap();
    let mut left = running.vault.ids();
    left.sort();
    assert_eq!(left, (1..=10).map(|n| id(2 * n)).collect::<Vec<_>>());
    assert!(
        left.iter()
            .all(|i| running.vault.get(*i).unwrap() == Some(card(i.0[0] + 100)))
    );
}

#[test]
fn an_entry_whose_card_cannot_be_stored_is_not_stored_either() {
    let running = start();
    running.vault_disk.fail_from_now(2);
    let mut commit = commits(1).remove(0);
    commit.sealed_card = Some((id(1), card(1)));
    running.handle.commit(commit).unwrap();
    running.failed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(running.reader.head(), Head::EMPTY);
    assert!(running.handle.flush_and_stop().is_err());
}

#[test]
fn a_failed_flush_is_told_once_and_nothing_more_becomes_durable() {
    let running = start();
    let mut all = commits(3).into_iter();
    running.handle.commit(all.next().unwrap()).unwrap();
    running.wait_for(1);
    running.disk.fail_from_now(2);
    running.handle.commit(all.next().unwrap()).unwrap();
    let error = running.failed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(error, LedgerError::Io { .. }), "{error}");
    while running
        .handle
        .commit(all.next().unwrap_or_else(|| commits(1).remove(0)))
        .is_ok()
    {}
    assert!(
        running.durable.recv().is_err(),
        "the thread has ended without another word"
    );
    assert!(running.failed.recv().is_err());
    assert_eq!(running.reader.head().sequence, 1);
}

#[test]
fn a_gap_or_a_broken_chain_ends_the_thread_with_nothing_written() {
    for broken_chain in [false, true] {
        let running = start();
        let mut commit = commits(2).remove(1);
        if broken_chain {
            commit.sequence = 1;
        }
        running.handle.commit(commit).unwrap();
        let error = running.failed.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(
            matches!(error, LedgerError::DoesNotFollow { last: 0, .. }),
            "{error}"
        );
        assert_eq!(running.reader.head(), Head::EMPTY);
    }
}

#[test]
fn dropping_the_handle_ends_the_thread_and_frees_the_folders() {
    let running = start();
    for commit in commits(5) {
        running.handle.commit(commit).unwrap();
    }
    running.handle.erase(id(1)).unwrap();
    drop(running.handle);
    while running.durable.recv().is_ok() {}
    assert!(running.failed.recv().is_err(), "that is no failure");
    assert_eq!(running.reader.head().sequence, 5);
}

#[test]
fn a_panic_on_the_thread_is_told_as_a_failure() {
    let dir = tempdir().unwrap();
    let (journal, _) = open_with(&dir.path().join("ledger"), 1 << 20).unwrap();
    let (vault, _) = Vault::open(&dir.path().join("vault"), &[4; 32], 1 << 20).unwrap();
    let (failed_in, failed) = channel();
    let handle = CommitterHandle::start(
        journal,
        vault,
        |_| panic!("a fault of the program, made for this test"),
        move |error| failed_in.send(error).unwrap_or_default(),
    )
    .unwrap();
    handle.commit(commits(1).remove(0)).unwrap();
    let error = failed.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(matches!(error, LedgerError::WriterGone), "{error}");
    assert!(handle.flush_and_stop().is_err());
}
