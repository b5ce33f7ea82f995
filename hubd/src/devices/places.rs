//! Whether one device's keys are in two places at once.
//!
//! A device that moves from one network to another leaves a connection
//! behind, and does not go back to it: it connects anew, or its connection
//! moves along. Requests that come in turns over two open connections from
//! different addresses are of two devices with one key.
//!
//! Pure; the time is an argument, in milliseconds of the monotonic clock.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use hub_protocol::DeviceId;

use super::gate::place;
use super::sessions::MAX_PER_DEVICE;

/// So many returns to a connection that was left are told. One may be a
/// request that was late on its way.
pub(super) const RETURNS: u32 = 3;

/// Within this time, in milliseconds.
const WITHIN_MS: u64 = 10 * 60 * 1000;

/// A connection, by its number, and where it comes from.
type Seen = (usize, IpAddr);

#[derive(Debug)]
struct Trail {
    last: Seen,
    last_is_open: bool,
    /// Connections used before and still open, oldest first.
    left: VecDeque<Seen>,
    returns: u32,
    since_ms: u64,
}

/// By which connections devices' requests come. There is one entry a device
/// that is connected.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<DeviceId, Trail>);

impl Places {
    /// A request came. Gives the number of returns once there are
    /// [`RETURNS`], and counts from the beginning again.
    pub(super) fn asked(
        &mut self,
        device: DeviceId,
        connection: usize,
        from: IpAddr,
        now_ms: u64,
    ) -> Option<u32> {
        let seen = (connection, place(from));
        let trail = self.0.entry(device).or_insert(Trail {
            last: seen,
            last_is_open: true,
            left: VecDeque::new(),
            returns: 0,
            since_ms: now_ms,
        });
        if trail.last.0 == connection {
            // It may have moved to another network, as a whole.
            trail.last = seen;
            return None;
        }
        let before = trail.left.iter().position(|left| left.0 == connection);
        let returned = before.is_some() && trail.last.1 != seen.1;
        if let Some(at) = before {
            trail.left.remove(at);
        }
        if trail.last_is_open {
            trail.left.push_back(trail.last);
        }
        if trail.left.len() > MAX_PER_DEVICE {
            trail.left.pop_front();
        }
        (trail.last, trail.last_is_open) = (seen, true);
        if !returned {
            return None;
        }
        if trail.returns == 0 || now_ms.saturating_sub(trail.since_ms) >= WITHIN_MS {
            (trail.returns, trail.since_ms) = (0, now_ms);
        }
        trail.returns += 1;
        (trail.returns >= RETURNS).then(|| std::mem::take(&mut trail.returns))
    }

    /// A connection is gone: nobody can go back to it. `is_last`: the device
    /// has no other.
    pub(super) fn ended(&mut self, device: &DeviceId, connection: usize, is_last: bool) {
        if is_last {
            self.0.remove(device);
        } else if let Some(trail) = self.0.get_mut(device) {
            trail.left.retain(|left| left.0 != connection);
            trail.last_is_open &= trail.last.0 != connection;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId([1; 32]);

    fn at(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn requests_in_turns_from_two_addresses_are_told_at_the_third_return() {
        let mut places = Places::default();
        let mut told = Vec::new();
        for turn in 0..10_u8 {
            let (connection, from) = (usize::from(turn % 2), at(turn % 2));
            if places.asked(DEVICE, connection, from, u64::from(turn)) == Some(RETURNS) {
                told.push(turn);
            }
        }
        assert_eq!(told, [4, 7], "and counted anew from there");
    }

    #[test]
    fn a_device_that_moves_between_networks_is_not_in_two_places() {
        let mut places = Places::default();
        for turn in 0..20 {
            // Each time a new connection; what was left stays open for a while.
            assert_eq!(
                places.asked(DEVICE, turn, at(u8::try_from(turn % 2).unwrap()), 0),
                None
            );
        }
        for turn in 0..20_u8 {
            // One connection that moves along.
            assert_eq!(places.asked(DEVICE, 99, at(turn % 3), 0), None);
        }
        for turn in 0..20_usize {
            // Two connections from one address: an app that was started anew.
            assert_eq!(places.asked(OTHER, turn % 2, at(1), 0), None);
        }
    }

    const OTHER: DeviceId = DeviceId([2; 32]);

    #[test]
    fn rare_returns_and_connections_that_are_gone_do_not_count() {
        let mut places = Places::default();
        for turn in 0..10_u8 {
            let now = u64::from(turn) * WITHIN_MS;
            assert_eq!(
                places.asked(DEVICE, usize::from(turn % 2), at(turn % 2), now),
                None
            );
        }
        let mut places = Places::default();
        for turn in 0..10_u8 {
            let (connection, other) = (usize::from(turn % 2), usize::from(1 - turn % 2));
            places.ended(&DEVICE, other, false);
            assert_eq!(places.asked(DEVICE, connection, at(turn % 2), 0), None);
        }
        places.ended(&DEVICE, 1, true);
        assert!(places.0.is_empty());
    }
}
