//! `hubctl keys recover`: the store of a lost machine, in a restored folder.

use std::path::Path;

use data_encoding::HEXLOWER;
use hub_protocol::HubId;
use serde::Serialize;

use super::failure::Failure;
use super::ledger::unreadable;
use super::output::Output;
use crate::admin::Operator;
use crate::config::{self, Layout};
use crate::data_key::StoreKey;
use crate::ledger::{self, signing_keys};
use crate::run;

#[derive(Serialize)]
struct Report {
    /// Whether the store has a new vault key; not with `--check`.
    recovered: bool,
    hub_id: String,
    recovery_key: String,
    /// The id of the new vault key.
    #[serde(skip_serializing_if = "Option::is_none")]
    vault_key: Option<String>,
    /// Whether the hub can go on from this folder.
    can_go_on: bool,
    /// What else is lost, and what to do about it.
    missing: Vec<Missing>,
}

#[derive(Serialize)]
struct Missing {
    what: &'static str,
    text: &'static str,
}

pub(super) fn recover(output: &Output, dir: &Path, file: &Path, check: bool) -> Result<(), Failure> {
    let layout = Layout::new(&std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned()));
    let secret = config::read_recovery_secret(file).map_err(|error| Failure::Usage(error.to_string()))?;
    let hub = hub_of(&layout)?;
    let vault_key = if check {
        StoreKey::recover(&layout, hub, &secret).map_err(|error| Failure::Refused(error.to_string()))?;
        None
    } else {
        let operator = Operator {
            uid: rustix::process::getuid().as_raw(),
        };
        let id = run::recover(&layout, hub, &secret, &operator.to_string(), &mut |_| Ok(()));
        Some(id.map_err(|error| Failure::Refused(error.to_string()))?)
    };
    let missing = missing(&layout);
    let report = Report {
        recovered: vault_key.is_some(),
        hub_id: hub.to_string(),
        recovery_key: HEXLOWER.encode(&secret.public().id()),
        vault_key: vault_key.map(|id| HEXLOWER.encode(&id)),
        can_go_on: missing.is_empty(),
        missing,
    };
    output.print(&report, || told(&report))
}

fn told(report: &Report) -> String {
    let mut lines = vec![match &report.vault_key {
        Some(id) => format!(
            "The store of hub {} opens with the new vault key {id}, which lies in keys/hub-vault.key.",
            report.hub_id
        ),
        None => format!(
            "Recovery key {} opens the store of hub {}. Nothing was changed.",
            report.recovery_key, report.hub_id
        ),
    }];
    lines.extend(
        report
            .missing
            .iter()
            .map(|missing| format!("- {}: {}", missing.what, missing.text)),
    );
    if report.recovered && report.can_go_on {
        lines.push(
            "Back up keys/ and data-key together. The lost machine must never run again: block its access at the \
             gateway and destroy its disk. Then start hubd here: it goes on where this copy ends, looks up at the \
             gateway what may have been sent long ago, and sends what waits."
                .to_owned(),
        );
    }
    lines.join("\n")
}

/// Whose ledger lies in the folder.
fn hub_of(layout: &Layout) -> Result<HubId, Failure> {
    ledger::hub_of(&layout.ledger).map_err(unreadable)?.ok_or_else(|| {
        Failure::Usage(format!(
            "there is no ledger in {}: restore the hub's folder, data-key and ledger/ at least, and name it by --dir",
            layout.ledger.display()
        ))
    })
}

/// What else a hub needs to go on, as far as the files tell.
fn missing(layout: &Layout) -> Vec<Missing> {
    let found = [
        signing(layout).map(|text| Missing {
            what: "signing key",
            text,
        }),
        (!config::tls_key_is_there(layout)).then_some(Missing {
            what: "TLS key",
            text: "keys/hub-tls.key cannot be read: devices know the hub by nothing else. Put it back from the newest \
                   copy of keys/. Without one, bring out what was not sent and make a new hub, as docs/keys.md says",
        }),
        (!layout.config.is_file()).then_some(Missing {
            what: "hubd.toml",
            text: "is not there: put it back, or write it anew from the sample",
        }),
    ];
    found.into_iter().flatten().collect()
}

fn signing(layout: &Layout) -> Option<&'static str> {
    let own = config::read_signing_key(&layout.signing_key).map(|key| key.verifying_key());
    let next = config::next_signing_key(layout).ok().flatten();
    let held: Vec<_> = own
        .ok()
        .into_iter()
        .chain(next.map(|key| key.verifying_key()))
        .collect();
    let Some(first) = held.first() else {
        return Some(
            "keys/hub-signing.key cannot be read: nobody can go on with this ledger, which can be read and verified \
             all the same. Put the key back from the newest copy of keys/. Without one, bring out what was not sent \
             by `hubctl ledger unsent`, for your payment service provider, and make a new hub with `hubd init`, at \
             which devices are enrolled anew (docs/keys.md)",
        );
    };
    let public = std::fs::read_to_string(&layout.signing_public).ok();
    let trusted = public
        .and_then(|text| config::parse_public_key(&text))
        .unwrap_or(*first);
    let current = signing_keys(&layout.ledger, &trusted).map(|chain| *chain.current());
    match current {
        Ok(current) if held.contains(&current) => None,
        _ => Some(
            "keys/hub-signing.key is not the one that the ledger goes on with: put the newest copy of keys/ back. \
             Without one, go on as if it were lost (docs/keys.md)",
        ),
    }
}
