//! The gateway: a book of what was charged, kept apart from everything the
//! hub believes, and every way of answering badly.

use std::collections::{BTreeMap, BTreeSet};

use hub_protocol::PaymentId;
use hub_protocol::entry::Finding;

use crate::profile::Profile;
use crate::rng::Rng;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Online,
    Deferred,
    Advice,
    Reverse,
    /// Whether it has the payment, by the merchant's reference.
    LookUp,
}

/// One call on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) boot: u64,
    pub(crate) attempt: u64,
    pub(crate) id: PaymentId,
    pub(crate) what: What,
    /// The device's request as signed.
    pub(crate) signed: Vec<u8>,
}

/// The gateway's answer, or what its end of the line looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Approved,
    Declined,
    Reversed,
    ReversalRefused,
    NotFound,
    Pending {
        retry_after_ms: Option<u64>,
    },
    OtherBytes,
    Throttled {
        retry_after_ms: Option<u64>,
    },
    RefusesMessage,
    RefusesHub,
    Broken {
        retry_after_ms: Option<u64>,
    },
    /// An answer that cannot be for this call.
    Wrong,
    /// Nothing, ever.
    Silence,
    /// The hub's own end: there was no sealed card to send.
    CardMissing,
    /// The hub's own end, too: an acquirer cannot be asked what it has.
    CannotBeAsked,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Not decided before this moment.
    Pending {
        until_ms: u64,
    },
    Approved,
    Declined,
}

/// What the book holds under one id.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) signed: Vec<u8>,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) reversed: bool,
    /// How often the cardholder was charged and given the money back.
    pub(crate) charges: u32,
    pub(crate) refunds: u32,
    first_ms: u64,
}

impl Account {
    pub(crate) fn net(&self) -> u32 {
        self.charges.saturating_sub(self.refunds)
    }

    /// The issuer decides what was pending; nobody needs to ask.
    fn resolve(&mut self, now_ms: u64, declines: bool) {
        if let Some(Outcome::Pending { until_ms }) = self.outcome
            && until_ms <= now_ms
        {
            self.decide(declines);
        }
    }

    /// Whatever is undecided is so no longer than up to then.
    fn decide_by(&mut self, latest_ms: u64) {
        if let Some(Outcome::Pending { until_ms }) = &mut self.outcome {
            *until_ms = (*until_ms).min(latest_ms);
        }
    }

    fn decide(&mut self, declines: bool) {
        if declines {
            self.outcome = Some(Outcome::Declined);
        } else {
            self.outcome = Some(Outcome::Approved);
            self.charges += 1;
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    pub(crate) book: BTreeMap<PaymentId, Account>,
    /// Messages that it takes offence at, for as long as nobody talks to it.
    pub(crate) refused_messages: BTreeSet<PaymentId>,
    pub(crate) refused_reversals: BTreeSet<PaymentId>,
    /// Reversals that it does not decide, for as long as anything goes wrong.
    undecided_reversals: BTreeSet<PaymentId>,
    /// Calls turned away: nothing was taken, and a copy of the same call that
    /// arrives later is turned away too.
    turned_away: BTreeMap<(u64, u64), Said>,
    /// Calls let in: a copy that arrives later gets the book's answer.
    let_in: BTreeSet<(u64, u64)>,
    declined_by_issuer: BTreeMap<PaymentId, bool>,
}

impl Gateway {
    /// Answers a call, and says how long it takes.
    pub(crate) fn call(&mut self, call: &Call, now_ms: u64, rng: &mut Rng, profile: &Profile) -> (Said, u64) {
        let latency = if rng.chance(profile.late) {
            1_000 + rng.below(60_000)
        } else {
            5 + rng.below(200)
        };
        if let Some(said) = self.turned_away.get(&(call.boot, call.attempt)) {
            return (said.clone(), latency);
        }
        let copy = self.let_in.contains(&(call.boot, call.attempt));
        if let Some(said) = at_the_door(rng, profile).filter(|_| !copy) {
            self.turned_away.insert((call.boot, call.attempt), said.clone());
            return (said, latency);
        }
        self.let_in.insert((call.boot, call.attempt));
        // Out of order before or after the booking: the hub cannot tell.
        let broken = rng.chance(profile.broken).then(|| Said::Broken {
            retry_after_ms: retry_after(rng),
        });
        if let Some(said) = broken.clone().filter(|_| rng.chance(500)) {
            return (said, latency);
        }
        let said = match call.what {
            What::Reverse => self.reverse(call, rng, profile),
            What::LookUp => self.look_up(&call.id, now_ms),
            What::Online | What::Deferred | What::Advice => self.pay(call, now_ms, rng, profile),
        };
        let booked = !matches!(said, Said::RefusesMessage | Said::OtherBytes);
        let said = match broken {
            Some(said) if booked => said,
            _ if booked && rng.chance(profile.silent) => {
                if rng.chance(300) {
                    Said::Wrong
                } else {
                    Said::Silence
                }
            }
            _ => said,
        };
        (said, latency)
    }

    fn pay(&mut self, call: &Call, now_ms: u64, rng: &mut Rng, profile: &Profile) -> Said {
        let declines = *self
            .declined_by_issuer
            .entry(call.id)
            .or_insert_with(|| rng.chance(profile.declines));
        if !self.book.contains_key(&call.id) && rng.chance(profile.refuses_message) {
            self.refused_messages.insert(call.id);
        }
        if self.refused_messages.contains(&call.id) {
            return Said::RefusesMessage;
        }
        let forgotten = |account: &Account| {
            profile.retention_ms > 0 && account.first_ms + profile.retention_ms < now_ms && !account.reversed
        };
        let account = self.book.entry(call.id).or_insert_with(|| Account {
            signed: call.signed.clone(),
            outcome: None,
            reversed: false,
            charges: 0,
            refunds: 0,
            first_ms: now_ms,
        });
        if account.signed != call.signed {
            return Said::OtherBytes;
        }
        if forgotten(account) {
            account.outcome = None;
            account.first_ms = now_ms;
        }
        if account.reversed {
            return Said::Declined;
        }
        account.resolve(now_ms, declines);
        match account.outcome {
            None if rng.chance(profile.pending) => {
                account.outcome = Some(Outcome::Pending {
                    until_ms: now_ms + rng.below(profile.pending_ms),
                });
            }
            None => account.decide(declines),
            Some(_) => {}
        }
        match account.outcome {
            Some(Outcome::Approved) => Said::Approved,
            Some(Outcome::Declined) => Said::Declined,
            Some(Outcome::Pending { .. }) | None => Said::Pending {
                retry_after_ms: retry_after(rng),
            },
        }
    }

    /// The book keeps payments for longer than their keys.
    fn look_up(&mut self, id: &PaymentId, now_ms: u64) -> Said {
        let declines = self.declined_by_issuer.get(id).copied().unwrap_or_default();
        let Some(account) = self.book.get_mut(id) else {
            return Said::NotFound;
        };
        if account.reversed {
            return Said::Declined;
        }
        account.resolve(now_ms, declines);
        match account.outcome {
            Some(Outcome::Approved) => Said::Approved,
            Some(Outcome::Declined) => Said::Declined,
            Some(Outcome::Pending { .. }) => Said::Pending { retry_after_ms: None },
            None => Said::NotFound,
        }
    }

    fn reverse(&mut self, call: &Call, rng: &mut Rng, profile: &Profile) -> Said {
        if rng.chance(profile.refuses_reversal) && !self.book.get(&call.id).is_some_and(|a| a.reversed) {
            self.refused_reversals.insert(call.id);
        }
        if self.refused_reversals.contains(&call.id) {
            return Said::ReversalRefused;
        }
        if profile.undecided_ms > 0 && profile.pending > 0 {
            if rng.chance(profile.pending) {
                self.undecided_reversals.insert(call.id);
            }
            if self.undecided_reversals.contains(&call.id) {
                return Said::Pending {
                    retry_after_ms: retry_after(rng),
                };
            }
        }
        let account = self.book.entry(call.id).or_insert_with(|| Account {
            signed: call.signed.clone(),
            outcome: None,
            reversed: false,
            charges: 0,
            refunds: 0,
            first_ms: 0,
        });
        if account.signed != call.signed {
            return Said::OtherBytes;
        }
        account.reversed = true;
        account.outcome = match account.outcome {
            Some(Outcome::Pending { .. }) => None,
            other => other,
        };
        account.refunds = account.charges;
        Said::Reversed
    }

    /// What the desk says of a payment: what it has of it. `None`: it does not
    /// know yet.
    pub(crate) fn desk(&mut self, id: &PaymentId, now_ms: u64) -> Option<Finding> {
        let declines = self.declined_by_issuer.get(id).copied().unwrap_or_default();
        if let Some(account) = self.book.get_mut(id) {
            account.resolve(now_ms, declines);
        }
        match self.book.get(id) {
            Some(account) if account.net() > 0 => Some(Finding::Taken),
            Some(account) if matches!(account.outcome, Some(Outcome::Pending { .. })) => None,
            Some(account) if account.reversed => Some(Finding::Undone),
            _ => Some(Finding::NotThere),
        }
    }

    /// The desk undoes what was taken, and whatever of it comes later.
    pub(crate) fn undo(&mut self, id: &PaymentId) {
        if let Some(account) = self.book.get_mut(id) {
            account.reversed = true;
            account.refunds = account.charges;
        }
    }

    /// Whatever was pending is decided by now.
    pub(crate) fn resolve_all(&mut self) {
        for (id, account) in &mut self.book {
            let declines = self.declined_by_issuer.get(id).copied().unwrap_or_default();
            account.resolve(u64::MAX, declines);
        }
    }

    /// Nothing is left undecided for longer than up to then.
    pub(crate) fn decide_by(&mut self, latest_ms: u64) {
        self.book
            .values_mut()
            .for_each(|account| account.decide_by(latest_ms));
    }

    /// Somebody rings up and has it mended.
    pub(crate) fn mend(&mut self, id: &PaymentId) {
        self.refused_messages.remove(id);
        self.refused_reversals.remove(id);
        self.undecided_reversals.remove(id);
        if let Some(account) = self.book.get_mut(id) {
            account.decide_by(0);
        }
    }
}

/// Answers that promise that nothing was taken.
fn at_the_door(rng: &mut Rng, profile: &Profile) -> Option<Said> {
    if rng.chance(profile.throttles) {
        return Some(Said::Throttled {
            retry_after_ms: retry_after(rng),
        });
    }
    rng.chance(profile.refuses_hub).then_some(Said::RefusesHub)
}

fn retry_after(rng: &mut Rng) -> Option<u64> {
    rng.chance(500).then(|| 1_000 * (1 + rng.below(120)))
}
