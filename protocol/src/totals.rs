//! What happened to payments in a stretch of the ledger, a currency each: in
//! the manifest of an archive and in the closure of a period.

use minicbor::{Decode, Encode};

use crate::money::Currency;

/// Payments of one currency, by what happened to them in a stretch of the
/// ledger. A payment that is approved offline and settled counts in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LedgerTotals {
    /// ISO 4217.
    #[n(1)]
    pub currency: Currency,
    /// Approved by the gateway while the customer waited.
    #[n(2)]
    pub approved_online: Total,
    /// Approved by the hub.
    #[n(3)]
    pub approved_offline: Total,
    /// Approved by the hub, and then by the gateway, or by the word of a
    /// person who found it taken.
    #[n(4)]
    pub settled: Total,
    /// Approved by the hub, and then declined, or not taken by the word of a
    /// person.
    #[n(5)]
    pub declined_at_replay: Total,
    /// Approved, and cancelled before it was sent, or reversed.
    #[n(6)]
    pub voided: Total,
    /// Refunds that were approved; they are in none of the others. `None`: by
    /// a hub that counted them as approved, and counted as voided what was
    /// reversed without an approval too.
    #[n(7)]
    pub refunded: Option<Total>,
    /// Refunds that were approved and came to nothing: reversed, or declined
    /// at replay.
    #[n(8)]
    pub refunds_voided: Option<Total>,
}

/// How many, and how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Total {
    /// How many payments.
    #[n(1)]
    pub count: u64,
    /// How much, in minor units.
    #[n(2)]
    pub minor: u64,
}

impl Total {
    /// One more payment.
    pub const fn add(&mut self, minor: u64) {
        self.count = self.count.saturating_add(1);
        self.minor = self.minor.saturating_add(minor);
    }

    const fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            minor: self.minor.saturating_add(other.minor),
        }
    }
}

impl LedgerTotals {
    /// Nothing yet.
    pub fn none(currency: Currency) -> Self {
        Self {
            refunded: Some(Total::default()),
            refunds_voided: Some(Total::default()),
            ..Self::none_with_refunds_as_sales(currency)
        }
    }

    /// Nothing yet, as hubs counted that did not tell refunds apart.
    pub fn none_with_refunds_as_sales(currency: Currency) -> Self {
        Self {
            currency,
            approved_online: Total::default(),
            approved_offline: Total::default(),
            settled: Total::default(),
            declined_at_replay: Total::default(),
            voided: Total::default(),
            refunded: None,
            refunds_voided: None,
        }
    }

    /// The totals of two stretches together, a currency each, in their order.
    pub fn sum(before: &[Self], more: &[Self]) -> Vec<Self> {
        let mut all = before.to_vec();
        for add in more {
            match all.iter_mut().find(|totals| totals.currency == add.currency) {
                Some(totals) => *totals = totals.plus(add),
                None => all.push(*add),
            }
        }
        all.sort_by_key(|totals| totals.currency);
        all
    }

    fn plus(&self, more: &Self) -> Self {
        let both = |before: Option<Total>, more: Option<Total>| match (before, more) {
            (Some(before), Some(more)) => Some(before.plus(more)),
            (one, other) => one.or(other),
        };
        Self {
            currency: self.currency,
            approved_online: self.approved_online.plus(more.approved_online),
            approved_offline: self.approved_offline.plus(more.approved_offline),
            settled: self.settled.plus(more.settled),
            declined_at_replay: self.declined_at_replay.plus(more.declined_at_replay),
            voided: self.voided.plus(more.voided),
            refunded: both(self.refunded, more.refunded),
            refunds_voided: both(self.refunds_voided, more.refunds_voided),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_summed_a_currency_each_and_never_wrap() {
        let of = |currency: &str, count, minor| {
            let mut totals = LedgerTotals::none(currency.parse().unwrap());
            totals.settled = Total { count, minor };
            totals
        };
        let sum = LedgerTotals::sum(&[of("USD", 1, 5)], &[of("EUR", 2, 7), of("USD", 3, u64::MAX)]);
        assert_eq!(sum, [of("EUR", 2, 7), of("USD", 4, u64::MAX)]);
    }

    #[test]
    fn refunds_are_summed_from_where_they_were_told_apart() {
        let mut told = LedgerTotals::none(Currency::EUR);
        told.refunded = Some(Total { count: 1, minor: 300 });
        let before = LedgerTotals::none_with_refunds_as_sales(Currency::EUR);
        assert_eq!(LedgerTotals::sum(&[before], &[before]), [before]);
        assert_eq!(LedgerTotals::sum(&[before], &[told]), [told]);
        let twice = LedgerTotals::sum(&[told], &[told])[0].refunded;
        assert_eq!(twice, Some(Total { count: 2, minor: 600 }));
    }
}
