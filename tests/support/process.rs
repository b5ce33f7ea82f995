//! Processes that end with the test, by their own id.
#![allow(clippy::disallowed_methods)] // tests wait for real processes, in real time

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The programs as shipped, built if need be.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The daemon.
    pub hubd: PathBuf,
    /// Its command line.
    pub hubctl: PathBuf,
    /// Gateway and devices.
    pub sim: PathBuf,
}

impl Programs {
    /// Those beside this test, if they are newer than all sources, as cargo
    /// leaves them before it runs the workspace's tests; otherwise built.
    pub fn find() -> Result<Self> {
        let own = std::env::current_exe()?;
        let beside = own
            .parent()
            .and_then(Path::parent)
            .context("this test is in no target folder")?;
        let [hubd, hubctl, sim] = ["hubd", "hubctl", "sim-devices"].map(|name| beside.join(name));
        let sources = newest_source(&workspace())?;
        let fresh = |program: &Path| {
            program
                .metadata()
                .and_then(|m| m.modified())
                .is_ok_and(|built| built > sources)
        };
        if !(fresh(&hubd) && fresh(&hubctl) && fresh(&sim)) {
            build(beside)?;
        }
        Ok(Self { hubd, hubctl, sim })
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// When a source file was last changed.
fn newest_source(dir: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let holds_sources = !name.starts_with('.') && !matches!(&*name, "target" | "docs" | "tests");
            if holds_sources {
                newest = newest.max(newest_source(&entry.path())?);
            }
        } else if name.ends_with(".rs") || name == "Cargo.lock" {
            newest = newest.max(entry.metadata()?.modified()?);
        }
    }
    Ok(newest)
}

fn build(beside: &Path) -> Result<()> {
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build
        .args(["build", "--workspace", "--bins", "--manifest-path"])
        .arg(workspace().join("Cargo.toml"));
    if let Some(target) = beside.parent() {
        build.arg("--target-dir").arg(target);
    }
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    if !build.status().context("cannot start cargo")?.success() {
        bail!("the programs do not build");
    }
    Ok(())
}

/// A running process whose standard output is read line by line.
pub struct Process {
    name: String,
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Process {
    /// Starts it. Its standard error goes to this process's.
    pub fn start(name: &str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let out = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            name: name.to_owned(),
            child,
            lines,
        })
    }

    /// The next line of its output.
    pub fn line(&self) -> Result<String> {
        self.lines
            .recv_timeout(PATIENCE)
            .with_context(|| format!("{} said nothing more", self.name))
    }

    /// The next line that holds `needle`.
    pub fn line_with(&self, needle: &str) -> Result<String> {
        loop {
            let line = self.line()?;
            if line.contains(needle) {
                return Ok(line);
            }
        }
    }

    /// Waits until it ends.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                bail!("{} does not end", self.name);
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Whether it has not ended yet.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::TERM)
    }

    /// SIGINT, and waits.
    pub fn interrupt(&mut self) -> Result<ExitStatus> {
        self.signal(rustix::process::Signal::INT)
    }

    fn signal(&mut self, signal: rustix::process::Signal) -> Result<ExitStatus> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(pid.context("no process id")?, signal)?;
        self.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command to its end and gives its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output()?;
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    if !done.status.success() {
        bail!("{command:?} ended with {}: {out}{err}", done.status);
    }
    Ok(out.into_owned())
}

/// Asks again until the answer is there.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Ok(answer);
        }
        if Instant::now() > end {
            bail!("waited in vain for {what}");
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}
