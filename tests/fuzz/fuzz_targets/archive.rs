//! An archived segment beside its manifest, and the table of payments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ed25519_dalek::SigningKey;
use hubd::ledger::{Contents, check_archive};

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let at = usize::from(u16::from_le_bytes(*cut)).min(bytes.len());
    let (manifest, packed) = bytes.split_at(at);
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(dir.path().join("00000001.manifest"), manifest).unwrap();
    std::fs::write(dir.path().join("00000001.seg.gz"), packed).unwrap();
    let key = SigningKey::from_bytes(&[2; 32]).verifying_key();
    let _ = check_archive(&dir.path().join("00000001.seg.gz"), &key, Contents::Unread, None);
    hubd::fuzzing::table(&dir.path().join("table"), packed);
});
