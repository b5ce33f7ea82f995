//! Both copies of the file that keeps a store's data key, and a change of the
//! vault key over whatever opens.
#![no_main]

use hub_fuzz::{data_key, folder, sealed};
use hub_protocol::DataKey;
use hubd::config::Layout;
use hubd::data_key::{DATA_KEY, DataKeyError, StoreKey, VaultKey, seal_of_copy};
use libfuzzer_sys::fuzz_target;

/// Stands in an input for the data key, wrapped under the present vault key.
const WRAPPED: [u8; 72] = [b'W'; 72];

/// What stands before the CBOR, with its checksum; one bit of `how` leaves the
/// bytes as they come.
fn file(how: u8, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    let at = body.windows(WRAPPED.len()).position(|part| part == WRAPPED);
    if let Some(part) = at.and_then(|at| body.get_mut(at..at + WRAPPED.len())) {
        let key = DataKey::new([1; 32]).derive("hub-data-key-wrap/1");
        let id = &data_key().derive("hub-data-key/1")[..8];
        part.copy_from_slice(&sealed(&key, id, data_key().as_bytes()));
    }
    match how & 1 {
        0 => [&b"HUBDKEY1"[..], &crc32c::crc32c(&body).to_le_bytes(), &body].concat(),
        _ => body,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(([how, low, high], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let at = usize::from(u16::from_le_bytes([*low, *high])).min(bytes.len());
    let (first, second) = bytes.split_at(at);
    let dir = folder();
    let layout = Layout::new(dir.path());
    std::fs::create_dir(&layout.ledger).unwrap();
    std::fs::write(dir.path().join(DATA_KEY), file(*how, first)).unwrap();
    std::fs::write(layout.ledger.join(DATA_KEY), file(how >> 1, second)).unwrap();
    let [old, new, other] = [1, 2, 3].map(|byte| VaultKey::new([byte; 32]));
    let read = seal_of_copy(&layout.ledger, &[old.clone()]);
    let Ok(mut store) = StoreKey::open(&layout, &[&old]) else { return };
    // The copy beside the ledger may be of another store than the other one.
    assert!(read.is_ok_and(|seal| seal.is_some()));
    let key = store.key().clone();
    // As `hubctl keys rotate vault` does it; whatever the file claimed.
    match store.add(&new) {
        Ok(()) => {}
        // What no hub writes; it goes on as it was.
        Err(DataKeyError::Full { .. }) => {
            assert_eq!(*StoreKey::open(&layout, &[&old]).unwrap().key(), key);
            return;
        }
        Err(error) => panic!("{error}"),
    }
    assert!(store.opens_with(&old) && store.opens_with(&new));
    assert_eq!(*StoreKey::open(&layout, &[&new]).unwrap().key(), key);
    store.keep_only(&new).unwrap();
    assert_eq!(*StoreKey::open(&layout, &[&new]).unwrap().key(), key);
    assert!(StoreKey::open(&layout, &[&old]).is_err(), "the old vault key opens nothing any more");
    assert!(StoreKey::open(&layout, &[&other]).is_err());
});
