//! What the core is told once.

use hub_protocol::entry::TraceRule;
use hub_protocol::{Currency, EntrySeal, HubId};

use crate::wan::WanSettings;

/// What the core is told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The hub's identity.
    pub hub: HubId,
    /// The store's id, as policies name it.
    pub store_id: String,
    /// The one currency that the shop takes.
    pub currency: Currency,
    /// How long a customer waits for the gateway, in milliseconds.
    pub online_deadline_ms: u64,
    /// How long one attempt at replay may take, in milliseconds.
    pub replay_deadline_ms: u64,
    /// The most attempts under way at replay. How many there are is found out
    /// by trying; this is never passed.
    pub max_in_flight: usize,
    /// For how long the gateway knows an idempotency key, in milliseconds. A
    /// payment that may have been sent nine tenths of that ago is looked up
    /// before it is sent again.
    pub idempotency_retention_ms: u64,
    /// For how long the gateway may say of a payment or reversal that it has
    /// it and does not know yet, in milliseconds. After it, and at least
    /// [`LEAST_UNDECIDED_ANSWERS`](crate::LEAST_UNDECIDED_ANSWERS) such
    /// answers, it is parked. Counted from the first of them since the hub
    /// started; between two of them at most 61 minutes count.
    pub undecided_after_ms: u64,
    /// Whether the gateway tells the time. Before it has, since the start, no
    /// age of what an earlier process may have sent is believed.
    pub gateway_tells_time: bool,
    /// Whether a payment that was declined can be presented again, without its
    /// card. Where not, every decline is final, whatever the policy's table of
    /// schemes says.
    pub presents_again: bool,
    /// Whether the gateway can be asked whether it has a payment. Where not,
    /// what would have to be looked up waits for a person instead.
    pub looks_up: bool,
    /// How payments are named to an acquirer from now on.
    pub traces: TraceRule,
    /// The window over which first contact after an outage is spread, in
    /// milliseconds. The policy or the gateway may give a longer one.
    pub spread_ms: u64,
    /// The most payments that may wait to be sent. Above it nothing is
    /// approved offline.
    pub max_queue: usize,
    /// The most enrolled devices, beside those that wait to be approved.
    pub max_devices: usize,
    /// The most payments kept in memory beside those that are about to be
    /// sent; others are recalled from the index.
    pub max_remembered: usize,
    /// The most cards kept in memory, beside those of payments in memory.
    pub max_cards: usize,
    /// How many payments that wait to be sent are kept in memory, shared out
    /// evenly among the devices; each has at least 2. The rest is loaded from
    /// the index when its turn comes.
    pub queue_window: usize,
    /// How long after a start the hub waits for a device to ask again for a
    /// payment that was being asked online when the hub stopped.
    pub abandoned_after_ms: u64,
    /// The last entry in an archive on disk when the hub starts, whether the
    /// ledger tells of it yet or not; 0 for none. What is archived is final, so
    /// no payment requested up to there is voided.
    pub archives_through: u64,
    /// Whether the ledger tells of an outage and may have been elsewhere since:
    /// the machine was off, or it is a copy that was put back. What waits may
    /// then have been sent by another.
    pub away: bool,
    /// The signed root that the hub was installed with, verified: it comes into
    /// force if the ledger has none.
    pub pinned_root: Option<Vec<u8>>,
    /// The id of the recovery key that the store's key is wrapped under; `None`:
    /// of none. The ledger is told if it names another.
    pub recovery_key: Option<[u8; 8]>,
    /// What a recovery did since the ledger's last entry, if there was one.
    pub recovered: Option<Recovered>,
    /// Encrypts what the ledger's entries say. Without one they are in clear:
    /// for tests and rehearsals, which write to no disk.
    pub seal: Option<EntrySeal>,
    /// When connectivity changes.
    pub wan: WanSettings,
    /// This boot, for the ledger's times.
    pub boot: [u8; 16],
    /// Seed for the jitter of retries.
    pub seed: u64,
}

/// The store's key was unwrapped by a recovery key while the hub did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The id of the vault key that it is wrapped under since.
    pub vault_key: [u8; 8],
    /// The recovery key's id.
    pub recovery_key: [u8; 8],
    /// Who did it.
    pub operator: String,
}

impl Settings {
    /// Settings with the documented defaults.
    pub fn new(hub: HubId, store_id: &str, currency: Currency) -> Self {
        Self {
            hub,
            store_id: store_id.to_owned(),
            currency,
            online_deadline_ms: 3_000,
            replay_deadline_ms: 30_000,
            max_in_flight: 64,
            idempotency_retention_ms: 24 * 60 * 60 * 1000,
            undecided_after_ms: 4 * 60 * 60 * 1000,
            gateway_tells_time: true,
            presents_again: true,
            looks_up: true,
            traces: TraceRule::Entry,
            spread_ms: 0,
            max_queue: 1_000_000,
            max_devices: 1_000,
            max_remembered: 5_000,
            max_cards: 10_000,
            queue_window: 4_096,
            abandoned_after_ms: 60_000,
            archives_through: 0,
            away: false,
            pinned_root: None,
            recovery_key: None,
            recovered: None,
            seal: None,
            wan: WanSettings::default(),
            boot: [0; 16],
            seed: 1,
        }
    }
}
