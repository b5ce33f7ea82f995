//! What the hub remembers of each payment, device, card and of the store:
//! folds over ledger entries, and the values of the index.

use minicbor::{Decode, Encode};

mod card;
mod device;
mod payment;
mod store;

pub use card::*;
pub use device::*;
pub use payment::*;
pub use store::*;

/// What a card, a device or the store has at risk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Subject {
    /// Approved offline and not yet settled, in minor units.
    #[n(1)]
    pub exposure_minor: u64,
    /// How many payments that is.
    #[n(2)]
    pub unsettled: u32,
    /// Offline approvals since the gateway last approved a payment of this
    /// subject with nothing left unsettled but what is parked.
    #[n(3)]
    pub consecutive: u32,
    /// How many of the unsettled ones are parked, or wait to be presented to
    /// the issuer again.
    #[n(4)]
    pub parked: u32,
}

impl Subject {
    /// An offline approval counts from the decision on.
    pub(crate) fn approved_offline(&mut self, amount: u64) {
        self.exposure_minor = self.exposure_minor.saturating_add(amount);
        self.unsettled = self.unsettled.saturating_add(1);
        self.consecutive = self.consecutive.saturating_add(1);
    }

    /// A payment waits for a person, or for a retry: for days, maybe.
    pub(crate) fn set_aside(&mut self) {
        self.parked = self.parked.saturating_add(1);
    }

    /// A payment is no longer at risk.
    pub(crate) fn released(&mut self, amount: u64) {
        self.exposure_minor = self.exposure_minor.saturating_sub(amount);
        self.unsettled = self.unsettled.saturating_sub(1);
    }

    /// The gateway approved a payment of this subject. Only that, with
    /// nothing left unsettled but what is parked, ends a run of consecutive
    /// approvals. A parked payment may wait for a person for days; its
    /// exposure counts all the while.
    pub(crate) fn approved_by_gateway(&mut self) {
        if self.unsettled <= self.parked {
            self.consecutive = 0;
        }
    }
}
