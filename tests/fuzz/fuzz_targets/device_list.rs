//! Headquarters' list of devices: as people write it, and signed.
#![no_main]

use hub_fuzz::key;
use hub_protocol::cbor::{decode, encode};
use hub_protocol::cose::{self, ObjectType};
use hub_protocol::DeviceList;
use hub_protocol::device_list::MAX_DEVICE_LIST;
use hubd::config::verify_device_list;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let signer = key(4);
    let trusted = [signer.verifying_key()];
    let _ = verify_device_list(bytes, &trusted);
    let signed = |payload: &[u8]| {
        verify_device_list(&cose::sign(&signer, ObjectType::DeviceList, payload), &trusted).map(|signed| signed.list)
    };
    match decode::<DeviceList>(bytes) {
        // With its signature it is longer.
        Ok(_) if bytes.len() + 200 > MAX_DEVICE_LIST => {}
        Ok(list) => assert_eq!(signed(bytes).ok(), list.check().is_ok().then_some(list)),
        Err(_) => assert!(signed(bytes).is_err()),
    }
    if let Some(list) = hubd::fuzzing::device_list(bytes) {
        assert_eq!(decode::<DeviceList>(&encode(&list)).as_ref(), Ok(&list));
        let _ = list.check();
    }
});
