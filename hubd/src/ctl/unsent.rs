//! `hubctl ledger unsent`: what a hub that cannot go on has not sent, for
//! whoever sends it in its place.
//!
//! Nothing of the folder is changed but what it
//! [says of an outage](crate::ledger::Home), and a note of this for a hub that
//! goes on with it after all; card data stay sealed to the gateway's
//! key. What comes out are the calls of `docs/gateway-api.md` that the hub would
//! have made, each with its idempotency key and the look-up that goes before it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use hub_core::state::{FoldError, PaymentRecord, State};
use hub_protocol::entry::{Entry, Event};
use hub_protocol::{PaymentId, PaymentState, SealedCard};
use serde::Serialize;
use serde_json::value::RawValue;

use super::cli::UnsentArgs;
use super::failure::Failure;
use super::ledger::{Place, contents, place, progress, unreadable};
use super::output::Output;
use super::show::{Language, amount, count};
use super::trace;
use crate::config::{self, Config, Layout};
use crate::data_key::{self, VaultKey};
use crate::ledger::{self, DataLock, Fault, Home, VerifiedEntry, sealed_cards};
use crate::rehearsal::Fold;
use crate::upstream::{GatewayCall, call_for};
use hub_protocol::{DataKey, EntrySeal};

/// One line of the file.
#[derive(Serialize)]
struct Line {
    payment_id: String,
    /// As `hubctl queue` names it.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    parked: Option<&'static str>,
    amount_minor: u64,
    currency: String,
    device_id: String,
    decided_ms: u64,
    /// To be asked first; not for a reversal, which is one however often it
    /// comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    look_up: Option<String>,
    /// To be posted if the gateway does not know the payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    send: Option<Call>,
    /// Why there is nothing to send.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

#[derive(Serialize)]
struct Call {
    path: String,
    idempotency_key: String,
    body: Box<RawValue>,
}

#[derive(Serialize)]
struct Report<'a> {
    out: &'a Path,
    payments: u64,
    reversals: u64,
    /// Of the payments, those without a card that can be read, or without a
    /// request.
    faults: u64,
    /// Sums of the payments, by currency, in minor units.
    sums: BTreeMap<String, u64>,
    /// Archives that are elsewhere: what they hold of unsent payments is not
    /// here.
    archives_away: Vec<u32>,
    /// The hub writes down that this was done, should it ever start again.
    noted: bool,
}

/// What is needed to read the store.
struct Store {
    place: Place,
    store_id: String,
    key: DataKey,
    vault_keys: Vec<VaultKey>,
}

pub(super) fn unsent(output: &Output, dir: &Path, order: &UnsentArgs) -> Result<(), Failure> {
    let hubs = trace::hubs_folder(dir);
    let noted = hubs.is_some();
    let layout = hubs.unwrap_or_else(|| Layout::new(dir));
    // A hub that runs sends them itself.
    let lock = DataLock::acquire(&layout.dir).map_err(unreadable)?;
    let store = open(&layout, order)?;
    let seal = EntrySeal::new(&store.key);
    let mut fold = Fold::whole();
    let mut unfit = None;
    let away = read(output, &store, &seal, &mut |entry| {
        if unfit.is_none() {
            unfit = folded(&mut fold, entry).err();
        }
    })?;
    if let Some(error) = unfit {
        return Err(Failure::Unverified(format!(
            "the ledger cannot be followed: {error}"
        )));
    }
    let waits = |(id, payment): (&PaymentId, &PaymentRecord)| (!payment.is_final()).then_some(*id);
    let wanted: BTreeSet<PaymentId> = fold.state.payments().filter_map(waits).collect();
    let mut requests: BTreeMap<PaymentId, Vec<u8>> = BTreeMap::new();
    if !wanted.is_empty() {
        read(output, &store, &seal, &mut |entry| {
            if let Some((id, request)) = request_in(&entry.event).filter(|(id, _)| wanted.contains(id)) {
                requests.insert(id, request.to_vec());
            }
        })?;
    }
    let keys: Vec<[u8; 32]> = std::iter::once(data_key::vault_cards(&store.key))
        .chain(store.vault_keys.iter().map(|key| **key))
        .collect();
    let cards = sealed_cards(&layout.vault, &keys, &wanted).map_err(unreadable)?;
    // Whoever gets the file may send all of it: should this machine go on after
    // all, nothing of it counts as never sent.
    Home::of(&layout.ledger).outage_ends().map_err(unreadable)?;
    let failed = |error: std::io::Error| Failure::new_file(&order.out, error);
    if order.out.exists() {
        return Err(failed(std::io::ErrorKind::AlreadyExists.into()));
    }
    if noted {
        trace::note(&layout, &lock, &action(wanted.len()))?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&order.out)
        .map(BufWriter::new)
        .map_err(failed)?;
    let mut report = Report {
        out: &order.out,
        payments: 0,
        reversals: 0,
        faults: 0,
        sums: BTreeMap::new(),
        archives_away: away,
        noted,
    };
    // As the hub would have sent them: by when they were decided.
    let mut sorted: Vec<(u64, PaymentId)> = wanted
        .iter()
        .filter_map(|id| Some((fold.state.payment(id)?.latest, *id)))
        .collect();
    sorted.sort_unstable();
    for (_, id) in sorted {
        if let Some(payment) = fold.state.payment(&id) {
            let line = line(&store, (id, payment), requests.get(&id), cards.get(&id));
            report.count(&line);
            write(&mut file, &line).map_err(failed)?;
        }
    }
    file.flush()
        .and_then(|()| file.get_ref().sync_all())
        .map_err(failed)?;
    output.print(&report, || told(&report))
}

/// What the ledger says of it.
fn action(count: usize) -> String {
    format!("ledger unsent: the calls for {count} payments and reversals that were not sent")
}

fn open(layout: &Layout, order: &UnsentArgs) -> Result<Store, Failure> {
    let place = place(&layout.dir, order.key.as_deref())?;
    let vault_keys = config::vault_keys(layout);
    let key = data_key::key_of_copy(&place.ledger, &vault_keys)
        .map_err(|error| Failure::Refused(error.to_string()))?
        .ok_or_else(|| {
            Failure::Usage(format!(
                "there is no data-key in {}: restore the hub's folder, data-key and ledger/ and vault/ at least",
                layout.dir.display()
            ))
        })?;
    let store_id = match &order.store_id {
        Some(id) => Some(id.clone()),
        None => Config::store_id(&layout.dir).ok().flatten(),
    };
    let store_id = store_id.ok_or_else(|| {
        Failure::Usage(
            "hubd.toml does not name the store: give its id at the payment service provider by --store-id"
                .to_owned(),
        )
    })?;
    Ok(Store {
        place,
        store_id,
        key,
        vault_keys,
    })
}

/// Verifies and reads the whole ledger. Gives the archives that are elsewhere.
fn read(
    output: &Output,
    store: &Store,
    seal: &EntrySeal,
    visit: &mut dyn FnMut(&Entry),
) -> Result<Vec<u32>, Failure> {
    let bar = progress(output);
    let report = ledger::read_each(
        &store.place.ledger,
        &store.place.key,
        contents(Some(seal)),
        &mut |verified: VerifiedEntry<'_>| {
            if let Some(entry) = verified.entry {
                visit(entry);
            }
        },
        &mut |progress| {
            bar.set_length(progress.of_segments as u64);
            bar.set_position(progress.segments as u64);
        },
    )
    .map_err(unreadable)?;
    bar.finish_and_clear();
    // What a power cut left was answered to nobody.
    match report.broken {
        Some(broken) if !matches!(broken.fault, Fault::TornTail { .. }) => Err(Failure::Unverified(format!(
            "the ledger does not verify, so that nobody can say what was sent: {broken}; `hubctl ledger salvage` \
             writes out what can be read"
        ))),
        _ => Ok(report.away.iter().map(|away| away.number).collect()),
    }
}

fn folded(fold: &mut Fold, entry: &Entry) -> Result<(), FoldError> {
    let request = State::request_in(entry)?;
    fold.apply(entry.event.clone(), entry.time, request.as_ref())
        .map(drop)
}

fn request_in(event: &Event) -> Option<(PaymentId, &[u8])> {
    match event {
        Event::PaymentOpened {
            payment_id, request, ..
        } => Some((*payment_id, request)),
        Event::PaymentDecided {
            payment_id,
            request: Some(request),
            ..
        } => Some((*payment_id, request)),
        _ => None,
    }
}

fn line(
    store: &Store,
    (id, payment): (PaymentId, &PaymentRecord),
    request: Option<&Vec<u8>>,
    card: Option<&SealedCard>,
) -> Line {
    let mut forward = payment.forward(id);
    // Whether it was sent before, nobody knows here: a repeat.
    forward.number = 2;
    // Asked for while the customer waited, and never answered: no device has a
    // receipt for it, so that the answer was no.
    if payment.state == PaymentState::Open {
        forward.operation = hub_core::Operation::Reverse;
    }
    let call = match request {
        Some(request) => call_for(&store.store_id, &forward, request, card),
        None => {
            Err("the signed request is in an archive that is elsewhere: bring the archive back".to_owned())
        }
    };
    let call = call.and_then(|GatewayCall { path, body }| {
        let body = RawValue::from_string(body).map_err(|error| error.to_string())?;
        let idempotency_key = format!("\"{id}\"");
        Ok(Call {
            path,
            idempotency_key,
            body,
        })
    });
    let (send, fault) = match call {
        Ok(call) => (Some(call), None),
        Err(fault) => (None, Some(fault)),
    };
    let reversal = forward.operation == hub_core::Operation::Reverse;
    Line {
        payment_id: id.to_string(),
        state: payment.state.name(),
        parked: payment.parked.map(|reason| reason.name()),
        amount_minor: payment.amount_minor,
        currency: payment.currency.to_string(),
        device_id: payment.device.to_string(),
        decided_ms: forward.decided_ms,
        look_up: (!reversal).then(|| format!("v1/payments/{id}")),
        send,
        fault,
    }
}

fn write(file: &mut BufWriter<File>, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}

impl Report<'_> {
    fn count(&mut self, line: &Line) {
        self.faults += u64::from(line.fault.is_some());
        if line.look_up.is_none() {
            self.reversals += 1;
            return;
        }
        self.payments += 1;
        let sum = self.sums.entry(line.currency.clone()).or_default();
        *sum = sum.saturating_add(line.amount_minor);
    }
}

fn told(report: &Report<'_>) -> String {
    let language = Language::of_environment();
    let sums: Vec<String> = report
        .sums
        .iter()
        .map(|(currency, sum)| amount(*sum, currency, language))
        .collect();
    let mut lines = vec![format!(
        "{}{} and {} that were not sent are in {}, card data still sealed.",
        count(report.payments, "payment", "payments"),
        match sums.is_empty() {
            true => String::new(),
            false => format!(" of {}", sums.join(" and ")),
        },
        count(report.reversals, "reversal", "reversals"),
        report.out.display()
    )];
    if report.faults > 0 {
        lines.push(format!(
            "{} without a card or a request that can be read: the line says which.",
            count(report.faults, "of these is", "of these are")
        ));
    }
    for number in &report.archives_away {
        lines.push(format!(
            "Archive {number} is elsewhere: what it holds of unsent payments is not in the file."
        ));
    }
    lines.push(
        "The file is for your payment service provider, and goes there once: look each payment up first, post it \
         only if the answer is that it is unknown, and with its idempotency key. The lost machine, and this folder, \
         must never send them too: block the hub's access at the gateway before."
            .to_owned(),
    );
    lines.join("\n")
}
