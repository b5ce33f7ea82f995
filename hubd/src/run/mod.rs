//! The composition: opens the ledger, starts the edges, runs the hub, stops.

mod archiving;
mod backend;
mod credential;
mod edges;
mod exports;
mod fleet;
mod forward;
mod key_files;
mod key_report;
#[cfg(test)]
mod key_tests;
mod migration;
mod opening;
mod outages;
mod recovery;
mod root_watch;
mod storage;
mod tls_change;
mod tls_files;
#[cfg(test)]
mod tls_tests;
mod vault_key;

use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hub_core::{Core, Effect, Input, OperatorCommand, Settings};
use hub_protocol::EntrySeal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, AdminServer};
use crate::clock;
use crate::config::{Config, EX_CONFIG, Peer};
use crate::data_key::{DataKeyError, StoreKey};
use crate::devices::{self, Devices, DiscoverySettings, HubFacts, Registry};
use crate::hub::{Hub, Marks};
use crate::key_ring::KeyRing;
use crate::ledger::{
    ArchiveSettings, Archiver, CheckpointSettings, CommitterHandle, DataLock, DiskCounter, Home,
    IndexWriterHandle, LedgerError, Space, VaultReader,
};
use crate::port::{Ask, HubPort, Message, Tell};
use crate::upstream::{self, Gateway, Upstream, iso8583};
use archiving::Archiving;
use backend::HubBackend;
use edges::RealEdges;
pub(crate) use exports::note as note_export;
pub(crate) use key_report::of_hub;
pub use opening::{OpenError, Opened, open as open_store};
use outages::Outages;
pub(crate) use recovery::recover;

/// Ended because the ledger or a part of the hub failed: systemd starts it
/// again, and the state is folded from the ledger (sysexits `EX_IOERR`).
const EXIT_FAILED: u8 = 74;

/// Another hubd has this folder and works: a second one has nothing to do
/// (sysexits `EX_TEMPFAIL`).
const EXIT_TAKEN: u8 = 75;

/// How long the hub may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs a hub until SIGTERM or SIGINT, or until it fails.
pub fn run(config: Config) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    let code = match start(&runtime, Arc::new(config)) {
        Ok(running) => running.until_stopped(&runtime),
        Err(error) => {
            failed(&format!("{error:#}"));
            ExitCode::from(exit_code(&error))
        }
    };
    // Whatever still runs is not waited for: what counts is on disk.
    runtime.shutdown_background();
    code
}

/// What starting again cannot mend gets a code of its own: systemd is told
/// not to try.
fn exit_code(error: &anyhow::Error) -> u8 {
    let opening = error.downcast_ref::<OpenError>();
    match opening {
        Some(OpenError::Ledger(LedgerError::Locked { .. })) => EXIT_TAKEN,
        Some(OpenError::Ledger(
            LedgerError::NewerStore { .. }
            | LedgerError::NewerFormat { .. }
            | LedgerError::OtherHub { .. }
            | LedgerError::OtherVaultKey { .. },
        )) => EX_CONFIG,
        Some(OpenError::Key(
            DataKeyError::Lost { .. } | DataKeyError::OtherVaultKey { .. } | DataKeyError::Differ { .. },
        )) => EX_CONFIG,
        _ => EXIT_FAILED,
    }
}

fn failed(text: &str) -> ExitCode {
    tracing::error!("{text}");
    ExitCode::from(EXIT_FAILED)
}

/// How often the ledger has gone to the disk.
struct LedgerCounts {
    journal: DiskCounter,
    vault: DiskCounter,
}

/// A hub with all its edges.
struct Running {
    port: HubPort,
    devices: Devices,
    hub: JoinHandle<bool>,
    stop_admin: watch::Sender<bool>,
    /// Says why the hub cannot go on.
    failure: mpsc::Receiver<String>,
    _lock: DataLock,
}

fn start(runtime: &Runtime, config: Arc<Config>) -> anyhow::Result<Running> {
    let _inside = runtime.enter();
    let opened = opening::open(&config)?;
    let (port, messages) = HubPort::new();
    let (fail, failure) = mpsc::channel(4);
    let gateway = Arc::new(upstream(&config)?);

    let registry = Registry::default();
    for device in opened.state.devices() {
        registry.apply(&device.registration, device.access());
        if let Some(keys) = device.keys.as_deref() {
            registry.apply_keys(device.registration.device, keys.clone());
        }
    }
    let tokens = opened.state.fleet().tokens.clone();
    if let Some(left) = opened.state.fleet().list_left {
        tracing::warn!(
            left,
            "headquarters' list of devices was cut off; apply the same file again with `hubctl fleet apply`"
        );
    }
    let facts = HubFacts {
        policy_version: opened.state.store().policy_version,
        wan: opened.state.store().wan,
    };
    let outages = Outages::of(Home::of(&config.layout.ledger));
    let away = opened.away;
    let journal = opened.journal.reader();
    let vault = opened.vault.reader();
    let vault_of_operators = vault.clone();
    let recall = opened.index.reader();
    let archives = opened.journal.archives();
    let archives_through = archives.head().sequence;
    let archiver = Archiver::new(journal.clone(), archives, recall.clone(), config.keys.hub_id);
    let marks = Arc::new(Marks::default());
    let index = IndexWriterHandle::start(
        opened.index,
        CheckpointSettings::default(),
        |health| {
            if health.blob_files > 0 {
                tracing::error!(
                    files = health.blob_files,
                    "the index keeps values outside its file; nothing flushes them"
                );
            }
        },
        // No money depends on the index: it falls behind, and the next start
        // builds it again.
        |damage| tracing::error!(%damage, "the index can be written no more"),
    )?;
    let keys = opened.journal.keys();
    let stated = opened.state.tls_keys();
    let stated = stated.map(|record| record.statement(config.keys.hub_id));
    let tls = tls_change::open(&config, &keys, stated)?;
    let counts = LedgerCounts {
        journal: opened.journal.counter(),
        vault: opened.vault.counter(),
    };
    let committer = CommitterHandle::start(
        opened.journal,
        opened.vault,
        {
            let (marks, port) = (Arc::clone(&marks), port.clone());
            let (outages, fail) = (outages.clone(), fail.clone());
            let mut failed = false;
            move |durable| {
                if let Err(error) = outages.follow(durable.sequence) {
                    failed = true;
                    tell_failure(&fail, format!("ledger: {error}"));
                }
                if failed {
                    // Nobody hears of it, so nothing leaves.
                    return;
                }
                marks.committed(durable.sequence, durable.receipts);
                port.wake();
            }
        },
        {
            let fail = fail.clone();
            move |error| tell_failure(&fail, format!("ledger: {error}"))
        },
    )?;

    let archiving = Archiving::new(
        archiver,
        index.keeper(),
        port.clone(),
        opened.space.clone(),
        ArchiveSettings {
            retention_ms: config.ledger.retention_ms,
            most_bytes: config.ledger.archive_bytes,
        },
    );

    let settings = hub_core::Settings {
        archives_through,
        away,
        seal: Some(EntrySeal::new(opened.store_key.key())),
        recovery_key: opened.store_key.recovery(),
        recovered: opened.recovered,
        ..core_settings(&config)?
    };
    let (mut core, mut effects) = Core::start(
        settings,
        opened.state,
        opened.torn_bytes,
        env!("CARGO_PKG_VERSION"),
        clock::now(),
    );
    // Before the first device is heard.
    let space = opened.space;
    let (level, free_bytes) = (space.level(), space.free_bytes());
    effects.extend(core.handle(Input::Storage { level, free_bytes }, clock::now()));
    let devices = Devices::start(
        devices_settings(&config),
        devices::Keys {
            tls,
            signing: keys.clone(),
        },
        port.clone(),
        registry,
    )?;
    devices.set_facts(facts);
    devices.set_fleet_tokens(tokens);
    let (orders, to_forward) = mpsc::unbounded_channel();
    let edges = RealEdges {
        committer,
        journal: journal.clone(),
        index,
        recall,
        orders,
        devices: devices.clone(),
        facts,
        index_gone: false,
        space: space.clone(),
        hub: config.keys.hub_id,
        keys: keys.clone(),
        next_key: None,
        outages,
    };
    let hub = spawn_hub(runtime, (core, effects), edges, messages, marks, fail)?;

    runtime.spawn(forward::forward_all(
        to_forward,
        Arc::clone(&gateway),
        journal,
        vault,
        port.clone(),
    ));
    runtime.spawn(upstream::probe_loop(
        gateway,
        port.clone(),
        config.gateway.probe_interval,
    ));
    runtime.spawn(activate_policy(Arc::clone(&config), port.clone()));
    runtime.spawn(exports::tell(config.layout.clone(), port.clone()));
    runtime.spawn(root_watch::watch(Arc::clone(&config), port.clone()));
    runtime.spawn(storage::watch(space.clone(), port.clone()));
    runtime.spawn(archiving.clone().keep());
    let stop_admin = serve_operators(
        runtime,
        &config,
        &devices,
        &port,
        (counts, space, archiving, keys),
        (opened.store_key, vault_of_operators),
    )?;
    tracing::info!(
        hub = %config.keys.hub_id.short(), store = %config.hub.store, devices = %devices.local_addr(), "ready"
    );
    Ok(Running {
        port,
        devices,
        hub,
        stop_admin,
        failure,
        _lock: opened.lock,
    })
}

fn tell_failure(fail: &mpsc::Sender<String>, text: String) {
    tracing::error!("{text}");
    // Full only if others have failed before: one is enough to end.
    let _ = fail.try_send(text);
}

/// The hub's own thread. Whatever ends it ends the process.
fn spawn_hub(
    runtime: &Runtime,
    (core, effects): (Core, Vec<Effect>),
    edges: RealEdges,
    messages: mpsc::Receiver<Message>,
    marks: Arc<Marks>,
    fail: mpsc::Sender<String>,
) -> std::io::Result<JoinHandle<bool>> {
    let handle = runtime.handle().clone();
    std::thread::Builder::new().name("hub".to_owned()).spawn(move || {
        // Dropped on the way out of a panic too: the receiver then ends.
        let fail = fail;
        let good = Hub::new(core, effects, edges, messages, marks).is_some_and(|hub| hub.run(&handle));
        if !good {
            tell_failure(&fail, "the hub cannot go on without its ledger".to_owned());
        }
        good
    })
}

/// The signed policy in the configured file comes into force if it is newer
/// than the one in the ledger.
async fn activate_policy(config: Arc<Config>, port: HubPort) {
    let Some(present) = config.policy.present.clone() else {
        return;
    };
    let ask = Ask::Activate {
        policy: Box::new(present.policy),
        signed: present.signed,
        key: present.key,
    };
    match port.ask(ask).await {
        Ok(hub_core::Reply::Operator(hub_core::OperatorReply::Refused(text))) => {
            tracing::warn!(file = %config.policy.file.display(), "the policy in the file is not taken: {text}");
        }
        Ok(_) => {}
        Err(refusal) => tracing::warn!("the policy in the file is not taken: {refusal}"),
    }
}

fn serve_operators(
    runtime: &Runtime,
    config: &Arc<Config>,
    devices: &Devices,
    port: &HubPort,
    (counts, space, archiving, keys): (LedgerCounts, Space, Archiving, KeyRing),
    (store_key, vault): (StoreKey, VaultReader),
) -> anyhow::Result<watch::Sender<bool>> {
    let server = AdminServer::bind(&admin::Settings {
        socket: config.admin.socket.clone(),
    })?;
    let backend = Arc::new(HubBackend {
        config: Arc::clone(config),
        devices: devices.clone(),
        port: port.clone(),
        counts,
        space,
        archiving,
        keys,
        changing: tokio::sync::Mutex::default(),
        store_key: tokio::sync::Mutex::new(store_key),
        vault,
    });
    let (stop, mut stopped) = watch::channel(false);
    runtime.spawn(server.serve(backend, async move {
        // An error means that the sender is gone: the same.
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
    Ok(stop)
}

impl Running {
    fn until_stopped(mut self, runtime: &Runtime) -> ExitCode {
        // Before anybody is told that it is up: whoever stops it then stops it
        // in good order.
        let stop = {
            let _inside = runtime.enter();
            StopSignals::heeded()
        };
        // Without systemd there is nobody to notify.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        runtime.spawn(watchdog(self.port.clone()));
        let failed = runtime.block_on(async {
            tokio::select! {
                text = self.failure.recv() => Some(text.unwrap_or_else(|| "the hub's thread ended".to_owned())),
                () = stop.given() => None,
            }
        });
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        if let Some(text) = failed {
            // Nothing is answered any more: what is not on disk was not
            // promised. No tidying up on the strength of a broken disk.
            return self::failed(&format!("ending: {text}"));
        }
        tracing::info!("stopping");
        runtime.block_on(async {
            self.port.tell(Tell::Stop).await;
            self.devices.stop().await;
        });
        let _ = self.stop_admin.send(true);
        let good = runtime.block_on(async {
            let ended = tokio::task::spawn_blocking(move || self.hub.join());
            matches!(tokio::time::timeout(STOP_TIMEOUT, ended).await, Ok(Ok(Ok(true))))
        });
        runtime.block_on(async { tokio::task::yield_now().await });
        if good {
            tracing::info!("stopped; everything is on disk");
            ExitCode::SUCCESS
        } else {
            self::failed("did not stop in good order; the next start folds the ledger again")
        }
    }
}

/// SIGTERM and SIGINT; without them the process can only be killed, which it
/// survives.
struct StopSignals(Option<(Signal, Signal)>);

impl StopSignals {
    /// From now on they do not end the process. Must be called inside a tokio
    /// runtime.
    fn heeded() -> Self {
        let both = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
        Self(match both {
            (Ok(terminate), Ok(interrupt)) => Some((terminate, interrupt)),
            _ => None,
        })
    }

    /// Waits for one.
    async fn given(self) {
        let Some((mut terminate, mut interrupt)) = self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Tells systemd that the hub is alive, if the hub's own thread answers.
async fn watchdog(port: HubPort) {
    let Some(timeout) = sd_notify::watchdog_enabled() else {
        return;
    };
    let mut ticks = tokio::time::interval(timeout / 3);
    loop {
        ticks.tick().await;
        let ask = Ask::Operator {
            operator: "watchdog".to_owned(),
            command: OperatorCommand::Overview,
        };
        if matches!(tokio::time::timeout(timeout / 3, port.ask(ask)).await, Ok(Ok(_))) {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        }
    }
}

fn core_settings(config: &Config) -> anyhow::Result<Settings> {
    let mut settings = Settings::new(config.keys.hub_id, &config.hub.store_id, config.hub.currency);
    settings.online_deadline_ms = millis(config.gateway.deadline);
    settings.max_in_flight = config.gateway.max_in_flight;
    settings.idempotency_retention_ms = millis(config.gateway.idempotency_retention);
    settings.undecided_after_ms = millis(config.gateway.undecided_after);
    // ISO 8583 has no field for it that all acquirers fill.
    settings.gateway_tells_time = matches!(config.gateway.peer, Peer::Https { .. });
    // On ISO 8583 only with the card, which is destroyed at the decline.
    settings.presents_again = matches!(config.gateway.peer, Peer::Https { .. });
    if let Peer::Iso8583(acquirer) = &config.gateway.peer {
        settings.looks_up = false;
        settings.traces = acquirer.dialect.trace_rule();
    }
    settings.pinned_root = config.policy.root.as_ref().map(|root| root.signed.clone());
    settings.spread_ms = millis(config.gateway.spread);
    let mut seed = [0; 8];
    random(&mut seed)?;
    settings.seed = u64::from_le_bytes(seed);
    random(&mut settings.boot)?;
    Ok(settings)
}

/// Jitter must differ between hubs, and the boot's name between boots.
#[allow(clippy::disallowed_methods)] // the core gets its seed here, once
fn random(bytes: &mut [u8]) -> anyhow::Result<()> {
    getrandom::fill(bytes).map_err(|error| anyhow::anyhow!("no entropy: {error}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// After so long without a message from the acquirer, an echo test.
const ECHO_WHEN_IDLE: Duration = Duration::from_secs(60);

/// How long one message to or from the acquirer may take on the line.
const ONE_MESSAGE: Duration = Duration::from_secs(10);

/// The first pause between two tries to reach the acquirer, and the longest.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// Sets up the way to the gateway. Inside the runtime: an acquirer's line
/// begins to connect.
fn upstream(config: &Config) -> Result<Upstream, upstream::UpstreamError> {
    let gateway = &config.gateway;
    match &gateway.peer {
        Peer::Https { url, credential } => Gateway::new(upstream::Settings {
            url: url.to_string(),
            ca_file: gateway.ca_file.clone(),
            credential: credential.as_ref().map(|credential| credential.to_string()),
            store_id: config.hub.store_id.clone(),
            max_in_flight: gateway.max_in_flight,
            probe_timeout: gateway.deadline,
        })
        .map(Upstream::from),
        Peer::Iso8583(acquirer) => iso8583::Acquirer::new(iso8583::Settings {
            host: acquirer.host.clone(),
            port: acquirer.port,
            ca_file: gateway.ca_file.clone(),
            client_certificate: acquirer.client_certificate.clone(),
            dialect: acquirer.dialect.clone(),
            identity: acquirer.identity.clone(),
            max_in_flight: gateway.max_in_flight,
            probe_timeout: gateway.deadline,
            idle: ECHO_WHEN_IDLE,
            one_message: ONE_MESSAGE,
            pauses: RECONNECT,
        })
        .map(Upstream::from),
    }
}

fn devices_settings(config: &Config) -> devices::Settings {
    devices::Settings {
        store: config.hub.store.clone(),
        store_id: config.hub.store_id.clone(),
        listen: config.devices.listen,
        enrol_listen: config.devices.enrol_listen,
        advertise: config.devices.advertise.clone(),
        requests_per_second: config.devices.requests_per_second,
        discovery: config.discovery.enabled.then(|| DiscoverySettings {
            interfaces: config.discovery.interfaces.clone(),
        }),
        ..devices::Settings::default()
    }
}
