//! The closure of a day, a month or a year: what was done in it, and since the
//! hub began to count.

use minicbor::{Decode, Encode};

use crate::codes::codes;
use crate::totals::LedgerTotals;

codes! {
    /// The stretch of time that a closure ends.
    pub enum Period {
        /// A day, from midnight to midnight in the shop.
        Day = 1, "day";
        /// A calendar month.
        Month = 2, "month";
        /// A calendar year.
        Year = 3, "year";
    }
}

/// A period that is over, with what was done in it and since the hub began to
/// count. Periods in which nothing was counted are not closed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Closure {
    /// A day, a month or a year.
    #[n(1)]
    pub period: Period,
    /// Which: `2026-11-27`, `2026-11` or `2026`, in the shop's time zone.
    #[n(2)]
    pub name: String,
    /// Counts the closures of this kind from 1 without gaps.
    #[n(3)]
    pub number: u32,
    /// The first entry that it covers: the one after the closure of this kind
    /// before, or the one from which the hub counts.
    #[n(4)]
    pub first: u64,
    /// The last entry that it covers: the one before this.
    #[n(5)]
    pub last: u64,
    /// What was done in it, a currency each, in their order.
    #[n(6)]
    pub totals: Vec<LedgerTotals>,
    /// The same since [`since`](Self::since): the perpetual total.
    #[n(7)]
    pub running: Vec<LedgerTotals>,
    /// The entry from which the hub counts: 1, or where a ledger of before
    /// began to have closures.
    #[n(8)]
    pub since: u64,
}
