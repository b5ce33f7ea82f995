//! The files of an archive: compressing, reading back, copying.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use hub_protocol::{Digest, HubId};
use sha2::{Digest as _, Sha256};

use super::{broken, ids};
use crate::ledger::disk;
use crate::ledger::error::{Fault, Head, LedgerError};
use crate::ledger::journal::LARGEST_SEGMENT;

/// The longest signed statement that is read, in bytes: a policy of 64 KiB,
/// and room.
const MAX_SIGNED: u64 = 256 * 1024;
const PIECE: usize = 64 * 1024;
/// Files are flushed as they grow, so that no flush is long: the journal waits
/// for the same disk.
const FLUSH_EVERY: usize = 4 << 20;

/// A segment of which only the archive is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packed {
    pub(crate) path: PathBuf,
    pub(crate) number: u32,
    pub(crate) first: u64,
    /// The last entry in it.
    pub(crate) last: Head,
    /// SHA-256 of the segment.
    pub(crate) digest: Digest,
}

impl Packed {
    /// The segment in a file without a name.
    pub(crate) fn unpack(&self, path: &Path) -> Result<File, LedgerError> {
        let packed = self.open(path)?;
        let scratch = disk::numbered(path.parent().unwrap_or(Path::new(".")), self.number, "seg.tmp");
        let failed = |action| LedgerError::io_or_no_room(action, &scratch);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&scratch)
            .map_err(failed("create"))?;
        fs::remove_file(&scratch).map_err(LedgerError::io("remove", &scratch))?;
        let (digest, _) = unpack(packed, path, self.first, &mut file)?;
        if digest == self.digest {
            Ok(file)
        } else {
            Err(broken(path, self.first, Fault::Archive).into())
        }
    }

    fn open(&self, path: &Path) -> Result<File, LedgerError> {
        File::open(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => LedgerError::ArchiveAway {
                path: path.into(),
                first: self.first,
                last: self.last.sequence,
            },
            _ => LedgerError::io("open", path)(error),
        })
    }
}

/// The segment in memory, SHA-256 of it and of the archive.
pub(super) fn unpacked_bytes(path: &Path, first: u64) -> Result<(Vec<u8>, Digest, Digest), LedgerError> {
    let file = File::open(path).map_err(LedgerError::io("open", path))?;
    let mut bytes = Vec::new();
    let (segment, archive) = unpack(file, path, first, &mut bytes)?;
    Ok((bytes, segment, archive))
}

/// What of a damaged archive can still be decompressed.
pub(crate) fn unpacked_as_far_as_it_goes(path: &Path) -> Result<Vec<u8>, LedgerError> {
    let file = File::open(path).map_err(LedgerError::io("open", path))?;
    let mut bytes = Vec::new();
    let decoder = GzDecoder::new(BufReader::with_capacity(PIECE, file));
    // What was read before an error stays.
    let _ = decoder.take(LARGEST_SEGMENT).read_to_end(&mut bytes);
    Ok(bytes)
}

/// Decompresses into `to`. Gives SHA-256 of what came out and of what went in.
pub(super) fn unpack(
    file: File,
    path: &Path,
    first: u64,
    to: &mut dyn Write,
) -> Result<(Digest, Digest), LedgerError> {
    let damaged = || LedgerError::Damaged(broken(path, first, Fault::Archive));
    let mut decoder = GzDecoder::new(BufReader::with_capacity(PIECE, Hashing::new(file)));
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut written = 0_u64;
    loop {
        let n = match decoder.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.raw_os_error().is_some() => return Err(LedgerError::io("read", path)(error)),
            // Not gzip, or its own checksum is wrong.
            Err(_) => return Err(damaged()),
        };
        let bytes = piece.get(..n).unwrap_or_default();
        written += n as u64;
        if written > LARGEST_SEGMENT {
            return Err(damaged());
        }
        hash.update(bytes);
        to.write_all(bytes)
            .map_err(LedgerError::io_or_no_room("decompress", path))?;
    }
    let mut rest = decoder.into_inner();
    // Behind the one member there is nothing.
    if rest.read(&mut piece).map_err(LedgerError::io("read", path))? > 0 {
        return Err(damaged());
    }
    let archive = rest.into_inner().digest();
    Ok((Digest(hash.finalize().into()), archive))
}

/// What compressing a segment came to.
pub(super) struct Compressed {
    pub(super) segment_digest: Digest,
    /// SHA-256 of what stands before the footer, to be held against it.
    pub(super) before_footer: Digest,
    pub(super) archive_digest: Digest,
}

/// Compresses a segment into the file `to`, durable on return.
pub(super) fn compress(
    segment: &File,
    path: &Path,
    footer_at: u64,
    to: &Path,
) -> Result<Compressed, LedgerError> {
    let file = create(to)?;
    let mut encoder = GzEncoder::new(Hashing::new(file), Compression::default());
    let mut hash = Sha256::new();
    let mut before_footer = None;
    let mut source = segment.try_clone().map_err(LedgerError::io("read", path))?;
    std::io::Seek::rewind(&mut source).map_err(LedgerError::io("read", path))?;
    let mut piece = vec![0; PIECE];
    let mut at = 0_u64;
    loop {
        let n = source.read(&mut piece).map_err(LedgerError::io("read", path))?;
        if n == 0 {
            break;
        }
        let bytes = piece.get(..n).unwrap_or_default();
        let (head, tail) = match usize::try_from(footer_at.saturating_sub(at)) {
            Ok(before) if before <= n => bytes.split_at(before),
            _ => (bytes, &[][..]),
        };
        hash.update(head);
        if at + head.len() as u64 == footer_at && before_footer.is_none() {
            before_footer = Some(Digest(hash.clone().finalize().into()));
        }
        hash.update(tail);
        at += n as u64;
        encoder
            .write_all(bytes)
            .map_err(LedgerError::io_or_no_room("write to", to))?;
        encoder.get_mut().flush_some(to)?;
    }
    let hashing = encoder
        .finish()
        .map_err(LedgerError::io_or_no_room("write to", to))?;
    hashing.inner.sync_all().map_err(LedgerError::io("flush", to))?;
    Ok(Compressed {
        segment_digest: Digest(hash.finalize().into()),
        before_footer: before_footer.unwrap_or(Digest::ZERO),
        archive_digest: hashing.digest(),
    })
}

/// A new file, in the place of one that was never finished.
fn create(path: &Path) -> Result<File, LedgerError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(LedgerError::io_or_no_room("create", path))
}

/// Writes a signed statement under its name, whole or not at all.
pub(super) fn write_signed(path: &Path, signed: &[u8]) -> Result<(), LedgerError> {
    let new = unfinished(path);
    let mut file = create(&new)?;
    file.write_all(signed)
        .map_err(LedgerError::io_or_no_room("write to", &new))?;
    file.sync_all().map_err(LedgerError::io("flush", &new))?;
    rename(&new, path)
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), LedgerError> {
    fs::rename(from, to).map_err(LedgerError::io_or_no_room("name", to))?;
    disk::sync_dir(to.parent().unwrap_or(Path::new(".")))
}

/// What a file is called before it is whole.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    name.into()
}

/// Gives the room of an archive back that could not be finished.
pub(super) fn discard(dir: &Path, number: u32) {
    for extension in [super::PACKED, super::IDS, ids::COPY] {
        // What stays is overwritten by the next try, or removed at the next
        // start.
        let _ = fs::remove_file(unfinished(&disk::numbered(dir, number, extension)));
    }
}

pub(super) fn read_signed(path: &Path) -> Result<Vec<u8>, LedgerError> {
    let file = File::open(path).map_err(LedgerError::io("open", path))?;
    let mut bytes = Vec::new();
    file.take(MAX_SIGNED)
        .read_to_end(&mut bytes)
        .map_err(LedgerError::io("read", path))?;
    Ok(bytes)
}

/// SHA-256 of a file as it is on the disk.
///
/// # Errors
/// The system's refusal.
pub fn digest_of_file(path: &Path) -> Result<Digest, LedgerError> {
    digest_of(fresh(path)?, path)
}

/// Opens a file for reading what is on the disk, not what was kept of it in
/// memory.
pub(super) fn fresh(path: &Path) -> Result<File, LedgerError> {
    let file = File::open(path).map_err(LedgerError::io("open", path))?;
    file.sync_all().map_err(LedgerError::io("flush", path))?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
        .map_err(|e| LedgerError::io("read afresh", path)(e.into()))?;
    Ok(file)
}

/// [`digest_of_file`], and what the system keeps of it in memory serves too:
/// for what is read on from the same file afterwards.
pub(super) fn digest_of_kept(path: &Path) -> Result<Digest, LedgerError> {
    digest_of(File::open(path).map_err(LedgerError::io("open", path))?, path)
}

fn digest_of(file: File, path: &Path) -> Result<Digest, LedgerError> {
    let mut hashing = Hashing::new(file);
    let mut piece = vec![0; PIECE];
    while hashing.read(&mut piece).map_err(LedgerError::io("read", path))? > 0 {}
    Ok(hashing.digest())
}

/// Makes the folder for copies of a hub's archives: one of its own in `to`, so
/// that several hubs can share a medium. `hubs` are the folders that the hub
/// works in.
///
/// # Errors
/// [`LedgerError::OwnFolder`] when that would be in one of those: it is no
/// copy, and removing the archives would remove it. Or the system's refusal.
pub fn folder_for_copies(hubs: &[&Path], to: &Path, hub: HubId) -> Result<PathBuf, LedgerError> {
    let real = |path: &Path| path.canonicalize().map_err(LedgerError::io("look into", path));
    let refuse_own = |path: &Path| -> Result<(), LedgerError> {
        let path = real(path)?;
        for own in hubs {
            if path.starts_with(real(own)?) {
                return Err(LedgerError::OwnFolder { path });
            }
        }
        Ok(())
    };
    refuse_own(to)?;
    let folder = to.join(hub.to_string());
    disk::make_dir(&folder)?;
    refuse_own(&folder)?;
    Ok(folder)
}

/// Copies a file into another folder under the same name, durable on return.
/// `digest` is its SHA-256 by what the hub signed: the copy gets its name only
/// when it was read back and is just that.
///
/// A file that is there already stays. If it has the same bytes, it is the
/// copy.
///
/// # Errors
/// [`LedgerError::OtherFile`] and [`LedgerError::BadCopy`] leave what was
/// there; or the system's refusal.
pub fn copy_archive(from: &Path, to: &Path, digest: Digest) -> Result<(), LedgerError> {
    let path = to.join(from.file_name().unwrap_or_default());
    match digest_of_file(&path) {
        Ok(found) if found == digest => return Ok(()),
        Ok(_) => return Err(LedgerError::OtherFile { path }),
        Err(LedgerError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    copy_signed_for(from, &path, digest)
}

/// Copies a file in the place of another; the old one stays unless the copy,
/// read back, is what was signed for.
pub(super) fn copy_signed_for(from: &Path, to: &Path, digest: Digest) -> Result<(), LedgerError> {
    let new = unfinished(to);
    let copied = copy_to(from, &new).and_then(|()| digest_of_file(&new));
    match copied {
        Ok(found) if found == digest => rename(&new, to),
        other => {
            // What stays of it is overwritten by the next try.
            let _ = fs::remove_file(&new);
            Err(other.err().unwrap_or_else(|| LedgerError::BadCopy {
                from: from.into(),
                to: to.into(),
            }))
        }
    }
}

fn copy_to(from: &Path, to: &Path) -> Result<(), LedgerError> {
    let mut source = File::open(from).map_err(LedgerError::io("open", from))?;
    let mut file = create(to)?;
    std::io::copy(&mut source, &mut file).map_err(LedgerError::io_or_no_room("write to", to))?;
    file.sync_all().map_err(LedgerError::io("flush", to))
}

/// Takes SHA-256 of what passes.
struct Hashing {
    inner: File,
    hash: Sha256,
    unflushed: usize,
}

impl Hashing {
    fn new(inner: File) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            unflushed: 0,
        }
    }

    fn digest(self) -> Digest {
        Digest(self.hash.finalize().into())
    }

    fn flush_some(&mut self, path: &Path) -> Result<(), LedgerError> {
        if self.unflushed >= FLUSH_EVERY {
            self.unflushed = 0;
            self.inner.sync_data().map_err(LedgerError::io("flush", path))?;
        }
        Ok(())
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        self.unflushed += n;
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl Read for Hashing {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }
}
