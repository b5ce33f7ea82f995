//! `hubctl keys`.

use serde::Serialize;

use super::client::Client;
use super::failure::Failure;
use super::output::{Output, table};
use super::show::{instant, span};
use crate::admin::protocol::{Answer, KeyReport, Request};
use crate::clock;

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
pub(super) fn rotate_signing(client: &Client, output: &Output) -> Result<(), Failure> {
    let keys = ask(client, &Request::KeysRotateSigning)?;
    output.print(&Listed { keys: &keys }, || {
        let new = keys.iter().find(|key| key.purpose == "signing");
        let text = |field: fn(&KeyReport) -> &Option<String>| {
            new.and_then(|key| field(key).as_deref())
                .unwrap_or("-")
                .to_owned()
        };
        format!(
            "The hub signs with key {} from now on; the old one is destroyed.\n\
             Public key: {}\n\
             Copies of the first public key go on verifying the whole ledger. Back up the hub's keys again.",
            text(|key| &key.id),
            text(|key| &key.public),
        )
    })
}

/// Has the store's data key wrapped under another vault key.
pub(super) fn rotate_vault(client: &Client, output: &Output) -> Result<(), Failure> {
    let keys = ask(client, &Request::KeysRotateVault)?;
    output.print(&Listed { keys: &keys }, || {
        let new = keys.iter().find(|key| key.purpose == "vault");
        format!(
            "The store opens with vault key {} from now on; the old one is destroyed.\n\
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
