//! What only a running hub knows.

use super::Finding;
use crate::admin::protocol::{Answer, Request, RootReport, StatusReport};
use crate::clock;
use crate::config::NEAR_END_OF_ROOT_MS;
use crate::ctl::client::Client;
use crate::ctl::failure::Failure;
use crate::ctl::show::{instant, span};

/// How a core dump's largest size is named in `/proc/PID/limits`.
const CORE_LIMIT: &str = "Max core file size";

pub(super) fn look(client: Result<Client, Failure>) -> Vec<Finding> {
    let client = match client {
        Ok(client) => client,
        Err(failure) => return vec![Finding::warning("hub", failure.to_string())],
    };
    let mut findings = match client.ask(&Request::Status) {
        Ok(Answer::Status(report)) => standing(&report),
        Ok(other) => vec![Finding::bad("hub", Client::unexpected(&other).to_string())],
        Err(failure) => vec![Finding::bad("hub", failure.to_string())],
    };
    let limits = client
        .process()
        .and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    findings.push(core_dumps(limits.as_deref()));
    findings
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
