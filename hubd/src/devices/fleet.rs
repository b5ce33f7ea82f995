//! Tokens by which several devices enrol, as the devices' edge knows them: a
//! copy of what the core says. The core alone decides whether one is still
//! good; here it is only told from a guess.

use hub_core::admission::FleetToken;
use hub_protocol::Digest;
use subtle::ConstantTimeEq;

/// The tokens that are known.
#[derive(Debug, Default)]
pub(super) struct Fleet(Vec<FleetToken>);

impl Fleet {
    pub(super) fn set(&mut self, tokens: Vec<FleetToken>) {
        self.0 = tokens;
    }

    /// What stands for a token in the ledger, if it is one of these. Every one
    /// is compared, whichever matches, in constant time; and since digests
    /// are, a guess learns nothing of the token even from one that is not.
    pub(super) fn presented(&self, token: &[u8; 16]) -> Option<Digest> {
        let presented = Digest::of(token);
        let mut found = None;
        for known in &self.0 {
            if bool::from(known.token.0.ct_eq(&presented.0)) {
                found = Some(presented);
            }
        }
        found
    }

    /// Whether the enrolment endpoint has anything to wait for.
    pub(super) fn any_open(&self, wall_ms: u64) -> bool {
        self.0.iter().any(|known| known.is_open(wall_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(secret: [u8; 16]) -> FleetToken {
        FleetToken {
            token: Digest::of(&secret),
            class: hub_protocol::DeviceClass::Mpos,
            most: 2,
            used: 0,
            expires_ms: 100,
        }
    }

    #[test]
    fn a_fleets_token_is_known_by_its_digest_alone() {
        let mut fleet = Fleet::default();
        fleet.set(vec![token([1; 16]), token([2; 16])]);
        for secret in [[1; 16], [2; 16]] {
            assert_eq!(fleet.presented(&secret), Some(Digest::of(&secret)));
        }
        assert_eq!(fleet.presented(&[3; 16]), None);
        let digest: [u8; 16] = Digest::of(&[1; 16]).0[..16].try_into().unwrap();
        assert_eq!(fleet.presented(&digest), None, "the digest is no token");
    }

    #[test]
    fn the_endpoint_waits_for_tokens_that_have_not_expired_though_they_are_used_up() {
        let mut fleet = Fleet::default();
        for used in [0, 2] {
            fleet.set(vec![FleetToken {
                used,
                ..token([1; 16])
            }]);
            assert!(fleet.any_open(99) && !fleet.any_open(100), "{used} used");
        }
        fleet.set(Vec::new());
        assert!(!fleet.any_open(0), "withdrawn");
    }
}
