//! When the hub knows what is usual in its shop.

use crate::toml_reader::{Section, integer};

/// `[profile]`: the shop's amounts and hours are remembered. Nothing is judged
/// by them until enough is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProfileRules {
    /// Amounts are known from so many approved payments on.
    pub least_payments: u64,
    /// Hours are known from so many whole weeks on.
    pub least_weeks: u32,
}

/// Reads `[profile]`. All of it may be missing.
pub(super) fn read(section: Section<'_, '_>) -> Option<ProfileRules> {
    if !section.present() {
        section.finish();
        return None;
    }
    let payments = section.required("least_payments", "payments from 20 to 4000", integer(20..=4_000));
    let weeks = section.required("least_weeks", "weeks from 1 to 26", integer(1..=26));
    section.finish();
    Some(ProfileRules {
        least_payments: payments?.value,
        least_weeks: u32::try_from(weeks?.value).ok()?,
    })
}
