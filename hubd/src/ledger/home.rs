//! Whether the ledger's folder is the one that the hub wrote last, or a copy
//! of it that was put back.
//!
//! A hub that is started again knows that what was queued in an outage has not
//! left. A copy knows nothing of the kind: the hub may have sent it all since
//! the copy was made. The file `home` holds its own place on the disk, inode
//! and time of birth, which no copy of it has. Of an image of the whole disk it
//! cannot tell; who puts one back removes the file (docs/ledger.md).

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::LedgerError;

/// The file's name in the ledger's folder.
pub const HOME: &str = "home";

/// Where a ledger is at home.
#[derive(Debug)]
pub struct Home {
    folder: PathBuf,
    is_here: bool,
}

impl Home {
    /// Of the ledger in this folder. One whose file is missing or cannot be
    /// read is not at home.
    pub fn of(folder: &Path) -> Self {
        let is_here = read(&folder.join(HOME)).unwrap_or(false);
        Self {
            folder: folder.to_owned(),
            is_here,
        }
    }

    /// Whether the folder is the one that the hub wrote last.
    pub fn is_here(&self) -> bool {
        self.is_here
    }

    /// From now on this is home. Only once the ledger says of a copy that it
    /// is one.
    ///
    /// # Errors
    /// The system's refusal. It costs nothing but the knowledge of what has
    /// never left.
    pub fn settle(self) -> Result<(), LedgerError> {
        if self.is_here {
            return Ok(());
        }
        let (path, new) = (self.folder.join(HOME), self.folder.join("home.new"));
        // Another file than any before, whatever a crash has left.
        let _ = fs::remove_file(&new);
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            let place = place(&file)?;
            file.write_all(place.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        })();
        written.map_err(LedgerError::io("write", &path))?;
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(LedgerError::io("flush the folder", &self.folder))
    }
}

fn read(path: &Path) -> std::io::Result<bool> {
    let file = File::open(path)?;
    Ok(fs::read_to_string(path)? == place(&file)?)
}

/// Which file this is, among all that this file system ever had.
fn place(file: &File) -> std::io::Result<String> {
    let metadata = file.metadata()?;
    // Some file systems tell no birth; the inode is then all there is.
    let born = metadata
        .created()
        .ok()
        .and_then(|born| born.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |born| born.as_nanos());
    Ok(format!("inode {}\nborn {born}\n", metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn settled(folder: &Path) {
        Home::of(folder).settle().unwrap();
        assert!(Home::of(folder).is_here());
    }

    #[test]
    fn a_folder_is_at_home_until_it_is_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("ledger");
        fs::create_dir(&first).unwrap();
        assert!(!Home::of(&first).is_here(), "nobody has said so yet");
        settled(&first);
        settled(&first);
        let moved = dir.path().join("moved");
        fs::rename(&first, &moved).unwrap();
        assert!(Home::of(&moved).is_here(), "no copy");
        // Whichever way it was copied, and wherever it is put.
        let copy = |from: &Path, to: &Path| {
            let mut command = Command::new("cp");
            assert!(command.arg("-a").arg(from).arg(to).status().unwrap().success());
        };
        copy(&moved, &first);
        assert!(!Home::of(&first).is_here(), "a copy");
        settled(&first);
        fs::copy(moved.join(HOME), first.join(HOME)).unwrap();
        assert!(!Home::of(&first).is_here(), "written over in place");
    }

    #[test]
    fn a_damaged_or_missing_file_is_no_home_and_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        settled(dir.path());
        for content in ["", "inode 1\nborn 2\n"] {
            fs::write(dir.path().join(HOME), content).unwrap();
            assert!(!Home::of(dir.path()).is_here());
            fs::write(dir.path().join("home.new"), "left by a crash").unwrap();
            settled(dir.path());
        }
        fs::remove_file(dir.path().join(HOME)).unwrap();
        assert!(!Home::of(dir.path()).is_here());
    }
}
