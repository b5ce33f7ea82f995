//! Opening a journal whose first segments are in archives.

use std::sync::Arc;

use super::super::disk::{self, Numbered};
use super::super::error::{Broken, Fault, LedgerError};
use super::super::segments::Segment;
use super::{EXTENSION, Journal, file_name};

impl Journal {
    /// Archives come first. A segment whose archive is there too, because the
    /// power failed before it was removed, is read as it stands. Returns how
    /// many of the files that are.
    pub(super) fn take_archived(&mut self, found: &Numbered) -> Result<usize, LedgerError> {
        let mut plain = 0;
        for archive in self.archives.list() {
            let number = archive.manifest.number;
            match found.files.iter().find(|(file, _)| *file == number) {
                Some((_, path)) => {
                    self.take_closed(number, path)?;
                    plain += 1;
                }
                None => {
                    let segment = Segment::packed(
                        number,
                        archive.manifest.format,
                        archive.manifest.first,
                        archive.packed(),
                    );
                    self.shared.add_segment(Arc::new(segment), archive.head());
                }
            }
            self.next_number = number + 1;
        }
        if self.next_number > 1 && found.files.len() == plain {
            // The open segment is never archived.
            let missing = disk::numbered(&self.dir, self.next_number, EXTENSION);
            return Err(LedgerError::Damaged(Broken {
                file: file_name(&missing),
                offset: 0,
                sequence: self.head().sequence + 1,
                fault: Fault::MissingSegment,
            }));
        }
        Ok(plain)
    }
}
