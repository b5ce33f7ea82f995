//! The chain of keys that a ledger was signed with: the file beside it, and
//! statements in any order.
#![no_main]

use hub_fuzz::{Parts, folder, hub_key, key};
use hub_protocol::cbor::{decode, encode};
use hub_protocol::{HubKeyChange, KeyChain, SignedKeyChange};
use hubd::ledger::{SIGNING_KEYS, signing_keys};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut statements = Vec::new();
    for (kind, part) in Parts(bytes).take(40) {
        statements.push(SignedKeyChange(match decode::<HubKeyChange>(part) {
            Ok(mut change) if kind & 0x80 == 0 => {
                let (old, new) = (key(2 + (kind & 7)), key(2 + (kind >> 3 & 7)));
                change.old_key = old.verifying_key().to_bytes();
                change.new_key = new.verifying_key().to_bytes();
                change.sign(&old, &new)
            }
            _ => part.to_vec(),
        }));
    }
    let trusted = hub_key().verifying_key();
    let linked = KeyChain::linked(None, &trusted, &statements);
    if let Ok(chain) = &linked {
        assert!(chain.keys().any(|key| *key == trusted));
        assert_eq!(chain.statements(0), statements);
        assert_eq!(chain.changes() as usize, statements.len());
        let again = KeyChain::linked(chain.hub(), chain.current(), &statements);
        assert_eq!(again.as_ref(), Ok(chain), "from the last key as from the first");
    }
    let mut chain = KeyChain::new(None, trusted);
    for statement in &statements {
        let before = chain.clone();
        match chain.follow(statement) {
            Ok(_) => assert_eq!(chain.first(), before.first()),
            Err(_) => assert_eq!(chain, before),
        }
        let grown = chain.keys().count() - before.keys().count();
        assert!(grown <= 1);
    }
    // The file as it comes, and as a hub would have written it.
    let dir = folder();
    let file = dir.path().join(SIGNING_KEYS);
    std::fs::write(&file, bytes).unwrap();
    assert!(signing_keys(dir.path(), &trusted).is_ok());
    let mut stored = vec![0xa1, 0x01];
    stored.extend(encode(&statements));
    std::fs::write(&file, stored).unwrap();
    let found = signing_keys(dir.path(), &trusted).unwrap();
    match linked {
        Ok(chain) => assert_eq!(found, chain),
        Err(_) => assert_eq!(found, KeyChain::new(None, trusted)),
    }
});
