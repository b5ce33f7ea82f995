//! The base, from which a lost index is filled: its statement, signed anew,
//! and its table of records.
#![no_main]

use hub_fuzz::{data_key, folder, hub_key, table::table};
use hub_protocol::cbor::decode;
use hub_protocol::{Digest, LedgerBase};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

fuzz_target!(|bytes: &[u8]| {
    let Some(([low, high], bytes)) = bytes.split_first_chunk::<2>() else { return };
    let at = usize::from(u16::from_le_bytes([*low, *high])).min(bytes.len());
    let (statement, blocks) = bytes.split_at(at);
    let Ok(mut base) = decode::<LedgerBase>(statement) else { return };
    base.file = 1;
    let key = data_key();
    let records = table(1, blocks, Some(&key));
    base.file_digest = Digest(Sha256::digest(&records).into());
    let dir = folder();
    let archive = dir.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    std::fs::write(archive.join("base"), base.sign(&hub_key())).unwrap();
    std::fs::write(archive.join("00000001.base"), records).unwrap();
    hubd::fuzzing::restore(dir.path(), base.hub, hub_key(), &key);
});
