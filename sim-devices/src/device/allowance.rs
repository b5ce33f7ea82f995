//! What a device approves by itself: `device allowance`, `device pay
//! --under-allowance`, `device sync`. The allowance and what was approved under
//! it are kept in the device's folder.

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_sdk::{AllowanceStore, DeviceClient, NotApproved, PreparedPayment};
use serde_json::json;

use super::{DeviceOptions, PayOptions, client, forget_pending, identity, opened, pending, prepare, print};

/// Asks for an allowance, or for the one again that is open.
pub async fn ask(options: &DeviceOptions) -> Result<()> {
    let client = opened(options).await?;
    let store = store(options, &client)?;
    client.ask_allowance(&store).await?;
    client.close().await;
    show_store(&store)
}

/// Shows what the device holds. The hub is not asked.
pub fn show(options: &DeviceOptions) -> Result<()> {
    show_store(&store(options, &client(options)?)?)
}

/// Returns what is left.
pub async fn give_back(options: &DeviceOptions) -> Result<()> {
    let client = opened(options).await?;
    let store = store(options, &client)?;
    client.return_unused(&store).await?;
    client.close().await;
    show_store(&store)
}

/// Approves payments without the hub, one JSON line each. A payment that an
/// earlier run left under way comes first, under its own id.
pub async fn pay(options: &DeviceOptions, pay: &PayOptions) -> Result<()> {
    let client = client(options)?;
    let store = store(options, &client)?;
    if let Some(left) = pending(&options.identity)? {
        approve(options, &store, &left)?;
    }
    for number in 0..pay.count {
        let payment = prepare(options, &client, pay)?;
        approve(options, &store, &payment)?;
        if number + 1 < pay.count {
            tokio::time::sleep(pay.every).await;
        }
    }
    Ok(())
}

/// Tells the hub of every payment that the device has approved, one JSON line
/// each, in their order.
pub async fn sync(options: &DeviceOptions) -> Result<()> {
    let client = opened(options).await?;
    let store = store(options, &client)?;
    let mut waiting = store.unsynced();
    loop {
        match client.sync_next(&store).await {
            Ok(None) => break,
            Ok(Some(told)) => {
                // Stopped before it could forget that this was under way: it
                // must not be approved once more.
                let left = pending(&options.identity)?;
                if left.is_some_and(|left| left.payment_id() == told.receipt.payment_id) {
                    forget_pending(&options.identity)?;
                }
                print(&json!({
                    "payment_id": told.receipt.payment_id.to_string(),
                    "amount_minor": told.receipt.amount_minor,
                    "decision": told.receipt.decision.name(),
                    "reason": told.receipt.reason.name(),
                    "receipt": STANDARD.encode(&told.proof),
                }))?;
            }
            // Refused for good it is set aside, and the next has its turn.
            Err(error) if store.unsynced() < waiting => print(&json!({
                "refused": error.refusal_code().map(|code| code.number()),
                "text": error.to_string(),
            }))?,
            Err(error) => return Err(error.into()),
        }
        waiting = store.unsynced();
    }
    client.close().await;
    let refused = store.refused().len();
    if refused > 0 {
        bail!("{refused} approved payments were refused by the hub for good: tell the manager");
    }
    Ok(())
}

fn store(options: &DeviceOptions, client: &DeviceClient) -> Result<AllowanceStore> {
    let identity = identity(options)?;
    Ok(AllowanceStore::open(
        &options.identity,
        identity,
        client.enrolled(),
    )?)
}

fn approve(options: &DeviceOptions, store: &AllowanceStore, payment: &PreparedPayment) -> Result<()> {
    let mut line = json!({
        "payment_id": payment.payment_id().to_string(),
        "order_id": payment.request().order_id,
        "amount_minor": payment.request().amount_minor(),
    });
    match store.approve_offline(payment) {
        Ok(approval) => {
            let left = store.left();
            line["decision"] = json!("approved-under-allowance");
            line["allowance"] = json!(approval.receipt.number);
            line["index"] = json!(approval.receipt.index);
            line["left_minor"] = json!(left.map(|left| left.amount_minor));
            line["left_count"] = json!(left.map(|left| left.count));
            line["device_receipt"] = json!(STANDARD.encode(&approval.signed));
        }
        Err(NotApproved::File(error)) => return Err(error.into()),
        Err(error) => {
            let reason = error.reason();
            line["decision"] = json!("declined");
            line["reason"] = json!(reason.map(|reason| reason.name()));
            line["reason_fr"] = json!(reason.map(|reason| reason.text_fr()));
            line["reason_en"] = json!(reason.map(|reason| reason.text_en()));
            line["text"] = json!(error.to_string());
        }
    }
    forget_pending(&options.identity)?;
    print(&line)
}

fn show_store(store: &AllowanceStore) -> Result<()> {
    let (held, left) = (store.held(), store.left());
    let held = held.map(|held| {
        json!({
            "number": held.number,
            "amount_minor": held.amount_minor,
            "count": held.count,
            "transaction_ceiling_minor": held.transaction_ceiling_minor,
            "card_ceiling_minor": held.card_ceiling_minor,
            "expires_ms": held.expires_ms,
            "policy_version": held.policy_version,
        })
    });
    let refused: Vec<String> = store
        .refused()
        .iter()
        .map(|one| one.receipt.payment_id.to_string())
        .collect();
    print(&json!({
        "allowance": held,
        "left_minor": left.map(|left| left.amount_minor),
        "left_count": left.map(|left| left.count),
        "unsynced": store.unsynced(),
        "refused": refused,
    }))
}
