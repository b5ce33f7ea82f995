//! A copy of the project that is patched, built and tested.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use hub_sim::patch::mirror;
use hub_tests::defences::Defence;
use rustix::process::{Pid, Signal, kill_process_group};

/// The longest that the tests of one defence may run.
const PATIENCE: Duration = Duration::from_secs(300);

/// The longest text of a failure that is kept, in characters.
const TEXT: usize = 160;

/// What whole-system tests start.
const PROGRAMS: [&str; 3] = ["hubd", "hubctl", "sim-devices"];

/// A target with tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    package: String,
    /// `lib`, or the name of an integration test.
    name: String,
    /// The package's folder, from the project's.
    folder: &'static str,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// It ran and failed, with what it said first.
    Failed(String),
    /// Neither: it was ended, or took the whole program down.
    Ended,
}

/// The copy, and where it is built.
pub(crate) struct Workshop {
    /// The copy of the project's folder.
    pub(crate) copy: PathBuf,
    build: PathBuf,
    jobs: Option<u32>,
    /// Nobody else patches the same copy meanwhile.
    _lock: File,
}

impl Target {
    pub(crate) fn of(defence: &Defence) -> Result<Self> {
        Ok(Self {
            package: defence.package.clone(),
            name: defence.target.clone(),
            folder: defence.folder()?,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.package, self.name)
    }
}

impl Workshop {
    /// Brings the copy up to date: the project without what was built of it.
    pub(crate) fn open(project: &Path, target: &Path, jobs: Option<u32>) -> Result<Self> {
        let scratch = target.join("defences");
        fs::create_dir_all(&scratch)?;
        let lock = File::create(scratch.join("lock"))?;
        lock.try_lock()
            .context("another run is at work in the same target folder; wait until it ends")?;
        let copy = scratch.join("source");
        let built = |path: &Path| path == target || path.ends_with("target") || path.ends_with(".git");
        mirror(project, &copy, &built).context("cannot copy the sources")?;
        let build = scratch.join("build");
        Ok(Self {
            copy,
            build,
            jobs,
            _lock: lock,
        })
    }

    /// Builds a target's tests, and the programs where the tests start them.
    /// Gives the program that runs them, or what the compiler said.
    pub(crate) fn build(&self, target: &Target) -> Result<Result<PathBuf, String>> {
        let mut cargo = match target.package == "hub-tests" {
            true => self.cargo(&["build"]),
            false => self.cargo(&["test", "--no-run"]),
        };
        cargo.args(["--message-format=json", "--package", &target.package]);
        match &*target.name {
            "lib" => cargo.arg("--lib"),
            name => cargo.args(["--test", name]),
        };
        if target.package == "hub-tests" {
            // In one go, so that nothing is built twice for other features.
            for package in ["hubd", "sim-devices"] {
                cargo.args(["--package", package]);
            }
            for program in PROGRAMS {
                cargo.args(["--bin", program]);
            }
        }
        let built = cargo.output().context("cannot start cargo")?;
        if !built.status.success() {
            return Ok(Err(complaints(&built.stdout, &built.stderr)));
        }
        if target.package == "hub-tests" {
            self.call_programs_new()?;
        }
        let program = String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .filter(|message| message["profile"]["test"] == true)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        Ok(Ok(program.with_context(|| format!("{target} has no tests"))?))
    }

    /// The tests build the programs anew if a source is newer than they are:
    /// also one that a program is not built from.
    fn call_programs_new(&self) -> Result<()> {
        for program in PROGRAMS {
            let file = File::open(self.build.join("debug").join(program))?;
            file.set_modified(SystemTime::now())?;
        }
        Ok(())
    }

    fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(args)
            .args(["--offline", "--quiet"])
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", &self.build)
            .stdin(Stdio::null());
        if let Some(jobs) = self.jobs {
            cargo.arg("--jobs").arg(jobs.to_string());
        }
        cargo
    }

    /// Runs tests by name, and says what came of each. They are ended, with
    /// whatever they have started, when they take too long.
    pub(crate) fn run(
        &self,
        target: &Target,
        program: &Path,
        tests: &[String],
    ) -> Result<BTreeMap<String, Verdict>> {
        let folder = self.copy.join(target.folder);
        let listed = Command::new(program)
            .args(["--list", "--format=terse"])
            .current_dir(&folder)
            .output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let paths: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.strip_suffix(": test"))
            .filter(|path| tests.iter().any(|test| own_name(path) == test))
            .collect();
        let said = self.build.join("said");
        let mut child = Command::new(program)
            .arg("--exact")
            .args(&paths)
            .current_dir(&folder)
            .env("CARGO_MANIFEST_DIR", &folder)
            .env("CARGO_TARGET_DIR", &self.build)
            .env("RUST_BACKTRACE", "0")
            // That it fails is enough: the smallest case is not needed.
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("INSTA_UPDATE", "no")
            .stdin(Stdio::null())
            .stdout(File::create(&said)?)
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start the tests of {target}"))?;
        let began = Instant::now();
        while child.try_wait()?.is_none() {
            if began.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // Programs that a failed test left behind; most often there are none.
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let mut text = Vec::new();
        File::open(&said)?.read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        Ok(paths
            .iter()
            .map(|path| (own_name(path).to_owned(), verdict(&text, path)))
            .collect())
    }
}

/// A test's name without its modules.
fn own_name(path: &str) -> &str {
    path.rsplit("::").next().unwrap_or(path)
}

/// What the test program said of one test.
fn verdict(text: &str, path: &str) -> Verdict {
    let is = |line: &str, end: &str| line.starts_with(&format!("test {path} ")) && line.ends_with(end);
    if text.lines().any(|line| is(line, "... ok")) {
        return Verdict::Passed;
    }
    if !text.lines().any(|line| is(line, "... FAILED")) {
        return Verdict::Ended;
    }
    let own = text
        .split_once(&format!("---- {path} stdout ----"))
        .map_or("", |(_, own)| own);
    let own = own.split("\n---- ").next().unwrap_or_default();
    // "thread NAME panicked at FILE:LINE:COLUMN:", and then the message.
    let mut lines = own.lines().skip_while(|line| !line.contains("panicked at "));
    let place = lines
        .next()
        .and_then(|line| line.split("panicked at ").nth(1))
        .unwrap_or_default();
    let message: Vec<&str> = lines
        .take_while(|line| !line.starts_with("note: ") && !line.is_empty())
        .map(str::trim)
        .collect();
    let whole = if place.is_empty() {
        own.trim().lines().next().unwrap_or_default().to_owned()
    } else {
        format!("{place} {}", message.join(" "))
    };
    Verdict::Failed(whole.chars().take(TEXT).collect())
}

/// The first error of a build.
fn complaints(messages: &[u8], errors: &[u8]) -> String {
    let rendered = String::from_utf8_lossy(messages)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["message"]["level"] == "error")
        .find_map(|message| message["message"]["rendered"].as_str().map(str::to_owned));
    rendered.unwrap_or_else(|| String::from_utf8_lossy(errors).into_owned())
}
