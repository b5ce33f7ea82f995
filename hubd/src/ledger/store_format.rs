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
/// payments and cards in tables. 4: entries of refunds, staff, scores,
/// descriptions, anomalies, allowances, fleets and lists of devices, which an older program takes for
/// damage. 5: entries, index and vault are encrypted under the store's data key. 6: changes of devices'
/// keys with their proof, and recovery keys. 7: payments that a person has closed, and how an acquirer knows
/// payments. 8: closures of days, months and years. Rises with everything that an entry can newly hold.
pub const STORE_FORMAT: u16 = 8;

/// The oldest format whose files lie as today's do: a store from this one on
/// is stamped anew and not migrated.
pub const SAME_FILES_SINCE: u16 = 3;

/// The oldest format whose stores have a data key.
pub const ENCRYPTED_SINCE: u16 = 5;

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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use hub_protocol::Digest;

    use super::super::INDEX_FORMAT;
    use super::STORE_FORMAT;

    /// The newest format, and the start of SHA-256 over what its entries can
    /// hold.
    const WRITTEN_BY: (u16, &str) = (8, "fc799dc3939b19ac");

    /// What an entry can hold, by the protocol's document: every CDDL rule
    /// that `stored-entry` leads to, without comments and white space.
    fn what_an_entry_can_hold() -> String {
        let document = include_str!("../../../docs/protocol.md");
        let blocks = document.split("```cddl").skip(1);
        let mut rules: BTreeMap<&str, String> = BTreeMap::new();
        for block in blocks {
            let mut name = "";
            for line in block.split("```").next().unwrap_or_default().lines() {
                if let Some((left, _)) = line.split_once(" =")
                    && !left.starts_with(' ')
                {
                    name = left.split('<').next().unwrap_or(left);
                }
                let said = line.split(';').next().unwrap_or_default();
                let rule = rules.entry(name).or_default();
                for word in said.split_whitespace() {
                    rule.push_str(word);
                    rule.push(' ');
                }
            }
        }
        let mut wanted = vec!["stored-entry"];
        let mut found = BTreeSet::new();
        while let Some(name) = wanted.pop() {
            if found.insert(name) {
                let text = &rules[name];
                let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
                let named: BTreeSet<&str> = words.collect();
                wanted.extend(rules.keys().filter(|rule| named.contains(**rule)));
            }
        }
        found
            .iter()
            .map(|name| format!("{name}:{}\n", rules[name]))
            .collect()
    }

    #[test]
    fn the_format_rises_with_everything_that_an_entry_can_newly_hold() {
        let holds = what_an_entry_can_hold();
        for rule in [
            "payment-request:",
            "reason:",
            "park-reason:",
            "allowance:",
            "score-factor:",
        ] {
            assert!(holds.contains(rule), "{rule} in {holds}");
        }
        let digest = Digest::of(holds.as_bytes()).to_string();
        assert_eq!(
            WRITTEN_BY,
            (STORE_FORMAT, &digest[..16]),
            "entries can hold something new, which an older hubd takes for damage: \
             raise STORE_FORMAT and add a store of it to tests/fixtures, unless no store of {STORE_FORMAT} is there yet"
        );
    }

    #[test]
    fn the_document_says_todays_formats() {
        let document = include_str!("../../../docs/ledger.md");
        for said in [
            format!("\n| {STORE_FORMAT} | "),
            format!("by hand: `format = {STORE_FORMAT}`"),
            format!("has a format of its own, {INDEX_FORMAT} today"),
        ] {
            assert!(document.contains(&said), "docs/ledger.md does not say {said}");
        }
    }
}
