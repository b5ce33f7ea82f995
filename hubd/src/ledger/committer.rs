//! The thread that makes entries durable.
//!
//! It takes everything that waits, writes the sealed cards, then the entries,
//! and says up to where all is durable: many payments, one flush of each
//! file. The slower the disk, the more wait meanwhile, the larger the groups.
//! Erasing cards waits until the entries are out of the way, but never long.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use hub_protocol::{CommittedGroup, PaymentId, ReceiptGroup, SealedCard, SignedKeyChange};

use super::error::LedgerError;
use super::journal::Journal;
use super::vault::Vault;
use crate::clock;

/// How many commits and erasures may wait for the thread. Above it, whoever
/// hands one over waits.
pub const QUEUE: usize = 4096;
/// The most commits in one group.
const GROUP: usize = 512;
/// The most payload bytes in one group, but always at least one entry.
const GROUP_BYTES: usize = 4 << 20;
/// The most cards that wait to be erased.
const ERASURES: usize = 256;
/// The longest that a card waits to be erased, in milliseconds.
const ERASE_DELAY_MS: u64 = 1000;

/// How often to look whether there is room again.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// An entry to make durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The entry's sequence.
    pub sequence: u64,
    /// The entry's payload, encoded.
    pub payload: Vec<u8>,
    /// The sealed card that must be durable with the entry.
    pub sealed_card: Option<(PaymentId, SealedCard)>,
    /// The receipt that the entry gives rise to, encoded.
    pub receipt: Option<Vec<u8>>,
}

/// What has become durable.
#[derive(Clone, Debug)]
pub struct Durable {
    /// All entries up to this one, and their cards, are on disk.
    pub sequence: u64,
    /// The receipts of the group that has just been flushed, if it has any.
    pub receipts: Option<CommittedGroup>,
}

/// The key that the ledger is signed with behind an entry.
#[derive(Clone, Debug)]
pub struct NextKey {
    /// The entry that says so.
    pub sequence: u64,
    /// The new key.
    pub signing: SigningKey,
    /// What both keys signed.
    pub statement: SignedKeyChange,
}

enum Command {
    Commit(Commit),
    ChangeKey(Box<NextKey>),
    Erase(PaymentId),
    Stop,
}

/// The committing thread has ended; nothing more becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that writes the ledger has ended")]
pub struct CommitterStopped;

/// Hands work to the committing thread.
#[derive(Debug)]
pub struct CommitterHandle {
    sender: SyncSender<Command>,
    thread: JoinHandle<Result<(), CommitterStopped>>,
}

impl CommitterHandle {
    /// Starts the thread.
    ///
    /// `on_durable` is called after each group, in order. `on_failure` is called at most once, when
    /// something could not be written: the process must end, because what is
    /// on disk is not known any more, and nothing that waits will be
    /// acknowledged. Both are called on the thread and must not block long.
    ///
    /// # Errors
    /// The system's refusal to start a thread.
    pub fn start(
        journal: Journal,
        vault: Vault,
        on_durable: impl FnMut(Durable) + Send + 'static,
        on_failure: impl FnOnce(LedgerError) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let mut failure = OnFailure(Some(on_failure));
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(move || {
            let mut committer = Committer {
                journal,
                vault,
                on_durable,
                erasures: BTreeSet::new(),
                oldest_erasure_ms: 0,
                next_key: None,
            };
            match committer.run(&receiver) {
                Ok(()) => {
                    failure.disarm();
                    Ok(())
                }
                Err(error) => {
                    failure.tell(error);
                    Err(CommitterStopped)
                }
            }
        })?;
        Ok(Self { sender, thread })
    }

    /// Hands over an entry. Entries come in order, without gaps. Waits while
    /// the queue is full.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn commit(&self, commit: Commit) -> Result<(), CommitterStopped> {
        self.send(Command::Commit(commit))
    }

    /// From behind an entry on, which is handed over next, the ledger is signed
    /// with another key. The entry ends its group.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn change_key(&self, next: NextKey) -> Result<(), CommitterStopped> {
        self.send(Command::ChangeKey(Box::new(next)))
    }

    /// Has a card destroyed, soon, and after everything handed over before.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn erase(&self, payment_id: PaymentId) -> Result<(), CommitterStopped> {
        self.send(Command::Erase(payment_id))
    }

    fn send(&self, command: Command) -> Result<(), CommitterStopped> {
        self.sender.send(command).map_err(|_| CommitterStopped)
    }

    /// Does everything handed over so far, then ends the thread and waits for
    /// it.
    ///
    /// # Errors
    /// When the thread ended before, or could not write.
    pub fn flush_and_stop(self) -> Result<(), CommitterStopped> {
        self.send(Command::Stop)?;
        self.thread.join().unwrap_or(Err(CommitterStopped))
    }
}

/// Sees to it that a failure is told also when the thread panics.
struct OnFailure<F: FnOnce(LedgerError)>(Option<F>);

impl<F: FnOnce(LedgerError)> OnFailure<F> {
    fn disarm(&mut self) {
        self.0 = None;
    }

    fn tell(&mut self, error: LedgerError) {
        if let Some(tell) = self.0.take() {
            tell(error);
        }
    }
}

impl<F: FnOnce(LedgerError)> Drop for OnFailure<F> {
    fn drop(&mut self) {
        self.tell(LedgerError::WriterGone);
    }
}

/// Tries until there is room. Whoever waits for the entries goes on waiting:
/// they were decided and must not be lost, nothing of them was written, and
/// nobody is answered before they are. An end of the process would only find
/// the same disk again.
fn wait_for_room<T>(mut act: impl FnMut() -> Result<T, LedgerError>) -> Result<T, LedgerError> {
    let mut told = false;
    loop {
        match act() {
            Err(error) if error.is_no_room() => {
                if !std::mem::replace(&mut told, true) {
                    tracing::error!(%error, "the disk and the reserve are full: nothing is answered until there is room");
                }
                std::thread::sleep(ROOM_RETRY);
            }
            result => return result,
        }
    }
}

struct Committer<D> {
    journal: Journal,
    vault: Vault,
    on_durable: D,
    erasures: BTreeSet<PaymentId>,
    /// When the oldest of them was asked for, monotonic milliseconds.
    oldest_erasure_ms: u64,
    /// To be signed with behind an entry that has not come yet.
    next_key: Option<NextKey>,
}

impl<D: FnMut(Durable)> Committer<D> {
    fn run(&mut self, receiver: &Receiver<Command>) -> Result<(), LedgerError> {
        let mut stop = false;
        while !stop {
            let mut group = Vec::new();
            let mut bytes = 0;
            let mut next = match self.wait(receiver) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                // The handle is gone: nothing more can come.
                Err(RecvTimeoutError::Disconnected) => break,
            };
            while let Some(command) = next {
                match command {
                    Command::Commit(commit) => {
                        bytes += commit.payload.len();
                        if let Some((id, _)) = &commit.sealed_card {
                            // What was to be erased is the card that this one
                            // replaces, and replacing erases.
                            self.erasures.remove(id);
                        }
                        group.push(commit);
                    }
                    Command::ChangeKey(next) => self.next_key = Some(*next),
                    Command::Erase(id) => self.note_erasure(id),
                    Command::Stop => {
                        stop = true;
                        break;
                    }
                }
                let full = group.len() >= GROUP || bytes >= GROUP_BYTES || self.erasures.len() >= ERASURES;
                next = if full { None } else { receiver.try_recv().ok() };
            }
            let idle = group.is_empty();
            self.commit_all(group)?;
            if idle || stop || self.erasures_are_due() {
                self.erase()?;
            }
        }
        self.erase()
    }

    fn wait(&self, receiver: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        if self.erasures.is_empty() {
            return receiver.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        let waited = clock::monotonic_ms().saturating_sub(self.oldest_erasure_ms);
        receiver.recv_timeout(Duration::from_millis(ERASE_DELAY_MS.saturating_sub(waited)))
    }

    fn note_erasure(&mut self, id: PaymentId) {
        if self.erasures.is_empty() {
            self.oldest_erasure_ms = clock::monotonic_ms();
        }
        self.erasures.insert(id);
    }

    fn erasures_are_due(&self) -> bool {
        self.erasures.len() >= ERASURES
            || clock::monotonic_ms().saturating_sub(self.oldest_erasure_ms) >= ERASE_DELAY_MS
    }

    fn erase(&mut self) -> Result<(), LedgerError> {
        if !self.erasures.is_empty() {
            let ids: Vec<_> = std::mem::take(&mut self.erasures).into_iter().collect();
            self.vault.erase(&ids)?;
        }
        Ok(())
    }

    /// One group, or two if the key changes in between.
    fn commit_all(&mut self, mut group: Vec<Commit>) -> Result<(), LedgerError> {
        let changes = |next: &NextKey| group.iter().position(|commit| commit.sequence == next.sequence);
        let Some(at) = self.next_key.as_ref().and_then(changes) else {
            return self.commit(group, None);
        };
        let rest = group.split_off(at + 1);
        let next = self.next_key.take();
        self.commit(group, next)?;
        self.commit(rest, None)
    }

    /// Cards first: an entry on disk whose card is not would be a payment
    /// that cannot be sent. A card whose entry is not, is erased at the next
    /// start.
    fn commit(&mut self, group: Vec<Commit>, next_key: Option<NextKey>) -> Result<(), LedgerError> {
        if group.is_empty() {
            return Ok(());
        }
        let mut payloads = Vec::with_capacity(group.len());
        let mut receipts = Vec::with_capacity(group.len());
        let mut cards = Vec::new();
        for (commit, expected) in group.into_iter().zip(self.journal.head().sequence + 1..) {
            if commit.sequence != expected {
                return Err(LedgerError::DoesNotFollow {
                    last: expected - 1,
                    found: commit.sequence,
                });
            }
            payloads.push(commit.payload);
            receipts.extend(commit.receipt.map(|receipt| (commit.sequence, receipt)));
            cards.extend(commit.sealed_card);
        }
        if !cards.is_empty() {
            // The core gives a payment's card once, and what a crash left of
            // one is erased when the vault is opened.
            let mut again = false;
            wait_for_room(|| match core::mem::replace(&mut again, true) {
                false => self.vault.put_first(&cards),
                true => self.vault.put(&cards),
            })?;
        }
        let receipts = ReceiptGroup::new(receipts);
        let root = receipts.as_ref().map(ReceiptGroup::root);
        let (head, signed) = wait_for_room(|| self.journal.append_with_receipts(&payloads, root))?;
        if let Some(next) = next_key {
            // Before anybody hears of the entry: whoever signs something about
            // what comes after it has the new key by then.
            self.journal.change_key(next.signing, &next.statement)?;
        }
        // Rule 1: receipts can be taken from a group only here, behind the
        // flush.
        (self.on_durable)(Durable {
            sequence: head.sequence,
            receipts: receipts
                .zip(signed)
                .map(|(group, signed)| group.committed(signed)),
        });
        Ok(())
    }
}
