//! Many days, in figures. Every figure is a sum of whole numbers, so that it
//! does not depend on which thread played which day.

use std::sync::atomic::{AtomicU64, Ordering};

use hub_core::policy::Policy;
use hub_protocol::AnomalyKind;

use super::play::{By, Played, play};
use super::scenarios::Scenario;

/// Flags of one device that are no further apart are one alarm.
const ALARM_MS: u64 = 30 * 60_000;

/// Seeds, from the first to the last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// The first.
    pub first: u64,
    /// The last.
    pub last: u64,
}

impl Seeds {
    fn count(self) -> u64 {
        self.last.saturating_sub(self.first) + 1
    }

    /// Whether no seed is in both.
    pub fn apart(self, other: Self) -> bool {
        self.last < other.first || other.last < self.first
    }
}

impl core::str::FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text}: two seeds expected, such as 1-200");
        let (first, last) = text.split_once('-').ok_or_else(wrong)?;
        let number = |text: &str| text.trim().parse::<u64>().map_err(|_| wrong());
        let seeds = Self {
            first: number(first)?,
            last: number(last)?,
        };
        if seeds.first > seeds.last {
            return Err(wrong());
        }
        Ok(seeds)
    }
}

impl core::fmt::Display for Seeds {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// A policy that days are played under.
#[derive(Clone, Debug)]
pub struct Contender {
    /// As reports call it.
    pub name: String,
    /// As headquarters writes it.
    pub text: String,
    /// As the core reads it.
    pub policy: Policy,
}

impl Contender {
    /// # Errors
    /// The faults of a policy that is not good.
    pub fn new(name: &str, text: String) -> Result<Self, String> {
        let policy = Policy::parse(text.as_bytes()).map_err(|faults| {
            let lines: Vec<_> = faults.iter().map(|fault| format!("{name}, {fault}")).collect();
            format!("not a policy\n{}", lines.join("\n"))
        })?;
        Ok(Self {
            name: name.to_owned(),
            text,
            policy,
        })
    }
}

/// What the days of one scenario, or the honest ones, came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Days played.
    pub days: u64,
    /// Payments that honest customers asked for, on- and offline, but for
    /// bystanders'.
    pub honest: u64,
    /// Of them, flagged.
    pub honest_flagged: u64,
    /// Payments that honest customers asked for at a device that the attacker
    /// controlled or had copied by then.
    pub bystanders: u64,
    /// Of them, flagged.
    pub bystanders_flagged: u64,
    /// Honest payments asked for offline, bystanders' too.
    pub honest_offline: u64,
    /// Of them, approved.
    pub honest_approved: u64,
    /// Honest refunds asked for, on- and offline, bystanders' too.
    pub refunds: u64,
    /// Of them, flagged.
    pub refunds_flagged: u64,
    /// Of them, asked for offline.
    pub refunds_offline: u64,
    /// Of those, approved.
    pub refunds_approved: u64,
    /// Payments that attackers asked for.
    pub fraud: u64,
    /// Of them, flagged.
    pub fraud_flagged: u64,
    /// Of them, approved.
    pub fraud_approved: u64,
    /// Attacks of at least one payment.
    pub incidents: u64,
    /// Attacks with a flag at one of their payments.
    pub incidents_flagged: u64,
    /// Attacks with a flag at one of their payments or a bystander's.
    pub incidents_flagged_at_device: u64,
    /// Alarms: flags of one device that are close in time.
    pub alarms: u64,
    /// Alarms with a flag at a payment of the attack or a bystander's.
    pub alarms_true: u64,
    /// What attackers were let through, minor units.
    pub let_through: u64,
    /// Of it, until the first flag at a payment of the attack, that one not
    /// included; all of it for an attack without a flag.
    pub let_through_unflagged: u64,
    /// The most that one attack was let through.
    pub let_through_most: u64,
    /// Honest payments at which each anomaly was found, in the order of
    /// [`AnomalyKind::ALL`].
    pub honest_found: Found,
    /// The same of bystanders'.
    pub bystanders_found: Found,
    /// The same of attackers'.
    pub fraud_found: Found,
}

/// A number for each kind of anomaly.
pub type Found = [u64; AnomalyKind::ALL.len()];

impl Tally {
    fn day(played: &[Played]) -> Self {
        let mut tally = Self {
            days: 1,
            ..Self::default()
        };
        for one in played {
            tally.count(one);
        }
        tally.incidents = u64::from(tally.fraud > 0);
        tally.incidents_flagged = u64::from(tally.fraud_flagged > 0);
        tally.incidents_flagged_at_device = u64::from(tally.fraud_flagged + tally.bystanders_flagged > 0);
        tally.let_through_most = tally.let_through;
        (tally.alarms, tally.alarms_true) = alarms(played);
        tally
    }

    fn count(&mut self, one: &Played) {
        let (flagged, approved) = (
            u64::from(one.seen.flagged),
            u64::from(one.seen.decision.approved()),
        );
        let kinds = match one.by {
            By::Attacker => &mut self.fraud_found,
            By::Bystander => &mut self.bystanders_found,
            By::Honest => &mut self.honest_found,
        };
        for (place, sum) in kinds.iter_mut().enumerate() {
            *sum += u64::from(one.seen.found >> place & 1);
        }
        if one.by == By::Attacker {
            self.fraud += 1;
            self.fraud_flagged += flagged;
            self.fraud_approved += approved;
            self.let_through += one.amount * approved;
            if self.fraud_flagged == 0 {
                self.let_through_unflagged += one.amount * approved;
            }
            return;
        }
        if one.by == By::Bystander {
            self.bystanders += 1;
            self.bystanders_flagged += flagged;
        } else {
            self.honest += 1;
            self.honest_flagged += flagged;
        }
        let (offline, refund) = (u64::from(one.offline), u64::from(one.refund));
        self.honest_offline += offline;
        self.honest_approved += approved * offline;
        self.refunds += refund;
        self.refunds_flagged += refund * flagged;
        self.refunds_offline += refund * offline;
        self.refunds_approved += refund * approved * offline;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.days += other.days;
        self.honest += other.honest;
        self.honest_flagged += other.honest_flagged;
        self.bystanders += other.bystanders;
        self.bystanders_flagged += other.bystanders_flagged;
        self.honest_offline += other.honest_offline;
        self.honest_approved += other.honest_approved;
        self.refunds += other.refunds;
        self.refunds_flagged += other.refunds_flagged;
        self.refunds_offline += other.refunds_offline;
        self.refunds_approved += other.refunds_approved;
        self.fraud += other.fraud;
        self.fraud_flagged += other.fraud_flagged;
        self.fraud_approved += other.fraud_approved;
        self.incidents += other.incidents;
        self.incidents_flagged += other.incidents_flagged;
        self.incidents_flagged_at_device += other.incidents_flagged_at_device;
        self.alarms += other.alarms;
        self.alarms_true += other.alarms_true;
        self.let_through += other.let_through;
        self.let_through_unflagged += other.let_through_unflagged;
        self.let_through_most = self.let_through_most.max(other.let_through_most);
        for (sums, others) in [
            (&mut self.honest_found, &other.honest_found),
            (&mut self.bystanders_found, &other.bystanders_found),
            (&mut self.fraud_found, &other.fraud_found),
        ] {
            for (sum, one) in sums.iter_mut().zip(others) {
                *sum += one;
            }
        }
    }
}

fn alarms(played: &[Played]) -> (u64, u64) {
    let mut flags: Vec<(usize, u64, bool)> = played
        .iter()
        .filter(|one| one.seen.flagged)
        .map(|one| (one.device, one.at_ms, one.by != By::Honest))
        .collect();
    flags.sort_unstable();
    let mut groups: Vec<bool> = Vec::new();
    let mut last: Option<(usize, u64)> = None;
    for (device, at_ms, is_true) in flags {
        let same = last.is_some_and(|(before, ms)| before == device && at_ms - ms <= ALARM_MS);
        match groups.last_mut().filter(|_| same) {
            Some(group) => *group |= is_true,
            None => groups.push(is_true),
        }
        last = Some((device, at_ms));
    }
    let count = |of: bool| groups.iter().filter(|group| !of || **group).count() as u64;
    (count(false), count(true))
}

/// What one policy came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Days without fraud.
    pub honest: Tally,
    /// The same days, each with one attack.
    pub scenarios: Vec<(Scenario, Tally)>,
}

impl Measured {
    /// Everything together.
    pub fn all(&self) -> Tally {
        let mut all = self.honest;
        for (_, tally) in &self.scenarios {
            all.add(tally);
        }
        all
    }

    /// The days with an attack.
    pub fn fraud(&self) -> Tally {
        let mut all = Tally::default();
        for (_, tally) in &self.scenarios {
            all.add(tally);
        }
        all
    }
}

/// Plays each day once without fraud and once with each kind of it.
/// `progress` is told how many seeds are done.
pub fn measure(
    contender: &Contender,
    seeds: Seeds,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Measured {
    measure_with(contender, seeds, &Scenario::ALL, threads, progress)
}

/// The same with some kinds of fraud only.
pub fn measure_with(
    contender: &Contender,
    seeds: Seeds,
    attacks: &[Scenario],
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Measured {
    let next = AtomicU64::new(0);
    let done = AtomicU64::new(0);
    let work = || {
        let mut sums = vec![Tally::default(); attacks.len() + 1];
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= seeds.count() {
                return sums;
            }
            let scenarios = core::iter::once(None).chain(attacks.iter().copied().map(Some));
            for (sum, scenario) in sums.iter_mut().zip(scenarios) {
                let played = play(seeds.first + place, scenario, &contender.policy, &contender.text);
                sum.add(&Tally::day(&played));
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    let mut sums = vec![Tally::default(); attacks.len() + 1];
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            // A panic in a worker is a fault of the program.
            let found = worker.join().unwrap_or_default();
            for (sum, one) in sums.iter_mut().zip(&found) {
                sum.add(one);
            }
        }
    });
    Measured {
        honest: sums.first().copied().unwrap_or_default(),
        scenarios: attacks
            .iter()
            .copied()
            .zip(sums.iter().skip(1).copied())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ranges_of_seeds_are_apart_if_none_is_in_both() {
        let seeds = |text: &str| text.parse::<Seeds>().unwrap();
        assert!(seeds("1-200").apart(seeds("201-400")));
        assert!(!seeds("1-200").apart(seeds("200-400")));
        assert!("7".parse::<Seeds>().is_err() && "9-8".parse::<Seeds>().is_err());
        assert_eq!(seeds("3-3").count(), 1);
    }
}
