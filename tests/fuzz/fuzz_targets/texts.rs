//! What people type or a till sends as text: codes, card numbers, versions.
#![no_main]

use libfuzzer_sys::fuzz_target;
use hub_protocol::card_number;
use hub_protocol::description::Version;
use hub_protocol::{Currency, DeviceId, EnrolmentCode, PaymentId};

fuzz_target!(|text: &str| {
    if let Ok(code) = text.parse::<EnrolmentCode>() {
        assert_eq!(code.to_string().parse::<EnrolmentCode>().ok().as_ref(), Some(&code));
    }
    let _ = text.parse::<Version>();
    let _ = text.parse::<Currency>();
    let _ = text.parse::<PaymentId>();
    let _ = text.parse::<DeviceId>();
    let _ = card_number::holds_card_number(text);
});
