//! Devices: discovery, QUIC sessions, enrolment.
//!
//! A payment's way through here: `listener` (address proved, `door`: not too
//! many; TLS handshake: is this device enrolled?) → `session` (one stream, one request) →
//! `request` (frame,
//! `signatures`, ranges) → the hub, by its port → the answer,
//! signed here.

mod bounds;
mod bucket;
mod codes;
mod discovery;
mod door;
mod enrolment;
mod fleet;
mod gate;
mod hub_tls;
mod listener;
mod mdns;
mod pace;
mod packets;
mod places;
mod quic_frames;
mod registry;
mod request;
mod session;
mod sessions;
mod shared;
mod signatures;
mod socket;
mod tls;
mod tries;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hub_core::admission::{Access, FleetToken};
use hub_core::device_keys::DeviceKeys;
use hub_protocol::{
    ALPN, ALPN_1, ALPN_2, ALPN_3, ALPN_4, ALPN_5, DeviceId, EnrolmentCode, HubId, HubTlsKeys, PaymentStatus,
    RefusalCode, Registration, SignedKeyChange,
};
use quinn::{Connection, Endpoint, VarInt};

pub use bounds::Bound;
pub use codes::{CodeError, GRACE_MS, Grant, MAX_CODES, MAX_WRONG_TRIES, Replacement};
#[cfg(fuzzing)]
pub use discovery::fuzz;
pub use discovery::{DiscoveryError, DiscoverySettings, SeenDevice};
pub use enrolment::EnrolmentError;
pub use hub_tls::HubTls;
pub use registry::{RegisteredDevice, Registry};
pub use shared::HubFacts;
#[cfg(fuzzing)]
pub use tls::fuzz_certificate;
pub use tls::{HubIdentity, TlsError};
pub use tries::{MAX_WRONG_TRIES_OF_ADDRESS, SHUT_OUT_MS};

use crate::clock;
use crate::key_ring::KeyRing;
use crate::port::HubPort;
use bounds::Counts;
use discovery::Discovery;
use door::{Door, Ticket};
use enrolment::Enrolment;
use pace::Pace;
use quic_frames::QuicFrames;
use registry::Standing;
pub use sessions::Heard;
use sessions::Outgoing;
use shared::Shared;
use tls::Admit;

/// How long requests under way may take when the hub stops: the longest that
/// a customer waits for the gateway, and some more.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(9);

/// What the devices' edge is to do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What people call the shop: shown on devices and in mDNS.
    pub store: String,
    /// The shop's id, in mDNS.
    pub store_id: String,
    /// Where devices connect.
    pub listen: SocketAddr,
    /// Where devices enrol, while a code is outstanding.
    pub enrol_listen: SocketAddr,
    /// The addresses that go into enrolment codes. Empty: found out.
    pub advertise: Vec<IpAddr>,
    /// `None`: no mDNS.
    pub discovery: Option<DiscoverySettings>,
    /// The most connections of devices at once; one takes up to 512 KiB.
    pub max_connections: usize,
    /// How many requests a second a device may send, and twice as many at
    /// once after a pause; more wait for their turn. At least 1.
    pub requests_per_second: u32,
    /// The monotonic clock, in milliseconds, by which enrolment codes expire
    /// and what comes is counted.
    pub monotonic_ms: fn() -> u64,
}

impl Default for Settings {
    /// The standard ports on all IPv4 addresses, with discovery.
    fn default() -> Self {
        Self {
            store: "store-hub".to_owned(),
            store_id: "store-hub".to_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 7411)),
            enrol_listen: SocketAddr::from(([0, 0, 0, 0], 7412)),
            advertise: Vec::new(),
            discovery: Some(DiscoverySettings::default()),
            max_connections: 512,
            requests_per_second: 100,
            monotonic_ms: clock::monotonic_ms,
        }
    }
}

/// The hub's keys, as far as devices are concerned.
#[derive(Clone)]
pub struct Keys {
    /// The keys of the TLS handshake, by which devices know the hub.
    pub tls: HubTls,
    /// The key that receipts, statuses and registrations are signed with, and
    /// those before it.
    pub signing: KeyRing,
}

/// Why the devices' edge did not start.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    /// The address is taken or not ours.
    #[error("cannot listen for devices on {address}; check `listen` under [devices]")]
    Bind {
        /// `devices.listen`.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Keys or TLS configuration.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// mDNS.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
}

/// The devices' edge, running. Clones are handles of the same.
#[derive(Clone)]
pub struct Devices {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    #[cfg(test)]
    door: Arc<Door>,
    local: SocketAddr,
    enrolment: Arc<Enrolment>,
    discovery: Option<Discovery>,
    settings: Settings,
}

impl Devices {
    /// Binds the payment endpoint and begins to serve. Call within a tokio
    /// runtime, with everything that is enrolled already in `registry`: a
    /// device that is not is turned away.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound or mDNS cannot start.
    pub fn start(
        settings: Settings,
        keys: Keys,
        port: HubPort,
        registry: Registry,
    ) -> Result<Self, DevicesError> {
        let hub = keys.tls.hub_id();
        let bind_error = |source| DevicesError::Bind {
            address: settings.listen,
            source,
        };
        let versions = [ALPN, ALPN_5, ALPN_4, ALPN_3, ALPN_2, ALPN_1];
        let crypto = keys.tls.crypto(Admit::Enrolled(registry.clone()), &versions)?;
        let counts = Arc::<Counts>::default();
        let door = Arc::new(Door::new(
            listener::bounds(settings.max_connections),
            settings.monotonic_ms,
            Arc::clone(&counts),
        ));
        let config = listener::server_config(crypto, listener::MAX_STREAMS);
        let endpoint = listener::bind(&keys.tls, config, settings.listen, &door).map_err(bind_error)?;
        let local = endpoint.local_addr().map_err(bind_error)?;
        let discovery = settings
            .discovery
            .as_ref()
            .map(|discovery| {
                Discovery::start(
                    discovery,
                    hub,
                    &settings.store,
                    &settings.store_id,
                    local,
                    registry.clone(),
                    Arc::clone(&counts),
                )
            })
            .transpose()?;
        let (per_second, monotonic_ms) = (settings.requests_per_second, settings.monotonic_ms);
        let shared = Arc::new(Shared::new(
            settings.store.clone(),
            keys.signing,
            keys.tls,
            registry,
            port,
            (
                Pace::new(per_second, monotonic_ms, Arc::clone(&counts)),
                QuicFrames::new(per_second, monotonic_ms, Arc::clone(&counts)),
            ),
            Arc::clone(&counts),
        ));
        tokio::spawn(quic_frames::watch(Arc::clone(&shared)));
        let enrolment = Arc::new(Enrolment::new(
            Arc::clone(&shared),
            settings.enrol_listen,
            settings.monotonic_ms,
        ));
        let for_sessions = Arc::clone(&shared);
        tokio::spawn(listener::accept(
            endpoint.clone(),
            Arc::clone(&door),
            move |connection, ticket| serve(Arc::clone(&for_sessions), connection, ticket),
        ));
        Ok(Self {
            inner: Arc::new(Inner {
                shared,
                endpoint,
                #[cfg(test)]
                door,
                local,
                enrolment,
                discovery,
                settings,
            }),
        })
    }

    /// The hub's identity.
    pub fn hub_id(&self) -> HubId {
        self.inner.shared.hub
    }

    /// Where devices connect.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.local
    }

    /// Where devices enrol, while that is open.
    pub fn enrol_addr(&self) -> Option<SocketAddr> {
        self.inner.enrolment.local_addr()
    }

    /// The enrolled devices.
    pub fn registry(&self) -> &Registry {
        &self.inner.shared.registry
    }

    /// Takes over what the core says of a device. Blocked, it is cut off at
    /// once and its next handshake fails. From any thread.
    pub fn apply(&self, registration: &Registration, access: Access) {
        let shared = &self.inner.shared;
        shared.registry.apply(registration, access);
        if shared.registry.admitted(&registration.device).is_none() {
            let code = RefusalCode::DeviceNotAllowed;
            shared
                .sessions
                .close(&registration.device, sessions::close_code(code), code.name());
        }
    }

    /// Takes over what the core says of a device's keys. Connections with a
    /// TLS key that counts no more are closed. From any thread.
    pub fn apply_keys(&self, device: DeviceId, keys: DeviceKeys) {
        let shared = &self.inner.shared;
        let settled = keys.settled.then_some(keys.tls);
        shared.registry.apply_keys(device, keys);
        if let Some(key) = settled {
            shared.sessions.close_others(&device, key);
        }
    }

    /// Tells a device, if it is connected, where its payment stands. False
    /// if it was not told. From any thread; does not wait.
    pub fn push_status(&self, device: &DeviceId, status: PaymentStatus) -> bool {
        self.inner
            .shared
            .sessions
            .push(device, Outgoing::Status(Box::new(status)))
    }

    /// Tells all connected devices that another policy is in force. From any
    /// thread; does not wait.
    pub fn push_policy(&self, version: u64) {
        self.facts(|facts| facts.policy_version = version);
        self.inner.shared.sessions.push_all(&Outgoing::Policy(version));
    }

    /// Tells every connected device that the hub signs with another key. Those
    /// that speak an earlier wire version are not told: to them it is no frame.
    pub fn push_key_change(&self, change: SignedKeyChange) {
        self.inner.shared.sessions.push_all(&Outgoing::KeyChanged(change));
        if let Err(error) = self.inner.shared.tls.sign_anew() {
            tracing::error!(%error, "the certificate tells of the old signing key until the next start");
        }
        if self.inner.shared.tls.stated().is_some() {
            // What the old key stated of the TLS keys counts no more.
            self.inner.shared.sessions.push_all(&Outgoing::TlsKeys);
        }
    }

    /// From now on the hub is reached under these TLS keys. Every connected
    /// device is told that speaks of them, and the others when they connect.
    /// From any thread; does not wait.
    pub fn push_tls_keys(&self, keys: HubTlsKeys) {
        let shared = &self.inner.shared;
        match shared.tls.state(keys) {
            Ok(()) => shared.sessions.push_all(&Outgoing::TlsKeys),
            Err(error) => {
                tracing::error!(%error, "the hub is reached under its old TLS key until the next start")
            }
        }
    }

    /// The hub's TLS keys.
    pub fn tls(&self) -> &HubTls {
        &self.inner.shared.tls
    }

    /// What is known of each device that has connected since the hub started.
    pub fn heard(&self) -> BTreeMap<DeviceId, Heard> {
        self.inner.shared.sessions.heard()
    }

    /// What devices are told when they say hello.
    pub fn set_facts(&self, facts: HubFacts) {
        self.facts(|f| *f = facts);
    }

    /// Closes the connections of a device; it may come back.
    pub fn close(&self, device: &DeviceId) {
        self.inner
            .shared
            .sessions
            .close(device, VarInt::from_u32(0), "closed by the hub");
    }

    /// The devices that are connected.
    pub fn connected(&self) -> Vec<DeviceId> {
        self.inner.shared.sessions.devices()
    }

    /// How often each bound of the devices' edge was reached since the start,
    /// by its name ([`Bound::name`]); those never reached are left out.
    pub fn bounds_reached(&self) -> BTreeMap<String, u64> {
        self.inner.shared.counts.report()
    }

    /// The devices that mDNS shows; hints only.
    pub fn seen(&self) -> Vec<SeenDevice> {
        self.inner
            .discovery
            .as_ref()
            .map(Discovery::seen)
            .unwrap_or_default()
    }

    /// Issues a one-time enrolment code, good for ten minutes, for a device of
    /// this class or in the place of another, and opens the enrolment endpoint.
    ///
    /// # Errors
    ///
    /// When sixteen codes are outstanding, the endpoint's address cannot be
    /// bound or the hub is stopping.
    pub fn issue_code(&self, grant: impl Into<Grant>) -> Result<EnrolmentCode, EnrolmentError> {
        let (token, enrol) = self.inner.enrolment.issue(grant.into())?;
        Ok(self.code(token, enrol))
    }

    /// Makes a code with a token that several devices may present, once the
    /// hub has written it down and [`set_fleet_tokens`](Self::set_fleet_tokens)
    /// names it. Opens the enrolment endpoint.
    ///
    /// # Errors
    ///
    /// When the endpoint's address cannot be bound, the system gives no random
    /// numbers or the hub is stopping.
    pub fn fleet_code(&self) -> Result<EnrolmentCode, EnrolmentError> {
        let (token, enrol) = self.inner.enrolment.fleet_token()?;
        Ok(self.code(token, enrol))
    }

    /// The tokens of fleets are these from now on. While one of them lets
    /// another device in, the enrolment endpoint is open. From any thread.
    pub fn set_fleet_tokens(&self, tokens: Vec<FleetToken>) {
        self.inner.enrolment.set_fleet(tokens);
    }

    fn code(&self, token: [u8; 16], enrol: SocketAddr) -> EnrolmentCode {
        let inner = &self.inner;
        let interfaces = inner
            .settings
            .discovery
            .as_ref()
            .map(|d| d.interfaces.as_slice())
            .unwrap_or_default();
        let at = |bound: SocketAddr| {
            discovery::addresses_for_codes(&inner.settings.advertise, interfaces, bound)
                .into_iter()
                .map(|ip| SocketAddr::new(ip, bound.port()).to_string())
                .collect()
        };
        EnrolmentCode {
            hub: inner.shared.hub,
            token,
            enrol_addresses: at(enrol),
            addresses: at(inner.local),
            tls_key: inner.shared.tls.enrolled_under(),
        }
    }

    /// Lets requests under way finish, refuses new ones, and ends.
    pub async fn stop(&self) {
        let inner = &self.inner;
        inner.shared.stopping.store(true, Ordering::SeqCst);
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, inner.shared.idle()).await;
        inner.enrolment.stop();
        inner
            .endpoint
            .close(sessions::close_code(RefusalCode::Stopping), b"stopping");
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, inner.endpoint.wait_idle()).await;
        if let Some(discovery) = &inner.discovery {
            let _ = tokio::time::timeout(DRAIN_TIMEOUT, discovery.stop()).await;
        }
    }

    fn facts(&self, change: impl FnOnce(&mut HubFacts)) {
        change(
            &mut self
                .inner
                .shared
                .facts
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// The ticket is held for as long as the connection lasts.
async fn serve(shared: Arc<Shared>, connection: Connection, ticket: Ticket) {
    // No identity, no service; the handshake lets nobody through without.
    let peer = packets::peer(&connection);
    let owner = peer.and_then(|peer| {
        let key = tls::key_of(&peer.chain)?;
        Some((key, peer.packets, shared.registry.owner(&key)?))
    });
    let Some((key, packets, (device, standing))) = owner else {
        // Blocked since.
        return sessions::close_for(&connection, &session::not_allowed());
    };
    if shared.quic_frames.is_shut_out(&key) {
        return quic_frames::turn_away(&connection);
    }
    let _watched = shared.quic_frames.watch(key, &connection, packets);
    if let Standing::Before = standing {
        session::turn_away(&shared, (device, key), &connection).await;
    } else {
        // One that waits to be approved speaks for no address.
        if !shared.registry.is_pending(&device) {
            ticket.vouch();
        }
        session::run(Arc::clone(&shared), (device, key), connection.clone()).await;
    }
}
