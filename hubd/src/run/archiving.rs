//! Archiving beside the running hub: a round now and then, and what operators
//! ask of the archives. Never in the way of the committer: the work is one
//! thread's, its files are flushed in small steps.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hub_core::{ArchiveChange, OperatorCommand, OperatorReply, Reply};
use hub_protocol::Digest;
use hub_protocol::entry::StorageLevel;
use tokio::runtime::Handle;

use crate::admin::Refused;
use crate::ledger::{
    ArchiveError, ArchiveHub, ArchiveSettings, Archiver, Archives, IndexKeeper, Keep, NotForgotten, Round,
    Space, Stamp, Standing,
};
use crate::port::{Ask, HubPort};

/// How often the ledger is looked at.
const EVERY: Duration = Duration::from_secs(10 * 60);

/// The archives of a running hub.
#[derive(Clone)]
pub(super) struct Archiving(Arc<Inner>);

struct Inner {
    archiver: Mutex<Archiver>,
    archives: Archives,
    keeper: IndexKeeper,
    port: HubPort,
    space: Space,
    settings: ArchiveSettings,
    trouble: Mutex<Option<String>>,
}

/// How the archives stand.
pub(super) struct ArchivesReport {
    /// How many there are, removed ones too.
    pub(super) count: u32,
    /// What the compressed files take, in bytes.
    pub(super) bytes: u64,
    /// Why something that is due was not done.
    pub(super) trouble: Option<String>,
}

impl Archiving {
    pub(super) fn new(
        archiver: Archiver,
        keeper: IndexKeeper,
        port: HubPort,
        space: Space,
        settings: ArchiveSettings,
    ) -> Self {
        Self(Arc::new(Inner {
            archives: archiver.archives().clone(),
            archiver: Mutex::new(archiver),
            keeper,
            port,
            space,
            settings,
            trouble: Mutex::default(),
        }))
    }

    /// A round at the start and now and then, for as long as the hub runs.
    pub(super) async fn keep(self) {
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            ticks.tick().await;
            let settings = self.0.settings;
            let done = self
                .work(move |archiver, hub| archiver.round(hub, settings, &mut |_| Ok(())))
                .await;
            self.note(done);
        }
    }

    /// Says what is new, once.
    fn note(&self, done: Result<Round, ArchiveError>) {
        let trouble = match done {
            Ok(round) => {
                if round.written + round.removed > 0 {
                    tracing::info!(written = round.written, removed = round.removed, "archived");
                }
                round.trouble
            }
            Err(error) => Some(error.to_string()),
        };
        let mut told = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != trouble {
            if let Some(trouble) = &trouble {
                tracing::warn!(trouble, "the ledger is not archived");
            }
            *told = trouble;
        }
    }

    /// Runs on a thread that may wait.
    async fn work<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut Archiver, &mut dyn ArchiveHub) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let inner = Arc::clone(&self.0);
        let runtime = Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            let mut archiver = inner.archiver.lock().unwrap_or_else(PoisonError::into_inner);
            let mut hub = RunningHub {
                inner: &inner,
                runtime,
            };
            act(&mut archiver, &mut hub)
        });
        done.await
            .unwrap_or_else(|_| Err(ArchiveError::NotRecorded("the hub is stopping".to_owned())))
    }

    pub(super) fn report(&self) -> ArchivesReport {
        let archives = self.0.archives.list();
        let trouble = self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        ArchivesReport {
            count: archives.last().map_or(0, |archive| archive.manifest.number),
            bytes: archives.iter().filter_map(|archive| archive.bytes()).sum(),
            trouble: trouble.clone(),
        }
    }

    /// Writes down that an archive was copied away and read back.
    pub(super) async fn exported(
        &self,
        operator: String,
        number: u32,
        digest: Digest,
    ) -> Result<(), Refused> {
        let archives = self.0.archives.list();
        let archive = archives.iter().find(|archive| archive.manifest.number == number);
        if archive.is_none_or(|archive| archive.manifest.archive_digest != digest) {
            return Err(Refused::new(format!(
                "the copy of archive {number} is not what the hub archived: copy it again"
            )));
        }
        let change = ArchiveChange::Exported {
            number,
            digest,
            operator,
        };
        self.work(move |_, hub| hub.record(change)).await.map_err(refused)
    }

    /// Removes the compressed files up to an archive.
    pub(super) async fn remove(&self, operator: String, through: u32) -> Result<(), Refused> {
        let removed = self.work(move |archiver, hub| {
            let removed = hub.standing()?.marks.removed;
            for number in removed + 1..=through {
                archiver.remove(hub, number, Some(&operator), &mut |_| Ok(()))?;
            }
            Ok(())
        });
        removed.await.map_err(refused)
    }
}

fn refused(error: ArchiveError) -> Refused {
    Refused::new(error.to_string())
}

struct RunningHub<'a> {
    inner: &'a Inner,
    runtime: Handle,
}

impl RunningHub<'_> {
    fn ask(&self, ask: Ask) -> Result<OperatorReply, ArchiveError> {
        match self.runtime.block_on(self.inner.port.ask(ask)) {
            Ok(Reply::Operator(OperatorReply::Refused(text))) => Err(ArchiveError::NotRecorded(text)),
            Ok(Reply::Operator(reply)) => Ok(reply),
            Ok(Reply::Refused(refusal)) | Err(refusal) => Err(ArchiveError::NotRecorded(refusal.text)),
            Ok(_) => Err(ArchiveError::NotRecorded(
                "the hub gave an answer to another question".to_owned(),
            )),
        }
    }
}

impl ArchiveHub for RunningHub<'_> {
    fn standing(&mut self) -> Result<Standing, ArchiveError> {
        let ask = Ask::Operator {
            operator: "archive".to_owned(),
            command: OperatorCommand::Overview,
        };
        match self.ask(ask)? {
            OperatorReply::Overview(overview) => Ok(Standing {
                marks: overview.archives,
                now_ms: (!overview.clock_suspect).then_some(overview.time_ms),
                sequence: overview.sequence,
            }),
            _ => Err(ArchiveError::NotRecorded("the hub gave no overview".to_owned())),
        }
    }

    fn record(&mut self, change: ArchiveChange) -> Result<(), ArchiveError> {
        self.ask(Ask::Archive(change)).map(|_| ())
    }

    fn forget(&mut self, keep: Keep, path: PathBuf, number: u32) -> Result<Stamp, ArchiveError> {
        self.inner
            .keeper
            .forget(keep, path, number)
            .map_err(|error| match error {
                NotForgotten::Failed(damage) => ArchiveError::Index(damage),
                NotForgotten::Stopped(ended) => ArchiveError::NotRecorded(ended.to_string()),
            })
    }

    /// With little room an archive still makes more than it takes; the index
    /// waits, because it could be written no more if its merge failed.
    fn room(&self) -> (u64, bool) {
        let space = &self.inner.space;
        (space.spare_bytes(), space.level() == StorageLevel::Enough)
    }
}
