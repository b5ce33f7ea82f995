//! What a thief of the disk reads: no card token, no member of staff, no order
//! and no payment, whether the hub runs, was killed, or has sent everything.

use std::time::Duration;

use anyhow::{Result, ensure};
use data_encoding::{BASE64, HEXLOWER, HEXUPPER};
use hub_protocol::{Decision, EntrySeal, Terms, TransactionType};
use hub_sdk::PreparedPayment;
use hubd::config::Config;
use hubd::data_key::StoreKey;
use hubd::ledger::{Contents, read_each};
use hubd::recovery_key::RecoverySecret;
use sim_devices::scene::Scene;
use sim_devices::wan::WanMode;

use crate::raw::{files, holder_of_any, sale, scene};

const TOKEN: &str = "tok_thief_7c1e9ab04d52";
const STAFF: &str = "Camille Duvernet-Lacombe";
const ORDER: &str = "order 2026-11-26/4711-B";
const BIN: &str = "49707316";

/// A text as it may lie in a file: itself, in hex, and in base64 at each of
/// the three places that it can have there.
fn forms(text: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        text.to_vec(),
        HEXLOWER.encode(text).into_bytes(),
        HEXUPPER.encode(text).into_bytes(),
    ];
    for before in 0..3 {
        let shifted = [&vec![0; before], text].concat();
        let encoded = BASE64.encode(&shifted);
        // What depends on the neighbours is left out.
        let from = if before == 0 { 0 } else { 4 };
        let to = shifted.len() / 3 * 4;
        forms.push(encoded.as_bytes()[from..to].to_vec());
    }
    forms
}

fn needles(paid: &[PreparedPayment]) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut all: Vec<_> = [TOKEN, STAFF, ORDER, BIN]
        .into_iter()
        .map(|text| (text.to_owned(), forms(text.as_bytes())))
        .collect();
    for payment in paid {
        let digest = payment.request().sealed_card_digest.0;
        all.push((format!("the digest {digest:x?}"), forms(&digest)));
    }
    all
}

/// Everything that the entries of the hub's ledger say, opened: the control.
pub(crate) fn opened(scene: &Scene) -> Result<Vec<u8>> {
    let config = Config::load(&scene.shop.hub_dir()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let store = StoreKey::open(&config.layout, &[&config.keys.vault])?;
    let (seal, key) = (EntrySeal::new(store.key()), config.keys.signing.verifying_key());
    let mut bytes = Vec::new();
    read_each(
        &config.layout.ledger,
        &key,
        Contents::Sealed(&seal),
        &mut |verified| {
            bytes.extend(
                verified
                    .entry
                    .map(hub_protocol::Entry::encode)
                    .unwrap_or_default(),
            )
        },
        &mut |_| (),
    )?;
    Ok(bytes)
}

fn nothing_is_read(scene: &Scene, paid: &[PreparedPayment], when: &str) -> Result<()> {
    let all = files(&scene.shop.hub_dir())?;
    let control = [("the opened ledger".to_owned(), opened(scene)?)];
    for (what, forms) in needles(paid) {
        let found = holder_of_any(&all, forms.iter().map(Vec::as_slice));
        ensure!(found.is_none(), "{when}: {what} lies in {found:?}");
        let plain = forms.first().map(Vec::as_slice);
        ensure!(
            holder_of_any(&control, plain).is_some(),
            "{when}: {what} is not even in the opened ledger"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_of_the_disk_reads_no_token_staff_order_or_masked_data() -> Result<()> {
    let mut scene = scene().await?;
    // What headquarters can open is nothing to whoever has not its key.
    let recovery = RecoverySecret::from_seed(&[0x5e; 32]);
    scene.shop.kill().await?;
    let file = scene.shop.hub_dir().join("hubd.toml");
    let line = format!("[ledger]\nrecovery_key = \"{}\"\n", recovery.public());
    std::fs::write(
        &file,
        std::fs::read_to_string(&file)?.replace("[ledger]\n", &line),
    )?;
    scene.shop.start().await?;
    scene.cut(WanMode::Refuse);
    scene.shop.wait_wan("offline").await?;
    let till = scene.fleet.tills[0].clone();
    let mut paid = Vec::new();
    for number in 0..3 {
        let key = scene.shop.card_key()?;
        let key = key.ok_or_else(|| anyhow::anyhow!("the gateway has no card key"))?;
        let mut sale = sale(ORDER, key.to_seal(format!("card {number}").as_bytes())?);
        sale.card.token = TOKEN.to_owned();
        sale.card.bin = Some(BIN.to_owned());
        sale.card.last4 = Some("9137".to_owned());
        sale.terms = Some(Terms {
            staff: Some(STAFF.to_owned()),
            ..Terms::of(TransactionType::Sale)
        });
        paid.push(till.client().next_payment(sale));
    }
    for payment in &paid {
        let receipt = till.client().pay(payment).await?.receipt;
        ensure!(receipt.decision == Decision::ApprovedOffline, "{receipt:?}");
    }
    nothing_is_read(&scene, &paid, "while the hub runs")?;
    scene.shop.kill().await?;
    nothing_is_read(&scene, &paid, "after kill -9")?;
    scene.shop.start().await?;
    scene.mend();
    ensure!(
        scene.shop.drain(Duration::from_secs(60), |_| ()).await? == 0,
        "all were sent"
    );
    nothing_is_read(&scene, &paid, "after all was sent")?;
    // The index is written when the hub starts again.
    scene.shop.kill_and_restart().await?;
    nothing_is_read(&scene, &paid, "after another start")?;
    let config = Config::load(&scene.shop.hub_dir()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let recovered = |secret| StoreKey::recover(&config.layout, config.keys.hub_id, &secret);
    ensure!(recovered(RecoverySecret::from_seed(&[0x5f; 32])).is_err());
    let store = recovered(recovery)?;
    let all = files(&scene.shop.hub_dir())?;
    let data_key = forms(store.key().as_bytes());
    let found = holder_of_any(&all, data_key.iter().map(Vec::as_slice));
    ensure!(found.is_none(), "the data key lies in {found:?}");
    Ok(())
}
