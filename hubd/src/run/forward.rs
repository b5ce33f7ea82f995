//! From the core's order to send something to the gateway's answer.

use std::sync::Arc;

use hub_core::{Forward, GatewayAnswer, Operation};
use hub_protocol::SealedCard;
use hub_protocol::entry::Event;
use tokio::sync::mpsc;

use crate::ledger::{JournalReader, VaultReader};
use crate::port::{HubPort, Tell};
use crate::upstream::Upstream;
use crate::upstream::iso8583::Stored;

/// Carries out forwards until the hub is gone. How many are under way is
/// bounded by the core (replay) and by the devices' edge (live sales).
pub(super) async fn forward_all(
    mut orders: mpsc::UnboundedReceiver<Forward>,
    gateway: Arc<Upstream>,
    journal: JournalReader,
    vault: VaultReader,
    port: HubPort,
) {
    while let Some(order) = orders.recv().await {
        let (gateway, journal, vault, port) =
            (Arc::clone(&gateway), journal.clone(), vault.clone(), port.clone());
        tokio::spawn(async move {
            let (answer, latency_ms) = forward(&order, &gateway, journal, vault).await;
            port.tell(Tell::Gateway {
                attempt: order.attempt,
                answer,
                latency_ms,
            })
            .await;
        });
    }
}

async fn forward(
    order: &Forward,
    gateway: &Upstream,
    journal: JournalReader,
    vault: VaultReader,
) -> (GatewayAnswer, u64) {
    let wanted = order.clone();
    let read = tokio::task::spawn_blocking(move || read(&wanted, &journal, &vault)).await;
    match read {
        Ok(Ok((request, card))) => {
            let stored = Stored {
                signed_request: &request.signed,
                requested_ms: request.requested_ms,
                sealed_card: card.as_ref(),
            };
            gateway.submit(order, &stored).await
        }
        Ok(Err(answer)) => (answer, 0),
        Err(_) => (
            GatewayAnswer::NoAnswer {
                detail: "the hub is stopping".to_owned(),
            },
            0,
        ),
    }
}

/// What the journal holds of a request. A look-up asks without one.
#[derive(Default)]
struct Request {
    signed: Vec<u8>,
    /// When its entry was made, milliseconds since 1970 UTC.
    requested_ms: u64,
}

/// The signed request out of the journal, and the sealed card out of the
/// vault.
fn read(
    order: &Forward,
    journal: &JournalReader,
    vault: &VaultReader,
) -> Result<(Request, Option<SealedCard>), GatewayAnswer> {
    if order.operation == Operation::LookUp {
        return Ok((signed_request(journal, order).unwrap_or_default(), None));
    }
    let request = signed_request(journal, order).ok_or_else(|| {
        tracing::error!(payment = %order.payment_id, entry = order.request_sequence, "the signed request cannot be read from the journal");
        GatewayAnswer::CardMissing
    })?;
    // After a decline the card is destroyed, and the gateway has it.
    if order.operation == Operation::Reverse || order.presentation > 1 {
        return Ok((request, None));
    }
    match vault.get(order.payment_id) {
        Ok(Some(card)) => Ok((request, Some(card))),
        Ok(None) => Err(GatewayAnswer::CardMissing),
        Err(error) => {
            tracing::error!(payment = %order.payment_id, %error, "the sealed card cannot be read from the vault");
            Err(GatewayAnswer::CardMissing)
        }
    }
}

fn signed_request(journal: &JournalReader, order: &Forward) -> Option<Request> {
    let entry = journal.entry(order.request_sequence).ok()?.entry;
    let signed = match entry.event {
        Event::PaymentOpened {
            payment_id, request, ..
        } if payment_id == order.payment_id => Some(request),
        Event::PaymentDecided {
            payment_id, request, ..
        } if payment_id == order.payment_id => request,
        _ => None,
    }?;
    Some(Request {
        signed,
        requested_ms: entry.time.wall_ms,
    })
}
