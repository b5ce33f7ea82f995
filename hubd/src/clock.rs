//! The one place where the hub reads a clock.
#![allow(clippy::disallowed_methods)] // this file is where the ban points to

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hub_core::Now;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Wall clock and monotonic clock, now.
pub fn now() -> Now {
    Now {
        wall_ms: wall_ms(),
        monotonic_ms: monotonic_ms(),
    }
}

/// Milliseconds since 1970 UTC.
pub fn wall_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// Milliseconds since the process first asked.
pub fn monotonic_ms() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX)
}
