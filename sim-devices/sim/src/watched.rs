//! The model of anomalies and restrictions: what the entries say was odd, what
//! that has come to, and where less, or nothing, is approved offline.

use std::collections::BTreeMap;

use hub_protocol::entry::{EntryTime, Event, WanState};
use hub_protocol::{AnomalyKind, DeviceId, PaymentId, PaymentRequest, Restriction, RestrictionCause};

use crate::ledger::Ledger;
use crate::limits::Oddities;
use crate::violation::{Checked, Rule, hold};

/// The same anomaly at the same device counts once in this time.
const QUIET_MS: u64 = 10 * 60_000;

const HOUR_MS: u64 = 3_600_000;

/// How things stand at a device, or in the store.
#[derive(Clone, Copy, Debug)]
struct Alert {
    /// Thousandths of points, as of `at_ms`.
    milli: u64,
    at_ms: u64,
    restriction: Restriction,
}

impl Default for Alert {
    fn default() -> Self {
        Self {
            milli: 0,
            at_ms: 0,
            restriction: Restriction::None,
        }
    }
}

impl Alert {
    fn left(&self, now_ms: u64, fade_per_hour: u64) -> u64 {
        let faded = u128::from(now_ms.saturating_sub(self.at_ms)) * u128::from(fade_per_hour) * 1000;
        let faded = u64::try_from(faded / u128::from(HOUR_MS)).unwrap_or(u64::MAX);
        self.milli.saturating_sub(faded)
    }
}

/// What is remembered of a device's payments.
#[derive(Clone, Debug, Default)]
struct Seen {
    amount: u64,
    run: u32,
    found: BTreeMap<AnomalyKind, u64>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    alerts: BTreeMap<Option<DeviceId>, Alert>,
    seen: BTreeMap<DeviceId, Seen>,
    /// Shown by a payment of which no entry has come yet, and when the same was
    /// found before.
    shown: Option<(PaymentId, Option<u64>)>,
    /// Since when the gateway has answered without a break, and the hub run, on
    /// the monotonic clock.
    online_ms: u64,
    /// When something odd was found last since the start, on that clock.
    odd_ms: BTreeMap<Option<DeviceId>, u64>,
}

impl Ledger {
    fn oddities(&self) -> Option<&Oddities> {
        self.policy.as_ref()?.oddities.as_ref()
    }

    /// What anomalies have led to at a device, or in the store.
    pub(crate) fn restriction(&self, place: Option<DeviceId>) -> Restriction {
        let alert = self.watched.alerts.get(&place);
        alert.map_or(Restriction::None, |alert| alert.restriction)
    }

    /// Where offline approvals are restricted, the store first.
    pub(crate) fn restricted(&self) -> Vec<(Option<DeviceId>, Restriction)> {
        let devices = self.devices.keys().map(|device| {
            let stopped = self.quarantined.contains(device);
            let by_oddities = self.restriction(Some(*device));
            (
                Some(*device),
                if stopped {
                    Restriction::Stopped
                } else {
                    by_oddities
                },
            )
        });
        core::iter::once((None, self.restriction(None)))
            .chain(devices)
            .filter(|(_, restriction)| *restriction != Restriction::None)
            .collect()
    }

    /// A device asks for a payment that is new. `by_pay`: itself, and not by
    /// telling of what it has approved.
    pub(crate) fn asked(
        &mut self,
        device: DeviceId,
        request: &PaymentRequest,
        by_pay: bool,
        time: EntryTime,
    ) -> Checked {
        let shown = self.watched.shown.take();
        let shown = shown.filter(|(id, _)| *id == request.payment_id);
        if request.terms.as_ref().is_some_and(|terms| terms.training) {
            return Ok(());
        }
        let Some((in_a_row, from, _)) = self.oddities().and_then(|rules| rules.equal) else {
            return Ok(());
        };
        let amount = request.amount_minor();
        let seen = self.watched.seen.entry(device).or_default();
        let run = match amount {
            _ if amount < from => 0,
            _ if amount == seen.amount => seen.run + 1,
            _ => 1,
        };
        if amount >= from {
            (seen.amount, seen.run) = (amount, run);
        }
        let before = match shown {
            Some((_, before)) => before,
            None => seen.found.get(&AnomalyKind::EqualAmounts).copied(),
        };
        let quiet = before.is_some_and(|at_ms| time.wall_ms.saturating_sub(at_ms) < QUIET_MS);
        let due = by_pay && run >= in_a_row && !quiet;
        hold(due == shown.is_some(), Rule::SilenceMeansNo, || {
            format!(
                "{} is the {run}. of {amount} in a row at its device, and counts as odd: {}",
                request.payment_id,
                shown.is_some()
            )
        })
    }

    /// Takes in an entry that changes what is watched, or that only changes how
    /// long.
    pub(crate) fn apply_watched(&mut self, event: &Event, time: EntryTime) -> Checked {
        match event {
            Event::HubStarted { .. } => {
                self.watched.shown = None;
                self.watched.online_ms = time.monotonic_ms;
                self.watched.odd_ms.clear();
            }
            Event::WanChanged {
                to: WanState::Online, ..
            } => self.watched.online_ms = time.monotonic_ms,
            Event::PolicyActivated { .. } => {
                self.watched.alerts.clear();
                if self.oddities().is_none() {
                    self.watched.seen.clear();
                }
            }
            Event::ClockChanged { jump_ms, .. } => {
                let back = |at_ms: &mut u64| *at_ms = at_ms.saturating_sub(jump_ms.unsigned_abs());
                self.watched
                    .alerts
                    .values_mut()
                    .for_each(|alert| back(&mut alert.at_ms));
                let seen = self.watched.seen.values_mut();
                seen.flat_map(|seen| seen.found.values_mut()).for_each(back);
            }
            Event::AnomalyFound {
                device,
                shown_by,
                kind,
                points,
            } => return self.odd(*device, *shown_by, *kind, *points, time),
            Event::RestrictionChanged {
                device,
                restriction,
                cause,
                operator,
            } => return self.restrict(*device, *restriction, *cause, operator.is_some(), time),
            _ => {}
        }
        Ok(())
    }

    fn odd(
        &mut self,
        device: DeviceId,
        shown_by: Option<PaymentId>,
        kind: AnomalyKind,
        points: u16,
        time: EntryTime,
    ) -> Checked {
        let rules = self.oddities();
        let counts = rules.and_then(|rules| match kind {
            AnomalyKind::EqualAmounts => rules.equal.map(|(_, _, points)| points),
            AnomalyKind::BadSignatures => rules.bad_signatures.map(|(_, points)| points),
            _ => None,
        });
        hold(counts == Some(points), Rule::SilenceMeansNo, || {
            format!("{kind} counts {points}, by the policy {counts:?}")
        })?;
        let fade = rules.map_or(0, |rules| rules.fade_per_hour);
        let found = &mut self.watched.seen.entry(device).or_default().found;
        let before = found.insert(kind, time.wall_ms);
        let quiet = before.is_some_and(|at_ms| time.wall_ms.saturating_sub(at_ms) < QUIET_MS);
        hold(!quiet, Rule::SilenceMeansNo, || format!("{kind} counts twice"))?;
        if let Some(id) = shown_by {
            self.watched.shown = Some((id, before));
        }
        let stopped = self.restriction(Some(device)) == Restriction::Stopped;
        for place in [Some(device), None] {
            self.watched.odd_ms.insert(place, time.monotonic_ms);
            // A device that is stopped does the store no more harm.
            if place.is_some() || !stopped {
                let alert = self.watched.alerts.entry(place).or_default();
                alert.milli = alert.left(time.wall_ms, fade) + u64::from(points) * 1000;
                alert.at_ms = alert.at_ms.max(time.wall_ms);
            }
        }
        Ok(())
    }

    /// What the points ask for that there were when something odd was found
    /// last.
    fn reached(&self, place: Option<DeviceId>) -> Restriction {
        let Some(rules) = self.oddities() else {
            return Restriction::None;
        };
        let steps = if place.is_some() {
            &rules.device
        } else {
            &rules.store
        };
        let alert = self.watched.alerts.get(&place).copied().unwrap_or_default();
        steps.reached(alert.milli / 1000)
    }

    fn restrict(
        &mut self,
        place: Option<DeviceId>,
        to: Restriction,
        cause: RestrictionCause,
        by_a_person: bool,
        time: EntryTime,
    ) -> Checked {
        let now = self.restriction(place);
        let holds = match cause {
            RestrictionCause::Anomalies => to > now && to == self.reached(place),
            RestrictionCause::Operator => to == Restriction::None && by_a_person,
            RestrictionCause::TimeOnline => {
                let since = self.watched.odd_ms.get(&place).copied().unwrap_or_default();
                let since = since.max(self.watched.online_ms);
                let wait = self.oddities().and_then(|rules| rules.recover_minutes);
                to == Restriction::None
                    && now != Restriction::None
                    && self.wan == Some(WanState::Online)
                    && wait.is_some_and(|minutes| time.monotonic_ms >= since + minutes * 60_000)
            }
        };
        hold(holds, Rule::SilenceMeansNo, || {
            format!("{place:?} goes from {now} to {to} by {cause}, which nothing asks for")
        })?;
        let alert = self.watched.alerts.entry(place).or_default();
        alert.restriction = to;
        if to == Restriction::None {
            alert.milli = 0;
        }
        if let (Some(device), RestrictionCause::Operator) = (place, cause) {
            self.quarantined.remove(&device);
            // And what may have come of it is nobody's any more.
            if let Some(kept) = self.kept.get_mut(&device) {
                kept.withheld = (0, 0);
            }
        }
        Ok(())
    }

    /// Where points ask for a restriction there is one, whatever comes between.
    pub(crate) fn hold_restricted(&self) -> Checked {
        let free = self
            .watched
            .alerts
            .iter()
            .find(|(place, alert)| self.reached(**place) > alert.restriction);
        hold(free.is_none(), Rule::SilenceMeansNo, || {
            format!("{free:?}: its points ask for more")
        })
    }
}
