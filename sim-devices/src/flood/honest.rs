//! The honest side: devices that sell, and a look at the hub meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hub_protocol::Decision;
use hub_sdk::DeviceClient;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::load::drive;

/// How often the hub's memory is looked at.
const LOOK: Duration = Duration::from_millis(25);

/// What came of honest sales.
pub(super) struct Honest {
    /// From asking to the answer, in microseconds, repeats included.
    pub(super) waited: Histogram<u64>,
    pub(super) unanswered: u64,
    pub(super) not_approved: u64,
    /// Proofs of all approvals.
    pub(super) receipts: Vec<Vec<u8>>,
}

impl Honest {
    fn new() -> Result<Self> {
        Ok(Self {
            // 1 µs to 60 s, three digits.
            waited: Histogram::new_with_bounds(1, 60_000_000, 3)?,
            unanswered: 0,
            not_approved: 0,
            receipts: Vec::new(),
        })
    }
}

/// Each device sells one payment every so often. A sale that has begun is
/// waited for.
pub(super) async fn sell(clients: &[DeviceClient], every: Duration, time: Duration) -> Result<Honest> {
    let until = Instant::now() + time;
    let mut selling = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        // One after the other, as customers come.
        let first = every * u32::try_from(number)? / u32::try_from(clients.len())?;
        selling.spawn(one(client.clone(), number, first, every, until));
    }
    let mut all = Honest::new()?;
    while let Some(device) = selling.join_next().await {
        let one = device.context("a device came to grief")??;
        all.waited.add(one.waited)?;
        all.unanswered += one.unanswered;
        all.not_approved += one.not_approved;
        all.receipts.extend(one.receipts);
    }
    Ok(all)
}

async fn one(
    client: DeviceClient,
    number: usize,
    first: Duration,
    every: Duration,
    until: Instant,
) -> Result<Honest> {
    let mut honest = Honest::new()?;
    sleep(first).await;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if Instant::now() >= until {
            return Ok(honest);
        }
        let payment = drive::prepare(&client, number);
        let began = Instant::now();
        let Ok(held) = client.pay(&payment).await else {
            honest.unanswered += 1;
            continue;
        };
        let waited = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        honest.waited.saturating_record(waited);
        if held.receipt.decision != Decision::ApprovedOffline {
            honest.not_approved += 1;
        }
        honest.receipts.push(held.proof);
    }
}

/// Does `what`, and says how much resident memory the process had at the
/// most meanwhile, in bytes.
pub(super) async fn with_memory<T>(pid: u32, what: impl Future<Output = Result<T>>) -> Result<(T, u64)> {
    let mut what = std::pin::pin!(what);
    let mut looks = interval(LOOK);
    let mut most = 0;
    loop {
        tokio::select! {
            done = &mut what => return Ok((done?, most)),
            _ = looks.tick() => {
                let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
                most = most.max(resident(&status.context("the hub is gone")?).unwrap_or(0));
            }
        }
    }
}

fn resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            resident("Name:\thubd\nVmRSS:\t   12 kB\nVmData:\t 99 kB\n"),
            Some(12 * 1024)
        );
        assert_eq!(resident("Name:\tkthread\n"), None);
    }
}
