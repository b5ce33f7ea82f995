//! How large an allowance has to be, a second time.

use hub_protocol::entry::{ClockQuality, EntryTime, StorageLevel};
use hub_protocol::{Allowance, Currency, DeviceId, TransactionType};

use crate::ledger::{Ledger, Subject};
use crate::limits::{Allowances, Kind, Limits, Pair};
use crate::violation::{Checked, Rule, hold};
use crate::wire;

const MINUTE_MS: u64 = 60_000;

impl Ledger {
    /// Holds an allowance, before it is taken in, to the rules.
    pub(crate) fn hold_given(&self, allowance: &Allowance, time: EntryTime, max_queue: usize) -> Checked {
        let device = allowance.device;
        let known = self.devices.get(&device);
        hold(
            known.is_some_and(|(_, blocked)| !blocked) && !self.quarantined.contains(&device),
            Rule::SilenceMeansNo,
            || "an allowance is given to a device that may have none".to_owned(),
        )?;
        let last = self.kept.get(&device);
        hold(
            last.is_none_or(|kept| kept.closed.is_some() && kept.allowance.number < allowance.number)
                && allowance.number > 0,
            Rule::NoCeilingPassed,
            || format!("allowance {} is given beside another", allowance.number),
        )?;
        let due = self.allowance_due(device, time, max_queue);
        let Some(due) = due else {
            return hold(false, Rule::NoCeilingPassed, || {
                format!("allowance {} is given, and none may be", allowance.number)
            });
        };
        let due = Allowance {
            number: allowance.number,
            ..due
        };
        hold(*allowance == due, Rule::NoCeilingPassed, || {
            format!("given is {allowance:?}, by the policy's numbers {due:?}")
        })
    }

    /// What is given to this device now, if anything is. Its number is for the
    /// hub to choose.
    fn allowance_due(&self, device: DeviceId, time: EntryTime, max_queue: usize) -> Option<Allowance> {
        let limits = self.policy.as_deref()?;
        let now_ms = time.wall_ms;
        let full = self.queue_is_full(max_queue) || self.storage == Some(StorageLevel::Full);
        if full || !self.against_offline(limits, device, now_ms).is_empty() {
            return None;
        }
        let rules = limits.allowance.as_ref()?;
        let (class, _) = self.devices.get(&device)?;
        if !limits.people.takes(TransactionType::Sale) {
            return None;
        }
        if !rules.classes.contains(class) || limits.cards.judges_cards() && !rules.unchecked {
            return None;
        }
        let (_, transaction, of_device) = limits.classes.iter().find(|(named, _, _)| named == class)?;
        let percent = self.percent(limits, device, now_ms);
        let parts = if time.quality == ClockQuality::Suspect {
            2
        } else {
            1
        };
        // Moved first, and then halved: each step rounds down.
        let moved = |amount: u64| amount * percent / 100 / parts;
        let whole = |amount: u64| amount / parts;
        let (of_device, store) = (
            self.room(&Subject::Device(device), of_device, &moved, parts),
            self.room(&Subject::Store, &limits.store, &whole, parts),
        );
        let in_window = limits.windows.device.map_or(u64::from(u32::MAX), |window| {
            let counted = u64::from(self.lately(&Subject::Device(device), window, now_ms))
                + u64::from(self.kept_back(&Subject::Device(device)).1);
            (u64::from(window.count) / parts).saturating_sub(counted)
        });
        // Any of the staff may stand there.
        let of_staff = limits.people.staff.as_ref().map_or((u64::MAX, u64::MAX), |pair| {
            Self::left(
                self.most_of_staff(),
                self.kept_back(&Subject::Store),
                pair,
                &moved,
                parts,
            )
        });
        let amount_minor = rules.amount.min(of_device.0).min(store.0).min(of_staff.0);
        let not_for_the_hub = limits.card.exposure.saturating_sub(self.hub_part(limits));
        let aside = (rules.set_aside(limits.card.exposure) * percent / 100).min(not_for_the_hub) / parts;
        let card = moved(rules.of_card(limits.card.exposure));
        let card = card.min(aside.saturating_sub(self.card_out_of_reach()));
        let count = u64::from(rules.count)
            .min(of_device.1)
            .min(store.1)
            .min(of_staff.1)
            .min(in_window);
        let kinds = limits.kinds.iter().filter(|kind| kind.fits_class(*class));
        let lowest = kinds.map(|kind: &Kind| moved(kind.amount)).min();
        let one = moved(*transaction).min(lowest.unwrap_or(u64::MAX));
        let allowance = Allowance {
            hub: wire::HUB,
            device,
            number: 0,
            amount_minor,
            count: u32::try_from(count).ok()?,
            transaction_ceiling_minor: rules.transaction.min(one).min(amount_minor),
            card_ceiling_minor: card.min(amount_minor),
            currency: Currency::EUR,
            schemes: limits.schemes.clone(),
            funding: limits.funding.clone(),
            entry_modes: limits.entry_modes.clone(),
            unverified_tap_ceiling_minor: limits.unverified.map(whole),
            issued_ms: now_ms,
            expires_ms: self.ends_ms(limits, device, rules, now_ms),
            policy_version: limits.version,
        };
        let some = allowance.count > 0
            && allowance.transaction_ceiling_minor > 0
            && allowance.card_ceiling_minor > 0
            && allowance.expires_ms > now_ms;
        some.then_some(allowance)
    }

    /// What a subject has room for: minor units, and payments that nobody has
    /// to be verified for.
    fn room(&self, subject: &Subject, pair: &Pair, held: &dyn Fn(u64) -> u64, parts: u64) -> (u64, u64) {
        let [exposure] = self.exposures(core::array::from_ref(subject));
        let back = self.kept_back(subject);
        Self::left((exposure, self.consecutive(subject)), back, pair, held, parts)
    }

    fn left(
        (exposure, consecutive): (u64, u32),
        back: (u64, u32),
        pair: &Pair,
        held: &dyn Fn(u64) -> u64,
        parts: u64,
    ) -> (u64, u64) {
        let in_a_row = u64::from(consecutive) + u64::from(back.1);
        let most = u64::from(pair.consecutive) / parts;
        let lower = pair.lower.map_or(u64::MAX, |lower| u64::from(lower) / parts);
        (
            held(pair.exposure).saturating_sub(exposure + back.0),
            most.min(lower).saturating_sub(in_a_row),
        )
    }

    /// With the policy, the longest time offline, closing time, the word on the
    /// device, or the share of the ceilings that it was given under.
    fn ends_ms(&self, limits: &Limits, device: DeviceId, rules: &Allowances, now_ms: u64) -> u64 {
        let (alone_ms, percent) = (self.alone_ms(now_ms), self.percent(limits, device, now_ms));
        let began_ms = now_ms - alone_ms;
        let mut ends = vec![
            now_ms + rules.valid_ms(),
            limits.expires_ms,
            began_ms + limits.longest_ms,
        ];
        ends.extend(self.word_changes_ms(limits, device, now_ms));
        for step in &limits.outage {
            let at_ms = began_ms + step.from * MINUTE_MS;
            if at_ms > now_ms && step.percent < percent {
                ends.push(at_ms);
            }
        }
        let latest = ends.into_iter().min().unwrap_or(now_ms);
        let Some(hours) = limits.hours.as_ref().filter(|hours| !hours.approve_outside) else {
            return latest;
        };
        let minutes = (now_ms / MINUTE_MS + 1..).map(|minute| minute * MINUTE_MS);
        let closes = minutes
            .take_while(|at| *at < latest)
            .find(|at| !hours.is_open(*at));
        closes.unwrap_or(latest)
    }
}
