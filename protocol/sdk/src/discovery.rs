//! mDNS on the device's side. What it says is a hint where to knock; the hub
//! is known by its key.
//!
//! One responder for the whole process and each set of interfaces, shared by
//! everybody who looks or advertises and ended with the last of them.

use std::collections::HashMap;
use std::net::{SocketAddr, SocketAddrV6};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use hub_protocol::discovery::{TXT_CLASS, TXT_ID, TXT_KEY, TXT_VERSION, is_virtual_interface};
use hub_protocol::{DeviceClass, MDNS_DEVICE_TYPE, MDNS_HUB_TYPE, WIRE_VERSION};
use if_addrs::Interface;
use mdns_sd::{IfKind, IfPredicate, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use tokio::sync::watch;

use crate::error::SdkError;
use crate::identity::DeviceIdentity;

/// The most hubs kept, and addresses of each.
const MAX_HUBS: usize = 32;
const MAX_ADDRESSES: usize = 8;

/// How much longer to listen for more hubs once one is found.
const MORE: Duration = Duration::from_millis(300);

/// The longest text put into one DNS label, in bytes.
const MAX_LABEL: usize = 63;

/// Where and how long to look.
#[derive(Clone, Debug)]
pub struct DiscoveryOptions {
    /// The interfaces by name ("lo" too). Empty: all but loopback and those
    /// of containers, virtual machines and tunnels.
    pub interfaces: Vec<String>,
    /// The longest to wait for a hub.
    pub timeout: Duration,
}

impl Default for DiscoveryOptions {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            timeout: Duration::from_secs(3),
        }
    }
}

/// A hub as mDNS shows it. A hint, never an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundHub {
    /// The first 8 bytes of the identity it says it has, in hex.
    pub hub_short: String,
    /// The shop's name as announced.
    pub name: String,
    /// Where it says it listens for payments, at most 8.
    pub addresses: Vec<SocketAddr>,
}

/// Looks for hubs: until one is found and a moment longer, at most
/// `options.timeout`. An empty list means that none was found.
///
/// # Errors
///
/// When mDNS cannot be started.
pub async fn find_hubs(options: &DiscoveryOptions) -> Result<Vec<FoundHub>, SdkError> {
    let browser = Browser::start(&options.interfaces)?;
    if browser.wait_for(options.timeout, |_| true).await {
        tokio::time::sleep(MORE.min(options.timeout)).await;
    }
    Ok(browser.hubs())
}

/// Announces a device for as long as it is held.
pub struct Advertisement {
    shared: Arc<SharedDaemon>,
    fullname: String,
}

/// Announces a device under `_pos-device._udp`, so that the hub can list it
/// before it is enrolled.
///
/// # Errors
///
/// When mDNS cannot be started.
pub fn advertise(
    identity: &DeviceIdentity,
    class: DeviceClass,
    name: &str,
    options: &DiscoveryOptions,
) -> Result<Advertisement, SdkError> {
    let shared = SharedDaemon::get(&options.interfaces)?;
    let short = identity.device_id().short();
    let version = WIRE_VERSION.to_string();
    let txt = [
        (TXT_VERSION, version.as_str()),
        (TXT_ID, name),
        (TXT_CLASS, class.name()),
        (TXT_KEY, short.as_str()),
    ];
    let host = format!("pos-{short}.local.");
    // Port 0: a device is seen, not called (RFC 6763 §9 knows such records).
    let info = ServiceInfo::new(MDNS_DEVICE_TYPE, &label(name), &host, "", 0, &txt[..])?.enable_addr_auto();
    let fullname = info.get_fullname().to_owned();
    shared.daemon.register(info)?;
    Ok(Advertisement { shared, fullname })
}

impl Drop for Advertisement {
    fn drop(&mut self) {
        let _ = self.shared.daemon.unregister(&self.fullname);
    }
}

/// Text that fits a DNS label.
fn label(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().filter(|c| !c.is_control()) {
        if out.len() + character.len_utf8() > MAX_LABEL {
            break;
        }
        out.push(character);
    }
    out
}

/// Listens for hubs for as long as it is held.
#[derive(Clone)]
pub(crate) struct Browser {
    shared: Arc<SharedDaemon>,
}

impl Browser {
    pub(crate) fn start(interfaces: &[String]) -> Result<Self, SdkError> {
        let shared = SharedDaemon::get(interfaces)?;
        shared.browse()?;
        Ok(Self { shared })
    }

    /// The hubs that mDNS shows now.
    pub(crate) fn hubs(&self) -> Vec<FoundHub> {
        let mut hubs: Vec<_> = self.shared.found.borrow().values().cloned().collect();
        hubs.sort_by(|a, b| a.hub_short.cmp(&b.hub_short));
        hubs
    }

    /// Waits until a hub is found that is wanted. False after `timeout`.
    pub(crate) async fn wait_for(&self, timeout: Duration, wanted: impl Fn(&FoundHub) -> bool) -> bool {
        let mut found = self.shared.found.subscribe();
        let seen = found.wait_for(|hubs| hubs.values().any(&wanted));
        matches!(tokio::time::timeout(timeout, seen).await, Ok(Ok(_)))
    }
}

type Hubs = HashMap<String, FoundHub>;

struct SharedDaemon {
    daemon: ServiceDaemon,
    found: watch::Sender<Hubs>,
    browsing: Mutex<bool>,
}

static DAEMONS: LazyLock<Mutex<HashMap<Vec<String>, Weak<SharedDaemon>>>> = LazyLock::new(Mutex::default);

impl SharedDaemon {
    fn get(interfaces: &[String]) -> Result<Arc<Self>, SdkError> {
        let mut daemons = lock(&DAEMONS);
        daemons.retain(|_, daemon| daemon.strong_count() > 0);
        if let Some(shared) = daemons.get(interfaces).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        let daemon = ServiceDaemon::new()?;
        daemon.disable_interface(IfKind::All)?;
        let chosen = interfaces.to_vec();
        daemon.enable_interface(IfKind::Predicate(IfPredicate::new(move |interface| {
            takes_part(&chosen, interface)
        })))?;
        let shared = Arc::new(Self {
            daemon,
            found: watch::Sender::new(Hubs::new()),
            browsing: Mutex::new(false),
        });
        daemons.insert(interfaces.to_vec(), Arc::downgrade(&shared));
        Ok(shared)
    }

    /// Begins to browse, once. A thread and not a task: the daemon outlives
    /// the runtime of whoever asked first.
    fn browse(&self) -> Result<(), SdkError> {
        let mut browsing = lock(&self.browsing);
        if *browsing {
            return Ok(());
        }
        let events = self.daemon.browse(MDNS_HUB_TYPE)?;
        let found = self.found.clone();
        std::thread::Builder::new()
            .name("hub-sdk-mdns".into())
            .spawn(move || {
                // Ends when the daemon does.
                while let Ok(event) = events.recv() {
                    found.send_modify(|hubs| note(hubs, event));
                }
            })
            .map_err(SdkError::Thread)?;
        *browsing = true;
        Ok(())
    }
}

impl Drop for SharedDaemon {
    fn drop(&mut self) {
        // Sends goodbye for what is still registered.
        let _ = self.daemon.shutdown();
    }
}

fn note(hubs: &mut Hubs, event: ServiceEvent) {
    match event {
        ServiceEvent::ServiceResolved(service)
            if hubs.len() < MAX_HUBS || hubs.contains_key(&service.fullname) =>
        {
            hubs.insert(service.fullname.clone(), describe(&service));
        }
        ServiceEvent::ServiceRemoved(_, fullname) => {
            hubs.remove(&fullname);
        }
        _ => {}
    }
}

fn describe(service: &ResolvedService) -> FoundHub {
    let mut addresses: Vec<SocketAddr> = service
        .addresses
        .iter()
        .map(|address| match address {
            ScopedIp::V6(v6) => SocketAddrV6::new(*v6.addr(), service.port, 0, v6.scope_id().index).into(),
            other => SocketAddr::new(other.to_ip_addr(), service.port),
        })
        .collect();
    // IPv4 first: every shop's network has it.
    addresses.sort();
    addresses.truncate(MAX_ADDRESSES);
    let name = service
        .fullname
        .strip_suffix(MDNS_HUB_TYPE)
        .unwrap_or(&service.fullname)
        .trim_end_matches('.');
    FoundHub {
        hub_short: label(service.get_property_val_str(TXT_KEY).unwrap_or_default()),
        name: label(name),
        addresses,
    }
}

/// What a hub says of itself, from any bytes.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\n');
    let name = parts.next().unwrap_or_default();
    let properties: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let service = mdns_sd::ServiceInfo::new(MDNS_HUB_TYPE, name, "a.local.", "192.0.2.1", 1, &properties[..]);
    if let Ok(service) = service {
        let found = describe(&service.as_resolved_service());
        assert!(found.addresses.len() <= MAX_ADDRESSES);
    }
}

fn takes_part(chosen: &[String], interface: &Interface) -> bool {
    if chosen.is_empty() {
        !interface.is_loopback() && !is_virtual_interface(&interface.name)
    } else {
        chosen.contains(&interface.name)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
