//! `hubctl policy rehearse`: the shop's own ledger under another policy.

use std::collections::BTreeSet;
use std::path::Path;

use hub_core::policy::Policy;
use hub_protocol::Reason;
use hub_protocol::entry::DecisionRecord;
use indicatif::ProgressBar;
use jiff::{Span, SpanRound, Timestamp, Unit};
use serde::Serialize;

use super::super::failure::Failure;
use super::super::ledger::{contents, place, progress, seal, unreadable};
use super::super::output::Output;
use super::super::show::Language;
use super::Loaded;
use super::rehearsed::described;
use crate::clock;
use crate::config::Config;
use crate::ledger::{self, Fault, Progress};
use crate::rehearsal::{Changed, Findings, Rehearsal, Side, rule_key};

/// So many of the changed payments are listed.
const LISTED: usize = 10;

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Since {
    /// So many milliseconds ago.
    Ago(u64),
    /// From this instant, milliseconds since 1970 UTC.
    At(u64),
}

/// "30d", "12h", or an instant.
pub(in super::super) fn since(text: &str) -> Result<Since, String> {
    let expected = || {
        "a time such as \"30d\" or \"12h\", or an instant such as 2026-11-01T00:00:00Z, expected".to_owned()
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        return u64::try_from(at.as_millisecond())
            .map(Since::At)
            .map_err(|_| expected());
    }
    let span: Span = text.parse().map_err(|_| expected())?;
    let whole = SpanRound::new().largest(Unit::Millisecond).days_are_24_hours();
    let whole = span.round(whole).map_err(|_| expected())?;
    let ms = whole.get_milliseconds();
    u64::try_from(ms).map(Since::Ago).map_err(|_| expected())
}

#[derive(Serialize)]
pub(super) struct Report {
    /// The store of this hub, if the policy is not for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other_store: Option<String>,
    pub(super) policy_version: u64,
    pub(super) ledger: String,
    pub(super) since_ms: u64,
    /// Times of the first and the last entry that was rehearsed.
    pub(super) first_ms: Option<u64>,
    pub(super) last_ms: Option<u64>,
    pub(super) payments: u64,
    /// Decided with the gateway, or for a reason that is no policy's.
    pub(super) as_they_were: u64,
    /// Decided by a policy.
    pub(super) decided_offline: u64,
    pub(super) otherwise: u64,
    /// Decided the same way, for another reason.
    pub(super) other_reason: u64,
    /// Left as they were: their device is enrolled in an archive elsewhere.
    pub(super) unknown_device: u64,
    pub(super) before: Sums,
    pub(super) under_policy: Sums,
    pub(super) reasons: Vec<ReasonCounts>,
    pub(super) first_changed: Vec<Shown>,
    /// Archives that are elsewhere; what they hold was not seen.
    pub(super) archives_away: Vec<u32>,
}

#[derive(Serialize)]
pub(super) struct Sums {
    pub(super) approved_offline: u64,
    pub(super) approved_offline_minor: u64,
    pub(super) declined: u64,
    pub(super) fallback: u64,
    pub(super) highest_exposure_minor: u64,
    /// Approved offline, and declined by the issuer in the end.
    pub(super) declined_at_replay: u64,
    pub(super) declined_at_replay_minor: u64,
}

impl From<&Side> for Sums {
    fn from(side: &Side) -> Self {
        Self {
            approved_offline: side.approved.0,
            approved_offline_minor: side.approved.1,
            declined: side.declined,
            fallback: side.fallback,
            highest_exposure_minor: side.highest_minor,
            declined_at_replay: side.declined_later.0,
            declined_at_replay_minor: side.declined_later.1,
        }
    }
}

#[derive(Serialize)]
pub(super) struct ReasonCounts {
    pub(super) reason: &'static str,
    pub(super) before: u64,
    pub(super) under_policy: u64,
}

/// A payment that would have been decided otherwise.
#[derive(Serialize)]
pub(super) struct Shown {
    pub(super) payment_id: String,
    pub(super) at_ms: u64,
    pub(super) class: &'static str,
    pub(super) amount_minor: u64,
    pub(super) currency: String,
    pub(super) before: ShownDecision,
    pub(super) under_policy: ShownDecision,
}

#[derive(Serialize)]
pub(super) struct ShownDecision {
    pub(super) decision: &'static str,
    pub(super) reason: &'static str,
    /// The key of the new policy that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<String>,
}

impl ShownDecision {
    fn new(record: &DecisionRecord, rule: Option<String>) -> Self {
        Self {
            decision: record.decision.name(),
            reason: record.reason.name(),
            rule,
        }
    }
}

pub(in super::super) fn rehearse(
    output: &Output,
    Loaded { policy, .. }: Loaded,
    since: Since,
    dir: &Path,
    (hub_key, vault_key): (Option<&str>, Option<&Path>),
) -> Result<(), Failure> {
    let place = place(dir, hub_key)?;
    let seal = seal(dir, &place.ledger, vault_key)?;
    let since_ms = match since {
        Since::Ago(ms) => clock::wall_ms().saturating_sub(ms),
        Since::At(ms) => ms,
    };
    let mut rehearsal = Rehearsal::new(policy.clone(), since_ms, LISTED);
    let mut unfit = None;
    let bar = progress(output);
    let read = ledger::read_each(
        &place.ledger,
        &place.key,
        contents(seal.as_ref()),
        &mut |verified| {
            if let (Some(entry), None) = (verified.entry, &unfit) {
                unfit = rehearsal.entry(entry).err();
            }
        },
        &mut |progress| show(&bar, progress),
    )
    .map_err(unreadable)?;
    bar.finish_and_clear();
    if read.unread() > 0 {
        return Err(Failure::Usage(
            "what the ledger's entries say is encrypted: give the hub's vault key by --vault-key, or run this on the hub as one who can read keys/hub-vault.key"
                .to_owned(),
        ));
    }
    if let Some(error) = unfit {
        return Err(Failure::Unverified(format!(
            "the ledger cannot be rehearsed: {error}"
        )));
    }
    // A hub that is running writes at the end; what is whole before it counts.
    let broken = read
        .broken
        .filter(|broken| !matches!(broken.fault, Fault::TornTail { .. }));
    if let Some(broken) = broken {
        return Err(Failure::Unverified(format!(
            "the ledger does not verify, so nothing is rehearsed on it: {broken}; if the hub is running, \
             try again; else `hubctl ledger verify` tells more"
        )));
    }
    let findings = rehearsal.finish();
    if let Some(other) = findings.other_currency {
        return Err(Failure::Unverified(format!(
            "the policy is in {}, and the ledger has payments in {other}: only a policy in the shop's currency can be rehearsed on it",
            policy.currency
        )));
    }
    // A copied ledger does not say whose it was.
    let store_id = Config::store_id(dir).ok().flatten();
    let report = Report {
        other_store: store_id.filter(|id| !policy.covers(id)),
        ledger: place.ledger.display().to_string(),
        archives_away: read.away.iter().map(|away| away.number).collect(),
        ..report(&policy, since_ms, &findings)
    };
    output.print(&report, || {
        described(&report, &policy, Language::of_environment())
    })
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.of_segments as u64);
    bar.set_position(progress.segments as u64);
    bar.set_message(progress.entries.to_string());
}

fn report(policy: &Policy, since_ms: u64, findings: &Findings) -> Report {
    let (before, after) = (&findings.before, &findings.after);
    let reasons: BTreeSet<Reason> = before
        .reasons
        .keys()
        .chain(after.reasons.keys())
        .copied()
        .collect();
    let of = |side: &Side, reason: &Reason| side.reasons.get(reason).copied().unwrap_or(0);
    Report {
        other_store: None,
        policy_version: policy.version,
        ledger: String::new(),
        since_ms,
        first_ms: findings.times.map(|(first, _)| first),
        last_ms: findings.times.map(|(_, last)| last),
        payments: findings.as_they_were + findings.offline,
        as_they_were: findings.as_they_were,
        decided_offline: findings.offline,
        otherwise: findings.otherwise,
        other_reason: findings.other_reason,
        unknown_device: findings.unknown_device,
        before: before.into(),
        under_policy: after.into(),
        reasons: reasons
            .iter()
            .map(|reason| ReasonCounts {
                reason: reason.name(),
                before: of(before, reason),
                under_policy: of(after, reason),
            })
            .collect(),
        first_changed: findings
            .first
            .iter()
            .map(|changed| shown(policy, changed))
            .collect(),
        archives_away: Vec::new(),
    }
}

fn shown(policy: &Policy, changed: &Changed) -> Shown {
    let request = &changed.request;
    let rule = rule_key(
        changed.after.record.reason,
        request,
        changed.class,
        policy,
        Some(&changed.after),
    );
    Shown {
        payment_id: changed.payment_id.to_string(),
        at_ms: changed.at_ms,
        class: changed.class.name(),
        amount_minor: request.amount_minor(),
        currency: request.currency.to_string(),
        before: ShownDecision::new(&changed.before, None),
        under_policy: ShownDecision::new(&changed.after.record, rule),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_ago_or_an_instant() {
        const DAY: u64 = 86_400_000;
        assert_eq!(since("30d"), Ok(Since::Ago(30 * DAY)));
        assert_eq!(since("12h"), Ok(Since::Ago(DAY / 2)));
        assert_eq!(since("1970-01-02T00:00:00Z"), Ok(Since::At(DAY)));
        for wrong in ["", "thirty", "-3d", "30"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
