//! UDP sockets and handshakes.
//!
//! Bounds: a source address is proved by a Retry before anything is kept for
//! it; so many handshakes at once and a second, of one address and in all
//! ([`door`](super::door)), each with a deadline; so many connections, each
//! with small windows. A flood beyond the bounds is turned away before it
//! costs memory.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use hub_protocol::card_number::holds_card_number;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AckFrequencyConfig, Connection, ConnectionError, Endpoint, IdleTimeout, Incoming, Runtime, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
};

use super::bucket::Rate;
use super::door::{Door, Knock, Ticket};
use super::gate::Bounds;
use super::hub_tls::HubTls;
use super::packets::Counting;
use super::socket::Guarded;

/// The most requests that one connection may have open at once. Each may have
/// the hub keep a frame, and some 32 KiB of packets that wait for others.
pub(super) const MAX_STREAMS: u32 = 16;

/// Bytes that one stream may send ahead: one frame and a little.
pub(super) const STREAM_WINDOW: u32 = 20 * 1024;

/// Bytes that one connection may send ahead.
pub(super) const CONNECTION_WINDOW: u32 = 256 * 1024;

/// After this long without a packet a connection is gone, in milliseconds.
/// Devices keep theirs alive and may ask for less.
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// Bytes of packets that the system keeps for the hub and from it while it is
/// busy. After a flush some hundred devices are answered at once and ask again
/// at once; the usual 208 KiB hold 90 requests with the system's own share.
pub(super) const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// Packets that a device need not acknowledge one by one.
const UNACKNOWLEDGED: u32 = 9;

/// The longest handshake.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most handshakes at once.
const MAX_HANDSHAKES: usize = 64;

/// Bytes kept of all first packets that wait for their handshake to begin.
pub(super) const INCOMING_BUFFER: u64 = 1024 * 1024;

/// The bounds of an endpoint with at most so many connections.
///
/// A handshake costs the hub some 0.4 ms of processor. Devices behind one
/// router share an address, and all of them come back at once when the hub was
/// restarted: what one address may have is meant for a whole shop.
pub(super) const fn bounds(connections: usize) -> Bounds {
    Bounds {
        handshakes: MAX_HANDSHAKES,
        handshakes_of_strangers: 48,
        handshakes_of_address: 16,
        connections,
        connections_of_address: connections.div_ceil(2),
        retries: Rate {
            per_second: 500,
            burst: 500,
        },
        strangers: Rate {
            per_second: 200,
            burst: 400,
        },
        address: Rate {
            per_second: 25,
            burst: 100,
        },
        refusals: Rate {
            per_second: 100,
            burst: 100,
        },
        addresses: 4096,
    }
}

/// A QUIC server's configuration for devices in a shop that may have so many
/// streams open.
pub(super) fn server_config(crypto: QuicServerConfig, streams: u32) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .ack_frequency_config(Some(ack_frequency()))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    let mut config = ServerConfig::with_crypto(Arc::new(Counting(Arc::new(crypto))));
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(tokens)
        .max_incoming(MAX_HANDSHAKES)
        .incoming_buffer_size(16 * 1024)
        .incoming_buffer_size_total(INCOMING_BUFFER)
        // A device that moves to another network keeps its connection.
        .migration(true);
    config
}

/// How often devices that know of it (draft-ietf-quic-ack-frequency) are asked
/// to acknowledge: an answer by itself needs no packet in return, since the
/// next request brings the acknowledgement, or 25 ms.
fn ack_frequency() -> AckFrequencyConfig {
    let mut config = AckFrequencyConfig::default();
    config.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED));
    config
}

/// Binds a UDP socket and serves QUIC on it, behind a door.
///
/// # Errors
///
/// When the address cannot be bound.
pub(super) fn bind(
    tls: &HubTls,
    config: ServerConfig,
    listen: SocketAddr,
    door: &Arc<Door>,
) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(listen)?;
    let buffers = socket2::SockRef::from(&socket);
    // The system gives as much of it as `net.core.rmem_max` and `wmem_max`
    // allow; with less a burst costs a packet and the device a moment.
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    let guarded = Guarded {
        socket: TokioRuntime.wrap_udp_socket(socket)?,
        door: Arc::clone(door),
        tls: tls.clone(),
    };
    Endpoint::new_with_abstract_socket(
        tls.endpoint_config(),
        Some(config),
        Arc::new(guarded),
        Arc::new(TokioRuntime),
    )
}

/// Accepts connections until the endpoint is closed and hands each to
/// `serve`, as many as the door lets in.
pub(super) async fn accept<F>(
    endpoint: Endpoint,
    door: Arc<Door>,
    serve: impl Fn(Connection, Ticket) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    while let Some(incoming) = endpoint.accept().await {
        let from = incoming.remote_address();
        if !incoming.remote_address_validated() {
            if door.may_retry(from) {
                // Cannot fail: an address not validated may be asked to retry.
                let _ = incoming.retry();
            } else {
                incoming.ignore();
            }
            continue;
        }
        let mut ticket = match door.knock(from) {
            Knock::Enter(ticket) => ticket,
            Knock::Refuse => {
                incoming.refuse();
                continue;
            }
            Knock::Ignore => {
                incoming.ignore();
                continue;
            }
        };
        let (serve, door) = (serve.clone(), Arc::clone(&door));
        tokio::spawn(async move {
            let connection = handshake(incoming, &door).await;
            ticket.shook();
            if let Some(connection) = connection {
                serve(connection, ticket).await;
            }
        });
    }
}

/// Why a handshake failed, without what the other end says of it: that can be
/// anything, a card number too.
fn why(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionClosed(close) => format!("the other end gave up: {}", close.error_code),
        ConnectionError::ApplicationClosed(close) => format!("the other end closed: {}", close.error_code),
        other => match other.to_string() {
            text if holds_card_number(&text) => "it cannot be said why".to_owned(),
            text => text,
        },
    }
}

async fn handshake(incoming: Incoming, door: &Door) -> Option<Connection> {
    let from = incoming.remote_address();
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            door.failed(from, &why(&error));
            None
        }
        Err(_) => {
            door.failed(from, "not finished in time");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use quinn::{ApplicationClose, ConnectionClose, TransportErrorCode};

    use super::*;

    #[test]
    fn rule_6_what_the_other_end_says_of_a_failed_handshake_is_not_logged() {
        let reason = "card 4929 1234 5678 9015";
        let closed = ConnectionError::ConnectionClosed(ConnectionClose {
            error_code: TransportErrorCode::crypto(42),
            frame_type: None,
            reason: reason.into(),
        });
        let left = ConnectionError::ApplicationClosed(ApplicationClose {
            error_code: VarInt::from_u32(7),
            reason: reason.into(),
        });
        for error in [closed, left] {
            assert!(error.to_string().contains("4929"), "the library says it: {error}");
            let why = why(&error);
            assert!(!why.contains("4929") && !why.contains("card"), "{why}");
            assert!(why.contains("42") || why.contains('7'), "{why}");
        }
        assert_eq!(why(&ConnectionError::TimedOut), "timed out");
    }
}
