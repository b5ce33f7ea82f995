//! What is derived from the journal: sled and tables. The only file that names
//! sled.
//!
//! Nothing here is the truth: an index that is missing, behind, ahead or
//! damaged is set aside and built again from the journal.
//!
//! What grows in number with the ledger (payments, cards, places in the queue)
//! lies in sorted tables ([`table`]), which are checked at each
//! read and need no reading through at opening. sled holds what does not grow:
//! devices, the store, and the catalogue of the tables with the [`Stamp`].
//! Why sled does not hold the rest is in docs/adr/0009-tables-in-the-index.md.
//!
//! A table is durable before the catalogue names it; catalogue, small values
//! and stamp change in one batch. So the index holds exactly what it held at
//! its stamp, whenever the process or the power ends. What came after is
//! folded again from the journal.
//!
//! So that sled 0.34.7 serves:
//!
//! - One tree, one writer (`&mut self`), values below [`MAX_VALUE`]: larger
//!   nodes would go to `blobs/`, which nothing syncs. A file there is an
//!   alarm ([`Health::blob_files`]).
//! - Durable means a blocking `flush()` and then `sync_data()` on our own
//!   descriptor of `db`: sled's own flush ends in `sync_file_range`. Never
//!   `flush_async`, which can deadlock.
//! - Keys in sled are MACs and values encrypted, tables too: nothing in the
//!   folder names a card or a person.
//! - An error or a panic out of sled is [`Damage`], never the end of the hub.
//! - sled may open a damaged file without a word and have lost records in the
//!   middle while the newest stamp is there (seen with one zeroed sector). So
//!   the stamp goes in with the number of all records and a sum over them, and
//!   opening holds what it reads against both. There are a few hundred.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use hub_protocol::cbor;

use super::archive::Archives;
use super::at_rest::{RestSeal, SEAL_BYTES};
use super::error::Head;
use super::index_stamp::{Contents, Damage, INDEX_FORMAT, InCatalogue, MAX_KEY, MAX_VALUE, Stamp, Stored};
use super::table::{self, Held, Table};
use super::tables::{self, Tables};

mod forget;

/// sled holds a few hundred small values.
const CACHE_BYTES: u64 = 1 << 20;
/// Keys that begin with 0 are the index's own.
const STAMP_KEY: &[u8] = b"\0stamp";
/// How keys begin whose values are kept in sled: devices, fleets, the store, what is
/// usual in it and the periods that are not over, which change all the time and do not
/// grow in number with the ledger.
const SMALL: [u8; 5] = *b"dfosu";
/// How keys begin whose records move to the tables of archives.
const ARCHIVED: u8 = b'p';
/// So many records in memory become a table.
const SEAL_RECORDS: usize = 8 * 1024;
/// After a merge that failed, so many checkpoints without one.
const MERGE_PAUSE: u32 = 8;
/// Somebody read damage: the next opening is to build the index anew.
const DAMAGED: &str = "damaged";
/// Made here, where everything is encrypted. Versions before it left indexes
/// that name cards and people.
const ENCRYPTED: &str = "encrypted";
/// How many damaged indexes are kept.
const SET_ASIDE: usize = 2;

/// Records to write (`Some`) or to remove (`None`).
pub type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A record to write (`Some`) or to remove (`None`) that lies elsewhere.
pub type BorrowedRecord<'a> = (&'a [u8], Option<&'a [u8]>);

/// How the index's files stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// The entry up to which the index holds.
    pub sequence: u64,
    /// Bytes on disk.
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
    /// For sled, at the next checkpoint.
    small: BTreeMap<Vec<u8>, Held>,
    next_table: u32,
    /// Checkpoints until tables are merged again.
    merge_after: u32,
    seal: RestSeal,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Index({}, {:?})", self.dir.display(), self.stamp)
    }
}

/// What the writer and its readers share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    tables: RwLock<Tables>,
    written: AtomicU64,
    /// Where payments are that this index has forgotten.
    archives: OnceLock<Archives>,
}

impl Shared {
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves word for the next opening.
    fn report<T>(&self, result: Result<T, Damage>) -> Result<T, Damage> {
        if result.is_err()
            && let Err(error) = File::create(self.dir.join(DAMAGED))
        {
            tracing::error!(%error, "the index is damaged, and no mark can be left: remove its folder before the next start");
        }
        result
    }
}

/// Looks records up from any thread. Clones are cheap.
#[derive(Clone, Debug)]
pub struct IndexReader(Arc<Shared>);

/// Keys and values, in the order of the keys.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

impl IndexReader {
    /// The value under a key, as of the last write; of an archived payment, as
    /// of its end. Not for devices and the store.
    ///
    /// # Errors
    /// Damage; the next opening then builds the index anew.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Damage> {
        let held = self.0.report(self.0.read().get(key))?;
        match self.0.archives.get() {
            Some(archives) if held.is_none() && key.first() == Some(&ARCHIVED) => archives.record(key),
            _ => Ok(held),
        }
    }

    /// The first records at or behind `from` whose keys begin with `prefix`,
    /// at most `limit`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn range(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Records, Damage> {
        let mut found = Vec::new();
        let result = self.0.read().scan(from, &mut |key, value| {
            let take = found.len() < limit && key.starts_with(prefix);
            if take {
                found.push((key.to_vec(), value.to_vec()));
            }
            take && found.len() < limit
        });
        self.0.report(result).map(|()| found)
    }

    /// Leaves word that what was read makes no sense: the next opening builds
    /// the index anew.
    pub fn distrust(&self) {
        let _: Result<(), Damage> = self.0.report(Err(Damage::Contents));
    }

    /// What the tables take on disk, in bytes; 0 for one that cannot be asked.
    pub fn table_bytes(&self) -> u64 {
        let tables = &self.0.read().tables;
        let sizes = tables.iter().map(|table| fs::metadata(table.path()));
        sizes.filter_map(|found| Some(found.ok()?.len())).sum()
    }

    /// The entry up to which this answers.
    pub fn written(&self) -> u64 {
        self.0.written.load(Ordering::Acquire)
    }
}

impl Index {
    /// Makes a new, empty index, durable on return.
    ///
    /// # Errors
    /// When there is one already, or the system refuses.
    pub fn create(dir: &Path, seal: &RestSeal) -> Result<Self, Damage> {
        if dir.exists() {
            return Err(Damage::Io {
                action: "create",
                detail: format!("{} exists already", dir.display()),
            });
        }
        fs::create_dir_all(dir).map_err(io("create"))?;
        mark_encrypted(dir);
        let (db, data) = open_store(dir)?;
        let mut index = Self {
            db,
            data,
            dir: dir.to_path_buf(),
            stamp: Head::EMPTY.into(),
            contents: Contents::default(),
            small: BTreeMap::new(),
            next_table: 1,
            merge_after: 0,
            seal: seal.clone(),
            shared: Arc::new(Shared {
                dir: dir.to_path_buf(),
                tables: RwLock::default(),
                written: AtomicU64::new(0),
                archives: OnceLock::new(),
            }),
        };
        index.write_catalogue()?;
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
    pub fn open(dir: &Path, seal: &RestSeal) -> Result<Self, Damage> {
        // The store makes anew what it does not find, or finds empty.
        for name in ["conf", "db"] {
            if !fs::metadata(dir.join(name)).is_ok_and(|file| file.is_file() && file.len() > 0) {
                return Err(Damage::Missing);
            }
        }
        if dir.join(DAMAGED).exists() {
            return Err(Damage::Contents);
        }
        let (db, data) = open_store(dir)?;
        let stamp = guarded(|| db.get(STAMP_KEY))?.ok_or(Damage::NoStamp)?;
        let stored: Stored = cbor::decode(&stamp).map_err(|_| Damage::NoStamp)?;
        if stored.format != INDEX_FORMAT {
            return Err(Damage::Format { found: stored.format });
        }
        let mut found = Contents::default();
        for_each_stored(&db, &mut |key, value| {
            found = found.plus(Contents::of(key, value))
        })?;
        if found != stored.contents {
            return Err(Damage::Contents);
        }
        let catalogue = stored.tables.unwrap_or_default();
        let mut tables = Vec::with_capacity(catalogue.len());
        for listed in &catalogue {
            let table = Table::open(dir, listed.number, Some(seal))?;
            if table.end_crc() != listed.end_crc {
                return Err(Damage::Contents);
            }
            tables.push(Arc::new(table));
        }
        // One that was made before there was such a mark.
        mark_encrypted(dir);
        let index = Self {
            db,
            data,
            dir: dir.to_path_buf(),
            stamp: Stamp {
                sequence: stored.sequence,
                digest: stored.digest,
                format: stored.format,
            },
            contents: stored.contents,
            small: BTreeMap::new(),
            next_table: stored.next_table.unwrap_or(1),
            merge_after: 0,
            seal: seal.clone(),
            shared: Arc::new(Shared {
                dir: dir.to_path_buf(),
                tables: RwLock::new(Tables {
                    recent: BTreeMap::new(),
                    tables,
                }),
                written: AtomicU64::new(stored.sequence),
                archives: OnceLock::new(),
            }),
        };
        index.remove_unlisted()?;
        Ok(index)
    }

    /// Up to where the index holds.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Looks records up from any thread.
    pub fn reader(&self) -> IndexReader {
        IndexReader(Arc::clone(&self.shared))
    }

    /// From now on readers find payments in the archives' tables too. Once.
    pub fn look_into(&self, archives: &Archives) {
        let _ = self.shared.archives.set(archives.clone());
    }

    /// Hands over devices and store as of the last checkpoint, all that
    /// opening needs to read.
    ///
    /// # Errors
    /// Whatever comes out of the store is damage. What was visited until then
    /// is worth nothing.
    pub fn for_each_small(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Damage> {
        // They lie in the order of names that say nothing; whoever writes a
        // table of them needs that of the keys.
        let mut opened = Ok(());
        let mut found = BTreeMap::new();
        for_each_stored(&self.db, &mut |name, value| {
            let record = self.seal.open(name, value);
            match record.as_deref().and_then(split_small) {
                Some((key, value)) => {
                    found.insert(key.to_vec(), value.to_vec());
                }
                None => opened = Err(Damage::Contents),
            }
        })?;
        opened?;
        found.iter().for_each(|(key, value)| visit(key, value));
        Ok(())
    }

    /// Hands every record to `visit`: first the small ones as of the last
    /// checkpoint, then the others, each in the order of the keys. Reads
    /// everything there is.
    ///
    /// # Errors
    /// Damage. What was visited until then is worth nothing.
    pub fn for_each(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Damage> {
        self.for_each_small(visit)?;
        self.shared.read().scan(&[], &mut |key, value| {
            visit(key, value);
            true
        })
    }

    /// Writes records and the stamp up to which the index now holds, all or
    /// nothing. Readers see them at once; they are durable after the next
    /// [`checkpoint`](Self::checkpoint), which comes by itself when there is
    /// much.
    ///
    /// The stamp must not be beyond what is durable in the journal.
    ///
    /// # Errors
    /// [`Damage::TooLarge`] writes nothing; whatever comes out of the store is
    /// damage.
    pub fn write(&mut self, records: Batch, stamp: Stamp) -> Result<(), Damage> {
        for (key, value) in &records {
            fits(key, value.as_deref())?;
        }
        let (small, growing): (Batch, Batch) = records.into_iter().partition(|(key, _)| is_small(key));
        self.small.extend(small);
        let waiting = {
            let mut tables = self.shared.write();
            tables.recent.extend(growing);
            tables.recent.len()
        };
        self.stamp = stamp;
        self.shared.written.store(stamp.sequence, Ordering::Release);
        if waiting >= SEAL_RECORDS {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// [`write`](Self::write) of records in the order of their keys. Many at
    /// once become a table straight away, without being copied, and are
    /// durable on return.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_sorted(&mut self, records: &[BorrowedRecord<'_>], stamp: Stamp) -> Result<(), Damage> {
        let owned = |(key, value): &BorrowedRecord<'_>| (key.to_vec(), value.map(<[u8]>::to_vec));
        let (mut small, mut growing) = (Vec::new(), Vec::with_capacity(records.len()));
        for record in records {
            fits(record.0, record.1)?;
            match is_small(record.0) {
                true => small.push(owned(record)),
                false => growing.push(*record),
            }
        }
        if growing.len() < SEAL_RECORDS || !self.shared.read().recent.is_empty() {
            return self.write(records.iter().map(owned).collect(), stamp);
        }
        let table = tables::seal(growing.into_iter(), &self.dir, self.next_table, &self.seal)?;
        self.next_table += 1;
        self.small.extend(small);
        self.shared.write().tables.insert(0, Arc::new(table));
        self.stamp = stamp;
        self.shared.written.store(stamp.sequence, Ordering::Release);
        self.write_catalogue()?;
        self.merge()
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// Damage, or the system's refusal.
    pub fn checkpoint(&mut self) -> Result<Health, Damage> {
        // One writer: nothing changes what is in memory meanwhile.
        let sealed = {
            let tables = self.shared.read();
            let number = self.next_table;
            (!tables.recent.is_empty()).then(|| tables.seal(&self.dir, number, &self.seal))
        };
        if let Some(table) = sealed.transpose()? {
            self.next_table += 1;
            let mut tables = self.shared.write();
            tables.recent.clear();
            tables.tables.insert(0, Arc::new(table));
        }
        self.write_catalogue()?;
        self.merge()?;
        self.health()
    }

    /// Keeps the number of tables small.
    fn merge(&mut self) -> Result<(), Damage> {
        if self.merge_after > 0 {
            self.merge_after -= 1;
            return Ok(());
        }
        loop {
            let (range, old, last) = {
                let tables = self.shared.read();
                let Some(range) = tables.to_merge(SEAL_RECORDS as u64) else {
                    return Ok(());
                };
                let old = tables.tables.get(range.clone()).unwrap_or_default().to_vec();
                let last = range.end == tables.tables.len();
                (range, old, last)
            };
            let number = self.next_table;
            self.next_table += 1;
            let merged = match tables::merge(&old, last, &self.dir, number, &self.seal) {
                Ok(merged) => merged,
                Err(error) => return self.merge_later(number, error),
            };
            self.shared.write().tables.splice(range, [Arc::new(merged)]);
            self.write_catalogue()?;
            for table in old {
                fs::remove_file(table.path()).map_err(io("remove a table of"))?;
            }
        }
    }

    /// A merge that cannot be written, for want of room most of all, changes
    /// nothing but the speed of looking things up. It is tried again after so
    /// many checkpoints.
    fn merge_later(&mut self, number: u32, error: Damage) -> Result<(), Damage> {
        if !matches!(error, Damage::Io { .. }) {
            return Err(error);
        }
        tracing::warn!(%error, "the index's tables are not merged now; it is tried again");
        self.merge_after = MERGE_PAUSE;
        match fs::remove_file(Table::path_of(&self.dir, number)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove a table of")(error)),
            _ => Ok(()),
        }
    }

    /// Small values, stamp and list of tables, in one batch, durable.
    fn write_catalogue(&mut self) -> Result<(), Damage> {
        let mut batch = sled::Batch::default();
        let mut contents = self.contents;
        for (key, value) in std::mem::take(&mut self.small) {
            let value = value.map(|value| join_small(&key, &value));
            let key = self.seal.name(&key);
            let value = value.map(|plain| self.seal.seal(&key, &plain));
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
        let listed = |table: &Arc<Table>| InCatalogue {
            number: table.number(),
            end_crc: table.end_crc(),
        };
        let stored = Stored {
            sequence: self.stamp.sequence,
            digest: self.stamp.digest,
            format: self.stamp.format,
            contents,
            tables: Some(self.shared.read().tables.iter().map(listed).collect()),
            next_table: Some(self.next_table),
        };
        batch.insert(STAMP_KEY, cbor::encode(&stored));
        guarded(|| self.db.apply_batch(batch))?;
        guarded(|| self.db.flush())?;
        self.data.sync_data().map_err(io("flush"))?;
        self.contents = contents;
        Ok(())
    }

    /// Tables that were being written when the process ended.
    fn remove_unlisted(&self) -> Result<(), Damage> {
        let tables = self.shared.read();
        let listed: Vec<&Path> = tables.tables.iter().map(|table| table.path()).collect();
        for item in fs::read_dir(&self.dir).map_err(io("list the files of"))? {
            let path = item.map_err(io("list the files of"))?.path();
            let is_table = path.extension().is_some_and(|found| found == table::EXTENSION);
            if is_table && !listed.contains(&path.as_path()) {
                fs::remove_file(&path).map_err(io("remove a table of"))?;
            }
        }
        Ok(())
    }

    /// What sled does when a page is lost: the record is gone, the stamp is
    /// not.
    #[cfg(test)]
    pub(crate) fn lose(&mut self, key: &[u8]) {
        self.db.remove(self.seal.name(key)).unwrap();
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
        let mut disk_bytes = self.data.metadata().map_err(io("examine"))?.len();
        for table in &self.shared.read().tables {
            disk_bytes += fs::metadata(table.path()).map_err(io("examine"))?.len();
        }
        Ok(Health {
            sequence: self.stamp.sequence,
            disk_bytes,
            blob_files,
        })
    }
}

/// Hands every record of an index of format 1, in which all of them were in
/// sled, to `visit`. Nothing is written into it.
///
/// # Errors
/// Damage; what was visited until then is worth nothing.
pub fn read_older_index(dir: &Path, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<Stamp, Damage> {
    if !dir.join("db").exists() {
        return Err(Damage::Missing);
    }
    let (db, _) = open_store(dir)?;
    let stamp = guarded(|| db.get(STAMP_KEY))?.ok_or(Damage::NoStamp)?;
    let stored: Stored = cbor::decode(&stamp).map_err(|_| Damage::NoStamp)?;
    if stored.format != 1 {
        return Err(Damage::Format { found: stored.format });
    }
    let mut found = Contents::default();
    for_each_stored(&db, &mut |key, value| {
        found = found.plus(Contents::of(key, value));
        visit(key, value);
    })?;
    if found != stored.contents {
        return Err(Damage::Contents);
    }
    Ok(Stamp {
        sequence: stored.sequence,
        digest: stored.digest,
        format: stored.format,
    })
}

/// Puts one more record into an index of format 1, as if its program had
/// known more than the journal tells.
#[cfg(test)]
pub(crate) fn add_to_older_index(dir: &Path, key: &[u8], value: &[u8]) -> Result<(), Damage> {
    let (db, _) = open_store(dir)?;
    let stamp = guarded(|| db.get(STAMP_KEY))?.ok_or(Damage::NoStamp)?;
    let mut stored: Stored = cbor::decode(&stamp).map_err(|_| Damage::NoStamp)?;
    stored.contents = stored.contents.plus(Contents::of(key, value));
    guarded(|| db.insert(key, value))?;
    guarded(|| db.insert(STAMP_KEY, cbor::encode(&stored)))?;
    guarded(|| db.flush()).map(drop)
}

/// Without room for the mark an index serves as well; once it is damaged and
/// set aside it is not kept.
fn mark_encrypted(dir: &Path) {
    let mark = dir.join(ENCRYPTED);
    if !mark.exists() {
        let _ = File::create(mark);
    }
}

/// Removes what other starts left beside an index that is in use, and that may
/// tell in clear whatever an index holds: those that were set aside damaged
/// and do not show that everything in them is encrypted, and those in `others`,
/// by what their names have behind the index's. Nothing is overwritten: flash,
/// and file systems that copy on write, may keep the blocks.
///
/// # Errors
/// The system's refusal; what could be removed until then is.
pub fn remove_left_in_clear(dir: &Path, others: &[&str]) -> Result<(), Damage> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let damaged = damaged_beside(dir)?.into_iter().map(|(_, path)| path);
    let others = others
        .iter()
        .map(|what| dir.with_file_name(format!("{name}.{what}")));
    let in_clear = damaged
        .filter(|path| !path.join(ENCRYPTED).exists())
        .chain(others.filter(|path| path.exists()));
    for path in in_clear {
        remove(&path).map_err(io("remove an older copy of"))?;
        sync_dir(parent(dir))?;
        tracing::info!(folder = %path.display(), "an index of an earlier version, not encrypted or cut off, is removed");
    }
    Ok(())
}

/// Removes what was set aside: an index, or whatever lay in its place.
fn remove(path: &Path) -> std::io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    }
}

/// The damaged ones beside an index, by their numbers.
fn damaged_beside(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Damage> {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!("{name}.damaged-");
    let mut found: Vec<(u64, PathBuf)> = fs::read_dir(parent(dir))
        .map_err(io("list the files of"))?
        .filter_map(Result::ok)
        .filter_map(|item| {
            let name = item.file_name();
            let number = name.to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((number, item.path()))
        })
        .collect();
    found.sort();
    Ok(found)
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
    let mut kept = damaged_beside(dir)?;
    let next = kept.last().map_or(1, |(number, _)| number + 1);
    while kept.len() >= SET_ASIDE {
        let (_, oldest) = kept.remove(0);
        remove(&oldest).map_err(io("remove an older copy of"))?;
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let aside = up.join(format!("{name}.damaged-{next}"));
    fs::rename(dir, &aside).map_err(io("set aside"))?;
    sync_dir(up)?;
    Ok(Some(aside))
}

/// How often a locked store is tried again, and how long between.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// Whether a record may be written.
fn fits(key: &[u8], value: Option<&[u8]>) -> Result<(), Damage> {
    let (own, value) = (
        key.first().is_none_or(|first| *first == 0),
        value.map_or(0, <[u8]>::len),
    );
    // What goes into sled gets longer.
    let longer = if is_small(key) {
        2 + key.len() + SEAL_BYTES
    } else {
        0
    };
    if own || key.len() > MAX_KEY || value + longer > MAX_VALUE {
        let key = key.len();
        return Err(Damage::TooLarge { key, value });
    }
    Ok(())
}

fn is_small(key: &[u8]) -> bool {
    key.first().is_some_and(|first| SMALL.contains(first))
}

/// A small record as it is encrypted: the key's length, key and value.
fn join_small(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&(key.len() as u16).to_le_bytes(), key, value].concat()
}

fn split_small(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = record.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))
}

fn for_each_stored(db: &sled::Db, visit: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), Damage> {
    let mut iter = db.iter();
    // The store alone is under guard: a panic of `visit` is not damage.
    while let Some((key, value)) = guarded(|| iter.next().transpose())? {
        if key.first() != Some(&0) {
            visit(&key, &value);
        }
    }
    Ok(())
}

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
pub(super) fn guarded<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, Damage> {
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
