//! The hub's edges as the hub sees them.

use std::collections::VecDeque;

use ed25519_dalek::SigningKey;
use hub_core::Forward;
use hub_core::admission::{Access, FleetToken};
use hub_core::device_keys::DeviceKeys;
use hub_core::state::Head;
use hub_protocol::entry::{StorageLevel, WanReason, WanState};
use hub_protocol::{
    AllowanceMisuse, DeviceId, HubId, HubKeyChange, HubTlsKeys, PaymentId, PaymentStatus, Registration,
    Restriction, RestrictionCause, SealedCard, SignedKeyChange,
};
use tokio::sync::mpsc;

use crate::devices::{Devices, HubFacts};
use crate::hub::{Edges, IndexBatch, Records};
use crate::key_ring::KeyRing;
use crate::ledger::{
    Commit, CommitterHandle, INDEX_FORMAT, IndexReader, IndexWriterHandle, JournalReader, NextKey, NotTaken,
    Space, Stamp,
};
use crate::run::outages::Outages;

/// All edges, joined.
pub(super) struct RealEdges {
    pub(super) committer: CommitterHandle,
    pub(super) journal: JournalReader,
    pub(super) index: IndexWriterHandle,
    pub(super) recall: IndexReader,
    pub(super) orders: mpsc::UnboundedSender<Forward>,
    pub(super) devices: Devices,
    pub(super) facts: HubFacts,
    pub(super) index_gone: bool,
    pub(super) space: Space,
    pub(super) hub: HubId,
    pub(super) keys: KeyRing,
    /// Signed, and not handed to the ledger yet.
    pub(super) next_key: Option<NextKey>,
    pub(super) outages: Outages,
}

impl Edges for RealEdges {
    fn append(
        &mut self,
        sequence: u64,
        payload: Vec<u8>,
        card: Option<(PaymentId, SealedCard)>,
        receipt: Option<Vec<u8>>,
    ) -> bool {
        self.committer
            .commit(Commit {
                sequence,
                payload,
                sealed_card: card,
                receipt,
            })
            .is_ok()
    }

    fn outage(&mut self, sequence: u64, begins: bool) {
        self.outages.expect(sequence, begins);
    }

    fn durable_head(&self) -> Head {
        self.journal.head()
    }

    fn sign_key_change(&mut self, sequence: u64, next: SigningKey, now_ms: u64) -> SignedKeyChange {
        let chain = self.keys.chain();
        let change = HubKeyChange {
            hub: self.hub,
            number: chain.changes() + 1,
            old_key: chain.current().to_bytes(),
            new_key: next.verifying_key().to_bytes(),
            sequence,
            changed_ms: now_ms,
        };
        let statement = SignedKeyChange(self.keys.with(|old| change.sign(old, &next)));
        self.next_key = Some(NextKey {
            sequence,
            signing: next,
            statement: statement.clone(),
        });
        statement
    }

    fn change_key(&mut self, sequence: u64) -> bool {
        match self.next_key.take() {
            Some(next) if next.sequence == sequence => self.committer.change_key(next).is_ok(),
            // Without the key the entry must not be written.
            _ => false,
        }
    }

    fn push_key_change(&mut self, statement: SignedKeyChange) {
        tracing::warn!("the hub signs with another key from now on: hubctl keys");
        self.devices.push_key_change(statement);
    }

    fn push_tls_keys(&mut self, keys: HubTlsKeys) {
        tracing::warn!(number = keys.number, keys = ?keys.keys, "the hub is reached under these TLS keys from now on");
        self.devices.push_tls_keys(keys);
    }

    fn device_keys(&mut self, device: DeviceId, keys: DeviceKeys) {
        tracing::info!(device = %device.short(), number = keys.number, settled = keys.settled, "a device has other keys");
        self.devices.apply_keys(device, keys);
    }

    fn erase_card(&mut self, payment_id: PaymentId) {
        // If the committer is gone, opening erases what no payment needs.
        let _ = self.committer.erase(payment_id);
    }

    fn forward(&mut self, forward: Forward) {
        // The receiver ends with the process only.
        let _ = self.orders.send(forward);
    }

    fn push_status(&mut self, device: DeviceId, status: PaymentStatus) {
        self.devices.push_status(&device, status);
    }

    fn push_policy(&mut self, version: u64) {
        self.facts.policy_version = version;
        tracing::info!(version, "policy in force");
        self.devices.push_policy(version);
    }

    fn device_changed(&mut self, registration: &Registration, access: Access) {
        // Not by its name, which may be a person's: `hubctl devices` has it.
        tracing::info!(device = %registration.device.short(), ?access, "device enrolled or changed");
        self.devices.apply(registration, access);
    }

    fn fleet_tokens(&mut self, tokens: Vec<FleetToken>) {
        self.devices.set_fleet_tokens(tokens);
    }

    fn restriction_changed(
        &mut self,
        device: Option<DeviceId>,
        restriction: Restriction,
        cause: RestrictionCause,
    ) {
        let place = device.map_or_else(|| "the store".to_owned(), |device| device.short());
        if restriction == Restriction::Warned {
            tracing::warn!(place, "something odd was found: hubctl restrictions");
        } else if restriction == Restriction::None {
            tracing::info!(place, %cause, "offline approvals are free again");
        } else {
            tracing::warn!(place, %restriction, %cause, "offline approvals are restricted: hubctl restrictions");
        }
    }

    fn allowance_misused(&mut self, device: DeviceId, number: u64, kind: AllowanceMisuse) {
        tracing::warn!(device = %device.short(), number, %kind,
            "a device misused its allowance and approves nothing more offline: hubctl restrictions");
    }

    fn wan_changed(&mut self, state: WanState, reason: WanReason) {
        match state {
            WanState::Online => tracing::info!(%state, %reason, "connectivity changed"),
            _ => tracing::warn!(%state, %reason, "connectivity changed"),
        }
        self.facts.wan = state;
        self.devices.set_facts(self.facts);
    }

    /// A store that fails to write for want of room would not be read from
    /// any more either, so with a full disk changes wait in memory. What is
    /// not approved offline bounds them.
    fn index(&mut self, (changes, head): IndexBatch) -> Option<IndexBatch> {
        if self.space.level() == StorageLevel::Full {
            return Some((changes, head));
        }
        match self.index.try_submit(changes, stamp(head)) {
            Ok(()) => None,
            Err(NotTaken::Full(changes, _)) => Some((changes, head)),
            Err(NotTaken::Stopped) => {
                if !std::mem::replace(&mut self.index_gone, true) {
                    tracing::error!("the index falls behind from now on; the next start builds it again");
                }
                None
            }
        }
    }

    fn finish(self, last: VecDeque<IndexBatch>) -> bool {
        // Cards that were still to be destroyed are, before the end is told.
        let ledger = self.committer.flush_and_stop();
        // With a full disk the next start folds them in again.
        let last = if self.space.level() == StorageLevel::Full {
            VecDeque::new()
        } else {
            last
        };
        for (changes, head) in last {
            if self.index.submit(changes, stamp(head)).is_err() {
                break;
            }
        }
        // No money depends on the index.
        if let Err(damage) = self.index.flush_and_stop() {
            tracing::error!(%damage, "the index could not be finished");
        }
        ledger.is_ok()
    }

    fn recall(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        self.recall.get(key).map_err(|damage| damage.to_string())
    }

    fn recall_range(&self, prefix: &[u8], from: &[u8], limit: usize) -> Result<Records, String> {
        self.recall
            .range(prefix, from, limit)
            .map_err(|damage| damage.to_string())
    }

    fn distrust_index(&self) {
        self.recall.distrust();
    }

    fn indexed(&self) -> u64 {
        self.recall.written()
    }
}

fn stamp(head: Head) -> Stamp {
    Stamp {
        sequence: head.sequence,
        digest: head.digest,
        format: INDEX_FORMAT,
    }
}
