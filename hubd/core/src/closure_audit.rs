//! Holding closures against the entries that they cover: by counting again,
//! from the entries alone.

use std::collections::HashMap;

use hub_protocol::entry::{ClockQuality, Entry, Event, Finding, VoidEffect};
use hub_protocol::{Closure, PaymentId, Period};
use jiff::tz::TimeZone;

use crate::closure::{OpenPeriods, is_of, local};
use crate::policy::Policy;
use crate::state::{FoldError, State, parse_policy};
use crate::totals::{Told, may_count};

/// What came of one closure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// The entries say the same.
    Right,
    /// It follows from what is here, and that is not all: entries that it
    /// covers, the request of a payment in them, or the policy whose time zone
    /// counts could not be read. The rest is the hub's word.
    HubsWord,
    /// The entries say something else.
    Wrong,
}

/// Goes through a ledger in its order. What it remembers grows with the
/// payments in it that may still be voided, about 80 bytes each.
#[derive(Debug)]
pub struct ClosureAudit {
    payments: HashMap<PaymentId, Told>,
    /// The entry before.
    last: u64,
    /// Every entry from the first one on was read.
    whole: bool,
    /// Of the policy in force; `None`: it was not read.
    zone: Option<TimeZone>,
    /// What is counted, as far as it is known.
    open: OpenPeriods,
    known: Known,
    /// A payment was counted although the period that was open was over.
    late: [bool; 3],
}

/// What of the counting is known from its beginning on.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Days, months and years.
    periods: [bool; 3],
    running: bool,
    since: bool,
}

impl Default for ClosureAudit {
    fn default() -> Self {
        Self {
            payments: HashMap::new(),
            last: 0,
            whole: true,
            // As long as there is no policy.
            zone: Some(TimeZone::UTC),
            open: OpenPeriods::since(0),
            known: Known::default(),
            late: [false; 3],
        }
    }
}

impl ClosureAudit {
    /// Takes the next entry that can be read. Gives the closure in it, if it is
    /// one, and what came of that.
    ///
    /// # Errors
    /// A request in it cannot be read, by this program: it then counts as not
    /// there.
    pub fn take<'a>(&mut self, entry: &'a Entry) -> Result<Option<(&'a Closure, Held)>, FoldError> {
        if self.last.checked_add(1) != Some(entry.sequence) {
            self.forget();
        }
        self.last = entry.sequence;
        match State::request_in(entry) {
            Ok(Some(request)) => {
                self.payments
                    .insert(request.payment_id, Told::of_request(&request));
            }
            Ok(None) => {}
            Err(error) => {
                self.forget();
                return Err(error);
            }
        }
        if let Some(payment) = entry.event.payment_id() {
            self.count(payment, entry);
        }
        match &entry.event {
            Event::HubStarted {
                closes: Some(true), ..
            } if self.whole && !self.known.since => self.begin(entry.sequence),
            Event::ClockChanged { quality, .. } if *quality != ClockQuality::Suspect => {
                self.open.trusted(entry.time.wall_ms);
            }
            Event::PolicyActivated { policy, .. } => {
                self.zone = parse_policy(policy).as_ref().map(Policy::time_zone);
            }
            Event::PeriodClosed { closure } => return Ok(Some((closure, self.close(entry, closure)))),
            _ => {}
        }
        Ok(None)
    }

    /// From here on payments count.
    fn begin(&mut self, since: u64) {
        self.open = OpenPeriods::since(since);
        self.known = Known {
            periods: [true; 3],
            running: true,
            since: true,
        };
    }

    /// Entries are missing: of what was known nothing can be relied on.
    fn forget(&mut self) {
        *self = Self {
            whole: false,
            zone: None,
            ..Self::default()
        };
    }

    fn count(&mut self, payment: PaymentId, entry: &Entry) {
        let Some(told) = self.payments.get_mut(&payment) else {
            if may_count(&entry.event) {
                self.known.periods = [false; 3];
                self.known.running = false;
            }
            return;
        };
        told.follow(&entry.event);
        let told = *told;
        if self.open.count(entry, &told) && entry.time.quality != ClockQuality::Suspect {
            for (late, period) in self.late.iter_mut().zip(Period::ALL) {
                let opened_ms = self.open.of(*period).opened_ms;
                let is_of = self
                    .zone
                    .as_ref()
                    .zip(opened_ms)
                    .is_none_or(|(zone, opened_ms)| is_of(*period, opened_ms, entry.time.wall_ms, zone));
                *late |= !is_of;
            }
        }
        if is_over(&entry.event, &told) {
            self.payments.remove(&payment);
        }
    }

    fn close(&mut self, entry: &Entry, closure: &Closure) -> Held {
        let place = usize::from(closure.period.number()).saturating_sub(1);
        let (known, late) = (self.known, self.late.get(place).copied().unwrap_or(false));
        let known_period = known.periods.get(place).copied().unwrap_or(false);
        let open = self.open.of(closure.period);
        let fits = (!known_period
            || (closure.totals == open.totals
                && closure.first == open.first
                && open.closed.checked_add(1) == Some(closure.number)))
            && (!known.running || closure.running == self.open.running)
            && (!known.since || closure.since == self.open.since)
            && closure.last.checked_add(1) == Some(entry.sequence);
        let held = match (&self.zone, known_period && known.running && known.since) {
            _ if !fits || late => Held::Wrong,
            (Some(zone), true) => {
                let now = local(entry.time.wall_ms, zone).map(|now| now.date());
                let due = now.and_then(|now| self.open.due(closure.period, now, zone, closure.last));
                let in_time = entry.time.quality != ClockQuality::Suspect;
                match due.as_ref() == Some(closure) && in_time {
                    true => Held::Right,
                    false => Held::Wrong,
                }
            }
            _ => Held::HubsWord,
        };
        // From here on by its word, right or wrong, or everything after it
        // would be wrong too.
        self.open.closed(closure);
        self.open.running.clone_from(&closure.running);
        self.open.since = closure.since;
        (self.known.running, self.known.since) = (true, true);
        if let Some(known) = self.known.periods.get_mut(place) {
            *known = true;
        }
        if let Some(late) = self.late.get_mut(place) {
            *late = false;
        }
        held
    }
}

/// Whether nothing more is counted of the payment.
fn is_over(event: &Event, told: &Told) -> bool {
    match event {
        Event::PaymentDecided { .. } => !told.approved && !told.reversing,
        Event::PaymentSettled { gateway, .. } => !gateway.approved,
        Event::PaymentVoided { effect, .. } => *effect == VoidEffect::CancelledBeforeSending,
        Event::PaymentReversed { .. } => true,
        Event::PaymentClosed { finding, .. } => *finding != Finding::Taken,
        _ => false,
    }
}
