//! The door of one endpoint: the bounds of [`Gate`] over time, counted and
//! logged at a bounded rate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::bounds::{Bound, Counts, Lines};
use super::gate::{Asks, Bounds, Entered, Gate};

/// Who comes in at one endpoint.
pub(super) struct Door {
    monotonic_ms: fn() -> u64,
    counts: Arc<Counts>,
    inside: Mutex<Inside>,
}

struct Inside {
    gate: Gate,
    turned_away: Lines,
    failed: Lines,
}

/// What to do with somebody who has proved its address.
pub(super) enum Knock {
    /// Come in.
    Enter(Ticket),
    /// Be told that it is too much.
    Refuse,
    /// Not even that.
    Ignore,
}

impl Door {
    pub(super) fn new(bounds: Bounds, monotonic_ms: fn() -> u64, counts: Arc<Counts>) -> Self {
        let now = monotonic_ms();
        Self {
            monotonic_ms,
            counts,
            inside: Mutex::new(Inside {
                gate: Gate::new(bounds, now),
                turned_away: Lines::new(now),
                failed: Lines::new(now),
            }),
        }
    }

    /// Whether a first packet is answered with a Retry.
    pub(super) fn may_retry(&self, from: SocketAddr) -> bool {
        let may = self.inside().gate.may_retry(from.ip(), (self.monotonic_ms)());
        if !may {
            self.counts.count(Bound::Unproved);
        }
        may
    }

    /// Whether a packet that begins a handshake is read at all.
    pub(super) fn may_ask(&self, from: SocketAddr, asks: Asks) -> bool {
        let now = (self.monotonic_ms)();
        let may = self.inside().gate.may_ask(from.ip(), asks, now);
        if !may {
            self.counts.count(Bound::HandshakePackets);
        }
        may
    }

    /// Somebody whose address is proved wants in.
    pub(super) fn knock(self: &Arc<Self>, from: SocketAddr) -> Knock {
        let now = (self.monotonic_ms)();
        let mut inside = self.inside();
        match inside.gate.enter(from.ip(), now) {
            Ok(entered) => Knock::Enter(Ticket {
                door: Arc::clone(self),
                entered,
                shook: false,
            }),
            Err(bound) => {
                let (line, refuse) = (inside.turned_away.next(now), inside.gate.may_refuse(now));
                // Whoever writes the log may wait, and packets are read through
                // this door.
                drop(inside);
                self.counts.count(bound);
                if let Some(left_out) = line {
                    tracing::warn!(%from, %bound, left_out, "too many connections; one was turned away");
                }
                match refuse {
                    true => Knock::Refuse,
                    false => Knock::Ignore,
                }
            }
        }
    }

    /// Whether a device of the shop has come from this address.
    #[cfg(test)]
    pub(super) fn knows(&self, from: std::net::IpAddr) -> bool {
        self.inside().gate.knows(from, (self.monotonic_ms)())
    }

    /// A handshake failed.
    pub(super) fn failed(&self, from: SocketAddr, why: &str) {
        self.counts.count(Bound::FailedHandshakes);
        let now = (self.monotonic_ms)();
        let line = self.inside().failed.next(now);
        if let Some(left_out) = line {
            tracing::info!(%from, why, left_out, "handshake failed; if this is a device of the shop, enrol it or unblock it");
        }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place at the table, given back when dropped.
pub(super) struct Ticket {
    door: Arc<Door>,
    entered: Entered,
    shook: bool,
}

impl Ticket {
    /// The handshake is over.
    pub(super) fn shook(&mut self) {
        if !std::mem::replace(&mut self.shook, true) {
            self.door.inside().gate.shook(&self.entered);
        }
    }

    /// It is a device of the shop: its address is known from now on.
    pub(super) fn vouch(&self) {
        let now = (self.door.monotonic_ms)();
        self.door.inside().gate.vouch(&self.entered, now);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.shook();
        self.door.inside().gate.left(&self.entered);
    }
}
