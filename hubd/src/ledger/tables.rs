//! All records of the index that grow in number with the ledger: the newest
//! ones in memory, the others in sorted tables.
//!
//! What changes is gathered in memory; when there is enough, it becomes a
//! table. The newest record of a key is the one that counts. Eight tables of
//! about the same size become one, so that their number grows with the
//! logarithm of the records.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::at_rest::RestSeal;
use super::index_stamp::Damage;
use super::table::{self, Cursor, Held, Table, TableWriter};

/// So many tables of one size become one.
const FAN_IN: usize = 8;

/// The records and the tables that hold them.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// In no table yet.
    pub(crate) recent: BTreeMap<Vec<u8>, Held>,
    /// The newest first.
    pub(crate) tables: Vec<Arc<Table>>,
}

impl Tables {
    pub(crate) fn get(&self, key: &[u8]) -> Result<Held, Damage> {
        if let Some(held) = self.recent.get(key) {
            return Ok(held.clone());
        }
        let hash = table::hash(key);
        for table in &self.tables {
            if let Some(held) = table.get_hashed(key, hash)? {
                return Ok(held);
            }
        }
        Ok(None)
    }

    /// Hands the records from `from` on to `visit`, in the order of their
    /// keys, until it says `false`.
    pub(crate) fn scan(
        &self,
        from: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), Damage> {
        let mut cursors = Vec::with_capacity(self.tables.len());
        for table in &self.tables {
            cursors.push(table.from(from)?);
        }
        let mut recent = self
            .recent
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .peekable();
        loop {
            let newest = newest_of_least(&cursors);
            let in_tables = newest.and_then(|n| cursors.get(n)?.key()).map(<[u8]>::to_vec);
            let in_memory = recent.peek().map(|(key, _)| key.as_slice());
            let (key, go_on) = match (in_memory, in_tables) {
                (None, None) => return Ok(()),
                (Some(key), in_tables) if in_tables.as_deref().is_none_or(|other| key <= other) => {
                    let key = key.to_vec();
                    let held = recent.next().and_then(|(_, held)| held.as_deref());
                    (key.clone(), held.is_none_or(|value| visit(&key, value)))
                }
                (_, Some(key)) => {
                    let held = newest.and_then(|n| cursors.get(n)?.held());
                    let go_on = held.is_none_or(|value| visit(&key, value));
                    (key, go_on)
                }
                (Some(_), None) => return Ok(()),
            };
            if !go_on {
                return Ok(());
            }
            pass(&mut cursors, &key)?;
        }
    }

    /// What is in memory becomes a table. It still is in memory afterwards.
    pub(crate) fn seal(&self, dir: &Path, number: u32, key: &RestSeal) -> Result<Table, Damage> {
        let recent = self.recent.iter();
        let records = recent.map(|(key, held)| (key.as_slice(), held.as_deref()));
        seal(records, dir, number, key)
    }

    /// Tables that should become one, by their places; the newest first.
    pub(crate) fn to_merge(&self, unit: u64) -> Option<std::ops::Range<usize>> {
        let tier = |table: &Arc<Table>| (table.records() / unit.max(1)).max(1).ilog(FAN_IN as u64);
        let tiers: Vec<u32> = self.tables.iter().map(tier).collect();
        let mut start = 0;
        for at in 1..=tiers.len() {
            if tiers.get(at) != tiers.get(start) {
                if at - start >= FAN_IN {
                    return Some(start..at);
                }
                start = at;
            }
        }
        None
    }
}

/// A table of records that come in the order of their keys.
pub(crate) fn seal<'a>(
    records: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    dir: &Path,
    number: u32,
    key: &RestSeal,
) -> Result<Table, Damage> {
    let mut writer = TableWriter::create(dir, number, records.len() as u64, key)?;
    for (key, held) in records {
        writer.add(key, held)?;
    }
    writer.finish()
}

/// One table of several, the newest of which comes first. What was removed is
/// forgotten if `last` says that nothing older can hold it.
pub(crate) fn merge(
    tables: &[Arc<Table>],
    last: bool,
    dir: &Path,
    number: u32,
    key: &RestSeal,
) -> Result<Table, Damage> {
    merge_some(tables, last, dir, (number, key), &|_, _| true)
}

/// [`merge`], of those records that `keep` wants.
pub(crate) fn merge_some(
    tables: &[Arc<Table>],
    last: bool,
    dir: &Path,
    (number, key): (u32, &RestSeal),
    keep: &dyn Fn(&[u8], &[u8]) -> bool,
) -> Result<Table, Damage> {
    let most = tables.iter().map(|table| table.records()).sum();
    let mut writer = TableWriter::create(dir, number, most, key)?;
    let mut cursors = Vec::with_capacity(tables.len());
    for table in tables {
        cursors.push(table.from(&[])?);
    }
    let mut at_least = Vec::with_capacity(tables.len());
    loop {
        stand_at_least(&cursors, &mut at_least);
        // The newest comes first.
        let Some(newest) = at_least.first().and_then(|n| cursors.get(*n)) else {
            return writer.finish();
        };
        if let Some(key) = newest.key() {
            let held = newest.held();
            if held.map_or(!last, |value| keep(key, value)) {
                writer.add(key, held)?;
            }
        }
        for n in &at_least {
            if let Some(cursor) = cursors.get_mut(*n) {
                cursor.advance()?;
            }
        }
    }
}

/// The cursors that stand at the least key, in their order; none at the end.
fn stand_at_least(cursors: &[Cursor<'_>], found: &mut Vec<usize>) {
    found.clear();
    let mut least: Option<&[u8]> = None;
    for (n, cursor) in cursors.iter().enumerate() {
        let Some(key) = cursor.key() else { continue };
        match least.map_or(Ordering::Less, |least| key.cmp(least)) {
            Ordering::Less => {
                least = Some(key);
                found.clear();
                found.push(n);
            }
            Ordering::Equal => found.push(n),
            Ordering::Greater => {}
        }
    }
}

/// Of the cursors that stand at the least key, the newest.
fn newest_of_least(cursors: &[Cursor<'_>]) -> Option<usize> {
    let at = cursors.iter().enumerate();
    let keys = at.filter_map(|(n, cursor)| Some((cursor.key()?, n)));
    keys.min().map(|(_, n)| n)
}

/// Moves all cursors behind a key.
fn pass(cursors: &mut [Cursor<'_>], key: &[u8]) -> Result<(), Damage> {
    for cursor in cursors {
        if cursor.key() == Some(key) {
            cursor.advance()?;
        }
    }
    Ok(())
}
