//! Keys that the service manager supplies: hubd reads them, and can neither
//! replace nor destroy them.

use std::path::Path;

use crate::config;

/// Whether the key at `present` is a credential and the one to follow it is
/// none. A file cannot take a credential's place: the next start would read
/// the old key, and refuse it.
pub(super) fn is_alone(present: &Path, next: &Path) -> bool {
    config::is_credential(present) && !config::is_credential(next)
}

/// Whether hubd leaves the files of a key as they are behind its change: one
/// of the two is the operator's to put in its place.
pub(super) fn keeps_files(present: &Path, next: &Path) -> bool {
    config::is_credential(present) || config::is_credential(next)
}

/// What to do where a credential [is alone](is_alone). `keygen` makes such a
/// key.
pub(super) fn advice(next: &Path, keygen: &str) -> String {
    let name = next.file_name().unwrap_or_default().to_string_lossy();
    let (make, clear) = match next.exists() {
        true => (String::new(), next.display().to_string()),
        false => {
            let clear = format!("/run/{name}");
            (format!("`{keygen} {clear}`, "), clear)
        }
    };
    format!(
        "{make}`systemd-creds encrypt --name={name} {clear} /etc/credstore.encrypted/{name}`, `shred -u {clear}`, \
         LoadCredentialEncrypted={name} in the unit, restart hubd, and give this command again (docs/keys.md)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_the_key_that_lies_there_or_how_one_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let next = dir.path().join("hub-tls.next.key");
        let made = advice(&next, "hubctl keygen --tls");
        assert!(
            made.starts_with("`hubctl keygen --tls /run/hub-tls.next.key`, `systemd-creds encrypt --name=hub-tls.next.key /run/"),
            "{made}"
        );
        std::fs::write(&next, "").unwrap();
        let there = advice(&next, "hubctl keygen --tls");
        assert!(there.starts_with("`systemd-creds encrypt "), "{there}");
        assert!(
            there.contains(&format!("`shred -u {}`", next.display())),
            "{there}"
        );
    }
}
