//! Frames as they come over a QUIC stream, both ways.
#![no_main]

use libfuzzer_sys::fuzz_target;
use hub_protocol::frame::{from_wire, to_wire};
use hub_protocol::{Answer, Push, Request};

// What decodes is what was sent, byte for byte: nothing hides in a frame.
fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = from_wire::<Request>(bytes) {
        let _ = request.check();
        assert_eq!(to_wire(&request), bytes);
    }
    if let Ok(answer) = from_wire::<Answer>(bytes) {
        assert_eq!(to_wire(&answer), bytes);
    }
    if let Ok(push) = from_wire::<Push>(bytes) {
        assert_eq!(to_wire(&push), bytes);
    }
});
