//! What operators ask, carried to the hub and its edges.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use hub_core::described::Described;
use hub_core::{Disclosed, OperatorCommand, OperatorReply, Reply};
use hub_protocol::entry::{Finding, StorageLevel};
use hub_protocol::root::{Authority, Delegated};
use hub_protocol::{DeviceId, Digest, PaymentId, RefusalCode};

use crate::admin::protocol::{
    AllowanceReport, DescribedReport, DeviceReport, EnrolReport, FleetReport, KeyReport, ListReport,
    PolicyReport, QueueReport, RestrictionReport, RootReport, RotationReport, StatusReport, TlsStep,
};
use crate::admin::{Backend, EnrolOrder, Operator, Refused};
use crate::clock;
use crate::config::{Config, verify_policy};
use crate::data_key::{StoreKey, vault_key_id};
use crate::devices::Devices;
use crate::key_ring::KeyRing;
use crate::ledger::{Space, VaultReader};
use crate::port::{Ask, HubPort};
use crate::run::LedgerCounts;
use crate::run::archiving::Archiving;
use crate::run::fleet::standing_report;
use crate::run::tls_change::FOLLOWS_SIGNING;
use crate::run::vault_key::{self, NotChanged};
use crate::run::{key_files, key_report, root_watch};

/// Serves the operators of one hub.
pub(super) struct HubBackend {
    pub(super) config: Arc<Config>,
    pub(super) devices: Devices,
    pub(super) port: HubPort,
    pub(super) counts: LedgerCounts,
    pub(super) space: Space,
    pub(super) archiving: Archiving,
    pub(super) keys: KeyRing,
    /// Held while one of the hub's keys changes.
    pub(super) changing: tokio::sync::Mutex<Unanswered>,
    /// The store's data key. Whoever changes what it is wrapped under holds it.
    pub(super) store_key: tokio::sync::Mutex<StoreKey>,
    pub(super) vault: VaultReader,
}

/// The keys to change to, until there is an answer.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    signing: Option<VerifyingKey>,
    pub(super) tls: Option<Digest>,
    vault: bool,
}

impl HubBackend {
    pub(super) async fn operate(
        &self,
        operator: String,
        command: OperatorCommand,
    ) -> Result<OperatorReply, Refused> {
        match self.ask(Ask::Operator { operator, command }).await? {
            Reply::Operator(OperatorReply::Refused(text)) => Err(Refused::new(text)),
            Reply::Operator(reply) => Ok(reply),
            _ => Err(Refused::unavailable("the hub gave an answer to another question")),
        }
    }

    fn settle_keys(&self, current: &VerifyingKey) -> Result<(), Refused> {
        key_files::settle(&self.config.layout, current, &mut |_| Ok(())).map_err(|error| {
            Refused::new(format!(
                "the key is changed, but its files could not be put in order: {error}. Keep both files, put right \
                 what is wrong, and restart hubd, which tries again"
            ))
        })
    }

    async fn ask(&self, ask: Ask) -> Result<Reply, Refused> {
        self.port
            .ask(ask)
            .await
            .map_err(|refusal| Refused::unavailable(refusal.text))
    }

    pub(super) async fn change(&self, operator: Operator, command: OperatorCommand) -> Result<(), Refused> {
        self.operate(operator.to_string(), command).await.map(|_| ())
    }
}

fn described_report(described: &Described) -> DescribedReport {
    DescribedReport {
        vendor: described.vendor.clone(),
        model: described.model.clone(),
        os: described.os.clone(),
        os_version: described.os_version.to_string(),
        app_version: described.app_version.to_string(),
        certification: described.certification.to_string(),
        attestation: described.attested.map(|attested| attested.status.to_string()),
        attested_ms: described.attested.map(|attested| attested.issued_ms),
    }
}

impl Backend for HubBackend {
    async fn status(&self) -> Result<StatusReport, Refused> {
        let reply = self
            .operate("status".to_owned(), OperatorCommand::Overview)
            .await?;
        let OperatorReply::Overview(overview) = reply else {
            return Err(Refused::unavailable("the hub gave no overview"));
        };
        let hub = &self.config.hub;
        let (journal, vault) = (self.counts.journal.counts(), self.counts.vault.counts());
        let archives = self.archiving.report();
        Ok(StatusReport {
            hub_id: self.config.keys.hub_id.to_string(),
            store: hub.store.clone(),
            store_id: hub.store_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: clock::monotonic_ms() / 1000,
            listen: self.devices.local_addr().to_string(),
            enrol_listen: self
                .devices
                .enrol_addr()
                .unwrap_or(self.config.devices.enrol_listen)
                .to_string(),
            wan: overview.wan.to_string(),
            wan_reason: overview.wan_reason.to_string(),
            root: match overview.root {
                None if overview.root_unreadable => Some(RootReport::unreadable()),
                root => root.map(Into::into),
            },
            policy: (overview.policy_version > 0).then_some(PolicyReport {
                version: overview.policy_version,
                expires_ms: overview.policy_expires_ms,
            }),
            ledger_entries: overview.sequence,
            ledger_groups: journal.flushes,
            ledger_flushes: journal.flushes + vault.flushes,
            queued: overview.queued,
            parked: overview.parked,
            reversals_queued: overview.reversals_queued,
            oldest_unsent_seconds: overview.oldest_unsent_seconds,
            exposure_minor: overview.exposure_minor,
            consecutive: overview.consecutive,
            currency: hub.currency.to_string(),
            clock_suspect: overview.clock_suspect,
            time_ms: overview.time_ms,
            storage: overview.storage.to_string(),
            storage_free_bytes: self.space.free_bytes(),
            storage_reserve_bytes: self.space.reserve_bytes(),
            archives: archives.count,
            archives_exported: overview.archives.exported,
            archives_removed: overview.archives.removed,
            archive_bytes: archives.bytes,
            archive_trouble: archives.trouble,
            ceilings_percent: overview.ceilings_percent,
            restrictions: overview
                .restricted
                .iter()
                .map(|one| RestrictionReport {
                    device: one.device.map(|device| device.to_string()),
                    restriction: one.restriction.to_string(),
                    points: one.points,
                })
                .collect(),
            allowances: overview
                .allowances
                .iter()
                .map(|one| AllowanceReport {
                    device: one.device.to_string(),
                    number: one.number,
                    kept_back_minor: one.reserved.minor,
                    kept_back_count: one.reserved.count,
                    expires_ms: one.expires_ms,
                })
                .collect(),
            devices_enrolled: overview.devices,
            devices_connected: self.devices.connected().len(),
            turned_away: self.devices.bounds_reached(),
        })
    }

    async fn devices(&self) -> Result<Vec<DeviceReport>, Refused> {
        let told = self
            .operate("devices".to_owned(), OperatorCommand::Described)
            .await?;
        let OperatorReply::Described(described) = told else {
            return Err(Refused::unavailable("the hub did not say what devices are"));
        };
        let standings = self.standings().await?;
        let connected = self.devices.connected();
        let seen = self.devices.seen();
        let mut enrolled = self.devices.registry().list();
        enrolled.sort_by(|a, b| a.name.cmp(&b.name).then(a.device.cmp(&b.device)));
        let mut reports: Vec<DeviceReport> = enrolled
            .into_iter()
            .map(|device| {
                let sighting = seen.iter().find(|seen| seen.enrolled == Some(device.device));
                DeviceReport {
                    id: device.device.to_string(),
                    name: device.name,
                    class: device.class.to_string(),
                    model: Some(device.model),
                    key: Some(data_encoding::HEXLOWER.encode(device.verifying_key.as_bytes())),
                    enrolled: true,
                    blocked: device.blocked,
                    connected: connected.contains(&device.device),
                    enrolled_ms: Some(device.enrolled_ms),
                    seen_ms: sighting.map(|seen| seen.last_seen_ms),
                    addresses: sighting.map(|seen| texts(&seen.addresses)).unwrap_or_default(),
                    described: described
                        .iter()
                        .find(|(id, _)| *id == device.device)
                        .map(|(_, described)| described_report(described)),
                    standing: standings
                        .iter()
                        .find(|one| one.device == device.device)
                        .map(standing_report),
                }
            })
            .collect();
        let strangers = seen.iter().filter(|seen| seen.enrolled.is_none());
        reports.extend(strangers.map(|seen| DeviceReport {
            id: seen.short_id.clone(),
            name: seen.instance.clone(),
            class: seen.class.map(|class| class.to_string()).unwrap_or_default(),
            seen_ms: Some(seen.last_seen_ms),
            addresses: texts(&seen.addresses),
            ..DeviceReport::default()
        }));
        Ok(reports)
    }

    async fn enrol(&self, operator: Operator, order: EnrolOrder) -> Result<EnrolReport, Refused> {
        self.enrolment_code(operator, order).await
    }

    async fn fleet(&self) -> Result<FleetReport, Refused> {
        self.fleet_report().await
    }

    async fn withdraw(&self, operator: Operator, token: Digest) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::WithdrawFleetToken(token))
            .await
    }

    async fn take_list(&self, operator: Operator, signed: Vec<u8>) -> Result<ListReport, Refused> {
        self.take_signed_list(operator, signed).await
    }

    async fn approve(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::Approve(device)).await
    }

    async fn block(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::Block(device)).await
    }

    async fn lost(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::ForfeitAllowance(device))
            .await
    }

    async fn unblock(&self, operator: Operator, device: DeviceId) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::Unblock(device)).await
    }

    async fn queue(&self, limit: usize, parked_only: bool) -> Result<QueueReport, Refused> {
        match self
            .operate("queue".to_owned(), OperatorCommand::Queue { limit, parked_only })
            .await?
        {
            OperatorReply::Queue { items, total, parked } => Ok(QueueReport {
                items: items.into_iter().map(Into::into).collect(),
                total,
                parked,
            }),
            _ => Err(Refused::unavailable("the hub gave no queue")),
        }
    }

    async fn drain(&self, operator: Operator) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::Drain).await
    }

    async fn release(
        &self,
        operator: Operator,
        payment_id: PaymentId,
        not_there: bool,
    ) -> Result<(), Refused> {
        let command = OperatorCommand::Release {
            payment_id,
            not_there,
        };
        tracing::info!(by = %operator, payment = %payment_id, not_there, "a person releases a payment");
        self.change(operator, command).await
    }

    async fn close(
        &self,
        operator: Operator,
        payment_id: PaymentId,
        finding: Finding,
        note: String,
    ) -> Result<(), Refused> {
        let command = OperatorCommand::Close {
            payment_id,
            finding,
            note,
        };
        tracing::info!(by = %operator, payment = %payment_id, %finding, "a person closes a payment");
        self.change(operator, command).await
    }

    async fn park(&self, operator: Operator, payment: PaymentId) -> Result<(), Refused> {
        tracing::info!(by = %operator, %payment, "a person keeps a payment back");
        self.change(operator, OperatorCommand::Park(payment)).await
    }

    async fn lift(&self, operator: Operator, device: Option<DeviceId>) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::Lift(device)).await
    }

    async fn confirm_clock(&self, operator: Operator, told_ms: u64) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::ConfirmClock { told_ms })
            .await
    }

    async fn archive_exported(&self, operator: Operator, number: u32, digest: Digest) -> Result<(), Refused> {
        self.archiving
            .exported(operator.to_string(), number, digest)
            .await
    }

    async fn disclosed(&self, operator: Operator, disclosed: Disclosed) -> Result<(), Refused> {
        self.change(operator, OperatorCommand::Disclosed(disclosed)).await
    }

    async fn remove_archives(&self, operator: Operator, through: u32) -> Result<(), Refused> {
        self.archiving.remove(operator.to_string(), through).await
    }

    async fn keys(&self) -> Result<Vec<KeyReport>, Refused> {
        let devices = self.devices.registry().list();
        let authority = self.authority().await?;
        Ok(key_report::all(
            &self.config,
            &self.keys.chain(),
            self.devices.tls().stated(),
            &authority,
            devices,
        ))
    }

    async fn rotate_tls_key(
        &self,
        operator: Operator,
        step: TlsStep,
        confirmed: bool,
    ) -> Result<RotationReport, Refused> {
        self.change_tls(operator, step, confirmed).await
    }

    async fn rotate_signing_key(
        &self,
        operator: Operator,
        confirmed: bool,
    ) -> Result<RotationReport, Refused> {
        let mut unanswered = self.changing.lock().await;
        let left = self.left_behind(FOLLOWS_SIGNING);
        if !left.too_old.is_empty() && !confirmed {
            return self.rotation("signing", left, (false, true, false)).await;
        }
        if self.space.level() == StorageLevel::Full {
            return Err(Refused::new(
                "the disk is full: make room first, then change the key",
            ));
        }
        let before = *self.keys.chain().current();
        if unanswered.signing.is_some_and(|asked| asked != before) {
            return Err(Refused::new(
                "whether an earlier change of the key comes about is not known yet: try again in a moment; if this \
                 stays, restart hubd, which puts it right",
            ));
        }
        self.settle_keys(&before)?;
        unanswered.signing = None;
        let layout = &self.config.layout;
        let next = key_files::next_key(layout, &before).map_err(|error| Refused::new(error.to_string()))?;
        let current = next.verifying_key();
        if self.keys.chain().keys().any(|key| *key == current) {
            return Err(Refused::new(
                "hub-signing.next.key is a key that this hub has had before: supply another one",
            ));
        }
        unanswered.signing = Some(current);
        let ask = Ask::ChangeHubKey {
            operator: operator.to_string(),
            next,
        };
        let refused = match self.port.ask(ask).await {
            Ok(Reply::Operator(OperatorReply::Done)) => None,
            Ok(Reply::Operator(OperatorReply::Refused(text))) => Some(Refused::new(text)),
            Ok(Reply::Refused(refusal)) => Some(Refused::unavailable(refusal.text)),
            Err(refusal) if refusal.code == RefusalCode::Busy => Some(Refused::unavailable(refusal.text)),
            // The entry may be in the ledger: the next start sees.
            Err(refusal) => return Err(Refused::unavailable(refusal.text)),
            Ok(_) => return Err(Refused::unavailable("the hub gave an answer to another question")),
        };
        unanswered.signing = None;
        if let Some(refused) = refused {
            if let Err(error) = key_files::discard_made(layout, &before) {
                tracing::warn!(%error, "a signing key that is not used could not be destroyed; the next change or start tries again");
            }
            return Err(refused);
        }
        // The ledger goes on with the new key, whatever becomes of the files.
        self.settle_keys(&current)?;
        self.rotation("signing", left, (true, false, false)).await
    }

    async fn rotate_vault_key(&self, operator: Operator) -> Result<Vec<KeyReport>, Refused> {
        let refused = |error: NotChanged| Refused::new(error.to_string());
        let mut store = self.store_key.lock().await;
        if self.space.level() == StorageLevel::Full {
            return Err(Refused::new(
                "the disk is full: make room first, then change the key",
            ));
        }
        if self.vault.holds_older() {
            return Err(Refused::new(
                "cards that an earlier version encrypted under the vault key itself could not be moved yet: restart \
                 hubd, which tries again, and see its log",
            ));
        }
        let layout = &self.config.layout;
        let mut unanswered = self.changing.lock().await;
        if unanswered.vault {
            return Err(Refused::new(
                "whether an earlier change of the key comes about is not known: restart hubd, which puts it right",
            ));
        }
        let (current, next) = vault_key::begin(layout, &mut store).map_err(refused)?;
        unanswered.vault = true;
        let command = OperatorCommand::ChangeVaultKey {
            key: vault_key_id(&next),
            old_key: vault_key_id(&current),
        };
        let ask = Ask::Operator {
            operator: operator.to_string(),
            command,
        };
        let failed = match self.port.ask(ask).await {
            Ok(Reply::Operator(OperatorReply::Done)) => None,
            Ok(Reply::Operator(OperatorReply::Refused(text))) => Some(Refused::new(text)),
            Err(refusal) if refusal.code == RefusalCode::Busy => Some(Refused::unavailable(refusal.text)),
            // The entry may be in the ledger: the next start sees, and both
            // keys open the store until then.
            Err(refusal) => return Err(Refused::unavailable(refusal.text)),
            Ok(_) => return Err(Refused::unavailable("the hub gave an answer to another question")),
        };
        unanswered.vault = false;
        if let Some(failed) = failed {
            vault_key::take_back(layout, &mut store, &current).map_err(refused)?;
            return Err(failed);
        }
        // The ledger goes on with the new key, whatever becomes of the files.
        store.set_named(Some(vault_key_id(&next)));
        vault_key::settle(layout, &mut store, &next, &mut |_| Ok(())).map_err(|error| {
            Refused::new(format!(
                "the key is changed, but its files could not be put in order: {error}. Keep all files in keys/, put \
                 right what is wrong, and give this command again or restart hubd: either tries again"
            ))
        })?;
        drop((store, unanswered));
        self.keys().await
    }

    async fn apply_root(&self, operator: Operator, signed: Vec<u8>) -> Result<RootReport, Refused> {
        let command = OperatorCommand::ApplyRoot {
            signed: signed.clone(),
        };
        match self.operate(operator.to_string(), command).await? {
            OperatorReply::RootInForce(standing) => {
                let file = &self.config.layout.root_in_force;
                if let Err(error) = replace(file, &signed) {
                    tracing::warn!(file = %file.display(), %error, "the root is in force, but its copy could not be written");
                }
                root_watch::tell(&standing, clock::wall_ms());
                Ok(standing.into())
            }
            _ => Err(Refused::unavailable("the hub gave an answer to another question")),
        }
    }

    async fn install_policy(&self, _operator: Operator, signed: Vec<u8>) -> Result<PolicyReport, Refused> {
        let source = &self.config.policy;
        let keys = self.authority().await?.keys(Delegated::Policies);
        let found = verify_policy(&signed, &keys).map_err(|error| Refused::new(error.to_string()))?;
        let expires_ms = Some(found.policy.expires_ms);
        let ask = Ask::Activate {
            policy: Box::new(found.policy),
            signed: found.signed,
            key: found.key,
        };
        match self.ask(ask).await? {
            Reply::PolicyActive { version } => {
                // The ledger holds the policy in force; the file is for the
                // next `validate` and for people.
                if let Err(error) = replace(&source.file, &signed) {
                    tracing::warn!(file = %source.file.display(), %error, "the policy is in force, but its file could not be written");
                }
                Ok(PolicyReport { version, expires_ms })
            }
            Reply::Operator(OperatorReply::Refused(text)) => Err(Refused::new(text)),
            _ => Err(Refused::unavailable("the hub gave an answer to another question")),
        }
    }
}

impl HubBackend {
    /// Whom this hub obeys now.
    pub(super) async fn authority(&self) -> Result<Authority, Refused> {
        let told = self.operate("policy".to_owned(), OperatorCommand::Root).await?;
        match told {
            OperatorReply::Root(root) => Ok(self.config.policy.authority(root)),
            _ => Err(Refused::unavailable("the hub did not say which root is in force")),
        }
    }
}

fn texts(addresses: &[std::net::IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

/// Replaces a file as a whole or not at all.
fn replace(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    let new = file.with_extension("new");
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&new, file)
}
