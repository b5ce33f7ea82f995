//! Who may begin a handshake: the bounds by address. Pure; the time is an
//! argument, in milliseconds of the monotonic clock.
//!
//! An address from which an enrolled device has come is known, and is not
//! held to what all strangers have together: a flood from elsewhere, from
//! however many addresses, does not keep the shop's devices out. A handshake
//! counts for its address once that has answered a Retry, so that nothing is kept
//! for forged ones, which use up the bounds on Retries and on packets that begin
//! handshakes alone. IPv6 counts by /64, which one host has to itself.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::bounds::Bound;
use super::bucket::{Bucket, Rate};

/// The bounds of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Handshakes in progress.
    pub(super) handshakes: usize,
    /// Those of them that strangers may have.
    pub(super) handshakes_of_strangers: usize,
    /// Handshakes in progress of one address.
    pub(super) handshakes_of_address: usize,
    /// Connections, handshakes included.
    pub(super) connections: usize,
    /// The same of one address.
    pub(super) connections_of_address: usize,
    /// Retries to addresses that are not known.
    pub(super) retries: Rate,
    /// Handshakes of all strangers together.
    pub(super) strangers: Rate,
    /// Handshakes of one address.
    pub(super) address: Rate,
    /// Connections that are refused with an answer; more get none.
    pub(super) refusals: Rate,
    /// Addresses kept in mind.
    pub(super) addresses: usize,
}

/// Packets that begin handshakes, as a multiple of handshakes: one takes two or
/// three, and more where some are lost. All together have more than one address,
/// since not all of them are somebody's.
const OF_ADDRESS: u32 = 4;
const OF_ALL: u32 = 16;

/// What whoever sent a packet that begins a handshake has to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Nothing.
    Anew,
    /// Something that the hub has sent to an address.
    Answered,
}

/// Packets that begin handshakes: those of either kind by themselves, so that
/// who shows nothing takes nothing from who does.
#[derive(Clone, Copy, Debug)]
struct Packets {
    anew: Bucket,
    answered: Bucket,
}

impl Packets {
    fn full(rate: Rate, now_ms: u64) -> Self {
        let bucket = Bucket::full(rate, now_ms);
        Self {
            anew: bucket,
            answered: bucket,
        }
    }

    fn take(&mut self, asks: Asks, now_ms: u64) -> bool {
        match asks {
            Asks::Anew => self.anew.take(now_ms),
            Asks::Answered => self.answered.take(now_ms),
        }
    }
}

/// How long an address stays known after a device came from it.
const KNOWN_FOR_MS: u64 = 24 * 60 * 60 * 1000;

/// What is kept of an address.
#[derive(Debug)]
struct Address {
    bucket: Bucket,
    packets: Packets,
    handshakes: usize,
    connections: usize,
    /// When an enrolled device last came from here.
    known_ms: Option<u64>,
}

impl Address {
    fn is_known(&self, now_ms: u64) -> bool {
        self.known_ms
            .is_some_and(|at| now_ms.saturating_sub(at) < KNOWN_FOR_MS)
    }
}

/// The bounds, and what they are held against.
#[derive(Debug)]
pub(super) struct Gate {
    bounds: Bounds,
    addresses: HashMap<IpAddr, Address>,
    retries: Bucket,
    strangers: Bucket,
    packets: Packets,
    packets_of_known: Packets,
    refusals: Bucket,
    handshakes: usize,
    handshakes_of_strangers: usize,
    connections: usize,
}

/// A handshake that was let in: to be given back, once.
#[derive(Debug)]
pub(super) struct Entered {
    place: IpAddr,
    stranger: bool,
}

impl Gate {
    pub(super) fn new(bounds: Bounds, now_ms: u64) -> Self {
        Self {
            bounds,
            addresses: HashMap::new(),
            retries: Bucket::full(bounds.retries, now_ms),
            strangers: Bucket::full(bounds.strangers, now_ms),
            packets: Packets::full(of_all(bounds.strangers), now_ms),
            packets_of_known: Packets::full(of_all(bounds.strangers), now_ms),
            refusals: Bucket::full(bounds.refusals, now_ms),
            handshakes: 0,
            handshakes_of_strangers: 0,
            connections: 0,
        }
    }

    /// Whether the first packet from an address, which may be forged, is
    /// answered with a Retry.
    pub(super) fn may_retry(&mut self, from: IpAddr, now_ms: u64) -> bool {
        self.knows(from, now_ms) || self.retries.take(now_ms)
    }

    /// Whether a packet that begins a handshake is read at all. Its address may
    /// be forged, so nothing is kept for it; and somebody else may use up what
    /// an address has, so one that is known has what all known ones have beside.
    pub(super) fn may_ask(&mut self, from: IpAddr, asks: Asks, now_ms: u64) -> bool {
        let Some(address) = self.addresses.get_mut(&place(from)) else {
            return self.packets.take(asks, now_ms);
        };
        let own = address.packets.take(asks, now_ms);
        if address.is_known(now_ms) {
            own || self.packets_of_known.take(asks, now_ms)
        } else {
            own && self.packets.take(asks, now_ms)
        }
    }

    /// Whether a device of the shop has come from this address lately.
    pub(super) fn knows(&self, from: IpAddr, now_ms: u64) -> bool {
        let known = self.addresses.get(&place(from));
        known.is_some_and(|address| address.is_known(now_ms))
    }

    /// A handshake from an address that has been proved.
    ///
    /// # Errors
    /// The bound that is reached.
    pub(super) fn enter(&mut self, from: IpAddr, now_ms: u64) -> Result<Entered, Bound> {
        let place = place(from);
        let known = self.addresses.get(&place).map(|address| address.is_known(now_ms));
        let stranger = known != Some(true);
        // Before anything is kept for a new address.
        if known.is_none() && (!self.strangers.take(now_ms) || !self.make_room(now_ms)) {
            return Err(Bound::StrangerRate);
        }
        let bounds = self.bounds;
        let address = self.addresses.entry(place).or_insert_with(|| Address {
            bucket: Bucket::full(bounds.address, now_ms),
            packets: Packets::full(of_address(bounds.address), now_ms),
            handshakes: 0,
            connections: 0,
            known_ms: None,
        });
        if !address.bucket.take(now_ms) {
            return Err(Bound::AddressRate);
        }
        if known == Some(false) && !self.strangers.take(now_ms) {
            return Err(Bound::StrangerRate);
        }
        if address.handshakes >= bounds.handshakes_of_address {
            return Err(Bound::AddressHandshakes);
        }
        if address.connections >= bounds.connections_of_address {
            return Err(Bound::AddressConnections);
        }
        if self.handshakes >= bounds.handshakes
            || (stranger && self.handshakes_of_strangers >= bounds.handshakes_of_strangers)
        {
            return Err(Bound::Handshakes);
        }
        if self.connections >= bounds.connections {
            return Err(Bound::Connections);
        }
        address.handshakes += 1;
        address.connections += 1;
        self.handshakes += 1;
        self.handshakes_of_strangers += usize::from(stranger);
        self.connections += 1;
        Ok(Entered { place, stranger })
    }

    /// The handshake is over, well or not.
    pub(super) fn shook(&mut self, entered: &Entered) {
        self.handshakes = self.handshakes.saturating_sub(1);
        self.handshakes_of_strangers = self
            .handshakes_of_strangers
            .saturating_sub(usize::from(entered.stranger));
        if let Some(address) = self.addresses.get_mut(&entered.place) {
            address.handshakes = address.handshakes.saturating_sub(1);
        }
    }

    /// The connection is gone.
    pub(super) fn left(&mut self, entered: &Entered) {
        self.connections = self.connections.saturating_sub(1);
        if let Some(address) = self.addresses.get_mut(&entered.place) {
            address.connections = address.connections.saturating_sub(1);
        }
    }

    /// A device of the shop came from here.
    pub(super) fn vouch(&mut self, entered: &Entered, now_ms: u64) {
        if let Some(address) = self.addresses.get_mut(&entered.place) {
            address.known_ms = Some(now_ms);
        }
    }

    /// Whether somebody who is turned away is told so.
    pub(super) fn may_refuse(&mut self, now_ms: u64) -> bool {
        self.refusals.take(now_ms)
    }

    /// Room for one more address: those from which nothing has come lately
    /// are forgotten. False if there are none.
    fn make_room(&mut self, now_ms: u64) -> bool {
        let most = self.bounds.addresses;
        if self.addresses.len() >= most {
            self.addresses.retain(|_, address| {
                address.connections > 0 || address.is_known(now_ms) || !address.bucket.is_full(now_ms)
            });
        }
        self.addresses.len() < most
    }
}

/// The packets that begin so many handshakes of one address.
pub(super) fn of_address(handshakes: Rate) -> Rate {
    times(handshakes, OF_ADDRESS)
}

/// The packets that begin so many handshakes of all addresses.
pub(super) fn of_all(handshakes: Rate) -> Rate {
    times(handshakes, OF_ALL)
}

fn times(rate: Rate, factor: u32) -> Rate {
    Rate {
        per_second: rate.per_second.saturating_mul(factor),
        burst: rate.burst.saturating_mul(factor),
    }
}

/// What counts as one address.
pub(super) fn place(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second, burst }
    }

    const LARGE: u32 = 1_000_000;

    fn bounds() -> Bounds {
        Bounds {
            handshakes: 8,
            handshakes_of_strangers: 6,
            handshakes_of_address: 3,
            connections: 100,
            connections_of_address: 50,
            retries: rate(10, 10),
            strangers: rate(LARGE, LARGE),
            address: rate(LARGE, LARGE),
            refusals: rate(1, 1),
            addresses: 16,
        }
    }

    fn at(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    /// Enters from so many addresses, so many times each, and gives what came
    /// of it.
    fn all(gate: &mut Gate, addresses: std::ops::Range<u8>, times: usize) -> Vec<Result<(), Bound>> {
        addresses
            .flat_map(|n| std::iter::repeat_n(at(n), times))
            .map(|from| gate.enter(from, 0).map(drop))
            .collect()
    }

    #[test]
    fn one_address_has_so_many_handshakes_in_progress_and_another_is_not_held_to_it() {
        let mut gate = Gate::new(bounds(), 0);
        let got = all(&mut gate, 1..2, 4);
        assert_eq!(got[..3], [Ok(()); 3]);
        assert_eq!(got[3], Err(Bound::AddressHandshakes));
        assert!(gate.enter(at(2), 0).is_ok());
    }

    #[test]
    fn strangers_from_many_addresses_leave_room_for_the_shops_devices() {
        let mut gate = Gate::new(bounds(), 0);
        let device = gate.enter(at(200), 0).unwrap();
        gate.shook(&device);
        gate.vouch(&device, 0);
        let got = all(&mut gate, 1..10, 3);
        assert_eq!(got.iter().filter(|got| got.is_ok()).count(), 6);
        assert_eq!(got.last(), Some(&Err(Bound::Handshakes)));
        assert!(gate.enter(at(200), 0).is_ok() && gate.enter(at(200), 0).is_ok());
        assert_eq!(gate.enter(at(200), 0).map(drop), Err(Bound::Handshakes), "all 8");
    }

    #[test]
    fn packets_that_begin_handshakes_are_bounded_and_no_flood_of_them_uses_up_what_others_have() {
        let mut gate = Gate::new(
            Bounds {
                strangers: rate(5, 5),
                address: rate(2, 2),
                ..bounds()
            },
            0,
        );
        for known in [200, 201] {
            let device = gate.enter(at(known), 0).unwrap();
            gate.vouch(&device, 0);
        }
        gate.enter(at(1), 0).unwrap();
        let mut read =
            |from: u8, asks: Asks, now_ms| (0..1000).filter(|_| gate.may_ask(at(from), asks, now_ms)).count();
        for asks in [Asks::Anew, Asks::Answered] {
            assert_eq!(read(1, asks, 0), 8, "of one address that is proved");
            assert_eq!(read(9, asks, 0), 72, "and of all that are not known");
            assert_eq!((read(1, asks, 0), read(10, asks, 0)), (0, 0));
            // Known ones have their own, and beside it what all known ones have.
            assert_eq!((read(200, asks, 0), read(201, asks, 0)), (88, 8));
            assert_eq!((read(201, asks, 500), read(9, asks, 500)), (44, 40));
        }
    }

    #[test]
    fn strangers_share_one_rate_however_many_addresses_they_have() {
        let strangers = rate(5, 5);
        let mut gate = Gate::new(
            Bounds {
                strangers,
                ..bounds()
            },
            0,
        );
        let device = gate.enter(at(200), 0).unwrap();
        gate.shook(&device);
        gate.vouch(&device, 0);
        for n in 1..5 {
            let entered = gate.enter(at(n), 0).unwrap();
            gate.shook(&entered);
            gate.left(&entered);
        }
        assert_eq!(gate.enter(at(9), 0).map(drop), Err(Bound::StrangerRate));
        assert_eq!(
            gate.enter(at(1), 0).map(drop),
            Err(Bound::StrangerRate),
            "seen before"
        );
        assert!(gate.enter(at(200), 0).is_ok(), "a device of the shop");
        assert!(gate.enter(at(9), 200).is_ok(), "a fifth of a second later");
    }

    #[test]
    fn one_address_is_held_to_its_rate_even_if_it_is_known() {
        let address = rate(2, 2);
        let mut gate = Gate::new(Bounds { address, ..bounds() }, 0);
        for _ in 0..2 {
            let entered = gate.enter(at(1), 0).unwrap();
            gate.shook(&entered);
            gate.vouch(&entered, 0);
            gate.left(&entered);
        }
        assert_eq!(gate.enter(at(1), 0).map(drop), Err(Bound::AddressRate));
        assert!(gate.enter(at(1), 500).is_ok());
    }

    #[test]
    fn what_ends_makes_room() {
        let mut gate = Gate::new(bounds(), 0);
        for _ in 0..1000 {
            let entered = gate.enter(at(1), 0).unwrap();
            gate.shook(&entered);
            gate.left(&entered);
        }
        assert_eq!(
            (gate.handshakes, gate.handshakes_of_strangers, gate.connections),
            (0, 0, 0)
        );
    }

    #[test]
    fn connections_of_one_address_are_bounded() {
        let mut gate = Gate::new(bounds(), 0);
        for _ in 0..50 {
            let entered = gate.enter(at(1), 0).unwrap();
            gate.shook(&entered);
        }
        assert_eq!(gate.enter(at(1), 0).map(drop), Err(Bound::AddressConnections));
        for _ in 0..50 {
            let entered = gate.enter(at(2), 0).unwrap();
            gate.shook(&entered);
        }
        assert_eq!(gate.enter(at(3), 0).map(drop), Err(Bound::Connections));
    }

    #[test]
    fn addresses_kept_in_mind_are_bounded_and_known_ones_stay() {
        let small = rate(1, 1);
        let mut gate = Gate::new(
            Bounds {
                address: small,
                ..bounds()
            },
            0,
        );
        let device = gate.enter(at(200), 0).unwrap();
        gate.shook(&device);
        gate.vouch(&device, 0);
        gate.left(&device);
        for n in 0..100 {
            if let Ok(entered) = gate.enter(at(n), 0) {
                gate.shook(&entered);
                gate.left(&entered);
            }
        }
        assert_eq!(gate.addresses.len(), 16);
        assert!(
            gate.enter(at(100), 1000).is_ok(),
            "the others are forgotten by now"
        );
        assert!(gate.addresses.contains_key(&at(200)));
        assert_eq!(gate.addresses.len(), 2);
    }

    #[test]
    fn retries_are_bounded_but_for_addresses_that_are_known() {
        let mut gate = Gate::new(bounds(), 0);
        let device = gate.enter(at(200), 0).unwrap();
        gate.vouch(&device, 0);
        let answered = (0..100).filter(|n| gate.may_retry(at(*n), 0)).count();
        assert_eq!(answered, 10);
        assert!(gate.may_retry(at(200), 0));
        let a_day_later = (0..100).filter(|_| gate.may_retry(at(200), KNOWN_FOR_MS));
        assert_eq!(a_day_later.count(), 10, "it is a stranger by then");
    }

    #[test]
    fn whoever_is_turned_away_too_often_is_not_even_told() {
        let mut gate = Gate::new(bounds(), 0);
        assert!(gate.may_refuse(0) && !gate.may_refuse(0) && gate.may_refuse(1000));
    }

    #[test]
    fn a_64_of_ipv6_is_one_address_and_ipv4_in_ipv6_is_ipv4() {
        let six = |text: &str| place(text.parse().unwrap());
        assert_eq!(six("2001:db8::1"), six("2001:db8::ffff:1:2:3"));
        assert_ne!(six("2001:db8::1"), six("2001:db8:0:1::1"));
        assert_eq!(six("::ffff:10.0.0.1"), at(1));
    }
}
