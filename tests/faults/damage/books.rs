//! After damage the line comes back: the gateway's own book against what was
//! answered.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, anyhow, ensure};
use hub_core::state::State;
use hub_protocol::Digest;
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{Damage, Index, RestSeal};
use serde_json::Value;
use sim_devices::gateway::RunningGateway;

use super::table::Row;
use super::{DRAIN, Ground, copy};

/// What every payment of the stock is for, in minor units.
const AMOUNT: u64 = 100;

/// How it stands when everything is sent.
pub(super) struct Sent {
    /// Payments that were sent.
    pub(super) sent: u64,
    /// Payments that wait for a person.
    pub(super) parked: u64,
    /// Those, as `hubctl queue` lists them.
    pub(super) items: Vec<Value>,
}

impl Ground {
    /// Starts the hub with its gateway, lets all be sent, and stops it.
    pub(super) async fn send_all(&mut self, row: &mut Row) -> Result<Sent> {
        let gateway = self.open_gateway().await?;
        self.shop.start().await?;
        self.sent(&gateway, row).await
    }

    /// Waits until a hub that runs has sent everything, stops it, and compares
    /// the gateway's book: every payment is there once, for its amount, or
    /// waits for a person.
    pub(super) async fn sent(&mut self, gateway: &RunningGateway, row: &mut Row) -> Result<Sent> {
        let left = self.shop.drain(DRAIN, |_| ()).await?;
        let parked = self.standing_now().await?.parked;
        let waiting = self.shop.ctl(&["queue", "list", "--limit", "1000"]).await?;
        self.shop.stop().await?;
        ensure!(left == 0, "{left} payments are still to be sent");
        let items = waiting["items"]
            .as_array()
            .context("hubctl queue gave no items")?
            .clone();
        ensure!(
            waiting["total"] == parked,
            "{parked} are parked, and the queue says {}",
            waiting["total"]
        );
        let mut charges: BTreeMap<String, u64> = BTreeMap::new();
        for payment in gateway.payments() {
            let charged = u64::from(payment.stands()) + payment.charged_again;
            row.wrong += u64::from(charged > 1 || payment.amount_minor != AMOUNT);
            *charges.entry(payment.payment_id).or_default() += charged;
        }
        let mut waits = HashSet::new();
        for item in &items {
            let id = item["payment_id"].as_str().unwrap_or_default();
            row.wrong += charges.get(id).copied().unwrap_or(0);
            waits.insert(id);
        }
        let sent = (charges.len() as u64).saturating_sub(self.booked);
        row.lost += self.standing.queued.abs_diff(sent + parked);
        // What devices hold receipts of, one by one.
        for (payment, receipt) in &self.answered {
            let id = payment.payment_id().to_string();
            let charged = charges.get(&id).copied().unwrap_or(0);
            let due = receipt.decision.approved() && !(parked > items.len() as u64 || waits.contains(&*id));
            row.lost += u64::from(due && charged == 0);
        }
        row.charges += charges.values().sum::<u64>();
        Ok(Sent { sent, parked, items })
    }

    /// A digest of all that the index of a stopped hub holds of payments,
    /// cards and the queue; or what it says is wrong with it.
    pub(super) fn index_records(&self, hub: &str) -> Result<Result<Digest, Damage>> {
        let scratch = self.path("index-to-read");
        if scratch.exists() {
            std::fs::remove_dir_all(&scratch)?;
        }
        copy(&self.path(hub).join("index"), &scratch)?;
        let config = Config::load(&self.path(hub)).map_err(|faults| anyhow!("{faults:?}"))?;
        let key = StoreKey::open(&config.layout, &[&config.keys.vault])?;
        let reader = match Index::open(&scratch, &RestSeal::index(key.key())) {
            Ok(index) => index.reader(),
            Err(damage) => return Ok(Err(damage)),
        };
        let mut bytes = Vec::new();
        for prefix in [State::PAYMENTS, b"c", b"q", b"x"] {
            let records = match reader.range(prefix, prefix, usize::MAX) {
                Ok(records) => records,
                Err(damage) => return Ok(Err(damage)),
            };
            for (key, value) in records {
                bytes.extend(key);
                bytes.extend(value);
            }
        }
        Ok(Ok(Digest::of(&bytes)))
    }
}
