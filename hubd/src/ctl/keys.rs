//! `hubctl keys`.

use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, table};
use super::show::{instant, span};
use crate::admin::protocol::{Answer, KeyReport, Request, RotationReport, TlsStep};
use crate::clock;

/// What becomes of a key that has given way.
const OLD: &str = "the old one is destroyed, unless systemd keeps it as a credential: then encrypt the new one in its \
                   place (docs/keys.md)";

#[derive(Serialize)]
struct Listed<'a> {
    keys: &'a [KeyReport],
}

/// Lists the keys and how old they are.
pub(super) fn list(client: &Client, output: &Output) -> Result<(), Failure> {
    let keys = ask(client, &Request::Keys)?;
    output.print(&Listed { keys: &keys }, || shown(&keys))
}

/// Has the hub sign with another key.
pub(super) fn rotate_signing(client: &Client, output: &Output, confirmed: bool) -> Result<(), Failure> {
    rotated(
        client,
        output,
        &Request::KeysRotateSigning { confirmed },
        |report| {
            let new = report.keys.iter().find(|key| key.purpose == "signing");
            let text = |field: fn(&KeyReport) -> &Option<String>| {
                new.and_then(|key| field(key).as_deref())
                    .unwrap_or("-")
                    .to_owned()
            };
            format!(
                "The hub signs with key {} from now on; {OLD}.\n\
             Public key: {}\n\
             Copies of the first public key go on verifying the whole ledger. Back up the hub's keys again.",
                text(|key| &key.id),
                text(|key| &key.public),
            )
        },
    )
}

/// Has the hub be reached under another TLS key.
pub(super) fn rotate_tls(
    client: &Client,
    output: &Output,
    step: TlsStep,
    confirmed: bool,
) -> Result<(), Failure> {
    rotated(
        client,
        output,
        &Request::KeysRotateTls { step, confirmed },
        |report| {
            let told = report
                .enrolled
                .saturating_sub(report.too_old.len() + report.unheard.len());
            let mut lines = match (report.changed, step) {
                (true, TlsStep::Finish) => {
                    vec![format!("The hub is reached under its new TLS key only; {OLD}.")]
                }
                (true, TlsStep::Abandon) => {
                    vec![
                        "The hub is reached under its old TLS key only; the new one is destroyed, unless you have supplied it."
                            .to_owned(),
                    ]
                }
                (true, TlsStep::Begin) => {
                    vec!["The hub is reached under a new TLS key beside the old one.".to_owned()]
                }
                _ => vec!["The TLS key is being changed.".to_owned()],
            };
            if report.changed {
                lines.push("Back up the hub's keys again, and with them the file hub-id.".to_owned());
                if step == TlsStep::Finish {
                    lines.push("Enrolment codes from before do not work any more: make new ones.".to_owned());
                }
            }
            if report.overlap {
                lines.push(format!(
                    "{told} of {} devices know the new one. `hubctl keys rotate tls` tells how far they are; \
                 `--finish` ends the change, `--abandon` gives it up.",
                    report.enrolled
                ));
                lines.extend(left(report));
            }
            lines.join("\n")
        },
    )
}

fn rotated(
    client: &Client,
    output: &Output,
    request: &Request,
    text: impl FnOnce(&RotationReport) -> String,
) -> Result<(), Failure> {
    let report = match client.ask(request)? {
        Answer::Rotation(report) => *report,
        other => return Err(Client::unexpected(&other)),
    };
    if report.unconfirmed {
        let mut lines = vec!["Nothing was changed, because devices would be left behind.".to_owned()];
        lines.extend(left(&report));
        lines.push("Wait until they have been here, or give --yes: it is done all the same then.".to_owned());
        return Err(Failure::Refused(lines.join("\n")));
    }
    output.print(&report, || text(&report))
}

/// Who is left behind, and what becomes of them.
fn left(report: &RotationReport) -> Vec<String> {
    let mut lines = Vec::new();
    if !report.too_old.is_empty() {
        lines.push(format!(
            "Speak too old a wire version to follow, and have to be updated first or enrolled anew: {}.",
            report.too_old.join(", ")
        ));
    }
    if !report.unheard.is_empty() {
        lines.push(format!(
            "Have not been heard of yet, and follow by themselves when they come back if their software is of wire \
             version {} or later: {}.",
            if report.which == "signing" { 4 } else { 5 },
            report.unheard.join(", ")
        ));
    }
    lines
}

/// Has the store's data key wrapped under another vault key.
pub(super) fn rotate_vault(client: &Client, output: &Output) -> Result<(), Failure> {
    let keys = ask(client, &Request::KeysRotateVault)?;
    output.print(&Listed { keys: &keys }, || {
        let new = keys.iter().find(|key| key.purpose == "vault");
        format!(
            "The store opens with vault key {} from now on; {OLD}.\n\
             Back up the hub's keys again, and its data-key: older copies of both do not open this store together with newer ones.",
            new.and_then(|key| key.id.as_deref()).unwrap_or("-"),
        )
    })
}

fn ask(client: &Client, request: &Request) -> Result<Vec<KeyReport>, Failure> {
    match client.ask(request)? {
        Answer::Keys { keys } => Ok(keys),
        other => Err(Client::unexpected(&other)),
    }
}

fn shown(keys: &[KeyReport]) -> String {
    let now = clock::wall_ms();
    let mut table = table(["Key", "Whose", "Id", "Since", "Age", "Changes"]);
    for key in keys {
        let age = key.since_ms.map(|since| span(now.saturating_sub(since) / 1000));
        table.add_row([
            key.purpose.clone(),
            key.holder.clone(),
            key.id
                .as_deref()
                .map_or("-", |id| id.get(..32).unwrap_or(id))
                .to_owned(),
            key.since_ms.map_or_else(|| "-".to_owned(), instant),
            age.unwrap_or_else(|| "-".to_owned()),
            key.changes
                .map_or_else(String::new, |changes| changes.to_string()),
        ]);
    }
    table.to_string()
}
