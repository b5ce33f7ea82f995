//! Tables of the index (`hubd/src/ledger/table.rs`) of any blocks.

use hub_protocol::DataKey;

use crate::{Parts, sealed};

const BLOCK: usize = 8 * 1024;
const FENCE: usize = 16;

/// A table with this number, its blocks the parts of `bytes`, each with the
/// right number and checksums, in clear or under the store's key. Of a part's
/// kind, the lowest bit says that the block claims its own count of records,
/// by its first two bytes; else it holds as many as look like some. The other
/// bits are what the tail claims beside.
pub fn table(number: u32, bytes: &[u8], key: Option<&DataKey>) -> Vec<u8> {
    let plain_len = if key.is_some() { BLOCK - 40 } else { BLOCK };
    let key = key.map(|key| key.derive("hub-store/1 index"));
    let (mut out, mut fences, mut records) = (Vec::new(), Vec::new(), 0_u64);
    for (at, (kind, part)) in Parts(bytes).take(16).enumerate() {
        let (count, body) = match part.split_first_chunk::<2>() {
            Some((count, body)) if kind & 1 == 1 => (u16::from_le_bytes(*count), body),
            _ => (count_of(part), part),
        };
        let mut block = vec![0; 10];
        block[4..8].copy_from_slice(&(at as u32).to_le_bytes());
        block[8..].copy_from_slice(&count.to_le_bytes());
        block.extend_from_slice(body);
        block.resize(plain_len, 0);
        let crc = crc32c::crc32c(&block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        let first = body.get(4..).unwrap_or_default();
        let first_len = body.first_chunk::<2>().map_or(0, |len| usize::from(u16::from_le_bytes(*len)));
        let mut fence = [0; FENCE];
        for (to, from) in fence.iter_mut().zip(first.iter().take(first_len)) {
            *to = *from;
        }
        fences.extend_from_slice(&fence);
        records += u64::from(count) + u64::from(kind >> 4);
        match &key {
            Some(key) => {
                let mut place = [0; 12];
                place[..4].copy_from_slice(&number.to_le_bytes());
                place[4..].copy_from_slice(&(at as u64).to_le_bytes());
                out.extend(sealed(key, &place, &block));
            }
            None => out.extend(block),
        }
    }
    let tail_at = out.len() as u64;
    // A filter that lets everything pass.
    let filter = [0xff; 8];
    let mut head = number.to_le_bytes().to_vec();
    head.extend(((fences.len() / FENCE) as u32).to_le_bytes());
    head.extend(records.to_le_bytes());
    head.extend((filter.len() as u32).to_le_bytes());
    let rest = [&filter[..], &fences].concat();
    let (magic, rest) = match &key {
        Some(key) => (b"HUBTABL2", sealed(key, &head, &rest)),
        None => (b"HUBTABL1", rest),
    };
    let tail = [head, rest].concat();
    let mut end = magic.to_vec();
    end.extend(tail_at.to_le_bytes());
    end.extend(crc32c::crc32c(&tail).to_le_bytes());
    end.extend(crc32c::crc32c(&end).to_le_bytes());
    [out, tail, end].concat()
}

/// How many whole records stand there.
fn count_of(body: &[u8]) -> u16 {
    let (mut at, mut count) = (0, 0);
    while let Some(lengths) = body.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let [a, b, c, d] = *lengths;
        let key = usize::from(u16::from_le_bytes([a, b]));
        let value = match u16::from_le_bytes([c, d]) {
            u16::MAX => 0,
            len => usize::from(len),
        };
        at += 4 + key + value;
        if key == 0 || at > body.len() {
            break;
        }
        count += 1;
    }
    count
}
