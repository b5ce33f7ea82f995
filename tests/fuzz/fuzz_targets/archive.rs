//! An archived segment beside its manifest, and the table of payments: any
//! bytes, and manifests that are signed for an archive of any entries.
#![no_main]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use hub_fuzz::segment::{HUB, Writer};
use hub_fuzz::{folder, hub_key};
use hub_protocol::cbor::decode;
use hub_protocol::{ArchiveManifest, Digest};
use hubd::ledger::{Contents, check_archive};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((cut, bytes)) = bytes.split_first_chunk::<2>() else { return };
    let at = usize::from(u16::from_le_bytes(*cut)).min(bytes.len());
    let (manifest, packed) = bytes.split_at(at);
    let dir = folder();
    let key = hub_key().verifying_key();
    let path = dir.path().join("00000001.seg.gz");
    std::fs::write(dir.path().join("00000001.manifest"), manifest).unwrap();
    std::fs::write(&path, packed).unwrap();
    let _ = check_archive(&path, &key, Contents::Unread, None);
    hubd::fuzzing::table(&dir.path().join("table"), packed, None);

    // The rest as entries, the manifest about them.
    let Ok(mut manifest) = decode::<ArchiveManifest>(manifest) else { return };
    let mut writer = Writer::new();
    writer.take(packed);
    writer.close();
    let Some(segment) = writer.files.first() else { return };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(segment).unwrap();
    let packed = gzip.finish().unwrap();
    manifest.hub = HUB;
    manifest.number = 1;
    manifest.segment_digest = Digest::of(segment);
    manifest.archive_digest = Digest::of(&packed);
    if writer.files.len() == 2 {
        // Only then is the last entry the archive's.
        (manifest.first, manifest.last, manifest.last_digest) = (1, writer.sequence, writer.digest);
        manifest.before = Digest::ZERO;
    }
    std::fs::write(dir.path().join("00000001.manifest"), manifest.sign(&hub_key())).unwrap();
    std::fs::write(&path, &packed).unwrap();
    for contents in [
        Contents::Unread,
        Contents::Sealed(&writer.seal),
        Contents::Disclosed(&writer.disclosed),
    ] {
        let _ = check_archive(&path, &key, contents, None);
    }
});
