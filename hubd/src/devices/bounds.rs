//! What is turned away or slowed down, by which bound: counted since the
//! start, and logged at a bounded rate.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bucket::{Bucket, Rate};

/// A bound that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// First packets from addresses not proved, above the rate: not answered.
    Unproved,
    /// Packets that begin handshakes above their rate: thrown away.
    HandshakePackets,
    /// Handshakes of one address, above its rate.
    AddressRate,
    /// Handshakes of addresses from which no device of the shop has come,
    /// above their common rate.
    StrangerRate,
    /// Handshakes in progress, all together or of strangers.
    Handshakes,
    /// Handshakes in progress of one address.
    AddressHandshakes,
    /// Connections, all together.
    Connections,
    /// Connections of one address.
    AddressConnections,
    /// Connections of one device: the oldest was closed.
    DeviceConnections,
    /// Connections of devices that wait to be approved: no more were taken,
    /// or the device's own oldest was closed.
    PendingConnections,
    /// Handshakes that failed or were not finished in time.
    FailedHandshakes,
    /// Requests of a device above its rate: they waited.
    Requests,
    /// QUIC frames of a device above what requests at its rate take: it was
    /// shut out for a while.
    QuicFrames,
    /// Streams on which no whole frame came in time.
    SlowStreams,
    /// Frames longer than the longest.
    LongFrames,
    /// Records that the mDNS library held: all were dropped.
    MdnsRecords,
    /// Enrolments tried by addresses that are shut out.
    EnrolmentTries,
}

impl Bound {
    /// All of them, in order.
    pub const ALL: [Self; 17] = [
        Self::Unproved,
        Self::HandshakePackets,
        Self::AddressRate,
        Self::StrangerRate,
        Self::Handshakes,
        Self::AddressHandshakes,
        Self::Connections,
        Self::AddressConnections,
        Self::DeviceConnections,
        Self::PendingConnections,
        Self::FailedHandshakes,
        Self::Requests,
        Self::QuicFrames,
        Self::SlowStreams,
        Self::LongFrames,
        Self::MdnsRecords,
        Self::EnrolmentTries,
    ];

    /// Its name, as in `hubctl status`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unproved => "unproved-addresses",
            Self::HandshakePackets => "handshake-packets",
            Self::AddressRate => "handshake-rate-of-address",
            Self::StrangerRate => "handshake-rate-of-strangers",
            Self::Handshakes => "handshakes",
            Self::AddressHandshakes => "handshakes-of-address",
            Self::Connections => "connections",
            Self::AddressConnections => "connections-of-address",
            Self::DeviceConnections => "connections-of-device",
            Self::PendingConnections => "connections-of-pending",
            Self::FailedHandshakes => "failed-handshakes",
            Self::Requests => "requests-of-device",
            Self::QuicFrames => "quic-frames-of-device",
            Self::SlowStreams => "slow-streams",
            Self::LongFrames => "long-frames",
            Self::MdnsRecords => "mdns-records",
            Self::EnrolmentTries => "enrolment-tries",
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each bound was reached.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; Bound::ALL.len()]);

impl Counts {
    pub(super) fn count(&self, bound: Bound) {
        self.0[bound as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// By name; bounds that were never reached are left out.
    pub(super) fn report(&self) -> BTreeMap<String, u64> {
        let all = Bound::ALL.iter().zip(&self.0);
        all.map(|(bound, count)| (bound.name().to_owned(), count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// How many log lines of one kind: a few at once, and then one in ten seconds.
pub(super) const LINES: Rate = Rate {
    per_second: 1,
    burst: 10,
};

/// Log lines of one kind that anybody on the network can cause.
#[derive(Debug)]
pub(super) struct Lines {
    bucket: Bucket,
    left_out: u64,
}

impl Lines {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            bucket: Bucket::full(LINES, now_ms / 10),
            left_out: 0,
        }
    }

    /// Whether this line is to be written, and then how many were left out
    /// since the last one.
    pub(super) fn next(&mut self, now_ms: u64) -> Option<u64> {
        // A tenth of the clock's pace makes one in ten seconds of one a second.
        if self.bucket.take(now_ms / 10) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_counted_under_a_name_of_its_own() {
        let counts = Counts::default();
        assert!(counts.report().is_empty());
        for bound in Bound::ALL {
            counts.count(bound);
        }
        let report = counts.report();
        assert_eq!(report.len(), Bound::ALL.len());
        assert!(report.values().all(|count| *count == 1), "{report:?}");
    }

    #[test]
    fn a_flood_fills_no_log() {
        let mut lines = Lines::new(0);
        let ten_minutes = (0..600_000).filter_map(|now| lines.next(now));
        let (written, left_out) = ten_minutes.fold((0, 0), |(n, sum), left| (n + 1, sum + left));
        assert_eq!(written, 10 + 59, "ten at once, then one in ten seconds");
        assert!(left_out > 500_000, "and each says how many it stands for");
    }
}
