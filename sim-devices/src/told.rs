//! What customers and the bank were told: the two sides of the
//! reconciliation, without any of the hub's own books.

use hub_protocol::{CardFacts, Decision, DeviceClass, DeviceId, Digest, PaymentId, Reason, RefusalCode};

use crate::sale::Gesture;

/// What a device asked for, and what it was answered in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Which payment.
    pub payment_id: PaymentId,
    /// For which order. A sale that falls back and is paid otherwise has two
    /// payments with one order.
    pub order_id: String,
    /// The device.
    pub device: DeviceId,
    /// Its class.
    pub class: DeviceClass,
    /// In minor units.
    pub amount_minor: u64,
    /// The card.
    pub card: CardFacts,
    /// How the customer paid.
    pub gesture: Gesture,
    /// The answer.
    pub answer: Answer,
}

/// How a payment ended at the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A receipt whose signature was checked.
    Receipt(Slip),
    /// A numbered error: nothing was decided.
    Refused(RefusalCode),
    /// The device gave up asking: the customer was told nothing.
    None(String),
}

/// The part of a receipt that counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slip {
    /// The decision.
    pub decision: Decision,
    /// Why.
    pub reason: Reason,
    /// The ledger entry.
    pub sequence: u64,
    /// Its digest.
    pub entry_digest: Digest,
    /// When, by the hub's wall clock, milliseconds since 1970 UTC.
    pub decided_ms: u64,
    /// Under which policy.
    pub policy_version: u64,
}

impl Told {
    /// The receipt, if there was one.
    pub fn slip(&self) -> Option<&Slip> {
        match &self.answer {
            Answer::Receipt(slip) => Some(slip),
            _ => None,
        }
    }

    /// Whether the customer left with the goods.
    pub fn approved(&self) -> bool {
        self.slip().is_some_and(|slip| slip.decision.approved())
    }

    /// Whether the hub approved by itself.
    pub fn approved_offline(&self) -> bool {
        self.slip()
            .is_some_and(|slip| slip.decision == Decision::ApprovedOffline)
    }
}

/// What the gateway's book says of one payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    /// Which payment.
    pub payment_id: PaymentId,
    /// For which order; empty for one that was only reversed.
    pub order_id: String,
    /// In minor units.
    pub amount_minor: u64,
    /// How the book stands.
    pub standing: Standing,
    /// How many times the customer's account was charged.
    pub charges: u32,
    /// When the standing was first written, milliseconds since 1970 UTC.
    pub answered_ms: u64,
}

/// How the gateway's book stands for a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Charged.
    Approved,
    /// Not charged.
    Declined,
    /// Not decided.
    Pending,
    /// Charged or not, undone.
    Reversed,
}

impl Booked {
    /// Charges that have not been undone.
    pub fn net_charges(&self) -> u32 {
        match self.standing {
            // A reversal undoes one charge, not one made by mistake beside it.
            Standing::Reversed => self.charges.saturating_sub(1),
            _ => self.charges,
        }
    }
}

/// What the hub shows as still to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which payment.
    pub payment_id: PaymentId,
    /// Whether it waits for a person.
    pub parked: bool,
    /// Whether it is a reversal.
    pub reversal: bool,
}
