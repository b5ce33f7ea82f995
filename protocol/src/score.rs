//! How risky a payment looked that a hub decided: points, and for what.

use minicbor::{Decode, Encode};

use crate::codes::codes;

codes! {
    /// What counts against a payment in its score.
    pub enum ScoreFactor {
        /// The amount is above what is usual in the shop.
        AmountAboveUsual = 1, "amount-above-usual";
        /// The hub remembers no payment of this card that was approved.
        NewCard = 2, "new-card";
        /// The card was issued abroad, or nobody knows where.
        ForeignCard = 3, "foreign-card";
        /// The card's number was typed in, or read from its magnetic stripe.
        NoChip = 4, "no-chip";
        /// Several offline payments with this card lately.
        CardLately = 5, "card-lately";
        /// The shop is closed, or usually sells nothing at this time.
        UnusualHour = 6, "unusual-hour";
        /// Something was odd at the device lately.
        DeviceOdd = 7, "device-odd";
    }
}

/// The score of a payment: what its parts count together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Score {
    /// All parts together, 0 to 7000.
    #[n(1)]
    pub points: u16,
    /// What counts, in the order of the factors' numbers; each at most once.
    #[n(2)]
    pub parts: Vec<ScorePart>,
}

impl Score {
    /// Counts one more factor.
    pub fn add(&mut self, factor: ScoreFactor, points: u16) {
        self.points = self.points.saturating_add(points);
        self.parts.push(ScorePart { factor, points });
    }
}

/// What one factor counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ScorePart {
    /// Which.
    #[n(1)]
    pub factor: ScoreFactor,
    /// As the policy has it, 1 to 1000.
    #[n(2)]
    pub points: u16,
}
