//! A shop under test: a real `hubd` process in a folder of its own.
//!
//! The child is ended by its own id, and when a [`Shop`] is dropped (at a
//! panic too) its child is killed with it.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::binaries::Binaries;
use crate::limits::Limits;

pub mod ctl;

/// The longest wait for a hub to be ready, and for it to end after SIGTERM.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What a shop is made of.
#[derive(Clone, Debug)]
pub struct ShopOptions {
    /// The folder of the hub; made if it is not there.
    pub dir: PathBuf,
    /// The programs.
    pub binaries: Binaries,
    /// The gateway, as the hub reaches it.
    pub gateway: GatewayAccess,
    /// The policy.
    pub limits: Limits,
    /// How long a customer waits for the gateway.
    pub deadline: Duration,
    /// How often the gateway is probed.
    pub probe_interval: Duration,
    /// The most payments under way at replay.
    pub max_in_flight: u32,
    /// How many requests a second one device may send; `None`: as configured.
    pub requests_per_second: Option<u32>,
    /// Whether the hub is found over mDNS (on the loopback interface).
    pub discovery: bool,
}

/// The store's id at the gateway: whom devices seal cards for.
const STORE_ID: &str = "shop-001";

/// How the C library is to keep a hub's memory, as systemd/hubd.service has it.
pub const HEAP: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "262144")];

/// What `hubd init` said of the hub, in the shop's folder.
const INIT_FILE: &str = "sim-hub.json";

/// How a hub reaches its gateway.
#[derive(Clone, Debug)]
pub struct GatewayAccess {
    /// Its address.
    pub url: String,
    /// Its authority's certificates.
    pub ca_file: PathBuf,
    /// What it knows the hub by.
    pub credential: String,
}

/// The shop.
#[derive(Debug)]
pub struct Shop {
    options: ShopOptions,
    child: Option<Child>,
    restarts: u32,
    hub_short: String,
}

impl Shop {
    /// Sets a hub up: `hubd init`, and what a run needs changed in
    /// `hubd.toml`. Does not start it.
    pub async fn open(options: ShopOptions) -> Result<Self> {
        std::fs::create_dir_all(&options.dir)
            .with_context(|| format!("cannot make {}", options.dir.display()))?;
        let policy = options.dir.join("sim-policy.toml");
        std::fs::write(&policy, options.limits.to_toml(1, Timestamp::now()))
            .with_context(|| format!("cannot write {}", policy.display()))?;
        let credential = options.dir.join("sim-gateway.credential");
        write_secret(&credential, &options.gateway.credential)?;
        let hub = options.dir.join("hub");
        let (listen, enrol) = free_ports()?;
        let mut init = Command::new(&options.binaries.hubd);
        init.arg("init")
            .arg("--dir")
            .arg(&hub)
            .args(["--json", "--store", "Épicerie du Port", "--store-id"]);
        init.arg(STORE_ID)
            .arg("--currency")
            .arg(options.limits.currency.as_str());
        init.arg("--gateway").arg(&options.gateway.url);
        init.arg("--gateway-ca").arg(&options.gateway.ca_file);
        init.arg("--gateway-credential").arg(&credential);
        init.arg("--listen").arg(format!("127.0.0.1:{listen}"));
        init.arg("--enrol-listen").arg(format!("127.0.0.1:{enrol}"));
        init.args(["--interface", "lo", "--policy"]).arg(&policy);
        let made = ctl::json(init, "hubd init").await?;
        let file = options.dir.join(INIT_FILE);
        std::fs::write(&file, made.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        Self::over(options, &made)
    }

    /// The hub that [`open`](Self::open) set up in the same folder, with the
    /// gateway where it is now. Does not start it.
    pub fn reopen(options: ShopOptions) -> Result<Self> {
        let file = options.dir.join(INIT_FILE);
        let made = std::fs::read(&file)
            .with_context(|| format!("no hub was kept here: cannot read {}", file.display()))?;
        Self::over(options, &serde_json::from_slice(&made)?)
    }

    fn over(options: ShopOptions, made: &Value) -> Result<Self> {
        let hub_short = made["hub_short"].as_str().unwrap_or_default().to_owned();
        let mut shop = Self {
            options,
            child: None,
            restarts: 0,
            hub_short,
        };
        shop.edit_config()?;
        Ok(shop)
    }

    /// What devices seal cards to: the gateway's key, from beside the
    /// certificates that it hands out. `None` if it hands out none.
    ///
    /// # Errors
    /// The file holds no key.
    pub fn card_key(&self) -> Result<Option<hub_sdk::CardKey>> {
        let file = self.options.gateway.ca_file.with_file_name("card-key.json");
        let key = || crate::card_data::card_key(&file, STORE_ID);
        file.exists().then(key).transpose()
    }

    /// The hub's own folder.
    pub fn hub_dir(&self) -> PathBuf {
        self.options.dir.join("hub")
    }

    /// What the hub writes to its log.
    pub fn log_file(&self) -> PathBuf {
        self.options.dir.join("hubd.log")
    }

    /// The policy's limits.
    pub fn limits(&self) -> &Limits {
        &self.options.limits
    }

    /// The hub's short identity, as in mDNS.
    pub fn hub_short(&self) -> &str {
        &self.hub_short
    }

    /// How often the hub was started again after it had been killed.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// The child's process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Starts the hub and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        self.start_within(PATIENCE).await
    }

    /// [`start`](Self::start), and waits for no longer than `patience`.
    pub async fn start_within(&mut self, patience: Duration) -> Result<()> {
        if self.child.is_some() {
            bail!("the hub is running already");
        }
        let log = append(&self.log_file())?;
        let child = Command::new(&self.options.binaries.hubd)
            .arg("run")
            .arg("--dir")
            .arg(self.hub_dir())
            .envs(HEAP)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot write the hub's log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.options.binaries.hubd.display()))?;
        self.child = Some(child);
        self.wait_ready(patience).await
    }

    async fn wait_ready(&mut self, patience: Duration) -> Result<()> {
        let until = Instant::now() + patience;
        loop {
            if let Some(child) = self.child.as_mut()
                && let Some(status) = child.try_wait().context("cannot look after the hub")?
            {
                bail!(
                    "hubd ended with {status} instead of starting; its log says:\n{}",
                    self.log_tail()
                );
            }
            match self.status().await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= until => {
                    return Err(error.context(format!(
                        "hubd was not ready after {} s; its log says:\n{}",
                        patience.as_secs(),
                        self.log_tail()
                    )));
                }
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// SIGKILL: the hub gets no chance to say or write anything.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the hub is not running")?;
        child.start_kill().context("cannot kill the hub")?;
        timeout(PATIENCE, child.wait())
            .await
            .context("the hub was killed and did not end")??;
        Ok(())
    }

    /// Waits for the hub to end by itself; `None` if it goes on for longer
    /// than `patience`.
    pub async fn ended(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let child = self.child.as_mut().context("the hub is not running")?;
        let Ok(status) = timeout(patience, child.wait()).await else {
            return Ok(None);
        };
        let status = status.context("cannot look after the hub")?;
        self.child = None;
        Ok(Some(status))
    }

    /// [`kill`](Self::kill), and [`start`](Self::start) again.
    pub async fn kill_and_restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.restarts += 1;
        self.start().await
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the hub is not running")?;
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("the hub had ended before it was told to stop")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("cannot stop the hub")?;
        match timeout(PATIENCE, child.wait()).await {
            Ok(status) => {
                let status = status.context("cannot look after the hub")?;
                if !status.success() {
                    bail!(
                        "hubd ended with {status} after SIGTERM; its log says:\n{}",
                        self.log_tail()
                    );
                }
                Ok(())
            }
            Err(_) => {
                // Dropping the child kills it.
                bail!("hubd was told to stop and went on for {} s", PATIENCE.as_secs());
            }
        }
    }

    /// The last lines of the hub's log.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn edit_config(&mut self) -> Result<()> {
        let path = self.hub_dir().join("hubd.toml");
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut config: toml::Table = text
            .parse()
            .with_context(|| format!("{} is not TOML", path.display()))?;
        let millis = |d: Duration| format!("{}ms", d.as_millis());
        let rate = self.options.requests_per_second;
        let rate = rate.map(|rate| ("devices", "requests_per_second", i64::from(rate).into()));
        for (section, key, value) in [
            ("gateway", "url", self.options.gateway.url.clone().into()),
            (
                "gateway",
                "deadline",
                toml::Value::from(millis(self.options.deadline)),
            ),
            (
                "gateway",
                "probe_interval",
                millis(self.options.probe_interval).into(),
            ),
            (
                "gateway",
                "max_in_flight",
                i64::from(self.options.max_in_flight).into(),
            ),
            ("discovery", "enabled", self.options.discovery.into()),
        ]
        .into_iter()
        .chain(rate)
        {
            let section = config.entry(section).or_insert_with(|| toml::Table::new().into());
            if let Some(section) = section.as_table_mut() {
                section.insert(key.to_owned(), value);
            }
        }
        std::fs::write(&path, config.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn hubctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.options.binaries.hubctl);
        command
            .arg("--dir")
            .arg(self.hub_dir())
            .args(arguments)
            .arg("--json");
        command
    }

    /// Runs `hubctl` with `--json` and reads its answer.
    pub async fn ctl(&self, arguments: &[&str]) -> Result<Value> {
        ctl::json(self.hubctl(arguments), &format!("hubctl {}", arguments.join(" "))).await
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Two UDP ports that are free now.
fn free_ports() -> Result<(u16, u16)> {
    let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("no free UDP port");
    let (one, two) = (bind()?, bind()?);
    Ok((one.local_addr()?.port(), two.local_addr()?.port()))
}

#[cfg(test)]
mod tests {
    use super::HEAP;

    #[test]
    fn a_hub_is_measured_with_the_memory_that_the_service_gives_it() {
        let unit = include_str!("../../systemd/hubd.service");
        let given: Vec<_> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
            .filter(|(name, _)| name.starts_with("MALLOC_"))
            .collect();
        assert_eq!(given, HEAP);
    }
}
