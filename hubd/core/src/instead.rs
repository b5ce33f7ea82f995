//! What can be done instead, where a payment is refused for how its card was
//! read or its holder verified: only what is possible at that device, and only
//! what would pass the ceiling for one payment. What a card, a device or the
//! store has left is asked when the customer comes back with the PIN.
//!
//! The wire has a number for "insert the card" alone. What else helps, the
//! customer's own device or another device of the shop, stands in the texts of
//! the reasons, and the payment is declined.

use hub_protocol::entry::DecisionRecord;
use hub_protocol::{Decision, DeviceClass, EntryMode, FallbackAction, PaymentRequest, Reason};

use crate::decide::{Situation, refuse};
use crate::limits::Limits;

/// Whether the holder can enter the PIN at the device.
pub(crate) fn takes_pin(s: &Situation<'_>) -> bool {
    s.class != DeviceClass::Softpos || s.standing.pin_on_glass
}

/// Whether a card can be inserted: a phone alone has no slot.
fn has_slot(s: &Situation<'_>) -> bool {
    s.class != DeviceClass::Softpos
}

/// The record of a payment that is refused for this reason, with what to do
/// instead if there is something.
pub(crate) fn refused(
    reason: Reason,
    request: &PaymentRequest,
    s: &Situation<'_>,
    limits: Option<&Limits>,
) -> DecisionRecord {
    let record = refuse(reason);
    let (Some(action), Some(limits)) = (record.fallback, limits) else {
        return declined(record);
    };
    // Or a clock in doubt would decline what was sent for.
    let limits = limits.by_clock(s);
    let amount = request.amount_minor();
    let (by_pin, by_own_device) = (limits.passes_by_pin(amount), limits.passes_by_own_device(amount));
    let insert = has_slot(s) && by_pin;
    match action {
        FallbackAction::InsertCard if insert && request.entry_mode != EntryMode::Chip => record,
        FallbackAction::InsertCard => declined(record),
        FallbackAction::InsertCardEnterPin if insert => record,
        // Another device may take it, or the customer's own.
        FallbackAction::InsertCardEnterPin if !takes_pin(s) => refuse(Reason::PinOnGlassNotAllowed),
        FallbackAction::InsertCardEnterPin if by_pin || by_own_device => declined(record),
        FallbackAction::InsertCardEnterPin => refuse(Reason::TransactionCeiling),
    }
}

/// There is nothing to do instead that has a number.
fn declined(record: DecisionRecord) -> DecisionRecord {
    DecisionRecord {
        decision: Decision::Declined,
        fallback: None,
        ..record
    }
}
