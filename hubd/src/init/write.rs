//! Writes new files, durably, and never over old ones.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use super::InitError;
use crate::config::Layout;

pub(super) struct Writer {
    folders: Vec<PathBuf>,
    made: Vec<PathBuf>,
    /// Root prepares a folder that belongs to the daemon's user: the files
    /// must belong to that user too, or the daemon could not read its keys.
    owner: Option<(u32, u32)>,
}

impl Writer {
    /// Makes the folders, 0700.
    pub(super) fn open(layout: &Layout) -> Result<Self, InitError> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700).recursive(true);
        builder
            .create(&layout.dir)
            .map_err(|source| failed(&layout.dir, source))?;
        let metadata = layout
            .dir
            .metadata()
            .map_err(|source| failed(&layout.dir, source))?;
        let own = rustix::process::geteuid().as_raw();
        let owner = (own == 0 && metadata.uid() != 0).then(|| (metadata.uid(), metadata.gid()));
        builder
            .recursive(false)
            .create(&layout.keys)
            .map_err(|source| failed(&layout.keys, source))?;
        let writer = Self {
            folders: vec![layout.keys.clone(), layout.dir.clone()],
            made: Vec::new(),
            owner,
        };
        writer.hand_over(&layout.keys)?;
        Ok(writer)
    }

    /// A file that only its owner may read.
    pub(super) fn secret(&mut self, path: &Path, text: &str) -> Result<(), InitError> {
        self.write(path, text.as_bytes(), 0o600)
    }

    /// Any other file.
    pub(super) fn plain(&mut self, path: &Path, bytes: &[u8]) -> Result<(), InitError> {
        self.write(path, bytes, 0o644)
    }

    fn write(&mut self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), InitError> {
        let result = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)
            .and_then(|mut file| {
                file.write_all(bytes)?;
                file.sync_all()
            });
        result.map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => InitError::Exists(path.to_owned()),
            _ => failed(path, source),
        })?;
        self.hand_over(path)?;
        self.made.push(path.to_owned());
        Ok(())
    }

    fn hand_over(&self, path: &Path) -> Result<(), InitError> {
        match self.owner {
            Some((user, group)) => {
                chown(path, Some(user), Some(group)).map_err(|source| failed(path, source))
            }
            None => Ok(()),
        }
    }

    /// Makes the folders' entries durable and lists the files.
    pub(super) fn finish(self) -> Result<Vec<PathBuf>, InitError> {
        for folder in &self.folders {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(|source| failed(folder, source))?;
        }
        Ok(self.made)
    }
}

fn failed(path: &Path, source: std::io::Error) -> InitError {
    InitError::Write {
        path: path.to_owned(),
        source,
    }
}
