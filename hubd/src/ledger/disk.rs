//! The few ways in which the ledger touches the disk, with the flushes
//! counted. Everything that must survive a power cut goes through here.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, FallocateFlags, FlockOperation};

use super::error::LedgerError;
use super::space::Space;

/// What has been written since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Flushes of file data.
    pub flushes: u64,
}

/// Counts of a journal or a vault that go on being written, to be read from
/// any thread.
#[derive(Clone, Debug)]
pub struct DiskCounter(Disk);

impl DiskCounter {
    pub(crate) fn new(disk: &Disk) -> Self {
        Self(disk.clone())
    }

    /// The counts now.
    pub fn counts(&self) -> DiskCounts {
        self.0.counts()
    }
}

#[derive(Debug, Default)]
struct Counters {
    writes: AtomicU64,
    bytes: AtomicU64,
    flushes: AtomicU64,
    #[cfg(test)]
    failing: std::sync::atomic::AtomicU8,
}

/// Counts what goes to disk. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Counters>);

impl Disk {
    /// Writes `bytes` at `offset`, in one system call unless the system takes
    /// fewer bytes than offered.
    pub(crate) fn write(
        &self,
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), LedgerError> {
        self.0.writes.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        #[cfg(test)]
        self.fail_if_told(1, path)?;
        file.write_all_at(bytes, offset)
            .map_err(LedgerError::io("write to", path))
    }

    /// Makes the file's data durable. After an error nothing is known about
    /// what is on disk, and asking again proves nothing: the kernel may have
    /// dropped the pages.
    pub(crate) fn flush(&self, file: &File, path: &Path) -> Result<(), LedgerError> {
        self.0.flushes.fetch_add(1, Ordering::Relaxed);
        #[cfg(test)]
        self.fail_if_told(2, path)?;
        file.sync_data().map_err(LedgerError::io("flush", path))
    }

    pub(crate) fn counts(&self) -> DiskCounts {
        DiskCounts {
            writes: self.0.writes.load(Ordering::Relaxed),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            flushes: self.0.flushes.load(Ordering::Relaxed),
        }
    }

    /// Makes a file of `len` bytes that begins with `head` and is otherwise
    /// zero, durable under its final name before it is returned. At no moment
    /// is there a file of that name without its head.
    ///
    /// [`LedgerError::NoRoom`] leaves nothing behind.
    pub(crate) fn create(&self, path: &Path, head: &[u8], len: u64) -> Result<File, LedgerError> {
        let dir = parent(path);
        let temporary = temporary_name(path);
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(LedgerError::io("remove", &temporary)(error));
            }
            _ => {}
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(LedgerError::io_or_no_room("create", &temporary))?;
        if let Err(error) = self.reserve(&file, &temporary, len) {
            // What was allocated before the room ended is given back.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.write(&file, &temporary, head, 0)?;
        self.0.flushes.fetch_add(1, Ordering::Relaxed);
        file.sync_all().map_err(LedgerError::io("flush", &temporary))?;
        if let Err(error) = fs::rename(&temporary, path) {
            let _ = fs::remove_file(&temporary);
            return Err(LedgerError::io_or_no_room("name", path)(error));
        }
        sync_dir(&dir)?;
        Ok(file)
    }

    /// [`create`](Self::create), and out of the reserve when the file system
    /// has no room. The file may then be shorter than `len`, but not than
    /// `least`. Returns how long it is.
    pub(crate) fn create_with(
        &self,
        space: Option<&Space>,
        path: &Path,
        head: &[u8],
        len: u64,
        least: u64,
    ) -> Result<(File, u64), LedgerError> {
        match (self.create(path, head, len), space) {
            (Err(LedgerError::NoRoom { .. }), Some(space)) => {
                let file = space.give(path, head, least)?;
                let file = file.ok_or_else(|| LedgerError::NoRoom { path: path.into() })?;
                let len = file.metadata().map_err(LedgerError::io("examine", path))?.len();
                Ok((file, len))
            }
            (made, _) => Ok((made?, len)),
        }
    }

    /// Makes a file at least `len` bytes long, with disk space behind them;
    /// what is new is zero. Not flushed.
    pub(crate) fn reserve(&self, file: &File, path: &Path, len: u64) -> Result<(), LedgerError> {
        #[cfg(test)]
        if self.0.failing.load(Ordering::SeqCst) == 3 {
            return Err(LedgerError::NoRoom { path: path.into() });
        }
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            // A file system without it: the length alone, and a full disk
            // shows only when the bytes are written.
            Err(rustix::io::Errno::OPNOTSUPP) => file
                .set_len(len)
                .map_err(LedgerError::io("set the length of", path)),
            other => other.map_err(|e| LedgerError::io_or_no_room("reserve disk space for", path)(e.into())),
        }
    }

    /// Cuts a file to `len` and makes that durable.
    pub(crate) fn truncate(&self, file: &File, path: &Path, len: u64) -> Result<(), LedgerError> {
        file.set_len(len)
            .map_err(LedgerError::io("set the length of", path))?;
        self.0.flushes.fetch_add(1, Ordering::Relaxed);
        file.sync_all().map_err(LedgerError::io("flush", path))
    }

    /// Overwrites a range with zeros. Not flushed.
    pub(crate) fn zero(&self, file: &File, path: &Path, from: u64, to: u64) -> Result<(), LedgerError> {
        let zeros = [0_u8; 64 * 1024];
        let mut at = from;
        while at < to {
            let n = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            self.write(file, path, &zeros[..n], at)?;
            at += n as u64;
        }
        Ok(())
    }

    /// From now on every write (1) or flush (2) fails, or nothing new can be
    /// allocated (3); 0 ends it.
    #[cfg(test)]
    pub(crate) fn fail_from_now(&self, what: u8) {
        self.0.failing.store(what, Ordering::SeqCst);
    }

    #[cfg(test)]
    fn fail_if_told(&self, what: u8, path: &Path) -> Result<(), LedgerError> {
        if self.0.failing.load(Ordering::SeqCst) == what {
            let error = std::io::Error::other("told to fail");
            return Err(LedgerError::io("use", path)(error));
        }
        Ok(())
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn temporary_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Makes names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), LedgerError> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .map_err(LedgerError::io("flush the folder", dir))
}

/// Makes a folder, its parents, and its name in its parent durable.
pub(crate) fn make_dir(dir: &Path) -> Result<(), LedgerError> {
    fs::create_dir_all(dir).map_err(LedgerError::io_or_no_room("create the folder", dir))?;
    sync_dir(dir)?;
    if let Some(up) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        sync_dir(up)?;
    }
    Ok(())
}

/// Opens a file for reading and writing.
pub(crate) fn open_rw(path: &Path) -> Result<File, LedgerError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(LedgerError::io("open", path))
}

/// What is on the disk under a file, not what the page cache says of it.
///
/// A process that was killed between write and flush leaves whole commits
/// that no power cut would spare: the flush comes first, so that whatever is
/// read is durable. After a failed flush the kernel may keep pages that never
/// reached the disk and call them clean: they are dropped, so that the bytes
/// come from the disk.
pub(crate) fn read_durable(file: &File, path: &Path) -> Result<Vec<u8>, LedgerError> {
    file.sync_all().map_err(LedgerError::io("flush", path))?;
    rustix::fs::fadvise(file, 0, None, Advice::DontNeed)
        .map_err(|e| LedgerError::io("read afresh", path)(e.into()))?;
    read_whole(file, path)
}

/// The first `len` bytes, or fewer if the file is shorter.
pub(crate) fn read_start(file: &File, path: &Path, len: usize) -> Result<Vec<u8>, LedgerError> {
    let failed = LedgerError::io("read", path);
    let read = || -> std::io::Result<Vec<u8>> {
        let have = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(have)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(failed)
}

/// The whole file.
pub(crate) fn read_whole(file: &File, path: &Path) -> Result<Vec<u8>, LedgerError> {
    let failed = LedgerError::io("read", path);
    let read = || -> std::io::Result<Vec<u8>> {
        let len = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(failed)
}

/// The files in `dir` named by eight digits and `extension`, by number, and
/// the unfinished ones that a crash left behind.
pub(crate) struct Numbered {
    pub(crate) files: Vec<(u32, PathBuf)>,
    pub(crate) unfinished: Vec<PathBuf>,
}

impl Numbered {
    pub(crate) fn list(dir: &Path, extension: &str) -> Result<Self, LedgerError> {
        let failed = |e| LedgerError::io("list the folder", dir)(e);
        let mut found = Self {
            files: Vec::new(),
            unfinished: Vec::new(),
        };
        for item in fs::read_dir(dir).map_err(failed)? {
            let item = item.map_err(failed)?;
            let name = item.file_name();
            let Some(name) = name.to_str() else { continue };
            let (stem, finished) = match name.strip_suffix(".tmp") {
                Some(stem) => (stem, false),
                None => (name, true),
            };
            let number = stem
                .strip_suffix(extension)
                .and_then(|s| s.strip_suffix('.'))
                .filter(|digits| digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok());
            match number {
                Some(number) if finished => found.files.push((number, item.path())),
                Some(_) => found.unfinished.push(item.path()),
                None => {}
            }
        }
        found.files.sort();
        Ok(found)
    }

    /// Removes what was never finished: it never had its final name.
    pub(crate) fn remove_unfinished(&self) -> Result<(), LedgerError> {
        for path in &self.unfinished {
            fs::remove_file(path).map_err(LedgerError::io("remove", path))?;
        }
        Ok(())
    }
}

/// The path of a numbered file.
pub(crate) fn numbered(dir: &Path, number: u32, extension: &str) -> PathBuf {
    dir.join(format!("{number:08}.{extension}"))
}

/// Keeps a folder for one process. Two hubds on one ledger would each write
/// their own chain over the other's.
#[derive(Debug)]
pub struct DataLock {
    // The lock ends with the descriptor, also when the process is killed.
    pub(super) dir: File,
}

impl Drop for DataLock {
    /// By name: a program that another thread is just starting has a copy of
    /// the descriptor for a moment, and would keep the lock for as long.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.dir, FlockOperation::Unlock);
    }
}

impl DataLock {
    /// Takes the folder, or says at once that another process has it.
    ///
    /// # Errors
    /// [`LedgerError::Locked`], or [`LedgerError::Io`] when the folder cannot
    /// be opened.
    pub fn acquire(dir: &Path) -> Result<Self, LedgerError> {
        let file = File::open(dir).map_err(LedgerError::io("open the folder", dir))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { dir: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LedgerError::Locked {
                path: dir.to_path_buf(),
            }),
            Err(error) => Err(LedgerError::io("lock the folder", dir)(error.into())),
        }
    }
}
