//! Asking the gateway, again and again, how it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Upstream;
use crate::port::{HubPort, Tell};

/// The shortest time between two probes.
const SHORTEST: Duration = Duration::from_millis(10);

/// Probes at once and then every `every` (at least 10 ms), and tells the hub
/// each time, until the hub is gone. A probe that takes longer than `every`
/// delays the next one; they never pile up.
pub async fn probe_loop(gateway: Arc<Upstream>, port: HubPort, every: Duration) {
    let mut ticks = interval(every.max(SHORTEST));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut spread_told = Some(0);
    loop {
        ticks.tick().await;
        let (probe, spread_ms) = gateway.probe_as_set().await;
        // First, so that the window is known when the line is found to be
        // back.
        if let Some(window_ms) = spread_ms
            && spread_told.replace(window_ms) != spread_ms
            && !port.tell(Tell::SpreadAsked { window_ms }).await
        {
            return;
        }
        if !port.tell(Tell::Probe(probe)).await {
            return;
        }
    }
}
