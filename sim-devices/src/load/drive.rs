//! The devices' side of a measurement: one payment after the other on each,
//! and with requests signed beforehand every receipt checked afterwards.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use hub_protocol::{Answer, Currency, Decision, frame};
use hub_sdk::{DeviceClient, PreparedPayment, VerifiedReceipt};
use tokio::task::JoinSet;

use crate::card_data;
use crate::sale;

/// Requests a second of one device, where it is to be as fast as it can.
pub(crate) const ANY_RATE: u32 = 1_000_000;

/// Payments of one device, with their bytes for the wire.
type Ready = Vec<(PreparedPayment, Vec<u8>)>;

/// A payment and the receipt that came, not looked at yet.
type Kept = Vec<(PreparedPayment, Vec<u8>)>;

/// What was driven.
pub(super) struct Driven {
    /// From asking to the answer, in microseconds.
    pub(super) latencies: Histogram<u64>,
    /// From the beginning to the last answer.
    pub(super) elapsed: Duration,
    unchecked: Vec<(DeviceClient, Kept)>,
}

/// Each device pays one payment after the other until the time is over.
pub(super) async fn until_over(
    clients: &[DeviceClient],
    time: Duration,
    signed: Option<Vec<Ready>>,
) -> Result<Driven> {
    let began = Instant::now();
    let until = began + time;
    let mut running = JoinSet::new();
    let mut signed = signed.map(Vec::into_iter);
    for (number, client) in clients.iter().enumerate() {
        let client = client.clone();
        match signed.as_mut().map(|signed| signed.next().unwrap_or_default()) {
            Some(ready) => running.spawn(pay_ready(client, ready, until)),
            None => running.spawn(pay_fresh(client, number, until)),
        };
    }
    let mut latencies = histogram()?;
    let mut unchecked = Vec::new();
    while let Some(device) = running.join_next().await {
        let (client, own, kept) = device.context("a device came to grief")??;
        latencies.add(own)?;
        unchecked.push((client, kept));
    }
    Ok(Driven {
        latencies,
        elapsed: began.elapsed(),
        unchecked,
    })
}

impl Driven {
    /// Checks every receipt that was kept.
    ///
    /// # Errors
    /// The first that does not hold, or is no approval.
    pub(super) async fn check(&mut self) -> Result<u64> {
        let mut checking = JoinSet::new();
        for (client, kept) in self.unchecked.drain(..) {
            checking.spawn_blocking(move || {
                for (payment, proof) in &kept {
                    let held = client
                        .check_receipt(proof.clone(), payment)
                        .context("a receipt does not hold")?;
                    approved(&held)?;
                }
                anyhow::Ok(kept.len() as u64)
            });
        }
        let mut checked = 0;
        while let Some(one) = checking.join_next().await {
            checked += one.context("a check came to grief")??;
        }
        Ok(checked)
    }
}

async fn pay_ready(
    client: DeviceClient,
    ready: Ready,
    until: Instant,
) -> Result<(DeviceClient, Histogram<u64>, Kept)> {
    let mut latencies = histogram()?;
    let mut kept = Vec::with_capacity(ready.len());
    let mut ready = ready.into_iter();
    while Instant::now() < until {
        let Some((payment, bytes)) = ready.next() else {
            bail!("the payments signed beforehand ran out; measure for fewer seconds");
        };
        let began = Instant::now();
        let answer = client.send_raw(&bytes).await.context("a device got no answer")?;
        latencies.saturating_record(micros(began));
        match answer {
            Answer::Receipt { receipt } => kept.push((payment, receipt)),
            other => bail!("a receipt was expected, not {other:?}"),
        }
    }
    Ok((client, latencies, kept))
}

async fn pay_fresh(
    client: DeviceClient,
    number: usize,
    until: Instant,
) -> Result<(DeviceClient, Histogram<u64>, Kept)> {
    let mut latencies = histogram()?;
    while Instant::now() < until {
        let payment = prepare(&client, number);
        let began = Instant::now();
        let answer = client.pay(&payment).await.context("a device got no answer")?;
        latencies.saturating_record(micros(began));
        approved(&answer)?;
    }
    Ok((client, latencies, Kept::new()))
}

fn approved(held: &VerifiedReceipt) -> Result<()> {
    let receipt = &held.receipt;
    ensure!(
        receipt.decision == Decision::ApprovedOffline,
        "not approved offline but {}: {}",
        receipt.decision,
        receipt.reason
    );
    Ok(())
}

/// Fills the hub's queue with so many payments, as fast as it takes them:
/// several under way a device.
pub(crate) async fn fill(clients: &[DeviceClient], payments: u64) -> Result<()> {
    /// Half of the streams that a hub allows a device.
    const UNDER_WAY: usize = 32;
    let left = std::sync::Arc::new(AtomicU64::new(payments));
    let mut filling = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        for _ in 0..UNDER_WAY {
            let (client, left) = (client.clone(), std::sync::Arc::clone(&left));
            filling.spawn(async move {
                let take = |left: u64| left.checked_sub(1);
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                    .is_ok()
                {
                    let payment = prepare(&client, number);
                    approved(&client.pay(&payment).await?)?;
                }
                anyhow::Ok(())
            });
        }
    }
    while let Some(one) = filling.join_next().await {
        one.context("a device came to grief")??;
    }
    Ok(())
}

/// Signs so many payments a device, ready for the wire.
pub(super) async fn sign(clients: &[DeviceClient], each: u64) -> Result<Vec<Ready>> {
    let mut running = JoinSet::new();
    for (number, client) in clients.iter().enumerate() {
        let client = client.clone();
        running.spawn_blocking(move || {
            let ready = (0..each).map(|_| {
                let payment = prepare(&client, number);
                let bytes = frame::to_wire(&payment.frame());
                (payment, bytes)
            });
            (number, ready.collect::<Ready>())
        });
    }
    let mut signed = running.join_all().await;
    signed.sort_by_key(|(number, _)| *number);
    Ok(signed.into_iter().map(|(_, payments)| payments).collect())
}

/// Every payment with a card of its own, so that no ceiling is near.
pub(crate) fn prepare(client: &DeviceClient, number: usize) -> PreparedPayment {
    client.next_payment(next_sale(number))
}

/// What [`prepare`] makes a payment of.
pub(crate) fn next_sale(number: usize) -> hub_sdk::Sale {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let order_id = format!("L{number}x{}", COUNTER.fetch_add(1, Ordering::Relaxed));
    hub_sdk::Sale {
        amount_minor: 100,
        currency: Currency::EUR,
        card: hub_protocol::CardFacts {
            scheme: hub_protocol::CardScheme::Cb,
            funding: hub_protocol::Funding::Debit,
            ..sale::card(1, format!("c{order_id}"))
        },
        sealed_card: card_data::as_by_a_reader(&order_id),
        order_id,
        // By the customer's own phone: that is possible at every class.
        entry_mode: hub_protocol::EntryMode::Contactless,
        verification: hub_protocol::Verification::Cdcvm,
        cryptogram: hub_protocol::Cryptogram::AsksOnline,
        terms: None,
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}

fn histogram() -> Result<Histogram<u64>> {
    // 1 µs to 60 s, three digits.
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}
