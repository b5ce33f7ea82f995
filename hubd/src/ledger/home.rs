//! Whether an outage of which the ledger tells is still the one that the hub
//! is in, or the ledger may have been elsewhere meanwhile.
//!
//! A hub whose process is started again knows that what was queued in an outage
//! has not left. A copy of the ledger made in that outage and put back after it
//! knows nothing of the kind; nor does a machine that was off, since somebody
//! may have thought it lost and gone on with a copy (ADR 0023). So there is a
//! file `home` in the ledger's folder while an outage lasts, and only then: it
//! names the entry with which the outage began, the machine's boot, and its own
//! place on the disk, inode and time of birth. It is removed before anything
//! leaves. A file that was copied has another place; one that was left where it
//! was, under older segments, names another outage.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use super::error::LedgerError;

/// The file's name in the ledger's folder.
pub const HOME: &str = "home";

/// The ledger's folder, for what is kept there of an outage.
#[derive(Clone, Debug)]
pub struct Home {
    folder: PathBuf,
    /// The machine's present boot, as the kernel names it; without it nothing
    /// is believed.
    boot: Option<String>,
}

/// Where systemd names the boot to the hub, whose unit does not see the file
/// below: `%b`.
const BOOT_NAMED: &str = "HUBD_BOOT";

/// Where Linux names it (random(4)).
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The boot, 32 hexadecimal digits.
fn boot() -> Option<String> {
    let named = std::env::var(BOOT_NAMED)
        .or_else(|_| fs::read_to_string(BOOT))
        .ok()?;
    let digits: String = named.chars().filter(char::is_ascii_hexdigit).collect();
    (digits.len() == 32).then_some(digits)
}

impl Home {
    /// Of the ledger in this folder.
    pub fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            boot: boot(),
        }
    }

    /// Whether the outage that began with this entry has lasted since, as far
    /// as the files can tell.
    pub fn is_in_outage_since(&self, sequence: u64) -> bool {
        let path = self.folder.join(HOME);
        File::open(&path)
            .and_then(|file| Ok(fs::read_to_string(&path)? == self.content(&file, sequence)?))
            .unwrap_or(false)
    }

    /// An outage has begun with this entry, which is on disk.
    ///
    /// # Errors
    /// The system's refusal. It costs nothing but the knowledge of what has
    /// never left.
    pub fn outage_begins(&self, sequence: u64) -> Result<(), LedgerError> {
        let (path, new) = (self.folder.join(HOME), self.folder.join("home.new"));
        // Another file than any before, whatever a crash has left.
        let _ = fs::remove_file(&new);
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&new)?;
            let content = self.content(&file, sequence)?;
            file.write_all(content.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        })();
        written.map_err(LedgerError::io("write", &path))?;
        self.flush()
    }

    /// What waits may leave from now on.
    ///
    /// # Errors
    /// The system's refusal: nothing may leave then.
    pub fn outage_ends(&self) -> Result<(), LedgerError> {
        let path = self.folder.join(HOME);
        match fs::remove_file(&path) {
            Ok(()) => self.flush(),
            // Removed by a process that may have stopped before its flush.
            Err(error) if error.kind() == ErrorKind::NotFound => self.flush(),
            Err(error) => Err(LedgerError::io("remove", &path)(error)),
        }
    }

    /// The outage, the boot, and which file this is among all that this file
    /// system ever had.
    fn content(&self, file: &File, sequence: u64) -> std::io::Result<String> {
        let boot = self.boot.as_deref().ok_or(ErrorKind::NotFound)?;
        let metadata = file.metadata()?;
        // Where a file system tells none, an inode that is used again would
        // pass for the same file: nothing is believed.
        let born = metadata.created()?;
        let born = born.duration_since(UNIX_EPOCH).map_err(std::io::Error::other)?;
        let born = born.as_nanos();
        let inode = metadata.ino();
        Ok(format!(
            "outage since entry {sequence}\nboot {boot}\ninode {inode}\nborn {born}\n"
        ))
    }

    fn flush(&self) -> Result<(), LedgerError> {
        File::open(&self.folder)
            .and_then(|folder| folder.sync_all())
            .map_err(LedgerError::io("flush the folder", &self.folder))
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn run(command: &str, arguments: &[&Path]) {
        let mut command = Command::new(command);
        assert!(command.arg("-a").args(arguments).status().unwrap().success());
    }

    #[test]
    fn an_outage_lasts_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::of(dir.path());
        assert!(!home.is_in_outage_since(7), "nobody has said so");
        home.outage_begins(7).unwrap();
        assert!(home.is_in_outage_since(7) && !home.is_in_outage_since(8));
        let moved = dir.path().with_extension("moved");
        fs::rename(dir.path(), &moved).unwrap();
        assert!(Home::of(&moved).is_in_outage_since(7), "no copy");
        fs::rename(&moved, dir.path()).unwrap();
        home.outage_ends().unwrap();
        assert!(!home.is_in_outage_since(7));
        home.outage_ends().unwrap();
        fs::write(dir.path().join("home.new"), "left by a crash").unwrap();
        home.outage_begins(9).unwrap();
        assert!(home.is_in_outage_since(9) && !home.is_in_outage_since(7));
        fs::write(dir.path().join(HOME), "").unwrap();
        assert!(!home.is_in_outage_since(9), "damaged");
    }

    #[test]
    fn the_unit_names_the_boot_that_it_hides() {
        let unit = include_str!("../../../systemd/hubd.service");
        assert!(unit.contains("\nProcSubset=pid\n"));
        assert!(unit.contains(&format!("\nEnvironment={BOOT_NAMED}=%b\n")));
        assert_eq!(boot().map(|boot| boot.len()), Some(32));
    }

    #[test]
    fn rule_3_a_machine_that_was_off_may_have_been_thought_lost() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::of(dir.path());
        home.outage_begins(7).unwrap();
        assert!(Home::of(dir.path()).is_in_outage_since(7), "another process");
        let boot = Some("67f6d3ca000040008000000000000000".to_owned());
        let later = Home { boot, ..home.clone() };
        assert!(!later.is_in_outage_since(7), "another boot");
        let unknown = Home { boot: None, ..home };
        assert!(!unknown.is_in_outage_since(7));
        assert!(unknown.outage_begins(8).is_err());
    }

    #[test]
    fn rule_3_a_copy_that_was_put_back_is_in_no_outage_wherever_it_is_put() {
        let dir = tempfile::tempdir().unwrap();
        let [live, backup, other] = ["live", "backup", "other"].map(|name| dir.path().join(name));
        fs::create_dir(&live).unwrap();
        let home = Home::of(&live);
        home.outage_begins(7).unwrap();
        run("cp", &[&live, &backup]);
        assert!(home.is_in_outage_since(7), "it is still the ledger itself");
        run("cp", &[&backup, &other]);
        assert!(!Home::of(&other).is_in_outage_since(7), "in another folder");
        // The outage ends, and perhaps another begins.
        for again in [false, true] {
            home.outage_ends().unwrap();
            if again {
                home.outage_begins(12).unwrap();
            }
            let inside = backup.join(".");
            run("cp", &[&inside, &live]);
            assert!(
                !home.is_in_outage_since(7),
                "written over in place, again {again}"
            );
            // Segments alone: the file stays, and names another outage.
            home.outage_begins(12).unwrap();
            assert!(!home.is_in_outage_since(7), "again {again}");
        }
    }
}
