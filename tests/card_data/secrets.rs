//! What must not be in a log: keys, the gateway's credential, codes that let
//! somebody in.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hub_protocol::{DeviceClass, EnrolmentCode};
use hub_sdk::{CardData, DeviceIdentity};
use sim_devices::gateway::Faults;

use crate::raw::{files, sale, scene, talkative};

/// A secret, in every way in which a log would show it.
fn shown(secret: &[u8]) -> Vec<String> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    // As Debug shows bytes: enough of them for nothing else to be the same.
    let list: Vec<String> = secret.iter().take(12).map(ToString::to_string).collect();
    let base64 = STANDARD.encode(secret);
    let mut ways = vec![
        hex.to_uppercase(),
        hex,
        base64.trim_end_matches('=').to_owned(),
        list.join(", "),
    ];
    // A text, as it stands.
    ways.extend(String::from_utf8(secret.to_vec()));
    ways
}

/// Every key and credential in a hub's folder, as bytes: those of key files are
/// 64 hex digits.
fn secrets(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for (name, bytes) in files(dir)? {
        if name.ends_with(".key") {
            let text = String::from_utf8(bytes).context("a key is text")?;
            let digits: Vec<u8> = text.trim().bytes().collect();
            let pairs = digits.chunks(2).map(|pair| {
                let text = std::str::from_utf8(pair).ok()?;
                u8::from_str_radix(text, 16).ok()
            });
            // A key in another form than hex is looked for as it stands.
            let key = pairs.collect::<Option<Vec<u8>>>();
            found.push((name, key.unwrap_or_else(|| text.trim().as_bytes().to_vec())));
        } else if name.ends_with("credential") {
            found.push((name, String::from_utf8(bytes)?.trim().as_bytes().to_vec()));
        }
    }
    Ok(found)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_in_the_log_at_its_most_talkative() -> Result<()> {
    let mut scene = scene().await?;
    talkative(&mut scene).await?;
    let hub = scene.shop.hub_dir();
    let mut all = secrets(&hub)?;

    // Codes: used, unused, and for several devices.
    let mut codes = Vec::new();
    for _ in 0..2 {
        codes.push(scene.shop.enrolment_code(DeviceClass::Terminal).await?);
    }
    let fleet = scene
        .shop
        .ctl(&["enrol", "--fleet", "--class", "softpos"])
        .await?;
    codes.push(fleet["code"].as_str().context("a code")?.to_owned());
    let identity = DeviceIdentity::generate()?;
    let code: EnrolmentCode = codes[0].parse()?;
    hub_sdk::enrol(&identity, &code, DeviceClass::Terminal, "Caisse 2", "Tap 3").await?;
    for code in &codes {
        let read: EnrolmentCode = code.parse()?;
        all.push(("a code".to_owned(), code.as_bytes().to_vec()));
        all.push(("a token".to_owned(), read.token.to_vec()));
    }

    // Payments, online and not, and every key that the hub can change.
    let till = scene.fleet.tills[0].clone();
    for (order, faults) in [
        ("S1", Faults::default()),
        (
            "S2",
            Faults {
                never_answer: 1.0,
                ..Faults::default()
            },
        ),
    ] {
        scene.set_faults(faults)?;
        let card = CardData::dukpt(&[1; 10], &[2; 96]);
        till.client()
            .pay(&till.client().next_payment(sale(order, card)))
            .await?;
    }
    scene.set_faults(Faults::default())?;
    for which in [&["vault"][..], &["signing", "--yes"], &["tls", "--yes"]] {
        scene.shop.ctl(&[&["keys", "rotate"], which].concat()).await?;
        all.extend(secrets(&hub)?);
    }
    scene.shop.stop().await?;
    scene.shop.start().await?;
    all.extend(secrets(&hub)?);
    scene.shop.stop().await?;
    ensure!(all.len() > 12, "{} secrets", all.len());

    let log = String::from_utf8_lossy(&fs::read(scene.shop.log_file())?).into_owned();
    ensure!(log.contains("TRACE"), "the log says everything");
    for (name, secret) in all {
        for way in shown(&secret) {
            ensure!(!log.contains(&way), "the log shows {name}");
        }
    }
    Ok(())
}
