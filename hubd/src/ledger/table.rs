//! A sorted table of the index: written once, never changed, checked at each
//! read.
//!
//! ```text
//! blocks   8 KiB each, encrypted: CRC-32C of the rest u32, the block's number
//!          u32, how many records u16, then records in the order of their
//!          keys, zeros
//! record   length of the key u16, length of the value u16 (0xffff: removed),
//!          key, value
//! tail     table number u32, blocks u32, records u64, length of the filter
//!          u32; encrypted: the filter, the first 16 bytes of each block's
//!          first key
//! end      magic "HUBTABL2", offset of the tail u64, CRC-32C of the tail u32,
//!          CRC-32C of all that u32
//! ```
//!
//! What is encrypted is nonce (24), XChaCha20-Poly1305, tag (16); its place is
//! authenticated: table and block number, or the tail's first 20 bytes. In
//! older tables, of the magic "HUBTABL1", nothing is; those of archives are
//! signed for and read as they are for ever.
//!
//! All integers little-endian. The filter is a Bloom filter (Bloom 1970) with
//! 10 bits a key and 6 probes: about 1 of 100 keys that are not there is
//! looked for in vain.
//!
//! Nobody needs to read a table through to believe it. A block is believed
//! when its checksum is right, and a key is believed to be missing when the
//! block in which it would stand was believed: a lost sector is an error when
//! it is read, never a missing record.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::at_rest::{RestSeal, SEAL_BYTES};
use super::index_stamp::Damage;
use super::segment::array;

pub(crate) const EXTENSION: &str = "tbl";
const MAGIC: &[u8; 8] = b"HUBTABL2";
const IN_CLEAR: &[u8; 8] = b"HUBTABL1";
const END_LEN: usize = 24;
const TAIL_HEAD: usize = 20;
const BLOCK: usize = 8 * 1024;
/// What is in an encrypted block.
const PLAIN: usize = BLOCK - SEAL_BYTES;
const BLOCK_HEAD: usize = 10;
const FENCE: usize = 16;
const REMOVED: u16 = u16::MAX;
const BITS_A_KEY: usize = 10;
const PROBES: u64 = 6;
/// The file is flushed as it grows, so that no flush is long: the journal
/// waits for the same disk.
const FLUSH_EVERY: usize = 1 << 20;

/// What a table holds under a key: a value, or that it was removed.
pub(crate) type Held = Option<Vec<u8>>;

/// A table that can be read from any thread.
#[derive(Debug)]
pub(crate) struct Table {
    path: PathBuf,
    file: File,
    number: u32,
    records: u64,
    filter: Vec<u8>,
    fences: Vec<[u8; FENCE]>,
    end_crc: u32,
    /// `None`: nothing in it is encrypted.
    seal: Option<RestSeal>,
}

impl Table {
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Names the content: the catalogue holds it against the file.
    pub(crate) fn end_crc(&self) -> u32 {
        self.end_crc
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn path_of(dir: &Path, number: u32) -> PathBuf {
        dir.join(format!("{number:08}.{EXTENSION}"))
    }

    /// Opens a table: its end and tail are read and checked, its blocks when
    /// they are needed.
    pub(crate) fn open(dir: &Path, number: u32, seal: Option<&RestSeal>) -> Result<Self, Damage> {
        Self::open_at(Self::path_of(dir, number), number, seal)
    }

    /// [`open`](Self::open), of a file with a name of its own.
    pub(crate) fn open_at(path: PathBuf, number: u32, seal: Option<&RestSeal>) -> Result<Self, Damage> {
        let file = File::open(&path).map_err(io("open a table of"))?;
        let len = file.metadata().map_err(io("examine"))?.len();
        let end_at = len.checked_sub(END_LEN as u64).ok_or(Damage::Contents)?;
        let end = read(&file, end_at, END_LEN)?;
        let word = |at| array(&end, at).map_or(0, u32::from_le_bytes);
        let tail_at = array(&end, 8).map_or(0, u64::from_le_bytes);
        let encrypted = end.starts_with(MAGIC);
        let known = encrypted || end.starts_with(IN_CLEAR);
        let whole = known && word(20) == crc32c::crc32c(&end[..20]) && tail_at <= end_at;
        if !whole {
            return Err(Damage::Contents);
        }
        let tail_len = usize::try_from(end_at - tail_at).map_err(|_| Damage::Contents)?;
        let tail = read(&file, tail_at, tail_len)?;
        if crc32c::crc32c(&tail) != word(16) {
            return Err(Damage::Contents);
        }
        let found = array(&tail, 0).map(u32::from_le_bytes);
        let blocks = array(&tail, 4).map(u32::from_le_bytes).ok_or(Damage::Contents)? as usize;
        let records = array(&tail, 8).map(u64::from_le_bytes).ok_or(Damage::Contents)?;
        let filter_len = array(&tail, 16).map(u32::from_le_bytes).ok_or(Damage::Contents)? as usize;
        let sealed = if encrypted { SEAL_BYTES } else { 0 };
        let right = TAIL_HEAD + filter_len + blocks * FENCE + sealed == tail_len
            && (blocks * BLOCK) as u64 == tail_at;
        if found != Some(number) || !right || filter_len == 0 {
            return Err(Damage::Contents);
        }
        let seal = match (encrypted, seal) {
            (false, _) => None,
            (true, Some(seal)) => Some(seal.clone()),
            (true, None) => return Err(Damage::Encrypted),
        };
        let (head, rest) = tail.split_at(TAIL_HEAD);
        let rest = match &seal {
            Some(seal) => seal.open(head, rest).ok_or(Damage::Contents)?,
            None => rest.to_vec(),
        };
        drop(tail);
        let mut filter = rest;
        let fences = filter.split_off(filter_len);
        filter.shrink_to_fit();
        Ok(Self {
            path,
            file,
            number,
            records,
            filter,
            fences: fences.as_chunks().0.to_vec(),
            end_crc: word(20),
            seal,
        })
    }

    /// What the table holds under a key; `None` if it does not speak of it.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Held>, Damage> {
        self.get_hashed(key, hash(key))
    }

    /// [`get`](Self::get), of a key whose [`hash`] is known: whoever asks
    /// several tables works it out once.
    pub(crate) fn get_hashed(&self, key: &[u8], hash: u64) -> Result<Option<Held>, Damage> {
        if !may_hold(&self.filter, hash) {
            return Ok(None);
        }
        let Some(block) = self.block_for(key)? else {
            return Ok(None);
        };
        let found = block.iter().find(|(found, _)| *found == key);
        Ok(found.map(|(_, held)| held.map(<[u8]>::to_vec)))
    }

    /// The block in which a key stands, if it does: the last one that begins
    /// at or before it.
    fn block_for(&self, key: &[u8]) -> Result<Option<Block>, Damage> {
        let fence = fence(key);
        let first = self.fences.partition_point(|f| *f < fence);
        let beyond = self.fences.partition_point(|f| *f <= fence);
        // Blocks whose first keys begin alike are told apart by reading.
        let (mut low, mut high) = (first, beyond);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let block = self.block(middle)?;
            if block.first().is_some_and(|first| first <= key) {
                low = middle + 1;
                found = Some(block);
            } else {
                high = middle;
            }
        }
        match (found, first.checked_sub(1)) {
            (Some(block), _) => Ok(Some(block)),
            (None, Some(before)) => self.block(before).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn block(&self, number: usize) -> Result<Block, Damage> {
        let mut bytes = read(&self.file, (number * BLOCK) as u64, BLOCK)?;
        if let Some(seal) = &self.seal {
            let place = block_place(self.number, number);
            bytes = seal.open(&place, &bytes).ok_or(Damage::Contents)?;
        }
        let named = array(&bytes, 4).map(u32::from_le_bytes);
        let crc = array(&bytes, 0).map(u32::from_le_bytes);
        if crc != Some(crc32c::crc32c(&bytes[4..])) || named.map(|n| n as usize) != Some(number) {
            return Err(Damage::Contents);
        }
        Ok(Block { bytes, number })
    }

    /// Reads on from the first key at or after `from`.
    pub(crate) fn from(&self, from: &[u8]) -> Result<Cursor<'_>, Damage> {
        let block = match self.block_for(from)? {
            Some(block) => Some(block),
            None if self.fences.is_empty() => None,
            None => Some(self.block(0)?),
        };
        let mut cursor = Cursor {
            table: self,
            next_block: block.as_ref().map_or(0, |block| block.number + 1),
            at: BLOCK_HEAD,
            left: block.as_ref().map_or(0, Block::count),
            block,
            current: None,
        };
        cursor.advance()?;
        while cursor.key().is_some_and(|key| key < from) {
            cursor.advance()?;
        }
        Ok(cursor)
    }
}

/// A record of a block, and where the next one begins.
type Record<'a> = (&'a [u8], Option<&'a [u8]>, usize);

/// A block whose checksum is right.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    number: usize,
}

impl Block {
    fn count(&self) -> usize {
        array(&self.bytes, 8).map_or(0, |n| usize::from(u16::from_le_bytes(n)))
    }

    fn first(&self) -> Option<&[u8]> {
        self.iter().next().map(|(key, _)| key)
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut at = BLOCK_HEAD;
        (0..self.count()).map_while(move |_| {
            let (key, held, next) = self.record(at)?;
            at = next;
            Some((key, held))
        })
    }

    fn record(&self, at: usize) -> Option<Record<'_>> {
        let key_len = usize::from(u16::from_le_bytes(array(&self.bytes, at)?));
        let value_len = u16::from_le_bytes(array(&self.bytes, at + 2)?);
        let key = self.bytes.get(at + 4..at + 4 + key_len)?;
        let value_at = at + 4 + key_len;
        if value_len == REMOVED {
            return Some((key, None, value_at));
        }
        let next = value_at + usize::from(value_len);
        Some((key, Some(self.bytes.get(value_at..next)?), next))
    }
}

/// A place in a table.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    table: &'a Table,
    block: Option<Block>,
    next_block: usize,
    at: usize,
    left: usize,
    current: Option<(usize, usize)>,
}

impl Cursor<'_> {
    fn record(&self) -> Option<(&[u8], Option<&[u8]>)> {
        let (at, _) = self.current?;
        let (key, held, _) = self.block.as_ref()?.record(at)?;
        Some((key, held))
    }

    pub(crate) fn key(&self) -> Option<&[u8]> {
        self.record().map(|(key, _)| key)
    }

    pub(crate) fn held(&self) -> Option<&[u8]> {
        self.record().and_then(|(_, held)| held)
    }

    pub(crate) fn advance(&mut self) -> Result<(), Damage> {
        self.current = None;
        while self.left == 0 {
            if self.next_block >= self.table.fences.len() {
                return Ok(());
            }
            let block = self.table.block(self.next_block)?;
            self.next_block += 1;
            self.left = block.count();
            self.at = BLOCK_HEAD;
            self.block = Some(block);
        }
        let next = self.block.as_ref().and_then(|block| block.record(self.at));
        let next = next.map(|(_, _, next)| next).ok_or(Damage::Contents)?;
        self.current = Some((self.at, next));
        self.at = next;
        self.left -= 1;
        Ok(())
    }
}

/// Writes a table, record by record in the order of their keys.
pub(crate) struct TableWriter {
    path: PathBuf,
    file: File,
    number: u32,
    block: Vec<u8>,
    in_block: u16,
    out: Vec<u8>,
    records: u64,
    filter: Vec<u8>,
    fences: Vec<[u8; FENCE]>,
    seal: RestSeal,
}

impl TableWriter {
    /// Begins a table of at most `most` records.
    pub(crate) fn create(dir: &Path, number: u32, most: u64, seal: &RestSeal) -> Result<Self, Damage> {
        Self::create_at(Table::path_of(dir, number), number, most, seal)
    }

    /// [`create`](Self::create), with a name of its own.
    pub(crate) fn create_at(path: PathBuf, number: u32, most: u64, seal: &RestSeal) -> Result<Self, Damage> {
        let file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(io("create a table of"))?;
        let most = usize::try_from(most).unwrap_or(usize::MAX / BITS_A_KEY);
        Ok(Self {
            path,
            file,
            number,
            block: Vec::with_capacity(BLOCK),
            in_block: 0,
            out: Vec::new(),
            records: 0,
            filter: vec![0; (most * BITS_A_KEY).div_ceil(8).max(8)],
            fences: Vec::new(),
            seal: seal.clone(),
        })
    }

    pub(crate) fn add(&mut self, key: &[u8], held: Option<&[u8]>) -> Result<(), Damage> {
        let len = 4 + key.len() + held.map_or(0, <[u8]>::len);
        if self.in_block > 0 && self.block.len() + len > PLAIN {
            self.end_block()?;
        }
        if self.in_block == 0 {
            self.fences.push(fence(key));
            self.block.resize(BLOCK_HEAD, 0);
        }
        let value_len = held.map_or(REMOVED, |value| value.len() as u16);
        self.block.extend_from_slice(&(key.len() as u16).to_le_bytes());
        self.block.extend_from_slice(&value_len.to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(held.unwrap_or_default());
        self.in_block += 1;
        self.records += 1;
        for bit in bits(&self.filter, hash(key)) {
            if let Some(byte) = self.filter.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
        Ok(())
    }

    fn end_block(&mut self) -> Result<(), Damage> {
        self.block.resize(PLAIN, 0);
        let number = (self.fences.len() - 1) as u32;
        self.block[4..8].copy_from_slice(&number.to_le_bytes());
        self.block[8..10].copy_from_slice(&self.in_block.to_le_bytes());
        let crc = crc32c::crc32c(&self.block[4..]);
        self.block[..4].copy_from_slice(&crc.to_le_bytes());
        let place = block_place(self.number, number as usize);
        self.out.append(&mut self.seal.seal(&place, &self.block));
        self.block.clear();
        self.in_block = 0;
        if self.out.len() >= FLUSH_EVERY {
            self.write_out()?;
            self.file.sync_data().map_err(io("flush"))?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<(), Damage> {
        self.file.write_all(&self.out).map_err(io("write to"))?;
        self.out.clear();
        Ok(())
    }

    /// Makes the table durable and opens it.
    pub(crate) fn finish(mut self) -> Result<Table, Damage> {
        if self.in_block > 0 {
            self.end_block()?;
        }
        let mut head = self.number.to_le_bytes().to_vec();
        head.extend_from_slice(&(self.fences.len() as u32).to_le_bytes());
        head.extend_from_slice(&self.records.to_le_bytes());
        head.extend_from_slice(&(self.filter.len() as u32).to_le_bytes());
        // Some megabytes each: none stands beside the next for longer than
        // there is need.
        let mut rest = std::mem::take(&mut self.filter);
        rest.extend_from_slice(self.fences.as_flattened());
        let sealed = self.seal.seal(&head, &rest);
        drop(rest);
        let mut end = MAGIC.to_vec();
        end.extend_from_slice(&((self.fences.len() * BLOCK) as u64).to_le_bytes());
        end.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(&head), &sealed).to_le_bytes());
        end.extend_from_slice(&crc32c::crc32c(&end).to_le_bytes());
        self.write_out()?;
        for part in [&head, &sealed, &end] {
            self.file.write_all(part).map_err(io("write to"))?;
        }
        drop(sealed);
        self.out = Vec::new();
        self.file.sync_all().map_err(io("flush"))?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(io("flush the folder of"))?;
        Table::open_at(self.path, self.number, Some(&self.seal))
    }
}

fn block_place(table: u32, block: usize) -> [u8; 12] {
    let mut place = [0; 12];
    place[..4].copy_from_slice(&table.to_le_bytes());
    place[4..].copy_from_slice(&(block as u64).to_le_bytes());
    place
}

fn fence(key: &[u8]) -> [u8; FENCE] {
    let mut out = [0; FENCE];
    let len = key.len().min(FENCE);
    out[..len].copy_from_slice(&key[..len]);
    out
}

fn may_hold(filter: &[u8], hash: u64) -> bool {
    bits(filter, hash).all(|bit| {
        filter
            .get(bit / 8)
            .is_some_and(|byte| byte & (1 << (bit % 8)) != 0)
    })
}

/// What filters know of a key: FNV-1a (Fowler, Noll, Vo), mixed as SplitMix64
/// does.
pub(crate) fn hash(key: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// The filter's bits for a key: from the halves of its hash the probes
/// (Kirsch, Mitzenmacher 2006).
fn bits(filter: &[u8], hash: u64) -> impl Iterator<Item = usize> + use<> {
    let (first, second) = (hash & 0xffff_ffff, (hash >> 32) | 1);
    let all = (filter.len() as u64).saturating_mul(8).max(1);
    (0..PROBES).map(move |n| (first.wrapping_add(n.wrapping_mul(second)) % all) as usize)
}

fn read(file: &File, at: u64, len: usize) -> Result<Vec<u8>, Damage> {
    let mut bytes = vec![0; len];
    match file.read_exact_at(&mut bytes, at) {
        Ok(()) => Ok(bytes),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Damage::Contents),
        Err(error) => Err(io("read")(error)),
    }
}

fn io(action: &'static str) -> impl Fn(std::io::Error) -> Damage {
    move |error| Damage::Io {
        action,
        detail: error.to_string(),
    }
}
