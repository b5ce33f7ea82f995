//! A hub as shipped, in a folder of the test's.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{Process, Programs, output, until};

/// A hub on the loopback interface whose gateway cannot be reached.
pub struct CutOffHub {
    programs: Programs,
    dir: PathBuf,
    process: Option<Process>,
}

impl CutOffHub {
    /// Makes the hub; [`start`](Self::start) runs it.
    pub fn new(programs: &Programs, dir: &Path) -> Result<Self> {
        let hub = Self {
            programs: programs.clone(),
            dir: dir.join("hub"),
            process: None,
        };
        let mut init = Command::new(&programs.hubd);
        init.args(["init", "--dir"]).arg(&hub.dir);
        // Port 9 (discard) of this machine: nobody answers there.
        init.args(["--gateway", "https://127.0.0.1:9", "--interface", "lo"]);
        init.args(["--listen", &free_address()?, "--enrol-listen", &free_address()?]);
        output(&mut init)?;
        let file = hub.dir.join("hubd.toml");
        let text = fs::read_to_string(&file)?;
        let text = text.replace("probe_interval = \"5s\"", "probe_interval = \"100ms\"");
        fs::write(&file, text)?;
        Ok(hub)
    }

    /// The hub's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts the hub and waits until it knows that it is cut off.
    pub fn start(&mut self) -> Result<()> {
        let mut run = Command::new(&self.programs.hubd);
        self.process = Some(Process::start("hubd", run.args(["run", "--dir"]).arg(&self.dir))?);
        until("the hub to be offline", || {
            let status = self.hubctl(&["status"]).ok()?;
            (status["wan"] == "offline").then_some(())
        })
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

    /// A simulated device's command line, its folder beside the hub's.
    pub fn device(&self, name: &str) -> Command {
        let mut command = Command::new(&self.programs.sim);
        command
            .args(["device", "--no-discovery", "--identity"])
            .arg(self.dir.with_file_name(name));
        command
    }

    /// Enrols a device.
    pub fn enrol(&self, name: &str) -> Result<()> {
        let code = self.hubctl(&["enrol", "--class", "terminal"])?;
        let code = code["code"].as_str().context("no code")?;
        output(self.device(name).args(["enrol", code, "--name", name])).map(|_| ())
    }
}

/// An address that was free a moment ago; the hub keeps it over restarts.
pub fn free_address() -> Result<String> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
