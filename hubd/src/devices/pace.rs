//! How fast one device may ask.
//!
//! A request above the rate waits for its turn and is answered then; the
//! streams behind it are not accepted meanwhile, so that the transport's own
//! limits hold the device back. Nothing is thrown away: a till that empties
//! its allowance after an outage is only slowed down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hub_protocol::DeviceId;

use super::bounds::{Bound, Counts};
use super::bucket::{Bucket, Rate};

/// After a pause a device may send so many seconds' worth of requests at
/// once.
const BURST_SECONDS: u32 = 2;

/// One bucket a device, over all its connections and beyond their end. There
/// are never more than enrolled devices.
pub(super) struct Pace {
    rate: Rate,
    monotonic_ms: fn() -> u64,
    counts: Arc<Counts>,
    buckets: Mutex<HashMap<DeviceId, Bucket>>,
}

impl Pace {
    pub(super) fn new(per_second: u32, monotonic_ms: fn() -> u64, counts: Arc<Counts>) -> Self {
        Self {
            rate: Rate {
                per_second: per_second.max(1),
                burst: per_second.saturating_mul(BURST_SECONDS).max(1),
            },
            monotonic_ms,
            counts,
            buckets: Mutex::default(),
        }
    }

    /// Waits until this device may ask once more.
    pub(super) async fn turn(&self, device: &DeviceId) {
        let wait = self.reserve(device);
        if wait > 0 {
            self.counts.count(Bound::Requests);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// The time by which it goes, milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        (self.monotonic_ms)()
    }

    fn reserve(&self, device: &DeviceId) -> u64 {
        let now = self.now_ms();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets
            .entry(*device)
            .or_insert_with(|| Bucket::full(self.rate, now))
            .reserve(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_does_not_use_up_anothers_turn() {
        let pace = Pace::new(10, || 0, Arc::default());
        let [mad, honest] = [DeviceId([1; 32]), DeviceId([2; 32])];
        let waits: Vec<u64> = (0..100).map(|_| pace.reserve(&mad)).collect();
        assert_eq!(waits.iter().filter(|wait| **wait == 0).count(), 20);
        assert_eq!(pace.reserve(&honest), 0);
    }
}
