//! COSE_Sign1 objects: signatures, headers, and receipts with their proofs; as
//! they come, and with the bytes as a payload that is well signed.
#![no_main]

use hub_fuzz::hub_key;
use hub_protocol::cbor::{decode, encode};
use hub_protocol::commit::ReceiptGroup;
use hub_protocol::cose::{ObjectType, Unverified, sign, verify, verifying_key};
use hub_protocol::{CommittedReceipt, HubKeyChange, LedgerCommit, Receipt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let signer = hub_key();
    let key = signer.verifying_key();
    for object in [ObjectType::PaymentRequest, ObjectType::LedgerEntry, ObjectType::Policy] {
        let _ = verify(bytes, object, &key);
    }
    if let Ok(object) = Unverified::parse(bytes) {
        let _ = (object.kid(), object.payload_unverified().len());
        assert!(Unverified::payload_of(bytes).is_ok());
    }
    let _ = CommittedReceipt::open(bytes, &key);
    let _ = HubKeyChange::open(bytes);
    if let Some(start) = bytes.first_chunk::<32>() {
        let _ = verifying_key(start);
    }
    let signed = sign(&signer, ObjectType::VoidRequest, bytes);
    assert_eq!(verify(&signed, ObjectType::VoidRequest, &key).as_deref(), Ok(bytes));
    assert!(verify(&signed, ObjectType::Receipt, &key).is_err());

    // A receipt that the hub has committed, and one that it has not.
    let Ok(receipt) = decode::<Receipt>(bytes) else { return };
    let (sequence, digest) = (receipt.sequence, receipt.entry_digest);
    let alone = CommittedReceipt::restated(&signer, &receipt, sequence, digest);
    assert_eq!(CommittedReceipt::open(&encode(&alone), &key).as_ref(), Ok(&receipt));
    let other = encode(&LedgerCommit { hub: receipt.hub, first: 1, last: 1, last_digest: digest, receipts: None });
    let rows = vec![(sequence, bytes.to_vec()), (sequence.saturating_add(1), other)];
    let Some(group) = ReceiptGroup::new(rows) else { return };
    let commit = LedgerCommit {
        hub: receipt.hub,
        first: sequence,
        last: sequence.saturating_add(1),
        last_digest: digest,
        receipts: Some(group.root()),
    };
    let held = group.committed(commit.sign(&signer)).receipt(sequence);
    let Some(mut held) = held else { return };
    assert_eq!(CommittedReceipt::open(&encode(&held), &key), Ok(receipt));
    held.index = 1;
    assert!(CommittedReceipt::open(&encode(&held), &key).is_err(), "in another's place");
    held.index = 0;
    held.path.clear();
    assert!(CommittedReceipt::open(&encode(&held), &key).is_err(), "without its path");
});
