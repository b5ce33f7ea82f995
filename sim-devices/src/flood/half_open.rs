//! Handshakes that are begun and never gone on with: the address is proved,
//! the hub has answered, and then nothing more comes.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use hub_protocol::ALPN;
use quinn::{ClientConfig, EndpointConfig};
use quinn_proto::{DatagramEvent, Endpoint};

use super::intruder::Intruder;
use super::kinds::Tally;

/// How long a Retry is waited for.
const RETRY: Duration = Duration::from_millis(20);

/// The longest UDP datagram.
const LONGEST: usize = 65_536;

pub(super) fn flood(intruder: &Intruder, tally: &Tally) -> Result<()> {
    let config = intruder.stranger.config(ALPN)?;
    for socket in sockets(intruder)?.iter().cycle() {
        if tally.is_over() {
            break;
        }
        tally.sent();
        if begin(socket, intruder.to, config.clone())? {
            tally.answer("address-proved");
        }
    }
    Ok(())
}

/// One for each address.
pub(super) fn sockets(intruder: &Intruder) -> Result<Vec<UdpSocket>> {
    let sockets = (0..intruder.addresses).map(|number| {
        let socket = UdpSocket::bind(intruder.source(number))?;
        socket.set_read_timeout(Some(RETRY))?;
        Ok(socket)
    });
    sockets.collect()
}

/// Sends the first packet, takes the Retry, and sends the second. False if
/// there was none.
pub(super) fn begin(socket: &UdpSocket, to: SocketAddr, config: ClientConfig) -> Result<bool> {
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, false, None);
    let now = Instant::now();
    let (_, mut connection) = endpoint.connect(now, config, to, "store-hub")?;
    let mut out = Vec::new();
    if connection.poll_transmit(now, 1, &mut out).is_some() {
        socket.send_to(&out, to)?;
    }
    let mut datagram = vec![0; LONGEST];
    // Packets to handshakes before this one may lie here: they fit nowhere.
    for _ in 0..16 {
        let Ok((length, from)) = socket.recv_from(&mut datagram) else {
            return Ok(false);
        };
        let (now, data) = (Instant::now(), datagram[..length].into());
        let Some(DatagramEvent::ConnectionEvent(_, event)) =
            endpoint.handle(now, from, None, None, data, &mut Vec::new())
        else {
            continue;
        };
        connection.handle_event(event);
        out.clear();
        if connection.poll_transmit(now, 1, &mut out).is_some() {
            socket.send_to(&out, to)?;
        }
        return Ok(true);
    }
    Ok(false)
}
