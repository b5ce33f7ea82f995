//! The ledger on disk: journal, index, vault.
//!
//! What always holds:
//!
//! 1. **The journal is the truth.** Everything else here can be lost and is
//!    then built from it, except sealed cards, which are kept only to be
//!    destroyed.
//! 2. **Durable means flushed.** Nothing is called durable before the flush
//!    of its bytes has returned: not by [`Journal::append`], not by the
//!    committer's callback, not by a [`JournalReader`]. Opening flushes, drops
//!    the page cache and reads from the disk before it believes anything, so
//!    that what a killed process left unflushed is durable before it is
//!    answered from.
//! 3. **A failed write or flush is the end.** The journal and the vault then
//!    refuse everything, and the process has to end: a second flush after an
//!    error proves nothing. A new start reads what is really there.
//! 4. **A group is whole or was never there.** Entries committed together are
//!    one write, ended by the hub's signature over them all and a mark;
//!    without the mark, none of them was acknowledged and all of them are cut.
//!    Receipts that rest on the signature leave when the flush has returned.
//! 5. **Only a torn tail is cut:** what one unfinished write can have left
//!    after the last whole commit of the last segment. It is overwritten with
//!    zeros before anything is written there, and reported. Everything else
//!    that does not verify is refused and left as it is.
//! 6. **Nothing is overwritten** in the journal but zeros. A closed segment is
//!    never opened for writing again.
//! 7. **The card before its entry, the entry before the erasure.** A card is
//!    durable before the entry that needs it is written. It is erased after
//!    the entry that ends the need is durable; what a crash leaves in between
//!    is found in the vault's own list at the next start.
//! 8. **The index is never believed unchecked.** Its stamp must name an entry
//!    of the journal by sequence and digest, and everything read out of it
//!    carries a checksum; else it is set aside and built again. It is only ever
//!    stamped with what is durable in the journal.
//! 9. **One writer.** The folders of journal and vault are locked, and so is
//!    the data folder ([`DataLock`]).
//!
//! What the files alone cannot show: whole commits missing at the very end,
//! and a last commit that lost a sector after it was acknowledged, which looks
//! like a torn write. Devices hold receipts that name sequence and digest;
//! [`contains`] checks one against a ledger.
//!
//! Older segments are put away in archives; what holds for those is told in
//! `archive/mod.rs`.
//!
//! The formats are described in `segment.rs`, `table.rs` and `vault_file.rs`.
//!
//! Bounds: the committer's queue holds 4096 commits, a group 512; the
//! journal's reader keeps 4 bytes for every 32 entries; opening and verifying
//! hold one segment in memory; the index keeps up to 32,768
//! records in memory, and of its tables and those of archives 16 bits for each
//! record; the vault keeps 8 bytes for each card; archiving writes one archive
//! at a time, in pieces of 64 KiB.

mod archive;
mod at_rest;
mod closed;
mod committer;
mod contents;
mod cursor;
mod disk;
mod error;
mod home;
mod index;
mod index_stamp;
mod index_writer;
mod journal;
mod reader;
mod salvage;
mod scan;
mod segment;
mod segments;
mod signing_keys;
mod space;
mod store_format;
mod table;
mod tables;
mod tail;
#[cfg(test)]
mod tests;
mod vault;
mod vault_file;
mod vault_places;
mod vault_reader;
mod verify;

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

pub use archive::{
    Archive, ArchiveError, ArchiveFound, ArchiveHub, ArchiveSettings, Archiver, Archives, AtStep, Base, Due,
    IdsFound, ListedArchive, Next, RestoreError, Round, Standing, Step, Written, check_archive, copy_archive,
    digest_of_file, folder_for_copies, is_still_wanted, list_archives, restore_base,
};
pub use at_rest::RestSeal;
pub use committer::{Commit, CommitterHandle, CommitterStopped, Durable, NextKey, QUEUE as COMMIT_QUEUE};
pub use contents::{Contents, UNREAD, VerifiedEntry};
pub use disk::{DataLock, DiskCounter, DiskCounts};
pub use error::{Broken, Fault, Head, LedgerError};
pub use home::{HOME, Home};
#[cfg(test)]
pub(crate) use index::add_to_older_index;
pub use index::{
    Batch, BorrowedRecord, Health, Index, IndexReader, Records, read_older_index, remove_left_in_clear,
    set_aside,
};
pub use index_stamp::{Damage, INDEX_FORMAT, MAX_KEY, MAX_VALUE, SAME_RECORDS_SINCE, Stamp};
pub use index_writer::{
    CheckpointSettings, IndexKeeper, IndexWriterHandle, IndexWriterStopped, Keep, NotForgotten, NotTaken,
};
pub use journal::{Journal, JournalOptions, OpenReport};
pub use reader::{Entries, JournalReader, StoredEntry};
pub use salvage::{Gap, SalvageReport, salvage};
pub use segment::{FORMAT, Footer, MAX_ENTRY_BYTES};
pub use signing_keys::{Candidates, SIGNING_KEYS, copy_signing_keys, hub_of, signing_keys};
pub use space::{Space, SpaceSettings};
pub use store_format::{
    ENCRYPTED_SINCE, SAME_FILES_SINCE, STORE_FORMAT, read_store_format, sync_folder, write_store_format,
};
pub use vault::{Vault, VaultReport};
pub use vault_reader::{VaultReader, sealed_cards};
pub use verify::{
    AwayArchive, Progress, ReceiptCheck, VerifyReport, contains, read_each, verify, verify_each,
};

/// How long a vault file is made, in bytes.
pub const VAULT_FILE_BYTES: usize = 16 << 20;

/// The secrets that the ledger is written with.
#[derive(Clone)]
pub struct Keys {
    /// Signs commits and segment footers.
    pub signing: SigningKey,
    /// Encrypts sealed cards in the vault.
    pub vault: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// Opens a table and reads it through. In which order its keys stand is the
/// word of whoever wrote it, who had the store's key or is signed for.
#[cfg(fuzzing)]
pub fn fuzz_table(path: &std::path::Path, key: Option<&hub_protocol::DataKey>) {
    let seal = key.map(RestSeal::index);
    let Ok(table) = table::Table::open_at(path.to_owned(), 1, seal.as_ref()) else {
        return;
    };
    let Ok(mut cursor) = table.from(&[]) else { return };
    let mut last = Vec::new();
    while let Some(key) = cursor.key().map(<[u8]>::to_vec) {
        let _ = table.get(&key);
        if let Ok(from) = table.from(&key) {
            assert!(from.key().is_none_or(|found| *found >= *key));
        }
        if cursor.advance().is_err() {
            return;
        }
        last = key;
    }
    let _ = table.get(&last);
}

/// Fills a new index from the base in `dir/archive`, and a state from that.
#[cfg(fuzzing)]
#[allow(clippy::unwrap_used)] // to end is what a fuzzer looks for
pub fn fuzz_restore(
    dir: &std::path::Path,
    hub: hub_protocol::HubId,
    key: SigningKey,
    data_key: &hub_protocol::DataKey,
) {
    let chain = hub_protocol::KeyChain::new(Some(hub), key.verifying_key());
    let keys = crate::key_ring::KeyRing::new(key, chain);
    let seal = RestSeal::index(data_key);
    let archives = Archives::open(&dir.join("archive"), hub, keys, Some(seal.clone())).unwrap();
    let Ok(Some(base)) = archives.base() else { return };
    let _ = (base.is_current(), base.is_whole());
    let mut index = Index::create(&dir.join("index"), &seal).unwrap();
    if restore_base(&base, &mut index).is_ok() {
        assert_eq!(index.stamp(), base.stamp());
        let mut state = hub_core::state::State::default();
        let _ = index.for_each_small(&mut |key, value| _ = state.restore(key, value));
    }
}
