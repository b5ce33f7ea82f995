//! `hubctl doctor`: a hub's folder and its machine, looked over.
//!
//! Exit code 0: nothing has to be done, there may be warnings; 1: something
//! has to. The hub need not be running; what only a running hub knows is then
//! left out and said so.

mod certificate;
mod folder;
mod host;
mod running;

use std::path::Path;

#[cfg(fuzzing)]
pub(crate) use certificate::fuzz as fuzz_certificate;
use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, table};
use super::show::count;
use crate::config::{Config, Layout};

/// Where systemd keeps the credentials of the hub's unit while it runs.
const UNIT_CREDENTIALS: &str = "/run/credentials/hubd.service";

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Standing {
    /// As it should be.
    Good,
    /// The hub works; a person should know.
    Warning,
    /// Something has to be done.
    Bad,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "look",
            Self::Bad => "BAD",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    standing: Standing,
    /// What was found, and what to do.
    text: String,
}

impl Finding {
    fn good(check: &'static str, text: impl Into<String>) -> Self {
        Self::of(check, Standing::Good, text)
    }

    fn warning(check: &'static str, text: impl Into<String>) -> Self {
        Self::of(check, Standing::Warning, text)
    }

    fn bad(check: &'static str, text: impl Into<String>) -> Self {
        Self::of(check, Standing::Bad, text)
    }

    fn of(check: &'static str, standing: Standing, text: impl Into<String>) -> Self {
        Self {
            check,
            standing,
            text: text.into(),
        }
    }
}

#[derive(Serialize)]
struct Report {
    healthy: bool,
    findings: Vec<Finding>,
}

/// Looks, and prints what was found.
pub(super) fn doctor(output: &Output, dir: &Path, client: Result<Client, Failure>) -> Result<(), Failure> {
    let credentials = Path::new(UNIT_CREDENTIALS);
    let layout = Layout::new(dir);
    let mut findings = Vec::new();
    // Of a hub whose keys lie in its folder, another's are none of the
    // doctor's business.
    let loaded = match layout.signing_key.exists() {
        true => Config::load(dir),
        false => Config::load_with(dir, Some(credentials)),
    };
    let config = folder::configuration(loaded, &mut findings);
    findings.push(folder::key_files(&layout));
    findings.push(folder::keys_at_rest(&layout, credentials));
    findings.push(folder::format(&layout));
    if let Some(config) = &config {
        findings.push(folder::key_ages(config));
        findings.extend(folder::next_key(config));
        findings.extend(folder::next_vault_key(config));
        findings.extend(folder::policy_key(config));
        findings.push(folder::recovery_key(config));
        findings.push(folder::policy(config));
        findings.push(folder::gateway(config));
        findings.extend(config.gateway.ca_file.as_deref().map(certificate::authority));
        findings.push(host::disk(config));
        findings.push(host::addresses(config));
    }
    findings.push(host::clock());
    let next_tls = config.as_ref().and_then(|config| config.keys.next_tls.as_ref());
    findings.extend(running::look(client, next_tls.map(|key| key.digest)));
    let worst = findings.iter().map(|finding| finding.standing).max();
    let report = Report {
        healthy: worst < Some(Standing::Bad),
        findings,
    };
    output.print(&report, || printed(&report))?;
    if report.healthy {
        return Ok(());
    }
    let bad = report.findings.iter().filter(|f| f.standing == Standing::Bad);
    Err(Failure::Refused(format!(
        "{} to be put right",
        count(bad.count() as u64, "thing", "things")
    )))
}

fn printed(report: &Report) -> String {
    let mut rows = table(["", "what", "how it stands"]);
    for finding in &report.findings {
        rows.add_row([finding.standing.word(), finding.check, &finding.text]);
    }
    rows.to_string()
}
