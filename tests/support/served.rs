//! A hub as shipped with a gateway of its own, on the loopback interface.

use std::collections::BTreeMap;
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{Process, Programs, output, until};

/// See the module.
pub struct ServedHub {
    programs: Programs,
    dir: PathBuf,
    gateway: Option<Process>,
    /// Where the gateway listens, and what goes wrong there (JSON).
    address: String,
    faults: String,
    process: Option<Process>,
}

impl ServedHub {
    /// Starts the gateway with these faults (JSON) and makes the hub;
    /// [`start`](Self::start) runs it.
    pub fn new(programs: &Programs, dir: &Path, faults: &str) -> Result<Self> {
        let mut gateway = Command::new(&programs.sim);
        gateway.args(["gateway", "--faults", faults, "--dir"]);
        let gateway = Process::start("the gateway", gateway.arg(dir.join("gateway")))?;
        let value = |name: &str| -> Result<String> {
            let line = gateway.line_with(name)?;
            let value = line.split_whitespace().nth(1).context("no value")?;
            Ok(value.to_owned())
        };
        let (url, ca_file, credential) = (value("gateway")?, value("ca_file")?, value("credential")?);
        let hub = Self {
            programs: programs.clone(),
            dir: dir.join("hub"),
            gateway: Some(gateway),
            address: url.trim_start_matches("https://").to_owned(),
            faults: faults.to_owned(),
            process: None,
        };
        let mut init = Command::new(&programs.hubd);
        init.args(["init", "--interface", "lo", "--gateway", &url, "--dir"]);
        init.arg(&hub.dir);
        init.args(["--gateway-ca", &ca_file, "--gateway-credential", &credential]);
        init.args(["--listen", &free_address()?, "--enrol-listen", &free_address()?]);
        output(&mut init)?;
        let file = hub.dir.join("hubd.toml");
        let text = fs::read_to_string(&file)?;
        fs::write(
            &file,
            text.replace("probe_interval = \"5s\"", "probe_interval = \"100ms\""),
        )?;
        Ok(hub)
    }

    /// Starts the hub and waits until it is online.
    pub fn start(&mut self) -> Result<()> {
        self.start_until("online")
    }

    /// Starts the hub and waits until it stands so to the gateway: `online`,
    /// `offline`.
    pub fn start_until(&mut self, wan: &str) -> Result<()> {
        let mut run = Command::new(&self.programs.hubd);
        self.process = Some(Process::start("hubd", run.args(["run", "--dir"]).arg(&self.dir))?);
        self.stands(wan)
    }

    /// Waits until the hub stands so to the gateway.
    pub fn stands(&self, wan: &str) -> Result<()> {
        until(&format!("the hub to be {wan}"), || {
            let status = self.hubctl(&["status"]).ok()?;
            (status["wan"] == wan).then_some(())
        })
    }

    /// Whether the hub's process has not ended.
    pub fn runs(&mut self) -> Result<bool> {
        self.process.as_mut().context("the hub is not running")?.runs()
    }

    /// The hub's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The line is cut: the gateway is gone. Its book stays.
    pub fn cut(&mut self) -> Result<()> {
        self.gateway.take().context("the gateway has ended")?.kill()
    }

    /// The gateway is back, where it was.
    pub fn mend(&mut self) -> Result<()> {
        let mut gateway = Command::new(&self.programs.sim);
        gateway.args([
            "gateway",
            "--faults",
            &self.faults,
            "--listen",
            &self.address,
            "--dir",
        ]);
        let gateway = Process::start("the gateway", gateway.arg(self.dir.with_file_name("gateway")))?;
        gateway.line_with("credential")?;
        self.gateway = Some(gateway);
        Ok(())
    }

    /// Kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().context("the hub is not running")?.kill()
    }

    /// `hubctl --json …`
    pub fn hubctl(&self, args: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.programs.hubctl);
        let text = output(command.arg("--dir").arg(&self.dir).arg("--json").args(args))?;
        Ok(serde_json::from_str(&text)?)
    }

    /// How many entries the ledger has.
    pub fn entries(&self) -> Result<u64> {
        let status = self.hubctl(&["status"])?;
        status["ledger_entries"].as_u64().context("no entries")
    }

    /// Waits until nothing is left to be sent.
    pub fn drained(&self) -> Result<()> {
        until("everything to be sent", || {
            let status = self.hubctl(&["status"]).ok()?;
            (status["queued"] == 0 && status["reversals_queued"] == 0).then_some(())
        })
    }

    /// A device's folder, beside the hub's.
    pub fn device_dir(&self, name: &str) -> PathBuf {
        self.dir.with_file_name(name)
    }

    /// A simulated device's command line.
    pub fn device(&self, name: &str) -> Command {
        let mut command = Command::new(&self.programs.sim);
        command
            .args(["device", "--no-discovery", "--identity"])
            .arg(self.device_dir(name));
        command
    }

    /// Enrols a device.
    pub fn enrol(&self, name: &str) -> Result<()> {
        let code = self.hubctl(&["enrol", "--class", "terminal"])?;
        let code = code["code"].as_str().context("no code")?;
        output(self.device(name).args(["enrol", code, "--name", name])).map(|_| ())
    }

    /// Ends the gateway and reads in its book what it has charged and not given
    /// back: payment ids, one for each charge.
    pub fn charges(&mut self) -> Result<Vec<String>> {
        let mut gateway = self.gateway.take().context("the gateway has ended")?;
        gateway.interrupt()?;
        let book = fs::read_to_string(self.dir.with_file_name("gateway").join("book.jsonl"))?;
        let mut payments: BTreeMap<String, Value> = BTreeMap::new();
        for line in book.lines() {
            let line: Value = serde_json::from_str(line)?;
            if line["line"] == "payment" {
                let id = line["payment_id"].as_str().context("a payment without an id")?;
                payments.insert(id.to_owned(), line);
            }
        }
        let mut charges = Vec::new();
        for (id, payment) in payments {
            if payment["charged"] == true && payment["reversed"] == false {
                let again = payment["charged_again"].as_u64().unwrap_or(0);
                charges.extend((0..=again).map(|_| id.clone()));
            }
        }
        Ok(charges)
    }
}

/// An address that was free a moment ago; the hub keeps it over restarts.
fn free_address() -> Result<String> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
