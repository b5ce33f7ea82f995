//! One QUIC connection to the hub, and one request on it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hub_protocol::frame::{self, MAX_FRAME};
use hub_protocol::{ALPN, ALPN_3, ALPN_4, ALPN_5, Answer, RefusalCode, WIRE_VERSION};
use quinn::crypto::rustls::HandshakeData;
use quinn::{
    Connection, ConnectionError, Endpoint, ReadError, ReadToEndError, TransportErrorCode, WriteError,
};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use crate::error::{LinkError, PayError, VerifyError};
use crate::tls::SERVER_NAME;

/// The most addresses tried in one round.
pub(crate) const MAX_CANDIDATES: usize = 16;

/// The next address is tried after this long without an answer from the one
/// before (RFC 8305 §5).
const STAGGER: Duration = Duration::from_millis(250);

/// How often somebody looks whether the hub has sent anything, while a request
/// waits. A hub that has not is asked for a sign of life.
const LOOK: Duration = Duration::from_millis(500);

/// After so many looks in vain the path is dead. An answer of a hub that lives
/// may take seconds, since it asks the gateway; its acknowledgements do not.
const LOOKS_IN_VAIN: u32 = 4;

/// The TLS alert access_denied: how the hub turns a device away.
const ACCESS_DENIED: u8 = 49;

/// A connection that is closed when dropped.
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) address: SocketAddr,
    /// The wire version that was agreed on.
    pub(crate) wire: u16,
    /// Reads pushes.
    pub(crate) reader: Option<AbortHandle>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.abort();
        }
        self.connection.close(0u32.into(), b"");
    }
}

/// A socket of its own for each round: unconnected, on all addresses, so that
/// it goes on working when the device's address changes.
fn open_endpoint() -> Result<Endpoint, LinkError> {
    Endpoint::client((Ipv6Addr::UNSPECIFIED, 0).into())
        // A kernel without IPv6.
        .or_else(|_| Endpoint::client((Ipv4Addr::UNSPECIFIED, 0).into()))
        .map_err(|error| LinkError::Socket(error.kind()))
}

/// Connects to the first candidate that answers and proves to be the hub.
/// Candidates are tried in order, each a little after the one before.
pub(crate) async fn connect(
    config: &quinn::ClientConfig,
    candidates: &[SocketAddr],
    timeout: Duration,
) -> Result<Link, LinkError> {
    if candidates.is_empty() {
        return Err(LinkError::NoAddress);
    }
    let endpoint = open_endpoint()?;
    let mut attempts = JoinSet::new();
    for (place, address) in (0u32..).zip(candidates.iter().copied().take(MAX_CANDIDATES)) {
        let (endpoint, config) = (endpoint.clone(), config.clone());
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * place).await;
            let connecting = endpoint.connect_with(config, address, SERVER_NAME).ok()?;
            match connecting.await {
                Ok(connection) => Some((connection, address)),
                Err(error) => {
                    tracing::debug!(%address, %error, "not connected");
                    None
                }
            }
        });
    }
    let first = async {
        while let Some(attempt) = attempts.join_next().await {
            if let Ok(Some((connection, address))) = attempt {
                return Some(Link {
                    wire: wire_of(&connection),
                    connection,
                    address,
                    reader: None,
                });
            }
        }
        None
    };
    tokio::time::timeout(timeout, first)
        .await
        .ok()
        .flatten()
        .ok_or(LinkError::NoAnswer)
}

fn wire_of(connection: &Connection) -> u16 {
    let agreed = connection
        .handshake_data()
        .and_then(|data| data.downcast::<HandshakeData>().ok())
        .and_then(|data| data.protocol);
    match agreed {
        Some(protocol) if protocol == ALPN => WIRE_VERSION,
        Some(protocol) if protocol == ALPN_5 => 5,
        Some(protocol) if protocol == ALPN_4 => 4,
        Some(protocol) if protocol == ALPN_3 => 3,
        _ => 2,
    }
}

impl Link {
    /// Sends one frame, ready for the wire, and reads the answer.
    pub(crate) async fn request(&self, bytes: &[u8], timeout: Duration) -> Result<Answer, PayError> {
        match tokio::time::timeout(timeout, self.exchange(bytes)).await {
            Ok(answer) => answer,
            Err(_) => Err(LinkError::TimedOut.into()),
        }
    }

    /// [`request`](Self::request), given up early when the path is dead.
    /// `hello` is a hello's frame, ready for the wire.
    pub(crate) async fn watched_request(
        &self,
        bytes: &[u8],
        hello: &[u8],
        timeout: Duration,
    ) -> Result<Answer, PayError> {
        tokio::select! {
            biased;
            answer = self.request(bytes, timeout) => answer,
            () = self.silence(hello) => Err(LinkError::Silent.into()),
        }
    }

    /// Ends when nothing has come from the hub for a while, though it was
    /// asked.
    async fn silence(&self, hello: &[u8]) {
        // The request itself asks for the first acknowledgement.
        let mut heard = self.packets_heard();
        let mut in_vain = 0;
        tokio::time::sleep(LOOK).await;
        loop {
            let now = self.packets_heard();
            in_vain = if now == heard { in_vain + 1 } else { 0 };
            heard = now;
            if in_vain == LOOKS_IN_VAIN {
                return;
            }
            let next_look = Instant::now() + LOOK;
            if in_vain == 1 {
                // Whatever it says, and if it only acknowledges.
                let _ = tokio::time::timeout_at(next_look, self.exchange(hello)).await;
            }
            tokio::time::sleep_until(next_look).await;
        }
    }

    fn packets_heard(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    async fn exchange(&self, bytes: &[u8]) -> Result<Answer, PayError> {
        let (mut send, mut recv) = self.connection.open_bi().await.map_err(lost)?;
        match send.write_all(bytes).await {
            // The hub has read enough to answer; the answer says why.
            Ok(()) | Err(WriteError::Stopped(_)) => {}
            Err(WriteError::ConnectionLost(error)) => return Err(lost(error)),
            Err(_) => return Err(LinkError::Stream.into()),
        }
        let _ = send.finish();
        match recv.read_to_end(4 + MAX_FRAME).await {
            Ok(answer) => frame::from_wire(&answer).map_err(|r| VerifyError::Frame(r.code).into()),
            Err(ReadToEndError::Read(ReadError::ConnectionLost(error))) => Err(lost(error)),
            Err(ReadToEndError::Read(_)) => Err(LinkError::Stream.into()),
            Err(ReadToEndError::TooLong) => Err(VerifyError::Frame(RefusalCode::Oversized).into()),
        }
    }
}

/// What the end of a connection means.
fn lost(error: ConnectionError) -> PayError {
    match &error {
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::crypto(ACCESS_DENIED) =>
        {
            PayError::NotAllowed
        }
        ConnectionError::ApplicationClosed(close)
            if close.error_code.into_inner() == u64::from(RefusalCode::DeviceNotAllowed.number()) =>
        {
            PayError::NotAllowed
        }
        _ => LinkError::Connection(error).into(),
    }
}
