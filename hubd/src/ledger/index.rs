//! What is derived from the journal, in sled. The only file that names sled.
//!
//! Nothing here is the truth: an index that is missing, behind, ahead or
//! damaged is set aside and built again from the journal. So that sled
//! 0.34.7 serves even so:
//!
//! - One tree, one writer (`&mut self`), values below [`MAX_VALUE`]: larger
//!   nodes would go to `blobs/`, which nothing syncs. A file there is an
//!   alarm ([`Health::blob_files`]).
//! - The records of a batch and the [`Stamp`] up to which they hold go in as
//!   one batch.
//! - Durable means a blocking `flush()` and then `sync_data()` on our own
//!   descriptor of `db`: sled's own flush ends in `sync_file_range`. Never
//!   `flush_async`, which can deadlock.
//! - An error or a panic out of sled is [`Damage`], never the end of the hub.
//! - sled may open a damaged file without a word and have lost records in the
//!   middle while the newest stamp is there (seen with one zeroed sector). So
//!   the stamp goes in with the number of all records and a sum over them, and
//!   [`Index::for_each`] holds what it read against both.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hub_protocol::cbor;

use super::error::Head;
use super::index_stamp::{Contents, Damage, INDEX_FORMAT, MAX_KEY, MAX_VALUE, Stamp, Stored};

const CACHE_BYTES: u64 = 16 << 20;
/// Keys that begin with 0 are the index's own.
const STAMP_KEY: &[u8] = b"\0stamp";
/// How many damaged indexes are kept.
const SET_ASIDE: usize = 2;

/// Records to write (`Some`) or to remove (`None`).
pub type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// How the index's files stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The entry up to which the index holds.
    pub sequence: u64,
    /// Bytes on disk. The store never gives space back: past a bound, build a
    /// fresh index.
    pub disk_bytes: u64,
    /// Files in `blobs/`. Anything but 0 is an alarm: they are not durable.
    pub blob_files: usize,
}

/// The index's writer.
pub struct Index {
    db: sled::Db,
    data: File,
    dir: PathBuf,
    stamp: Stamp,
    contents: Contents,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({}, {:?})", self.dir.display(), self.stamp)
    }
}

/// Looks records up from any thread. Clones are cheap.
#[derive(Clone)]
pub struct IndexReader(sled::Db);

impl std::fmt::Debug for IndexReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IndexReader")
    }
}

impl IndexReader {
    /// The value under a key.
    ///
    /// # Errors
    /// Whatever comes out of the store is damage.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Damage> {
        guarded(|| Ok(self.0.get(key)?.map(|value| value.to_vec())))
    }
}

impl Index {
    /// Makes a new, empty index, durable on return.
    ///
    /// # Errors
    /// When there is one already, or the system refuses.
    pub fn create(dir: &Path) -> Result<Self, Damage> {
        if dir.exists() {
            return Err(Damage::Io {
                action: "create",
                detail: format!("{} exists already", dir.display()),
            });
        }
        fs::create_dir_all(dir).map_err(io("create"))?;
        let (db, data) = open_store(dir)?;
        let mut index = Self {
            db,
            data,
            dir: dir.to_path_buf(),
            stamp: Head::EMPTY.into(),
            contents: Contents::default(),
        };
        index.write(Vec::new(), Head::EMPTY.into())?;
        index.checkpoint()?;
        for name in ["conf", "db"] {
            File::open(dir.join(name))
                .and_then(|file| file.sync_all())
                .map_err(io("flush"))?;
        }
        sync_dir(dir)?;
        sync_dir(parent(dir))?;
        Ok(index)
    }

    /// Opens an index. Whether its stamp agrees with the journal is the
    /// caller's to check.
    ///
    /// # Errors
    /// Everything that is wrong with it, a panic of the store included.
    pub fn open(dir: &Path) -> Result<Self, Damage> {
        // The store makes anew what it does not find, or finds empty.
        for name in ["conf", "db"] {
            if !fs::metadata(dir.join(name)).is_ok_and(|file| file.is_file() && file.len() > 0) {
                return Err(Damage::Missing);
            }
        }
        let (db, data) = open_store(dir)?;
        let stamp = guarded(|| db.get(STAMP_KEY))?.ok_or(Damage::NoStamp)?;
        let stored: Stored = cbor::decode(&stamp).map_err(|_| Damage::NoStamp)?;
        if stored.format != INDEX_FORMAT {
            return Err(Damage::Format { found: stored.format });
        }
        Ok(Self {
            db,
            data,
            dir: dir.to_path_buf(),
            stamp: Stamp {
                sequence: stored.sequence,
                digest: stored.digest,
                format: stored.format,
            },
            contents: stored.contents,
        })
    }

    /// Up to where the index holds.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Looks records up from any thread.
    pub fn reader(&self) -> IndexReader {
        IndexReader(self.db.clone())
    }

    /// Hands every record to `visit`, in the order of the keys. To be called
    /// after every opening, before anything is believed: at the end, what was
    /// read is held against what was written.
    ///
    /// # Errors
    /// Whatever comes out of the store is damage; [`Damage::Contents`] when
    /// records are missing, stale or not ours. What was visited until then is
    /// worth nothing.
    pub fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Damage> {
        let mut iter = self.db.iter();
        let mut found = Contents::default();
        // The store alone is under guard: a panic of `visit` is not damage.
        while let Some((key, value)) = guarded(|| iter.next().transpose())? {
            if key.first() != Some(&0) {
                found = found.plus(Contents::of(&key, &value));
                visit(&key, &value);
            }
        }
        if found == self.contents {
            Ok(())
        } else {
            Err(Damage::Contents)
        }
    }

    /// Writes records and the stamp up to which the index now holds, all or
    /// nothing. Durable after the next [`checkpoint`](Self::checkpoint).
    ///
    /// The stamp must not be beyond what is durable in the journal.
    ///
    /// # Errors
    /// [`Damage::TooLarge`] writes nothing; whatever comes out of the store is
    /// damage.
    pub fn write(&mut self, records: Batch, stamp: Stamp) -> Result<(), Damage> {
        for (key, value) in &records {
            let value = value.as_ref().map_or(0, Vec::len);
            let own = key.first().is_none_or(|first| *first == 0);
            if own || key.len() > MAX_KEY || value > MAX_VALUE {
                let key = key.len();
                return Err(Damage::TooLarge { key, value });
            }
        }
        // The last record of a key wins, here as in the store.
        let records: BTreeMap<_, _> = records.into_iter().collect();
        let mut batch = sled::Batch::default();
        let mut contents = self.contents;
        for (key, value) in records {
            if let Some(old) = guarded(|| self.db.get(&key))? {
                contents = contents.minus(Contents::of(&key, &old));
            }
            match value {
                Some(value) => {
                    contents = contents.plus(Contents::of(&key, &value));
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        let stored = Stored {
            sequence: stamp.sequence,
            digest: stamp.digest,
            format: stamp.format,
            contents,
        };
        batch.insert(STAMP_KEY, cbor::encode(&stored));
        guarded(|| self.db.apply_batch(batch))?;
        self.stamp = stamp;
        self.contents = contents;
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Whatever comes out of the store is damage.
    pub fn checkpoint(&mut self) -> Result<Health, Damage> {
        guarded(|| self.db.flush())?;
        self.data.sync_data().map_err(io("flush"))?;
        self.health()
    }

    /// What sled does when a page is lost: the record is gone, the stamp is
    /// not.
    #[cfg(test)]
    pub(crate) fn lose(&mut self, key: &[u8]) {
        self.db.remove(key).unwrap();
    }

    /// How the files stand.
    ///
    /// # Errors
    /// The system's refusal to list them.
    pub fn health(&self) -> Result<Health, Damage> {
        let blobs = self.dir.join("blobs");
        let blob_files = match fs::read_dir(&blobs) {
            Ok(list) => list.count(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(io("list the files of")(error)),
        };
        if blob_files > 0 {
            tracing::error!(
                blob_files,
                "the index has blobs, which are not durable: it should be rebuilt"
            );
        }
        let disk_bytes = self.data.metadata().map_err(io("examine"))?.len();
        Ok(Health {
            sequence: self.stamp.sequence,
            disk_bytes,
            blob_files,
        })
    }
}

/// Renames an index to `NAME.damaged-N` beside it, for whoever wants to look
/// at it; at most two are kept. Nothing to do when there is none.
///
/// # Errors
/// The system's refusal.
pub fn set_aside(dir: &Path) -> Result<Option<PathBuf>, Damage> {
    if !dir.exists() {
        return Ok(None);
    }
    let up = parent(dir);
    let name = dir
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let prefix = format!("{name}.damaged-");
    let mut kept: Vec<(u64, PathBuf)> = fs::read_dir(up)
        .map_err(io("list the files of"))?
        .filter_map(Result::ok)
        .filter_map(|item| {
            let name = item.file_name();
            let number = name.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((number, item.path()))
        })
        .collect();
    kept.sort();
    let next = kept.last().map_or(1, |(number, _)| number + 1);
    while kept.len() >= SET_ASIDE {
        let (_, oldest) = kept.remove(0);
        fs::remove_dir_all(&oldest).map_err(io("remove an older copy of"))?;
    }
    let aside = up.join(format!("{prefix}{next}"));
    fs::rename(dir, &aside).map_err(io("set aside"))?;
    sync_dir(up)?;
    Ok(Some(aside))
}

/// How often a locked store is tried again, and how long between.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

fn open_store(dir: &Path) -> Result<(sled::Db, File), Damage> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        // Only our own thread flushes, when it says so.
        .flush_every_ms(None);
    let db = guarded(|| open_unlocked(&config))?;
    let data = File::open(dir.join("db")).map_err(io("open"))?;
    Ok((db, data))
}

/// A store that was closed a moment ago, in this process, keeps its lock until
/// its last thread has ended: that is waited for, within bounds.
fn open_unlocked(config: &sled::Config) -> sled::Result<sled::Db> {
    for _ in 0..LOCK_TRIES {
        match config.open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
    config.open()
}

/// Runs something of the store's; error and panic are damage.
fn guarded<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, Damage> {
    // What a panic leaves half done is inside the store, which is then set
    // aside whole.
    match catch_unwind(AssertUnwindSafe(act)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Damage::Store(error.to_string())),
        Err(panic) => {
            let text = panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
                .unwrap_or_default();
            Err(Damage::Panicked(text))
        }
    }
}

fn io(action: &'static str) -> impl Fn(std::io::Error) -> Damage {
    move |error| Damage::Io {
        action,
        detail: error.to_string(),
    }
}

fn parent(dir: &Path) -> &Path {
    dir.parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync_dir(dir: &Path) -> Result<(), Damage> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(io("flush the folder of"))
}
