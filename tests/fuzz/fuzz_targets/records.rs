//! What the index holds, decrypted: records of payments, cards, devices, the
//! store, what is usual in it, and the periods that are not over. The first byte says which.
#![no_main]

use hub_core::admission::FleetRecord;
use hub_core::closure::OpenPeriods;
use hub_core::profile::Profile;
use hub_core::state::{CardRecord, DeviceRecord, Head, PaymentRecord, State, StoreRecord};
use hub_protocol::cbor::{decode, encode};
use libfuzzer_sys::fuzz_target;

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
    let Some((which, value)) = bytes.split_first() else { return };
    same!(value, which % 8,
        0 => PaymentRecord, 1 => CardRecord, 2 => DeviceRecord, 3 => StoreRecord, 4 => FleetRecord, 5 => Profile, 6 => OpenPeriods,
    );
    let mut state = State::default();
    let key = match which % 8 {
        2 => &b"d1"[..],
        3 => b"s",
        4 => b"f",
        5 => b"u",
        6 => b"o",
        7 => b"t0123456789abcdef",
        _ => value,
    };
    if state.restore(key, value).is_ok() {
        let head = Head { sequence: 9, digest: hub_protocol::Digest::ZERO };
        state.restored(head, Some(value));
        state.restore_root(value);
        let _ = (state.archives(), state.tls_keys(), state.devices().count());
    }
});
