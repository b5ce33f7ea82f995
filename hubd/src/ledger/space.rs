//! Room on the disk: how much there is, and the reserve.
//!
//! The reserve is a folder of files whose blocks are allocated and zero. When
//! the file system has no room for the next file of journal or vault, one of
//! them is given a header and a name: no block is asked for, so nobody else
//! can take the room in between. The disk is called full before that point,
//! so what the reserve takes in is what was accepted earlier: outcomes of
//! replay, voids, reversals. When there is room again the reserve is filled
//! up.
//!
//! Holds for file systems that write into allocated blocks in place (ext4,
//! xfs). One that copies on write keeps no promise of room to anybody.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub_protocol::entry::StorageLevel;

use super::disk::{self, Disk, Numbered};
use super::error::LedgerError;

/// How many files the reserve is made of.
const PARTS: u64 = 8;
const EXTENSION: &str = "room";
/// As many names as the hub may want while the disk is full.
const FEWEST_INODES: u64 = 64;

/// When there is enough room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceSettings {
    /// What is kept aside, in bytes.
    pub reserve_bytes: u64,
    /// Below this many free bytes a person is warned.
    pub low_bytes: u64,
    /// Below this many free bytes nothing more is approved offline: what the
    /// next files of journal, vault and index will want.
    pub full_bytes: u64,
}

/// What the disk has, as last looked at. Clones share it.
#[derive(Clone, Debug)]
pub struct Space(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    settings: SpaceSettings,
    parts: Mutex<Parts>,
    level: AtomicU16,
    free: AtomicU64,
}

#[derive(Debug, Default)]
struct Parts {
    files: Vec<PathBuf>,
    last_number: u32,
}

impl Space {
    /// Takes over or makes the reserve in `dir`, as large as the room allows,
    /// and looks how much room there is. A full disk is no error here.
    ///
    /// # Errors
    /// The system's refusal for another reason than missing room.
    pub fn open(dir: &Path, settings: SpaceSettings) -> Result<Self, LedgerError> {
        match disk::make_dir(dir) {
            Err(error) if !error.is_no_room() => return Err(error),
            _ => {}
        }
        let space = Self(Arc::new(Inner {
            dir: dir.into(),
            settings,
            parts: Mutex::default(),
            level: AtomicU16::new(StorageLevel::Enough.number()),
            free: AtomicU64::new(0),
        }));
        if dir.is_dir() {
            space.take_over()?;
        }
        space.look()?;
        Ok(space)
    }

    /// Parts of an earlier run, if they are as long as they should be and
    /// still empty: one that was being given away when the hub was killed has
    /// a header already.
    fn take_over(&self) -> Result<(), LedgerError> {
        let found = Numbered::list(&self.0.dir, EXTENSION)?;
        found.remove_unfinished()?;
        let mut parts = self.parts();
        for (number, path) in found.files {
            parts.last_number = parts.last_number.max(number);
            if self.is_usable(&path)? && (parts.files.len() as u64) < PARTS {
                parts.files.push(path);
            } else {
                fs::remove_file(&path).map_err(LedgerError::io("remove", &path))?;
            }
        }
        Ok(())
    }

    fn is_usable(&self, path: &Path) -> Result<bool, LedgerError> {
        let file = File::open(path).map_err(LedgerError::io("open", path))?;
        let metadata = file.metadata().map_err(LedgerError::io("examine", path))?;
        let start = disk::read_start(&file, path, 4096)?;
        Ok(metadata.len() == self.part_len()
            && metadata.blocks() * 512 >= self.part_len()
            && start.iter().all(|byte| *byte == 0))
    }

    fn part_len(&self) -> u64 {
        (self.0.settings.reserve_bytes / PARTS).max(1 << 20)
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the whole reserve is there.
    pub fn is_whole(&self) -> bool {
        self.parts().files.len() as u64 >= PARTS
    }

    /// What the reserve holds, in bytes.
    pub fn reserve_bytes(&self) -> u64 {
        self.parts().files.len() as u64 * self.part_len()
    }

    /// How much room there was when it was last looked at.
    pub fn level(&self) -> StorageLevel {
        StorageLevel::from_number(self.0.level.load(Ordering::Acquire)).unwrap_or(StorageLevel::Full)
    }

    /// What the file system had free, in bytes, beside the reserve.
    pub fn free_bytes(&self) -> u64 {
        self.0.free.load(Ordering::Acquire)
    }

    /// How many bytes may be used before the disk is called full, as last
    /// looked at.
    pub fn spare_bytes(&self) -> u64 {
        match self.level() {
            StorageLevel::Full => 0,
            _ => self.free_bytes().saturating_sub(self.0.settings.full_bytes),
        }
    }

    /// Looks again, and fills the reserve up if there is room for it. To be
    /// called about once a second.
    ///
    /// # Errors
    /// The system's refusal for another reason than missing room.
    pub fn look(&self) -> Result<StorageLevel, LedgerError> {
        self.fill()?;
        let (free, names) = self.measure()?;
        let level = self.judge(free, names);
        self.0.free.store(free, Ordering::Release);
        self.0.level.store(level.number(), Ordering::Release);
        Ok(level)
    }

    /// Once little or full, a bit more than the mark is wanted before it is
    /// called better, so that nobody is told of every block that comes and
    /// goes.
    fn judge(&self, free: u64, names: bool) -> StorageLevel {
        let SpaceSettings {
            low_bytes,
            full_bytes,
            ..
        } = self.0.settings;
        let before = self.level();
        let full = if before == StorageLevel::Full {
            full_bytes + full_bytes / 4
        } else {
            full_bytes
        };
        let low = if before == StorageLevel::Enough {
            low_bytes
        } else {
            low_bytes + low_bytes / 8
        };
        if free < full || !names || !self.is_whole() {
            StorageLevel::Full
        } else if free < low {
            StorageLevel::Low
        } else {
            StorageLevel::Enough
        }
    }

    /// Free bytes, and whether there are names left to give.
    fn measure(&self) -> Result<(u64, bool), LedgerError> {
        let at = self.0.dir.parent().filter(|_| !self.0.dir.is_dir());
        let at = at.unwrap_or(&self.0.dir);
        let stat = rustix::fs::statvfs(at).map_err(|e| LedgerError::io("examine", at)(e.into()))?;
        // Some file systems have no fixed number of inodes and say 0.
        let names = stat.f_files == 0 || stat.f_favail >= FEWEST_INODES;
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), names))
    }

    fn fill(&self) -> Result<(), LedgerError> {
        let wanted = self.part_len() + self.0.settings.full_bytes * 5 / 4;
        while !self.is_whole() && self.measure()?.0 >= wanted {
            match self.add_part() {
                Ok(()) => {}
                Err(error) if error.is_no_room() => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn add_part(&self) -> Result<(), LedgerError> {
        let mut parts = self.parts();
        if !self.0.dir.is_dir() {
            disk::make_dir(&self.0.dir)?;
        }
        let number = parts.last_number + 1;
        let path = disk::numbered(&self.0.dir, number, EXTENSION);
        Disk::default().create(&path, &[], self.part_len())?;
        parts.last_number = number;
        parts.files.push(path);
        Ok(())
    }

    /// Makes a file out of a part of the reserve: `head` in front, zeros
    /// behind, durable under the name `path`. `None` if no part is left or
    /// none has `least` bytes.
    pub(crate) fn give(&self, path: &Path, head: &[u8], least: u64) -> Result<Option<File>, LedgerError> {
        let mut parts = self.parts();
        if self.part_len() < least {
            return Ok(None);
        }
        let Some(part) = parts.files.pop() else {
            return Ok(None);
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&part)
            .map_err(LedgerError::io("open", &part))?;
        let writer = Disk::default();
        writer.write(&file, &part, head, 0)?;
        file.sync_all().map_err(LedgerError::io("flush", &part))?;
        match fs::rename(&part, path) {
            Ok(()) => {}
            // Another file system: its room is not ours to give.
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                fs::remove_file(&part).map_err(LedgerError::io("remove", &part))?;
                return Ok(None);
            }
            Err(error) => return Err(LedgerError::io("name", path)(error)),
        }
        if let Some(dir) = path.parent() {
            disk::sync_dir(dir)?;
        }
        disk::sync_dir(&self.0.dir)?;
        tracing::warn!(
            file = %path.display(),
            left = parts.files.len(),
            "the disk is full: a file was made out of the reserve"
        );
        Ok(Some(file))
    }

    /// Gives a part back to the file system, for what cannot be made out of
    /// one: the index's first writes at a start. Returns whether there was
    /// one.
    ///
    /// # Errors
    /// The system's refusal.
    pub fn give_back(&self) -> Result<bool, LedgerError> {
        let Some(part) = self.parts().files.pop() else {
            return Ok(false);
        };
        fs::remove_file(&part).map_err(LedgerError::io("remove", &part))?;
        disk::sync_dir(&self.0.dir)?;
        Ok(true)
    }
}
