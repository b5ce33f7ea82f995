//! Enrolment tokens tried by address: whoever guesses is shut out, and does
//! not get to void the codes of everybody. Pure; the time is an argument, in
//! milliseconds of the monotonic clock.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::gate::place;

/// The tries with an unknown token that shut an address out.
pub const MAX_WRONG_TRIES_OF_ADDRESS: u32 = 3;

/// For how long, from its last wrong try on, in milliseconds: as long as a
/// code lives.
pub const SHUT_OUT_MS: u64 = hub_protocol::enrolment::CODE_LIFETIME_SECONDS * 1000;

/// The most addresses kept in mind; one more drops the oldest.
const MOST: usize = 64;

/// Wrong tries by address, oldest first.
#[derive(Debug, Default)]
pub(super) struct Tries(VecDeque<Tried>);

#[derive(Debug)]
struct Tried {
    from: IpAddr,
    wrong: u32,
    last_ms: u64,
}

impl Tries {
    /// Whether an address may try no more for now.
    pub(super) fn is_shut_out(&self, from: IpAddr, now_ms: u64) -> bool {
        let from = place(from);
        let tried = self.0.iter().find(|tried| tried.from == from);
        tried.is_some_and(|tried| {
            tried.wrong >= MAX_WRONG_TRIES_OF_ADDRESS && now_ms.saturating_sub(tried.last_ms) < SHUT_OUT_MS
        })
    }

    /// A token from this address matched no code.
    pub(super) fn wrong(&mut self, from: IpAddr, now_ms: u64) {
        let from = place(from);
        self.0
            .retain(|tried| now_ms.saturating_sub(tried.last_ms) < SHUT_OUT_MS);
        let before = self.0.iter().position(|tried| tried.from == from);
        let before = before.and_then(|at| self.0.remove(at));
        if self.0.len() >= MOST {
            self.0.pop_front();
        }
        self.0.push_back(Tried {
            from,
            wrong: before.map_or(0, |tried| tried.wrong).saturating_add(1),
            last_ms: now_ms,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn three_wrong_tokens_shut_an_address_out_for_ten_minutes_and_no_other() {
        let mut tries = Tries::default();
        for now in 0..3 {
            assert!(!tries.is_shut_out(at(1), now));
            tries.wrong(at(1), now);
        }
        assert!(tries.is_shut_out(at(1), 2) && !tries.is_shut_out(at(2), 2));
        assert!(tries.is_shut_out(at(1), 600_001));
        assert!(!tries.is_shut_out(at(1), 600_002));
        tries.wrong(at(1), 600_002);
        assert!(!tries.is_shut_out(at(1), 600_002), "the count begins again");
    }

    #[test]
    fn addresses_kept_in_mind_are_bounded() {
        let mut tries = Tries::default();
        for n in 0..200 {
            tries.wrong(at(n), 0);
        }
        assert_eq!(tries.0.len(), MOST);
    }
}
