//! UDP sockets and handshakes.
//!
//! Bounds: a source address is proved by a Retry before anything is kept for
//! it; so many handshakes at once, each with a deadline; so many connections,
//! each with small windows. A flood beyond the bounds is turned away before
//! it costs memory.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt};
use tokio::sync::Semaphore;

use super::tls::HubIdentity;

/// The most requests that one device may have open at once.
const MAX_STREAMS: u32 = 64;

/// Bytes that one stream may send ahead: one frame and a little.
const STREAM_WINDOW: u32 = 20 * 1024;

/// Bytes that one connection may send ahead.
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// After this long without a packet a connection is gone, in milliseconds.
/// Devices keep theirs alive and may ask for less.
const IDLE_TIMEOUT_MS: u32 = 30_000;

/// Bytes of packets that the system keeps for the hub and from it while it is
/// busy. After a flush some hundred devices are answered at once and ask again
/// at once; the usual 208 KiB hold 90 requests with the system's own share.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// The longest handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The most handshakes at once.
const MAX_HANDSHAKES: usize = 64;

/// A QUIC server's configuration for devices in a shop.
pub(super) fn server_config(crypto: QuicServerConfig) -> ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(u64::from(CONNECTION_WINDOW))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut tokens = quinn::ValidationTokenConfig::default();
    tokens.sent(0);
    config
        .transport_config(Arc::new(transport))
        .validation_token_config(tokens)
        .max_incoming(MAX_HANDSHAKES)
        .incoming_buffer_size(16 * 1024)
        .incoming_buffer_size_total(1024 * 1024)
        // A device that moves to another network keeps its connection.
        .migration(true);
    config
}

/// Binds a UDP socket and serves QUIC on it.
///
/// # Errors
///
/// When the address cannot be bound.
pub(super) fn bind(identity: &HubIdentity, config: ServerConfig, listen: SocketAddr) -> io::Result<Endpoint> {
    let socket = UdpSocket::bind(listen)?;
    let buffers = socket2::SockRef::from(&socket);
    // The system gives as much of it as `net.core.rmem_max` and `wmem_max`
    // allow; with less a burst costs a packet and the device a moment.
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    Endpoint::new(
        identity.endpoint_config(),
        Some(config),
        socket,
        Arc::new(quinn::TokioRuntime),
    )
}

/// Accepts connections until the endpoint is closed and hands each to
/// `serve`, at most `max_connections` at once.
pub(super) async fn accept<F>(
    endpoint: Endpoint,
    max_connections: usize,
    serve: impl Fn(Connection) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let connections = Arc::new(Semaphore::new(max_connections));
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Some(incoming) = endpoint.accept().await {
        if !incoming.remote_address_validated() {
            // Cannot fail: an address not validated may be asked to retry.
            let _ = incoming.retry();
            continue;
        }
        let permits = Arc::clone(&connections)
            .try_acquire_owned()
            .and_then(|connection| Ok((connection, Arc::clone(&handshakes).try_acquire_owned()?)));
        let Ok((connection_permit, handshake_permit)) = permits else {
            tracing::warn!(from = %incoming.remote_address(), "too many connections; one was turned away");
            incoming.refuse();
            continue;
        };
        let serve = serve.clone();
        tokio::spawn(async move {
            let connection = handshake(incoming).await;
            drop(handshake_permit);
            if let Some(connection) = connection {
                serve(connection).await;
            }
            drop(connection_permit);
        });
    }
}

async fn handshake(incoming: Incoming) -> Option<Connection> {
    let from = incoming.remote_address();
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, incoming).await {
        Ok(Ok(connection)) => Some(connection),
        Ok(Err(error)) => {
            tracing::info!(%from, %error, "handshake failed; if this is a device of the shop, enrol it or unblock it");
            None
        }
        Err(_) => {
            tracing::info!(%from, "handshake not finished in time");
            None
        }
    }
}
