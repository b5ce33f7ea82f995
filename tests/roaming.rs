//! A device that loses its network in the middle of a payment, and comes back
//! by another with a new address, gets the one answer that was given. Hub,
//! devices and networks are hosts of their own; sales go on meanwhile.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use hub_tests::namespaces::{self, Hosts};
use hub_tests::process::{Process, Programs, output, until};
use serde_json::Value;

const WIFI: &str = "10.77.1";
const LAN: &str = "10.77.2";

struct Scene {
    dir: tempfile::TempDir,
    programs: Programs,
    gateway: Process,
    _hub: Process,
    // Last: the processes end before their hosts do.
    hosts: Hosts,
}

impl Scene {
    fn start() -> Result<Self> {
        let programs = Programs::find()?;
        let dir = tempfile::tempdir()?;
        let mut hosts = Hosts::new(&["wifi", "lan"])?;
        for host in ["hub", "mover", "stayer"] {
            hosts.add(host)?;
        }
        hosts.plug("hub", "wlan0", "wifi", &format!("{WIFI}.1/24"))?;
        hosts.plug("hub", "eth0", "lan", &format!("{LAN}.1/24"))?;
        hosts.plug("mover", "net0", "wifi", &format!("{WIFI}.10/24"))?;
        hosts.plug("stayer", "net0", "lan", &format!("{LAN}.20/24"))?;

        // Slow enough that a payment can be interrupted in the middle.
        let mut gateway = hosts.command("hub", &programs.sim);
        gateway.args(["gateway", "--dir"]).arg(dir.path().join("gateway"));
        gateway.args(["--faults", r#"{"slow":1.0,"delay_ms":1500}"#]);
        let gateway = Process::start("the gateway", &mut gateway)?;
        let value = |line: String| {
            line.split_whitespace()
                .nth(1)
                .map(str::to_owned)
                .context("no value")
        };
        let url = value(gateway.line_with("gateway")?)?;
        let ca_file = value(gateway.line_with("ca_file")?)?;
        let credential = value(gateway.line_with("credential")?)?;

        let hub_dir = dir.path().join("hub");
        output(
            Command::new(&programs.hubd)
                .args(["init", "--dir"])
                .arg(&hub_dir)
                .args(["--gateway", &url]),
        )?;
        configure(&hub_dir.join("hubd.toml"), &url, &ca_file, &credential)?;
        let mut hub = hosts.command("hub", &programs.hubd);
        let hub = Process::start("hubd", hub.args(["run", "--dir"]).arg(&hub_dir))?;
        let scene = Self {
            dir,
            programs,
            gateway,
            _hub: hub,
            hosts,
        };
        until("the hub to be online", || {
            let status = scene.hubctl(&["status"]).ok()?;
            (status["wan"] == "online").then_some(())
        })?;
        Ok(scene)
    }

    fn hubctl(&self, args: &[&str]) -> Result<Value> {
        let hub_dir = self.dir.path().join("hub");
        let text = output(
            Command::new(&self.programs.hubctl)
                .arg("--dir")
                .arg(hub_dir)
                .arg("--json")
                .args(args),
        )?;
        Ok(serde_json::from_str(&text)?)
    }

    fn device(&self, host: &str) -> Command {
        let mut command = self.hosts.command(host, &self.programs.sim);
        command
            .args(["device", "--identity"])
            .arg(self.dir.path().join(host))
            .args(["--interface", "net0"]);
        command
    }

    fn enrol(&self, host: &str) -> Result<()> {
        let code = self.hubctl(&["enrol", "--class", "terminal"])?;
        let code = code["code"].as_str().context("no code")?;
        output(self.device(host).args(["enrol", code, "--name", host])).map(|_| ())
    }

    /// What the gateway has charged, by payment.
    fn charges(&self) -> Result<BTreeMap<String, u64>> {
        let book = fs::read_to_string(self.dir.path().join("gateway/settlement.csv"))?;
        let mut charges = BTreeMap::new();
        for line in book.lines().filter(|line| line.contains("approved")) {
            let id = line.split(',').next().unwrap_or_default().to_owned();
            *charges.entry(id).or_insert(0) += 1;
        }
        Ok(charges)
    }
}

/// The hub listens to its shop, and asks a gateway of the test's.
fn configure(file: &Path, url: &str, ca_file: &str, credential: &str) -> Result<()> {
    let text = format!(
        r#"
[hub]
store = "Épicerie du Port"
store_id = "shop-001"
currency = "EUR"

[devices]
listen = "0.0.0.0:7411"
enrol_listen = "0.0.0.0:7412"
advertise = ["{WIFI}.1", "{LAN}.1"]

[discovery]
enabled = true
interfaces = ["wlan0", "eth0"]

[gateway]
url = "{url}"
ca_file = "{ca_file}"
credential_file = "{credential}"
probe_interval = "300ms"

"#
    );
    let old = fs::read_to_string(file)?;
    let policy = old.find("[policy]").context("no [policy] in what init wrote")?;
    let rest = &old[policy..];
    fs::write(file, text + rest)?;
    Ok(())
}

fn receipt(line: &str) -> Result<(String, String)> {
    let value: Value = serde_json::from_str(line)?;
    match (value["payment_id"].as_str(), value["decision"].as_str()) {
        (Some(id), Some(decision)) => Ok((id.to_owned(), decision.to_owned())),
        _ => bail!("no receipt: {line}"),
    }
}

#[test]
fn rule_3_a_device_that_changes_networks_in_a_payment_gets_the_one_answer() -> Result<()> {
    if namespaces::skip("roaming between networks") {
        return Ok(());
    }
    let mut scene = Scene::start()?;
    scene.enrol("mover")?;
    scene.enrol("stayer")?;

    // Somebody sells all the while.
    let mut selling = scene.device("stayer");
    selling.args(["pay", "--amount", "1200", "--card", "steady", "--count", "6"]);
    let mut stayer = Process::start("the device that stays", &mut selling)?;
    let mut told = vec![receipt(&stayer.line()?)?];

    for (round, (network, address)) in [("lan", format!("{LAN}.10/24")), ("wifi", format!("{WIFI}.10/24"))]
        .into_iter()
        .enumerate()
    {
        let before = scene.hubctl(&["status"])?["ledger_entries"]
            .as_u64()
            .context("no entries")?;
        let mut paying = scene.device("mover");
        paying.args(["pay", "--amount", "2500", "--card", &format!("roaming-{round}")]);
        let mut mover = Process::start("the device that moves", &mut paying)?;
        // The payment is in the ledger and on its way: now the network goes.
        until("the payment to be opened", || {
            let status = scene.hubctl(&["status"]).ok()?;
            (status["ledger_entries"].as_u64()? > before).then_some(())
        })?;
        scene.hosts.unplug("mover", "net0")?;
        told.push(receipt(&stayer.line()?)?);
        scene.hosts.replug("mover", "net0", network, &address)?;
        told.push(receipt(&mover.line()?)?);
        assert!(mover.wait()?.success());
    }
    while told.len() < 8 {
        told.push(receipt(&stayer.line()?)?);
    }
    assert!(stayer.wait()?.success());

    let approved = told
        .iter()
        .filter(|(_, decision)| decision.starts_with("approved"))
        .count();
    assert_eq!(approved, 8, "{told:?}");
    until("everything to be sent", || {
        let status = scene.hubctl(&["status"]).ok()?;
        (status["queued"] == 0 && status["reversals_queued"] == 0).then_some(())
    })?;
    scene.gateway.interrupt()?;
    let charges = scene.charges()?;
    assert_eq!(charges.len(), 8, "{charges:?}");
    for (id, _) in &told {
        assert_eq!(charges.get(id), Some(&1), "{id} is charged once");
    }
    Ok(())
}
