//! `hubctl ledger archive`: on the hub's folder or on copied files; what
//! changes something, through the running hub, which writes it down.

use std::path::{Path, PathBuf};

use hub_protocol::{ArchiveManifest, Digest};
use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::ledger::{contents, place, seal, unreadable};
use super::output::{Output, table};
use super::policy::public_key;
use super::show::{Language, amount, instant};
use super::totals::{ShownTotals, columns};
use crate::admin::protocol::{Answer, Request, StatusReport};
use crate::config::Layout;
use crate::data_key;
use crate::ledger::{self, ArchiveFound, Contents, IdsFound};

/// One archive, as it is shown.
#[derive(Serialize)]
struct Shown {
    number: u32,
    first_entry: u64,
    last_entry: u64,
    from_ms: u64,
    to_ms: u64,
    /// Bytes of the compressed file; nothing if it is elsewhere.
    bytes: Option<u64>,
    segment_sha256: String,
    archive_sha256: String,
    totals: Vec<ShownTotals>,
    /// Since the ledger's first entry.
    running: Vec<ShownTotals>,
}

impl Shown {
    fn new(manifest: &ArchiveManifest, bytes: Option<u64>) -> Self {
        Self {
            number: manifest.number,
            first_entry: manifest.first,
            last_entry: manifest.last,
            from_ms: manifest.from_ms,
            to_ms: manifest.to_ms,
            bytes,
            segment_sha256: manifest.segment_digest.to_string(),
            archive_sha256: manifest.archive_digest.to_string(),
            totals: manifest.totals.iter().map(Into::into).collect(),
            running: manifest.running.iter().map(Into::into).collect(),
        }
    }
}

#[derive(Serialize)]
struct List {
    archives: Vec<Shown>,
}

#[derive(Serialize)]
struct Verified {
    verified: bool,
    archives: Vec<Shown>,
}

#[derive(Serialize)]
struct Exported<'a> {
    to: &'a Path,
    exported: Vec<u32>,
}

#[derive(Serialize)]
struct Removed {
    removed_through: u32,
}

pub(super) fn list(output: &Output, dir: &Path, key: Option<&str>) -> Result<(), Failure> {
    let place = place(dir, key)?;
    let listed = ledger::list_archives(&place.ledger, &place.key).map_err(unreadable)?;
    let archives = listed
        .iter()
        .map(|listed| Shown::new(&listed.manifest, listed.bytes()))
        .collect();
    let list = List { archives };
    output.print(&list, || listed_as_table(&list.archives))
}

fn listed_as_table(archives: &[Shown]) -> String {
    let mut table = table(["archive", "entries", "from", "to", "MiB"]);
    for archive in archives {
        table.add_row([
            archive.number.to_string(),
            format!("{} to {}", archive.first_entry, archive.last_entry),
            instant(archive.from_ms),
            instant(archive.to_ms),
            archive.bytes.map_or_else(
                || "elsewhere".to_owned(),
                |bytes| bytes.div_ceil(1 << 20).to_string(),
            ),
        ]);
    }
    match archives {
        [] => "no archives yet".to_owned(),
        _ => table.to_string(),
    }
}

pub(super) fn verify(
    output: &Output,
    dir: &Path,
    key: Option<&str>,
    vault_key: Option<&Path>,
    files: &[PathBuf],
) -> Result<(), Failure> {
    let key = match key {
        Some(key) => public_key(key)?,
        None => public_key(&Layout::new(dir).signing_public.display().to_string())?,
    };
    let seal = match files.first() {
        Some(file) => seal(dir, file.parent().unwrap_or(dir), vault_key)?,
        None => None,
    };
    let mut found: Vec<ArchiveFound> = Vec::new();
    for file in files {
        let before = found.last().map(|before| (&before.manifest, before.digest));
        found.push(ledger::check_archive(file, &key, contents(seal.as_ref()), before).map_err(unreadable)?);
    }
    let sizes = files
        .iter()
        .map(|file| std::fs::metadata(file).ok().map(|found| found.len()));
    let shown = found.iter().zip(sizes);
    let verified = Verified {
        verified: true,
        archives: shown
            .map(|(found, bytes)| Shown::new(&found.manifest, bytes))
            .collect(),
    };
    output.print(&verified, || {
        let language = Language::of_environment();
        let texts = found
            .iter()
            .zip(files)
            .map(|(found, file)| described(found, file, language));
        texts.collect()
    })
}

fn described(found: &ArchiveFound, file: &Path, language: Language) -> String {
    let manifest = &found.manifest;
    let mut text = format!(
        "{}: entries {} to {}, {} to {}, every signature and link is good\n",
        file.display(),
        manifest.first,
        manifest.last,
        instant(manifest.from_ms),
        instant(manifest.to_ms)
    );
    text += &format!(
        "hub {}\nlast entry {} {}\n",
        manifest.hub, manifest.last, manifest.last_digest
    );
    if found.ids == IdsFound::Elsewhere {
        text += "its table of payments (.ids) is not beside it\n";
    }
    for totals in &manifest.totals {
        for (what, total) in columns(totals) {
            let sum = amount(total.minor, totals.currency.as_str(), language);
            text += &format!("  {:>9} {what:<18} {sum}\n", total.count);
        }
    }
    for (kind, count) in &found.kinds {
        text += &format!("  {count:>9} {kind}\n");
    }
    text
}

/// Copies each archive with its manifest and table, each believed only when it
/// was read back and is what the hub signed for; verifies the archive; and only
/// then has the hub write it down.
pub(super) fn export(
    client: &Client,
    output: &Output,
    dir: &Path,
    to: &Path,
    all: bool,
) -> Result<(), Failure> {
    if !to.is_dir() {
        return Err(Failure::Usage(format!("{} is not a folder", to.display())));
    }
    let place = place(dir, None)?;
    let hub = status(client)?;
    let listed = ledger::list_archives(&place.ledger, &place.key).map_err(unreadable)?;
    let mut done = Vec::new();
    let mut before: Option<(ArchiveManifest, Digest)> = None;
    for archive in &listed {
        let manifest = &archive.manifest;
        let number = manifest.number;
        if archive.bytes().is_none() || (number <= hub.archives_exported && !all) {
            continue;
        }
        let to = ledger::folder_for_copies(&[dir, &place.ledger], to, manifest.hub).map_err(unreadable)?;
        for (file, digest) in [
            (&archive.packed, manifest.archive_digest),
            (&archive.path, archive.digest),
            (&archive.ids, manifest.ids_digest),
        ] {
            ledger::copy_archive(file, &to, digest).map_err(unreadable)?;
        }
        ledger::copy_signing_keys(&place.ledger, &to).map_err(unreadable)?;
        data_key::copy_beside(&place.ledger, &to).map_err(|error| Failure::Refused(error.to_string()))?;
        let copy = to.join(archive.packed.file_name().unwrap_or_default());
        let earlier = before.as_ref().map(|(manifest, digest)| (manifest, *digest));
        let found =
            ledger::check_archive(&copy, &place.key, Contents::Unread, earlier).map_err(unreadable)?;
        let request = Request::ArchiveExported {
            number,
            digest: found.manifest.archive_digest.to_string(),
        };
        match client.ask(&request)? {
            Answer::Done => done.push(number),
            other => return Err(Client::unexpected(&other)),
        }
        before = Some((found.manifest, found.digest));
    }
    let exported = Exported { to, exported: done };
    output.print(&exported, || match exported.exported.as_slice() {
        [] => "there is no archive that was not copied yet".to_owned(),
        numbers => format!(
            "{} archives copied to {}, read back and verified: {}",
            numbers.len(),
            to.display(),
            numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
        ),
    })
}

pub(super) fn remove(client: &Client, output: &Output, through: Option<u32>) -> Result<(), Failure> {
    let through = match through {
        Some(through) => through,
        None => status(client)?.archives_exported,
    };
    match client.ask(&Request::ArchiveRemove { through })? {
        Answer::Done => {
            let removed = Removed {
                removed_through: through,
            };
            output.print(&removed, || match through {
                0 => "no archive was copied away, so none is removed".to_owned(),
                _ => format!("archives up to {through} are removed from the hub's disk"),
            })
        }
        other => Err(Client::unexpected(&other)),
    }
}

fn status(client: &Client) -> Result<Box<StatusReport>, Failure> {
    match client.ask(&Request::Status)? {
        Answer::Status(report) => Ok(report),
        other => Err(Client::unexpected(&other)),
    }
}
