//! What only a running hub knows.

use hub_protocol::Digest;

use super::Finding;
use crate::admin::protocol::{Answer, KeyReport, Request, RootReport, StatusReport};
use crate::clock;
use crate::config::NEAR_END_OF_ROOT_MS;
use crate::ctl::client::Client;
use crate::ctl::failure::Failure;
use crate::ctl::show::{instant, span};

/// How a core dump's largest size is named in `/proc/PID/limits`.
const CORE_LIMIT: &str = "Max core file size";

/// From how long on two TLS keys are not to overlap any more.
const LONG_OVERLAP_MS: u64 = 30 * DAY_MS;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Asks the hub. `next_tls` is the TLS key that lies there to be the next.
pub(super) fn look(client: Result<Client, Failure>, next_tls: Option<Digest>) -> Vec<Finding> {
    let client = match client {
        Ok(client) => client,
        Err(failure) => return vec![Finding::warning("hub", failure.to_string())],
    };
    let mut findings = match client.ask(&Request::Status) {
        Ok(Answer::Status(report)) => standing(&report),
        Ok(other) => vec![Finding::bad("hub", Client::unexpected(&other).to_string())],
        Err(failure) => vec![Finding::bad("hub", failure.to_string())],
    };
    if let Ok(Answer::Keys { keys }) = client.ask(&Request::Keys) {
        findings.extend(tls_overlap(&keys, clock::wall_ms()));
        findings.extend(unused_tls_key(&keys, next_tls));
    }
    let limits = client
        .process()
        .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    findings.push(core_dumps(limits.as_deref()));
    findings
}

/// Two TLS keys for long: whoever has copied the old one can still pose as the
/// hub to devices that cannot follow.
fn tls_overlap(keys: &[KeyReport], now_ms: u64) -> Option<Finding> {
    let next = keys.iter().find(|key| key.purpose == "tls-next")?;
    let since_ms = next.since_ms?;
    let lasts_ms = now_ms.saturating_sub(since_ms);
    (lasts_ms > LONG_OVERLAP_MS).then(|| {
        Finding::warning(
            "TLS keys",
            format!(
                "two have been in use since {} ({} days), and the old one counts for as long: `hubctl keys rotate \
                 tls` says who has not followed, `--finish` ends it",
                instant(since_ms),
                lasts_ms / DAY_MS
            ),
        )
    })
}

/// A TLS key that lies there and is not in use.
fn unused_tls_key(keys: &[KeyReport], next: Option<Digest>) -> Option<Finding> {
    let next = next?.to_string();
    let mut used = keys.iter().filter(|key| key.purpose.starts_with("tls"));
    let unused = used.all(|key| key.id.as_ref() != Some(&next));
    unused.then(|| {
        Finding::warning(
            "next TLS key",
            "hub-tls.next.key is there and not in use; if you have just supplied it, give `hubctl keys rotate tls` \
             now, and if not, destroy it with `shred -u`, because somebody may have copied it",
        )
    })
}

/// The root in force, as the ledger has it.
fn root(report: &RootReport) -> Finding {
    const CHECK: &str = "root";
    let version = report.version;
    if let Some(objection) = &report.policy_objection {
        return Finding::bad(
            CHECK,
            format!("version {version}: the policy does not count, nothing is approved offline: {objection}"),
        );
    }
    let until = instant(report.expires_ms);
    match report.expires_ms.checked_sub(clock::wall_ms()) {
        None | Some(0) => Finding::bad(
            CHECK,
            format!(
                "version {version} expired at {until}: nothing is approved offline; hubctl root apply the next one"
            ),
        ),
        Some(left) if left < NEAR_END_OF_ROOT_MS => Finding::warning(
            CHECK,
            format!(
                "version {version} ends in {}; ask headquarters for the next one",
                span(left / 1000)
            ),
        ),
        Some(_) => Finding::good(CHECK, format!("version {version}, until {until}")),
    }
}

fn standing(report: &StatusReport) -> Vec<Finding> {
    let mut findings = vec![Finding::good(
        "hub",
        format!("running, version {}, gateway {}", report.version, report.wan),
    )];
    if report.version != env!("CARGO_PKG_VERSION") {
        findings.push(Finding::warning(
            "hub",
            format!("this hubctl is of version {}", env!("CARGO_PKG_VERSION")),
        ));
    }
    if report.clock_suspect {
        findings.push(Finding::warning(
            "hub",
            "its clock is in doubt and limits are halved: hubctl clock confirm",
        ));
    }
    match report.storage.as_str() {
        "full" => findings.push(Finding::bad(
            "hub",
            "its disk is full: nothing is approved offline",
        )),
        "low" => findings.push(Finding::warning("hub", "its disk is filling up")),
        _ => {}
    }
    findings.extend(report.root.as_ref().map(root));
    if report.parked > 0 {
        findings.push(Finding::warning(
            "hub",
            format!("{} payments wait for a person: hubctl queue", report.parked),
        ));
    }
    findings
}

fn core_dumps(limits: Option<&str>) -> Finding {
    const CHECK: &str = "core dumps";
    let line = limits.and_then(|limits| limits.lines().find_map(|line| line.strip_prefix(CORE_LIMIT)));
    let mut most = line.into_iter().flat_map(str::split_whitespace);
    match (most.next(), most.next()) {
        (Some("0"), Some("0")) => Finding::good(CHECK, "off"),
        (Some(_), Some(_)) => Finding::bad(
            CHECK,
            "on: one would hold the hub's keys; LimitCORE=0 in its unit",
        ),
        _ => Finding::warning(CHECK, "the hub's process cannot be looked at; ask as root"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    fn key(purpose: &str, id: u8, since_ms: Option<u64>) -> KeyReport {
        KeyReport {
            purpose: purpose.to_owned(),
            id: Some(Digest([id; 32]).to_string()),
            since_ms,
            ..KeyReport::default()
        }
    }

    #[test]
    fn an_overlap_of_tls_keys_is_told_of_after_thirty_days_and_since_when() {
        let (since_ms, old) = (1_774_688_730_000, key("tls", 1, None));
        let both = [old.clone(), key("tls-next", 2, Some(since_ms))];
        assert!(tls_overlap(&both, since_ms + 30 * DAY_MS).is_none());
        let told = tls_overlap(&both, since_ms + 30 * DAY_MS + 1).unwrap();
        assert_eq!(told.standing, Standing::Warning);
        assert!(told.text.contains(&instant(since_ms)), "{}", told.text);
        assert!(told.text.contains("30 days"), "{}", told.text);
        assert!(tls_overlap(&[old], u64::MAX).is_none(), "there is one");
    }

    #[test]
    fn a_next_tls_key_is_in_use_once_the_hub_is_reached_under_it() {
        let [old, next] = [1, 2].map(|id| Digest([id; 32]));
        let before = [key("tls", 1, None), key("signing", 2, None)];
        assert!(unused_tls_key(&before, None).is_none());
        assert!(unused_tls_key(&before, Some(next)).is_some());
        assert!(unused_tls_key(&before, Some(old)).is_none(), "as after a change");
        let during = [key("tls", 1, None), key("tls-next", 2, Some(1))];
        assert!(unused_tls_key(&during, Some(next)).is_none());
    }

    #[test]
    fn core_dumps_are_off_only_if_nothing_may_switch_them_on() {
        let limits = |soft: &str, hard: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax core file size   {soft}   {hard}   bytes\n")
        };
        let standing = |limits: String| core_dumps(Some(&limits)).standing;
        assert_eq!(standing(limits("0", "0")), Standing::Good);
        assert_eq!(standing(limits("0", "unlimited")), Standing::Bad);
        assert_eq!(standing(String::new()), Standing::Warning);
    }
}
