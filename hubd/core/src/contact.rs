//! What the gateway may still know of a payment by its idempotency key.
//!
//! Gateways forget keys after a day to a month. A payment that may have been
//! sent longer ago than that is looked up by its merchant reference before it
//! is sent again; never sent blind.

use std::collections::{BTreeSet, HashMap};

use hub_protocol::PaymentId;

use crate::input::AttemptId;

/// How long "not found" holds, in milliseconds: the payment must leave within
/// that time, or be looked up again.
pub(crate) const ABSENCE_HOLDS_MS: u64 = 60_000;

/// The most payments whose first sending is remembered. Above it all is
/// forgotten: the time of the request then stands for it, which is earlier,
/// so that some are looked up without need and none is sent blind.
const MOST: usize = 10_000;

/// When this process first sent what, and what is being looked up.
#[derive(Debug, Default)]
pub(crate) struct Contacts {
    by_payment: HashMap<PaymentId, Contact>,
    look_ups: BTreeSet<AttemptId>,
}

#[derive(Clone, Copy, Debug)]
struct Contact {
    /// Effective time, milliseconds since 1970 UTC.
    first_sent_ms: u64,
    /// The gateway does not know the payment; holds up to here, on the
    /// monotonic clock.
    absent_until_ms: u64,
}

impl Contacts {
    /// Since when the gateway may have had the payment, if this process knows.
    pub(crate) fn first_sent_ms(&self, id: &PaymentId) -> Option<u64> {
        self.by_payment.get(id).map(|contact| contact.first_sent_ms)
    }

    /// Whether the gateway has just said that it does not know the payment.
    pub(crate) fn absent(&self, id: &PaymentId, monotonic_ms: u64) -> bool {
        self.by_payment
            .get(id)
            .is_some_and(|contact| contact.absent_until_ms > monotonic_ms)
    }

    /// The payment leaves. `since_ms` is when it may have left first.
    pub(crate) fn sent(&mut self, id: PaymentId, since_ms: u64, effective_ms: u64, monotonic_ms: u64) {
        let since_ms = if self.absent(&id, monotonic_ms) {
            effective_ms
        } else {
            self.first_sent_ms(&id).unwrap_or(since_ms)
        };
        self.put(
            id,
            Contact {
                first_sent_ms: since_ms,
                absent_until_ms: 0,
            },
        );
    }

    /// The gateway does not know the payment.
    pub(crate) fn not_found(&mut self, id: PaymentId, since_ms: u64, monotonic_ms: u64) {
        self.put(
            id,
            Contact {
                first_sent_ms: since_ms,
                absent_until_ms: monotonic_ms.saturating_add(ABSENCE_HOLDS_MS),
            },
        );
    }

    /// The effective time was set back: what was sent is as old as it was.
    pub(crate) fn clock_set_back(&mut self, by_ms: u64) {
        for contact in self.by_payment.values_mut() {
            contact.first_sent_ms = contact.first_sent_ms.saturating_sub(by_ms);
        }
    }

    /// Nothing more is to be sent for the payment, or something new is.
    pub(crate) fn forget(&mut self, id: &PaymentId) {
        self.by_payment.remove(id);
    }

    /// This attempt looks up.
    pub(crate) fn looks_up(&mut self, attempt: AttemptId) {
        self.look_ups.insert(attempt);
    }

    /// The attempt has ended; whether it was a look-up.
    pub(crate) fn looked_up(&mut self, attempt: AttemptId) -> bool {
        self.look_ups.remove(&attempt)
    }

    fn put(&mut self, id: PaymentId, contact: Contact) {
        if self.by_payment.len() >= MOST && !self.by_payment.contains_key(&id) {
            self.by_payment.clear();
        }
        self.by_payment.insert(id, contact);
    }
}
