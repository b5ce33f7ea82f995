//! How often in a while, and how much in a row without the holder being
//! verified.

use hub_protocol::MAX_AMOUNT_MINOR;

use super::{AMOUNT, COUNT, count};
use crate::toml_reader::{Section, integer};

/// The most payments that a window can count.
pub const MAX_IN_WINDOW: usize = 64;

/// The longest window, in milliseconds: 7 days.
pub const LONGEST_WINDOW_MS: u64 = 7 * 24 * 60 * 60 * 1000;

/// At most so many offline approvals within some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Highest number, the new payment included: 1 to [`MAX_IN_WINDOW`].
    pub most: u32,
    /// Within this time, in milliseconds. A payment counts up to it, exclusive.
    pub within_ms: u64,
}

/// What one card may pay contactless without verification, all such payments
/// since the holder was last verified together: the hub's own measure for what
/// issuers count by article 11 of the RTS (EU) 2018/389. Beyond it the card
/// must be inserted and the PIN entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapLimits {
    /// Highest sum, minor units, the new payment included.
    pub cumulative_ceiling: Option<u64>,
    /// Highest number in a row, the new payment included.
    pub consecutive_limit: Option<u32>,
}

/// Reads the taps of `[card]`.
pub(super) fn read_taps(section: &Section<'_, '_>) -> TapLimits {
    let sum = section.optional(
        "contactless_cumulative_ceiling",
        AMOUNT,
        integer(0..=MAX_AMOUNT_MINOR),
    );
    let in_a_row = section.optional("contactless_consecutive_limit", COUNT, count);
    TapLimits {
        cumulative_ceiling: sum.map(|at| at.value),
        consecutive_limit: in_a_row.map(|at| at.value),
    }
}

/// Reads a window: both of its keys or none.
pub(super) fn read_window(
    section: &Section<'_, '_>,
    count_key: &'static str,
    minutes_key: &'static str,
) -> Option<Window> {
    let most = section.optional(
        count_key,
        "a whole number from 1 to 64",
        integer(1..=MAX_IN_WINDOW as u64),
    );
    let minutes = section.optional(
        minutes_key,
        "minutes from 1 to 10080 (7 days)",
        integer(1..=10_080),
    );
    let (most, minutes) = match (most, minutes) {
        (Some(most), Some(minutes)) => (most, minutes),
        (None, None) => return None,
        // A value that is wrong is there, and has its own fault.
        (Some(_), None) if section.holds(minutes_key) => return None,
        (None, Some(_)) if section.holds(count_key) => return None,
        (Some(one), None) => {
            section.fault(
                one.line,
                format!("{count_key} says something only beside {minutes_key}"),
            );
            return None;
        }
        (None, Some(one)) => {
            section.fault(
                one.line,
                format!("{minutes_key} says something only beside {count_key}"),
            );
            return None;
        }
    };
    Some(Window {
        most: u32::try_from(most.value).unwrap_or(u32::MAX),
        within_ms: minutes.value.saturating_mul(60_000),
    })
}
