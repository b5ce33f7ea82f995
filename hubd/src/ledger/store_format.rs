//! The format of the store as a whole: one number in the file `format`.
//!
//! Segments, vault files and index say their own formats. This number says
//! which of them may be met together, and so which program may open the
//! store. A store without the file is of format 1, which had none.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Deserialize;

use super::disk;
use super::error::LedgerError;

/// The format that this program writes, and the newest it opens.
///
/// 1: journal, index and vault, without this file. 2: the file and the
/// reserve; a journal may hold segments of journal format 1 and 2. 3: the index keeps
/// payments and cards in tables.
pub const STORE_FORMAT: u16 = 3;

#[derive(Deserialize)]
struct Stamp {
    format: u16,
    #[serde(default)]
    written_by: Option<String>,
}

/// The format of the store whose stamp is `path`; `None` if it has no stamp.
///
/// # Errors
/// [`LedgerError::NewerStore`] for a format that this program does not know,
/// [`LedgerError::Stamp`] for a file that is no stamp.
pub fn read_store_format(path: &Path) -> Result<Option<u16>, LedgerError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LedgerError::io("read", path)(error)),
    };
    let stamp: Stamp = toml::from_str(&text).map_err(|_| LedgerError::Stamp { path: path.into() })?;
    match stamp.format {
        0 => Err(LedgerError::Stamp { path: path.into() }),
        found if found > STORE_FORMAT => Err(LedgerError::NewerStore {
            path: path.into(),
            found,
            written_by: stamp.written_by.unwrap_or_else(|| "a newer version".to_owned()),
        }),
        found => Ok(Some(found)),
    }
}

/// Stamps a store with the format of this program, durably and as a whole.
///
/// # Errors
/// The system's refusal.
pub fn write_store_format(path: &Path) -> Result<(), LedgerError> {
    let text = format!(
        "# The format of this store. hubd reads it before anything else; do not edit.\n\
         format = {STORE_FORMAT}\nwritten_by = \"{}\"\n",
        env!("CARGO_PKG_VERSION")
    );
    let new = path.with_extension("new");
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o644)
            .open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    written.map_err(LedgerError::io("write", path))?;
    match path.parent() {
        Some(dir) => disk::sync_dir(dir),
        None => Ok(()),
    }
}

/// Makes the new names in a folder durable, for whoever renames beside the
/// store's own files.
///
/// # Errors
/// The system's refusal.
pub fn sync_folder(dir: &Path) -> Result<(), LedgerError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(LedgerError::io("flush the folder", dir))
}
