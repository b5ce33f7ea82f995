//! From the core's order to send something to the gateway's answer.

use std::sync::Arc;

use hub_core::{Forward, GatewayAnswer, Operation};
use hub_protocol::SealedCard;
use hub_protocol::entry::Event;
use tokio::sync::mpsc;

use crate::ledger::{JournalReader, VaultReader};
use crate::port::{HubPort, Tell};
use crate::upstream::Gateway;

/// Carries out forwards until the hub is gone. How many are under way is
/// bounded by the core (replay) and by the devices' edge (live sales).
pub(super) async fn forward_all(
    mut orders: mpsc::UnboundedReceiver<Forward>,
    gateway: Arc<Gateway>,
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
    gateway: &Gateway,
    journal: JournalReader,
    vault: VaultReader,
) -> (GatewayAnswer, u64) {
    let wanted = order.clone();
    let read = tokio::task::spawn_blocking(move || read(&wanted, &journal, &vault)).await;
    match read {
        Ok(Ok((request, card))) => gateway.submit(order, &request, card.as_ref()).await,
        Ok(Err(answer)) => (answer, 0),
        Err(_) => (
            GatewayAnswer::NoAnswer {
                detail: "the hub is stopping".to_owned(),
            },
            0,
        ),
    }
}

/// The signed request out of the journal, and the sealed card out of the
/// vault.
fn read(
    order: &Forward,
    journal: &JournalReader,
    vault: &VaultReader,
) -> Result<(Vec<u8>, Option<SealedCard>), GatewayAnswer> {
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

fn signed_request(journal: &JournalReader, order: &Forward) -> Option<Vec<u8>> {
    match journal.entry(order.request_sequence).ok()?.entry.event {
        Event::PaymentOpened {
            payment_id, request, ..
        } if payment_id == order.payment_id => Some(request),
        Event::PaymentDecided {
            payment_id, request, ..
        } if payment_id == order.payment_id => request,
        _ => None,
    }
}
