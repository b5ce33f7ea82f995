//! Deliberate faults as patches of a copy of the source, so that the source
//! itself stays clean.

use std::fs;
use std::io;
use std::path::Path;

/// One change of one file.
#[derive(Clone, Copy, Debug)]
pub struct Patch<'a> {
    /// The file, from the project's folder.
    pub file: &'a str,
    /// Text that stands there exactly once.
    pub find: &'a str,
    /// What stands there instead.
    pub put: &'a str,
}

impl Patch<'_> {
    /// How often its text stands in its file: once, if the list of patches
    /// has kept up with the code.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn count(&self, project: &Path) -> io::Result<usize> {
        let file = project.join(self.file);
        let sound = fs::read_to_string(&file)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file.display())))?;
        Ok(sound.matches(self.find).count())
    }

    /// Puts the fault into `copy`, which holds the project's sources.
    fn apply(&self, copy: &Path) -> io::Result<()> {
        let count = self.count(copy)?;
        if count != 1 {
            return Err(io::Error::other(format!(
                "its text stands {count} times in {}, not once; mend the list",
                self.file
            )));
        }
        let file = copy.join(self.file);
        let sound = fs::read_to_string(&file)?;
        fs::write(&file, sound.replacen(self.find, self.put, 1))
    }
}

/// Does `work` while `patches` stand in `copy`, and takes them out again.
///
/// # Errors
/// A text that does not stand exactly once; files that cannot be read or
/// written.
pub fn with<T>(
    project: &Path,
    copy: &Path,
    patches: &[Patch<'_>],
    work: impl FnOnce() -> T,
) -> io::Result<T> {
    let applied = patches.iter().try_for_each(|patch| patch.apply(copy));
    let done = applied.map(|()| work());
    for patch in patches {
        mirror(&project.join(patch.file), &copy.join(patch.file), &|_| false)?;
    }
    done
}

/// Makes `to` the same as `from`, a file or a folder, without what `skipped`
/// says. Files that are the same already are not written, so that whatever
/// was built from them counts as built.
///
/// # Errors
/// Files that cannot be read, written or removed.
pub fn mirror(from: &Path, to: &Path, skipped: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    if !from.is_dir() {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let same = to.is_file() && fs::read(from)? == fs::read(to)?;
        return if same {
            Ok(())
        } else {
            fs::copy(from, to).map(|_| ())
        };
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if !skipped(&entry.path()) {
            mirror(&entry.path(), &to.join(entry.file_name()), skipped)?;
        }
    }
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let source = from.join(entry.file_name());
        if source.exists() && !skipped(&source) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
