//! How a client goes about it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::discovery::DiscoveryOptions;

/// How a client finds the hub and how long it tries.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Addresses besides those of the enrolment, such as an MDM gives.
    pub static_addresses: Vec<SocketAddr>,
    /// `None`: no mDNS.
    pub discovery: Option<DiscoveryOptions>,
    /// The longest to look for the hub at all its addresses.
    pub connect_timeout: Duration,
    /// The longest to wait for one answer. The hub's own deadline for asking
    /// the gateway, 3 seconds, must fit in.
    pub request_timeout: Duration,
    /// When to give up asking again.
    pub give_up_after: Duration,
    /// The app's name and version, up to 64 bytes.
    pub app: String,
    /// The number of the next request: where the device's count was left, see
    /// [`DeviceClient::next_sequence`](crate::DeviceClient::next_sequence).
    pub next_sequence: u64,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            static_addresses: Vec::new(),
            discovery: None,
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(10),
            give_up_after: Duration::from_secs(60),
            app: concat!("hub-sdk ", env!("CARGO_PKG_VERSION")).to_owned(),
            next_sequence: 1,
        }
    }
}
