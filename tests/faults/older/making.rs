//! Making an older store: a fixture of hubd, with a gateway of the run's own,
//! and paid into if need be.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use hub_protocol::PaymentId;
use hub_tests::hub::free_address;
use hubd::config::Config;
use serde_json::Value;
use sim_devices::binaries::Binaries;
use sim_devices::gateway::{Faults, Gateway, GatewayOptions};
use sim_devices::limits::Limits;
use sim_devices::rng::Rng;
use sim_devices::shop::{GatewayAccess, Shop, ShopOptions};
use tokio::time::timeout;

use super::{DRAIN, Older, Place, copy, log_len, run, standing, work};
use crate::customers::Customers;
use crate::store;
use crate::tally::Way;

/// Devices that pay into a store.
const DEVICES: usize = 8;

/// So many answers are in a store that was paid into.
const ANSWERS: usize = 1_500;

impl Older {
    /// Unpacks the fixture of a format. `enlarged`: the present program pays
    /// into it, and the index and the stamp of its time are put back.
    pub(crate) async fn make(
        format: u16,
        enlarged: bool,
        binaries: &Binaries,
        rng: &mut Rng,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("hubd-older-").tempdir()?;
        let path = dir.path();
        let (hub, old) = (path.join("hub"), path.join("old"));
        unpack(format, path)?;
        let expected: Value = serde_json::from_slice(&fs::read(path.join("expected.json"))?)?;
        let gateway = Gateway::start(GatewayOptions {
            control: None,
            // Nothing is booked while the store is made.
            faults: Faults {
                unavailable: 1.0,
                ..Faults::default()
            },
            ..GatewayOptions::new(path.join("gateway"))
        })
        .await?;
        fs::copy(gateway.ca_pem_path(), hub.join("gateway-ca.pem"))?;
        fs::write(hub.join("gateway.credential"), gateway.credential())?;
        configure(&hub)?;
        liberal_policy(&hub, binaries)?;
        fs::write(path.join("sim-hub.json"), "{}")?;
        let mut options = ShopOptions {
            dir: path.to_owned(),
            binaries: binaries.clone(),
            gateway: GatewayAccess {
                url: gateway.url(),
                ca_file: gateway.ca_pem_path(),
                credential: String::new(),
            },
            limits: Limits::load(),
            deadline: Duration::from_millis(500),
            probe_interval: Duration::from_millis(100),
            max_in_flight: 16,
            requests_per_second: Some(1_000_000),
            discovery: false,
        };
        let way = Way::TakingOver { format, enlarged };
        let mut shop = Shop::reopen(options.clone())?;
        let config = Config::load(&hub).map_err(|faults| anyhow!("{faults:?}"))?;
        copy(&hub, &old)?;
        let mut customers = Customers::default();
        if enlarged {
            shop.start().await?;
            customers = Customers::enrol(&shop, DEVICES, rng).await?;
            let book = Arc::clone(customers.book());
            let paying = customers.start(way);
            timeout(DRAIN, book.grows_past(ANSWERS))
                .await
                .map_err(|_| anyhow!("no answers; the log says:\n{}", shop.log_tail()))?;
            customers = paying.stop().await?;
            customers.settle(way).await?;
            shop.stop().await?;
            for name in ["index", "format"] {
                let _ = fs::remove_dir_all(hub.join(name));
                let _ = fs::remove_file(hub.join(name));
                if old.join(name).exists() {
                    copy(&old.join(name), &hub.join(name))?;
                }
            }
        }
        drop(gateway);
        options.gateway.url = "https://127.0.0.1:9".to_owned();
        let mut shop = Shop::reopen(options.clone())?;
        let right = path.join("right");
        copy(&hub, &right)?;
        let (log, said) = (shop.log_file(), log_len(&shop.log_file()));
        let (started, takes) = tokio::join!(shop.start(), work(log, said, format));
        started?;
        let takes = takes?;
        let standing = standing(&shop).await?;
        if !enlarged {
            for key in ["queued", "parked", "exposure_minor"] {
                ensure!(standing[key] == expected[key], "{key}: {standing} {expected}");
            }
        }
        shop.stop().await?;
        drop(shop);
        let receipts = expected["receipts"].as_array().context("no receipts")?;
        let queue = expected["queue"].as_array().context("no queue")?;
        let id = |item: &Value| -> Result<PaymentId> {
            let id = item["payment_id"].as_str().context("no id")?;
            id.parse().context("no id")
        };
        let place = |item: &Value| -> Result<Place> {
            Ok(Place {
                payment_id: id(item)?,
                sequence: usize::try_from(item["sequence"].as_u64().context("no sequence")?)?,
                digest: item["entry_digest"]
                    .as_str()
                    .and_then(|text| text.parse().ok())
                    .context("no digest")?,
            })
        };
        Ok(Self {
            way,
            format,
            options,
            keys: config.keys,
            customers,
            // A device's own approval has none that names a place.
            receipts: receipts
                .iter()
                .filter(|item| item["sequence"].is_u64())
                .map(place)
                .collect::<Result<_>>()?,
            payments: receipts.iter().map(id).collect::<Result<_>>()?,
            waiting: queue.iter().map(id).collect::<Result<_>>()?,
            standing,
            takes,
            dir,
        })
    }
}

fn unpack(format: u16, to: &Path) -> Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hubd/tests/fixtures");
    run(Command::new("tar")
        .args(["--no-same-owner", "-xzf"])
        .arg(fixtures.join(format!("store-v{format}.tar.gz")))
        .arg("-C")
        .arg(to))
}

/// Ports that are free now, and a small reserve.
fn configure(hub: &Path) -> Result<()> {
    let file = hub.join("hubd.toml");
    let text = fs::read_to_string(&file)?;
    let has_reserve = text.contains("\nreserve_mib = ");
    let mut lines = Vec::new();
    for line in text.lines() {
        match line.split_once(" = ") {
            Some((key @ ("listen" | "enrol_listen"), _)) => {
                lines.push(format!("{key} = \"{}\"", free_address()?));
            }
            _ => lines.push(line.to_owned()),
        }
        if line == "[ledger]" && !has_reserve {
            lines.push("reserve_mib = 16".to_owned());
        }
    }
    fs::write(&file, lines.join("\n") + "\n")?;
    store::configure(hub, "reserve_mib", 16)
}

/// A policy of a later version that refuses nothing for its amount, signed by
/// the store's own key.
fn liberal_policy(hub: &Path, binaries: &Binaries) -> Result<()> {
    let text = fs::read_to_string(hub.join("policy.toml"))?;
    let lines = text.lines().map(|line| match line.split_once(" = ") {
        Some(("version", _)) => "version = 1000".to_owned(),
        Some(("not_before", _)) => "not_before = 2024-01-01T00:00:00Z".to_owned(),
        Some(("expires", _)) => "expires = 2036-01-01T00:00:00Z".to_owned(),
        Some(("longest_minutes", _)) => "longest_minutes = 43200".to_owned(),
        Some((key, _)) if key.ends_with("_ceiling") => format!("{key} = 100000000"),
        Some((key, _)) if key.ends_with("_limit") => format!("{key} = 1000000"),
        _ => line.to_owned(),
    });
    let text: Vec<String> = lines.collect();
    fs::write(hub.join("policy.toml"), text.join("\n") + "\n")?;
    let signed = hub.join("policy.cose");
    fs::remove_file(&signed)?;
    run(Command::new(&binaries.hubctl)
        .args(["policy", "sign", "--key"])
        .arg(hub.join("keys").join("policy-local.key"))
        .arg(hub.join("policy.toml"))
        .arg(&signed))
}
