//! What an index says of itself, and what can be wrong with it.

use hub_protocol::Digest;
use minicbor::{Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::error::Head;

/// The newest format of the records that this program knows. Another one is
/// built anew from the journal.
pub const INDEX_FORMAT: u16 = 7;
/// The oldest format whose records are as today's. In 6 they are encrypted.
pub const SAME_RECORDS_SINCE: u16 = 5;
/// The most bytes that a value may have.
pub const MAX_VALUE: usize = 6 * 1024 - 1;
/// The most bytes that a key may have.
pub const MAX_KEY: usize = 256;

/// Why the index cannot be used. The remedy is nearly always the same: set it
/// aside and build it again from the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// There is no index.
    #[error("there is no index")]
    Missing,
    /// The system refused.
    #[error("cannot {action} the index: {detail}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        detail: String,
    },
    /// The store says that it is damaged.
    #[error("the index is damaged: {0}")]
    Store(String),
    /// The store panicked.
    #[error("the index is damaged: the store panicked: {0}")]
    Panicked(String),
    /// Records are missing, damaged or not the newest.
    #[error("the index does not hold the records that its stamp was written for")]
    Contents,
    /// The stamp is missing or unreadable.
    #[error("the index has no stamp that says up to where it holds")]
    NoStamp,
    /// It is encrypted, and the store's data key is not known.
    #[error(
        "it is encrypted, and the store's data key is not there: put `data-key` back from a copy of this folder"
    )]
    Encrypted,
    /// The records are in another format.
    #[error("the index is in format {found}, this program uses {INDEX_FORMAT}")]
    Format {
        /// Its format.
        found: u16,
    },
    /// What is known of an archived payment cannot be read. Building the index
    /// again does not help.
    #[error(
        "{file}, which says what became of archived payments, is damaged: start the hub again, which looks for its second copy, and says what to do if there is none"
    )]
    Archived {
        /// The table.
        file: String,
    },
    /// A table outside of the index is not the one that was made: its bytes
    /// were changed, or it is another archive's or another hub's.
    #[error("its bytes are not those that the hub signed for")]
    NotAsSigned,
    /// A record too large for the store to keep safely: a fault of the
    /// program.
    #[error("a record of {key} and {value} bytes is more than the index takes ({MAX_KEY} and {MAX_VALUE})")]
    TooLarge {
        /// The key's length.
        key: usize,
        /// The value's length.
        value: usize,
    },
}

/// Up to where an index holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The last entry that is folded in.
    pub sequence: u64,
    /// That entry's digest: an index of another past does not pass for one of
    /// this.
    pub digest: Digest,
    /// The format of the records.
    pub format: u16,
}

/// The stamp as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Stored {
    #[n(1)]
    pub(crate) sequence: u64,
    #[n(2)]
    pub(crate) digest: Digest,
    #[n(3)]
    pub(crate) format: u16,
    #[n(4)]
    pub(crate) contents: Contents,
    /// The tables, the newest first.
    #[n(5)]
    pub(crate) tables: Option<Vec<InCatalogue>>,
    #[n(6)]
    pub(crate) next_table: Option<u32>,
}

/// A table as the catalogue knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct InCatalogue {
    #[n(1)]
    pub(crate) number: u32,
    #[n(2)]
    pub(crate) end_crc: u32,
}

/// All small records in a number and a sum that does not depend on their order, so
/// that it is kept up with each write. Against accidents, not against people:
/// whoever can write here has the journal beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Contents {
    #[n(1)]
    count: u64,
    #[n(2)]
    low: u64,
    #[n(3)]
    high: u64,
}

impl Contents {
    pub(crate) fn of(key: &[u8], value: &[u8]) -> Self {
        let hash = Sha256::new()
            .chain_update((key.len() as u64).to_le_bytes())
            .chain_update(key)
            .chain_update(value)
            .finalize();
        let part = |at: usize| super::segment::array(&hash, at).map_or(0, u64::from_le_bytes);
        Self {
            count: 1,
            low: part(0),
            high: part(8),
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.wrapping_add(other.count),
            low: self.low.wrapping_add(other.low),
            high: self.high.wrapping_add(other.high),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            count: self.count.wrapping_sub(other.count),
            low: self.low.wrapping_sub(other.low),
            high: self.high.wrapping_sub(other.high),
        }
    }
}

impl From<Head> for Stamp {
    fn from(head: Head) -> Self {
        Self {
            sequence: head.sequence,
            digest: head.digest,
            format: INDEX_FORMAT,
        }
    }
}
