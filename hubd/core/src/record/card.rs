//! What the hub remembers of a card.

use super::Subject;
use crate::few::Few;
use crate::risk::{Recent, Taps};
use crate::watch::Seen;
use core::num::NonZeroU32;
use hub_protocol::Digest;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write};
use minicbor::{Decode, Decoder, Encode, Encoder};

/// Stands for a card in limits: the first 16 bytes of SHA-256 of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct CardKey(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl CardKey {
    /// The key of a token.
    pub fn of_token(token: &str) -> Self {
        let mut key = [0; 16];
        key.copy_from_slice(&Digest::of(token.as_bytes()).0[..16]);
        Self(key)
    }
}

/// What the hub remembers of a card: what it has at risk, and which of its
/// payments are to be sent before which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CardRecord {
    /// What it has at risk.
    #[n(1)]
    pub subject: Subject,
    /// The places in the queue of what waits to be sent, ascending: the
    /// lowest of them, at most [`MOST_PLACES`].
    #[n(2)]
    pub waiting: Few<u64>,
    /// How many more wait, all of them behind those.
    #[n(3)]
    pub beyond: u32,
    /// What limits remember of it.
    #[n(4)]
    #[cbor(skip_if = "Velocity::is_blank")]
    pub velocity: Velocity,
    /// The day of its first approved payment under a policy that asks whether
    /// a card is new.
    #[n(5)]
    pub known_since_day: Option<Day>,
}

/// A day, as the number of days since 1970 UTC. `None` beside it takes no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(NonZeroU32);

impl Day {
    /// The day of this number; the last that can be told of those beyond.
    pub fn of(number: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(number))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0.get() - 1
    }
}

impl<C> Encode<C> for Day {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, ctx: &mut C) -> Result<(), EncodeError<W::Error>> {
        self.number().encode(e, ctx)
    }
}

impl<'b, C> Decode<'b, C> for Day {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        u32::decode(d, ctx).map(Self::of)
    }
}

/// What limits remember of a card beside what it has at risk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Velocity {
    /// Its taps without verification.
    #[n(1)]
    pub taps: Taps,
    /// Its payments lately.
    #[n(2)]
    pub recent: Recent,
    /// The same as detectors see it, if the policy looks at cards.
    #[n(3)]
    pub seen: Few<Seen>,
}

impl Velocity {
    /// Whether there is nothing to remember.
    pub(crate) fn is_blank(&self) -> bool {
        *self == Self::default()
    }
}

/// How many places a card's record names. A policy allows a card a handful of
/// payments offline; a record must stay small in any case.
pub const MOST_PLACES: usize = 32;

impl CardRecord {
    /// A payment of this card waits to be sent.
    pub(crate) fn joins(&mut self, sequence: u64) {
        let at = self.waiting.partition_point(|place| *place < sequence);
        if at == self.waiting.len() && (self.beyond > 0 || at == MOST_PLACES) {
            self.beyond = self.beyond.saturating_add(1);
            return;
        }
        self.waiting.insert(at, sequence);
        if self.waiting.len() > MOST_PLACES {
            self.waiting.pop();
            self.beyond = self.beyond.saturating_add(1);
        }
    }

    /// A payment of this card waits no more.
    pub(crate) fn leaves(&mut self, sequence: u64) {
        match self.waiting.binary_search(&sequence) {
            Ok(at) => _ = self.waiting.remove(at),
            Err(_) => self.beyond = self.beyond.saturating_sub(1),
        }
    }

    /// Whether an approved payment of it is known.
    pub(crate) fn is_known(&self) -> bool {
        self.known_since_day.is_some()
    }

    /// Whether there is nothing to remember.
    pub(crate) fn is_blank(&self) -> bool {
        *self == Self::default()
    }
}
