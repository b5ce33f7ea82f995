//! Packets that hold padding alone: they have to be decrypted and read, and
//! there is no frame in them to count. No QUIC library sends such, so the keys
//! of a connection or a handshake are taken aside and used by hand.

use std::any::Any;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::BytesMut;
use hub_protocol::ALPN;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::crypto::{
    ClientConfig, CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, Session,
};
use quinn::{ConnectError, ConnectionId, Endpoint, EndpointConfig, Side, TokioRuntime};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;

use super::half_open;
use super::intruder::{Intruder, connect};
use super::kinds::{Kind, Tally};

/// How long packets are sent on connections that the hub has let in.
const SPELL: Duration = Duration::from_millis(200);

/// Connections that are filled side by side: as many as a hub lets a device
/// have.
const CONNECTIONS: u8 = 4;

/// Packets sent on one before the next one's turn.
const AT_ONCE: u32 = 64;

/// Bytes of a packet: as many as every network carries.
const LENGTH: usize = 1200;

/// Where the numbers of packets made by hand begin, above those of the
/// library: what it has sent behind a handshake, and the first packets of one.
const FIRST: u32 = 32;
const FIRST_OF_HANDSHAKE: u32 = 2;

/// As many packets of a handshake as the hub opens, but for some of the library's
/// and the one that closes it.
const OPENED: u32 = 20;

/// A CONNECTION_CLOSE frame without an error (RFC 9000 §19.19): whoever gives
/// up a handshake may begin another.
const CLOSE: [u8; 4] = [0x1c, 0, 0, 0];

/// In the first byte of a packet: a long header, and the length of the packet's
/// number less one (RFC 9000 §17).
const LONG_HEADER: u8 = 0x80;
const NUMBER_LENGTH: u8 = 0x03;

/// The bytes of the length that a long header says, and what is beside the
/// length itself in them (RFC 9000 §16).
const LENGTH_BYTES: usize = 2;
const TWO_BYTES: u16 = 0x4000;

/// How long whoever is shut out waits.
const AGAIN: Duration = Duration::from_millis(20);

/// An enrolled device connects, sends at once and then for as long as it is let,
/// again and again.
pub(super) async fn flood(intruder: &Intruder, tally: &Tally) -> Result<()> {
    let tls = intruder.who(Kind::Padding).crypto(ALPN)?;
    let mut sockets = Vec::new();
    for number in 0..CONNECTIONS {
        let socket = UdpSocket::bind(intruder.source(number))?;
        let by_hand = socket.try_clone()?;
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
        sockets.push((endpoint, by_hand));
    }
    while !tally.is_over() {
        let mut all = Vec::new();
        for (endpoint, by_hand) in &sockets {
            let taken = Taken::default();
            let config = taken.config(&tls, Phase::BehindHandshake);
            let Some(connection) = connect(endpoint, &config, intruder.to).await else {
                tally.answer("no-connection");
                continue;
            };
            // A packet of the library's own says how the hub names the connection.
            if let Ok((mut send, _)) = connection.open_bi().await {
                let _ = send.write_all(&[0]).await;
            }
            while taken.keys().is_none() && connection.close_reason().is_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let Some(mut packets) = taken.keys() else {
                continue;
            };
            // The hub may not have looked yet.
            packets.send(AT_ONCE, by_hand, intruder, tally);
            all.push((connection, packets, by_hand));
        }
        tokio::time::sleep(AGAIN).await;
        for (connection, ..) in &all {
            if let Some(reason) = connection.close_reason() {
                tally.answer(&reason.to_string());
            }
        }
        all.retain(|(connection, ..)| connection.close_reason().is_none());
        // The library's turn comes behind it, and what the hub says to it.
        let begun = Instant::now();
        while begun.elapsed() < SPELL && !all.is_empty() && !tally.is_over() {
            for (_, packets, by_hand) in &mut all {
                packets.send(AT_ONCE, by_hand, intruder, tally);
            }
        }
        for (connection, ..) in &all {
            connection.close(0u32.into(), b"");
        }
    }
    Ok(())
}

/// A stranger begins handshakes, fills them and gives them up, and goes on with
/// the last one where the hub begins no more.
pub(super) fn of_strangers(intruder: &Intruder, tally: &Tally) -> Result<()> {
    let tls = intruder.stranger.crypto(ALPN)?;
    let mut last: Option<Packets> = None;
    for socket in half_open::sockets(intruder)?.iter().cycle() {
        if tally.is_over() {
            break;
        }
        let taken = Taken::default();
        if half_open::begin(socket, intruder.to, taken.config(&tls, Phase::First))? {
            tally.answer("address-proved");
            let mut packets = taken.keys().context("no packet was sent")?;
            packets.number = FIRST_OF_HANDSHAKE;
            packets.send(OPENED, socket, intruder, tally);
            let close = packets.packet(&CLOSE);
            let _ = socket.send_to(&close, intruder.to);
            last = Some(packets);
        } else if let Some(packets) = &mut last {
            packets.send(AT_ONCE * AT_ONCE, socket, intruder, tally);
        }
    }
    Ok(())
}

/// Packets of one connection: what they are sealed with, what they begin with
/// up to their length, and the next one's number.
struct Packets {
    packet: Arc<dyn PacketKey>,
    header: Arc<dyn HeaderKey>,
    begin: Vec<u8>,
    number: u32,
}

impl Packets {
    /// Sends so many of padding.
    fn send(&mut self, count: u32, socket: &UdpSocket, intruder: &Intruder, tally: &Tally) {
        for _ in 0..count {
            let packet = self.packet(&[]);
            // Full buffers are the flood's own trouble.
            if socket.send_to(&packet, intruder.to).is_ok() {
                tally.sent();
            }
        }
    }

    /// The next one, with these frames and padding behind them.
    fn packet(&mut self, frames: &[u8]) -> Vec<u8> {
        let mut out = self.begin.clone();
        out[0] |= NUMBER_LENGTH;
        if out[0] & LONG_HEADER != 0 {
            let rest = LENGTH - out.len() - LENGTH_BYTES;
            let rest = u16::try_from(rest).unwrap_or_default() | TWO_BYTES;
            out.extend_from_slice(&rest.to_be_bytes());
        }
        let number_at = out.len();
        out.extend_from_slice(&self.number.to_be_bytes());
        let header = out.len();
        out.extend_from_slice(frames);
        out.resize(LENGTH, 0);
        self.packet.encrypt(self.number.into(), &mut out, header);
        self.header.encrypt(number_at, &mut out);
        self.number = self.number.wrapping_add(1);
        out
    }
}

/// Which keys are taken: those of a connection's first packets, which whoever
/// sees them can make, or those of what comes behind the handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    First,
    BehindHandshake,
}

/// The keys of one connection, once they are there.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    packet: Option<Arc<dyn PacketKey>>,
    header: Option<Arc<dyn HeaderKey>>,
    begin: Option<Vec<u8>>,
}

impl Taken {
    fn with<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn keys(&self) -> Option<Packets> {
        self.with(|inside| {
            Some(Packets {
                packet: inside.packet.clone()?,
                header: inside.header.clone()?,
                begin: inside.begin.clone()?,
                number: FIRST,
            })
        })
    }

    /// A client's configuration that takes the keys of its next connection.
    fn config(&self, tls: &Arc<QuicClientConfig>, phase: Phase) -> quinn::ClientConfig {
        quinn::ClientConfig::new(Arc::new(Tapped {
            tls: Arc::clone(tls),
            phase,
            taken: self.clone(),
        }))
    }

    fn take(&self, mut keys: Keys) -> Keys {
        let packet: Arc<dyn PacketKey> = keys.packet.local.into();
        let header: Arc<dyn HeaderKey> = keys.header.local.into();
        self.with(|inside| {
            *inside = Inside {
                packet: Some(Arc::clone(&packet)),
                header: Some(Arc::clone(&header)),
                begin: None,
            };
        });
        keys.packet.local = Box::new(SharedKey {
            key: packet,
            taken: self.clone(),
        });
        keys.header.local = Box::new(SharedHeader(header));
        keys
    }
}

struct Tapped {
    tls: Arc<QuicClientConfig>,
    phase: Phase,
    taken: Taken,
}

impl ClientConfig for Tapped {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn Session>, ConnectError> {
        let tls = Arc::clone(&self.tls).start_session(version, server_name, params)?;
        Ok(Box::new(TappedSession {
            tls,
            phase: self.phase,
            taken: self.taken.clone(),
            is_behind_handshake: false,
        }))
    }
}

struct TappedSession {
    tls: Box<dyn Session>,
    phase: Phase,
    taken: Taken,
    /// Whether the next keys are those for what comes behind the handshake.
    is_behind_handshake: bool,
}

impl Session for TappedSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        let keys = self.tls.initial_keys(dst_cid, side);
        match self.phase {
            Phase::First => self.taken.take(keys),
            Phase::BehindHandshake => keys,
        }
    }
    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.tls.handshake_data()
    }
    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.tls.peer_identity()
    }
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.tls.early_crypto()
    }
    fn early_data_accepted(&self) -> Option<bool> {
        self.tls.early_data_accepted()
    }
    fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }
    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.tls.read_handshake(buf)
    }
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        self.tls.transport_parameters()
    }
    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        let keys = self.tls.write_handshake(buf)?;
        if self.is_behind_handshake && self.phase == Phase::BehindHandshake {
            return Some(self.taken.take(keys));
        }
        self.is_behind_handshake = true;
        Some(keys)
    }
    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.tls.next_1rtt_keys()
    }
    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.tls.is_valid_retry(orig_dst_cid, header, payload)
    }
    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.tls.export_keying_material(output, label, context)
    }
}

struct SharedKey {
    key: Arc<dyn PacketKey>,
    taken: Taken,
}

impl PacketKey for SharedKey {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        let number = usize::from(buf[0] & NUMBER_LENGTH) + 1;
        let length = match buf[0] & LONG_HEADER {
            0 => 0,
            _ => LENGTH_BYTES,
        };
        let begin = buf[..header_len - number - length].to_vec();
        self.taken.with(|inside| inside.begin = Some(begin));
        self.key.encrypt(packet, buf, header_len);
    }
    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        self.key.decrypt(packet, header, payload)
    }
    fn tag_len(&self) -> usize {
        self.key.tag_len()
    }
    fn confidentiality_limit(&self) -> u64 {
        self.key.confidentiality_limit()
    }
    fn integrity_limit(&self) -> u64 {
        self.key.integrity_limit()
    }
}

struct SharedHeader(Arc<dyn HeaderKey>);

impl HeaderKey for SharedHeader {
    fn decrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.0.decrypt(pn_offset, packet);
    }
    fn encrypt(&self, pn_offset: usize, packet: &mut [u8]) {
        self.0.encrypt(pn_offset, packet);
    }
    fn sample_size(&self) -> usize {
        self.0.sample_size()
    }
}
