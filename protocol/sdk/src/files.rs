//! Small files for the device alone.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::SdkError;

/// Writes a file that only its owner reads (0600), whole or not at all.
pub(crate) fn write_private(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), SdkError> {
    let path = dir.join(name);
    let failed = |source| SdkError::File {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(dir).map_err(failed)?;
    let draft = dir.join(format!(".{name}.new"));
    let written = (|| -> io::Result<()> {
        // A draft left behind may have another mode.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, &path)?;
        // The new name, too, must outlive a power cut.
        #[cfg(unix)]
        fs::File::open(dir)?.sync_all()?;
        Ok(())
    })();
    written.map_err(failed)
}

/// Reads a file of [`write_private`].
pub(crate) fn read(dir: &Path, name: &str) -> Result<(PathBuf, Vec<u8>), SdkError> {
    let path = dir.join(name);
    match fs::read(&path) {
        Ok(bytes) => Ok((path, bytes)),
        Err(source) => Err(SdkError::File { path, source }),
    }
}
