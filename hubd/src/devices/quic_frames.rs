//! How many QUIC frames, and packets, one device may send.
//!
//! The hub reads packets in the order in which they came, whoever sent them,
//! and each stream frame in them wakes whoever reads the stream. A device that
//! sends a byte at a time makes some hundred times the work of one that sends
//! its requests whole, and everybody's packets wait behind its own. QUIC holds
//! back bytes, not frames; so the hub counts what a device has sent, all its
//! connections together, and shuts out for a while whoever sends more than any
//! request at the device's full rate takes. Of each connection it takes packets
//! if there are more of those: padding is no frame that anybody counts.
//!
//! What counts comes behind the handshake, in packets that were opened with the
//! connection's own keys: a stranger who reads along on the network cannot have
//! a device shut out. And it counts for the TLS key that the connection was made
//! with: whoever has copied one that gave way shuts out that one alone.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hub_protocol::{Digest, Refusal, RefusalCode};
use quinn::{Connection, FrameStats};

use super::bounds::{Bound, Counts, Lines};
use super::bucket::{Bucket, Rate};
use super::listener;
use super::packets::{Packets, SHARE_MS};
use super::sessions::{MAX_PER_DEVICE, close_for};
use super::shared::Shared;

/// QUIC frames to one request: the longest takes 14 packets of 1,200 bytes,
/// and its answer and the connection itself some more.
pub(super) const PER_REQUEST: u32 = 20;

/// A device may send so many seconds' worth at once, as it may of requests, and
/// as much as its streams hold while they wait for their turn.
const BURST_SECONDS: u32 = 2;
const WAITING: u32 = listener::MAX_STREAMS * MAX_PER_DEVICE as u32;

/// The least, in frames a second: what opening connections takes, and keeping
/// them alive.
const LEAST: u32 = 500;

/// How long a device that sent too many is shut out, in milliseconds.
pub(super) const SHUT_OUT_MS: u64 = 30_000;

/// How often the hub looks.
const LOOK: Duration = Duration::from_millis(SHARE_MS);

/// The least share of packets: what a connection may send ahead.
const LEAST_SHARE: u64 = 256;

/// The most frames of a connection to enrol: twice what five of the longest
/// requests take.
pub(super) const MOST_TO_ENROL: u64 = 200;

/// Packets of a connection to enrol that are opened in each [`SHARE_MS`].
pub(super) const SHARE_TO_ENROL: u64 = 64;

/// What was sent with each TLS key of a device. There is one entry a key that
/// has connected, which the core bounds, and one a connection.
pub(super) struct QuicFrames {
    rate: Rate,
    /// Packets of one connection that are opened in each [`SHARE_MS`].
    share: u64,
    monotonic_ms: fn() -> u64,
    counts: Arc<Counts>,
    inside: Mutex<Inside>,
}

struct Inside {
    keys: HashMap<Digest, Sent>,
    connections: HashMap<usize, Known>,
    lines: Lines,
}

/// What of a connection is counted already.
struct Known {
    frames: u64,
    opened: u64,
    packets: Arc<Packets>,
}

struct Sent {
    bucket: Bucket,
    /// Until when it is shut out; 0 if it never was.
    until_ms: u64,
}

/// The frames that a device with so many requests a second may send.
pub(super) fn rate(requests_per_second: u32) -> Rate {
    let per_second = requests_per_second.saturating_mul(PER_REQUEST).max(LEAST);
    Rate {
        per_second,
        burst: per_second
            .saturating_mul(BURST_SECONDS)
            .saturating_add(WAITING * PER_REQUEST),
    }
}

/// Packets of one connection that are opened in each [`SHARE_MS`], of a device
/// with so many requests a second: four times its rate.
pub(super) fn share(requests_per_second: u32) -> u64 {
    let a_second = u64::from(rate(requests_per_second).per_second) * 4;
    (a_second * SHARE_MS / 1000).max(LEAST_SHARE)
}

impl QuicFrames {
    pub(super) fn new(requests_per_second: u32, monotonic_ms: fn() -> u64, counts: Arc<Counts>) -> Self {
        Self {
            rate: rate(requests_per_second),
            share: share(requests_per_second),
            monotonic_ms,
            counts,
            inside: Mutex::new(Inside {
                keys: HashMap::new(),
                connections: HashMap::new(),
                lines: Lines::new(monotonic_ms()),
            }),
        }
    }

    /// Whether a key is shut out for now. Whoever is turned away counts.
    pub(super) fn is_shut_out(&self, key: &Digest) -> bool {
        let now = (self.monotonic_ms)();
        let shut = self
            .inside()
            .keys
            .get(key)
            .is_some_and(|sent| now < sent.until_ms);
        if shut {
            self.counts.count(Bound::QuicFrames);
        }
        shut
    }

    /// A device's connection begins. What its handshake took does not count:
    /// the keys of the first packets are no secret.
    pub(super) fn watch<'a>(
        &'a self,
        key: Digest,
        connection: &'a Connection,
        packets: Arc<Packets>,
    ) -> Watched<'a> {
        self.opened(connection.stable_id(), received(connection), packets);
        Watched {
            all: self,
            key,
            connection,
        }
    }

    fn opened(&self, connection: usize, frames: u64, packets: Arc<Packets>) {
        packets.watched(self.share);
        let known = Known {
            frames,
            // Nobody else can make one of these: all of them count.
            opened: 0,
            packets,
        };
        self.inside().connections.insert(connection, known);
    }

    /// A connection is gone: what it has sent since the last look counts too.
    fn ended(&self, key: &Digest, connection: usize, frames: u64) {
        let _ = self.counted(key, connection, frames);
        if let Some(known) = self.inside().connections.remove(&connection) {
            known.packets.unwatched();
        }
    }

    /// Takes into account what has come on a connection. False if too much has
    /// come with its key.
    fn counted(&self, key: &Digest, connection: usize, frames: u64) -> bool {
        let now = (self.monotonic_ms)();
        let mut guard = self.inside();
        let inside = &mut *guard;
        let Some(known) = inside.connections.get_mut(&connection) else {
            // It has ended, and counts already.
            return true;
        };
        let opened = known.packets.opened();
        let new_frames = frames.saturating_sub(std::mem::replace(&mut known.frames, frames));
        let new_packets = opened.saturating_sub(std::mem::replace(&mut known.opened, opened));
        let new = new_frames.max(new_packets);
        let rate = self.rate;
        let sent = inside.keys.entry(*key).or_insert_with(|| Sent {
            bucket: Bucket::full(rate, now),
            until_ms: 0,
        });
        if now < sent.until_ms {
            return false;
        }
        if sent.bucket.take_all(new, now) {
            return true;
        }
        sent.until_ms = now.saturating_add(SHUT_OUT_MS);
        self.counts.count(Bound::QuicFrames);
        if let Some(left_out) = inside.lines.next(now) {
            tracing::warn!(
                key = %key.to_string().get(..16).unwrap_or_default(),
                seconds = SHUT_OUT_MS / 1000,
                left_out,
                "a device sends far too many QUIC frames or packets and is shut out for a while; if it goes on, block it"
            );
        }
        false
    }

    #[cfg(test)]
    pub(super) fn packets_opened(&self) -> u64 {
        let inside = self.inside();
        inside
            .connections
            .values()
            .map(|known| known.packets.opened())
            .sum()
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is looked after for as long as this is kept.
pub(super) struct Watched<'a> {
    all: &'a QuicFrames,
    key: Digest,
    connection: &'a Connection,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        // QUIC's library panics where one of its connections has.
        let frames = match std::thread::panicking() {
            true => 0,
            false => received(self.connection),
        };
        self.all.ended(&self.key, self.connection.stable_id(), frames);
    }
}

/// Looks after all connections until the hub stops.
pub(super) async fn watch(shared: Arc<Shared>) {
    while !shared.is_stopping() {
        tokio::time::sleep(LOOK).await;
        for (key, connection) in shared.sessions.all() {
            let look = || {
                if !shared
                    .quic_frames
                    .counted(&key, connection.stable_id(), received(&connection))
                {
                    turn_away(&connection);
                }
            };
            // QUIC's library panics where one of its connections has: that
            // one is no longer looked after, the others are.
            let _ = std::panic::catch_unwind(AssertUnwindSafe(look));
        }
    }
}

/// Closes a connection whose device is shut out.
pub(super) fn turn_away(connection: &Connection) {
    close_for(connection, &too_small());
}

fn too_small() -> Refusal {
    Refusal::new(
        RefusalCode::Busy,
        "this device sent far more QUIC frames or packets than its requests take; try again in half a minute",
    )
}

/// Waits until a connection to enrol has sent more frames, or packets, than
/// enrolling takes.
pub(super) async fn too_many_to_enrol(connection: &Connection, packets: &Packets) {
    packets.watched(SHARE_TO_ENROL);
    let before = received(connection);
    while received(connection).saturating_sub(before) <= MOST_TO_ENROL && packets.opened() <= MOST_TO_ENROL {
        tokio::time::sleep(LOOK).await;
    }
}

fn received(connection: &Connection) -> u64 {
    frames(&connection.stats().frame_rx)
}

/// The frames in packets that came, but for padding.
fn frames(of: &FrameStats) -> u64 {
    [
        of.acks,
        of.ack_frequency,
        of.crypto,
        of.connection_close,
        of.data_blocked,
        of.datagram,
        of.immediate_ack,
        of.max_data,
        of.max_stream_data,
        of.max_streams_bidi,
        of.max_streams_uni,
        of.new_connection_id,
        of.new_token,
        of.path_challenge,
        of.path_response,
        of.ping,
        of.reset_stream,
        of.retire_connection_id,
        of.stream_data_blocked,
        of.streams_blocked_bidi,
        of.streams_blocked_uni,
        of.stop_sending,
        of.stream,
    ]
    .iter()
    .fold(0, |sum, frames| sum.saturating_add(*frames))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MAD: Digest = Digest([1; 32]);
    const HONEST: Digest = Digest([2; 32]);

    fn opened(frames: &QuicFrames) {
        for id in 1..=4 {
            frames.opened(id, 0, Packets::of_test());
        }
    }

    #[test]
    fn a_device_that_sends_in_tiny_pieces_is_shut_out_for_a_while_and_another_is_not() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        let frames = QuicFrames::new(100, || NOW.load(Ordering::Relaxed), Arc::default());
        opened(&frames);
        let rate = rate(100);
        assert_eq!((rate.per_second, rate.burst), (2000, 5280));
        assert!(frames.counted(&MAD, 1, 5_279));
        assert!(frames.counted(&MAD, 1, 5_279), "counted once");
        assert!(!frames.is_shut_out(&MAD));
        // Over all its connections, and those that are open go as well.
        assert!(!frames.counted(&MAD, 2, 2) && !frames.counted(&MAD, 1, 5_279));
        assert!(frames.is_shut_out(&MAD) && !frames.is_shut_out(&HONEST));
        assert!(frames.counted(&HONEST, 3, 3_000));
        assert!(
            frames.counted(&HONEST, 9, 1_000_000),
            "a connection that has ended counts already"
        );
        NOW.store(SHUT_OUT_MS - 1, Ordering::Relaxed);
        assert!(frames.is_shut_out(&MAD));
        NOW.store(SHUT_OUT_MS, Ordering::Relaxed);
        assert!(!frames.is_shut_out(&MAD));
        assert!(frames.counted(&MAD, 4, 2_000), "and begins anew");
    }

    #[test]
    fn what_a_connection_sent_last_counts_when_it_has_ended_and_nothing_of_it_is_kept() {
        let frames = QuicFrames::new(100, || 0, Arc::default());
        opened(&frames);
        frames.ended(&MAD, 1, 5_281);
        assert!(frames.is_shut_out(&MAD));
        for id in 2..=4 {
            frames.ended(&HONEST, id, 100);
        }
        assert!(!frames.is_shut_out(&HONEST));
        assert!(frames.inside().connections.is_empty());
    }

    #[test]
    fn packets_that_hold_no_frame_count_too() {
        let frames = QuicFrames::new(100, || 0, Arc::default());
        let packets = Packets::of_test();
        frames.opened(1, 0, Arc::clone(&packets));
        let mut looks = 0;
        // All that it may send between two looks.
        while frames.counted(&MAD, 1, 0) {
            packets.came(share(100));
            looks += 1;
        }
        assert_eq!(looks, 5_280 / 256 + 1);
        assert!(frames.is_shut_out(&MAD));
    }

    #[test]
    fn every_frame_counts_but_padding() {
        // One field after the other: whatever a device repeats is among them.
        let fields: [fn(&mut FrameStats) -> &mut u64; 23] = [
            |of| &mut of.acks,
            |of| &mut of.ack_frequency,
            |of| &mut of.crypto,
            |of| &mut of.connection_close,
            |of| &mut of.data_blocked,
            |of| &mut of.datagram,
            |of| &mut of.immediate_ack,
            |of| &mut of.max_data,
            |of| &mut of.max_stream_data,
            |of| &mut of.max_streams_bidi,
            |of| &mut of.max_streams_uni,
            |of| &mut of.new_connection_id,
            |of| &mut of.new_token,
            |of| &mut of.path_challenge,
            |of| &mut of.path_response,
            |of| &mut of.ping,
            |of| &mut of.reset_stream,
            |of| &mut of.retire_connection_id,
            |of| &mut of.stream_data_blocked,
            |of| &mut of.streams_blocked_bidi,
            |of| &mut of.streams_blocked_uni,
            |of| &mut of.stop_sending,
            |of| &mut of.stream,
        ];
        let mut sent = FrameStats::default();
        for (number, field) in fields.iter().enumerate() {
            *field(&mut sent) = 1 << number;
        }
        assert_eq!(super::frames(&sent), (1 << fields.len()) - 1);
        // And there are no others that a device may send.
        let named = format!("{sent:?}").matches(": ").count();
        assert_eq!(named, fields.len() + 1, "HANDSHAKE_DONE is a server's");
    }

    #[test]
    fn the_longest_requests_at_full_rate_shut_nobody_out() {
        static NOW: AtomicU64 = AtomicU64::new(0);
        for per_second in [1, 100, 1000] {
            NOW.store(0, Ordering::Relaxed);
            let frames = QuicFrames::new(per_second, || NOW.load(Ordering::Relaxed), Arc::default());
            opened(&frames);
            // All that it may have at once, and then a second's worth each second.
            let mut sent = u64::from((per_second * 2 + WAITING) * PER_REQUEST);
            for second in 0..60 {
                NOW.store(second * 1000, Ordering::Relaxed);
                assert!(frames.counted(&HONEST, 1, sent), "{per_second}, {second}");
                sent += u64::from(per_second * PER_REQUEST);
            }
        }
    }
}
