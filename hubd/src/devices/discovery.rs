//! mDNS: the hub registers itself and lists the payment devices it hears of.
//!
//! What mDNS says is a hint, never an identity: nothing here lets a device in
//! or shuts one out. Every text from the network is cut to size and cleaned
//! before people see it, and the list is bounded.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hub_protocol::discovery::{TXT_CLASS, TXT_ID, TXT_KEY, TXT_VERSION, is_virtual_interface};
use hub_protocol::{DeviceClass, DeviceId, HubId, MDNS_DEVICE_TYPE, MDNS_HUB_TYPE, WIRE_VERSION};
use if_addrs::Interface;
use mdns_sd::{IfPredicate, MDNS_PORT, ResolvedService, ServiceEvent, ServiceInfo};
use tokio::sync::watch;

use super::bounds::Counts;
use super::mdns::{Announcement, PAUSE};
use super::registry::Registry;
use crate::clock;

/// The most devices in the list of those seen.
const MAX_SEEN: usize = 256;

/// The most addresses kept of one device.
const MAX_ADDRESSES: usize = 8;

/// The longest text kept of what the network says, in bytes: one DNS label.
const MAX_LABEL: usize = 63;

/// Where discovery takes place.
#[derive(Clone, Debug, Default)]
pub struct DiscoverySettings {
    /// The interfaces by name ("lo" too). Empty: all but loopback and those
    /// of containers, virtual machines and tunnels.
    pub interfaces: Vec<String>,
}

/// A payment device as mDNS shows it. A hint, never an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenDevice {
    /// The name it announces.
    pub instance: String,
    /// What it says it is.
    pub class: Option<DeviceClass>,
    /// The first 8 bytes of the identity it says it has, in hex.
    pub short_id: String,
    /// Its addresses, at most 8.
    pub addresses: Vec<IpAddr>,
    /// The enrolled device that it says it is, blocked or not.
    pub enrolled: Option<DeviceId>,
    /// When its announcement last changed, milliseconds since 1970 UTC. It is
    /// listed until it takes its leave or its announcement expires.
    pub last_seen_ms: u64,
}

/// Why discovery did not start.
#[derive(Debug, thiserror::Error)]
#[error("mDNS discovery did not start; set `enabled = false` under [discovery] to run without")]
pub struct DiscoveryError(#[from] mdns_sd::Error);

pub(super) type Seen = Arc<watch::Sender<HashMap<String, SeenDevice>>>;

/// Discovery, while it runs.
pub(super) struct Discovery {
    /// Says that the hub goes.
    leave: watch::Sender<bool>,
    /// By the name they announce.
    pub(super) seen: Seen,
    registry: Registry,
}

impl Discovery {
    /// Registers the hub and begins to listen for devices.
    pub(super) fn start(
        settings: &DiscoverySettings,
        hub: HubId,
        store: &str,
        store_id: &str,
        listen: SocketAddr,
        registry: Registry,
        counts: Arc<Counts>,
    ) -> Result<Self, DiscoveryError> {
        let chosen = settings.interfaces.clone();
        let interfaces = IfPredicate::new(move |interface| {
            takes_part(&chosen, interface) && serves(listen, interface.ip())
        });
        let version = WIRE_VERSION.to_string();
        let short = hub.short();
        let txt = [
            (TXT_VERSION, version.as_str()),
            (TXT_ID, store_id),
            (TXT_KEY, short.as_str()),
        ];
        // A host name of its own: the records of another responder on this
        // machine, with other interfaces, are not in conflict with ours.
        let host = format!("hub-{short}.local.");
        let instance = label(store);
        let info = if listen.ip().is_unspecified() {
            ServiceInfo::new(MDNS_HUB_TYPE, &instance, &host, "", listen.port(), &txt[..])?.enable_addr_auto()
        } else {
            ServiceInfo::new(
                MDNS_HUB_TYPE,
                &instance,
                &host,
                listen.ip(),
                listen.port(),
                &txt[..],
            )?
        };
        let announcement = Announcement {
            info,
            interfaces,
            port: MDNS_PORT,
            pause: PAUSE,
        };
        let daemon = announcement.begin()?;
        let seen = Seen::new(watch::Sender::new(HashMap::new()));
        let (leave, left) = watch::channel(false);
        tokio::spawn(announcement.keep_up(daemon, Arc::clone(&seen), counts, left));
        Ok(Self {
            leave,
            seen,
            registry,
        })
    }

    /// The devices that mDNS shows, by name.
    pub(super) fn seen(&self) -> Vec<SeenDevice> {
        let mut all: Vec<_> = self
            .seen
            .borrow()
            .values()
            .cloned()
            .map(|device| SeenDevice {
                enrolled: self.registry.by_short_id(&device.short_id),
                ..device
            })
            .collect();
        all.sort_by(|a, b| a.instance.cmp(&b.instance));
        all
    }

    /// Takes the hub's leave and ends.
    pub(super) async fn stop(&self) {
        self.leave.send_replace(true);
        self.leave.closed().await;
    }
}

pub(super) fn note(seen: &mut HashMap<String, SeenDevice>, event: ServiceEvent) {
    match event {
        ServiceEvent::ServiceResolved(service) => {
            if seen.len() >= MAX_SEEN && !seen.contains_key(&service.fullname) {
                let oldest = seen.iter().min_by_key(|(_, device)| device.last_seen_ms);
                if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                    seen.remove(&name);
                }
            }
            seen.insert(service.fullname.clone(), describe(&service));
        }
        ServiceEvent::ServiceRemoved(_, fullname) => {
            seen.remove(&fullname);
        }
        _ => {}
    }
}

fn describe(service: &ResolvedService) -> SeenDevice {
    let text = |key| service.get_property_val_str(key).unwrap_or_default();
    let instance = service
        .fullname
        .strip_suffix(MDNS_DEVICE_TYPE)
        .unwrap_or(&service.fullname)
        .trim_end_matches('.');
    let mut addresses: Vec<IpAddr> = service.addresses.iter().map(|a| a.to_ip_addr()).collect();
    addresses.sort();
    addresses.truncate(MAX_ADDRESSES);
    SeenDevice {
        instance: label(instance),
        class: text(TXT_CLASS).parse().ok(),
        short_id: label(text(TXT_KEY)),
        addresses,
        enrolled: None,
        last_seen_ms: clock::wall_ms(),
    }
}

/// What a device says of itself, from any bytes.
#[cfg(fuzzing)]
pub fn fuzz(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\n');
    let name = parts.next().unwrap_or_default();
    let properties: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
    let service = mdns_sd::ServiceInfo::new(
        MDNS_DEVICE_TYPE,
        name,
        "a.local.",
        "192.0.2.1",
        1,
        &properties[..],
    );
    if let Ok(service) = service {
        let seen = describe(&service.as_resolved_service());
        assert!(seen.instance.len() <= MAX_LABEL && seen.short_id.len() <= MAX_LABEL);
        assert!(!seen.instance.chars().any(char::is_control));
    }
}

/// Text that people may see and that fits a DNS label.
fn label(text: &str) -> String {
    let mut out = String::new();
    for character in text.chars().filter(|c| !c.is_control()) {
        if out.len() + character.len_utf8() > MAX_LABEL {
            break;
        }
        out.push(character);
    }
    if out.is_empty() { "hub".to_owned() } else { out }
}

/// Whether discovery takes place on an interface.
pub(super) fn takes_part(chosen: &[String], interface: &Interface) -> bool {
    if chosen.is_empty() {
        !interface.is_loopback() && !is_virtual_interface(&interface.name)
    } else {
        chosen.contains(&interface.name)
    }
}

/// Whether a hub that listens on `listen` is reached at `address`.
pub(super) fn serves(listen: SocketAddr, address: IpAddr) -> bool {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.is_ipv4(),
        // `[::]` takes IPv4 too.
        IpAddr::V6(ip) if ip.is_unspecified() => true,
        ip => ip == address,
    }
}

/// The addresses that go into enrolment codes, best first: those given, else
/// the address listened on, else those of the machine's interfaces; loopback
/// only if there is nothing else. At most 8.
pub(super) fn addresses_for_codes(
    advertise: &[IpAddr],
    interfaces: &[String],
    listen: SocketAddr,
) -> Vec<IpAddr> {
    if !advertise.is_empty() {
        return advertise.iter().copied().take(MAX_ADDRESSES).collect();
    }
    if !listen.ip().is_unspecified() {
        return vec![listen.ip()];
    }
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = |i: &&Interface| {
        // A link-local address means nothing without the device's own scope.
        serves(listen, i.ip()) && !(i.ip().is_ipv6() && i.is_link_local())
    };
    let mut found: Vec<IpAddr> = all
        .iter()
        .filter(usable)
        .filter(|i| takes_part(interfaces, i))
        .map(Interface::ip)
        .collect();
    if found.is_empty() {
        found = all
            .iter()
            .filter(usable)
            .filter(|i| i.is_loopback())
            .map(Interface::ip)
            .collect();
    }
    // IPv4 before IPv6: every shop's network has it.
    found.sort();
    found.dedup();
    found.truncate(MAX_ADDRESSES);
    found
}
