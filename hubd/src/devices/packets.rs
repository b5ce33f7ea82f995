//! Which of a connection's packets are opened, and how many have been.
//!
//! QUIC's library counts frames, but not padding, and opens whatever comes: a
//! device that fills its packets with padding sends no frame and makes the hub
//! decrypt and read 1,200 bytes a packet. So the keys that packets are opened
//! with are the hub's own here: they look at a packet's number first.
//!
//! Numbers begin with 0 and grow by the packet (RFC 9000 §12.3), the library
//! throws one away that comes again or far too late, and nobody else can make
//! one that opens. The highest is therefore how many packets a device has sent
//! on the connection. What somebody replays or forges counts for nobody and
//! costs what noise does.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::crypto::{
    CryptoError, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, ServerConfig, Session,
    UnsupportedVersion,
};
use quinn::{Connection, ConnectionId, Side};
use quinn_proto::TransportError;
use quinn_proto::transport_parameters::TransportParameters;
use rustls::pki_types::CertificateDer;

/// Packets of each kind that are opened before somebody looks after the
/// connection, and after it was closed: a handshake takes a few, and whoever
/// lost the closing packet gets it again.
pub(super) const MOST_UNWATCHED: u64 = 64;

/// The packets of one connection that come behind its handshake.
#[derive(Debug)]
pub(super) struct Packets {
    /// Those with smaller numbers are opened.
    below: AtomicU64,
    /// How many were sent, by the highest number that was opened.
    sent: AtomicU64,
}

impl Default for Packets {
    fn default() -> Self {
        Self {
            below: AtomicU64::new(MOST_UNWATCHED),
            sent: AtomicU64::new(0),
        }
    }
}

impl Packets {
    /// So many more are opened, until somebody looks again. Those beyond are
    /// as good as lost on the way, and sent again.
    pub(super) fn open(&self, more: u64) {
        let below = self.sent().saturating_add(more);
        self.below.store(below, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn came(&self, more: u64) {
        self.sent.fetch_add(more, Ordering::Relaxed);
    }

    /// How many the other end has sent, as far as is known.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Who is at the other end of a connection, as its handshake has shown.
pub(super) struct Peer {
    /// Its certificates.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) packets: Arc<Packets>,
}

/// The other end of an established connection; `None` if it showed no
/// certificate, which the handshake lets nobody do.
pub(super) fn peer(connection: &Connection) -> Option<Peer> {
    let peer = connection.peer_identity()?.downcast::<Peer>().ok()?;
    Some(*peer)
}

/// TLS, and keys that look at a packet's number.
pub(super) struct Counting(pub(super) Arc<QuicServerConfig>);

impl ServerConfig for Counting {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        Ok(first_ones(self.0.initial_keys(version, dst_cid)?))
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.0.retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, params: &TransportParameters) -> Box<dyn Session> {
        Box::new(CountingSession {
            tls: Arc::clone(&self.0).start_session(version, params),
            packets: Arc::default(),
            is_behind_handshake: false,
        })
    }
}

struct CountingSession {
    tls: Box<dyn Session>,
    packets: Arc<Packets>,
    /// Whether the next keys are those for what comes behind the handshake.
    is_behind_handshake: bool,
}

impl CountingSession {
    fn counted(&self, key: Box<dyn PacketKey>) -> Box<dyn PacketKey> {
        Box::new(Counted {
            key,
            packets: Arc::clone(&self.packets),
        })
    }
}

impl Session for CountingSession {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        first_ones(self.tls.initial_keys(dst_cid, side))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.tls.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        let chain = self.tls.peer_identity()?;
        Some(Box::new(Peer {
            chain: *chain.downcast().ok()?,
            packets: Arc::clone(&self.packets),
        }))
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
        let mut keys = self.tls.write_handshake(buf)?;
        if self.is_behind_handshake {
            keys.packet.remote = self.counted(keys.packet.remote);
            return Some(keys);
        }
        self.is_behind_handshake = true;
        Some(first_ones(keys))
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let mut keys = self.tls.next_1rtt_keys()?;
        keys.remote = self.counted(keys.remote);
        Some(keys)
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

/// Keys of a handshake: they open a few packets.
fn first_ones(mut keys: Keys) -> Keys {
    keys.packet.remote = Box::new(Counted {
        key: keys.packet.remote,
        packets: Arc::default(),
    });
    keys
}

struct Counted {
    key: Box<dyn PacketKey>,
    packets: Arc<Packets>,
}

impl PacketKey for Counted {
    fn encrypt(&self, packet: u64, buf: &mut [u8], header_len: usize) {
        self.key.encrypt(packet, buf, header_len);
    }

    fn decrypt(&self, packet: u64, header: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
        if packet >= self.packets.below.load(Ordering::Relaxed) {
            return Err(CryptoError);
        }
        self.key.decrypt(packet, header, payload)?;
        self.packets
            .sent
            .fetch_max(packet.saturating_add(1), Ordering::Relaxed);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens what begins with a 1.
    struct Key;

    impl PacketKey for Key {
        fn encrypt(&self, _: u64, _: &mut [u8], _: usize) {}

        fn decrypt(&self, _: u64, _: &[u8], payload: &mut BytesMut) -> Result<(), CryptoError> {
            match payload.first() {
                Some(1) => Ok(()),
                _ => Err(CryptoError),
            }
        }

        fn tag_len(&self) -> usize {
            16
        }

        fn confidentiality_limit(&self) -> u64 {
            1 << 23
        }

        fn integrity_limit(&self) -> u64 {
            1 << 52
        }
    }

    struct HeaderKeyOfNone;

    impl HeaderKey for HeaderKeyOfNone {
        fn decrypt(&self, _: usize, _: &mut [u8]) {}

        fn encrypt(&self, _: usize, _: &mut [u8]) {}

        fn sample_size(&self) -> usize {
            16
        }
    }

    fn opens(key: &dyn PacketKey, number: u64, genuine: u8) -> bool {
        let mut payload = BytesMut::from(&[genuine][..]);
        key.decrypt(number, &[], &mut payload).is_ok()
    }

    #[test]
    fn a_connections_packets_are_counted_by_number_and_no_forged_one_is() {
        let packets = Arc::<Packets>::default();
        let key = Counted {
            key: Box::new(Key),
            packets: Arc::clone(&packets),
        };
        // Until somebody looks after it.
        assert!(opens(&key, MOST_UNWATCHED - 1, 1) && !opens(&key, MOST_UNWATCHED, 1));
        assert_eq!(packets.sent(), MOST_UNWATCHED);
        packets.open(100);
        for number in [MOST_UNWATCHED + 20, MOST_UNWATCHED + 10] {
            assert!(opens(&key, number, 1), "in whatever order they come");
        }
        assert!(!opens(&key, MOST_UNWATCHED + 50, 0));
        assert!(!opens(&key, MOST_UNWATCHED + 100, 1), "more at once than may be");
        // The one that was lost, one that came again and a forged one add none.
        assert!(opens(&key, 3, 1));
        assert_eq!(packets.sent(), MOST_UNWATCHED + 21);
        packets.open(1);
        assert!(opens(&key, packets.sent(), 1) && !opens(&key, packets.sent(), 1));
    }

    #[test]
    fn a_handshake_has_a_few_packets_opened() {
        let pair = || KeyPair {
            local: Box::new(Key) as Box<dyn PacketKey>,
            remote: Box::new(Key) as Box<dyn PacketKey>,
        };
        let header = || Box::new(HeaderKeyOfNone) as Box<dyn HeaderKey>;
        let keys = first_ones(Keys {
            header: KeyPair {
                local: header(),
                remote: header(),
            },
            packet: pair(),
        });
        let key = keys.packet.remote.as_ref();
        assert!((0..MOST_UNWATCHED).all(|number| opens(key, number, 1)));
        assert!(!opens(key, MOST_UNWATCHED, 1) && !opens(key, MOST_UNWATCHED * 100, 1));
    }
}
