//! What happened in a stretch of the ledger, as it is shown.

use hub_protocol::{LedgerTotals, Total};
use serde::Serialize;

/// Of one currency.
#[derive(Debug, Serialize)]
pub(super) struct ShownTotals {
    currency: String,
    approved_online: ShownTotal,
    approved_offline: ShownTotal,
    settled: ShownTotal,
    declined_at_replay: ShownTotal,
    voided: ShownTotal,
    /// Nothing: from a hub that counted refunds as approved.
    refunded: Option<ShownTotal>,
    refunds_voided: Option<ShownTotal>,
}

#[derive(Debug, Serialize)]
struct ShownTotal {
    count: u64,
    minor: u64,
}

impl From<Total> for ShownTotal {
    fn from(Total { count, minor }: Total) -> Self {
        Self { count, minor }
    }
}

impl From<&LedgerTotals> for ShownTotals {
    fn from(totals: &LedgerTotals) -> Self {
        Self {
            currency: totals.currency.to_string(),
            approved_online: totals.approved_online.into(),
            approved_offline: totals.approved_offline.into(),
            settled: totals.settled.into(),
            declined_at_replay: totals.declined_at_replay.into(),
            voided: totals.voided.into(),
            refunded: totals.refunded.map(Into::into),
            refunds_voided: totals.refunds_voided.map(Into::into),
        }
    }
}

/// Each with its name.
pub(super) fn columns(totals: &LedgerTotals) -> impl Iterator<Item = (&'static str, Total)> {
    [
        ("approved online", Some(totals.approved_online)),
        ("approved offline", Some(totals.approved_offline)),
        ("settled", Some(totals.settled)),
        ("declined at replay", Some(totals.declined_at_replay)),
        ("voided", Some(totals.voided)),
        ("refunded", totals.refunded),
        ("refunds voided", totals.refunds_voided),
    ]
    .into_iter()
    .filter_map(|(name, total)| Some((name, total?)))
}
