//! Payloads of signed objects, in CBOR. The first byte says which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use hub_protocol::allowance::{Allowance, AllowanceReturn, DeviceReceipt};
use hub_protocol::cbor::{decode, encode};
use hub_protocol::{
    ArchiveManifest, AttestationResult, CardBlob, CertificateKeys, DeviceDescription, DeviceKeyChange, DeviceList,
    EnrolmentRequest, Entry, Event, HubKeyChange, HubTlsKeys, LedgerBase, LedgerCommit, Override, PaymentRequest,
    PaymentStatus, Receipt, Registration, SealedEntry, VoidRequest,
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
    same!(bytes, which % 32,
        0 => PaymentRequest, 1 => VoidRequest, 2 => Receipt, 3 => Entry, 4 => LedgerCommit,
        5 => EnrolmentRequest, 6 => Registration, 7 => ArchiveManifest, 8 => LedgerBase,
        9 => DeviceDescription, 10 => AttestationResult, 11 => Allowance, 12 => DeviceReceipt,
        13 => AllowanceReturn, 14 => DeviceList, 15 => CardBlob, 16 => Override, 17 => PaymentStatus,
        18 => HubKeyChange, 19 => HubTlsKeys, 20 => DeviceKeyChange, 21 => CertificateKeys, 22 => SealedEntry,
        23 => Event,
    );
    if which % 32 == 15 && let Ok(blob) = CardBlob::from_blob(bytes) {
        assert_eq!(blob.to_blob(), bytes);
        let _ = blob.hpke_parts();
    }
    if which % 32 == 0 && let Ok(request) = decode::<PaymentRequest>(bytes) {
        let _ = request.check();
    }
    if which % 32 == 14 && let Ok(list) = decode::<DeviceList>(bytes) {
        let _ = list.check();
    }
});
