//! Lines with a bound.

use std::io::{self, BufRead};

use super::MAX_LINE;

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Whole,
    /// A line above the bound; it was passed over, never held in memory.
    TooLong,
}

pub(super) struct LineReader<'a> {
    inner: &'a mut dyn BufRead,
    number: u64,
}

impl<'a> LineReader<'a> {
    pub(super) fn new(inner: &'a mut dyn BufRead) -> Self {
        Self { inner, number: 0 }
    }

    /// The number of the last line read, from 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Reads the next line into `buffer`; `None` at the end.
    pub(super) fn next(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<Line>> {
        buffer.clear();
        let mut any = false;
        let mut too_long = false;
        loop {
            let available = match self.inner.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            if available.is_empty() {
                break;
            }
            any = true;
            let end = available.iter().position(|b| *b == b'\n');
            let taken = &available[..end.unwrap_or(available.len())];
            if buffer.len() + taken.len() > MAX_LINE {
                too_long = true;
                buffer.clear();
            }
            if !too_long {
                buffer.extend_from_slice(taken);
            }
            let used = end.map_or(available.len(), |end| end + 1);
            self.inner.consume(used);
            if end.is_some() {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        if too_long {
            buffer.clear();
            return Ok(Some(Line::TooLong));
        }
        if buffer.last() == Some(&b'\r') {
            buffer.pop();
        }
        Ok(Some(Line::Whole))
    }
}
