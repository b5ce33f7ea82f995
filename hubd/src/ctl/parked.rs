//! `hubctl queue release`, `close` and `park`: what a person decides about one
//! payment.

use std::collections::BTreeSet;

use hub_protocol::entry::ParkReason;
use serde::Serialize;

use super::cli::Told;
use super::client::Client;
use super::failure::Failure;
use super::output::Output;
use super::queue::{ask, find};
use crate::admin::protocol::{Answer, Found, MAX_QUEUE_LIMIT, Request};

#[derive(Serialize)]
struct One<'a> {
    payment_id: &'a str,
}

#[derive(Serialize)]
struct All<'a> {
    payment_ids: &'a BTreeSet<String>,
}

#[derive(Serialize)]
struct Closed<'a> {
    payment_id: &'a str,
    finding: Found,
}

/// One parked payment, by the beginning of its id.
pub(super) fn release(client: &Client, output: &Output, id: &str, not_there: bool) -> Result<(), Failure> {
    let payment_id = find(&ask(client, MAX_QUEUE_LIMIT, true)?, id)?;
    release_one(client, &payment_id, not_there)?;
    let one = One {
        payment_id: &payment_id,
    };
    output.print(&one, || format!("{payment_id} is back in the queue"))
}

/// All that are parked, or those for one reason.
pub(super) fn release_all(
    client: &Client,
    output: &Output,
    reason: Option<ParkReason>,
) -> Result<(), Failure> {
    let reason = reason.map(ParkReason::name);
    let mut others = BTreeSet::new();
    let mut released = BTreeSet::new();
    loop {
        // Of those that are parked again meanwhile, none is released twice.
        let queue = ask(client, MAX_QUEUE_LIMIT, true)?;
        let wanted = |parked: &Option<String>| reason.is_none() || parked.as_deref() == reason;
        let ids: Vec<String> = queue
            .items
            .into_iter()
            .filter(|item| {
                let wanted = wanted(&item.parked);
                others.extend(item.parked.clone().filter(|_| !wanted));
                wanted && !released.contains(&item.payment_id)
            })
            .map(|item| item.payment_id)
            .collect();
        if ids.is_empty() {
            break;
        }
        for id in ids {
            release_one(client, &id, false)?;
            released.insert(id);
        }
    }
    let all = All {
        payment_ids: &released,
    };
    output.print(&all, || match released.len() {
        0 if others.is_empty() => "Nothing was parked.".to_owned(),
        0 => {
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            format!(
                "Nothing was parked for that reason; what is parked is for {}",
                others.join(", ")
            )
        }
        1 => "1 payment is back in the queue".to_owned(),
        many => format!("{many} payments are back in the queue"),
    })
}

fn release_one(client: &Client, payment_id: &str, not_there: bool) -> Result<(), Failure> {
    let request = Request::Release {
        payment_id: payment_id.to_owned(),
        not_there,
    };
    match client.ask(&request)? {
        Answer::Done => Ok(()),
        other => Err(Client::unexpected(&other)),
    }
}

pub(super) fn close(
    client: &Client,
    output: &Output,
    id: &str,
    told: &Told,
    note: &str,
) -> Result<(), Failure> {
    let payment_id = find(&ask(client, MAX_QUEUE_LIMIT, true)?, id)?;
    let finding = told.finding();
    let request = Request::Close {
        payment_id: payment_id.clone(),
        finding,
        note: note.to_owned(),
    };
    match client.ask(&request)? {
        Answer::Done => {}
        other => return Err(Client::unexpected(&other)),
    }
    let closed = Closed {
        payment_id: &payment_id,
        finding,
    };
    output.print(&closed, || {
        let means = match finding {
            Found::NotThere => "nothing was taken and nothing will be",
            Found::Taken => "the customer is charged",
            Found::Undone => "what was taken is undone",
        };
        format!("{payment_id} is closed: {means}")
    })
}

pub(super) fn park(client: &Client, output: &Output, id: &str) -> Result<(), Failure> {
    let payment_id = find(&ask(client, MAX_QUEUE_LIMIT, false)?, id)?;
    let request = Request::Park {
        payment_id: payment_id.clone(),
    };
    match client.ask(&request)? {
        Answer::Done => {}
        other => return Err(Client::unexpected(&other)),
    }
    let one = One {
        payment_id: &payment_id,
    };
    output.print(&one, || {
        format!("{payment_id} is parked: it is not sent before it is released, and counts as exposure")
    })
}
