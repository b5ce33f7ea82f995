//! The thread that keeps the index up with the journal.
//!
//! Behind is allowed: what the index lacks is folded in again on opening. So
//! batches that wait are merged, the newest record of a key wins, and one
//! write takes them all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::index::{Batch, Health, Index};
use super::index_stamp::{Damage, Stamp};
use crate::clock;

/// How many batches may wait for the thread.
const QUEUE: usize = 1024;
/// The most records merged into one write.
const MERGED: usize = 4096;

/// When the index is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// At the latest this long after a write, in milliseconds.
    pub every_ms: u64,
    /// And after this many batches.
    pub every_batches: u64,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        Self {
            // What is not durable is folded again from the journal: that is
            // what opening takes longer. The index makes itself durable when
            // it has gathered much.
            every_ms: 600_000,
            every_batches: 100_000,
        }
    }
}

enum Command {
    Write(Batch, Stamp),
    Forget(Forget),
    Stop,
}

/// Which records, by key and value, the index is to keep.
pub type Keep = Box<dyn Fn(&[u8], &[u8]) -> bool + Send>;

/// Which records the index is to forget, and where what is left goes too.
struct Forget {
    keep: Keep,
    path: PathBuf,
    number: u32,
    done: SyncSender<Result<Stamp, Damage>>,
}

/// Asks the index thread for work that is not a write, from any thread.
#[derive(Clone, Debug)]
pub struct IndexKeeper(SyncSender<Command>);

impl IndexKeeper {
    /// Has the index forget the records that `keep` does not want, and write
    /// everything else into a table at `path` with this number. Waits for it,
    /// and gives the stamp as of which the table holds.
    ///
    /// # Errors
    /// The table cannot be written, and the thread goes on; or the index
    /// cannot be, and the thread ends, or had ended before.
    pub fn forget(&self, keep: Keep, path: PathBuf, number: u32) -> Result<Stamp, NotForgotten> {
        let (done, stamp) = sync_channel(1);
        let forget = Forget {
            keep,
            path,
            number,
            done,
        };
        self.0
            .send(Command::Forget(forget))
            .map_err(|_| IndexWriterStopped)?;
        Ok(stamp.recv().map_err(|_| IndexWriterStopped)??)
    }
}

/// Why the index did not write what is left of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotForgotten {
    /// The thread has ended.
    #[error(transparent)]
    Stopped(#[from] IndexWriterStopped),
    /// Something cannot be written.
    #[error(transparent)]
    Failed(#[from] Damage),
}

/// The index thread has ended; the index falls behind until the next start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread that writes the index has ended")]
pub struct IndexWriterStopped;

/// Why a batch was not taken at once; it is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// The queue is full.
    Full(Batch, Stamp),
    /// The thread has ended.
    Stopped,
}

/// Hands work to the index thread.
#[derive(Debug)]
pub struct IndexWriterHandle {
    sender: SyncSender<Command>,
    thread: JoinHandle<Result<(), Damage>>,
}

impl IndexWriterHandle {
    /// Starts the thread. `on_health` is called after each checkpoint.
    /// `on_failure` is called at most once, when the index can be written no
    /// more; no money depends on it, but the next start rebuilds it.
    ///
    /// # Errors
    /// The system's refusal to start a thread.
    pub fn start(
        index: Index,
        settings: CheckpointSettings,
        on_health: impl FnMut(Health) + Send + 'static,
        on_failure: impl FnOnce(Damage) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new().name("index".into()).spawn(move || {
            let mut writer = Writer {
                index,
                settings,
                on_health,
                undurable: 0,
                since_ms: 0,
            };
            let result = writer.run(&receiver);
            if let Err(damage) = &result {
                on_failure(damage.clone());
            }
            result
        })?;
        Ok(Self { sender, thread })
    }

    /// Hands over records and the stamp up to which the index holds with
    /// them, which must be durable in the journal already. Waits while the
    /// queue is full.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn submit(&self, records: Batch, stamp: Stamp) -> Result<(), IndexWriterStopped> {
        self.sender
            .send(Command::Write(records, stamp))
            .map_err(|_| IndexWriterStopped)
    }

    /// For work that is not a write.
    pub fn keeper(&self) -> IndexKeeper {
        IndexKeeper(self.sender.clone())
    }

    /// As [`submit`](Self::submit), but gives the batch back when the queue
    /// is full, for whoever must not wait: add to it and try again later.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn try_submit(&self, records: Batch, stamp: Stamp) -> Result<(), NotTaken> {
        match self.sender.try_send(Command::Write(records, stamp)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Command::Write(records, stamp))) => Err(NotTaken::Full(records, stamp)),
            Err(_) => Err(NotTaken::Stopped),
        }
    }

    /// Writes everything handed over so far, makes it durable, ends the
    /// thread and waits for it.
    ///
    /// # Errors
    /// The damage that ended the thread.
    pub fn flush_and_stop(self) -> Result<(), Damage> {
        // A thread that has ended says why when joined.
        let _ = self.sender.send(Command::Stop);
        self.thread
            .join()
            .unwrap_or_else(|_| Err(Damage::Panicked("the index thread".into())))
    }
}

struct Writer<H> {
    index: Index,
    settings: CheckpointSettings,
    on_health: H,
    /// Batches written since the last checkpoint.
    undurable: u64,
    /// When the first of them was, monotonic milliseconds.
    since_ms: u64,
}

impl<H: FnMut(Health)> Writer<H> {
    fn run(&mut self, receiver: &Receiver<Command>) -> Result<(), Damage> {
        loop {
            let mut next = match self.wait(receiver) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.checkpoint(),
            };
            let mut merged = BTreeMap::new();
            let mut newest = None;
            let mut batches = 0;
            let mut stop = false;
            let mut forget = None;
            while let Some(command) = next.take() {
                match command {
                    Command::Write(records, stamp) => {
                        merged.extend(records);
                        newest = Some(stamp);
                        batches += 1;
                    }
                    Command::Forget(what) => {
                        forget = Some(what);
                        break;
                    }
                    Command::Stop => {
                        stop = true;
                        break;
                    }
                }
                if merged.len() < MERGED {
                    next = receiver.try_recv().ok();
                }
            }
            if let Some(stamp) = newest {
                self.index.write(merged.into_iter().collect(), stamp)?;
                if self.undurable == 0 {
                    self.since_ms = clock::monotonic_ms();
                }
                self.undurable += batches;
            }
            if stop {
                return self.checkpoint();
            }
            if let Some(what) = forget {
                self.forget(what)?;
            }
            if self.undurable >= self.settings.every_batches || (self.undurable > 0 && self.left_ms() == 0) {
                self.checkpoint()?;
            }
        }
    }

    fn wait(&self, receiver: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        if self.undurable == 0 {
            return receiver.recv().map_err(|_| RecvTimeoutError::Disconnected);
        }
        receiver.recv_timeout(Duration::from_millis(self.left_ms()))
    }

    fn left_ms(&self) -> u64 {
        let waited = clock::monotonic_ms().saturating_sub(self.since_ms);
        self.settings.every_ms.saturating_sub(waited)
    }

    /// What cannot be written outside of the index is no reason to end: only
    /// whoever asked is told.
    fn forget(&mut self, what: Forget) -> Result<(), Damage> {
        let forgotten = self.index.forget(&what.keep);
        let written = forgotten.clone().and_then(|()| {
            self.undurable = 0;
            self.index.write_all_to(what.path, what.number)
        });
        // Whoever asked may be gone.
        let _ = what.done.send(written);
        forgotten
    }

    fn checkpoint(&mut self) -> Result<(), Damage> {
        let health = self.index.checkpoint()?;
        self.undurable = 0;
        (self.on_health)(health);
        Ok(())
    }
}
