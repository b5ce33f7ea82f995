//! Made-up evidence for the tests of the reconciliation.

use hub_protocol::{
    CardFacts, CardScheme, Cryptogram, Decision, DeviceClass, DeviceId, Digest, Funding, PaymentId, Reason,
};

use crate::sale::Gesture;
use crate::told::{Answer, Booked, Slip, Standing, Told};

pub(crate) fn id(number: u8) -> PaymentId {
    PaymentId([number; 16])
}

/// A payment of 10.00 by card `c1` on terminal 1, approved offline as entry
/// `number` at `number` seconds.
pub(crate) fn told(number: u8) -> Told {
    Told {
        payment_id: id(number),
        order_id: format!("order-{number}"),
        device: DeviceId([1; 32]),
        class: DeviceClass::Terminal,
        amount_minor: 1000,
        card: CardFacts {
            token: "c1".to_owned(),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: None,
            bin: None,
            last4: None,
        },
        gesture: Gesture::inserted(Cryptogram::AsksOnline),
        answer: Answer::Receipt(Slip {
            decision: Decision::ApprovedOffline,
            reason: Reason::None,
            sequence: u64::from(number),
            entry_digest: Digest::ZERO,
            decided_ms: u64::from(number) * 1000,
            policy_version: 1,
        }),
    }
}

pub(crate) fn answered(number: u8, decision: Decision) -> Told {
    let mut told = told(number);
    if let Answer::Receipt(slip) = &mut told.answer {
        slip.decision = decision;
    }
    told
}

/// What the book says of it: charged once, an hour later.
pub(crate) fn booked(number: u8) -> Booked {
    Booked {
        payment_id: id(number),
        order_id: format!("order-{number}"),
        amount_minor: 1000,
        standing: Standing::Approved,
        charges: 1,
        answered_ms: 3_600_000,
    }
}
