//! The bytes of the data key's file, read and written as a whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt, fchown};
use std::path::Path;

use hub_protocol::cbor;
use minicbor::{Decode, Encode};

use super::WrapId;

const MAGIC: &[u8; 8] = b"HUBDKEY1";

/// Far more than a file with two wraps has, in bytes.
pub(super) const MOST_BYTES: u64 = 64 * 1024;

/// The data key under one other key.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Wrap {
    #[n(1)]
    pub(super) kind: u8,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) key: WrapId,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) wrapped: Vec<u8>,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct Stored {
    #[n(1)]
    pub(super) written: u64,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub(super) id: [u8; 8],
    #[n(3)]
    pub(super) wraps: Vec<Wrap>,
}

pub(super) fn bytes_of(stored: &Stored) -> Vec<u8> {
    let body = cbor::encode(stored);
    let crc = crc32c::crc32c(&body).to_le_bytes();
    [&MAGIC[..], &crc, &body].concat()
}

pub(super) fn read(path: &Path) -> Result<Stored, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    let damaged = || "damaged".to_owned();
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(damaged)?;
    let (crc, body) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    if u32::from_le_bytes(*crc) != crc32c::crc32c(body) {
        return Err(damaged());
    }
    cbor::decode(body).map_err(|_| damaged())
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    // Root may write what the hub's own user has to read.
    if let Ok(owner) = folder.metadata() {
        let _ = fchown(&file, Some(owner.uid()), Some(owner.gid()));
    }
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
