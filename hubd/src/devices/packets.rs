//! Which of a connection's packets are opened, and how many have been.
//!
//! QUIC's library counts frames, but not padding, and opens whatever comes: a
//! device that fills its packets with padding sends no frame and makes the hub
//! decrypt and read 1,200 bytes a packet. So the keys that packets are opened
//! with are the hub's own here: they open so many in a while and no more.
//!
//! Behind a handshake a packet counts if it opens, which nobody else can make one
//! do, and if its number has not been there: what somebody forges or replays counts for nobody
//! and costs what noise does.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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

use crate::clock;

/// The longest packet, in bytes: what QUIC's library says that the hub takes
/// (RFC 9000 §18.2, `max_udp_payload_size`), and does not look at.
pub(super) const LONGEST: usize = 1472;

/// Packets of each kind that a handshake has opened; it takes a few.
pub(super) const OF_HANDSHAKE: u64 = 24;

/// Packets of a connection that are opened before somebody looks after it: a
/// till that comes back may ask on each of its streams at once.
pub(super) const BEFORE: u64 = 32;

/// Packets of a connection that are opened after it was closed: whoever lost
/// the closing packet gets it again.
const AFTER: u64 = 16;

/// For how long a connection's share of packets is, in milliseconds.
pub(super) const SHARE_MS: u64 = 20;

/// How many numbers up to the highest are told apart. The library takes a
/// packet that is further behind for one that came before; it has one more.
const WINDOW: u32 = u128::BITS;

/// The packets of one connection that come behind its handshake, or of one
/// kind of the handshake's.
#[derive(Debug)]
pub(super) struct Packets(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    /// So many more are opened.
    left: u64,
    /// How many there are in each share, and when the last one began; none if
    /// nobody looks after the connection.
    share: Option<(u64, u64)>,
    clock: fn() -> u64,
    opened: u64,
    /// One more than the highest number that was opened.
    next: u64,
    /// Which of the numbers below `next` were: the lowest bit is the highest.
    window: u128,
}

impl Packets {
    fn new(left: u64) -> Self {
        Self(Mutex::new(Seen {
            left,
            share: None,
            clock: clock::monotonic_ms,
            opened: 0,
            next: 0,
            window: 0,
        }))
    }

    /// Somebody looks after the connection from now on: so many are opened in
    /// each [`SHARE_MS`]. Those beyond are as good as lost on the way, and sent
    /// again.
    pub(super) fn watched(&self, share: u64) {
        let mut seen = self.seen();
        seen.left = share;
        seen.share = Some((share, (seen.clock)()));
    }

    /// Nobody does any more.
    pub(super) fn unwatched(&self) {
        let mut seen = self.seen();
        seen.left = AFTER;
        seen.share = None;
    }

    /// How many have been opened, each once.
    pub(super) fn opened(&self) -> u64 {
        self.seen().opened
    }

    #[cfg(test)]
    pub(super) fn of_test() -> Arc<Self> {
        Arc::new(Self::new(BEFORE))
    }

    #[cfg(test)]
    pub(super) fn came(&self, more: u64) {
        self.seen().opened += more;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Begins another share if it is time.
    fn refresh(&mut self) {
        let now = (self.clock)();
        if let Some((share, since)) = &mut self.share
            && now.saturating_sub(*since) >= SHARE_MS
        {
            *since = now;
            self.left = *share;
        }
    }

    /// Whether a packet with this number is to be opened.
    fn wants(&self, number: u64) -> bool {
        self.left > 0
            && (number >= self.next || self.place(number).is_some_and(|place| self.window & place == 0))
    }

    /// One was.
    fn mark(&mut self, number: u64) {
        self.left = self.left.saturating_sub(1);
        self.opened = self.opened.saturating_add(1);
        if number >= self.next {
            let next = number.saturating_add(1);
            let further = u32::try_from(next - self.next).unwrap_or(WINDOW);
            self.window = self.window.checked_shl(further).unwrap_or(0);
            self.next = next;
        }
        self.window |= self.place(number).unwrap_or(0);
    }

    /// The bit of a number in the window.
    fn place(&self, number: u64) -> Option<u128> {
        let behind = self.next.checked_sub(number)?.checked_sub(1)?;
        1u128.checked_shl(u32::try_from(behind).ok()?)
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

/// TLS, and keys that open so many packets.
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
            packets: Arc::new(Packets::new(BEFORE)),
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
        packets: Arc::new(Packets::new(OF_HANDSHAKE)),
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
        let mut seen = self.packets.seen();
        seen.refresh();
        if header.len().saturating_add(payload.len()) > LONGEST || !seen.wants(packet) {
            return Err(CryptoError);
        }
        self.key.decrypt(packet, header, payload)?;
        seen.mark(packet);
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
    use std::sync::atomic::{AtomicU64, Ordering};

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

    /// Of a connection, at a time.
    fn packets(clock: fn() -> u64) -> Arc<Packets> {
        let packets = Packets::new(BEFORE);
        packets.seen().clock = clock;
        Arc::new(packets)
    }

    fn key(packets: &Arc<Packets>) -> Counted {
        Counted {
            key: Box::new(Key),
            packets: Arc::clone(packets),
        }
    }

    #[test]
    fn a_connections_packets_are_opened_up_to_a_bound_and_counted_once() {
        let packets = packets(|| 0);
        let key = key(&packets);
        // Until somebody looks after it; wherever the numbers begin.
        for number in 0..BEFORE {
            assert!(opens(&key, 7_000 + number, 1));
        }
        assert!(!opens(&key, 8_000, 1));
        assert_eq!(packets.opened(), BEFORE);
        packets.watched(4);
        assert!(opens(&key, 9_000, 1) && opens(&key, 8_990, 1), "in any order");
        // Forged, replayed, and too far behind to be told from a replay.
        assert!(!opens(&key, 9_001, 0) && !opens(&key, 8_990, 1) && !opens(&key, 9_000, 1));
        assert!(!opens(&key, 9_000 - 128, 1) && !opens(&key, 7_000, 1));
        assert_eq!(packets.opened(), BEFORE + 2);
        assert!(opens(&key, 9_000 - 127, 1) && opens(&key, 9_001, 1));
        assert!(!opens(&key, 9_002, 1), "no more of them");
        packets.unwatched();
        assert!((0..AFTER).all(|number| opens(&key, 9_002 + number, 1)));
        assert!(!opens(&key, 10_000, 1), "closed");
    }

    /// QUIC never uses a number again: whoever sent too much goes on above it.
    #[test]
    fn a_connection_that_sent_too_much_goes_on_with_its_next_share() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        let packets = packets(|| NOW.load(Ordering::Relaxed));
        let key = key(&packets);
        packets.watched(100);
        for share in 0..5 {
            NOW.store(share * SHARE_MS, Ordering::Relaxed);
            let sent = (0..1000).filter(|number| opens(&key, share * 1000 + number, 1));
            assert_eq!(sent.count(), 100, "{share}");
        }
        NOW.store(5 * SHARE_MS - 1, Ordering::Relaxed);
        assert!(!opens(&key, 9_000, 1));
        assert_eq!(packets.opened(), 500);
    }

    #[test]
    fn a_packet_longer_than_the_hub_takes_is_not_opened() {
        let key = key(&packets(|| 0));
        let mut packet = BytesMut::from(&[1; LONGEST][..]);
        assert!(key.decrypt(0, &[0], &mut packet).is_err());
        assert!(key.decrypt(0, &[], &mut packet).is_ok());
    }

    #[test]
    fn each_number_is_opened_once_in_whatever_order_they_come() {
        let packets = packets(|| 0);
        packets.watched(u64::MAX);
        let mut known = std::collections::BTreeSet::new();
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let next = packets.seen().next;
            let number = (next + 40).saturating_sub(state >> 57);
            let behind = next.saturating_sub(number);
            let wanted = packets.seen().wants(number);
            assert_eq!(wanted, !known.contains(&number) && behind <= u64::from(WINDOW));
            if wanted {
                packets.seen().mark(number);
                known.insert(number);
            }
        }
        assert_eq!(packets.opened(), known.len() as u64);
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
        assert!((0..OF_HANDSHAKE).all(|number| opens(key, number, 1)));
        assert!(!opens(key, OF_HANDSHAKE, 1));
    }
}
