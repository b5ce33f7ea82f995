//! Payloads of signed objects, in CBOR. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use hub_protocol::allowance::{Allowance, AllowanceReturn, DeviceReceipt};
use hub_protocol::cbor::{decode, encode};
use hub_protocol::{
    ArchiveManifest, AttestationResult, DeviceDescription, DeviceList, EnrolmentRequest, Entry, LedgerBase, LedgerCommit,
    PaymentRequest, Receipt, Registration, VoidRequest,
};

// Deterministic encoding: one value, one form.
macro_rules! same {
    ($bytes:expr, $which:expr, $($number:literal => $object:ty),+ $(,)?) => {
        match $which {
            $($number => {
                if let Ok(object) = decode::<$object>($bytes) {
                    assert_eq!(encode(&object), $bytes);
                }
            })+
            _ => {}
        }
    };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((which, bytes)) = bytes.split_first() else { return };
    same!(bytes, which % 16,
        0 => PaymentRequest, 1 => VoidRequest, 2 => Receipt, 3 => Entry, 4 => LedgerCommit,
        5 => EnrolmentRequest, 6 => Registration, 7 => ArchiveManifest, 8 => LedgerBase,
        9 => DeviceDescription, 10 => AttestationResult, 11 => Allowance, 12 => DeviceReceipt,
        13 => AllowanceReturn, 14 => DeviceList,
    );
    if which % 16 == 0 && let Ok(request) = decode::<PaymentRequest>(bytes) {
        let _ = request.check();
    }
    if which % 16 == 14 && let Ok(list) = decode::<DeviceList>(bytes) {
        let _ = list.check();
    }
});
