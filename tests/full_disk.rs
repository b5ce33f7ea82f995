//! Somebody fills the hub's disk: warning first, then no more offline
//! approvals; what was accepted is sent and recorded; and when there is room
//! again, all is as before, without a restart.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hub_tests::image::{self, FileSystem, Image};
use hub_tests::process::{Process, Programs, output, until};
use serde_json::Value;

const MIB: u64 = 1 << 20;

/// A hub on a disk of its own, and a gateway that comes and goes.
struct Shop {
    programs: Programs,
    root: PathBuf,
    hub_dir: PathBuf,
    gateway_address: String,
    gateway: Option<Process>,
    hub: Option<Process>,
}

impl Shop {
    fn open(root: &Path, disk: &Image) -> Result<Self> {
        let mut shop = Self {
            programs: Programs::find()?,
            root: root.to_owned(),
            hub_dir: disk.path().join("hub"),
            gateway_address: "127.0.0.1:0".to_owned(),
            gateway: None,
            hub: None,
        };
        let gateway = shop.start_gateway()?;
        shop.gateway_address = gateway
            .strip_prefix("https://")
            .context("no https address")?
            .to_owned();
        let from = root.join("gateway");
        output(
            Command::new(&shop.programs.hubd)
                .args(["init", "--dir"])
                .arg(&shop.hub_dir)
                .args(["--gateway", &gateway, "--interface", "lo"])
                .arg("--gateway-ca")
                .arg(from.join("gateway-ca.pem"))
                .arg("--gateway-credential")
                .arg(from.join("gateway.credential"))
                .args(["--listen", &hub_tests::hub::free_address()?])
                .args(["--enrol-listen", &hub_tests::hub::free_address()?]),
        )?;
        let file = shop.hub_dir.join("hubd.toml");
        let mut text = fs::read_to_string(&file)?;
        for (from, to) in [
            ("probe_interval = \"5s\"", "probe_interval = \"100ms\""),
            ("segment_mib = 16", "segment_mib = 1"),
            ("reserve_mib = 64", "reserve_mib = 16"),
            ("low_space_mib = 1024", "low_space_mib = 64"),
        ] {
            ensure!(text.contains(from), "{from} is not in hubd.toml");
            text = text.replace(from, to);
        }
        fs::write(&file, text)?;
        Ok(shop)
    }

    fn start_gateway(&mut self) -> Result<String> {
        let mut command = Command::new(&self.programs.sim);
        command.args(["gateway", "--listen", &self.gateway_address, "--dir"]);
        let process = Process::start("the gateway", command.arg(self.root.join("gateway")))?;
        let line = process.line_with("gateway")?;
        self.gateway = Some(process);
        Ok(line.split_whitespace().nth(1).context("no address")?.to_owned())
    }

    fn stop_gateway(&mut self) -> Result<()> {
        self.gateway.take().context("there is no gateway")?.kill()
    }

    fn start(&mut self) -> Result<()> {
        let mut run = Command::new(&self.programs.hubd);
        let process = Process::start("hubd", run.args(["run", "--dir"]).arg(&self.hub_dir))?;
        self.hub = Some(process);
        until("the hub to answer", || self.status().ok()).map(|_| ())
    }

    fn hubctl(&self, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.programs.hubctl);
        let text = output(command.arg("--dir").arg(&self.hub_dir).arg("--json").args(args))?;
        Ok(serde_json::from_str(&text)?)
    }

    fn status(&self) -> Result<Value> {
        self.hubctl(&["status"])
    }

    fn until_status(&self, key: &str, value: impl Into<Value>) -> Result<()> {
        let value = value.into();
        until(&format!("{key} to be {value}"), || {
            (self.status().ok()?[key] == value).then_some(())
        })
    }

    fn device(&self) -> Command {
        let mut command = Command::new(&self.programs.sim);
        command
            .args(["device", "--no-discovery", "--identity"])
            .arg(self.root.join("till"));
        command
    }

    fn enrol(&self) -> Result<()> {
        let code = self.hubctl(&["enrol", "--class", "terminal"])?;
        let code = code["code"].as_str().context("no code")?;
        output(self.device().args(["enrol", code, "--name", "till"])).map(|_| ())
    }

    /// Decision and reason of each of `count` payments.
    fn pay(&self, count: u32) -> Result<Vec<(String, String)>> {
        let count = count.to_string();
        let lines = output(self.device().args(["pay", "--amount", "100", "--count", &count]))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines
            .lines()
            .map(|line| {
                let value: Value = serde_json::from_str(line)?;
                Ok((text(&value["decision"]), text(&value["reason"])))
            })
            .collect()
    }

    fn pay_once(&self) -> Result<(String, String)> {
        self.pay(1)?.pop().context("no answer")
    }
}

fn pair(decision: &str, reason: &str) -> (String, String) {
    (decision.to_owned(), reason.to_owned())
}

#[test]
fn rule_2_a_full_ext4_loses_nothing_risks_nothing_and_mends_itself() -> Result<()> {
    loses_nothing_risks_nothing_and_mends_itself(FileSystem::Ext4, 256)
}

#[test]
fn rule_2_a_full_xfs_loses_nothing_risks_nothing_and_mends_itself() -> Result<()> {
    loses_nothing_risks_nothing_and_mends_itself(FileSystem::Xfs, 320)
}

fn loses_nothing_risks_nothing_and_mends_itself(file_system: FileSystem, mib: u64) -> Result<()> {
    if image::skip(&format!("a full disk, {file_system:?}"), file_system) {
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let disk = Image::new(dir.path(), file_system, mib)?;
    let mut shop = Shop::open(dir.path(), &disk)?;
    shop.start()?;
    shop.until_status("wan", "online")?;
    shop.enrol()?;
    shop.until_status("storage", "enough")?;
    shop.stop_gateway()?;
    shop.until_status("wan", "offline")?;

    // Early, a warning and nothing more.
    disk.leave(50 * MIB)?;
    shop.until_status("storage", "low")?;
    assert_eq!(shop.pay(2)?, vec![pair("approved-offline", "none"); 2]);

    // Full: nothing is risked any more, also after a restart.
    disk.leave(0)?;
    shop.until_status("storage", "full")?;
    assert_eq!(shop.pay_once()?, pair("declined", "storage-full"));
    shop.hub.take().context("no hub")?.kill()?;
    shop.start()?;
    shop.until_status("wan", "offline")?;
    assert_eq!(shop.status()?["storage"], "full");
    assert_eq!(shop.status()?["queued"], 2);
    assert_eq!(shop.pay_once()?, pair("declined", "storage-full"));

    // What was accepted is sent and recorded, customers pay online, and the
    // journal goes on in a segment out of the reserve.
    disk.leave(0)?;
    shop.start_gateway()?;
    shop.until_status("queued", 0)?;
    shop.until_status("wan", "online")?;
    let before = fs::read_dir(shop.hub_dir.join("ledger"))?.count();
    let reserve = shop.status()?["storage_reserve_bytes"].as_u64();
    let online = shop.pay(1_500)?;
    assert!(
        online
            .iter()
            .all(|answer| *answer == pair("approved-online", "none"))
    );
    let after = fs::read_dir(shop.hub_dir.join("ledger"))?.count();
    assert!(after > before, "{before} segments, then {after}");
    let status = shop.status()?;
    assert!(status["storage_reserve_bytes"].as_u64() < reserve, "{status}");
    assert_eq!(status["storage"], "full");
    assert_eq!(status["exposure_minor"], 0);
    assert!(disk.free()? < 16 * MIB, "somebody made room");

    // Room comes back, and with it everything, in the same process.
    disk.empty()?;
    shop.until_status("storage", "enough")?;
    let uptime = shop.status()?["uptime_seconds"].as_u64();
    shop.stop_gateway()?;
    shop.until_status("wan", "offline")?;
    assert_eq!(shop.pay_once()?, pair("approved-offline", "none"));
    let status = shop.status()?;
    assert!(status["uptime_seconds"].as_u64() >= uptime);
    assert_eq!(status["storage_reserve_bytes"], 16 * MIB);

    shop.hub.take().context("no hub")?.terminate()?;
    let verified = shop.hubctl(&["ledger", "verify"])?;
    assert_eq!(verified["verified"], true, "{verified}");
    // low, full; full again at the second start; enough.
    assert_eq!(verified["kinds"]["storage-changed"], 4, "{verified}");
    // And it opens as it was left.
    shop.start()?;
    assert_eq!(shop.status()?["queued"], 1);
    shop.hub.take().context("no hub")?.terminate()?;
    Ok(())
}
