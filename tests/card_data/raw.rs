//! A shop whose every file is read, byte by byte.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use hub_protocol::{CardFacts, CardScheme, Cryptogram, Currency, EntryMode, Funding, Verification};
use hub_sdk::{CardData, DeviceClient, PreparedPayment, Sale};
use hub_tests::process::Programs;
use sim_devices::limits::Limits;
use sim_devices::scene::{Scene, SceneOptions};

/// A number that no scheme has given to anybody, and that passes for one.
pub(crate) const NUMBER: &str = "4929123456789015";

pub(crate) async fn scene() -> Result<Scene> {
    let programs = Programs::find()?;
    let options = SceneOptions {
        keep: None,
        reopen: false,
        bin_dir: programs.hubd.parent().map(Path::to_owned),
        limits: Limits::load(),
        devices: 1,
        discovery: false,
        seed: 1,
        deadline: Duration::from_secs(3),
        probe_interval: Duration::from_millis(100),
        max_in_flight: 4,
        requests_per_second: None,
    };
    Scene::open(&options, &|_| ()).await
}

/// The hub starts again, and says in its log whatever it can.
pub(crate) async fn talkative(scene: &mut Scene) -> Result<()> {
    let config = scene.shop.hub_dir().join("hubd.toml");
    let text = fs::read_to_string(&config)?.replace("level = \"info\"", "level = \"trace\"");
    anyhow::ensure!(text.contains("level = \"trace\""), "hubd.toml has a level");
    fs::write(&config, text)?;
    scene.shop.stop().await?;
    scene.shop.start().await
}

pub(crate) fn sale(order_id: &str, sealed_card: CardData) -> Sale {
    Sale {
        amount_minor: 1250,
        currency: Currency::EUR,
        card: CardFacts {
            token: format!("tok of {order_id}"),
            scheme: CardScheme::Cb,
            funding: Funding::Debit,
            issuer_country: Some("FR".to_owned()),
            bin: None,
            last4: None,
        },
        order_id: order_id.to_owned(),
        entry_mode: EntryMode::Chip,
        verification: Verification::OfflinePin,
        cryptogram: Cryptogram::AsksOnline,
        sealed_card,
        terms: None,
    }
}

/// Payments whose card data hold the number: three sealed to the gateway's
/// key, one by a reader, one without an envelope.
pub(crate) fn payments(client: &DeviceClient, scene: &Scene, run: u32) -> Result<Vec<PreparedPayment>> {
    let key = scene.shop.card_key()?.context("the gateway has a card key")?;
    let mut all = Vec::new();
    for number in 0..3 {
        let clear = format!("5A08{NUMBER}, the card of payment {number}");
        all.push(client.next_payment(sale(&format!("H{run}-{number}"), key.to_seal(clear.as_bytes())?)));
    }
    // Nothing repeats in them, so that every part can be looked for.
    let noise = |seed: u8| {
        (0..96u8)
            .map(|at| at.wrapping_mul(seed) ^ (at >> 3) ^ seed)
            .collect::<Vec<u8>>()
    };
    let run = u8::try_from(run)?;
    all.push(client.next_payment(sale(
        &format!("D{run}"),
        CardData::dukpt(&[0xd0 ^ run; 10], &noise(0x35 + 2 * run)),
    )));
    all.push(client.next_payment(sale(&format!("B{run}"), CardData::blob(noise(0x75 + 2 * run)))));
    Ok(all)
}

/// All files below a folder, with their names. Pages of nothing but zeros are
/// left out: files are made longer than what is in them.
pub(crate) fn files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                // A file may go between listing and reading.
                match fs::read(entry.path()) {
                    Ok(bytes) => found.push((entry.path().display().to_string(), written(&bytes))),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(found)
}

fn written(bytes: &[u8]) -> Vec<u8> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let pages = bytes.chunks(ZEROS.len());
    pages
        .filter(|page| **page != ZEROS[..page.len()])
        .collect::<Vec<_>>()
        .concat()
}

/// The name of a file that holds these bytes.
pub(crate) fn holder<'a>(files: &'a [(String, Vec<u8>)], needle: &[u8]) -> Option<&'a str> {
    holder_of_any(files, [needle])
}

/// The name of a file that holds one of these. Reads each file once.
pub(crate) fn holder_of_any<'a, 'n>(
    files: &'a [(String, Vec<u8>)],
    needles: impl IntoIterator<Item = &'n [u8]>,
) -> Option<&'a str> {
    let mut by_first = vec![Vec::new(); 256];
    for needle in needles {
        by_first[usize::from(needle[0])].push(needle);
    }
    let holds = |bytes: &[u8]| {
        bytes.iter().enumerate().any(|(at, first)| {
            let here = &by_first[usize::from(*first)];
            !here.is_empty() && here.iter().any(|needle| bytes[at..].starts_with(needle))
        })
    };
    files
        .iter()
        .find(|(_, bytes)| holds(bytes))
        .map(|(name, _)| name.as_str())
}

/// Pieces of 16 bytes that say something: no run of zeros.
pub(crate) fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let telling = |piece: &&[u8]| piece.len() == 16 && piece.iter().filter(|byte| **byte != 0).count() >= 12;
    bytes.chunks(16).filter(telling).collect()
}

/// The number in the ways in which it may lie somewhere.
pub(crate) fn spelled() -> Vec<Vec<u8>> {
    let packed: Vec<u8> = NUMBER
        .as_bytes()
        .chunks(2)
        .map(|pair| (pair[0] - b'0') << 4 | (pair[1] - b'0'))
        .collect();
    let hex: String = NUMBER.bytes().map(|byte| format!("{byte:02x}")).collect();
    let grouped = |separator: &str| -> String {
        let groups: Vec<&str> = (0..4).map(|at| &NUMBER[4 * at..4 * at + 4]).collect();
        groups.join(separator)
    };
    [NUMBER.to_owned(), hex, grouped(" "), grouped("-"), grouped(".")]
        .into_iter()
        .map(String::into_bytes)
        .chain([packed])
        .collect()
}
