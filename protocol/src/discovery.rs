//! Names in mDNS (DNS-SD, RFC 6763) that hub and devices agree on.
//!
//! What mDNS says is a hint where to knock, never an identity: that is proved
//! in the TLS handshake.

/// TXT key: the wire version, [`WIRE_VERSION`](crate::WIRE_VERSION).
pub const TXT_VERSION: &str = "v";

/// TXT key: what people call it: a hub's store id, a device's name.
pub const TXT_ID: &str = "id";

/// TXT key: the [`DeviceClass`](crate::DeviceClass) by name; devices only.
pub const TXT_CLASS: &str = "class";

/// TXT key: the first 8 bytes of the identity in hex
/// ([`HubId::short`](crate::HubId::short),
/// [`DeviceId::short`](crate::DeviceId::short)).
pub const TXT_KEY: &str = "k";

/// How the names of interfaces begin that containers, virtual machines and
/// tunnels make. No shop device is behind one of them.
const VIRTUAL: &[&str] = &[
    "docker",
    "br-",
    "veth",
    "virbr",
    "vmnet",
    "vboxnet",
    "lxc",
    "lxdbr",
    "incusbr",
    "podman",
    "cni",
    "flannel",
    "cali",
    "cilium",
    "kube",
    "vnet",
    "tun",
    "tap",
    "wg",
    "tailscale",
    "zt",
    "dummy",
    "ifb",
];

/// Whether an interface of this name is left out of discovery unless it is
/// asked for by name.
pub fn is_virtual_interface(name: &str) -> bool {
    VIRTUAL.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_and_virtual_interfaces_are_left_out_and_network_cards_are_not() {
        for name in [
            "docker0", "veth3f2a", "br-5d2c", "virbr0", "lxcbr0", "cni0", "wg0",
        ] {
            assert!(is_virtual_interface(name), "{name}");
        }
        for name in ["eth0", "enp3s0", "wlan0", "wlp2s0", "br0", "bond0", "lo"] {
            assert!(!is_virtual_interface(name), "{name}");
        }
    }
}
