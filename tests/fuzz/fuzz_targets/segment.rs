//! Segments whose checksums, links, marks and signatures are right, of entries
//! with any content, in clear and encrypted: verified, read with the store's
//! key and with disclosed ones, salvaged, opened, folded, and its closures
//! held against the rest.
#![no_main]

use hub_core::closure_audit::ClosureAudit;
use hub_core::state::State;
use hub_fuzz::folder;
use hub_fuzz::segment::{HUB, Writer};
use hubd::ledger::{Candidates, Contents, Journal, JournalOptions, read_each, salvage};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut writer = Writer::new();
    writer.take(bytes);
    writer.commit();
    let dir = folder();
    for (at, file) in writer.files.iter_mut().enumerate() {
        if writer.sound {
            file.extend([0; 16]);
        }
        std::fs::write(dir.path().join(format!("{:08}.seg", at + 1)), file).unwrap();
    }
    let key = writer.key.verifying_key();
    let read = |contents| read_each(dir.path(), &key, contents, &mut |_| (), &mut |_| ());
    let unread = read(Contents::Unread);
    let opened = read(Contents::Sealed(&writer.seal));
    let disclosed = read(Contents::Disclosed(&writer.disclosed));
    if writer.sound && writer.files.len() == 1 {
        for report in [unread, opened, disclosed] {
            let report = report.unwrap();
            assert_eq!((report.entries, report.broken), (writer.sequence, None));
        }
    }
    let _ = salvage(dir.path(), &key, Contents::Sealed(&writer.seal), &mut std::io::sink());
    let candidates = Candidates::from(writer.key.clone()).reading(Some(writer.data_key.clone()));
    let options = JournalOptions { segment_bytes: 64 * 1024, create: false };
    let Ok((journal, _)) = Journal::open(dir.path(), HUB, candidates, options) else { return };
    let Ok(entries) = journal.reader().entries_from(1) else { return };
    let (mut state, mut audit) = (State::default(), ClosureAudit::default());
    for stored in entries {
        let Ok(stored) = stored else { return };
        let _ = audit.take(&stored.entry);
        if state.apply(&stored.entry, stored.digest).is_err() {
            return;
        }
    }
});
