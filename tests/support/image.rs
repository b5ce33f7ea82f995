//! A small file system of the test's own, in a file, to be filled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::output;

/// Which file system: the two that hubd is for.
#[derive(Clone, Copy, Debug)]
pub enum FileSystem {
    /// As Debian installs it.
    Ext4,
    /// The other one with blocks that are written in place.
    Xfs,
}

impl FileSystem {
    const fn maker(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
        }
    }
}

/// Why a file system cannot be made and mounted here, if so.
fn missing(file_system: FileSystem) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root".to_owned());
    }
    let has = |program: &str| Command::new(program).arg("-V").output().is_ok();
    let maker = file_system.maker();
    (!has("losetup") || !has(maker)).then(|| format!("needs losetup and {maker}"))
}

/// Prints the one line and says whether to skip. In CI nothing is skipped.
#[allow(clippy::print_stdout, clippy::panic)] // the line is for whoever runs the tests
pub fn skip(suite: &str, file_system: FileSystem) -> bool {
    let Some(why) = missing(file_system) else {
        return false;
    };
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!ci, "{suite}: {why}, and in CI nothing is skipped");
    println!("skipped: {suite}: {why}");
    true
}

/// A mounted file system; taken down when dropped.
pub struct Image {
    mount: PathBuf,
}

impl Image {
    /// Makes one of `mib` MiB in `dir`; xfs wants 300 at least.
    pub fn new(dir: &Path, file_system: FileSystem, mib: u64) -> Result<Self> {
        let (file, mount) = (dir.join("disk.img"), dir.join("disk"));
        fs::File::create(&file)?.set_len(mib << 20)?;
        fs::create_dir(&mount)?;
        let mut make = Command::new(file_system.maker());
        make.arg("-q");
        // No blocks for root alone: the hub of a shop is not root.
        if let FileSystem::Ext4 = file_system {
            make.args(["-m", "0"]);
        }
        output(make.arg(&file))?;
        output(Command::new("mount").args(["-o", "loop"]).arg(&file).arg(&mount))?;
        Ok(Self { mount })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// What is free, in bytes.
    pub fn free(&self) -> Result<u64> {
        let stat = rustix::fs::statvfs(&self.mount)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn filler(&self) -> PathBuf {
        self.mount.join("somebody-elses-file")
    }

    /// Lets somebody else take room until so many bytes are left.
    pub fn leave(&self, bytes: u64) -> Result<()> {
        let file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler())?;
        // What the file system needs for itself differs from try to try.
        for _ in 0..64 {
            let len = file.metadata()?.len();
            let more = self.free()?.saturating_sub(bytes);
            if more < 4096 {
                break;
            }
            let flags = rustix::fs::FallocateFlags::empty();
            if rustix::fs::fallocate(&file, flags, len, more).is_err() {
                // A last rest that cannot be had in one piece.
                let _ = rustix::fs::fallocate(&file, flags, len, more / 2);
            }
        }
        Ok(())
    }

    /// Gives all of it back.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(self.filler()).context("nothing was taken")
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The processes on it have ended; lazily, should one linger.
        let _ = Command::new("umount").arg("-l").arg(&self.mount).output();
    }
}
