//! Files of sealed cards, as the vault opens them: damaged in any way, or well
//! encrypted with any content.
#![no_main]

use hub_fuzz::{Parts, folder, sealed};
use hub_protocol::{PaymentId, SealedCard};
use hubd::ledger::{LedgerError, Vault};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest as _, Sha256};

const KEY: [u8; 32] = [5; 32];
const FILE_BYTES: usize = 4096;

fn header() -> Vec<u8> {
    let check = Sha256::new_with_prefix(b"hubd vault key check").chain_update(KEY).finalize();
    let mut out = b"HUBVALT1".to_vec();
    out.extend([1, 0, 0, 0]);
    out.extend(&check[..8]);
    out.extend(crc32c::crc32c(&out).to_le_bytes());
    out
}

fn record(number: u32, at: usize, body: &[u8]) -> Vec<u8> {
    let mut named = (body.len() as u16).to_le_bytes().to_vec();
    named.extend(1_u16.to_le_bytes());
    let words = named.clone();
    named.extend(number.to_le_bytes());
    named.extend((at as u32).to_le_bytes());
    [&words, &crc32c::crc32c(&named).to_le_bytes()[..], body].concat()
}

fuzz_target!(|bytes: &[u8]| {
    let dir = folder();
    let mut files = vec![header()];
    for (kind, part) in Parts(bytes).take(64) {
        let number = files.len() as u32;
        let Some(file) = files.last_mut() else { return };
        let at = file.len();
        let id = PaymentId([kind >> 4; 16]);
        match kind & 7 {
            // A record with a card that opens, to anything.
            0 | 1 => {
                let body = [&id.0[..], &sealed(&KEY, &id.0, part)].concat();
                file.extend(record(number, at, &body));
            }
            // A record with any body.
            2 => file.extend(record(number, at, part)),
            // What a torn write leaves, or damage.
            3 | 4 => file.extend(part),
            5 => file.resize(at + part.len(), 0),
            // The header is damaged too.
            6 => *file = part.to_vec(),
            _ if files.len() < 4 => files.push(header()),
            _ => {}
        }
    }
    for (at, file) in files.iter_mut().enumerate() {
        if file.len() < FILE_BYTES {
            file.resize(FILE_BYTES, 0);
        }
        file.truncate(64 * 1024 - 1);
        std::fs::write(dir.path().join(format!("{:08}.vlt", at + 1)), file).unwrap();
    }
    // A file that is none is refused; damage in one is not.
    let Ok((mut vault, report)) = Vault::open(dir.path(), &KEY, FILE_BYTES) else {
        assert!(files.iter().any(|file| !file.starts_with(&header())), "damage keeps the hub from starting");
        return;
    };
    let reader = vault.reader();
    let ids = reader.newest(usize::MAX).unwrap();
    assert_eq!(ids.len(), report.cards);
    for id in &ids {
        match reader.get(*id) {
            Ok(Some(_)) | Err(LedgerError::CardUnreadable { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    let card = SealedCard { salt: [1; 16], blob: b"sealed".to_vec() };
    let id = PaymentId([0x77; 16]);
    vault.put(&[(id, card.clone())]).unwrap();
    assert_eq!(reader.get(id).unwrap(), Some(card.clone()));
    drop(vault);
    let (mut vault, _) = Vault::open(dir.path(), &KEY, FILE_BYTES).unwrap();
    let reader = vault.reader();
    assert_eq!(reader.get(id).unwrap(), Some(card));
    vault.erase(&reader.newest(usize::MAX).unwrap()).unwrap();
    drop(vault);
    let (_, report) = Vault::open(dir.path(), &KEY, FILE_BYTES).unwrap();
    assert_eq!(report.cards, 0, "erased");
});
