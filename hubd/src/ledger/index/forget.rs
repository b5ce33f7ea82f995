//! Forgetting what is archived, and writing down what is left.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::table::TableWriter;
use super::super::tables::{self, Tables};
use super::{Damage, Index, Stamp, io};

impl Index {
    /// Forgets the records that `keep` does not want; what is left is one
    /// table. Durable on return.
    ///
    /// # Errors
    /// Damage, or the system's refusal.
    pub fn forget(&mut self, keep: &dyn Fn(&[u8], &[u8]) -> bool) -> Result<(), Damage> {
        self.checkpoint()?;
        let old = self.shared.read().tables.clone();
        if old.is_empty() {
            return Ok(());
        }
        let left = tables::merge_some(&old, true, &self.dir, (self.next_table, &self.seal), keep)?;
        self.next_table += 1;
        self.shared.write().tables = vec![Arc::new(left)];
        self.write_catalogue()?;
        for table in old {
            fs::remove_file(table.path()).map_err(io("remove a table of"))?;
        }
        Ok(())
    }

    /// Writes everything, small records too, into one table outside of the
    /// index, durable on return. Gives the stamp as of which it holds.
    ///
    /// # Errors
    /// Damage, or the system's refusal; of the new table nothing is left.
    pub fn write_all_to(&mut self, path: PathBuf, number: u32) -> Result<Stamp, Damage> {
        self.checkpoint()?;
        self.write_all(&path, number).inspect_err(|_| {
            // What stays has a number that nothing names.
            let _ = fs::remove_file(&path);
        })
    }

    fn write_all(&self, path: &Path, number: u32) -> Result<Stamp, Damage> {
        let mut small = Vec::new();
        self.for_each_small(&mut |key, value| small.push((key.to_vec(), value.to_vec())))?;
        let tables = self.shared.read().tables.clone();
        let most = small.len() as u64 + tables.iter().map(|table| table.records()).sum::<u64>();
        let mut writer = TableWriter::create_at(path.to_path_buf(), number, most, &self.seal)?;
        let mut small = small.into_iter().peekable();
        let mut written = Ok(());
        let all = Tables {
            recent: BTreeMap::new(),
            tables,
        };
        all.scan(&[], &mut |key, value| {
            while let Some((before, value)) = small.next_if(|(before, _)| before.as_slice() < key) {
                written = written.clone().and_then(|()| writer.add(&before, Some(&value)));
            }
            written = written.clone().and_then(|()| writer.add(key, Some(value)));
            written.is_ok()
        })?;
        written?;
        for (key, value) in small {
            writer.add(&key, Some(&value))?;
        }
        writer.finish()?;
        Ok(self.stamp)
    }
}
