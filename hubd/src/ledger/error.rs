//! What can be wrong with a ledger, in words that tell a person what to do.

use std::io;
use std::path::{Path, PathBuf};

pub use hub_core::state::Head;
use hub_protocol::cose::CoseError;
use hub_protocol::{HubId, KeyId};

/// What is wrong at one place of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file does not begin with the ledger's magic bytes.
    #[error("this is not a ledger file")]
    NotALedgerFile,
    /// The file's format is newer than this program.
    #[error("written in format {found}, newer than the format {known} of this program")]
    NewerFormat {
        /// The file's format.
        found: u16,
        /// The newest this program reads.
        known: u16,
    },
    /// The header's checksum does not match.
    #[error("the file's header is damaged")]
    Header,
    /// The header belongs to another place in the ledger than the file name.
    #[error("the file's header says that it is segment {found}")]
    WrongSegment {
        /// The number in the header.
        found: u32,
    },
    /// The file belongs to another hub.
    #[error("the file belongs to hub {found}")]
    OtherHub {
        /// The hub in the header.
        found: HubId,
    },
    /// A segment file is not there.
    #[error("the segment file is missing")]
    MissingSegment,
    /// A segment that is not the last has no footer.
    #[error("the segment has no footer although another follows it")]
    MissingFooter,
    /// A length that no record has.
    #[error("no record can begin here")]
    Record,
    /// A record's checksum does not match: a byte was changed.
    #[error("the checksum does not match: the bytes were changed after they were written")]
    Checksum,
    /// Entries are not followed by their commit mark, or by a damaged one.
    #[error("the commit mark of these entries is missing or damaged")]
    Mark,
    /// What the hub signed at the end of a group is not what stands before.
    #[error("what the hub signed when it committed these entries is not what stands here")]
    Statement,
    /// Bytes follow where nothing was ever written.
    #[error("there are bytes where nothing was written")]
    Stray,
    /// A commit (in format 1: an entry) is not a signed object as the
    /// protocol has it, or not by the hub's key.
    #[error("the hub's signature: {0}")]
    Signature(CoseError),
    /// The bytes are not an entry.
    #[error("not a ledger entry: {0}")]
    Entry(String),
    /// What happened is encrypted, and nothing here opens it.
    #[error("what happened is encrypted, and the store's data key is not at hand")]
    Sealed,
    /// What happened does not decrypt.
    #[error("{0}")]
    Contents(String),
    /// Entries are missing, doubled or out of order.
    #[error("entry {found} stands where entry {expected} belongs")]
    Sequence {
        /// What belongs here.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// The entry does not chain to the one before it.
    #[error("the entry does not chain to the one before it")]
    Chain,
    /// The footer does not say what the segment holds.
    #[error("the segment's footer does not match what the segment holds")]
    Footer,
    /// A change of the hub's signing key that is not the next one, or is at
    /// another place than it says.
    #[error("the change of the hub's signing key is not the one that belongs here")]
    KeyChange,
    /// The manifest of an archive is not there although a later one is.
    #[error("the manifest of the archive is missing")]
    MissingManifest,
    /// The manifest does not follow the one before it, or does not say what
    /// the archive holds.
    #[error("the manifest does not match the archive, or the manifest before it")]
    Manifest,
    /// The compressed file is not the one that the hub made.
    #[error("the archive is not the one that its manifest names: its bytes were changed")]
    Archive,
    /// The table of payments is not the one that the hub made.
    #[error("the table of payments is not the one that the manifest names: its bytes were changed")]
    Payments,
    /// The base, or its records, are not what the hub made.
    #[error("the base is not what the hub signed: its bytes were changed")]
    Base,
    /// The last write is incomplete; it was never acknowledged.
    #[error("the last write is incomplete ({bytes} bytes)")]
    TornTail {
        /// How many bytes there are of it.
        bytes: u64,
    },
}

/// Where a file first goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}, byte {offset}, at entry {sequence}: {fault}")]
pub struct Broken {
    /// The file's name.
    pub file: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// The entry that stands or belongs there.
    pub sequence: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// Why the ledger cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file system has no room for a new file, and the reserve none
    /// either. Nothing was written, and trying again is safe.
    #[error("there is no room on the disk for {}: remove what is not hubd's", path.display())]
    NoRoom {
        /// The file that was to be made.
        path: PathBuf,
    },
    /// Something does not verify. Nothing was changed.
    #[error(
        "the ledger is damaged: {0}. Nothing was changed. Copy the folder, then use `hubctl ledger verify` and `hubctl ledger salvage` on the copy"
    )]
    Damaged(#[from] Broken),
    /// The file's format is newer than this program.
    #[error("{} is in format {found}, this program knows up to {known}: start the hubd that wrote it, or a newer one", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The newest this program reads.
        known: u16,
    },
    /// The store as a whole is newer than this program.
    #[error(
        "{} says that this store is in format {found}, written by hubd {written_by}; this is hubd {} and knows formats up to {}. \
         Start hubd {written_by} or a newer one. Nothing was changed",
        path.display(), env!("CARGO_PKG_VERSION"), super::store_format::STORE_FORMAT
    )]
    NewerStore {
        /// The stamp.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// The version that wrote it.
        written_by: String,
    },
    /// The store's stamp cannot be read.
    #[error(
        "{} does not say the store's format: restore it from a copy, or write \"format = {}\" into it if this hubd wrote the store last",
        path.display(), super::store_format::STORE_FORMAT
    )]
    Stamp {
        /// The stamp.
        path: PathBuf,
    },
    /// The folder belongs to another hub.
    #[error("{} belongs to hub {found}: this hub's keys and this ledger do not go together", path.display())]
    OtherHub {
        /// The file.
        path: PathBuf,
        /// The hub it belongs to.
        found: HubId,
    },
    /// The vault was written under another key.
    #[error("{} was written under another vault key: restore keys/hub-vault.key from where this folder comes from", path.display())]
    OtherVaultKey {
        /// The file.
        path: PathBuf,
    },
    /// The hub's signing key is not the one that the ledger goes on with.
    #[error(
        "{} goes on under the signing key {expected}, and keys/hub-signing.key is another one: put the newest hub-signing.key back, or hub-signing.next.key beside it if the key was being changed",
        path.display()
    )]
    OtherSigningKey {
        /// The ledger's folder.
        path: PathBuf,
        /// The id of the key that it goes on with.
        expected: KeyId,
    },
    /// The signing key was to change at an entry that does not say so.
    #[error(
        "entry {sequence} does not change the hub's signing key as was asked; restart hubd, which reads what is on disk"
    )]
    KeyChange {
        /// The last entry on disk.
        sequence: u64,
    },
    /// Another process has the folder.
    #[error("{} is in use by another process, most likely another hubd: a store has one writer. Stop that one (`systemctl stop hubd`) before this is started", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// There is no ledger although one is expected.
    #[error("there is no ledger in {}: restore it from a copy, or run `hubd init` for a new hub", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// An earlier write failed: what is on disk is not known any more.
    #[error("an earlier write to the ledger failed; restart hubd, which reads again what is on disk")]
    Poisoned,
    /// An entry that does not follow the last one; nothing was written.
    #[error(
        "entry {found} does not follow entry {last} (sequence or chain); nothing was written, and this is a fault of the program"
    )]
    DoesNotFollow {
        /// The last entry.
        last: u64,
        /// The entry that was to be appended.
        found: u64,
    },
    /// Larger than the ledger takes; nothing was written.
    #[error("{bytes} bytes are more than the {most} that one record may have")]
    TooLarge {
        /// How large.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Beyond the end of the ledger, or entry 0.
    #[error("there is no entry {sequence}: the last one is {last}")]
    NoSuchEntry {
        /// The entry asked for.
        sequence: u64,
        /// The last there is.
        last: u64,
    },
    /// The sealed card's record cannot be decrypted: it is damaged.
    #[error("the sealed card at {} byte {offset} does not decrypt: its record is damaged", path.display())]
    CardUnreadable {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
    },
    /// Entries that are in an archive which is elsewhere.
    #[error("entries {first} to {last} are in an archive that is not here: put {} back", path.display())]
    ArchiveAway {
        /// Where it was.
        path: PathBuf,
        /// The first entry in it.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The file's name is not an archive's.
    #[error("{} is not named like an archive: eight digits and .seg.gz, its manifest beside it", path.display())]
    NotAnArchive {
        /// The file.
        path: PathBuf,
    },
    /// What is known of archived payments is gone or damaged.
    #[error(
        "{} cannot be used ({damage}). Without it the hub does not know the payments that it has archived and could take one again: copy it back from where the archive was exported to, or from a copy of this folder",
        path.display()
    )]
    PaymentsLost {
        /// The table.
        path: PathBuf,
        /// What is wrong.
        damage: super::index_stamp::Damage,
    },
    /// A file of the same name is where a copy is to be.
    #[error("{} is there already and is another file: copy into an empty folder, or look which of the two is damaged (`hubctl ledger archive verify`). It was left as it is", path.display())]
    OtherFile {
        /// That file.
        path: PathBuf,
    },
    /// Copies were to be made where the originals are.
    #[error("{} is in the hub's own folder: what is there is no copy, and goes with the archives when they are removed. Copy to another disk", path.display())]
    OwnFolder {
        /// Where.
        path: PathBuf,
    },
    /// A copy that was read back is not what the hub signed for.
    #[error("the copy of {} in {} is not what the hub signed for: the original or the medium is damaged. Nothing was replaced; run `hubctl ledger verify`, and copy to another medium", from.display(), to.display())]
    BadCopy {
        /// What was copied.
        from: PathBuf,
        /// Where to.
        to: PathBuf,
    },
    /// An archive that the hub could not open without.
    #[error(
        "archive {number} is still needed: there is no base yet from which the hub opens without it; try again later"
    )]
    NoBase {
        /// Which.
        number: u32,
    },
    /// The committing thread ended without saying why.
    #[error("the thread that writes the ledger ended unexpectedly; restart hubd")]
    WriterGone,
}

impl LedgerError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// For what comes before the first write to a new file: missing room is
    /// then no failure of the disk.
    pub(crate) fn io_or_no_room(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoRoom { path },
            _ => Self::Io { action, path, source },
        }
    }

    /// Whether there was no room for a new file. Nothing was written then.
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. })
    }

    /// Turns what is wrong with a file into the error for whoever opens it.
    pub(crate) fn of_broken(path: &Path, broken: Broken) -> Self {
        match broken.fault {
            Fault::NewerFormat { found, known } => Self::NewerFormat {
                path: path.to_path_buf(),
                found,
                known,
            },
            Fault::OtherHub { found } => Self::OtherHub {
                path: path.to_path_buf(),
                found,
            },
            _ => Self::Damaged(broken),
        }
    }
}
