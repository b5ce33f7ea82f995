//! Whose a secret may be.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The user who may read and write everything anyway.
const ROOT: u32 = 0;

/// Whether a secret is known to nobody but who should know it, by who owns it:
/// the owner of a file can read and change it whatever its mode says, and give
/// it any other.
///
/// Root looks after the files of a hub that runs as a user of its own, and
/// reads what belongs to that: to the owner of one of these `folders`.
fn may_own(owner: u32, reader: u32, folders: &[u32]) -> bool {
    owner == ROOT || owner == reader || (reader == ROOT && folders.contains(&owner))
}

/// Checks the owner of a secret that this process reads, of the hub whose
/// folder is `hub` if it is one's.
pub(super) fn check(path: &Path, file: &Metadata, hub: Option<&Path>) -> Result<(), String> {
    let reader = rustix::process::geteuid().as_raw();
    let folders = path.parent().into_iter().chain(hub);
    let folders: Vec<u32> = folders
        .filter_map(|folder| Some(folder.metadata().ok()?.uid()))
        .collect();
    if may_own(file.uid(), reader, &folders) {
        return Ok(());
    }
    Err(format!(
        "belongs to user {}, who can read and change it: put one in its place that nobody else has had, and give it \
         to whoever runs this: chown {reader} {}",
        file.uid(),
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_belongs_to_root_or_its_reader_and_for_root_to_the_hubs_user() {
        let (hub, stranger) = (990, 1_000);
        for (owner, reader, folders, may) in [
            (ROOT, hub, &[hub][..], true),
            (hub, hub, &[hub], true),
            (stranger, hub, &[hub], false),
            // Whose the folder is, counts for root alone.
            (stranger, hub, &[stranger], false),
            (ROOT, ROOT, &[stranger], true),
            (hub, ROOT, &[hub, ROOT], true),
            (stranger, ROOT, &[hub, ROOT], false),
        ] {
            assert_eq!(
                may_own(owner, reader, folders),
                may,
                "{owner} {reader} {folders:?}"
            );
        }
    }
}
