//! Sealed cards lie encrypted in the vault until the gateway's final answer,
//! and nowhere afterwards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hub_protocol::Decision;
use hub_sdk::PreparedPayment;
use hub_tests::process::PATIENCE;
use sim_devices::scene::Scene;
use sim_devices::wan::WanMode;

use crate::at_rest::opened;
use crate::raw::{files, holder, holder_of_any, payments, pieces, scene, spelled};

/// What must not be found in clear, whether the card still waits or not.
fn nothing_in_clear(scene: &Scene, payments: &[PreparedPayment]) -> Result<()> {
    let all = files(&scene.shop.hub_dir())?;
    let opened = [("the opened ledger".to_owned(), opened(scene)?)];
    for payment in payments {
        let sealed = payment.sealed_card();
        ensure!(
            holder(&all, &sealed.salt).is_none(),
            "a salt lies in {:?}",
            holder(&all, &sealed.salt)
        );
        let found = holder_of_any(&all, pieces(&sealed.blob));
        ensure!(found.is_none(), "a blob lies in {found:?}");
        // The search finds what is there: the journal keeps the digest,
        // encrypted.
        let digest = payment.request().sealed_card_digest;
        ensure!(holder(&opened, &digest.0).is_some(), "the digest is nowhere");
    }
    for number in spelled() {
        ensure!(
            holder(&all, &number).is_none(),
            "the number lies in {:?}",
            holder(&all, &number)
        );
    }
    Ok(())
}

/// The vault's bytes that are not zeros, but for the files' headers and the
/// payments' ids, which the journal keeps.
fn vault(scene: &Scene, paid: &[PreparedPayment]) -> Result<Vec<Vec<u8>>> {
    let an_id = |piece: &[u8]| paid.iter().any(|payment| payment.payment_id().0 == piece);
    let all = files(&scene.shop.hub_dir())?;
    let vault = all.iter().filter(|(name, _)| name.ends_with(".vlt"));
    let pieces = vault.flat_map(|(_, bytes)| pieces(&bytes[32..]));
    Ok(pieces.filter(|piece| !an_id(piece)).map(<[u8]>::to_vec).collect())
}

async fn pay_offline(scene: &mut Scene, run: u32) -> Result<Vec<PreparedPayment>> {
    scene.cut(WanMode::Refuse);
    scene.shop.wait_wan("offline").await?;
    let till = scene.fleet.tills[0].clone();
    let paid = payments(till.client(), scene, run)?;
    for payment in &paid {
        let receipt = till.client().pay(payment).await?.receipt;
        ensure!(receipt.decision == Decision::ApprovedOffline, "{receipt:?}");
    }
    Ok(paid)
}

/// Until nothing of what lay in the vault is in any file.
async fn gone(scene: &Scene, before: &[Vec<u8>]) -> Result<()> {
    let mut left = None;
    for _ in 0..300 {
        let all = files(&scene.shop.hub_dir())?;
        left = holder_of_any(&all, before.iter().map(Vec::as_slice)).map(str::to_owned);
        if left.is_none() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("what the gateway has answered still lies in {left:?}")
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_no_file_holds_a_card_after_the_gateways_final_answer() -> Result<()> {
    let mut scene = scene().await?;
    let paid = pay_offline(&mut scene, 1).await?;
    nothing_in_clear(&scene, &paid)?;
    let before = vault(&scene, &paid)?;
    ensure!(before.len() >= 5 * 8, "five cards wait: {} pieces", before.len());
    scene.mend();
    ensure!(
        scene.shop.drain(Duration::from_secs(60), |_| ()).await? == 0,
        "all were sent"
    );
    gone(&scene, &before).await?;
    nothing_in_clear(&scene, &paid)?;
    ensure!(scene.gateway().charges() == 5, "and all were charged");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rule_6_a_kill_between_settling_and_erasing_leaves_no_card() -> Result<()> {
    let mut scene = scene().await?;
    let mut caught = 0;
    for run in 1..=5 {
        let paid = pay_offline(&mut scene, run).await?;
        let before = vault(&scene, &paid)?;
        ensure!(!before.is_empty(), "cards wait");
        let charged = scene.gateway().charges();
        scene.mend();
        // The gateway has answered; the hub erases within a second of that.
        let all_charged = async {
            while scene.gateway().charges() < charged + paid.len() as u64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all_charged)
            .await
            .context("the gateway does not charge all in time")?;
        scene.shop.kill().await?;
        let all = files(&scene.shop.hub_dir())?;
        let lay = holder_of_any(&all, before.iter().map(Vec::as_slice));
        caught += u32::from(lay.is_some());
        scene.shop.start().await?;
        ensure!(
            scene.shop.drain(Duration::from_secs(60), |_| ()).await? == 0,
            "all were sent"
        );
        gone(&scene, &before).await?;
        nothing_in_clear(&scene, &paid)?;
        if caught >= 2 {
            break;
        }
    }
    ensure!(caught > 0, "no kill came between the answer and the erasing");
    let waiting = scene.shop.queue().await?;
    ensure!(waiting.is_empty(), "nothing is parked: {waiting:?}");
    let status = scene.shop.status().await.context("no status")?;
    ensure!(status["wan"] == "online", "{status}");
    Ok(())
}
