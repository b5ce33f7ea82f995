//! Disks that lose power, and disks that fail.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A sparse file of this size holds one file system: xfs takes no less than
/// 300 MB.
const IMAGE_BYTES: u64 = 384 << 20;

/// A file system to lose power on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum FileSystem {
    /// As `mkfs.ext4` makes it: data is not journalled.
    Ext4,
    /// As `mkfs.xfs` makes it.
    Xfs,
}

impl FileSystem {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }
}

/// A file system in a file, mounted while this lives.
pub(crate) struct Image {
    fs: FileSystem,
    file: PathBuf,
    mount: PathBuf,
    mounted: bool,
}

impl Image {
    /// Makes and mounts it below `dir`.
    pub(crate) fn make(dir: &Path, fs: FileSystem) -> Result<Self> {
        let file = dir.join(format!("{}.img", fs.name()));
        let mount = dir.join("disk");
        fs::create_dir(&mount).with_context(|| format!("cannot make {}", mount.display()))?;
        File::create(&file)
            .and_then(|image| image.set_len(IMAGE_BYTES))
            .with_context(|| format!("cannot make {}", file.display()))?;
        match fs {
            FileSystem::Ext4 => run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(&file))?,
            FileSystem::Xfs => run(Command::new("mkfs.xfs").args(["-q", "-f"]).arg(&file))?,
        }
        let mut image = Self {
            fs,
            file,
            mount,
            mounted: false,
        };
        image.mount()?;
        Ok(image)
    }

    /// Which file system it is.
    pub(crate) fn name(&self) -> &'static str {
        self.fs.name()
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount
    }

    /// The power is gone (`FS_IOC_SHUTDOWN`): from here on nothing reaches
    /// the disk, and what was not flushed is lost. With `log_flushed`, the
    /// file system's own log gets out first, which keeps names and lengths of
    /// files whose data is lost.
    pub(crate) fn cut(&self, log_flushed: bool) -> Result<()> {
        let how = if log_flushed { "shutdown -f" } else { "shutdown" };
        run(Command::new("xfs_io").args(["-x", "-c", how]).arg(&self.mount))
    }

    /// The power is back: the file system is mounted afresh, and so repairs
    /// itself by its log. Nobody may use it meanwhile.
    pub(crate) fn restore(&mut self) -> Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> Result<()> {
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&self.file)
            .arg(&self.mount))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<()> {
        // A process that has just been killed may hold a file for a moment.
        let mut tries = 0;
        while let Err(error) = run(Command::new("umount").arg(&self.mount)) {
            tries += 1;
            if tries == 50 {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily, so that it goes whoever still uses it.
            let _ = Command::new("umount").arg("-l").arg(&self.mount).output();
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !done.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// What a failing disk does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Failure {
    /// A flush fails and the data is on the disk all the same.
    FlushKeepingData,
    /// A flush fails and the data is gone.
    FlushDroppingData,
    /// A write fails.
    Write,
    /// A write finds the disk full.
    Full,
    /// Flushes do nothing and say that they did. No hub can stand that: it
    /// shows that a run finds what is lost.
    Lie,
}

impl Failure {
    /// As `failing_disk.c` reads it.
    fn order(self, count: u64) -> String {
        let (call, error) = match self {
            Self::FlushKeepingData => ("keep", rustix::io::Errno::IO),
            Self::FlushDroppingData => ("drop", rustix::io::Errno::IO),
            Self::Write => ("write", rustix::io::Errno::IO),
            Self::Full => ("write", rustix::io::Errno::NOSPC),
            Self::Lie => ("lie", rustix::io::Errno::IO),
        };
        format!("{call} {count} {}\n", error.raw_os_error())
    }
}

/// A disk that fails on order: a library that is loaded into the hub before
/// the system's own.
pub(crate) struct FailingDisk {
    order: PathBuf,
}

impl FailingDisk {
    /// Compiles it into `dir`. Returns it, and a program that runs `hubd`
    /// with it.
    pub(crate) fn make(dir: &Path, hubd: &Path) -> Result<(Self, PathBuf)> {
        let (source, library) = (dir.join("failing_disk.c"), dir.join("failing_disk.so"));
        fs::write(&source, include_str!("failing_disk.c"))?;
        run(Command::new("cc")
            .args(["-O1", "-Wall", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source)
            .args(["-ldl", "-lpthread"]))?;
        let order = dir.join("order");
        let program = dir.join("hubd");
        let text = format!(
            "#!/bin/sh\nexec env LD_PRELOAD='{}' HUB_DISK_ORDER='{}' '{}' \"$@\"\n",
            library.display(),
            order.display(),
            hubd.display()
        );
        fs::write(&program, text)?;
        let owner = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(&program, owner)?;
        Ok((Self { order }, program))
    }

    /// The `count`th call from now on fails.
    pub(crate) fn fail(&self, failure: Failure, count: u64) -> Result<()> {
        let new = self.order.with_extension("new");
        fs::write(&new, failure.order(count))?;
        // Whole or not at all: it is read while it is written.
        Ok(fs::rename(new, &self.order)?)
    }

    /// The disk is as good as new.
    pub(crate) fn mend(&self) -> Result<()> {
        match fs::remove_file(&self.order) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
